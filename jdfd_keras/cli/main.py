"""The command `jdfd-keras`: parses, calls one function, prints.

Results go to stdout, progress and warnings to stderr. Exit 0: done; 1: something failed, in
one line that says what was expected, what came and what to try; 2: wrong usage. Nothing heavy
is imported before a command runs.

Flags of the command line, made of dataclasses of options.

Takes an argparse parser and a dataclass; adds a flag for each field, with its default and its help.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from jdfd_keras.cli import commands
from jdfd_keras.cli.parser import build_parser

RESUMABLE = ("demo", "prepare", "train", "experiment")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; those of the process if none are given.

    Returns:
        The exit code: 0, 1, or 130 after Ctrl-C. Wrong usage leaves through SystemExit(2), as
        argparse does.
    """
    arguments = parse(argv)
    if getattr(arguments, "resume", None):
        try:
            arguments = parse(argv, commands.read_run(arguments.resume))
        except (OSError, ValueError) as error:
            print(f"jdfd-keras {arguments.command}: {error}", file=sys.stderr)
            return 1
    os.environ["KERAS_BACKEND"] = "tensorflow"  # what is trained here is served by TensorFlow
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # serve and predict may share one
    try:
        result, text = arguments.run(arguments)
    except (OSError, ValueError) as error:
        print(f"jdfd-keras {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        is_kept = arguments.command in RESUMABLE or arguments.command == "predict" and arguments.out
        hint = " The same command goes on with it." if is_kept else ""
        print(f"jdfd-keras {arguments.command}: interrupted.{hint}", file=sys.stderr)
        return 130
    try:
        print(json.dumps(result, indent=2) if arguments.format == "json" else text, flush=True)
    except BrokenPipeError:  # whoever read it, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if result.get("failed") else 0


def parse(argv: list[str] | None = None, run: dict | None = None) -> argparse.Namespace:
    """Parse a command; flags that are not ours are Beam's where Beam is asked for.

    Args:
        argv: Its words.
        run: What the flags of `train` are where they are not given, other than the defaults.
    """
    parser = build_parser(run)
    arguments, others = parser.parse_known_args(argv)
    if arguments.command == "evaluate" and not any(word.startswith("-") for word in others):
        # argparse takes no more data sets once a flag stood between RUN and them.
        arguments.data += map(Path, others)
        others = []
    if others and not getattr(arguments, "runner", ""):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if arguments.command == "train":
        if arguments.resume and arguments.out and not run:
            parser.error("train: --resume RUN stands in the place of --out")
        if not (arguments.resume or arguments.data and arguments.out):
            parser.error("train: DATA and --out DIR are needed, or --resume RUN")
    if arguments.command == "serve" and bool(arguments.model) == bool(arguments.models_config):
        parser.error("serve: MODEL is needed, or --models-config FILE in its place")
    if arguments.command == "experiment":
        keys = [key for key, _ in arguments.data]
        if twice := [key for key in keys if keys.count(key) > 1]:
            parser.error(f"experiment: --data has {twice[0]}=DIR twice; give each key once")
    if arguments.command == "evaluate":
        if arguments.from_scores and arguments.model:  # the first of DATA, then
            arguments.data.insert(0, arguments.model)
        elif not (arguments.from_scores or arguments.model and arguments.data):
            parser.error("evaluate: RUN and DATA are needed, or --from-scores FILE")
    arguments.beam_flags = others
    return arguments
