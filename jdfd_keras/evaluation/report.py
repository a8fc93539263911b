"""Numbers to a report, as a dict with stable keys.

Takes scores, the protocol, the excluded videos and the error of the decoder; gives every number
that a reader is told. Knows nothing of models, data sets on disk or TensorFlow; how the page reads
is `page`'s.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jdfd_keras.data.videos import CLASSES, LABEL_NAMES
from jdfd_keras.evaluation.calibration import (
    VERDICTS,
    Calibration,
    measure_reliability,
    weigh_by_video,
)
from jdfd_keras.evaluation.groups import Excluded, measure_groups, part_all
from jdfd_keras.evaluation.metrics import check_threshold, measure_auc
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.options import EvaluateOptions

UNKNOWN = "not known here"
FEWEST_ROUNDS = 100
HARDEST_PER_CLASS = 6


def build_report(
    scores: Scores,
    *,
    threshold: float,
    options: EvaluateOptions,
    protocol: dict,
    excluded: Sequence[Excluded],
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
        `high`; null where undefined. `coverage`: how many videos have a score, of how many.
        `by_manipulation`: the three for each manipulation against all real videos; `by_data`,
        `by_split` and `by_compression`, where there are several of these: the same for each, with
        the others below it. `verdicts`, by label, where the threshold is the calibrated one, else
        null. `calibration`: the expected calibration error of both levels. `reconstruction`, null
        where it was not measured. `hardest`: the faces nearest to an error, or beyond. `excluded`
        and `protocol`.
    """
    videos = score_videos(scores, options.aggregation)
    frame = measure_reliability(scores.label, scores.score, weigh_by_video(scores))
    return {
        "protocol": {
            **protocol,
            "threshold": threshold,
            "aggregation": options.aggregation,
            "rounds": options.rounds,
            "intervals": f"95 %, BCa bootstrap over videos within each class, "
            f"{options.rounds} rounds, seed {options.seed}"
            if options.rounds
            else "none",
            "eer_rule": "FPR where the ROC curve, joined by straight lines, meets FPR = 1 - TPR",
        },
        **measure_groups(part_all(scores, excluded), threshold, options),
        "verdicts": _count_verdicts(scores.videos.label, videos, protocol, threshold),
        "calibration": {
            "frame_ece": frame.ece,
            "video_ece": measure_reliability(scores.videos.label, videos).ece,
        },
        "reconstruction": None
        if mean_face_mse is None or scores.reconstruction_error is None
        else {
            "mse": float(scores.reconstruction_error.mean()),
            "mean_face_mse": mean_face_mse,
            # How well the error alone tells fakes from reals.
            "frame_auc": measure_auc(scores.label, scores.reconstruction_error),
        },
        "hardest": [_describe_face(scores, face) for face in choose_errors(scores)],
        "excluded": [dataclasses.asdict(video) for video in excluded],
    }


def check_options(options: EvaluateOptions) -> None:
    """Refuse options of `evaluate` that are out of range.

    Raises:
        ValueError: If one is.
    """
    if options.threshold is not None:
        check_threshold(options.threshold)
    if options.batch_size < 1 or options.seed < 0:
        raise ValueError(
            f"Expected batch_size >= 1 and seed >= 0; got {options.batch_size} and "
            f"{options.seed}. Try the defaults."
        )
    if options.rounds != 0 and options.rounds < FEWEST_ROUNDS:
        raise ValueError(
            f"Expected {FEWEST_ROUNDS} rounds or more, or 0 for no intervals; got "
            f"{options.rounds}. Try the default, {EvaluateOptions.rounds}."
        )


def choose_threshold(options: EvaluateOptions, calibration: Calibration | None) -> float:
    """Take the threshold that was asked for, else the calibrated one, else 0.5."""
    if options.threshold is not None:
        return options.threshold
    return (calibration or Calibration()).threshold


def find_calibration(protocol: dict, threshold: float) -> Calibration | None:
    """Take the calibration of a protocol, where its threshold is the one that is used."""
    calibration = read_calibrated(protocol)
    return calibration if calibration and calibration.threshold == threshold else None


def read_calibrated(protocol: dict) -> Calibration | None:
    """Read the calibration of a protocol; None where there is none, or it is UNKNOWN."""
    told = protocol.get("calibration")
    return Calibration(**told) if isinstance(told, dict) else None


def choose_errors(scores: Scores) -> list[int]:
    """Choose the hardest errors: reals of the highest scores, fakes of the lowest.

    Args:
        scores: One row per face.

    Returns:
        Positions of faces, one of each video: real ones, then fakes, at most HARDEST_PER_CLASS of
        each, the worst first.
    """
    chosen = []
    for wanted in CLASSES.values():
        faces = np.flatnonzero(scores.label == wanted)
        worst = faces[np.argsort(scores.score[faces] * (1 if wanted else -1), kind="stable")]
        _, first = np.unique(scores.video[worst], return_index=True)
        chosen += worst[np.sort(first)[:HARDEST_PER_CLASS]].tolist()
    return chosen


def _describe_face(scores: Scores, face: int) -> dict:
    video = int(scores.video[face])
    return {
        "data": str(scores.videos.data[video]),
        "video_id": str(scores.videos.video_id[video]),
        "frame_index": int(scores.frame_index[face]),
        "track_id": int(scores.track_id[face]),
        "label": LABEL_NAMES[int(scores.videos.label[video])],
        "score": float(scores.score[face]),
    }


def _count_verdicts(
    label: np.ndarray, videos: np.ndarray, protocol: dict, threshold: float
) -> dict | None:
    calibration = find_calibration(protocol, threshold)
    if calibration is None:
        return None
    counts = {name: dict.fromkeys(VERDICTS, 0) for name in CLASSES}
    for is_fake, score in zip(label, videos, strict=True):
        counts[LABEL_NAMES[int(is_fake)]][calibration.judge(score)] += 1
    return counts
