"""A client's arrays, held against what a signature takes and gives."""

import numpy as np

from jdfd_keras.serving.client.wire import DTYPES
from jdfd_keras.serving.contract import Signature, TensorInfo


def check_inputs(
    name: str, signature: Signature, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Make arrays of the types of a signature, where that changes no value.

    Args:
        name: The signature's.
        signature: What it takes.
        inputs: What is to be sent, by name.

    Returns:
        The arrays.

    Raises:
        ValueError: If the names, a type or a shape are not the signature's.
    """
    if set(inputs) != set(signature.inputs):
        raise ValueError(
            f"Expected the inputs {sorted(signature.inputs)} of the signature {name!r}; got "
            f"{sorted(inputs)}. Give each of them by its name."
        )
    return {key: _to_array(key, inputs[key], info) for key, info in signature.inputs.items()}


def fits(array: np.ndarray, info: TensorInfo) -> bool:
    """Tell whether an array has the type and the shape that a signature names."""
    if info.dtype not in DTYPES or array.dtype != DTYPES[info.dtype][1]:
        return False
    if info.shape is None:
        return True
    return array.ndim == len(info.shape) and all(
        size in (None, length) for size, length in zip(info.shape, array.shape, strict=True)
    )


def _to_array(key: str, values: np.ndarray, info: TensorInfo) -> np.ndarray:
    array = np.asarray(values, object if info.dtype == "string" else None)
    # Numbers must not change: faces on the scale of 0..1 would all be black as uint8.
    if not (_is_text(array) if info.dtype == "string" else _can_be(array, info.dtype)):
        raise ValueError(
            f"Expected {info.dtype} as the input {key!r}; got {array.dtype}{list(array.shape)}. "
            "Convert it first, with `.astype`; text must be bytes."
        )
    array = array.astype(DTYPES[info.dtype][1], copy=False)
    if not fits(array, info):
        raise ValueError(
            f"Expected an array of the shape {list(info.shape)} as the input {key!r}, None being "
            f"any number; got {list(array.shape)}. One face alone is faces[None]."
        )
    return array


def _is_text(array: np.ndarray) -> bool:
    return all(isinstance(value, bytes) for value in array.flat)


def _can_be(array: np.ndarray, dtype: str) -> bool:
    return dtype in DTYPES and np.can_cast(array.dtype, DTYPES[dtype][1], "same_kind")
