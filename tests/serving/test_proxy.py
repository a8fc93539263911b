"""The proxy of compose.yaml lets nobody without the token through; run with Caddy itself."""

import contextlib
import http.client
import http.server
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.programs import find_program

SERVING = Path(__file__).parents[2] / "serving"
TOKEN = "0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
TIMEOUT_S = 20
sizes_of = {"scores": [], "files": []}  # bytes of the bodies that each server received


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every request with the name of its server."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.sizes.append(len(body))
        self.send_response(200)
        self.send_header("Set-Cookie", "session=1; HttpOnly; SameSite=Strict")
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running_upstream(name):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        server.name, server.sizes = name, sizes_of[name]
        server.handle_error = lambda *_: None  # of a connection that Caddy closes
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running_proxy(folder, token):
    """Run Caddy with our Caddyfile, without TLS; yields its ports of REST and gRPC."""
    caddy = find_program("caddy", "caddy")
    rest, grpc = free_port(), free_port()
    text = (SERVING / "Caddyfile").read_text(encoding="utf-8")
    with running_upstream("scores") as scores, running_upstream("files") as files:
        for old, new in {
            "\n{$SITE:localhost} {": f"\nhttp://127.0.0.1:{rest} {{",
            "\n{$SITE:localhost}:8500 {": f"\nhttp://127.0.0.1:{grpc} {{",
            "reverse_proxy tensorflow-serving:8501": f"reverse_proxy {scores}",
            "reverse_proxy file-service:8501": f"reverse_proxy {files}",
            "h2c://tensorflow-serving:8500": f"h2c://127.0.0.1:{free_port()}",  # nobody listens
        }.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
        command = [caddy, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
        environment = os.environ | {"JDFD_KERAS_TOKEN": token, "HOME": str(folder)}
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", grpc)):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield rest, grpc
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with running_proxy(tmp_path_factory.mktemp("caddy"), TOKEN) as ports:
        yield ports


def send(port, path, headers, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer fedcba9876543210"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
    ],
    ids=["none", "empty", "another", "longer", "basic", "bare"],
)
def test_scores_need_the_token(proxy, headers):
    rest, grpc = proxy
    for port, path in (
        (rest, "/v1/models/detector/metadata"),
        (rest, "/v1/models/detector:predict"),
        (rest, "/v1/models/"),
        (rest, "/v1//models/detector"),
        (rest, "/V1/MODELS/detector"),
        (grpc, "/tensorflow.serving.PredictionService/Predict"),
        (grpc, "/grpc.health.v1.Health/Check"),
    ):
        status, text, received = send(port, path, headers, "POST", "{}")
        assert (status, received["WWW-Authenticate"]) == (401, "Bearer"), path
        assert TOKEN not in text


def test_the_token_gives_access_to_scores(proxy):
    rest, grpc = proxy
    assert send(rest, "/v1/models/detector/metadata", RIGHT)[:2] == (200, "scores")
    # gRPC passes the check and finds no server here.
    assert send(grpc, "/tensorflow.serving.PredictionService/Predict", RIGHT, "POST")[0] == 502


def test_other_requests_reach_the_file_service_alone(proxy):
    rest, _ = proxy
    for path in ("/", "/v1/files", "/v1/models", "/monitoring/prometheus/metrics"):
        status, text, headers = send(rest, path, {})
        assert (status, text) == (200, "files"), path  # which checks the token itself
        assert headers["Set-Cookie"] == "session=1; HttpOnly; SameSite=Strict; Secure"


def test_a_body_of_scores_is_limited_and_a_file_is_not(proxy):
    rest, _ = proxy
    body = bytes(33 * 2**20)
    assert send(rest, "/v1/files", {}, "POST", body)[:2] == (200, "files")
    assert sizes_of["files"][-1] == len(body)
    for limited in sizes_of.values():
        limited.clear()
    with contextlib.suppress(ConnectionError):  # closed before the whole body is sent
        assert send(rest, "/v1/models/detector:predict", RIGHT, "POST", body)[0] != 200
    assert max(sizes_of["scores"], default=0) <= 32 * 2**20


def test_without_a_token_nobody_gets_scores(tmp_path):
    with running_proxy(tmp_path, "") as (rest, grpc):
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}):
            assert send(rest, "/v1/models/detector/metadata", headers)[0] == 401
            assert send(grpc, "/grpc.health.v1.Health/Check", headers, "POST")[0] == 401


def test_caddy_accepts_the_file_as_it_is(tmp_path):
    caddy = find_program("caddy", "caddy")
    path = SERVING / "Caddyfile"
    environment = os.environ | {"JDFD_KERAS_TOKEN": TOKEN, "HOME": str(tmp_path)}
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    formatted = subprocess.run([caddy, "fmt", str(path)], capture_output=True, text=True)
    assert formatted.stdout == path.read_text(encoding="utf-8")
    assert re.findall(r"reverse_proxy (\S+)", path.read_text(encoding="utf-8")) == [
        "tensorflow-serving:8501",
        "file-service:8501",
        "h2c://tensorflow-serving:8500",
    ]
