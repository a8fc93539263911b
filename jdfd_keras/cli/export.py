"""Command `export`: export a trained detector as a SavedModel for serving."""

import argparse
import shlex
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output
from jdfd_keras.io.console import import_tensorflow


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("model", "RUN", "run folder or .keras file")
    parser.add_argument("--name", required=True, help="name of the served model")
    parser.add_path(
        "--saved-models",
        "DIR",
        "folder of exported models, written as DIR/NAME/VERSION (default: saved_models)",
        default=Path("saved_models"),
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="version number (default: the next unused one)"
    )
    parser.add_path(
        "--report",
        "DIR",
        "report folder that `evaluate` wrote for this run; its metrics go on the model card",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        default=[],
        choices=("float16", "int8", "onnx"),
        help="also export for LiteRT (float16, int8) or ONNX, with the loss of AUC; needs --data",
    )
    parser.add_path(
        "--data",
        "DATA",
        "with --formats: prepared dataset to calibrate int8 and to measure the AUC on",
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Export a trained detector as a SavedModel for serving.

    jdfd-keras export run --name detector
    jdfd-keras export run --name detector --report report
    jdfd-keras export run --name detector --saved-models /models --version 7
    jdfd-keras export run --name detector --formats float16 int8 onnx --data prepared
    """
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
        formats=tuple(arguments.formats),
        data=arguments.data,
    )
    text = f"exported: {exported.path}\nserve it: jdfd-keras serve {shlex.quote(str(directory))}"
    return Output(exported.to_dict(), text)


COMMAND = Command(_add_arguments, _run)
