"""Transforms of face records in a tf.data graph: decoding and random augmentation.

Converts a record of a shard to a crop and a label, and a crop and a seed to an augmented crop, with
the degradations of a video between camera and detector. The same seed yields the same crop on
machines of the same kind.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import SHARDS, read_framed
from jdfd_keras.datasets.synthetic.degradations import check_encoder
from jdfd_keras.datasets.synthetic.recompression import compress_h264
from jdfd_keras.io.console import plural
from jdfd_keras.options import AugmentOptions

PROBABILITY = 0.5  # of each augmentation
MIN_JPEG_QUALITY = 40
H264_CRF = (23, 40)  # rate factors of FaceForensics++, whose c23 and c40 these are
MAX_BLUR_SIGMA = 2.0  # in pixels
BLUR_RADIUS = 5  # in pixels, 2.5 * MAX_BLUR_SIGMA
MIN_SCALE = 0.25
MAX_NOISE = 10.0  # standard deviation in grey levels
COLOUR_RANGE = 0.2  # relative for contrast and saturation, a share of 255 for brightness
MAX_ANGLE = 10.0  # in degrees
MAX_ZOOM = 1.15  # and as much smaller
MAX_SHIFT = 0.05  # as a share of the size

_fold_in: Any = tf.random.fold_in  # its stub wants numbers


def decode_face(record: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one record.

    Args:
        record: string[], from `datasets.records.encode_face`.
        size: Width and height of the crop in pixels; another size is an InvalidArgumentError.

    Returns:
        The crop, uint8[size, size, 3], RGB, and the label, int64[]: 1 fake, 0 real, -1 unlabelled.

    Example:
        >>> records = tf.data.TFRecordDataset("prepared/shards/00000.tfrecord")
        >>> crop, label = decode_face(next(iter(records)), 71)
        >>> crop.shape
        TensorShape([71, 71, 3])
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
def reraise_damaged_shards(*directories: str | Path) -> Iterator[None]:
    """Convert a TensorFlow error caused by damaged shards to a ValueError that lists them.

    Args:
        *directories: The prepared datasets that are read in the context.

    Example:
        >>> with reraise_damaged_shards("prepared"):
        ...     raise tf.errors.InvalidArgumentError(None, None, "Expected a face at byte 7")
        Traceback (most recent call last):
        ValueError: Expected prepared to hold every face of the manifest; got 'Expected a face at...
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow writes "{{node ...}} cause [Op:...]".
        cause = error.message.split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
        damaged = [sentence for directory in directories for sentence in find_damage(directory)]
        if not damaged and "Expected a face at byte" not in cause:
            raise  # the error has another cause, such as the model
        named = f" Damaged: {'; '.join(damaged)}." if damaged else ""
        raise ValueError(
            f"Expected {' and '.join(map(str, directories))} to hold every face of the manifest; "
            f"got {cause!r}.{named} Copy the dataset again, or prepare it again."
        ) from error


def find_damage(directory: str | Path) -> list[str]:
    """Check all shards of a prepared dataset against their checksums and the manifest.

    Returns:
        One sentence per damaged shard, in the order of the manifest.

    Example:
        >>> find_damage("prepared")
        []
    """
    shards = read_faces(directory, columns=["shard"])["shard"].cast(pa.string())
    damaged = []
    for name, count in shards.to_pandas().value_counts(sort=False).items():
        path, num_read = Path(directory, SHARDS, str(name)), 0
        try:
            with open(path, "rb") as file:
                for _ in read_framed(file):
                    num_read += 1
            if num_read != count:
                damaged.append(f"{path} has {num_read} of {plural(count, 'face')}")
        except FileNotFoundError:
            damaged.append(f"{path} does not exist")
        except ValueError as error:
            damaged.append(f"{path} has, after {plural(num_read, 'face')}, {error}")
    return damaged


def augment_face(crop: tf.Tensor, seed: tf.Tensor, options: AugmentOptions) -> tf.Tensor:
    """Apply each enabled augmentation to a face with a probability of one half.

    In the order of a camera pipeline: flip, affine, colour, blur, downscaling, noise, JPEG, H.264.

    Args:
        crop: uint8[size, size, 3], RGB.
        seed: int64[2], different for every face and epoch.
        options: The enabled augmentations.

    Returns:
        uint8[size, size, 3], RGB.

    Raises:
        ValueError: If H.264 is enabled and the installed PyAV has no encoder for it.

    Example:
        >>> crop = tf.zeros((71, 71, 3), tf.uint8)
        >>> augment_face(crop, tf.constant([0, 1], tf.int64), AugmentOptions(jpeg=True)).shape
        TensorShape([71, 71, 3])
    """
    # In the order of application, with the number of its random draws, which stays as it is.
    augmentations = {
        "flip": (0, _flip),
        "affine": (7, _affine),
        "colour": (1, _colour),
        "blur": (2, _blur),
        "scaling": (3, _scale),
        "noise": (4, _noise),
        "jpeg": (5, _jpeg),
        "h264": (6, _h264),
    }
    if options.h264:
        check_encoder("h264")
    for name, (number, apply) in augmentations.items():
        if getattr(options, name):
            own_seed = _fold_in(seed, number)
            crop = tf.cond(
                _draw(own_seed, 0.0, 1.0, 0) < PROBABILITY,
                lambda crop=crop, apply=apply, own_seed=own_seed: apply(crop, own_seed),
                lambda crop=crop: crop,
            )
    return crop


def _draw(seed: tf.Tensor, low: float, high: float, number: int = 1) -> tf.Tensor:
    return tf.random.stateless_uniform([], _fold_in(seed, number), low, high)


def _to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def _flip(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.reverse(crop, [1])  # crop[:, ::-1] takes six times as long (TensorFlow 2.21.0)


def _affine(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Rotate, scale and shift about the centre; the crop is mirrored beyond its border."""
    size = tf.cast(tf.shape(crop)[1::-1], tf.float32)  # width and height
    angle = _draw(seed, -MAX_ANGLE, MAX_ANGLE, 1) * np.pi / 180
    log_zoom = np.log(MAX_ZOOM)
    shrink = tf.exp(_draw(seed, -log_zoom, log_zoom, 2))
    cos, sin = tf.cos(angle) * shrink, tf.sin(angle) * shrink
    shift = size * tf.stack([_draw(seed, -MAX_SHIFT, MAX_SHIFT, number) for number in (3, 4)])
    centre = (size - 1) / 2
    turned = tf.stack([cos * centre[0] - sin * centre[1], sin * centre[0] + cos * centre[1]])
    offset = centre - turned + shift
    zero = tf.zeros([])
    matrix = tf.stack([cos, -sin, offset[0], sin, cos, offset[1], zero, zero])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(crop, tf.float32)[tf.newaxis],
        transforms=matrix[tf.newaxis],
        output_shape=tf.shape(crop)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(_to_bytes(moved[0]), crop.shape)


def _colour(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    pixels = tf.cast(crop, tf.float32)
    contrast = _draw(seed, 1 - COLOUR_RANGE, 1 + COLOUR_RANGE, 1)
    saturation = _draw(seed, 1 - COLOUR_RANGE, 1 + COLOUR_RANGE, 2)
    brightness = _draw(seed, -255 * COLOUR_RANGE, 255 * COLOUR_RANGE, 3)
    grey = tf.image.rgb_to_grayscale(pixels)
    saturated = grey + saturation * (pixels - grey)
    mean = tf.reduce_mean(grey)
    return _to_bytes(contrast * (saturated - mean) + mean + brightness)


def _blur(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    sigma = _draw(seed, 0.1, MAX_BLUR_SIGMA)
    distances = tf.range(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(distances / sigma))
    weights /= tf.reduce_sum(weights)
    pad = [[BLUR_RADIUS, BLUR_RADIUS], [BLUR_RADIUS, BLUR_RADIUS], [0, 0]]
    pixels = tf.pad(tf.cast(crop, tf.float32), pad, "REFLECT")[tf.newaxis]
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):  # vertical, then horizontal
        kernel = tf.tile(tf.reshape(weights, shape), (1, 1, 3, 1))
        pixels = tf.nn.depthwise_conv2d(pixels, kernel, (1, 1, 1, 1), "VALID")
    return _to_bytes(pixels[0])


def _scale(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    size = tf.shape(crop)[:2]
    small = tf.cast(tf.cast(size, tf.float32) * _draw(seed, MIN_SCALE, 1.0), tf.int32)
    shrunk = tf.image.resize(crop, small, antialias=True)
    return tf.ensure_shape(_to_bytes(tf.image.resize(shrunk, size)), crop.shape)


def _noise(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    noise = tf.random.stateless_normal(tf.shape(crop), _fold_in(seed, 2))
    return _to_bytes(tf.cast(crop, tf.float32) + _draw(seed, 0.0, MAX_NOISE) * noise)


def _jpeg(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    quality = tf.cast(_draw(seed, MIN_JPEG_QUALITY, 101), tf.int32)
    # By default it is decoded with errors of up to 18 levels, which no other decoder makes.
    saved = tf.image.adjust_jpeg_quality(crop, quality, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(saved, crop.shape)


def _h264(crop: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    crf = tf.cast(_draw(seed, H264_CRF[0], H264_CRF[1] + 1), tf.int32)
    saved = tf.numpy_function(compress_h264, [crop, crf], tf.uint8)
    return tf.ensure_shape(saved, crop.shape)
