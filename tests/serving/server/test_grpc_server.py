import json
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from jdfd_keras.serving.model_config import ModelConfig

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(grpc_target):
    with grpc.insecure_channel(grpc_target) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(inputs, signature="serving_default", outputs=(), **spec):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = spec.pop("name", "tiny")
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("spec", [{}, {"version": 1}, {"label": "stable"}])
def test_predict_returns_scores_and_the_version_used(stub, encoded_faces, expected_scores, spec):
    response = stub.Predict(predict_request({"image_bytes": encoded_faces}, **spec))
    scores = tf.make_ndarray(response.outputs["scores"])
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert tf.make_ndarray(response.outputs["valid"]).tolist() == [True] * 4
    assert response.model_spec.version.value == 1
    assert response.model_spec.name == "tiny"
    assert response.model_spec.signature_name == "serving_default"


def test_only_requested_outputs_are_returned(stub, face_batch, engine):
    request = predict_request({"faces": face_batch}, "reconstruct", ["error"])
    response = stub.Predict(request)
    assert list(response.outputs) == ["error"]
    expected = engine.run("reconstruct", {"faces": face_batch})["error"]
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["error"]), expected, rtol=1e-4)


def test_classify_agrees_with_rest(stub, model_url, encoded_faces, expected_scores):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "classify"
    for face in encoded_faces:
        features = request.input.example_list.examples.add().features
        features.feature["image/encoded"].bytes_list.value.append(face)
    response = stub.Classify(request)
    rows = [
        [[item.label, item.score] for item in row.classes]
        for row in response.result.classifications
    ]
    assert [[label for label, _ in row] for row in rows] == [["real", "fake"]] * 4
    np.testing.assert_allclose([row[1][1] for row in rows], expected_scores, atol=1e-5)
    assert response.model_spec.version.value == 1


def test_metadata_agrees_with_rest(stub, model_url):
    from google.protobuf.json_format import MessageToDict

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stub.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    with urllib.request.urlopen(f"{model_url}/metadata") as answer:
        document = json.load(answer)["metadata"]["signature_def"]["signature_def"]
    got = MessageToDict(
        signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )["signature_def"]
    assert "faces" in got
    assert got == {name: document[name] for name in got}

    for fields in ([], ["assets"]):
        del request.metadata_field[:]
        request.metadata_field.extend(fields)
        assert refusal(stub.GetModelMetadata, request)[0] == CODE.INVALID_ARGUMENT


def test_status_and_health(channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    (status,) = models.GetModelStatus(request).model_version_status
    assert (status.version, status.state) == (1, status.AVAILABLE)
    request.model_spec.name = "none"
    assert refusal(models.GetModelStatus, request)[0] == CODE.NOT_FOUND
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        checked = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


FACE = np.zeros((1, 71, 71, 3), np.uint8)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_request({}, name="none"), CODE.NOT_FOUND, "none"),
        (predict_request({}, version=9), CODE.NOT_FOUND, "version 9"),
        (predict_request({}, version=-1), CODE.NOT_FOUND, "version -1"),
        (predict_request({}, label="z"), CODE.INVALID_ARGUMENT, "'stable']; got z"),
        (predict_request({}, "z"), CODE.FAILED_PRECONDITION, "got 'z'"),
        (predict_request({}), CODE.INVALID_ARGUMENT, "['image_bytes']; got []"),
        (predict_request({"faces": FACE, "z": 1}, "faces"), CODE.INVALID_ARGUMENT, "'z']"),
        (predict_request({"faces": FACE}, "faces", ["z"]), CODE.INVALID_ARGUMENT, "['scores']"),
        (predict_request({"faces": FACE[0]}, "faces"), CODE.INVALID_ARGUMENT, "got (71, 71, 3)"),
        (predict_request({"faces": FACE[:, :9]}, "faces"), CODE.INVALID_ARGUMENT, "71, 71, 3)"),
        (predict_request({"faces": FACE * 1.0}, "faces"), CODE.INVALID_ARGUMENT, "uint8"),
        (predict_request({"image_bytes": [[b"x"]]}), CODE.INVALID_ARGUMENT, "got (1, 1)"),
    ],
)
def test_an_invalid_request_gets_an_error_with_its_cause(stub, request_, code, message):
    got, details = refusal(stub.Predict, request_)
    assert got == code
    assert message in details


@pytest.mark.parametrize(
    ("dtype", "shape", "values"),
    [
        ("DT_UINT8", [2**20, 71, 71, 3], {"int_val": [7]}),  # a terabyte in a few bytes
        ("DT_UINT8", [1, 71, 71, 3], {"int_val": [1, 2, 300] * 5041}),
        ("DT_UINT8", [1, 71, 71, -3], {"tensor_content": b"x"}),
        ("DT_UINT8", [1, 71, 71, 3], {"tensor_content": b"x"}),
        ("DT_RESOURCE", [], {}),
        ("DT_INVALID", [], {}),
    ],
)
def test_an_invalid_tensor_is_rejected(stub, dtype, shape, values):
    request = predict_request({}, "faces")
    tensor = request.inputs["faces"]
    tensor.dtype = types_pb2.DataType.Value(dtype)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for name, value in values.items():
        if isinstance(value, bytes):
            setattr(tensor, name, value)
        else:
            getattr(tensor, name).extend(value)
    assert refusal(stub.Predict, request)[0] == CODE.INVALID_ARGUMENT


def test_one_value_for_all_elements_is_expanded(stub, engine):
    request = predict_request({}, "faces")
    tensor = request.inputs["faces"]
    tensor.dtype = tf.uint8.as_datatype_enum
    for size in FACE.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.int_val.append(200)
    expected = engine.run("faces", {"faces": np.full_like(FACE, 200)})["scores"]
    got = tf.make_ndarray(stub.Predict(request).outputs["scores"])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_limits_reject_requests_and_later_requests_succeed(channel, stub, encoded_faces):
    code, _ = refusal(stub.Predict, predict_request({"image_bytes": [bytes(2**21)]}))
    assert code == CODE.RESOURCE_EXHAUSTED
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refusal(call, b"\xff\xff no message")[0] == CODE.INVALID_ARGUMENT
    request = inference_pb2.MultiInferenceRequest()
    assert refusal(stub.MultiInference, request)[0] == CODE.UNIMPLEMENTED
    assert stub.Predict(predict_request({"image_bytes": encoded_faces[:1]})).outputs


def test_examples_too_large_with_their_context_are_rejected(stub, encoded_faces):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "classify"
    shared = request.input.example_list_with_context
    shared.context.features.feature["image/encoded"].bytes_list.value.append(bytes(10_000))
    for _ in range(200):  # 2 MB of the 1 MiB that a request may have
        shared.examples.add()
    assert request.ByteSize() < 2**20
    code, message = refusal(stub.Classify, request)
    assert code == CODE.RESOURCE_EXHAUSTED
    assert "1048576 bytes with" in message


def test_the_deadline_of_the_client_cancels_the_request(stub, encoded_faces):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request({"image_bytes": encoded_faces}), timeout=1e-4)
    assert caught.value.code() == CODE.DEADLINE_EXCEEDED


def test_regress_and_shared_features(start_server, tmp_path):
    module = tf.Module()
    features = {name: tf.io.FixedLenFeature([], tf.float32) for name in ("a", "b")}

    def difference(inputs):
        parsed = tf.io.parse_example(inputs, features)
        return {"outputs": parsed["a"] - parsed["b"]}

    spec = [tf.TensorSpec([None], tf.string, name="inputs")]
    function = tf.function(difference, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path / "d" / "4"), signatures={"difference": function})
    server = start_server([ModelConfig("d", tmp_path / "d")])

    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "d"
    request.model_spec.signature_name = "difference"
    both = request.input.example_list_with_context
    both.context.features.feature["a"].float_list.value.append(5)
    both.context.features.feature["b"].float_list.value.append(1)
    both.examples.add()
    both.examples.add().features.feature["b"].float_list.value.append(3)
    with grpc.insecure_channel(server.grpc_target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Regress(request)
        assert [item.value for item in response.result.regressions] == [4, 2]
        assert response.model_spec.version.value == 4
        request.input.Clear()
        assert refusal(stub.Regress, request)[0] == CODE.INVALID_ARGUMENT
