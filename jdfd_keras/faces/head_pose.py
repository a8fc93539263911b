"""Head poses from landmarks: of the whole face, of its centre, and their difference.

Takes the 68 landmarks of dlib; returns rotations and translations of a rigid mean face in front of
a camera. A swapped face moves its central landmarks against the outline, which stays that of the
target, so the two poses differ more than those of a real face. Independent of labels and models.

Reference:
    Yang, Li, Lyu: "Exposing Deep Fakes Using Inconsistent Head Poses" (2019),
    https://arxiv.org/abs/1811.00661; landmarks, camera and features as in the authors' code, with
    another mean face.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import (
    BOX_WIDTH,
    FRONTAL_FACE,
    NUM_LANDMARKS,
    fit_similarity,
    five_points,
)
from jdfd_keras.options import FaceOptions

# Indices from 0; the authors count from 1: 1-36, 49 and 55, and 18-36, 49 and 55.
WHOLE_FACE = np.r_[0:36, 48, 54]
CENTRAL_FACE = np.r_[17:36, 48, 54]
NUM_FEATURES = 12

# The landmarks WHOLE_FACE of a mean face in millimetres, x to the right of the image, y down, z
# away from the camera; the origin is the mean of all 68. Measured by us: the mean of the points
# that `face_mesh` finds in 206 photographs of faces with a yaw below 15 degrees, each aligned with
# the mean in space, made symmetric, with 63 mm between the eyes, and turned so that the median
# pitch of 356 photographs is 0. The authors use the mean shape of OpenFace, whose licence allows
# research only. Of these photographs, the poses of the whole face differ from those with it by 1.4
# degrees in the median; the centre is turned against the whole face by 3.2 degrees, by 4.8 with it.
# The authors negate z and get the pose of a mirrored head behind the camera, -R F and -t for
# F = diag(1, 1, -1), so that features differ in their signs alone.
MEAN_HEAD = np.array(
    [
        *[(-70.3, -29.1, 55.2), (-69.5, -14.8, 59.3), (-66.8, 14.4, 56.0), (-62.5, 30.0, 49.7)],
        *[(-56.1, 42.0, 39.1), (-48.6, 50.6, 27.9), (-31.2, 63.8, 11.2), (-12.8, 71.9, -1.9)],
        *[(0.0, 73.1, -3.8), (12.8, 71.9, -1.9), (31.2, 63.8, 11.2), (48.6, 50.6, 27.9)],
        *[(56.1, 42.0, 39.1), (62.5, 30.0, 49.7), (66.8, 14.4, 56.0), (69.5, -14.8, 59.3)],
        (70.3, -29.1, 55.2),  # the last of the jaw, 16
        *[(-57.4, -51.7, 6.8), (-51.0, -58.1, -1.2), (-41.3, -61.7, -7.8), (-28.9, -61.9, -13.8)],
        *[(-14.7, -60.7, -16.8), (14.7, -60.7, -16.8), (28.9, -61.9, -13.8), (41.3, -61.7, -7.8)],
        *[(51.0, -58.1, -1.2), (57.4, -51.7, 6.8)],  # the last of the brows, 26
        *[(0.0, -43.6, -17.0), (0.0, -29.3, -27.5), (0.0, -16.5, -39.7), (0.0, -6.0, -42.1)],
        *[(-14.3, 1.8, -21.2), (-8.3, 5.7, -23.3), (0.0, 5.9, -25.1), (8.3, 5.7, -23.3)],
        (14.3, 1.8, -21.2),  # the last of the nose, 35
        *[(-30.7, 27.0, -1.5), (30.7, 27.0, -1.5)],  # the corners of the mouth, 48 and 54
    ]
)
_ROWS = {index: row for row, index in enumerate(WHOLE_FACE.tolist())}


class HeadPose(NamedTuple):
    """The pose of a head: a point p of it is at `rotation` p + `translation` before the camera."""

    rotation: np.ndarray  # float64[3, 3]; near the identity for a face towards the camera
    translation: np.ndarray  # float64[3], in millimetres, x to the right, y down, z away


def restore_landmarks(landmarks: np.ndarray, box: Box, options: FaceOptions) -> np.ndarray:
    """Return landmarks of a crop in pixels of its frame, where the camera is known.

    Without a detector and with the alignment `box` the result is exact. Otherwise the crop was
    rotated upright, and stays so: position and scale are those of the detected box, which differs
    from the face by some percent of its width.

    Args:
        landmarks: float[68, 2], in pixels of the crop.
        box: Box of the face in pixels of the frame.
        options: Detector, alignment, size and margin of the crop.

    Returns:
        float64[68, 2].

    Example:
        >>> options = FaceOptions(alignment="box", face_size=100, margin=1.0)
        >>> box = Box(300, 200, 500, 400, 1.0)
        >>> restore_landmarks(np.zeros((68, 2)), box, options)[0].tolist()
        [300.5, 200.5]
    """
    size, points = options.face_size, landmarks.astype(np.float64)
    sides = np.array([box.right - box.left, box.bottom - box.top], np.float64)
    centre = np.array([box.left + box.right - 1, box.top + box.bottom - 1]) / 2
    if options.detector == "none":  # the whole image was resized
        return (points - (size - 1) / 2) * sides / size + centre
    if options.alignment == "box":
        return (points - (size - 1) / 2) * (sides.max() * options.margin / size) + centre
    five = five_points(points)
    a, b = fit_similarity(FRONTAL_FACE, five)[:, 0]
    scale = sides[0] / (BOX_WIDTH * np.hypot(a, b))
    return (points - five.mean(axis=0)) * scale + centre


def solve_head_pose(
    landmarks: np.ndarray, size: tuple[int, int], indices: np.ndarray = WHOLE_FACE
) -> HeadPose:
    """Find the pose of the mean head whose projection is closest to landmarks.

    The focal length of the camera is the width of the frame, its axis is in the middle of the
    frame, and its lens has no distortion. The authors give cv2.solvePnP no initial pose; on 60
    portraits, 24 poses of the whole face and 16 of its centre were then on the wrong side of the
    camera (OpenCV 5.0.0), which hides all other differences. Here the initial pose is that of a
    head in front of the camera. Where theirs is on the right side, both results are the same.

    Args:
        landmarks: float[68, 2], in pixels of the frame.
        size: Width and height of the frame in pixels.
        indices: Landmarks to use, among WHOLE_FACE; at least six.

    Raises:
        ValueError: If landmarks are unknown, or no pose fits them.

    Example:
        >>> points = np.zeros((68, 2))
        >>> points[WHOLE_FACE] = 640 * MEAN_HEAD[:, :2] / (MEAN_HEAD[:, 2:] + 800) + (320, 240)
        >>> pose = solve_head_pose(points, (640, 480))
        >>> np.allclose(pose.rotation, np.eye(3), atol=1e-6), round(float(pose.translation[2]), 3)
        (True, 800.0)
    """
    width, height = size
    if landmarks.shape != (NUM_LANDMARKS, 2) or not np.isfinite(landmarks).all():
        raise ValueError(
            f"Expected {NUM_LANDMARKS} finite landmarks to find a head pose; got "
            f"{list(landmarks.shape)}, of which {int(np.isfinite(landmarks).sum())} numbers are "
            "finite. Prepare the dataset with a face detector."
        )
    points = landmarks[indices].astype(np.float64)
    head = MEAN_HEAD[[_ROWS[index] for index in indices.tolist()]]
    pose = None
    if np.linalg.matrix_rank(points - points.mean(axis=0)) == 2:  # not all on one line
        pose = _solve(head, points, width, np.array([width, height]) / 2)
    if pose is None or not np.isfinite(pose.rotation).all() or not pose.translation[2] > 0:
        raise ValueError(
            "Expected landmarks of a face to find a head pose; got points that no pose fits, from "
            f"{points.min(axis=0).tolist()} to {points.max(axis=0).tolist()}. Exclude this face."
        )
    return pose


def _solve(head: np.ndarray, points: np.ndarray, focal: float, centre: np.ndarray) -> HeadPose:
    """Find a pose by iteration, from that of a head which faces a camera far away."""
    similarity = fit_similarity(head[:, :2], points)
    scale = max(float(np.hypot(*similarity[:, 0])), 1e-9)  # pixels per millimetre
    turn = np.array([[0.0], [0.0], [np.arctan2(similarity[1, 0], similarity[0, 0])]])
    shift = np.append((similarity[:, 2] - centre) / scale, focal / scale)[:, None]
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float64)
    _, turn, shift = cv2.solvePnP(head, points, camera, np.zeros(4), turn, shift, True)
    return HeadPose(cv2.Rodrigues(turn)[0], shift[:, 0])


def compare_head_poses(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Compute the features of Yang et al.: the pose of the centre minus that of the whole face.

    Their code trains on these; the AUC that they publish for UADFV is 0.890.

    Args:
        landmarks: float[68, 2], in pixels of the frame.
        size: Width and height of the frame in pixels.

    Returns:
        float64[12], the differences of the rotation matrices, row by row, then of the
        translations.

    Raises:
        ValueError: As `solve_head_pose`.

    Example:
        >>> points = np.zeros((68, 2))
        >>> points[WHOLE_FACE] = 640 * MEAN_HEAD[:, :2] / (MEAN_HEAD[:, 2:] + 800) + (320, 240)
        >>> bool(np.abs(compare_head_poses(points, (640, 480))).max() < 0.1)
        True
    """
    whole = solve_head_pose(landmarks, size)
    central = solve_head_pose(landmarks, size, CENTRAL_FACE)
    turned = (central.rotation - whole.rotation).ravel()
    return np.concatenate([turned, central.translation - whole.translation])


def measure_pose_angle(one: HeadPose, other: HeadPose) -> float:
    """Compute the angle of the rotation between two head poses, in degrees from 0 to 180.

    Example:
        >>> pose = HeadPose(np.eye(3), np.zeros(3))
        >>> turned = HeadPose(cv2.Rodrigues(np.radians([0.0, 30.0, 0.0]))[0], np.zeros(3))
        >>> round(measure_pose_angle(pose, turned), 6)
        30.0
    """
    turn, _ = cv2.Rodrigues(one.rotation.T @ other.rotation)
    return float(np.degrees(np.linalg.norm(turn)))
