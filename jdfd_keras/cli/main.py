"""The command line: parse the arguments, run a command, print its result.

Results go to stdout, progress and warnings to stderr. Exit 0: done; 1: something failed, in one
line with the expected and the actual value and what to try; 2: wrong usage; 130: stopped by Ctrl-C,
143: by SIGTERM, 129: by SIGHUP, in all three cases without temporary files.
Text that is printed has no control characters and direction marks, such as those of a file name;
JSON is exact. Nothing heavy is imported before a command runs.
"""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from inspect import getdoc

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
from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.io.console import print_message, printable, printable_lines
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.origin import mask_secrets, recorded_command
from jdfd_keras.io.results import Result
from jdfd_keras.io.stop_signals import Stopped, exit_on_signals
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
    with exit_on_signals():
        try:
            with recorded_command(arguments.words), reraise_disk_full(_describe_output(arguments)):
                output = command.run(arguments)
                _print_output(output, arguments.format == "json")
        except (OSError, ValueError) as error:
            _print_end(arguments, printable(str(error)))
            return 1
        except KeyboardInterrupt:
            _print_end(arguments, f"interrupted.{_describe_resuming(command, arguments)}")
            return 130
        except Stopped as stop:
            hint = _describe_resuming(command, arguments)
            _print_end(arguments, f"stopped by {stop.name}.{hint}")
            return int(stop.code or 0)
    return 1 if output.failed else 0


def _print_output(output: Output, is_json: bool) -> None:
    if is_json:
        result = output.result
        parts = (
            result.json_parts() if isinstance(result, Result) else [json.dumps(result, indent=2)]
        )
    else:
        parts = [output.text] if isinstance(output.text, str) else output.text
        parts = map(printable_lines, parts)
    try:
        sys.stdout.writelines(parts)
        print(flush=True)
    except OSError as error:
        # Python would write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # of a reader that has closed, such as `head`
            raise


def _print_end(arguments: argparse.Namespace, text: str) -> None:
    print_message(f"jdfd-keras {arguments.command}: {text}")


def _describe_resuming(command: Command, arguments: argparse.Namespace) -> str:
    # Verdicts are kept with --out only.
    is_kept = command.is_resumable and (arguments.out or vars(arguments).get("resume"))
    return " Run the same command again to resume." if is_kept else ""


def _describe_output(arguments: argparse.Namespace) -> str:
    """Describe what a command writes; most state it more exactly themselves."""
    out = vars(arguments).get("out")
    output = f"the output {printable(str(out))}" if out else "the output"
    return f"{output} and in the folder for temporary files"


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
