import cv2
import numpy as np
import pytest

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import find_landmarks
from jdfd_keras.faces.reid import describe_chip, looks_same, take_chip, take_patch


@pytest.fixture(scope="module")
def hopper_face(hopper):
    pixels = hopper.pixels.astype(np.uint8)
    return pixels, find_landmarks(pixels, Box(190, 160, 345, 315, 1.0))


def turn(pixels, landmarks, degrees, scale):
    matrix = cv2.getRotationMatrix2D((222.0, 126.0), degrees, scale)
    moved = cv2.warpAffine(pixels, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    return moved, landmarks @ matrix[:, :2].T + matrix[:, 2]


def test_a_patch_has_mean_0_and_variance_1(astronaut, astronaut_landmarks):
    patch = take_patch(astronaut, astronaut_landmarks)
    assert patch.shape == (24, 24)
    assert patch.dtype == np.float32
    assert patch.mean() == pytest.approx(0, abs=1e-5)
    assert patch.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.5), (25, 1.0), (-25, 1.4), (180, 0.8)])
def test_a_face_that_turns_in_the_picture_looks_the_same(
    astronaut, astronaut_landmarks, degrees, scale
):
    before = take_patch(astronaut, astronaut_landmarks)
    after = take_patch(*turn(astronaut, astronaut_landmarks, degrees, scale))
    assert np.mean(before * after) > 0.9


def test_light_does_not_matter(astronaut, astronaut_landmarks):
    dark = (astronaut * 0.4 + 20).astype(np.uint8)
    assert looks_same(
        take_patch(astronaut, astronaut_landmarks), take_patch(dark, astronaut_landmarks)
    )


def test_two_people_do_not_look_the_same(astronaut, astronaut_landmarks, hopper_face):
    assert not looks_same(take_patch(astronaut, astronaut_landmarks), take_patch(*hopper_face))


def test_what_lies_outside_the_frame_looks_like_nothing(astronaut, astronaut_landmarks):
    assert not take_patch(astronaut, astronaut_landmarks + 5000).any()
    cut = take_patch(astronaut[:120], astronaut_landmarks)  # through the nose
    assert np.isfinite(cut).all()


def test_descriptors_tell_people_apart(astronaut, astronaut_landmarks, hopper_face):
    collins, again, hopper = (
        describe_chip(take_chip(*face))
        for face in (
            (astronaut, astronaut_landmarks),
            turn(astronaut, astronaut_landmarks, 10, 0.7),
            hopper_face,
        )
    )
    assert collins.shape == (128,)
    assert np.linalg.norm(collins - again) < 0.4
    assert np.linalg.norm(collins - hopper) > 0.6
