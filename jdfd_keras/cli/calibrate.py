"""`jdfd-keras calibrate`: fit temperature, threshold and uncertain band of a run."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import CalibrateOptions

SUMMARY = "calibrate a run's scores and thresholds on validation videos"
EXAMPLES = """\
  jdfd-keras calibrate run prepared
  jdfd-keras calibrate run prepared --fpr 0.01"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "data",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="prepared datasets, of which the validation split is used",
    )
    parser.add_options(CalibrateOptions)


def run(arguments: argparse.Namespace) -> Output:
    """Calibrate the run."""
    import_tensorflow()
    from jdfd_keras.client.metadata import CALIBRATION
    from jdfd_keras.evaluation.calibrate import FOLDER, calibrate
    from jdfd_keras.reporting.evaluation_folder import write_calibration_figures
    from jdfd_keras.reporting.report_text import summarize_calibration

    result = calibrate(arguments.model, arguments.data, read_options(arguments, CalibrateOptions))
    write_calibration_figures(result, arguments.model / FOLDER)
    return Output(
        result.to_dict(),
        f"{summarize_calibration(result)}\ncalibration: {arguments.model / CALIBRATION}",
    )
