"""A video or image in, the same with its faces drawn on it out.

Takes a path; gives a film or a picture with boxes, landmarks and track numbers on every frame
looked at. One frame is held at a time, as in `faces.extract`, whose tracks these are. Knows
nothing of crops or labels.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame, check_name, read_frames
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.track import Sighting, track_faces
from jdfd_keras.io.console import track
from jdfd_keras.options import FaceOptions

# OpenCV 5.0 notes on stderr that VP80 is not the tag that WebM files carry; they play all the same.
CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
PICTURES = (".png", ".jpg", ".jpeg")
# Orange, sky blue, green, yellow, blue, vermilion and purple of Okabe and Ito (2008),
# https://jfly.uni-koeln.de/color/, RGB; the neighbours in it differ in lightness too.
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
CYAN = (0, 255, 255)  # which no skin has, so that single pixels are seen too
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Frames a second of a film whose source says no times.
FRAMES_PER_S = 25.0
# Frames that follow one another faster are shown this fast.
MOST_FRAMES_PER_S = 120.0
# A longer gap between two frames is shortened to this: it is damage more often than a still.
LONGEST_HOLD_S = 60.0
# Frame times that differ by less, as a share, are even ones that were rounded to milliseconds.
EVEN = 0.05


def track_colour(track_id: int) -> tuple[int, int, int]:
    """Give a track its colour, RGB in 0..255: always the same one, unlike its neighbours'."""
    return COLOURS[track_id % len(COLOURS)]


def check_overlay(path: str | Path, out: str | Path) -> None:
    """See that a film or picture of this name can be drawn of a file, before it is opened.

    Raises:
        OSError: If one of both names is no UTF-8.
        ValueError: If the ending of `out` is none that is written for such a file, or `out` is
            the file itself.
    """
    path, out = Path(path), Path(out)
    check_name(path)
    check_name(out)
    kind, endings = ("an image", PICTURES) if _is_image(path) else ("a video", tuple(CODECS))
    if out.suffix.lower() not in endings:
        raise ValueError(
            f"Expected an overlay of {kind} to end in {', '.join(endings)}; got {out}. "
            f"Try {out.with_suffix(endings[0]).name}."
        )
    if out.resolve() == path.resolve():
        raise ValueError(
            f"Expected another file for the overlay than the one looked at; got {out} for both. "
            "Choose another name."
        )


def draw_overlay(path: str | Path, out: str | Path, options: FaceOptions | None = None) -> int:
    """Draw the faces of a video or image onto it.

    Each frame shows its index and time, and around every face its box, its 68 landmarks and its
    track. Frames without a face are shown as they are. The film keeps the time of the source:
    of even frame times it has the source's frame rate over `every` and each frame once; of
    uneven ones, a frame stays on for as long as it did. There is no sound.

    Args:
        path: A video or image file.
        out: The film, .mp4 (MPEG-4), .webm (VP8) or .avi (Motion JPEG), or the picture of an
            image, .png or .jpg; replaced, once the new one is whole, if it is there. Codecs
            want even sides: an odd width or height grows by one pixel.
        options: Detector and `every`. Where `every` is 0, all frames are looked at, for an even
            spread is no film; `extract_faces` finds the same tracks with `every` at 1.

    Returns:
        Frames looked at.

    Raises:
        OSError: If the file is not there or nothing of it decodes, or `out` cannot be written.
        ValueError: If `out` has another ending, or an option is out of its range.
    """
    path, out, options = Path(path), Path(out), options or FaceOptions()
    detector = face_detector(options.detector)
    check_overlay(path, out)
    return write_overlay(
        path,
        out,
        lambda frames: itertools.starmap(draw_sightings, track_faces(frames, detector)),
        every=options.every or 1,
    )


def write_overlay(
    path: str | Path,
    out: str | Path,
    draw: Callable[[Iterator[Frame]], Iterator[np.ndarray]],
    *,
    every: int = 1,
) -> int:
    """Write a video or image again, its frames drawn on.

    Args:
        path: A video or image file.
        out: As `draw_overlay` takes it.
        draw: From the frames looked at to a picture of each, uint8[height, width, 3] RGB; of one
            size, which may be another than that of the frames.
        every: Each frame of a video that many is looked at; at least 1.

    Returns:
        Frames looked at.

    Raises:
        OSError: If the file is not there or nothing of it decodes, or `out` cannot be written.
        ValueError: If `out` has another ending.
    """
    path, out = Path(path), Path(out)
    check_overlay(path, out)
    if _is_image(path):
        _write_picture(out, *draw(read_frames(path, 1)))
        return 1
    # Their times are read first, in a pass that costs little beside the search for faces.
    times_s = np.array([frame.time_s for frame in read_frames(path, 1, every=every)])
    frames_per_s, holds = schedule_frames(times_s)
    pictures = track(
        draw(read_frames(path, 1, every=every)), "drawing faces", len(times_s), "frames"
    )
    _write_film(out, pictures, frames_per_s, holds)
    return len(times_s)


def schedule_frames(times_s: np.ndarray) -> tuple[float, np.ndarray]:
    """Say how a film of one rate shows frames at the times they had.

    Args:
        times_s: float[n], their times; n >= 1.

    Returns:
        The film's frames per second, and int64[n], how often each frame is written: once, if the
        times are even; each at least once, if they are not, and the film is as long as the source
        unless many of them stand closer than the median or than 1/120 s, or more than
        60 s apart.
    """
    steps = np.clip(np.diff(times_s), 0, LONGEST_HOLD_S)
    if not steps.any():
        # One frame stays on for a second, so that it can be seen.
        return (FRAMES_PER_S if len(times_s) > 1 else 1.0), np.ones(len(times_s), np.int64)
    mean, median = float(np.mean(steps)), float(np.median(steps))
    step = mean if median <= 0 or abs(mean - median) <= EVEN * mean else median
    step = max(step, 1 / MOST_FRAMES_PER_S)
    places = np.rint(np.cumsum([0, *steps]) / step).astype(np.int64)
    # No two frames at one place: a crowd of them is spread over the next free ones.
    order = np.arange(len(places))
    places = np.maximum.accumulate(places - order) + order
    return 1 / step, np.diff(places, append=places[-1] + 1)


def draw_sightings(frame: Frame, sightings: list[Sighting]) -> np.ndarray:
    """Draw one frame's faces onto a copy of it, uint8[height, width, 3], RGB.

    Lines and letters grow with the frame.
    """
    picture = frame.pixels.copy()
    unit = min(picture.shape[:2]) / 360
    line = max(round(1.5 * unit), 2)
    for sighting in sightings:
        draw_box(picture, sighting.box, track_colour(sighting.track_id), line)
    for sighting in sightings:
        _draw_landmarks(picture, sighting)
    for sighting in sightings:
        left, top = sighting.box.left, sighting.box.top
        colour = track_colour(sighting.track_id)
        write_label(picture, f"track {sighting.track_id}", (left - line, top - line), unit, colour)
    stamp = f"frame {frame.index}, {frame.time_s:.2f} s"
    write_label(picture, stamp, (0, picture.shape[0]), unit, BLACK)
    return picture


def draw_box(picture: np.ndarray, box: Sequence[int], colour: tuple, line: int) -> None:
    """Draw a square with dark edges.

    Args:
        picture: Drawn on.
        box: left, top, right, bottom, and perhaps more.
        colour: RGB in 0..255.
        line: How thick, in pixels.
    """
    left, top, right, bottom = box[:4]
    # One pixel at a time: OpenCV 5.0 draws a line of 3 pixels 5 wide. Black on both sides, so that
    # the box stands out from a ground of its own colour.
    for out in range(-line, 2 * line):
        edge = colour if 0 <= out < line else BLACK
        cv2.rectangle(picture, (left - out, top - out), (right + out, bottom + out), edge, 1)


def _draw_landmarks(picture: np.ndarray, sighting: Sighting) -> None:
    width = sighting.box.width
    # Dots of a small face would hide it: single pixels below 40, no dark edge below 100.
    radius = max(width // 100, 1) if width >= 40 else 0
    for x, y in np.rint(sighting.landmarks).astype(int).tolist():
        if width >= 100:
            cv2.circle(picture, (x, y), radius + 1, BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, (x, y), radius, CYAN, cv2.FILLED)


def write_label(
    picture: np.ndarray, text: str, corner: tuple[int, int], unit: float, ground: tuple
) -> None:
    """Write on a ground of one colour; `corner` is its lower left one, moved into the frame."""
    scale, weight = max(0.45 * unit, 0.35), max(round(unit), 1)
    (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
    pad = max(round(0.2 * height), 2)
    width, height = width + 2 * pad, height + below + 2 * pad
    left = max(min(corner[0], picture.shape[1] - width), 0)
    bottom = min(max(corner[1], height), picture.shape[0])
    cv2.rectangle(picture, (left, bottom - height), (left + width, bottom), ground, cv2.FILLED)
    is_light = np.dot(ground, (0.299, 0.587, 0.114)) > 110
    at = (left + pad, bottom - pad - below)
    cv2.putText(picture, text, at, FONT, scale, BLACK if is_light else WHITE, weight, cv2.LINE_AA)


def _is_image(path: Path) -> bool:
    return path.is_file() and cv2.haveImageReader(str(path))


def _write_picture(out: Path, picture: np.ndarray) -> None:
    _, encoded = cv2.imencode(out.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with _unfinished(out) as unfinished:
        unfinished.write_bytes(encoded.tobytes())


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Give a place to write to, which takes the place of `out` once all is well."""
    try:
        # A folder of its own beside it: no file of the user can have that name.
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=".unfinished-")
    except OSError as error:
        raise OSError(
            f"Expected to write {out}; got '{error}'. See that its folder is there and can be "
            "written."
        ) from error
    with folder:
        unfinished = Path(folder.name, out.name)
        yield unfinished
        os.replace(unfinished, out)


def _write_film(
    out: Path, pictures: Iterator[np.ndarray], frames_per_s: float, holds: np.ndarray
) -> None:
    codec = cv2.VideoWriter_fourcc(*CODECS[out.suffix.lower()])
    writer = size = None
    with _unfinished(out) as unfinished:
        try:
            for picture, hold in zip(pictures, holds.tolist(), strict=True):
                if writer is None:
                    height, width = picture.shape[:2]
                    size = width + width % 2, height + height % 2
                    writer = _open_writer(unfinished, codec, frames_per_s, size, out)
                # The writer would pass over a picture of another size without a word.
                picture = cv2.cvtColor(_fit(picture, size), cv2.COLOR_RGB2BGR)
                for _ in range(hold):
                    writer.write(picture)
        finally:
            if writer is not None:
                writer.release()


def _open_writer(
    unfinished: Path, codec: int, frames_per_s: float, size: tuple[int, int], out: Path
) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(unfinished), cv2.CAP_FFMPEG, codec, frames_per_s, size)
    if not writer.isOpened():
        raise OSError(
            f"Expected to write {size[0]} x {size[1]} pixels at {frames_per_s:.3f} frames a second "
            f"to {out}; got no video writer. See that its folder can be written, or try another "
            f"of {', '.join(CODECS)}."
        )
    return writer


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Add a column or a row that is lacking; scale a picture of quite another size."""
    right, below = size[0] - picture.shape[1], size[1] - picture.shape[0]
    if (right, below) == (0, 0):
        return picture
    if 0 <= right <= 1 and 0 <= below <= 1:
        return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
