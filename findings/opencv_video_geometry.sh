#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 (FFmpeg 8.1 inside), imageio-ffmpeg 0.8.1, Python 3.11
#
# Guess: `VideoCapture`, which turns the videos of phones upright by default, returns frames as a player
# shows them.
# Seen: three things a player does are missing, and nothing in the answer shows it.
# - Pixels that are not square (DVD, DV, HDV) stay so: a circle is an ellipse. CAP_PROP_SAR_NUM and
#   CAP_PROP_SAR_DEN have the ratio; applying it is left to the caller.
# - A mirrored video (front cameras, `ffmpeg -display_hflip`) is rotated by 180 degrees and not
#   mirrored, so it is upside down: the rotation is read from a display matrix whose mirroring is ignored.
# - A video whose size changes (calls, turned phones) is squeezed into the size of its first frame.
#
# Output seen, sizes as width x height:
#   non-square pixels: 720 x 576, ffmpeg's player 1024 x 576
#   mirrored: nearest to the right frame upside down
#   size changes: 320 x 240 for all 20 frames; the file has 10 frames of 320 x 240 and 10 of 240 x 320
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 imageio-ffmpeg==0.8.1 numpy==2.3.5
cd "$folder"
OPENCV_FFMPEG_LOGLEVEL=-8 venv/bin/python - <<'PYTHON'
import subprocess
from pathlib import Path

import cv2
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe


def ffmpeg(*arguments):
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def clip(path, *arguments, size="320x240"):
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=0.4"]
    ffmpeg(*source, *arguments, "-pix_fmt", "yuv420p", path)


def read(path):
    capture = cv2.VideoCapture(path)
    frames = []
    while (answer := capture.read())[0]:
        frames.append(answer[1].copy())
    return frames


mpeg2 = ["-c:v", "mpeg2video", "-q:v", "2"]
clip("wide.mpg", "-vf", "scale=720:576,setsar=64/45", *mpeg2, size="1024x576")
height, width = read("wide.mpg")[0].shape[:2]
print(f"non-square pixels: {width} x {height}, ffmpeg's player {round(width * 64 / 45)} x {height}")
assert (width, height) == (720, 576), "non-square pixels are made square now"

clip("plain.mp4", "-c:v", "libx264", "-crf", "12")
ffmpeg("-display_hflip", "-i", "plain.mp4", "-c", "copy", "mirrored.mov")
raw = ffmpeg("-i", "mirrored.mov", "-f", "rawvideo", "-pix_fmt", "bgr24", "-")
right = np.frombuffer(raw, np.uint8).reshape(-1, 240, 320, 3)[0].astype(int)
got = read("mirrored.mov")[0]
turned = {"as it is": got, "mirrored": got[:, ::-1], "upside down": got[::-1]}
distances = {name: np.abs(frame - right).mean() for name, frame in turned.items()}
nearest = min(distances, key=distances.get)
print(f"mirrored: nearest to the right frame {nearest}")
assert nearest == "upside down", "mirrored videos are read otherwise now"

clip("a.ts", "-c:v", "libx264")
clip("b.ts", "-c:v", "libx264", size="240x320")
Path("both.ts").write_bytes(Path("a.ts").read_bytes() + Path("b.ts").read_bytes())
frames = read("both.ts")
sizes = {f"{frame.shape[1]} x {frame.shape[0]}" for frame in frames}
print(
    f"size changes: {', '.join(sizes)} for all {len(frames)} frames; the file has 10 frames of "
    "320 x 240 and 10 of 240 x 320"
)
assert sizes == {"320 x 240"}, "frames keep their own size now"
PYTHON
