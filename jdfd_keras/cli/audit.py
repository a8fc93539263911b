"""Command `audit`: find leakage and shortcuts in prepared datasets."""

import argparse

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("data", "DATA", "prepared datasets", nargs="+")
    parser.add_path(
        "--out", "DIR", "also write audit.md, audit.json and images of near-duplicates there"
    )
    parser.add_overwrite()
    parser.add_argument(
        "--split-table",
        default="official",
        metavar="NAME",
        help="split table of the datasets, or the path of a .csv (default: official)",
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Find leakage and shortcuts in prepared datasets.

    jdfd-keras audit prepared
    jdfd-keras audit prepared --split-table kfold-0-of-5
    jdfd-keras audit ffpp celebdf --out audit
    """
    # Leakage is a failure; leakage that is only not ruled out is none.
    check_inputs(*arguments.data)
    from jdfd_keras.datasets.audit import audit
    from jdfd_keras.reporting.dataset_report import check_audit_folder, render_audit, write_audit

    if arguments.out:
        check_audit_folder(arguments.out, overwrite=arguments.overwrite)
    result = audit(arguments.data, arguments.split_table)
    text = render_audit(result)
    if arguments.out:
        write_audit(result, arguments.out, overwrite=arguments.overwrite)
        text += f"\naudit: {arguments.out / 'audit.md'}"
    return Output(result.to_dict(), text, failed=bool(result.failed))


COMMAND = Command(_add_arguments, _run)
