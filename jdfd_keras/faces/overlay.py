"""Overlays: copies of a video or image with its faces, or what a caller draws, on it.

One frame is held in memory at a time.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame, check_file_name, read_frames
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.track import TrackedFace, track_faces
from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path
from jdfd_keras.options import FaceOptions

Colour = tuple[int, int, int]  # RGB in 0..255
# OpenCV 5.0 warns on stderr that VP80 is not the tag of WebM files; they play nevertheless.
CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Orange, sky blue, green, yellow, blue, vermilion and purple of Okabe and Ito (2008),
# https://jfly.uni-koeln.de/color/, RGB; neighbours differ in lightness, too.
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CYAN = (0, 255, 255)  # unlike any skin, so that single pixels are visible
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Frame rate if the source has no frame times.
DEFAULT_FRAMES_PER_S = 25.0
MAX_FRAMES_PER_S = 120.0
# A longer gap between two frames is shortened to this: it is more often damage than a still.
MAX_HOLD_S = 60.0
# Mean and median step differ by less if even frame times were rounded to milliseconds.
ROUNDING_TOLERANCE = 0.05


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


def check_overlay(path: str | Path, out: str | Path) -> None:
    """Check the names of an overlay and of its source, before any file is opened.

    Raises:
        OSError: If a name is not UTF-8, or the folder of `out` does not exist.
        ValueError: If the suffix of `out` does not suit the source, or both are the same file.

    Example:
        >>> check_overlay("video.mp4", "overlay.gif")
        Traceback (most recent call last):
        ValueError: Expected an overlay of a video to end in .mp4, .webm, .avi; got overlay.gif....
    """
    path, out = Path(path), Path(out)
    check_file_name(path)
    check_file_name(out)
    kind, suffixes = ("an image", IMAGE_SUFFIXES) if _is_image(path) else ("a video", tuple(CODECS))
    if out.suffix.lower() not in suffixes:
        raise ValueError(
            f"Expected an overlay of {kind} to end in {', '.join(suffixes)}; got {out}. "
            f"Try {out.with_suffix(suffixes[0]).name}."
        )
    if out.resolve() == path.resolve():
        raise ValueError(
            f"Expected different files for the overlay and its source; got {out} for both. Choose "
            "another name."
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"Expected to write {out}; got no folder {out.parent}. Create it, or choose another."
        )


def draw_overlay(path: str | Path, out: str | Path, options: FaceOptions | None = None) -> int:
    """Draw the faces of a video or image on its frames.

    Each frame shows its index and time and, for every face, its box, its 68 landmarks and its
    track id.

    Args:
        path: A video or image file.
        out: The overlay, as for `write_overlay`.
        options: Detector and `every`. With `every=0` all frames are used, since an even spread
            is not a video; `extract_faces` finds the same tracks with `every=1`.

    Returns:
        Number of frames drawn.

    Example:
        >>> draw_overlay("video.mp4", "overlay.mp4")
        6
    """
    options = options or FaceOptions()
    detector = face_detector(options.detector)
    return write_overlay(
        path,
        out,
        lambda frames: itertools.starmap(_draw_tracks, track_faces(frames, detector)),
        every=options.every or 1,
    )


def write_overlay(
    path: str | Path,
    out: str | Path,
    draw: Callable[[Iterator[Frame]], Iterator[np.ndarray]],
    *,
    every: int = 1,
) -> int:
    """Write a video or image with a function that draws on its frames.

    The video keeps the timing of the source: with even frame times it has the frame rate of the
    source divided by `every`; with uneven ones each frame is shown as long as in the source. It
    has no sound.

    Args:
        path: A video or image file.
        out: The overlay, replaced if it exists: .mp4 (MPEG-4), .webm (VP8) or .avi (Motion JPEG)
            of a video; .png or .jpg of an image. Codecs need even sizes, so an odd width or height
            of a video grows by one pixel.
        draw: Function from the frames to one image of each, uint8[height, width, 3] RGB; all of
            the same size, which may differ from that of the frames.
        every: Use every Nth frame of a video; at least 1.

    Returns:
        Number of frames drawn.

    Raises:
        OSError: If the file cannot be decoded, or `out` cannot be written.

    Example:
        >>> darken = lambda frames: (frame.pixels // 2 for frame in frames)
        >>> write_overlay("video.mp4", "dark.mp4", darken, every=3)
        2
    """
    path, out = Path(path), Path(out)
    check_overlay(path, out)
    if _is_image(path):
        (image,) = draw(read_frames(path, 1))
        _, encoded = cv2.imencode(out.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        with atomic_path(out) as unfinished:
            unfinished.write_bytes(encoded.tobytes())
        return 1
    # A first pass reads the frame times; it takes little time compared to face detection.
    times_s = np.array([frame.time_s for frame in read_frames(path, 1, every=every)])
    images = track(draw(read_frames(path, 1, every=every)), "drawing faces", len(times_s), "frames")
    _write_video(out, images, *_schedule_frames(times_s))
    return len(times_s)


def _schedule_frames(times_s: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a constant frame rate, and how often to write each frame to keep its time.

    Frames are written once if their times are even; else at least once, so that the video is as
    long as the source, unless many frames are closer than the median step or than 1/120 s, or more
    than 60 s apart.
    """
    steps = np.clip(np.diff(times_s), 0, MAX_HOLD_S)
    if not steps.any():
        # A single frame is shown for a second.
        return (DEFAULT_FRAMES_PER_S if len(times_s) > 1 else 1.0), np.ones(len(times_s), np.int64)
    mean, median = float(np.mean(steps)), float(np.median(steps))
    step = mean if median <= 0 or abs(mean - median) <= ROUNDING_TOLERANCE * mean else median
    step = max(step, 1 / MAX_FRAMES_PER_S)
    positions = np.rint(np.cumsum([0, *steps]) / step).astype(np.int64)
    # Frames at the same position are moved to the next free positions.
    order = np.arange(len(positions))
    positions = np.maximum.accumulate(positions - order) + order
    return 1 / step, np.diff(positions, append=positions[-1] + 1)


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
        # One pixel at a time, since OpenCV 5.0 draws a line of width 3 with 5 pixels. The black
        # edges separate the box from a background of the same colour.
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


def _draw_tracks(frame: Frame, faces: Iterable[TrackedFace]) -> np.ndarray:
    drawn = [
        DrawnFace(
            face.box[:4], f"track {face.track_id}", track_colour(face.track_id), face.landmarks
        )
        for face in faces
    ]
    return draw_faces(frame, drawn)


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


def _is_image(path: Path) -> bool:
    return path.is_file() and cv2.haveImageReader(str(path))


def _write_video(
    out: Path, images: Iterator[np.ndarray], frames_per_s: float, holds: np.ndarray
) -> None:
    first = next(images)
    height, width = (side + side % 2 for side in first.shape[:2])  # codecs require even sides
    codec = cv2.VideoWriter.fourcc(*CODECS[out.suffix.lower()])
    with atomic_path(out) as unfinished:
        writer = cv2.VideoWriter(
            str(unfinished), cv2.CAP_FFMPEG, codec, frames_per_s, (width, height)
        )
        try:
            if not writer.isOpened():
                raise OSError(
                    f"Expected to write {width} x {height} pixels at {frames_per_s:.3f} frames per "
                    f"second to {out}; got no video writer. Check that its folder is writable, or "
                    f"try another suffix of {', '.join(CODECS)}."
                )
            for image, hold in zip(itertools.chain([first], images), holds.tolist(), strict=True):
                # The writer would silently skip an image of another size.
                fitted = cv2.cvtColor(_fit(image, width, height), cv2.COLOR_RGB2BGR)
                for _ in range(hold):
                    writer.write(fitted)
        finally:
            writer.release()


def _fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Add a missing column or row; rescale an image of any other size."""
    right, below = width - image.shape[1], height - image.shape[0]
    if 0 <= right <= 1 and 0 <= below <= 1:
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
