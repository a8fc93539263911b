"""`jdfd-keras evaluate`: evaluate a trained detector on prepared datasets."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import EvaluateOptions

SUMMARY = "evaluate a detector on prepared datasets"
EXAMPLES = """\
  jdfd-keras evaluate run prepared --out report
  jdfd-keras evaluate run ffpp celebdf uadfv --out report --reconstruction"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="RUN", help="run folder or .keras file")
    parser.add_argument("data", type=Path, nargs="*", metavar="DATA", help="prepared datasets")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="scores of another detector, to test whether the AUCs differ (DeLong)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="report folder")
    parser.add_options(EvaluateOptions)


def check_usage(arguments: argparse.Namespace, rest: Sequence[str]) -> Sequence[str]:
    """Check that a dataset is given, also after a flag, where argparse expects none."""
    if not any(word.startswith("-") for word in rest):
        arguments.data += map(Path, rest)
        rest = ()
    if not (arguments.data or rest):
        raise argparse.ArgumentTypeError("RUN and DATA are required")
    return rest


def run(arguments: argparse.Namespace) -> Output:
    """Evaluate the detector and write the report folder."""
    import_tensorflow()
    from jdfd_keras.evaluation.evaluate import evaluate
    from jdfd_keras.reporting.evaluation_folder import check_folder, write_evaluation
    from jdfd_keras.reporting.report_text import summarize

    check_folder(arguments.out, arguments.compare)
    report = evaluate(
        arguments.model,
        arguments.data,
        read_options(arguments, EvaluateOptions),
        compare=arguments.compare,
    )
    write_evaluation(report, arguments.out)
    return Output(report.to_dict(), f"{summarize(report)}\nreport: {arguments.out / 'report.html'}")
