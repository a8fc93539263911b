"""Overlays: copies of a video or image with its faces drawn on it.

Takes a path; writes a video or image with boxes, landmarks and track ids, the tracks of
`faces.extract`. One frame is held in memory at a time. Independent of crops and labels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame, check_file_name, read_frames
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.track import TrackedFace, track_faces
from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path
from jdfd_keras.options import FaceOptions

# OpenCV 5.0 warns on stderr that VP80 is not the tag of WebM files; they play nevertheless.
CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Orange, sky blue, green, yellow, blue, vermilion and purple of Okabe and Ito (2008),
# https://jfly.uni-koeln.de/color/, RGB; neighbours differ in lightness, too.
COLOURS = (
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


def track_colour(track_id: int) -> tuple[int, int, int]:
    """Return the colour of a track, RGB in 0..255, always the same for an id.

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
        >>> check_overlay("anna.mp4", "overlay.mp4")
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
    track id. The video keeps the timing of the source: with even frame times it has the frame rate
    of the source divided by `every`; with uneven ones each frame is shown as long as in the
    source. It has no sound.

    Args:
        path: A video or image file.
        out: The overlay, replaced if it exists: .mp4 (MPEG-4), .webm (VP8) or .avi (Motion JPEG)
            of a video; .png or .jpg of an image. Codecs need even sizes, so an odd width or height
            of a video grows by one pixel.
        options: Detector and `every`. With `every=0` all frames are used, since an even spread
            is not a video; `extract_faces` finds the same tracks with `every=1`.

    Returns:
        Number of frames drawn.

    Raises:
        OSError: If the file does not exist or cannot be decoded, or `out` cannot be written.
        ValueError: If `out` has another suffix, or an option is out of range.

    Example:
        >>> draw_overlay("anna.mp4", "overlay.mp4")
        250
    """
    path, out, options = Path(path), Path(out), options or FaceOptions()
    detector = face_detector(options.detector)
    check_overlay(path, out)
    return write_overlay(
        path,
        out,
        lambda frames: itertools.starmap(draw_tracked_faces, track_faces(frames, detector)),
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

    Args:
        path: A video or image file.
        out: The overlay, as in `draw_overlay`.
        draw: Function from the frames to one image of each, uint8[height, width, 3] RGB; all of
            the same size, which may differ from that of the frames.
        every: Use every Nth frame of a video; at least 1.

    Returns:
        Number of frames drawn.

    Raises:
        OSError: If the file does not exist or cannot be decoded, or `out` cannot be written.
        ValueError: If `out` has another suffix.

    Example:
        >>> write_overlay("anna.mp4", "dark.mp4", lambda frames: (f.pixels // 2 for f in frames))
        250
    """
    path, out = Path(path), Path(out)
    check_overlay(path, out)
    if _is_image(path):
        _write_image(out, *draw(read_frames(path, 1)))
        return 1
    # A first pass reads the frame times; it takes little time compared to face detection.
    times_s = np.array([frame.time_s for frame in read_frames(path, 1, every=every)])
    frames_per_s, holds = schedule_frames(times_s)
    images = track(draw(read_frames(path, 1, every=every)), "drawing faces", len(times_s), "frames")
    _write_video(out, images, frames_per_s, holds)
    return len(times_s)


def schedule_frames(times_s: np.ndarray) -> tuple[float, np.ndarray]:
    """Choose a constant frame rate and repetitions that keep the times of frames.

    Args:
        times_s: float[n], times of the frames in seconds; n >= 1.

    Returns:
        Frames per second, and int64[n], how often each frame is written: once if the times are
        even; at least once if they are not, so that the video is as long as the source, unless many
        frames are closer than the median step or than 1/120 s, or more than 60 s apart.

    Example:
        >>> frames_per_s, holds = schedule_frames(np.array([0.0, 0.1, 0.2, 0.5, 0.6]))
        >>> round(frames_per_s), holds.tolist()
        (10, [1, 1, 3, 1, 1])
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


def draw_tracked_faces(frame: Frame, faces: list[TrackedFace]) -> np.ndarray:
    """Draw the faces of a frame on a copy of it, uint8[height, width, 3], RGB.

    Lines and text scale with the frame.

    Example:
        >>> for frame, faces in track_faces(frames, detector):
        ...     image = draw_tracked_faces(frame, faces)
    """
    image = frame.pixels.copy()
    unit = min(image.shape[:2]) / 360
    line = max(round(1.5 * unit), 2)
    for face in faces:
        draw_box(image, face.box, track_colour(face.track_id), line)
    for face in faces:
        _draw_landmarks(image, face)
    for face in faces:
        left, top = face.box.left, face.box.top
        colour = track_colour(face.track_id)
        write_label(image, f"track {face.track_id}", (left - line, top - line), unit, colour)
    stamp = f"frame {frame.index}, {frame.time_s:.2f} s"
    write_label(image, stamp, (0, image.shape[0]), unit, BLACK)
    return image


def draw_box(image: np.ndarray, box: Sequence[int], colour: tuple, line: int) -> None:
    """Draw a box with black edges on both sides, in place.

    Args:
        image: uint8[height, width, 3], RGB.
        box: Left, top, right, bottom; further values are ignored.
        colour: RGB in 0..255.
        line: Line width in pixels.

    Example:
        >>> draw_box(image, (10, 10, 50, 50), colour=(255, 0, 0), line=2)
    """
    left, top, right, bottom = box[:4]
    # One pixel at a time, since OpenCV 5.0 draws a line of width 3 with 5 pixels. The black edges
    # separate the box from a background of the same colour.
    for out in range(-line, 2 * line):
        edge = colour if 0 <= out < line else BLACK
        cv2.rectangle(image, (left - out, top - out), (right + out, bottom + out), edge, 1)


def _draw_landmarks(image: np.ndarray, face: TrackedFace) -> None:
    width = face.box.width
    # Dots would hide a small face: single pixels below 40, no black edge below 100.
    radius = max(width // 100, 1) if width >= 40 else 0
    for x, y in np.rint(face.landmarks).astype(int).tolist():
        if width >= 100:
            cv2.circle(image, (x, y), radius + 1, BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, (x, y), radius, CYAN, cv2.FILLED)


def write_label(
    image: np.ndarray, text: str, corner: tuple[int, int], unit: float, background: tuple
) -> None:
    """Write a line of text on a coloured rectangle, in place.

    Args:
        image: uint8[height, width, 3], RGB.
        text: The text.
        corner: Lower left corner of the rectangle, x and y; moved so that it fits in the image.
        unit: Scale of the text; 1 suits an image of 360 pixels.
        background: RGB in 0..255; the text is black or white, whichever contrasts more.

    Example:
        >>> write_label(image, "track 0", corner=(0, 40), unit=1.0, background=BLACK)
    """
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


def _is_image(path: Path) -> bool:
    return path.is_file() and cv2.haveImageReader(str(path))


def _write_image(out: Path, image: np.ndarray) -> None:
    _, encoded = cv2.imencode(out.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_path(out) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


def _write_video(
    out: Path, images: Iterator[np.ndarray], frames_per_s: float, holds: np.ndarray
) -> None:
    codec = cv2.VideoWriter_fourcc(*CODECS[out.suffix.lower()])
    writer = size = None
    with atomic_path(out) as unfinished:
        try:
            for image, hold in zip(images, holds.tolist(), strict=True):
                if writer is None:
                    height, width = image.shape[:2]
                    size = width + width % 2, height + height % 2
                    writer = _open_writer(unfinished, codec, frames_per_s, size, out)
                # The writer would silently skip an image of another size.
                image = cv2.cvtColor(_fit(image, size), cv2.COLOR_RGB2BGR)
                for _ in range(hold):
                    writer.write(image)
        finally:
            if writer is not None:
                writer.release()


def _open_writer(
    unfinished: Path, codec: int, frames_per_s: float, size: tuple[int, int], out: Path
) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(unfinished), cv2.CAP_FFMPEG, codec, frames_per_s, size)
    if not writer.isOpened():
        raise OSError(
            f"Expected to write {size[0]} x {size[1]} pixels at {frames_per_s:.3f} frames per "
            f"second to {out}; got no video writer. Check that its folder is writable, or try "
            f"another suffix of {', '.join(CODECS)}."
        )
    return writer


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Add a missing column or row; rescale an image of any other size."""
    right, below = size[0] - image.shape[1], size[1] - image.shape[0]
    if (right, below) == (0, 0):
        return image
    if 0 <= right <= 1 and 0 <= below <= 1:
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
