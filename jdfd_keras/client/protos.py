"""Messages of TensorFlow Serving's gRPC API, and conversion of arrays to and from them.

Defines message classes that read and write the same bytes as those of tensorflow-serving-api,
which cannot be imported without TensorFlow. Only the fields that a client needs are defined:
protobuf ignores others. The descriptor pool is a separate one, so that both kinds of classes can
exist in one process. `check_inputs` and `fits` check arrays against a signature.

Reference:
    tensorflow/core/framework/{tensor,tensor_shape,types}.proto and
    tensorflow/core/protobuf/meta_graph.proto of https://github.com/tensorflow/tensorflow;
    tensorflow_serving/apis/*.proto of https://github.com/tensorflow/serving.
"""

import math

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from jdfd_keras.client.signatures import Signature, TensorInfo

PACKAGE = "jdfd_keras.protos"
# Fields of each message, with their numbers and types. The keys of a map are strings.
MESSAGES = {
    "Dimension": {"size": (1, "int64")},
    "Shape": {"dim": (2, "repeated Dimension"), "unknown_rank": (3, "bool")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "Shape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
        "half_val": (13, "repeated int32"),
        "uint32_val": (16, "repeated uint32"),
        "uint64_val": (17, "repeated uint64"),
    },
    "TensorInfo": {"dtype": (2, "int32"), "tensor_shape": (3, "Shape")},
    "SignatureDef": {
        "inputs": (1, "map TensorInfo"),
        "outputs": (2, "map TensorInfo"),
        "method_name": (3, "string"),
    },
    "SignatureDefMap": {"signature_def": (1, "map SignatureDef")},
    "Version": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Version"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map Tensor"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {"outputs": (1, "map Tensor")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "GetModelMetadataRequest": {
        "model_spec": (1, "ModelSpec"),
        "metadata_field": (2, "repeated string"),
    },
    "GetModelMetadataResponse": {"metadata": (2, "map Any")},
}
# By the dtype of TensorInfo: the number in types.proto, the NumPy dtype, and the field that holds
# the values if they are not in tensor_content.
DTYPES = {
    "float": (1, np.dtype(np.float32), "float_val"),
    "double": (2, np.dtype(np.float64), "double_val"),
    "int32": (3, np.dtype(np.int32), "int_val"),
    "uint8": (4, np.dtype(np.uint8), "int_val"),
    "int16": (5, np.dtype(np.int16), "int_val"),
    "int8": (6, np.dtype(np.int8), "int_val"),
    "string": (7, np.dtype(object), "string_val"),
    "int64": (9, np.dtype(np.int64), "int64_val"),
    "bool": (10, np.dtype(np.bool_), "bool_val"),
    "uint16": (17, np.dtype(np.uint16), "int_val"),
    "half": (19, np.dtype(np.float16), "half_val"),
    "uint32": (22, np.dtype(np.uint32), "uint32_val"),
    "uint64": (23, np.dtype(np.uint64), "uint64_val"),
}
# Limit of an answer, and of an array in it: a tensor of any shape may hold a single value.
MAX_ANSWER_BYTES = 2**30
NAMES = {number: name for name, (number, _, _) in DTYPES.items()}


def encode_tensor(array: np.ndarray) -> Message:
    """Convert an array to a Tensor message.

    Args:
        array: Array of one of DTYPES; strings are an object array of bytes.

    Raises:
        ValueError: If it has another dtype.

    Example:
        >>> encode_tensor(np.zeros((2, 3), np.float32)).tensor_shape.dim[1].size
        3
    """
    number, _, _ = DTYPES[name_dtype(array.dtype)]
    tensor = Tensor(dtype=number, tensor_shape=Shape(dim=[{"size": n} for n in array.shape]))
    if array.dtype == object:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def decode_tensor(tensor: Message) -> np.ndarray:
    """Convert a Tensor message to an array.

    Args:
        tensor: The message, with packed or single values. If there are fewer single values than
            the shape requires, the last one is repeated.

    Returns:
        The array; strings are an object array of bytes.

    Raises:
        ValueError: If the message has another dtype or is inconsistent.

    Example:
        >>> decode_tensor(encode_tensor(np.array([0.5], np.float32)))
        array([0.5], dtype=float32)
    """
    if tensor.dtype not in NAMES:
        raise ValueError(
            f"Expected a tensor of one of {list(DTYPES)}; got number {tensor.dtype} of types.proto."
            " Request other outputs."
        )
    _, dtype, field = DTYPES[NAMES[tensor.dtype]]
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > MAX_ANSWER_BYTES:
        raise ValueError(
            f"Expected a tensor of at most {MAX_ANSWER_BYTES} bytes, with no size below 0; got "
            f"{dtype}{shape}. Request less at once."
        )
    if tensor.tensor_content:
        packed = np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<"))
        return packed.astype(dtype).reshape(shape)
    values = np.array(getattr(tensor, field), np.uint16 if field == "half_val" else dtype)
    if field == "half_val":
        values = values.view(np.float16)
    rest = math.prod(shape) - len(values)
    if rest and not len(values):
        values = np.full(1, b"" if field == "string_val" else 0, dtype)
        rest -= 1
    return np.pad(values, (0, rest), mode="edge").reshape(shape)


def name_dtype(dtype: np.dtype) -> str:
    """Return TensorFlow's name of a NumPy dtype.

    Raises:
        ValueError: If it is not one of DTYPES.

    Example:
        >>> name_dtype(np.dtype(np.float32))
        'float'
    """
    for name, (_, numpy_dtype, _) in DTYPES.items():
        if dtype == numpy_dtype:
            return name
    raise ValueError(
        f"Expected an array of one of {list(DTYPES)}; got {dtype}. Convert it with `.astype`; "
        "strings must be an object array of bytes."
    )


def read_signatures(response: Message) -> dict[str, Signature]:
    """Read the signatures of a GetModelMetadataResponse.

    Raises:
        google.protobuf.message.DecodeError: If its `signature_def` cannot be decoded.
    """
    packed = response.metadata["signature_def"].value
    return {
        name: Signature(
            definition.method_name,
            _read_tensor_infos(definition.inputs),
            _read_tensor_infos(definition.outputs),
        )
        for name, definition in SignatureDefMap.FromString(packed).signature_def.items()
        if definition.method_name  # the initialization has none
    }


def _read_tensor_infos(infos) -> dict[str, TensorInfo]:
    read = {}
    for name, info in infos.items():
        sizes = (dimension.size for dimension in info.tensor_shape.dim)
        shape = tuple(size if size >= 0 else None for size in sizes)
        dtype = NAMES.get(info.dtype, f"number {info.dtype}")
        read[name] = TensorInfo(dtype, None if info.tensor_shape.unknown_rank else shape)
    return read


def _declare_messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="protos.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            *label, kind = kind.split()
            if label == ["map"]:  # protobuf stores a map as a list of keys and values
                entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _add_field(entry, "key", 1, "string")
                _add_field(entry, "value", 2, kind)
                kind = f"{name}.{entry.name}"
            _add_field(message, field, number, kind, is_repeated=bool(label))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name: classes[f"{PACKAGE}.{name}"] for name in MESSAGES}


def _add_field(message, name: str, number: int, kind: str, *, is_repeated: bool = False) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")


_classes = _declare_messages()
Shape = _classes["Shape"]
Tensor = _classes["Tensor"]
SignatureDefMap = _classes["SignatureDefMap"]
ModelSpec = _classes["ModelSpec"]
PredictRequest = _classes["PredictRequest"]
PredictResponse = _classes["PredictResponse"]
GetModelMetadataRequest = _classes["GetModelMetadataRequest"]
GetModelMetadataResponse = _classes["GetModelMetadataResponse"]


def check_inputs(
    name: str, signature: Signature, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Convert inputs to the dtypes of a signature, if that changes no value.

    Args:
        name: Name of the signature, for error messages.
        signature: The signature.
        inputs: Array-likes by input name.

    Returns:
        The arrays, by input name.

    Raises:
        ValueError: If a name, dtype or shape does not match the signature.

    Example:
        >>> faces = Signature("predict", {"faces": TensorInfo("uint8", (None, 2))}, {})
        >>> check_inputs("faces", faces, {"faces": np.zeros((1, 2), np.uint8)})["faces"].shape
        (1, 2)
    """
    if set(inputs) != set(signature.inputs):
        raise ValueError(
            f"Expected the inputs {sorted(signature.inputs)} of the signature {name!r}; got "
            f"{sorted(inputs)}. Pass each input by its name."
        )
    return {key: _to_array(key, inputs[key], info) for key, info in signature.inputs.items()}


def fits(array: np.ndarray, info: TensorInfo) -> bool:
    """Return whether an array has the dtype and shape that a signature states.

    Example:
        >>> fits(np.zeros((4, 2), np.float32), TensorInfo("float", (None, 2)))
        True
    """
    if info.dtype not in DTYPES or array.dtype != DTYPES[info.dtype][1]:
        return False
    if info.shape is None:
        return True
    return array.ndim == len(info.shape) and all(
        size in (None, length) for size, length in zip(info.shape, array.shape, strict=True)
    )


def _to_array(key: str, values: np.ndarray, info: TensorInfo) -> np.ndarray:
    array = np.asarray(values, object if info.dtype == "string" else None)
    # Values must not change: faces scaled to 0..1 would all be black as uint8.
    if not (_is_bytes(array) if info.dtype == "string" else _can_cast(array, info.dtype)):
        raise ValueError(
            f"Expected {info.dtype} as the input {key!r}; got {array.dtype}{list(array.shape)}. "
            "Convert it first, with `.astype`; strings must be bytes."
        )
    array = array.astype(DTYPES[info.dtype][1], copy=False)
    if not fits(array, info):
        raise ValueError(
            f"Expected an array of shape {list(info.shape)} as the input {key!r}, None being any "
            f"length; got {list(array.shape)}. For a single face pass face[None]."
        )
    return array


def _is_bytes(array: np.ndarray) -> bool:
    return all(isinstance(value, bytes) for value in array.flat)


def _can_cast(array: np.ndarray, dtype: str) -> bool:
    return dtype in DTYPES and np.can_cast(array.dtype, DTYPES[dtype][1], "same_kind")
