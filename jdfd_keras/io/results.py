"""Base class of all results, with conversion to JSON and back.

A stage returns frozen dataclasses that inherit `Result`; `to_dict` makes them ready for
`json.dumps`, `from_dict` reads them back, except those with pixels, which JSON omits. Independent
of the contents of a result.
"""

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, Self

import numpy as np


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
        """Return the fields as JSON-ready values, nested results as dicts.

        A field with `metadata={"json": False}`, such as an array of pixels, is omitted.
        """
        return {
            field.name: to_plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.metadata.get("json", True)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Create a result from the output of `to_dict`.

        Args:
            values: One entry per field; fields with a default may be missing.

        Raises:
            ValueError: If a field is missing or unknown, or `values` is not a dict.
        """
        hints = _type_hints(cls)
        try:
            return cls(**{name: _restore(hints[name], value) for name, value in values.items()})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected the fields of {cls.__name__}; got {error!r}. The file was perhaps "
                "written by another version of jdfd-keras: create it again with this one."
            ) from error


def to_plain(value: Any) -> Any:
    """Convert a value to JSON types: dataclasses to dicts, arrays and tuples to lists."""
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


# Cached, since files hold thousands of results of the same few classes.
_type_hints = functools.cache(typing.get_type_hints)


def _restore(hint: Any, value: Any) -> Any:
    """Convert a JSON value to the type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        return _restore(kinds[0], value) if len(kinds) == 1 else value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        if issubclass(hint, Result):
            return hint.from_dict(value)
        hints = _type_hints(hint)
        return hint(**{name: _restore(hints[name], entry) for name, entry in value.items()})
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_restore(arguments[0], entry) for entry in value)
        return tuple(map(_restore, arguments, value))
    if origin is list:
        return [_restore(arguments[0], entry) for entry in value]
    if origin is dict:
        return {_restore(arguments[0], key): _restore(arguments[1], e) for key, e in value.items()}
    return hint(value) if hint in (int, Path) and isinstance(value, str) else value
