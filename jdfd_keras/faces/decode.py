"""Video and image files to RGB frames, with their index and time."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# FFmpeg would print a line for every damaged packet; `read_frames` reports the damage in one.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from jdfd_keras.io.console import plural

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# A header may be wrong by a frame or two; if a tenth is missing, the file was cut short.
MAX_MISSING_SHARE = 0.1
# OpenCV 5.0 reports each damaged packet as the end of the file, but later packets still decode.
# This many attempts read past ten seconds of damage; at the true end they take 20 ms.
MAX_FAILURES = 300


class UnreadableFileError(OSError):
    """A file that exists but cannot be decoded, because of its content or its name."""


def check_file_name(path: str | Path) -> None:
    r"""Check that a path is valid UTF-8; OpenCV 5.0 crashes on any other.

    Example:
        >>> check_file_name("\udcff.mp4")
        Traceback (most recent call last):
            ...
        jdfd_keras.faces.decode.UnreadableFileError: Expected a file name in UTF-8; got ...
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise UnreadableFileError(
            f"Expected a file name in UTF-8; got {shown}. Rename the file, or its folder."
        ) from error


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    index: int  # position among the decodable frames of the file, from 0
    time_s: float  # presentation time from the start; 0 for an image
    pixels: np.ndarray  # uint8[height, width, 3], RGB


def sample_frame_indices(num_frames: int, count: int) -> np.ndarray:
    """Choose frames spread evenly over a whole video: the middle frames of `count` equal spans.

    Args:
        num_frames: Number of frames in the video; at least 1.
        count: Number of frames to choose; at least 1. Of a shorter video all frames are chosen.

    Returns:
        int64[min(count, num_frames)], strictly increasing, within [0, num_frames).

    Example:
        >>> sample_frame_indices(10, 4).tolist()
        [1, 3, 6, 8]
    """
    if num_frames < 1 or count < 1:
        raise ValueError(
            f"Expected num_frames >= 1 and count >= 1; got num_frames={num_frames}, "
            f"count={count}. Choose one frame or more of a video that has frames."
        )
    count = min(count, num_frames)
    return (2 * np.arange(count, dtype=np.int64) + 1) * num_frames // (2 * count)


def read_frames(
    path: str | Path, count: int, *, every: int = 0, warn: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """Decode sampled frames of a video, or the one frame of an image.

    Rotation flags of videos and photographs are applied. For an even spread the frames that
    actually decode are counted first, in a separate pass, since headers may be wrong. Of a
    truncated or damaged video, all decodable frames are used.

    Args:
        path: A video or image file.
        count: Number of frames, as in `sample_frame_indices`; at least 1. Ignored with `every`.
        every: 0 for `count` frames spread evenly; N >= 1 for the frames 0, N, 2N, ...
        warn: Called with a description of the damage, without the path; at most once, after the
            last frame.

    Yields:
        Frames in the order of the file.

    Raises:
        OSError: If the file does not exist; an UnreadableFileError if no frame decodes, its name
            is not UTF-8, or it is an image that was cut short or of an unusual pixel format.

    Example:
        >>> [frame.index for frame in read_frames("video.mp4", 3)]  # of 6 frames
        [1, 3, 5]
    """
    sample_frame_indices(1, count)
    path = Path(path)
    check_file_name(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a video or image file; got {path}, which is "
            f"{'a folder' if path.is_dir() else 'missing'}. Check the path."
        )
    if cv2.haveImageReader(str(path)):
        yield _read_image(path, warn)
    else:
        yield from _read_video(path, count, every, warn)


def _read_image(path: Path, warn: Callable[[str], None] | None) -> Frame:
    """Decode with Pillow, since OpenCV 5.0 silently fills a truncated JPEG with grey."""
    try:
        with Image.open(path) as image:
            num_frames = getattr(image, "n_frames", 1)
            is_deep_grey = image.mode.startswith("I;16")
            if image.mode.startswith(("I", "F")) and not is_deep_grey:
                raise ValueError(f"its pixels have neither 8 nor 16 bits (mode {image.mode})")
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
                # Pillow 13.0 decodes these to noise, from the low bytes.
                if image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2 and max(bits) > 8:
                    raise ValueError("its 16-bit channels are stored as separate planes")
            ImageOps.exif_transpose(image, in_place=True)
            if is_deep_grey:
                # The high byte, as Pillow 13.0 uses of 16-bit RGB: 65535 becomes 255.
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                pixels = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            else:
                pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(
            f"Expected a complete image of 8 or 16 bits per channel; got {path}, which cannot be "
            f"decoded: {error}. It was perhaps cut short: copy it again, or save it as PNG."
        ) from error
    if num_frames > 1 and warn:
        warn(f"animated image: only the first of its {num_frames} frames is analysed")
    return Frame(index=0, time_s=0.0, pixels=pixels)


def _read_video(
    path: Path, count: int, every: int, warn: Callable[[str], None] | None
) -> Iterator[Frame]:
    with open(path, "rb") as file:
        # FFmpeg renders text (.txt) as video, and opens the files and URLs of playlists; the
        # header of every video container has zero bytes.
        if b"\0" not in file.read(4096):
            raise _not_a_video(path)
    if every:
        sampled = range(0, sys.maxsize, every)
    else:
        num_frames = sum(1 for _ in _grab_frames(path))
        # At least 1, so that a file without decodable frames raises below in both modes.
        sampled = set(sample_frame_indices(max(1, num_frames), count).tolist())
    decoded = num_yielded = num_unconverted = 0
    last_s = widest_gap_s = fps = header_frames = 0.0
    for index, capture in enumerate(_grab_frames(path)):
        decoded += 1
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        fps, header_frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        widest_gap_s, last_s = max(widest_gap_s, time_s - last_s), time_s
        if index not in sampled:
            continue
        is_converted, pixels = capture.retrieve()
        if is_converted:
            num_yielded += 1
            yield Frame(index, time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        else:
            num_unconverted += 1
    if decoded == 0:
        raise _not_a_video(path)
    if num_yielded == 0:
        raise UnreadableFileError(
            f"Expected RGB pixels of {path}; got {plural(num_unconverted, 'frame')} that cannot be "
            "converted to RGB. OpenCV perhaps does not support their pixel format: convert the "
            f"file with `ffmpeg -i {path.name} -pix_fmt yuv420p converted.mp4`."
        )
    damage = _describe_damage(decoded, last_s, widest_gap_s, fps, header_frames)
    if num_unconverted:
        sampled_frames = plural(num_yielded + num_unconverted, "frame")
        damage.append(f"damaged: {num_unconverted} of {sampled_frames} cannot be converted to RGB")
    if damage and warn:
        warn("; ".join(damage))


def _grab_frames(path: Path) -> Iterator[cv2.VideoCapture]:
    """Decode all frames, without colour conversion; yield the reader at each of them."""
    # FFmpeg only: OpenCV's other readers treat a text file named .jpg as an image sequence.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    failures = 0
    try:
        while failures < MAX_FAILURES:
            if capture.grab():
                failures = 0
                yield capture
            else:
                failures += 1
    finally:
        capture.release()


def _describe_damage(
    decoded: int, last_s: float, widest_gap_s: float, fps: float, num_frames: float
) -> list[str]:
    """Describe what is missing at the end of a video and in between; empty if it is complete.

    Measured in seconds: if a header has no frame count, OpenCV computes one from the duration,
    which is a hundred times too high for Matroska files with uneven frame times.
    """
    interval_s = last_s / (decoded - 1) if decoded > 1 else 1 / max(fps, 1.0)
    duration_s = max(num_frames / fps if fps > 0 else 0.0, last_s)
    tolerance_s = interval_s + max(2 * interval_s, MAX_MISSING_SHARE * duration_s)
    damage = []
    if duration_s - last_s > tolerance_s:
        frames = f"{plural(decoded, 'frame')} decode{'s' if decoded == 1 else ''}"
        damage.append(f"cut short or damaged: {frames}, up to {last_s:.2f} s of {duration_s:.2f} s")
    if widest_gap_s > tolerance_s:
        gap = f"no frame decodes for {widest_gap_s:.2f} s of {duration_s:.2f} s"
        damage.append(f"damaged or with uneven frame times: {gap}")
    return damage


def _not_a_video(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        f"Expected a video that FFmpeg can decode or an image; got {path} "
        f"({path.stat().st_size} bytes), which is neither. It has another format or was cut "
        "short: try `ffprobe` on it, or copy it again."
    )
