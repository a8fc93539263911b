import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.serving.server import rest_codec
from jdfd_keras.serving.server.call_errors import CallError


def signature(**dtypes):
    inputs = {name: TensorInfo(dtype, None) for name, dtype in dtypes.items()}
    return Signature("tensorflow/serving/predict", inputs, {})


def decode(body, **dtypes):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    name, _, inputs = rest_codec.decode_predict(text, {"serving_default": signature(**dtypes)})
    assert name == "serving_default"
    return inputs


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


INTEGERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(INTEGERS), st.lists(st.integers(-(2**64), 2**65), min_size=1))
def test_integers_are_read_exactly_or_refused(dtype, values):
    limits = np.iinfo(dtype)
    if limits.min <= min(values) and max(values) <= limits.max:
        array = decode({"inputs": values}, x=dtype)["x"]
        assert (array.dtype, array.tolist()) == (dtype, values)
    else:
        with pytest.raises(CallError, match=dtype):
            decode({"inputs": values}, x=dtype)


@pytest.mark.parametrize(
    ("dtype", "values"), [("uint8", [0, 256]), ("uint8", [-1]), ("int8", [128])]
)
def test_a_wrong_pixel_does_not_become_a_valid_one(dtype, values):
    wrong = next(value for value in values if value)
    for body in ({"inputs": values}, {"instances": values}, {"instances": [{"x": wrong}]}):
        with pytest.raises(CallError, match=f"{dtype} .*input 'x'; got .*{wrong}") as caught:
            decode(body, x=dtype)
        assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float", np.float32([np.inf, 1])), ("double", np.array([1e300, 1]))]
)
def test_large_floats_are_rounded_to_the_dtype_of_the_input(dtype, expected):
    array = decode({"inputs": [1e300, 1]}, x=dtype)["x"]
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype


def test_bytes_are_read_from_base64_or_text():
    values = ["é", {"b64": "aGVsbG8="}, {"b64": "aGVsbG8"}, {"b64": "/wD+"}]
    expected = ["é".encode(), b"hello", b"hello", b"\xff\x00\xfe"]
    for body in ({"instances": values}, {"inputs": values}):
        assert decode(body, image_bytes="string")["image_bytes"].tolist() == expected
    assert decode({"inputs": {"b64": "aGVsbG8="}}, x="string")["x"].item() == b"hello"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"instances = [1]",
        b'{"instances": [1,]}',
        '{"instances": [1]}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"instances": [' + b"9" * 400 + b"]}",
        b"[1]",
        {},
        {"instances": [1], "inputs": [1]},
        {"instances": []},
        {"instances": 1},
        {"instances": [1], "signature_name": 5},
        {"instances": [1, None]},
        {"instances": [{"x": 1}, 2]},
        {"instances": [{"x": 1}, {}]},
        {"inputs": {"z": [1]}},
        {"inputs": "x"},
        {"inputs": [[1], 2]},
        {"inputs": [1, [2]]},
        {"inputs": [{"b64": "aGVsbG8="}]},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_an_invalid_body_is_answered_400(body):
    with pytest.raises(CallError, match="^Expected .*; got") as caught:
        decode(body, x="float")
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("values", "dtype", "status"),
    [
        ([1], "bool", 400),
        ([1], "string", 400),
        ([1.5], "int32", 400),
        ([True], "float", 400),
        ([{"b64": "-_-_"}], "string", 400),
        ([{"b64": 1}], "string", 400),
        ([{"b64": "aGVsbG8=", "z": 1}], "string", 400),
        ([1.0], "half", 501),
        ([1], "uint16", 501),
    ],
)
def test_a_value_of_another_type_is_rejected(values, dtype, status):
    with pytest.raises(CallError) as caught:
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


@pytest.mark.parametrize("outputs", [{"s": np.array(3.0)}, {"a": np.zeros(1), "b": np.zeros(2)}])
def test_outputs_of_unequal_length_need_the_column_format(outputs):
    with pytest.raises(CallError, match="'inputs'"):
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
    "body",
    [
        {},
        {"examples": []},
        {"examples": [1]},
        {"context": [1]},
        {"examples": [{"x": [1, 1.0]}]},
        {"examples": [{"x": [{"test": 1}]}]},
        {"examples": [{"x": [True]}]},
        {"examples": [{"x": 2**63}]},
    ],
)
def test_invalid_examples_are_rejected(body):
    with pytest.raises(CallError, match="^Expected .*example|feature|text"):
        rest_codec.parse_examples(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([[1, 2]] * 5 + [[1, "x"]], "[5, 1]"),
        ([[1, 2]] * 3 + [[1, 2, 3]], "[3]"),
        ([{"x": 1}, {"z": 1}], "instance 1"),
    ],
)
def test_the_invalid_row_is_named(rows, index):
    with pytest.raises(CallError, match=re.escape(index)):
        decode({"instances": rows}, x="float")


def test_the_codec_imports_no_tensorflow():
    code = "import jdfd_keras.serving.server.rest_codec, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_invalid_value_after_many_rows_is_reported_quickly():
    body = b'{"instances": [' + b"1," * 400_000 + b'"x"]}'
    start = time.monotonic()
    with pytest.raises(CallError, match="400000"):
        decode(body, v="float")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "b\\"c", "d": ["\\\\", "", {"e": 1}]}',
        b'"\\\\\\"x"',
        json.dumps({"instances": [{"b64": "A" * 1000}]}).encode(),
        json.dumps([['"', "\\", '\\"'] * 5, 1.5]).encode(),
        b"[]",
        b"",
    ],
)
def test_structure_is_counted_outside_of_strings(body):
    without = re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', body)
    assert rest_codec.count_structure(body) == len(without)


@settings(deadline=None)
@given(st.recursive(st.text() | st.integers(), lambda v: st.lists(v)))
def test_structure_of_any_json_is_counted(value):
    body = json.dumps(value).encode()
    assert rest_codec.count_structure(body) == len(re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', body))


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"inputs": [1, 2]}',
        b'\xef\xbb\xbf \r\n{"inputs": [1, 2]}',
        b'{"inputs": [1, 2]} and more',
        b'{"inputs": [1, 2]}{"inputs": [3]}',
        b'{"inputs": [1, 2]}\xff\xfe',
    ],
)
def test_a_byte_order_mark_and_text_after_the_object_are_ignored(body):
    assert decode(body, x="int32")["x"].tolist() == [1, 2]


@pytest.mark.parametrize("body", [b'and {"inputs": [1]}', b'{"inputs": ["\xff"]}', b"\xef\xbb\xbf"])
def test_other_text_is_refused(body):
    with pytest.raises(CallError, match="Expected a body of JSON"):
        decode(body, x="string")


@pytest.mark.parametrize("text", ["AAEC\nAwQF", "AAEC\r\nAwQF\r\n", " AAECAwQF", "AAECAw\tQF"])
def test_line_breaks_inside_base64_are_ignored(text):
    body = {"inputs": [{"b64": text}]}
    assert decode(body, x="string")["x"].tolist() == [bytes(range(6))]


@pytest.mark.parametrize("text", ["AAEC\u00a0AwQF", "AAEC\u2028AwQF", "AAEC-_", "AA=C"])
def test_other_characters_in_base64_are_refused(text):
    with pytest.raises(CallError, match="base64"):
        decode({"inputs": [{"b64": text}]}, x="string")
