"""Uploads: what is kept of a body, under which name, and that nothing is kept of a refused one."""

import errno
import hashlib
import json
import os
import socket
import time

import pytest

from jdfd_keras.serving.jobs import incoming_file, uploads
from jdfd_keras.serving.jobs.incoming_file import IncomingFile, check_space
from jdfd_keras.serving.jobs.request_errors import RequestError
from jdfd_keras.serving.jobs.uploads import check_name, open_below_root, plain_suffix
from tests.serving.jobs.fake_service import make_form, serve_fake

MIB = 2**20
MARKUP = '<script>alert("1")</script>&.mp4'


@pytest.fixture
def small(tmp_path):
    """A server of files of at most 1 MiB."""
    with serve_fake(tmp_path / "small", max_upload_mb=1) as server:
        yield server


def wait_until_nothing_is_kept(server):
    """A discarded file is deleted by another thread, soon after the response."""
    deadline = time.monotonic() + 10
    while server.service.kept and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.service.kept == []
    assert server.service.store.list()[1] == 0


def code_of(response):
    status, document, _ = response
    return status, document["error"]["code"]


def test_a_form_and_a_raw_body_give_the_same_job(server):
    data = os.urandom(3 * MIB + 17)
    status, job, headers = server.upload("clip.MP4", data)
    assert (status, headers["location"]) == (202, f"/v1/files/{job['id']}")
    digest = hashlib.sha256(data).hexdigest()
    assert (job["sha256"], job["bytes"], job["name"]) == (digest, len(data), "clip.MP4")
    assert server.service.kept == [f"{digest}.mp4"]
    assert (server.service.state / "files" / f"{digest}.mp4").read_bytes() == data
    status, again, _ = server.request("POST", "/v1/files?name=clip.MP4", data)
    assert (status, again["id"]) == (200, job["id"])


def test_a_chunked_body_is_received(server):
    status, job, _ = server.request("POST", "/v1/files?name=a.mkv", iter([b"one", b"two"]))
    assert (status, job["sha256"]) == (202, hashlib.sha256(b"onetwo").hexdigest())


def test_options_may_be_before_or_behind_the_file(server):
    for parts in (
        [("every", "5"), ("file", "a.mp4", b"x"), ("annotate", "true")],
        [("annotate", "true"), ("every", "5"), ("file", "a.mp4", b"x")],
    ):
        body, content_type = make_form(parts)
        _, job, _ = server.request("POST", "/v1/files", body, {"Content-Type": content_type})
        assert (job["options"]["every"], job["options"]["annotate"]) == (5, True)
    assert server.service.store.list()[1] == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("../../../etc/passwd", "passwd"),
        (r"..\..\Windows\clip.mp4", "clip.mp4"),
        ("/absolute/clip.mp4", "clip.mp4"),
        ("C:\\clips/x\\clip.mp4", "clip.mp4"),
        (MARKUP.replace("/", ""), MARKUP.replace("/", "")),
        ("clip\u202e4pm.exe", "clip\u202e4pm.exe"),
        ("Ünï çödé 日本.mp4", "Ünï çödé 日本.mp4"),
        ("a\udcff.mp4", "a\\udcff.mp4"),
        ("x" * 255, "x" * 255),
    ],
)
def test_a_name_is_its_last_part_as_exact_text(given, expected):
    assert check_name(given) == expected


@pytest.mark.parametrize("name", ["", ".", "..", "clips/", "a/..", "x" * 256])
def test_a_name_must_be_one_of_a_file(name):
    with pytest.raises(RequestError) as caught:
        check_name(name)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.MP4", ".mp4"),
        ("a.mp4/../b", ""),
        ("a", ""),
        ("a.", ""),
        ("a.tar.gz", ".gz"),
        ("a.m p", ""),
        ("a.mp4\0", ""),
        ("a.mp4\n", ""),
        ("a.é", ""),
        ("a.ninechars", ""),
        (".mp4", ""),
    ],
)
def test_only_a_plain_suffix_is_used(name, suffix):
    assert plain_suffix(name) == suffix


def test_a_path_in_a_name_leads_nowhere(server, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    _, job, _ = server.upload("../../../../evil.mp4", b"clip")
    assert job["name"] == "evil.mp4"
    new = [path.name for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert new == [f"{job['sha256']}.mp4"]


def test_markup_in_a_name_is_text(server):
    name = "<img src=x onerror=alert(1)>.mp4"
    _, job, headers = server.upload(name)
    assert job["name"] == name
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert server.request("GET", job["links"]["self"])[1]["name"] == name


def test_a_declared_size_above_the_limit_is_refused_before_the_body(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    wait_until_nothing_is_kept(small)


def test_a_client_that_waits_is_asked_for_the_body(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"clip")
        assert connection.recv(4096).startswith(b"HTTP/1.1 202 ")


def test_a_body_that_grows_above_the_limit_is_refused(small):
    chunks = (b"x" * 2**16 for _ in range(17))
    assert code_of(small.request("POST", "/v1/files?name=a.mp4", chunks)) == (413, "too_large")
    wait_until_nothing_is_kept(small)


def test_a_file_of_exactly_the_limit_is_kept(small):
    assert small.upload("a.mp4", b"x" * MIB)[0] == 202
    assert code_of(small.upload("b.mp4", b"x" * (MIB + 1))) == (413, "too_large")
    assert len(small.service.kept) <= 2  # the part is deleted soon after


def test_a_form_that_is_larger_than_its_file_is_refused(small):
    """Neither what is before the first boundary nor text parts may be of any size."""
    form, content_type = make_form([("file", "a.mp4", b"clip")])
    for body in (iter([b"x" * 1000 + b"\r\n"] * 1300 + [form]), b"x\r\n" * 500_000 + form):
        response = small.request("POST", "/v1/files", body, {"Content-Type": content_type})
        assert code_of(response) == (413, "too_large")
    wait_until_nothing_is_kept(small)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("every", "5")],
        [("file", "a.mp4", b"")],
        [("file", "text without a file name")],
        [("file", "a.mp4", b"x"), ("file", "b.mp4", b"y")],
        [("file", "a.mp4", b"x"), ("every", "5"), ("every", "6")],
        [("file", "a.mp4", b"x"), ("unknown", "5")],
        [("file", "a.mp4", b"x"), ("every", "5" * 5000)],
        [("file", "a.mp4", b"x"), ("every", b"\xff")],
        [("file", "a.mp4", b"x"), *((f"part{n}", "1") for n in range(20))],
        [("file", "..", b"x")],
    ],
)
def test_a_form_has_one_file_and_known_options(server, parts):
    body, content_type = make_form(parts)
    response = server.request("POST", "/v1/files", body, {"Content-Type": content_type})
    assert code_of(response) == (400, "bad_request")
    wait_until_nothing_is_kept(server)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"no boundary at all", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut', None),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
            b"Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n",
            None,
        ),
        (
            b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n"
            b"\r\n--b--\r\n",
            None,
        ),
        (b"--b\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\nx\r\n--b--\r\n", None),
    ],
)
def test_a_damaged_form_is_a_bad_request(server, body, content_type):
    headers = {"Content-Type": content_type or "multipart/form-data; boundary=b"}
    assert code_of(server.request("POST", "/v1/files", body, headers)) == (400, "bad_request")
    wait_until_nothing_is_kept(server)


def test_a_compressed_body_is_not_unpacked(server):
    headers = {"Content-Encoding": "gzip"}
    response = server.request("POST", "/v1/files?name=a.mp4", b"\x1f\x8b", headers)
    assert code_of(response) == (400, "bad_request")


def test_a_client_that_disconnects_leaves_nothing(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 3000000\r\n\r\n" + b"x" * 2_000_000
        )
        deadline = time.monotonic() + 10
        while not server.service.kept and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.service.kept[0].endswith(".part")
    wait_until_nothing_is_kept(server)


def test_a_body_that_stalls_is_given_up(server, monkeypatch):
    monkeypatch.setattr(uploads, "STALL_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/files?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 3000000\r\n\r\nbegin"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
    wait_until_nothing_is_kept(server)


class FullDisk:
    """A file of which the disk takes a part only."""

    closed = False

    def write(self, data):
        if len(data) <= 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return 1000

    def close(self):
        self.closed = True


def test_a_disk_that_becomes_full_is_507(server, monkeypatch):
    create = IncomingFile.__init__

    def create_on_full_disk(self, *arguments):
        create(self, *arguments)
        self._file.close()
        self._file = FullDisk()

    monkeypatch.setattr(IncomingFile, "__init__", create_on_full_disk)
    assert code_of(server.upload("a.mp4", b"x" * 5000)) == (507, "disk_full")
    raw = server.request("POST", "/v1/files?name=a.mp4", b"x" * 5000)
    assert code_of(raw) == (507, "disk_full")
    wait_until_nothing_is_kept(server)


def test_a_file_that_does_not_fit_is_507_before_its_body(server, monkeypatch, tmp_path):
    monkeypatch.setattr(incoming_file, "MIN_FREE_BYTES", 2**60)
    assert code_of(server.upload()) == (507, "disk_full")
    wait_until_nothing_is_kept(server)
    with pytest.raises(RequestError):
        check_space(tmp_path, 0)


def test_a_disk_that_is_full_at_the_end_is_507(server):
    server.service.submit_error = OSError(errno.ENOSPC, "No space left on device")
    assert code_of(server.upload()) == (507, "disk_full")
    wait_until_nothing_is_kept(server)


def test_another_error_is_500_and_names_no_path(server, capfd):
    server.service.submit_error = OSError(errno.EIO, "I/O error", "/secret/folder/jobs.sqlite")
    status, document, _ = server.upload()
    assert (status, document["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(document)
    assert "/secret/folder" in capfd.readouterr().err
    wait_until_nothing_is_kept(server)


@pytest.fixture
def root(tmp_path):
    """A folder with a clip, a link to the outside, a link to the inside, and a pipe."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "clip.mp4").write_bytes(b"clip")
    (tmp_path / "outside.mp4").write_bytes(b"outside")
    (root / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "in.mp4").symlink_to(root / "sub" / "clip.mp4")
    os.mkfifo(root / "pipe.mp4")
    (tmp_path / "root-other").mkdir()
    (tmp_path / "root-other" / "clip.mp4").write_bytes(b"clip")
    return root


def test_a_file_below_the_root_is_hashed_in_place(root):
    upload = open_below_root(root, "sub/clip.mp4")
    assert (upload.name, upload.file_bytes) == ("clip.mp4", 4)
    assert upload.sha256 == hashlib.sha256(b"clip").hexdigest()
    assert upload.path == root / "sub" / "clip.mp4"
    linked = open_below_root(root, "in.mp4")
    assert (linked.name, linked.path) == ("clip.mp4", root / "sub" / "clip.mp4")
    assert open_below_root(root, "sub/../sub/clip.mp4").path == root / "sub" / "clip.mp4"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../outside.mp4", "outside_root"),
        ("sub/../../outside.mp4", "outside_root"),
        ("../root-other/clip.mp4", "outside_root"),
        ("/etc/hostname", "outside_root"),
        ("out.mp4", "outside_root"),
        ("none.mp4", "missing"),
        ("sub", "missing"),
        ("pipe.mp4", "missing"),
        ("sub/clip.mp4/x", "missing"),
        ("x" * 5000, "missing"),
        ("", "bad_request"),
        (None, "bad_request"),
        (5, "bad_request"),
        ("a\0b", "bad_request"),
        ("a\ud800.mp4", "bad_request"),
        ("a\udcff.mp4", "bad_request"),
    ],
)
def test_only_regular_files_below_the_root_are_read(root, path, code):
    with pytest.raises(RequestError) as caught:
        open_below_root(root, path)
    assert caught.value.code == code


def test_an_absolute_path_within_the_root_is_refused_too(root):
    with pytest.raises(RequestError) as caught:
        open_below_root(root, str(root / "sub" / "clip.mp4"))
    assert caught.value.code == "outside_root"


def test_a_path_is_submitted_as_json(root, tmp_path):
    headers = {"Content-Type": "application/json"}

    def post(server, document):
        return server.request("POST", "/v1/files", document, headers)

    with serve_fake(tmp_path / "batch", root=str(root)) as server:
        body = json.dumps({"path": "sub/clip.mp4", "every": 2, "threshold": 0.5})
        status, job, _ = post(server, body)
        assert (status, job["name"], job["options"]["every"]) == (202, "clip.mp4", 2)
        assert str(root) not in json.dumps(job)
        assert server.service.kept == []
        assert (root / "sub" / "clip.mp4").exists()
        outside = post(server, json.dumps({"path": "../outside.mp4"}))
        assert code_of(outside) == (403, "outside_root")
        assert code_of(post(server, json.dumps({"path": "none.mp4"}))) == (404, "missing")
        for wrong in ("[]", "{", '{"every": 2}', '{"path": "in.mp4", "x": 1}', "[" * 50_000):
            assert code_of(post(server, wrong)) == (400, "bad_request")
        assert code_of(post(server, '"' + "x" * 70_000)) == (413, "too_large")
    with serve_fake(tmp_path / "no-root") as server:
        assert code_of(post(server, body)) == (400, "bad_request")
