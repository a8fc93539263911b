"""Scores of the face crops of prepared datasets, as they are or degraded.

Crops are read and degraded in threads while the model scores those before them. Independent of how
the model is loaded: it is a function from crops to scores.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.records import SHARDS, read_crop
from jdfd_keras.datasets.synthetic.degradations import (
    DEGRADATIONS,
    check_encoder,
    degrade_crops,
    parse_degradations,
)
from jdfd_keras.evaluation.eval_data import EvalSet
from jdfd_keras.io.console import Progress

MAX_THREADS = 8  # of degradations; more would only take memory

Degradation = tuple[str, float]


def parse_degradation(text: str) -> Degradation | None:
    """Parse one degradation of face crops with its strength; None for an empty text.

    Raises:
        ValueError: If it is unknown, several, without a strength or of videos only, or if this
            build of FFmpeg lacks its encoder.

    Example:
        >>> parse_degradation("jpeg=30")
        ('jpeg', 30.0)
    """
    if not text:
        return None
    pairs = parse_degradations(text)
    if len(pairs) != 1 or "=" not in text:
        raise ValueError(
            f"Expected one degradation with its strength; got {text!r}. Try jpeg=30, or the "
            "command `experiment robustness` for several."
        )
    name, strength = pairs[0]
    if DEGRADATIONS[name].is_of_videos:
        raise ValueError(
            f"Expected a degradation of face crops; got {text!r}, which is one of videos. Try the "
            "command `experiment robustness`, or another degradation, such as jpeg=30."
        )
    check_encoder(name)
    return name, strength


def describe_degradation(degradation: Degradation | None, of: str = "face crops") -> str:
    """Return a degradation with its strength and unit, and what it was applied to; "" for none.

    Example:
        >>> describe_degradation(("jpeg", 30.0))
        'jpeg=30 (quality) of the face crops'
    """
    if degradation is None:
        return ""
    name, strength = degradation
    return f"{name}={strength:g} ({DEGRADATIONS[name].unit}) of the {of}"


def read_crop_batch(
    one: EvalSet, rows: Sequence[int], degradation: Degradation | None = None, seed: int = 0
) -> np.ndarray:
    """Read face crops of a dataset, uint8[n, size, size, 3], and degrade them.

    Args:
        one: The dataset.
        rows: Rows of its table.
        degradation: Name and strength; None for the crops as they are.
        seed: Seed of the noise, which also depends on the row.

    Raises:
        ValueError: If a crop is missing or damaged, or crops differ in size.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> read_crop_batch(load_eval_sets(["prepared"], "test")[0], [0, 5]).shape
        (2, 71, 71, 3)
    """
    faces = one.rows.select(["shard", "offset"]).take(pa.array(rows)).to_pylist()
    folder = one.directory / SHARDS
    crops = [read_crop(folder / face["shard"], face["offset"]) for face in faces]
    if other := [crop.shape for crop in crops if crop.shape != crops[0].shape]:
        raise ValueError(
            f"Expected faces of one size in {one.directory}; got {crops[0].shape} and {other[0]}. "
            "Prepare the dataset again."
        )
    batch = np.stack(crops)
    if degradation is None:
        return batch
    name, strength = degradation
    is_range = list(rows) == list(range(rows[0], rows[0] + len(rows)))
    if is_range:
        return degrade_crops(batch, name, strength, seed=seed, first=rows[0])
    parts = [
        degrade_crops(crop[None], name, strength, seed=seed, first=row)
        for row, crop in zip(rows, batch, strict=True)
    ]
    return np.concatenate(parts)


def score_crops(
    score: Callable[[np.ndarray], np.ndarray],
    sets: Sequence[EvalSet],
    face_size: int,
    *,
    degradation: Degradation | None = None,
    seed: int = 0,
    batch_size: int = 32,
    description: str = "scoring",
) -> np.ndarray:
    """Score the face crops of prepared datasets, float64[n], in the order of their rows.

    Args:
        score: Function from uint8[n, size, size, 3] to float[n], P(fake).
        sets: The datasets.
        face_size: Width and height of the model's input.
        degradation: Name and strength, applied to each crop before it is scored.
        seed: Seed of the noise.
        batch_size: Faces per batch.
        description: The task, for the progress.

    Raises:
        ValueError: If a crop has another size, or is missing or damaged.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> def mean(crops):
        ...     return crops.mean(axis=(1, 2, 3)) / 255
        >>> score_crops(mean, load_eval_sets(["prepared"], "test"), 71).shape
        (8,)
    """
    count = sum(len(one.rows) for one in sets)
    values, done = np.empty(count), 0
    progress = Progress(description, count, "faces")

    def read(batch: tuple[EvalSet, range]) -> np.ndarray:
        return read_crop_batch(*batch, degradation, seed)

    try:
        for crops in _map_ahead(read, _list_batches(sets, batch_size)):
            if crops.shape[1:] != (face_size, face_size, 3):
                raise ValueError(
                    f"Expected faces of {face_size} px, the size of the model; got "
                    f"{crops.shape[1:]}. Prepare the dataset with --face-size {face_size}."
                )
            values[done : done + len(crops)] = score(crops)
            done += len(crops)
            progress.advance(len(crops))
    finally:
        progress.close()
    return values


def _list_batches(sets: Sequence[EvalSet], batch_size: int) -> Iterator[tuple[EvalSet, range]]:
    for one in sets:
        for start in range(0, len(one.rows), batch_size):
            yield one, range(start, min(start + batch_size, len(one.rows)))


def _map_ahead(
    read: Callable[[tuple[EvalSet, range]], np.ndarray], batches: Iterator[tuple[EvalSet, range]]
) -> Iterator[np.ndarray]:
    """Read batches in threads, in order and a few ahead of the caller.

    OpenCV and FFmpeg release Python's lock, and so does the engine that scores meanwhile.
    """
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    with ThreadPoolExecutor(threads, "crops") as pool:
        ahead: deque[Future[np.ndarray]] = deque()
        try:
            for batch in batches:
                ahead.append(pool.submit(read, batch))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
