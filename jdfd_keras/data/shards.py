"""Face crops of TFRecord files in a tf.data graph, and what is wrong with files that do not decode.

`data.records` writes and reads the records.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from jdfd_keras.data.assemble import SHARDS
from jdfd_keras.data.manifest import read_faces
from jdfd_keras.data.records import read_framed


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
