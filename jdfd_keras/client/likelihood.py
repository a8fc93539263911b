"""Likelihood ratios and error rates of scores, from the scores of validation files.

Independent of models and files; imports no TensorFlow.

Reference:
    European Network of Forensic Science Institutes: "ENFSI guideline for evaluative reporting in
    forensic science" (2015), for the verbal scale. Clopper, Pearson: "The use of confidence or
    fiducial limits illustrated in the case of the binomial" (1934), for the bounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.datasets.auc_interval import CONFIDENCE
from jdfd_keras.io.results import Result

# Likelihood ratio from which its support has this strength.
VERBAL_SCALE = (
    (1_000_000, "extremely strong support"),
    (10_000, "very strong support"),
    (1000, "strong support"),
    (100, "moderately strong support"),
    (10, "moderate support"),
    (2, "weak support"),
)
FAKE_PROPOSITION, REAL_PROPOSITION = "manipulation", "no manipulation"


@dataclass(frozen=True)
class LikelihoodRatio(Result):
    """Likelihood ratio of the scores of a file: manipulation against no manipulation.

    The propositions are that exactly one of the judged people is manipulated, each with the same
    probability, and that none is.
    """

    log10: float  # above 0 supports manipulation, below 0 supports no manipulation
    is_capped: bool  # whether the scores alone would give more than validation supports
    support: str  # verbal scale, such as `moderate support for manipulation`


@dataclass(frozen=True)
class ErrorRate(Result):
    """Share of validation files of one class with scores as extreme, with a 95 % interval.

    For several people the rate is that of a file with as many independent people.
    """

    count: int  # validation files that score as extreme
    total: int  # validation files of the class
    rate: float  # 0 to 1
    low: float
    high: float


@dataclass(frozen=True)
class ErrorRates(Result):
    """Error rates of a score: how often files of either class score as extreme."""

    real_as_high: ErrorRate  # real files that score at least as high
    fake_as_low: ErrorRate  # fake files that score at most as high


def clopper_pearson(
    count: float, total: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Compute the exact confidence interval of a share.

    Args:
        count: Number of cases with the property, 0 to `total`; a mean number need not be whole.
        total: Number of cases; the interval of none is 0 to 1.
        confidence: Two-sided confidence level.

    Example:
        >>> low, high = clopper_pearson(0, 12)
        >>> low, round(high, 3)
        (0.0, 0.265)
    """
    from scipy.special import betaincinv  # 0.1 s, which most commands do not need

    if not 0 <= count <= total:
        raise ValueError(f"Expected a count from 0 to {total}; got {count}. Check the two numbers.")
    tail = (1 - confidence) / 2
    low = betaincinv(count, total - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, total - count, 1 - tail) if count < total else 1.0
    return float(low), float(high)


def describe_support(log10: float) -> str:
    """Return the verbal scale of a likelihood ratio.

    Example:
        >>> describe_support(1.2)
        'moderate support for manipulation'
        >>> describe_support(0.1)
        'no support for either proposition'
    """
    ratio = 10 ** min(abs(log10), 300)
    side = FAKE_PROPOSITION if log10 > 0 else REAL_PROPOSITION
    for least, support in VERBAL_SCALE:
        if ratio >= least:
            return f"{support} for {side}"
    return "no support for either proposition"


def combine_people(log_ratios: Sequence[float]) -> float:
    """Return the logarithm of the likelihood ratio of a file: of the mean over its people.

    If exactly one of k independent people is manipulated, each with probability 1/k, the densities
    of the others cancel, and the ratio is the mean of the people's ratios.

    Args:
        log_ratios: Natural logarithms of the likelihood ratios of one or more people.

    Example:
        >>> round(math.exp(combine_people([math.log(9), math.log(1)])), 6)
        5.0
    """
    return float(np.logaddexp.reduce(np.asarray(log_ratios, float))) - math.log(len(log_ratios))


def measure_error_rate(count: int, total: int, num_people: int = 1) -> ErrorRate:
    """Compute an error rate and its interval for a file with several people.

    Example:
        >>> round(measure_error_rate(5, 100, num_people=4).rate, 3)
        0.185
    """
    low, high = clopper_pearson(count, total)

    def of_file(share: float) -> float:
        return share if num_people == 1 else 1 - (1 - share) ** num_people

    return ErrorRate(count, total, of_file(count / max(total, 1)), of_file(low), of_file(high))
