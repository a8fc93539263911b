"""`jdfd-keras evaluate-scores`: evaluate a table of scores of any detector."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.options import EvaluateOptions

SUMMARY = "evaluate a table of scores of any detector"
EXAMPLES = """\
  jdfd-keras evaluate-scores ours.csv --compare theirs.csv --out comparison
  jdfd-keras evaluate-scores report/scores.parquet --aggregation max --out report-max"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "scores",
        type=Path,
        metavar="FILE",
        help=".csv or .parquet with the columns video_id, label (1: fake) and score",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="DATA",
        help="prepared datasets that were scored: lists their videos without a score, and "
        "rejects scores of other videos",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="scores of another detector, to test whether the AUCs differ (DeLong)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="report folder")
    parser.add_options(EvaluateOptions, skip=("batch_size", "reconstruction", "allow_leak"))


def run(arguments: argparse.Namespace) -> Output:
    """Evaluate the scores and write the report folder, without TensorFlow."""
    from jdfd_keras.evaluation.evaluate_scores import evaluate_scores
    from jdfd_keras.reporting.evaluation_folder import check_folder, write_evaluation
    from jdfd_keras.reporting.report_text import summarize

    check_folder(arguments.out, arguments.scores, arguments.compare)
    report = evaluate_scores(
        arguments.scores,
        read_options(arguments, EvaluateOptions),
        data=arguments.data,
        compare=arguments.compare,
    )
    write_evaluation(report, arguments.out)
    return Output(report.to_dict(), f"{summarize(report)}\nreport: {arguments.out / 'report.html'}")
