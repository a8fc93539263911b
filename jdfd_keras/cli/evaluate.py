"""Command `evaluate`: evaluate a detector on prepared datasets."""

import argparse
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.options import EngineOptions, EvaluateOptions

COMPARE_HELP = "scores of another detector, to test whether the AUCs differ (DeLong)"


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("model", "RUN", "run folder, .keras file or exported model")
    parser.add_path("data", "DATA", "prepared datasets", nargs="+")
    add_compare(parser)
    parser.add_path("--out", "DIR", "report folder", required=True)
    parser.add_overwrite()
    parser.add_options(EvaluateOptions, EngineOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Evaluate a detector on prepared datasets.

    jdfd-keras evaluate run prepared --out report
    jdfd-keras evaluate run ffpp celebdf uadfv --out report --reconstruction
    jdfd-keras evaluate saved_models/detector celebdf --out report --backend openvino
    jdfd-keras evaluate saved_models/detector celebdf --out report --degrade jpeg=30
    """
    check_inputs(arguments.model, *arguments.data, arguments.compare)
    return write_report(arguments, model_path=arguments.model)


def add_compare(parser: CommandParser) -> None:
    """Add the arguments that name the scores of another detector."""
    parser.add_path("--compare", "FILE", COMPARE_HELP)
    parser.add_argument(
        "--compare-column", metavar="NAME", default="", help="column of --compare with the scores"
    )


def write_report(
    arguments: argparse.Namespace,
    *,
    model_path: Path | None = None,
    scores: Path | None = None,
    column: str = "",
) -> Output:
    """Evaluate a detector or a table of scores, and write the report folder."""
    from jdfd_keras.evaluation.evaluate import evaluate
    from jdfd_keras.reporting.evaluation_folder import check_folder, write_evaluation
    from jdfd_keras.reporting.report_text import summarize

    check_folder(arguments.out, scores, arguments.compare, overwrite=arguments.overwrite)
    report = evaluate(
        model_path,
        arguments.data,
        read_options(arguments, EvaluateOptions),
        scores=scores,
        compare=arguments.compare,
        column=column,
        compare_column=arguments.compare_column,
        engine=read_options(arguments, EngineOptions),
    )
    write_evaluation(report, arguments.out, overwrite=arguments.overwrite)
    return Output(report.to_dict(), f"{summarize(report)}\nreport: {arguments.out / 'report.html'}")


COMMAND = Command(_add_arguments, _run)
