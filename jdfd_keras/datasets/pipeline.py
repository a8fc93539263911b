"""Input pipeline: the faces of a prepared dataset as a tf.data.Dataset for `model.fit`."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FAKE_COLUMNS,
    FaceIndex,
    add_fakes,
    epoch_order,
    index_faces,
)
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.manipulation_masks import resize_mask
from jdfd_keras.datasets.pairs import list_pairs
from jdfd_keras.datasets.records import decode_crop, read_record
from jdfd_keras.datasets.sample_weights import BLENDED, check_options, weight_fn
from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.datasets.transforms import augment_face, decode_face
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.options import AugmentOptions, PipelineOptions, parse_fakes

MANIPULATION_MAP = "manipulation_map"  # target of faces with masks


def load_faces(
    directory: str | Path,
    split: str,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    labelled_only: bool = False,
    split_table: str = OFFICIAL,
    options: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
) -> tf.data.Dataset:
    """Load one split of a prepared dataset; each iteration is one epoch.

    Args:
        directory: The prepared dataset.
        split: `train`, `val` or `test`; `all` for every face.
        batch_size: Faces per batch; the last batch may be smaller.
        shuffle: Shuffle the faces again in every epoch; otherwise they are in manifest order, and
            blended fakes, each after its real face, are the same in every epoch.
        seed: Seed of the order and of the augmentation in every epoch.
        labelled_only: Omit unlabelled faces.
        split_table: Name of the split table that states the splits, or the path of one.
        options: Class balance (requires `shuffle`), weights, caching and blended fakes, and whether
            the training split has labelled fakes; the defaults if not given. A real face and its
            blended fake are neighbours and are augmented alike: shuffled batches of an even size
            hold both.
        augment: Random augmentations; none if not given.

    Returns:
        Batches of `(image, targets)`, or `(image, targets, weights)` if the weights differ.
        `image` is float32[n, size, size, 3] with pixel values in 0..255. `targets` is a dict of
        `classification`, float32[n, 1], 1 for fake, and `reconstruction`, the image scaled to
        -1..1; with `reconstruct="clean"`, for a blended fake, that of its real face instead.
        `weights` is a dict with the same keys, float32[n]: for `classification`, 0 for unlabelled
        faces and otherwise 1 or the class weight; for `reconstruction`, 0 for faces that the
        decoder must not learn: all but real ones if `reconstruct` is "real", all but real ones and
        blended fakes if it is "clean". The cardinality of the dataset is known.

    Raises:
        OSError: If the folder is not a prepared dataset, or has no such split table.
        ValueError: If the split is empty, lacks a class to balance, or has no faces to blend.

    Example:
        >>> image, targets = next(iter(load_faces("prepared", "train", batch_size=8)))
        >>> image.shape, targets["classification"].shape
        (TensorShape([8, 71, 71, 3]), TensorShape([8, 1]))
    """
    options = options or PipelineOptions()
    kinds = parse_fakes(options.fakes)
    columns = FAKE_COLUMNS if kinds else COLUMNS
    table = read_faces(directory, split=split, split_table=split_table, columns=columns)
    if labelled_only:
        table = table.filter(np.asarray(table["label"]) != UNLABELLED)
    if split == "train" and not options.labelled_fakes:
        table = table.filter(np.asarray(table["label"]) != CLASSES["fake"])
    if not len(table):
        raise ValueError(
            f"Expected faces in the {split} split of {directory}; got none. The splits are train, "
            "val and test: see the split table for those that have faces."
        )
    faces = add_fakes(index_faces(directory, table), kinds, make_even=shuffle)
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
    return _read_batches(
        positions, faces, batch_size, options, shuffle=shuffle, seed=seed, augment=augment
    )


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
        faces: The faces of an epoch, with blended fakes or without, whatever `options` says.
        batch_size: Faces per step over all workers; every batch is full.
        seed: Seed of the order, of the augmentation and of blended fakes.
        start_step: Number of steps already done.
        worker_index: Index of this worker, from 0; it reads its share of every step.
        num_workers: Number of workers.
        replicas: Number of devices of all workers; each takes its own batch.
        options: As for `load_faces`.
        augment: As for `load_faces`.

    Returns:
        Batches of `batch_size / replicas` faces, as from `load_faces`. If the faces have masks,
        `targets` and `weights` have `manipulation_map`, too: float32[n, cells, cells, 1], the share
        of manipulated pixels in each cell, and float32[n], 0 for faces of unknown mask.

    Raises:
        ValueError: As from `check_options`.

    Example:
        >>> faces = index_faces("prepared", read_faces("prepared", columns=COLUMNS))
        >>> image, targets = next(iter(stream_faces(faces, batch_size=4, seed=0)))
        >>> image.shape
        TensorShape([4, 71, 71, 3])
    """
    options = options or PipelineOptions()
    size = batch_size // replicas
    check_options(faces, options, size, augment)
    own = batch_size // num_workers

    def locate(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = (start_step + index // own) * batch_size + worker_index * own
        position = start + tf.math.floormod(index, own)
        return position // len(faces), tf.math.floormod(position, len(faces))

    positions = tf.data.Dataset.range(tf.int64.max).map(locate)
    return _read_batches(positions, faces, size, options, shuffle=True, seed=seed, augment=augment)


def read_epoch(
    faces: FaceIndex,
    *,
    max_batch_size: int,
    worker_index: int,
    num_workers: int,
    replicas: int,
    reconstruct: str = "all",
) -> tf.data.Dataset:
    """Read each face once, in order, in the same number of batches for every device.

    Blended fakes follow their real faces, and are the same in every epoch.

    Args:
        faces: The faces; at least one per device.
        max_batch_size: Most faces per batch. Batch sizes differ by at most one face.
        worker_index: Index of this worker, from 0.
        num_workers: Number of workers.
        replicas: Number of devices of all workers.
        reconstruct: Faces that the decoder learns, as in PipelineOptions.

    Returns:
        Batches as from `load_faces`, for the devices of this worker in turn.

    Example:
        >>> faces = index_faces("prepared", read_faces("prepared", columns=COLUMNS))
        >>> batches = read_epoch(
        ...     faces, max_batch_size=8, worker_index=0, num_workers=1, replicas=1
        ... )
        >>> len(faces), len(batches)
        (58, 8)
    """
    count = replicas * -(-len(faces) // (replicas * max_batch_size))
    bounds = np.arange(count + 1) * len(faces) // count
    is_own = np.arange(count) % replicas * num_workers // replicas == worker_index

    def read_batch(*limits: tf.Tensor) -> tf.data.Dataset:
        start, stop = limits
        positions = tf.data.Dataset.range(start, stop).map(
            lambda position: (tf.constant(0, tf.int64), position)
        )
        return _read_batches(
            positions, faces, stop - start, PipelineOptions(reconstruct=reconstruct)
        )

    batches = tf.data.Dataset.from_tensor_slices((bounds[:-1][is_own], bounds[1:][is_own]))
    return (
        batches.flat_map(read_batch)
        .apply(tf.data.experimental.assert_cardinality(int(is_own.sum())))
        .prefetch(tf.data.AUTOTUNE)
    )


def _read_batches(
    positions: tf.data.Dataset,
    faces: FaceIndex,
    batch_size: Any,  # int or tensor
    options: PipelineOptions,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: AugmentOptions | None = None,
) -> tf.data.Dataset:
    """Read the faces at pairs of an epoch and a position in it."""
    cache: dict[int, bytes] = {}
    weigh = weight_fn(faces, options)
    augment = augment or AugmentOptions()
    is_clean = options.reconstruct == "clean"
    masks, has_mask = faces.masks, faces.has_mask
    cells = 0 if masks is None else masks.shape[1]

    @lru_cache(maxsize=2)  # two epochs are in use at once, where prefetching crosses one's end
    def order(epoch: int) -> np.ndarray | range:
        if shuffle:
            how = {"balance": options.balance, "base": faces.base}
            return epoch_order(faces.label, seed=seed, epoch=epoch, **how)
        return range(len(faces)) if faces.base is None else list_pairs(faces.base)

    def read(index: int) -> bytes:
        record = cache.get(index)
        if record is None:
            record = read_record(faces.shards[faces.shard[index]], int(faces.offset[index]))
            if options.cache:
                cache[index] = record
        return record

    def fetch(epoch: np.ndarray, position: np.ndarray) -> tuple[bytes, np.int64, np.int64]:
        index = order(int(epoch))[int(position)]
        if faces.base is not None and faces.base[index] >= 0:
            return read(int(faces.base[index])), np.int64(BLENDED), np.int64(index)
        return read(int(index)), faces.label[index], np.int64(index)

    def find_mask(group: np.int64, index: np.int64) -> tuple[np.ndarray, np.float32]:
        assert masks is not None and has_mask is not None
        if group == BLENDED:
            return np.zeros(masks.shape[1:], np.uint8), np.float32(1)  # replaced by its own mask
        return masks[index], np.float32(has_mask[index])

    def blend(
        crop: np.ndarray, epoch: np.ndarray, index: np.int64
    ) -> tuple[np.ndarray, np.ndarray]:
        def read_stored(other: int) -> np.ndarray:
            return crop if other == base[index] else decode_crop(read(other))

        base: Any = faces.base
        number = int(epoch) if shuffle else 0
        pixels, mask = faces.blend(int(index), read_stored, seed=seed, epoch=number)
        return pixels, resize_mask(mask, cells)

    def decode(epoch: tf.Tensor, position: tf.Tensor) -> dict[str, tf.Tensor]:
        types = (tf.string, tf.int64, tf.int64)
        record, group, index = tf.numpy_function(fetch, [epoch, position], types)
        group = tf.ensure_shape(group, ())
        crop, _ = decode_face(tf.ensure_shape(record, ()), faces.face_size)

        def change(pixels: tf.Tensor) -> tf.Tensor:
            if augment == AugmentOptions():
                return pixels
            # A blended fake is changed like its real face, which is before it.
            number = position - tf.cast(group == BLENDED, tf.int64)
            fold_in: Any = tf.random.fold_in  # its stub wants numbers
            return augment_face(pixels, fold_in(tf.stack([epoch, seed]), number), augment)

        example, mask = {"group": group}, tf.zeros((0, 0), tf.uint8)
        if masks is not None:
            mask, known = tf.numpy_function(find_mask, [group, index], (tf.uint8, tf.float32))
            mask = tf.ensure_shape(mask, (cells, cells))
            example["known"] = tf.ensure_shape(known, ())

        def blended() -> tuple[tf.Tensor, tf.Tensor]:
            types = (tf.uint8, tf.uint8)
            fake, own_mask = tf.numpy_function(blend, [crop, epoch, index], types)
            return tf.ensure_shape(fake, crop.shape), tf.ensure_shape(own_mask, (cells, cells))

        image = crop
        if faces.base is not None:
            image, mask = tf.cond(group == BLENDED, blended, lambda: (crop, mask))
        example["image"] = image = change(image)
        if masks is not None:
            example["mask"] = mask
        if is_clean and faces.base is not None:
            is_fake = group == BLENDED
            example["clean"] = tf.cond(is_fake, lambda: change(crop), lambda: image)
        return example

    def to_example(example: dict[str, tf.Tensor]) -> tuple:
        image, group = tf.cast(example["image"], tf.float32), example["group"]
        target = tf.cast(example["clean"], tf.float32) if "clean" in example else image
        targets = {
            "classification": tf.cast(group >= CLASSES["fake"], tf.float32)[:, tf.newaxis],
            "reconstruction": target / 127.5 - 1.0,
        }
        if weigh is None:
            return image, targets
        weights = weigh(group)
        if masks is not None:
            mask = tf.cast(example["mask"], tf.float32)
            targets[MANIPULATION_MAP] = mask[:, :, :, tf.newaxis] / 255
            weights[MANIPULATION_MAP] = example["known"]
        return image, targets, weights

    return (
        positions.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
        .map(to_example, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
