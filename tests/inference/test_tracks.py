"""A fake segment of a video is not hidden by the mean of the whole."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.inference.tracks import Segment, find_fake_segment, score_tracks


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


def test_a_track_that_no_detector_found_is_reliable():
    crop = SimpleNamespace(track_id=0, time_s=0.0, box=(0, 0, 9, 9, math.nan))
    (track,) = score_tracks([crop], np.array([0.9]), Calibration())
    assert (track.is_reliable, track.verdict) == (True, "fake")
    assert math.isnan(track.confidence)


def test_a_track_on_a_threshold_is_judged_by_its_exact_mean():
    """The floats of 0.1 and 0.7 have a mean below that of 0.4."""
    crop = SimpleNamespace(track_id=0, time_s=0.0, box=(0, 0, 9, 9, 1.0))
    scores = np.array([0.1, 0.7])
    assert scores.mean() < 0.4
    (track,) = score_tracks([crop] * 2, scores, Calibration(uncertain_from=0.4, uncertain_to=0.4))
    assert (track.score, track.verdict) == (0.4, "fake")


def test_of_windows_that_differ_by_the_rounding_of_floats_the_first_is_taken():
    scores = np.zeros(12)
    scores[:3], scores[6:9] = [0.3, 0.3, 0.3], [0.1, 0.2, 0.6]
    assert scores[6:9].sum() > scores[:3].sum()
    assert find_fake_segment(np.arange(12.0), scores, 0.3).start_s == 0.0
