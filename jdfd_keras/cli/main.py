"""The command line: parse the arguments, run a command, print its result.

Results go to stdout, progress and warnings to stderr. Exit 0: done; 1: something failed, in one
line with the expected and the actual value and what to try; 2: wrong usage; 130: stopped by Ctrl-C,
143: by SIGTERM, in both cases without temporary files.
Text that is printed has no control characters and direction marks, such as those of a file name;
JSON is exact. Nothing heavy is imported before a command runs.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any, NoReturn

from jdfd_keras import __version__
from jdfd_keras.cli import (
    app,
    audit,
    calibrate,
    demo,
    evaluate,
    evaluate_scores,
    experiment,
    export,
    import_weights,
    inspect,
    predict,
    prepare,
    serve,
    split,
    train,
)
from jdfd_keras.cli.parser import CommandParser, read_options
from jdfd_keras.io.console import print_message, printable, printable_lines
from jdfd_keras.io.origin import mask_secrets, recorded_command
from jdfd_keras.options import PrepareRuntime

MODULES = (
    demo,
    prepare,
    split,
    audit,
    inspect,
    import_weights,
    train,
    calibrate,
    evaluate,
    evaluate_scores,
    experiment,
    export,
    serve,
    predict,
    app,
)
COMMANDS = {m.__name__.rpartition(".")[2].replace("_", "-"): m.COMMAND for m in MODULES}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of these words, or of the process, and return the exit code.

    Wrong usage raises SystemExit(2), as argparse does.
    """
    arguments = parse(argv)
    command = COMMANDS[arguments.command]
    os.environ["KERAS_BACKEND"] = "tensorflow"  # exports need a TensorFlow model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # serve and predict may share one
    try:
        with _exit_on_sigterm(), recorded_command(arguments.words):
            output = command.run(arguments)
    except (OSError, ValueError) as error:
        print_message(f"jdfd-keras {arguments.command}: {printable(str(error))}")
        return 1
    except KeyboardInterrupt:
        # Verdicts are kept with --out only.
        is_kept = command.is_resumable and (arguments.out or vars(arguments).get("resume"))
        hint = " Run the same command again to resume." if is_kept else ""
        print_message(f"jdfd-keras {arguments.command}: interrupted.{hint}")
        return 130
    is_json = arguments.format == "json"
    text = json.dumps(output.result, indent=2) if is_json else printable_lines(output.text)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if output.failed else 0


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that temporary files are deleted."""
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return

    def stop(number: int, _: Any) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the words of a command; raise SystemExit on wrong usage and after help."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments, unknown = _build_parser("--help-all" in words).parse_known_args(words)
    # Apache Beam has flags of its own.
    if unknown and not read_options(arguments, PrepareRuntime).runner:
        arguments.parser.error(f"unrecognized arguments: {' '.join(mask_secrets(unknown))}")
    arguments.beam_flags, arguments.words = unknown, words
    return arguments


def _build_parser(show_all: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jdfd-keras",
        description="Detect deepfakes: train, evaluate, export and serve the Joint DeepFake "
        "Detector.",
        epilog="Start with `jdfd-keras demo`. `jdfd-keras COMMAND --help` shows the common "
        "options of a command, `--help-all` all of them.",
    )
    parser.add_argument("--version", action="version", version=f"jdfd-keras {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    for name, (add_arguments, run, formats, _) in COMMANDS.items():
        summary, examples = (getdoc(run) or "\n\n").split("\n\n", 1)
        command = commands.add_parser(
            name,
            show_all=show_all,
            help=summary[:1].lower() + summary[1:-1],
            description=summary,
            epilog=f"examples:\n{textwrap.indent(examples, '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # so that a flag of Beam is never taken for one of ours
        )
        command.add_argument("--help-all", action="help", help="show all options and exit")
        command.add_argument(
            "--format", choices=formats, default="text", help="format (default: text)"
        )
        command.set_defaults(parser=command)
        add_arguments(command)
    return parser
