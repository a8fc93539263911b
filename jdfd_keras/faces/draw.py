"""Drawing on frames: boxes, landmarks and labels of faces, in sizes that scale with the frame."""

import functools
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.labels import Rect, place_labels
from jdfd_keras.faces.media import Frame
from jdfd_keras.io.palette import Colour, text_colour

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CYAN = (0, 255, 255)  # unlike any skin, so that single pixels are visible
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Lines of boxes, which can be told apart without colour, to the parts of a side that are gaps:
# their number, and where the first one starts and the last one ends.
LINES = {"solid": (0, 0.0, 1.0), "dashed": (4, 0.12, 0.88), "dotted": (13, 0.04, 0.96)}
LINES["corners"] = (1, 0.22, 0.78)
# Shapes in front of a label, (x, y) in a square of side 1.
SHAPES = {
    "triangle": ((0.5, 0.05), (1.0, 0.95), (0.0, 0.95)),
    "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
}
MARKS = ("", *SHAPES, "circle")
TEXT_HEIGHT = 0.06  # of a line of text beside a frame, relative to the shorter side of the frame
MAX_WRAPPED = 3  # lines of one sentence
MIN_WRAP_WIDTH = 200  # pixels; on a narrower frame, text is scaled
NOTE_COLOUR = (240, 228, 66)  # of a strip that a viewer must not miss


class DrawnFace(NamedTuple):
    """A face as `draw_faces` draws it: box, label and landmarks."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    label: str
    colour: Colour
    landmarks: np.ndarray = np.empty((0, 2))
    short_label: str = ""  # where there is no room for the label; "" to omit it there
    line: str = "solid"  # of LINES
    mark: str = ""  # a shape of MARKS in the label


def fit_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image to fit in a size, centred between black bars; never distorted.

    Example:
        >>> fit_image(np.full((2, 4, 3), 255, np.uint8), 4, 4)[:, 0, 0]
        array([  0, 255, 255,   0], dtype=uint8)
    """
    if image.shape[:2] == (height, width):
        return image
    left, top, right, bottom = fit_box((0, 0, *image.shape[1::-1]), image.shape, width, height)
    size = max(right - left, 1), max(bottom - top, 1)
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    right, bottom = width - size[0] - left, height - size[1] - top
    return cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_CONSTANT)


def fit_box(
    box: tuple[int, int, int, int], shape: tuple[int, ...], width: int, height: int
) -> tuple[int, int, int, int]:
    """Return where a box of an image is after `fit_image`.

    Example:
        >>> fit_box((1, 0, 2, 2), (2, 4, 3), 8, 8)
        (2, 2, 4, 6)
    """
    if shape[:2] == (height, width):
        return box
    scale = min(width / shape[1], height / shape[0])
    size = max(round(shape[1] * scale), 1), max(round(shape[0] * scale), 1)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    left, top, right, bottom = (round(edge * scale) for edge in box)
    return left + x, top + y, right + x, bottom + y


def draw_faces(
    frame: Frame,
    faces: Sequence[DrawnFace],
    *,
    has_stamp: bool = True,
    title: str = "",
    title_mark: str = "",
) -> np.ndarray:
    """Draw faces on a copy of a frame, uint8[height, width, 3]; lines and text scale with it.

    Labels cover neither each other nor title and stamp; see `place_labels`. One that had to move
    away from its box is joined to it by a line.

    Args:
        frame: The frame.
        faces: Boxes with labels and landmarks; labels are placed in this order.
        has_stamp: Whether to write the index and time of the frame at the bottom.
        title: Text at the top; "" for none.
        title_mark: Shape of MARKS in the title.

    Example:
        >>> face = DrawnFace((20, 20, 60, 60), "track 0", (230, 159, 0))
        >>> draw_faces(Frame(3, 0.1, np.zeros((90, 90, 3), np.uint8)), [face])[40, 20]
        array([230, 159,   0], dtype=uint8)
    """
    image = frame.pixels.copy()
    height, width = image.shape[:2]
    line = max(round(1.5 * _unit(image)), 2)
    for face in faces:
        _draw_box(image, face, line)
    for face in faces:
        _draw_landmarks(image, face)
    reserved = []
    if title:
        reserved.append(write_label(image, title, (0, 0), BLACK, title_mark))
    if has_stamp:
        stamp = f"frame {frame.index}, {frame.time_s:.2f} s"
        reserved.append(write_label(image, stamp, (0, height), BLACK))
    boxes = [
        Rect(face.box[0] - line, face.box[1] - line, face.box[2] + line, face.box[3] + line)
        for face in faces
    ]
    texts = [list(filter(None, (face.label, face.short_label))) for face in faces]
    sizes = [
        [label_size(image, text, face.mark) for text in forms]
        for face, forms in zip(faces, texts, strict=True)
    ]
    labels = place_labels(boxes, sizes, (width, height), reserved)
    drawn = [
        (face, box, forms[label[0]], label[1])
        for face, box, forms, label in zip(faces, boxes, texts, labels, strict=True)
        if label
    ]
    for face, box, _, rect in drawn:
        if box.distance(rect) > line:
            _draw_leader(image, box, rect, face.colour, line)
    for face, _, text, rect in drawn:
        write_label(image, text, (rect.left, rect.bottom), face.colour, face.mark)
    return image


def label_size(image: np.ndarray, text: str, mark: str = "") -> tuple[int, int]:
    """Return the width and height that `write_label` uses for a text on an image.

    Example:
        >>> image = np.zeros((360, 360, 3), np.uint8)
        >>> rect = write_label(image, "track 0", corner=(0, 40), background=WHITE)
        >>> label_size(image, "track 0") == (rect.right - rect.left, rect.bottom - rect.top)
        True
    """
    (width, height), pad, below = _measure(image, text)
    mark_width = height + 2 * pad if mark else 0
    return width + mark_width + 2 * pad, height + below + 2 * pad


def write_label(
    image: np.ndarray,
    text: str,
    corner: tuple[int, int],
    background: Colour,
    mark: str = "",
) -> Rect:
    """Write a line of text on a coloured rectangle, in place.

    Args:
        image: uint8[height, width, 3], RGB.
        text: The text: black or white, whichever contrasts more.
        corner: Lower left corner of the rectangle, x and y; moved so that it fits in the image.
        background: Colour of the rectangle.
        mark: Shape of MARKS in front of the text.

    Returns:
        The rectangle.

    Example:
        >>> image = np.zeros((360, 360, 3), np.uint8)
        >>> rect = write_label(image, "track 0", corner=(0, 40), background=WHITE)
        >>> (rect.left, rect.bottom), image[39, 1]
        ((0, 40), array([255, 255, 255], dtype=uint8))
    """
    (_, text_height), pad, below = _measure(image, text)
    width, height = label_size(image, text, mark)
    left = max(min(corner[0], image.shape[1] - width), 0)
    bottom = min(max(corner[1], height), image.shape[0])
    top = bottom - height
    image[max(top, 0) : bottom, left : left + width] = background
    colour, x, y = text_colour(background), left + pad, bottom - pad - below
    if mark:
        _draw_mark(image, mark, (x, y - text_height), text_height, colour)
        x += text_height + 2 * pad
    scale, weight = _font(image)
    cv2.putText(image, text, (x, y), FONT, scale, colour, weight, cv2.LINE_AA)
    return Rect(left, top, left + width, bottom)


def draw_text(sentences: Sequence[str], width: int, height: int, background: Colour) -> np.ndarray:
    """Write sentences on a strip to be put above or below a frame.

    Args:
        sentences: The sentences; each begins on a new line, and a long one has several.
        width: Width of the frame, which the strip has, too.
        height: Height of the frame, with which the text scales.
        background: Colour of the strip; the text is black or white.

    Returns:
        uint8[n, width, 3], RGB; n is even, as codecs require.

    Example:
        >>> draw_text(["a note"], 640, 360, WHITE).shape
        (22, 640, 3)
    """
    side = min(width, height)
    row = max(round(TEXT_HEIGHT * side), 14)
    row += row % 2
    weight, pad = max(round(side / 360), 1), row // 4
    room = width - 2 * pad
    lines = [line for text in sentences for line in _wrap(text, room, row / 45, weight)]
    strip = np.full((row * len(lines), width, 3), background, np.uint8)
    for number, text in enumerate(lines, start=1):
        scale = min(row / 45, room / _text_size(text, 1.0, weight)[0][0])
        origin, colour = (pad, number * row - pad), text_colour(background)
        cv2.putText(strip, text, origin, FONT, scale, colour, weight, cv2.LINE_AA)
    return strip


def _wrap(text: str, room: int, scale: float, weight: int) -> list[str]:
    """Wrap a sentence to a width in pixels; a long one is scaled as well, to a few lines."""
    text_width = _text_size(text, scale, weight)[0][0]
    num_lines = min(-(-text_width // max(room, 1)), MAX_WRAPPED)
    if room < MIN_WRAP_WIDTH or num_lines < 2:
        return [text]
    size = -(-len(text) // num_lines)
    while len(lines := textwrap.wrap(text, size)) > num_lines:
        size += 1
    return lines


def _draw_box(image: np.ndarray, face: DrawnFace, line: int) -> None:
    left, top, right, bottom = face.box
    if face.box == (0, 0, *image.shape[1::-1]):  # of a whole image: inside, to be visible
        left, top, right, bottom = line, line, right - line - 1, bottom - line - 1
    bands = list(_gaps(face.line, (left, top, right, bottom), line))
    before = [image[band].copy() for band in bands]
    # One pixel at a time: OpenCV 5.0 draws a width of 3 with 5. Black edges contrast.
    for out in range(-line, 2 * line):
        edge = face.colour if 0 <= out < line else BLACK
        cv2.rectangle(image, (left - out, top - out), (right + out, bottom + out), edge, 1)
    for band, pixels in zip(bands, before, strict=True):
        image[band] = pixels


def _gaps(kind: str, box: tuple[int, int, int, int], line: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of the sides of a box, rows and columns, that are not drawn."""
    left, top, right, bottom = box
    count, first, last = LINES[kind]

    def part(start: int, end: int) -> slice:
        return slice(max(start, 0), max(end, 0))

    for index in range(count):
        step = (last - first) / (2 * count - 1)
        start, end = first + 2 * index * step, first + (2 * index + 1) * step
        columns = part(round(left + start * (right - left)), round(left + end * (right - left)))
        rows = part(round(top + start * (bottom - top)), round(top + end * (bottom - top)))
        for y in (top, bottom):
            yield part(y - 2 * line, y + 2 * line + 1), columns
        for x in (left, right):
            yield rows, part(x - 2 * line, x + 2 * line + 1)


def _draw_leader(image: np.ndarray, box: Rect, label: Rect, colour: Colour, line: int) -> None:
    """Join a label to its box where they are nearest."""
    start, end = [], []
    for low, high, other_low, other_high in (
        (box.left, box.right, label.left, label.right),
        (box.top, box.bottom, label.top, label.bottom),
    ):
        middle = (max(low, other_low) + min(high, other_high)) // 2
        apart_before, apart_after = other_high <= low, other_low >= high
        start.append(low if apart_before else high if apart_after else middle)
        end.append(other_high if apart_before else other_low if apart_after else middle)
    for extra, edge in ((2, BLACK), (0, colour)):
        cv2.line(image, start, end, edge, line + extra, cv2.LINE_AA)


def _draw_mark(
    image: np.ndarray, mark: str, corner: tuple[int, int], size: int, colour: Colour
) -> None:
    if mark == "circle":
        center, radius = (corner[0] + size // 2, corner[1] + size // 2), max(size // 2 - 1, 1)
        cv2.circle(image, center, radius, colour, max(size // 6, 1), cv2.LINE_AA)
    else:
        points = np.rint(np.array(SHAPES[mark]) * size + corner).astype(np.int32)
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA)


def _draw_landmarks(image: np.ndarray, face: DrawnFace) -> None:
    width = face.box[2] - face.box[0]
    # Dots would hide a small face: single pixels below 40, no black edge below 100.
    radius = max(width // 100, 1) if width >= 40 else 0
    for x, y in np.rint(face.landmarks).astype(int).tolist():
        if width >= 100:
            cv2.circle(image, (x, y), radius + 1, BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, (x, y), radius, CYAN, cv2.FILLED)


def _measure(image: np.ndarray, text: str) -> tuple[tuple[int, int], int, int]:
    """Return the size of a text, the padding around it, and what extends below its line."""
    (width, height), below = _text_size(text, *_font(image))
    return (width, height), max(round(0.2 * height), 2), below


@functools.lru_cache(maxsize=256)
def _text_size(text: str, scale: float, weight: int) -> tuple[tuple[int, int], int]:
    (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
    return (width, height), below


def _font(image: np.ndarray) -> tuple[float, int]:
    unit = _unit(image)
    return max(0.45 * unit, 0.35), max(round(unit), 1)


def _unit(image: np.ndarray) -> float:
    """Return the scale of lines and text; 1 for an image of 360 pixels."""
    return min(image.shape[:2]) / 360
