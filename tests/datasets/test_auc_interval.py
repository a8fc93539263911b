import numpy as np
import pytest
from scipy.stats import norm, rankdata

from jdfd_keras.datasets.auc_interval import find_auc_interval

Z = norm.ppf(0.975)


def variance_of(auc, num_real, num_fake):
    """Return the variance of Hanley and McNeil, with equal numbers of cases in the spread."""
    half = (num_real + num_fake) / 2 - 1
    spread = 1 + half * (1 - auc) / (2 - auc) + half * auc / (1 + auc)
    return auc * (1 - auc) * spread / (num_real * num_fake)


@pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 0.92, 1.0])
@pytest.mark.parametrize("counts", [(1, 1), (7, 30), (1000, 4000)])
def test_bounds_are_1_96_standard_errors_of_their_own_away(auc, counts):
    low, high = find_auc_interval(auc, *counts)
    for bound in (low, high):
        if bound not in (0, 1):
            assert abs(bound - auc) == pytest.approx(Z * variance_of(bound, *counts) ** 0.5)
    assert low <= auc <= high
    assert (low == 0) is (auc == 0) and (high == 1) is (auc == 1)


def test_classes_and_directions_are_symmetric():
    low, high = find_auc_interval(0.8, 10, 30)
    assert find_auc_interval(0.8, 30, 10) == pytest.approx((low, high))
    assert find_auc_interval(0.2, 10, 30) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("counts", [(5, 5), (6, 40), (50, 50)])
@pytest.mark.parametrize("auc", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("deviation", [1.0, 2.0])  # of fake scores; real ones have 1
def test_95_percent_of_the_intervals_cover_the_truth(counts, auc, deviation):
    rng = np.random.default_rng(0)
    num_real, num_fake = counts
    runs, covered = 400, 0
    mean = norm.ppf(auc) * (1 + deviation**2) ** 0.5
    for _ in range(runs):
        score = np.append(rng.normal(size=num_real), rng.normal(mean, deviation, num_fake))
        ranks = rankdata(score)[num_real:].sum()
        found = (ranks - num_fake * (num_fake + 1) / 2) / (num_real * num_fake)
        low, high = find_auc_interval(found, num_real, num_fake)
        covered += low <= auc <= high
    # Two standard errors are 2.2 %; the method is approximate.
    assert covered / runs >= 0.92
