"""Drawing on frames: boxes, landmarks and labels of faces, in sizes that scale with the frame."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.media import Frame

Colour = tuple[int, int, int]  # RGB in 0..255
# Orange, sky blue, green, yellow, blue, vermilion and purple of Okabe and Ito (2008),
# https://jfly.uni-koeln.de/color/, RGB; neighbours differ in lightness, too.
COLOURS: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CYAN = (0, 255, 255)  # unlike any skin, so that single pixels are visible
FONT = cv2.FONT_HERSHEY_SIMPLEX


class DrawnFace(NamedTuple):
    """A face as `draw_faces` draws it: box, label on its upper left corner, and landmarks."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    label: str
    colour: Colour
    landmarks: np.ndarray = np.empty((0, 2))


def track_colour(track_id: int) -> Colour:
    """Return the colour of a track, always the same for an id.

    Example:
        >>> track_colour(0)
        (230, 159, 0)
    """
    return COLOURS[track_id % len(COLOURS)]


def fit_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image to fit in a size, centred between black bars; never distorted.

    Example:
        >>> fit_image(np.full((2, 4, 3), 255, np.uint8), 4, 4)[:, 0, 0]
        array([  0, 255, 255,   0], dtype=uint8)
    """
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    shape = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    scaled = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    left, top = (width - shape[0]) // 2, (height - shape[1]) // 2
    right, bottom = width - shape[0] - left, height - shape[1] - top
    return cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_CONSTANT)


def draw_faces(frame: Frame, faces: Sequence[DrawnFace], *, has_stamp: bool = True) -> np.ndarray:
    """Draw faces on a copy of a frame, uint8[height, width, 3]; lines and text scale with it.

    Args:
        frame: The frame.
        faces: Boxes with labels and landmarks.
        has_stamp: Whether to write the index and time of the frame at the bottom.

    Example:
        >>> face = DrawnFace((20, 20, 60, 60), "track 0", track_colour(0))
        >>> draw_faces(Frame(3, 0.1, np.zeros((90, 90, 3), np.uint8)), [face])[40, 20]
        array([230, 159,   0], dtype=uint8)
    """
    image = frame.pixels.copy()
    line = max(round(1.5 * _unit(image)), 2)
    for face in faces:
        left, top, right, bottom = face.box
        if face.box == (0, 0, *image.shape[1::-1]):  # of a whole image: inside, to be visible
            left, top, right, bottom = line, line, right - line - 1, bottom - line - 1
        # One pixel at a time: OpenCV 5.0 draws a width of 3 with 5. Black edges contrast.
        for out in range(-line, 2 * line):
            edge = face.colour if 0 <= out < line else BLACK
            cv2.rectangle(image, (left - out, top - out), (right + out, bottom + out), edge, 1)
    for face in faces:
        _draw_landmarks(image, face)
    for face in faces:
        write_label(image, face.label, (face.box[0] - line, face.box[1] - line), face.colour)
    if has_stamp:
        stamp = f"frame {frame.index}, {frame.time_s:.2f} s"
        write_label(image, stamp, (0, image.shape[0]), BLACK)
    return image


def write_label(image: np.ndarray, text: str, corner: tuple[int, int], background: Colour) -> None:
    """Write a line of text on a coloured rectangle, in place.

    Args:
        image: uint8[height, width, 3], RGB.
        text: The text: black or white, whichever contrasts more.
        corner: Lower left corner of the rectangle, x and y; moved so that it fits in the image.
        background: Colour of the rectangle.

    Example:
        >>> image = np.zeros((360, 360, 3), np.uint8)
        >>> write_label(image, "track 0", corner=(0, 40), background=WHITE)
        >>> image[39, 1]
        array([255, 255, 255], dtype=uint8)
    """
    unit = _unit(image)
    scale, weight = max(0.45 * unit, 0.35), max(round(unit), 1)
    (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
    pad = max(round(0.2 * height), 2)
    width, height = width + 2 * pad, height + below + 2 * pad
    left = max(min(corner[0], image.shape[1] - width), 0)
    bottom = min(max(corner[1], height), image.shape[0])
    cv2.rectangle(image, (left, bottom - height), (left + width, bottom), background, cv2.FILLED)
    is_light = np.dot(background, (0.299, 0.587, 0.114)) > 110
    origin = (left + pad, bottom - pad - below)
    cv2.putText(image, text, origin, FONT, scale, BLACK if is_light else WHITE, weight, cv2.LINE_AA)


def _draw_landmarks(image: np.ndarray, face: DrawnFace) -> None:
    width = face.box[2] - face.box[0]
    # Dots would hide a small face: single pixels below 40, no black edge below 100.
    radius = max(width // 100, 1) if width >= 40 else 0
    for x, y in np.rint(face.landmarks).astype(int).tolist():
        if width >= 100:
            cv2.circle(image, (x, y), radius + 1, BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, (x, y), radius, CYAN, cv2.FILLED)


def _unit(image: np.ndarray) -> float:
    """Return the scale of lines and text; 1 for an image of 360 pixels."""
    return min(image.shape[:2]) / 360
