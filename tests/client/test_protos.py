"""Messages against those of tensorflow-serving-api, and arrays against TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from jdfd_keras.client import protos
from jdfd_keras.client.grpc_transport import GrpcTransport
from jdfd_keras.client.signatures import Signature, TensorInfo

THEIRS = {
    "Dimension": tensor_shape_pb2.TensorShapeProto.Dim,
    "Shape": tensor_shape_pb2.TensorShapeProto,
    "Tensor": tensor_pb2.TensorProto,
    "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "Version": Int64Value,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "Any": Any,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
}
NUMBERS = ["float", "double", "int32", "uint8", "int16", "int8", "int64", "bool"]
NUMBERS += ["uint16", "half", "uint32", "uint64"]


def make_array(name):
    values = [[0, 1, 2], [3, 100, 127]]
    if name == "string":
        return np.array([[b"a", b""], [b"\xff\x00", b"abc"]], object)
    return np.array(values, tensorflow_dtypes()[name])


def tensorflow_dtypes():
    """Return TensorFlow's own NumPy dtype for each of its names."""
    return {
        name: tf.as_dtype(types_pb2.DataType.Value(f"DT_{name.upper()}")).as_numpy_dtype
        for name in [*NUMBERS, "string"]
    }


def test_fields_have_the_numbers_and_types_of_tensorflow():
    assert protos.CLASSES.keys() == THEIRS.keys()
    for name, theirs in THEIRS.items():
        for field, ours in protos.CLASSES[name].DESCRIPTOR.fields_by_name.items():
            their = theirs.DESCRIPTOR.fields_by_name[field]
            assert ours.number == their.number, (name, field)
            assert ours.is_repeated == their.is_repeated, (name, field)
            assert ours.type == their.type, (name, field)


def test_dtypes_are_those_of_tensorflow():
    ours = protos.CLASSES["TensorInfo"].DESCRIPTOR.fields_by_name["dtype"].enum_type
    for value in ours.values:
        assert types_pb2.DataType.Value(value.name) == value.number
    assert {name: (number, dtype.type) for name, (number, dtype, _) in protos.DTYPES.items()} == {
        name: (types_pb2.DataType.Value(f"DT_{name.upper()}"), dtype)
        for name, dtype in (tensorflow_dtypes() | {"string": np.object_}).items()
    }


@pytest.mark.parametrize("name", [*NUMBERS, "string"])
def test_tensorflow_reads_our_arrays_and_we_read_those_of_tensorflow(name):
    array = make_array(name)
    sent = protos.encode_tensor(array).SerializeToString()
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(sent))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)

    made = tf.make_tensor_proto(array).SerializeToString()
    ours = protos.decode_tensor(protos.Tensor.FromString(made))
    assert ours.dtype == array.dtype
    np.testing.assert_array_equal(ours, array)


@pytest.mark.parametrize("name", [*NUMBERS, "string"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_last_of_too_few_values_is_repeated(name, count):
    """Expected values are TensorFlow's own."""
    _, _, field = protos.DTYPES[name]
    theirs = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(f"DT_{name.upper()}"))
    theirs.tensor_shape.dim.add(size=3)
    values = [b"x", b"", b"yz"] if name == "string" else [1, 0, 1]
    if name == "half":
        values = np.array([1.5, 0, -2], np.float16).view(np.uint16).tolist()
    getattr(theirs, field).extend(values[:count])
    expected = tf.make_ndarray(theirs)
    if name == "string" and not count:
        expected = np.array([b""] * 3, object)  # TensorFlow returns str here, and bytes elsewhere
    array = protos.decode_tensor(protos.Tensor.FromString(theirs.SerializeToString()))
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("array", [np.float32(0.5), np.zeros((0, 4), np.uint8), np.zeros(1)])
def test_arrays_without_axes_or_rows_keep_their_shape(array):
    array = np.asarray(array)
    back = protos.decode_tensor(
        protos.Tensor.FromString(protos.encode_tensor(array).SerializeToString())
    )
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": 8},  # complex64
        {"dtype": 1, "tensor_content": b"12345"},
        {"dtype": 1, "tensor_content": b"1234", "tensor_shape": {"dim": [{"size": 2}]}},
        {"dtype": 1, "float_val": [1, 2], "tensor_shape": {"dim": [{"size": 1}]}},
        {"dtype": 7, "tensor_content": b"12345678"},
        {"dtype": 1, "tensor_content": b"1234", "tensor_shape": {"dim": [{"size": -1}]}},
        {"dtype": 1, "float_val": [1], "tensor_shape": {"dim": [{"size": 2**33}]}},
        {"dtype": 1, "float_val": [1], "tensor_shape": {"dim": [{"size": 2**45}]}},
    ],
)
def test_an_inconsistent_message_is_an_error(tensor):
    with pytest.raises(ValueError):
        protos.decode_tensor(protos.Tensor(**tensor))


def test_an_array_of_an_unknown_dtype_is_an_error():
    with pytest.raises(ValueError, match="got complex64"):
        protos.encode_tensor(np.zeros(1, np.complex64))


def test_tensorflow_serving_parses_our_request():
    ours = protos.PredictRequest(output_filter=["scores"])
    ours.model_spec.name, ours.model_spec.signature_name = "tiny", "serving_default"
    ours.model_spec.version.value = 3
    ours.inputs["image_bytes"].CopyFrom(protos.encode_tensor(np.array([b"x"], object)))

    theirs = predict_pb2.PredictRequest(output_filter=["scores"])
    theirs.model_spec.name, theirs.model_spec.signature_name = "tiny", "serving_default"
    theirs.model_spec.version.value = 3
    theirs.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"x"]))
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == theirs


def test_signatures_are_read_from_metadata(monkeypatch):
    definitions = get_model_metadata_pb2.SignatureDefMap()
    faces = definitions.signature_def["faces"]
    faces.method_name = "tensorflow/serving/predict"
    faces.inputs["faces"].dtype = types_pb2.DT_UINT8
    for size in (-1, 71, 71, 3):
        faces.inputs["faces"].tensor_shape.dim.add(size=size)
    faces.outputs["scores"].dtype = types_pb2.DT_FLOAT
    faces.outputs["scores"].tensor_shape.unknown_rank = True
    faces.outputs["other"].dtype = types_pb2.DT_BFLOAT16
    faces.inputs["later"].dtype = 99  # of a later version of TensorFlow
    definitions.signature_def["__saved_model_init_op"].outputs["x"].dtype = types_pb2.DT_INVALID
    theirs = get_model_metadata_pb2.GetModelMetadataResponse()
    theirs.metadata["signature_def"].Pack(definitions)
    ours = protos.GetModelMetadataResponse.FromString(theirs.SerializeToString())
    transport = GrpcTransport("grpc://localhost:1/tiny", timeout_s=1, headers={})
    monkeypatch.setattr(transport, "_call", lambda *_: ours)
    assert transport.read_signatures() == {
        "faces": Signature(
            "tensorflow/serving/predict",
            {"faces": TensorInfo("uint8", (None, 71, 71, 3)), "later": TensorInfo("99", ())},
            {"scores": TensorInfo("float", None), "other": TensorInfo("bfloat16", ())},
        )
    }
