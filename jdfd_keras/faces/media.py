"""One video or image file: the bytes that are hashed and decoded, and facts about them.

Independent of the decoders, which read from the open handle.
"""

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from jdfd_keras.io.results import Result
from jdfd_keras.options import LimitOptions

URL_ADVICE = "Download it first, for example with `curl -LO URL` or `yt-dlp URL`."
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # Path("https://a") is https:/a


# Codes of an UnreadableFileError, for programs.
UNDECODABLE, TOO_LONG, TOO_MANY_PIXELS, CHANGED = (
    *("undecodable", "too_long", "too_many_pixels", "changed"),
)


class UnreadableFileError(OSError):
    """A file that exists but cannot be analysed, because of its content or its name.

    Attributes:
        code: The reason for programs, such as `undecodable` or `too_many_pixels`.
    """

    def __init__(self, message: str, *, code: str = UNDECODABLE):
        super().__init__(message)
        self.code = code


class Frame:
    """One decoded frame; that of a video can be packed, which takes half the memory.

    Attributes:
        index: Position among the decodable frames of the file, from 0.
        time_s: Presentation time from the start of the file; 0 for an image, NaN for one of several
            files.
        shape: Shape of the pixels: height, width and 3.
        packed_bytes: Memory that the frame takes when it is packed.
    """

    def __init__(
        self,
        index: int,
        time_s: float,
        pixels: np.ndarray,
        *,
        convert: Callable[[], np.ndarray] | None = None,
        packed_bytes: int = 0,
    ) -> None:
        """Create a frame; give the conversion from a smaller form and the bytes of that form."""
        self.index, self.time_s, self.shape = index, time_s, pixels.shape
        self.packed_bytes = packed_bytes if convert else pixels.nbytes
        self._pixels: np.ndarray | None = pixels
        self._convert = convert or (lambda: pixels)

    @property
    def pixels(self) -> np.ndarray:
        """RGB, uint8[height, width, 3], upright and with square pixels."""
        if self._pixels is None:
            self._pixels = self._convert()
        return self._pixels

    def pack(self) -> None:
        """Release the pixels until they are used again, if they can be converted again."""
        self._pixels = None


@dataclass(frozen=True)
class MediaInfo(Result):
    """Facts that a file states about itself; "" or 0 where it states none.

    They describe the file as stored: `width` and `height` are those of the coded picture, before
    rotation and before its pixels are made square.
    """

    container: str = ""  # such as mp4, matroska, mpegts, png, heif
    codec: str = ""  # such as h264, hevc, av1, mpeg2video, png
    pixel_format: str = (
        ""  # FFmpeg's name, such as yuv420p; Pillow's mode for an image, such as RGB
    )
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0  # average, in frames per second; 0 for an image
    num_frames: int = 0  # in the file, counted without decoding; 1 for an image
    duration_s: float = 0.0  # 0 for an image
    interlaced: bool = False
    sample_aspect_ratio: str = ""  # such as 64:45; "" for square pixels
    orientation: str = ""  # such as "rotated by 90 degrees", "mirrored"; "" if stored upright
    colour: str = ""  # matrix, primaries, transfer and range, such as "bt709/bt709/bt709, limited"
    bit_rate: int = 0  # of the whole file, in bits per second; 0 for an image
    jpeg_quality: int = 0  # estimated quality at which a JPEG was saved, 1 to 100
    encoder: str = ""  # program that wrote it, as it states, such as "x264 core 165", "Lavf60.16"


class MediaFile:
    """An open file; create it with `open_file`.

    Attributes:
        path: The path that was given.
        handle: Binary handle, which hash and decoder share.
        size: Size in bytes when it was opened.
        sha256: SHA-256 of its bytes when it was opened, hexadecimal.
    """

    def __init__(self, path: Path, handle: BufferedReader):
        self.path, self.handle = path, handle
        self._state = self._read_state()
        self.size = self._state[0]
        self.sha256 = self._hash()

    def check_unchanged(self) -> None:
        """Raise an UnreadableFileError if the bytes have changed since the file was opened."""
        state = self._read_state()
        # The times also change if the file is renamed, or its permissions are.
        if state != self._state and (state[0] != self.size or self._hash() != self.sha256):
            raise UnreadableFileError(
                f"Expected a file that does not change; got {self.path}, which was written to "
                "during the analysis. Try again when it is complete.",
                code=CHANGED,
            )

    def _read_state(self) -> tuple[int, int, int]:
        status = os.fstat(self.handle.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _hash(self) -> str:
        self.handle.seek(0)
        digest = hashlib.file_digest(self.handle, "sha256").hexdigest()
        self.handle.seek(0)
        return digest


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[MediaFile]:
    """Open a file once, so that the bytes that are hashed are those that are decoded.

    Raises:
        OSError: If the file does not exist, is a folder or a URL, or cannot be read; an
            UnreadableFileError if it is empty, or its name is not UTF-8.

    Example:
        >>> with open_file("video.mp4") as file:
        ...     file.size == Path("video.mp4").stat().st_size, len(file.sha256)
        (True, 64)
    """
    path = Path(path)
    check_file_name(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not a file" if path.exists() else "missing"
        shown, hint = str(path), "Check the path."
        if not path.exists() and URL.match(str(path)):
            found = "a URL, and URLs are not read"
            shown = re.sub(":/+", "://", shown, count=1)
            hint = URL_ADVICE
        raise FileNotFoundError(
            f"Expected a video or image file; got {shown}, which is {found}. {hint}"
        )
    with open(path, "rb") as handle:
        file = MediaFile(path, handle)
        if not file.size:
            raise UnreadableFileError(
                f"Expected a video or image; got {path}, which is empty (0 bytes). Copy it again."
            )
        yield file


def check_size(path: str | Path, size: tuple[int, int], limits: LimitOptions) -> None:
    """Check width and height of a frame or image, which are known before it is decoded.

    Example:
        >>> check_size("a.png", (2000, 1000), LimitOptions(max_pixels=1_000_000))
        Traceback (most recent call last):
            ...
        jdfd_keras.faces.media.UnreadableFileError: Expected at most 1000000 pixels per frame; ...
    """
    width, height = size
    pixels, limit = width * height, limits.max_pixels
    if limit and pixels > limit:
        raise UnreadableFileError(
            f"Expected at most {limit} pixels per frame; got {path}, which has "
            f"{width} x {height} ({pixels}). Try a smaller copy, or --max-pixels {pixels}.",
            code=TOO_MANY_PIXELS,
        )


def check_duration(path: str | Path, duration_s: float, limits: LimitOptions) -> None:
    """Check the duration of a video in seconds, as it is stated or as far as it is decoded.

    Example:
        >>> check_duration("a.mp4", 61.5, LimitOptions(max_duration_s=60))
        Traceback (most recent call last):
            ...
        jdfd_keras.faces.media.UnreadableFileError: Expected a video of at most 60 s; got a.mp4, ...
    """
    limit = limits.max_duration_s
    if 0 < limit < duration_s:
        raise UnreadableFileError(
            f"Expected a video of at most {limit:g} s; got {path}, which has {duration_s:.1f} s or "
            f"more. Try a part of it, or --max-duration-s {math.ceil(duration_s)}.",
            code=TOO_LONG,
        )


def error_code(error: Exception) -> str:
    """Return why a file failed, for programs; "internal" if the file is not the reason.

    Example:
        >>> error_code(FileNotFoundError("a.mp4")), error_code(UnreadableFileError("a.mp4"))
        ('missing', 'undecodable')
    """
    if isinstance(error, UnreadableFileError):
        return error.code
    if isinstance(error, MemoryError):
        return "out_of_memory"
    return "missing" if isinstance(error, FileNotFoundError) else "internal"


def check_file_name(path: str | Path) -> None:
    r"""Check that a path is valid UTF-8, which tables and pages require.

    Example:
        >>> check_file_name("\udcff.mp4")
        Traceback (most recent call last):
            ...
        jdfd_keras.faces.media.UnreadableFileError: Expected a file name in UTF-8; got ...
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise UnreadableFileError(
            f"Expected a file name in UTF-8; got {shown}. Rename the file, or its folder."
        ) from error


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


def choose_frames(num_frames: int, count: int, every: int) -> list[int]:
    """Choose frames as the options `frames_per_video` and `every` state.

    Args:
        num_frames: Number of frames in the video; at least 1.
        count: As for `sample_frame_indices`; ignored with `every`.
        every: 0 for `count` frames spread evenly; N >= 1 for the frames 0, N, 2N, ...

    Example:
        >>> choose_frames(10, 4, every=0), choose_frames(10, 4, every=5)
        ([1, 3, 6, 8], [0, 5])
    """
    if every:
        return list(range(0, num_frames, every))
    return sample_frame_indices(num_frames, count).tolist()
