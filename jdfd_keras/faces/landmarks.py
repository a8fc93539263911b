"""Points of the plane: the frontal face, and the similarities that carry faces onto it.

Takes points; gives matrices and points. Knows nothing of pixels.

The 68 facial landmarks of dlib.

Takes a frame and a box; gives points. The trained file comes with the package
`face_recognition_models`; it was trained on the iBUG 300-W set, whose images exclude
commercial use.
"""

import functools
import importlib.util
import math
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box

# Where the five points of a frontal face lie in a tight square of side 1: the common 112-pixel
# template of face recognition, made symmetric about the middle.
# Reference: Deng et al.: "ArcFace" (2019), https://arxiv.org/abs/1801.07698
FRONTAL_FACE = np.array(
    [[0.3427, 0.4607], [0.6573, 0.4607], [0.5, 0.6405], [0.3694, 0.8240], [0.6306, 0.8240]]
)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the rotation, scale and shift that carry points onto others, in least squares.

    Points are taken as complex numbers, where a similarity is z -> a z + b: the normal
    equations then have one line. Mirror images are not fitted.

    Args:
        source: float[n, 2], n >= 2.
        target: float[n, 2].

    Returns:
        float64[2, 3], the affine matrix.

    Raises:
        ValueError: If all source points are one.

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
            f"{source[0].tolist()} {len(source)} times. The landmarks are not of a face."
        )
    a = np.sum(np.conj(p - p.mean()) * (q - q.mean())) / spread
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carry points by an affine matrix: float[n, 2] and float[2, 3] give float[n, 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


# Counted from 0. Left and right are those of the picture.
LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
NOSE_TIP = 30
MOUTH_LEFT = 48
MOUTH_RIGHT = 54

# Width of dlib's box over that of the tight face, whose middle it shares: mean of 120 portraits.
BOX_WIDTH = 0.82
# Of faces turned within the picture by more degrees, the landmarks are found in an upright copy.
MOST_ROLL_DEG = 10


def find_landmarks(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Find the 68 landmarks of one face.

    The predictor knows upright faces best. Of portraits turned by 20 to 30 degrees its points
    were 2.4 % of the distance between the eyes away from those of the upright picture at the
    median, and 0.9 % after a second prediction in a copy turned back: turned faces get one.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: The face, as a detector gives it.

    Returns:
        float32[68, 2], x and y in pixels of the frame; some may lie outside of it.

    Raises:
        OSError: If the landmark file is not installed.

    Reference:
        Kazemi, Sullivan: "One Millisecond Face Alignment with an Ensemble of Regression Trees"
        (2014). Sagonas et al.: "300 Faces In-The-Wild Challenge" (2016).
    """
    landmarks = _predict(pixels, box)
    place, roll_deg = enclose(landmarks)
    if abs(roll_deg) <= MOST_ROLL_DEG:
        return landmarks
    return find_turned_landmarks(pixels, place.resize(box.width), roll_deg)


def find_turned_landmarks(pixels: np.ndarray, box: Box, roll_deg: float) -> np.ndarray:
    """Find the landmarks of a face of which it is known how far it is turned.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: The square around the face, as a detector would draw it in the picture turned back.
        roll_deg: The turn of the face within the picture, as `enclose` gives it.

    Returns:
        float32[68, 2].
    """
    if abs(roll_deg) <= MOST_ROLL_DEG:
        return _predict(pixels, box)
    width = box.width
    turn = cv2.getRotationMatrix2D(box.center, roll_deg, 1.0)
    turn[:, 2] += width - np.array(box.center)
    upright = cv2.warpAffine(pixels, turn, (2 * width, 2 * width))
    start = width - width // 2
    found = _predict(upright, Box(start, start, start + width, start + width, 0.0))
    return cv2.transform(found[None], cv2.invertAffineTransform(turn))[0]


def enclose(landmarks: np.ndarray) -> tuple[Box, float]:
    """Say where a face is: steadier than the box of a detector, which comes in steps.

    Args:
        landmarks: float[68, 2].

    Returns:
        The square that dlib would draw on average, its score 0; its own differ from it by 8 %
        in width, by the person and by the steps of its search. And the turn within the picture
        in degrees, -180 to 180, clockwise above 0.
    """
    five = five_points(landmarks)
    if not np.ptp(five, axis=0).any():  # no face, but a place all the same
        five = five + FRONTAL_FACE
    a, b = fit_similarity(FRONTAL_FACE, five)[:, 0].tolist()
    width = max(round(BOX_WIDTH * math.hypot(a, b)), 2)
    x, y = five.mean(axis=0).tolist()
    left, top = round(x - width / 2), round(y - width / 2)
    return Box(left, top, left + width, top + width, 0.0), math.degrees(math.atan2(b, a))


def _predict(pixels: np.ndarray, box: Box) -> np.ndarray:
    import dlib

    shape = _predictor()(pixels, dlib.rectangle(*box[:4]))
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Reduce 68 landmarks to the five that alignment uses.

    Args:
        landmarks: float[68, 2].

    Returns:
        float[5, 2]: centre of the left eye, of the right eye, nose tip, left and right corner
        of the mouth.
    """
    return np.stack(
        [
            landmarks[LEFT_EYE].mean(axis=0),
            landmarks[RIGHT_EYE].mean(axis=0),
            landmarks[NOSE_TIP],
            landmarks[MOUTH_LEFT],
            landmarks[MOUTH_RIGHT],
        ]
    )


@functools.cache
def _predictor():
    import dlib

    return dlib.shape_predictor(str(model_file("shape_predictor_68_face_landmarks.dat")))


def model_file(name: str) -> Path:
    """Find one of dlib's trained files.

    Raises:
        OSError: If the package that carries them is not installed.
    """
    # Found, not imported: the package's own code needs pkg_resources, which setuptools dropped.
    package = importlib.util.find_spec("face_recognition_models")
    if package is None:
        raise OSError(
            "Expected the package face_recognition_models, which carries dlib's 68-landmark "
            "file; got none installed. Try `pip install face_recognition_models`."
        )
    return Path(package.submodule_search_locations[0]) / "models" / name
