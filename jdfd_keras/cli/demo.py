"""Command `demo`: run every stage on generated clips."""

import argparse
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.options import DemoOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("--out", "DIR", "folder (default: demo)", default=Path("demo"))
    parser.add_options(DemoOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Run every stage on generated clips, in minutes.

    jdfd-keras demo
    jdfd-keras demo --portraits photographs/ --out my-demo
    """
    from jdfd_keras.cli.demo_stages import run_demo
    from jdfd_keras.inference.finding import describe_reason
    from jdfd_keras.inference.verdict import verdict_text
    from jdfd_keras.reporting.templating import render_template

    result = run_demo(arguments.out, read_options(arguments, DemoOptions))
    text = render_template(
        "demo.txt.j2", result=result, verdict_text=verdict_text, describe_reason=describe_reason
    )
    return Output(result.to_dict(), text.rstrip())


COMMAND = Command(_add_arguments, _run, is_resumable=True)
