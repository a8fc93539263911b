"""Scores parted by what is known of their videos, and every part measured.

Takes scores and the videos without one; gives the numbers of each data set, split, compression and
manipulation. Knows nothing of files, models or TensorFlow.

Numbers to a report, as a dict with stable keys.

Takes scores, the protocol, the excluded videos and the error of the decoder; gives every number
that a reader is told. Knows nothing of models, data sets on disk or TensorFlow; how the page reads
is `page`'s.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.client.metadata import VERDICTS, Calibration, check_threshold
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES
from jdfd_keras.evaluation.eval_data import Excluded
from jdfd_keras.evaluation.metrics import MEASURED, Metrics, measure, measure_auc
from jdfd_keras.evaluation.reliability import measure_reliability, weigh_by_video
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.io.console import Progress
from jdfd_keras.options import EvaluateOptions


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the scores, the videos that lack one, and under `by_...` smaller groups of these."""

    scores: Scores
    excluded: Sequence[Excluded]
    parts: dict[str, dict[str, "Group"]]


def part_all(scores: Scores, excluded: Sequence[Excluded], names: Sequence[str] = GROUPS) -> Group:
    """Part scores by all that is known of their videos.

    Args:
        scores: One row per face.
        excluded: Videos without a score.
        names: By what, of GROUPS; manipulation is the last.

    Returns:
        The whole. Its parts are by manipulation, each with all the reals; and, where there are
        several, by the others, each parted by what follows in `names`. Values are sorted; `""`
        is that of videos of which it is not known.
    """
    parts = {}
    for position, name in enumerate(names, start=1):
        found = _part(scores, excluded, name)
        if name == "manipulation" or len(found) > 1:
            parts[f"by_{name}"] = {
                value: part_all(*part, names[position:]) for value, part in found.items()
            }
    return Group(scores, excluded, parts)


def _part(scores: Scores, excluded: Sequence[Excluded], name: str) -> dict[str, tuple]:
    column, label = getattr(scores.videos, name), scores.videos.label
    is_manipulation = name == "manipulation"
    values = set((column[label] if is_manipulation else column).tolist())
    # Those of which no video has a score are a group too: of nothing but what is lacking.
    values |= {getattr(v, name) for v in excluded if v.is_fake or not is_manipulation}
    found = {}
    for value in sorted(values):
        kept = (column == value) | (~label & is_manipulation)
        lacking = [
            video
            for video in excluded
            if getattr(video, name) == value or (is_manipulation and not video.is_fake)
        ]
        found[value] = scores.select(kept), lacking
    return found


def measure_groups(whole: Group, threshold: float, options: EvaluateOptions) -> dict:
    """Measure faces and videos of a group and of all its parts.

    Args:
        whole: What `part_all` gave.
        threshold: A score at or above it is called fake.
        options: How a video's score is made, rounds and seed of the bootstrap.

    Returns:
        `frame`, `video`, `coverage`, and the parts as dicts of the same kind; ready for JSON.
    """
    settings = {"threshold": threshold, "rounds": options.rounds, "seed": options.seed}
    distinct = {id(group.scores): group.scores for group in _walk(whole)}
    measured = {}  # one manipulation alone is the whole
    progress = Progress("measuring", len(distinct), "groups")
    try:
        for key, scores in distinct.items():
            videos = score_videos(scores, options.aggregation) if len(scores) else scores.score
            frame = measure(scores.label, scores.score, video=scores.video, **settings)
            video = measure(scores.videos.label, videos, **settings)
            measured[key] = {"frame": _block(frame), "video": _block(video)}
            progress.advance()
    finally:
        progress.close()

    def collect(group: Group) -> dict:
        parts = {
            name: {value: collect(part) for value, part in of.items()}
            for name, of in group.parts.items()
        }
        return measured[id(group.scores)] | {"coverage": _cover(group)} | parts

    return collect(whole)


def _walk(group: Group) -> Iterator[Group]:
    yield group
    for parts in group.parts.values():
        for part in parts.values():
            yield from _walk(part)


def _block(metrics: Metrics) -> dict:
    values = {name: getattr(metrics, name)._asdict() for name in MEASURED}
    return {"num_real": metrics.num_real, "num_fake": metrics.num_fake, **values}


def _cover(group: Group) -> dict:
    num_scored = len(group.scores.videos)
    num_videos = num_scored + len(group.excluded)
    return {
        "num_faces": len(group.scores),
        "num_scored": num_scored,
        "num_videos": num_videos,
        "share": num_scored / num_videos,
    }


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
