"""Base class of all results, with conversion to JSON and back.

A stage returns frozen dataclasses that inherit `Result`. Independent of the contents of a result.
"""

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

MAX_PARTS_DEPTH = 4  # of values that are written one by one: the files of each of several models


class Result:
    """A frozen dataclass that a stage returns.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Count(Result):
        ...     real: int
        ...     fake: int
        >>> Count(real=1, fake=2).to_dict()
        {'real': 1, 'fake': 2}
        >>> Count.from_dict({"real": 1, "fake": 2})
        Count(real=1, fake=2)
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for `json.dumps`; None for NaN, which JSON does not have.

        A field with `metadata={"json": False}`, such as an array of pixels, is omitted.
        """
        return _to_plain(self)

    def json_parts(self) -> Iterator[str]:
        """Yield the text of `json.dumps(self.to_dict(), indent=2)` in parts.

        Sequences of many results are then never in memory as a whole.
        """
        yield from _json_parts(self, 0)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Create a result from the output of `to_dict`; fields with a default may be missing.

        Raises:
            ValueError: If a field is missing or unknown, or `values` is not a dict.
        """
        try:
            return _create(cls, values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected the fields of {cls.__name__}; got {error!r}. The file was perhaps "
                "written by another version of jdfd-keras: create it again with this one."
            ) from error


def _json_parts(value: Any, depth: int) -> Iterator[str]:
    entries, start, end = None, "", ""
    if depth < MAX_PARTS_DEPTH:
        if _is_list(value):
            entries, (start, end) = (("", entry) for entry in value), "[]"
        elif dataclasses.is_dataclass(value):
            entries, (start, end) = ((f'"{name}": ', entry) for name, entry in _stored(value)), "{}"
    if entries is None:
        yield json.dumps(_to_plain(value), indent=2).replace("\n", "\n" + "  " * depth)
        return
    yield start
    comma = ""
    for name, entry in entries:
        yield f"{comma}\n{'  ' * (depth + 1)}{name}"
        yield from _json_parts(entry, depth + 1)
        comma = ","
    yield "\n" + "  " * depth + end if comma else end


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _stored(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the fields of a dataclass that JSON has."""
    for field in dataclasses.fields(value):
        if field.metadata.get("json", True):
            yield field.name, getattr(value, field.name)


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _to_plain(entry) for name, entry in _stored(value)}
    if isinstance(value, dict):
        return {str(key): _to_plain(entry) for key, entry in value.items()}
    if _is_list(value):
        return [_to_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    # An array or a number of NumPy, which takes longer to import than `--help` may.
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and math.isnan(value) else value


# Cached, since files hold thousands of results of the same few classes.
_type_hints = functools.cache(typing.get_type_hints)


def _create(kind: type, values: dict[str, Any]) -> Any:
    restore = _field_restorers(kind)
    return kind(**{name: restore[name](value) for name, value in values.items()})


@functools.cache
def _field_restorers(kind: type) -> dict[str, Callable[[Any], Any]]:
    return {name: _restorer(hint) for name, hint in _type_hints(kind).items()}


@functools.cache
def _restorer(hint: Any) -> Callable[[Any], Any]:
    """Return a function that converts a JSON value to the type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = [_restorer(kind) for kind in arguments if kind is not types.NoneType]
        if len(kinds) > 1:
            return _keep
        return lambda value: None if value is None else kinds[0](value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        create = hint.from_dict if issubclass(hint, Result) else functools.partial(_create, hint)
        return lambda value: create(value) if isinstance(value, dict) else value
    if origin is tuple and arguments[1:] != (Ellipsis,):
        each = list(map(_restorer, arguments))
        return lambda value: tuple(map(_call, each, value))
    if origin in (tuple, list, Sequence):
        sequence, restore = list if origin is list else tuple, _restorer(arguments[0])
        return lambda value: sequence(map(restore, value))
    if origin is dict:
        key, entry = map(_restorer, arguments)
        return lambda value: {key(name): entry(one) for name, one in value.items()}
    if hint is float:
        return lambda value: math.nan if value is None else value
    if hint in (int, Path):
        return lambda value: hint(value) if isinstance(value, str) else value
    return _keep


def _call(restore: Callable[[Any], Any], value: Any) -> Any:
    return restore(value)


def _keep(value: Any) -> Any:
    return value


def check_types(group: Any) -> None:
    """Check that the fields of a dataclass, and those of nested ones, have the stated types.

    Raises:
        TypeError: If a value has another type, or is a number that is not finite.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Count:
        ...     real: int
        >>> check_types(Count(real=True))
        Traceback (most recent call last):
        TypeError: True as real
    """
    for name, hint in _type_hints(type(group)).items():
        if not _has_type(value := getattr(group, name), hint):
            raise TypeError(f"{value!r:.200} as {name}")


def _has_type(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_has_type(value, kind) for kind in arguments)
    if origin is tuple:
        if arguments[1:] == (Ellipsis,):
            arguments = arguments[:1] * len(value) if isinstance(value, tuple) else ()
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(_has_type, value, arguments))
        )
    if origin is dict:
        return isinstance(value, dict) and all(
            _has_type(key, arguments[0]) and _has_type(entry, arguments[1])
            for key, entry in value.items()
        )
    if hint is float:
        # bool is a subclass of int, and JSON may hold an integer for a float.
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max  # false for NaN
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        check_types(value)
    return isinstance(value, hint) and isinstance(value, bool) == (hint is bool)
