"""Alignment: a face in a frame to a centred crop of fixed size, upright in two of three modes.

Takes a frame with the landmarks or the box of a face; returns the crop, the landmarks in it, the
alignment residual and the share of the crop outside the frame. Independent of detectors and files.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import FRONTAL_FACE, fit_similarity, five_points, transform_points

# The five landmarks that DeepfakeBench fits, and their template at 112 pixels, before x + 8. With
# indices from 0 they are the upper lids, the nose tip, and the neighbours of the two corners of
# the mouth: presumably an off-by-one, but that benchmark uses them everywhere.
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
        crop: uint8[size, size, 3], RGB; black outside the frame.
        landmarks: float32[68, 2] in pixels of the crop.
        residual: Root mean square distance of the five points from their canonical positions,
            divided by `size`: 0 to about 0.03 for frontal faces, more for turned ones. In mode
            `box`, which fits no points, the canonical positions are those of `landmarks68`, so it
            includes the rotation and the shift of the face.
        outside: Share of the crop's area outside the frame, 0 to 1.
    """

    crop: np.ndarray
    landmarks: np.ndarray
    residual: float
    outside: float


def canonical_points(size: int, margin: float, mode: str = "landmarks68") -> np.ndarray:
    """Compute the positions of the five points of a frontal face in a crop.

    Args:
        size: Width and height of the crop in pixels.
        margin: Width of the crop divided by the width of the tight face; at least 1.
        mode: Alignment mode of `align_face`. `box` fits no points and uses the positions of
            `landmarks68`.

    Returns:
        float64[5, 2], in the order of `five_points`, x and y in pixels. The centre of the first
        pixel is (0, 0), so the centre of the crop is (size - 1) / 2. `deepfakebench` scales its
        template about that first centre, as the benchmark does, and is therefore up to half a
        pixel further right and down.

    Raises:
        ValueError: If `size` or `margin` is below 1, or the mode is unknown.

    Example:
        >>> canonical_points(299, margin=1.3)[2].round(1).tolist()  # nose tip
        [149.0, 181.3]
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
    """Crop a face, centred and scaled.

    Pixels are interpolated once, bilinearly. If the face is larger than the crop, it is smoothed
    first, so that nothing aliases. Pixels outside the frame are black.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.
        size: Width and height of the crop in pixels.
        margin: Width of the crop divided by the width of the tight face, or of the box.
        mode: `landmarks68` (upright: the least-squares similarity of the eye centres, the nose tip
            and the corners of the mouth to their canonical positions), `deepfakebench` (upright,
            by the five landmarks and the template of that benchmark, to compare with published
            runs) or `box` (the square of the box's longer side about its centre, not rotated: the
            crop of FaceForensics++).
        box: Box of the detector; for mode `box` only.

    Returns:
        The crop, the landmarks in it, the alignment residual and the share outside the frame.

    Raises:
        ValueError: If `size` or `margin` is below 1, the mode is unknown, all landmarks are the
            same point, or the box of mode `box` is missing or empty.

    Example:
        >>> face = align_face(pixels, landmarks, size=299, margin=1.3, mode="landmarks68")
        >>> face.crop.shape
        (299, 299, 3)

    Reference:
        Yan et al.: "DeepfakeBench" (2023), https://arxiv.org/abs/2307.01426. Roessler et al.:
        "FaceForensics++" (2019), https://arxiv.org/abs/1901.08971
    """
    canonical = canonical_points(size, margin, mode)
    five = landmarks[DEEPFAKEBENCH_INDICES] if mode == "deepfakebench" else five_points(landmarks)
    matrix = _box_matrix(box, size, margin) if mode == "box" else fit_similarity(five, canonical)
    residual = np.sqrt(np.mean(np.sum((transform_points(matrix, five) - canonical) ** 2, axis=1)))
    return Alignment(
        crop=_warp(pixels, matrix, size),
        landmarks=transform_points(matrix, landmarks).astype(np.float32),
        residual=float(residual / size),
        outside=_share_outside(matrix, size, pixels.shape),
    )


def _box_matrix(box: Box | None, size: int, margin: float) -> np.ndarray:
    """Compute the matrix that maps the square about a box onto the crop, edges onto edges."""
    side = max(box.right - box.left, box.bottom - box.top) if box else 0
    if side <= 0:
        raise ValueError(
            f"Expected a box of positive width for the alignment 'box'; got {box}. Pass the box of "
            "the detector, or choose 'landmarks68'."
        )
    scale = size / (side * margin)
    # The edges of a box are between pixels; their centres have integer coordinates.
    x, y = (box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2
    middle = (size - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])


def _warp(pixels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Interpolate a crop; smooth the pixels that it reads first if it shrinks them."""
    left, top, right, bottom = _source_window(matrix, size, pixels.shape)
    window = pixels[top:bottom, left:right]
    sigma = _smoothing_sigma(matrix)
    # Below 0.28 the neighbours of a Gaussian weigh less than half a grey level: no change.
    if sigma > 0.25:
        window = cv2.GaussianBlur(window, (0, 0), sigma)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top)
    # Four channels yield the same bytes as three in half the time (OpenCV 5.0.0).
    padded = cv2.cvtColor(window, cv2.COLOR_RGB2RGBA)
    crop = cv2.warpAffine(padded, shifted, (size, size), flags=cv2.INTER_LINEAR)
    return cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)


def _smoothing_sigma(matrix: np.ndarray) -> float:
    """Compute the sigma of the Gaussian before shrinking, in pixels of the frame."""
    return (1 / float(np.hypot(matrix[0, 0], matrix[1, 0])) - 1) / 2


def _source_window(matrix: np.ndarray, size: int, shape: tuple) -> tuple[int, int, int, int]:
    """Compute the window of the frame that a crop reads, so that only it is smoothed."""
    corners = _corners_in_frame(matrix, size)
    # OpenCV truncates a Gaussian of bytes at 3 sigma, rounded up; interpolation reads one more.
    reach = max(3 * _smoothing_sigma(matrix), 0) + 2
    low = np.floor(corners.min(axis=0) - reach)
    high = np.ceil(corners.max(axis=0) + reach) + 1
    # At least one pixel, since a face completely outside the frame has a (black) crop, too.
    left, top = np.clip(low, 0, (shape[1] - 1, shape[0] - 1)).astype(int)
    right, bottom = np.clip(high, (left + 1, top + 1), (shape[1], shape[0])).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _corners_in_frame(matrix: np.ndarray, size: int) -> np.ndarray:
    """Compute the outer corners of a crop in the frame: float64[4, 2], in order around it."""
    near, far = -0.5, size - 0.5
    corners = np.array([[near, near], [far, near], [far, far], [near, far]])
    return transform_points(cv2.invertAffineTransform(matrix), corners)


def _share_outside(matrix: np.ndarray, size: int, shape: tuple) -> float:
    """Compute the share of a crop's area outside the frame."""
    polygon = _corners_in_frame(matrix, size).tolist()
    total = _area(polygon)
    # Sutherland, Hodgman: "Reentrant Polygon Clipping" (1974): one edge of the frame at a time.
    # cv2.intersectConvexConvex computes in float32 and is wrong if edges coincide.
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
    return min(max(1 - _area(polygon) / total, 0.0), 1.0)


def _area(polygon: list) -> float:
    """Compute the area of a polygon by the shoelace formula; 0 without corners."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x * v - y * u for (x, y), (u, v) in pairs)) / 2
