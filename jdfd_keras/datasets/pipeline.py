"""A prepared data set to the batches that `model.fit` takes.

Takes the folder and a split, or a list of faces; gives a tf.data.Dataset. The other end of
`data.prepare`.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, FaceList, draw_order, list_faces
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
    """Read one split of a prepared data set, a pass at a time.

    Args:
        directory: The prepared data set.
        split: `train`, `val` or `test`.
        batch_size: Faces per batch; the last one may be smaller.
        shuffle: Mix the faces, anew in every pass, instead of giving them in the order of the
            manifest.
        seed: The same seed gives the same order and the same changes, pass by pass.
        labelled_only: Pass over faces that are neither real nor fake.
        options: Balance of the classes, weights and caching; none if not given. Balanced, there
            are as many real faces as fake ones, and as many faces a pass as without, so that those
            of the rarer class come more than once and some of the other not; only together with
            `shuffle`.
        augment: Changes of the faces at random; none if not given.

    Returns:
        Batches of `(image, targets)`, or `(image, targets, weights)` where faces do not all weigh
        the same. `image` is float32[n, size, size, 3] with pixel values in 0..255; `targets` a
        dict of `classification`, float32[n, 1], 1 for fake, and `reconstruction`, the image on the
        scale of -1..1; `weights` a dict of the same keys, float32[n]: of `classification` 0 for
        unlabelled faces and 1, or what its class weighs, for others; of `reconstruction` 0 for
        faces that the decoder is not to learn. It knows its length.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If the split is empty, or lacks a class that is to be balanced.
    """
    table = read_faces(directory, split=split, columns=COLUMNS)
    if labelled_only:
        table = table.filter(np.asarray(table["label"]) != UNLABELLED)
    if not len(table):
        raise ValueError(
            f"Expected faces in the {split} split of {directory}; got none. The splits are train, "
            "val and test: see the manifest for those that are filled."
        )
    faces = list_faces(directory, table)
    options = options or PipelineOptions()
    check_options(faces, options)
    count = len(faces)
    # A pass begins with a number drawn anew each time.
    places = (
        tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        .take(1)
        .flat_map(lambda number: tf.data.Dataset.range(count).map(lambda place: (number, place)))
        .apply(tf.data.experimental.assert_cardinality(count))
    )
    order = _shuffled(faces, seed, options) if shuffle else _in_order(faces)
    crops = _decode(places, faces, order, seed, options, augment)
    return _to_batches(crops, batch_size, _weigher(faces, options))


def stream_faces(
    faces: FaceList,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    part: int = 0,
    parts: int = 1,
    replicas: int = 1,
    options: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
) -> tf.data.Dataset:
    """Give mixed faces without end, one pass after another, from any step on.

    What a step gets depends on seed and step alone: a training that goes on gets what it would
    have got, and several machines together get what one would have.

    Args:
        faces: What is passed over.
        batch_size: Faces of a step, of all machines together; every batch is full.
        seed: Of the order and the changes.
        start_step: Steps that are done.
        part: Which machine this is, from 0: it gets its share of each step.
        parts: How many machines there are.
        replicas: Devices of all machines together; each takes a batch of its own.
        options: As for `load_faces`.
        augment: As for `load_faces`.

    Returns:
        Batches of `batch_size / replicas` faces, as `load_faces` gives them.

    Raises:
        ValueError: If the faces lack a class that is to be balanced.
    """
    options = options or PipelineOptions()
    check_options(faces, options)
    places = _places(len(faces), batch_size, start_step, part, parts)
    crops = _decode(places, faces, _shuffled(faces, seed, options), seed, options, augment)
    return _to_batches(crops, batch_size // replicas, _weigher(faces, options))


def share_faces(
    faces: FaceList, *, most: int, part: int, parts: int, replicas: int
) -> tf.data.Dataset:
    """Give one pass over the faces in their order, of which every device gets as many batches.

    Args:
        faces: What is passed over; as many as devices at least.
        most: Faces of a batch; all batches of all devices have as many, or one less.
        part: Which machine this is, from 0.
        parts: How many machines there are.
        replicas: Devices of all machines together.

    Returns:
        Batches as `load_faces` gives them, those of the machine's devices by turns.
    """
    count = replicas * -(-len(faces) // (replicas * most))
    bounds = np.arange(count + 1) * len(faces) // count
    own = np.arange(count) % replicas * parts // replicas == part
    options = PipelineOptions()

    def read(first: tf.Tensor, last: tf.Tensor) -> tf.data.Dataset:
        places = tf.data.Dataset.range(first, last).map(
            lambda place: (tf.constant(0, tf.int64), place)
        )
        crops = _decode(places, faces, _in_order(faces), 0, options, None)
        return _to_batches(crops, last - first, _weigher(faces, options))

    batches = tf.data.Dataset.from_tensor_slices((bounds[:-1][own], bounds[1:][own]))
    return (
        batches.flat_map(read)
        .apply(tf.data.experimental.assert_cardinality(int(own.sum())))
        .prefetch(tf.data.AUTOTUNE)
    )


def check_options(faces: FaceList, options: PipelineOptions) -> None:
    """See that faces can be drawn and weighed as is asked for.

    Raises:
        ValueError: If not.
    """
    if options.balance and options.class_weights:
        raise ValueError(
            "Expected balance or class_weights; got both, which would favour the rarer class "
            "twice. Leave one out."
        )
    for name, label in CLASSES.items():
        if (options.balance or options.class_weights) and not (faces.label == label).any():
            raise ValueError(
                f"Expected faces of both classes to balance in {_where(faces)}; got none that is "
                f"{name}. Leave balance and class_weights out."
            )


def _where(faces: FaceList) -> Path:
    return Path(faces.shards[0]).parent.parent


def _places(count: int, batch_size: int, start_step: int, part: int, parts: int):
    """Number the faces that a machine gets: the pass, and the place in its order, of each."""
    own = batch_size // parts

    def locate(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        position = (start_step + index // own) * batch_size + part * own + index % own
        return position // count, position % count

    return tf.data.Dataset.range(tf.int64.max).map(locate)


def _in_order(faces: FaceList) -> Callable:
    return lambda number: range(len(faces))


def _shuffled(faces: FaceList, seed: int, options: PipelineOptions) -> Callable:
    # Two passes may be under way at once, where one ends and faces are fetched ahead.
    return lru_cache(maxsize=2)(
        lambda number: draw_order(faces.label, seed=seed, number=number, balance=options.balance)
    )


def _decode(
    places: tf.data.Dataset,
    faces: FaceList,
    order: Callable,
    seed: int,
    options: PipelineOptions,
    augment: AugmentOptions | None,
) -> tf.data.Dataset:
    """Turn passes and places into crops and labels."""
    kept: dict[int, bytes] = {}

    def fetch(number: np.ndarray, place: np.ndarray) -> tuple[bytes, np.ndarray]:
        index = int(order(int(number))[int(place)])
        record = kept.get(index)
        if record is None:
            record = read_record(faces.shards[faces.shard[index]], int(faces.offset[index]))
            if options.cache:
                kept[index] = record
        return record, faces.is_hidden[index]

    def decode(number: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record, is_hidden = tf.numpy_function(fetch, [number, place], (tf.string, tf.bool))
        crop, label = decode_face(tf.ensure_shape(record, ()), faces.face_size)
        if augment and augment != AugmentOptions():
            own = tf.random.experimental.stateless_fold_in(tf.stack([number, seed]), place)
            crop = augment_face(crop, own, augment)
        return crop, tf.where(
            tf.ensure_shape(is_hidden, ()), tf.cast(UNLABELLED, label.dtype), label
        )

    return places.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _weigher(faces: FaceList, options: PipelineOptions) -> Callable | None:
    """Make the function from labels to weights; None where all faces weigh the same."""
    has_unlabelled = bool((faces.label == UNLABELLED).any())
    real_only = options.reconstruct == "real"
    if not (has_unlabelled or options.class_weights or real_only):
        return None
    # By label: real, fake, and unlabelled at the end, where -1 points to.
    counts = [int((faces.label == label).sum()) for label in (0, 1)]
    shares = [sum(counts) / (2 * c) if options.class_weights else 1.0 for c in counts]
    classification = tf.constant([*shares, 0.0])
    reconstruction = tf.constant([1.0, 0.0, 0.0] if real_only else [1.0, 1.0, 1.0])

    def weigh(label: tf.Tensor) -> dict[str, tf.Tensor]:
        position = label % 3
        return {
            "classification": tf.gather(classification, position),
            "reconstruction": tf.gather(reconstruction, position),
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
