"""Whether two faces are of one person: a quick look, and a long one.

Takes a frame and the landmarks of a face; gives a small patch, or a descriptor. Knows nothing
of tracks.
"""

import functools

import cv2
import numpy as np

from jdfd_keras.faces.landmarks import five_points, model_file

PATCH_SIZE = 24
TURNED_SIZE = 36  # what holds a patch, however it is turned
CHIP_SIZE = 150  # what the network takes
# Of 60 portraits, patches of different people agreed by 0.65 at most in 99 of 100 pairs, and
# those of one face, moved, blurred and compressed, by 0.76 at least.
SAME_LOOK = 0.7
# Below the network's own 0.6 (99.4 % right on Labeled Faces in the Wild), since two people in one
# track are worse than one person in two: of 780 pairs of portraits the nearest were 0.57 apart.
SAME_PERSON = 0.5


def take_patch(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Take a small grey patch of a face, upright, to tell at a glance whether it is still the same.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Returns:
        float32[24, 24], of mean 0 and variance 1; all zero where the face is outside the frame
        or without contrast.
    """
    five = five_points(landmarks)
    between_eyes = five[1] - five[0]
    reach = np.linalg.norm(between_eyes) * TURNED_SIZE / PATCH_SIZE
    low, high = np.rint([five.mean(axis=0) - reach, five.mean(axis=0) + reach]).astype(int)
    left, top = np.maximum(low, 0)
    right, bottom = np.clip(high, 0, pixels.shape[1::-1])
    if right <= left or bottom <= top:
        return np.zeros((PATCH_SIZE, PATCH_SIZE), np.float32)
    grey = cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    beyond = (top - low[1], high[1] - bottom, left - low[0], high[0] - right)
    if any(beyond):
        grey = cv2.copyMakeBorder(grey, *(int(side) for side in beyond), cv2.BORDER_REPLICATE)
    small = cv2.resize(grey, (TURNED_SIZE, TURNED_SIZE), interpolation=cv2.INTER_AREA)
    # Turned upright, for the same face may nod to the side.
    roll_deg = np.degrees(np.arctan2(between_eyes[1], between_eyes[0]))
    middle = (TURNED_SIZE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), float(roll_deg), 1.0)
    turn[:, 2] -= (TURNED_SIZE - PATCH_SIZE) / 2
    patch = cv2.warpAffine(small, turn, (PATCH_SIZE, PATCH_SIZE)).astype(np.float32)
    patch -= patch.mean()
    return patch / max(float(patch.std()), 1e-6)


def looks_same(patch: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two patches of faces a moment apart are surely of one face.

    False says that they may be of two: compare descriptors then.
    """
    return float(np.mean(patch * other)) >= SAME_LOOK


def take_chip(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut a face out as the descriptor wants it: uint8[150, 150, 3], RGB."""
    import dlib

    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    rectangle = dlib.rectangle(*(int(edge) for edge in (left, top, right, bottom)))
    points = dlib.points([dlib.point(*(int(x) for x in np.rint(point))) for point in landmarks])
    shape = dlib.full_object_detection(rectangle, points)
    return dlib.get_face_chip(pixels, shape, CHIP_SIZE)


def describe_chip(chip: np.ndarray) -> np.ndarray:
    """Describe who is seen.

    Args:
        chip: uint8[150, 150, 3], RGB, as `take_chip` gives it.

    Returns:
        float64[128]. Descriptors of one person are less than 0.6 apart, as a rule.

    Reference:
        King: "High Quality Face Recognition with Deep Metric Learning" (2017),
        http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html
    """
    return np.array(_describer().compute_face_descriptor(chip))


@functools.cache
def _describer():
    import dlib

    return dlib.face_recognition_model_v1(
        str(model_file("dlib_face_recognition_resnet_model_v1.dat"))
    )
