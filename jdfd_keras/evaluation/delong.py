"""Two detectors on the same videos: is the difference of their AUC more than chance?

Takes the scores of both; gives the difference, its interval and p. Knows nothing of files.

Two tables of scores, compared on the videos that both have.

Takes Scores of both; gives how much they differ, ready for a report. The test itself is `delong`'s.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from jdfd_keras.evaluation.metrics import CONFIDENCE, Estimate
from jdfd_keras.evaluation.scores import Scores, Videos, score_videos


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


def compare_scores(scores: Scores, other: Scores, aggregation: str) -> dict:
    """Compare two detectors on the videos that both have scored.

    Args:
        scores: Of the first.
        other: Of the second.
        aggregation: How a video's score is made.

    Returns:
        A dict ready for JSON: `video` and `frame`, the fields of a Difference, null where it is
        undefined or, of frames, where both did not look at the same faces; `num_videos` compared;
        `only_first` and `only_second`, the videos that one of them lacks.

    Raises:
        ValueError: If they share no video, or disagree on what is fake.
    """
    names, others = scores.videos.video_id, other.videos.video_id
    here, there = np.isin(names, others), np.isin(others, names)
    if not here.any():
        raise ValueError(
            f"Expected scores of the same videos to compare; got {len(names)} and {len(others)} "
            f"videos, none of them in both. One has {str(names[0])!r}, the other "
            f"{str(others[0])!r}: give both the same video_id."
        )
    first, second = _sort(scores.select(here)), _sort(other.select(there))
    differs = first.videos.label != second.videos.label
    if differs.any():
        raise ValueError(
            "Expected both detectors' tables to agree on what is fake; they do not on "
            f"{str(first.videos.video_id[differs][0])!r} ({int(differs.sum())} videos). In both, "
            "1 must be fake."
        )
    label = first.videos.label
    video = compare(label, score_videos(first, aggregation), score_videos(second, aggregation))
    same_faces = len(first) == len(second) and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("video", "frame_index", "track_id")
    )
    frame = compare(first.label, first.score, second.score, first.video) if same_faces else None
    return {
        "num_videos": len(label),
        "only_first": names[~here].tolist(),
        "only_second": others[~there].tolist(),
        "video": _plain(video),
        "frame": _plain(frame),
    }


def _sort(scores: Scores) -> Scores:
    """Put videos in the order of their names, and faces in that of their videos and frames."""
    order = np.argsort(scores.videos.video_id)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    video = place[scores.video]
    faces = np.lexsort((scores.track_id, scores.frame_index, video))
    videos = Videos(*(column[order] for column in vars(scores.videos).values()))
    columns = (scores.frame_index, scores.track_id, scores.score)
    return Scores(videos, video[faces], *(column[faces] for column in columns))


def _plain(difference: Difference | None) -> dict | None:
    if difference is None:
        return None
    return vars(difference) | {"difference": difference.difference._asdict()}
