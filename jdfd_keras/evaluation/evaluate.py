"""Evaluation of a trained detector, or of a table of scores, on prepared datasets.

Takes a run folder, a .keras file or a table of scores; returns a `Report`, which `reporting` writes
to a folder. Imports TensorFlow only when a model is loaded.
"""

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, check_threshold
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.splits import list_manipulations
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    UNKNOWN,
    DataProtocol,
    EvalSet,
    Excluded,
    Protocol,
    TrainingProtocol,
    check_leakage,
    describe_sets,
    join_manifest,
    load_eval_sets,
    score_sets,
)
from jdfd_keras.evaluation.report import (
    FaceExamples,
    Report,
    ScoresMetadata,
    build_report,
    choose_errors,
)
from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.evaluation.scores_file import read_scores, read_scores_file
from jdfd_keras.inference.backends import FacePredictions, load_calibration
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_groups, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions, FaceOptions, FilterOptions
from jdfd_keras.training.run_folder import (
    IMPORTED,
    digest_model,
    load_run_model,
    was_imported,
)

if typing.TYPE_CHECKING:
    import keras

EXAMPLES_PER_CLASS = 6
MIN_RESAMPLES = 100

Protocols = typing.TypeVar("Protocols", bound=Result)


def evaluate(
    model_path: str | Path | None = None,
    data: str | Path | Sequence[str | Path] = (),
    options: EvaluateOptions | None = None,
    *,
    scores: str | Path | None = None,
    compare: str | Path | None = None,
) -> Report:
    """Evaluate a trained detector on one split of prepared datasets, or a table of scores.

    Args:
        model_path: Run folder, of which the best checkpoint is evaluated, or a .keras file.
        data: Prepared dataset, or several. With scores they are optional: videos without a score
            are then listed, and scores of other videos or with other labels raise an error.
        options: What to measure, and how.
        scores: Table of scores to evaluate instead of a model, as `read_scores` reads it. A
            scores.parquet that `write_evaluation` wrote has the protocol of its evaluation.
        compare: Scores of another detector to compare with.

    Returns:
        The report, with the scores and, of a model, some faces, for `write_evaluation`.

    Raises:
        ValueError: If the split is empty or shares sources or near-duplicate faces with the
            training data, or data, model and scores do not match.

    Example:
        >>> report = evaluate("run", "prepared")
        >>> report.coverage.num_faces, report.protocol.split
        (8, 'test')
        >>> evaluate(scores="report/scores.parquet").video.num_fake
        1
    """
    if (model_path is None) == (scores is None):
        raise ValueError(
            f"Expected a model or a table of scores; got model_path={model_path} and "
            f"scores={scores}. Give one of the two."
        )
    options = options or EvaluateOptions()
    _check_options(options)
    directories = [data] if isinstance(data, (str, Path)) else list(data)
    sets = []
    if directories or scores is None:
        sets = load_eval_sets(directories, options.split, options.split_table)
    other = None if compare is None else read_scores(compare)
    model = None
    if model_path is not None:
        model, table, metadata = _score_model(model_path, sets, options, other)
    else:
        assert scores is not None
        table, metadata = _read_table(Path(scores), sets, options)
    comparison = None
    if compare is not None and other is not None:
        comparison = compare_scores(table, other, options.aggregation, name=Path(compare).name)
    threshold = options.threshold
    if threshold is None:
        threshold = (metadata.protocol.calibration or Calibration()).threshold
    report = build_report(table, threshold=threshold, options=options, **vars(metadata))
    examples, errors = _explain_examples(model, sets, table) if model else (None, None)
    return dataclasses.replace(report, comparison=comparison, examples=examples, errors=errors)


def _check_options(options: EvaluateOptions) -> None:
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


def _describe_checkpoint(path: Path) -> str:
    if was_imported(path):
        facts = load_groups((path if path.is_dir() else path.parent) / OPTIONS)[IMPORTED]
        return f"published weights {facts['file']} ({facts['source']}): their training is unknown"
    if path.is_dir():
        return "best of its run, chosen on validation data and never on test data"
    return "a single file: how its weights were chosen is unknown"


def _score_model(
    model_path: str | Path, sets: list[EvalSet], options: EvaluateOptions, other: Scores | None
) -> tuple["keras.Model", Scores, ScoresMetadata]:
    leakage = check_leakage(model_path, sets, options.split, allow_leak=options.allow_leak)
    # Raise the errors of later steps before hours are spent on scoring.
    label = np.concatenate([one.rows["label"].to_numpy() for one in sets])
    unscored = join_manifest(sets, FacePredictions(np.zeros(len(label)), label))
    if other is not None:
        compare_scores(unscored, other, options.aggregation)
    calibration = load_calibration(model_path)
    loaded = load_run_model(model_path)
    import keras
    import tensorflow as tf

    path = Path(model_path)
    file, imported = (path if path.is_dir() else path.parent) / OPTIONS, was_imported(path)
    protocol = Protocol(
        model=path.resolve().name,
        model_digest=digest_model(path),
        checkpoint=_describe_checkpoint(path),
        training=_load_groups(file, TrainingProtocol) if file.is_file() and not imported else None,
        training_faces=None if imported else loaded.faces,
        calibration=calibration,
        split=options.split,
        data={one.name: _describe_data(one) for one in sets},
        coverage=_describe_coverage(sets),
        leakage=leakage,
        versions={one.__name__: one.__version__ for one in (jdfd_keras, keras, tf)},
    )
    predictions = score_sets(
        loaded.model, sets, options.batch_size, reconstruct=options.reconstruction
    )
    table = join_manifest(sets, predictions, calibration)
    excluded = _find_excluded(sets, table)
    return loaded.model, table, ScoresMetadata(protocol, excluded, predictions.mean_face_mse)


def _describe_coverage(sets: Sequence[EvalSet]) -> str:
    return f"all videos{' of the split' if sets[0].split_table else ''} in the manifest"


def _describe_data(one: EvalSet) -> DataProtocol:
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


def _find_excluded(sets: Sequence[EvalSet], scores: Scores) -> tuple[Excluded, ...]:
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


def _read_table(
    path: Path, sets: list[EvalSet], options: EvaluateOptions
) -> tuple[Scores, ScoresMetadata]:
    file = read_scores_file(path)
    scores = _add_groups(file.scores, sets) if sets else file.scores
    if file.metadata:
        metadata = ScoresMetadata.from_dict(file.metadata)
    else:
        rows = np.unique(np.stack([scores.video, scores.score]), axis=1).shape[1]
        names = [one.name for one in sets] or np.unique(scores.videos.data).tolist()
        protocol = Protocol(
            model=path.name,
            checkpoint="a table of scores: the model behind it is unknown",
            split=options.split if sets else None,
            data={name: None for name in names if name},
            coverage=_describe_coverage(sets) if sets else UNKNOWN,
            leakage="not checked: the model behind the scores is unknown",
            repeated_rows=0 if file.has_frame_index else len(scores) - rows,
            versions={"jdfd_keras": jdfd_keras.__version__},
        )
        metadata = ScoresMetadata(protocol)
    if sets:
        metadata = dataclasses.replace(metadata, excluded=_find_excluded(sets, scores))
    return scores, metadata


def _add_groups(scores: Scores, sets: Sequence[EvalSet]) -> Scores:
    """Check that scores are of the videos of datasets, and add the groups of each video."""
    videos = {video.video_id: (one.name, video) for one in sets for video in one.videos}
    where = describe_sets(sets)
    names = scores.videos.video_id.tolist()
    if others := [name for name in names if name not in videos]:
        raise ValueError(
            f"Expected scores of the videos in {where}; got {len(others)} of other videos, such "
            f"as {others[0]!r}. Try another --split, or omit the dataset or these scores."
        )
    rows = [videos[name] for name in names]
    differs = scores.videos.label != np.array([video.label for _, video in rows])
    if differs.any():
        raise ValueError(
            f"Expected the labels of {where}; got other labels for "
            f"{plural(int(differs.sum()), 'video')}, such as {names[differs.argmax()]!r}. Write 1 "
            "for fake and 0 for real."
        )
    groups = {"data": np.array([name for name, _ in rows], np.str_)}
    for group in GROUPS[1:]:
        groups[group] = np.array([getattr(video, group) for _, video in rows], np.str_)
    return dataclasses.replace(scores, videos=dataclasses.replace(scores.videos, **groups))


def _explain_examples(
    model: "keras.Model", sets: Sequence[EvalSet], scores: Scores
) -> tuple[FaceExamples, FaceExamples]:
    """Return the first faces of some videos of each class, and the hardest ones, explained."""
    from jdfd_keras.inference.explain import explain_faces

    first, label = np.unique(scores.video, return_index=True)[1], scores.videos.label
    by_class = [first[label == value][:EXAMPLES_PER_CLASS] for value in CLASSES.values()]
    examples = np.concatenate(by_class).tolist()
    rows = [*examples, *choose_errors(scores)]
    image = np.stack(_read_crops(sets, rows))
    explanation = explain_faces(model, image)  # in one call, since each call traces the model again
    faces = FaceExamples(scores.label[rows], scores.score[rows], image, **vars(explanation))
    return faces[: len(examples)], faces[len(examples) :]


def _read_crops(sets: Sequence[EvalSet], rows: Sequence[int]) -> list[np.ndarray]:
    owners = np.repeat(np.arange(len(sets)), [len(one.rows) for one in sets])[rows]
    places = pa.concat_tables([one.rows.select(["shard", "offset"]) for one in sets]).take(rows)
    return [
        read_crops(sets[owner].directory, [face["shard"]], [face["offset"]], [0])[0]
        for owner, face in zip(owners, places.to_pylist(), strict=True)
    ]
