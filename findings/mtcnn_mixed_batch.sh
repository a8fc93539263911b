#!/usr/bin/env bash
# mtcnn 1.0.0, tensorflow 2.21.0, scikit-image 0.26.0 (for its public-domain photograph), Python 3.12
#
# Guess: `MTCNN.detect_faces` takes a list of images and finds in each what it finds in that image
# alone; only speed differs.
# Seen: it does so for images of one size. In a list of images of different sizes every image is
# centred on a canvas of the largest height and width and shares one scale pyramid, and the box of a face
# moves by several pixels, its confidence with it, although the box is reported in the coordinates of the
# image itself. The keypoints move by a pixel or two. Nothing in the answer shows it. Crops for a
# detector therefore depend on which files happened to be in the batch.
#
# Output seen:
#   alone                        [182, 64, 83, 107] 0.99912
#   with the same photograph     [182, 64, 83, 107] 0.99912
#   with a larger photograph     [181, 61, 86, 111] 0.99806
#   cut out, alone               [60, 0, 89, 114] 0.99993
#   cut out, with the whole      [61, 3, 85, 109] 0.99936
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mtcnn==1.0.0 tensorflow==2.21.0 scikit-image==0.26.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from mtcnn import MTCNN
from skimage.data import astronaut

photograph = astronaut()
larger = np.pad(photograph, ((0, 700), (0, 700), (0, 0)))
cut_out = photograph[60:260, 120:330]
detector = MTCNN(device="CPU:0")


def find(title, images):
    (face,) = detector.detect_faces(images)[0] if isinstance(images, list) else detector.detect_faces(images)
    print(f"{title:28} {[int(edge) for edge in face['box']]} {face['confidence']:.5f}")
    return np.array(face["box"])


alone = find("alone", photograph)
same = find("with the same photograph", [photograph, photograph])
mixed = find("with a larger photograph", [photograph, larger])
small = find("cut out, alone", cut_out)
small_mixed = find("cut out, with the whole", [cut_out, photograph])

assert (alone == same).all(), "a batch of one size changes the box now"
assert np.abs(alone - mixed).max() >= 2, "a larger image in the batch no longer moves the box"
assert np.abs(small - small_mixed).max() >= 2, "the size of the batch no longer moves the box"
PYTHON
