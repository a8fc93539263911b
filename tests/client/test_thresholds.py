"""Thresholds by ranks: the promised error rates hold for new files, in closed form."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from jdfd_keras.client.thresholds import (
    UNATTAINABLE,
    choose_threshold,
    choose_thresholds,
    count_people,
)

REPEATS = 200


def draw(rng, count, mean=0.0):
    """Return sorted scores, the normal distribution mapped to 0..1 by a known function."""
    return np.sort(norm.cdf(rng.normal(mean, size=count)))


def share_above(threshold, mean=0.0):
    """Return the share of new scores at or above a threshold, in closed form."""
    return 1.0 if threshold <= 0 else float(norm.sf(norm.ppf(min(threshold, 1)) - mean))


@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(
    ("num_real", "num_fake", "rate"),
    [(4, 30, 0.05), (10, 10, 0.1), (60, 20, 0.05), (140, 700, 0.05), (40, 40, 0.3), (9, 9, 0.0)],
)
def test_the_expected_error_rates_of_new_files_are_at_most_the_target(
    num_real, num_fake, rate, separation
):
    rng = np.random.default_rng(0)
    called_fake, cleared = np.empty(REPEATS), np.empty(REPEATS)
    for repeat in range(REPEATS):
        low, high = choose_thresholds(draw(rng, num_real), draw(rng, num_fake, separation), rate)
        assert low <= high
        called_fake[repeat] = share_above(high)
        cleared[repeat] = 1 - share_above(low, separation)
    for rates, count in ((called_fake, num_real), (cleared, num_fake)):
        error = rates.std() / math.sqrt(REPEATS)
        assert rates.mean() <= max(rate, 1 / (count + 1)) + 3 * error


@pytest.mark.parametrize("num_people", [2, 4, 7])
def test_the_rate_is_that_of_a_file_with_several_people(num_people):
    rng = np.random.default_rng(1)
    own, naive = [], []
    for _ in range(REPEATS):
        scores = draw(rng, 140), draw(rng, 100, 1.0)
        for rates, people in ((own, num_people), (naive, 1)):
            high = choose_thresholds(*scores, 0.05, people)[1]
            # At least one of the independent people scores as high.
            rates.append(1 - (1 - share_above(high)) ** num_people)
    error = np.std(own) / math.sqrt(REPEATS)
    assert np.mean(own) <= 0.05 + 3 * error
    if num_people == 4:  # the thresholds of one person: 1 - 0.95**4 = 0.185
        assert np.mean(naive) == pytest.approx(0.18, abs=0.02)


def test_as_many_people_are_judged_as_validation_supports():
    # The rate of one of k people is 1 - 0.95**(1/k), and one of 100 + 1 ranks is 1/101.
    expected = max(k for k in range(1, 99) if 1 - 0.95 ** (1 / k) >= 1 / 101)
    assert count_people(0.05, 100) == expected == 5
    scores = np.linspace(0.1, 0.6, 100), np.linspace(0.4, 0.9, 100)
    assert choose_thresholds(*scores, 0.05, expected)[1] < UNATTAINABLE
    low, high = choose_thresholds(*scores, 0.05, expected + 1)
    assert high == UNATTAINABLE
    assert low == choose_thresholds(*scores, 0.05)[0]


@pytest.mark.parametrize("num_real", [1, 2, 4, 19, 20, 500])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.3])
def test_one_person_can_always_be_judged(num_real, rate):
    assert count_people(rate, num_real) >= 1
    real = np.linspace(0.1, 0.6, num_real)
    assert choose_thresholds(real, [0.3, 0.8], rate)[1] <= 1


def test_more_people_never_lower_the_upper_threshold():
    rng = np.random.default_rng(2)
    scores = draw(rng, 300), draw(rng, 200, 1.0)
    highs = [choose_thresholds(*scores, 0.05, people)[1] for people in range(1, 25)]
    assert highs == sorted(highs)
    assert highs[-1] == UNATTAINABLE


def test_an_allowed_error_is_not_lost_to_rounding():
    assert int(0.29 * 100) == 28  # 28.999999999999996
    real = np.arange(1, 100) / 100
    # Of 99 + 1 ranks 29 are allowed: the 29th largest score is 0.71, the next one 0.72.
    low, high = choose_thresholds(real, real, 0.29)
    assert (low, high) == (pytest.approx(0.285), pytest.approx(0.715))


def test_ties_stay_on_the_side_without_an_accusation():
    # Two of 9 + 1 ranks are allowed, but three real files have the highest score.
    real = [0.1] * 6 + [0.6] * 3
    low, high = choose_thresholds(real, [0.2] * 3 + [0.6] * 5 + [0.9], 0.2)
    assert (low, high) == (pytest.approx(0.15), pytest.approx(0.75))


def test_the_middle_half_of_a_gap_is_uncertain_and_its_middle_the_threshold():
    real, fake = np.linspace(0.05, 0.3, 20), np.linspace(0.7, 0.95, 20)
    assert choose_thresholds(real, fake, 0.0) == (pytest.approx(0.4), pytest.approx(0.6))
    assert choose_threshold(real, fake, 0.0) == pytest.approx(0.5)


def test_without_a_gap_the_binary_threshold_bounds_false_positives():
    scores = np.linspace(0.2, 0.7, 30), np.linspace(0.3, 0.8, 30)
    assert choose_threshold(*scores, 0.05) == choose_thresholds(*scores, 0.05)[1]


@pytest.mark.parametrize("highest", [1.0, 1 - 1e-7])
def test_saturated_real_files_make_a_fake_verdict_unattainable(highest):
    real = [0.1] * 8 + [highest] * 2
    assert choose_thresholds(real, [highest] * 10, 0.05)[1] == UNATTAINABLE
    assert choose_threshold(real, [highest] * 10, 0.05) == 1
    # Within the allowed rate they do no harm.
    assert choose_thresholds(real, [0.9] * 10, 0.3)[1] < 0.9


def test_a_constant_score_is_uncertain():
    low, high = choose_thresholds([0.3] * 20, [0.3] * 20, 0.05)
    assert low < 0.3 < high
