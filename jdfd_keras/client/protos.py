"""Messages of TensorFlow Serving's gRPC API, and conversion of arrays to and from them.

The message classes read and write the same bytes as those of tensorflow-serving-api, which cannot
be imported without TensorFlow. messages.textproto defines only the fields that a client needs:
protobuf ignores others. Their descriptor pool is a separate one, so that both can exist together.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from jdfd_keras.client.signatures import Signature, TensorInfo

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


_file = text_format.Parse(
    (Path(__file__).parent / "messages.textproto").read_text(encoding="utf-8"),
    descriptor_pb2.FileDescriptorProto(),
)
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file)
CLASSES: dict[str, Any] = {
    name.rpartition(".")[2]: message
    for name, message in message_factory.GetMessageClassesForFiles([_file.name], _pool).items()
}
Tensor, SignatureDefMap = CLASSES["Tensor"], CLASSES["SignatureDefMap"]
ModelSpec = CLASSES["ModelSpec"]
PredictRequest, PredictResponse = CLASSES["PredictRequest"], CLASSES["PredictResponse"]
GetModelMetadataRequest = CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse = CLASSES["GetModelMetadataResponse"]


def encode_tensor(array: np.ndarray) -> Any:
    """Convert an array of one of DTYPES to a Tensor message.

    Raises:
        ValueError: If it has another dtype.

    Example:
        >>> encode_tensor(np.zeros((2, 3), np.float32)).tensor_shape.dim[1].size
        3
    """
    numbers = [number for number, dtype, _ in DTYPES.values() if dtype == array.dtype]
    if not numbers:
        raise ValueError(
            f"Expected an array of one of {list(DTYPES)}; got {array.dtype}. Convert it with "
            "`.astype`; strings must be an object array of bytes."
        )
    shape = {"dim": [{"size": length} for length in array.shape]}
    tensor = Tensor(dtype=numbers[0], tensor_shape=shape)
    if array.dtype == object:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor


def decode_tensor(tensor: Any) -> np.ndarray:
    """Convert a Tensor message to an array; strings become an object array of bytes.

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
    count = math.prod(shape)
    if count and not len(values):
        values = np.full(1, b"" if field == "string_val" else 0, dtype)
    # If there are fewer values than the shape requires, the last one is repeated.
    return np.pad(values, (0, count - len(values)), mode="edge").reshape(shape)


def check_inputs(
    name: str, signature: Signature, inputs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Convert inputs to the dtypes of a signature, if that changes no value.

    Args:
        name: Name of the signature, for error messages.
        signature: The signature.
        inputs: Array-likes by input name.

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
    return info.shape is None or (
        array.ndim == len(info.shape)
        and all(size in (None, n) for size, n in zip(info.shape, array.shape, strict=True))
    )


def _to_array(key: str, values: Any, info: TensorInfo) -> np.ndarray:
    array = np.asarray(values, object if info.dtype == "string" else None)
    if info.dtype == "string":
        is_exact = all(isinstance(value, bytes) for value in array.flat)
    else:
        # Values must not change: faces scaled to 0..1 would all be black as uint8.
        is_exact = info.dtype in DTYPES and np.can_cast(
            array.dtype, DTYPES[info.dtype][1], "same_kind"
        )
    if not is_exact:
        raise ValueError(
            f"Expected {info.dtype} as the input {key!r}; got {array.dtype}{list(array.shape)}. "
            "Convert it first, with `.astype`; strings must be bytes."
        )
    array = array.astype(DTYPES[info.dtype][1], copy=False)
    if not fits(array, info):
        raise ValueError(
            f"Expected an array of shape {info.shape} as the input {key!r}, None being any "
            f"length; got {list(array.shape)}. For a single face pass face[None]."
        )
    return array
