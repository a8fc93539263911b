"""Cost of likelihood ratios (Cllr): how much they inform a decision, and how much of it misleads.

Takes labels and likelihood ratios of files; independent of how they were computed.

Reference:
    Bruemmer, du Preez: "Application-independent evaluation of speaker detection" (2006), also for
    the minimum by pool-adjacent-violators.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import isotonic_regression

from jdfd_keras.evaluation.metrics import CONFIDENCE, Estimate
from jdfd_keras.evaluation.reliability import balance_classes
from jdfd_keras.io.results import Result


@dataclass(frozen=True)
class LikelihoodCost(Result):
    """Cost of the likelihood ratios of files in bits: 0 is perfect, 1 no information."""

    num_real: int
    num_fake: int
    cllr: Estimate  # None where a class is absent
    # Of the best monotonic function of the ratios: what better calibration cannot reduce.
    min_cllr: Estimate


def compute_cllr(label: np.ndarray, log10_lr: np.ndarray) -> float:
    """Compute the cost of likelihood ratios at equal priors.

    Args:
        label: bool[n], True is fake; both classes.
        log10_lr: float64[n], common logarithms of the ratios; above 0 supports fake.

    Returns:
        The mean of log2(1 + LR) over real and of log2(1 + 1 / LR) over fake files, averaged; 1 if
        every ratio is 1, and above 1 if ratios mislead.

    Example:
        >>> compute_cllr(np.array([False, True]), np.array([0.0, 0.0]))
        1.0
    """
    weight = balance_classes(label)
    wrong = np.where(label, -1, 1) * np.log(10) * np.asarray(log10_lr, float)
    return float(weight @ np.logaddexp(0, wrong) / np.log(2))


def compute_min_cllr(label: np.ndarray, value: np.ndarray) -> float:
    """Compute the lowest cost of all likelihood ratios that increase with a value.

    Args:
        label: bool[n], True is fake; both classes.
        value: float64[n], on any scale, such as scores or likelihood ratios.

    Example:
        >>> compute_min_cllr(np.array([False, True]), np.array([0.2, 0.4]))
        0.0
    """
    distinct, owner = np.unique(value, return_inverse=True)
    weight = balance_classes(label)
    total = np.bincount(owner, weights=weight, minlength=len(distinct))
    fake = np.bincount(owner, weights=weight * label, minlength=len(distinct))
    # P(fake) at equal priors. Ties share one value.
    probability = isotonic_regression(fake / total, sample_weight=total)
    probability = np.clip(probability, 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 * log(0) is 0
        cost = np.nan_to_num(fake * np.log2(probability), nan=0.0)
        cost += np.nan_to_num((total - fake) * np.log2(1 - probability), nan=0.0)
    return float(np.abs(cost.sum()))


def measure_likelihood_cost(
    label: np.ndarray, log10_lr: np.ndarray, *, n_resamples: int = 0, seed: int = 0
) -> LikelihoodCost:
    """Compute Cllr and its minimum, with intervals of a bootstrap over the files of each class.

    Args:
        label: bool[n], True is fake.
        log10_lr: float64[n], common logarithms of the likelihood ratios.
        n_resamples: Resamples of the bootstrap; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        The costs, undefined if a class is absent; without intervals if one has only one file.

    Example:
        >>> cost = measure_likelihood_cost(np.array([False, True]), np.array([0.0, 0.0]))
        >>> cost.cllr.value, cost.min_cllr.value
        (1.0, 1.0)
    """
    label, log10_lr = np.asarray(label, bool), np.asarray(log10_lr, float)
    members = [np.flatnonzero(label == is_fake) for is_fake in (False, True)]
    num_real, num_fake = map(len, members)
    if not (num_real and num_fake):
        return LikelihoodCost(num_real, num_fake, Estimate(None), Estimate(None))
    rng = np.random.default_rng(seed)
    measures = compute_cllr, compute_min_cllr
    values = [measure(label, log10_lr) for measure in measures]
    if not n_resamples or min(num_real, num_fake) < 2:
        return LikelihoodCost(num_real, num_fake, *map(Estimate, values))
    drawn = np.empty((n_resamples, len(measures)))
    for number in range(n_resamples):
        rows = np.concatenate([rng.choice(files, len(files)) for files in members])
        drawn[number] = [measure(label[rows], log10_lr[rows]) for measure in measures]
    tails = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    estimates = (
        Estimate(value, float(low), float(high))
        for value, low, high in zip(values, *tails, strict=True)
    )
    return LikelihoodCost(num_real, num_fake, *estimates)
