"""`jdfd-keras export`: export a trained detector as a SavedModel."""

import argparse
import shlex
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output
from jdfd_keras.io.console import import_tensorflow

SUMMARY = "export a trained detector as a SavedModel for serving"
EXAMPLES = """\
  jdfd-keras export run --name detector
  jdfd-keras export run --name detector --report report
  jdfd-keras export run --name detector --saved-models /models --version 7
  jdfd-keras export run --name detector --tflite float16 int8 --data prepared"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="RUN", help="run folder or .keras file")
    parser.add_argument("--name", required=True, help="name of the served model")
    parser.add_argument(
        "--saved-models",
        type=Path,
        default=Path("saved_models"),
        metavar="DIR",
        help="folder of exported models, written as DIR/NAME/VERSION (default: saved_models)",
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="version number (default: the next unused one)"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="report folder that `evaluate` wrote for this run; its metrics go on the model card",
    )
    parser.add_argument(
        "--tflite",
        nargs="+",
        default=[],
        choices=("float16", "int8"),
        help="also export for TensorFlow Lite, with the loss of AUC",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="with --tflite: prepared dataset to calibrate int8 and to measure the AUC on",
    )


def run(arguments: argparse.Namespace) -> Output:
    """Export the detector."""
    import_tensorflow()
    from jdfd_keras.serving.export.exporter import export_detector

    directory = arguments.saved_models / arguments.name
    if directory.parent != arguments.saved_models:
        raise ValueError(
            f"Expected --name without '/', and not empty; got {arguments.name!r}. Try `detector`."
        )
    exported = export_detector(
        arguments.model,
        directory,
        version=arguments.version,
        report=arguments.report,
        tflite=tuple(arguments.tflite),
        data=arguments.data,
    )
    return Output(
        exported.to_dict(),
        f"exported: {exported.path}\nserve it: jdfd-keras serve {shlex.quote(str(directory))}",
    )
