"""What the packets and headers of a video tell without being decoded: its frames, times and facts.

Knows the containers; decodes nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av import error as av_error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from jdfd_keras.faces.media import MediaFile, MediaInfo
from jdfd_keras.faces.pixels import describe_colour, describe_orientation
from jdfd_keras.io.console import plural

# Demuxers whose durations are those of the packets: nothing is stated in a header.
WITHOUT_HEADER = ("mpeg", "mpegts")
# Beginnings of the names of demuxers with a duration in a header.
WITH_DURATION = ("mov", "matroska", "avi", "asf", "nut", "flv", "mxf", "rm", "wtv")
# Demuxers whose duration begins at time 0, not at the first packet.
FROM_ZERO = ("matroska,webm", "nut", "asf")
# Written into the video itself: by x264 and x265 as a message, by MPEG-4 encoders as user data.
ENCODERS = re.compile(rb"x264 - core \d+|x265 \(build \d+\)|XviD\d+|DivX[\w.]+")
# Tags of programs and devices; the last one is often only the library that wrote the container.
TAGS = ("com.apple.quicktime.make", "com.apple.quicktime.model", "com.apple.quicktime.software")
MUXER_TAGS = ("encoder", "software", "writing_application", "product_name")
# A header may be wrong by a frame or two; if a tenth is missing, the file was cut short.
MAX_MISSING_SHARE = 0.1
MIN_MISSING_S = 0.1  # a header may also count the duration of the last frame, packets none
UNKNOWN_FRAMES = 2**30 - 1  # in the header of an AVI file that was written without going back
MAX_FAILURES = 300  # unreadable packets in a row; reading goes on after fewer


@dataclass
class Scan:
    """The frames of a video according to its packets.

    Each frame has a key: its presentation time in units of `tick` or, if times are unknown or out
    of order, its index. Seconds are counted from the start of the presentation.
    """

    keys: list[int] = field(default_factory=list)  # of the shown frames, sorted, distinct
    tick: Fraction = Fraction(1, 25)  # in seconds
    start: Fraction = Fraction(0)  # of the presentation, with its other streams, in seconds
    is_timed: bool = False  # whether keys are times
    assumed_rate: float = 0.0  # frames per second, if times are computed from it and not stated
    end_s: float = 0.0  # of the last frame
    dts_end: int = 0  # of the last frame in order of decoding, in units of the stream
    header_end_s: float = 0.0  # of the video according to the header; 0 if not stated
    after_holes: set[int] = field(default_factory=set)  # keys behind an unread part of the file
    first: bytes = b""  # data of the first packet
    is_encrypted: bool = False

    def seconds(self, key: int) -> float:
        """Return the time of a key."""
        return float(key * self.tick - self.start)


@dataclass
class Decoded:
    """Counts of a video while it is decoded; `frames` do not include corrupt ones."""

    frames: int = 0
    failed: int = 0  # packets and corrupt frames, after the first frame
    error: Exception | None = None  # the last one
    first_key: int = 0
    last_key: int = 0
    gap: tuple[int, int] = (0, 0)  # the widest one: the keys of the frames around it

    def add(self, key: int) -> None:
        """Count a frame."""
        if not self.frames:
            self.first_key = key
        elif key - self.last_key > self.gap[1] - self.gap[0]:
            self.gap = (self.last_key, key)
        self.last_key = key
        self.frames += 1


def read_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """Yield the packets with data of the given streams, or of all; unreadable ones are skipped.

    Example:
        >>> with av.open("video.mp4") as container:
        ...     len(list(read_packets(container)))
        6
    """
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in container.demux(*streams):
                failures = 0
                if packet.size:
                    yield packet
        except av_error.InvalidDataError:
            failures += 1
        else:
            return


def scan_packets(container: InputContainer, stream: VideoStream) -> Scan:
    """Read all packets; see `Scan`.

    Example:
        >>> with av.open("video.mp4") as container:
        ...     scan = scan_packets(container, container.streams.video[0])
        >>> [scan.seconds(key) for key in scan.keys], scan.end_s
        ([0.0, 0.04, 0.08, 0.12, 0.16, 0.2], 0.24)
    """
    scan, times, last_dts, in_order = Scan(), set(), None, True
    num_frames = num_times = 0
    ends: dict[int, tuple[int, int]] = {}  # stream to the times of its last packet and of its end
    position, hole = 0, MAX_MISSING_SHARE / 2 * container.size
    for packet in read_packets(container):
        index = packet.stream_index
        is_after_hole = packet.pos is not None and packet.pos - position > hole
        position = max(position, (packet.pos or 0) + packet.size)
        if packet.pts is not None and not packet.is_discard:
            end = (packet.pts, packet.pts + (packet.duration or 0))
            ends[index] = max(ends.get(index, end), end)
        if index != stream.index:
            continue
        if not scan.first:
            scan.first = bytes(packet)
            scan.is_encrypted = packet.has_sidedata("encryption_info")
        if packet.dts is not None:
            in_order = in_order and (last_dts is None or packet.dts >= last_dts)
            last_dts = packet.dts
            scan.dts_end = max(scan.dts_end, packet.dts + (packet.duration or 0))
        if not packet.is_discard:  # by an edit list; the decoder does not show it
            num_frames += 1
            if packet.pts is not None:
                num_times += 1
                times.add(packet.pts)
                if is_after_hole:
                    scan.after_holes.add(packet.pts)
    # AVI states the order of decoding only: times of reordered frames are guesses.
    is_guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    is_distinct = 2 * len(times) >= num_times  # the two fields of a frame may share a time
    if in_order and times and is_distinct and not is_guessed and stream.time_base:
        scan.is_timed, scan.keys, scan.tick = True, sorted(times), stream.time_base
        first = scan.keys[0] * scan.tick
        start = container.start_time
        scan.start = first if start is None else min(Fraction(start, av.time_base), first)
        scan.end_s = scan.seconds(ends[stream.index][1])
    else:
        scan.keys = list(range(num_frames))
        rate = stream.guessed_rate or stream.average_rate or Fraction(25)
        scan.tick, scan.assumed_rate = 1 / rate, 0.0 if is_guessed else float(rate)
        scan.end_s = scan.seconds(num_frames)
    others = [
        float(end * (container.streams[index].time_base or 0) - scan.start)
        for index, (_, end) in ends.items()
        if index != stream.index
    ]
    scan.header_end_s = _header_end_s(container, stream, scan, max(others, default=0.0))
    return scan


def stated_duration_s(container: InputContainer, stream: VideoStream) -> float:
    """Return the duration that a header states, in seconds; 0 if none does.

    It may be wrong, and that of a file without a header is only known from its packets.

    Example:
        >>> with av.open("video.mp4") as container:
        ...     stated_duration_s(container, container.streams.video[0])
        0.24
    """
    name = container.format.name
    # FFmpeg estimates that of others, such as raw streams, from their bit rate.
    if not name.startswith(WITH_DURATION) or (name == "avi" and stream.frames >= UNKNOWN_FRAMES):
        return 0.0
    own_s = float((stream.duration or 0) * (stream.time_base or 0))
    return max(own_s, (container.duration or 0) / av.time_base)


def _header_end_s(
    container: InputContainer, stream: VideoStream, scan: Scan, others_s: float
) -> float:
    """Return the stated end of the video; 0 if none is, or if other streams explain it."""
    if container.format.name in WITHOUT_HEADER:
        return 0.0
    if stream.duration and stream.time_base:
        is_from_zero = container.format.name in FROM_ZERO or not scan.is_timed
        first = 0 if is_from_zero else stream.start_time or 0
        duration = stream.duration
        if container.format.name == "avi":
            # FFmpeg adapts the duration to the size of the file, but not the number of frames.
            duration = max(duration, stream.frames)
            if duration >= UNKNOWN_FRAMES:
                return 0.0
            if not scan.is_timed:  # the header also counts frames that are stored as repetitions
                return scan.end_s + float((duration - scan.dts_end) * stream.time_base)
        return float((first + duration) * stream.time_base - scan.start)
    stated = re.match(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))  # Matroska
    if stated:
        hours, minutes, seconds = map(float, stated.groups())
        return 3600 * hours + 60 * minutes + seconds - float(scan.start)
    total_s = _total_s(container, scan)
    return total_s if others_s < (1 - MAX_MISSING_SHARE) * total_s else 0.0


def _total_s(container: InputContainer, scan: Scan) -> float:
    """Return the stated duration of the file, from the start of the presentation."""
    total_s = (container.duration or 0) / av.time_base
    return total_s - (float(scan.start) if container.format.name in FROM_ZERO else 0.0)


def describe_video(
    file: MediaFile,
    container: InputContainer,
    stream: VideoStream,
    scan: Scan,
    frame: VideoFrame,
    aspect: Fraction,
) -> MediaInfo:
    """Collect the facts that the headers and the first frame of a video state.

    Example:
        >>> from jdfd_keras.faces.decode import open_media
        >>> with open_media("video.mp4") as media:
        ...     frames = list(media.read(1))
        >>> media.info.container, media.info.pixel_format, media.info.num_frames
        ('mp4', 'yuv420p', 6)
    """
    duration_s = max(scan.end_s, scan.header_end_s)
    if container.format.name != "avi":  # others may end later
        duration_s = max(_total_s(container, scan), duration_s)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    span_s = float((scan.keys[-1] - scan.keys[0]) * scan.tick) if scan.keys else 0.0
    measured = (len(scan.keys) - 1) / span_s if span_s else rate
    if not measured / 2 < rate < 2 * measured:  # DV states the clock of its times, 60000
        rate = measured
    return MediaInfo(
        container=_container_name(file, container),
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=frame.format.name,
        width=frame.width,
        height=frame.height,
        frame_rate=rate,
        num_frames=len(scan.keys),
        duration_s=duration_s,
        interlaced=frame.interlaced_frame,
        sample_aspect_ratio="" if aspect == 1 else f"{aspect.numerator}:{aspect.denominator}",
        orientation=describe_orientation(frame),
        colour=describe_colour(frame),
        bit_rate=round(8 * file.size / duration_s) if duration_s > 0 else 0,
        encoder=_encoder(container, stream, scan),
    )


def _container_name(file: MediaFile, container: InputContainer) -> str:
    """Return a short name; FFmpeg has one demuxer for MP4 and MOV, one for Matroska and WebM."""
    name = container.format.name
    if name.startswith("mov"):
        return "mov" if container.metadata.get("major_brand", "qt  ") == "qt  " else "mp4"
    if name.startswith("matroska"):
        position = file.handle.tell()  # FFmpeg is reading
        file.handle.seek(0)
        head = file.handle.read(64)
        file.handle.seek(position)
        return "webm" if b"webm" in head else "matroska"
    return name


def _encoder(container: InputContainer, stream: VideoStream, scan: Scan) -> str:
    """Return the program or device that states to have made the video; "" if none does."""
    stated = ENCODERS.search((stream.codec_context.extradata or b"") + scan.first)
    if stated:
        return stated[0].decode().replace(" - ", " ")
    tags = {key.lower(): value for key, value in container.metadata.items()}
    own = {key.lower(): value for key, value in stream.metadata.items()}
    device = " ".join(tags[key] for key in TAGS if key in tags)
    muxer = next((tags[key] for key in MUXER_TAGS if key in tags), "")
    # Of a phone's file, the tag of the stream is only the name of its codec.
    return (device or own.get("encoder", "") or muxer).strip()[:100]


def describe_damage(scan: Scan, decoded: Decoded) -> list[str]:
    """Describe what is missing at the start, in between and at the end; empty if all is there.

    Packets without a frame of their own are no damage: a codec may have hidden frames, and fields
    in packets of their own.

    Example:
        >>> scan = Scan(keys=list(range(100)), end_s=4.0, header_end_s=16.0)
        >>> describe_damage(scan, Decoded(frames=100, last_key=99))
        ['cut short or damaged: 100 frames decode, up to 3.96 s of 16.00 s']
    """
    duration_s = max(scan.end_s, scan.header_end_s)
    interval_s = float((scan.keys[-1] - scan.keys[0]) * scan.tick) / max(len(scan.keys) - 1, 1)
    tolerance_s = max(2 * interval_s, MAX_MISSING_SHARE * duration_s, MIN_MISSING_S)
    damage = []
    lost_s = float((decoded.first_key - scan.keys[0]) * scan.tick)
    if lost_s > tolerance_s:
        damage.append(f"damaged or begins between key frames: no frame of the first {lost_s:.2f} s")
    last_s = scan.seconds(decoded.last_key)
    cut_s = max(scan.header_end_s - scan.end_s, scan.seconds(scan.keys[-1]) - last_s)
    if cut_s > tolerance_s:
        frames = f"{plural(decoded.frames, 'frame')} decode{'s' if decoded.frames == 1 else ''}"
        damage.append(f"cut short or damaged: {frames}, up to {last_s:.2f} s of {duration_s:.2f} s")
    before, after = decoded.gap
    gap_s = float((after - before) * scan.tick)
    is_lost = after in scan.after_holes or any(before < key < after for key in scan.keys)
    if gap_s > interval_s + tolerance_s and is_lost:
        damage.append(f"damaged: no frame decodes for {gap_s:.2f} s of {duration_s:.2f} s")
    if decoded.failed > 2 and not damage:
        damage.append(f"damaged: {decoded.failed} of {len(scan.keys)} frames do not decode")
    return damage
