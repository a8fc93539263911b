"""Pickles of other programs, of which nothing is executed.

Classes and functions that a pickle names are neither imported nor called. Time and memory are
bounded by the size of the file.
"""

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 512 * 1024**2
# What the unpickler raises for bytes that are no pickle.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError),
    *(OverflowError, struct.error, NotImplementedError, RuntimeError),
)
_TUPLES = b"".join((pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3))
_MAX_AXES = 32  # of an array
_NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_DTYPES = {"?": "?", "b1": "?", **{name: name for name in _NUMBERS}}


class HashableTuple(tuple):
    """A tuple that is hashed without its elements, which a file may nest without bound."""

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType], typed as that of tuple


def _hide_elements(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def load_tuple(self: Any) -> None:
        load(self)
        self.stack[-1] = HashableTuple(self.stack[-1])

    return load_tuple


class RestrictedUnpickler(pickle._Unpickler):
    """An unpickler of containers, strings and numbers; a subclass adds what `find_class` returns.

    It is the one in Python, since that in C allocates what a damaged header asks for (3.11.7).
    """

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; it must not be the thing itself."""
        raise pickle.UnpicklingError(f"an object of {module}.{name}")

    def set_state(self, value: Any, state: Any) -> None:
        """Set the state of a value that `find_class` led to; other objects keep theirs."""

    def load_build(self) -> None:  # noqa: D102
        state = self.stack.pop()
        self.set_state(self.stack[-1], state)

    def load_bytearray8(self) -> None:  # noqa: D102
        # That of the standard library allocates the length that the file states.
        (length,) = struct.unpack("<Q", self.read(8))  # pyright: ignore[reportAttributeAccessIssue]
        content = self.read(min(length, MAX_BYTES))  # pyright: ignore[reportAttributeAccessIssue]
        if len(content) != length:
            raise pickle.UnpicklingError(f"{len(content)} of {length} bytes")
        self.stack.append(content)

    dispatch = {  # pyright: ignore[reportAssignmentType], typed as methods of Unpickler
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        **{code: _hide_elements(pickle._Unpickler.dispatch[code]) for code in _TUPLES},
    }


def read_plain_pickle(path: str | Path) -> dict[str, Any]:
    """Read a pickled dict of NumPy arrays, lists, strings and numbers.

    Args:
        path: A file that `pickle.dump` wrote, of at most 512 MiB.

    Returns:
        The dict. Arrays of numbers and of truth values are read where they are values of the dict
        itself, and NumPy scalars anywhere, as Python numbers.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is too large, damaged, or holds other objects.

    Example:
        >>> with open("scores.pickle", "wb") as file:
        ...     pickle.dump({"pred": np.array([0.5, 1.0], np.float32), "image": ["a", "b"]}, file)
        >>> read_plain_pickle("scores.pickle")["pred"]
        array([0.5, 1. ], dtype=float32)
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"Expected a pickle of at most {MAX_BYTES} bytes; got {path} of {size}. Check whether "
            "it is the right file."
        )
    try:
        found = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise pickle.UnpicklingError("something else than a dict with names as keys")
        return {
            key: value.read() if isinstance(value, _Array) else value
            for key, value in found.items()
        }
    except DAMAGE as error:
        raise ValueError(
            f"Expected a pickled dict of arrays, lists, strings and numbers in {path}; got "
            f"'{' '.join(str(error).split())[:200]}'. Nothing of it was executed. Check whether "
            "it is the right file, or download it again."
        ) from error


class _Dtype:
    """A type of numbers; its byte order is set afterwards."""

    def __init__(self, name: str):
        self.dtype = np.dtype(_DTYPES[name])

    def set_state(self, state: tuple) -> None:
        _, order, *structure = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure[:3]):
            raise pickle.UnpicklingError("an array of structures")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array whose content is set afterwards."""

    content: tuple[tuple, _Dtype, bool, bytes] | None = None

    def set_state(self, state: tuple) -> None:
        _, *content = state
        self.content = tuple(content)  # pyright: ignore[reportAttributeAccessIssue], see read

    def read(self) -> np.ndarray:
        """Return the array, which is read-only."""
        shape, kind, is_fortran, data = self.content or ((), None, False, None)
        if (
            not isinstance(kind, _Dtype)
            or not isinstance(data, bytes)
            or len(shape) > _MAX_AXES
            or not all(type(n) is int and n >= 0 for n in shape)
            or math.prod(shape) * kind.dtype.itemsize != len(data)
        ):
            raise pickle.UnpicklingError("an array without valid type, shape and content")
        # A view, since a file may have many arrays of the same bytes.
        return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


class _ArrayUnpickler(RestrictedUnpickler):
    """An unpickler of NumPy arrays as well, which it builds itself."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")  # its name since NumPy 2
        known = {
            "numpy.ndarray": _name_array,
            "numpy.dtype": _build_dtype,
            "numpy.core.multiarray._reconstruct": _build_array,
            "numpy.core.multiarray.scalar": _build_scalar,
            "numpy.core.numeric._frombuffer": _build_from_buffer,  # protocol 5
        }
        found = known.get(f"{module}.{name}")
        return found or super().find_class(module, name)

    def set_state(self, value: Any, state: Any) -> None:
        if isinstance(value, _Dtype | _Array):
            value.set_state(state)


def _name_array(*_: Any) -> None:
    raise pickle.UnpicklingError("an array without content")


def _build_dtype(name: Any, *_: Any) -> _Dtype:
    if not isinstance(name, str) or name not in _DTYPES:
        raise pickle.UnpicklingError(f"an array of the type {str(name)[:20]!r}")
    return _Dtype(name)


def _build_array(kind: Any, *_: Any) -> _Array:
    if kind is not _name_array:
        raise pickle.UnpicklingError("a subclass of an array")
    return _Array()


def _build_from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.set_state((1, shape, kind, order == "F", data))
    return array


def _build_scalar(kind: Any, data: Any) -> Any:
    array = _Array()
    array.set_state((1, (), kind, False, data))
    return array.read().item()
