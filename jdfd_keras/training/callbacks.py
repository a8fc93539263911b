"""Keras callbacks of a training, and the figures that they draw.

Each also works with your own `model.fit`.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.faces.extract import encode_png
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.stop_signals import SignalHold
from jdfd_keras.model.embedding import EMBEDDING
from jdfd_keras.model.manipulation_map import MANIPULATION_MAP
from jdfd_keras.options import TrainRuntime
from jdfd_keras.training.checkpoint import Checkpoint, save_checkpoint, take_checkpoint
from jdfd_keras.training.compile import CLASSIFICATION, FRAME_AUC, RECONSTRUCTION, swap_average
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import CURVES, LOGS, MONITOR, RECONSTRUCTIONS, write_epoch

CLOCK_STEPS = 20  # steps between two checks of the clock, on which machines must agree


class _Callback(keras.callbacks.Callback):
    """Base class that counts the finished steps of an epoch, also of a resumed one."""

    def __init__(self, start: Checkpoint | None = None) -> None:
        super().__init__()
        self.start = start or Checkpoint()
        self.epoch = self.start.epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def finished_steps(self, batch: int) -> int:
        return batch + 1 + (self.start.step if self.epoch == self.start.epoch else 0)

    @property
    def detector(self) -> keras.Model:
        return cast(keras.Model, self.model)


class StopAtNaN(_Callback):
    """Stop the training at the first loss that is not finite, before its weights are saved.

    `name_faces` returns the names of the faces of a step, given the epoch and the step in it, both
    from 0; `start` is the checkpoint that the training resumes from.
    """

    def __init__(
        self,
        start: Checkpoint | None = None,
        name_faces: Callable[[int, int], list[str]] = lambda epoch, step: [],
    ) -> None:
        super().__init__(start)
        self.name_faces = name_faces

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            step = self.finished_steps(batch)
            faces = self.name_faces(self.epoch, step - 1)
            names = f", with the faces {', '.join(faces)}" if faces else ""
            raise ValueError(
                f"Expected a finite loss; got {logs['loss']} in epoch {self.epoch + 1}, step "
                f"{step}{names}. The last checkpoint before it is kept. Try a lower "
                "--learning-rate, or --clip-norm 1, in another run."
            )


class ProgressLine(_Callback):
    """Show the number of faces, the loss so far and, after each epoch, the validation metrics.

    Put it after Validation, which computes them.
    """

    def __init__(self, steps: int, batch_size: int, start: Checkpoint | None = None) -> None:
        super().__init__(start)
        self.steps, self.batch_size = steps, batch_size

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        name = f"epoch {epoch + 1}/{cast(dict, self.params)['epochs']}"
        done = self.finished_steps(-1) * self.batch_size
        self.progress = Progress(name, self.steps * self.batch_size, "faces", done=done)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress.advance(self.batch_size, f"loss {logs['loss']:.3f}")
        if self.finished_steps(batch) == self.steps:
            self.progress.stop_clock("validating")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.progress.close(
            f"loss {logs['loss']:.3f}, validation: loss {logs['val_loss']:.3f}, "
            f"frame AUC {logs[MONITOR]:.3f}"
        )


class RunFolder(_Callback):
    """Write checkpoints, the models of the best and the last epoch, the history and figures.

    Put it after Validation, whose exact AUC selects the best epoch. If the optimizer keeps a moving
    average of the weights, that average is saved. The checkpoint is written last and decides where
    a training resumes: if the process is killed between two files, the epoch is repeated with the
    same result.

    Args:
        directory: The run folder.
        start: The checkpoint that the training resumes from, if any.
        devices: The devices of the training, of which the chief writes; default is one device.
        runtime: How often a checkpoint is written within an epoch, and whether the last one of a
            finished training keeps weights and optimizer state.
        is_done: Returns whether training stops after the epochs of a history; default is never.
        faces: float32[n, size, size, 3] in 0..255, to show above their reconstructions.
        hold: Holds signals that end the process until a checkpoint is written; not with several
            machines, which would have to stop at the same step.
    """

    def __init__(
        self,
        directory: Path,
        start: Checkpoint | None = None,
        devices: Devices | None = None,
        runtime: TrainRuntime | None = None,
        is_done: Callable[[list[dict[str, float]]], bool] = lambda history: False,
        faces: np.ndarray | None = None,
        hold: SignalHold | None = None,
    ) -> None:
        super().__init__(start)
        self.directory, self.is_done, self.faces = directory, is_done, faces
        self.hold = hold or SignalHold()
        self.devices, self.runtime = devices or Devices(), runtime or TrainRuntime()
        self.history, self.metric_sums = list(self.start.history), self.start.metrics
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Add the sums of an interrupted epoch, so that its means are over the whole epoch;
        # only now, since the first step creates the metrics.
        for variable, value in zip(self.detector.metrics_variables, self.metric_sums, strict=False):
            variable.assign(variable.numpy() + value)
        self.metric_sums = []
        step = self.finished_steps(batch)
        # After the last step of an epoch, on_epoch_end saves.
        if batch + 1 < cast(dict, self.params)["steps"] and self._is_due(step):
            self._save(take_checkpoint(self.detector, self.epoch, step, self.history))
        if self.devices.num_workers == 1:
            self.hold.start()  # after a step: before the first, there is nothing to save

    def on_test_begin(self, logs: Any = None) -> None:
        raise ValueError(
            "Expected the callback Validation in `fit`; got validation_data, whose AUC is too "
            "coarse to select the best epoch. Replace it with Validation(faces), before RunFolder."
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if MONITOR not in logs:
            raise ValueError(
                f"Expected {MONITOR} in the logs of an epoch; got {', '.join(logs)}. Put the "
                "callback Validation(faces) before RunFolder."
            )
        row = {key: float(value) for key, value in logs.items()}
        self.history.append({"epoch": epoch + 1, **row})
        checkpoint = take_checkpoint(self.detector, epoch + 1, 0, self.history)
        if self.devices.is_chief:
            draw_curves(self.directory / CURVES, self.history)
            if self.faces is not None and RECONSTRUCTION in cast(dict, self.detector.output):
                self._draw_reconstructions(epoch, self.faces)
            swap_average(self.detector)
            write_epoch(self.directory, self.detector, self.history)
            swap_average(self.detector)
        is_done = self.is_done(self.history)
        if is_done and not self.runtime.keep_optimizer:
            checkpoint = dataclasses.replace(checkpoint, weights=[])  # it is not resumed
        self._save(checkpoint)
        if is_done:
            self.detector.stop_training = True

    def _is_due(self, step: int) -> bool:
        if self.hold.is_requested:
            return True
        if self.runtime.checkpoint_steps:
            return step % self.runtime.checkpoint_steps == 0
        if not self.runtime.checkpoint_minutes or step % CLOCK_STEPS:
            return False
        elapsed_s = time.monotonic() - self.saved_at
        return self.devices.any(elapsed_s >= 60 * self.runtime.checkpoint_minutes)

    def _save(self, checkpoint: Checkpoint) -> None:
        if self.devices.is_chief:
            save_checkpoint(self.directory, checkpoint)
        self.saved_at = time.monotonic()
        if self.hold.is_requested:
            self.hold.release()

    def _draw_reconstructions(self, epoch: int, faces: np.ndarray) -> None:
        output = self.detector(faces, training=False)[RECONSTRUCTION]
        rows = [faces, (np.asarray(output) + 1) * 127.5]
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        sheet = np.clip(np.rint(sheet), 0, 255).astype(np.uint8)
        with atomic_path(self.directory / RECONSTRUCTIONS) as unfinished:
            unfinished.write_bytes(encode_png(sheet))
        with tf.summary.create_file_writer(str(self.directory / LOGS / "figures")).as_default():
            tf.summary.image("faces and their reconstructions", sheet[np.newaxis], step=epoch)


def draw_curves(path: str | Path, history: list[dict[str, float]]) -> None:
    """Draw losses and AUC over the epochs of a history, for training and validation, as PNG.

    Example:
        >>> draw_curves("losses.png", [{"epoch": 1, "loss": 0.6, "val_loss": 0.7}])
        >>> Path("losses.png").read_bytes()[1:4]
        b'PNG'
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    titles = {"loss": "total loss", FRAME_AUC: "frame AUC"}
    outputs = (CLASSIFICATION, RECONSTRUCTION, EMBEDDING, MANIPULATION_MAP)
    titles |= {f"{name}_loss": f"{name.replace('_', ' ')} loss" for name in outputs}
    names = [name for name in titles if name in history[0]]
    figure = Figure(figsize=(4 * len(names), 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for prefix, label in (("", "training"), ("val_", "validation")):
            if prefix + name in history[0]:  # validation has no triplet loss
                values = [row[prefix + name] for row in history]
                axes.plot(epochs, values, marker="o", markersize=3, label=label)
        axes.set_title(titles[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=120)
