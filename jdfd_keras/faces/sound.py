"""The sound of a video, for a copy of the video with other frames.

Packets are copied if the new container and browsers take their codec, and encoded again otherwise.
Their times are on the clock of the frames of `VideoReader`. Independent of frames and faces.
"""

import contextlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet

from jdfd_keras.faces.media import CHANGED, UnreadableFileError
from jdfd_keras.faces.packets import read_packets
from jdfd_keras.faces.video import VideoReader
from jdfd_keras.io.console import plural

# FFmpeg's names of the codecs that are copied into a container, and the encoder for all others.
# MP4 could also hold AC-3 and ALAC, which browsers do not play.
COPIED = {
    "mp4": ("aac", "mp3", "opus", "flac"),
    "mov": ("aac", "mp3"),
    "webm": ("opus", "vorbis"),
    "matroska": ("aac", "mp3", "opus", "vorbis", "flac", "ac3", "eac3", "pcm_s16le"),
}
ENCODERS = {"mp4": "aac", "mov": "aac", "webm": "libopus", "matroska": "aac"}
RATES = {"aac": (48_000, 44_100, 32_000), "libopus": (48_000,)}  # samples per second
CHANNEL_BIT_RATE = 96_000  # far above that of speech, so that an encoding loses nothing audible
TRIAL_PACKETS = 50  # written to memory, to see whether the sound can be written
MAX_STEP_S = 12 * 3600  # from one packet to the next; MP4 stores no longer one
# Several errors of PyAV are of types of Python, such as for a layout of channels without a name.
ERRORS = (av.error.FFmpegError, ValueError, NotImplementedError)


class Sound:
    """The sound of a video that is being read; create it with `open_sound`.

    Attributes:
        codec: FFmpeg's name of the codec in the source; "" without sound.
        is_copied: Whether packets are copied, and not encoded again.
        warnings: What is missing of the sound; complete once it has been written.
    """

    def __init__(self, media: VideoReader, container: str, handle: io.BufferedReader):
        self.codec, self.is_copied = "", False
        self.warnings: list[str] = []
        self._media, self._container, self._handle = media, container, handle
        self._num_failed = 0  # packets
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None
        self._choose()

    def _choose(self) -> None:
        """Choose the first way of writing that works for the first packets."""
        with self._media.open_container(self._handle) as source:
            stream: Any = source.streams.best("audio")
            context = stream and stream.codec_context  # None without a decoder
            codec = context.codec.canonical_name if context else ""
        for is_copied in (True, False) if codec in COPIED[self._container] else (False,):
            if codec and self._try(is_copied):
                self.codec, self.is_copied = codec, is_copied
                return
        self.warnings.append(f"no sound: the {codec or 'audio'} of the source does not decode")

    def _try(self, is_copied: bool) -> bool:
        num_packets = 0
        with (
            contextlib.suppress(*ERRORS),
            self._media.open_container(self._handle) as source,
            av.open(io.BytesIO(), "w", self._container) as output,
        ):
            packets = self._read(source, output, is_copied)
            for packet in itertools.islice(packets, TRIAL_PACKETS):
                output.mux(packet)
                num_packets += 1
        self._num_failed = 0
        return num_packets > 0

    @contextlib.contextmanager
    def writing(self, output: OutputContainer) -> Iterator[None]:
        """Add the stream to a container without packets, and keep the source open."""
        if not self.codec:
            yield
            return
        with self._media.open_container(self._handle) as source:
            self._packets = self._read(source, output, self.is_copied)
            yield
            self._packets = iter(())

    def write(self, output: OutputContainer, until_s: float = float("inf")) -> None:
        """Write the packets up to a time; call it in order of time, at last without one."""
        self._next = self._next or self._advance()
        while self._next is not None and _seconds(self._next) <= until_s:
            output.mux(self._next)
            self._next = self._advance()
        if until_s == float("inf") and self._num_failed:
            packets = plural(self._num_failed, "packet")
            self.warnings.append(f"damaged sound: {packets} do not decode, and are silent")

    def _advance(self) -> Packet | None:
        try:
            return next(self._packets, None)
        except ERRORS as error:
            self.warnings.append(f"damaged sound: it ends early ({error})")
            return None

    def _read(
        self, source: InputContainer, output: OutputContainer, is_copied: bool
    ) -> Iterator[Packet]:
        stream: Any = source.streams.best("audio")
        if is_copied:
            return self._copy(source, output.add_stream_from_template(stream))
        return self._encode(source, _add_encoder(stream, output, ENCODERS[self._container]))

    def _decode(self, source: InputContainer) -> Iterator[tuple[Packet | None, list[AudioFrame]]]:
        """Yield the packets that decode, and their frames; at last None with the remaining ones."""
        stream: Any = source.streams.best("audio")
        for packet in itertools.chain(read_packets(source, stream), [None]):
            if packet is not None and packet.has_sidedata("encryption_info"):
                return
            try:
                yield packet, stream.decode(packet)
            except av.error.FFmpegError:
                self._num_failed += packet is not None

    def _copy(self, source: InputContainer, stream: AudioStream) -> Iterator[Packet]:
        # Matroska has no edit lists: packets before the start would delay the frames, unless they
        # are the delay of a codec, which it states for Opus, and for others if the source did.
        is_matroska = self._container in ("matroska", "webm")
        keeps_early = not is_matroska or source.format.name.startswith("matroska")
        is_opus = stream.codec_context.codec.canonical_name == "opus"
        end = last = None
        for packet, _ in self._decode(source):
            if packet is None:
                return
            pts = end if packet.pts is None else packet.pts
            dts = pts if packet.dts is None else packet.dts
            if pts is None or dts is None:
                continue
            offset = round(self._media.start / packet.time_base)
            end = pts + (packet.duration or 0)
            # An edit list hides what is before the start, which decoders need, and after the end.
            if packet.is_discard and pts >= offset:
                continue
            if not keeps_early and (end if is_opus else pts + 1) <= offset:
                continue
            if last is not None and not last < dts < last + MAX_STEP_S / packet.time_base:
                self._num_failed += 1
                continue
            last = dts
            packet.pts, packet.dts, packet.stream = pts - offset, dts - offset, stream
            yield packet

    def _encode(self, source: InputContainer, stream: AudioStream) -> Iterator[Packet]:
        frames = (frame for _, frames in self._decode(source) for frame in frames)
        num_samples = 0
        # A broadcast may change from stereo to mono between two programmes.
        for _, group in itertools.groupby(frames, _sample_kind):
            for frame in _resample(group, stream.codec_context, self._media.start, num_samples):
                num_samples += frame.samples
                yield from stream.encode(frame)
        if num_samples:
            yield from stream.encode(None)


@contextlib.contextmanager
def open_sound(media: object, container: str) -> Iterator[Sound | None]:
    """Open the sound of a video whose first frame has been read.

    Args:
        media: The reader of the video; others, such as that of an animated image, have no sound.
        container: FFmpeg's name of the container that is written, a key of ENCODERS.

    Yields:
        The sound; None if the video has none.

    Raises:
        OSError: If the file was replaced since it was opened.

    Example:
        >>> from jdfd_keras.faces.decode import open_media
        >>> with open_media("video.mp4") as media:
        ...     frame = next(media.read(1))
        ...     with open_sound(media, "mp4") as sound:
        ...         print(sound)
        None
    """
    if not isinstance(media, VideoReader):
        yield None
        return
    # A handle of its own: the frames are read at the same time.
    with open(media.file.path, "rb") as handle:
        if not os.path.sameopenfile(handle.fileno(), media.file.handle.fileno()):
            raise UnreadableFileError(
                f"Expected a file that does not change; got {media.file.path}, which was replaced "
                "during the analysis. Try again when it is complete.",
                code=CHANGED,
            )
        with media.open_container(handle) as source:
            has_sound = bool(source.streams.audio)
        yield Sound(media, container, handle) if has_sound else None


def _add_encoder(source: AudioStream, output: OutputContainer, encoder: str) -> AudioStream:
    rate = source.sample_rate if source.sample_rate in RATES[encoder] else RATES[encoder][0]
    layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    bit_rate = CHANNEL_BIT_RATE * (1 if layout == "mono" else 2)
    stream: Any = output.add_stream(encoder, rate=rate, layout=layout, bit_rate=bit_rate)
    return stream


def _sample_kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resample(
    frames: Iterable[AudioFrame], context: AudioCodecContext, start: Fraction, first_sample: int
) -> Iterator[AudioFrame]:
    """Convert frames of one kind for an encoder, with silence where there are none.

    Args:
        frames: The frames.
        context: The encoder.
        start: Time of sample 0 on the clock of the frames, in seconds.
        first_sample: Sample that is yielded first; earlier ones are omitted.
    """
    graph = None
    for frame in itertools.chain(frames, [None]):
        if frame is not None:
            time_base = frame.time_base or Fraction(1, frame.sample_rate)
            if graph is None:
                graph = Graph()
                buffer = graph.add_abuffer(
                    sample_rate=frame.sample_rate,
                    format=frame.format.name,
                    layout=frame.layout,
                    time_base=time_base,
                )
                # Follows the times of the frames where these have gaps or overlap.
                timed = graph.add(
                    "aresample", f"{context.sample_rate}:async=1:first_pts={first_sample}"
                )
                kind = f"sample_fmts={context.format.name}:channel_layouts={context.layout.name}"
                sink = graph.add("abuffersink")
                graph.link_nodes(buffer, timed, graph.add("aformat", kind), sink).configure()
            if frame.pts is not None:
                frame.pts -= round(start / time_base)
        assert graph is not None, "a group has a frame"
        graph.push(frame)
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                resampled: Any = graph.pull()
                yield resampled


def _seconds(packet: Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)
