"""Bounds and likelihood ratios, against exact binomial sums and other implementations."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from jdfd_keras.client.likelihood import (
    VERBAL_SCALE,
    clopper_pearson,
    combine_people,
    describe_support,
    measure_error_rate,
)


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 12), (3, 12), (12, 12), (5, 100), (0, 0)])
def test_bounds_equal_those_of_scipy(count, total):
    expected = (0, 1)
    if total:
        interval = binomtest(count, total).proportion_ci(0.95, method="exact")
        expected = interval.low, interval.high
    assert clopper_pearson(count, total) == pytest.approx(expected, abs=1e-9)


def test_none_of_twelve_may_still_be_a_quarter():
    assert clopper_pearson(0, 12)[1] == pytest.approx(1 - 0.025 ** (1 / 12))
    assert clopper_pearson(0, 12)[1] == pytest.approx(0.265, abs=5e-4)


@pytest.mark.parametrize("total", [4, 12, 140])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.05, 0.3, 0.5, 0.9])
def test_bounds_cover_every_share_at_least_as_often_as_they_state(share, total):
    counts = np.arange(total + 1)
    bounds = np.array([clopper_pearson(count, total) for count in counts.tolist()])
    covers = (bounds[:, 0] <= share) & (share <= bounds[:, 1])
    assert binom.pmf(counts, total, share)[covers].sum() >= 0.95


@pytest.mark.parametrize(("count", "total"), [(-1, 4), (5, 4)])
def test_an_impossible_count_raises(count, total):
    with pytest.raises(ValueError, match=f"from 0 to {total}; got {count}"):
        clopper_pearson(count, total)


@pytest.mark.parametrize("num_real", [12, 30])
def test_a_cap_is_rarely_above_the_true_ratio(num_real):
    """Every fake scores above every real file, so the true ratio is 1 / P(real scores as high)."""
    rng = np.random.default_rng(0)
    highest = rng.normal(size=(4000, num_real)).max(axis=1)
    true_ratio = 1 / norm.sf(highest)
    cap = 1 / clopper_pearson(0, num_real)[1]
    # The bound holds in 97.5 % of validation sets; four standard errors are 1 %.
    assert (true_ratio < cap).mean() == pytest.approx(0.025, abs=0.01)


def test_the_verbal_scale_has_its_limits_on_both_sides():
    for least, support in VERBAL_SCALE:
        assert describe_support(math.log10(least) + 1e-9) == f"{support} for manipulation"
        assert describe_support(-math.log10(least) - 1e-9) == f"{support} for no manipulation"
    for log10 in (0.0, 0.3, -0.3):
        assert describe_support(log10) == "no support for either proposition"
    assert describe_support(5000.0) == "extremely strong support for manipulation"


def test_several_people_have_the_mean_of_their_ratios():
    """Bayes by hand: one of three is manipulated, each with the same probability."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=3)
    real, fake = norm.pdf(scores), norm.pdf(scores, 2)
    with_one = np.mean(
        [np.prod(np.where(np.arange(3) == person, fake, real)) for person in range(3)]
    )
    expected = math.log(with_one / np.prod(real))
    assert combine_people(np.log(fake / real).tolist()) == pytest.approx(expected)
    assert combine_people([800.0, -800.0]) == pytest.approx(800 - math.log(2))


def test_the_error_rate_of_several_people_is_that_of_any_of_them():
    one, four = measure_error_rate(5, 100), measure_error_rate(5, 100, num_people=4)
    assert (one.count, one.total, one.rate) == (5, 100, 0.05)
    assert (one.low, one.high) == clopper_pearson(5, 100)
    for name in ("rate", "low", "high"):
        assert getattr(four, name) == pytest.approx(1 - (1 - getattr(one, name)) ** 4)
