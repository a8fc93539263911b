#!/usr/bin/env bash
# av 18.1.0 (PyAV, FFmpeg 8.1.2 inside), opencv-python-headless 5.0.0.93, pillow-heif 1.8.1,
# imageio-ffmpeg 0.8.1 (ffmpeg 9.0.2), scikit-image 0.26.0 (its public-domain photograph), Python 3.11
#
# Guess: a library that decodes a HEIC file gives the photograph, or an error.
# Seen: phones store a HEIC photograph as a grid of tiles of 512 x 512 pixels. `VideoCapture` of OpenCV and
# `container.decode(video=0)` of PyAV both succeed, with one frame of 512 x 512: the tile in the upper
# left corner. The others are further "video streams" of the file; how they belong together is in a stream
# group, which neither library offers. (The command ffmpeg 9.0.2 joins them, and so does pillow-heif.) A
# program that takes any file that decodes thus looks at one of the 48 tiles of 12 megapixels.
#
# Output seen, width x height of what is decoded from a photograph of 1000 x 900:
#   OpenCV: 512 x 512, the upper left corner
#   PyAV: 512 x 512, the upper left corner, in 4 streams
#   ffmpeg: 1000 x 900
#   pillow-heif: 1000 x 900
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 opencv-python-headless==5.0.0.93 pillow-heif==1.8.1 \
    imageio-ffmpeg==0.8.1 scikit-image==0.26.0
cd "$folder"
OPENCV_FFMPEG_LOGLEVEL=-8 venv/bin/python - <<'PYTHON'
import subprocess

import av
import cv2
import numpy as np
import pillow_heif
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from skimage.data import astronaut


def describe(pixels, image):
    height, width = pixels.shape[:2]
    distance = np.abs(pixels - image[:height, :width].astype(int)).mean()
    assert distance < 4, "not the photograph, nor its corner"
    corner = ", the upper left corner" if pixels.shape != image.shape else ""
    return f"{width} x {height}{corner}"


image = np.kron(astronaut(), np.ones((2, 2, 1), np.uint8))[:900, :1000]
file = pillow_heif.from_pillow(Image.fromarray(image))
file.save("photograph.heic", quality=95, tile_size=512)

is_read, pixels = cv2.VideoCapture("photograph.heic").read()
assert is_read
found = {"OpenCV": describe(pixels[..., ::-1], image)}
with av.open("photograph.heic") as container:
    (frame,) = container.decode(video=0)
    streams = len(container.streams)
found["PyAV"] = describe(frame.to_ndarray(format="rgb24"), image) + f", in {streams} streams"
command = [get_ffmpeg_exe(), "-loglevel", "error", "-i", "photograph.heic", "photograph.png"]
subprocess.run(command, check=True)
found["ffmpeg"] = describe(np.asarray(Image.open("photograph.png")), image)
found["pillow-heif"] = describe(np.asarray(pillow_heif.open_heif("photograph.heic")), image)
for name, what in found.items():
    print(f"{name}: {what}")
assert all("corner" in found[name] for name in ("OpenCV", "PyAV")), "all tiles are read now"
assert not any("corner" in found[name] for name in ("ffmpeg", "pillow-heif")), "one tile is read"
PYTHON
