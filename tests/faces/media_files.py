"""Media files made on the spot, and their independent decode, with the ffmpeg of imageio-ffmpeg."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES_PER_S = 25


def run_ffmpeg(*arguments: object, data: bytes | None = None) -> bytes:
    """Run ffmpeg; return what it writes to its standard output."""
    command = [FFMPEG, "-hide_banner", "-nostdin", "-y", "-loglevel", "error", *map(str, arguments)]
    if data is not None:
        command.remove("-nostdin")
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def make_clip(
    path: Path,
    *arguments: object,
    source: str | np.ndarray | Path = "testsrc2=size=160x120:rate=25:duration=0.4",
    before: tuple[object, ...] = (),
) -> Path:
    """Write a media file.

    Args:
        path: The file; its suffix is the container.
        arguments: Options of ffmpeg for the output, such as "-c:v", "libx264".
        source: A filter graph of ffmpeg (lavfi), uint8[n, height, width, 3] RGB frames of
            25 a second, or another file.
        before: Options for the input, before "-i".
    """
    data = None
    if isinstance(source, np.ndarray):
        height, width = source.shape[1:3]
        before = (
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
            *("-r", FRAMES_PER_S, *before),
        )
        data, name = source.tobytes(), "-"
    elif isinstance(source, Path):
        name = f"file:{source}"
    else:
        before, name = ("-f", "lavfi", *before), source
    # One thread: the same bytes each time, and no oversubscription beside other tests.
    run_ffmpeg(*before, "-i", name, "-threads", 1, *arguments, f"file:{path}", data=data)
    return path


def decode_with_ffmpeg(
    path: Path,
    *arguments: object,
    before: tuple[object, ...] = (),
    scaler: str = "bicubic+accurate_rnd+full_chroma_int",
) -> np.ndarray:
    """Decode all frames of the best video stream as ffmpeg shows them.

    Args:
        path: A media file.
        arguments: Options for the output, such as "-vf", "bwdif=deint=interlaced".
        before: Options for the input, such as "-noautorotate".
        scaler: Flags of the conversion to RGB: precise, or "bicubic" as ffmpeg and we convert.

    Returns:
        uint8[n, height, width, 3], RGB; frames of another size are scaled to that of the first.
    """
    stream = run_ffmpeg(
        *(*before, "-i", f"file:{path}", "-an", *arguments, "-fps_mode", "passthrough"),
        *("-sws_flags", scaler, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"),
    )
    frames = []
    while stream:
        header = re.match(rb"P6\s(\d+)\s(\d+)\s255\s", stream)
        assert header, stream[:20]
        width, height = map(int, header.groups())
        end = header.end() + 3 * width * height
        pixels = np.frombuffer(stream[header.end() : end], np.uint8)
        frames.append(pixels.reshape(height, width, 3))
        stream = stream[end:]
    return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)


def times_of(path: Path) -> list[float]:
    """Return the times of the frames in seconds by ffmpeg, without decoding."""
    arguments = ("-i", f"file:{path}", "-an", "-c", "copy", "-copyts", "-f", "framecrc", "-")
    lines = run_ffmpeg(*arguments).decode().splitlines()
    (tick,) = (line.split(": ")[1].split("/") for line in lines if line.startswith("#tb"))
    ticks = sorted(int(line.split(",")[2]) for line in lines if not line.startswith("#"))
    return [number * int(tick[0]) / int(tick[1]) for number in ticks]
