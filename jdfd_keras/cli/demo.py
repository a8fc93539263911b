"""`jdfd-keras demo`: run every stage on generated clips."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.options import DemoOptions

SUMMARY = "run every stage on generated clips, in minutes"
EXAMPLES = """\
  jdfd-keras demo
  jdfd-keras demo --portraits photographs/ --out my-demo"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)"
    )
    parser.add_options(DemoOptions)


def is_resumable(arguments: argparse.Namespace) -> bool:
    """Return True: an interrupted demo is resumed."""
    return True


def run(arguments: argparse.Namespace) -> Output:
    """Run the demo."""
    from jdfd_keras.cli.demo_stages import describe_demo, run_demo

    result = run_demo(arguments.out, read_options(arguments, DemoOptions))
    return Output(result.to_dict(), describe_demo(result))
