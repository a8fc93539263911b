"""Command `evaluate-scores`: evaluate a table of scores of any detector."""

import argparse

from jdfd_keras.cli.evaluate import add_compare, write_report
from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs
from jdfd_keras.options import EvaluateOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path(
        "scores",
        "FILE",
        ".csv or .parquet with the columns video_id, label (1: fake) and score; or scores of "
        "DeepfakeBench (metric_dict_best.pickle) or deepsafe-bench (.csv, .csv.gz or .json)",
    )
    parser.add_argument(
        "--column",
        metavar="NAME",
        default="",
        help="column with the scores, in a file with those of several detectors (default: score; "
        "of deepsafe-bench ensemble_score)",
    )
    parser.add_path(
        "--data",
        "DATA",
        "prepared datasets that were scored: lists their videos without a score, and rejects "
        "scores of other videos",
        nargs="+",
        default=[],
    )
    add_compare(parser)
    parser.add_path("--out", "DIR", "report folder", required=True)
    parser.add_overwrite()
    parser.add_options(
        EvaluateOptions, skip=("batch_size", "reconstruction", "allow_leak", "degrade")
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Evaluate a table of scores of any detector.

    jdfd-keras evaluate-scores ours.csv --compare theirs.csv --out comparison
    jdfd-keras evaluate-scores report/scores.parquet --aggregation max --out report-max
    jdfd-keras evaluate-scores logs/test/Celeb-DF-v2/metric_dict_best.pickle --out deepfakebench
    jdfd-keras evaluate-scores all.csv --column ensemble --compare all.csv --compare-column sbi \
        --out comparison
    """
    check_inputs(arguments.scores, *arguments.data, arguments.compare)
    return write_report(arguments, scores=arguments.scores, column=arguments.column)


COMMAND = Command(_add_arguments, _run)
