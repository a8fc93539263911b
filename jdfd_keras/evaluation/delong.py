"""Two detectors on the same videos: is the difference of their AUC more than chance?

Takes the scores of both; gives the difference, its interval and p. Knows nothing of files.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from jdfd_keras.evaluation.metrics import CONFIDENCE, Estimate


@dataclass(frozen=True)
class Difference:
    """How much the AUC of the first detector is above that of the second.

    Attributes:
        auc: Of the first.
        other_auc: Of the second.
        difference: Of both, with its 95 % interval.
        z: The difference in standard errors; None where the error is 0 or undefined.
        p: Chance of a difference as large, either way, between detectors that are equally good;
            None where z is.
    """

    auc: float
    other_auc: float
    difference: Estimate
    z: float | None
    p: float | None


def compare(
    label: np.ndarray, score: np.ndarray, other: np.ndarray, video: np.ndarray | None = None
) -> Difference | None:
    """Test whether two detectors differ in AUC, on the same faces or videos.

    Faces of one video are not independent: their parts in the AUC are summed by video, after
    Obuchowski. With one row per video that is DeLong's test.

    Args:
        label: bool[n], True is fake.
        score: float64[n] of the first detector, higher is more fake.
        other: float64[n] of the second, of the same rows.
        video: int64[n], to which video each row belongs, from 0; one label per video. Each row is
            one of its own if not given.

    Returns:
        The difference; None where a class is absent. There is no interval where a class has one
        video, or where nothing varies, as where both tell the classes wholly apart.

    Reference:
        DeLong, DeLong, Clarke-Pearson: "Comparing the areas under two or more correlated receiver
        operating characteristic curves", Biometrics 44 (1988). Obuchowski: "Nonparametric analysis
        of clustered ROC curve data", Biometrics 53 (1997).
    """
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        return None
    video = np.arange(len(label)) if video is None else np.asarray(video)
    covariance = np.zeros((2, 2))
    parts = [_placements(label, np.asarray(of, np.float64)) for of in (score, other)]
    auc = [float(placement[label].mean()) for placement in parts]
    for rows in (label, ~label):
        owner = np.unique(video[rows], return_inverse=True)[1]
        count = np.bincount(owner)
        if len(count) < 2:
            covariance += np.nan
            continue
        sums = np.stack(
            [
                np.bincount(owner, weights=placement[rows] - mean)
                for placement, mean in zip(parts, auc, strict=True)
            ]
        )
        covariance += len(count) / (len(count) - 1) * (sums @ sums.T) / rows.sum() ** 2
    difference = auc[0] - auc[1]
    # Rounding may leave a little where both rank all alike.
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0))) if variance > 1e-18 else 0.0
    ranks_alike = np.array_equal(rankdata(score), rankdata(other))
    if np.isnan(variance) or not (error or ranks_alike):
        return Difference(*auc, Estimate(difference), None, None)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    z = difference / error if error else None
    return Difference(
        *auc,
        Estimate(difference, difference - half, difference + half),
        z,
        None if z is None else float(2 * norm.sf(abs(z))),
    )


def _placements(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Give each row the share of the other class that it is in order with, ties half."""
    rank = rankdata(score)
    placement = np.empty(len(score))
    for rows, others in ((label, ~label), (~label, label)):
        placement[rows] = (rank[rows] - rankdata(score[rows])) / others.sum()
    placement[~label] = 1 - placement[~label]
    return placement
