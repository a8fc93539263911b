"""Command `train`: train a detector on a prepared dataset."""

import argparse
from pathlib import Path
from typing import Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import import_tensorflow, print_message
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import (
    METHOD_SETTINGS,
    RECIPES,
    TRAINING_GROUPS,
    DataLocation,
    ModelOptions,
    TrainOptions,
    TrainRuntime,
    list_changes,
    list_unused,
    name_flags,
)


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
    parser.add_options(*TRAINING_GROUPS.values(), skip=("image_size",))  # the size of the crops
    parser.add_options(TrainRuntime)


def _run(arguments: argparse.Namespace) -> Output:
    r"""Train a detector on a prepared dataset.

    jdfd-keras train prepared --out run
    jdfd-keras train --resume run
    jdfd-keras train prepared --out run --recipe robust
    jdfd-keras train prepared --out run --method capsule --epochs 20
    jdfd-keras train prepared --out run --fakes mixed --reconstruct clean --batch-size 32
    jdfd-keras train ffpp --out run --unlabelled celebdf --unlabelled uadfv --unlabelled-share 0.1
    jdfd-keras train prepared --out run --strategy mirrored --batch-size 64
    jdfd-keras train prepared --out run --encoder-weights none --optimizer adam \
        --learning-rate 0.001 --classifier-learning-rate 0.001 --batch-size 16
    """
    if arguments.out and not arguments.data:
        arguments.parser.error("DATA is required with --out")
    stored, recipe = _find_settings(arguments)
    check_inputs(arguments.data)
    print_message(import_tensorflow())
    from jdfd_keras.training.train import train

    groups: dict[str, Any] = {
        name: read_options(arguments, kind, stored.get(name))
        for name, kind in TRAINING_GROUPS.items()
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


def _find_settings(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return the option groups to start from, and the recipe that they are of, if any.

    Options that do not suit each other end the command with its usage.
    """
    error, recipe = arguments.parser.error, read_options(arguments, TrainOptions).recipe
    model = read_options(arguments, ModelOptions)
    for name, kind in (("recipe", TrainOptions), ("method", ModelOptions)):
        if arguments.resume and f"{kind.__name__}.{name}" in arguments:
            error(f"argument --{name}: not allowed with --resume: a run keeps its own")
    if recipe and model.method != ModelOptions.method:
        error(f"argument --recipe: not allowed with --method {model.method}; omit one of the two")
    if arguments.resume:
        stored = _read_run(arguments.resume)
        model = stored["model"]
    else:
        stored = RECIPES.get(recipe) or METHOD_SETTINGS.get(model.method, {})
    unused = [
        (kind, name)
        for kind, name in list_unused(model.method)
        if f"{kind.__name__}.{name}" in arguments
    ]
    if unused:
        error(f"{name_flags(unused)}: not an option of --method {model.method}; omit it")
    return stored, recipe


def _read_run(directory: Path) -> dict[str, Any]:
    """Read the dataset and the option groups of a run, by the names of `train()`."""
    path = directory / OPTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run folder to resume; got {directory}, which has no {OPTIONS}. "
            "Start one with `jdfd-keras train DATA --out DIR`."
        )
    data = Path(load_options(path, "location", DataLocation).data)
    return {"data": data} | {
        name: load_options(path, name, kind) for name, kind in TRAINING_GROUPS.items()
    }


COMMAND = Command(_add_arguments, _run, is_resumable=True)
