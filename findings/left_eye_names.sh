#!/usr/bin/env bash
# mtcnn 1.0.0 (with tensorflow 2.21.0), mediapipe 0.10.21, scikit-image (its public-domain photograph),
# Python 3.12
#
# Guess: face detectors that name their keypoints mean the same eye by "left eye", so keypoints of one can
# be used with alignment code written for the other.
# Seen: mtcnn's `left_eye` and `mouth_left` are on the left side of the image: the right eye of the person.
# MediaPipe's `LEFT_EYE` is the person's own left eye, on the right side of the image. Copied by name from
# one to the other, the keypoints turn a face upside down (a rotation by 180 degrees) or mirror it,
# depending on the transform that is fitted; neither library says in its answer which convention it has.
# (dlib's 68 landmarks have no names; 36-41, on the left side of the image, are the person's right eye.)
#
# Output seen, x of the eyes in an image 512 pixels wide:
#   mtcnn: left_eye 204, right_eye 245
#   mediapipe: LEFT_EYE 248, RIGHT_EYE 203
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in mtcnn mediapipe; do python3 -m venv "$folder/$name"; done
"$folder/mtcnn/bin/pip" install -q mtcnn==1.0.0 tensorflow==2.21.0 scikit-image==0.26.0
"$folder/mediapipe/bin/pip" install -q mediapipe==0.10.21 scikit-image==0.25.2
TF_CPP_MIN_LOG_LEVEL=3 "$folder/mtcnn/bin/python" - <<'PYTHON'
from mtcnn import MTCNN
from skimage.data import astronaut

(face,) = MTCNN(device="CPU:0").detect_faces(astronaut())
left, right = (int(face["keypoints"][name][0]) for name in ("left_eye", "right_eye"))
print(f"mtcnn: left_eye {left}, right_eye {right}")
assert left < right, "mtcnn's left_eye is the person's left eye now"
PYTHON
"$folder/mediapipe/bin/python" - <<'PYTHON'
from mediapipe import solutions
from skimage.data import astronaut

points = solutions.face_detection.FaceKeyPoint
with solutions.face_detection.FaceDetection(model_selection=1) as detector:
    (face,) = detector.process(astronaut()).detections
left, right = (
    round(512 * solutions.face_detection.get_key_point(face, point).x)
    for point in (points.LEFT_EYE, points.RIGHT_EYE)
)
print(f"mediapipe: LEFT_EYE {left}, RIGHT_EYE {right}")
assert left > right, "MediaPipe's LEFT_EYE is on the left side of the image now"
PYTHON
