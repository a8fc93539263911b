import cv2
import numpy as np
import pytest

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import find_landmarks
from jdfd_keras.faces.reid import MIN_PATCH_CORRELATION, embed_face, extract_chip, extract_patch


@pytest.fixture(scope="module")
def hopper_face(hopper):
    pixels = hopper.pixels.astype(np.uint8)
    return pixels, find_landmarks(pixels, Box(190, 160, 345, 315, 1.0))


def rotate(pixels, landmarks, degrees, scale):
    matrix = cv2.getRotationMatrix2D((222.0, 126.0), degrees, scale)
    moved = cv2.warpAffine(pixels, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    return moved, landmarks @ matrix[:, :2].T + matrix[:, 2]


def test_a_patch_has_mean_0_and_variance_1(astronaut, astronaut_landmarks):
    patch = extract_patch(astronaut, astronaut_landmarks)
    assert patch.shape == (24, 24)
    assert patch.dtype == np.float32
    assert patch.mean() == pytest.approx(0, abs=1e-5)
    assert patch.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.5), (25, 1.0), (-25, 1.4), (180, 0.8)])
def test_a_rotated_face_has_the_same_appearance(astronaut, astronaut_landmarks, degrees, scale):
    before = extract_patch(astronaut, astronaut_landmarks)
    after = extract_patch(*rotate(astronaut, astronaut_landmarks, degrees, scale))
    assert np.mean(before * after) > 0.9


def test_brightness_does_not_change_the_appearance(astronaut, astronaut_landmarks):
    dark = (astronaut * 0.4 + 20).astype(np.uint8)
    patch, other = (extract_patch(pixels, astronaut_landmarks) for pixels in (astronaut, dark))
    assert np.mean(patch * other) > 0.99


def test_two_people_have_different_appearance(astronaut, astronaut_landmarks, hopper_face):
    patch, other = extract_patch(astronaut, astronaut_landmarks), extract_patch(*hopper_face)
    assert np.mean(patch * other) < MIN_PATCH_CORRELATION


def test_a_face_outside_the_frame_has_an_empty_patch(astronaut, astronaut_landmarks):
    assert not extract_patch(astronaut, astronaut_landmarks + 5000).any()
    cut = extract_patch(astronaut[:120], astronaut_landmarks)  # through the nose
    assert np.isfinite(cut).all()


def test_embeddings_separate_people(astronaut, astronaut_landmarks, hopper_face):
    collins, again, hopper = (
        embed_face(extract_chip(*face))
        for face in (
            (astronaut, astronaut_landmarks),
            rotate(astronaut, astronaut_landmarks, 10, 0.7),
            hopper_face,
        )
    )
    assert collins.shape == (128,)
    assert np.linalg.norm(collins - again) < 0.4
    assert np.linalg.norm(collins - hopper) > 0.6
