"""Frames of an analysed file with boxes, and the faces between judged frames."""

import dataclasses

import cv2
import numpy as np
import pytest

from jdfd_keras.faces.draw import NOTE_COLOUR
from jdfd_keras.faces.media import Frame
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.prediction.evidence import _Between, _choose_spread, _draw

TRACK = TrackScore(0, 1, 1.0, 0.0, 1.0, 0.9, "fake")
VERDICT = Verdict(
    "a.mp4", "ab", "fake", 0.9, 0.5, 0.5, 1, 1.0, 320, 180, (TRACK,), (), (), warnings=()
)


def face(time_s, left, score=0.5, track_id=0):
    return FaceScore(round(25 * time_s), time_s, track_id, (left, 10, left + 20, 30), score)


def test_boxes_between_two_judged_faces_are_interpolated():
    between = _Between([face(0.0, 0, 0.2), face(1.0, 100, 0.8)])
    (found,) = between.at(0.25)
    assert found.box == (25, 10, 45, 30)
    assert found.score == 0.2  # of the nearer face
    assert between.at(0.75)[0].score == 0.8
    assert between.at(1.0) == [face(1.0, 100, 0.8)]


def test_no_box_is_drawn_where_nobody_was_judged():
    # Two faces more than a second apart: nobody knows where the person was in between.
    between = _Between([face(0.0, 0), face(1.1, 100), face(1.5, 100), face(0.4, 50, track_id=1)])
    assert [found.track_id for found in between.at(0.4)] == [1]
    assert between.at(0.6) == [] and between.at(1.6) == []
    assert len(between.at(1.3)) == 1


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((90, 160), (360, 640)),
        ((2160, 3840), (480, 853)),
        ((400, 300), (480, 360)),
        ((400, 640), (400, 640)),
        ((20, 4000), (40, 8000)),  # 360 would make it 72000 wide, which no JPEG can be
    ],
)
def test_frames_have_a_size_at_which_labels_can_be_read(size, shown):
    frame = Frame(0, 0.0, np.zeros((*size, 3), np.uint8))
    assert _draw(frame, [], VERDICT, 480, has_stamp=False).shape == (*shown, 3)


def test_a_box_is_scaled_with_its_frame():
    frame = Frame(0, 0.0, np.zeros((180, 320, 3), np.uint8))
    face = FaceScore(0, 0.0, 0, (100, 50, 200, 150), 0.9)
    image = _draw(frame, [face], VERDICT, 480, has_stamp=False)
    # Twice as large; the box is blue, and darker than its label in no place.
    assert image.shape == (360, 640, 3)
    rows, columns = np.nonzero((np.abs(image.astype(int) - (0, 114, 178)) < 8).all(axis=2))
    assert abs(rows.max() - 300) < 8 and abs(columns.max() - 400) < 8
    assert cv2.countNonZero(image[110:290, 210:390].max(axis=2)) == 0


def test_the_mark_of_a_demonstration_is_above_the_frame_and_covers_none_of_it():
    frame = Frame(0, 0.0, np.full((400, 640, 3), 128, np.uint8))
    plain, marked = (
        _draw(
            frame,
            [face(0.0, 5)],
            dataclasses.replace(VERDICT, demonstration=value),
            480,
            has_stamp=True,
        )
        for value in (False, True)
    )
    extra = len(marked) - len(plain)
    assert 14 <= extra <= 40 and extra % 2 == 0
    np.testing.assert_array_equal(marked[extra:], plain)
    background = (marked[:extra] == NOTE_COLOUR).all(axis=2)
    assert 0.5 < background.mean() < 0.97  # with the letters of a sentence
    assert not (plain == NOTE_COLOUR).all(axis=2).any()


def test_the_spread_has_both_ends():
    assert _choose_spread(list(range(0, 100, 10)), 4) == [0, 30, 60, 90]
    assert _choose_spread([5, 9], 4) == [5, 9]
