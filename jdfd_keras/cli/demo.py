"""Command `demo`: judge two generated videos, or train a detector on generated clips."""

import argparse
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.options import DemoOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("--out", "DIR", "folder (default: demo, or demo-train with --train)")
    parser.add_options(DemoOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Judge two generated videos; with --train, run every stage from videos to a server.

    jdfd-keras demo
    jdfd-keras demo --portraits photographs/ --out my-demo
    jdfd-keras demo --train
    jdfd-keras demo --train --portraits photographs/ --out my-training
    """
    from jdfd_keras.cli.demo_stages import run_demo, run_training_demo
    from jdfd_keras.inference.finding import describe_reason
    from jdfd_keras.inference.verdict import verdict_text
    from jdfd_keras.reporting.templating import render_template

    options = read_options(arguments, DemoOptions)
    arguments.out = arguments.out or Path("demo-train" if options.train else "demo")
    if options.train:
        result, template = run_training_demo(arguments.out, options), "demo_training.txt.j2"
    else:
        result, template = run_demo(arguments.out, options), "demo.txt.j2"
    text = render_template(
        template, result=result, verdict_text=verdict_text, describe_reason=describe_reason
    )
    return Output(result.to_dict(), text.rstrip())


COMMAND = Command(_add_arguments, _run, is_resumable=True)
