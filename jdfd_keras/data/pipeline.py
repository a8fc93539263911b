"""A prepared data set to the batches that `model.fit` takes.

Takes the folder and a split; gives a tf.data.Dataset. The other end of `data.prepare`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from jdfd_keras.claims import OPTIONS, load_options
from jdfd_keras.data.assemble import SHARDS
from jdfd_keras.data.augment import augment_face
from jdfd_keras.data.manifest import read_faces
from jdfd_keras.data.records import read_framed
from jdfd_keras.data.shards import UNREADABLE, decode_face, read_label
from jdfd_keras.data.videos import CLASSES, UNLABELLED
from jdfd_keras.options import (
    AugmentOptions,
    FaceOptions,
    PipelineOptions,
)

SHUFFLE_BUFFER = 4096  # encoded faces held at once: about 600 MB at 299 px
SHARDS_AT_ONCE = 8  # read by turns when shuffling


def load_faces(
    directory: str | Path,
    split: str,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    labelled_only: bool = False,
    options: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
) -> tf.data.Dataset:
    """Read one split of a prepared data set.

    Args:
        directory: The prepared data set.
        split: `train`, `val` or `test`.
        batch_size: Faces per batch; the last one may be smaller.
        shuffle: Mix the faces, anew in every pass, instead of giving them in the order of the
            manifest.
        seed: The same seed gives the same order and the same changes, pass by pass.
        labelled_only: Pass over faces that are neither real nor fake.
        options: Balance of the classes and caching; neither if not given. Balanced, real and fake
            are drawn equally often, as many faces a pass as there are, so that faces of the rarer
            class come more than once and some of the other not; only together with `shuffle`.
        augment: Changes of the faces at random; none if not given.

    Returns:
        Batches of `(image, targets)`, or `(image, targets, weights)` where faces are unlabelled.
        `image` is float32[n, size, size, 3] with pixel values in 0..255; `targets` a dict of
        `classification`, float32[n, 1], 1 for fake, and `reconstruction`, the image on the scale
        of -1..1; `weights` a dict of `classification`, float32[n], 0 for unlabelled faces and 1
        for others, and `reconstruction`, ones[n, 1, 1]. It knows its length.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If the split is empty, or lacks a class that is to be balanced.
    """
    directory = Path(directory)
    options, augment = options or PipelineOptions(), augment or AugmentOptions()
    rows = read_faces(directory, split=split, columns=["label", "shard"])
    if not len(rows):
        raise ValueError(
            f"Expected faces in the {split} split of {directory}; got none. The splits are train, "
            "val and test: see the manifest for those that are filled."
        )
    labels = rows["label"].to_numpy()
    size = load_options(directory / OPTIONS, "faces", FaceOptions).face_size
    has_unlabelled = bool((labels == UNLABELLED).any()) and not labelled_only
    count = len(rows)

    records = _read_records(directory, rows["shard"], shuffle and not options.cache, seed)
    records = records.apply(tf.data.experimental.assert_cardinality(count))
    if labelled_only and (labels == UNLABELLED).any():
        records = records.filter(lambda record: read_label(record) != UNLABELLED)
        count = int((labels != UNLABELLED).sum())
    if options.cache:
        records = records.cache()
    if shuffle and options.balance:
        _check_balance(directory, split, labels)
        shares = {label: float((labels == label).mean()) for label in set(labels.tolist())}
        records = _balance(records, {} if labelled_only else shares, count, seed)
    elif shuffle:
        records = records.shuffle(min(count, SHUFFLE_BUFFER), seed=seed)
    return (
        _decode(records, size, augment, seed)
        .apply(tf.data.experimental.assert_cardinality(count))
        .batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
        .map(
            lambda crop, label: _to_example(crop, label, has_unlabelled),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


@contextlib.contextmanager
def explain_damage(directory: str | Path) -> Iterator[None]:
    """Turn what TensorFlow says of damaged shards, while they are read, into a ValueError."""
    try:
        yield
    except UNREADABLE as error:
        # TensorFlow puts the node's name in braces before the cause and its operation behind.
        cause = error.message.split("}} ")[-1].split(" [Op:")[0].splitlines()[0]
        damaged = find_damage(directory)
        if not damaged and isinstance(error, tf.errors.InvalidArgumentError):
            raise  # of the model, then, or of whoever calls it
        named = f" Damaged: {'; '.join(damaged)}." if damaged else ""
        raise ValueError(
            f"Expected {directory} to hold every face of its manifest; got {cause!r}.{named} Copy "
            "the data set again, or prepare it again."
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


def _read_records(
    directory: Path, shards: pa.ChunkedArray, shuffle: bool, seed: int
) -> tf.data.Dataset:
    names = pc.unique(shards.cast(pa.string())).to_pylist()
    paths = tf.data.Dataset.from_tensor_slices([str(directory / SHARDS / name) for name in names])
    if not shuffle:
        return tf.data.TFRecordDataset(paths)
    return paths.shuffle(len(names), seed=seed).interleave(
        tf.data.TFRecordDataset,
        cycle_length=SHARDS_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _check_balance(directory: Path, split: str, labels) -> None:
    for name, label in CLASSES.items():
        if not (labels == label).any():
            raise ValueError(
                f"Expected faces of both classes to balance in the {split} split of {directory}; "
                f"got none that is {name}. Leave balance out."
            )


def _balance(
    records: tf.data.Dataset, shares: dict[int, float], count: int, seed: int
) -> tf.data.Dataset:
    """Draw real and fake equally often; unlabelled faces as often as there are."""
    unlabelled = shares.get(UNLABELLED, 0.0)
    weights = dict.fromkeys(CLASSES.values(), (1 - unlabelled) / 2)
    weights |= {UNLABELLED: unlabelled} if unlabelled else {}
    streams = [
        records.filter(lambda record, label=label: read_label(record) == label)
        .shuffle(SHUFFLE_BUFFER // len(weights), seed=seed + 1 + number)
        .repeat()
        for number, label in enumerate(weights)
    ]
    return tf.data.Dataset.sample_from_datasets(
        streams, list(weights.values()), seed=seed, rerandomize_each_iteration=True
    ).take(count)


def _decode(
    records: tf.data.Dataset, size: int, augment: AugmentOptions, seed: int
) -> tf.data.Dataset:
    if augment == AugmentOptions():
        return records.map(
            lambda record: decode_face(record, size), num_parallel_calls=tf.data.AUTOTUNE
        )

    def decode(record: tf.Tensor, draw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        crop, label = decode_face(record, size)
        return augment_face(crop, tf.stack([draw, seed]), augment), label

    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(records, draws).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _to_example(crop: tf.Tensor, label: tf.Tensor, has_unlabelled: bool) -> tuple:
    image = tf.cast(crop, tf.float32)
    targets = {
        "classification": tf.cast(label == CLASSES["fake"], tf.float32)[:, tf.newaxis],
        "reconstruction": image / 127.5 - 1.0,
    }
    if not has_unlabelled:
        return image, targets
    is_labelled = tf.cast(label != UNLABELLED, tf.float32)
    weights = {
        "classification": is_labelled,
        # Keras keeps height and width of this loss until it is weighed (3.15.1).
        "reconstruction": tf.ones_like(is_labelled)[:, tf.newaxis, tf.newaxis],
    }
    return image, targets, weights
