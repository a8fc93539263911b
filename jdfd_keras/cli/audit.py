"""`jdfd-keras audit`: find leakage and shortcuts in prepared datasets."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output

SUMMARY = "find leakage and shortcuts in prepared datasets"
EXAMPLES = """\
  jdfd-keras audit prepared
  jdfd-keras audit ffpp celebdf --out audit"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help="prepared datasets")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write audit.md, audit.json and images of near-duplicates there",
    )


def run(arguments: argparse.Namespace) -> Output:
    """Audit the datasets; leakage is a failure."""
    from jdfd_keras.datasets.audit import audit
    from jdfd_keras.reporting.dataset_report import render_audit, write_audit

    result = audit(arguments.data)
    text = render_audit(result)
    if arguments.out:
        write_audit(result, arguments.out)
        text += f"\naudit: {arguments.out / 'audit.md'}"
    return Output(result.to_dict(), text, failed=bool(result.failed))
