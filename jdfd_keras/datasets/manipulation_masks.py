"""Masks of manipulated pixels, from the difference between a fake face and its real face.

Takes rows of a manifest and pairs of crops; returns which faces belong together, and float32 masks
from 0 (real) to 1 (manipulated). Independent of files, networks and TensorFlow.

Reference:
    Dang et al.: "On the Detection of Digital Face Manipulation" (2020),
    https://arxiv.org/abs/1910.01717 (masks from differences).
"""

from collections import defaultdict

import cv2
import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.videos import CLASSES, dataset_namespace, has_known_source
from jdfd_keras.faces.detect import Box, overlap
from jdfd_keras.faces.landmarks import fit_similarity

MASK_COLUMNS = ("video_id", "label", "compression", "source_ids", "frame_index", "box")
THRESHOLD = 0.1  # of the difference, on the scale of 0 (equal) to 1 (black and white)
MIN_OVERLAP = 0.3  # intersection over union of the boxes of a fake and its real face
MIN_CORRELATION = 0.8  # of the pixels outside the face, after the registration
MAX_OUTSIDE = 0.25  # share of the pixels outside the face that may differ
_STEPS, _PRECISION = 50, 1e-4  # of the registration
_SMOOTHING = 5  # side of the Gaussian filter before the registration, in pixels


def find_real_faces(faces: pa.Table) -> np.ndarray:
    """Find, for each fake face, the real face in the same frame of the footage that it is made of.

    The footage is the first of its sources, with the same compression. A face has none if its
    footage is unknown, is several videos or none of the table, or shows no face at this place in
    this frame.

    Args:
        faces: Rows of a manifest, with the columns MASK_COLUMNS.

    Returns:
        int64[n], rows of the table; -1 for faces without a real face, which real ones are, too.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> faces = read_faces("prepared", columns=MASK_COLUMNS)
        >>> real = find_real_faces(faces)
        >>> fakes = np.flatnonzero(np.asarray(faces["label"]) == 1)
        >>> bool((np.asarray(faces["label"])[real[fakes][real[fakes] >= 0]] == 0).all())
        True
    """
    columns = (faces[name].to_pylist() for name in MASK_COLUMNS[:-1])
    rows = list(zip(*columns, strict=True))
    left, top, right, bottom = (
        np.array(faces["box"].to_pylist(), np.int64).reshape(-1, 4).T.tolist()
    )
    boxes = [Box(*edges, 1.0) for edges in zip(left, top, right, bottom, strict=True)]
    videos, found = defaultdict(set), defaultdict(list)
    for row, (video_id, label, compression, sources, frame_index) in enumerate(rows):
        if label == CLASSES["real"] and has_known_source(sources):
            videos[dataset_namespace(video_id), compression, sources[0]].add(video_id)
            found[video_id, frame_index].append(row)

    real = np.full(len(rows), -1, np.int64)
    for row, (video_id, label, compression, sources, frame_index) in enumerate(rows):
        if label != CLASSES["fake"] or not has_known_source(sources):
            continue
        names = videos.get((dataset_namespace(video_id), compression, sources[0]), set())
        if len(names) != 1:
            continue
        shared = {
            other: overlap(boxes[row], boxes[other])
            for other in found.get((*names, frame_index), [])
        }
        if shared and max(shared.values()) >= MIN_OVERLAP:
            real[row] = max(shared, key=lambda other: shared[other])
    return real


def mask_difference(
    fake: np.ndarray,
    real: np.ndarray,
    fake_landmarks: np.ndarray,
    real_landmarks: np.ndarray,
    threshold: float = THRESHOLD,
) -> np.ndarray | None:
    """Mark the pixels of a fake face that differ from its real face.

    Both crops are of the same frame, but each was aligned by its own landmarks. So the real one is
    moved onto the fake one first: by the landmarks, then, since these move with the manipulation,
    by the pixels outside the face, which are those of the real frame. The difference is the
    absolute one of the channels, converted to grey.

    Args:
        fake: uint8[size, size, 3], RGB.
        real: uint8[size, size, 3], RGB.
        fake_landmarks: float[68, 2], in pixels of `fake`; finite.
        real_landmarks: float[68, 2], in pixels of `real`; finite.
        threshold: Difference above which a pixel is manipulated, 0 to 1.

    Returns:
        float32[size, size], 1 where a pixel is manipulated and 0 elsewhere, also where the real
        crop ends; None if the crops do not match outside the face, since they show another frame or
        scene. The mask of a fake that hardly differs is empty.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> from jdfd_keras.datasets.synthetic.fakes import make_fake
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> face, points = subject.pixels, subject.landmarks
        >>> fake = make_fake("re-rendered", face, points, np.random.default_rng(0))
        >>> mask = mask_difference(fake.pixels, face, points, points)
        >>> bool((fake.mask[mask > 0] > 0).all())
        True
    """
    matrix = fit_similarity(fake_landmarks, real_landmarks).astype(np.float32)
    grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in (fake, real)]
    outside = _draw_outside(real_landmarks, real.shape)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _PRECISION)
    try:
        correlation, matrix = cv2.findTransformECC(
            grey[0], grey[1], matrix, cv2.MOTION_AFFINE, criteria, outside, _SMOOTHING
        )
    except cv2.error:  # it raises if it does not converge
        return None
    if correlation < MIN_CORRELATION:
        return None
    size, flags = fake.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(real, matrix, size, flags=flags)
    is_covered = cv2.warpAffine(np.full_like(outside, 255), matrix, size, flags=flags) == 255
    difference = cv2.cvtColor(cv2.absdiff(fake, moved), cv2.COLOR_RGB2GRAY) / 255
    mask = (difference > threshold) & is_covered
    is_outside = is_covered & (_draw_outside(fake_landmarks, fake.shape) > 0)
    if mask[is_outside].sum() > MAX_OUTSIDE * is_outside.sum():
        return None
    return mask.astype(np.float32)


def resize_mask(mask: np.ndarray, cells: int) -> np.ndarray:
    """Compute the share of manipulated pixels in each cell of a crop.

    Args:
        mask: float32[size, size], 0 (real) to 1 (manipulated).
        cells: Cells in a row and in a column of the crop; 0 for an empty result.

    Returns:
        uint8[cells, cells], 255 where all pixels are manipulated.

    Example:
        >>> mask = np.zeros((6, 6), np.float32)
        >>> mask[:, :3] = 1
        >>> resize_mask(mask, 2).tolist(), resize_mask(mask, 1).tolist()
        ([[255, 0], [255, 0]], [[128]])
    """
    if cells == 0:
        return np.zeros((0, 0), np.uint8)
    share = cv2.resize(mask, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.round(255 * share).astype(np.uint8).reshape(cells, cells)


def _draw_outside(landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8[height, width], 255 outside the hull of the landmarks and 0 in it."""
    mask = np.full(shape[:2], 255, np.uint8)
    hull = cv2.convexHull(np.clip(landmarks, -4096, 4096).astype(np.float32))
    return cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 0)  # pyright: ignore[reportReturnType]
