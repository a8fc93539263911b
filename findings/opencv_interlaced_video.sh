#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 (FFmpeg 8.1 inside), imageio-ffmpeg 0.8.1, Python 3.11
#
# Guess: `VideoCapture.read` returns True and the frame, or False. A video that it cannot convert is
# noticed.
# Seen: of interlaced video (camcorders, television, DVD; H.264, MPEG-2, DV, ProRes alike) it returns
# True for every frame, but never writes the pixels: FFmpeg's scaler refuses to convert an interlaced
# frame to a progressive one, and OpenCV does not check its answer. All frames show what was in that
# memory before. Given an array to write to, it returns True and that array, and its content has nothing
# to do with the video. The frame count and times are right. A line of FFmpeg on stderr ("Invalid
# argument") is the only sign, and OPENCV_FFMPEG_LOGLEVEL hides it. The same clip without the flag of
# interlacing is read as it should be.
#
# Output seen:
#   progressive: 10 of 10 reads succeed, 10 different frames, 10 near those of ffmpeg
#   interlaced: 10 of 10 reads succeed, 1 different frames, 0 near those of ffmpeg
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 imageio-ffmpeg==0.8.1 numpy==2.3.5
cd "$folder"
OPENCV_FFMPEG_LOGLEVEL=-8 venv/bin/python - <<'PYTHON'
import subprocess

import cv2
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe


def ffmpeg(*arguments):
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


source = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=50:duration=0.4"]
x264 = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-crf", "12"]
ffmpeg(*source, "-vf", "fps=25", *x264, "progressive.mp4")
ffmpeg(*source, "-vf", "interlace=scan=tff", *x264, "-flags", "+ilme+ildct", "interlaced.mp4")

found = {}
for name in ("progressive", "interlaced"):
    raw = ffmpeg("-i", f"{name}.mp4", "-f", "rawvideo", "-pix_fmt", "bgr24", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 240, 320, 3)
    capture = cv2.VideoCapture(f"{name}.mp4")
    reads = [capture.read() for _ in expected]
    frames = [frame.copy() for is_read, frame in reads if is_read]
    different = len({frame.tobytes() for frame in frames})
    near = sum(np.abs(a.astype(int) - b).mean() < 5 for a, b in zip(frames, expected, strict=True))
    print(
        f"{name}: {len(frames)} of {len(reads)} reads succeed, {different} different frames, "
        f"{near} near those of ffmpeg"
    )
    found[name] = (len(frames), near)
assert found["progressive"] == (10, 10), "a progressive clip is not read as expected"
assert found["interlaced"] == (10, 0), "interlaced clips are converted, or refused, now"
PYTHON
