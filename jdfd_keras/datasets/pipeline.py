"""Input pipeline: the faces of a prepared dataset as batches for `model.fit`.

Takes a folder and a split, or a FaceIndex; returns a tf.data.Dataset. Independent of models; the
shards are written by `datasets.prepare`.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, FaceIndex, epoch_order, index_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import read_record
from jdfd_keras.datasets.transforms import augment_face, decode_face
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.options import AugmentOptions, PipelineOptions


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
    """Load one split of a prepared dataset; each iteration is one epoch.

    Args:
        directory: The prepared dataset.
        split: `train`, `val` or `test`.
        batch_size: Faces per batch; the last batch may be smaller.
        shuffle: Shuffle the faces again in every epoch; otherwise they are in manifest order.
        seed: Seed of the order and of the augmentation in every epoch.
        labelled_only: Omit unlabelled faces.
        options: Class balance, weights and caching; none if not given. With `balance`, an epoch
            has as many real as fake faces and its usual length: faces of the rarer class are
            repeated, some of the other class are omitted. Requires `shuffle`.
        augment: Random augmentations; none if not given.

    Returns:
        Batches of `(image, targets)`, or `(image, targets, weights)` if the weights differ.
        `image` is float32[n, size, size, 3] with pixel values in 0..255. `targets` is a dict of
        `classification`, float32[n, 1], 1 for fake, and `reconstruction`, the image scaled to
        -1..1. `weights` is a dict with the same keys, float32[n]: for `classification`, 0 for
        unlabelled faces and otherwise 1 or the class weight; for `reconstruction`, 0 for faces
        that the decoder must not learn. The cardinality of the dataset is known.

    Raises:
        OSError: If the folder is not a prepared dataset.
        ValueError: If the split is empty, lacks a class to balance, or the folder has another
            format version.

    Example:
        >>> for image, targets in load_faces("prepared", "train", batch_size=32):
        ...     print(image.shape, targets["classification"].shape)  # (32, 299, 299, 3) (32, 1)
    """
    table = read_faces(directory, split=split, columns=COLUMNS)
    if labelled_only:
        table = table.filter(np.asarray(table["label"]) != UNLABELLED)
    if not len(table):
        raise ValueError(
            f"Expected faces in the {split} split of {directory}; got none. The splits are train, "
            "val and test: see the manifest for those that have faces."
        )
    faces = index_faces(directory, table)
    options = options or PipelineOptions()
    check_options(faces, options)
    count = len(faces)
    # Each iteration draws a new epoch number.
    positions = (
        tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        .take(1)
        .flat_map(
            lambda epoch: tf.data.Dataset.range(count).map(lambda position: (epoch, position))
        )
        .apply(tf.data.experimental.assert_cardinality(count))
    )
    order = _shuffled(faces, seed, options) if shuffle else _in_order(faces)
    crops = _decode(positions, faces, order, seed, options, augment)
    return _to_batches(crops, batch_size, _weight_fn(faces, options))


def stream_faces(
    faces: FaceIndex,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    worker_index: int = 0,
    num_workers: int = 1,
    replicas: int = 1,
    options: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
) -> tf.data.Dataset:
    """Stream shuffled faces, epoch after epoch without end, starting at any training step.

    The faces of a step depend only on seed and step: a resumed training uses the same faces as an
    uninterrupted one, and several workers together use the same faces as a single one.

    Args:
        faces: The faces of an epoch.
        batch_size: Faces per step over all workers; every batch is full.
        seed: Seed of the order and of the augmentation.
        start_step: Number of steps already done.
        worker_index: Index of this worker, from 0; it reads its share of every step.
        num_workers: Number of workers.
        replicas: Number of devices of all workers; each takes its own batch.
        options: Class balance, weights and caching, as for `load_faces`.
        augment: Random augmentations, as for `load_faces`.

    Returns:
        Batches of `batch_size / replicas` faces, as from `load_faces`.

    Raises:
        ValueError: If the faces lack a class to balance.

    Example:
        >>> table = read_faces("prepared", split="train", columns=COLUMNS)
        >>> stream = stream_faces(index_faces("prepared", table), batch_size=4, seed=0)
        >>> image, targets = next(iter(stream))
    """
    options = options or PipelineOptions()
    check_options(faces, options)
    positions = _stream_positions(len(faces), batch_size, start_step, worker_index, num_workers)
    crops = _decode(positions, faces, _shuffled(faces, seed, options), seed, options, augment)
    return _to_batches(crops, batch_size // replicas, _weight_fn(faces, options))


def read_epoch(
    faces: FaceIndex,
    *,
    max_batch_size: int,
    worker_index: int,
    num_workers: int,
    replicas: int,
) -> tf.data.Dataset:
    """Read each face once, in order, in the same number of batches for every device.

    Args:
        faces: The faces; at least one per device.
        max_batch_size: Most faces per batch. Batch sizes differ by at most one face.
        worker_index: Index of this worker, from 0.
        num_workers: Number of workers.
        replicas: Number of devices of all workers.

    Returns:
        Batches as from `load_faces`, for the devices of this worker in turn.

    Example:
        >>> batches = read_epoch(
        ...     faces, max_batch_size=32, worker_index=0, num_workers=1, replicas=1
        ... )
    """
    count = replicas * -(-len(faces) // (replicas * max_batch_size))
    bounds = np.arange(count + 1) * len(faces) // count
    is_own = np.arange(count) % replicas * num_workers // replicas == worker_index
    options = PipelineOptions()

    def read_batch(first: tf.Tensor, last: tf.Tensor) -> tf.data.Dataset:
        positions = tf.data.Dataset.range(first, last).map(
            lambda position: (tf.constant(0, tf.int64), position)
        )
        crops = _decode(positions, faces, _in_order(faces), 0, options, None)
        return _to_batches(crops, last - first, _weight_fn(faces, options))

    batches = tf.data.Dataset.from_tensor_slices((bounds[:-1][is_own], bounds[1:][is_own]))
    return (
        batches.flat_map(read_batch)
        .apply(tf.data.experimental.assert_cardinality(int(is_own.sum())))
        .prefetch(tf.data.AUTOTUNE)
    )


def check_options(faces: FaceIndex, options: PipelineOptions) -> None:
    """Check that the faces can be balanced and weighted as the options require.

    Raises:
        ValueError: If a class to balance has no face, or both ways of balancing are chosen.
    """
    if options.balance and options.class_weights:
        raise ValueError(
            "Expected balance or class_weights; got both, which would favour the rarer class "
            "twice. Omit one of them."
        )
    for name, label in CLASSES.items():
        if (options.balance or options.class_weights) and not (faces.label == label).any():
            raise ValueError(
                f"Expected faces of both classes to balance in "
                f"{Path(faces.shards[0]).parent.parent}; got no {name} face. Omit balance and "
                "class_weights."
            )


def _stream_positions(
    count: int, batch_size: int, start_step: int, worker_index: int, num_workers: int
) -> tf.data.Dataset:
    """Create the stream of (epoch, position in the epoch) of the faces of one worker."""
    own = batch_size // num_workers

    def locate(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = (start_step + index // own) * batch_size + worker_index * own
        position = start + index % own
        return position // count, position % count

    return tf.data.Dataset.range(tf.int64.max).map(locate)


def _in_order(faces: FaceIndex) -> Callable:
    return lambda epoch: range(len(faces))


def _shuffled(faces: FaceIndex, seed: int, options: PipelineOptions) -> Callable:
    # Two epochs are in use at once, where prefetching crosses the end of one.
    return lru_cache(maxsize=2)(
        lambda epoch: epoch_order(faces.label, seed=seed, epoch=epoch, balance=options.balance)
    )


def _decode(
    positions: tf.data.Dataset,
    faces: FaceIndex,
    order: Callable,
    seed: int,
    options: PipelineOptions,
    augment: AugmentOptions | None,
) -> tf.data.Dataset:
    """Convert (epoch, position) pairs to crops and labels."""
    cache: dict[int, bytes] = {}

    def fetch(epoch: np.ndarray, position: np.ndarray) -> tuple[bytes, np.ndarray]:
        index = int(order(int(epoch))[int(position)])
        record = cache.get(index)
        if record is None:
            record = read_record(faces.shards[faces.shard[index]], int(faces.offset[index]))
            if options.cache:
                cache[index] = record
        return record, faces.is_hidden[index]

    def decode(epoch: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record, is_hidden = tf.numpy_function(fetch, [epoch, position], (tf.string, tf.bool))
        crop, label = decode_face(tf.ensure_shape(record, ()), faces.face_size)
        if augment and augment != AugmentOptions():
            face_seed = tf.random.experimental.stateless_fold_in(tf.stack([epoch, seed]), position)
            crop = augment_face(crop, face_seed, augment)
        return crop, tf.where(
            tf.ensure_shape(is_hidden, ()), tf.cast(UNLABELLED, label.dtype), label
        )

    return positions.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _weight_fn(faces: FaceIndex, options: PipelineOptions) -> Callable | None:
    """Create the function from labels to weights; None if all weights are 1."""
    has_unlabelled = bool((faces.label == UNLABELLED).any())
    real_only = options.reconstruct == "real"
    if not (has_unlabelled or options.class_weights or real_only):
        return None
    # Indexed by label: real, fake, and unlabelled last, since -1 % 3 is 2.
    counts = [int((faces.label == label).sum()) for label in (0, 1)]
    shares = [sum(counts) / (2 * c) if options.class_weights else 1.0 for c in counts]
    classification = tf.constant([*shares, 0.0])
    reconstruction = tf.constant([1.0, 0.0, 0.0] if real_only else [1.0, 1.0, 1.0])

    def weigh(label: tf.Tensor) -> dict[str, tf.Tensor]:
        index = label % 3
        return {
            "classification": tf.gather(classification, index),
            "reconstruction": tf.gather(reconstruction, index),
        }

    return weigh


def _to_batches(crops: tf.data.Dataset, batch_size: int, weigh: Callable | None) -> tf.data.Dataset:
    def to_example(crop: tf.Tensor, label: tf.Tensor) -> tuple:
        image = tf.cast(crop, tf.float32)
        targets = {
            "classification": tf.cast(label == CLASSES["fake"], tf.float32)[:, tf.newaxis],
            "reconstruction": image / 127.5 - 1.0,
        }
        return (image, targets) if weigh is None else (image, targets, weigh(label))

    return (
        crops.batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
        .map(to_example, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
