"""With a token, every request needs it, over REST and gRPC; only gRPC's health check does not."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from jdfd_keras.client import AccessDenied, connect
from jdfd_keras.options import EngineOptions, FileServiceOptions, ServeOptions
from jdfd_keras.serving.serve import serve
from jdfd_keras.serving.server.http_server import make_response
from jdfd_keras.serving.server.model_server import ModelServer

TOKEN = "correct-horse-battery"
BEARER = f"Bearer {TOKEN}"
WRONG = [None, "", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN]
METRICS = "/monitoring/prometheus/metrics"
REQUESTS = [
    ("GET", "/v1/models/small/metadata"),
    ("GET", "/v1/models/small"),
    ("GET", "/V1/MODELS/small"),
    ("POST", "/v1/models/small:predict"),
    ("OPTIONS", "/v1/models/small"),
    ("GET", "/v1/models/none"),
    ("GET", METRICS),
    ("GET", "/other"),
]


class PageRoutes:
    """A route that answers without a token."""

    def find(self, path):
        return self._answer if path == "/page" else None

    async def _answer(self, request):
        return make_response(200, b"{}", "application/json")

    def stop(self):
        pass


@pytest.fixture(scope="module")
def protected(small_model):
    """A server with a token."""
    options, engine = ServeOptions(port=0, grpc_port=0), EngineOptions(backend="tensorflow")
    with ModelServer([small_model], options, engine, PageRoutes(), TOKEN) as server:
        yield server


@pytest.fixture
def channel(protected):
    with grpc.insecure_channel(protected.grpc_target) as channel:
        yield channel


def ask(server, method, path, authorization=None, body=None):
    """(status, document or text, headers) of a request."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    headers = {} if authorization is None else {"Authorization": authorization}
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(text) if is_json else text, response.headers


@pytest.mark.parametrize("authorization", WRONG)
@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_rest_refuses_a_missing_or_wrong_token(protected, method, path, authorization):
    body = '{"instances": [1]}' if method == "POST" else None
    status, document, headers = ask(protected, method, path, authorization, body)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert document.keys() == {"error"}
    assert "Authorization: Bearer TOKEN" in document["error"]
    assert TOKEN not in document["error"]


def test_rest_answers_the_right_token(protected):
    body = '{"instances": [1, 2.5]}'
    for authorization in (BEARER, f"bearer {TOKEN}", f"Bearer  {TOKEN} "):
        answer = ask(protected, "POST", "/v1/models/small:predict", authorization, body)
        assert answer[:2] == (200, {"predictions": [2, 5]})
    assert ask(protected, "GET", "/other", BEARER)[0] == 404
    text = ask(protected, "GET", METRICS, BEARER)[1]
    ask(protected, "GET", "/v1/models/small")
    after = ask(protected, "GET", METRICS, BEARER)[1]
    name = ':tensorflow:serving:request_count{model_name="",status="UNAUTHENTICATED"} '
    counts = [float(page.partition(name)[2].partition("\n")[0] or 0) for page in (text, after)]
    assert counts[1] == counts[0] + 1


def test_other_routes_check_access_themselves(protected):
    assert ask(protected, "GET", "/page")[:2] == (200, {})


@pytest.mark.parametrize("more", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_rest_refuses_without_the_body(protected, more, expect):
    host, port = protected.url.removeprefix("http://").split(":")
    head = f"POST /v1/models/small:predict HTTP/1.1\r\nHost: x\r\n{more}\r\n{expect}\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 401 ")  # and not 100 Continue
    assert b"Connection: close" in answer


def ask_status(channel, *metadata):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "small"
    return stub.GetModelStatus(request, metadata=metadata, timeout=20).model_version_status


@pytest.mark.parametrize("authorization", WRONG)
def test_grpc_refuses_a_missing_or_wrong_token(channel, authorization):
    metadata = [] if authorization is None else [("authorization", authorization)]
    with pytest.raises(grpc.RpcError, match="Authorization: Bearer TOKEN") as caught:
        ask_status(channel, *metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Watch",  # else strangers could hold all calls that may be open
        "/tensorflow.serving.PredictionService/Predict",
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        "/none/none",
        "/grpc.health.v1.Healthy/Check",
        "grpc.health.v1.Health/Check",
    ],
)
def test_grpc_refuses_before_it_has_the_message(channel, method):
    with pytest.raises(grpc.RpcError) as caught:
        call_without_message(channel, method)
    if method.startswith("/"):  # else it is invalid HTTP/2, which gRPC itself refuses
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def call_without_message(channel, method):
    """Call a method, and send no message until it is answered."""
    answered = threading.Event()

    def send():
        answered.wait(20)
        yield from ()

    try:
        return channel.stream_unary(method)(send(), timeout=10)
    finally:
        answered.set()


def test_grpc_answers_the_right_token(channel):
    (status,) = ask_status(channel, ("authorization", BEARER))
    assert (status.version, status.state) == (1, status.AVAILABLE)


def test_a_health_check_needs_no_token_and_no_message(channel):
    serving = health_pb2.HealthCheckResponse.SERVING
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=20).status == serving
    answer = call_without_message(channel, "/grpc.health.v1.Health/Check")
    assert health_pb2.HealthCheckResponse.FromString(answer).status == serving
    metadata = [("authorization", BEARER)]
    watch = health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=20)
    assert next(watch).status == serving
    watch.cancel()
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        health.Check(health_pb2.HealthCheckRequest(service="none"), metadata=metadata, timeout=20)


def test_the_client_sends_the_token_of_the_environment(protected, monkeypatch):
    urls = [f"{protected.url}/v1/models/small", f"grpc://{protected.grpc_target}/small"]
    for url in urls:
        for token in (None, "another-token-here"):
            if token:
                monkeypatch.setenv("JDFD_KERAS_TOKEN", token)
            with pytest.raises(AccessDenied, match="JDFD_KERAS_TOKEN") as caught:
                connect(url)
            assert "another-token" not in str(caught.value)
        monkeypatch.setenv("JDFD_KERAS_TOKEN", TOKEN)
        with connect(url) as client:
            values = client.predict("serving_default", {"x": np.float32([3])})
            np.testing.assert_array_equal(values["y"], np.float32([6]))
        monkeypatch.delenv("JDFD_KERAS_TOKEN")


def test_serve_listens_on_all_addresses_with_a_token(small_model, monkeypatch, capfd):
    """Its example call reads the token from the environment; no output has it."""
    statuses, name = [], small_model.base_path.name

    def run(server, on_ready):
        with server as running:
            on_ready(running)
            statuses.extend(
                ask(running, "GET", f"/v1/models/{name}", value)[0] for value in (None, BEARER)
            )
            call = capfd.readouterr()
            assert "$JDFD_KERAS_TOKEN" in call.out
            assert TOKEN not in call.out + call.err
            if shutil.which("curl"):
                environment = os.environ | {"JDFD_KERAS_TOKEN": TOKEN}
                answer = subprocess.check_output(["bash", "-c", call.out], env=environment)
                assert json.loads(answer)["model_spec"]["name"] == name

    monkeypatch.setattr("jdfd_keras.serving.server.model_server.run_until_signal", run)
    options = ServeOptions(host="0.0.0.0", port=0, grpc_port=0)
    engine = EngineOptions(backend="tensorflow")
    serve(small_model.base_path, options, engine=engine, files=FileServiceOptions(token=TOKEN))
    assert statuses == [401, 200]
