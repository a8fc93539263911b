"""Measures of a file: medians of its judged faces, from the faces alone or by a search in crops."""

import math

import cv2
import numpy as np
import pytest

from jdfd_keras.faces.align import align_face
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.faces.texture import NUM_TEXTURE, describe_texture
from jdfd_keras.inference.file_measures import (
    RECONSTRUCTED_PER_TRACK,
    FileFacts,
    MeasuredFace,
    choose_crops,
    combine_measures,
    measure_file,
    place_face,
)
from jdfd_keras.options import FaceOptions

FACTS = FileFacts(num_bytes=3000, num_frames=10, width=40, height=30, pixel_format="yuvj420p")


def make_face(track_id=0, size_px=80.0, sharpness=30.0, yaw_deg=0.0, landmarks=None):
    points = np.ones((68, 2)) if landmarks is None else landmarks
    return MeasuredFace(track_id, size_px, sharpness, yaw_deg, points)


def read_blank(positions):
    return np.zeros((len(positions), 64, 64, 3), np.uint8)


def test_measures_are_medians_of_the_faces():
    faces = [
        make_face(size_px=10, sharpness=9, yaw_deg=-30),
        make_face(size_px=30, sharpness=1, yaw_deg=20),
        make_face(size_px=90, sharpness=2, yaw_deg=math.nan),
    ]
    measures = combine_measures(faces, read_blank, FACTS)
    assert (measures.size_px, measures.sharpness, measures.yaw_deg) == (30, 2, 25)
    assert measures.bits_per_pixel == 8 * 3000 / (40 * 30 * 10)
    assert measures.pixel_format == "yuvj420p"
    assert math.isnan(measures.reconstruction_error)
    assert len(measures.texture) == NUM_TEXTURE


def test_errors_are_measured_of_a_few_crops_of_each_track():
    faces = [make_face(track_id=index % 2) for index in range(200)]
    calls = []

    def measure(crops):
        calls.append(len(crops))
        return np.arange(len(crops), dtype=np.float32)

    measures = combine_measures(faces, read_blank, FACTS, measure)
    assert calls == [2 * RECONSTRUCTED_PER_TRACK]
    assert measures.reconstruction_error == np.median(np.arange(4))


def test_crops_are_spread_over_each_track():
    assert choose_crops([]) == []
    assert choose_crops([5, 5]) == [0, 1]
    # Tracks 0 and 1 in turn: of 8 faces each, the middle ones of quarters.
    assert choose_crops([0, 1] * 8) == [2, 3, 6, 7, 10, 11, 14, 15]


def test_unknown_facts_and_no_faces_are_unknown_measures():
    measures = combine_measures([], read_blank, FileFacts(500, 0, 40, 30, ""))
    assert all(math.isnan(value) for value in list(vars(measures).values())[:-2])
    assert measures.pixel_format == "" and measures.texture == ()


def test_the_place_of_a_face_is_in_shares_of_its_crop():
    landmarks = np.full((68, 2), 49.5)
    landmarks[0], landmarks[16] = (19.5, 29.5), (79.5, 69.5)  # extremes of both axes
    landmarks[36:42], landmarks[42:48] = (39.5, 49.5), (59.5, 69.5)  # an eye each
    share, x, y, roll = place_face(landmarks, 100)
    assert (share, x, y) == pytest.approx((0.6, 0.5, 0.5))
    assert roll == pytest.approx(45)


@pytest.fixture(scope="module")
def crop(astronaut, astronaut_landmarks):
    (box,) = face_detector("dlib").find([astronaut])[0]
    return align_face(astronaut, astronaut_landmarks, box, FaceOptions(face_size=160))


def test_a_face_that_was_not_detected_is_searched_in_its_crop(crop):
    expected = place_face(crop.landmarks, 160)
    face = make_face(landmarks=np.empty((0, 2)))
    measures = combine_measures([face], lambda positions: crop.crop[None], FACTS)
    assert measures.face_share == pytest.approx(expected.face_share, abs=0.05)
    assert measures.face_x == pytest.approx(expected.face_x, abs=0.03)
    assert measures.face_y == pytest.approx(expected.face_y, abs=0.03)
    assert measures.roll_deg < 5


def test_a_crop_without_a_face_has_a_share_of_0():
    face = make_face(landmarks=np.empty((0, 2)))
    measures = combine_measures([face], read_blank, FACTS)
    assert measures.face_share == 0 and math.isnan(measures.face_x)


def test_an_image_is_measured_by_its_bytes_per_pixel(tmp_path, astronaut):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), astronaut[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    extraction = extract_faces(path, FaceOptions(face_size=71))
    measures = measure_file(extraction, extraction.faces)
    assert measures.bits_per_pixel == pytest.approx(8 * path.stat().st_size / 512**2)
    assert measures.pixel_format == "RGB"
    assert measures.size_px == extraction.faces[0].quality.size_px


def test_texture_does_not_depend_on_the_size_of_the_crop(crop):
    larger = cv2.resize(crop.crop, (320, 320), interpolation=cv2.INTER_CUBIC)
    difference = np.abs(describe_texture(larger) - describe_texture(crop.crop))
    assert difference.max() < 0.5
    assert np.isfinite(describe_texture(np.zeros((8, 8, 3), np.uint8))).all()
