"""Command `export`: export a trained detector as a SavedModel for serving."""

import argparse
import shlex
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs
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
        choices=("float16", "int8", "onnx", "openvino-int8"),
        help="also export for LiteRT (float16, int8), ONNX or OpenVINO in int8, with the loss of "
        "AUC; needs --data, and openvino-int8 also --foreign",
    )
    parser.add_path(
        "--data",
        "DATA",
        "with --formats: prepared dataset to calibrate int8 and to measure the AUC on",
    )
    parser.add_path(
        "--foreign",
        "DATA",
        "with openvino-int8: prepared dataset of another source, to measure the AUC on as well",
    )
    parser.add_argument(
        "--allow-loss",
        action="store_true",
        help="write openvino-int8 even if it loses too much; it is then used only on request",
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Export a trained detector as a SavedModel for serving.

    jdfd-keras export run --name detector
    jdfd-keras export run --name detector --report report
    jdfd-keras export run --name detector --saved-models /models --version 7
    jdfd-keras export run --name detector --formats float16 int8 onnx --data prepared
    jdfd-keras export run --name detector --formats openvino-int8 --data prepared --foreign other
    """
    check_inputs(arguments.model, arguments.report, arguments.data, arguments.foreign)
    from jdfd_keras.training.headpose_run import check_has_network

    check_has_network(arguments.model)
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
        foreign=arguments.foreign,
        allow_loss=arguments.allow_loss,
    )
    text = f"exported: {exported.path}\nserve it: jdfd-keras serve {shlex.quote(str(directory))}"
    return Output(exported.to_dict(), text)


COMMAND = Command(_add_arguments, _run)
