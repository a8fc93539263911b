"""Face crops of TFRecord files in a tf.data graph, and what is wrong with files that do not decode.

`data.records` writes and reads the records.

Faces changed at random, in the graph: what happens to videos between a camera and a verdict.

Takes a crop and a seed; gives a crop. The same seed changes it in the same way, on every machine
of one kind. Knows nothing of labels or files.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import SHARDS, read_framed
from jdfd_keras.options import AugmentOptions


def decode_face(record: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one record.

    Args:
        record: string[], as `data.records.encode_face` gives it.
        size: Width and height of the crop.

    Returns:
        The crop, uint8[size, size, 3], and the label, int64[]: 1 fake, 0 real, -1 unlabelled.
    """
    parsed = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    crop = tf.ensure_shape(tf.io.decode_png(parsed["image/encoded"], channels=3), (size, size, 3))
    return crop, parsed["label"]


@contextlib.contextmanager
def explain_damage(*directories: str | Path) -> Iterator[None]:
    """Turn what TensorFlow says of damaged shards, while they are read, into a ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow puts the node's name in braces before the cause and its operation behind.
        cause = error.message.split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
        damaged = [sentence for directory in directories for sentence in find_damage(directory)]
        if not damaged and "Expected a face at byte" not in cause:
            raise  # of the model, then, or of whoever calls it
        named = f" Damaged: {'; '.join(damaged)}." if damaged else ""
        raise ValueError(
            f"Expected {' and '.join(map(str, directories))} to hold every face of the manifest; "
            f"got {cause!r}.{named} Copy the data set again, or prepare it again."
        ) from error


def find_damage(directory: str | Path) -> list[str]:
    """Read all shards, check them against their checksums and the manifest, and name the bad ones.

    Returns:
        A sentence for each shard that is damaged, in the order of the manifest.
    """
    counts = pc.value_counts(read_faces(directory, columns=["shard"])["shard"].cast(pa.string()))
    damaged = []
    for entry in counts.to_pylist():
        path, found = Path(directory, SHARDS, entry["values"]), 0
        try:
            with open(path, "rb") as file:
                for _ in read_framed(file):
                    found += 1
            if found != entry["counts"]:
                damaged.append(f"{path} holds {found} of {entry['counts']} faces")
        except FileNotFoundError:
            damaged.append(f"{path} is not there")
        except ValueError as error:
            damaged.append(f"{path} has after {found} faces {error}")
    return damaged


CHANCE = 0.5  # of each change
LOWEST_JPEG_QUALITY = 40
LARGEST_SIGMA = 2.0  # of the blur, in pixels
BLUR_RADIUS = 5  # 2.5 times the largest sigma
SMALLEST_SCALE = 0.25
STRONGEST_NOISE = 10.0  # standard deviation, in grey levels
COLOUR_RANGE = 0.2  # contrast and saturation by this share, brightness by so much of 255


def augment_face(crop: tf.Tensor, seed: tf.Tensor, options: AugmentOptions) -> tf.Tensor:
    """Change a face in those ways that are switched on, each with a chance of one half.

    In the order in which it happens to a picture: mirrored, lit, out of focus, made small, noisy,
    compressed.

    Args:
        crop: uint8[size, size, 3].
        seed: int64[2], another one for every face and pass.
        options: The switches.

    Returns:
        uint8[size, size, 3].
    """
    ways = {
        "flip": _flip,
        "colour": _colour,
        "blur": _blur,
        "scaling": _scale,
        "noise": _noise,
        "jpeg": _jpeg,
    }
    for number, (name, change) in enumerate(ways.items()):
        if getattr(options, name):
            own = tf.random.experimental.stateless_fold_in(seed, number)
            chance = tf.random.stateless_uniform(
                [], tf.random.experimental.stateless_fold_in(own, 0)
            )
            crop = tf.cond(
                chance < CHANCE,
                lambda crop=crop, change=change, own=own: change(crop, own),
                lambda crop=crop: crop,
            )
    return crop


def _draw(seed: tf.Tensor, low: float, high: float, number: int = 1) -> tf.Tensor:
    own = tf.random.experimental.stateless_fold_in(seed, number)
    return tf.random.stateless_uniform([], own, low, high)


def _to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def _flip(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.reverse(crop, [1])  # a slice with a step of -1 takes six times as long (2.21.0)


def _colour(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    pixels = tf.cast(crop, tf.float32)
    contrast = _draw(seed, 1 - COLOUR_RANGE, 1 + COLOUR_RANGE, 1)
    saturation = _draw(seed, 1 - COLOUR_RANGE, 1 + COLOUR_RANGE, 2)
    brightness = _draw(seed, -255 * COLOUR_RANGE, 255 * COLOUR_RANGE, 3)
    grey = tf.image.rgb_to_grayscale(pixels)
    coloured = grey + saturation * (pixels - grey)
    middle = tf.reduce_mean(grey)
    return _to_bytes(contrast * (coloured - middle) + middle + brightness)


def _blur(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    sigma = _draw(seed, 0.1, LARGEST_SIGMA)
    away = tf.range(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(away / sigma))
    weights /= tf.reduce_sum(weights)
    pad = [[BLUR_RADIUS, BLUR_RADIUS], [BLUR_RADIUS, BLUR_RADIUS], [0, 0]]
    pixels = tf.pad(tf.cast(crop, tf.float32), pad, "REFLECT")[tf.newaxis]
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):  # down, then across
        kernel = tf.tile(tf.reshape(weights, shape), (1, 1, 3, 1))
        pixels = tf.nn.depthwise_conv2d(pixels, kernel, (1, 1, 1, 1), "VALID")
    return _to_bytes(pixels[0])


def _scale(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    size = tf.shape(crop)[:2]
    small = tf.cast(tf.cast(size, tf.float32) * _draw(seed, SMALLEST_SCALE, 1.0), tf.int32)
    shrunk = tf.image.resize(crop, small, antialias=True)
    return tf.ensure_shape(_to_bytes(tf.image.resize(shrunk, size)), crop.shape)


def _noise(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    own = tf.random.experimental.stateless_fold_in(seed, 2)
    noise = tf.random.stateless_normal(tf.shape(crop), own)
    return _to_bytes(tf.cast(crop, tf.float32) + _draw(seed, 0.0, STRONGEST_NOISE) * noise)


def _jpeg(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    quality = tf.cast(_draw(seed, LOWEST_JPEG_QUALITY, 101), tf.int32)
    return tf.ensure_shape(tf.image.adjust_jpeg_quality(crop, quality), crop.shape)
