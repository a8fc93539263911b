#!/usr/bin/env bash
# av 18.1.0 (PyAV, FFmpeg 8.1.2 inside), imageio-ffmpeg 0.8.1, numpy 2.3.5, Python 3.11
#
# Guess: `frame.rotation` of PyAV and a rotation of the pixels by that angle are all that is needed to show
# a frame as a player does.
# Seen: it is so for the four rotations. A mirrored display matrix has no rotation, but PyAV returns one:
# -180 for a frame mirrored left to right, whose turned pixels are then upside down, and 0 for one mirrored
# top to bottom, which then stays so. Nothing marks the answer as unreliable. The side data
# DISPLAYMATRIX of the frame has all nine numbers; a determinant of the first four below 0 means mirrored.
#
# Output seen, mean difference of the pixels from those of ffmpeg (levels):
#   rotated by 90: rotation 90, difference 0.0
#   rotated by 180: rotation -180, difference 0.0
#   rotated by 270: rotation -90, difference 0.0
#   mirrored left to right: rotation -180, difference 19.6
#   mirrored top to bottom: rotation 0, difference 19.6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 imageio-ffmpeg==0.8.1 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PYTHON'
import subprocess

import av
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe


def ffmpeg(*arguments):
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


source = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=0.2"]
ffmpeg(*source, "-c:v", "libx264rgb", "-crf", "0", "plain.mp4")
cases = {
    "rotated by 90": ["-display_rotation", "90"],
    "rotated by 180": ["-display_rotation", "180"],
    "rotated by 270": ["-display_rotation", "270"],
    "mirrored left to right": ["-display_hflip"],
    "mirrored top to bottom": ["-display_vflip"],
}
for title, options in cases.items():
    ffmpeg(*options, "-i", "plain.mp4", "-c", "copy", "shown.mov")
    raw = ffmpeg("-i", "shown.mov", "-f", "rawvideo", "-pix_fmt", "rgb24", "-frames:v", "1", "-")
    with av.open("shown.mov") as container:
        frame = next(container.decode(video=0))
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    expected = np.frombuffer(raw, np.uint8).reshape(pixels.shape).astype(int)
    difference = np.abs(pixels - expected).mean()
    print(f"{title}: rotation {frame.rotation}, difference {difference:.1f}")
    is_wrong = difference > 10
    assert is_wrong == title.startswith("mirrored"), f"PyAV turns it otherwise now: {title}"
PYTHON
