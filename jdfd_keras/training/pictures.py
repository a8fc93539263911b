"""What people look at while a detector is trained: reconstructions and curves.

A mean squared error of 0.25 says little; a decoder that gives the mean face of all shows at once.
"""

import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.faces.extract import encode_png
from jdfd_keras.training.callbacks import AUC, name_logs

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
