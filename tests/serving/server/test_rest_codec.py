import json
import subprocess
import sys
import time

import numpy as np
import pytest

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.serving.server import rest_codec
from jdfd_keras.serving.server.call_errors import CallError


def signature(**dtypes):
    inputs = {name: TensorInfo(dtype, None) for name, dtype in dtypes.items()}
    return Signature("tensorflow/serving/predict", inputs, {})


def decode(body, **dtypes):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return rest_codec.decode_inputs(rest_codec.parse_predict(text), signature(**dtypes))


def test_row_and_column_format_give_the_same_array():
    expected = np.array([[1, 2], [3, 4]], np.float32)
    for body in (
        {"instances": [[1, 2.0], [3, 4]]},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]], "ignored": 1}},
    ):
        array = decode(body, x="float")["x"]
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.float32


def test_several_inputs_are_read_by_name():
    rows = decode({"instances": [{"a": 1, "b": True}, {"a": 2, "b": False}]}, a="int32", b="bool")
    columns = decode({"inputs": {"a": [1, 2], "b": [True, False]}}, a="int32", b="bool")
    for inputs in (rows, columns):
        assert inputs["a"].tolist() == [1, 2]
        assert inputs["b"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [0, 255, 300, -1], np.array([0, 255, 44, 255], np.uint8)),
        ("int8", [127, 128], np.array([127, -128], np.int8)),
        ("uint32", [2**32 - 1], np.array([2**32 - 1], np.uint32)),
        ("int64", [2**53 + 1, -1], np.array([2**53 + 1, -1], np.int64)),
        ("uint64", [2**64 - 1], np.array([2**64 - 1], np.uint64)),
        ("float", [1e300, 1], np.array([np.inf, 1], np.float32)),
        ("double", [1e300, 1], np.array([1e300, 1], np.float64)),
    ],
)
def test_numbers_get_the_dtype_of_the_input(dtype, values, expected):
    array = decode({"inputs": values}, x=dtype)["x"]
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype


def test_bytes_are_read_from_base64_or_text():
    values = ["é", {"b64": "aGVsbG8="}, {"b64": "aGVsbG8"}, {"b64": "/wD+"}]
    expected = ["é".encode(), b"hello", b"hello", b"\xff\x00\xfe"]
    for body in ({"instances": values}, {"inputs": values}):
        assert decode(body, image_bytes="string")["image_bytes"].tolist() == expected
    assert decode({"inputs": {"b64": "aGVsbG8="}}, x="string")["x"].item() == b"hello"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b"instances = [1]", "JSON Parse error"),
        (b'{"instances": [1,]}', "JSON Parse error"),
        ('{"instances": [1]}'.encode("utf-16"), "JSON Parse error"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", "500 deep; at most 32"),
        (b'{"instances": [' + b"9" * 400 + b"]}", "too big"),
        (b"[1]", "expected an object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, "both"),
        ({"instances": []}, "not empty"),
        ({"instances": 1}, "must be a list"),
        ({"instances": [1], "signature_name": 5}, "'signature_name' must be a string"),
        ({"instances": ["x"]}, 'element: 0 of .* "x" Type: String is not of expected type: float'),
        ({"instances": [1, True]}, "element: 1 of .* true Type: True is not"),
        ({"instances": [1, None]}, "null Type: Null is not"),
        ({"instances": [[1, 2], [3]]}, "element: 1 .* Expecting tensor size: 2 but got: 1"),
        ({"instances": [[1, 2], [[3, 4]]]}, r"Expecting shape \[2\] but got: \[1,2\]"),
        ({"instances": [{"z": 1}]}, "element: 0 key: z .* does not have named input"),
        ({"instances": [{"x": 1}, 2]}, "Expecting object but got list at item 1"),
        ({"instances": [{"x": 1}, {}]}, "element: 1 .* keys must be equal to: x"),
        ({"inputs": {"z": [1]}}, "Missing named input: x"),
        ({"inputs": [[1, 2], [3]]}, "unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [[1], 2]}, "level: 1 where a list was expected"),
        ({"inputs": [1, [2]]}, "level: 1 where a value was expected"),
        ({"inputs": [{"b64": "aGVsbG8="}]}, "Type: Object is not of expected type: float"),
    ],
)
def test_an_invalid_body_is_answered_400(body, message):
    with pytest.raises(CallError, match=message) as caught:
        decode(body, x="float")
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("values", "dtype", "message", "status"),
    [
        ([1], "bool", "1 Type: Number is not of expected type: bool", 400),
        ([1], "string", "1 Type: Number is not of expected type: string", 400),
        ([1.5], "int32", "1.5 Type: Number is not of expected type: int32", 400),
        ([2**31], "int32", "is not of expected type: int32", 400),
        ([-1], "uint64", "is not of expected type: uint64", 400),
        ([{"b64": "-_-_"}], "string", "Unable to base64 decode", 400),
        ([{"b64": 1}], "string", "Type: Object is not", 400),
        ([{"b64": "aGVsbG8=", "z": 1}], "string", "Type: Object is not", 400),
        ([1.0], "half", "Conversion of JSON Value: 1.0 to type: half", 501),
        ([1], "uint16", "Conversion of JSON Value: 1 to type: uint16", 501),
    ],
)
def test_a_value_of_another_type_is_rejected(values, dtype, message, status):
    with pytest.raises(CallError, match=message) as caught:
        decode({"inputs": values}, x=dtype)
    assert caught.value.http_status == status


def test_the_first_of_duplicate_keys_counts():
    assert decode(b'{"inputs": [1], "inputs": [2]}', x="float")["x"].tolist() == [1]


def test_a_single_output_has_no_name():
    scores = {"scores": np.array([0.25, 0.5], np.float32)}
    assert rest_codec.encode_outputs(scores, is_row=True) == {"predictions": [0.25, 0.5]}
    assert rest_codec.encode_outputs(scores, is_row=False) == {"outputs": [0.25, 0.5]}


def test_several_outputs_have_names_in_row_and_column_format():
    outputs = {"a": np.array([1, 2]), "b": np.array([[3], [4]])}
    assert rest_codec.encode_outputs(outputs, is_row=True) == {
        "predictions": [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]
    }
    assert rest_codec.encode_outputs(outputs, is_row=False) == {
        "outputs": {"a": [1, 2], "b": [[3], [4]]}
    }


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"s": np.array(3.0)}, "no rows"),
        ({"a": np.zeros(1), "b": np.zeros(2)}, "unequal batch sizes"),
    ],
)
def test_outputs_of_unequal_length_need_the_column_format(outputs, message):
    with pytest.raises(CallError, match=message):
        rest_codec.encode_outputs(outputs, is_row=True)
    assert "outputs" in rest_codec.encode_outputs(outputs, is_row=False)


def test_output_bytes_are_base64_only_if_the_name_ends_in_bytes():
    text = np.array([b"hello", b"\xff"], object)
    assert rest_codec.encode_outputs({"v_bytes": text}, is_row=True) == {
        "predictions": [{"b64": "aGVsbG8="}, {"b64": "/w=="}]
    }
    assert rest_codec.encode_outputs({"v": text}, is_row=True) == {
        "predictions": ["hello", "\ufffd"]
    }


def test_examples_inherit_the_context_and_may_override_it():
    body = {
        "signature_name": "classify",
        "context": {"x": 20, "shared": 0.5},
        "examples": [{}, {"x": [1, 2], "image/encoded": {"b64": "aGVsbG8="}, "t": "text"}],
    }
    assert rest_codec.parse_examples(json.dumps(body).encode()) == (
        "classify",
        [
            {"x": [20], "shared": [0.5]},
            {"x": [1, 2], "shared": [0.5], "image/encoded": [b"hello"], "t": [b"text"]},
        ],
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "'examples' must be a list"),
        ({"examples": []}, "not empty"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"context": [1]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": [1, 1.0]}]}, "Unexpected element type in feature: x .* int64"),
        ({"examples": [{"x": [{"test": 1}]}]}, "unexpected JSON type: Object"),
        ({"examples": [{"x": [True]}]}, "unexpected JSON type: True"),
        ({"examples": [{"x": 2**63}]}, "Only int64_t is supported"),
    ],
)
def test_invalid_examples_are_rejected(body, message):
    with pytest.raises(CallError, match=message):
        rest_codec.parse_examples(json.dumps(body).encode())


def test_the_invalid_row_is_named():
    rows = [[1, 2]] * 5 + [[1, "x"]]
    with pytest.raises(CallError, match='element: 5 of .* "x" Type: String is not'):
        decode({"instances": rows}, x="float")
    rows = [{"a": 1, "b": [True]}] * 3 + [{"a": 1, "b": [True, False]}]
    with pytest.raises(CallError, match="element: 3 .* Expecting tensor size: 1 but got: 2"):
        decode({"instances": rows}, a="int32", b="bool")


def test_the_codec_imports_no_tensorflow():
    code = "import jdfd_keras.serving.server.rest_codec, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_invalid_value_after_many_rows_is_reported_quickly():
    body = b'{"instances": [' + b"1," * 400_000 + b'"x"]}'
    start = time.monotonic()
    with pytest.raises(CallError, match="not of expected type"):
        decode(body, v="float")
    assert time.monotonic() - start < 1
