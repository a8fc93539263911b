"""Timeouts, the queue limit, the memory limit, and disconnected clients."""

import http.client
import json
import re
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from jdfd_keras.inference.saved_model import SavedModelEngine

CODE = grpc.StatusCode
PREDICT = "/v1/models/small:predict"
BODY = b'{"instances": [1, 2]}'
GOOD = (200, {"predictions": [2, 4]})
HEAD = "POST /v1/models/small:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Gate:
    """Blocks every run of a model until opened; counts the runs."""

    def __init__(self):
        self.runs = 0
        self._opened = threading.Event()

    def open(self):
        self._opened.set()

    def pass_through(self):
        self.runs += 1
        assert self._opened.wait(20)


@pytest.fixture
def gate(monkeypatch):
    """A closed gate in front of every run of a model."""
    gate = Gate()
    run = SavedModelEngine.run

    def run_behind_gate(*arguments):
        gate.pass_through()
        return run(*arguments)

    monkeypatch.setattr(SavedModelEngine, "run", run_behind_gate)
    yield gate
    gate.open()


def address(server):
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def post(server, body=BODY):
    """(status, document, Retry-After) of one request."""
    connection = http.client.HTTPConnection(*address(server), timeout=20)
    connection.request("POST", PREDICT, body)
    response = connection.getresponse()
    document = json.load(response)
    connection.close()
    return response.status, document, response.headers["Retry-After"]


def send(server, body, length=None):
    """A socket that has sent a complete or partial request and does not read."""
    connection = socket.create_connection(address(server), timeout=20)
    connection.sendall((HEAD % (length or len(body))).encode() + body)
    return connection


def wait_for(server, **expected):
    """Wait until the server's gauges have these values."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        url = f"{server.url}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=20) as response:
            text = response.read().decode()
        found = {
            name: float(re.search(rf"^jdfd_keras_{name} (.+)", text, re.M)[1]) for name in expected
        }
        if found == expected:
            return
        time.sleep(0.01)
    pytest.fail(f"expected {expected}, got {found}")


def make_request(values=(1.0, 2.0)):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "small"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, tf.float32))
    return request


@pytest.fixture
def make_stub():
    """A function that connects a stub to the PredictionService of a server."""
    channels = []

    def make(server):
        channels.append(grpc.insecure_channel(server.grpc_target))
        return prediction_service_pb2_grpc.PredictionServiceStub(channels[-1])

    yield make
    for channel in channels:
        channel.close()


def refusal(future):
    with pytest.raises(grpc.RpcError) as refused:
        future.result(timeout=20)
    return refused.value.code(), refused.value.details()


def test_a_slow_model_fails_only_its_own_requests(small_model, start_server, make_stub, gate):
    server = start_server([small_model], timeout_s=0.2)
    # Without a deadline of the client, the timeout of the server applies.
    call = make_stub(server).Predict.future(make_request())
    status, document, _ = post(server)
    assert status == 504 and "within 0.2 seconds" in document["error"]
    assert refusal(call) == (CODE.DEADLINE_EXCEEDED, document["error"])
    wait_for(server, queue_length=0, in_flight=0)
    assert gate.runs == 1  # the other request timed out in the queue
    gate.open()
    assert post(server)[:2] == GOOD


def test_requests_beyond_the_queue_limit_are_told_to_retry(
    small_model, start_server, make_stub, gate
):
    server = start_server([small_model], max_queue=2, max_batch_size=1)
    with ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(post, server, b'{"instances": [1]}') for _ in range(3)]
        wait_for(server, queue_length=2, in_flight=3)
        status, document, retry_after = post(server, b'{"instances": [1]}')
        assert (status, retry_after) == (503, "1")
        assert "2 waiting requests" in document["error"]
        code, details = refusal(make_stub(server).Predict.future(make_request([1.0])))
        assert (code, details) == (CODE.UNAVAILABLE, document["error"])
        gate.open()
        assert [answer.result()[:2] for answer in answers] == [(200, {"predictions": [2]})] * 3


def test_a_request_of_a_disconnected_client_is_not_run(small_model, start_server, make_stub, gate):
    server = start_server([small_model], max_batch_size=2)
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(post, server)
        wait_for(server, queue_length=0, in_flight=1)
        gone = send(server, BODY)
        call = make_stub(server).Predict.future(make_request())
        wait_for(server, queue_length=2, in_flight=3)
        gone.close()
        call.cancel()
        wait_for(server, queue_length=0, in_flight=1)
        gate.open()
        assert answer.result()[:2] == GOOD
    assert post(server)[:2] == GOOD
    assert gate.runs == 2


def test_requests_beyond_the_memory_limit_are_told_to_retry(small_model, start_server, make_stub):
    server = start_server([small_model])
    mebibyte = 2**20  # the largest body of `start_server`
    unfinished = [send(server, b" " * (mebibyte - 1), mebibyte) for _ in range(8)]
    wait_for(server, body_bytes=8 * (mebibyte - 1))
    status, document, retry_after = post(server)
    assert (status, retry_after) == (503, "1")
    assert "8 times the largest" in document["error"]
    code, details = refusal(make_stub(server).Predict.future(make_request()))
    assert (code, details) == (CODE.UNAVAILABLE, document["error"])
    for connection in unfinished:
        connection.close()
    wait_for(server, body_bytes=0)
    assert post(server)[:2] == GOOD


@pytest.mark.slow
def test_json_of_many_values_is_decoded_in_another_process(small_model, start_server):
    server = start_server([small_model], max_body_mb=8, max_json_mb=2)
    children = {child.pid for child in psutil.Process().children()}
    values = [1.5] * 200_000  # 1 MB
    status, document, _ = post(server, json.dumps({"instances": values}).encode())
    assert status == 200 and document["predictions"] == [3.0] * len(values)
    [decoder] = (c for c in psutil.Process().children() if c.pid not in children)
    error = post(server, json.dumps({"instances": [*values, "a"]}).encode())
    assert error[0] == 400 and "[200000]" in error[1]["error"]
    decoder.kill()  # another one takes its place
    status, document, _ = post(server, json.dumps({"instances": values}).encode())
    if status == 500:
        assert "a process died" in document["error"]
        status, document, _ = post(server, json.dumps({"instances": values}).encode())
    assert status == 200 and document["predictions"] == [3.0] * len(values)


def test_json_is_limited_without_its_strings(small_model, start_server):
    server = start_server([small_model], max_body_mb=8, max_json_mb=1)
    text = b'{"instances": [1, 2], "ignored": "%s"}'
    assert post(server, text % (b"a" * 2**21))[:2] == GOOD
    status, document, _ = post(server, b'{"instances": [1, 2], "ignored": [%s1]}' % (b"1," * 2**20))
    assert status == 413 and "1048576 bytes of JSON outside of strings" in document["error"]
    assert post(server)[:2] == GOOD
