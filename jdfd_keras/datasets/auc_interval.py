"""Confidence interval of an AUC from the numbers of cases, also where nothing varies."""

from typing import cast

CONFIDENCE = 0.95  # of all intervals


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
    # 0.5 s, which a client does not need.
    from scipy.optimize import brentq
    from scipy.special import ndtri

    half = (num_real + num_fake) / 2 - 1
    quantile = float(ndtri((1 + CONFIDENCE) / 2))

    def distance(truth: float) -> float:
        """Return the squared distance from a true AUC in standard errors, minus its quantile."""
        spread = 1 + half * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        variance = truth * (1 - truth) * spread / (num_real * num_fake)
        return (auc - truth) ** 2 - quantile**2 * variance

    def solve(low: float, high: float) -> float:
        return cast("float", brentq(distance, low, high))

    # Positive at 0 and 1, and negative next to `auc`. An AUC of 1 or 0 itself is a root, too.
    return (
        solve(0.0, auc - 1e-9) if auc > 0 else 0.0,
        solve(auc + 1e-9, 1.0) if auc < 1 else 1.0,
    )
