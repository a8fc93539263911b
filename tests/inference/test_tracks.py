"""A fake segment of a video is not hidden by the mean of the whole."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.inference.tracks import Segment, check_evidence, find_fake_segment, score_tracks


def test_the_segment_is_the_quarter_with_the_highest_mean():
    scores = np.full(16, 0.1)
    scores[5:9] = [0.9, 0.8, 0.7, 1.0]
    scores[12] = 1.0  # a single face is not a segment
    found = find_fake_segment(np.arange(16.0), scores, 0.6)
    assert found == Segment(5.0, 8.0, pytest.approx(0.85))


def test_the_segment_contains_the_best_of_all_windows():
    rng = np.random.default_rng(0)
    scores, time_s = rng.random(41), np.sort(rng.random(41))
    means = [scores[start : start + 10].mean() for start in range(32)]
    best, highest = int(np.argmax(means)), max(means)
    found = find_fake_segment(time_s, scores, highest - 1e-9)
    assert found.start_s <= time_s[best] and found.end_s >= time_s[best + 9]
    assert find_fake_segment(time_s, scores, highest + 1e-9) is None


def test_the_segment_extends_over_all_neighbours_that_look_fake():
    scores = np.array([0.1] * 4 + [0.8] * 3 + [0.9] * 5 + [0.2] * 8)
    found = find_fake_segment(np.arange(20.0), scores, 0.7)
    assert found == Segment(4.0, 11.0, pytest.approx((3 * 0.8 + 5 * 0.9) / 8))


def test_few_faces_have_no_segment():
    assert find_fake_segment(np.arange(11.0), np.ones(11), 0.5) is None


def face_of(confidence=1.0, size_px=80):
    quality = SimpleNamespace(size_px=size_px, sharpness=30.0)
    return SimpleNamespace(track_id=0, time_s=0.0, box=(0, 0, 9, 9, confidence), quality=quality)


def test_a_track_that_no_detector_found_is_judged():
    (track,) = score_tracks([face_of(math.nan)], np.array([0.9]), Calibration(), 1)
    assert (track.is_judged, track.verdict) == (True, "fake")
    assert math.isnan(track.confidence)


def reasons_of(num_frames=30, track_id=(7, 7, 7), detector=1.0, size_px=80.0, sharpness=30.0):
    """Return the reason for each track; a measure is that of all faces, or one for each."""
    tracks = np.array(track_id)
    measures = (np.broadcast_to(value, tracks.shape) for value in (detector, size_px, sharpness))
    return check_evidence(tracks, *measures, num_frames)


def test_the_least_evidence_is_enough():
    assert reasons_of(detector=0.2, size_px=40.0, sharpness=2.0) == {7: ""}


def test_sizes_and_sharpness_are_medians_and_the_detector_score_is_a_mean():
    odd = [10.0, 90.0, 90.0]
    assert reasons_of(size_px=odd, sharpness=[0.1, 9.0, 9.0]) == {7: ""}
    assert "39 px" in reasons_of(size_px=[39.0, 39.0, 90.0])[7]
    assert "sharpness 1.9" in reasons_of(sharpness=[1.9, 1.9, 30.0])[7]
    assert reasons_of(detector=[0.0, 0.0, 0.75])[7] == ""
    assert "score 0.19" in reasons_of(detector=[0.0, 0.0, 0.57])[7]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 30])
def test_a_file_with_fewer_than_three_frames_needs_a_face_in_each(num_frames):
    for count in range(1, 5):
        is_enough = count >= 3 or count >= num_frames
        assert (reasons_of(num_frames, track_id=[7] * count)[7] == "") == is_enough


def test_every_reason_is_stated_and_each_track_has_its_own():
    track_id, size_px = [9, 4, 4, 4], [20.0, 80.0, 80.0, 80.0]
    assert reasons_of(track_id=track_id, size_px=size_px) == {
        4: "",
        9: "too few faces: 1 (at least 3); faces too small: median width 20 px (at least 40 px)",
    }


def test_a_segment_is_found_with_the_threshold_of_one_person_if_none_is_attainable():
    """Otherwise the more people, the less a fake segment of one would be noticed."""

    class Unattainable(Calibration):
        def thresholds(self, num_people=1):
            return self.uncertain_from, UNATTAINABLE

    faces, scores = [face_of()] * 12, np.repeat([0.1, 0.9], [9, 3])
    few = Unattainable(uncertain_from=0.5, uncertain_to=0.8)
    assert score_tracks(faces, scores, few, 12)[0].verdict == "uncertain"
    assert score_tracks(faces, scores * 0.85, few, 12)[0].verdict == "no_evidence"


def test_a_track_on_a_threshold_is_judged_by_its_exact_mean():
    """The floats of 0.1 and 0.7 have a mean below that of 0.4."""
    scores = np.array([0.1, 0.7])
    assert scores.mean() < 0.4
    thresholds = Calibration(uncertain_from=0.4, uncertain_to=0.4)
    (track,) = score_tracks([face_of()] * 2, scores, thresholds, 2)
    assert (track.score, track.verdict) == (0.4, "fake")


def test_of_windows_that_differ_by_the_rounding_of_floats_the_first_is_taken():
    scores = np.zeros(12)
    scores[:3], scores[6:9] = [0.3, 0.3, 0.3], [0.1, 0.2, 0.6]
    assert scores[6:9].sum() > scores[:3].sum()
    assert find_fake_segment(np.arange(12.0), scores, 0.3).start_s == 0.0
