"""Pickles of other programs are read without executing anything, and damaged ones are errors."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest

from jdfd_keras.io.plain_pickle import read_plain_pickle

ARRAYS = {
    "float32": np.linspace(0, 1, 7, dtype=np.float32),
    "int64": np.array([0, 1, 1]),
    "bool": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">i4"),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "empty": np.zeros((0, 3)),
    "no axis": np.array(0.5),
}
VALUES = {
    "auc": np.float64(0.75),
    "acc": 0.5,
    "image": ("a/0.png", "é/1.png"),
    "clips": [["a/0.png", "a/1.png"]],
    "label": [0, np.int64(1)],
    "none": None,
}


class Called:
    """An object whose pickle calls a function."""

    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a pickle, or bytes, and returns the path."""

    def write(value, protocol: int = 4):
        path = tmp_path / "values.pickle"
        path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_and_plain_values_survive(write, protocol):
    found = read_plain_pickle(write({**ARRAYS, **VALUES}, protocol))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.pop(name), array, strict=True)
    assert found == VALUES


@pytest.mark.parametrize("name", ["numpy.core", "numpy._core"])
def test_arrays_of_numpy_1_and_2_are_read(write, name):
    content = pickle.dumps({"pred": ARRAYS["float32"]}, 3)
    content = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", name.encode())
    assert read_plain_pickle(write(content))["pred"].tolist() == ARRAYS["float32"].tolist()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Called(), "builtins.print"),
        ({"pred": Called()}, "builtins.print"),
        ({"pred": [Called()]}, "builtins.print"),
        ({"pred": OrderedDict()}, "collections.OrderedDict"),
        ({"pred": np.array([Called()], object)}, "type 'O8'"),
        ({"pred": np.zeros(2, "i4,f4")}, "type 'V8'"),
        ({"pred": np.array(["a"])}, "type 'U1'"),
        ({1: 2}, "names as keys"),
        ([1, 2], "something else than a dict"),
        (b"", ""),
        (b"no pickle", ""),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "of 1099511627776 bytes"),
    ],
)
def test_other_objects_are_named_and_not_executed(write, capsys, value, named):
    with pytest.raises(ValueError, match=rf"pickled dict .*values\.pickle; got .*{named}"):
        read_plain_pickle(write(value))
    assert "printed" not in capsys.readouterr().out


def test_an_array_of_a_wrong_size_is_an_error(write):
    content = pickle.dumps({"pred": np.arange(7, dtype=np.int16)}, 3)
    with pytest.raises(ValueError, match="array without valid type, shape and content"):
        read_plain_pickle(write(content.replace(b"K\x07\x85", b"K\x08\x85")))


def test_a_truncated_pickle_is_an_error_at_every_byte(write):
    content = pickle.dumps({"pred": ARRAYS["float32"], "image": ["a", "b"]}, 4)
    for end in range(len(content)):
        with pytest.raises(ValueError, match="Expected a pickled dict"):
            read_plain_pickle(write(content[:end]))
