"""Command `split`: split a prepared dataset into training, validation and test videos."""

import argparse
import shlex

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import plural, print_message
from jdfd_keras.options import SplitOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("data", "DATA", "prepared dataset")
    parser.add_argument(
        "--name", default="", help="name of the split table (default: from the options)"
    )
    parser.add_options(SplitOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Split a prepared dataset into training, validation and test videos.

    jdfd-keras split prepared --strategy strict
    jdfd-keras split prepared --strategy kfold --folds 5
    jdfd-keras split prepared --strategy leave-one-out --fold 0
    jdfd-keras split prepared --compression c23
    jdfd-keras train prepared --split-table kfold-0-of-5 --out run
    """
    # Faces are not extracted again: a split is a small table in DATA.
    check_inputs(arguments.data)
    options = read_options(arguments, SplitOptions)
    if options.strategy == "paper":
        print_message(
            "warning: the strategy paper assigns single faces: the same video is in training and "
            "test, so the metrics say little about videos that a detector has not seen"
        )
    from jdfd_keras.datasets.split_dataset import split_dataset
    from jdfd_keras.reporting.templating import render_template

    tables = split_dataset(arguments.data, options, arguments.name)
    directory = shlex.quote(str(arguments.data))
    for table in tables:
        if table.shared_sources and not table.of_faces:
            print_message(
                f"warning: {table.name} shares footage: "
                f"{plural(len(table.shared_sources), 'source')} in two splits, such as "
                f"{table.shared_sources[0].source}. `jdfd-keras audit {directory} --split-table "
                f"{table.name}` lists all"
            )
    text = render_template("split.txt.j2", tables=tables, directory=directory)
    return Output({"tables": [table.to_dict() for table in tables]}, text.rstrip())


COMMAND = Command(_add_arguments, _run)
