"""Masks for blending faces: regions of the face, deformed at random, with soft edges.

Takes 68 landmarks; returns float32 masks from 0 (keep) to 1 (replace). Independent of images,
files, labels and TensorFlow.

Reference:
    Li et al.: "Face X-ray for More General Face Forgery Detection" (2020),
    https://arxiv.org/abs/1912.13458 (random deformation and blur of the hull).
"""

import cv2
import numpy as np

from jdfd_keras.datasets.synthetic.blending import INNER_FACE

FACE_REGIONS = ("inner", "outline", "whole", "features")
LOCAL_REGIONS = ("lower", "mouth", "eyes")

_BROWS = np.arange(17, 27)
_LOWER = np.r_[3:14, 31:36]  # the jaw without its upper ends, the lower edge of the nose
_MOUTH = np.arange(48, 60)
_EYES = (np.arange(36, 42), np.arange(42, 48))
_MIN_AREA = 0.002  # of the crop; a mask with less is empty


def face_size(landmarks: np.ndarray, size: int) -> float:
    """Return the size of a face: the side, in pixels, of a square with the area of its hull.

    Unlike the eye distance, it stays of use in a profile view.

    Args:
        landmarks: float[68, 2], in pixels.
        size: Side of the crop in pixels. The result is from an eighth to twice of it.

    Example:
        >>> corners = np.float32([[0, 0], [40, 0], [40, 40], [0, 40]])
        >>> face_size(corners[np.arange(68) % 4], 64)
        40.0
    """
    hull = cv2.convexHull(_within_reach(landmarks, size))
    return float(np.clip(np.sqrt(cv2.contourArea(hull)), size / 8, 2 * size))


def draw_region(landmarks: np.ndarray, region: str, size: int) -> np.ndarray:
    """Draw a region of the face as a mask with hard edges.

    Args:
        landmarks: float[68, 2], in pixels.
        region: "inner" (between brows and jaw, as in `inner_face_mask`), "outline" (brows to
            chin), "whole" (with the forehead, which has no landmarks and is extrapolated),
            "features" (brows, eyes, nose and mouth), "lower" (below the nose), "mouth" or "eyes".
        size: Side of the mask in pixels.

    Returns:
        float32[size, size], 1 inside the region and 0 outside; all 0 for a face outside the crop.

    Raises:
        ValueError: If there is no region of this name.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> regions = "whole", "outline", "features", "mouth"
        >>> areas = [draw_region(subject.landmarks, name, 512).mean() for name in regions]
        >>> bool(areas[0] > areas[1] > areas[2] > areas[3] > 0)
        True
    """
    mask = np.zeros((size, size), np.float32)
    for points in _region_points(_within_reach(landmarks, size), region):
        cv2.fillConvexPoly(mask, np.round(cv2.convexHull(points)).astype(np.int32), 1.0)
    return mask


def random_mask(
    landmarks: np.ndarray, region: str, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a region of the face with a random elastic deformation and a random soft edge.

    Args:
        landmarks: float[68, 2], in pixels.
        region: A region of `draw_region`.
        size: Side of the mask in pixels.
        rng: Source of randomness.

    Returns:
        float32[size, size], 0 to 1, never empty: where too little of the region is inside the
        crop, the mask is a disk in the middle.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> mask = random_mask(subject.landmarks, "inner", 512, np.random.default_rng(0))
        >>> mask.dtype, float(mask[0].max()), bool(mask.max() > 0.99)
        (dtype('float32'), 0.0, True)
    """
    plain = draw_region(landmarks, region, size)
    if plain.mean() < _MIN_AREA:
        plain = cv2.circle(np.zeros_like(plain), (size // 2, size // 2), size // 4, 1.0, -1)
    scale = face_size(landmarks, size)
    if region in LOCAL_REGIONS:
        scale /= 2
    mask = _deform(plain, 0.06 * scale * rng.uniform(), rng)
    mask = _soften(mask, scale * rng.uniform(-0.12, 0.06), scale * rng.uniform(0.02, 0.12))
    return mask if mask.mean() >= _MIN_AREA else plain


def _within_reach(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return landmarks as float32, those far outside the crop moved closer for OpenCV's sake."""
    return np.clip(landmarks, -4 * size, 5 * size).astype(np.float32)


def _region_points(landmarks: np.ndarray, region: str) -> list[np.ndarray]:
    """Return the points whose hulls make up a region."""
    if region == "inner":
        return [landmarks[INNER_FACE]]
    if region == "outline":
        return [landmarks]
    if region == "whole":
        up = landmarks[27] - landmarks[8]  # from the chin to the root of the nose
        return [np.concatenate([landmarks, landmarks[_BROWS] + 0.35 * up])]
    if region == "features":
        return [landmarks[17:]]
    if region == "lower":
        return [landmarks[_LOWER]]
    if region == "mouth":
        return [_enlarge(landmarks[_MOUTH], 1.2, 0.3)]
    if region == "eyes":
        return [_enlarge(landmarks[eye], 1.3, 0.4) for eye in _EYES]
    names = ", ".join(FACE_REGIONS + LOCAL_REGIONS)
    raise ValueError(f"Expected a region of {names}; got {region!r}. Try 'inner'.")


def _enlarge(points: np.ndarray, factor: float, margin: float) -> np.ndarray:
    """Scale points about their centre and add a margin, a share of their extent, on each side.

    A closed mouth or eye is nearly a line: the factor alone would keep it thin.
    """
    centre = points.mean(axis=0)
    offsets = factor * (points - centre)
    sides = (
        margin * np.abs(offsets).max() * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    )
    return (centre + offsets[:, None] + sides).reshape(-1, 2)


def _deform(mask: np.ndarray, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Shift the pixels of a mask by a smooth random field with this deviation in pixels."""
    size = len(mask)
    coarse = rng.normal(0, amplitude, (6, 6, 2)).astype(np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    steps = np.arange(size, dtype=np.float32)
    field[..., 0] += steps
    field[..., 1] += steps[:, None]
    map_x, map_y = cv2.split(field)
    return cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR)


def _soften(mask: np.ndarray, growth: float, feather: float) -> np.ndarray:
    """Grow or shrink a mask by a distance in pixels, then blur its edge by a Gaussian."""
    side = 2 * round(abs(growth)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    mask = cv2.erode(mask, kernel, borderValue=0) if growth < 0 else cv2.dilate(mask, kernel)
    mask = cv2.GaussianBlur(mask, (0, 0), max(feather, 0.5), borderType=cv2.BORDER_CONSTANT)
    peak = float(mask.max())
    # Weights that change no pixel are 0, so that the mask ends where the fake does.
    return cv2.threshold(mask / max(peak, 1e-6), 1 / 256, 1, cv2.THRESH_TOZERO)[1]
