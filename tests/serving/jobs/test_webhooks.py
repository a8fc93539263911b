import contextlib
import errno
import hashlib
import hmac
import http.server
import json
import logging
import socket
import threading
import time

import pytest

from jdfd_keras.options import PredictOptions
from jdfd_keras.serving.jobs import webhooks as module
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import JobError, Outcome, Submission
from jdfd_keras.serving.jobs.webhooks import Webhooks, sign, verify_signature

SECRET = "a secret"
DONE = Outcome({"files": ["the whole result"]}, "fake", 0.9)


class Receiver(http.server.ThreadingHTTPServer):
    """A server on this machine that keeps requests, and answers with prepared statuses."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.statuses, self.location = [], [], ""
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}/done?a=b"

    def wait(self, count=1, timeout_s=20.0):
        """Return the requests once there are so many."""
        end = time.monotonic() + timeout_s
        while len(self.requests) < count and time.monotonic() < end:
            time.sleep(0.01)
        return self.requests


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers), b"GET"))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    """Serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver():
    with serving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path):
    with JobStore(path, max_queued=99) as store:
        yield store


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch):
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.02)


def finish(store, url, outcome=DONE, number=0):
    """Submit and finish a job with a callback."""
    file = Submission(f"{number:064x}", 9, ".mp4", "", PredictOptions(), False, "ab", "CPU")
    job, _ = store.submit(file, "clip.mp4", url)
    key, _ = store.claim()
    store.finish(key, outcome)
    return store.get(job.id)


def wait_for(store, job, state, timeout_s=20.0):
    """Return the callback of a job once it is in a state, or after the timeout."""
    end = time.monotonic() + timeout_s
    while (callback := store.callbacks.find(job.id)).state != state and time.monotonic() < end:
        time.sleep(0.01)
    return callback


def is_signed(headers, body):
    """Return whether a request has the signature that an independent receiver computes."""
    message = headers["X-JDFD-Timestamp"].encode() + b"." + body
    digest = hmac.digest(SECRET.encode(), message, hashlib.sha256).hex()
    return headers["X-JDFD-Signature"] == f"sha256={digest}"


def test_a_finished_job_is_posted_once_with_a_signature(store, receiver):
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        job = finish(store, receiver.url)
        callback = wait_for(store, job, "sent")
        time.sleep(0.1)
    [(target, headers, body)] = receiver.requests
    assert (callback.attempts, callback.error) == (1, "")
    assert target == "/done?a=b"
    assert headers["X-JDFD-Delivery"] == job.id
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == receiver.host
    assert abs(int(headers["X-JDFD-Timestamp"]) - time.time()) < 60
    assert is_signed(headers, body)
    assert verify_signature(SECRET, headers["X-JDFD-Timestamp"], body, headers["X-JDFD-Signature"])
    assert json.loads(body) == {
        "id": job.id,
        "state": "done",
        "name": "clip.mp4",
        "sha256": "0" * 64,
        "verdict": "fake",
        "score": 0.9,
        "error": None,
        "finished_at": job.finished_at,
    }
    assert SECRET.encode() not in body
    assert SECRET not in str(headers)


def test_a_failed_job_is_posted_with_its_reason(store, receiver):
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        error = JobError("undecodable", f"got files/{'0' * 64}.mp4, not a video")
        finish(store, receiver.url, Outcome({"failed": []}, error=error))
        [(_, _, body)] = receiver.wait()
    posted = json.loads(body)
    assert (posted["state"], posted["verdict"], posted["score"]) == ("failed", "", None)
    assert posted["error"] == {"code": "undecodable", "message": "got files/clip.mp4, not a video"}


def test_a_callback_is_sent_for_each_job_of_an_analysis_also_a_later_one(store, receiver):
    first = finish(store, receiver.url)
    second, _ = store.submit(first.submission, "other.mp4", receiver.url)
    store.submit(first.submission, "quiet.mp4")
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        wait_for(store, first, "sent")
        wait_for(store, second, "sent")
    assert {json.loads(body)["id"] for _, _, body in receiver.requests} == {first.id, second.id}
    assert len(receiver.requests) == 2


def test_a_callback_is_sent_again_until_it_is_received(store, receiver):
    receiver.statuses = [500, 404, 503]
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        job = finish(store, receiver.url)
        assert wait_for(store, job, "sent").attempts == 4
    assert len(receiver.requests) == 4
    assert {headers["X-JDFD-Delivery"] for _, headers, _ in receiver.requests} == {job.id}
    assert len({body for _, _, body in receiver.requests}) == 1
    assert all(is_signed(headers, body) for _, headers, body in receiver.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(store, receiver, status):
    with serving(Receiver()) as other:
        receiver.statuses, receiver.location = [status], other.url
        with Webhooks(store, SECRET, frozenset({receiver.host, other.host})):
            job = finish(store, receiver.url)
            assert wait_for(store, job, "sent").attempts == 2
        assert other.requests == []
    assert [body[:5] for _, _, body in receiver.requests] == [b'{"id"'] * 2


def test_a_callback_is_sent_after_a_restart_of_the_store(path, receiver):
    with JobStore(path, max_queued=9) as store:
        job = finish(store, receiver.url)
        receiver.statuses = [500]
        [callback] = store.callbacks.due(time.time())
        store.callbacks.mark_failed(callback.number, "status 500", time.time())
    receiver.statuses = []
    with (
        JobStore(path, max_queued=9) as store,
        Webhooks(store, SECRET, frozenset({receiver.host})),
    ):
        assert wait_for(store, job, "sent").attempts == 2
    assert len(receiver.requests) == 1


def test_what_is_interrupted_by_a_stop_is_sent_by_the_next_server(path):
    closed = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    with JobStore(path, max_queued=9) as store, Webhooks(store, SECRET, frozenset({host})):
        job = finish(store, f"http://{host}/")
        end = time.monotonic() + 20
        while not store.callbacks.find(job.id).attempts and time.monotonic() < end:
            time.sleep(0.01)
    with JobStore(path, max_queued=9) as store:
        callback = store.callbacks.find(job.id)
        assert callback.state == "waiting"
        assert "NewConnectionError" in callback.error


def test_a_callback_that_could_not_be_recorded_as_sent_is_sent_again(
    store, receiver, monkeypatch, caplog
):
    """As after a kill between the answer and its record."""
    monkeypatch.setattr(module, "STORE_RETRY_S", 0.01)
    mark_sent, failures = store.callbacks.mark_sent, [OSError(errno.ENOSPC, "full")]

    def fail_once(number):
        if failures:
            raise failures.pop()
        mark_sent(number)

    monkeypatch.setattr(store.callbacks, "mark_sent", fail_once)
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        job = finish(store, receiver.url)
        wait_for(store, job, "sent")
    assert [headers["X-JDFD-Delivery"] for _, headers, _ in receiver.requests] == [job.id] * 2
    assert "Callbacks wait" in caplog.text


def test_a_host_that_is_no_longer_allowed_gets_nothing(store, receiver):
    job = finish(store, receiver.url)
    with Webhooks(store, SECRET, frozenset({"example.org"})):
        end = time.monotonic() + 20
        while not store.callbacks.find(job.id).attempts and time.monotonic() < end:
            time.sleep(0.01)
    callback = store.callbacks.find(job.id)
    assert (callback.state, receiver.requests) == ("waiting", [])
    assert callback.error.startswith("Expected a callback to an allowed host; got 127.0.0.1:")


def test_a_callback_is_given_up_after_a_day_and_its_url_is_not_logged(
    store, receiver, monkeypatch, caplog
):
    monkeypatch.setattr(module, "GIVE_UP_AFTER_S", 1.0)
    receiver.statuses = [500] * 99
    with (
        caplog.at_level(logging.WARNING),
        Webhooks(store, SECRET, frozenset({receiver.host})),
    ):
        job = finish(store, receiver.url + "&token=abc")
        callback = wait_for(store, job, "given_up")
    assert (callback.error, len(receiver.requests)) == ("status 500", callback.attempts)
    assert callback.attempts >= 2
    assert store.callbacks.due(time.time() + 10**6) == []
    assert f"Callback of job {job.id} to {receiver.host} given up: status 500" in caplog.text
    assert "token" not in caplog.text
    assert SECRET not in caplog.text


def test_the_time_between_attempts_doubles_up_to_an_hour(monkeypatch):
    monkeypatch.undo()
    delays = [module._retry_delay(attempts) for attempts in range(40)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[11:14] == [2048, 3600, 3600]
    assert sum(delays[:36]) > module.GIVE_UP_AFTER_S > sum(delays[:30])
    assert module._retry_delay(10**9) == 3600


def test_an_answer_that_does_not_end_is_a_failure(store, monkeypatch):
    """Each byte is in time, but the header is not."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    is_over = threading.Event()

    def drip(server):
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 ")
                while not is_over.wait(0.05):
                    connection.sendall(b"0")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with Webhooks(store, SECRET, frozenset({host})):
            job = finish(store, f"http://{host}/")
            while not store.callbacks.find(job.id).attempts and time.monotonic() < start + 20:
                time.sleep(0.01)
        took_s = time.monotonic() - start
        is_over.set()
        thread.join()
    assert store.callbacks.find(job.id).error
    assert took_s < 10


def test_a_large_answer_is_not_read(store):
    sent = []

    def flood(server):
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            for _ in range(1000):
                connection.sendall(bytes(1_000_000))
                sent.append(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=flood, args=(server,))
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with Webhooks(store, SECRET, frozenset({host})):
            job = finish(store, f"http://{host}/")
            assert wait_for(store, job, "sent").attempts == 1
        thread.join()
    assert len(sent) < 100


def test_a_host_that_cannot_be_reached_gets_one_attempt_and_not_one_for_each_job(
    store, receiver, monkeypatch
):
    monkeypatch.setattr(module, "FIRST_RETRY_S", 30.0)
    closed = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    jobs = [finish(store, f"http://{host}/", number=number) for number in range(5)]
    other = finish(store, receiver.url, number=5)
    with Webhooks(store, SECRET, frozenset({host, receiver.host})):
        assert wait_for(store, other, "sent").attempts == 1
    assert sum(store.callbacks.find(job.id).attempts for job in jobs) == 1
    assert all(store.callbacks.find(job.id).due_at > time.time() + 10 for job in jobs)


def test_the_proxy_of_the_environment_is_not_used(store, receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with Webhooks(store, SECRET, frozenset({receiver.host})):
        job = finish(store, receiver.url)
        assert wait_for(store, job, "sent").attempts == 1


def test_a_deleted_job_has_no_callback(store, receiver):
    job = finish(store, receiver.url)
    [callback] = store.callbacks.due(time.time())
    store.delete(job.id)
    assert store.callbacks.due(time.time()) == []
    store.callbacks.mark_sent(callback.number)
    assert store.callbacks.find(job.id) is None


def test_a_job_that_is_queued_again_tells_its_new_end_only(store, receiver):
    job = finish(store, receiver.url, Outcome({}, error=JobError("crashed", "killed")))
    [before] = store.callbacks.due(time.time())
    store.submit(job.submission, "clip.mp4", receiver.url)
    assert store.callbacks.find(job.id) is None
    store.claim()
    store.finish(job.submission.key, DONE)
    store.callbacks.mark_sent(before.number)  # by a thread that was sending meanwhile
    [after] = store.callbacks.due(time.time())
    assert (after.job.state, after.attempts) == ("done", 0)


HOSTS = frozenset({"Hooks.example.org", "example.org:8443", "[::1]:8080"})


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "HTTPS://HOOKS.EXAMPLE.ORG/a?b=c",
        "http://hooks.example.org:80/",
        "https://hooks.example.org:443/",
        "https://example.org:8443/a",
        "http://[::1]:8080/a",
    ],
)
def test_a_callback_to_an_allowed_host_is_accepted(store, url):
    Webhooks(store, SECRET, HOSTS).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://example.org/",
        "https://hooks.example.org:8443/",
        "https://hooks.example.org./",
        "https://hooks.example.org.example.com/",
        "https://a.hooks.example.org/",
        "https://hooks.example.org@example.com/",
        "https://example.com\\@hooks.example.org/",
        "https://user:password@hooks.example.org/",
        "https://@hooks.example.org/",
        "https://hooks.example.org/#fragment",
        "https://hooks.example.org/#",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org:a/",
        "https://hooks.example.org /",
        "https://hooks.example.org/\r\nX-A: b",
        "https://hooks.example.org/\t",
        "https://hooks.examplé.org/",
        "https://hooks.example.org/\udc80",
        "https://hooks.exa%6dple.org/",
        "https://127.0.0.1/",
        "https://[::1/",
        "https:///a",
        "https:hooks.example.org",
        "//hooks.example.org/",
        "hooks.example.org",
        "ftp://hooks.example.org/",
        "file:///etc/hostname",
        "https://hooks.example.org/" + "a" * 2048,
        "",
    ],
)
def test_a_callback_to_anything_else_is_refused(store, url):
    with pytest.raises(ValueError, match=r"^Expected .+; got .+\. Try ") as caught:
        Webhooks(store, SECRET, HOSTS).check(url)
    assert "password" not in str(caught.value).replace("user, password", "").replace(
        "user or password", ""
    )


def test_without_a_secret_no_callback_is_accepted(store):
    with pytest.raises(ValueError, match="no --callback-secret"):
        Webhooks(store, "", HOSTS).check("https://hooks.example.org/")


def test_the_signature_is_hmac_sha256_of_timestamp_and_body():
    # `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`
    expected = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    assert sign("secret", "1700000000", b"{}") == f"sha256={expected}"


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({}, True),
        ({"now": 1700000299.0}, True),
        ({"now": 1700000301.0}, False),
        ({"now": 1699999699.0}, False),
        ({"now": 1700000301.0, "tolerance_s": 400.0}, True),
        ({"secret": "other"}, False),
        ({"body": b"{ }"}, False),
        ({"timestamp": "1700000001"}, False),
        ({"timestamp": "1700000000.0"}, False),
        ({"timestamp": ""}, False),
        ({"timestamp": "9" * 5000}, False),
        ({"timestamp": "١"}, False),
        ({"signature": ""}, False),
        ({"signature": "sha256=é\udc80"}, False),
    ],
)
def test_a_receiver_refuses_what_is_changed_or_old(change, is_valid):
    values = {"secret": "secret", "timestamp": "1700000000", "body": b"{}", "now": 1700000000.0}
    values["signature"] = sign("secret", "1700000000", b"{}")
    assert verify_signature(**values | change) == is_valid
