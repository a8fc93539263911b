"""Video files to RGB frames, with PyAV (FFmpeg).

A first pass reads the packets without decoding them (`packets.py`); a second one decodes all frames
once and converts the sampled ones (`pixels.py`).
"""

import collections
import contextlib
import errno
import functools
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from io import BufferedReader
from typing import cast

import av
import cv2
from av import error as av_error
from av import logging as av_logging
from av.codec.context import CodecContext, Flags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from jdfd_keras.faces.media import (
    Frame,
    MediaFile,
    MediaInfo,
    UnreadableFileError,
    check_duration,
    check_size,
    sample_frame_indices,
)
from jdfd_keras.faces.packets import (
    Decoded,
    Scan,
    describe_damage,
    describe_video,
    read_packets,
    scan_packets,
    stated_duration_s,
)
from jdfd_keras.faces.pixels import (
    HDR,
    PixelConverter,
    checked_aspect,
    deinterlace,
    square_size,
)
from jdfd_keras.io.console import plural
from jdfd_keras.options import LimitOptions

# FFmpeg's names of the demuxers of self-contained files. Playlists and lists, which name other
# files, and readers of text and image sequences are not among them; the audio formats are, so that
# an audio file is called one.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,"
    "asf,dv,mxf,gxf,ogg,rm,nut,wtv,dhav,yuv4mpegpipe,mp3,flac,wav,aac,ac3,eac3,aiff,amr,ape"
)
PADDING = 2**20  # pixels around a small frame that decoders count, too
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


class _BytesOnly:
    """A file without its name, so that FFmpeg guesses the format from the content alone."""

    def __init__(self, handle: BufferedReader):
        self._handle = handle
        self.read, self.tell = handle.read, handle.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._handle.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # a damaged file points outside of itself
            return -errno.EINVAL  # PyAV 18.1 would print the traceback of an exception


# A demuxer of lists may open others by ways of its own: there, FORMATS and the empty list of
# protocols hold.
def _refuse_other_files(name: str, *_: object) -> None:
    raise PermissionError(f"it refers to another file ({name}), which is not opened")


class VideoReader:
    """An open video; see `MediaReader`.

    Attributes:
        file: The file that is read.
        info: Facts that it states; complete once its frames have been read.
        is_video: True: its frames have times.
        warnings: How it differs from what was expected; complete once its frames have been read.
        start: Time in the file, in seconds, at which the times of the frames start; known with the
            first frame.
    """

    is_video = True

    def __init__(self, file: MediaFile, limits: LimitOptions):
        self.file, self.info, self.limits = file, MediaInfo(), limits
        self.warnings: list[str] = []
        self.start = Fraction(0)

    def read(self, count: int, *, every: int = 0) -> Iterator[Frame]:
        """Decode sampled frames in one pass; see `read_frames`."""
        frames = self._read(count, every)
        while True:
            try:
                frame = next(frames, None)
            except (UnreadableFileError, MemoryError):
                raise
            except Exception as error:  # PyAV raises a dozen types, some of Python's own
                raise self._refuse(f"cannot be decoded: {_reason(error)}") from error
            if frame is None:
                return
            yield frame

    def _read(self, count: int, every: int) -> Iterator[Frame]:
        # Raw streams cannot be rewound: each pass opens the file.
        with self._open() as container:
            stream = self._choose_stream(container)
            duration_s = stated_duration_s(container, stream)
            check_duration(self.file.path, duration_s, self.limits)
            scan = scan_packets(container, stream)
            first = Fraction(container.start_time or 0, av.time_base)
        self.start = scan.start if scan.is_timed else first
        if scan.is_encrypted:
            raise self._refuse("is encrypted (DRM)", "Try a copy without protection.")
        if scan.assumed_rate:
            rate = f"{scan.assumed_rate:g} frames per second"
            self._warn(f"no usable frame times: computed from {rate}")
        check_duration(self.file.path, scan.end_s, self.limits)
        with self._open() as container:
            stream = self._choose_stream(container)
            yield from self._sample(container, stream, scan, count, every)

    def open_container(
        self, handle: BufferedReader, probing: dict[str, str] | None = None
    ) -> InputContainer:
        """Open a handle of the file with FFmpeg, which opens no other file.

        Args:
            handle: Binary handle, which is read from its start.
            probing: Options of FFmpeg while it finds the facts of the streams, instead of the pixel
                limit, which holds also then.

        Raises:
            av.error.FFmpegError: If the content is of none of the FORMATS.
        """
        handle.seek(0)
        options = {"format_whitelist": FORMATS, "protocol_whitelist": ""}
        options |= self._pixel_limit() if probing is None else probing
        return av.open(
            _BytesOnly(handle),
            "r",
            options=options,
            metadata_errors="replace",
            buffer_size=1 << 20,
            io_open=_refuse_other_files,
        )

    def _open(self, probing: dict[str, str] | None = None) -> InputContainer:
        try:
            return self.open_container(self.file.handle, probing)
        except (av_error.InvalidDataError, av_error.ArgumentError) as error:
            raise UnreadableFileError(
                f"Expected a video that FFmpeg can decode or an image; got {self.file.path} "
                f"({self.file.size} bytes), which is neither. It has another format, lists other "
                "files or was cut short: try `ffprobe` on it, or copy it again."
            ) from error

    def _pixel_limit(self) -> dict[str, str]:
        # Decoders also count what fills whole blocks and lies around them; `_check_size` is exact.
        limit = 2 * self.limits.max_pixels + PADDING
        return {"max_pixels": str(limit)} if self.limits.max_pixels else {}

    def _choose_stream(self, container: InputContainer) -> VideoStream:
        """Return the video stream that is analysed, ready to decode."""
        streams = [s for s in container.streams.video if not s.disposition & PICTURES]
        if not streams:
            found = "an audio file" if container.streams.audio else "a file without video"
            cover = " (its cover picture is not analysed)" if container.streams.video else ""
            raise UnreadableFileError(
                f"Expected a video or image; got {self.file.path}, {found}{cover}. Check the path."
            )
        best = container.streams.best("video")
        stream = next((s for s in streams if best and s.index == best.index), streams[0])
        context = stream.codec_context
        if context is None:
            raise self._refuse(f"has a codec without a decoder: {_codec_name(container, stream)}")
        size = context.width, context.height
        self._check_size(size if all(size) else self._stated_size(stream.index))
        context.options = self._pixel_limit()
        context.thread_count = cv2.getNumThreads()
        context.thread_type = "AUTO"
        context.flags |= Flags.unaligned  # or up to 63 columns that a crop hides are shown
        if len(streams) > 1:
            number = streams.index(stream) + 1
            self._warn(f"{len(streams)} video streams: only number {number} is analysed")
        return stream

    def _stated_size(self, index: int) -> tuple[int, int]:
        """Return the size of a stream whose decoder forgot it when it was beyond the limit."""
        position = self.file.handle.tell()  # FFmpeg is reading
        with self._open({"skip_frame": "all"}) as container:
            context = cast(VideoStream, container.streams[index]).codec_context
            size = (context.width, context.height) if context else (0, 0)
        self.file.handle.seek(position)
        return size

    def _check_size(self, size: tuple[int, int]) -> None:
        check_size(self.file.path, size, self.limits)

    def _refuse(self, fault: str, advice: str = "") -> UnreadableFileError:
        convert = f"convert it with `ffmpeg -i {self.file.path.name} converted.mp4`"
        return UnreadableFileError(
            f"Expected a video that FFmpeg can decode; got {self.file.path} ({self.file.size} "
            f"bytes), which {fault}. "
            + (advice or f"It was perhaps cut short: copy it again, or {convert}.")
        )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _sample(
        self, container: InputContainer, stream: VideoStream, scan: Scan, count: int, every: int
    ) -> Iterator[Frame]:
        """Decode all frames; convert the first ones at or after each sampled key."""
        keys = scan.keys or [0]
        sampled = [] if every else sample_frame_indices(len(keys), count).tolist()
        targets = collections.deque(keys[index] for index in sampled)
        decoded, converter = Decoded(), PixelConverter()
        num_sampled = num_deinterlaced = 0
        aspects: collections.deque[Fraction] = collections.deque()
        for frame, shown in deinterlace(self._decode(container, stream, decoded, aspects)):
            index, aspect = decoded.frames, aspects.popleft()
            key = index
            if scan.is_timed:  # never backwards; a frame without a time has that of the last one
                earliest = decoded.last_key if index else keys[0]
                key = max(earliest if frame.pts is None else frame.pts, earliest)
            decoded.add(key)
            if self.limits.max_duration_s:  # there may be more frames than packets
                check_duration(self.file.path, scan.seconds(key), self.limits)
            if index == 0:
                self.info = describe_video(self.file, container, stream, scan, frame, aspect)
            elif frame.interlaced_frame and not self.info.interlaced:
                self.info = replace(self.info, interlaced=True)
            if index % every if every else not targets or key < targets[0]:
                continue
            if targets:
                targets.popleft()
            num_sampled += 1
            num_deinterlaced += shown is not frame and frame.interlaced_frame
            yield self._convert(index, scan.seconds(key), converter, shown, aspect)
        if not decoded.frames:
            reason = f": {_reason(decoded.error)}" if decoded.error else ""
            raise self._refuse(f"has no frame that decodes{reason}")
        if num_deinterlaced:
            frames = plural(num_sampled, "sampled frame")
            self._warn(f"interlaced video: {num_deinterlaced} of {frames} deinterlaced")
        damage = "; ".join(describe_damage(scan, decoded))
        if damage:
            self._warn(damage)

    def _decode(
        self,
        container: InputContainer,
        stream: VideoStream,
        decoded: Decoded,
        aspects: collections.deque[Fraction],
    ) -> Iterator[VideoFrame]:
        """Yield the frames that decode; append the aspect ratio of the pixels of each."""
        context = stream.codec_context
        # That of the header has priority, as in FFmpeg; PyAV gives it or else that of the codec.
        stated = stream.sample_aspect_ratio
        stated = None if stated == context.sample_aspect_ratio else stated
        key = None
        for packet in itertools.chain(read_packets(container, stream), [None]):
            key = packet if packet and packet.is_keyframe else key
            try:
                frames = stream.decode(packet)
            except MemoryError:
                raise
            except av_error.FFmpegError as error:
                # The decoder keeps the limit, too; some then forget the size.
                size = context.width, context.height
                self._check_size(size if all(size) else _size_of_key(context, key))
                decoded.failed += decoded.frames > 0
                decoded.error = error
                continue
            for frame in frames:
                if frame.is_corrupt:
                    decoded.failed += decoded.frames > 0
                else:
                    aspects.append(stated or context.sample_aspect_ratio or Fraction(1))
                    yield frame

    def _convert(
        self,
        index: int,
        time_s: float,
        converter: PixelConverter,
        shown: VideoFrame,
        aspect: Fraction,
    ) -> Frame:
        checked = checked_aspect(aspect)
        if checked is None:
            ratio = f"{aspect.numerator}:{aspect.denominator}"
            self._warn(f"implausible aspect ratio of pixels {ratio}: shown as squares")
            checked = Fraction(1)
        if shown.color_trc in HDR:
            self._warn(f"HDR video ({HDR[shown.color_trc]}): converted to SDR")
        self._check_size(square_size(shown.width, shown.height, checked))
        pixels = converter.convert(shown, checked)
        picture_bytes = sum(plane.buffer_size for plane in shown.planes)
        if picture_bytes >= pixels.nbytes:  # with more than 8 bits or without subsampled colours
            return Frame(index, time_s, pixels)
        convert = functools.partial(converter.convert, shown, checked)
        return Frame(index, time_s, pixels, convert=convert, packed_bytes=picture_bytes)


def _size_of_key(context: VideoCodecContext, key: Packet | None) -> tuple[int, int]:
    """Return the size that a key frame states, without decoding it; (0, 0) if unknown."""
    fresh = cast(VideoCodecContext, CodecContext.create(context.codec.name, "r"))
    fresh.extradata, fresh.options = context.extradata, {"skip_frame": "all"}
    with contextlib.suppress(av_error.FFmpegError):
        fresh.decode(key)
    return fresh.width, fresh.height


def _codec_name(container: InputContainer, stream: VideoStream) -> str:
    """Return the name of a codec without a decoder, which PyAV 18.1 gives in FFmpeg's log only."""
    level = av_logging.get_level()
    av_logging.set_level(av_logging.INFO)
    try:
        log = container.dumps_format()  # pyright: ignore[reportAttributeAccessIssue], not typed
    finally:
        av_logging.set_level(level)
    name = re.search(rf"#0:{stream.index}\b.*Video: (?:none \()?(\w+)", log)
    return name[1] if name else "unknown"


def _reason(error: Exception) -> str:
    """Return the reason without the numbers and names of functions that PyAV adds."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
