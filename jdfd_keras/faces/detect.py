"""Face detectors behind one small protocol.

Takes frames; gives boxes. Knows nothing of landmarks, of other frames or of files.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np

# Frames are searched at no more pixels than 1080p has when it is enlarged twofold: a larger one
# costs seconds, and its faces of 40 pixels say nothing.
MOST_PIXELS = 4 * 1920 * 1080
MTCNN_LONGEST_SIDE = 1280
# dlib's smallest face is 80 pixels; one of this width is found at its first try or its second.
WINDOW_FACE = 100
# A followed face may look a little less like a face than one that comes out of nothing.
FOLLOWED_SCORE = -0.3


class Box(NamedTuple):
    """A detected face in pixels of the frame, edges as dlib counts them, and its score.

    It may reach beyond the frame. The square spans from the eyebrows to below the lips, which
    is what the landmark predictor was trained on, whichever detector found it.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float

    @property
    def width(self) -> int:
        """Width of the square; it is as high."""
        return self.right - self.left

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the square, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def area(self) -> int:
        """Pixels of the square."""
        return (self.right - self.left) * (self.bottom - self.top)

    def resize(self, width: float, shift: tuple[float, float] = (0.0, 0.0)) -> "Box":
        """Make the square another one: of that width, its middle moved by `shift`."""
        x, y = self.center
        left, top = round(x + shift[0] - width / 2), round(y + shift[1] - width / 2)
        side = max(round(width), 2)
        return Box(left, top, left + side, top + side, self.score)


def overlap(box: Box, other: Box) -> float:
    """Measure how much two boxes are one: intersection over union, 0 to 1."""
    width = min(box.right, other.right) - max(box.left, other.left)
    height = min(box.bottom, other.bottom) - max(box.top, other.top)
    shared = max(width, 0) * max(height, 0)
    return shared / (box.area + other.area - shared) if shared else 0.0


class FaceDetector(Protocol):
    """What finds faces in whole frames.

    Attributes:
        batch_size: Frames that it likes to be given at once.
        follows: Whether `find_near` may look for its faces: it costs less than the whole frame.
    """

    batch_size: int
    follows: bool

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Find all faces.

        Args:
            frames: uint8[height, width, 3], RGB, all of one size.
            thorough: Look for small faces too; where it is False, a detector may pass over
                those below 80 pixels.

        Returns:
            The boxes of each frame, in no particular order.
        """


def face_detector(name: str) -> FaceDetector:
    """Choose a face detector.

    Args:
        name: `dlib` (histogram of oriented gradients: upright faces from 40 pixels in frames up
            to 1080p, from 80 pixels in 4K) or `mtcnn` (a cascade of three networks; finds turned
            and small faces, and is slower).

    Raises:
        ValueError: If the name is neither.

    Reference:
        King: "Dlib-ml" (2009). Zhang et al.: "Joint Face Detection and Alignment Using
        Multitask Cascaded Convolutional Networks" (2016), https://arxiv.org/abs/1604.02878
    """
    if name == "dlib":
        return DlibDetector()
    if name == "mtcnn":
        return MtcnnDetector()
    raise ValueError(f"Expected the detector 'dlib' or 'mtcnn'; got {name!r}. Choose one of them.")


class DlibDetector:
    """dlib's detector, on grey levels: as good as on colours, in two thirds of the time."""

    batch_size = 1
    follows = True

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Find all faces, as FaceDetector says."""
        return [self._find(frame, thorough) for frame in frames]

    def _find(self, pixels: np.ndarray, thorough: bool) -> list[Box]:
        scale = min(2.0, np.sqrt(MOST_PIXELS / (pixels.shape[0] * pixels.shape[1])))
        return _run_dlib(pixels, scale if thorough else scale / 2, (0, 0), 0.0)


def find_near(pixels: np.ndarray, box: Box, reach: float) -> list[Box]:
    """Look for a face around the place where it was, with dlib.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: Where it was in a frame just before.
        reach: Width of the window looked at over the width of the box, above 1.

    Returns:
        The boxes found in the window, of which one may be the face.
    """
    half = reach * box.width / 2
    x, y = box.center
    left, top = max(round(x - half), 0), max(round(y - half), 0)
    window = pixels[top : max(round(y + half), 0), left : max(round(x + half), 0)]
    if not window.size:
        return []
    return _run_dlib(window, WINDOW_FACE / box.width, (left, top), FOLLOWED_SCORE)


def _run_dlib(
    pixels: np.ndarray, scale: float, origin: tuple[int, int], least_score: float
) -> list[Box]:
    """Detect at a scale; `origin` is where the pixels begin in the frame."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if scale != 1:
        shape = tuple(max(round(side * scale), 1) for side in grey.shape[::-1])
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.resize(grey, shape, interpolation=how)
    rectangles, scores, _ = _dlib_detector().run(grey, 0, least_score)
    return [
        Box(
            round(r.left() / scale) + origin[0],
            round(r.top() / scale) + origin[1],
            round(r.right() / scale) + origin[0],
            round(r.bottom() / scale) + origin[1],
            float(score),
        )
        for r, score in zip(rectangles, scores, strict=True)
    ]


@functools.cache
def _dlib_detector():
    import dlib

    return dlib.get_frontal_face_detector()


class MtcnnDetector:
    """The package mtcnn, on TensorFlow; large frames are made smaller first."""

    batch_size = 8
    follows = False

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Find all faces, as FaceDetector says; it is always thorough."""
        height, width = frames[0].shape[:2]
        scale = min(1.0, MTCNN_LONGEST_SIDE / max(height, width))
        if scale < 1:
            shape = max(round(width * scale), 1), max(round(height * scale), 1)
            frames = [cv2.resize(frame, shape, interpolation=cv2.INTER_AREA) for frame in frames]
        return [
            [_to_square(*(edge / scale for edge in face["box"]), face["confidence"]) for face in of]
            for of in _run_mtcnn(list(frames))
        ]


@functools.cache
def _mtcnn_detector():
    from mtcnn import MTCNN

    return MTCNN()


def _run_mtcnn(frames: list[np.ndarray]) -> list[list[dict]]:
    # Its min_face_size stays at 20: with larger ones its pyramid goes below the input of the
    # network (1.0.0).
    return _mtcnn_detector().detect_faces(frames)


def _to_square(left: float, top: float, width: float, height: float, score: float) -> Box:
    """Turn MTCNN's upright oblong into the square that dlib would have drawn.

    On 37 portraits of both detectors dlib's square was 0.83 of the oblong's height wide
    (standard deviation 0.03) and sat 0.075 of it lower.
    """
    half = 0.83 * height / 2
    x, y = left + width / 2, top + 0.575 * height
    return Box(round(x - half), round(y - half), round(x + half), round(y + half), float(score))
