"""Degradation of a video before faces are extracted from it.

Takes a video or image file, or the image files of a video; writes the degraded video, or its
sampled frames as image files, into a folder. Frames are read as for the extraction of faces:
upright, with square pixels, within the limits.
"""

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from jdfd_keras.datasets.synthetic.degradations import (
    DEGRADATIONS,
    SCREENSHOT_QUALITY,
    check_encoder,
    check_strength,
    choose_kept_frames,
    degrade_image,
    shrink_to_screen,
)
from jdfd_keras.datasets.synthetic.recompression import X265_PARAMS, encode_jpeg
from jdfd_keras.faces.decode import MediaReader, open_media
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.faces.media import Frame, choose_frames
from jdfd_keras.options import FaceOptions, LimitOptions

TICKS_PER_S = 90_000  # of the times of frames, as in MPEG
DEFAULT_RATE = 25.0  # frames per second of image files, whose times are unknown
X265_MIN_FRAMES = 3  # with fewer and B-frames, it gives random times (PyAV 18.1.0)
BT601, LIMITED_RANGE = 6, 1  # FFmpeg's numbers of SMPTE 170M, and of limited range


def degrade_video(
    path: str | Path | Sequence[str | Path],
    name: str,
    strength: float,
    folder: Path,
    *,
    faces: FaceOptions,
    limits: LimitOptions,
    seed: int,
) -> Path | list[Path]:
    """Degrade a video, for `extract_faces` with the same options.

    With h264 and h265 all frames are encoded again, at their times, as one video. With the other
    degradations only the frames that `extract_faces` samples are degraded, each as an image: a JPEG
    file for jpeg and screenshot, a PNG file otherwise.

    Args:
        path: A video or image file, or the image files of a video in the order of its frames.
        name: A name of DEGRADATIONS.
        strength: Its strength.
        folder: An existing folder for the files, of this video alone.
        faces: Sampled frames.
        limits: Limits of the file.
        seed: Random seed of noise and dropped frames; mixed with the name of the file, or of the
            folder of the image files.

    Returns:
        The encoded video; or image files, whose names are the indices of their frames in the video.
        The list has one entry for each frame of the video, those between sampled frames repeat the
        file of one: so `extract_faces` samples each degraded frame once, with its own index. If
        fewer frames can be decoded, or are kept by frame-drop, they are numbered from 0.

    Raises:
        ValueError: If the name or the strength is wrong, or PyAV lacks the encoder.
        OSError: If a file does not exist, cannot be decoded, is beyond a limit, or changes
            meanwhile; or the folder cannot be written.

    Example:
        >>> from jdfd_keras.faces.extract import extract_faces
        >>> folder = Path("degraded")
        >>> folder.mkdir()
        >>> options = {"faces": FaceOptions(frames_per_video=3), "limits": LimitOptions()}
        >>> files = degrade_video("video.mp4", "jpeg", 30, folder, **options, seed=0)
        >>> [file.name for file in files]
        ['000001.jpg', '000001.jpg', '000001.jpg', '000003.jpg', '000003.jpg', '000005.jpg']
        >>> extraction = extract_faces(files, options["faces"])
        >>> [face.frame_index for face in extraction.faces], extraction.info.jpeg_quality
        ([1, 3, 5], 30)
    """
    check_strength(name, strength)
    check_encoder(name)
    is_file = isinstance(path, (str, Path))
    shown = Path(path) if is_file else Path(next(iter(path), "")).parent
    own_seed = zlib.crc32(shown.name.encode("utf-8", "replace"), seed)
    with open_media(path, limits) as media:
        if DEGRADATIONS[name].encoder:
            return _encode(media, Path(folder, f"{name}-{strength:g}.mp4"), name, strength)
        if name == "frame-drop":
            frames = _drop_frames(media, strength, faces, own_seed)
        else:
            frames = media.read(faces.frames_per_video, every=faces.every)
        files = [_write_image(frame, name, strength, Path(folder), own_seed) for frame in frames]
        return _list_frames(files, max(media.info.num_frames, 1), faces)


def _drop_frames(
    media: MediaReader, share: float, faces: FaceOptions, seed: int
) -> Iterator[Frame]:
    """Yield the frames that are sampled from those that are kept."""
    sampled, last, num_sampled = None, None, 0
    for frame in media.read(1, every=1):
        if sampled is None:  # the number of frames is known with the first one
            kept = choose_kept_frames(max(media.info.num_frames, 1), share, seed=seed)
            sampled = set(kept[choose_frames(len(kept), faces.frames_per_video, faces.every)])
        last = frame
        if frame.index in sampled:
            num_sampled += 1
            yield frame
    if last and not num_sampled:  # a damaged video has fewer frames than its header states
        yield last


def _write_image(frame: Frame, name: str, strength: float, folder: Path, seed: int) -> Path:
    """Write a degraded frame as an image file."""
    suffix = ".png"
    if name == "jpeg":
        coded, suffix = encode_jpeg(frame.pixels, int(strength)), ".jpg"
    elif name == "screenshot":
        shown = shrink_to_screen(frame.pixels, strength)
        coded, suffix = encode_jpeg(shown, SCREENSHOT_QUALITY), ".jpg"
    elif DEGRADATIONS[name].is_of_videos:
        coded = encode_png(frame.pixels)
    else:
        coded = encode_png(degrade_image(frame.pixels, name, strength, key=(seed, frame.index)))
    path = folder / f"{frame.index:06d}{suffix}"
    path.write_bytes(coded)
    return path


def _list_frames(files: list[Path], num_frames: int, faces: FaceOptions) -> list[Path]:
    """List the files so that `extract_faces` samples each once, if possible at its index."""
    sampled = choose_frames(num_frames, faces.frames_per_video, faces.every)
    if len(sampled) == len(files):
        numbers = np.searchsorted(sampled, np.arange(num_frames), side="right") - 1
        return [files[number] for number in np.maximum(numbers, 0)]
    return [file for file in files for _ in range(faces.every or 1)]


def _encode(media: MediaReader, path: Path, name: str, crf: float) -> Path:
    """Encode all frames again at their times, without sound."""
    frames = media.read(1, every=1)
    start = [*itertools.islice(frames, X265_MIN_FRAMES)]
    first = start[0]
    height, width = (side + side % 2 for side in first.shape[:2])
    rate = Fraction(media.info.frame_rate or DEFAULT_RATE).limit_denominator(1001)
    # With more threads, the bytes depend on their number.
    options = {"crf": f"{crf:g}", "preset": "medium", "threads": "1"}
    if name == "h265":
        is_short = len(start) < X265_MIN_FRAMES
        options["x265-params"] = X265_PARAMS + (":bframes=0" if is_short else "")
    converter, last_tick = VideoReformatter(), -1
    # An open file, since FFmpeg takes a name with a colon for a URL.
    with open(path, "wb") as file, av.open(file, "w", "mp4") as output:
        stream = cast(VideoStream, output.add_stream(DEGRADATIONS[name].encoder, rate, options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS_PER_S)
        context.colorspace, context.color_range = BT601, LIMITED_RANGE
        for number, frame in enumerate(itertools.chain(start, frames)):
            pixels = _fit(frame.pixels, first.shape, (height, width))
            coded = converter.reformat(
                av.VideoFrame.from_ndarray(pixels),
                format="yuv420p",
                interpolation=Interpolation.BICUBIC,
                threads=1,
            )
            time_s = number / float(rate) if math.isnan(frame.time_s) else frame.time_s
            last_tick = max(round(time_s * TICKS_PER_S), last_tick + 1)
            coded.pts, coded.time_base = last_tick, Fraction(1, TICKS_PER_S)
            output.mux(stream.encode(coded))
        output.mux(stream.encode())
    return path


def _fit(pixels: np.ndarray, shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Resize a frame to the shape of the first one, and repeat its last row and column."""
    if pixels.shape != shape:
        pixels = cv2.resize(pixels, shape[1::-1], interpolation=cv2.INTER_CUBIC)
    padding = [(0, side - own) for side, own in zip(size, shape[:2], strict=True)]
    return np.pad(pixels, [*padding, (0, 0)], "edge")
