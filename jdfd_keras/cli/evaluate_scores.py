"""Command `evaluate-scores`: evaluate a table of scores of any detector."""

import argparse

from jdfd_keras.cli.evaluate import COMPARE_HELP, write_report
from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs
from jdfd_keras.options import EvaluateOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path(
        "scores", "FILE", ".csv or .parquet with the columns video_id, label (1: fake) and score"
    )
    parser.add_path(
        "--data",
        "DATA",
        "prepared datasets that were scored: lists their videos without a score, and rejects "
        "scores of other videos",
        nargs="+",
        default=[],
    )
    parser.add_path("--compare", "FILE", COMPARE_HELP)
    parser.add_path("--out", "DIR", "report folder", required=True)
    parser.add_overwrite()
    parser.add_options(EvaluateOptions, skip=("batch_size", "reconstruction", "allow_leak"))


def _run(arguments: argparse.Namespace) -> Output:
    """Evaluate a table of scores of any detector.

    jdfd-keras evaluate-scores ours.csv --compare theirs.csv --out comparison
    jdfd-keras evaluate-scores report/scores.parquet --aggregation max --out report-max
    """
    check_inputs(arguments.scores, *arguments.data, arguments.compare)
    return write_report(arguments, scores=arguments.scores)


COMMAND = Command(_add_arguments, _run)
