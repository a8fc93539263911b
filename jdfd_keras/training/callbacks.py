"""Keras callbacks of a training, and the figures that they draw.

They resume an interrupted epoch, stop at a NaN loss, validate averaged weights, show progress,
write the run folder, and draw curves and reconstructions. Each also works with your
own `model.fit`.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.faces.extract import encode_png
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import atomic_path
from jdfd_keras.options import TrainRuntime
from jdfd_keras.training.checkpoint import Checkpoint, save_checkpoint, take_checkpoint
from jdfd_keras.training.compile import CLASSIFICATION, RECONSTRUCTION
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import CURVES, MONITOR, RECONSTRUCTIONS, write_epoch

FRAME_AUC, SINGLE_OUTPUT_AUC = "classification_frame_auc", "frame_auc"
CLOCK_STEPS = 20  # steps between two checks of the clock, on which machines must agree


class _EpochPosition(keras.callbacks.Callback):
    """Base class that counts the finished steps of an epoch, also of a resumed one."""

    def __init__(self, start: Checkpoint | None = None):
        super().__init__()
        self.start = start or Checkpoint()
        self.epoch = self.start.epoch

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.epoch = epoch

    def finished_steps(self, batch: int) -> int:
        return batch + 1 + (self.start.step if self.epoch == self.start.epoch else 0)


class StopAtNaN(_EpochPosition):
    """Stop the training at the first loss that is not finite, before its weights are saved.

    Args:
        start: The checkpoint that the training resumes from, if any.
        name_faces: Returns the names of the faces of a step, given the epoch and the step in it,
            both from 0.
    """

    def __init__(
        self,
        start: Checkpoint | None = None,
        name_faces: Callable[[int, int], list[str]] | None = None,
    ):
        super().__init__(start)
        self.name_faces = name_faces

    def on_train_batch_end(self, batch, logs=None) -> None:
        if not math.isfinite(logs["loss"]):
            step = self.finished_steps(batch)
            faces = self.name_faces(self.epoch, step - 1) if self.name_faces else []
            names = f", with the faces {', '.join(faces)}" if faces else ""
            raise ValueError(
                f"Expected a finite loss; got {logs['loss']} in epoch {self.epoch + 1}, step "
                f"{step}{names}. The last checkpoint before it is kept. Try a lower "
                "--learning-rate, or --clip-norm 1, in another run."
            )


class ResumeMetrics(keras.callbacks.Callback):
    """Add the metric sums of an interrupted epoch, so that its means are over the whole epoch.

    They are added after the first step, which creates the metrics.

    Args:
        start: The checkpoint that the training resumes from.
    """

    def __init__(self, start: Checkpoint):
        super().__init__()
        self.sums = start.metrics

    def on_train_batch_end(self, batch, logs=None) -> None:
        for variable, value in zip(self.model.metrics_variables, self.sums, strict=False):
            variable.assign(variable.numpy() + value)
        self.sums = []


class ValidateAverage(keras.callbacks.Callback):
    """Validate the moving average of the weights instead of the weights."""

    def on_test_begin(self, logs=None) -> None:
        branch_optimizer(self.model).swap_average()

    def on_test_end(self, logs=None) -> None:
        branch_optimizer(self.model).swap_average()


class ProgressLine(_EpochPosition):
    """Show the number of faces, the loss so far and, after each epoch, the validation metrics.

    Args:
        steps: Steps per epoch.
        batch_size: Faces per step.
        start: The checkpoint that the training resumes from, if any.
    """

    def __init__(self, steps: int, batch_size: int, start: Checkpoint | None = None):
        super().__init__(start)
        self.steps, self.batch_size = steps, batch_size

    def on_epoch_begin(self, epoch, logs=None) -> None:
        super().on_epoch_begin(epoch)
        name = f"epoch {epoch + 1}/{self.params['epochs']}"
        done = self.finished_steps(-1) * self.batch_size
        self.progress = Progress(name, self.steps * self.batch_size, "faces", done=done)

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.progress.advance(self.batch_size, f"loss {logs['loss']:.3f}")

    def on_test_begin(self, logs=None) -> None:
        self.progress.stop_clock("validating")

    def on_epoch_end(self, epoch, logs=None) -> None:
        logs = rename_logs(logs)
        self.progress.close(
            f"loss {logs['loss']:.3f}, validation: loss {logs['val_loss']:.3f}, "
            f"frame AUC {logs[MONITOR]:.3f}"
        )


class RunFolder(_EpochPosition):
    """Write checkpoints, the models of the best and the last epoch, and the history.

    The checkpoint is written last and decides where a training resumes: if the process is killed
    between two files, the epoch is repeated with the same result.

    Args:
        directory: The run folder.
        start: The checkpoint that the training resumes from, if any.
        devices: The devices of the training, of which the chief writes; default is one device.
        runtime: How often a checkpoint is written within an epoch.
        is_done: Returns whether training stops after the epochs of a history; default is never.
    """

    def __init__(
        self,
        directory: Path,
        start: Checkpoint | None = None,
        devices: Devices | None = None,
        runtime: TrainRuntime | None = None,
        is_done: Callable[[list[dict[str, float]]], bool] = lambda history: False,
    ):
        super().__init__(start)
        self.directory = directory
        self.devices, self.runtime = devices or Devices(), runtime or TrainRuntime()
        self.is_done = is_done
        self.history = list(self.start.history)
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None) -> None:
        step = self.finished_steps(batch)
        # After the last step of an epoch, on_epoch_end saves.
        if batch + 1 < self.params["steps"] and self._is_due(step):
            self._save(take_checkpoint(self.model, self.epoch, step, self.history))

    def on_epoch_end(self, epoch, logs=None) -> None:
        row = {key: float(value) for key, value in rename_logs(logs).items()}
        self.history.append({"epoch": epoch + 1, **row})
        checkpoint = take_checkpoint(self.model, epoch + 1, 0, self.history)
        if self.devices.is_chief:
            has_average = getattr(branch_optimizer(self.model), "use_ema", False)
            if has_average:
                branch_optimizer(self.model).swap_average()
            write_epoch(self.directory, self.model, self.history)
            if has_average:
                branch_optimizer(self.model).swap_average()
        self._save(checkpoint)
        if self.is_done(self.history):
            self.model.stop_training = True

    def _is_due(self, step: int) -> bool:
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


class DrawFigures(keras.callbacks.Callback):
    """Draw the curves, and faces above their reconstructions, after every epoch.

    A mean squared error of 0.25 is hard to interpret; a decoder that reconstructs every face as
    the mean face is obvious in the figure. Both figures are in the run folder, the second one in
    TensorBoard, too.

    Args:
        directory: The run folder.
        logs: The folder for TensorBoard.
        faces: float32[n, size, size, 3], pixel values 0..255.
        history: One dict per finished epoch; this callback works on a copy.
    """

    def __init__(
        self, directory: Path, logs: Path, faces: np.ndarray, history: list[dict[str, float]]
    ):
        super().__init__()
        self.directory, self.logs, self.faces = directory, logs, faces
        self.history = list(history)

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.history.append({"epoch": epoch + 1, **rename_logs(logs)})
        draw_curves(self.directory / CURVES, self.history)
        if RECONSTRUCTION not in self.model.output:
            return
        outputs = self.model(self.faces, training=False)
        reconstruction = (np.asarray(outputs[RECONSTRUCTION]) + 1) * 127.5
        sheet = np.concatenate(
            [np.concatenate(row, axis=1) for row in (self.faces, reconstruction)]
        )
        sheet = np.clip(np.rint(sheet), 0, 255).astype(np.uint8)
        with atomic_path(self.directory / RECONSTRUCTIONS) as unfinished:
            unfinished.write_bytes(encode_png(sheet))
        with tf.summary.create_file_writer(str(self.logs)).as_default():
            tf.summary.image("faces and their reconstructions", sheet[np.newaxis], step=epoch)


def draw_curves(path: Path, history: list[dict[str, float]]) -> None:
    """Draw losses and AUC over the epochs, for training and validation.

    Args:
        path: The PNG file to write.
        history: One dict per epoch, with the same keys.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> epoch = {"epoch": 1, "loss": 0.6, "val_loss": 0.7}
        >>> draw_curves(Path("curves.png"), [epoch])
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    titles = {"loss": "total loss", FRAME_AUC: "frame AUC"}
    titles |= {f"{output}_loss": f"{output} loss" for output in (CLASSIFICATION, RECONSTRUCTION)}
    names = [name for name in titles if name in history[0]]
    figure = Figure(figsize=(4 * len(names), 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for prefix, label in (("", "training"), ("val_", "validation")):
            values = [row[prefix + name] for row in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=label)
        axes.set_title(titles[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=120)


def rename_logs(logs: dict[str, float]) -> dict[str, float]:
    """Rename the AUC of a model with one output as with two, where Keras adds the output name."""
    return {
        key if FRAME_AUC in key else key.replace(SINGLE_OUTPUT_AUC, FRAME_AUC): value
        for key, value in logs.items()
    }


def branch_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer of a model, unwrapped where losses are scaled for float16."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)
