"""Every number of one evaluation, as a typed `Report`, and its files.

    <folder>/report.json       every number of a report
    <folder>/scores.parquet    one row per face, from which the report can be computed again

`build_report` measures a table of scores and each stratum of it: dataset, split, compression and
manipulation. Imports no TensorFlow; `reporting` converts a report to pages and figures.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.datasets.auc_interval import find_auc_interval
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.calibrate import count_verdicts
from jdfd_keras.evaluation.calibration_fit import compute_log10_lr
from jdfd_keras.evaluation.delong import Comparison
from jdfd_keras.evaluation.eval_data import Excluded, Protocol
from jdfd_keras.evaluation.frame_counts import FrameCountAuc, measure_frame_counts
from jdfd_keras.evaluation.likelihood_cost import LikelihoodCost, measure_likelihood_cost
from jdfd_keras.evaluation.metrics import Metrics, measure, measure_auc
from jdfd_keras.evaluation.reliability import CalibrationError, measure_calibration_error
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.evaluation.scores_file import write_scores
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import FORMAT_VERSION, load_groups, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions

REPORT = "report.json"
SCORES = "scores.parquet"
HARDEST_PER_CLASS = 6
INTERVALS = (
    "95 %: exact (Clopper-Pearson) for shares of videos; else BCa bootstrap over videos within "
    "each class, {0.n_resamples} resamples, seed {0.seed}, and where no resample differs, or an "
    "AUC is that close to 1, from the numbers of videos (for AUC: Newcombe 2006, method 5)"
)


@dataclass(frozen=True)
class Coverage(Result):
    """Number of scored faces, of videos with a score, and of all videos; and the share of these."""

    num_faces: int
    num_scored: int
    num_videos: int
    share: float


@dataclass(frozen=True, kw_only=True)
class StratumMetrics(Result):
    """The metrics of some of the videos, and of smaller strata of these by value.

    Strata by dataset, split and compression are empty unless there are several. In a stratum by
    manipulation are its fakes and all real videos.
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
    """The error of the decoder."""

    mse: float  # mean squared error, pixels in -1..1
    mean_face_mse: float  # the same if every reconstruction were the mean face
    frame_auc: float | None  # AUC of the error as the only score; None if one class is absent


@dataclass(frozen=True)
class HardFace(Result):
    """The most misleading face of a misjudged video; `label` is `real` or `fake`."""

    data: str
    video_id: str
    frame_index: int
    track_id: int
    label: str
    score: float
    video_score: float


@dataclass(frozen=True, eq=False)
class FaceExamples:
    """Some faces with their explanations, for figures."""

    label: np.ndarray  # bool[n], True is fake
    score: np.ndarray  # float64[n], P(fake)
    image: np.ndarray  # uint8[n, size, size, 3] RGB
    cam: np.ndarray  # float32[n, size, size], class-activation maps, at least 0, in one unit
    reconstruction: np.ndarray | None  # float32[n, size, size, 3] in -1..1; None without a decoder
    residual: np.ndarray | None  # float32[n, size, size], mean |face - reconstruction|

    def __getitem__(self, rows: slice) -> "FaceExamples":
        columns: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in vars(self).items()
        }
        return FaceExamples(**columns)


def _not_json() -> Any:
    return field(default=None, repr=False, compare=False, metadata={"json": False})


@dataclass(frozen=True, kw_only=True)
class Report(StratumMetrics):
    """Every number of one evaluation; report.json holds all but the last three fields."""

    protocol: Protocol
    # Number of videos by label and verdict, if the calibrated threshold is in use.
    verdicts: dict[str, dict[str, int]] | None
    calibration: CalibrationError
    # Video AUC by the number of frames; empty if every video has one, or one class is absent.
    frame_counts: tuple[FrameCountAuc, ...] = ()
    # Cost of the likelihood ratios of the files, from all of their tracks; None if the calibration
    # states none.
    likelihood: LikelihoodCost | None = None
    reconstruction: ReconstructionError | None  # None where it was not measured
    # Of real videos called fake, and of fake ones that are not: at most 6 each, the worst first.
    hardest: tuple[HardFace, ...]
    excluded: tuple[Excluded, ...]
    comparison: Comparison | None = None
    scores: Scores | None = _not_json()
    examples: FaceExamples | None = _not_json()  # some faces of each class; only of a model
    errors: FaceExamples | None = _not_json()  # the faces of `hardest`, if any; only of a model

    @property
    def num_errors(self) -> dict[str, int]:
        """Number of real videos that are called fake, and of fake ones that are not."""
        video = self.video
        num_found = round((video.tpr.value or 0) * video.num_fake)
        num_real = round((video.fpr.value or 0) * video.num_real)
        return {"real": num_real, "fake": video.num_fake - num_found}

    @property
    def no_maps(self) -> str:
        """Why class-activation maps would explain nothing; "" if the detector beats chance."""
        auc, calibration = self.video.auc, self.protocol.calibration
        if auc.value is None:
            is_known = calibration is not None and calibration.is_better_than_chance
            return "" if is_known else "one class is absent, so that its AUC is unknown"
        low, high = auc.low, auc.high
        if low is None or high is None:
            low, high = find_auc_interval(auc.value, self.video.num_real, self.video.num_fake)
        if low > 0.5:
            return ""
        return f"its video AUC of {auc.value:.3f} [{low:.3f}, {high:.3f}] may be that of chance"


@dataclass(frozen=True)
class ScoresMetadata(Result):
    """Metadata of scores.parquet, from which the report can be built again."""

    protocol: Protocol
    excluded: tuple[Excluded, ...] = ()
    mean_face_mse: float | None = None  # as in `ReconstructionError`, where it was measured


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
        protocol: Model and data of the evaluation; the settings of the metrics are filled in.
        excluded: Videos without a score.
        mean_face_mse: As `predict_dataset` returns it, where reconstructions were measured.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> protocol = Protocol(model="run", data={}, leakage="not checked")
        >>> options = EvaluateOptions(n_resamples=0)
        >>> build_report(scores, protocol=protocol, options=options).video.auc.value
        1.0
    """
    options = options or EvaluateOptions()
    protocol = dataclasses.replace(
        protocol,
        threshold=threshold,
        aggregation=options.aggregation,
        n_resamples=options.n_resamples,
        intervals=INTERVALS.format(options) if options.n_resamples else "none",
    )
    used, reconstruction = protocol.used_calibration, None
    videos = score_videos(scores, options.aggregation)
    if mean_face_mse is not None and scores.reconstruction_error is not None:
        reconstruction = ReconstructionError(
            mse=float(scores.reconstruction_error.mean()),
            mean_face_mse=mean_face_mse,
            frame_auc=measure_auc(scores.label, scores.reconstruction_error),
        )
    return Report(
        **vars(_measure_strata(scores, excluded, threshold, options)),
        protocol=protocol,
        verdicts=count_verdicts(scores, used, options.aggregation) if used else None,
        calibration=measure_calibration_error(scores, options.aggregation),
        frame_counts=measure_frame_counts(
            scores, options.aggregation, n_resamples=options.n_resamples, seed=options.seed
        ),
        likelihood=_measure_likelihood(scores, protocol.calibration, options),
        reconstruction=reconstruction,
        hardest=_describe_faces(scores, choose_errors(scores, videos, threshold), videos),
        excluded=tuple(excluded),
        scores=scores,
    )


def _measure_likelihood(
    scores: Scores, calibration: Calibration | None, options: EvaluateOptions
) -> LikelihoodCost | None:
    if calibration is None or not calibration.has_validation:
        return None
    fitted = calibration.lr_offset, calibration.lr_slope
    log10_lr = compute_log10_lr(scores, *fitted, calibration.log10_lr_limits)
    settings = {"n_resamples": options.n_resamples, "seed": options.seed}
    return measure_likelihood_cost(scores.videos.label, log10_lr, **settings)


def _measure_strata(
    scores: Scores, excluded: Sequence[Excluded], threshold: float, options: EvaluateOptions
) -> StratumMetrics:
    """Measure faces and videos of a table and of all its strata."""
    settings = {"threshold": threshold, "n_resamples": options.n_resamples, "seed": options.seed}
    strata = list(_list_strata(scores, excluded))
    measured = {}  # by table: a single manipulation has the scores of the whole
    found: dict[tuple, StratumMetrics] = {}
    num_tables = len({id(table) for _, table, _ in strata})
    with contextlib.closing(Progress("measuring", num_tables, "groups")) as progress:
        for path, table, without_score in strata:
            if id(table) not in measured:
                videos = score_videos(table, options.aggregation) if len(table) else table.score
                measured[id(table)] = {
                    "frame": measure(table.label, table.score, video=table.video, **settings),
                    "video": measure(table.videos.label, videos, **settings),
                }
                progress.advance()
            scored, num_videos = len(table.videos), len(table.videos) + len(without_score)
            coverage = Coverage(len(table), scored, num_videos, scored / num_videos)
            found[path] = StratumMetrics(**measured[id(table)], coverage=coverage)
            if path:
                *parent, (name, value) = path
                getattr(found[tuple(parent)], f"by_{name}")[value] = found[path]
    return found[()]


def _list_strata(
    scores: Scores, excluded: Sequence[Excluded], names: Sequence[str] = GROUPS, path: tuple = ()
) -> Iterator[tuple[tuple, Scores, Sequence[Excluded]]]:
    """Yield the whole and each stratum: its path, its scores and its videos without a score.

    Groups that have several values are split by these, and each stratum by the `names` after it.
    """
    yield path, scores, excluded
    label = scores.videos.label
    for position, name in enumerate(names, start=1):
        column, shared = getattr(scores.videos, name), name == "manipulation"
        values = set((column[label] if shared else column).tolist())
        # A value without any scored video is a stratum as well: its coverage is 0.
        values |= {getattr(video, name) for video in excluded if video.is_fake or not shared}
        for value in sorted(values) if shared or len(values) > 1 else ():
            without_score = [
                video
                for video in excluded
                if getattr(video, name) == value or (shared and not video.is_fake)
            ]
            kept = scores.select((column == value) | (~label & shared))
            yield from _list_strata(kept, without_score, names[position:], (*path, (name, value)))


def choose_errors(scores: Scores, videos: np.ndarray, threshold: float) -> list[int]:
    """Return the row of the most misleading face of each of the most misjudged videos.

    Of each class at most HARDEST_PER_CLASS: first real videos that are called fake, then fake ones
    that are not, the worst score of a video first.

    Args:
        scores: Scores of the faces.
        videos: float64[v], scores of the videos, as of `score_videos`.
        threshold: A score at or above it is called fake.

    Example:
        >>> scores = Scores.from_faces(
        ...     video_id=["r", "r", "s", "f"], label=[0, 0, 0, 1], score=[0.7, 0.9, 0.1, 0.6]
        ... )
        >>> choose_errors(scores, score_videos(scores), 0.5)
        [1]
    """
    chosen = []
    for label in CLASSES.values():
        sign = 1 if label else -1  # ascending: the worst first
        is_wrong = (scores.videos.label == label) & ((videos >= threshold) != label)
        wrong = np.flatnonzero(is_wrong)
        for video in wrong[np.argsort(sign * videos[wrong], kind="stable")][:HARDEST_PER_CLASS]:
            faces = np.flatnonzero(scores.video == video)
            chosen.append(int(faces[np.argmin(sign * scores.score[faces])]))
    return chosen


def _describe_faces(scores: Scores, faces: list[int], videos: np.ndarray) -> tuple[HardFace, ...]:
    owner = scores.video[faces]
    names = np.array(list(CLASSES))[scores.videos.label[owner].astype(int)]
    columns = (
        *(scores.videos.data[owner], scores.videos.video_id[owner]),
        *(scores.frame_index[faces], scores.track_id[faces]),
        *(names, scores.score[faces], videos[owner]),
    )
    return tuple(map(HardFace, *(column.tolist() for column in columns)))


def save_report(report: Report, folder: str | Path) -> None:
    """Write the scores and the numbers of a report, as scores.parquet and report.json.

    report.json is written last: where it exists, both are complete. The folder must exist.

    Example:
        >>> from jdfd_keras.evaluation.evaluate import evaluate
        >>> save_report(evaluate(scores="report/scores.parquet"), "report")
        >>> load_report("report").coverage.num_faces
        8
    """
    scores, reconstruction = check_has_scores(report), report.reconstruction
    error = reconstruction and reconstruction.mean_face_mse
    folder = Path(folder)
    (folder / REPORT).unlink(missing_ok=True)
    write_scores(folder / SCORES, scores, ScoresMetadata(report.protocol, report.excluded, error))
    values = {"format_version": FORMAT_VERSION} | report.to_dict()
    write_text_atomically(folder / REPORT, json.dumps(values, indent=2, allow_nan=False) + "\n")


def check_has_scores(report: Report) -> Scores:
    """Return the scores of a report, or raise if it was loaded from JSON, which omits them.

    Example:
        >>> check_has_scores(load_report("report"))
        Traceback (most recent call last):
        ValueError: Expected a report with its scores; got one that was loaded from report.json...
    """
    if report.scores is None:
        raise ValueError(
            f"Expected a report with its scores; got one that was loaded from {REPORT}. Evaluate "
            f"{SCORES} again."
        )
    return report.scores


def load_report(folder: str | Path) -> Report:
    """Load the report.json of a folder, without scores and faces.

    Example:
        >>> load_report("report").video.num_fake
        1
    """
    path = Path(folder) / REPORT
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder that `jdfd-keras evaluate` wrote; got {folder}, without {REPORT}. "
            "Give the --out of that command."
        )
    try:
        return Report.from_dict(load_groups(path))
    except ValueError as error:
        raise ValueError(
            f"Expected {path} as `jdfd-keras evaluate` writes it; got '{error}'. Evaluate again."
        ) from error
