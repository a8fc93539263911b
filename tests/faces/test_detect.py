import cv2
import numpy as np
import pytest

from jdfd_keras.faces import detect as detect_module
from jdfd_keras.faces.detect import Box, face_detector, find_near, overlap
from jdfd_keras.faces.landmarks import find_landmarks

FACE = Box(179, 83, 266, 170, 1.0)  # of the astronaut, from brows to chin


def find(name, pixels):
    return face_detector(name).find([pixels])[0]


def test_a_box_has_a_size_and_a_centre():
    box = Box(-10, 5, 20, 35, 0.0)
    assert (box.width, box.area, box.center) == (30, 900, (5.0, 20.0))


def test_overlap_is_intersection_over_union():
    box = Box(0, 0, 10, 10, 1.0)
    assert overlap(box, box) == 1
    assert overlap(box, Box(5, 0, 15, 10, 0.5)) == pytest.approx(50 / 150)
    assert overlap(box, Box(2, 2, 6, 6, 0.5)) == pytest.approx(16 / 100)
    assert overlap(box, Box(10, 0, 20, 10, 0.5)) == 0
    assert overlap(box, Box(3, 3, 3, 3, 0.5)) == 0


def test_dlib_finds_the_one_face(astronaut):
    boxes = find("dlib", astronaut)
    assert [overlap(box, FACE) > 0.8 for box in boxes] == [True]
    assert boxes[0].score > 0


def test_mtcnn_finds_the_same_square_as_dlib(astronaut):
    boxes = find("mtcnn", astronaut)
    assert [overlap(box, FACE) > 0.8 for box in boxes] == [True]
    assert 0.9 < boxes[0].score <= 1
    assert all(type(edge) is int for edge in boxes[0][:4])


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (100, 80, 3)])
def test_an_image_without_a_face_has_no_box(name, shape):
    assert find(name, np.full(shape, 127, np.uint8)) == []


def shrink(astronaut, width):
    """The portrait with a face of that width, and its box."""
    scale = width / FACE.width
    small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small, Box(*(edge * scale for edge in FACE[:4]), 1.0)


def test_dlib_finds_small_faces_in_a_thorough_search(astronaut):
    small, expected = shrink(astronaut, 44)
    (box,) = find("dlib", small)
    assert overlap(box, expected) > 0.7
    assert face_detector("dlib").find([small], thorough=False) == [[]]


def test_large_frames_are_searched_at_a_limited_size(astronaut, monkeypatch):
    sizes = []

    class Spy:
        def run(self, grey, upsample, least_score):
            sizes.append(grey.size)
            return detector.run(grey, upsample, least_score)

    detector = detect_module._dlib_detector()
    monkeypatch.setattr(detect_module, "_dlib_detector", lambda: Spy())
    monkeypatch.setattr(detect_module, "MAX_PIXELS", 300_000)
    large = cv2.resize(astronaut, (2048, 2048))
    (box,) = find("dlib", large)
    assert sizes[0] == pytest.approx(300_000, rel=0.01)
    assert overlap(box, Box(*(4 * edge for edge in FACE[:4]), 1.0)) > 0.7


@pytest.mark.parametrize("width", [40, 87, 300])
def test_a_face_is_found_near_its_previous_position(astronaut, width):
    pixels, face = shrink(astronaut, width)
    shift = round(0.25 * width)
    before = Box(*(round(edge) - shift for edge in face[:4]), 1.0)
    boxes = find_near(pixels, before, 2.0)
    assert max(overlap(box, face) for box in boxes) > 0.7


def test_only_the_window_is_searched(astronaut):
    both = np.hstack([astronaut, astronaut])
    boxes = find_near(both, FACE, 2.0)
    assert boxes
    assert all(overlap(box, FACE) > 0.6 for box in boxes)


@pytest.mark.parametrize("center", [(-300, 10), (40, -400), (2000, 2000)])
def test_no_face_is_found_near_a_position_outside_the_frame(astronaut, center):
    x, y = center
    assert find_near(astronaut, Box(x, y, x + 80, y + 80, 1.0), 1.7) == []


def test_mtcnn_accepts_batches_with_frames_without_faces(astronaut):
    nobody = np.full_like(astronaut, 127)
    found = face_detector("mtcnn").find([nobody, astronaut, nobody])
    assert [len(boxes) for boxes in found] == [0, 1, 0]
    assert overlap(found[1][0], FACE) > 0.8


def test_mtcnn_boxes_of_large_frames_are_in_pixels_of_the_frame(astronaut):
    large = cv2.resize(astronaut, (2048, 2048))
    boxes = find("mtcnn", large)
    assert max(overlap(box, Box(*(4 * edge for edge in FACE[:4]), 1.0)) for box in boxes) > 0.8


def test_every_face_of_a_frame_is_found(astronaut):
    boxes = find("dlib", np.hstack([astronaut, astronaut[:, ::-1]]))
    mirrored = Box(1023 - FACE.right, FACE.top, 1023 - FACE.left, FACE.bottom, 1.0)
    for face in (FACE, mirrored):
        assert max(overlap(box, face) for box in boxes) > 0.8


def test_an_unknown_detector_is_refused_and_named():
    with pytest.raises(ValueError, match="'retina'"):
        face_detector("retina")


@pytest.mark.parametrize("person", ["collins", "hopper"])
def test_the_face_of_a_photograph_fills_its_box(person, request):
    pixels = request.getfixturevalue(person).pixels.astype(np.uint8)
    box = max(find("dlib", pixels), key=lambda box: box.area)
    width = np.ptp(find_landmarks(pixels, box)[:, 0])
    assert 0.6 < width / box.width < 1.3
