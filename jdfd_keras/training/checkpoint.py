"""The complete state of a training at one step, in one file.

The order of the faces, their augmentation and the learning rate need no state: they are functions
of seed and step.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from jdfd_keras.io.files import atomic_path

CHECKPOINT = "checkpoint.npz"
_METADATA = "metadata"  # the entry that is not a variable
# Everything that NumPy and zipfile raise for unreadable files.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, BadZipFile)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a training."""

    epoch: int = 0  # number of finished epochs
    step: int = 0  # number of finished steps of the current epoch
    history: list[dict[str, float]] = field(default_factory=list)  # one dict per finished epoch
    # All variables of model and optimizer in their order: weights, optimizer state, random seeds;
    # empty at epoch 0, and in a finished training unless they were to be kept.
    weights: list[np.ndarray] = field(default_factory=list)
    metrics: list[np.ndarray] = field(default_factory=list)  # their sums; empty between epochs


def take_checkpoint(
    model: keras.Model, epoch: int, step: int, history: list[dict[str, float]]
) -> Checkpoint:
    """Copy the state of a compiled model; the other arguments are the fields of `Checkpoint`.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model.compile("sgd")
        >>> [value.shape for value in take_checkpoint(model, 1, 0, []).weights]
        [(3, 2), (2,), (), ()]
    """
    weights = [variable.numpy() for variable in _state_variables(model)]
    metrics = [variable.numpy() for variable in model.metrics_variables] if step else []
    return Checkpoint(epoch, step, list(history), weights, metrics)


def save_checkpoint(run: str | Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of a run, replacing the previous one.

    It is flushed to disk before it replaces the previous one, so one of them survives a power
    failure.

    Example:
        >>> save_checkpoint(".", Checkpoint(epoch=3))
        >>> load_checkpoint(".").epoch
        3
    """
    metadata = {name: getattr(checkpoint, name) for name in ("epoch", "step", "history")}
    metadata["counts"] = [len(checkpoint.weights), len(checkpoint.metrics)]
    arrays = {_METADATA: np.array(json.dumps(metadata))}
    for name in ("weights", "metrics"):
        values = getattr(checkpoint, name)
        arrays |= {f"{name}/{index:05d}": value for index, value in enumerate(values)}
    with atomic_path(Path(run, CHECKPOINT)) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_checkpoint(run: str | Path) -> Checkpoint:
    """Read the checkpoint of a run; an empty one at epoch 0 if the run has none yet.

    Example:
        >>> checkpoint = load_checkpoint("run")
        >>> checkpoint.epoch, checkpoint.step, len(checkpoint.history)
        (1, 0, 1)
    """
    path = Path(run, CHECKPOINT)
    if not path.is_file():
        return Checkpoint()
    try:
        with np.load(path) as arrays:
            metadata = json.loads(str(arrays[_METADATA]))
            weights, metrics = (
                [arrays[f"{name}/{index:05d}"] for index in range(count)]
                for name, count in zip(("weights", "metrics"), metadata["counts"], strict=True)
            )
        epoch, step, history = (metadata[name] for name in ("epoch", "step", "history"))
        return Checkpoint(epoch, step, history, weights, metrics)
    except _DAMAGED as error:
        raise ValueError(
            f"Expected the state of a training in {path}; got '{error}'. The file is damaged: "
            "restore it, or remove the run folder and train again."
        ) from error


def restore(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Assign the weights, seeds and optimizer state of a checkpoint to a compiled model.

    Nothing is assigned if the checkpoint is of another network or optimizer, which is an error.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model.compile("sgd")
        >>> weights = [np.ones((3, 2)), np.ones(2), np.int32(9), np.float32(0.1)]
        >>> restore(model, Checkpoint(weights=weights))
        >>> int(model.optimizer.iterations)
        9
    """
    variables = _state_variables(model)
    expected = [tuple(variable.shape) for variable in variables]
    stored = [value.shape for value in checkpoint.weights]
    if expected != stored:
        pairs = enumerate(zip(expected, stored, strict=False))
        position = next((index for index, (one, other) in pairs if one != other), -1)
        raise ValueError(
            f"Expected a checkpoint of this network and optimizer, with {len(expected)} variables "
            f"and the shape {expected[position]} of {variables[position].path}; got {len(stored)} "
            f"variables and the shape {stored[position] if stored else None}. Use the options that "
            "the run was started with."
        )
    for variable, value in zip(variables, checkpoint.weights, strict=True):
        variable.assign(value)


def _state_variables(model: keras.Model) -> list[keras.Variable]:
    # Identified by order, not by path: Keras numbers unnamed layers, optimizers and seeds as they
    # are created, so the same variable may have another path in another process.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    metrics = {id(variable) for variable in model.metrics_variables}
    return [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in metrics]
