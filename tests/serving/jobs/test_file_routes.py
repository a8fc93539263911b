"""The HTTP interface: submissions, states, downloads, deletion, and the codes of errors."""

import asyncio
import errno
import hashlib
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jdfd_keras.serving.jobs import file_routes
from jdfd_keras.serving.jobs.http_responses import describe_disposition
from jdfd_keras.serving.jobs.job_types import JobError, QueueFullError
from tests.serving.jobs.fake_service import RESULT, serve_fake

UNKNOWN = f"/v1/files/{'0' * 32}"


def code_of(response):
    status, document, _ = response
    return status, document["error"]["code"]


def test_a_job_goes_from_queued_to_done(server):
    status, job, headers = server.upload()
    assert (status, job["state"], job["position"], job["progress"]) == (202, "queued", 1, 0.0)
    assert re.fullmatch(r"[0-9a-f]{32}", job["id"])
    assert (job["verdict"], job["score"], job["error"], job["result"]) == ("", None, None, None)
    assert job["links"]["self"] == headers["location"]
    assert job["links"]["report"] == ""
    server.service.store.claim()
    running = server.request("GET", job["links"]["self"])[1]
    assert (running["state"], running["progress"], running["position"]) == ("running", 0.5, 0)
    server.service.store.release(next(iter(server.service.store.live_names().keys)))
    server.service.finish()
    done = server.request("GET", job["links"]["self"])[1]
    assert (done["state"], done["progress"], done["verdict"], done["score"]) == (
        *("done", 1.0, "fake"),
        0.9,
    )
    assert done["result"] == RESULT
    assert done["links"]["report"] == f"{job['links']['self']}/report.html"


def test_a_failed_job_has_its_code_and_its_result(server):
    _, job, _ = server.upload()
    server.service.finish(JobError("undecodable", "Expected a video; got text."))
    status, failed, _ = server.request("GET", job["links"]["self"])
    assert (status, failed["state"], failed["error"]["code"]) == (200, "failed", "undecodable")
    assert failed["result"] == RESULT


def test_the_same_file_is_one_analysis(server):
    """The same name and options: the same job; another name: another job, done once with it."""
    first = server.upload("a.mp4")[1]
    status, again, _ = server.upload("a.mp4")
    assert (status, again["id"]) == (200, first["id"])
    status, named, _ = server.upload("b.mp4")
    assert (status, named["position"]) == (202, 1)
    assert named["id"] != first["id"]
    status, other, _ = server.upload("a.mp4", every="3")
    assert (status, other["position"]) == (202, 2)
    assert len(server.service.kept) == 1
    server.service.finish()
    states = [server.request("GET", j["links"]["self"])[1]["state"] for j in (first, named, other)]
    assert states == ["done", "done", "queued"]


def test_a_deleted_job_leaves_the_others(server):
    first, second = (server.upload(name)[1] for name in ("a.mp4", "b.mp4"))
    server.service.finish()
    status, body, _ = server.request("DELETE", first["links"]["self"])
    assert (status, body) == (204, b"")
    assert code_of(server.request("GET", first["links"]["self"])) == (404, "not_found")
    assert code_of(server.request("DELETE", first["links"]["self"])) == (404, "not_found")
    assert server.request("GET", second["links"]["self"])[1]["state"] == "done"


def test_jobs_are_listed_and_searched(server):
    jobs = [server.upload(f"Clip {n} <b>.mp4", b"%d" % n)[1] for n in range(3)]
    status, document, _ = server.request("GET", "/v1/files")
    assert (status, document["total"]) == (200, 3)
    assert [job["id"] for job in document["files"]] == [job["id"] for job in reversed(jobs)]
    assert "result" not in document["files"][0]
    for query, expected in [
        ("query=clip%201", [1]),
        ("query=%3CB%3E&limit=1&offset=1", [1]),
        (f"query={jobs[2]['sha256'][:9]}", [2]),
        ("query=%25", []),
        ("query=nothing", []),
        ("offset=2000000000", []),
    ]:
        found = server.request("GET", f"/v1/files?{query}")[1]["files"]
        assert [job["id"] for job in found] == [jobs[n]["id"] for n in expected], query


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "offset=-1", "limit=1&limit=2", "page=1", "limit=%D9%A3"],
)
def test_a_wrong_query_is_a_bad_request(server, query):
    assert code_of(server.request("GET", f"/v1/files?{query}")) == (400, "bad_request")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", "1.5"),
        ("threshold", "nan"),
        ("threshold", "-1"),
        ("threshold", "high"),
        ("frames_per_video", "0"),
        ("frames_per_video", "1.5"),
        ("frames_per_video", "9" * 5000),
        ("every", "-1"),
        ("tracks", "some"),
        ("detector", "yolo"),
        ("annotate", "yes"),
        ("callback", "https://good.example/" + "x" * 2000),
        ("face_size", "299"),
    ],
)
def test_a_wrong_option_is_refused_in_a_form_and_in_the_query(server, name, value):
    assert code_of(server.upload(**{name: value}))[1] == "bad_request"
    response = server.request("POST", f"/v1/files?name=a.mp4&{name}={value}", b"clip")
    assert response[0] == 400 or len(value) > 4000
    assert server.service.store.list()[1] == 0


def test_options_are_those_of_predict(server):
    _, job, _ = server.upload(threshold="0.25", tracks="largest", detector="mtcnn", annotate="true")
    assert job["options"] == {
        "threshold": 0.25,
        "frames_per_video": 32,
        "every": 0,
        "tracks": "largest",
        "detector": "mtcnn",
        "annotate": True,
    }


def test_a_callback_only_goes_to_an_allowed_host(server):
    refused = server.upload(callback="https://169.254.169.254/latest")
    assert code_of(refused) == (403, "callback_not_allowed")
    assert server.service.store.list()[1] == 0
    status, job, _ = server.upload(callback="https://good.example/done")
    assert status == 202
    assert server.service.store.get(job["id"]).callback == "https://good.example/done"
    assert "good.example" not in json.dumps(job)


def test_a_full_queue_is_503_before_the_body_is_read(tmp_path):
    with serve_fake(tmp_path, max_jobs=1) as server:
        assert server.upload("a.mp4", b"1")[0] == 202
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 ")
        response = server.upload("b.mp4", b"2")
        assert code_of(response) == (503, "queue_full")
        assert int(response[2]["retry-after"]) > 0
        server.service.finish()
        assert server.upload("b.mp4", b"2")[0] == 202


def test_a_queue_that_is_full_at_the_end_is_503_too(server):
    server.service.submit_error = QueueFullError("full")
    response = server.upload()
    assert code_of(response) == (503, "queue_full")
    assert "retry-after" in response[2]


def test_only_some_uploads_are_received_at_once(server, monkeypatch):
    monkeypatch.setattr(file_routes, "MAX_UPLOADS", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
        )
        deadline = time.monotonic() + 10
        while not server.service.kept and time.monotonic() < deadline:
            time.sleep(0.01)
        assert code_of(server.upload()) == (503, "queue_full")
        connection.sendall(b"clip")
        assert connection.recv(4096).startswith(b"HTTP/1.1 202 ")
    assert server.upload("b.mp4")[0] == 202


def test_uploads_that_begin_at_the_same_time_are_counted(server, monkeypatch):
    monkeypatch.setattr(file_routes, "MAX_UPLOADS", 1)
    monkeypatch.setattr(server.service.store, "is_full", lambda: time.sleep(0.3))
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(server.upload, ["a.mp4", "b.mp4", "c.mp4"]))
    assert sorted(status for status, _, _ in answers) == [202, 503, 503]


def test_an_answer_with_a_result_is_written_outside_of_the_event_loop(server, monkeypatch):
    respond, names = file_routes.respond_json, []

    def record(*arguments):
        names.append(threading.current_thread().name)
        return respond(*arguments)

    monkeypatch.setattr(file_routes, "respond_json", record)
    assert server.upload()[0] == 202
    server.service.finish()
    status, job, _ = server.upload()
    assert (status, job["result"]) == (200, RESULT)
    assert server.request("GET", job["links"]["self"])[0] == 200
    assert len(names) == 3 and all(name.startswith("files") for name in names)


def test_slow_reports_and_large_files_delay_no_other_request(tmp_path, monkeypatch):
    go_on = threading.Event()

    def wait(*_):
        go_on.wait(20)
        raise FileNotFoundError

    with serve_fake(tmp_path, root=str(tmp_path)) as server, ThreadPoolExecutor(20) as threads:
        _, job, _ = server.upload()
        server.service.finish()
        path = job["links"]["self"]
        monkeypatch.setattr(file_routes, "open_below_root", wait)
        find = server.service.report
        monkeypatch.setattr(
            server.service,
            "report",
            lambda job, name: wait() if name == "report.html" else find(job, name),
        )
        headers = {"Content-Type": "application/json"}
        posts = ("POST", "/v1/files", '{"path": "a.mp4"}', headers)
        waiting = [threads.submit(server.request, *posts) for _ in range(9)]
        waiting += [threads.submit(server.request, "GET", f"{path}/report.html") for _ in range(3)]
        try:
            time.sleep(0.3)
            assert server.request("GET", "/v1/files")[0] == 200
            assert code_of(server.request("GET", f"{path}/annotated.mp4")) == (404, "not_found")
            assert not any(future.done() for future in waiting)
        finally:
            go_on.set()


def test_an_error_of_any_library_is_answered_as_json(server, monkeypatch, capfd):
    def fail(*_):
        raise RuntimeError("of an engine at /some/path")

    _, job, _ = server.upload()
    server.service.finish()
    monkeypatch.setattr(server.service, "report", fail)
    response = server.request("GET", f"{job['links']['self']}/report.html")
    assert code_of(response) == (500, "internal")
    assert response[2]["cache-control"] == "no-store"
    assert "/some/path" not in json.dumps(response[1]) and "/some/path" in capfd.readouterr().err


def test_a_disk_that_is_full_for_the_database_is_507(server, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    _, job, _ = server.upload()
    monkeypatch.setattr(server.service, "delete", fail)
    assert code_of(server.request("DELETE", job["links"]["self"])) == (507, "disk_full")


def test_no_download_exists_before_the_end(server):
    _, job, _ = server.upload()
    for name in ("report.html", "report.pdf", "annotated.mp4", "result.json"):
        response = server.request("GET", f"{job['links']['self']}/{name}")
        assert code_of(response) == (409, "not_ready")


def test_downloads_of_a_finished_job(server, monkeypatch):
    monkeypatch.setattr(file_routes, "find_chromium", lambda: "chromium")
    _, job, _ = server.upload('a"b <c>é.mp4')
    server.service.finish()
    path = job["links"]["self"]
    status, body, headers = server.request("GET", f"{path}/report.html")
    assert (status, body) == (200, b"0123456789")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"
    assert headers["content-disposition"].startswith("inline; ")
    status, _, headers = server.request("GET", f"{path}/report.pdf")
    assert (status, headers["content-type"]) == (200, "application/pdf")
    assert headers["content-disposition"] == (
        "attachment; filename=\"a_b _c__-report.pdf\"; filename*=UTF-8''a_b%20_c_%C3%A9-report.pdf"
    )
    status, document, headers = server.request("GET", f"{path}/result.json")
    assert (status, document) == (200, RESULT)
    assert headers["content-disposition"].startswith("attachment; ")
    assert code_of(server.request("GET", f"{path}/annotated.mp4")) == (404, "not_found")


def test_a_part_of_a_video_can_be_requested(server):
    _, job, _ = server.upload()
    server.service.finish()
    path = f"{job['links']['self']}/report-player.mp4"
    status, body, headers = server.request("GET", path, None, {"Range": "bytes=2-4"})
    assert (status, body, headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    status, body, headers = server.request("GET", path, None, {"Range": "bytes=-3"})
    assert (status, body) == (206, b"789")
    status, _, headers = server.request("GET", path, None, {"Range": "bytes=10-"})
    assert (status, headers["content-range"]) == (416, "bytes */10")
    status, body, headers = server.request("HEAD", path)
    assert (status, body, headers["content-length"]) == (200, b"", "10")
    assert headers["accept-ranges"] == "bytes"


def test_a_pdf_without_chromium_is_501(server, monkeypatch):
    def find_none():
        raise FileNotFoundError("none at /some/path")

    monkeypatch.setattr(file_routes, "find_chromium", find_none)
    _, job, _ = server.upload()
    server.service.finish()
    response = server.request("GET", f"{job['links']['self']}/report.pdf")
    assert code_of(response) == (501, "no_chromium")
    assert "/some/path" not in json.dumps(response[1])


@pytest.mark.parametrize(
    "path",
    [
        UNKNOWN,
        f"{UNKNOWN}/report.html",
        "/v1/files/",
        "/v1/files/x",
        f"{UNKNOWN.upper()}",
        f"{UNKNOWN}/../../jobs.sqlite",
        f"{UNKNOWN}/..%2f..%2fjobs.sqlite",
        f"{UNKNOWN}/jobs.sqlite",
        f"{UNKNOWN}/report.html/x",
        "/v1/openapi.json/x",
    ],
)
def test_another_path_is_404_in_json(server, path):
    status, document, headers = server.request("GET", path)
    if path == UNKNOWN.upper():  # not of this API
        assert (status, document) == (404, b"Not Found")
        return
    assert (status, document["error"]["code"]) == (404, "not_found")
    assert headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/files", "POST, GET, HEAD"),
        ("DELETE", "/v1/files", "POST, GET, HEAD"),
        ("POST", UNKNOWN, "GET, DELETE, HEAD"),
        ("OPTIONS", "/v1/files", "POST, GET, HEAD"),
        ("POST", f"{UNKNOWN}/report.html", "GET, HEAD"),
        ("POST", "/v1/openapi.json", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("GET", "/logout", "POST"),
    ],
)
def test_another_method_is_405_with_the_allowed_ones(server, method, path, allowed):
    response = server.request(method, path)
    assert code_of(response) == (405, "method_not_allowed")
    assert response[2]["allow"] == allowed


def test_an_upload_in_flight_is_completed_while_the_server_stops(tmp_path):
    body, answers = b"x" * 3_000_000, []
    with serve_fake(tmp_path) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = "POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        connection.sendall((head % len(body)).encode() + body[:1_500_000])
        deadline = time.monotonic() + 10
        while not server.service.kept and time.monotonic() < deadline:
            time.sleep(0.01)

        def send_rest():
            time.sleep(0.5)  # the server has begun to stop
            connection.sendall(body[1_500_000:])
            answers.append(connection.recv(65536))

        thread = threading.Thread(target=send_rest)
        thread.start()
    thread.join()
    connection.close()
    assert answers[0].startswith(b"HTTP/1.1 202 ")
    assert server.service.kept == [f"{hashlib.sha256(body).hexdigest()}.mp4"]


def test_a_server_that_stops_takes_no_new_files(server):
    async def post():
        routes = file_routes.FileRoutes(server.service)
        routes.stop()
        with pytest.raises(file_routes.RequestError) as caught:
            await routes._submit(None)
        routes.close()
        return caught.value.status, caught.value.code

    assert asyncio.run(post()) == (503, "stopping")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip.mp4", "clip-report.pdf"),
        ("日本.mp4", "__-report.pdf"),
        ("a\r\nSet-Cookie: x.mp4", "a__Set-Cookie_ x-report.pdf"),
        ('"; filename="evil.exe', "__ filename=_evil-report.pdf"),
        (".mp4", ".mp4-report.pdf"),
        ("x" * 255, "x" * 120 + "-report.pdf"),
    ],
)
def test_the_name_of_a_download_is_harmless(name, expected):
    header = describe_disposition(name, "report.pdf")
    plain = re.fullmatch(r"attachment; filename=\"([^\"]*)\"; filename\*=UTF-8''[\w.%~-]+", header)
    assert plain
    assert plain[1].replace(";", "_") == expected.replace(";", "_")


def test_many_clients_at_once(server):
    results = []

    def post(n):
        results.append(server.upload(f"{n}.mp4", b"%d" % (n % 5) * 100_000)[0])

    threads = [threading.Thread(target=post, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [202] * 20
    assert server.request("GET", "/v1/files")[1]["total"] == 20
    assert len(server.service.kept) == 5
