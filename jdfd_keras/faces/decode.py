"""Video and image files to RGB frames, with their index and time."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from jdfd_keras.faces.image import ImageReader, is_image
from jdfd_keras.faces.media import (
    Frame,
    MediaFile,
    MediaInfo,
    UnreadableFileError,
    open_file,
    sample_frame_indices,
)
from jdfd_keras.faces.video import VideoReader
from jdfd_keras.options import LimitOptions

OUT_OF_MEMORY = -4  # OpenCV's StsNoMem


class MediaReader(Protocol):
    """An open video or image."""

    file: MediaFile
    info: MediaInfo  # complete once the frames have been read
    is_video: bool  # whether it has frame times; also of an animated image
    warnings: list[str]  # how it differs from what was expected, without the path

    def read(self, count: int, *, every: int = 0) -> Iterator[Frame]:
        """Decode sampled frames in one pass; see `read_frames`."""
        ...


@contextlib.contextmanager
def open_media(path: str | Path, limits: LimitOptions | None = None) -> Iterator[MediaReader]:
    """Open a video or image once, to hash and to decode it.

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
    with open_file(path) as file:
        try:
            kind = ImageReader if is_image(file) else VideoReader
            yield kind(file, limits or LimitOptions())
        except (OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001, libraries raise any type for a damaged file
            if getattr(error, "code", 0) == OUT_OF_MEMORY:
                raise MemoryError(f"OpenCV, at {path}: {error}") from error
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UnreadableFileError(
                f"Expected a video or image that can be analysed; got {path}, which failed with "
                f"'{reason}'. It may be damaged: save it again."
            ) from error
        file.check_unchanged()


def read_frames(
    path: str | Path,
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
        path: A video or image file.
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
