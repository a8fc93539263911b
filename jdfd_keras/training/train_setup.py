"""Options, devices and data of a training, and whether they suit each other."""

import math
from dataclasses import dataclass

from jdfd_keras.datasets.face_index import epoch_order
from jdfd_keras.datasets.sample_weights import check_options
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
)
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import best_epoch
from jdfd_keras.training.training_data import TrainingData


@dataclass(frozen=True)
class TrainSetup:
    """All options of a training, its devices and its data."""

    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    train: TrainOptions
    runtime: TrainRuntime
    devices: Devices
    data: TrainingData

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps; the last one is filled up with faces of the next pass."""
        return math.ceil(len(self.data.train) / self.train.batch_size)

    def is_done(self, history: list[dict[str, float]]) -> bool:
        """Return whether training stops after the epochs of a history."""
        if len(history) >= self.train.epochs:
            return True
        waited = len(history) - 1 - best_epoch(history) if history else 0
        return bool(self.train.patience) and waited >= self.train.patience

    def name_faces(self, epoch: int, step: int) -> list[str]:
        """Return the names of the faces of a step, of epoch and step in it from 0."""
        faces, batch_size = self.data.train, self.train.batch_size
        first = (epoch * self.steps_per_epoch + step) * batch_size
        names = []
        for index in range(first, first + batch_size):
            data_epoch, position = divmod(index, len(faces))  # starts before its training epoch
            order = epoch_order(
                faces.label,
                seed=self.train.seed,
                epoch=data_epoch,
                balance=self.pipeline.balance,
                base=faces.base,
            )
            names.append(faces.name(int(order[position])))
        return names


def check_setup(setup: TrainSetup) -> None:
    """Check that options, devices and data suit each other.

    Raises:
        ValueError: If they do not.

    Example:
        >>> from jdfd_keras.options import UnlabelledOptions
        >>> from jdfd_keras.training.training_data import load_training_data
        >>> data = load_training_data("prepared", UnlabelledOptions(), seed=0, allow_leak=False)
        >>> groups = ModelOptions(), OptimizerOptions(), LossOptions(), PipelineOptions()
        >>> options = AugmentOptions(), TrainOptions(epochs=0), TrainRuntime()
        >>> check_setup(TrainSetup(*groups, *options, Devices(), data))
        Traceback (most recent call last):
        ValueError: Expected epochs >= 1; got 0. Try its default.
    """
    options, facts, replicas = setup.train, setup.data.facts, setup.devices.replicas
    limits = {
        "epochs": (options.epochs, 1),
        "batch_size": (options.batch_size, 1),
        "patience": (options.patience, 0),
        "checkpoint_minutes": (setup.runtime.checkpoint_minutes, 0),
        "checkpoint_steps": (setup.runtime.checkpoint_steps, 0),
    }
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"Expected {name} >= {least}; got {value:g}. Try its default.")
    if options.batch_size % replicas:
        nearest = replicas * max(1, round(options.batch_size / replicas))
        raise ValueError(
            f"Expected a batch_size that is divisible by the {replicas} devices; got "
            f"{options.batch_size}. It counts the faces of all devices together: try {nearest}."
        )
    if facts.val_faces < replicas:
        raise ValueError(
            f"Expected at least as many validation faces as devices, {replicas}; got "
            f"{facts.val_faces}. Add videos, or use fewer devices."
        )
    if replicas > 1 and (setup.optimizer.accumulate > 1 or setup.optimizer.clip_norm):
        raise ValueError(
            f"Expected neither accumulate nor clip_norm with {replicas} devices; got "
            f"{setup.optimizer.accumulate} and {setup.optimizer.clip_norm:g}. Omit both: Keras "
            "clips each device's gradient separately and cannot accumulate on several (3.15.1)."
        )
    if setup.pipeline.reconstruct == "clean" and not facts.blended_fakes:
        raise ValueError(
            "Expected blended fakes with reconstruct 'clean', which learns their faces before "
            f"blending; got fakes {setup.pipeline.fakes!r}. Try --fakes mixed, or --reconstruct "
            "real."
        )
    learns_all = setup.model.decoder and setup.pipeline.reconstruct == "all"
    if facts.unlabelled_faces and not learns_all:
        raise ValueError(
            "Expected a decoder and reconstruct 'all' with unlabelled faces, which train only the "
            f"decoder; got decoder {setup.model.decoder} and reconstruct "
            f"{setup.pipeline.reconstruct!r}. Omit the unlabelled faces or the other option."
        )
    check_options(setup.data.train, setup.pipeline, options.batch_size // replicas, setup.augment)
