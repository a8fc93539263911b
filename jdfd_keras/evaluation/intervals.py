"""Confidence intervals from the numbers of cases alone, also where nothing varies.

A bootstrap only reflects observed errors: without any, all resamples are equal. These intervals
hold there, too. Independent of scores; shares are those of `clopper_pearson`.
"""

import math

from scipy.optimize import brentq
from scipy.stats import norm

from jdfd_keras.client.likelihood import CONFIDENCE, clopper_pearson


def find_auc_interval(auc: float, num_real: int, num_fake: int) -> tuple[float, float]:
    """Compute a 95 % interval of an AUC from the numbers of cases, also for an AUC of 0 or 1.

    Args:
        auc: The AUC of independent cases, in [0, 1].
        num_real: Real cases; at least 1, as of fake cases.
        num_fake: Fake cases.

    Reference:
        Newcombe: "Confidence intervals for an effect size measure based on the Mann-Whitney
        statistic. Part 2" (2006), method 5.

    Example:
        >>> [round(bound, 2) for bound in find_auc_interval(1.0, 10, 10)]
        [0.8, 1.0]
    """
    half = (num_real + num_fake) / 2 - 1

    def distance(truth: float) -> float:
        """Return the squared distance from a true AUC in standard errors, minus its quantile."""
        spread = 1 + half * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        variance = truth * (1 - truth) * spread / (num_real * num_fake)
        return (auc - truth) ** 2 - norm.ppf((1 + CONFIDENCE) / 2) ** 2 * variance

    # Positive at 0 and 1, and negative next to `auc`. An AUC of 1 or 0 itself is a root, too.
    low = brentq(distance, 0, auc - 1e-9) if auc > 0 else 0.0
    high = brentq(distance, auc + 1e-9, 1) if auc < 1 else 1.0
    return float(low), float(high)


def bound_eer(num_real: int, num_fake: int) -> float:
    """Compute the 95 % upper bound of the EER of classes that are separable.

    At the highest real score no fake is missed and no other real case is called fake. The EER is at
    most the larger of the two error rates there, each with its exact bound.

    Example:
        >>> round(bound_eer(12, 50), 3)
        0.265
    """
    return max(clopper_pearson(0, number)[1] for number in (num_real, num_fake))


def bound_ap(num_real: int, num_fake: int) -> float:
    """Compute the 95 % lower bound of the average precision of classes that are separable.

    At the highest real score, both error rates have their exact bounds. In the worst case these are
    the true ones: above that score the false positive rate is at its bound, and below it all real
    cases are above the remaining fakes. The share of fakes is that of these cases.

    Example:
        >>> round(bound_ap(100, 100), 3), round(bound_ap(5, 5), 3)
        (0.878, 0.408)
    """
    fpr, tpr = clopper_pearson(0, num_real)[1], clopper_pearson(num_fake, num_fake)[0]
    odds = num_real / num_fake

    def area(start: float, end: float, rate: float) -> float:
        """Integrate the precision between two recalls, at one false positive rate."""
        return end - start - odds * rate * math.log((end + odds * rate) / (start + odds * rate))

    return area(0.0, tpr, fpr) + area(tpr, 1.0, 1.0)
