"""Masks of the faces of a training: read from the dataset, or computed from the real frames.

Takes an index of faces and their rows of a manifest; returns the index with one small mask for each
face, and where the masks of the fakes are from.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.face_index import FaceIndex
from jdfd_keras.datasets.manipulation_masks import find_real_faces, mask_difference, resize_mask
from jdfd_keras.datasets.records import decode_crop, decode_mask, read_record
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.io.console import plural, track
from jdfd_keras.io.results import Result
from jdfd_keras.io.workers import count_workers

DATASET, UNKNOWN = "from the dataset", "without"
DIFFERENCE = "from the difference to the real frame"
_CHUNK = 1024  # fakes that wait for a thread at most


@dataclass(frozen=True)
class MaskCounts(Result):
    """Number of fakes by the source of their masks."""

    dataset: int  # masks that the dataset has
    difference: int  # to the real face in the same frame of the footage
    unknown: int  # fakes without a mask

    def __str__(self) -> str:
        return (
            f"masks of {plural(self.dataset, 'fake')} {DATASET}, {self.difference} {DIFFERENCE}, "
            f"{self.unknown} {UNKNOWN}"
        )


def add_masks(faces: FaceIndex, table: pa.Table, cells: int) -> tuple[FaceIndex, MaskCounts]:
    """Add the masks of the manipulated pixels to an index of faces.

    The mask of a fake is that of the dataset, if `prepare` stored one; otherwise the pixels that
    differ from the real face in the same frame, if that is among the faces. Real faces have an
    empty mask; that of unlabelled ones is unknown.

    Args:
        faces: Faces with landmarks, indexed with the columns FAKE_COLUMNS, without blended fakes.
        table: Their rows of the manifest, with the columns MASK_COLUMNS.
        cells: Cells in a row and in a column of a mask.

    Raises:
        ValueError: If a shard is missing or damaged.

    Example:
        >>> from jdfd_keras.datasets.face_index import FAKE_COLUMNS, index_faces
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> from jdfd_keras.datasets.manipulation_masks import MASK_COLUMNS
        >>> columns = sorted({*FAKE_COLUMNS, *MASK_COLUMNS})
        >>> table = read_faces("prepared", split="train", columns=columns)
        >>> faces, counts = add_masks(index_faces("prepared", table), table, cells=5)
        >>> faces.masks.shape, counts.dataset + counts.difference + counts.unknown
        ((34, 5, 5), 14)
    """
    assert faces.landmarks is not None
    landmarks, real = faces.landmarks, find_real_faces(table)
    fakes = np.flatnonzero(faces.label == CLASSES["fake"])

    def find_mask(fake: int) -> tuple[np.ndarray | None, str]:
        record = read_record(faces.shards[faces.shard[fake]], int(faces.offset[fake]))
        mask, other = decode_mask(record), int(real[fake])
        if mask is not None:
            return resize_mask(mask, cells), DATASET
        if other >= 0 and np.isfinite(landmarks[[fake, other]]).all():
            crops = decode_crop(record), faces.read(other)
            mask = mask_difference(*crops, landmarks[fake], landmarks[other])
        return (None, UNKNOWN) if mask is None else (resize_mask(mask, cells), DIFFERENCE)

    def find_all() -> Iterator[tuple[np.ndarray | None, str]]:
        # Threads, since OpenCV does not hold Python's lock.
        with ThreadPoolExecutor(count_workers(0, len(fakes))) as threads:
            for start in range(0, len(fakes), _CHUNK):
                yield from threads.map(find_mask, fakes[start : start + _CHUNK].tolist())

    masks = np.zeros((len(faces), cells, cells), np.uint8)
    has_mask = faces.label == CLASSES["real"]
    counts = dict.fromkeys([DATASET, DIFFERENCE, UNKNOWN], 0)
    found = track(find_all(), "finding masks", len(fakes), "fakes")
    for fake, (mask, source) in zip(fakes.tolist(), found, strict=True):
        counts[source] += 1
        if mask is not None:
            masks[fake], has_mask[fake] = mask, True
    return replace(faces, masks=masks, has_mask=has_mask), MaskCounts(*counts.values())
