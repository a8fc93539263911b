"""`jdfd-keras serve`: serve exported models over REST and gRPC."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.options import ServeOptions

SUMMARY = "serve exported models over REST and gRPC"
EXAMPLES = """\
  jdfd-keras serve saved_models/detector
  jdfd-keras serve saved_models/detector --engine embedded --host 0.0.0.0 --port 8080
  jdfd-keras serve --models-config /models/models.config"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", type=Path, nargs="?", metavar="MODEL", help="such as saved_models/detector"
    )
    parser.add_argument(
        "--models-config",
        type=Path,
        metavar="FILE",
        help="instead of MODEL: several models, version policies and labels, in TensorFlow "
        "Serving's text format",
    )
    parser.add_options(ServeOptions)


def check_usage(arguments: argparse.Namespace, rest: Sequence[str]) -> Sequence[str]:
    """Check that exactly one of MODEL and --models-config is given."""
    if bool(arguments.model) == bool(arguments.models_config):
        raise argparse.ArgumentTypeError("give MODEL, or --models-config FILE instead")
    return rest


def run(arguments: argparse.Namespace) -> Output:
    """Serve until stopped."""
    from jdfd_keras.serving.serve import serve

    serve(
        arguments.model,
        read_options(arguments, ServeOptions),
        models_config=arguments.models_config,
    )
    return Output({"stopped": True}, "stopped")
