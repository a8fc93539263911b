import cv2
import numpy as np
import pytest

from jdfd_keras.faces.align import align_face
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.head_pose import (
    CENTRAL_FACE,
    MEAN_HEAD,
    WHOLE_FACE,
    HeadPose,
    compare_head_poses,
    measure_pose_angle,
    restore_landmarks,
    solve_head_pose,
)
from jdfd_keras.faces.landmarks import box_from_landmarks
from jdfd_keras.options import FaceOptions

FRAME = 640, 480  # width and height
POSES = [(0, 0, 0), (10, -20, 5), (-15, 40, -25), (25, 5, 40)]  # degrees about x, y and z


def rotate(degrees):
    """Return the rotation about x, then y, then z."""
    x, y, z = (cv2.Rodrigues(np.eye(3)[i] * np.radians(a))[0] for i, a in enumerate(degrees))
    return z @ y @ x


def project(rotation, translation=(30.0, -20.0, 700.0)):
    """Return the landmarks of the mean head before a camera of the published focal length."""
    x, y, z = (MEAN_HEAD @ rotation.T + translation).T
    landmarks = np.zeros((68, 2))
    landmarks[WHOLE_FACE] = np.stack([640 * x / z + 320, 640 * y / z + 240], axis=1)
    return landmarks


def test_the_landmarks_are_the_published_ones_of_a_symmetric_head():
    assert [i + 1 for i in WHOLE_FACE] == [*range(1, 37), 49, 55]
    assert [i + 1 for i in CENTRAL_FACE] == [*range(18, 37), 49, 55]
    assert MEAN_HEAD.shape == (38, 3)
    mirrored = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 37, 36]
    np.testing.assert_array_equal(MEAN_HEAD[mirrored] * [-1, 1, 1], MEAN_HEAD)
    width, nose = np.ptp(MEAN_HEAD[:, 0]), MEAN_HEAD[30, 2]
    assert 125 < width < 155  # of a face at the ears, in millimetres
    assert nose == MEAN_HEAD[:, 2].min()  # the nearest to the camera


def test_the_mean_head_fits_the_landmarks_of_a_real_face(astronaut_landmarks):
    """The authors' features are small for real faces; a head of another shape turns its centre."""
    whole = solve_head_pose(astronaut_landmarks, (512, 512))
    central = solve_head_pose(astronaut_landmarks, (512, 512), CENTRAL_FACE)
    assert measure_pose_angle(whole, central) < 7  # 90 % of 356 photographs are


@pytest.mark.parametrize("degrees", POSES)
@pytest.mark.parametrize("indices", [WHOLE_FACE, CENTRAL_FACE], ids=["whole", "central"])
def test_the_pose_of_a_simulated_head_is_found(degrees, indices):
    expected = rotate(degrees)
    pose = solve_head_pose(project(expected), FRAME, indices)
    np.testing.assert_allclose(pose.rotation, expected, atol=1e-6)
    np.testing.assert_allclose(pose.translation, (30, -20, 700), atol=1e-3)


def test_heads_far_away_are_found_in_front_of_the_camera():
    """Without an initial pose, cv2.solvePnP returns one in seven of these behind it."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        expected = rotate(rng.normal(0, 15, 3))
        landmarks = project(expected, (30, -20, 1500)) + rng.normal(0, 1.5, (68, 2))
        for indices in (WHOLE_FACE, CENTRAL_FACE):
            pose = solve_head_pose(landmarks, FRAME, indices)
            assert pose.translation[2] > 500
            assert measure_pose_angle(HeadPose(expected, np.zeros(3)), pose) < 30


@pytest.mark.parametrize("degrees", POSES)
def test_features_are_those_of_the_authors_up_to_their_signs(degrees):
    """Their head has z negated; cv2.solvePnP then finds it mirrored, behind the camera."""
    rng = np.random.default_rng(0)
    landmarks = project(rotate(degrees)) + rng.normal(0, 1.5, (68, 2))
    camera = np.array([[640, 0, 320], [0, 640, 240], [0, 0, 1]], np.float64)
    mirror = np.diag([1.0, 1, -1])
    parts = []
    for indices in (CENTRAL_FACE, WHOLE_FACE):
        head = MEAN_HEAD[np.isin(WHOLE_FACE, indices)] @ mirror
        _, turn, shift = cv2.solvePnP(head, landmarks[indices], camera, np.zeros((4, 1)))
        parts.append((cv2.Rodrigues(turn)[0], shift[:, 0]))
    turned, moved = parts[0][0] - parts[1][0], parts[0][1] - parts[1][1]
    signs = np.array([-1, -1, 1])  # of the columns
    features = compare_head_poses(landmarks, FRAME)
    np.testing.assert_allclose(features[:9].reshape(3, 3), turned * signs, atol=1e-4)
    np.testing.assert_allclose(features[9:], -moved, atol=0.01)


def test_the_angle_between_poses_is_that_of_the_rotation():
    """A head whose centre alone is turned by 8 degrees, as a swapped face would be."""
    whole, central = project(rotate((0, 0, 0))), project(rotate((0, 8, 0)))
    landmarks = whole.copy()
    landmarks[CENTRAL_FACE] = central[CENTRAL_FACE]
    found = solve_head_pose(landmarks, FRAME, CENTRAL_FACE)
    real = solve_head_pose(whole, FRAME)
    assert measure_pose_angle(real, found) == pytest.approx(8, abs=1e-3)
    assert np.abs(compare_head_poses(whole, FRAME)).max() < 1e-3
    assert np.abs(compare_head_poses(landmarks, FRAME)[:9]).max() > 0.02
    half_turn = HeadPose(rotate((0, 180, 0)), np.zeros(3))
    assert measure_pose_angle(HeadPose(np.eye(3), np.zeros(3)), half_turn) == pytest.approx(180)


@pytest.mark.parametrize("alignment", ["landmarks68", "deepfakebench", "box"])
def test_landmarks_of_a_crop_return_to_their_frame(alignment, astronaut):
    """Except the roll, which `deepfakebench` removes up to 2 degrees, and rounding of the box."""
    from jdfd_keras.datasets.synthetic.clips import vary_portrait

    (subject,) = vary_portrait(astronaut, 1, seed=0)
    box, roll_deg = box_from_landmarks(subject.landmarks)
    options = FaceOptions(face_size=100, alignment=alignment)
    aligned = align_face(subject.pixels, subject.landmarks, box, options)
    restored = restore_landmarks(aligned.landmarks, box, options)
    if alignment == "box":
        np.testing.assert_allclose(restored, subject.landmarks, atol=1e-3)
        return
    # Rotated back about the centre of the box.
    upright = cv2.getRotationMatrix2D(box.center, roll_deg, 1.0)
    expected = cv2.transform(subject.landmarks[None].astype(np.float64), upright)[0]
    atol = 2.0 if alignment == "landmarks68" else 5.0  # pixels of a face of 110
    np.testing.assert_allclose(restored, expected, atol=atol)


def test_landmarks_of_an_image_without_a_detector_are_those_of_the_image():
    box, options = Box(0, 0, 200, 100, 0.0), FaceOptions(detector="none", face_size=50)
    in_crop = np.tile([[-0.5, -0.5], [49.5, 49.5]], (34, 1))  # edges of the crop
    restored = restore_landmarks(in_crop, box, options)
    np.testing.assert_allclose(restored[:2], [[-0.5, -0.5], [199.5, 99.5]])


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.full((68, 2), np.nan), "finite landmarks .* Prepare the dataset with a face"),
        (np.zeros((5, 2)), r"Expected 68 .* got \[5, 2\]"),
        (np.zeros((68, 2)), "no pose fits"),
        (np.arange(68)[:, None] * np.ones(2), "no pose fits"),
    ],
    ids=["unknown", "five points", "one point", "a line"],
)
def test_landmarks_without_a_pose_are_named(landmarks, message):
    with pytest.raises(ValueError, match=message):
        compare_head_poses(landmarks, FRAME)
