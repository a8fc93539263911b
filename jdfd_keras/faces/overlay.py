"""Overlays: copies of a video or image with its faces, or what a caller draws, on it.

Each frame is decoded once and encoded once; one is held in memory at a time.
"""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries as Primaries
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.draw import DrawnFace, draw_faces, fit_image
from jdfd_keras.faces.face_mesh import landmark_finder
from jdfd_keras.faces.media import Frame, check_file_name
from jdfd_keras.faces.sound import Sound, open_sound
from jdfd_keras.faces.track import TrackedFace, track_faces
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.palette import track_colour
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, LimitOptions

Send = Callable[[Callable[[], tuple[int, int]]], None]
# Suffix to FFmpeg's name of the container, the codec, and the resolution of frame times per second.
ENCODINGS = {
    ".mp4": ("mp4", "libx264", 90_000),
    ".webm": ("webm", "libvpx-vp9", 1000),
    ".mov": ("mov", "libx264", 90_000),
    ".mkv": ("matroska", "libx264", 1000),
}
# On a noisy clip the error of both is below that of OpenCV's MPEG-4. H.264 takes up to 1.6 times as
# long as that, VP9 a sixth of the time of OpenCV's VP8 (FFmpeg 8.1, OpenCV 5.0).
CODEC_OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"},
}
MAX_TICKS = 2**31 - 1  # of 1/90000 s between two frames: MP4 stores no longer gap
DEFAULT_FRAMES_PER_S, MIN_FRAMES_PER_S, MAX_FRAMES_PER_S = 25.0, 0.01, 1000.0
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Overlay(Result):
    """What was written as an overlay."""

    num_frames: int
    sound: str = ""  # codec of the source, and whether it was copied; "" without sound
    warnings: tuple[str, ...] = ()  # what is missing of the sound


def check_overlay(path: str | Path, out: str | Path, limits: LimitOptions | None = None) -> None:
    """Check the names of an overlay and of its source, and that the source is a video or image.

    Raises:
        OSError: If a name is not UTF-8, the folder of `out` does not exist, or the source cannot
            be opened.
        ValueError: If the suffix of `out` does not suit the source, or both are the same file.

    Example:
        >>> check_overlay("video.mp4", "overlay.gif")
        Traceback (most recent call last):
        ValueError: Expected an overlay of a video to end in .mp4, .webm, .mov, .mkv; got ...
    """
    path, out = Path(path), Path(out)
    check_file_name(path)
    check_file_name(out)
    if os.path.realpath(out) == os.path.realpath(path):
        raise ValueError(
            f"Expected different files for the overlay and its source; got {out} for both. Choose "
            "another name."
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"Expected to write {out}; got no folder {out.parent}. Create it, or choose another."
        )
    with open_media(path, limits) as media:
        is_video = media.is_video
    kind, suffixes = ("a video", ENCODINGS) if is_video else ("an image", IMAGE_SUFFIXES)
    if out.suffix.lower() not in suffixes:
        raise ValueError(
            f"Expected an overlay of {kind} to end in {', '.join(suffixes)}; got {out}. "
            f"Try {out.with_suffix(next(iter(suffixes))).name}."
        )


def draw_overlay(
    path: str | Path,
    out: str | Path,
    options: FaceOptions | None = None,
    limits: LimitOptions | None = None,
    sha256: str = "",
    send: Send | None = None,
) -> Overlay:
    """Draw the faces of a video or image on its frames.

    Each frame shows its index and time and, for every face, its box, landmarks and track id.

    Args:
        path: A video or image file.
        out: The overlay, as for `write_overlay`.
        options: Detector and `every`. With `every=0` all frames are used, since an even spread
            is not a video; `extract_faces` finds the same tracks with `every=1`.
        limits: Limits of the file; the defaults if not given.
        sha256: As for `write_overlay`.
        send: As for `write_overlay`.

    Returns:
        The number of frames, and how the sound was written.

    Example:
        >>> draw_overlay("video.mp4", "overlay.mp4").num_frames
        6
    """
    options, limits = options or FaceOptions(), limits or LimitOptions()
    detector = face_detector(options.detector) if options.detector != "none" else None

    def draw(frames: Iterator[Frame]) -> Iterator[np.ndarray]:
        max_faces, find = limits.max_faces_per_frame, landmark_finder(options.detector)
        for frame, faces in track_faces(frames, detector, max_faces=max_faces, find=find):
            yield draw_faces(frame, [_draw_track(face) for face in faces])

    every = options.every or 1
    return write_overlay(path, out, draw, every=every, limits=limits, sha256=sha256, send=send)


def write_overlay(
    path: str | Path,
    out: str | Path,
    draw: Callable[[Iterator[Frame]], Iterator[np.ndarray]],
    *,
    every: int = 1,
    limits: LimitOptions | None = None,
    sha256: str = "",
    send: Send | None = None,
) -> Overlay:
    """Write a video or image with a function that draws on its frames.

    Every frame of the video has the time of its source, and so has the sound: its packets are
    copied, or encoded again if the container or browsers do not take their codec. Sound that does
    not decode is omitted, with a warning.

    Args:
        path: A video or image file.
        out: The overlay, replaced if it exists: .mp4, .mov or .mkv (H.264) or .webm (VP9) of a
            video; .png or .jpg of an image. Codecs need even sizes, so an odd width or height of a
            video grows by one pixel.
        draw: Function from the frames to one image of each, uint8[height, width, 3] RGB. The video
            has the size of the first; others are fitted by `fit_image`.
        every: Use every Nth frame of a video; at least 1.
        limits: Limits of the file; the defaults if not given.
        sha256: SHA-256 that the file must have, hexadecimal; any if not given.
        send: Called after each frame with a function that returns the numbers of frames that are
            done and in all.

    Returns:
        The number of frames, and how the sound was written.

    Raises:
        OSError: If the file cannot be decoded, is beyond a limit or has another SHA-256, or `out`
            cannot be written.

    Example:
        >>> darken = lambda frames: (frame.pixels // 2 for frame in frames)
        >>> write_overlay("video.mp4", "dark.mp4", darken, every=3)
        Overlay(num_frames=2, sound='', warnings=())
    """
    path, out = Path(path), Path(out)
    check_overlay(path, out, limits)
    with atomic_path(out) as unfinished, open_media(path, limits) as media:
        if sha256 and media.file.sha256 != sha256:
            raise OSError(
                f"Expected the bytes of {path} that were analysed (SHA-256 {sha256[:16]}...); got "
                f"others ({media.file.sha256[:16]}...). Analyse the file again."
            )
        frames = media.read(1, every=every)
        if not media.is_video:
            (image,) = draw(frames)
            _, encoded = cv2.imencode(out.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            unfinished.write_bytes(encoded.tobytes())
            return Overlay(1)
        times_s: deque[float] = deque()  # of the frames that are being drawn
        images = draw(times_s.append(frame.time_s) or frame for frame in frames)
        images = itertools.chain([next(images)], images)  # with a frame, the facts are known
        total = -(-media.info.num_frames // every)
        timed = ((times_s.popleft(), image) for image in images)
        report = send and (lambda done: send(lambda: (done, total)))
        try:
            frame_rate = (media.info.frame_rate or DEFAULT_FRAMES_PER_S) / every
            container = ENCODINGS[out.suffix.lower()][0]
            with open_sound(media, container) as sound:
                num_frames = _write_video(unfinished, timed, frame_rate, sound, report)
            return Overlay(num_frames, _describe(sound), tuple(sound.warnings) if sound else ())
        except av.error.FFmpegError as error:
            raise OSError(
                f"Expected to encode {path} as {out}; got an error of FFmpeg: {error.strerror}. "
                f"Try another suffix of {', '.join(ENCODINGS)}."
            ) from error


def _describe(sound: Sound | None) -> str:
    if sound is None or not sound.codec:
        return ""
    return f"{sound.codec}, {'copied' if sound.is_copied else 'encoded again'}"


def _draw_track(face: TrackedFace) -> DrawnFace:
    colour = track_colour(face.track_id)
    name = str(face.track_id)
    return DrawnFace(face.box[:4], f"track {name}", colour, face.landmarks, short_label=name)


def _write_video(
    path: Path,
    images: Iterator[tuple[float, np.ndarray]],
    frame_rate: float,
    sound: Sound | None,
    report: Callable[[int], None] | None,
) -> int:
    """Encode images, each with its time in seconds, and report each; return their number."""
    container, codec, ticks_per_s = ENCODINGS[path.suffix.lower()]
    # The header of an MP4 file is moved to its front, so that browsers play it while they load it;
    # FFmpeg then reads the file while it writes it.
    options = {"movflags": "faststart"} if container in ("mp4", "mov") else {}
    with (
        open(path, "wb", buffering=0) as file,
        av.open(file, "w", container, options, io_open=lambda *_: path.open("rb", 0)) as output,
        contextlib.ExitStack() as files,
    ):
        # Of the header and of the last frame; the others have their own times.
        rate = Fraction(min(max(frame_rate, MIN_FRAMES_PER_S), MAX_FRAMES_PER_S))
        stream: Any = output.add_stream(codec, rate.limit_denominator(1001), CODEC_OPTIONS[codec])
        context, to_yuv, size = stream.codec_context, VideoReformatter(), None
        context.time_base, context.pix_fmt = Fraction(1, ticks_per_s), "yuv420p"
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = Primaries.BT709, ColorTrc.BT709
        if sound:
            files.enter_context(sound.writing(output))
        pts = last_ticks = done = 0
        for done, (time_s, image) in enumerate(images, start=1):
            ticks = round(time_s * ticks_per_s)
            if size is None:
                pts, size = ticks, image.shape[1::-1]
                context.width, context.height = (side + side % 2 for side in size)
            else:
                pts += min(max(ticks - last_ticks, 1), MAX_TICKS)
            last_ticks = ticks
            right, below = context.width - size[0], context.height - size[1]
            fitted = fit_image(image, *size)
            padded: Any = cv2.copyMakeBorder(fitted, 0, below, 0, right, cv2.BORDER_REPLICATE)
            frame = to_yuv.reformat(
                av.VideoFrame.from_numpy_buffer(padded, "rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                interpolation=Interpolation.AREA,
            )
            frame.pts, frame.time_base = pts, context.time_base
            if sound:
                sound.write(output, pts / ticks_per_s)
            output.mux(stream.encode(frame))
            if report:
                report(done)
        output.mux(stream.encode())
        if sound:
            sound.write(output)
        return done
