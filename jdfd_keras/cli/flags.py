"""Flags of the command line, made of dataclasses of options."""

import argparse
import dataclasses
from pathlib import Path


def add_flags(command: argparse.ArgumentParser, kind: type, skip: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of a dataclass of options, under its first words."""
    command = command.add_argument_group(kind.__doc__.split(";")[0].splitlines()[0].rstrip("."))
    for field in dataclasses.fields(kind):
        flag = f"--{field.name.replace('_', '-')}"
        if field.name in skip:
            continue
        if field.type is bool:
            command.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help=f"{field.metadata['help']} ({'yes' if field.default else 'no'})",
            )
        elif field.type == float | None:
            command.add_argument(flag, type=float, metavar="FLOAT", help=field.metadata["help"])
        elif field.type == tuple[str, ...]:
            command.add_argument(
                flag,
                action="append",
                default=[],
                metavar="DIR",
                help=f"{field.metadata['help']}; may be given several times",
            )
        elif field.type == tuple[int, ...]:
            command.add_argument(
                flag,
                type=integers,
                default=field.default,
                metavar="INT,INT",
                help=f"{field.metadata['help']} ({','.join(map(str, field.default))})",
            )
        else:
            command.add_argument(
                flag,
                type=field.type,
                default=field.default,
                choices=field.metadata["choices"] or None,
                metavar=None if field.metadata["choices"] else field.type.__name__.upper(),
                help=f"{field.metadata['help']} ({field.default})",
            )


def key_and_folder(text: str) -> tuple[str, Path]:
    """Read KEY=DIR."""
    key, sign, folder = text.partition("=")
    if not (key and sign and folder):
        raise argparse.ArgumentTypeError(f"expected KEY=DIR such as ff=prepared; got {text!r}")
    return key, Path(folder)


def integers(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers such as 0,1,2; got {text!r}"
        ) from error
