"""Quality measures of a face, the filters on them, and the choice of the face that a mask marks."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.detect import Box
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.options import FilterOptions, LimitOptions

# Faces are scaled to this width before sharpness is measured, and smoothed with this sigma.
# Without the Gaussian the result depends on resampling: halving a photograph's size reduced it by
# 24 % (median of 60 portraits with boxes of 300 px), with it by 6 %.
SHARPNESS_WIDTH = 100
SHARPNESS_SIGMA = 1.0

# A mean adult face in millimetres: landmark, x to the right of the image, y down, z towards the
# camera; the nasion is the origin. Breadths, heights and the nose's protrusion are means over the
# sexes, rounded, close to those of the reference; the other depths are estimates. The jaw is not
# used, since its visible outline moves over the face as the head turns.
# Reference: Farkas et al.: "International Anthropometric Study of Facial Morphology in Various
# Ethnic Groups/Races" (2005), https://doi.org/10.1097/01.scs.0000171847.58031.9e
MEAN_FACE = {
    27: (0, 0, 0),  # nasion
    30: (0, 43, 25),  # tip of the nose
    31: (-14, 49, 6),  # wings of the nose
    35: (14, 49, 6),
    33: (0, 52, 9),  # below the nose
    36: (-45, 5, -22),  # outer and inner corners of the eyes
    39: (-16, 6, -10),
    42: (16, 6, -10),
    45: (45, 5, -22),
    48: (-26, 74, -6),  # corners of the mouth
    54: (26, 74, -6),
}
# A pixel of a mask is marked if a channel is this bright; codecs brighten black a little.
MARKED = 64
# A frame of a mask with fewer marked pixels marks nothing.
MIN_MARKED_SHARE = 1e-4
# Mean share of the marked pixels that the boxes of the manipulated face contain, at least: dlib's
# square contains more than half of a mask of the face from chin to forehead.
MIN_MASK_OVERLAP = 0.2

_INDICES = list(MEAN_FACE)
_POINTS = np.array([MEAN_FACE[index] for index in _INDICES], dtype=np.float64)
_SOLVE = np.linalg.pinv(_POINTS - _POINTS.mean(axis=0))


@dataclass(frozen=True)
class Quality(Result):
    """Quality of one face.

    The size is measured before any scaling, from the eyebrows to below the lips: about 0.6 of the
    width of an upright crop with margin 1.3.
    """

    # On the scale of the detector; slightly below 0 for a face that was tracked to another frame,
    # NaN for an image that is taken as it is.
    detector_score: float
    sharpness: float  # by `measure_sharpness`
    size_px: int  # width of the detected box in pixels of the frame
    outside: float  # share of the crop outside the frame
    yaw_deg: float  # by `estimate_yaw`; NaN if unknown


def measure_sharpness(pixels: np.ndarray, box: Box) -> float:
    """Compute the variance of the Laplacian of a Gaussian, at the same scale for all faces.

    The grey image in the box is scaled to a width of 100 pixels, by area averaging if it shrinks.
    Large and small faces are therefore comparable, and an enlarged small face counts as blurred.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: Box of the face; only the area within the frame is used.

    Returns:
        Squared grey levels, at least 0: about 20 to 100 for sharp photographs, a few for blurred
        ones. 0 if the box is outside the frame.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> round(measure_sharpness(photograph, Box(179, 83, 266, 170, 1.0)))
        61

    Reference:
        Pech-Pacheco et al.: "Diatom autofocusing in brightfield microscopy: a comparative
        study" (2000), measure LAPV. Marr, Hildreth: "Theory of edge detection" (1980), for the
        Gaussian. The fixed scale is our addition.
    """
    face = pixels[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)]
    if face.size == 0:
        return 0.0
    scale = SHARPNESS_WIDTH / max(box.width, box.bottom - box.top)
    shape = [max(round(side * scale), 1) for side in face.shape[1::-1]]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), shape, interpolation=interpolation)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SHARPNESS_SIGMA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))
    return float(deviation[0, 0] ** 2)


def estimate_yaw(landmarks: np.ndarray) -> float:
    """Estimate the yaw of a head.

    A mean face is fitted to the landmarks by a linear map, and the rotation nearest to that map
    is the direction of the face. Roll, size, position and pitch have no effect. The camera is
    assumed to be far away (weak perspective).

    Args:
        landmarks: float[68, 2], x to the right, y down.

    Returns:
        Degrees, -90 to 90: 0 faces the camera, positive faces the right of the image. 0 if all
        landmarks are on one line. For simulated heads of other shapes (each axis 8 % and each
        point 1.5 mm off, yaw up to 40 degrees) the mean error was 2.4 degrees, and 95 % of errors
        were below 6.

    Example:
        >>> from jdfd_keras.faces.landmarks import find_landmarks
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> round(estimate_yaw(find_landmarks(photograph, Box(179, 83, 266, 170, 1.0))))
        2

    Reference:
        Gee, Cipolla: "Determining the gaze of faces in images" (1994), for weak perspective; the
        fit is that of an affine camera, and the nearest rotation is found by an SVD.
    """
    points = landmarks[_INDICES].astype(np.float64)
    camera = (_SOLVE @ (points - points.mean(axis=0))).T
    u, singular_values, v = np.linalg.svd(camera, full_matrices=False)
    if singular_values[1] <= 1e-9 * max(singular_values[0], 1):
        return 0.0
    right, down = u @ v
    # The direction of the camera in head coordinates, which does not depend on the roll.
    x, _, z = np.cross(right, down)
    return float(np.degrees(np.arctan2(-x, abs(z))))


def check_filters(filters: FilterOptions, *, has_detector: bool = True) -> None:
    """Check that the limits of the filters are within their ranges.

    Args:
        filters: The filters.
        has_detector: Whether faces are detected; otherwise, their score, yaw and area outside the
            frame are unknown, and a filter by one of them is an error.

    Example:
        >>> check_filters(FilterOptions(max_yaw=120))
        Traceback (most recent call last):
            ...
        ValueError: Expected max_yaw from 0 to 90; got 120. The default filters out no face.
    """
    for name, value in vars(filters).items():
        high = {"max_outside": 1, "max_yaw": 90}.get(name, math.inf)
        if not 0 <= value <= high:
            raise ValueError(
                f"Expected {name} from 0 to {high}; got {value}. The default filters out no face."
            )
        is_measured = has_detector or name in ("min_sharpness", "min_size")
        if not is_measured and value != getattr(FilterOptions, name):
            raise ValueError(
                f"Expected no {name} with the detector 'none', which measures neither score nor "
                f"yaw of a face; got {value:g}. Omit it, or filter by sharpness or size."
            )


def filter_reason(quality: Quality, filters: FilterOptions) -> str:
    """Return the first limit that a face exceeds, or "" if it passes.

    The text is the same for all faces that one limit filters out, so that reasons can be counted.
    A measure equal to its limit passes.

    Example:
        >>> quality = Quality(1.0, sharpness=30.0, size_px=20, outside=0.0, yaw_deg=5.0)
        >>> filter_reason(quality, FilterOptions(min_size=40))
        'smaller than 40 px'
    """
    if filters.min_score > 0 and quality.detector_score < filters.min_score:
        return f"detector score below {filters.min_score:g}"
    if quality.size_px < filters.min_size:
        return f"smaller than {filters.min_size:g} px"
    if quality.outside > filters.max_outside:
        return f"outside the frame by more than {filters.max_outside:g}"
    if abs(quality.yaw_deg) > filters.max_yaw:
        return f"turned by more than {filters.max_yaw:g} degrees"
    if quality.sharpness < filters.min_sharpness:
        return f"sharpness below {filters.min_sharpness:g}"
    return ""


def find_marked_track(
    mask: str | Path,
    boxes: Iterable[tuple[int, int, Box]],
    num_frames: int,
    size: tuple[int, int],
    limits: LimitOptions | None = None,
    on_marked: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[int | None, list[str]]:
    """Find the track that a mask marks, such as the manipulated person among several.

    The share of the marked pixels in the box of a track is averaged over the frames in which the
    mask marks pixels and some face was found; the track with the highest mean is the marked one.

    Args:
        mask: Video or image of the same scene: black but for the marked pixels.
        boxes: Index of a frame, track and box in it, of every face.
        num_frames: Frames of the video. A mask with fewer, as some published ones have, says
            nothing of those after its end; an image is a mask of every frame.
        size: Width and height of the frames in pixels; those of the mask may differ.
        limits: Limits of the mask; the defaults if not given.
        on_marked: Called for each face in whose frame the mask marks pixels, with its position in
            `boxes` and with these pixels, bool[height, width].

    Returns:
        The track, None if the mask marks none; and warnings about the mask.

    Raises:
        OSError: If the mask cannot be read.

    Example:
        >>> mask = np.zeros((60, 80), np.uint8)
        >>> mask[20:40, 50:70] = 255
        >>> _ = cv2.imwrite("mask.png", mask)
        >>> boxes = [(0, 0, Box(5, 20, 25, 40, 1.0)), (0, 1, Box(50, 20, 70, 40, 1.0))]
        >>> find_marked_track("mask.png", boxes, num_frames=1, size=(80, 60))
        (1, [])
    """
    overlap: dict[int, float] = defaultdict(float)
    warnings: list[str] = []
    num_marked, by_frame = 0, None
    with open_media(mask, limits) as media:
        for frame in media.read(1, every=1):
            if by_frame is None:
                own_frames = max(media.info.num_frames, 1)
                by_frame = _group_by_frame(boxes, is_image=own_frames == 1)
                if own_frames not in (1, num_frames):
                    warnings.append(
                        f"the mask {media.file.path.name} has {plural(own_frames, 'frame')} and "
                        f"the video {num_frames}: frames are matched by their number"
                    )
            found = by_frame.get(frame.index, [])
            marked = frame.pixels.max(axis=2) >= MARKED if found else np.zeros((1, 1), bool)
            total = np.count_nonzero(marked)
            if total >= max(MIN_MARKED_SHARE * marked.size, 1):
                num_marked += 1
                for position, track_id, box in found:
                    overlap[track_id] += _count_inside(marked, box, size) / total
                    if on_marked:
                        on_marked(position, marked)
            if frame.index >= max(by_frame, default=0):
                break
    best = max(overlap, key=lambda track_id: overlap[track_id], default=None)
    if best is None or overlap[best] < MIN_MASK_OVERLAP * num_marked:
        return None, warnings
    return best, warnings


def _group_by_frame(
    boxes: Iterable[tuple[int, int, Box]], *, is_image: bool
) -> dict[int, list[tuple[int, int, Box]]]:
    """Group positions, tracks and boxes by the frame of the mask, the only one of an image."""
    by_frame: dict[int, list[tuple[int, int, Box]]] = defaultdict(list)
    for position, (index, track_id, box) in enumerate(boxes):
        by_frame[0 if is_image else index].append((position, track_id, box))
    return by_frame


def _count_inside(marked: np.ndarray, box: Box, size: tuple[int, int]) -> int:
    """Count the marked pixels in a box, which is in pixels of frames of another size."""
    height, width = marked.shape
    edges = np.array(box[:4]) * np.array([width, height, width, height]) / (*size, *size)
    left, top, right, bottom = np.maximum(np.rint(edges).astype(int), 0).tolist()
    return int(np.count_nonzero(marked[top:bottom, left:right]))
