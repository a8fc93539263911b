"""The client against small test servers, over REST and gRPC alike.

Their model scores a face by the number that its bytes spell. Any other bytes are an invalid image,
which fails the whole batch, as in TensorFlow Serving.
"""

import base64
import concurrent.futures
import contextlib
import json
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from jdfd_keras.client import (
    AccessDenied,
    ClientError,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTimeout,
    RequestTooLarge,
    ServerUnavailable,
    SignatureMissing,
    connect,
)
from jdfd_keras.client.metadata import ModelMetadata, write_metadata
from jdfd_keras.client.signatures import TensorInfo
from jdfd_keras.options import FaceOptions

FACES = [b"0.25", b"0.5", b"0.75", b"0.125", b"1"]
SCORES = [0.25, 0.5, 0.75, 0.125, 1]
METADATA = ModelMetadata(FaceOptions(face_size=71, margin=1.5), None, "tiny", 7, "abc")
SIGNATURES = {
    "serving_default": (
        {"image_bytes": (tf.string, [-1])},
        {"scores": (tf.float32, [-1]), "valid": (tf.bool, [-1])},
    ),
    "faces": ({"faces": (tf.uint8, [-1, 71, 71, 3])}, {"scores": (tf.float32, [-1])}),
    "explain": ({"faces": (tf.uint8, [-1, 71, 71, 3])}, {"cam": (tf.float32, [-1, 2, 3])}),
    "metadata": ({"names": (tf.string, [-1])}, {"contents": (tf.string, [-1])}),
}
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class FailureError(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Model:
    """The model of both servers; tests change its behaviour and read its calls."""

    def __init__(self):
        self.calls = []  # (signature, rows) of each call, including failed ones
        self.failures = []  # statuses of the next calls
        self.max_rows = 1000  # per request
        self.delay_s = 0
        self.change = lambda outputs: outputs
        self.is_available = True

    def read_metadata(self):
        if not self.is_available:
            raise FailureError(404, "Servable not found for request: Latest(tiny)")
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, (inputs, outputs) in SIGNATURES.items():
            definition = definitions.signature_def[name]
            definition.method_name = "tensorflow/serving/predict"
            for infos, tensors in ((definition.inputs, inputs), (definition.outputs, outputs)):
                for key, (dtype, shape) in tensors.items():
                    infos[key].dtype = dtype.as_datatype_enum
                    infos[key].tensor_shape.CopyFrom(tf.TensorShape(shape_of(shape)).as_proto())
        return definitions

    def predict(self, name, inputs):
        rows = len(next(iter(inputs.values())))
        self.calls.append((name, rows))
        time.sleep(self.delay_s)
        if not self.is_available:
            raise FailureError(404, "Servable not found for request: Latest(tiny)")
        if self.failures:
            raise FailureError(self.failures.pop(0), "busy")
        if rows > self.max_rows:
            raise FailureError(413, "Received message larger than max (9 vs. 8)")
        return self.change(getattr(self, f"_{name}")(**inputs))

    def _serving_default(self, image_bytes):
        try:
            scores = np.array([float(face) for face in image_bytes], np.float32)
        except ValueError as error:
            raise FailureError(400, "Unknown image file format.") from error
        return {"scores": scores, "valid": ~np.isnan(scores)}

    def _explain(self, faces):
        return {"cam": faces[:, :2, :3, 0].astype(np.float32)}

    def _metadata(self, names):
        texts = write_metadata(METADATA)
        return {"contents": np.array([texts[name.decode()].encode() for name in names], object)}


def shape_of(sizes):
    return [None if size < 0 else size for size in sizes]


def make_rest_handler(model):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or a client waits 40 ms for the body

        def do_GET(self):
            with self.failures_answered():
                definitions = MessageToDict(
                    model.read_metadata(),
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
                self.answer(200, {"metadata": {"signature_def": definitions}})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body["signature_name"]
            inputs = {
                key: np.array(
                    [base64.b64decode(value["b64"]) for value in values]
                    if SIGNATURES[name][0][key][0] == tf.string
                    else values
                )
                for key, values in body["inputs"].items()
            }
            with self.failures_answered():
                outputs = {
                    key: [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
                    for key, values in model.predict(name, inputs).items()
                }
                bare = len(SIGNATURES[name][1]) == 1
                self.answer(200, {"outputs": next(iter(outputs.values())) if bare else outputs})

        @contextlib.contextmanager
        def failures_answered(self):
            try:
                yield
            except FailureError as error:
                self.answer(error.status, {"error": str(error)})

        def answer(self, status, body):
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client timed out
                self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Handler


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def GetModelMetadata(self, request, context):  # noqa: N802
        with self.failures_answered(context):
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(self.model.read_metadata())
            return response

    def Predict(self, request, context):  # noqa: N802
        with self.failures_answered(context):
            inputs = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
            outputs = self.model.predict(request.model_spec.signature_name, inputs)
            response = predict_pb2.PredictResponse()
            for key in request.output_filter:
                if key in outputs:
                    response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
            return response

    @contextlib.contextmanager
    def failures_answered(self, context):
        try:
            yield
        except FailureError as error:
            context.abort(CODES[error.status], str(error))


def predict_faces(url, faces, **settings):
    """Score faces with a client of one call."""
    with connect(url, **settings) as client:
        return client.predict_faces(faces)


@contextlib.contextmanager
def rest_server(handler, context=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def grpc_server(model, credentials=None):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        servicer = Servicer(model)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
        if credentials:
            port = server.add_secure_port("localhost:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(0).wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("jdfd_keras.client.client.BACKOFF_S", 0.01)


@pytest.fixture
def model():
    return Model()


@pytest.fixture(params=["rest", "grpc"])
def url(request, model):
    if request.param == "rest":
        with rest_server(make_rest_handler(model)) as port:
            yield f"http://127.0.0.1:{port}/v1/models/tiny"
    else:
        with grpc_server(model) as port:
            yield f"grpc://127.0.0.1:{port}/tiny"


@pytest.fixture
def rest_url(model):
    with rest_server(make_rest_handler(model)) as port:
        yield f"http://127.0.0.1:{port}/v1/models/tiny"


@pytest.fixture
def start_stub():
    """A function that starts a server of one handler's `do_POST`, metadata being as ever."""
    with contextlib.ExitStack() as running:

        def start(do_POST):  # noqa: N803
            handler = type("Stub", (make_rest_handler(Model()),), {"do_POST": do_POST})
            port = running.enter_context(rest_server(handler))
            return f"http://127.0.0.1:{port}/v1/models/tiny"

        yield start


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_scores_have_the_order_of_the_faces(url, model, batch_size):
    scores = predict_faces(url, FACES, batch_size=batch_size)
    np.testing.assert_array_equal(scores, SCORES)
    assert scores.dtype == np.float64
    assert max(rows for _, rows in model.calls) == min(batch_size, 5)


def test_no_faces_return_no_scores_and_no_maps(url, model):
    assert predict_faces(url, []).shape == (0,)
    with connect(url) as client:
        assert client.explain(np.zeros((0, 71, 71, 3), np.uint8)).shape[0] == 0
    assert model.calls == []


def test_an_invalid_face_costs_no_other_face_its_score(url, model):
    faces = [b"0.25", b"0.5", b"bad", b"0.125", b"worse"]
    np.testing.assert_array_equal(predict_faces(url, faces), [0.25, 0.5, np.nan, 0.125, np.nan])
    np.testing.assert_array_equal(predict_faces(url, [b"bad"] * 3), [np.nan] * 3)
    model.failures = [400, 400, 400]
    with connect(url) as client, pytest.raises(RequestRefused, match="busy"):
        client.explain(np.zeros((2, 71, 71, 3), np.uint8))


def test_a_nan_score_of_the_server_stays_nan(url):
    np.testing.assert_array_equal(predict_faces(url, [b"0.25", b"nan"]), [0.25, np.nan])


def test_a_removed_model_is_not_reported_as_invalid_faces(url, model):
    def remove(_):
        model.is_available = False
        raise FailureError(400, "Unrecognized servable version label: stable")

    model.change = remove
    with pytest.raises(RequestFailed, match="Servable not found"):
        predict_faces(url, FACES[:1])  # one, so that no further half is sent


def test_a_request_that_is_too_large_is_split(url, model):
    model.max_rows = 2
    np.testing.assert_array_equal(predict_faces(url, FACES), SCORES)
    with connect(url) as client:
        faces = np.repeat(np.arange(5, dtype=np.uint8), 71 * 71 * 3).reshape(5, 71, 71, 3)
        maps = client.explain(faces)
    np.testing.assert_array_equal(maps[:, 0, 0], range(5))
    model.max_rows = 0
    with pytest.raises(RequestTooLarge, match="larger"):
        predict_faces(url, FACES)


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_to_a_busy_server_is_repeated(url, model, status):
    model.failures = [status, status]
    np.testing.assert_array_equal(predict_faces(url, FACES), SCORES)
    assert len(model.calls) == 3
    model.failures = [status] * 3
    with pytest.raises(RequestFailed, match="busy"):
        predict_faces(url, FACES, retries=2)
    assert len(model.calls) == 6


def test_a_request_that_timed_out_is_not_repeated(url, model):
    model.failures = [504]
    with pytest.raises(RequestTimeout, match="busy"):
        predict_faces(url, FACES)
    assert len(model.calls) == 1


def test_a_request_that_failed_is_not_repeated(url, model):
    model.failures = [500]
    with pytest.raises(RequestFailed, match="busy"):
        predict_faces(url, FACES)
    assert len(model.calls) == 1


def test_a_request_to_a_slow_server_times_out(url, model):
    with connect(url, timeout_s=0.2, retries=1) as client:
        model.delay_s = 0.5
        start = time.monotonic()
        with pytest.raises(RequestTimeout, match="(?i)timed out|deadline"):
            client.predict_faces(FACES)
    assert time.monotonic() - start < 2
    assert len(model.calls) == 1


def test_a_label_removed_during_a_call_is_not_reported_as_invalid_faces(url, model):
    def remove(outputs):
        model.is_available = len(model.calls) < 2
        if not model.is_available:
            raise FailureError(400, "Unrecognized servable version label: stable")
        return outputs

    model.change = remove
    with pytest.raises(RequestFailed, match="Servable not found"):
        predict_faces(url, FACES[:2], batch_size=1)


@pytest.mark.parametrize("scores", [np.float32([np.nan]), np.array([b"0.5"], object)])
def test_a_valid_face_without_a_score_is_an_error(url, model, scores):
    model.change = lambda _: {"scores": scores, "valid": np.array([True])}
    with pytest.raises(InvalidResponse):
        predict_faces(url, FACES[:1])


def test_an_answer_that_never_ends_times_out(start_stub):
    def answer(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(20):
                self.wfile.write(b" ")
                time.sleep(0.02)
        self.close_connection = True

    with pytest.raises(RequestTimeout, match="0.1 s"):
        predict_faces(start_stub(answer), FACES[:1], timeout_s=0.1)


def test_each_request_has_the_authorization_header(start_stub, monkeypatch, tmp_path):
    seen = []
    for name in ("JDFD_AUTHORIZATION", "JDFD_KERAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def answer(self):
        seen.append(self.headers["Authorization"])
        return make_rest_handler(Model()).do_POST(self)

    url = start_stub(answer)
    monkeypatch.setenv("JDFD_AUTHORIZATION", "Bearer a")
    predict_faces(url, FACES)
    predict_faces(url, FACES, headers={"Authorization": "Bearer b"})
    predict_faces(url, FACES, headers={})
    assert seen == ["Bearer a", "Bearer b", None]
    # The token of a server that is ours, as text or in a file; other credentials come first.
    monkeypatch.setenv("JDFD_KERAS_TOKEN", "c")
    predict_faces(url, FACES)
    monkeypatch.delenv("JDFD_AUTHORIZATION")
    predict_faces(url, FACES)
    predict_faces(url, FACES, headers={})
    (tmp_path / "token.txt").write_text("d\n", encoding="utf-8")
    monkeypatch.setenv("JDFD_KERAS_TOKEN", f"@{tmp_path / 'token.txt'}")
    predict_faces(url, FACES)
    monkeypatch.setenv("JDFD_KERAS_TOKEN", "")
    predict_faces(url, FACES)
    assert seen[3:] == ["Bearer a", "Bearer c", None, "Bearer d", None]
    for name in ("JDFD_AUTHORIZATION", "JDFD_KERAS_TOKEN"):
        monkeypatch.setenv(name, "hidden\n")
        with pytest.raises(ValueError, match=f"(?s)in Authorization.*{name}(?!.*hid)"):
            connect(url)
        monkeypatch.delenv(name)


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}/v1/models/tiny", "grpc://127.0.0.1:{}/tiny"])
def test_a_server_that_cannot_be_reached_is_an_error_in_three_parts(form):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerUnavailable, match="refused"):
        connect(form.format(port))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8501",
        "http://127.0.0.1:8501/v1/models/",
        "127.0.0.1:8501/v1/models/tiny",
        "http://127.0.0.1:8501/v1/models/tiny:predict",
        "http://127.0.0.1:8501/v1/models/tiny/versions/new",
        "http://me:secret@127.0.0.1:8501/v1/models/tiny",
        "file:///v1/models/tiny",
        "grpc://127.0.0.1:8500",
        "grpc://127.0.0.1/tiny",
        "grpc://127.0.0.1:8500/v1/models/tiny",
    ],
)
def test_a_url_that_is_not_of_a_model_is_refused_before_any_request(url):
    with pytest.raises(ValueError, match="served model, such") as refused:
        connect(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"retries": -1}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="timeout_s > 0"):
        connect("grpc://127.0.0.1:8500/tiny", **wrong)


def test_version_and_label_are_sent_to_the_server():
    specs = []

    class Watching(Servicer):
        def GetModelMetadata(self, request, context):  # noqa: N802
            specs.append(request.model_spec)
            return super().GetModelMetadata(request, context)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Watching(Model()), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        for rest in ("tiny", "tiny/versions/3/", "tiny/labels/stable"):
            connect(f"grpc://127.0.0.1:{port}/{rest}").close()
        server.stop(0).wait()
    assert [(s.name, s.version.value, s.version_label) for s in specs] == [
        ("tiny", 0, ""),
        ("tiny", 3, ""),
        ("tiny", 0, "stable"),
    ]


def test_metadata_and_signatures_are_those_of_the_model(url):
    with connect(url) as client:
        assert client.metadata == METADATA
        assert client.size == 71
        assert client.signatures["serving_default"].outputs == {
            "scores": TensorInfo("float", (None,)),
            "valid": TensorInfo("bool", (None,)),
        }


def test_only_the_requested_outputs_are_returned(url):
    with connect(url) as client:
        both = client.predict("serving_default", {"image_bytes": [b"0.5", b"nan"]})
        assert both["valid"].tolist() == [True, False] and both["valid"].dtype == bool
        assert both["scores"].dtype == np.float32
        assert list(client.predict("serving_default", {"image_bytes": [b"1"]}, ["valid"])) == [
            "valid"
        ]
        with pytest.raises(SignatureMissing, match=r"\['score'\] of .*got \['scores', 'va"):
            client.predict("serving_default", {"image_bytes": [b"0.5"]}, ["score"])
        with pytest.raises(SignatureMissing, match="'classify'; got"):
            client.predict("classify", {"inputs": [b"x"]})


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (np.zeros((1, 71, 71, 3), np.float32), "uint8 .*'faces'; got float32"),
        (np.zeros((71, 71, 3), np.uint8), ".None, 71, 71, 3..*got .71, 71, 3"),
        (np.zeros((1, 72, 71, 3), np.uint8), "got .1, 72, 71, 3"),
    ],
)
def test_faces_of_another_dtype_or_shape_are_not_sent(url, model, faces, message):
    with connect(url) as client, pytest.raises(ValueError, match=message):
        client.explain(faces)
    assert model.calls == []


def test_inputs_must_match_the_signature(url, model):
    with connect(url) as client:
        with pytest.raises(ValueError, match=r"\['image_bytes'\].*got \['images'\]"):
            client.predict("serving_default", {"images": [b"x"]})
        with pytest.raises(ValueError, match="must be bytes"):
            client.predict("serving_default", {"image_bytes": ["x"]})
    assert model.calls == []


@pytest.mark.parametrize(
    "outputs",
    [
        {"scores": np.float32([0.5])},  # of two faces
        {"scores": np.float32([[0.5, 0.5]])},
        {"scores": np.float32([0.5, 1.5])},
        {"scores": np.float32([-1, 0.5])},
        {"valid": np.array([True, True])},
    ],
)
def test_an_answer_without_one_score_per_face_is_an_error(url, model, outputs):
    model.change = lambda _: outputs
    with pytest.raises(InvalidResponse):
        predict_faces(url, FACES[:2])


def test_one_client_serves_many_threads(url, model):
    model.delay_s = 0.01
    faces = [[b"0.25"] * n + [b"0.75"] for n in range(24)]
    with connect(url) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(client.predict_faces, faces))
    assert [array.tolist() for array in scores] == [[0.25] * n + [0.75] for n in range(24)]


def test_scores_of_files_have_their_order(url, tmp_path):
    for index, face in enumerate(FACES):
        (tmp_path / f"{index}.png").write_bytes(face)
    paths = [tmp_path / f"{index}.png" for index in range(len(FACES))]
    with connect(url, batch_size=2) as client:
        np.testing.assert_array_equal(client.predict_files(paths), SCORES)
        assert client.predict_files([]).shape == (0,)
        with pytest.raises(FileNotFoundError, match="9.png"):
            client.predict_files([*paths, tmp_path / "9.png"])


@pytest.mark.parametrize(
    "text",
    [
        b"<html>",
        b"",
        b"[0.5]",
        b"[" * 100_000,
        b"{}",
        b'{"outputs": [0.5]}',
        b'{"outputs": {"scores": null}}',
        b'{"outputs": {"scores": 0.5}}',
        b'{"outputs": {"scores": ["0.5"]}}',
        b'{"outputs": {"scores": [true]}}',
        b'{"outputs": {"scores": [[0.5], []]}}',
    ],
)
def test_an_answer_in_another_format_is_an_error(start_stub, text):
    def answer(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    with pytest.raises(InvalidResponse):
        predict_faces(start_stub(answer), [b"0.5"])


@pytest.mark.parametrize("text", [b'{"metadata": []}', b'{"metadata": {}}', b"null"])
def test_metadata_in_another_format_is_an_error(text):
    class Stub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with rest_server(Stub) as port, pytest.raises(InvalidResponse):
        connect(f"http://127.0.0.1:{port}/v1/models/tiny")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
def test_a_request_whose_connection_broke_is_repeated(start_stub, sent):
    attempts = []

    def answer(self):
        attempts.append(None)
        if len(attempts) > 2:
            return make_rest_handler(Model()).do_POST(self)
        self.wfile.write(sent)
        self.close_connection = True
        return None

    url = start_stub(answer)
    np.testing.assert_array_equal(predict_faces(url, FACES), SCORES)
    attempts.clear()
    with pytest.raises(ServerUnavailable):
        predict_faces(url, FACES, retries=1)
    assert len(attempts) == 2


def test_the_server_may_state_the_delay_before_a_repetition(start_stub):
    times = []

    def answer(self):
        times.append(time.monotonic())
        if len(times) > 1:
            return make_rest_handler(Model()).do_POST(self)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503)
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    np.testing.assert_array_equal(predict_faces(start_stub(answer), FACES), SCORES)
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("status", [400, 301, 403])
def test_an_error_of_a_proxy_is_not_about_the_faces(start_stub, status):
    def answer(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"Not today.")

    kind = AccessDenied if status == 403 else RequestFailed
    with pytest.raises(kind, match=f"status {status}: b'Not today.'"):
        predict_faces(start_stub(answer), [b"0.5"])


def test_no_proxy_is_used_for_this_machine(url, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    np.testing.assert_array_equal(predict_faces(url, FACES, retries=0), SCORES)


def test_proxy_of_the_environment_is_used(model, monkeypatch):
    seen = []

    class Proxy(make_rest_handler(model)):
        def do_GET(self):  # noqa: N802
            seen.append((self.path, self.headers["Proxy-Authorization"]))
            super().do_GET()

    with rest_server(Proxy) as port:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        url = "http://models.invalid:8501/v1/models/tiny"
        np.testing.assert_array_equal(predict_faces(url, FACES), SCORES)
        login = base64.b64encode(b"me:p@ss").decode()
        assert seen == [(f"{url}/metadata", f"Basic {login}")]
        monkeypatch.setenv("no_proxy", "models.invalid")
        with pytest.raises(ServerUnavailable, match="resolve"):
            connect(url, retries=0)


def test_tls_trusts_the_certificate_authorities_of_the_system(model, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with (
        rest_server(make_rest_handler(model), context) as rest_port,
        grpc_server(model, credentials) as grpc_port,
    ):
        urls = (
            f"https://localhost:{rest_port}/v1/models/tiny",
            f"grpcs://localhost:{grpc_port}/tiny",
        )
        for url in urls:
            with pytest.raises(ClientError, match="(?i)certificate|handshake|ssl"):
                connect(url, retries=0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        for url in urls:
            np.testing.assert_array_equal(predict_faces(url, FACES), SCORES)


def test_client_needs_no_tensorflow(model):
    code = (
        "import sys; from jdfd_keras.client import connect\n"
        "for url in sys.argv[1:]:\n"
        "    with connect(url) as client:\n"
        "        print(client.predict_faces([b'0.5']), client.metadata.name)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    with rest_server(make_rest_handler(model)) as rest_port, grpc_server(model) as grpc_port:
        urls = f"http://127.0.0.1:{rest_port}/v1/models/tiny", f"grpc://127.0.0.1:{grpc_port}/tiny"
        done = subprocess.run([sys.executable, "-c", code, *urls], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[0.5] tiny\n" * 2), done.stderr


def test_an_error_survives_pickling():
    error = pickle.loads(
        pickle.dumps(SignatureMissing("grpc://h:1/m", "the signature 'x'; got []"))
    )
    assert (error.url, error.reason) == ("grpc://h:1/m", "the signature 'x'; got []")
    assert "grpc://h:1/m" in str(error) and "'x'; got []" in str(error)


def test_every_error_says_what_to_try(snapshot):
    kinds = sorted(ClientError.__subclasses__(), key=lambda kind: kind.__name__)
    assert {kind.__name__: str(kind("URL", "REASON.")) for kind in kinds} == snapshot
