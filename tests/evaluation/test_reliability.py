"""Reliability at equal priors: plain loops and cases by hand."""

import numpy as np
import pytest

from jdfd_keras.evaluation.reliability import BINS, measure_reliability


@pytest.mark.parametrize("by_video", [False, True])
def test_reliability_equals_a_plain_loop(by_video):
    rng = np.random.default_rng(0)
    score = rng.random(200)
    # The edges of the bins; 1 is in the last bin.
    score[: BINS + 1] = [number / BINS for number in range(BINS + 1)]
    label = rng.random(200) < score**2
    video = (
        np.unique(rng.integers(40, size=200), return_inverse=True)[1]
        if by_video
        else np.arange(200)
    )
    label = label[np.unique(video, return_index=True)[1]][video] if by_video else label
    weight = np.array([1 / (video == owner).sum() for owner in video])
    for is_fake in (False, True):  # half of all weight
        weight[label == is_fake] /= 2 * weight[label == is_fake].sum()
    bins = [[] for _ in range(BINS)]
    for row in range(200):
        upper = [number for number in range(BINS) if score[row] >= number / BINS]
        bins[upper[-1]].append(row)
    error = 0.0
    found = measure_reliability(label, score, video if by_video else None)
    for number, rows in enumerate(bins):
        total = sum(weight[row] for row in rows)
        mean = sum(weight[row] * score[row] for row in rows) / total
        share = sum(weight[row] for row in rows if label[row]) / total
        error += total / weight.sum() * abs(mean - share)
        assert found.count[number] == len(rows)
        assert found.mean_score[number] == pytest.approx(mean)
        assert found.fake_share[number] == pytest.approx(share)
    assert found.ece == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize(
    ("score", "label", "ece"),
    [
        ([0.9] * 10, [1] * 5 + [0] * 5, 0.4),
        # The share of fakes in the data has no effect: at equal priors it is a half.
        ([0.9] * 10, [1] * 9 + [0], 0.4),
        ([0.5] * 10, [1] * 9 + [0], 0),
        ([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 1, 0], 0),
        ([0.25, 0.75] * 4 + [0.25], [0, 1] * 4 + [0], 0.25),
        ([0.0] * 4 + [1.0] * 4, [0] * 4 + [1] * 4, 0),
        ([0.0] * 4 + [1.0] * 4, [1] * 4 + [0] * 4, 1),
        ([0.2] * 3 + [0.8], [0, 0, 0, 1], 0.2),
    ],
)
def test_calibration_error_of_small_cases_equals_that_computed_by_hand(score, label, ece):
    found = measure_reliability(np.array(label, bool), np.array(score))
    assert found.ece == pytest.approx(ece, abs=1e-12)
    assert np.isnan(found.mean_score).sum() == BINS - len(set(score))


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_calibration_error(label):
    assert measure_reliability(np.array([label]), np.array([0.3])).ece is None
