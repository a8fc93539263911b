#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 and 4.10.0.84, numpy 2.2.6, Python 3.11
#
# Guess: a mask that is passed to `cv2.seamlessClone` (Poisson blending, the usual last step of a face
# swap) is read and not written, as the inputs of other OpenCV functions are.
# Seen: OpenCV 5.0.0 overwrites the array: pixels inside the mask become 0, and some outside 255. Source
# and destination stay as they were. OpenCV 4.10.0 leaves all three. Code of version 4 that makes a mask
# once and uses it for every frame of a video, or as the ground truth of the manipulated region, goes on
# without an error, with another mask in every call.
#
# Output seen, pixels of an elliptical mask before the calls and after each of three:
#   OpenCV 4.10.0: 3883 3883 3883 3883
#   OpenCV 5.0.0: 3883 1874 4461 1740
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 4.10.0.84 5.0.0.93; do
  python3 -m venv --clear venv
  venv/bin/pip install -q "opencv-python-headless==$version" numpy==2.2.6
  venv/bin/python - <<'PYTHON'
import cv2
import numpy as np

rng = np.random.default_rng(0)
face, frame = (rng.integers(0, 256, (200, 200, 3), np.uint8) for _ in range(2))
sources = face.copy(), frame.copy()
mask = np.zeros((200, 200), np.uint8)
cv2.ellipse(mask, (80, 80), (40, 30), 0, 0, 360, 255, -1)
counts = [int((mask > 0).sum())]
for _ in range(3):
    x, y, width, height = cv2.boundingRect(mask)
    cv2.seamlessClone(face, frame, mask, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    counts.append(int((mask > 0).sum()))
print(f"OpenCV {cv2.__version__}:", *counts)
assert (face == sources[0]).all() and (frame == sources[1]).all(), "an image changed"
assert (counts[1] != counts[0]) == cv2.__version__.startswith("5."), "the mask fares otherwise now"
PYTHON
done
