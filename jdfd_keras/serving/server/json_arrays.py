"""Conversion between JSON values and arrays, as in TensorFlow Serving's REST.

Bytes are text or `{"b64": ...}`. Independent of requests, models and TensorFlow. The checks
and error texts follow TensorFlow Serving 2.20.0 as recorded.
"""

import base64
import binascii
import itertools
import json
import reprlib
from typing import NamedTuple

import numpy as np

from jdfd_keras.client.signatures import TensorInfo
from jdfd_keras.serving.server.call_errors import CallError


class NumberRule(NamedTuple):
    """Conversion of JSON numbers to a dtype: values outside low..high are rejected, then cast."""

    dtype: type
    low: int | None = None
    high: int | None = None


MAX_AXES = 32
INT32 = (-(2**31), 2**31 - 1)
NUMBERS = {
    "float": NumberRule(np.float32),
    "double": NumberRule(np.float64),
    # Small integers are read as int32 and truncated: 300 becomes 44 as uint8.
    "int8": NumberRule(np.int8, *INT32),
    "uint8": NumberRule(np.uint8, *INT32),
    "int16": NumberRule(np.int16, *INT32),
    "int32": NumberRule(np.int32, *INT32),
    "uint32": NumberRule(np.uint32, 0, 2**32 - 1),
    "int64": NumberRule(np.int64, -(2**63), 2**63 - 1),
    "uint64": NumberRule(np.uint64, 0, 2**64 - 1),
}


def decode_array(value, info: TensorInfo) -> np.ndarray:
    """Convert a JSON value to an array of an input's dtype.

    Args:
        value: A number, boolean or string, or nested lists of them.
        info: The input; its shape is not checked here.

    Returns:
        The array; strings become an object array of bytes.

    Raises:
        CallError: If lists are ragged, a value has another type, or the dtype cannot be expressed
            in JSON (UNIMPLEMENTED).

    Example:
        >>> decode_array([[1, 2], [3, 300]], TensorInfo("uint8", (None, 2)))
        array([[ 1,  2],
               [ 3, 44]], dtype=uint8)
    """
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    if len(shape) > MAX_AXES:
        raise CallError(f"Encountered lists {len(shape)} deep; at most {MAX_AXES} are read")
    leaves = _flatten(value, shape)
    if info.dtype in NUMBERS:
        rule = NUMBERS[info.dtype]
        if not set(map(type, leaves)) <= ({int, float} if rule.low is None else {int}):
            raise _wrong_type(_first_wrong(leaves, rule), info.dtype)
        if (
            rule.low is not None
            and leaves
            and not rule.low <= min(leaves) <= max(leaves) <= rule.high
        ):
            raise _wrong_type(_first_wrong(leaves, rule), info.dtype)
        wide = rule.dtype if rule.low is None or rule.high > INT32[1] else np.int64
        try:
            with np.errstate(over="ignore"):  # 1e300 is infinite as a float
                return np.array(leaves, wide).astype(rule.dtype).reshape(shape)
        except OverflowError:
            raise CallError("Number too big to be stored in double") from None
    if info.dtype == "bool":
        for leaf in leaves:
            if not isinstance(leaf, bool):
                raise _wrong_type(leaf, info.dtype)
        return np.array(leaves, bool).reshape(shape)
    if info.dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = [decode_bytes(leaf) for leaf in leaves]
        return array.reshape(shape)
    raise CallError(
        f"Conversion of {show(first)} to type: {info.dtype} is not supported", "UNIMPLEMENTED"
    )


def _flatten(value, shape: list[int]) -> list:
    """Flatten nested lists, in C only: one face has 300,000 numbers."""
    level = [value]
    for axis, size in enumerate(shape):
        if set(map(type, level)) - {list} or set(map(len, level)) - {size}:
            raise _ragged(level, axis, size)
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise CallError(f"Encountered list at level: {len(shape)} where a value was expected")
    return level


def _ragged(level: list, axis: int, size: int) -> CallError:
    wrong = next(item for item in level if not isinstance(item, list) or len(item) != size)
    if not isinstance(wrong, list):
        return CallError(f"{show(wrong)} Encountered at level: {axis} where a list was expected")
    return CallError(
        f"Encountered list at unexpected size: {len(wrong)} at level: {axis} expected size: {size}"
    )


def _first_wrong(leaves: list, rule: NumberRule):
    for leaf in leaves:
        is_number = type(leaf) is int or (type(leaf) is float and rule.low is None)
        if not is_number or (rule.low is not None and not rule.low <= leaf <= rule.high):
            return leaf
    raise AssertionError("every value is valid")


def decode_bytes(value) -> bytes:
    """Decode bytes from JSON: a string as UTF-8, or `{"b64": ...}` in the standard alphabet.

    Raises:
        CallError: If it is neither.

    Example:
        >>> decode_bytes({"b64": "ZmFrZQ=="})
        b'fake'
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not is_base64(value):
        raise _wrong_type(value, "string")
    text = value["b64"]
    if not isinstance(text, str):
        raise _wrong_type(value, "string")
    try:
        # Padding is optional.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CallError("Unable to base64 decode") from None


def encode_array(name: str, array: np.ndarray) -> object:
    """Convert an output to nested lists, bytes to b64 if its name ends in `_bytes`, else to text.

    In text, bytes that are not UTF-8 become U+FFFD (TensorFlow Serving sends them unchanged, which
    is invalid JSON).

    Example:
        >>> encode_array("scores", np.array([0.5, 0.25]))
        [0.5, 0.25]
    """
    if array.dtype != object:
        return array.tolist()
    if name.endswith("_bytes"):
        texts = [{"b64": base64.b64encode(item).decode("ascii")} for item in array.ravel()]
    else:
        texts = [item.decode("utf-8", "replace") for item in array.ravel()]
    encoded = np.empty(array.size, object)
    encoded[:] = texts
    return encoded.reshape(array.shape).tolist()


def is_base64(value) -> bool:
    """Check whether a JSON value is `{"b64": ...}` without other keys."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def _wrong_type(value, dtype: str) -> CallError:
    return CallError(f"{show(value)} Type: {type_name(value)} is not of expected type: {dtype}")


def type_name(value) -> str:
    """Return the JSON type of a value as TensorFlow Serving names it."""
    if isinstance(value, bool):
        return str(value)
    names = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
    return names.get(type(value), "Number")


def show(value) -> str:
    """Format a JSON value for an error, shortened if it is long or deep."""
    if isinstance(value, (dict, list)):
        return f"JSON Value: {reprlib.repr(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return f"JSON Value: {text if len(text) <= 100 else text[:100] + '...'}"
