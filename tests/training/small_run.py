"""Train a network of a few weights in its own process; tests start this script.

    python small_run.py DATA OUT '{"kill_at": [0, 7], "runtime": {...}, ...}'

Writes OUT-weights-WORKER.npz after every epoch: the weights in the memory of this process.
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
from jdfd_keras.model.embedding import add_embedding
from jdfd_keras.training import callbacks
from jdfd_keras.training import train as stage

GROUPS = {
    "model": options.ModelOptions,
    "optimizer": options.OptimizerOptions,
    "train": options.TrainOptions,
    "pipeline": options.PipelineOptions,
    "augment": options.AugmentOptions,
    "runtime": options.TrainRuntime,
}


def build(model: options.ModelOptions) -> keras.Model:
    """Build a detector of a few weights with every kind of layer that has a state."""
    size = model.image_size
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.layers.Conv2D(4, 5, strides=4, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    maps = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(maps)
    if model.dropout:
        x = keras.layers.Dropout(model.dropout)(x)
    up = keras.layers.UpSampling2D(4)(maps)
    detector = keras.Model(
        image,
        {
            "classification": keras.layers.Dense(1, "sigmoid", name="classifier_logit")(x),
            "reconstruction": keras.layers.CenterCrop(size, size)(
                keras.layers.Conv2D(3, 1, name="decoder_conv")(up)
            ),
        },
    )
    return add_embedding(detector) if model.method == "xception-triplet" else detector


def main(data: str, out: str, config: dict) -> None:
    """Train, and kill this process after the step `kill_at`, given as worker and step."""
    if devices := config.get("devices"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
    worker = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    after_step, after_epoch = (
        callbacks.RunFolder.on_train_batch_end,
        callbacks.RunFolder.on_epoch_end,
    )
    steps = []

    def on_train_batch_end(self, batch, logs=None):
        after_step(self, batch, logs)
        steps.append(batch)
        if config.get("kill_at") == [worker, len(steps)]:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        after_epoch(self, epoch, logs)
        np.savez(f"{out}-weights-{worker}.npz", *self.model.get_weights())

    stage.build_detector = build
    callbacks.RunFolder.on_train_batch_end = on_train_batch_end
    callbacks.RunFolder.on_epoch_end = on_epoch_end
    config["train"] = {"precision": "float32"} | config.get("train", {})  # on every processor
    config["runtime"] = {"keep_optimizer": True} | config.get("runtime", {})  # to compare it
    groups = {name: kind(**config.get(name, {})) for name, kind in GROUPS.items()}
    try:
        stage.train(data, out, **groups)
    except (OSError, ValueError) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
