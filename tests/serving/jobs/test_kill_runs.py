"""A server that is killed at random moments loses nothing and does nothing twice.

Files are submitted and analysed meanwhile, with the shipped detector and over HTTP.
"""

import contextlib
import hashlib
import http.client
import json
import os
import random
import sqlite3
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import cv2
import numpy as np
import psutil
import pytest

from jdfd_keras.serving.jobs.webhooks import verify_signature
from tests.serving.jobs.app_process import AppProcess
from tests.serving.jobs.callback_receiver import CallbackHandler, serve_callbacks
from tests.serving.jobs.fake_service import SECRET
from tests.serving.jobs.json_differences import VARYING, find_differences
from tests.serving.jobs.real_service import wait_until

NUM_KILLS = 6
LONGEST_S = 2.5  # from the start to a kill
NUM_CLIENTS = 3
CHUNK_S = 0.05  # between the parts of an upload, so that some are cut off
EXPECTED = {"sea.png": ("failed", "no_face"), "text.mp4": ("failed", "undecodable")}


@dataclass(frozen=True)
class Request:
    """A file, and what is asked for it."""

    name: str
    data: bytes
    options: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Receiver(CallbackHandler):
    """Keeps the callbacks that it is sent; refuses one in three."""

    def receive(self, body):
        server = self.server
        with server.lock:
            server.count += 1
            is_refused = server.count % 3 == 1
            if not is_refused:
                server.received.append((dict(self.headers), body))
                server.delivered.add(self.headers["X-JDFD-Delivery"])
        return 500 if is_refused else 204


@pytest.fixture
def receiver():
    with serve_callbacks(Receiver) as server:
        server.delivered, server.count, server.lock = set(), 0, threading.Lock()
        yield server


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Videos that take a while, an image, and files without a verdict."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import find_portrait, make_videos, vary_portrait

    folder = tmp_path_factory.mktemp("clips")
    portrait = astronaut()
    [other] = vary_portrait(portrait, 1, 0)
    paths = make_videos(find_portrait("astronaut", portrait), other, folder, seed=0)
    real, fake = (path.read_bytes() for path in paths)
    # A box that players skip: another file, and a long upload.
    large = fake + struct.pack(">I4s", 2**22, b"free") + bytes(2**22 - 8)
    sea = cv2.imencode(".png", np.full((90, 120, 3), 99, np.uint8))[1].tobytes()
    image = cv2.imencode(".jpg", portrait[..., ::-1])[1].tobytes()
    return [
        Request("image.jpg", image),
        Request("sea.png", sea),
        Request("real.mp4", real, {"every": "2"}),
        Request("text.mp4", b"not a video"),
        Request("large.mp4", large),
        # The same bytes and another analysis; another name of the same analysis.
        Request("fake.mp4", fake, {"every": "2"}),
        Request("fake 0.8.mp4", fake, {"every": "2", "threshold": "0.8"}),
        Request("also real.mp4", real, {"every": "2"}),
    ]


def send(url, method, path, body=None):
    """Return the status and the JSON of a request."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    with contextlib.closing(connection):
        headers = {"Content-Length": str(len(body))} if body is not None else {}
        parts = (body[start : start + 2**19] for start in range(0, len(body or b""), 2**19))

        def slowly():
            for part in parts:
                yield part
                time.sleep(CHUNK_S)

        connection.request(method, path, slowly() if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def submit(url, request, **fields):
    """Submit a file; return the id of its job."""
    query = urlencode({"name": request.name} | request.options | fields)
    status, document = send(url, "POST", f"/v1/files?{query}", request.data)
    assert status in (200, 202), document
    return document["id"]


def wait_for_end(url, ids):
    """Return the documents of jobs once all have ended."""
    documents = {}

    def have_ended():
        for name, job_id in ids.items():
            documents[name] = send(url, "GET", f"/v1/files/{job_id}")[1]
        return all(one["state"] in ("done", "failed") for one in documents.values())

    wait_until(have_ended, 300)
    return documents


def list_ended(url):
    """Return the id of each job that has ended, and when."""
    jobs = send(url, "GET", "/v1/files")[1]["files"]
    return {job["id"]: job["finished_at"] for job in jobs if job["finished_at"]}


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_double_nothing(requests, receiver, tmp_path):
    state = tmp_path / "state"
    host = f"127.0.0.1:{receiver.server_port}"
    words = ("--workers", "2", "--callback-hosts", host)
    secret = {"JDFD_KERAS_CALLBACK_SECRET": SECRET}
    rng = random.Random(0)
    url, ids, groups, ended, is_over = "", {}, [], {}, threading.Event()

    def keep_submitting(request):
        # As a client that is careful: the same request until it is answered.
        while request.name not in ids and not is_over.is_set():
            try:
                ids[request.name] = submit(url, request, callback=f"http://{host}/done")
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)

    with ThreadPoolExecutor(NUM_CLIENTS) as clients, contextlib.ExitStack() as stack:
        stack.callback(is_over.set)  # so that the clients end if the test fails
        for number in range(NUM_KILLS):
            with AppProcess(state, *words, environment=secret) as app:
                groups.append(app.process.pid)
                url = app.url
                if number == 0:
                    submitted = [clients.submit(keep_submitting, request) for request in requests]
                time.sleep(rng.uniform(0, LONGEST_S))
                ended |= list_ended(url)
                # Its processes end by themselves if it alone is killed.
                app.kill(is_alone=number % 2 == 1)
        with AppProcess(state, *words, environment=secret) as app:
            groups.append(app.process.pid)
            url = app.url
            for one in submitted:
                one.result()
            documents = wait_for_end(url, ids)
            last = list_ended(url)
            total = send(url, "GET", "/v1/files")[1]["total"]
            wait_until(lambda: receiver.delivered == set(ids.values()))
            wait_until(lambda: list((state / "incoming").iterdir()) == [])
    assert total == len(requests) == len(set(ids.values())) == 8
    # What had ended before a kill was not done again.
    assert ended == {job_id: last[job_id] for job_id in ended}

    for request in requests:
        document = documents[request.name]
        assert (document["name"], document["sha256"]) == (request.name, request.sha256)
        code = document["error"] and document["error"]["code"]
        assert (document["state"], code) == EXPECTED.get(request.name, ("done", None))
    kept = {path.name for path in (state / "files").iterdir()}
    assert kept == {f"{one.sha256}.{one.name.split('.')[-1]}" for one in requests}

    with contextlib.closing(sqlite3.connect(state / "jobs.sqlite")) as database:
        [jobs] = database.execute("SELECT COUNT(*) FROM jobs").fetchone()
        analyses = database.execute("SELECT state, attempts FROM analyses").fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (jobs, len(analyses)) == (8, 7)
    assert {one for one, _ in analyses} == {"done", "failed"}
    attempts = [count for _, count in analyses]
    assert min(attempts) == 1 < max(attempts), "no analysis was interrupted"

    by_id = {job_id: name for name, job_id in ids.items()}
    for headers, body in receiver.received:
        sent = json.loads(body)
        signed = headers["X-JDFD-Timestamp"], body, headers["X-JDFD-Signature"]
        assert verify_signature(SECRET, *signed)
        document = documents[by_id[sent["id"]]]
        assert headers["X-JDFD-Delivery"] == sent["id"]
        assert sent == {name: document[name] for name in sent}

    wait_until(lambda: not find_processes(groups), 60)
    with AppProcess(tmp_path / "undisturbed", "--workers", "2") as app:
        undisturbed = wait_for_end(app.url, {one.name: submit(app.url, one) for one in requests})
    for name, document in undisturbed.items():
        assert find_differences(documents[name]["result"], document["result"]) <= VARYING, name


def find_processes(groups):
    """Return the processes of these process groups that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            has_ended = process.status() == psutil.STATUS_ZOMBIE
            if not has_ended and os.getpgid(process.pid) in groups:
                found.append(process)
    return found
