"""Evaluation data: the faces and videos of a split, and the protocol of the evaluation.

Reads the manifests of prepared datasets, and checks that none of their faces was used for
training. Reads no shards and imports no TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.client.metadata import Calibration, check_threshold
from jdfd_keras.datasets.leakage import COLUMNS, describe_leakage, find_leakage, raise_on_leakage
from jdfd_keras.datasets.manifest import VideoRow, read_faces, read_videos
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.options import (
    AugmentOptions,
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.training.run_folder import DataFacts, read_provenance

FACE_COLUMNS = ("frame_index", "track_id", "label", "manipulation", "compression", "split")
READ_COLUMNS = (*COLUMNS, *FACE_COLUMNS, "shard", "offset")


UNKNOWN = "unknown"
EER_RULE = "FPR where the ROC curve, joined by straight lines, meets FPR = 1 - TPR"
MIN_RESAMPLES = 100
# Below a run folder: the faces it was calibrated on, as training_faces.parquet lists the others.
CALIBRATION_FACES = "calibration/calibration_faces.parquet"


@dataclass(frozen=True)
class Excluded(Result):
    """A video without a score, and the reason."""

    data: str
    video_id: str
    is_fake: bool
    reason: str
    split: str = ""
    compression: str = ""
    manipulation: str = ""


@dataclass(frozen=True)
class DataProtocol(Result):
    """The options that an evaluated dataset was prepared with."""

    split: SplitOptions | None = None
    faces: FaceOptions | None = None
    filters: FilterOptions | None = None


@dataclass(frozen=True)
class TrainingProtocol(Result):
    """Data and options of the training of an evaluated model, by their group in its run folder."""

    data: DataFacts
    split: SplitOptions
    train: TrainOptions
    unlabelled: UnlabelledOptions
    augment: AugmentOptions


@dataclass(frozen=True, kw_only=True)
class Protocol(Result):
    """Model, data and settings of an evaluation, so that others can repeat it.

    Attributes:
        model: File or folder name of the model, or of the table of scores.
        checkpoint: How the weights were chosen.
        data: Options that each dataset was prepared with, by its name; None where unknown.
        leakage: A sentence on the leakage between training and evaluation.
        coverage: The videos that the coverage refers to; `UNKNOWN` for a table of scores.
        split: The evaluated split; None if unknown.
        model_digest: SHA-256 of the model file; "" for scores of an unknown model.
        training: Data and options of the training; None if unknown.
        training_faces: How the faces of the training were extracted; None if unknown.
        calibration: Calibration of the scores; None if they are not calibrated or, for scores of
            an unknown model, if that is unknown.
        repeated_rows: Rows with the video and score of another; without a frame_index, they may
            be the same face.
        versions: Versions of the software.
        threshold: A score at or above it is called fake.
        aggregation: How face scores are aggregated into a video score.
        n_resamples: Resamples of the bootstrap; 0 for no intervals.
        intervals: How intervals were computed.
        eer_rule: How the equal error rate is defined.
    """

    model: str
    checkpoint: str = UNKNOWN
    data: dict[str, DataProtocol | None]
    leakage: str
    coverage: str = UNKNOWN
    split: str | None = None
    model_digest: str = ""
    training: TrainingProtocol | None = None
    training_faces: FaceOptions | None = None
    calibration: Calibration | None = None
    repeated_rows: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    threshold: float = 0.5
    aggregation: str = "mean"
    n_resamples: int = 0
    intervals: str = "none"
    eer_rule: str = EER_RULE

    @property
    def used_calibration(self) -> Calibration | None:
        """The calibration, if its threshold is the one in use."""
        calibration = self.calibration
        return calibration if calibration and calibration.threshold == self.threshold else None


@dataclass(frozen=True, eq=False)
class EvalSet:
    """One split of a prepared dataset.

    Attributes:
        name: Name of the dataset in the report.
        directory: Folder of the dataset.
        rows: Labelled faces with the columns READ_COLUMNS, in the order of the manifest.
        videos: Labelled videos, with or without a face.
    """

    name: str
    directory: Path
    rows: pa.Table
    videos: list[VideoRow]


@dataclass(frozen=True, eq=False)
class FaceExamples:
    """Some faces with their explanations, for figures.

    Attributes:
        label: bool[n], True is fake.
        score: float64[n], P(fake).
        image: uint8[n, size, size, 3] RGB.
        cam: float32[n, size, size], class-activation maps in [0, 1].
        reconstruction: float32[n, size, size, 3], pixels in -1..1; None without a decoder.
        residual: float32[n, size, size], mean |face - reconstruction|; None without a decoder.
    """

    label: np.ndarray
    score: np.ndarray
    image: np.ndarray
    cam: np.ndarray
    reconstruction: np.ndarray | None
    residual: np.ndarray | None

    def __getitem__(self, rows: slice) -> "FaceExamples":
        columns = (getattr(self, column.name) for column in dataclasses.fields(self))
        return FaceExamples(*(None if column is None else column[rows] for column in columns))


def check_options(options: EvaluateOptions) -> None:
    """Check the options of `evaluate`.

    Raises:
        ValueError: If one is out of range.
    """
    if options.threshold is not None:
        check_threshold(options.threshold)
    if options.batch_size < 1 or options.seed < 0:
        raise ValueError(
            f"Expected batch_size >= 1 and seed >= 0; got {options.batch_size} and "
            f"{options.seed}. Try the defaults."
        )
    if options.n_resamples != 0 and options.n_resamples < MIN_RESAMPLES:
        raise ValueError(
            f"Expected n_resamples of {MIN_RESAMPLES} or more, or 0 for no intervals; got "
            f"{options.n_resamples}. Try the default, {EvaluateOptions.n_resamples}."
        )


def choose_threshold(options: EvaluateOptions, calibration: Calibration | None) -> float:
    """Return the threshold of the options, else the calibrated one, else 0.5."""
    if options.threshold is not None:
        return options.threshold
    return (calibration or Calibration()).threshold


def load_eval_sets(directories: Sequence[str | Path], split: str) -> list[EvalSet]:
    """Load one split of prepared datasets.

    Args:
        directories: Prepared datasets.
        split: `train`, `val` or `test`.

    Raises:
        OSError: If a folder is not a prepared dataset.
        ValueError: If no dataset is given, one is given twice, or its split has no faces.

    Example:
        >>> load_eval_sets(["ffpp", "celebdf"], "test")  # doctest: +SKIP
    """
    resolved = [Path(directory).resolve() for directory in directories]
    if not resolved or len(set(resolved)) < len(resolved):
        raise ValueError(
            "Expected prepared datasets, each once; got "
            f"{', '.join(map(str, directories)) or 'none'}. Give folders that `jdfd-keras prepare` "
            "wrote."
        )
    short = [path.name for path in resolved]
    names = short if len(set(short)) == len(short) else [str(path) for path in directories]
    return [_read(name, Path(d), split) for name, d in zip(names, directories, strict=True)]


def _read(name: str, directory: Path, split: str) -> EvalSet:
    rows = read_faces(directory, split=split, columns=READ_COLUMNS)
    rows = rows.filter(pc.not_equal(rows["label"], UNLABELLED))
    videos = [
        video
        for video in read_videos(directory)
        if video.label != UNLABELLED
        # With --split paper, which splits single faces, a video without faces has no split.
        and (video.split == split or (not video.split and not video.num_faces))
    ]
    if not len(rows):
        raise ValueError(
            f"Expected faces in the split {split!r} of {directory}; got none, and "
            f"{plural(len(videos), 'video')} without a face. Try another split, or "
            "prepare more videos."
        )
    return EvalSet(name, directory, rows, videos)


def check_leakage(
    model_path: str | Path, sets: Sequence[EvalSet], split: str, *, allow_leak: bool
) -> str:
    """Check that the model was not trained on the data that it is evaluated on.

    Args:
        model_path: Run folder or .keras file.
        sets: The datasets that it is evaluated on.
        split: Their split. Validation is compared with training only; other splits also with
            validation, on which the epoch was chosen, and with the faces of the calibration.
        allow_leak: Report leakage instead of raising.

    Returns:
        A sentence for the report.

    Raises:
        ValueError: If there is leakage and `allow_leak` is false.
    """
    provenance = read_provenance(model_path)
    if provenance is None:
        return "not checked: the training data of this model is unknown"
    if split == "val":
        provenance = provenance.filter(pc.equal(provenance["split"].cast(pa.string()), "train"))
    elif (
        load_calibration(model_path)
        and (calibrated := read_provenance(model_path, CALIBRATION_FACES)) is not None
    ):
        provenance = provenance.select(COLUMNS)
        provenance = pa.concat_tables(
            [provenance, calibrated.select(COLUMNS).cast(provenance.schema)]
        )
    rows = pa.concat_tables([one.rows.select(COLUMNS) for one in sets])
    leakage = find_leakage({"training": provenance, "evaluation": rows})
    if not allow_leak:
        raise_on_leakage(
            leakage,
            f"the {split} split of {', '.join(str(one.directory) for one in sets)} and the "
            f"data that {model_path} was trained or calibrated on",
            "Evaluate on other data, or use --allow-leak; the report then states the leakage.",
        )
    return describe_leakage(leakage, checked="training and evaluation")


def find_excluded(sets: Sequence[EvalSet], scores: Scores) -> list[Excluded]:
    """List the videos without a score in the order of the datasets, with the reasons."""
    scored = set(scores.videos.video_id.tolist())
    return [
        Excluded(
            data=one.name,
            video_id=video.video_id,
            is_fake=bool(video.label),
            reason=video.reason or "none of its faces has a score",
            split=video.split,
            compression=video.compression,
            manipulation=video.manipulation,
        )
        for one in sets
        for video in one.videos
        if video.video_id not in scored
    ]


def describe_data(sets: Sequence[EvalSet]) -> dict[str, DataProtocol]:
    """Read the options that each dataset was prepared with, by the name of the dataset.

    Raises:
        OSError: If a dataset has no options.json.
        ValueError: If one is damaged.
    """
    groups = {"split": SplitOptions, "faces": FaceOptions, "filters": FilterOptions}
    return {
        one.name: DataProtocol(
            **{
                group: load_options(one.directory / OPTIONS, group, kind)
                for group, kind in groups.items()
            }
        )
        for one in sets
    }
