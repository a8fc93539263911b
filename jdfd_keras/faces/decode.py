"""Video and image files to RGB frames, with their index and time.

A video may also be stored as image files, one for each frame.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from jdfd_keras.faces.image import ImageReader, is_image
from jdfd_keras.faces.media import (
    UNDECODABLE,
    Frame,
    MediaInfo,
    UnreadableFileError,
    choose_frames,
    open_file,
    sample_frame_indices,
)
from jdfd_keras.faces.video import VideoReader
from jdfd_keras.io.console import plural
from jdfd_keras.options import LimitOptions

OUT_OF_MEMORY = -4  # OpenCV's StsNoMem
MAX_NAMES = 3  # of files in a warning


class SourceBytes(Protocol):
    """The bytes that are decoded, of a `MediaFile` or of several files."""

    @property
    def path(self) -> Path:
        """Path of the file, or of the folder of the first file."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256, hexadecimal."""
        ...


class MediaReader(Protocol):
    """An open video or image."""

    info: MediaInfo  # complete once the frames have been read
    is_video: bool  # whether it has frame times; also of an animated image
    warnings: list[str]  # how it differs from what was expected, without the path

    @property
    def file(self) -> SourceBytes:
        """Facts about the bytes; of image files, complete once the frames have been read."""
        ...

    def read(self, count: int, *, every: int = 0) -> Iterator[Frame]:
        """Decode sampled frames in one pass; see `read_frames`."""
        ...


class ImageFiles:
    """A video that is stored as image files, in the order of its frames; see `MediaReader`.

    Only sampled files are opened. A frame has the position of its file as its index, and the time
    that is given for it, or NaN, since its time is unknown. A file that cannot be decoded is
    skipped and named in a warning; one of another size than the first is used, and named as well.

    Attributes:
        path: Folder of the first sampled file.
        size: Sum of the sizes of the decoded files.
        sha256: SHA-256 of their SHA-256 digests, 32 bytes each, in their order.
        info: Facts that the first decoded file states; its `num_frames` is the number of files.
        is_video: False: its frames have no times of their own.
        warnings: The files that were skipped or have another size.
    """

    is_video = False

    def __init__(
        self, paths: Sequence[str | Path], limits: LimitOptions, times_s: Sequence[float] = ()
    ):
        if not paths:
            raise ValueError("Expected the image files of a video; got none. List its files.")
        self._paths, self._limits = [Path(path) for path in paths], limits
        self._times_s = times_s or [math.nan] * len(self._paths)
        self._digest = hashlib.sha256()
        self.path, self.size = self._paths[0].parent, 0
        self.info, self.warnings = MediaInfo(), []

    @property
    def file(self) -> "ImageFiles":
        """Itself: it also states the facts about the bytes."""
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of the digests so far."""
        return self._digest.hexdigest() if self.size else ""

    def read(self, count: int, *, every: int = 0) -> Iterator[Frame]:
        """Decode the sampled files; see `read_frames`."""
        sampled = choose_frames(len(self._paths), count, every)
        self.path = self._paths[sampled[0]].parent
        damaged: list[str] = []
        resized: list[str] = []
        first_error, first_shape = None, None
        for index in sampled:
            path = self._paths[index]
            try:
                frame = self._decode(path)
            except UnreadableFileError as error:
                first_error = first_error or error
                damaged.append(path.name)
                continue
            first_shape = first_shape or frame.shape
            if frame.shape != first_shape:
                resized.append(path.name)
            yield Frame(index, self._times_s[index], frame.pixels)
        if first_shape is None:
            raise UnreadableFileError(
                f"Expected images that can be decoded in {self.path}; got "
                f"{plural(len(sampled), 'sampled file')}, of which none can be. The first: "
                f"{first_error}",
                code=first_error.code if first_error else UNDECODABLE,
            ) from first_error
        of_sampled = f"of {plural(len(sampled), 'sampled image file')}"
        if damaged:
            self.warnings.append(
                f"damaged: {len(damaged)} {of_sampled} cannot be decoded ({_shorten(damaged)})"
            )
        if resized:
            size = f"{first_shape[1]} x {first_shape[0]}"
            self.warnings.append(
                f"{len(resized)} {of_sampled} differ in size from the first, {size} "
                f"({_shorten(resized)})"
            )

    def _decode(self, path: Path) -> Frame:
        with open_media(path, self._limits) as media:
            if not isinstance(media, ImageReader):
                raise UnreadableFileError(
                    f"Expected an image; got {path}, which is none. Save the frame as PNG or JPEG."
                )
            # Of an animated image, the first frame.
            frame = next(media.read(1, every=1))
        if not self.size:
            self.info = replace(media.info, num_frames=len(self._paths))
        self.size += media.file.size
        self._digest.update(bytes.fromhex(media.file.sha256))
        return Frame(frame.index, math.nan, frame.pixels)


def _shorten(names: list[str]) -> str:
    more = ", ..." if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"


@contextlib.contextmanager
def open_media(
    path: str | Path | Sequence[str | Path],
    limits: LimitOptions | None = None,
    times_s: Sequence[float] = (),
) -> Iterator[MediaReader]:
    """Open a video or image once, to hash and to decode it; or the image files of a video.

    Args:
        path: The file, or the image files in the order of the frames.
        limits: Limits of the file; the defaults if not given.
        times_s: Presentation time of each of the image files, if they are known.

    Raises:
        OSError: If the file does not exist, or changed before the end of the block; an
            UnreadableFileError if it is not a video or image that can be decoded, is beyond a
            limit, or any other exception was raised in the block.
        MemoryError: If memory ran out.

    Example:
        >>> with open_media("video.mp4") as media:
        ...     [frame.index for frame in media.read(2)], media.info.codec
        ([1, 4], 'mpeg4')
    """
    limits = limits or LimitOptions()
    if not isinstance(path, (str, Path)):
        files = ImageFiles(path, limits, times_s)
        with _one_error(files):
            yield files
        return
    with open_file(path) as file:
        with _one_error(file):
            yield (ImageReader if is_image(file) else VideoReader)(file, limits)
        file.check_unchanged()


@contextlib.contextmanager
def _one_error(source: SourceBytes) -> Iterator[None]:
    """Convert every exception about a file to one that names it."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001, libraries raise any type for a damaged file
        if getattr(error, "code", 0) == OUT_OF_MEMORY:
            raise MemoryError(f"OpenCV, at {source.path}: {error}") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableFileError(
            f"Expected a video or image that can be analysed; got {source.path}, which failed with "
            f"'{reason}'. It may be damaged: save it again."
        ) from error


@contextlib.contextmanager
def read_ahead(frames: Iterator[Frame]) -> Iterator[Iterator[Frame]]:
    """Decode the next frame in another thread while the caller works on one.

    Neither FFmpeg nor dlib holds Python's lock, so that decoding and detection overlap. The thread
    ends with the block, also after an error, so that it decodes no file that is closed already.

    Example:
        >>> with open_media("video.mp4") as media, read_ahead(media.read(2)) as frames:
        ...     [frame.index for frame in frames]
        [1, 4]
    """

    def take(thread: ThreadPoolExecutor) -> Iterator[Frame]:
        ahead = thread.submit(next, frames, None)
        while (frame := ahead.result()) is not None:
            ahead = thread.submit(next, frames, None)
            yield frame

    with ThreadPoolExecutor(1, "decode") as thread:
        yield take(thread)


def read_frames(
    path: str | Path | Sequence[str | Path],
    count: int,
    *,
    every: int = 0,
    warn: Callable[[str], None] | None = None,
    limits: LimitOptions | None = None,
) -> Iterator[Frame]:
    """Decode sampled frames of a video, or the one frame of an image.

    Frames are shown as players show them: rotated and mirrored by the display matrix or EXIF, with
    square pixels, deinterlaced, each at its own size. Of a truncated or damaged video, all
    decodable frames are used.

    Args:
        path: A video or image file, or the image files of a video in the order of its frames.
        count: Number of frames, as in `sample_frame_indices`; at least 1. Ignored with `every`.
        every: 0 for `count` frames spread evenly; N >= 1 for the frames 0, N, 2N, ...
        warn: Called with each description of damage, without the path, after the last frame.
        limits: Limits of the file; the defaults if not given.

    Yields:
        Frames in the order of presentation.

    Raises:
        OSError: As `open_media`.

    Example:
        >>> [frame.index for frame in read_frames("video.mp4", 3)]  # of 6 frames
        [1, 3, 5]
    """
    sample_frame_indices(1, count)
    with open_media(path, limits) as media:
        yield from media.read(count, every=every)
        if warn:
            for warning in media.warnings:
                warn(warning)
