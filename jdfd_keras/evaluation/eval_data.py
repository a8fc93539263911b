"""Evaluation data: the faces and videos of a split, their scores, and the evaluation protocol.

Reads the manifests of prepared datasets, checks that none of their faces was used for training,
and joins scores with them. Imports TensorFlow only when a model scores faces.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.datasets.leakage import COLUMNS, describe_leakage, find_leakage, raise_on_leakage
from jdfd_keras.datasets.manifest import VideoRow, read_faces, read_videos
from jdfd_keras.datasets.split_tables import OFFICIAL, SplitTable, absolute_name, read_split_table
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.inference.dataset_scores import FacePredictions, predict_dataset
from jdfd_keras.io.console import Progress, plural
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.origin import Origin
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
from jdfd_keras.training.run_folder import DataFacts, find_split_table, read_provenance

if TYPE_CHECKING:
    import keras

_FACE_COLUMNS = ("frame_index", "track_id", "label", "manipulation", "compression", "split")
_EVIDENCE = ("box", "detector_score", "sharpness")
READ_COLUMNS = (*COLUMNS, *_FACE_COLUMNS, *_EVIDENCE, "shard", "offset")
UNKNOWN = "unknown"
EER_RULE = "FPR where the ROC curve, joined by straight lines, meets FPR = 1 - TPR"
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
    """The options that an evaluated dataset was prepared and split with."""

    split: SplitOptions | None  # of the split table; None if all of it was evaluated
    split_table: str  # its name, or the path of a file; "" if all of it was evaluated
    faces: FaceOptions
    filters: FilterOptions
    held_out: str = ""  # the manipulation that a split of the strategy leave-one-out tests


@dataclass(frozen=True)
class TrainingProtocol(Result):
    """Data and options of the training of an evaluated model, by their group in its run folder."""

    data: DataFacts
    split: SplitOptions
    train: TrainOptions
    unlabelled: UnlabelledOptions
    augment: AugmentOptions


@dataclass(frozen=True, kw_only=True)
class Protocol(Origin):
    """Command, model, data and settings of an evaluation, so that others can repeat it."""

    model: str  # name of the file or folder of the model, or of the table of scores
    checkpoint: str = UNKNOWN  # how the weights were chosen
    is_chosen_on_test: bool = False  # the weights have the best result on these data
    data: dict[str, DataProtocol | None]  # options of each dataset; None where unknown
    leakage: str  # a sentence on leakage between training and evaluation
    coverage: str = UNKNOWN  # the videos that the coverage refers to
    split: str | None = None  # the evaluated split, `all` for every face; None if unknown
    # SHA-256 of the model file, of an exported model that of its weights; "" if unknown.
    model_digest: str = ""
    training: TrainingProtocol | None = None  # None if unknown
    training_faces: FaceOptions | None = None  # options of the extraction; None if unknown
    demonstration: bool = False  # the model is for demonstration only
    calibration: Calibration | None = None  # of the scores; None if there is none, or it is unknown
    repeated_rows: int = 0  # rows with the video and score of another: the same face?
    faces_without_pose: int = 0  # that Headpose gives no score
    # SHA-256 of the table of scores; "" if a model was evaluated.
    scores_digest: str = field(default="", compare=False)
    # Of stored scores that are evaluated again.
    scores_origin: Origin | None = field(default=None, compare=False)
    engine: str = ""  # backend, version and precision of the scores; "" if unknown
    degradation: str = ""  # of the faces before they were scored, such as jpeg=30 (quality)
    threshold: float = 0.5  # a score at or above it is called fake
    aggregation: str = "mean"
    n_resamples: int = 0  # of the bootstrap; 0 for no intervals
    intervals: str = "none"
    eer_rule: str = EER_RULE

    @property
    def used_calibration(self) -> Calibration | None:
        """The calibration, if its threshold is the one in use."""
        calibration = self.calibration
        return calibration if calibration and calibration.threshold == self.threshold else None


@dataclass(frozen=True, eq=False)
class EvalSet:
    """One split of a prepared dataset, or all of it."""

    name: str  # in the report
    directory: Path
    split: str  # `train`, `val`, `test` or `all`
    split_table: SplitTable | None  # None if all of it is evaluated
    rows: pa.Table  # labelled faces with READ_COLUMNS, in the order of the manifest
    videos: list[VideoRow]  # labelled videos, with or without a face


def load_eval_sets(
    directories: Sequence[str | Path], split: str, split_table: str = OFFICIAL
) -> list[EvalSet]:
    """Load one split of prepared datasets, each of which must have faces in it.

    Args:
        directories: Prepared datasets, each once.
        split: `train`, `val` or `test`; `all` for every face, which needs no split table.
        split_table: Name of the split table of all datasets, or the path of one.

    Example:
        >>> [(one.name, len(one.rows)) for one in load_eval_sets(["prepared"], "test")]
        [('prepared', 8)]
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
    sets = []
    for name, directory in zip(names, map(Path, directories), strict=True):
        name_of_table = "" if split == "all" else split_table
        rows = read_faces(directory, split=split, split_table=name_of_table, columns=READ_COLUMNS)
        rows = rows.filter(pc.field("label") != UNLABELLED)
        table = None if split == "all" else read_split_table(directory, split_table)
        videos = read_videos(directory, split_table=name_of_table)
        videos = [video for video in videos if video.label != UNLABELLED]
        if table and table.of_faces:  # a video is in every split that has one of its faces
            shown = set(rows["video_id"].unique().to_pylist())
            videos = [
                dataclasses.replace(video, split=split)
                for video in videos
                if video.video_id in shown or not video.num_faces
            ]
        elif table:
            videos = [video for video in videos if video.split == split]
        one = EvalSet(name, directory, split, table, rows, videos)
        if not len(rows):
            raise ValueError(
                f"Expected labelled faces in {describe_sets([one])}; got none, and "
                f"{plural(len(videos), 'labelled video')} without a face. Try another --split or "
                "--split-table, or prepare more videos."
            )
        sets.append(one)
    return sets


def describe_sets(sets: Sequence[EvalSet]) -> str:
    """Name the split, its table and the folders of datasets, for a message.

    Example:
        >>> describe_sets(load_eval_sets(["prepared"], "test"))
        'the test split of prepared'
        >>> describe_sets(load_eval_sets(["prepared"], "all"))
        'all faces of prepared'
    """
    table, folders = sets[0].split_table, ", ".join(str(one.directory) for one in sets)
    if table is None:
        return f"all faces of {folders}"
    by = "" if table.name == OFFICIAL else f", by the split table {table.name},"
    return f"the {sets[0].split} split of {folders}{by}"


def check_leakage(
    model_path: str | Path, sets: Sequence[EvalSet], split: str, *, allow_leak: bool
) -> str:
    """Check that the model was not trained on the data that it is evaluated on.

    Args:
        model_path: Run folder or .keras file.
        sets: The datasets that it is evaluated on.
        split: Their split. Validation is compared with training only; other splits also with
            validation, on which the epoch was chosen, and with the faces of the calibration.
        allow_leak: Report leakage, in the sentence that is returned, instead of raising.

    Example:
        >>> check_leakage("run", load_eval_sets(["prepared"], "test"), "test", allow_leak=False)
        'none between training and evaluation: no shared source, no near-duplicate face'
    """
    provenance = read_provenance(model_path)
    if provenance is None:
        return "not checked: the training data of this model is unknown"
    if split == "val":
        provenance = provenance.filter(pc.field("split").cast(pa.string()) == "train")
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
        subject = (
            f"{describe_sets(sets)} and the data that {model_path} was trained or calibrated on"
        )
        raise_on_leakage(leakage, subject, _advise(model_path, sets))
    return describe_leakage(leakage, checked="training and evaluation")


def _advise(model_path: str | Path, sets: Sequence[EvalSet]) -> str:
    advice = "Evaluate on other data, or use --allow-leak; the report then states the leakage."
    trained, table = find_split_table(model_path), sets[0].split_table
    if trained and table and absolute_name(trained) != absolute_name(table.name):
        path = Path(model_path)
        options = (path if path.is_dir() else path.parent) / OPTIONS
        own = load_options(options, "data", DataFacts).name
        if own in {one.directory.resolve().name for one in sets}:
            advice = (
                f"{model_path} was trained with the split table {trained} of {own}, not "
                f"{table.name}: try --split-table {trained}. {advice}"
            )
    return advice


def score_sets(
    model: "keras.Model",
    sets: Sequence[EvalSet],
    batch_size: int = EvaluateOptions.batch_size,
    *,
    reconstruct: bool = False,
) -> FacePredictions:
    """Score the faces of prepared datasets, in the order of their rows.

    Args:
        model: A detector.
        sets: The datasets, as `load_eval_sets` loads them.
        batch_size: Faces per batch.
        reconstruct: Measure the error of the decoder as well.

    Example:
        >>> import jdfd_keras as jk
        >>> sets = load_eval_sets(["prepared"], "val")
        >>> score_sets(jk.load_run_model("run").model, sets).score.shape
        (16,)
    """
    import tensorflow as tf

    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.datasets.transforms import reraise_damaged_shards

    progress = Progress("scoring", sum(len(one.rows) for one in sets), "faces")

    def read(one: EvalSet) -> Iterator:
        dataset = load_faces(
            one.directory,
            one.split,
            batch_size=batch_size,
            labelled_only=True,
            split_table=one.split_table.name if one.split_table else "",
        )
        with reraise_damaged_shards(one.directory):
            for image, targets in dataset:
                yield image, targets
                progress.advance(len(image))

    try:
        return predict_dataset(model, chain.from_iterable(map(read, sets)), reconstruct=reconstruct)
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        half = batch_size // 2
        advice = f"Try --batch-size {half}" if half else "Try a machine with more memory"
        raise ValueError(
            f"Expected enough memory to score {batch_size} faces at once; got "
            f"{type(error).__name__}. {advice}."
        ) from error
    finally:
        progress.close()


def join_manifest(
    sets: Sequence[EvalSet],
    predictions: FacePredictions,
    calibration: Calibration | None = None,
) -> Scores:
    """Join predictions with their rows of the manifest, whose labels must be the same.

    Args:
        sets: The datasets that were scored.
        predictions: As `score_sets` returns them, in the order of the manifest.
        calibration: Calibration of the scores; by default they are unchanged.

    Example:
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> label = sets[0].rows["label"].to_numpy()
        >>> join_manifest(sets, FacePredictions(score=label / 2, label=label)).score.max()
        np.float64(0.5)
    """
    rows = pa.concat_tables([one.rows for one in sets])
    if len(predictions.score) != len(rows):
        raise ValueError(
            f"Expected one score for each of the {len(rows)} faces in the manifest; the shards "
            f"hold {len(predictions.score)}. The dataset is damaged or incomplete: prepare it "
            "again."
        )
    label = rows["label"].to_numpy()
    differs = label != predictions.label
    if differs.any():
        first = int(np.argmax(differs))
        row = rows.slice(first, 1).to_pylist()[0]
        raise ValueError(
            f"Expected the shards to hold the faces in the manifest's order; frame "
            f"{row['frame_index']} of {row['video_id']!r} is {label[first]} in the "
            f"manifest and {predictions.label[first]:g} in the shards. Prepare the dataset again."
        )
    score = predictions.score
    return Scores.from_faces(
        video_id=rows["video_id"],
        label=label,
        score=calibration.apply(score) if calibration else score,
        frame_index=rows["frame_index"],
        track_id=rows["track_id"],
        reconstruction_error=predictions.error,
        data=np.repeat([one.name for one in sets], [len(one.rows) for one in sets]),
        **{name: rows[name] for name in ("split", "compression", "manipulation")},
    )
