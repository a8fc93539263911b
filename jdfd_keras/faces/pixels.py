"""Decoded frames of a video to RGB pixels as players show them.

Deinterlaced, in the colours of a standard screen (BT.709), with square pixels and upright.
"""

import collections
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction

import cv2
import numpy as np
from av import error as av_error
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter

HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
# PyAV names the matrices of its scaler only; these are FFmpeg's names of AVColorSpace.
MATRICES = {
    0: "gbr",
    1: "bt709",
    2: "unknown",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
}
UNSPECIFIED = 2  # in AVColorPrimaries and AVColorTransferCharacteristic
MAX_ASPECT = 8  # a header that states wider or narrower pixels is wrong
# Degrees by whether x, then y is reversed, after rows and columns were perhaps swapped.
TURNS = {(False, False): 0, (True, True): 180, (True, False): 90, (False, True): 270}


def deinterlace(frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Pair each decoded frame with its picture: itself, or deinterlaced if it is interlaced.

    Number, order and times of the frames are kept.

    Example:
        >>> import av
        >>> with av.open("video.mp4") as container:
        ...     pairs = list(deinterlace(container.decode(video=0)))
        >>> len(pairs), all(frame is shown for frame, shown in pairs)
        (6, True)
    """
    graph, layout = None, None
    waiting: collections.deque[VideoFrame] = collections.deque()
    for frame in frames:
        if graph and layout != (frame.width, frame.height, frame.format.name):
            yield from _filtered(graph, waiting, None)
            graph = None
        if graph is None and frame.interlaced_frame and frame.width >= 3 and frame.height >= 4:
            graph = _deinterlacer(frame)
            layout = (frame.width, frame.height, frame.format.name)
        if graph is None:
            yield frame, frame
        else:
            # Also the progressive ones, which it passes: it looks at the frames around each.
            waiting.append(frame)
            yield from _filtered(graph, waiting, frame)
    if graph:
        yield from _filtered(graph, waiting, None)


def _deinterlacer(frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = max(cv2.getNumThreads(), 1)
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _filtered(
    graph: Graph, waiting: collections.deque[VideoFrame], frame: VideoFrame | None
) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Push a frame, or the end; yield the frames that are complete."""
    graph.vpush(frame)
    while waiting:
        try:
            shown = graph.vpull()
        except (av_error.BlockingIOError, av_error.EOFError):
            return
        yield waiting.popleft(), shown


class PixelConverter:
    """Conversion of pictures to RGB; one for each video, since it keeps its tables.

    Threads may share it: packed frames are converted again while the next one is decoded.

    PyAV 18.1 makes a new converter for each `VideoFrame.to_ndarray`, which takes 0.43 ms at 480p
    instead of 0.10 ms. The default precision is used: its pixels are those of `cv2.VideoCapture`
    and of the ffmpeg command; the accurate one takes 4 ms.

    Example:
        >>> import av
        >>> with av.open("video.mp4") as container:
        ...     frame = next(container.decode(video=0))
        >>> PixelConverter().convert(frame, Fraction(2)).shape == (frame.height, 2 * frame.width, 3)
        True
    """

    def __init__(self):
        self._reformatter = VideoReformatter()
        self._lock = threading.Lock()  # of its tables: FFmpeg crashes if two threads use them
        self._orientations: dict[tuple[int, int, int], tuple[bool, bool, bool]] = {}

    def convert(self, shown: VideoFrame, aspect: Fraction) -> np.ndarray:
        """Convert a picture.

        Args:
            shown: A frame, or its deinterlaced picture.
            aspect: Width of a pixel divided by its height, as from `checked_aspect`.

        Returns:
            uint8[height, width, 3], RGB.

        Raises:
            ValueError: If FFmpeg cannot convert its pixel format or colours.
        """
        to_sdr = {}
        if shown.color_trc in HDR:  # the first one takes 1 to 2 s, for a table
            to_sdr = {
                "dst_color_trc": ColorTrc.BT709,
                "dst_color_primaries": ColorPrimaries.BT709,
            }
        try:
            with self._lock:
                rgb = self._reformatter.reformat(
                    shown, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1, **to_sdr
                )
        except av_error.FFmpegError as error:
            found = ", ".join(filter(None, [shown.format.name, describe_colour(shown)]))
            raise ValueError(f"{found}: not convertible to RGB ({error.strerror})") from error
        pixels = np.ascontiguousarray(rgb.to_ndarray())  # dlib takes no padded rows
        size = square_size(shown.width, shown.height, aspect)
        if size != (shown.width, shown.height):
            # Cubic, as players do; linear would blur the pixels between the stored ones.
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        # Read once: PyAV 18.1 keeps a frame whose side data were read until the next garbage
        # collection, since they refer to each other.
        seen = (shown.rotation, shown.width, shown.height)
        if seen not in self._orientations:
            self._orientations[seen] = _orientation(shown)
        return _turn(pixels, *self._orientations[seen])


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Compute the width and height that show all pixels of a picture as squares.

    Example:
        >>> square_size(720, 576, Fraction(64, 45)), square_size(720, 480, Fraction(8, 9))
        ((1024, 576), (720, 540))
    """
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def checked_aspect(aspect: Fraction | None) -> Fraction | None:
    """Return the aspect ratio of pixels, 1 if unknown; None if it is too far from 1 to be true.

    Example:
        >>> checked_aspect(Fraction(64, 45)), checked_aspect(Fraction(100)), checked_aspect(None)
        (Fraction(64, 45), None, Fraction(1, 1))
    """
    if not aspect or aspect < 0:
        return Fraction(1)
    return aspect if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else None


def describe_colour(frame: VideoFrame) -> str:
    """Describe matrix, primaries, transfer and range; "" if none is stated.

    Example:
        >>> describe_colour(VideoFrame(2, 2))
        ''
    """
    matrix, numbers = frame.colorspace, (frame.color_primaries, frame.color_trc)
    parts = [MATRICES.get(matrix, str(matrix))]
    for kind, number in zip((ColorPrimaries, ColorTrc), numbers, strict=True):
        is_named = number in {member.value for member in kind}
        name = kind(number).name.lower().replace("_", "-") if is_named else str(number)
        parts.append("unknown" if number == UNSPECIFIED else name)
    colours = "" if set(parts) == {"unknown"} else "/".join(parts)
    return ", ".join(filter(None, [colours, {1: "limited", 2: "full"}.get(frame.color_range)]))


def describe_orientation(frame: VideoFrame) -> str:
    """Describe how the stored picture is shown, as clockwise degrees; "" if it is stored upright.

    Example:
        >>> describe_orientation(VideoFrame(2, 2))
        ''
    """
    is_swapped, left, up = _orientation(frame)
    is_mirrored = is_swapped == (left == up)
    degrees = TURNS[(left != is_mirrored, up)]
    turn = f"rotated by {degrees} degrees" if degrees else ""
    return " and ".join(filter(None, [turn, "mirrored" if is_mirrored else ""]))


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Find whether to swap rows and columns, then reverse x, then reverse y.

    Of the 8 rotations and mirrorings, the nearest to the display matrix: it shows the stored pixel
    (x, y) at (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    is_swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if is_swapped else (False, a < 0, d < 0)


def _turn(pixels: np.ndarray, is_swapped: bool, left: bool, up: bool) -> np.ndarray:
    if is_swapped:
        pixels = cv2.transpose(pixels)
    if left or up:
        pixels = cv2.flip(pixels, -1 if left and up else 1 if left else 0)
    return pixels
