"""Cost of likelihood ratios: closed forms, cases by hand, and a search over monotonic functions."""

import itertools

import numpy as np
import pytest

from jdfd_keras.evaluation.likelihood_cost import (
    compute_cllr,
    compute_min_cllr,
    measure_likelihood_cost,
)


def cost_by_hand(real, fake):
    """Return the formula of Bruemmer and du Preez for ratios (not their logarithms)."""
    return 0.5 * (np.mean(np.log2(1 + np.array(real))) + np.mean(np.log2(1 + 1 / np.array(fake))))


@pytest.mark.parametrize(
    ("real", "fake"),
    [([1.0], [1.0, 1.0]), ([0.25], [4.0]), ([0.1, 3.0, 0.5], [2.0, 0.01]), ([9.0], [1 / 9])],
)
def test_the_cost_equals_the_formula(real, fake):
    label = np.arange(len(real) + len(fake)) >= len(real)
    ratios = np.log10([*real, *fake])
    assert compute_cllr(label, ratios) == pytest.approx(cost_by_hand(real, fake))


def test_no_information_costs_one_bit_and_ratios_that_mislead_more():
    label = np.array([False] * 3 + [True] * 7)
    assert compute_cllr(label, np.zeros(10)) == pytest.approx(1)
    assert compute_cllr(label, np.where(label, 6.0, -6.0)) == pytest.approx(0, abs=1e-5)
    assert compute_cllr(label, np.where(label, -2.0, 2.0)) > 6
    # Ratios of a million are finite, and of any size.
    assert np.isfinite(compute_cllr(label, np.full(10, 5000.0)))


def test_the_minimum_is_that_of_all_monotonic_functions():
    """Every division of six scores into consecutive groups, each with its best ratio."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        label = rng.permutation([False, False, True, True, True, False])
        lowest = np.inf
        for ends in itertools.product([False, True], repeat=5):
            group = np.cumsum([0, *ends])
            share = np.array([label[group == number].mean() for number in group])
            if (np.diff(share) < 0).any():
                continue  # not monotonic
            chosen = np.where(label, share, 1 - share)
            lowest = min(lowest, -np.log2(chosen).mean())
        assert compute_min_cllr(label, np.arange(6.0)) == pytest.approx(lowest, abs=1e-9)


def test_the_minimum_depends_on_the_order_and_on_ties_only():
    rng = np.random.default_rng(1)
    label = rng.random(200) < 0.3
    value = np.round(rng.normal(size=200) + label, 1)
    lowest = compute_min_cllr(label, value)
    assert compute_min_cllr(label, 5 * value**3 + value - 7) == pytest.approx(lowest)
    assert lowest <= compute_cllr(label, value)
    assert compute_min_cllr(label, np.zeros(200)) == pytest.approx(1)
    assert compute_min_cllr(label, label.astype(float)) == pytest.approx(0, abs=1e-9)
    assert compute_min_cllr(label, -label.astype(float)) == pytest.approx(1)


def test_intervals_cover_the_cost_of_normal_ratios():
    """The true cost of ratios of two normals, from a very large sample."""
    separation = 1.5

    def draw(rng, count):
        label = np.arange(count) % 3 == 0
        x = rng.normal(size=count) + separation * label
        return label, separation * (x - separation / 2) / np.log(10)

    rng = np.random.default_rng(0)
    truth = compute_cllr(*draw(rng, 400_000))
    covered = []
    for seed in range(40):
        cost = measure_likelihood_cost(*draw(rng, 100), n_resamples=100, seed=seed)
        assert cost.min_cllr.value <= cost.cllr.value
        covered.append(cost.cllr.low <= truth <= cost.cllr.high)
    assert np.mean(covered) > 0.85  # 95 % less three standard errors


def test_one_class_has_no_cost_and_one_file_no_interval():
    one = measure_likelihood_cost(np.array([True, True]), np.array([1.0, 2.0]), n_resamples=100)
    assert (one.num_real, one.num_fake, one.cllr.value, one.min_cllr.value) == (0, 2, None, None)
    few = measure_likelihood_cost(np.array([False, True, True]), np.zeros(3), n_resamples=100)
    assert (few.cllr.value, few.cllr.low) == (1.0, None)
