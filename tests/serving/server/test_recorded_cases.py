"""Answers compared with those that TensorFlow Serving 2.20.0 gave to the same requests."""

import base64
import contextlib
import gzip
import http.client
import json
from pathlib import Path

import grpc
import pytest
import tensorflow as tf

from jdfd_keras.serving.model_config import ModelConfig

ROOT = Path(__file__).parents[3]
CASES = (ROOT / "tests/data/tfserving/cases.jsonl").read_text(encoding="utf-8").splitlines()
# Status and JSON of our own answers, where they differ.
DIFFERENT = {
    "inf_Inf": (400, None),
    "deep": (400, None),
    "bytes_plain_out_nonutf8": (200, {"outputs": ["\ufffd\0\ufffd"]}),
    "echo_uint8": (400, None),
    "echo_int16": (400, None),
}
SERIALIZED = tf.TensorSpec([None], tf.string, name="inputs")


def signature(function, **dtypes):
    """A tf.function with inputs of any shape, by name and dtype or TensorSpec."""
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=name)
        if isinstance(spec, tf.TensorSpec)
        else tf.TensorSpec(None, spec, name=name)
        for name, spec in dtypes.items()
    ]
    return tf.function(function, input_signature=specs)


def save_half(path, offset, methods):
    """Save y = x / 2 + offset, for each method of TensorFlow Serving."""
    module = tf.Module()
    module.slope, module.offset = tf.Variable(0.5), tf.Variable(float(offset))
    features = {"x": tf.io.FixedLenFeature([1], tf.float32)}

    def of(x):
        return module.slope * x + module.offset

    def of_examples(inputs):
        return of(tf.io.parse_example(inputs, features)["x"])

    save(
        module,
        path,
        {
            "serving_default": signature(lambda x: {"y": of(x)}, x=tf.float32),
            "regress_x_to_y": signature(
                lambda inputs: {"outputs": of_examples(inputs)}, inputs=SERIALIZED
            ),
            "classify_x_to_y": signature(
                lambda inputs: {"scores": of_examples(inputs)}, inputs=SERIALIZED
            ),
        },
        methods,
    )


def save_echo(path):
    """Save signatures that return their input, one for each dtype, and some special ones."""
    names = "float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool string"
    signatures = {
        f"echo_{name}": signature(lambda v: {"v": tf.identity(v)}, v=getattr(tf, name))
        for name in [*names.split(), "float16", "bfloat16"]
    }
    row, pair = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, 2], tf.float32)

    def classify(inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        fake = tf.sigmoid(x)
        labels = tf.tile(tf.constant([["real", "fake"]]), [tf.shape(x)[0], 1])
        return {"classes": labels, "scores": tf.stack([1 - fake, fake], 1)}

    signatures |= {
        "bytes_out": signature(
            lambda v: {"v_bytes": tf.identity(v)}, v=tf.TensorSpec([None], tf.string)
        ),
        "two": signature(lambda a, b: {"sum": a + b, "dif": a - b}, a=pair, b=pair),
        "fixed": signature(
            lambda img: {"m": tf.reduce_mean(img, [1, 2, 3])},
            img=tf.TensorSpec([None, 4, 4, 3], tf.float32),
        ),
        "scalar_out": signature(lambda v: {"s": tf.reduce_sum(v)}, v=row),
        "uneven_out": signature(lambda v: {"a": v, "b": tf.concat([v, v], 0)}, v=row),
        "cls2": signature(classify, inputs=SERIALIZED),
        "cls_extra": signature(
            lambda inputs: classify(inputs) | {"extra": tf.size(inputs)}, inputs=SERIALIZED
        ),
    }
    save(tf.Module(), path, signatures, {})


def save(module, path, signatures, methods):
    tf.saved_model.save(module, str(path), signatures=signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
    for name, method in methods.items():
        updater.replace_method_name(signature_key=name, method_name=method, tags="serve")
    updater.save()


@pytest.fixture(scope="module")
def recorded_server(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("recorded_models")
    methods = {
        "regress_x_to_y": "tensorflow/serving/regress",
        "classify_x_to_y": "tensorflow/serving/classify",
    }
    save_half(directory / "half" / "1", 2, methods)
    save_half(directory / "half" / "2", 3, methods)
    save_half(directory / "half_nomethod" / "1", 2, {})
    save_echo(directory / "echo" / "7")
    labels = {"stable": 1, "canary": 2}
    return start_server(
        [
            ModelConfig("half", directory / "half", latest=0, labels=labels),
            ModelConfig("half_nomethod", directory / "half_nomethod"),
            ModelConfig("echo", directory / "echo"),
        ]
    )


def body_of(request):
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"])
    body = request.get("body", "")
    if isinstance(body, list):
        body = "".join(text * count for text, count in body)
    return body.encode()


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in map(json.loads, CASES)])
def test_the_answer_is_that_of_tensorflow_serving(recorded_server, case):
    request = case["request"]
    connection = http.client.HTTPConnection(recorded_server.url.split("/")[2], timeout=30)
    headers = request.get("headers", {})
    connection.request(request["method"], request["path"], body_of(request), headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)

    recorded = (case["status"], case.get("json"))
    status, document = DIFFERENT.get(case["name"], recorded)
    assert response.status == status, body
    if status < 400:
        assert response.headers["Content-Type"] == case["content_type"]
    elif body and response.headers["Content-Type"] == "application/json":
        assert isinstance(json.loads(body)["error"], str)
    if document is not None:
        assert json.loads(body) == approximately(document)
    assert case["name"] not in DIFFERENT or (status, document) != recorded


def test_the_differences_are_documented():
    text = (ROOT / "serving" / "README.md").read_text(encoding="utf-8")
    assert f"{len(CASES) - len(DIFFERENT)} of the {len(CASES)} recorded requests" in text
    assert [name for name in DIFFERENT if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/V1/MODELS/half/VERSIONS/2:predict", "half"),
        ("/v1/Models/half/Labels/canary:predict", "half"),
        ("/v1/models/%68al%66:predict", "half"),
        ("/v1/models/half/labels/can%61ry:predict", "half"),
        ("/v1/models/half%5Fnomethod:predict", "half_nomethod"),
        ("/v1/models/half:predict", "half"),
    ],
)
def test_paths_are_read_as_by_tensorflow_serving(recorded_server, path, model):
    """Its expression of a path ignores case, and names are decoded after that."""
    assert predict(recorded_server, path) == (200, 4.5 if model == "half" else 3.5)


@pytest.mark.parametrize("path", ["/v1/models/HALF:predict", "/v1/models/half%3Apredict"])
def test_names_keep_their_case_and_their_ends(recorded_server, path):
    assert predict(recorded_server, path)[0] in (400, 404)


@pytest.mark.parametrize(
    ("start", "end"), [("\ufeff", ""), ("", " and text"), ("\ufeff", '{"instances": "no"}')]
)
def test_what_surrounds_the_json_is_ignored_as_by_tensorflow_serving(recorded_server, start, end):
    body = f'{start}{{"instances": [3.0]}}{end}'.encode()
    assert predict(recorded_server, "/v1/models/half:predict", body) == (200, 4.5)


def test_line_breaks_inside_base64_are_ignored_as_by_tensorflow_serving(recorded_server):
    body = {"signature_name": "echo_string", "instances": [{"b64": "Zm\nFr\r\nZQ=="}]}
    answer = predict(recorded_server, "/v1/models/echo:predict", json.dumps(body).encode())
    assert answer == (200, "fake")


@pytest.mark.parametrize(("size", "status"), [(4, 200), (5, 400)])
def test_another_shape_than_that_of_the_signature_is_refused(recorded_server, size, status):
    """TensorFlow Serving answers 200 to both: it checks only the number of axes."""
    image = [[[0.5] * 3] * size] * size
    body = json.dumps({"signature_name": "fixed", "instances": [image]}).encode()
    assert predict(recorded_server, "/v1/models/echo:predict", body)[0] == status


def test_what_the_embedded_server_lacks_is_unimplemented(recorded_server):
    text = (ROOT / "serving" / "README.md").read_text(encoding="utf-8")
    lacking = [
        "tensorflow.serving.PredictionService/MultiInference",
        "tensorflow.serving.ModelService/HandleReloadConfigRequest",
        "tensorflow.serving.SessionService/SessionRun",
    ]
    with grpc.insecure_channel(recorded_server.grpc_target) as channel:
        for name in lacking:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/{name}")(b"", timeout=30)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert f"`{name.split('/')[1]}`" in text


def predict(server, path, body=b'{"instances": [3.0]}'):
    """Status and value of one request."""
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.load(response).get("predictions", [None])[0]


def approximately(document):
    if isinstance(document, dict):
        return {key: approximately(value) for key, value in document.items()}
    if isinstance(document, list):
        return [approximately(value) for value in document]
    if isinstance(document, float):  # printed with nine digits
        return pytest.approx(document, rel=1e-7, nan_ok=True)
    return document
