"""Hostile, broken and slow clients do not affect others.

The server runs in its own process, started as a user starts it, so that its memory can be measured
and a crash is noticed. After every test it must be running, its memory within bounds, and a valid
request must be answered correctly. All tests together take less than three minutes.
"""

import base64
import contextlib
import gzip
import http.client
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import grpc
import numpy as np
import pytest

pytestmark = pytest.mark.slow

BODY_LIMIT_MB = 4
# Room for a few requests of the largest size, with their decoded copies.
MAX_GROWTH_MB = 400
MODEL = "/v1/models/tiny"


class Served:
    """A server in its own process."""

    def __init__(self, directory, *flags):
        command = [
            "serve",
            str(directory),
            "--engine",
            "embedded",
            "--port",
            "0",
            "--grpc-port",
            "0",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jdfd_keras", *command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        call = self.process.stdout.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", call)[1])
        self.log = []
        while not self.log or "grpc://" not in self.log[-1]:
            line = self.process.stderr.readline()
            assert line, f"the server exited: {self.log}"
            self.log.append(line)
        self.grpc_port = int(re.search(r"grpc://[\d.]+:(\d+)", self.log[-1])[1])
        # Further output must not fill the pipe.
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        self.log += iter(self.process.stderr.readline, "")

    @property
    def memory_mb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, path, body=None, method=None):
        """(status, text) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method or ("POST" if body is not None else "GET"), path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def served(exported):
    served = Served(
        exported.parent,
        "--max-body-mb",
        str(BODY_LIMIT_MB),
        "--timeout-s",
        "20",
        "--precision",
        "float32",
    )
    yield served
    assert served.stop() == 0
    assert not [line for line in served.log if "Traceback" in line], "".join(served.log)


@pytest.fixture(autouse=True)
def still_serves(served, encoded_faces, expected_scores):
    """After every test a valid request is answered, and memory is within its bound."""
    good = json.dumps({"instances": [b64(encoded_faces[0])]})
    assert served.ask(f"{MODEL}:predict", good)[0] == 200
    before = served.memory_mb
    yield
    status, text = served.ask(f"{MODEL}:predict", good)
    assert status == 200, text
    assert json.loads(text)["predictions"][0]["scores"] == pytest.approx(
        expected_scores[0], abs=1e-5
    )
    assert served.process.poll() is None
    assert served.memory_mb - before < MAX_GROWTH_MB


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def assert_proper_error(status, text):
    assert 400 <= status < 600, text
    assert json.loads(text)["error"]


def png_of(width, height):
    """A PNG of one color, much smaller than its decoded pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * 3)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_random_bytes_on_the_rest_port_are_rejected(served):
    rng = random.Random(0)
    for _ in range(150):
        with served.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(rng.randbytes(rng.randint(1, 3000)))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
            assert answer == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:80]


def test_requests_with_random_changes_are_answered(served, encoded_faces):
    rng = random.Random(1)
    body = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    for _ in range(150):
        changed = bytearray(request)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(head) + 60)] = rng.randrange(256)
        with served.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(changed)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
            assert answer == b"" or re.match(rb"HTTP/1\.[01] [245]\d\d ", answer), answer[:80]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2_000_000,
        b'{"instances":' * 300_000,
        b'{"instances": ' + b"[" * 100_000 + b"1" + b"]" * 100_000 + b"}",
        b'{"instances": [1e999999]}',
        b'{"instances": [' + b"9" * 1_000_000 + b"]}",
        b'{"instances": [-' + b"9" * 5000 + b"]}",
        b'{"instances": [' + b"1," * 1_000_000 + b"1]}",
        b'{"signature_name": "faces", "instances": [' + b"[[[0]]]," * 200_000 + b"[[[0]]]]}",
        b'{"signature_name": ' + b'"x' * 100_000 + b'"}',
        b'{"instances": "\\ud800"}',
        b'{"instances": [{"b64": 7}]}',
        b'{"instances": [{"b64": "' + b"A" * 3_999_999 + b'"}, null]}',
        b'{"instances": {"b64": {}}}',
        b'{"signature_name": ["faces"], "instances": [[1]]}',
        b'{"signature_name": "faces", "instances": [[[[1, 2, 3]]]]}',
        b'{"signature_name": "faces", "inputs": []}',
        b'{"signature_name": "metadata", "instances": [[["a"]]]}',
        b"\xff\xfe\x00",
        b"null",
        b"",
    ],
    ids=lambda body: f"{body[:24]!r}-{len(body)}",
)
@pytest.mark.parametrize("verb", [":predict", ":classify", ":regress"])
def test_invalid_bodies_are_rejected(served, verb, body):
    status, text = served.ask(MODEL + verb, body)
    if status == 200:  # no faces, no scores
        assert json.loads(text)["outputs"] in ([], {"scores": [], "valid": []})
    else:
        assert_proper_error(status, text)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../../etc/passwd",
        "/v1/models/..%2f..%2f..%2fetc%2fpasswd/metadata",
        "/v1/models/%2e%2e/versions/1/metadata",
        "/v1/models/tiny/versions/1/../../../etc/passwd",
        "/v1/models//etc/passwd:predict",
        "/v1/models/tiny\\..\\..\\x:predict",
        "/v1/models/tiny%00:predict",
        "/v1/models/" + "a" * 7000 + ":predict",
        "/v1/../../etc/passwd",
        "//v1/models/tiny:predict",
        "/../../../../etc/passwd",
        "/monitoring/prometheus/metrics/../../../etc/passwd",
    ],
)
def test_path_traversal_reaches_no_file(served, path):
    for method in ("GET", "POST"):
        status, text = served.ask(path, b"{}" if method == "POST" else None, method=method)
        assert 400 <= status < 500
        assert "root:" not in text


@pytest.mark.parametrize("size", [(10_000, 10_000), (2**31 - 1, 1), (60_000, 60_000)])
def test_an_image_of_a_hundred_megapixels_affects_only_its_row(served, encoded_faces, size):
    width, height = size
    if width * height > 2e8:  # in the header only
        image = png_of(1, 1)
        image = image[:16] + struct.pack(">II", width, height) + image[24:]
    else:
        image = png_of(width, height)
    body = json.dumps({"instances": [b64(image), b64(encoded_faces[0])]})
    start = time.monotonic()
    status, text = served.ask(f"{MODEL}:predict", body)
    assert time.monotonic() - start < 10
    assert status == 200, text
    bomb, good = json.loads(text)["predictions"]
    assert np.isnan(bomb["scores"]) and not bomb["valid"]
    assert good["valid"]


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".webp"])
def test_randomly_damaged_images_are_answered(served, face_batch, ending):
    rng = random.Random(2)
    whole = cv2.imencode(ending, face_batch[0][..., ::-1])[1].tobytes()
    for _ in range(25):
        image = bytearray(whole[: rng.randint(0, len(whole))])
        for _ in range(rng.randint(0, 8)):
            if image:
                image[rng.randrange(len(image))] = rng.randrange(256)
        status, text = served.ask(
            f"{MODEL}:predict", json.dumps({"instances": [b64(bytes(image))]})
        )
        if status == 200:
            (row,) = json.loads(text)["predictions"]
            assert row["valid"] == (not np.isnan(row["scores"]))
        else:
            assert_proper_error(status, text)


def test_a_body_of_a_gigabyte_after_decompression_is_rejected_early(served):
    bomb = gzip.compress(bytes(1024 * 2**20), 9)
    assert len(bomb) < BODY_LIMIT_MB * 2**20
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}{MODEL}:predict", bomb, {"Content-Encoding": "gzip"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        assert answer.code == 413
        assert_proper_error(answer.code, answer.read())


def test_slow_and_half_closed_clients_block_nobody(served, encoded_faces):
    def head(length):
        return f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"

    good = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    with contextlib.ExitStack() as stack:
        for prefix in (b"", b"POST ", b"GET /v1/models/tiny HTTP/1.1\r\n", head(1000).encode()):
            for _ in range(20):
                connection = stack.enter_context(served.connect())
                connection.sendall(prefix)
        for _ in range(20):  # sends a whole request and never reads
            connection = stack.enter_context(served.connect())
            connection.sendall(head(len(good)).encode() + good)
        half = stack.enter_context(served.connect())  # closes its sending side only
        half.sendall(head(len(good)).encode() + good)
        half.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        assert served.ask(f"{MODEL}:predict", good)[0] == 200
        assert time.monotonic() - start < 10
        answer = half.recv(65536)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 200")


def test_a_thousand_idle_connections_block_nobody(served, encoded_faces):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        if hard < 1200:
            pytest.skip(f"this machine allows {hard} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    good = json.dumps({"instances": [b64(encoded_faces[0])]})
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(served.connect())
        start = time.monotonic()
        assert served.ask(f"{MODEL}:predict", good)[0] == 200
        assert time.monotonic() - start < 10


@pytest.fixture(scope="module")
def predict_bytes(served):
    """A function that calls Predict over gRPC with a message as bytes."""
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        yield channel.unary_unary("/tensorflow.serving.PredictionService/Predict")


def refusal(call, message):
    with pytest.raises(grpc.RpcError) as refused:
        call(message, timeout=30)
    return refused.value.code()


def test_random_messages_over_grpc_are_rejected(predict_bytes, encoded_faces):
    from tensorflow_serving.apis import predict_pb2

    rng = random.Random(3)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = 7
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(encoded_faces[0])
    good = request.SerializeToString()
    codes = set()
    for turn in range(200):
        message = bytearray(rng.randbytes(rng.randint(1, 2000)) if turn % 2 else good)
        for _ in range(rng.randint(1, 5)):
            message[rng.randrange(min(len(message), 80))] = rng.randrange(256)
        try:
            predict_bytes(bytes(message), timeout=30)
        except grpc.RpcError as error:
            codes.add(error.code())
    # INTERNAL is grpc's own code for an invalid message.
    assert grpc.StatusCode.UNKNOWN not in codes
    assert codes <= {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }


@pytest.mark.parametrize(
    ("dtype", "shape", "content"),
    [
        (4, [2**40], b"\0\0\0\0"),
        (4, [2**31, 2**31, 3], b""),
        (4, [-1, 71, 71, 3], bytes(71 * 71 * 3)),
        (4, [1, 71, 71, 3], b"\0"),
        (4, [1] * 300, b"\0"),
        (1, [1, 71, 71, 3], bytes(4 * 71 * 71 * 3)),
        (7, [1, 71, 71, 3], bytes(100)),
        (99, [1], b"\0"),
        (0, [], b""),
        (20, [1], b"\0\0\0\0"),  # a resource handle
        (21, [1], b"\0"),
    ],
)
def test_invalid_tensors_over_grpc_are_rejected(predict_bytes, dtype, shape, content):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "faces"
    tensor = request.inputs["faces"]
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = content
    code = refusal(predict_bytes, request.SerializeToString())
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_above_the_limit_over_grpc_is_rejected(predict_bytes):
    code = refusal(predict_bytes, bytes((BODY_LIMIT_MB + 1) * 2**20))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_rejected_messages_over_grpc_leave_no_memory(served, predict_bytes):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "faces"
    tensor = request.inputs["faces"]
    tensor.dtype, size = 4, 1150  # uint8, not of the size of the model: 4 MB
    for length in (1, size, size, 3):
        tensor.tensor_shape.dim.add(size=length)
    tensor.tensor_content = bytes(size * size * 3)
    message = request.SerializeToString()

    def send_many(_):
        for _ in range(20):
            assert refusal(predict_bytes, message) == grpc.StatusCode.INVALID_ARGUMENT

    send_many(0)
    before = served.memory_mb
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send_many, range(8)))  # 640 MB
    end = time.monotonic() + 10
    while served.memory_mb - before > 100 and time.monotonic() < end:
        time.sleep(0.2)
    assert served.memory_mb - before <= 100


def test_a_killed_server_loses_only_its_current_request(exported, encoded_faces):
    good = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    first = Served(exported.parent)
    with first.connect() as connection:
        # Without a Host the server may answer 400 at once; with one it waits for the rest.
        head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        connection.sendall(head + b"\r\n{")
        first.process.kill()
        first.process.wait()
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
    second = Served(exported.parent)
    assert second.ask(f"{MODEL}:predict", good)[0] == 200
    assert second.stop() == 0
