import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score

from jdfd_keras.evaluation.bounds import bound_ap, bound_eer


@pytest.mark.parametrize("counts", [(12, 50), (50, 12)])
def test_the_bound_of_the_eer_is_where_no_error_has_2_5_percent(counts):
    assert binom.pmf(0, min(counts), bound_eer(*counts)) == pytest.approx(0.025)


def test_the_bound_of_the_average_precision_is_that_of_the_worst_curve():
    num_real, num_fake = 40, 25
    fpr, missed = (1 - 0.025 ** (1 / number) for number in (num_real, num_fake))
    # 1,000,000 cases with the scores of that curve, whose precision is that of these counts.
    count = 100_000
    score = np.concatenate(
        [
            np.where(np.arange(4 * count) < 4 * count * fpr, 2.0, 0.5),  # real
            np.linspace(1.0, 2.0 - 1e-9, round(2.5 * count * (1 - missed))),  # found fakes
            np.linspace(0.0, 0.5 - 1e-9, 250_000 - round(2.5 * count * (1 - missed))),
        ]
    )
    label = np.arange(len(score)) >= 4 * count
    expected = average_precision_score(label, score)
    assert bound_ap(num_real, num_fake) == pytest.approx(expected, abs=1e-3)


def test_bounds_of_separable_classes_cover_the_truth():
    """Scores whose classes are separable in about half of the samples."""
    rng = np.random.default_rng(0)
    separation, num_real, num_fake = 3.5, 8, 8
    eer = norm.cdf(-separation / 2)
    separable = covered = 0
    for _ in range(2000):
        real, fake = rng.normal(size=num_real), rng.normal(separation, 1, num_fake)
        if real.max() < fake.min():
            separable += 1
            covered += eer <= bound_eer(num_real, num_fake)
    assert separable > 500 and covered == separable
