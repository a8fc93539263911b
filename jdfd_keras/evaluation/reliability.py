"""Reliability of scores: whether a score of 0.8 is fake in 80 % of the cases, at equal priors.

Takes labels and scores of faces or videos; independent of files.
"""

from dataclasses import dataclass

import numpy as np

from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.io.results import Result

BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: the share of fakes by score, at equal priors."""

    edges: np.ndarray  # float64[k + 1], edges of equal bins from 0 to 1
    count: np.ndarray  # int64[k], rows per bin
    mean_score: np.ndarray  # float64[k], NaN in an empty bin
    fake_share: np.ndarray  # float64[k], NaN in an empty bin
    # Expected calibration error: the weighted mean of |mean_score - fake_share|; None if a class is
    # absent.
    ece: float | None


@dataclass(frozen=True)
class CalibrationError(Result):
    """The expected calibration error of faces and of videos; None if a class is absent."""

    frame_ece: float | None
    video_ece: float | None


def balance_classes(label: np.ndarray, video: np.ndarray | None = None) -> np.ndarray:
    """Compute weights for equal priors: each class has the weight 0.5, as if half were fake.

    Args:
        label: bool[n], True is fake.
        video: int64[n], index of the row's video: each video of a class then has the same weight,
            and each row of a video.

    Returns:
        float64[n], with the sum 1 if both classes are present.

    Example:
        >>> balance_classes(np.array([False, True, True]))
        array([0.5 , 0.25, 0.25])
    """
    label = np.asarray(label, int)
    weight = np.ones(len(label)) if video is None else 1 / np.bincount(video)[video]
    total = np.bincount(label, weights=weight, minlength=2)
    return weight / (2 * total[label])


def measure_reliability(
    label: np.ndarray, score: np.ndarray, video: np.ndarray | None = None
) -> Reliability:
    """Compute the reliability diagram and the expected calibration error at equal priors.

    Real and fake rows have the same total weight, whatever their numbers: P(fake) has no meaning
    without a prior, and that of a dataset is arbitrary.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake) at equal priors, in [0, 1].
        video: int64[n], index of the row's video: each video of a class then has the same weight.

    Example:
        >>> round(measure_reliability(np.array([True, False]), np.array([0.9, 0.1])).ece, 3)
        0.1
    """
    label = np.asarray(label, bool)
    weight = balance_classes(label, video)
    edges = np.linspace(0, 1, BINS + 1)
    bin_of_row = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, BINS - 1)
    total = np.bincount(bin_of_row, weights=weight, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, an empty bin
        mean_score = np.bincount(bin_of_row, weights=weight * score, minlength=BINS) / total
        fake_share = np.bincount(bin_of_row, weights=weight * label, minlength=BINS) / total
    ece = np.nansum(total * np.abs(mean_score - fake_share)) / total.sum()
    has_both = label.any() and not label.all()
    count = np.bincount(bin_of_row, minlength=BINS)
    return Reliability(edges, count, mean_score, fake_share, float(ece) if has_both else None)


def measure_calibration_error(scores: Scores, aggregation: str = "mean") -> CalibrationError:
    """Compute the expected calibration error of faces and of videos.

    Example:
        >>> measure_calibration_error(
        ...     Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
        ... )
        CalibrationError(frame_ece=0.25, video_ece=0.25)
    """
    video = measure_reliability(scores.videos.label, score_videos(scores, aggregation))
    frame = measure_reliability(scores.label, scores.score, scores.video)
    return CalibrationError(frame_ece=frame.ece, video_ece=video.ece)
