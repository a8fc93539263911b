"""The command line: parse the arguments, run the module of a command, print its result.

The flags of an option group come from its dataclass in `options`, the only home of defaults and
help. Results go to stdout, progress and warnings to stderr. Exit 0: done; 1: something failed, in
one line with the expected and the actual value and what to try; 2: wrong usage; 130: stopped
by Ctrl-C. Nothing heavy is imported before a command runs.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jdfd_keras import __version__

Options = TypeVar("Options")


@dataclass(frozen=True)
class Output:
    """The output of a command.

    Attributes:
        result: JSON-ready, for `--format json`.
        text: The same as text.
        failed: Whether something failed, so that the exit code is 1.
    """

    result: dict[str, Any]
    text: str
    failed: bool = False


class CommandParser(argparse.ArgumentParser):
    """The parser of one command.

    Args:
        show_all: Whether its help shows all options, or only the common ones.
    """

    def __init__(self, *args: Any, show_all: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.show_all = show_all

    def add_options(self, kind: type, skip: Sequence[str] = ()) -> None:
        """Add a flag for each field of an option group.

        A flag that an earlier group has already added stays that group's: the option of this group
        keeps its default.

        Args:
            kind: Dataclass of the group; its docstring begins with the heading.
            skip: Fields without a flag, since the command sets them itself.
        """
        heading = re.split(r"[;.\n]", kind.__doc__ or kind.__name__)[0]
        group = self.add_argument_group(heading)
        for field in dataclasses.fields(kind):
            flag = f"--{field.name.replace('_', '-')}"
            if field.name in skip or flag in self._option_string_actions:
                continue
            is_shown = self.show_all or field.metadata["common"]
            group.add_argument(
                flag,
                dest=_name_of(kind, field),
                default=argparse.SUPPRESS,
                help=_describe(field) if is_shown else argparse.SUPPRESS,
                **_value_of(field),
            )


def read_options(
    arguments: argparse.Namespace, kind: type[Options], defaults: Options | None = None
) -> Options:
    """Build an option group from the given flags.

    Args:
        arguments: Parsed flags.
        kind: Dataclass of the group.
        defaults: Options where no flag was given; those of the dataclass if omitted.
    """
    given = {
        field.name: getattr(arguments, _name_of(kind, field))
        for field in dataclasses.fields(kind)
        if hasattr(arguments, _name_of(kind, field))
    }
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return dataclasses.replace(kind() if defaults is None else defaults, **given)


def integers(text: str) -> tuple[int, ...]:
    """Parse whole numbers separated by commas."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers such as 0,1,2; got {text!r}"
        ) from error


def _name_of(kind: type, field: dataclasses.Field) -> str:
    """Return the name of an option among parsed flags, unique over all groups."""
    return f"{kind.__name__}.{field.name}"


def _value_of(field: dataclasses.Field) -> dict[str, Any]:
    """Return the arguments of `add_argument` for the type of a field."""
    if field.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if field.type == tuple[str, ...]:
        return {"action": "append", "metavar": "DIR"}
    if field.type == tuple[int, ...]:
        return {"type": integers, "metavar": "INT,INT"}
    if choices := field.metadata["choices"]:
        return {"choices": choices}
    kind = {float | None: float, str | None: str}.get(field.type, field.type)
    return {"type": kind, "metavar": kind.__name__.upper()}


def _describe(field: dataclasses.Field) -> str:
    """Write the help of a flag with its default."""
    text, default = field.metadata["help"].replace("%", "%%"), field.default
    if field.type == tuple[str, ...]:
        return f"{text}; repeatable"
    if default is None or default == "":
        return text
    if isinstance(default, bool):
        default = "yes" if default else "no"
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f"{text} (default: {default})"


COMMANDS = (
    "demo",
    "prepare",
    "audit",
    "inspect",
    "train",
    "calibrate",
    "evaluate",
    "evaluate-scores",
    "experiment",
    "export",
    "serve",
    "predict",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; those of the process if omitted.

    Returns:
        The exit code: 0, 1, or 130 after Ctrl-C. Wrong usage raises SystemExit(2), as argparse
        does.

    Example:
        >>> main(["audit", "prepared"])  # doctest: +SKIP
        0
    """
    arguments = parse(argv)
    os.environ["KERAS_BACKEND"] = "tensorflow"  # exports need a TensorFlow model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # serve and predict may share one
    try:
        output = arguments.run(arguments)
    except (OSError, ValueError) as error:
        print(f"jdfd-keras {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = " Run the same command again to resume." if arguments.is_resumable(arguments) else ""
        print(f"jdfd-keras {arguments.command}: interrupted.{hint}", file=sys.stderr)
        return 130
    is_json = arguments.format == "json"
    try:
        print(json.dumps(output.result, indent=2) if is_json else output.text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if output.failed else 0


def build_parser(show_all: bool = False) -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Args:
        show_all: Whether the help of a command shows all options, or only the common ones.
    """
    parser = argparse.ArgumentParser(
        prog="jdfd-keras",
        description="Detect deepfakes: train, evaluate, export and serve the Joint DeepFake "
        "Detector.",
        epilog="Start with `jdfd-keras demo`. `jdfd-keras COMMAND --help` shows the common "
        "options of a command, `--help-all` all of them.",
    )
    parser.add_argument("--version", action="version", version=f"jdfd-keras {__version__}")
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=functools.partial(CommandParser, show_all=show_all),
    )
    for name in COMMANDS:
        module = _module_of(name)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}.",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # so that a flag of Beam is never taken for one of ours
        )
        command.add_argument("--help-all", action="help", help="show all options and exit")
        command.add_argument(
            "--format",
            choices=getattr(module, "FORMATS", ("text", "json")),
            default="text",
            help="format of the result (default: text)",
        )
        module.add_arguments(command)
        command.set_defaults(
            run=module.run,
            is_resumable=getattr(module, "is_resumable", lambda arguments: False),
        )
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the words of a command.

    Args:
        argv: Its words; those of the process if omitted.

    Raises:
        SystemExit: If the usage is wrong (2), or help was requested (0).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(show_all="--help-all" in words)
    arguments, rest = parser.parse_known_args(words)
    check = getattr(_module_of(arguments.command), "check_usage", None)
    try:
        rest = check(arguments, rest) if check else rest
    except argparse.ArgumentTypeError as error:
        parser.error(f"{arguments.command}: {error}")
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _module_of(command: str):
    return importlib.import_module(f"jdfd_keras.cli.{command.replace('-', '_')}")
