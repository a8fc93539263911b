"""Scores of a detector on evaluation data, with the protocol of the evaluation.

Takes a run folder, a .keras file or an exported model; returns scores, and some faces with their
explanations. Imports TensorFlow only for a model that OpenVINO does not run.
"""

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.splits import list_manipulations
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.crop_scores import (
    describe_degradation,
    parse_degradation,
    read_crop_batch,
    score_crops,
)
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    DataProtocol,
    EvalSet,
    Excluded,
    Protocol,
    TrainingProtocol,
    check_leakage,
    join_manifest,
    score_sets,
)
from jdfd_keras.evaluation.headpose_scores import check_pose_options, score_head_poses
from jdfd_keras.evaluation.report import FaceExamples, ScoresMetadata, choose_errors
from jdfd_keras.evaluation.scores import GROUPS, Scores, score_videos
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.inference.backends import load_calibration, load_predictor
from jdfd_keras.inference.dataset_scores import FacePredictions
from jdfd_keras.inference.engine import identify_tensorflow
from jdfd_keras.inference.headpose_predictor import identify_numpy
from jdfd_keras.io.files import OPTIONS, load_groups, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.options import EngineOptions, EvaluateOptions, FaceOptions, FilterOptions
from jdfd_keras.training.headpose_run import HeadPoseRun, is_headpose_run, load_headpose_run
from jdfd_keras.training.run_folder import IMPORTED, digest_model, load_run_model, was_imported

EXAMPLES_PER_CLASS = 6
SAVED_MODEL = "saved_model.pb"

Protocols = typing.TypeVar("Protocols", bound=Result)


class ModelScores(NamedTuple):
    """Scores of a model, and some of the faces with explanations."""

    scores: Scores
    metadata: ScoresMetadata
    examples: FaceExamples | None  # faces of each class; None if the model cannot explain them
    errors: FaceExamples | None  # the faces with the most misleading scores


def score_model(
    path: Path,
    sets: list[EvalSet],
    options: EvaluateOptions,
    engine: EngineOptions,
    other: Scores | None = None,
) -> ModelScores:
    """Score the faces of prepared datasets.

    Args:
        path: Run folder, .keras file, or exported model or version.
        sets: The datasets, as `load_eval_sets` loads them.
        options: Split, batch size, whether reconstructions are measured, and the degradation of
            the faces.
        engine: Backend and precision of the scores of an exported model.
        other: Scores to be compared with these later, whose videos must be the same.

    Raises:
        OSError: If there is no such model, or the requested engine cannot run it.
        ValueError: If the datasets share faces with the training data or do not match the model or
            the other scores, or reconstructions of an exported model are requested.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> model = Path("saved_models/detector")
        >>> scored = score_model(model, sets, EvaluateOptions(), EngineOptions())
        >>> len(scored.scores), scored.metadata.protocol.model
        (8, 'detector, version 1')
    """
    is_exported = (path / SAVED_MODEL).is_file() or any(path.glob(f"*/{SAVED_MODEL}"))
    return (_score_exported if is_exported else _score_run)(path, sets, options, engine, other)


def _score_run(
    path: Path,
    sets: list[EvalSet],
    options: EvaluateOptions,
    engine: EngineOptions,
    other: Scores | None,
) -> ModelScores:
    is_headpose = is_headpose_run(path)
    if is_headpose:
        check_pose_options(path, options)
    leakage = check_leakage(path, sets, options.split, allow_leak=options.allow_leak)
    _check_comparable(sets, other, options.aggregation)
    identity = (identify_numpy if is_headpose else identify_tensorflow)(path, engine)
    calibration = load_calibration(path)
    loaded = load_headpose_run(path) if is_headpose else load_run_model(path)
    data = {one.name: describe_data(one) for one in sets}
    if not was_imported(path):
        _check_landmarks(loaded.faces, data)
    file, imported = (path if path.is_dir() else path.parent) / OPTIONS, was_imported(path)
    protocol = Protocol(
        model=path.resolve().name,
        model_digest=digest_model(path),
        checkpoint=_describe_checkpoint(path),
        training=_load_groups(file, TrainingProtocol) if file.is_file() and not imported else None,
        training_faces=None if imported else loaded.faces,
        demonstration=loaded.demonstration,
        calibration=calibration,
        split=options.split,
        data={**data},
        coverage=describe_coverage(sets),
        leakage=leakage,
        engine=identity.describe(),
        degradation=describe_degradation(parse_degradation(options.degrade)),
    )
    if isinstance(loaded, HeadPoseRun):
        found = score_head_poses(loaded, sets)
        table = join_manifest(found.sets, found.predictions, calibration)
        missing = int((~found.has_pose).sum())
        protocol = dataclasses.replace(protocol, faces_without_pose=missing)
        return ModelScores(table, ScoresMetadata(protocol, find_excluded(sets, table)), None, None)
    from jdfd_keras.inference.explain import explain_faces
    from jdfd_keras.model.network import classifier_branch

    if options.degrade:
        classifier = classifier_branch(loaded.model)
        predictions = _predict_crops(
            lambda crops: classifier.predict_on_batch(crops.astype(np.float32))[:, 0],
            loaded.model.input_shape[1],
            sets,
            options,
        )
    else:
        predictions = score_sets(
            loaded.model, sets, options.batch_size, reconstruct=options.reconstruction
        )
    table = join_manifest(sets, predictions, calibration)
    metadata = ScoresMetadata(protocol, find_excluded(sets, table), predictions.mean_face_mse)
    examples = _explain_examples(
        lambda faces: vars(explain_faces(loaded.model, faces)), sets, table, options, calibration
    )
    return ModelScores(table, metadata, *examples)


def _score_exported(
    path: Path,
    sets: list[EvalSet],
    options: EvaluateOptions,
    engine: EngineOptions,
    other: Scores | None,
) -> ModelScores:
    if options.reconstruction:
        raise ValueError(
            f"Expected a run folder with --reconstruction; got the exported model {path}. Evaluate "
            "the run it was exported from, or omit the option."
        )
    _check_comparable(sets, other, options.aggregation)
    with contextlib.closing(load_predictor(path, engine)) as predictor:
        model = predictor.metadata
        data = {one.name: describe_data(one) for one in sets}
        _check_landmarks(model.faces, data)
        protocol = Protocol(
            model=f"{model.name}, version {model.version}",
            model_digest=model.digest,
            checkpoint="an exported model: how its weights were chosen is unknown",
            training_faces=model.faces,
            demonstration=model.demonstration,
            calibration=model.calibration,
            split=options.split,
            data={**data},
            coverage=describe_coverage(sets),
            leakage="not checked: the training data of this model is unknown",
            engine=predictor.engine.describe(),
            degradation=describe_degradation(parse_degradation(options.degrade)),
        )
        table = join_manifest(sets, _predict_crops(predictor, model.faces.face_size, sets, options))
        metadata, examples = ScoresMetadata(protocol, find_excluded(sets, table)), (None, None)
        if maps := predictor.explain:
            unknown = {"reconstruction": None, "residual": None}
            examples = _explain_examples(
                lambda faces: {"cam": maps(faces)} | unknown,
                sets,
                table,
                options,
                model.calibration,
            )
        return ModelScores(table, metadata, *examples)


def _check_landmarks(trained: FaceOptions, data: dict[str, DataProtocol]) -> None:
    """Check that the faces of all datasets are aligned by the landmarks of the training."""
    for one in data.values():
        check_same_landmarks(trained, one.faces)


def _check_comparable(sets: list[EvalSet], other: Scores | None, aggregation: str) -> None:
    """Raise the errors of later steps before hours are spent on scoring."""
    label = np.concatenate([one.rows["label"].to_numpy() for one in sets])
    unscored = join_manifest(sets, FacePredictions(np.zeros(len(label)), label))
    if other is not None:
        compare_scores(unscored, other, aggregation)


def _predict_crops(
    score: Callable[[np.ndarray], np.ndarray],
    face_size: int,
    sets: list[EvalSet],
    options: EvaluateOptions,
) -> FacePredictions:
    degradation = parse_degradation(options.degrade)
    settings = {"degradation": degradation, "batch_size": options.batch_size}
    label = np.concatenate([one.rows["label"].to_numpy() for one in sets])
    return FacePredictions(score_crops(score, sets, face_size, **settings), label)


def _describe_checkpoint(path: Path) -> str:
    if was_imported(path):
        facts = load_groups((path if path.is_dir() else path.parent) / OPTIONS)[IMPORTED]
        return f"published weights {facts['file']} ({facts['source']}): their training is unknown"
    if is_headpose_run(path):
        return "the only one of its run, fitted to its training split"
    if path.is_dir():
        return "best of its run, chosen on validation data and never on test data"
    return "a single file: how its weights were chosen is unknown"


def describe_coverage(sets: Sequence[EvalSet]) -> str:
    """Describe the videos that the coverage of an evaluation refers to.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> describe_coverage(load_eval_sets(["prepared"], "test"))
        'all videos of the split in the manifest'
    """
    return f"all videos{' of the split' if sets[0].split_table else ''} in the manifest"


def describe_data(one: EvalSet) -> DataProtocol:
    """Return the options that a dataset was prepared and split with.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> describe_data(load_eval_sets(["prepared"], "test")[0]).faces.face_size
        71
    """
    table, path, held_out = one.split_table, one.directory / OPTIONS, ""
    if table and table.options.strategy == "leave-one-out":
        videos = read_videos(one.directory, split_table=table.name)
        held_out = ", ".join(list_manipulations(v for v in videos if v.split == "test"))
    return DataProtocol(
        split=table.options if table else None,
        split_table=table.name if table else "",
        faces=load_options(path, "faces", FaceOptions),
        filters=load_options(path, "filters", FilterOptions),
        held_out=held_out,
    )


def _load_groups(path: Path, kind: type[Protocols]) -> Protocols:
    hints = typing.get_type_hints(kind)
    return kind(**{name: load_options(path, name, hint) for name, hint in hints.items()})


def find_excluded(sets: Sequence[EvalSet], scores: Scores) -> tuple[Excluded, ...]:
    """Find the videos of datasets that have no score, with the reasons.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> scores = Scores.from_faces(video_id=["other"], label=[1], score=[0.5])
        >>> [one.reason for one in find_excluded(load_eval_sets(["prepared"], "test"), scores)]
        ['none of its faces has a score', 'none of its faces has a score']
    """
    scored = set(scores.videos.video_id.tolist())
    return tuple(
        Excluded(
            data=one.name,
            video_id=video.video_id,
            is_fake=bool(video.label),
            reason=video.reason or "none of its faces has a score",
            **{group: getattr(video, group) for group in GROUPS[1:]},
        )
        for one in sets
        for video in one.videos
        if video.video_id not in scored
    )


def _explain_examples(
    explain: Callable[[np.ndarray], dict[str, Any]],
    sets: Sequence[EvalSet],
    scores: Scores,
    options: EvaluateOptions,
    calibration: Calibration | None,
) -> tuple[FaceExamples, FaceExamples]:
    """Return the first faces of some videos of each class, and the hardest errors, explained."""
    first, label = np.unique(scores.video, return_index=True)[1], scores.videos.label
    by_class = [first[label == value][:EXAMPLES_PER_CLASS] for value in CLASSES.values()]
    examples = np.concatenate(by_class).tolist()
    threshold = decision_threshold(options, calibration)
    videos = score_videos(scores, options.aggregation)
    rows = [*examples, *choose_errors(scores, videos, threshold)]
    image = np.concatenate(_read_examples(sets, rows, parse_degradation(options.degrade)))
    maps = explain(image)  # in one call, since each may trace the model
    faces = FaceExamples(scores.label[rows], scores.score[rows], image, **maps)
    return faces[: len(examples)], faces[len(examples) :]


def decision_threshold(options: EvaluateOptions, calibration: Calibration | None) -> float:
    """Return the requested threshold, else that of the calibration, else 0.5.

    Example:
        >>> decision_threshold(EvaluateOptions(), Calibration(threshold=0.7))
        0.7
    """
    if options.threshold is not None:
        return options.threshold
    return (calibration or Calibration()).threshold


def _read_examples(
    sets: Sequence[EvalSet], rows: Sequence[int], degradation: tuple[str, float] | None
) -> list[np.ndarray]:
    ends = np.cumsum([len(one.rows) for one in sets])
    owners = np.searchsorted(ends, rows, side="right")
    return [
        read_crop_batch(sets[owner], [int(row - ends[owner] + len(sets[owner].rows))], degradation)
        for owner, row in zip(owners, rows, strict=True)
    ]
