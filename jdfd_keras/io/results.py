"""Base class of all results, with conversion to JSON and back.

A stage returns frozen dataclasses that inherit `Result`. Independent of the contents of a result.
"""

import dataclasses
import functools
import math
import sys
import types
import typing
from pathlib import Path
from typing import Any, Self


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


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("json", True)
        }
    if isinstance(value, dict):
        return {str(key): _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    # An array or a number of NumPy, which takes longer to import than `--help` may.
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and math.isnan(value) else value


# Cached, since files hold thousands of results of the same few classes.
_type_hints = functools.cache(typing.get_type_hints)


def _create(kind: type, values: dict[str, Any]) -> Any:
    hints = _type_hints(kind)
    return kind(**{name: _restore(hints[name], value) for name, value in values.items()})


def _restore(hint: Any, value: Any) -> Any:
    """Convert a JSON value to the type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        return value if value is None or len(kinds) > 1 else _restore(kinds[0], value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return hint.from_dict(value) if issubclass(hint, Result) else _create(hint, value)
    if origin is tuple and arguments[1:] != (Ellipsis,):
        return tuple(map(_restore, arguments, value))
    if origin in (tuple, list):
        return origin(_restore(arguments[0], entry) for entry in value)
    if origin is dict:
        return {_restore(arguments[0], key): _restore(arguments[1], e) for key, e in value.items()}
    if hint is float and value is None:
        return math.nan
    return hint(value) if hint in (int, Path) and isinstance(value, str) else value


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
