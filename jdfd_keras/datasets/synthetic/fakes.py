"""Blended fakes of a real face, made while training.

Takes a crop with its 68 landmarks and a kind of FAKE_KINDS, or WARPED; returns a fake that equals
the crop outside a mask. A network that learns from such fakes finds the traces of blending and of
re-rendering, which most face forgeries share. Independent of files and TensorFlow; OpenCV does
nearly all of the work, so several threads can make fakes at the same time.

Reference:
    Li et al.: "Face X-ray for More General Face Forgery Detection" (2020),
    https://arxiv.org/abs/1912.13458 (swapped). Shiohara, Yamasaki: "Detecting Deepfakes with
    Self-Blended Images" (2022), https://arxiv.org/abs/2204.08376 (self-blended). Thies et al.:
    "Face2Face" (2016), https://arxiv.org/abs/2007.14808, and "Deferred Neural Rendering" (2019),
    https://arxiv.org/abs/1904.12356 (the forgeries that local edits resemble).
"""

from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from jdfd_keras.datasets.synthetic.blending import match_colour
from jdfd_keras.datasets.synthetic.face_warping import warp_face
from jdfd_keras.datasets.synthetic.masks import (
    FACE_REGIONS,
    draw_region,
    face_size,
    random_mask,
)
from jdfd_keras.faces.landmarks import fit_similarity, transform_points
from jdfd_keras.options import FAKE_KINDS, WARPED

_Choice = TypeVar("_Choice")

_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # blending ratios of self-blended images
_UPSAMPLING = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
# Without the forehead, where a donor has hair or a hat.
_SWAPPED_REGIONS = ("inner", "outline", "features")
_GRID = 20  # cells of the field of a warp, per side
_MOUTH, _CHIN = np.arange(48, 68), np.arange(5, 12)
_EYES = (np.arange(36, 42), np.arange(42, 48))
_LOWER_LIP = np.r_[55:60, 65:68]


class BlendedFake(NamedTuple):
    """A fake of a face and where it differs from it.

    Attributes:
        pixels: uint8[size, size, 3], RGB.
        mask: float32[size, size], the weight of the forged face, 0 to 1. Where it is 0 the pixels
            equal those of the real face.
    """

    pixels: np.ndarray
    mask: np.ndarray


def make_fake(
    kind: str,
    face: np.ndarray,
    landmarks: np.ndarray,
    rng: np.random.Generator,
    donor: tuple[np.ndarray, np.ndarray] | None = None,
) -> BlendedFake:
    """Make a blended fake of a real face.

    - "self-blended": the face is blended with a copy of itself whose colours, sharpness, scale
      and position differ a little. (The paper changes the copy or its surroundings; here it is
      always the copy, so that nothing changes outside the mask.)
    - "swapped": the face of a donor is warped onto the landmarks, with matched colours.
    - "re-rendered": the face is rendered again at a low resolution, as by a generator.
    - "local": mouth, lower face or eyes are moved by a smooth warp and rendered again.
    - "warped": the face is warped to a small square and back, as by `face_warping.warp_face`.

    Args:
        kind: A kind of FAKE_KINDS, or WARPED.
        face: uint8[size, size, 3], RGB, the crop of a real face.
        landmarks: float[68, 2], its landmarks in pixels; finite, outside of the crop too.
        rng: Source of randomness; an equal one gives an equal fake.
        donor: Crop and landmarks of another person, for "swapped" only.

    Raises:
        ValueError: If the kind is unknown, or "swapped" without a donor.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> rng = np.random.default_rng(0)
        >>> fake = make_fake("self-blended", subject.pixels, subject.landmarks, rng)
        >>> is_equal = (fake.pixels == subject.pixels).all(axis=-1)
        >>> bool(is_equal[fake.mask == 0].all()), bool(is_equal[fake.mask > 0.5].all())
        (True, False)
    """
    if kind == WARPED:
        return BlendedFake(*warp_face(face, landmarks, rng))
    size = len(face)
    landmarks = np.clip(landmarks, -4 * size, 5 * size)
    if kind == "self-blended":
        forged, mask = _blend_with_itself(face, landmarks, rng)
    elif kind == "swapped":
        if donor is None:
            raise ValueError(
                "Expected a donor for a swapped face; got None. Try another kind for a dataset of "
                "a single person."
            )
        mask = random_mask(landmarks, _choose(_SWAPPED_REGIONS, rng), size, rng)
        forged = _swap(face, landmarks, donor, rng)
    elif kind == "re-rendered":
        mask = random_mask(landmarks, _choose(FACE_REGIONS, rng), size, rng)
        forged = _rerender(face, rng, (0.25, 0.7))
        forged = _change_colours(forged, rng, 0.5)
    elif kind == "local":
        forged, mask = _edit_locally(face, landmarks, rng)
    else:
        kinds = ", ".join([*FAKE_KINDS, WARPED])
        raise ValueError(f"Expected a kind of {kinds}; got {kind!r}. Try 'local'.")
    blended = face + mask[..., None] * (forged.astype(np.float32) - face)
    return BlendedFake(np.round(blended).astype(np.uint8), mask)


def smooth_warp(
    image: np.ndarray, landmarks: np.ndarray, target: np.ndarray, size: int, radius: float
) -> np.ndarray:
    """Warp an image so that its landmarks move smoothly towards target landmarks.

    A similarity transform aligns all landmarks; what it leaves over is averaged around each
    pixel with Gaussian weights. Faster than a piecewise affine transform and without its edges;
    the landmarks are met closely, not exactly.

    Args:
        image: uint8[h, w, 3].
        landmarks: float[n, 2], in pixels of the image.
        target: float[n, 2], in pixels of the result.
        size: Side of the result in pixels.
        radius: Standard deviation of the Gaussian in pixels.

    Returns:
        uint8[size, size, 3]; the image is mirrored where the result extends beyond it.

    Example:
        >>> image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, axis=2)
        >>> corners = np.float64([[1, 1], [6, 1], [6, 6], [1, 6]])
        >>> bool((smooth_warp(image, corners, corners, 8, 2.0) == image).all())
        True
        >>> smooth_warp(image, corners, corners + (2, 0), 8, 2.0)[0, :, 0].tolist()
        [2, 1, 0, 1, 2, 3, 4, 5]
    """
    target, landmarks = target.astype(np.float64), landmarks.astype(np.float64)
    if np.ptp(target) > 0:
        align = fit_similarity(target, landmarks)
    else:  # all landmarks at one point, which is no face
        align = np.column_stack([np.eye(2), landmarks.mean(axis=0) - target.mean(axis=0)])
    rest = landmarks - transform_points(align, target)

    cells = (np.arange(_GRID) + 0.5) * size / _GRID - 0.5  # centres, as in cv2.resize
    x, y = target.T
    squares = (cells[:, None, None] - y) ** 2 + (cells[:, None] - x) ** 2
    weights = np.exp(squares / (-2 * radius**2))
    moved = (weights @ rest) / (weights.sum(axis=2, keepdims=True) + 0.1)
    field = cv2.resize(moved.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    steps = np.arange(size)
    for axis, (by_x, by_y, shift) in enumerate(align):
        field[..., axis] += np.add.outer(by_y * steps, by_x * steps + shift).astype(np.float32)
    map_x, map_y = cv2.split(field)
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _choose(choices: tuple[_Choice, ...], rng: np.random.Generator) -> _Choice:
    return choices[int(rng.integers(len(choices)))]


def _blend_with_itself(
    face: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a changed copy of a face, and its mask."""
    size = len(face)
    scale = face_size(landmarks, size)
    jittered = landmarks + rng.normal(0, 0.02 * scale, landmarks.shape)
    mask = random_mask(jittered, _choose(FACE_REGIONS, rng), size, rng)
    forged = _change_colours(face, rng, 1.0)
    forged = _change_sharpness(forged, rng)
    # A copy moved or scaled against its surroundings; the mask goes with it.
    zoom = rng.uniform(0.95, 1.05, 2)
    offset = rng.uniform(-0.03, 0.03, 2) * scale + (1 - zoom) * size / 2
    move = np.array([[zoom[0], 0, offset[0]], [0, zoom[1], offset[1]]])
    forged = cv2.warpAffine(forged, move, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    moved = cv2.warpAffine(mask, move, (size, size))
    mask = moved if moved.any() else mask
    return forged, mask * np.float32(_choose(_RATIOS, rng))


def _swap(
    face: np.ndarray,
    landmarks: np.ndarray,
    donor: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a donor's face at the landmarks of a face, with its colours."""
    image, origin = donor
    size = len(face)
    origin = np.clip(origin, -4 * len(image), 5 * len(image))
    forged = smooth_warp(image, origin, landmarks, size, 0.1 * face_size(landmarks, size))
    if rng.uniform() < 0.5:
        forged = _rerender(forged, rng, (0.4, 0.9))
    # Under the blending mask would be hair and background too, which differ in colour.
    return match_colour(forged, face, draw_region(landmarks, "features", size))


def _edit_locally(
    face: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a face with a moved mouth or moved eyes, rendered again, and the mask of the edit."""
    size = len(face)
    scale = face_size(landmarks, size)
    region = _choose(("lower", "lower", "mouth", "eyes"), rng)
    edited = landmarks.astype(np.float64)
    if region == "eyes":
        opening = rng.uniform(0.4, 1.4)
        for eye in _EYES:
            centre = edited[eye].mean(axis=0)
            edited[eye] = centre + (edited[eye] - centre) * (1.0, opening)
            edited[eye] += rng.normal(0, 0.01 * scale, 2)
    else:
        centre = edited[_MOUTH].mean(axis=0)
        edited[_MOUTH] = centre + (edited[_MOUTH] - centre) * rng.uniform(0.8, 1.2, 2)
        edited[_MOUTH] += rng.normal(0, 0.015 * scale, 2)
        drop = np.array([0, rng.uniform(-0.03, 0.07) * scale])
        edited[_LOWER_LIP] += drop
        edited[_CHIN] += drop / 2
    mask = random_mask(edited, region, size, rng)
    forged = smooth_warp(face, landmarks, edited, size, 0.07 * scale)
    forged = _rerender(forged, rng, (0.4, 0.8))
    return _change_colours(forged, rng, 0.4), mask


def _rerender(
    image: np.ndarray, rng: np.random.Generator, scales: tuple[float, float]
) -> np.ndarray:
    """Render an image at a low resolution, with a kernel that is drawn, and enlarge it again."""
    size = len(image)
    small = max(4, round(size * rng.uniform(*scales)))
    low = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(low, (size, size), interpolation=_choose(_UPSAMPLING, rng))


def _change_colours(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Change brightness, contrast, hue, saturation and each channel, in one linear transform."""
    contrast = 1 + strength * rng.uniform(-0.12, 0.12)
    saturation = 1 + strength * rng.uniform(-0.3, 0.3)
    hue = strength * rng.uniform(-0.15, 0.15)  # radians
    offset = strength * (rng.uniform(-12, 12) + rng.uniform(-12, 12, 3))
    grey = np.full((3, 3), 1 / 3)
    turned = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    chroma = np.cos(hue) * (np.eye(3) - grey) + np.sin(hue) * turned
    matrix = contrast * (grey + saturation * chroma)
    middle = np.array(cv2.mean(image)[:3]).mean()
    offset += (1 - contrast) * middle
    return cv2.transform(image, np.column_stack([matrix, offset]))


def _change_sharpness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sharpen, blur or re-render an image."""
    choice = rng.integers(3)
    if choice == 0:
        return _rerender(image, rng, (0.25, 0.9))
    deviation = len(image) / 160 * rng.uniform(0.5, 2.0)
    blurred = cv2.GaussianBlur(image, (0, 0), deviation)
    if choice == 1:
        return blurred
    amount = rng.uniform(0.2, 1.0)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)
