"""Metrics of a detector with bootstrap intervals, from labels and scores of faces or of videos.

A metric that needs both classes is None, never 0.5, where one is absent. Independent of files.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import norm

from jdfd_keras.client.calibration import check_threshold
from jdfd_keras.client.likelihood import CONFIDENCE, clopper_pearson
from jdfd_keras.datasets.auc_interval import find_auc_interval
from jdfd_keras.evaluation.bounds import bound_ap, bound_eer
from jdfd_keras.io.results import Result

# False positive rates at which the true positive rate is measured, by metric.
FPR_ALLOWED = {"tpr_at_1_fpr": 0.01, "tpr_at_5_fpr": 0.05}
SHARES = ("accuracy", "tpr", "fpr")
JACKKNIFE_GROUPS = 100  # groups of videos per class in the jackknife


@dataclass(frozen=True)
class Estimate(Result):
    """A metric and the bounds of its 95 % interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metrics(Result):
    """Metrics of a detector on one group of faces or videos."""

    num_real: int  # real faces or videos
    num_fake: int  # fake ones
    auc: Estimate  # probability that a fake scores above a real one, ties counted half
    eer: Estimate  # equal error rate, see `Ranking.measure`
    ap: Estimate  # average precision of detecting fakes; for chance, their share
    accuracy: Estimate  # at the threshold; undefined for a group of one class
    tpr: Estimate  # share of fakes called fake at the threshold
    fpr: Estimate  # share of real ones called fake at the threshold
    tpr_at_1_fpr: Estimate  # highest TPR of all thresholds with an FPR of at most 1 %
    tpr_at_5_fpr: Estimate  # the same for 5 %


MEASURED = tuple(field.name for field in fields(Metrics) if field.type is Estimate)


def measure(
    label: np.ndarray,
    score: np.ndarray,
    *,
    threshold: float,
    video: np.ndarray | None = None,
    n_resamples: int = 0,
    seed: int = 0,
) -> Metrics:
    """Compute the metrics of one group of faces or of videos.

    Shares of videos (accuracy, tpr, fpr) have exact intervals. Others come from a bootstrap over
    videos: faces of one video are not independent, so whole videos are drawn with replacement,
    separately for each class. They are corrected for bias and acceleration (BCa), since percentile
    intervals cover an AUC near 1 too rarely. Where no resample differs, such as with separable
    classes, the numbers of videos bound the metric. They also bound an AUC of videos so close to 1
    or 0 that less than one video of the smaller class is on the wrong side.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        threshold: A score at or above it is called fake.
        video: int64[n], index of the row's video, from 0; one label per video. By default each
            row is a separate video.
        n_resamples: Resamples of the bootstrap; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        The metrics. One class alone has only tpr or fpr. If a class has only one video, only
        shares of videos have intervals. The TPR at a FPR of less than one real video has none.

    Reference:
        Clopper, Pearson: "The use of confidence or fiducial limits illustrated in the case of the
        binomial" (1934); the accuracy is a sum over two classes, for which their interval is too
        wide rather than too narrow: Hoeffding: "On the distribution of the number of successes in
        independent trials" (1956). Efron: "Better Bootstrap Confidence Intervals" (1987). For whole
        groups and several samples: Davison and Hinkley: "Bootstrap Methods and their Application"
        (1997), 3.8, 5.3.

    Example:
        >>> metrics = measure(np.array([False, True]), np.array([0.2, 0.9]), threshold=0.5)
        >>> metrics.auc.value, metrics.fpr.value
        (1.0, 0.0)
    """
    check_threshold(threshold)
    label = np.asarray(label, bool)
    if not len(label):
        return Metrics(0, 0, **dict.fromkeys(MEASURED, Estimate(None)))
    video = np.arange(len(label)) if video is None else np.asarray(video)
    ranking = Ranking(label, np.asarray(score, np.float64), video, threshold)
    values = ranking.measure(np.ones(ranking.num_videos, np.int64))
    members = [np.flatnonzero(ranking.is_fake == is_fake) for is_fake in (False, True)]
    members = [videos for videos in members if len(videos)]
    bounds = np.full((2, len(MEASURED)), np.nan)
    has_several = all(len(videos) > 1 for videos in members)
    if n_resamples and has_several:
        bounds = _find_bounds(ranking, values, members, n_resamples, seed)
    if n_resamples:
        num_fake = int(ranking.is_fake.sum())
        counts = ranking.num_videos - num_fake, num_fake
        is_video = len(label) == ranking.num_videos
        for position in np.flatnonzero(~np.isnan(values)):
            name, value = MEASURED[position], float(values[position])
            is_fixed = has_several and np.isnan(bounds[0, position])
            if is_fixed or (is_video and _is_extreme(name, value, min(counts))):
                bounds[:, position] = _find_exact_bounds(name, value, *counts)
    estimates = {
        name: Estimate(*(None if np.isnan(number) else float(number) for number in three))
        for name, *three in zip(MEASURED, values, *bounds, strict=True)
    }
    return Metrics(num_real=int((~label).sum()), num_fake=int(label.sum()), **estimates)


def measure_auc(label: np.ndarray, value: np.ndarray) -> float | None:
    """Compute the AUC of any measure that is expected to be higher for fakes, without interval.

    Args:
        label: bool[n], True is fake.
        value: float64[n], on any scale.

    Returns:
        The AUC; None where a class is absent.

    Example:
        >>> measure_auc(np.array([False, True]), np.array([20.0, 30.0]))
        1.0
    """
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        return None
    rows = np.arange(len(label))
    ranking = Ranking(label, np.asarray(value, np.float64), rows, threshold=0.0)
    return float(ranking.measure(np.ones_like(rows))[0])


def _is_extreme(name: str, value: float, fewest: int) -> bool:
    """Return whether a metric of videos needs an interval from their numbers."""
    return name in SHARES or (name == "auc" and fewest > 1 > min(value, 1 - value) * fewest)


def _find_exact_bounds(
    name: str, value: float, num_real: int, num_fake: int
) -> tuple[float, float]:
    """Return the bounds of a metric from the numbers of videos; NaN if they give none.

    Faces have no more independent cases than videos: their shares are taken as those of videos.
    """
    if name == "auc":
        return find_auc_interval(value, num_real, num_fake)
    if name == "eer" and value in (0, 1):
        high = bound_eer(num_real, num_fake)
        return (0.0, high) if value == 0 else (1 - high, 1.0)
    if name == "ap" and value == 1:
        return bound_ap(num_real, num_fake), 1.0
    totals = {"accuracy": num_real + num_fake, "fpr": num_real}
    if name in SHARES or num_real * FPR_ALLOWED.get(name, 0) >= 1:
        total = totals.get(name, num_fake)
        # A share of faces may be no whole number of videos, for which the formula holds too.
        return clopper_pearson(value * total, total)
    return np.nan, np.nan


def _find_bounds(
    ranking: "Ranking", values: np.ndarray, members: list[np.ndarray], n_resamples: int, seed: int
) -> np.ndarray:
    """Resample videos and return the BCa bounds of every metric, float64[2, m]."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((n_resamples, len(MEASURED)))
    for number in range(n_resamples):
        times = np.zeros(ranking.num_videos, np.int64)
        for videos in members:
            chosen = rng.integers(len(videos), size=len(videos))
            times[videos] = np.bincount(chosen, minlength=len(videos))
        drawn[number] = ranking.measure(times)
    below, up_to = (drawn < values).mean(axis=0), (drawn <= values).mean(axis=0)
    least = 1 / (n_resamples + 1)
    bias = norm.ppf(np.clip((below + up_to) / 2, least, 1 - least))
    acceleration = _find_acceleration(ranking, members)
    bounds = np.full((2, len(MEASURED)), np.nan)
    few = [name for name, rate in FPR_ALLOWED.items() if rate * len(members[0]) < 1]
    has_spread = (drawn.min(axis=0) < drawn.max(axis=0)) & ~np.isin(MEASURED, few)
    for position in np.flatnonzero(has_spread):  # false for NaN
        tail = bias[position] + norm.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        share = norm.cdf(bias[position] + tail / (1 - acceleration[position] * tail))
        bounds[:, position] = np.quantile(drawn[:, position], share)
    return bounds


def _find_acceleration(ranking: "Ranking", members: list[np.ndarray]) -> np.ndarray:
    """Compute the acceleration of each metric by a jackknife over videos, float64[m]."""
    squares, cubes = np.zeros(len(MEASURED)), np.zeros(len(MEASURED))
    for videos in members:
        # Many videos are omitted in groups: the sums of squares and cubes stay the same.
        groups = np.array_split(videos, min(len(videos), JACKKNIFE_GROUPS))
        without = []
        for group in groups:
            times = np.ones(ranking.num_videos, np.int64)
            times[group] = 0
            without.append(ranking.measure(times))
        share = 1 - np.array([[len(group)] for group in groups]) / len(videos)
        influence = share * (np.mean(without, axis=0) - without)
        squares += np.square(influence).sum(axis=0)
        cubes += (influence**3).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0: a metric that is always the same
        return np.nan_to_num(cubes / (6 * squares**1.5))


class Ranking:
    """Scores sorted once and measured under many weights of the videos.

    A resample of the bootstrap then takes one cumulative sum over the real rows and one over the
    fake rows: the positions at which the ROC curve is read do not change.

    The arguments are those of `measure`.
    """

    def __init__(self, label: np.ndarray, score: np.ndarray, video: np.ndarray, threshold: float):
        self.num_videos = int(video.max()) + 1
        self.is_fake = np.zeros(self.num_videos, bool)
        self.is_fake[video] = label
        real, fake = (np.flatnonzero(label == is_fake) for is_fake in (False, True))
        real, fake = (rows[np.argsort(-score[rows], kind="stable")] for rows in (real, fake))
        self._real, self._fake = video[real], video[fake]
        # Negated, since np.searchsorted needs ascending values.
        descending = -score[real], -score[fake]
        self._called = [int(np.searchsorted(s, -threshold, side="right")) for s in descending]
        # Points of the ROC curve: rows of each class at or above each distinct score.
        distinct = np.unique(np.concatenate(descending))
        self._corners = [
            np.append(0, np.searchsorted(s, distinct, side="right")) for s in descending
        ]
        # Fakes at or above each distinct fake score, and real rows above it and at or above it.
        distinct = np.unique(descending[1])
        self._fake_to = np.searchsorted(descending[1], distinct, side="right")
        self._real_to = np.searchsorted(descending[0], distinct, side="right")
        above = np.searchsorted(descending[0], distinct, side="left")
        # None without ties between classes, which saves half of the work.
        self._real_above = None if np.array_equal(above, self._real_to) else above

    def measure(self, times: np.ndarray) -> np.ndarray:
        """Compute the metrics with a weight for each video.

        With finitely many scores there may be no threshold at which both error rates are equal.
        The EER is therefore the false positive rate at which the ROC curve, with its points (one
        per distinct score) joined by straight lines, meets FPR = 1 - TPR. That point is unique.

        Args:
            times: int64[v], how often each video counts.

        Returns:
            float64[m], the metrics in the order of MEASURED; NaN where undefined.
        """
        fp, tp = (_sum_along(times, video) for video in (self._real, self._fake))
        num_real, num_fake = int(fp[-1]), int(tp[-1])
        called_real, called_fake = int(fp[self._called[0]]), int(tp[self._called[1]])
        tpr = called_fake / num_fake if num_fake else np.nan
        fpr = called_real / num_real if num_real else np.nan
        if not (num_real and num_fake):
            return np.array([{"tpr": tpr, "fpr": fpr}.get(name, np.nan) for name in MEASURED])
        detected = tp.take(self._fake_to)
        real = fp.take(self._real_to)
        new = np.diff(detected, prepend=0)
        # Sums of integers, exact for any realistic dataset.
        above = real if self._real_above is None else fp.take(self._real_above)
        losses = new @ real + new @ above
        precision = detected / np.maximum(detected + real, 1)
        return np.array(
            [
                1 - losses / (2 * num_real * num_fake),
                self._equal_error_rate(fp, tp),
                (new @ precision) / num_fake,
                (called_fake + num_real - called_real) / (num_real + num_fake),
                tpr,
                fpr,
                *(self._tpr_at(fp, tp, allowed) for allowed in FPR_ALLOWED.values()),
            ]
        )

    def _equal_error_rate(self, fp: np.ndarray, tp: np.ndarray) -> float:
        num_real, num_fake = int(fp[-1]), int(tp[-1])

        def point(corner: int) -> tuple[int, int]:
            """Return FPR - (1 - TPR), as an integer scaled by both counts, and the FP."""
            real, fake = (int(rows[corner]) for rows in self._corners)
            gap = int(fp[real]) * num_fake + (int(tp[fake]) - num_fake) * num_real
            return gap, int(fp[real])

        # The gap rises along the curve, so its zero is found by bisection: most of a million
        # points need not be computed.
        low, high = 0, len(self._corners[0]) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if point(middle)[0] < 0 else (low, middle)
        (below, fp_below), (above, fp_above) = point(low), point(high)
        return (fp_below - below / (above - below) * (fp_above - fp_below)) / num_real

    def _tpr_at(self, fp: np.ndarray, tp: np.ndarray, allowed: float) -> float:
        # Tolerance, since the product may round to just below an integer.
        most = np.searchsorted(fp, int(allowed * fp[-1] + 1e-9), side="right") - 1
        corner = np.searchsorted(self._corners[0], most, side="right") - 1
        return float(tp[self._corners[1][corner]] / tp[-1])


def _sum_along(times: np.ndarray, video: np.ndarray) -> np.ndarray:
    total = np.zeros(len(video) + 1, np.int64)
    np.cumsum(times.take(video), out=total[1:])
    return total
