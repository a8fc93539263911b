"""What a training was told, as a whole, and whether it can be done.

Takes options, devices and faces; answers what follows of them. Trains nothing.
"""

import math
from dataclasses import dataclass

from jdfd_keras.data.face_list import draw_order
from jdfd_keras.data.pipeline import check_options
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    RunOptions,
    TrainOptions,
)
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.material import Material
from jdfd_keras.training.run import best_epoch


@dataclass(frozen=True)
class Plan:
    """All that a training was told, and what it runs on."""

    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    train: TrainOptions
    run: RunOptions
    devices: Devices
    material: Material

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps that the training faces fill."""
        return math.ceil(len(self.material.train) / self.train.batch_size)

    def is_done(self, history: list[dict[str, float]]) -> bool:
        """Tell whether training ends after these epochs."""
        if len(history) >= self.train.epochs:
            return True
        waited = len(history) - 1 - best_epoch(history) if history else 0
        return bool(self.train.patience) and waited >= self.train.patience

    def name_faces(self, epoch: int, step: int) -> list[str]:
        """Name the faces of a step, both counted from 0."""
        faces, batch = self.material.train, self.train.batch_size
        first = (epoch * self.steps_per_epoch + step) * batch
        names = []
        for position in range(first, first + batch):
            number, place = divmod(position, len(faces))
            order = draw_order(
                faces.label, seed=self.train.seed, number=number, balance=self.pipeline.balance
            )
            names.append(faces.name(int(order[place])))
        return names


def check_plan(plan: Plan) -> None:
    """See that a training can be done as it was told.

    Raises:
        ValueError: If an option is out of range, or two of them exclude each other.
    """
    options, devices = plan.train, plan.devices
    if options.epochs < 1 or options.batch_size < 1:
        raise ValueError(
            f"Expected epochs >= 1 and batch_size >= 1; got {options.epochs} and "
            f"{options.batch_size}. Try the defaults, 20 and 4."
        )
    if min(options.patience, plan.run.checkpoint_minutes, plan.run.checkpoint_steps) < 0:
        raise ValueError(
            "Expected patience, checkpoint_minutes and checkpoint_steps of 0, for none, or above; "
            f"got {options.patience}, {plan.run.checkpoint_minutes:g} and "
            f"{plan.run.checkpoint_steps}."
        )
    if options.batch_size % devices.replicas:
        several = devices.replicas * max(1, round(options.batch_size / devices.replicas))
        raise ValueError(
            f"Expected a batch_size that {devices.replicas} devices can share; got "
            f"{options.batch_size}. It is of all devices together: try {several}."
        )
    if plan.material.facts.val_faces < devices.replicas:
        raise ValueError(
            f"Expected as many faces of validation as devices, {devices.replicas}; got "
            f"{plan.material.facts.val_faces}. Add videos, or take fewer devices."
        )
    if devices.replicas > 1 and (plan.optimizer.accumulate > 1 or plan.optimizer.clip_norm):
        raise ValueError(
            f"Expected neither accumulate nor clip_norm with {devices.replicas} devices; got "
            f"{plan.optimizer.accumulate} and {plan.optimizer.clip_norm:g}. Keras clips the part "
            "of each device by itself and cannot accumulate on several (3.15.1): leave them out."
        )
    if plan.pipeline.reconstruct == "real" and plan.material.facts.unlabelled_faces:
        raise ValueError(
            "Expected reconstruct 'all' with unlabelled faces, which teach the decoder alone; got "
            "'real', and whether they are real is not known. Leave one of both out."
        )
    if not plan.model.decoder and plan.material.facts.unlabelled_faces:
        raise ValueError(
            "Expected a decoder, since unlabelled faces teach it alone; got decoder false. Leave "
            "the unlabelled faces out."
        )
    check_options(plan.material.train, plan.pipeline)
