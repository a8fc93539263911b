"""Tensors of TensorFlow's messages to arrays and back.

Takes a TensorProto and the input that it is meant for; gives an array. A message is not trusted:
one of a few bytes may call itself a terabyte. Knows nothing of requests.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from jdfd_keras.serving.contract import TensorInfo
from jdfd_keras.serving.server.errors import CallError


def decode_tensor(
    name: str, tensor: tensor_pb2.TensorProto, info: TensorInfo, max_bytes: int
) -> np.ndarray:
    """Turn a message into an array.

    Args:
        name: The input, for the words of an error.
        tensor: The message.
        info: What the signature says of the input; its shape is left to the caller.
        max_bytes: The largest array. A message may give one number for all of its elements.

    Returns:
        The array; text is an object array of bytes.

    Raises:
        CallError: If it is of another dtype, its shape and values do not fit, or it is too large.
    """
    expected = f"DT_{info.dtype.upper()}"
    if tensor.dtype != types_pb2.DataType.Value(expected):
        got = _DTYPES.get(tensor.dtype, tensor.dtype)
        raise CallError(f"input {name}: expected a tensor of {expected}, got {got}")
    sizes = [axis.size for axis in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise CallError(f"input {name}: the shape {sizes} is not known in full")
    count = math.prod(sizes)
    dtype = tf.as_dtype(tensor.dtype)
    if count * dtype.size > max_bytes:
        raise CallError(
            f"input {name}: a tensor of shape {sizes} is above the limit of {max_bytes} bytes"
        )
    if dtype == tf.string and len(tensor.string_val) != count:
        raise CallError(f"input {name}: {len(tensor.string_val)} texts for the shape {sizes}")
    try:
        return tf.make_ndarray(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise CallError(f"input {name}: {error}") from error


def encode_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Turn an output into a message."""
    return tf.make_tensor_proto(array)


_DTYPES = {value.number: value.name for value in types_pb2.DataType.DESCRIPTOR.values}
