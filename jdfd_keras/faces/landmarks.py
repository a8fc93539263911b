"""The 68 facial landmarks of dlib.

Takes a frame and a box; gives points. The trained file comes with the package
`face_recognition_models`; it was trained on the iBUG 300-W set, whose images exclude
commercial use.
"""

import functools
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box

# Counted from 0. Left and right are those of the picture.
LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
NOSE_TIP = 30
MOUTH_LEFT = 48
MOUTH_RIGHT = 54

# Of faces turned within the picture by more degrees, the landmarks are found anew upright.
MOST_ROLL_DEG = 10


def find_landmarks(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Find the 68 landmarks of one face.

    The predictor knows upright faces best: of portraits turned by 20 to 30 degrees its points
    were 2.4 % of the distance between the eyes away from the upright ones' at the median, and
    0.9 % where the picture had been turned back.

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
    left_eye, right_eye = five_points(landmarks)[:2]
    roll_deg = float(np.degrees(np.arctan2(*(right_eye - left_eye)[::-1])))
    if abs(roll_deg) <= MOST_ROLL_DEG:
        return landmarks
    width, center = max(box.width, 1), five_points(landmarks).mean(axis=0)
    turn = cv2.getRotationMatrix2D([float(x) for x in center], roll_deg, 1.0)
    turn[:, 2] += width - center
    upright = cv2.warpAffine(pixels, turn, (2 * width, 2 * width))
    start = width - width // 2
    found = _predict(upright, Box(start, start, start + width, start + width, box.score))
    return cv2.transform(found[None], cv2.invertAffineTransform(turn))[0]


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
