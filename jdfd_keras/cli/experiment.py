"""Command `experiment`: reproduce the paper's tables and figures on your datasets."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.cli.train import GROUPS
from jdfd_keras.io.console import import_tensorflow, print_message
from jdfd_keras.options import EXPERIMENTS, EvaluateOptions, ExperimentOptions, TrainRuntime

# The experiment itself chooses the unlabelled faces of a training.
TRAIN_GROUPS = {name: kind for name, kind in GROUPS.items() if name != "unlabelled"}


def _add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "name",
        choices=EXPERIMENTS,
        metavar="NAME",
        help="cross-dataset: Table 2, train on each, test on each; ablation: Table 3, with and "
        "without decoder; foreign-data: Fig. 4, unlabelled faces of the other datasets; "
        "statistics: Table 1, no training",
    )
    parser.add_argument(
        "--data",
        type=_key_and_folder,
        nargs="+",
        action="extend",
        required=True,
        metavar="KEY=DIR",
        help="prepared datasets; ff, celebdf and uadfv are the paper's, other keys are added",
    )
    parser.add_path(
        "--out",
        "DIR",
        "tables, figure, runs and reports; an interrupted experiment is resumed",
        required=True,
    )
    parser.add_options(ExperimentOptions)
    kinds = (*TRAIN_GROUPS.values(), TrainRuntime, EvaluateOptions)
    # Set by the experiment, except the recipe and the mark of a demonstration.
    skip = ("image_size", "decoder", "seed", "recipe", "demonstration")
    parser.add_options(*kinds, skip=skip)


def _run(arguments: argparse.Namespace) -> Output:
    r"""Reproduce the paper's tables and figures on your datasets.

    jdfd-keras experiment cross-dataset --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    jdfd-keras experiment ablation --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments \
        --seeds 0,1,2
    jdfd-keras experiment foreign-data --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    jdfd-keras experiment statistics --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    """
    # A cell that cannot be run is a failure.
    keys = [key for key, _ in arguments.data]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        arguments.parser.error(f"--data has {repeated[0]}=DIR twice; give each key once")
    if arguments.name != "statistics":
        print_message(import_tensorflow())
    from jdfd_keras.experiments.experiment import experiment
    from jdfd_keras.reporting.experiment_report import write_experiment

    groups: dict[str, Any] = {
        name: read_options(arguments, kind) for name, kind in TRAIN_GROUPS.items()
    }
    evaluate = read_options(arguments, EvaluateOptions)
    report = experiment(
        arguments.name,
        dict(arguments.data),
        arguments.out,
        read_options(arguments, ExperimentOptions),
        runtime=read_options(arguments, TrainRuntime),
        evaluate=dataclasses.replace(evaluate, allow_leak=groups["train"].allow_leak),
        **groups,
    )
    report = write_experiment(report, arguments.out)
    page = (arguments.out / f"{arguments.name}.md").read_text(encoding="utf-8")
    return Output(
        report.to_dict(),
        f"{page}\nexperiment: {arguments.out / f'{arguments.name}.html'}",
        failed=bool(report.failed),
    )


def _key_and_folder(text: str) -> tuple[str, Path]:
    key, _, folder = text.partition("=")
    if not (key and folder):
        raise argparse.ArgumentTypeError(f"expected KEY=DIR such as ff=prepared; got {text!r}")
    return key, Path(folder)


COMMAND = Command(_add_arguments, _run, is_resumable=True)
