"""Bounds of metrics from the numbers of cases alone, for classes that are separable.

A bootstrap only reflects observed errors: without any, all resamples are equal. Independent of
scores.
"""

import math

from jdfd_keras.client.likelihood import clopper_pearson


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
        (0.862, 0.358)
    """
    fpr, tpr = clopper_pearson(0, num_real)[1], clopper_pearson(num_fake, num_fake)[0]
    odds = num_real / num_fake

    def area(start: float, end: float, rate: float) -> float:
        """Integrate the precision between two recalls, at one false positive rate."""
        return end - start - odds * rate * math.log((end + odds * rate) / (start + odds * rate))

    return area(0.0, tpr, fpr) + area(tpr, 1.0, 1.0)
