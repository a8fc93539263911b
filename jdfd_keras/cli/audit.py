"""Command `audit`: find leakage and shortcuts in prepared datasets."""

import argparse

from jdfd_keras.cli.parser import Command, CommandParser, Output


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("data", "DATA", "prepared datasets", nargs="+")
    parser.add_path(
        "--out", "DIR", "also write audit.md, audit.json and images of near-duplicates there"
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Find leakage and shortcuts in prepared datasets.

    jdfd-keras audit prepared
    jdfd-keras audit ffpp celebdf --out audit
    """
    # Leakage is a failure.
    from jdfd_keras.datasets.audit import audit
    from jdfd_keras.reporting.dataset_report import render_audit, write_audit

    result = audit(arguments.data)
    text = render_audit(result)
    if arguments.out:
        write_audit(result, arguments.out)
        text += f"\naudit: {arguments.out / 'audit.md'}"
    return Output(result.to_dict(), text, failed=bool(result.failed))


COMMAND = Command(_add_arguments, _run)
