"""Evaluation of a trained detector, or of existing scores, on prepared datasets.

Takes a run folder, a .keras file or a table of scores; returns a `Report`, which `reporting` writes
to a folder. Imports TensorFlow only when a model is loaded.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

import jdfd_keras
from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    EvalSet,
    FaceExamples,
    Protocol,
    TrainingProtocol,
    check_leakage,
    check_options,
    choose_threshold,
    describe_data,
    find_excluded,
    load_eval_sets,
)
from jdfd_keras.evaluation.evaluate_scores import evaluate_scores
from jdfd_keras.evaluation.report import Report, build_report, choose_errors
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.inference.backends import FacePredictions, load_calibration, predict_dataset
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.run_folder import digest_model, load_run_model

if TYPE_CHECKING:
    import keras

EXAMPLES_PER_CLASS = 6


def evaluate(
    model_path: str | Path | None = None,
    data: str | Path | Sequence[str | Path] = (),
    options: EvaluateOptions | None = None,
    *,
    scores: str | Path | None = None,
    compare: str | Path | None = None,
) -> Report:
    """Evaluate a trained detector on one split of prepared datasets.

    Args:
        model_path: Run folder, of which the best checkpoint is evaluated, or a .keras file.
        data: Prepared dataset, or several.
        options: Split, threshold, aggregation and intervals; whether reconstructions are measured
            and leakage is allowed.
        scores: Table of scores to evaluate instead of a model; `data` is then optional. See
            `evaluate_scores`.
        compare: Scores of another detector to compare with, as `read_scores` reads them.

    Returns:
        The report, with the scores and some faces; `write_evaluation` writes it to a folder.

    Raises:
        OSError: If a file does not exist.
        ValueError: If both or neither of `model_path` and `scores` are given; if the split is
            empty, an option is out of range, the split shares sources or near-duplicate faces with
            the training data and `options.allow_leak` is false, the data does not match its
            manifest or the model, a shard is damaged, a score is NaN, or the other scores are of
            other videos.

    Example:
        >>> report = evaluate("run", "prepared")  # doctest: +SKIP
        >>> report.video.auc.value  # doctest: +SKIP
        0.953
    """
    if (model_path is None) == (scores is None):
        raise ValueError(
            f"Expected a model or a table of scores; got model_path={model_path} and "
            f"scores={scores}. Give one of the two."
        )
    directories = [data] if isinstance(data, (str, Path)) else list(data)
    if scores is not None:
        return evaluate_scores(scores, options, data=directories, compare=compare)
    options = options or EvaluateOptions()
    check_options(options)
    sets = load_eval_sets(directories, options.split)
    leakage = check_leakage(model_path, sets, options.split, allow_leak=options.allow_leak)
    other = None if compare is None else read_scores(compare)
    _check_before_scoring(sets, other, options)
    calibration = load_calibration(model_path)
    loaded = load_run_model(model_path)
    protocol = dataclasses.replace(
        describe_model(model_path),
        training_faces=loaded.faces,
        calibration=calibration,
        split=options.split,
        data=describe_data(sets),
        leakage=leakage,
    )
    predictions = score_sets(
        loaded.model, sets, options.split, options.batch_size, reconstruct=options.reconstruction
    )
    table = join_manifest(sets, predictions, calibration)
    report = build_report(
        table,
        threshold=choose_threshold(options, calibration),
        options=options,
        protocol=protocol,
        excluded=find_excluded(sets, table),
        mean_face_mse=predictions.mean_face_mse,
    )
    comparison = None
    if other is not None:
        comparison = compare_scores(table, other, options.aggregation, name=Path(compare).name)
    examples, errors = _explain_examples(loaded.model, sets, table)
    return dataclasses.replace(report, comparison=comparison, examples=examples, errors=errors)


def _check_before_scoring(
    sets: list[EvalSet], other: Scores | None, options: EvaluateOptions
) -> None:
    """Raise the errors of later steps before hours are spent on scoring."""
    label = np.concatenate([one.rows["label"].to_numpy() for one in sets])
    scores = join_manifest(sets, FacePredictions(np.zeros(len(label)), label))
    if other is not None:
        compare_scores(scores, other, options.aggregation)


def score_sets(
    model: "keras.Model",
    sets: Sequence[EvalSet],
    split: str,
    batch_size: int = EvaluateOptions.batch_size,
    *,
    reconstruct: bool = False,
) -> FacePredictions:
    """Score the faces of prepared datasets, in the order of their rows.

    Args:
        model: A detector.
        sets: The datasets, as `load_eval_sets` loads them.
        split: Their split.
        batch_size: Faces per batch.
        reconstruct: Whether to measure reconstructions as well.

    Raises:
        ValueError: As `predict_dataset`; or if a shard is damaged or memory is exhausted.

    Example:
        >>> sets = load_eval_sets(["prepared"], "val")  # doctest: +SKIP
        >>> score_sets(model, sets, "val").score.shape  # doctest: +SKIP
        (640,)
    """
    import tensorflow as tf

    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.datasets.transforms import reraise_damaged_shards

    progress = Progress("scoring", sum(len(one.rows) for one in sets), "faces")

    def read(one: EvalSet) -> Iterator:
        dataset = load_faces(one.directory, split, batch_size=batch_size, labelled_only=True)
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
    """Join predictions with their rows of the manifest.

    Args:
        sets: The datasets that were scored.
        predictions: As `score_sets` returns them, in the order of the manifest.
        calibration: Calibration of the scores; by default they are unchanged.

    Raises:
        ValueError: If numbers or labels differ, so that scores would get the wrong names; or if
            the table is not valid.
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
    data = pa.concat_arrays([pa.array([one.name]).take([0] * len(one.rows)) for one in sets])
    score = predictions.score
    return Scores.from_faces(
        video_id=rows["video_id"],
        label=label,
        score=score if calibration is None else calibration.apply(score),
        frame_index=rows["frame_index"].to_numpy(),
        track_id=rows["track_id"].to_numpy(),
        reconstruction_error=predictions.error,
        data=data,
        **{name: rows[name] for name in ("split", "compression", "manipulation")},
    )


def describe_model(model_path: str | Path) -> Protocol:
    """Read the facts about a model from its files, as the start of a protocol.

    Args:
        model_path: Run folder or .keras file.
    """
    import keras
    import tensorflow as tf

    path = Path(model_path)
    file = (path if path.is_dir() else path.parent) / OPTIONS
    training = None
    if file.is_file():
        fields = dataclasses.fields(TrainingProtocol)
        training = TrainingProtocol(*(load_options(file, f.name, f.type) for f in fields))
    return Protocol(
        model=path.resolve().name,
        model_digest=digest_model(path),
        checkpoint="best of its run, chosen on validation data and never on test data"
        if path.is_dir()
        else "a single file: how its weights were chosen is unknown",
        data={},
        leakage="not checked",
        coverage="all videos of the split in the manifest",
        training=training,
        versions={
            "jdfd_keras": jdfd_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    )


def choose_examples(scores: Scores) -> list[int]:
    """Choose the first face of the first videos of each class.

    Args:
        scores: One row per face.

    Returns:
        Rows of faces: first real, then fake, at most EXAMPLES_PER_CLASS of each.
    """
    first = np.unique(scores.video, return_index=True)[1]
    return [
        int(first[video])
        for label in CLASSES.values()
        for video in np.flatnonzero(scores.videos.label == label)[:EXAMPLES_PER_CLASS]
    ]


def _explain_examples(
    model: "keras.Model", sets: Sequence[EvalSet], scores: Scores
) -> tuple[FaceExamples, FaceExamples]:
    """Return some faces of each class, and the hardest ones, with their explanations."""
    from jdfd_keras.inference.explain import explain_faces

    examples, errors = choose_examples(scores), choose_errors(scores)
    rows = [*examples, *errors]
    image = np.stack(_read_crops(sets, rows))
    explanation = explain_faces(model, image)  # in one call, since each call traces the model again
    faces = FaceExamples(
        label=scores.label[rows],
        score=scores.score[rows],
        image=image,
        cam=explanation.cam,
        reconstruction=explanation.reconstruction,
        residual=explanation.residual,
    )
    return faces[: len(examples)], faces[len(examples) :]


def _read_crops(sets: Sequence[EvalSet], rows: Sequence[int]) -> list[np.ndarray]:
    starts = np.cumsum([0, *(len(one.rows) for one in sets)])
    crops = []
    for row in rows:
        position = int(np.searchsorted(starts, row, side="right")) - 1
        one, local_row = sets[position], int(row - starts[position])
        shard, offset = (one.rows[name][local_row].as_py() for name in ("shard", "offset"))
        crops.append(read_crops(one.directory, [shard], [offset], [0])[0])
    return crops
