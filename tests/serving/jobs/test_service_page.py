"""The requests and the Python of docs/service.md work as shown."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from jdfd_keras.serving.jobs.job_types import JOB_CODES
from jdfd_keras.serving.jobs.openapi import describe_api
from jdfd_keras.serving.jobs.request_errors import REQUEST_CODES
from tests.serving.jobs.callback_receiver import CallbackHandler, serve_callbacks
from tests.serving.jobs.fake_service import SECRET, TOKEN, serve_fake
from tests.serving.jobs.real_service import running_service, serving, wait_until

PAGE = (Path(__file__).parents[3] / "docs/service.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8501"
CALLBACK = "https://intake.example.org"


class Receiver(CallbackHandler):
    """Keeps what is posted to it."""

    def receive(self, body):
        self.server.received.append((self.path, self.headers, body))
        return 204


@pytest.fixture
def receiver():
    """A server of callbacks on this machine."""
    with serve_callbacks(Receiver) as server:
        yield server


def read_requests():
    """The lines of curl on the page, in order."""
    return re.findall(r"^    (curl .*)$", PAGE, flags=re.MULTILINE)


def run_line(line, folder):
    """Run a line of the page as a reader does; it must succeed with an answer of 2xx."""
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    line = line.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_the_requests_of_the_page_work(clips_folder, receiver, tmp_path):
    root = tmp_path / "root"
    (root / "2026").mkdir(parents=True)
    clip = min(clips_folder.rglob("real/*.mp4"))
    for target in (tmp_path, root / "2026"):
        shutil.copy(clip, target / "clip.mp4")
    (tmp_path / "token.txt").write_text(TOKEN)
    callback = f"http://127.0.0.1:{receiver.server_port}"
    options = {"root": str(root), "callback_secret": SECRET}
    options["callback_hosts"] = callback.removeprefix("http://")
    schemas = describe_api()["components"]
    jobs = []
    with running_service(tmp_path / "state", **options) as service, serving(service) as server:
        for line in read_requests():
            assert f"{HERE}/" in line
            line = line.replace(HERE, server.url).replace(CALLBACK, callback)
            if "ID" in line:
                job = jobs[-1]
                wait_until(lambda job=job: service.get(job["id"]).state == "done")
                line = line.replace("/ID", f"/{job['id']}")
            answer = run_line(line, tmp_path)
            if " -O " in line:
                assert (tmp_path / line.rsplit("/", 1)[1]).stat().st_size > 1000
                continue
            answer = json.loads(answer)
            if "files" in answer:
                assert answer["total"] == len({job["id"] for job in jobs})
                continue
            schema = {"$ref": "#/components/schemas/JobDocument", "components": schemas}
            jsonschema.validate(answer, schema, cls=jsonschema.Draft202012Validator)
            jobs.append(answer)
        form, raw, found, annotated, in_place, called_back = jobs
        assert form["id"] == raw["id"] == found["id"]
        assert found["result"]["paths"] == ["clip.mp4"]
        assert (annotated["options"]["threshold"], annotated["options"]["annotate"]) == (0.8, True)
        assert in_place["id"] not in (form["id"], annotated["id"])
        assert called_back["sha256"] == form["sha256"]
        wait_until(lambda: receiver.received)
    [(path, headers, body)] = receiver.received
    assert path == "/done"
    sent = json.loads(body)
    assert sent["id"] == called_back["id"]
    named = PAGE.split("gets a POST of JSON with ")[1].split(", at least once")[0]
    assert set(re.findall(r"`(\w+)`", named)) == sent.keys()
    [code] = re.findall(r"    import hashlib, hmac, time\n.*?return [^\n]*", PAGE, re.DOTALL)
    names = {}
    exec(re.sub("^    ", "", code, flags=re.MULTILINE), names)
    is_genuine = names["is_genuine"]
    assert is_genuine(SECRET, headers, body)
    assert not is_genuine("another secret", headers, body)
    assert not is_genuine(SECRET, headers, body.replace(b"done", b"gone"))
    signature = headers["X-JDFD-Signature"]
    old = {"X-JDFD-Timestamp": str(int(time.time()) - 999), "X-JDFD-Signature": signature}
    assert not is_genuine(SECRET, old, body)


def test_the_request_with_a_token_needs_it(tmp_path):
    [line] = [line for line in read_requests() if "Authorization" in line]
    with serve_fake(tmp_path / "server", token=TOKEN) as server:
        line = line.replace(HERE, server.url)
        (tmp_path / "token.txt").write_text(f"{TOKEN}\n")
        assert json.loads(run_line(line, tmp_path)) == {"files": [], "total": 0}
        (tmp_path / "token.txt").write_text("another token of these")
        with pytest.raises(AssertionError, match="error: 401"):
            run_line(line, tmp_path)


def test_the_page_has_every_code_with_its_status():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([\w, ]+) \|", PAGE, flags=re.MULTILINE)
    requests, jobs = {}, set()
    for names, statuses in rows:
        names, statuses = re.findall(r"\w+", names), statuses.split(", ")
        if statuses == ["job"]:
            jobs.update(names)
        else:
            requests |= dict(zip(names, map(int, statuses * len(names)), strict=False))
    assert requests == REQUEST_CODES
    assert jobs == set(JOB_CODES)
