import base64
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.model_server import ModelServer, run_server


def post(url, body, headers=None):
    """(status, parsed response) of a POST; a body other than bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {})) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(url):
    with urllib.request.urlopen(url) as response:
        return json.load(response)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def rows(scores, abs=1e-5):
    return [{"scores": pytest.approx(score, abs=abs), "valid": True} for score in scores]


@pytest.fixture(scope="module")
def jpeg(face_batch):
    return cv2.imencode(".jpg", face_batch[0][..., ::-1])[1].tobytes()


@pytest.fixture(autouse=True)
def still_serves(model_url, encoded_faces, expected_scores):
    """After every test a valid request is answered."""
    yield
    status, answer = post(f"{model_url}:predict", {"instances": [b64(encoded_faces[0])]})
    assert (status, answer) == (200, {"predictions": rows(expected_scores[:1])})


def test_a_jpeg_in_base64_is_scored(model_url, engine, jpeg, expected_scores):
    status, answer = post(f"{model_url}:predict", {"instances": [b64(jpeg), b64(jpeg)]})
    exact = engine.run("serving_default", {"image_bytes": np.array([jpeg], object)})["scores"][0]
    assert (status, answer) == (200, {"predictions": rows([exact, exact], abs=1e-6)})
    assert exact == pytest.approx(expected_scores[0], abs=0.02)


def test_column_format_and_version_give_the_same_scores(model_url, encoded_faces, expected_scores):
    body = {"inputs": {"image_bytes": [b64(face) for face in encoded_faces]}}
    status, answer = post(f"{model_url}/versions/1:predict", body)
    outputs = {"scores": pytest.approx(expected_scores, abs=1e-5), "valid": [True] * 4}
    assert (status, answer) == (200, {"outputs": outputs})


def test_pixels_are_scored_by_the_faces_signature(model_url, face_batch, expected_scores):
    body = {"signature_name": "faces", "instances": face_batch[:1].tolist()}
    status, answer = post(f"{model_url}:predict", body)
    assert (status, answer) == (200, {"predictions": pytest.approx(expected_scores[:1], abs=1e-5)})


def test_classify_names_real_and_fake(model_url, encoded_faces, expected_scores):
    body = {
        "signature_name": "classify",
        "examples": [{"image/encoded": b64(face)} for face in encoded_faces],
    }
    status, answer = post(f"{model_url}:classify", body)
    assert status == 200
    assert [[label for label, _ in row] for row in answer["results"]] == [["real", "fake"]] * 4
    fake = [row[1][1] for row in answer["results"]]
    assert fake == pytest.approx(expected_scores, abs=1e-5)


def test_reconstruct_returns_both_outputs_by_name(model_url, face_batch):
    body = {"signature_name": "reconstruct", "inputs": face_batch[:1].tolist()}
    status, answer = post(f"{model_url}:predict", body)
    assert status == 200
    assert np.shape(answer["outputs"]["reconstruction"]) == (1, 71, 71, 3)
    assert np.shape(answer["outputs"]["error"]) == (1,)


def test_the_status_of_a_loaded_version_is_available(model_url):
    state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    expected = {"model_version_status": [{"version": "1", **state}]}
    assert get(model_url) == get(f"{model_url}/versions/1") == expected


def test_metadata_lists_the_signatures(model_url):
    answer = get(f"{model_url}/metadata")
    assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    faces = signatures["faces"]["inputs"]["faces"]
    assert faces["dtype"] == "DT_UINT8"
    assert [axis["size"] for axis in faces["tensor_shape"]["dim"]] == ["-1", "71", "71", "3"]
    assert signatures["classify"]["method_name"] == "tensorflow/serving/classify"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (":predict", b"instances = [1]", 400, "JSON"),
        (":predict", b"", 400, "JSON"),
        (":predict", {"instances": [1]}, 400, "string"),
        (":predict", {"instances": [1], "signature_name": "z"}, 400, "'z'"),
        (":predict", {"signature_name": "faces", "instances": [[1]]}, 400, "(None, 71, 71, 3)"),
        (":predict", {"signature_name": "faces", "inputs": [[[[256, 0, 0]]]]}, 400, "256"),
        (":classify", {"examples": [{}]}, 400, "'image_bytes'"),
        (":classify", {"examples": [{}], "signature_name": "z"}, 400, "'z'"),
        (":classify", {"examples": [{}], "signature_name": "classify"}, 400, "image/encoded"),
        (":regress", {"examples": [{}], "signature_name": "classify"}, 400, "Regress"),
        (":guess", {}, 400, "POST /v1/models/tiny:guess"),
        ("/labels/nope:predict", {}, 400, "'stable']; got nope"),
        ("/labels/next:predict", {}, 404, "version 2"),
        ("/versions/x:predict", {}, 400, "/versions/x"),
        (f"/versions/{2**64}:predict", {}, 400, str(2**64)),
        ("/versions/9:predict", {}, 404, "version 9"),
        ("2:predict", {}, 404, "tiny2"),
        ("/../../etc/passwd:predict", {}, 400, "/../../etc/passwd"),
        ("/%2e%2e/passwd:predict", {}, 400, "/%2e%2e/passwd"),
    ],
)
def test_an_invalid_request_gets_an_error_with_its_cause(model_url, path, body, status, message):
    answered, answer = post(model_url + path, body)
    assert answered == status
    assert message in answer["error"]


def test_a_label_selects_a_version(model_url, encoded_faces, expected_scores):
    body = {"instances": [b64(encoded_faces[1])]}
    assert post(f"{model_url}/labels/stable:predict", body) == (
        200,
        {"predictions": rows(expected_scores[1:2])},
    )


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}])
def test_a_body_above_the_limit_is_answered_413(model_url, headers):
    status, answer = post(f"{model_url}:predict", b"[" * (2 * 2**20), headers)
    assert status == 413
    assert "at most 1048576 bytes" in answer["error"]


def connect(model_url):
    return http.client.HTTPConnection(model_url.split("/")[2], timeout=10)


def test_a_chunked_body_has_the_same_limit(model_url, encoded_faces, expected_scores):
    body = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    for chunks, status in (([body[:50], body[50:]], 200), ([b"[" * 2**16] * 20, 413)):
        connection = connect(model_url)
        connection.request("POST", "/v1/models/tiny:predict", iter(chunks))
        response = connection.getresponse()
        assert response.status == status
        if status == 200:
            assert json.load(response) == {"predictions": rows(expected_scores[:1])}
        connection.close()


def test_a_client_that_expects_100_continue_gets_it(model_url, encoded_faces):
    body = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    host, port = model_url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_gzip_body_is_decompressed_within_the_limit(model_url, encoded_faces, expected_scores):
    headers = {"Content-Encoding": "gzip"}
    body = json.dumps({"instances": [b64(encoded_faces[0])]}).encode()
    status, answer = post(f"{model_url}:predict", gzip.compress(body), headers)
    assert (status, answer) == (200, {"predictions": rows(expected_scores[:1])})
    for invalid in (b"no gzip", gzip.compress(body)[:-20]):
        status, answer = post(f"{model_url}:predict", invalid, headers)
        assert status == 400 and "gzip" in answer["error"]
    status, answer = post(f"{model_url}:predict", gzip.compress(b"[" * 2**26), headers)
    assert status == 413
    assert "at most 1048576 bytes" in answer["error"]


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("gzip, br", "gzip"), ("br, gzip;q=0", None), ("", None)]
)
def test_a_large_response_is_compressed_if_accepted(model_url, accepted, encoding):
    connection = connect(model_url)
    connection.request("GET", "/v1/models/tiny/metadata", headers={"Accept-Encoding": accepted})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.headers["Content-Encoding"] == encoding
    assert json.loads(gzip.decompress(text) if encoding else text)["model_spec"]["name"] == "tiny"


def read_metrics(model_url):
    url = model_url.split("/v1/")[0] + "/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url) as response:
        assert response.headers["Content-Type"] == "text/plain"
        return dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines())


def test_metrics_have_the_names_of_tensorflow_serving(model_url, encoded_faces):
    def send(model_url):
        post(f"{model_url}:predict", {"instances": [b64(encoded_faces[0])]})

    counted = ':tensorflow:serving:request_count{model_name="tiny",status="OK"}'
    unknown = ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}'
    send(model_url)
    send(model_url + "no1")
    before = read_metrics(model_url)
    send(model_url)
    send(model_url + "no2")
    after = read_metrics(model_url)
    assert float(after[counted]) == float(before[counted]) + 1
    assert float(after[unknown]) == float(before[unknown]) + 1
    assert after.keys() == before.keys()
    labels = 'API="Predict",entrypoint="REST",model_name="tiny"'
    assert float(after[f":tensorflow:serving:request_latency_count{{{labels}}}"]) > 0
    state = 'jdfd_keras_model_state{model_name="tiny",state="%s",version="1"}'
    assert [after[state % name] for name in ("AVAILABLE", "END")] == ["1.0", "0.0"]


def test_metrics_count_rejected_requests_and_grpc_status_requests(model_url, grpc_target):
    def count(model, status):
        name = f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}}'
        return float(read_metrics(model_url).get(name, 0))

    large = count("", "RESOURCE_EXHAUSTED")
    malformed = count("", "INVALID_ARGUMENT")
    answered = count("tiny", "OK")
    assert post(f"{model_url}:predict", b"[" * (2 * 2**20))[0] == 413
    assert post(f"{model_url}:guess", b"")[0] == 400
    with grpc.insecure_channel(grpc_target) as channel:
        with pytest.raises(grpc.RpcError, match="protobuf message"):
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            predict(b"\xff", timeout=20)
        status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        status(b"\n\x06\n\x04tiny", timeout=20)  # model_spec { name: "tiny" }
    assert count("", "RESOURCE_EXHAUSTED") == large + 1
    assert count("", "INVALID_ARGUMENT") == malformed + 2
    assert count("tiny", "OK") == answered + 1


def test_other_paths_are_404(model_url):
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(model_url.split("/v1/")[0] + "/index")
    caught.value.close()


def test_a_client_that_disconnects_during_its_body_harms_nobody(model_url):
    host, port = model_url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/models/tiny:predict HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")


def test_one_connection_serves_many_requests(model_url, encoded_faces, expected_scores):
    connection = connect(model_url)
    for face, score in zip(encoded_faces, expected_scores, strict=True):
        connection.request(
            "POST", "/v1/models/tiny:predict", json.dumps({"instances": [b64(face)]})
        )
        answer = json.load(connection.getresponse())
        assert answer["predictions"] == rows([score])
    connection.close()


def test_an_incomplete_body_is_answered_408(small_model, start_server):
    server = start_server([small_model], timeout_s=0.3)
    host, port = server.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = b"POST /v1/models/small:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_port_in_use_is_an_error_in_three_parts(server, small_model):
    configs = [small_model]
    rest = int(server.url.rsplit(":", 1)[1])
    rpc = int(server.grpc_target.rsplit(":", 1)[1])
    for port, grpc_port, used in ((rest, 0, rest), (0, rpc, rpc)):
        message = f"127.0.0.1 port {used}; got .*--port 0"
        with pytest.raises(OSError, match=message):
            ModelServer(configs, ServeOptions(port=port, grpc_port=grpc_port)).__enter__()


def test_a_wrong_model_path_is_an_error_in_three_parts(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path}/none .*; got nothing"):
        run_server([ModelConfig("none", tmp_path / "none")], ServeOptions(), print)


@pytest.mark.slow
def test_after_sigterm_the_request_in_flight_is_completed_and_the_exit_code_is_0(exported, jpeg):
    code = """
import pathlib, sys
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.model_server import run_server
configs = [ModelConfig("tiny", pathlib.Path(sys.argv[1]))]
ready = lambda server: print(server.url, server.grpc_target, flush=True)
run_server(configs, ServeOptions(port=0, grpc_port=0), ready)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(exported.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    try:
        url, target = process.stdout.readline().split()
        with grpc.insecure_channel(target) as channel:
            health = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING

            body = json.dumps({"instances": [b64(jpeg)]}).encode()
            connection = connect(url)
            connection.putrequest("POST", "/v1/models/tiny:predict")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            connection.send(body[:100])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            health.cancel()
            time.sleep(0.3)
            with pytest.raises(ConnectionRefusedError):
                connect(url).connect()
            connection.send(body[100:])
            response = connection.getresponse()
            assert response.headers["Connection"] == "close"
            assert 0 <= json.load(response)["predictions"][0]["scores"] <= 1
            connection.close()

        _, progress = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in progress
    finally:
        process.kill()
        process.communicate()
