"""Train a network of a few weights in a process of its own; a script that tests start.

    python small_run.py DATA OUT '{"kill_at": 7, "run": {...}, ...}'

Writes OUT-weights-PART.npz after the last epoch: what this process holds in memory.
"""

import json
import os
import signal
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras import options
from jdfd_keras.training import callbacks
from jdfd_keras.training import train as stage

GROUPS = {
    "model": options.ModelOptions,
    "optimizer": options.OptimizerOptions,
    "options": options.TrainOptions,
    "pipeline": options.PipelineOptions,
    "augment": options.AugmentOptions,
    "run": options.RunOptions,
}


def build(told: options.ModelOptions) -> keras.Model:
    """Build a detector of a few weights with all that has a state of its own."""
    image = keras.Input((told.image_size, told.image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.layers.Conv2D(4, 5, strides=4, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    maps = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(maps)
    if told.dropout:
        x = keras.layers.Dropout(told.dropout)(x)
    up = keras.layers.UpSampling2D(4)(maps)
    size = told.image_size
    return keras.Model(
        image,
        {
            "classification": keras.layers.Dense(1, "sigmoid", name="classifier_logit")(x),
            "reconstruction": keras.layers.CenterCrop(size, size)(
                keras.layers.Conv2D(3, 1, name="decoder_conv")(up)
            ),
        },
    )


def main(data: str, out: str, told: dict) -> None:
    """Train, and kill this process after a step if that is asked for."""
    if devices := told.get("devices"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        own = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, own)
    part = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    after_step, after_epoch = (
        callbacks.RunFolder.on_train_batch_end,
        callbacks.RunFolder.on_epoch_end,
    )
    steps = []

    def on_train_batch_end(self, batch, logs=None):
        after_step(self, batch, logs)
        steps.append(batch)
        if told.get("kill_at") == [part, len(steps)]:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        after_epoch(self, epoch, logs)
        np.savez(f"{out}-weights-{part}.npz", *self.model.get_weights())

    stage.build_detector = build
    callbacks.RunFolder.on_train_batch_end = on_train_batch_end
    callbacks.RunFolder.on_epoch_end = on_epoch_end
    groups = {name: kind(**told.get(name, {})) for name, kind in GROUPS.items()}
    try:
        stage.train(data, out, **groups)
    except (OSError, ValueError) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
