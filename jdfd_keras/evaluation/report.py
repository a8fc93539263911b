"""Every number of one evaluation, as a typed `Report`.

`build_report` takes a table of scores, its protocol and the excluded videos; it measures all of
them, and each stratum: dataset, split, compression and manipulation. Independent of models,
datasets on disk and TensorFlow; `reporting` converts a report to pages and figures.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES
from jdfd_keras.evaluation.calibrate import (
    CalibrationError,
    count_verdicts,
    measure_calibration_error,
)
from jdfd_keras.evaluation.delong import Comparison
from jdfd_keras.evaluation.eval_data import Excluded, FaceExamples, Protocol
from jdfd_keras.evaluation.metrics import Metrics, measure, measure_auc
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.io.console import Progress
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions

HARDEST_PER_CLASS = 6


@dataclass(frozen=True)
class Coverage(Result):
    """Number of videos with a score.

    Attributes:
        num_faces: Scored faces.
        num_scored: Videos with a score.
        num_videos: All videos.
        share: `num_scored / num_videos`.
    """

    num_faces: int
    num_scored: int
    num_videos: int
    share: float


@dataclass(frozen=True, kw_only=True)
class StratumMetrics(Result):
    """The metrics of some of the videos, and of smaller strata of these by value.

    Attributes:
        frame: Metrics by faces.
        video: Metrics by videos.
        coverage: Number of the videos with a score.
        by_data: Strata by dataset; empty unless there are several. So are the next two.
        by_split: Strata by split.
        by_compression: Strata by compression.
        by_manipulation: Each manipulation against all real videos; empty without fakes.
    """

    frame: Metrics
    video: Metrics
    coverage: Coverage
    by_data: dict[str, "StratumMetrics"] = field(default_factory=dict)
    by_split: dict[str, "StratumMetrics"] = field(default_factory=dict)
    by_compression: dict[str, "StratumMetrics"] = field(default_factory=dict)
    by_manipulation: dict[str, "StratumMetrics"] = field(default_factory=dict)


@dataclass(frozen=True)
class ReconstructionError(Result):
    """The error of the decoder.

    Attributes:
        mse: Mean squared error, pixels in -1..1.
        mean_face_mse: The same if every reconstruction were the mean face.
        frame_auc: AUC of the error as the only score; None if one class is absent.
    """

    mse: float
    mean_face_mse: float
    frame_auc: float | None


@dataclass(frozen=True)
class HardFace(Result):
    """A face with one of the most misleading scores; `label` is `real` or `fake`."""

    data: str
    video_id: str
    frame_index: int
    track_id: int
    label: str
    score: float


def _not_json() -> Any:
    return field(default=None, repr=False, compare=False, metadata={"json": False})


@dataclass(frozen=True, kw_only=True)
class Report(StratumMetrics):
    """Every number of one evaluation; report.json holds all but the last three fields.

    Attributes:
        protocol: Model, data and settings of the evaluation.
        verdicts: Number of videos by label and verdict, if the calibrated threshold is in use.
        calibration: Expected calibration error.
        reconstruction: Error of the decoder; None where it was not measured.
        hardest: Real faces with the highest scores and fake faces with the lowest, one per video.
        excluded: Videos without a score.
        comparison: Comparison with another detector; None if there was none.
        scores: The table of scores.
        examples: Some faces of each class; None for scores without a model.
        errors: The faces of `hardest`, in the same order; None for scores without a model.
    """

    protocol: Protocol
    verdicts: dict[str, dict[str, int]] | None
    calibration: CalibrationError
    reconstruction: ReconstructionError | None
    hardest: tuple[HardFace, ...]
    excluded: tuple[Excluded, ...]
    comparison: Comparison | None = None
    scores: Scores | None = _not_json()
    examples: FaceExamples | None = _not_json()
    errors: FaceExamples | None = _not_json()


@dataclass(frozen=True)
class ScoresMetadata(Result):
    """Metadata of an evaluation in scores.parquet, from which a report can be built again.

    Attributes:
        protocol: Model, data and settings of the evaluation.
        excluded: Videos without a score.
        mean_face_mse: See `ReconstructionError`; None where it was not measured.
        digest: `digest_scores` of the table that this belongs to.
    """

    protocol: Protocol
    excluded: tuple[Excluded, ...]
    mean_face_mse: float | None
    digest: str


@dataclass(frozen=True, eq=False)
class Stratum:
    """Some of the scores, the videos that lack one, and smaller strata by `by_<group>`."""

    scores: Scores
    excluded: Sequence[Excluded]
    strata: dict[str, dict[str, "Stratum"]]


def build_report(
    scores: Scores,
    *,
    threshold: float = 0.5,
    options: EvaluateOptions | None = None,
    protocol: Protocol,
    excluded: Sequence[Excluded] = (),
    mean_face_mse: float | None = None,
) -> Report:
    """Compute every number of one evaluation.

    Args:
        scores: One row per face.
        threshold: A score at or above it is called fake.
        options: Aggregation, resamples and seed of the bootstrap.
        protocol: Model and data of the evaluation; the settings of the metrics are filled in
            here.
        excluded: Videos without a score.
        mean_face_mse: As `predict_dataset` returns it, where reconstructions were measured.

    Raises:
        ValueError: If the threshold or the aggregation is out of range.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> protocol = Protocol(model="run", data={}, leakage="not checked")
        >>> build_report(
        ...     scores, protocol=protocol, options=EvaluateOptions(n_resamples=0)
        ... ).video.auc.value
        1.0
    """
    options = options or EvaluateOptions()
    videos = score_videos(scores, options.aggregation)
    protocol = dataclasses.replace(
        protocol,
        threshold=threshold,
        aggregation=options.aggregation,
        n_resamples=options.n_resamples,
        intervals=f"95 %, BCa bootstrap over videos within each class, {options.n_resamples} "
        f"resamples, seed {options.seed}"
        if options.n_resamples
        else "none",
    )
    metrics = measure_strata(stratify(scores, excluded), threshold, options)
    calibration, reconstruction = protocol.used_calibration, None
    if mean_face_mse is not None and scores.reconstruction_error is not None:
        reconstruction = ReconstructionError(
            mse=float(scores.reconstruction_error.mean()),
            mean_face_mse=mean_face_mse,
            frame_auc=measure_auc(scores.label, scores.reconstruction_error),
        )
    return Report(
        **vars(metrics),
        protocol=protocol,
        verdicts=count_verdicts(scores.videos.label, videos, calibration) if calibration else None,
        calibration=measure_calibration_error(scores, options.aggregation),
        reconstruction=reconstruction,
        hardest=tuple(_describe_face(scores, face) for face in choose_errors(scores)),
        excluded=tuple(excluded),
        scores=scores,
    )


def stratify(
    scores: Scores, excluded: Sequence[Excluded], names: Sequence[str] = GROUPS
) -> Stratum:
    """Split scores by the properties of their videos.

    Args:
        scores: One row per face.
        excluded: Videos without a score.
        names: Groups to split by: the last ones of GROUPS, which ends with manipulation.

    Returns:
        All scores. Their strata are the manipulations, each with all real videos; and the other
        groups that have several values, each split by the `names` after it. Values are sorted;
        `""` is unknown.
    """
    strata = {}
    for position, name in enumerate(names, start=1):
        by_value = _split_by(scores, excluded, name)
        if name == "manipulation" or len(by_value) > 1:
            strata[f"by_{name}"] = {
                value: stratify(*stratum, names[position:]) for value, stratum in by_value.items()
            }
    return Stratum(scores, excluded, strata)


def _split_by(
    scores: Scores, excluded: Sequence[Excluded], name: str
) -> dict[str, tuple[Scores, list[Excluded]]]:
    column, label = getattr(scores.videos, name), scores.videos.label
    is_manipulation = name == "manipulation"
    values = set((column[label] if is_manipulation else column).tolist())
    # A value without any scored video is a stratum as well: its coverage is 0.
    values |= {getattr(v, name) for v in excluded if v.is_fake or not is_manipulation}
    strata = {}
    for value in sorted(values):
        kept = (column == value) | (~label & is_manipulation)
        without_score = [
            video
            for video in excluded
            if getattr(video, name) == value or (is_manipulation and not video.is_fake)
        ]
        strata[value] = scores.select(kept), without_score
    return strata


def measure_strata(whole: Stratum, threshold: float, options: EvaluateOptions) -> StratumMetrics:
    """Measure faces and videos of a stratum and of all strata below it.

    Args:
        whole: As `stratify` returns it.
        threshold: A score at or above it is called fake.
        options: Aggregation, resamples and seed of the bootstrap.
    """
    settings = {"threshold": threshold, "n_resamples": options.n_resamples, "seed": options.seed}
    distinct = {id(stratum.scores): stratum.scores for stratum in _walk(whole)}
    measured = {}  # a single manipulation has the scores of the whole
    progress = Progress("measuring", len(distinct), "groups")
    try:
        for key, scores in distinct.items():
            videos = score_videos(scores, options.aggregation) if len(scores) else scores.score
            measured[key] = {
                "frame": measure(scores.label, scores.score, video=scores.video, **settings),
                "video": measure(scores.videos.label, videos, **settings),
            }
            progress.advance()
    finally:
        progress.close()

    def collect(stratum: Stratum) -> StratumMetrics:
        below = {
            name: {value: collect(smaller) for value, smaller in strata.items()}
            for name, strata in stratum.strata.items()
        }
        return StratumMetrics(**measured[id(stratum.scores)], coverage=_cover(stratum), **below)

    return collect(whole)


def _walk(stratum: Stratum) -> Iterator[Stratum]:
    yield stratum
    for strata in stratum.strata.values():
        for smaller in strata.values():
            yield from _walk(smaller)


def _cover(stratum: Stratum) -> Coverage:
    num_scored = len(stratum.scores.videos)
    num_videos = num_scored + len(stratum.excluded)
    return Coverage(len(stratum.scores), num_scored, num_videos, num_scored / num_videos)


def choose_errors(scores: Scores) -> list[int]:
    """Choose the hardest faces: real ones with the highest scores, fake ones with the lowest.

    Args:
        scores: One row per face.

    Returns:
        Rows of faces, one per video: first real, then fake, at most HARDEST_PER_CLASS of each, the
        worst first.
    """
    chosen = []
    for label in CLASSES.values():
        faces = np.flatnonzero(scores.label == label)
        worst = faces[np.argsort(scores.score[faces] * (1 if label else -1), kind="stable")]
        _, first = np.unique(scores.video[worst], return_index=True)
        chosen += worst[np.sort(first)[:HARDEST_PER_CLASS]].tolist()
    return chosen


def _describe_face(scores: Scores, face: int) -> HardFace:
    video = int(scores.video[face])
    return HardFace(
        data=str(scores.videos.data[video]),
        video_id=str(scores.videos.video_id[video]),
        frame_index=int(scores.frame_index[face]),
        track_id=int(scores.track_id[face]),
        label=LABEL_NAMES[int(scores.videos.label[video])],
        score=float(scores.score[face]),
    )
