"""Command `serve`: serve exported models over REST and gRPC."""

import argparse

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.options import (
    SERVICE_LIMITS,
    CredentialOptions,
    EngineOptions,
    FileServiceOptions,
    LimitOptions,
    ServeOptions,
)


def _add_arguments(parser: CommandParser) -> None:
    models = parser.add_mutually_exclusive_group(required=True)
    parser.add_path(
        "model",
        "MODEL",
        "exported model, such as saved_models/detector, or its name",
        group=models,
        nargs="?",
    )
    parser.add_path(
        "--models-config",
        "FILE",
        "instead of MODEL: several models, version policies and labels, in TensorFlow Serving's "
        "text format",
        group=models,
    )
    parser.add_options(ServeOptions, EngineOptions, FileServiceOptions)
    parser.add_argument(
        "--opinion",
        metavar="MODEL",
        action="append",
        default=[],
        help="with --files: another model, URL of a served one or plug-in module:function, which "
        "judges each file on its own; repeatable",
    )
    parser.add_options(LimitOptions, defaults=SERVICE_LIMITS)
    parser.add_options(CredentialOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Serve exported models over REST and gRPC.

    jdfd-keras serve saved_models/detector
    jdfd-keras serve jdfd-faces
    jdfd-keras serve saved_models/detector --host 0.0.0.0 --port 8080 --token @token.txt
    jdfd-keras serve --models-config /models/models.config
    jdfd-keras serve jdfd-faces --files --workers 4 --keep-hours 24
    jdfd-keras serve jdfd-faces --files --host 0.0.0.0 --token @token.txt
    jdfd-keras serve jdfd-faces --files --opinion saved_models/detector --opinion my_scores:score
    """
    from jdfd_keras.serving.serve import serve

    serve(
        arguments.model,
        read_options(arguments, ServeOptions),
        models_config=arguments.models_config,
        engine=read_options(arguments, EngineOptions),
        files=read_options(arguments, FileServiceOptions),
        limits=read_options(arguments, LimitOptions, SERVICE_LIMITS),
        opinions=arguments.opinion,
        credentials=read_options(arguments, CredentialOptions),
    )
    return Output({"stopped": True}, "stopped")


COMMAND = Command(_add_arguments, _run)
