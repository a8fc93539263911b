"""Command `calibrate`: calibrate a run's scores and thresholds on validation videos."""

import argparse

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import CalibrateOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("model", "RUN", "run folder")
    parser.add_path(
        "data", "DATA", "prepared datasets, of which the validation split is used", nargs="+"
    )
    parser.add_overwrite()
    parser.add_options(CalibrateOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Calibrate a run's scores and thresholds on validation videos.

    jdfd-keras calibrate run prepared
    jdfd-keras calibrate run prepared --fpr 0.01
    """
    check_inputs(arguments.model, *arguments.data)
    from jdfd_keras.client.calibration import CALIBRATION
    from jdfd_keras.io.files import check_no_result
    from jdfd_keras.training.headpose_run import is_headpose_run

    path = arguments.model / CALIBRATION
    check_no_result(path, overwrite=arguments.overwrite)
    if not is_headpose_run(arguments.model):
        import_tensorflow()
    from jdfd_keras.evaluation.calibrate import FOLDER, calibrate
    from jdfd_keras.reporting.evaluation_folder import write_calibration_figures
    from jdfd_keras.reporting.report_text import summarize_calibration

    options = read_options(arguments, CalibrateOptions)
    result = calibrate(arguments.model, arguments.data, options, overwrite=arguments.overwrite)
    write_calibration_figures(result, arguments.model / FOLDER)
    text = f"{summarize_calibration(result)}\ncalibration: {path}"
    return Output(result.to_dict(), text)


COMMAND = Command(_add_arguments, _run)
