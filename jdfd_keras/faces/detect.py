"""Face detectors with a common protocol: frames to boxes."""

import functools
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

# Frames are searched at no more pixels than 1080p has after doubling: a larger frame takes
# seconds, and faces of 40 pixels in it are not usable.
MAX_PIXELS = 4 * 1920 * 1080
MTCNN_LONGEST_SIDE = 1280
# dlib's smallest face is 80 pixels; one of this width is found at the first or second scale.
LOCAL_FACE_WIDTH = 100
# The score threshold of a local search may be lower than that of a search in the whole frame.
LOCAL_MIN_SCORE = -0.3


class Box(NamedTuple):
    """A detected face: edges in pixels of the frame, as dlib defines them, and detector score.

    It may extend beyond the frame. With either detector it is the square from the eyebrows to
    below the lips on which the landmark predictor was trained. Of an image that is taken as it is,
    it is the whole image, which need not be a square, and the score is NaN.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float

    @property
    def width(self) -> int:
        """Width, which equals the height of a detected face."""
        return self.right - self.left

    @property
    def center(self) -> tuple[float, float]:
        """Centre of the square, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def area(self) -> int:
        """Area in pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def resize(self, width: float, shift: tuple[float, float] = (0.0, 0.0)) -> "Box":
        """Return a square of another width, its centre moved by `shift`."""
        x, y = self.center
        left, top = round(x + shift[0] - width / 2), round(y + shift[1] - width / 2)
        side = max(round(width), 2)
        return Box(left, top, left + side, top + side, self.score)


def overlap(box: Box, other: Box) -> float:
    """Compute the intersection over union of two boxes, 0 to 1.

    Example:
        >>> overlap(Box(0, 0, 10, 10, 1.0), Box(0, 0, 10, 5, 1.0))
        0.5
    """
    width = min(box.right, other.right) - max(box.left, other.left)
    height = min(box.bottom, other.bottom) - max(box.top, other.top)
    shared = max(width, 0) * max(height, 0)
    return shared / (box.area + other.area - shared) if shared else 0.0


class FaceDetector(Protocol):
    """Finds faces in whole frames."""

    batch_size: int  # preferred number of frames per call
    supports_local_search: bool  # whether `find_near` can find its faces, in less time than `find`

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Return the boxes of all faces of each frame, in no particular order.

        Args:
            frames: uint8[height, width, 3], RGB, all of the same size.
            thorough: Whether to find small faces, too; if False, a detector may miss faces below
                80 pixels.
        """
        ...


def face_detector(name: str) -> FaceDetector:
    """Return a face detector.

    Args:
        name: `dlib` (histogram of oriented gradients: upright faces from 40 pixels in frames up
            to 1080p, from 80 pixels in 4K), `mtcnn` (a cascade of three networks: slower, also
            finds rotated and small faces) or `mesh` (the same boxes as `dlib`; its landmarks are
            others, by `face_mesh`).

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> [[box]] = face_detector("dlib").find([photograph])
        >>> box.center
        (221.0, 121.5)

    Reference:
        King: "Dlib-ml" (2009). Zhang et al.: "Joint Face Detection and Alignment Using
        Multitask Cascaded Convolutional Networks" (2016), https://arxiv.org/abs/1604.02878
    """
    detectors = {"dlib": DlibDetector, "mtcnn": MtcnnDetector, "mesh": DlibDetector}
    if name not in detectors:
        names = ", ".join(map(repr, detectors))
        raise ValueError(
            f"Expected the detector {names}, or 'none' for images of faces; got {name!r}. Choose "
            "one of them."
        )
    return detectors[name]()


class DlibDetector:
    """dlib's detector, on grey images: as accurate as on colours, in two thirds of the time."""

    batch_size = 1
    supports_local_search = True

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Find all faces; see FaceDetector."""
        return [_run_dlib(pixels, _scale(pixels, thorough), (0, 0), 0.0) for pixels in frames]


def _scale(pixels: np.ndarray, thorough: bool) -> float:
    scale = min(2.0, np.sqrt(MAX_PIXELS / (pixels.shape[0] * pixels.shape[1])))
    return scale if thorough else scale / 2


def find_in_window(
    pixels: np.ndarray, window: tuple[int, int, int, int], *, thorough: bool
) -> list[Box]:
    """Find faces in a part of a frame, with dlib, at the scales of a search in the whole frame.

    Its steps begin at the window, so that boxes and scores differ a little from those in the whole
    frame: faces are found from a lower score on.

    Args:
        pixels: uint8[height, width, 3], RGB.
        window: Left, top, right and bottom edge.
        thorough: As for `FaceDetector.find`.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> [box] = find_in_window(photograph, (120, 40, 320, 220), thorough=True)
        >>> bool(overlap(box, Box(179, 83, 266, 170, 1.0)) > 0.7)
        True
    """
    left, top, right, bottom = window
    scale = _scale(pixels, thorough)
    return _run_dlib(pixels[top:bottom, left:right], scale, (left, top), LOCAL_MIN_SCORE)


def find_near(pixels: np.ndarray, box: Box, reach: float) -> list[Box]:
    """Find faces near a previous position, with dlib.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: Box of the face in an adjacent frame.
        reach: Width of the search window divided by the width of the box, above 1.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> [box] = find_near(photograph, Box(170, 80, 257, 167, 1.0), reach=1.7)
        >>> box.left, box.top
        (177, 77)
    """
    half = reach * box.width / 2
    x, y = box.center
    left, top = max(round(x - half), 0), max(round(y - half), 0)
    window = pixels[top : max(round(y + half), 0), left : max(round(x + half), 0)]
    if not window.size:
        return []
    return _run_dlib(window, LOCAL_FACE_WIDTH / box.width, (left, top), LOCAL_MIN_SCORE)


def _run_dlib(
    pixels: np.ndarray, scale: float, origin: tuple[int, int], min_score: float
) -> list[Box]:
    """Detect at one scale; `origin` is the position of the pixels in the frame."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if scale != 1:
        shape = [max(round(side * scale), 1) for side in grey.shape[::-1]]
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.resize(grey, shape, interpolation=interpolation)
    rectangles, scores, _ = _dlib_detector().run(grey, 0, min_score)
    boxes = []
    for r, score in zip(rectangles, scores, strict=True):
        left, top, right, bottom = (
            round(edge / scale) for edge in (r.left(), r.top(), r.right(), r.bottom())
        )
        x, y = origin
        boxes.append(Box(left + x, top + y, right + x, bottom + y, float(score)))
    return boxes


def import_dlib() -> Any:
    """Import dlib, a compiled module without types, on first use.

    Example:
        >>> import_dlib().rectangle(1, 2, 3, 4).width()
        3
    """
    return importlib.import_module("dlib")


@functools.cache
def _dlib_detector() -> Any:
    return import_dlib().get_frontal_face_detector()


class MtcnnDetector:
    """Detector of the package mtcnn, on TensorFlow; large frames are scaled down first."""

    batch_size = 8
    supports_local_search = False

    def find(self, frames: Sequence[np.ndarray], *, thorough: bool = True) -> list[list[Box]]:
        """Find all faces; see FaceDetector. The search is always thorough."""
        height, width = frames[0].shape[:2]
        scale = min(1.0, MTCNN_LONGEST_SIDE / max(height, width))
        if scale < 1:
            shape = max(round(width * scale), 1), max(round(height * scale), 1)
            frames = [cv2.resize(frame, shape, interpolation=cv2.INTER_AREA) for frame in frames]
        # Its min_face_size stays at 20: with larger values its image pyramid becomes smaller than
        # the input of the network (1.0.0).
        return [
            [_to_square([x / scale for x in face["box"]], face["confidence"]) for face in faces]
            for faces in _mtcnn_detector().detect_faces(list(frames))
        ]


@functools.cache
def _mtcnn_detector() -> Any:
    from mtcnn import MTCNN

    return MTCNN()


def _to_square(box: list[float], score: float) -> Box:
    """Convert MTCNN's rectangle to the square that dlib would return.

    On 37 portraits that both detected, the width of dlib's square was 0.83 of the height of the
    rectangle (standard deviation 0.03), and its centre 0.075 of the height lower.
    """
    left, top, width, height = box
    half = 0.83 * height / 2
    x, y = left + width / 2, top + 0.575 * height
    return Box(round(x - half), round(y - half), round(x + half), round(y + half), float(score))
