"""Numbers to a report, as a dict with stable keys.

Takes scores, the protocol, the excluded videos and the error of the decoder; gives every number
that a reader is told. Knows nothing of models, data sets on disk or TensorFlow; how the page reads
is `page`'s.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from jdfd_keras.evaluation.calibration import (
    Calibration,
    measure_reliability,
    weigh_by_video,
)
from jdfd_keras.evaluation.delong import Difference, compare
from jdfd_keras.evaluation.metrics import MEASURED, check_threshold, measure
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.progress import Progress


@dataclass(frozen=True)
class Excluded:
    """A video without a score."""

    data: str
    video_id: str
    is_fake: bool
    reason: str


def build_report(
    scores: Scores,
    *,
    threshold: float,
    options: EvaluateOptions,
    protocol: dict,
    excluded: list[Excluded],
    mean_face_mse: float | None = None,
) -> dict:
    """Put every number of one evaluation together.

    Args:
        scores: One row per face.
        threshold: A score at or above it is called fake.
        options: How a video's score is made, rounds and seed of the bootstrap.
        protocol: What was done, JSON-ready; how it was measured is added here.
        excluded: Videos that gave no score.
        mean_face_mse: As `score_dataset` gives it, where reconstructions were measured.

    Returns:
        A dict ready for JSON. `frame` and `video`: `num_real`, `num_fake` and one object per
        metric of MEASURED with its `value` and the bounds of its 95 % interval, `low` and
        `high`; null where undefined. `by_manipulation`: the two blocks for each manipulation
        against all real videos; `by_data`, `by_split` and `by_compression`, where there are
        several of these: the same for each, with the others below it. `coverage`: how many
        videos have a score, of how many. `calibration`: the expected calibration error of both
        levels. `reconstruction`, null where it was not measured. `excluded` and `protocol`.
    """
    num_scored = len(scores.videos)
    videos = score_videos(scores, options.aggregation)
    return {
        "protocol": {
            **protocol,
            "threshold": threshold,
            "aggregation": options.aggregation,
            "rounds": options.rounds,
            "intervals": f"95 %, BCa bootstrap over videos within each class, "
            f"{options.rounds} rounds, seed {options.seed}",
            "eer_rule": "FPR where the ROC curve, joined by straight lines, meets FPR = 1 - TPR",
        },
        **_measure_groups(_part_all(scores), threshold, options),
        "coverage": {
            "num_faces": len(scores),
            "num_scored": num_scored,
            "num_videos": num_scored + len(excluded),
            "share": num_scored / (num_scored + len(excluded)),
        },
        "calibration": {
            "frame_ece": measure_reliability(
                scores.label, scores.score, weigh_by_video(scores)
            ).ece,
            "video_ece": measure_reliability(scores.videos.label, videos).ece,
        },
        "reconstruction": None
        if mean_face_mse is None
        else _measure_reconstruction(scores, mean_face_mse),
        "excluded": [dataclasses.asdict(video) for video in excluded],
    }


def check_options(options: EvaluateOptions) -> None:
    """Refuse options of `evaluate` that are out of range.

    Raises:
        ValueError: If one is.
    """
    if options.threshold is not None:
        check_threshold(options.threshold)
    if options.batch_size < 1 or options.rounds < 0:
        raise ValueError(
            f"Expected batch_size >= 1 and rounds >= 0; got {options.batch_size} and "
            f"{options.rounds}. Try the defaults."
        )


def choose_threshold(options: EvaluateOptions, calibration: Calibration | None) -> float:
    """Take the threshold that was asked for, else the calibrated one, else 0.5."""
    if options.threshold is not None:
        return options.threshold
    return (calibration or Calibration()).threshold


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


def _block(metrics) -> dict:
    values = {name: getattr(metrics, name)._asdict() for name in MEASURED}
    return {"num_real": metrics.num_real, "num_fake": metrics.num_fake, **values}


def _part_all(scores: Scores, names: tuple[str, ...] = GROUPS) -> dict:
    """Part scores by what is known of their videos: `scores`, and under `by_...` more of these."""
    parted = {"scores": scores}
    for position, name in enumerate(names, start=1):
        parts = _part(scores, name)
        if name == "manipulation" or len(parts) > 1:
            parted[f"by_{name}"] = {
                value or "unnamed": _part_all(part, names[position:])
                for value, part in parts.items()
            }
    return parted


def _part(scores: Scores, name: str) -> dict[str, Scores]:
    """Part scores by one thing, sorted; manipulations each with all the reals."""
    column, label = getattr(scores.videos, name), scores.videos.label
    if name == "manipulation":
        return {
            value: scores.select(~label | (column == value))
            for value in np.unique(column[label]).tolist()
        }
    return {value: scores.select(column == value) for value in np.unique(column).tolist()}


def _measure_groups(parted: dict, threshold: float, options: EvaluateOptions) -> dict:
    """Measure faces and videos of every group that `_part_all` made."""
    settings = {"threshold": threshold, "rounds": options.rounds, "seed": options.seed}
    groups = {id(group): group for group in _walk(parted)}  # one manipulation alone is the whole
    measured = {}
    progress = Progress("measuring", len(groups), "groups")
    try:
        for key, group in groups.items():
            videos = score_videos(group, options.aggregation)
            frame = measure(group.label, group.score, video=group.video, **settings)
            video = measure(group.videos.label, videos, **settings)
            measured[key] = {"frame": _block(frame), "video": _block(video)}
            progress.advance()
    finally:
        progress.close()

    def collect(parted: dict) -> dict:
        found = dict(measured[id(parted["scores"])])
        for name, parts in parted.items():
            if name != "scores":
                found[name] = {value: collect(part) for value, part in parts.items()}
        return found

    return collect(parted)


def _walk(parted: dict) -> Iterator[Scores]:
    yield parted["scores"]
    for name, parts in parted.items():
        if name != "scores":
            for part in parts.values():
                yield from _walk(part)


def _measure_reconstruction(scores: Scores, mean_face_mse: float) -> dict:
    error, label = scores.reconstruction_error, scores.label
    has_both = label.any() and not label.all()
    return {
        "mse": float(error.mean()),
        "mean_face_mse": mean_face_mse,
        # How well the error alone tells fakes from reals.
        "frame_auc": float(roc_auc_score(label, error)) if has_both else None,
    }


def _sort(scores: Scores) -> Scores:
    """Put videos in the order of their names, and faces in that of their videos and frames."""
    order = np.argsort(scores.videos.video_id)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    video = place[scores.video]
    faces = np.lexsort((scores.track_id, scores.frame_index, video))
    videos = type(scores.videos)(*(column[order] for column in vars(scores.videos).values()))
    columns = (scores.frame_index, scores.track_id, scores.score)
    return Scores(videos, video[faces], *(column[faces] for column in columns))


def _plain(difference: Difference | None) -> dict | None:
    if difference is None:
        return None
    return vars(difference) | {"difference": difference.difference._asdict()}
