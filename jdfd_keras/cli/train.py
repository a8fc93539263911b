"""Command `train`: train a detector on a prepared dataset."""

import argparse
from pathlib import Path
from typing import Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import import_tensorflow, print_message
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import (
    RECIPES,
    AugmentOptions,
    DataLocation,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
    list_changes,
)

# Option groups of a training, by their name in a run's options.json and in `train()`.
GROUPS = {
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "train": TrainOptions,
    "unlabelled": UnlabelledOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
}


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("data", "DATA", "prepared dataset", nargs="?")
    run = parser.add_mutually_exclusive_group(required=True)
    parser.add_path("--out", "DIR", "run folder; an interrupted run is resumed", group=run)
    parser.add_path(
        "--resume",
        "RUN",
        "resume RUN with its own data and options; give DATA only if the dataset has moved",
        group=run,
    )
    parser.add_options(*GROUPS.values(), skip=("image_size",))  # the size of the crops
    parser.add_options(TrainRuntime)


def _run(arguments: argparse.Namespace) -> Output:
    r"""Train a detector on a prepared dataset.

    jdfd-keras train prepared --out run
    jdfd-keras train --resume run
    jdfd-keras train prepared --out run --recipe robust
    jdfd-keras train prepared --out run --fakes mixed --reconstruct clean --batch-size 32
    jdfd-keras train ffpp --out run --unlabelled celebdf --unlabelled uadfv --unlabelled-share 0.1
    jdfd-keras train prepared --out run --strategy mirrored --batch-size 64
    jdfd-keras train prepared --out run --encoder-weights none --optimizer adam \
        --learning-rate 0.001 --classifier-learning-rate 0.001 --batch-size 16
    """
    if arguments.out and not arguments.data:
        arguments.parser.error("DATA is required with --out")
    recipe = read_options(arguments, TrainOptions).recipe
    if arguments.resume and recipe:
        arguments.parser.error("argument --recipe: not allowed with --resume: a run keeps its own")
    stored = _read_run(arguments.resume) if arguments.resume else RECIPES.get(recipe, {})
    check_inputs(arguments.data)
    print_message(import_tensorflow())
    from jdfd_keras.training.train import train

    groups: dict[str, Any] = {
        name: read_options(arguments, kind, stored.get(name)) for name, kind in GROUPS.items()
    }
    if recipe:
        changes = ", ".join(list_changes(recipe, groups)) or "nothing"
        print_message(f"recipe {recipe}, changed: {changes}")
    trained = train(
        arguments.data or stored["data"],
        arguments.out or arguments.resume,
        runtime=read_options(arguments, TrainRuntime),
        **groups,
    )
    text = (
        f"best epoch {trained.best_epoch} of {trained.epochs}, validation frame AUC "
        f"{trained.validation_frame_auc:.3f} on {trained.validated_on}\nrun: {trained.directory}"
    )
    return Output(trained.to_dict(), text)


def _read_run(directory: Path) -> dict[str, Any]:
    """Read the dataset and the option groups of a run, by the names of `train()`."""
    path = directory / OPTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run folder to resume; got {directory}, which has no {OPTIONS}. "
            "Start one with `jdfd-keras train DATA --out DIR`."
        )
    data = Path(load_options(path, "location", DataLocation).data)
    return {"data": data} | {name: load_options(path, name, kind) for name, kind in GROUPS.items()}


COMMAND = Command(_add_arguments, _run, is_resumable=True)
