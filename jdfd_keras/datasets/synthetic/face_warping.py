"""Fakes by face warping: the resolution of a face differs from that of its surroundings.

Takes a crop of a real face with its 68 landmarks; returns the crop with the face aligned to a small
square, blurred and warped back, as by a generator of a fixed output size. A network that separates
such fakes from real faces needs no forged videos. Independent of files, labels and TensorFlow.

What is published is kept where it is stated: sizes of 64 to 127 pixels, a blur of 5 x 5, and a face
region that is the aligned square or, half of the time, the hull of brows and lower mouth. The rest
differs. The alignment fits five points of a mean face of our own instead of 51 of theirs. The
aligned face is never larger than the face in the crop, so that small crops show the traces too. The
authors change brightness, contrast, saturation and sharpness of both classes; the augmentation
`colour` changes all of these but the sharpness. They cut a random rectangle around the landmarks,
and average ten of them in a test; here a crop is used as it was prepared.

Reference:
    Li, Lyu: "Exposing DeepFake Videos By Detecting Face Warping Artifacts" (2018),
    https://arxiv.org/abs/1811.00656, and the authors' training code,
    https://github.com/yuezunli/CVPRW2019_Face_Artifacts
"""

import math

import cv2
import numpy as np

from jdfd_keras.faces.landmarks import FRONTAL_FACE, fit_similarity, five_points

SIZES = (64, 128)  # of the aligned face in pixels; the upper limit is excluded

_BLUR = (5, 5)  # kernel in pixels of the aligned face; OpenCV derives a deviation of 1.1
_HULL_SHARE = 0.5  # of the fakes, whose face region is the hull instead of the square
# Centres of the eyes, tip of the nose and corners of the mouth in the aligned square, which begins
# at the top of the brows and is as wide as they are. Measured by us: the mean of the points that
# `face_mesh` finds in 206 photographs of faces with a yaw below 15 degrees, made symmetric.
_ALIGNED_FACE = np.array(
    [[0.2255, 0.2040], [0.7745, 0.2040], [0.5, 0.5096], [0.2329, 0.7657], [0.7671, 0.7657]]
)
_HULL = np.r_[17:27, 48, 54:60]  # brows, corners of the mouth and its lower edge
_MIN_WIDTH = 0.1  # of a face, as a share of the crop; a narrower one is not a face
_MIN_AREA = 0.002  # of a face region, as a share of the crop; a smaller one is empty


def warp_face(
    face: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a face to a small square and back, which blurs it against its surroundings.

    Args:
        face: uint8[size, size, 3], RGB, the crop of a real face.
        landmarks: float[68, 2], its landmarks in pixels; finite, outside of the crop too. For
            landmarks that are not a face within the crop, a centred frontal face is assumed.
        rng: Source of the aligned size and of the face region; an equal one gives an equal fake.

    Returns:
        The fake, uint8[size, size, 3], and the mask of its face region, float32[size, size], 1 in
        the region and 0 elsewhere. Where the mask is 0 the fake equals the face.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> fake, mask = warp_face(subject.pixels, subject.landmarks, np.random.default_rng(0))
        >>> is_equal = (fake == subject.pixels).all(axis=-1)
        >>> bool(is_equal[mask == 0].all()), bool(is_equal[mask == 1].all())
        (True, False)
    """
    size = len(face)
    to_unit, landmarks = _align(landmarks, size)
    width = 1 / math.hypot(*to_unit[:, 0])
    high = min(SIZES[1], math.ceil(width))
    low = min(SIZES[0], high // 2)
    side = int(rng.integers(low, high))
    to_square = to_unit * side
    aligned = cv2.warpAffine(face, to_square, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    aligned = cv2.GaussianBlur(aligned, _BLUR, 0)
    back = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    shape = (size, size)
    warped = cv2.warpAffine(aligned, to_square, shape, flags=back, borderMode=cv2.BORDER_REPLICATE)
    # A pixel on the edge of the square is not in it.
    mask = cv2.warpAffine(np.ones((side, side), np.float32), to_square, shape, flags=back)
    mask = (mask > 1 - 1e-3).astype(np.float32)
    if rng.uniform() < _HULL_SHARE:
        inner = mask * _fill_hull(landmarks[_HULL], size)
        mask = inner if inner.mean() >= _MIN_AREA else mask
    return np.where(mask[..., None] > 0, warped, face), mask


def _align(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix from the crop to a square of side 1, and the landmarks it was fitted to."""
    five = five_points(np.asarray(landmarks, np.float64))
    if np.ptp(five, axis=0).any():
        to_unit = fit_similarity(five, _ALIGNED_FACE)
        scale = math.hypot(*to_unit[:, 0])
        centre = cv2.invertAffineTransform(to_unit) @ (0.5, 0.5, 1) if scale > 0 else np.full(2, -1)
        is_inside = bool((centre >= 0).all() and (centre < size).all())
        if is_inside and _MIN_WIDTH * size <= 1 / scale <= size / _MIN_WIDTH:
            return to_unit, landmarks
    to_unit = fit_similarity(FRONTAL_FACE * size - 0.5, _ALIGNED_FACE)
    return to_unit, np.full((68, 2), -1.0)  # without a hull


def _fill_hull(points: np.ndarray, size: int) -> np.ndarray:
    """Draw the convex hull of points, float32[size, size], 1 inside and 0 outside."""
    mask = np.zeros((size, size), np.float32)
    points = np.round(np.clip(points, -4 * size, 5 * size)).astype(np.int32)
    return cv2.fillConvexPoly(mask, cv2.convexHull(points), 1.0)
