"""DeLong's test: whether two detectors differ in AUC by more than chance, on the same videos.

`compare` takes labels and two columns of scores, `compare_scores` two tables of scores.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from jdfd_keras.evaluation.metrics import CONFIDENCE, Estimate
from jdfd_keras.evaluation.scores import Scores, Videos, score_videos
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result


@dataclass(frozen=True)
class Difference(Result):
    """The difference in AUC between two detectors."""

    auc: float  # AUC of the first detector
    other_auc: float  # AUC of the second
    difference: Estimate  # `auc - other_auc`
    z: float | None = None  # the difference in standard errors, unless these are 0 or undefined
    p: float | None = None  # two-sided p-value for equal AUCs


@dataclass(frozen=True)
class Comparison(Result):
    """Two detectors compared on the videos that both have scored."""

    compared_with: str
    num_videos: int
    only_first: tuple[str, ...]  # ids of videos
    only_second: tuple[str, ...]
    video: Difference | None  # by videos; None where one class is absent
    frame: Difference | None  # by faces; also None for tables of different faces


def compare(
    label: np.ndarray, score: np.ndarray, other: np.ndarray, video: np.ndarray | None = None
) -> Difference | None:
    """Test whether two detectors differ in AUC, on the same faces or videos.

    Faces of one video are not independent, so their contributions to the AUC are summed by video
    (Obuchowski). With one row per video that is DeLong's test.

    Args:
        label: bool[n], True is fake.
        score: float64[n], scores of the first detector; higher is more fake.
        other: float64[n], scores of the second for the same rows.
        video: int64[n], index of the row's video, from 0; one label per video. By default each
            row is a separate video.

    Returns:
        None where a class is absent. There is no interval where a class has only one video, or
        where nothing varies, such as when both separate the classes perfectly.

    Reference:
        DeLong, DeLong, Clarke-Pearson: "Comparing the areas under two or more correlated receiver
        operating characteristic curves", Biometrics 44 (1988). Obuchowski: "Nonparametric analysis
        of clustered ROC curve data", Biometrics 53 (1997).

    Example:
        >>> label = np.array([False, False, True, True])
        >>> result = compare(label, np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.8, 0.2, 0.9]))
        >>> result.auc, result.other_auc
        (1.0, 0.75)
    """
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        return None
    video = np.arange(len(label)) if video is None else np.asarray(video)
    placements = [_placements(label, np.asarray(one, np.float64)) for one in (score, other)]
    auc, other_auc = (float(placement[label].mean()) for placement in placements)
    covariance = np.zeros((2, 2))
    for rows in (label, ~label):
        owner = np.unique(video[rows], return_inverse=True)[1]
        count = np.bincount(owner)
        if len(count) < 2:
            covariance += np.nan
            continue
        centred = (placements[0][rows] - auc, placements[1][rows] - other_auc)
        sums = np.stack([np.bincount(owner, weights=column) for column in centred])
        covariance += len(count) / (len(count) - 1) * (sums @ sums.T) / rows.sum() ** 2
    difference = auc - other_auc
    # Rounding may leave a tiny variance where both have the same ranks.
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0))) if variance > 1e-18 else 0.0
    same_ranks = np.array_equal(rankdata(score), rankdata(other))
    if np.isnan(variance) or not (error or same_ranks):
        return Difference(auc, other_auc, Estimate(difference))
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    interval = Estimate(difference, difference - half, difference + half)
    if not error:
        return Difference(auc, other_auc, interval)
    z = difference / error
    return Difference(auc, other_auc, interval, z, float(2 * norm.sf(abs(z))))


def _placements(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return for each row the share of the other class on its correct side; ties count half."""
    rank = rankdata(score)
    placement = np.empty(len(score))
    for rows, others in ((label, ~label), (~label, label)):
        placement[rows] = (rank[rows] - rankdata(score[rows])) / others.sum()
    placement[~label] = 1 - placement[~label]
    return placement


def compare_scores(
    scores: Scores, other: Scores, aggregation: str = "mean", *, name: str = ""
) -> Comparison:
    """Compare two detectors on the videos that both have scored.

    Args:
        scores: Scores of the first detector.
        other: Scores of the second, with a video in common and the same labels.
        aggregation: How face scores are aggregated into a video score; see `score_videos`.
        name: Name of the second detector in the report.

    Example:
        >>> ours = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> theirs = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.6, 0.4])
        >>> compare_scores(ours, theirs).video.difference.value
        1.0
    """
    names, others = scores.videos.video_id, other.videos.video_id
    here, there = np.isin(names, others), np.isin(others, names)
    if not here.any():
        raise ValueError(
            f"Expected scores of the same videos to compare; got {len(names)} and {len(others)} "
            f"videos, none of them in both. One has {str(names[0])!r}, the other "
            f"{str(others[0])!r}: use the same video_id in both."
        )
    first, second = _sort(scores.select(here)), _sort(other.select(there))
    label = first.videos.label
    differs = label != second.videos.label
    if differs.any():
        raise ValueError(
            "Expected the same labels in both tables; they differ for "
            f"{str(first.videos.video_id[differs][0])!r} ({plural(int(differs.sum()), 'video')}). "
            "Write 1 for fake and 0 for real in both."
        )
    same_faces = all(
        np.array_equal(getattr(first, column), getattr(second, column))
        for column in ("video", "frame_index", "track_id")
    )
    return Comparison(
        compared_with=name,
        num_videos=len(label),
        only_first=tuple(names[~here].tolist()),
        only_second=tuple(others[~there].tolist()),
        video=compare(label, score_videos(first, aggregation), score_videos(second, aggregation)),
        frame=compare(first.label, first.score, second.score, first.video) if same_faces else None,
    )


def _sort(scores: Scores) -> Scores:
    """Sort videos by video_id, and faces by video, frame and track."""
    order = np.argsort(scores.videos.video_id)
    video = np.argsort(order)[scores.video]
    faces = np.lexsort((scores.track_id, scores.frame_index, video))
    videos = Videos(*(column[order] for column in vars(scores.videos).values()))
    columns = (scores.frame_index, scores.track_id, scores.score)
    return Scores(videos, video[faces], *(column[faces] for column in columns))
