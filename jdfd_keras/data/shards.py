"""Face crops in TFRecord files: written once, read many times.

Takes crops with their labels; gives shards. Crops are kept as PNG, since compression is what
is being studied. The record of a face is a tf.Example with `image/encoded` (PNG, RGB),
`label` (int64; 1 fake, 0 real), `video_id` and `frame_index`.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from jdfd_keras.faces.extract import encode_png


def encode_face(crop: np.ndarray, *, label: int, video_id: str, frame_index: int) -> bytes:
    """Encode one face as a serialized tf.Example.

    Args:
        crop: uint8[size, size, 3], RGB.
        label: 1 fake, 0 real.
        video_id: Its video.
        frame_index: Its frame in the video.
    """
    features = {
        "image/encoded": _bytes_feature(encode_png(crop)),
        "label": _int64_feature(label),
        "video_id": _bytes_feature(video_id.encode()),
        "frame_index": _int64_feature(frame_index),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # else its order differs by process


def decode_face(record: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one record in a tf.data graph.

    Args:
        record: string[], as `encode_face` gives it.
        size: Width and height of the crop.

    Returns:
        The crop, uint8[size, size, 3], and the label, float32[1].
    """
    parsed = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    crop = tf.ensure_shape(tf.io.decode_png(parsed["image/encoded"], channels=3), (size, size, 3))
    return crop, tf.cast(parsed["label"], tf.float32)[tf.newaxis]


def write_shard(path: str | Path, records: Iterable[bytes]) -> None:
    """Write records to one TFRecord file."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def join_shards(path: str | Path, parts: Iterable[Path]) -> None:
    """Join TFRecord files into one: a TFRecord file is its records in a row."""
    with open(path, "wb") as whole:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, whole)


def _bytes_feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64_feature(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
