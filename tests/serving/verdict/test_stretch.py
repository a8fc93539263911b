"""A part of a film that is fake does not hide in the mean of the whole."""

import numpy as np
import pytest

from jdfd_keras.serving.verdict.stretch import Stretch, find_stretch


def test_the_stretch_is_the_quarter_with_the_highest_mean():
    scores = np.full(16, 0.1)
    scores[5:9] = [0.9, 0.8, 0.7, 1.0]
    scores[12] = 1.0  # one face alone is none
    found = find_stretch(np.arange(16.0), scores)
    assert found == Stretch(5.0, 8.0, pytest.approx(0.85))


def test_it_is_the_best_of_all_windows():
    rng = np.random.default_rng(0)
    scores, time_s = rng.random(41), np.sort(rng.random(41))
    means = [scores[start : start + 10].mean() for start in range(32)]
    best = int(np.argmax(means))
    assert find_stretch(time_s, scores) == Stretch(
        time_s[best], time_s[best + 9], pytest.approx(means[best])
    )


def test_few_faces_have_none():
    assert find_stretch(np.arange(11.0), np.ones(11)) is None
