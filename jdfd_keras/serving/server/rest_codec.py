"""Decoding of REST request bodies and encoding of responses, as in TensorFlow Serving.

Converts JSON to named arrays by a signature, and named arrays to JSON. Independent of sockets,
models and TensorFlow. The checks and error texts follow TensorFlow Serving 2.20.0 as recorded.
"""

import json
import reprlib
from typing import NamedTuple

import numpy as np

from jdfd_keras.client.signatures import SERVING_DEFAULT, Signature, TensorInfo
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.json_arrays import (
    decode_array,
    decode_bytes,
    encode_array,
    is_base64,
    show,
    type_name,
)

# Rows of an invalid request that are decoded one by one to find the invalid one.
MAX_CHECKED_ROWS = 1000


class PredictRequest(NamedTuple):
    """The body of `:predict`; `values` are decoded by the signature."""

    signature_name: str
    is_row: bool
    values: object


class ExamplesRequest(NamedTuple):
    """The body of `:classify` or `:regress`: per example, lists of bytes, int or float by name."""

    signature_name: str
    examples: list[dict[str, list]]


def parse_predict(body: bytes) -> PredictRequest:
    """Parse the body of a predict request.

    Args:
        body: JSON with `instances` (row format) or `inputs` (column format).

    Returns:
        The request, with values that are not decoded yet.

    Raises:
        CallError: If the body is invalid.

    Example:
        >>> parse_predict(b'{"instances": [1, 2]}')
        PredictRequest(signature_name='serving_default', is_row=True, values=[1, 2])
    """
    document = _parse_object(body)
    name = _signature_name(document)
    is_row = "instances" in document
    if is_row and "inputs" in document:
        raise CallError(f"{show(document)} Not formatted correctly: both 'instances' and 'inputs'")
    if not is_row and "inputs" not in document:
        raise CallError("Missing 'inputs' or 'instances' key")
    return PredictRequest(name, is_row, document["instances" if is_row else "inputs"])


def decode_inputs(request: PredictRequest, signature: Signature) -> dict[str, np.ndarray]:
    """Decode the values of a predict request.

    Args:
        request: The result of `parse_predict`.
        signature: The requested signature.

    Returns:
        One array per input; strings become an object array of bytes.

    Raises:
        CallError: If names, shapes or types do not match the signature.
    """
    if request.is_row:
        return _decode_rows(request.values, signature.inputs)
    return _decode_columns(request.values, signature.inputs)


def encode_outputs(outputs: dict[str, np.ndarray], is_row: bool) -> dict:
    """Encode outputs in the format of the request.

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
    values = {name: encode_array(name, array) for name, array in outputs.items()}
    if not is_row:
        return {"outputs": _unwrap(values)}
    if any(array.ndim == 0 for array in outputs.values()):
        raise CallError("An output is a scalar and has no rows. Use the column form, 'inputs'.")
    if len({len(array) for array in outputs.values()}) > 1:
        sizes = {name: len(array) for name, array in outputs.items()}
        raise CallError(
            f"Outputs have unequal batch sizes: {sizes}. Use the column form, 'inputs'."
        )
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    return {"predictions": [_unwrap(row) for row in rows]}


def parse_examples(body: bytes) -> ExamplesRequest:
    """Parse the body of a classify or regress request.

    Args:
        body: JSON with `examples` and optionally `context`, features shared by all examples.

    Returns:
        The examples, each merged with the context; an example's own features take precedence.

    Raises:
        CallError: If the body is invalid.

    Example:
        >>> parse_examples(b'{"context": {"a": 1}, "examples": [{"b": 2}]}').examples
        [{'a': [1], 'b': [2]}]
    """
    document = _parse_object(body)
    name = _signature_name(document)
    context = _decode_example(document.get("context", {}))
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise CallError(f"{show(document)} 'examples' must be a list that is not empty")
    return ExamplesRequest(name, [context | _decode_example(example) for example in examples])


def _parse_object(body: bytes) -> dict:
    if not body:
        raise CallError("JSON Parse error: The document is empty")
    try:
        # The first of duplicate keys counts.
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=lambda pairs: dict(reversed(pairs))
        )
    except RecursionError:
        raise CallError("JSON Parse error: The document is nested too deeply") from None
    except ValueError as error:  # also if the text is not UTF-8
        raise CallError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise CallError(f"{show(document)} Not formatted correctly: expected an object")
    return document


def _signature_name(document: dict) -> str:
    name = document.get("signature_name", SERVING_DEFAULT)
    if not isinstance(name, str):
        raise CallError(f"{show(document)} 'signature_name' must be a string")
    return name or SERVING_DEFAULT


def _decode_rows(rows, inputs: dict[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not isinstance(rows, list) or not rows:
        raise CallError(f"{show({'instances': rows})} 'instances' must be a list, not empty")
    if _is_object(rows[0]):
        columns = _gather_columns(rows, inputs)
    elif len(inputs) > 1:
        raise CallError(
            "instances is a plain list, but expecting list of objects as multiple input "
            "tensors required as per tensorinfo_map"
        )
    else:
        columns = dict.fromkeys(inputs, rows)
    return {name: _decode_column(values, inputs[name]) for name, values in columns.items()}


def _gather_columns(rows: list, inputs: dict[str, TensorInfo]) -> dict[str, list]:
    for index, row in enumerate(rows):
        where = f"Failed to process element: {index}"
        if not _is_object(row):
            raise CallError(f"Expecting object but got list at item {index} of input list")
        for key in row.keys() - inputs.keys():
            raise CallError(
                f"{where} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON object: does not have named input: {key}"
            )
        if len(row) < len(inputs):
            raise CallError(
                f"{where} of 'instances' list. JSON object: {reprlib.repr(row)} "
                f"keys must be equal to: {','.join(inputs)}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _decode_column(values: list, info: TensorInfo) -> np.ndarray:
    try:
        return decode_array(values, info)
    except CallError as error:
        _raise_for_element(values, info)
        raise error


def _raise_for_element(values: list, info: TensorInfo) -> None:
    """Raise an error that names the invalid row, searched among the first ones: it is slow."""
    first = None
    for index, value in enumerate(values[:MAX_CHECKED_ROWS]):
        try:
            array = decode_array(value, info)
            first = array if first is None else first
            _check_same_shape(array, first)
        except CallError as error:
            raise CallError(
                f"Failed to process element: {index} of 'instances' list. "
                f"Error: INVALID_ARGUMENT: {error}",
                error.code,
            ) from None


def _decode_columns(value, inputs: dict[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not _is_object(value):
        if len(inputs) > 1:
            raise CallError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in value:
            raise CallError(f"Missing named input: {name} in 'inputs' object.")
    return {name: decode_array(value[name], info) for name, info in inputs.items()}


def _check_same_shape(array: np.ndarray, first: np.ndarray) -> None:
    if array.size != first.size:
        raise CallError(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        raise CallError(f"Expecting shape {_axes(first)} but got: {_axes(array)}")


def _decode_example(example) -> dict[str, list]:
    if not isinstance(example, dict):
        raise CallError(f"Example must be JSON object but got JSON {type_name(example)}")
    return {name: _decode_feature(name, value) for name, value in example.items()}


def _decode_feature(name: str, value) -> list:
    values = []
    for item in value if isinstance(value, list) else [value]:
        if type(item) in (int, float):
            if type(item) is int and not -(2**63) <= item < 2**63:
                raise CallError(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
            values.append(item)
        elif isinstance(item, str) or is_base64(item):
            values.append(decode_bytes(item))
        else:
            raise CallError(
                f"Feature: {name} has element with unexpected JSON type: {type_name(item)}"
            )
        if type(values[-1]) is not type(values[0]):
            expected = {int: "int64", float: "float", bytes: "bytes"}[type(values[0])]
            raise CallError(
                f"Unexpected element type in feature: {name} expecting type: {expected}"
            )
    return values


def _unwrap(named: dict):
    return next(iter(named.values())) if len(named) == 1 else named


def _is_object(value) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _axes(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"
