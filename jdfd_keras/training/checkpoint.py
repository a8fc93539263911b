"""The state of a training at one step, all of it, in one file.

Weights, the optimizer's state, random seeds, what the metrics have summed up in this epoch, and
the history of the epochs before. Written whole or not at all. What cannot be told from it (the
order of the faces, their changes, the schedule) is a function of seed and step.
"""

import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

CHECKPOINT = "checkpoint.npz"
_TOLD = "told"  # the entry that is no variable


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a training stands.

    Attributes:
        epoch: Epochs that are done.
        step: Steps that are done of the next.
        history: A dict for each epoch done.
        weights: Values of all variables of model and optimizer, in their order.
        metrics: Values of the metrics' variables; empty between epochs.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    metrics: list[np.ndarray] = field(default_factory=list)


def take_checkpoint(
    model: keras.Model, epoch: int, step: int, history: list[dict[str, float]]
) -> Checkpoint:
    """Copy the state of a model that is being trained."""
    return Checkpoint(
        epoch,
        step,
        list(history),
        [variable.numpy() for variable in _variables(model)],
        [variable.numpy() for variable in model.metrics_variables] if step else [],
    )


def save_checkpoint(run: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the one before it, safe against a loss of power."""
    path = Path(run, CHECKPOINT)
    told = {"epoch": checkpoint.epoch, "step": checkpoint.step, "history": checkpoint.history}
    told["counts"] = [len(checkpoint.weights), len(checkpoint.metrics)]
    arrays = {_TOLD: np.array(json.dumps(told))}
    for part in ("weights", "metrics"):
        values = getattr(checkpoint, part)
        arrays |= {f"{part}/{index:05d}": value for index, value in enumerate(values)}
    unfinished = path.with_name(f"unfinished-{CHECKPOINT}")
    with open(unfinished, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_checkpoint(run: str | Path) -> Checkpoint:
    """Read the checkpoint of a run; one of nothing done, if there is none yet.

    Raises:
        ValueError: If it is damaged.
    """
    path = Path(run, CHECKPOINT)
    if not path.is_file():
        return Checkpoint()
    try:
        with np.load(path) as arrays:
            told = json.loads(str(arrays[_TOLD]))
            weights, metrics = (
                [arrays[f"{part}/{index:05d}"] for index in range(count)]
                for part, count in zip(("weights", "metrics"), told["counts"], strict=True)
            )
        return Checkpoint(told["epoch"], told["step"], told["history"], weights, metrics)
    # All that NumPy and zipfile raise of files that they cannot read.
    except (
        *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError),
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"Expected the state of a training in {path}; got '{error}'. It is damaged: restore "
            "it, or remove the run and train again."
        ) from error


def restore(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Put the weights, seeds and optimizer's state of a checkpoint into a compiled model.

    Raises:
        ValueError: If they are of another network or optimizer.
    """
    variables = _variables(model)
    needed = [tuple(variable.shape) for variable in variables]
    kept = [value.shape for value in checkpoint.weights]
    if needed != kept:
        pairs = enumerate(zip(needed, kept, strict=False))
        place = next((index for index, (one, other) in pairs if one != other), -1)
        raise ValueError(
            f"Expected a checkpoint of this network and optimizer, of {len(needed)} variables with "
            f"the shape {needed[place]} of {variables[place].path}; got {len(kept)} with the shape "
            f"{kept[place] if kept else None} there. Give the options that the run was begun with."
        )
    for variable, value in zip(variables, checkpoint.weights, strict=True):
        variable.assign(value)


def _variables(model: keras.Model) -> list[keras.Variable]:
    # Told by their order alone: Keras numbers layers without a name, optimizers and seeds as they
    # are made, so that the same variable has another path in another process.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    summed = {id(variable) for variable in model.metrics_variables}
    return [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in summed]
