"""JSON bodies of TensorFlow Serving's REST interface to arrays, and arrays to JSON.

Independent of sockets, models and TensorFlow.
"""

import base64
import json
from collections.abc import Mapping
from reprlib import repr as shorten
from typing import Any, TypeGuard

import numpy as np
from grpc import StatusCode

from jdfd_keras.client.signatures import SERVING_DEFAULT, Signature, TensorInfo
from jdfd_keras.serving.server.call_errors import CallError

# The dtypes that TensorFlow Serving reads from JSON.
DTYPES = {"float": np.float32, "double": np.float64, "bool": np.bool_, "string": object}
DTYPES |= {"int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64}
DTYPES |= {"uint8": np.uint8, "uint32": np.uint32, "uint64": np.uint64}
# JSON values by the kind of the dtype. Strings are text or {"b64": ...}.
VALUES = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}, "O": {str, dict}}


# Whitespace in base64, which TensorFlow Serving skips.
SPACES = b" \t\n\v\f\r"
DECODER = json.JSONDecoder(
    object_pairs_hook=lambda pairs: dict(reversed(pairs))  # the first of duplicate keys counts
)


def count_structure(body: bytes) -> int:
    r"""Return the number of bytes of a JSON body that are outside of its strings.

    They bound the number of values, each of which needs memory and time, whereas the bytes of an
    image are one string.

    Example:
        >>> count_structure(b'{"instances": [{"b64": "AAAA"}, 1]}'), count_structure(rb'["\""]')
        (19, 4)
    """
    if b"\\" in body:  # of the same length, without escaped quotes
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    quotes = np.flatnonzero(np.frombuffer(body, np.uint8) == ord('"'))
    num_pairs = len(quotes) // 2
    starts, ends = quotes[: 2 * num_pairs : 2], quotes[1::2]
    return len(body) - int((ends - starts - 1).sum())


def find_signature(
    signatures: Mapping[str, Signature],
    name: str,
    code: StatusCode = StatusCode.FAILED_PRECONDITION,
) -> Signature:
    """Return a signature, or raise a CallError with `code` if there is none of that name.

    Example:
        >>> find_signature({"faces": Signature("", {}, {})}, "faces").inputs
        {}
    """
    if name not in signatures:
        raise CallError(f"Expected a signature of {sorted(signatures)}; got {name!r}.", code)
    return signatures[name]


def decode_predict(
    body: bytes, signatures: Mapping[str, Signature]
) -> tuple[str, bool, dict[str, np.ndarray]]:
    """Convert the body of a predict request to arrays.

    Args:
        body: JSON with `instances` (row format) or `inputs` (column format).
        signatures: Signatures of the model by name.

    Returns:
        The name of the signature, whether the format is the row format, and one array per input,
        of its dtype but of any shape; strings become an object array of bytes.

    Raises:
        CallError: If the body is invalid or does not match the signature.

    Example:
        >>> model = {"serving_default": Signature("", {"x": TensorInfo("uint8", (None,))}, {})}
        >>> decode_predict(b'{"instances": [{"x": 1}, {"x": 2}]}', model)
        ('serving_default', True, {'x': array([1, 2], dtype=uint8)})
        >>> decode_predict(b'{"inputs": [1, 300]}', model)
        Traceback (most recent call last):
        jdfd_keras.serving.server.call_errors.CallError: Expected uint8 as the input 'x'; got
        'Python integer 300 out of bounds for uint8'. Convert the values first.
    """
    name, document = _parse_object(body)
    keys = document.keys() & {"instances", "inputs"}
    if len(keys) != 1:
        given = ", ".join(sorted(document)) or "no key"
        raise CallError(f"Expected either 'instances' or 'inputs'; got {shorten(given)}.")
    is_row = "instances" in keys
    values: Any = document["instances" if is_row else "inputs"]
    infos = find_signature(signatures, name).inputs
    columns: dict[str, Any] = {}
    if is_row and not (isinstance(values, list) and values):
        raise CallError(f"Expected 'instances' to be a list, not empty; got {shorten(values)}.")
    if is_row and _is_object(values[0]):
        for index, row in enumerate(values):
            if not _is_object(row) or row.keys() != infos.keys():
                raise CallError(
                    f"Expected instance {index} to be an object with the keys {sorted(infos)}; got "
                    f"{shorten(row)}."
                )
        columns = {key: [row[key] for row in values] for key in infos}
    elif _is_object(values):
        columns = values
    elif len(infos) == 1:
        columns = dict.fromkeys(infos, values)
    if missing := infos.keys() - columns.keys():
        given = ", ".join(sorted(map(str, columns))) or "no names"
        raise CallError(
            f"Expected the inputs {', '.join(sorted(infos))}; got {shorten(given)}, so that "
            f"{', '.join(sorted(missing))} is missing."
        )
    return name, is_row, {key: _decode_array(key, columns[key], infos[key]) for key in infos}


def encode_outputs(outputs: dict[str, np.ndarray], *, is_row: bool) -> dict[str, Any]:
    """Encode outputs in the format of the request.

    Bytes become base64 if the name of the output ends in `_bytes`, else text, in which bytes that
    are not UTF-8 become U+FFFD (TensorFlow Serving sends them unchanged, which is invalid JSON).

    Args:
        outputs: One array per output.
        is_row: Whether the request had the row format.

    Returns:
        `predictions` or `outputs`, JSON-ready; a single output is returned without its name.

    Raises:
        CallError: If the row format was requested and the outputs differ in their number of rows.

    Example:
        >>> encode_outputs({"scores": np.array([0.5, 0.25])}, is_row=True)
        {'predictions': [0.5, 0.25]}
    """
    values = {name: _encode_array(name, array) for name, array in outputs.items()}
    if not is_row:
        return {"outputs": _unwrap(values)}
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) > 1 or () in lengths:  # a scalar has no rows
        shapes = {name: array.shape for name, array in outputs.items()}
        raise CallError(
            f"Expected outputs with one row per instance; got the shapes {shapes}. Use the column "
            "format, 'inputs'."
        )
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    return {"predictions": [_unwrap(row) for row in rows]}


def parse_examples(body: bytes) -> tuple[str, list[dict[str, list]]]:
    """Parse the body of a classify or regress request.

    Args:
        body: JSON with `examples` and optionally `context`, features shared by all examples.

    Returns:
        The name of the signature, and the features of each example: lists of bytes, int or float.
        An example's own features take precedence over the context.

    Raises:
        CallError: If the body is invalid.

    Example:
        >>> parse_examples(b'{"context": {"a": 1}, "examples": [{"b": 0.5}]}')
        ('serving_default', [{'a': [1], 'b': [0.5]}])
    """
    name, document = _parse_object(body)
    context = _decode_example(document.get("context", {}))
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise CallError(f"Expected 'examples' to be a list, not empty; got {shorten(examples)}.")
    return name, [context | _decode_example(example) for example in examples]


def _parse_object(body: bytes) -> tuple[str, dict[str, Any]]:
    """Parse a body; return the name of its signature, and all of it."""
    problem = None
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        text, problem = body[: error.start].decode("utf-8"), error
    # As TensorFlow Serving: a byte order mark before the value, and anything after it, are ignored.
    text = text.removeprefix("\ufeff").lstrip(" \t\n\r")
    try:
        document, _ = DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise CallError(f"Expected a body of JSON; got '{problem or error}'.") from None
    if not isinstance(document, dict):
        raise CallError(f"Expected a JSON object; got {shorten(document)}.")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise CallError(f"Expected 'signature_name' to be a string; got {shorten(name)}.")
    return name or SERVING_DEFAULT, document


def _decode_array(name: str, value: Any, info: TensorInfo) -> np.ndarray:
    if info.dtype not in DTYPES:
        raise CallError(
            f"Expected an input of a dtype that JSON can express; got {info.dtype} as {name!r}. "
            "Use gRPC.",
            StatusCode.UNIMPLEMENTED,
        )
    dtype = np.dtype(DTYPES[info.dtype])
    objects = np.array(value, object)  # in C: one face has 300,000 numbers
    leaves = objects.ravel().tolist()
    kinds = set(map(type, leaves))
    expected = VALUES[dtype.kind]
    if list in kinds:  # ragged, or deeper than NumPy's 64 axes
        lengths = [isinstance(leaf, list) and len(leaf) for leaf in leaves]
        index = _find([length != lengths[0] for length in lengths], objects.shape)
        raise CallError(
            f"Expected lists of equal lengths as the input {name!r}; got others at {index}."
        )
    if not kinds <= expected:
        wrong = [type(leaf) not in expected for leaf in leaves]
        raise CallError(
            f"Expected {info.dtype} as the input {name!r}; got {shorten(leaves[np.argmax(wrong)])} "
            f"at {_find(wrong, objects.shape)}."
        )
    if info.dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = [_decode_bytes(leaf) for leaf in leaves]
        return array.reshape(objects.shape)
    try:
        with np.errstate(over="ignore"):  # 1e300 is infinite as a float
            return objects.astype(dtype)
    except OverflowError as error:
        raise CallError(
            f"Expected {info.dtype} as the input {name!r}; got '{error}'. Convert the values first."
        ) from None


def _find(is_wrong: list[bool], shape: tuple[int, ...]) -> list[int]:
    return [int(index) for index in np.unravel_index(np.argmax(is_wrong), shape)]


def _decode_bytes(value: str | dict) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    text = value.get("b64")
    if len(value) != 1 or not isinstance(text, str):
        raise CallError(f'Expected text or {{"b64": ...}}; got {shorten(value)}.')
    try:
        characters = text.encode("ascii").translate(None, SPACES)
        # Padding is optional.
        return base64.b64decode(characters + b"=" * (-len(characters) % 4), validate=True)
    except ValueError as error:
        raise CallError(f"Expected base64 in the standard alphabet; got '{error}'.") from None


def _encode_array(name: str, array: np.ndarray) -> Any:
    def encode(item: bytes) -> str | dict[str, str]:
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(item).decode("ascii")}
        return item.decode(errors="replace")

    if array.dtype == object:
        array = np.vectorize(encode, otypes=[object])(array)
    return array.tolist()


def _decode_example(example: Any) -> dict[str, list]:
    if not isinstance(example, dict):
        raise CallError(f"Expected an example to be an object; got {shorten(example)}.")
    return {name: _decode_feature(name, value) for name, value in example.items()}


def _decode_feature(name: str, value: Any) -> list:
    values: list[Any] = [
        _decode_bytes(item) if isinstance(item, (str, dict)) else item
        for item in (value if isinstance(value, list) else [value])
    ]
    kinds = set(map(type, values))
    is_int64 = kinds != {int} or -(2**63) <= min(values) <= max(values) < 2**63
    if len(kinds) > 1 or not kinds <= {int, float, bytes} or not is_int64:
        raise CallError(
            f"Expected the feature {name!r} to be text, int64 or float, all of one kind; got "
            f"{shorten(value)}."
        )
    return values


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _unwrap(named: dict[str, Any]) -> Any:
    return next(iter(named.values())) if len(named) == 1 else named
