"""A face in a frame to a crop that is centred and of one size, upright where asked.

Takes a frame, its landmarks or its box, and one of three modes; gives the crop, the landmarks
in it, how well it fits and how much of it the frame does not show. Knows nothing of detectors
or files.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import FRONTAL_FACE, fit_similarity, five_points, transform_points

# The five landmarks that DeepfakeBench fits, and where, on 112 pixels after x + 8. As landmarks
# counted from 0 they are the upper lid of either eye, the nose tip, and beside the left corner
# of the mouth and beyond the right one: the same everywhere in that benchmark, so kept.
# Reference: Yan et al.: "DeepfakeBench" (2023), https://arxiv.org/abs/2307.01426
DEEPFAKEBENCH_INDICES = [37, 44, 30, 49, 55]
DEEPFAKEBENCH_FACE = np.array(
    [
        [30.2946, 51.6963],
        [65.5318, 51.5014],
        [48.0252, 71.7366],
        [33.5493, 92.3655],
        [62.7299, 92.2041],
    ]
)


class Alignment(NamedTuple):
    """A face cut out of a frame.

    Attributes:
        crop: uint8[size, size, 3]; black where the frame ends.
        landmarks: float32[68, 2] in pixels of the crop.
        residual: Root mean square distance of the five points to their canonical places, as a
            share of `size`: 0 to about 0.03 for frontal faces, more when the face is turned.
            Where the crop is that of the box, which fits no points, it is measured from the
            places of `landmarks68`, and so holds the rotation and the shift of the face too.
        outside: Share of the crop's area that lies outside of the frame, 0 to 1.
    """

    crop: np.ndarray
    landmarks: np.ndarray
    residual: float
    outside: float


def canonical_points(size: int, margin: float, mode: str = "landmarks68") -> np.ndarray:
    """Say where the five points of a frontal face lie in a crop.

    Args:
        size: Width and height of the crop in pixels.
        margin: Width of the crop over the width of the tight face; at least 1.
        mode: As `align_face` takes it. `box` fits no points and has the places of
            `landmarks68`.

    Returns:
        float64[5, 2], in the order of `five_points`, x and y in pixels; the centre of the first
        pixel is (0, 0), so the middle of the crop is at (size - 1) / 2. Only `deepfakebench`
        scales its template about the corner of that pixel's centre, as the benchmark does, and
        so lies up to half a pixel further right and down.

    Raises:
        ValueError: If `size` or `margin` is below 1, or the mode is none of the three.
    """
    if size < 1 or margin < 1:
        raise ValueError(
            f"Expected size >= 1 and margin >= 1; got size={size}, margin={margin}. "
            "Try the defaults, 299 and 1.3."
        )
    if mode == "deepfakebench":
        tight = (DEEPFAKEBENCH_FACE + (8, 0)) * (size / 112)
        return (tight + (margin - 1) / 2 * size) / margin
    if mode in ("landmarks68", "box"):
        return ((FRONTAL_FACE - 0.5) / margin + 0.5) * size - 0.5
    raise ValueError(
        f"Expected the alignment 'landmarks68', 'deepfakebench' or 'box'; got {mode!r}. "
        "Choose one of them."
    )


def align_face(
    pixels: np.ndarray,
    landmarks: np.ndarray,
    *,
    size: int,
    margin: float,
    mode: str,
    box: Box | None = None,
) -> Alignment:
    """Cut a face out, centred and scaled.

    Pixels are interpolated once, bilinearly; a face larger than the crop is first smoothed to
    what the crop can hold, so that nothing aliases. What lies outside the frame is black.

    Args:
        pixels: uint8[height, width, 3].
        landmarks: float[68, 2] in pixels of the frame.
        size: Width and height of the crop.
        margin: Width of the crop over the width of the tight face, or of the box.
        mode: `landmarks68` (upright; the eyes' centres, the nose tip and the corners of the
            mouth come to their canonical places as well as a similarity can), `deepfakebench`
            (upright, by the five landmarks and the template of that benchmark, to compare with
            published runs) or `box` (a square of the box's larger side about its centre,
            turned as the frame is: the crop of FaceForensics++).
        box: The face as the detector gave it; for `box` only.

    Returns:
        The crop, the landmarks in it, the alignment residual and the share outside the frame.

    Raises:
        ValueError: If `size` or `margin` is below 1, the mode is none of the three, all
            landmarks are one point, or mode `box` comes without a box or with an empty one.

    Reference:
        Yan et al.: "DeepfakeBench" (2023), https://arxiv.org/abs/2307.01426. Roessler et al.:
        "FaceForensics++" (2019), https://arxiv.org/abs/1901.08971
    """
    canonical = canonical_points(size, margin, mode)
    five = landmarks[DEEPFAKEBENCH_INDICES] if mode == "deepfakebench" else five_points(landmarks)
    matrix = _fit_box(box, size, margin) if mode == "box" else fit_similarity(five, canonical)
    residual = np.sqrt(np.mean(np.sum((transform_points(matrix, five) - canonical) ** 2, axis=1)))
    return Alignment(
        crop=_warp(pixels, matrix, size),
        landmarks=transform_points(matrix, landmarks).astype(np.float32),
        residual=float(residual / size),
        outside=_share_outside(matrix, size, pixels.shape),
    )


def _fit_box(box: Box | None, size: int, margin: float) -> np.ndarray:
    """Find the matrix that carries the square about a box onto the crop, edges onto edges."""
    side = max(box.right - box.left, box.bottom - box.top) if box else 0
    if side <= 0:
        raise ValueError(
            f"Expected a box with a width for the alignment 'box'; got {box}. Give the box that "
            "the detector found, or choose 'landmarks68'."
        )
    scale = size / (side * margin)
    # A box's edges lie between pixels, whose centres have whole numbers.
    x, y = (box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2
    middle = (size - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])


def _warp(pixels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Smooth what a crop of the frame reads, where it shrinks, and interpolate it."""
    left, top, right, bottom = _source_window(matrix, size, pixels.shape)
    window = pixels[top:bottom, left:right]
    sigma = _smoothing(matrix)
    # Below 0.28 a Gaussian's neighbours weigh less than half a grey level: it changes nothing.
    if sigma > 0.25:
        window = cv2.GaussianBlur(window, (0, 0), sigma)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top)
    # Four channels give the same bytes as three in half the time (OpenCV 5.0.0).
    padded = cv2.cvtColor(window, cv2.COLOR_RGB2RGBA)
    crop = cv2.warpAffine(padded, shifted, (size, size), flags=cv2.INTER_LINEAR)
    return cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)


def _smoothing(matrix: np.ndarray) -> float:
    """Choose the sigma, in pixels of the frame, of the Gaussian before shrinking."""
    return (1 / float(np.hypot(matrix[0, 0], matrix[1, 0])) - 1) / 2


def _source_window(matrix: np.ndarray, size: int, shape: tuple) -> tuple[int, int, int, int]:
    """Find the part of the frame that a crop reads, so that only it is smoothed."""
    corners = _corners_in_frame(matrix, size)
    # OpenCV cuts a Gaussian of bytes off after 3 sigma, rounded up; interpolation reads one more.
    reach = max(3 * _smoothing(matrix), 0) + 2
    low = np.floor(corners.min(axis=0) - reach)
    high = np.ceil(corners.max(axis=0) + reach) + 1
    # At least one pixel, for a face wholly outside the frame still has a (black) crop.
    left, top = np.clip(low, 0, (shape[1] - 1, shape[0] - 1)).astype(int)
    right, bottom = np.clip(high, (left + 1, top + 1), (shape[1], shape[0])).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _corners_in_frame(matrix: np.ndarray, size: int) -> np.ndarray:
    """Find the outer corners of a crop in the frame: float64[4, 2], in order around it."""
    near, far = -0.5, size - 0.5
    corners = np.array([[near, near], [far, near], [far, far], [near, far]])
    return transform_points(cv2.invertAffineTransform(matrix), corners)


def _share_outside(matrix: np.ndarray, size: int, shape: tuple) -> float:
    """Measure the share of a crop's area that the frame does not show."""
    polygon = _corners_in_frame(matrix, size).tolist()
    whole = _area(polygon)
    # Sutherland, Hodgman: "Reentrant Polygon Clipping" (1974): one edge of the frame at a time.
    # cv2.intersectConvexConvex counts in float32 and errs where edges coincide.
    for axis, sign, limit in (
        (0, -1, 0.5),
        (1, -1, 0.5),
        (0, 1, shape[1] - 0.5),
        (1, 1, shape[0] - 0.5),
    ):
        within = [limit - sign * point[axis] for point in polygon]
        if min(within, default=0) >= 0:
            continue
        clipped = []
        for i, (point, depth) in enumerate(zip(polygon, within, strict=True)):
            before, depth_before = polygon[i - 1], within[i - 1]
            if (depth < 0) != (depth_before < 0):
                share = depth_before / (depth_before - depth)
                clipped.append([a + share * (b - a) for a, b in zip(before, point, strict=True)])
            if depth >= 0:
                clipped.append(point)
        polygon = clipped
    return min(max(1 - _area(polygon) / whole, 0.0), 1.0)


def _area(polygon: list) -> float:
    """Measure a polygon's area by the shoelace formula; no corners have none."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x * v - y * u for (x, y), (u, v) in pairs)) / 2
