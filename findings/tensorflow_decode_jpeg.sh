#!/usr/bin/env bash
# tensorflow 2.21.0, pillow 12.3.0, opencv-python-headless 5.0.0.93, scikit-image 0.26.0 (its public-domain
# photograph), Python 3.11
#
# Guess: `tf.io.decode_jpeg` and `tf.io.decode_image` give the pixels that Pillow and OpenCV give, or all but
# for a level.
# Seen: Pillow and OpenCV agree in every pixel; TensorFlow is off by up to 18 of 255 levels, because its
# default is libjpeg's fast, inexact transform. The error grows with the quality of the file: 5 levels at
# quality 75, 18 at 95. A network that was trained on pixels of one and is served with pixels of the other
# answers a little differently, most of all on the best images. With dct_method="INTEGER_ACCURATE"
# all three are equal, at the same speed; `decode_image` has no such argument.
#
# Output seen, largest difference from Pillow:
#   quality 75: OpenCV 0, TensorFlow 5, its INTEGER_ACCURATE 0
#   quality 95: OpenCV 0, TensorFlow 18, its INTEGER_ACCURATE 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 pillow==12.3.0 opencv-python-headless==5.0.0.93 \
    scikit-image==0.26.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PYTHON'
import io

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image
from skimage.data import astronaut

largest = {}
for quality in (75, 95):
    file = io.BytesIO()
    Image.fromarray(astronaut()).save(file, "JPEG", quality=quality)
    data = file.getvalue()
    expected = np.asarray(Image.open(file)).astype(int)
    decoded = {
        "OpenCV": cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1],
        "TensorFlow": tf.io.decode_jpeg(data).numpy(),
        "its INTEGER_ACCURATE": tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy(),
    }
    largest[quality] = {name: np.abs(pixels - expected).max() for name, pixels in decoded.items()}
    found = ", ".join(f"{name} {difference}" for name, difference in largest[quality].items())
    print(f"quality {quality}: {found}")
for difference in largest.values():
    assert difference["OpenCV"] == 0, "Pillow and OpenCV differ now"
    assert difference["TensorFlow"] >= 4, "TensorFlow's default is near Pillow now"
    assert difference["its INTEGER_ACCURATE"] == 0, "INTEGER_ACCURATE differs from Pillow now"
PYTHON
