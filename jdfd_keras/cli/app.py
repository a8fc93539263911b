"""Command `app`: the page for videos and images, in a browser."""

import argparse
import dataclasses

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.client.signatures import SHIPPED_MODEL
from jdfd_keras.options import (
    SERVICE_LIMITS,
    CredentialOptions,
    EngineOptions,
    FileServiceOptions,
    LimitOptions,
    ServeOptions,
)

ADDRESS = ("host", "port")


def _add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        action="append",
        help="name in saved_models/, run folder, .keras file, exported model, URL of a served one, "
        "or plug-in module:function; repeatable: each judges each file on its own "
        f"(default: {SHIPPED_MODEL})",
    )
    parser.add_argument("--no-open", action="store_true", help="open no browser")
    others = [field.name for field in dataclasses.fields(ServeOptions)]
    parser.add_options(ServeOptions, skip=[name for name in others if name not in ADDRESS])
    parser.add_options(FileServiceOptions, skip=("files",))
    parser.add_options(LimitOptions, defaults=SERVICE_LIMITS)
    parser.add_options(EngineOptions, CredentialOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Judge videos and images on a page in the browser, with a history of all cases.

    jdfd-keras app
    jdfd-keras app --model saved_models/detector --port 0 --no-open
    jdfd-keras app --model jdfd-faces --model saved_models/detector --model my_scores:score
    jdfd-keras app --trust-anchors authorities.pem
    jdfd-keras app --host 0.0.0.0 --token @token.txt --keep-hours 24
    """
    from jdfd_keras.serving.app import serve_app

    serve_app(
        options=read_options(arguments, ServeOptions),
        models=arguments.model or (),
        files=read_options(arguments, FileServiceOptions),
        limits=read_options(arguments, LimitOptions, SERVICE_LIMITS),
        engine=read_options(arguments, EngineOptions),
        credentials=read_options(arguments, CredentialOptions),
        is_opened=not arguments.no_open,
    )
    return Output({"stopped": True}, "stopped")


COMMAND = Command(_add_arguments, _run)
