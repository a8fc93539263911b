"""Parsers of commands: flags from the option groups in `options`, and option groups from flags.

The dataclasses in `options` are the only home of defaults and help.
"""

import argparse
import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from jdfd_keras.io.console import printable
from jdfd_keras.io.results import Result

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


@dataclass(frozen=True)
class Output:
    """The output of a command."""

    result: dict[str, Any] | Result  # for `--format json`
    text: str | Iterable[str]  # the same as text, or its parts
    failed: bool = False  # whether something failed, so that the exit code is 1


class CommandParser(argparse.ArgumentParser):
    """The parser of one command; its help shows all options or only the common ones."""

    def __init__(self, *args: Any, show_all: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.show_all = show_all

    def error(self, message: str) -> NoReturn:
        """Exit with the usage and a message, in which an argument is repeated."""
        super().error(printable(message))

    def add_path(
        self, name: str, metavar: str, help: str, *, group: Any = None, **settings: Any
    ) -> None:
        """Add an argument that is a file or folder, to a group of arguments if given."""
        (group or self).add_argument(name, type=Path, metavar=metavar, help=help, **settings)

    def add_overwrite(self) -> None:
        """Add the flag that lets a command replace its existing results."""
        self.add_argument("--overwrite", action="store_true", help="replace an existing result")

    def add_options(
        self,
        *kinds: type,
        skip: Sequence[str] = (),
        hide: Sequence[str] = (),
        defaults: Any = None,
    ) -> None:
        """Add a flag for each field of option groups, except those to skip.

        A flag that an earlier group has already added stays that group's: the option of this group
        keeps its default. The docstring of a group begins with its heading. `defaults` is an option
        group whose values are shown as the defaults, instead of those of its class. Common options
        to hide are shown by `--help-all` only.
        """
        for kind in kinds:
            group = self.add_argument_group(re.split(r"[;.]", kind.__doc__ or kind.__name__)[0])
            for field in dataclasses.fields(kind):
                flag = f"--{field.name.replace('_', '-')}"
                if field.name in skip or flag in self._option_string_actions:
                    continue
                is_common = field.metadata["common"] and field.name not in hide
                is_shown = self.show_all or is_common
                group.add_argument(
                    flag,
                    dest=f"{kind.__name__}.{field.name}",
                    default=argparse.SUPPRESS,
                    help=_describe(field, getattr(defaults, field.name, field.default))
                    if is_shown
                    else argparse.SUPPRESS,
                    **_settings_of(field),
                )


class Command(NamedTuple):
    """A command."""

    add_arguments: Callable[[CommandParser], None]
    run: Callable[[argparse.Namespace], Output]  # its docstring is the help, with examples
    formats: tuple[str, ...] = ("text", "json")
    is_resumable: bool = False


def read_options(
    arguments: argparse.Namespace, kind: type[Options], defaults: Options | None = None
) -> Options:
    """Build an option group from the given flags; options without one have their defaults."""
    given = {}
    for field in dataclasses.fields(kind):
        if (name := f"{kind.__name__}.{field.name}") in arguments:
            value = getattr(arguments, name)
            given[field.name] = tuple(value) if isinstance(value, list) else value
        if variable := field.metadata.get("variable"):
            given[field.name] = _read_secret(given.get(field.name), variable)
    return dataclasses.replace(kind() if defaults is None else defaults, **given)


def _read_secret(text: str | None, variable: str) -> str:
    """Return a secret that is given as text, as the name of a file behind @, or in a variable."""
    text = os.environ.get(variable, "") if text is None else text
    if not text.startswith("@"):
        return text
    return Path(text[1:]).read_text(encoding="utf-8").strip()


def check_inputs(*paths: Path | None) -> None:
    """Check that files and folders exist, before anything heavy is imported; None is no input."""
    for path in paths:
        if path is not None and not path.exists():
            raise FileNotFoundError(
                f"Expected an existing file or folder; got {path}, which is missing. Check the "
                "path."
            )


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers such as 0,1,2; got {text!r}"
        ) from error


def _settings_of(field: dataclasses.Field) -> dict[str, Any]:
    """Return the settings of `add_argument` for the type of a field."""
    if field.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if field.type == tuple[str, ...]:
        return {"action": "append", "metavar": "DIR"}
    if field.type == tuple[int, ...]:
        return {"type": _integers, "metavar": "INT,INT"}
    if choices := field.metadata["choices"]:
        return {"choices": choices}
    kind: Any = field.type
    if isinstance(kind, types.UnionType):  # such as float | None
        kind = typing.get_args(kind)[0]
    return {"type": kind, "metavar": kind.__name__.upper()}


def _describe(field: dataclasses.Field, default: Any) -> str:
    """Write the help of a flag with its default."""
    text = field.metadata["help"].replace("%", "%%")
    if field.type == tuple[str, ...]:
        return f"{text}; repeatable"
    if default is None or default == "":
        return text
    if isinstance(default, bool):
        default = "yes" if default else "no"
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f"{text} (default: {default})"
