"""What happens beside the fitting: a stop at NaN, averages, progress, the run folder.

Ordinary Keras callbacks; `model.fit` of your own can take each of them.

What people look at while a detector is trained: reconstructions and curves.

A mean squared error of 0.25 says little; a decoder that gives the mean face of all shows at once.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.faces.extract import encode_png
from jdfd_keras.io.console import Progress
from jdfd_keras.options import RunOptions
from jdfd_keras.training.checkpoint import Checkpoint, save_checkpoint, take_checkpoint
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import MONITOR, write_epoch

AUC, AUC_OF_ONE = "classification_frame_auc", "frame_auc"
ASK_EVERY = 20  # steps between two looks at the clock, which machines must agree on


class _Placed(keras.callbacks.Callback):
    """Knows how many steps of its epoch are done, also where an epoch is gone on with."""

    def __init__(self, begun: Checkpoint | None = None):
        super().__init__()
        self.begun = begun or Checkpoint()
        self.epoch = self.begun.epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def steps_done(self, batch: int) -> int:
        return batch + 1 + (self.begun.step if self.epoch == self.begun.epoch else 0)


class StopAtNaN(_Placed):
    """End the training at the first loss that is no number, before anything is saved of it.

    Args:
        begun: Where the training stood at its begin, if something was done before.
        name_faces: From an epoch and a step in it, both from 0, to the names of the step's faces.
    """

    def __init__(
        self,
        begun: Checkpoint | None = None,
        name_faces: Callable[[int, int], list[str]] | None = None,
    ):
        super().__init__(begun)
        self.name_faces = name_faces

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            step = self.steps_done(batch)
            faces = self.name_faces(self.epoch, step - 1) if self.name_faces else []
            named = f", of the faces {', '.join(faces)}" if faces else ""
            raise ValueError(
                f"Expected a loss that is a number; got {logs['loss']} in epoch {self.epoch + 1}, "
                f"step {step}{named}. The last checkpoint before it is kept. Try a lower "
                "--learning-rate, or --clip-norm 1, in another run."
            )


class ContinueMetrics(keras.callbacks.Callback):
    """Go on with the sums of an epoch that was interrupted, so that its means are of all of it.

    They are added once the first step has made the metrics.
    """

    def __init__(self, begun: Checkpoint):
        super().__init__()
        self.metrics = begun.metrics

    def on_train_batch_end(self, batch, logs=None):
        for variable, before in zip(self.model.metrics_variables, self.metrics, strict=False):
            variable.assign(variable.numpy() + before)
        self.metrics = []


class ValidateAverage(keras.callbacks.Callback):
    """Validate the moving average of the weights in their place."""

    def on_test_begin(self, logs=None):
        branch_optimizer(self.model).swap_average()

    def on_test_end(self, logs=None):
        branch_optimizer(self.model).swap_average()


class ProgressLine(_Placed):
    """Show faces done, the loss so far, and after each epoch what validation gave.

    Args:
        steps: Of an epoch.
        batch_size: Faces of a step.
        begun: Where the training stood at its begin, if something was done before.
    """

    def __init__(self, steps: int, batch_size: int, begun: Checkpoint | None = None):
        super().__init__(begun)
        self.steps, self.batch_size = steps, batch_size

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        name = f"epoch {epoch + 1}/{self.params['epochs']}"
        before = self.steps_done(-1) * self.batch_size
        self.progress = Progress(name, self.steps * self.batch_size, "faces", done=before)

    def on_train_batch_end(self, batch, logs=None):
        self.progress.advance(self.batch_size, f"loss {logs['loss']:.3f}")

    def on_test_begin(self, logs=None):
        self.progress.stop_clock("validating")

    def on_epoch_end(self, epoch, logs=None):
        logs = name_logs(logs)
        self.progress.close(
            f"loss {logs['loss']:.3f}, validation: loss {logs['val_loss']:.3f}, "
            f"frame AUC {logs[MONITOR]:.3f}"
        )


class RunFolder(_Placed):
    """Keep the state of the training, the models of the best and the last epoch, and the history.

    The checkpoint is written last and is what counts: a training that is killed between two files
    does the epoch over, with the same result.

    Args:
        directory: The run folder.
        begun: Where the training stood at its begin, if something was done before.
        devices: All of them take part, and the first machine writes; one if not given.
        options: How often to write within an epoch.
        is_done: From the history to whether the training ends here; never if not given.
    """

    def __init__(
        self,
        directory: Path,
        begun: Checkpoint | None = None,
        devices: Devices | None = None,
        options: RunOptions | None = None,
        is_done: Callable[[list[dict[str, float]]], bool] = lambda history: False,
    ):
        super().__init__(begun)
        self.directory = directory
        self.devices, self.options = devices or Devices(), options or RunOptions()
        self.is_done = is_done
        self.history = list(self.begun.history)
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        step = self.steps_done(batch)
        # After the last step of an epoch comes its end, which is saved.
        if batch + 1 < self.params["steps"] and self._is_due(step):
            self._save(take_checkpoint(self.model, self.epoch, step, self.history))

    def on_epoch_end(self, epoch, logs=None):
        row = {key: float(value) for key, value in name_logs(logs).items()}
        self.history.append({"epoch": epoch + 1, **row})
        checkpoint = take_checkpoint(self.model, epoch + 1, 0, self.history)
        if self.devices.is_chief:
            average = getattr(branch_optimizer(self.model), "use_ema", False)
            if average:
                branch_optimizer(self.model).swap_average()
            write_epoch(self.directory, self.model, self.history)
            if average:
                branch_optimizer(self.model).swap_average()
        self._save(checkpoint)
        if self.is_done(self.history):
            self.model.stop_training = True

    def _is_due(self, step: int) -> bool:
        if self.options.checkpoint_steps:
            return step % self.options.checkpoint_steps == 0
        if not self.options.checkpoint_minutes or step % ASK_EVERY:
            return False
        passed_s = time.monotonic() - self.saved_at
        return self.devices.any(passed_s >= 60 * self.options.checkpoint_minutes)

    def _save(self, checkpoint: Checkpoint) -> None:
        if self.devices.is_chief:
            save_checkpoint(self.directory, checkpoint)
        self.saved_at = time.monotonic()


def name_logs(logs: dict[str, float]) -> dict[str, float]:
    """Name the AUC alike with one output and with two, where Keras puts the output's before it."""
    return {key.replace(AUC_OF_ONE, AUC) if AUC not in key else key: logs[key] for key in logs}


def branch_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Find the optimizer itself, which is wrapped where losses are scaled for float16."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


RECONSTRUCTIONS = "reconstructions.png"
CURVES = "curves.png"


class Pictures(keras.callbacks.Callback):
    """Draw faces above what the decoder makes of them, and the curves, after every epoch.

    Args:
        directory: The run folder.
        logs: The folder of TensorBoard's files.
        faces: float32[n, size, size, 3], pixel values 0..255.
        history: A dict for each epoch done before, to which this adds.
    """

    def __init__(
        self, directory: Path, logs: Path, faces: np.ndarray, history: list[dict[str, float]]
    ):
        super().__init__()
        self.directory, self.logs, self.faces = directory, logs, faces
        self.history = list(history)

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({"epoch": epoch + 1, **name_logs(logs)})
        draw_curves(self.directory / CURVES, self.history)
        if "reconstruction" not in self.model.output:
            return
        outputs = self.model(self.faces, training=False)
        rebuilt = (np.asarray(outputs["reconstruction"]) + 1) * 127.5
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in (self.faces, rebuilt)])
        sheet = np.clip(np.rint(sheet), 0, 255).astype(np.uint8)
        _replace(self.directory / RECONSTRUCTIONS, encode_png(sheet))
        with tf.summary.create_file_writer(str(self.logs)).as_default():
            tf.summary.image("faces and their reconstructions", sheet[np.newaxis], step=epoch)


def draw_curves(path: Path, history: list[dict[str, float]]) -> None:
    """Draw losses and AUC over the epochs.

    Args:
        path: The PNG.
        history: A dict for each epoch.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = {"loss": "loss, all of it", AUC: "frame AUC"}
    names |= {f"{part}_loss": f"loss, {part}" for part in ("classification", "reconstruction")}
    shown = [name for name in names if name in history[0]]
    figure = Figure(figsize=(4 * len(shown), 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for prefix, part in (("", "training"), ("val_", "validation")):
            values = [row[prefix + name] for row in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=part)
        axes.set_title(names[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.legend()
    unfinished = path.with_name(f"unfinished-{path.name}")
    figure.savefig(unfinished, dpi=120)
    os.replace(unfinished, path)


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
