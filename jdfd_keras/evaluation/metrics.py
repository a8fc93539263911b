"""Scores to numbers: how well real and fake are told apart, and how sure that is.

Takes labels and scores, of faces or of videos; gives an Estimate for each metric. What a group
cannot tell, such as the AUC of real videos alone, is None and never a made-up 0.5. Knows nothing
of files, models or TensorFlow.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from jdfd_keras.client.metadata import check_threshold

# Rates at which "the share of fakes found" is told, by the name of the metric.
FPR_ALLOWED = {"tpr_at_1_fpr": 0.01, "tpr_at_5_fpr": 0.05}
MEASURED = ("auc", "eer", "ap", "accuracy", "tpr", "fpr", *FPR_ALLOWED)
CONFIDENCE = 0.95
LEFT_OUT = 100  # groups of videos in each class, for the acceleration


class Estimate(NamedTuple):
    """A metric and the bounds of its 95 % interval; None for what is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metrics:
    """How well one group is told apart.

    Attributes:
        num_real: Real faces or videos in the group.
        num_fake: Fake ones.
        auc: Area under the ROC curve: the chance that a fake scores above a real, ties half.
        eer: Equal error rate, see `Ranking.measure`.
        ap: Average precision of finding fakes; a coin gives the share of fakes.
        accuracy: Share called right at the threshold; undefined for a group of one class.
        tpr: Share of the fakes called fake at the threshold.
        fpr: Share of the reals called fake at the threshold.
        tpr_at_1_fpr: The largest share of the fakes that some threshold calls fake while it calls
            1 % of the reals fake at most.
        tpr_at_5_fpr: The same for 5 %.
    """

    num_real: int
    num_fake: int
    auc: Estimate
    eer: Estimate
    ap: Estimate
    accuracy: Estimate
    tpr: Estimate
    fpr: Estimate
    tpr_at_1_fpr: Estimate
    tpr_at_5_fpr: Estimate


def measure(
    label: np.ndarray,
    score: np.ndarray,
    *,
    threshold: float,
    video: np.ndarray | None = None,
    rounds: int = 0,
    seed: int = 0,
) -> Metrics:
    """Measure one group of faces or of videos.

    The intervals are those of the bootstrap over videos: faces of one video are not independent,
    so whole videos are drawn, with replacement, as many real ones and as many fake ones as there
    are. They are corrected for bias and acceleration (BCa): of an AUC near 1, which is where
    detectors are, plain percentiles miss the truth too often.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        threshold: A score at or above it is called fake.
        video: int64[n], to which video each row belongs, from 0; one label per video. Each row
            is one of its own if not given.
        rounds: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.

    Returns:
        Metrics; a group without reals or without fakes has no auc, eer, ap, accuracy or TPR at a
        FPR. A class of one video gives no intervals: nothing tells how much videos of it differ.
        Nor has a metric one that no draw changes, such as the AUC of classes that lie apart, or
        the TPR at a FPR that is less than one real video.

    Raises:
        ValueError: If the threshold is not in [0, 1].

    Reference:
        Efron: "Better Bootstrap Confidence Intervals" (1987). For whole groups and several
        samples: Davison and Hinkley: "Bootstrap Methods and their Application" (1997), 3.8, 5.3.
    """
    check_threshold(threshold)
    label = np.asarray(label, bool)
    if not len(label):
        return Metrics(0, 0, **dict.fromkeys(MEASURED, Estimate(None)))
    video = np.arange(len(label)) if video is None else np.asarray(video)
    ranking = Ranking(label, np.asarray(score, np.float64), video, threshold)
    values = ranking.measure(np.ones(ranking.num_videos, np.int64))
    bounds = np.full((2, len(MEASURED)), np.nan)
    members = [np.flatnonzero(ranking.is_fake == is_fake) for is_fake in (False, True)]
    members = [videos for videos in members if len(videos)]
    if rounds and all(len(videos) > 1 for videos in members):
        bounds = _find_bounds(ranking, values, members, rounds, seed)
    estimates = {
        name: Estimate(*(None if np.isnan(number) else float(number) for number in three))
        for name, *three in zip(MEASURED, values, *bounds, strict=True)
    }
    return Metrics(num_real=int((~label).sum()), num_fake=int(label.sum()), **estimates)


def measure_auc(label: np.ndarray, value: np.ndarray) -> float | None:
    """Give the AUC of any measure of which fakes are thought to have more; no interval.

    Args:
        label: bool[n], True is fake.
        value: float64[n], on any scale.

    Returns:
        The area; None where a class is absent.
    """
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        return None
    rows = np.arange(len(label))
    return float(Ranking(label, np.asarray(value, np.float64), rows, 0.0).measure(rows * 0 + 1)[0])


def _find_bounds(
    ranking: "Ranking", values: np.ndarray, members: list[np.ndarray], rounds: int, seed: int
) -> np.ndarray:
    """Draw videos again and again; float64[2, m], the bounds of every metric."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((rounds, len(MEASURED)))
    for number in range(rounds):
        times = np.zeros(ranking.num_videos, np.int64)
        for videos in members:
            chosen = rng.integers(len(videos), size=len(videos))
            times[videos] = np.bincount(chosen, minlength=len(videos))
        drawn[number] = ranking.measure(times)
    below, up_to = (drawn < values).mean(axis=0), (drawn <= values).mean(axis=0)
    least = 1 / (rounds + 1)
    bias = norm.ppf(np.clip((below + up_to) / 2, least, 1 - least))
    acceleration = _find_acceleration(ranking, members)
    bounds = np.full((2, len(MEASURED)), np.nan)
    few = [name for name, rate in FPR_ALLOWED.items() if rate * len(members[0]) < 1]
    has_spread = (drawn.min(axis=0) < drawn.max(axis=0)) & ~np.isin(MEASURED, few)
    for position in np.flatnonzero(has_spread):  # NaN has none
        tail = bias[position] + norm.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        share = norm.cdf(bias[position] + tail / (1 - acceleration[position] * tail))
        bounds[:, position] = np.quantile(drawn[:, position], share)
    return bounds


def _find_acceleration(ranking: "Ranking", members: list[np.ndarray]) -> np.ndarray:
    """Find how the spread of each metric changes with it, from leaving videos out by turns."""
    squares, cubes = np.zeros(len(MEASURED)), np.zeros(len(MEASURED))
    for videos in members:
        # Of many videos several at once: squares and cubes of sums of them add up to the same.
        groups = np.array_split(videos, min(len(videos), LEFT_OUT))
        without = []
        for group in groups:
            times = np.ones(ranking.num_videos, np.int64)
            times[group] = 0
            without.append(ranking.measure(times))
        share = 1 - np.array([[len(group)] for group in groups]) / len(videos)
        influence = share * (np.mean(without, axis=0) - without)
        squares += np.square(influence).sum(axis=0)
        cubes += (influence**3).sum(axis=0)
    with np.errstate(invalid="ignore"):  # a metric that never changes
        return np.nan_to_num(cubes / (6 * squares**1.5))


class Ranking:
    """Scores sorted once, measured under many weights of the videos.

    A round of the bootstrap is then a sum along the reals and one along the fakes, whatever is
    measured: the ROC curve is read off at places that do not change.

    Args:
        label: bool[n], True is fake.
        score: float64[n], higher is more fake.
        video: int64[n], to which video each row belongs, from 0.
        threshold: A score at or above it is called fake.
    """

    def __init__(self, label: np.ndarray, score: np.ndarray, video: np.ndarray, threshold: float):
        self.num_videos = int(video.max()) + 1
        self.is_fake = np.zeros(self.num_videos, bool)
        self.is_fake[video] = label
        real, fake = (np.flatnonzero(label == is_fake) for is_fake in (False, True))
        real, fake = (rows[np.argsort(-score[rows], kind="stable")] for rows in (real, fake))
        self._real, self._fake = video[real], video[fake]
        # Falling scores turned round, so that numpy finds places in rising ones.
        falling_real, falling_fake = -score[real], -score[fake]
        distinct = np.unique(falling_fake)
        # How many fakes, and reals, score above each distinct score of a fake, and at or above it.
        self._fakes_to = np.searchsorted(falling_fake, distinct, side="right")
        self._reals_above = np.searchsorted(falling_real, distinct, side="left")
        self._reals_to = np.searchsorted(falling_real, distinct, side="right")
        if np.array_equal(self._reals_above, self._reals_to):
            self._reals_above = None  # no fake ties with a real: half of the work
        self._called = tuple(
            int(np.searchsorted(rows, -threshold, side="right"))
            for rows in (falling_real, falling_fake)
        )
        self._corners = _find_corners(falling_real, falling_fake)

    def measure(self, times: np.ndarray) -> np.ndarray:
        """Measure, with every video counted so many times.

        With finitely many scores no threshold may give the two rates of the EER equal. The rule
        here: join the points of the ROC curve (one per distinct score) by straight lines and take
        the false positive rate where that line meets FPR = 1 - TPR. There is exactly one such
        point.

        Args:
            times: int64[v].

        Returns:
            float64[m], the metrics in the order of MEASURED; NaN for what is undefined.
        """
        fp, tp = _sum_along(times, self._real), _sum_along(times, self._fake)
        num_real, num_fake = int(fp[-1]), int(tp[-1])
        called_real, called_fake = (
            int(of[at]) for of, at in zip((fp, tp), self._called, strict=True)
        )
        tpr = called_fake / num_fake if num_fake else np.nan
        fpr = called_real / num_real if num_real else np.nan
        if not (num_real and num_fake):
            return np.array([*[np.nan] * 4, tpr, fpr, *[np.nan] * len(FPR_ALLOWED)])
        found = tp.take(self._fakes_to)
        real = fp.take(self._reals_to)
        new = np.diff(found, prepend=0)
        # Sums of whole numbers, exact far beyond any data set.
        above = real if self._reals_above is None else fp.take(self._reals_above)
        losses = new @ real + new @ above
        precision = found / np.maximum(found + real, 1)
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
            """Give the gap FPR - (1 - TPR), times both numbers and so whole, and the FP."""
            reals, fakes = (int(places[corner]) for places in self._corners)
            return int(fp[reals]) * num_fake + (int(tp[fakes]) - num_fake) * num_real, int(
                fp[reals]
            )

        # It rises along the curve from -1 to 1, so it is looked for by halves: most of a million
        # points need not be computed.
        low, high = 0, len(self._corners[0]) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if point(middle)[0] < 0 else (low, middle)
        (below, fp_below), (above, fp_above) = point(low), point(high)
        return (fp_below - below / (above - below) * (fp_above - fp_below)) / num_real

    def _tpr_at(self, fp: np.ndarray, tp: np.ndarray, allowed: float) -> float:
        # The tolerance: a product may fall just below a whole number.
        most = np.searchsorted(fp, int(allowed * fp[-1] + 1e-9), side="right") - 1
        corner = np.searchsorted(self._corners[0], most, side="right") - 1
        return float(tp[self._corners[1][corner]] / tp[-1])


def _find_corners(falling_real: np.ndarray, falling_fake: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find the points of the ROC curve: how many reals, and fakes, are at or above each score."""
    distinct = np.unique(np.concatenate([falling_real, falling_fake]))
    return tuple(
        np.append(0, np.searchsorted(rows, distinct, side="right"))
        for rows in (falling_real, falling_fake)
    )


def _sum_along(times: np.ndarray, video: np.ndarray) -> np.ndarray:
    """Sum up weights along a ranking; int64[n + 1], from 0."""
    total = np.zeros(len(video) + 1, np.int64)
    np.cumsum(times.take(video), out=total[1:])
    return total
