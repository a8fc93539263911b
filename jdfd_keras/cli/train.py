"""`jdfd-keras train`: train a detector on a prepared dataset."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import (
    AugmentOptions,
    DataLocation,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
)

SUMMARY = "train a detector on a prepared dataset"
EXAMPLES = """\
  jdfd-keras train prepared --out run
  jdfd-keras train --resume run
  jdfd-keras train ffpp --out run --unlabelled celebdf --unlabelled uadfv --unlabelled-share 0.1
  jdfd-keras train prepared --out run --strategy mirrored --batch-size 64
  jdfd-keras train prepared --out run --encoder-weights none --optimizer adam \\
      --learning-rate 0.001 --classifier-learning-rate 0.001 --batch-size 16"""
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


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help="prepared dataset")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder; an interrupted run is resumed",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="resume RUN with its own data and options; give DATA only if the dataset has moved",
    )
    for kind in GROUPS.values():
        parser.add_options(kind, skip=("image_size",))  # the size of the crops
    parser.add_options(TrainRuntime)


def check_usage(arguments: argparse.Namespace, rest: Sequence[str]) -> Sequence[str]:
    """Check that a run folder is given in exactly one way, and data for a new one."""
    if arguments.resume and arguments.out:
        raise argparse.ArgumentTypeError("give --out DIR or --resume RUN, not both")
    if not (arguments.resume or arguments.data and arguments.out):
        raise argparse.ArgumentTypeError("DATA and --out DIR are required, or --resume RUN")
    return rest


def is_resumable(arguments: argparse.Namespace) -> bool:
    """Return True: an interrupted run is resumed."""
    return True


def run(arguments: argparse.Namespace) -> Output:
    """Train, or resume a run."""
    print(import_tensorflow(), file=sys.stderr)
    from jdfd_keras.training.train import train

    data, out, defaults = arguments.data, arguments.out, {}
    if arguments.resume:
        out, defaults = arguments.resume, read_run(arguments.resume)
        data = data or defaults.pop("data")
    groups = {
        name: read_options(arguments, kind, defaults.get(name)) for name, kind in GROUPS.items()
    }
    trained = train(data, out, **groups, runtime=read_options(arguments, TrainRuntime))
    return Output(
        trained.to_dict(),
        f"best epoch {trained.best_epoch} of {trained.epochs}, validation frame AUC "
        f"{trained.validation_frame_auc:.3f}\nrun: {trained.directory}",
    )


def read_run(directory: Path) -> dict[str, object]:
    """Read the dataset and the option groups of a run, by the names of `train()`.

    Raises:
        OSError: If there is no run folder.
        ValueError: If its options cannot be read.
    """
    path = directory / OPTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run folder to resume; got {directory}, which has no {OPTIONS}. "
            "Start one with `jdfd-keras train DATA --out DIR`."
        )
    run = {"data": Path(load_options(path, "location", DataLocation).data)}
    return run | {name: load_options(path, name, kind) for name, kind in GROUPS.items()}
