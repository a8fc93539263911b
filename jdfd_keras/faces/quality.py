"""How well a face can be seen: measures, and the limits that a data set may set on them.

Takes a frame with the face's box, and landmarks; gives numbers, and the reason to leave a face
out, if there is one. Knows nothing of files, labels or how crops are cut.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.options import FilterOptions

# The width to which every face is brought before its sharpness is measured, and the sigma of
# the Gaussian there. Without it the blur of resampling itself counts: halving a photograph's
# size took 24 % off (median of 60 portraits with boxes of 300 px), with it 6 %.
SHARPNESS_WIDTH = 100
SHARPNESS_SIGMA = 1.0

# A mean adult face in millimetres: landmark, x to the right of the picture, y down, z towards
# the camera; the nasion is the origin. Breadths, heights and the nose's protrusion are means
# over the sexes, rounded, and about those of the reference; the other depths are estimates.
# Corners of eyes and mouth, nose and nothing of the jaw: its outline slides as a head turns.
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
_INDICES = list(MEAN_FACE)
_POINTS = np.array([MEAN_FACE[index] for index in _INDICES], dtype=np.float64)
_SOLVE = np.linalg.pinv(_POINTS - _POINTS.mean(axis=0))


@dataclass(frozen=True)
class Quality:
    """How well one face can be seen.

    Attributes:
        detector_score: The detector's own score of the box, on its own scale; of a face that
            was followed from another frame it may be a little below 0.
        sharpness: As `measure_sharpness` gives it.
        size_px: Width of the detected box in pixels of the frame, as `Box.width` gives it: from
            the brows to below the lips, about 0.6 of what an upright crop with margin 1.3 covers.
            It counts what was filmed, not what a crop is enlarged to.
        outside: As `faces.align.align_face` gives it: share of the crop outside the frame.
        yaw_deg: As `estimate_yaw` gives it.
    """

    detector_score: float
    sharpness: float
    size_px: int
    outside: float
    yaw_deg: float


def measure_sharpness(pixels: np.ndarray, box: Box) -> float:
    """Measure the variance of the Laplacian of a Gaussian, at one scale for all faces.

    What the box shows is made grey and brought to the scale at which the box is 100 pixels
    wide, by area averaging if it shrinks: so large and small faces compare, and a small face
    that was enlarged counts as blurred, as it is.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: The face; what lies beyond the frame is left out.

    Returns:
        Squared grey levels, at least 0: some 20 to 100 for sharp photographs, a few for blurred
        ones. 0 if the box shows nothing of the frame.

    Reference:
        Pech-Pacheco et al.: "Diatom autofocusing in brightfield microscopy: a comparative
        study" (2000), its measure LAPV. Marr, Hildreth: "Theory of edge detection" (1980), for
        the Gaussian. The fixed scale is our addition.
    """
    face = pixels[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)]
    if face.size == 0:
        return 0.0
    scale = SHARPNESS_WIDTH / max(box.right - box.left, box.bottom - box.top)
    shape = tuple(max(round(side * scale), 1) for side in face.shape[1::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), shape, interpolation=how)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SHARPNESS_SIGMA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))
    return float(deviation[0, 0] ** 2)


def estimate_yaw(landmarks: np.ndarray) -> float:
    """Estimate how far a head is turned to the side.

    A mean face is laid upon the landmarks by a linear fit, the nearest rotation of which gives
    the direction of the face: rotation within the picture, size and place do not matter, nor
    does a nod. A photograph from close by is taken as one from afar.

    Args:
        landmarks: float[68, 2], x to the right, y down.

    Returns:
        Degrees, -90 to 90; 0 looks into the camera, above 0 to the right of the picture (the
        nose tip then lies right of the middle of the eyes). 0 too where the landmarks show
        nothing, being all on one line. Heads of other shape (each axis 8 % and each point 1.5 mm
        off, turned up to 40 degrees) were estimated to 2.4 degrees on average, 95 % to 6.

    Reference:
        Gee, Cipolla: "Determining the gaze of faces in images" (1994), for weak perspective;
        the fit is that of an affine camera, with the nearest rotation by singular values.
    """
    points = landmarks[_INDICES].astype(np.float64)
    camera = (_SOLVE @ (points - points.mean(axis=0))).T
    u, strengths, v = np.linalg.svd(camera, full_matrices=False)
    if strengths[1] <= 1e-9 * max(strengths[0], 1):
        return 0.0
    right, down = u @ v
    # Where the camera is, seen from the head: the same however the picture is turned.
    x, _, z = np.cross(right, down)
    return float(np.degrees(np.arctan2(-x, abs(z))))


def check_filters(filters: FilterOptions) -> None:
    """See that limits are within their ranges.

    Raises:
        ValueError: If one is not.
    """
    ranges = {
        "min_score": (0, np.inf),
        "min_sharpness": (0, np.inf),
        "min_size": (0, np.inf),
        "max_outside": (0, 1),
        "max_yaw": (0, 90),
    }
    for name, (low, high) in ranges.items():
        value = getattr(filters, name)
        if not low <= value <= high:
            raise ValueError(
                f"Expected {name} from {low} to {high}; got {value}. The default leaves no face "
                "out."
            )


def find_fault(quality: Quality, filters: FilterOptions) -> str:
    """Find why a face is to be left out.

    Args:
        quality: What was measured.
        filters: The limits; a measure equal to its limit passes, and a limit at its default
            passes everything.

    Returns:
        "" if the face passes, or the first reason, worded the same for all faces that one limit
        leaves out, so that reasons can be counted.
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
