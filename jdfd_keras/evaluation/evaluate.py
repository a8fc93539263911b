"""Evaluation of a trained detector, or of a table of scores, on prepared datasets.

Takes a run folder, a .keras file, an exported model or a table of scores; returns a `Report`, which
`reporting` writes to a folder. Imports TensorFlow only when a model is loaded that needs it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import check_threshold
from jdfd_keras.evaluation.crop_scores import parse_degradation
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    UNKNOWN,
    EvalSet,
    Protocol,
    describe_sets,
    load_eval_sets,
)
from jdfd_keras.evaluation.model_scores import (
    decision_threshold,
    describe_coverage,
    find_excluded,
    score_model,
)
from jdfd_keras.evaluation.report import Report, ScoresMetadata, build_report
from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.evaluation.scores_file import read_scores, read_scores_file
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.origin import Origin, describe_origin
from jdfd_keras.options import EngineOptions, EvaluateOptions

MIN_RESAMPLES = 100
TABLE = "a table of scores: the model behind it is unknown"


def evaluate(
    model_path: str | Path | None = None,
    data: str | Path | Sequence[str | Path] = (),
    options: EvaluateOptions | None = None,
    *,
    scores: str | Path | None = None,
    compare: str | Path | None = None,
    column: str = "",
    compare_column: str = "",
    engine: EngineOptions | None = None,
) -> Report:
    """Evaluate a trained detector on one split of prepared datasets, or a table of scores.

    Args:
        model_path: Run folder, of which the best checkpoint is evaluated, a .keras file, or an
            exported model or one version of it, whose training data is unknown.
        data: Prepared dataset, or several. With scores they are optional: videos without a score
            are then listed, and scores of other videos or with other labels raise an error.
        options: What to measure, and how.
        scores: Table of scores to evaluate instead of a model, as `read_scores` reads it. A
            scores.parquet that `write_evaluation` wrote has the protocol of its evaluation.
        compare: Scores of another detector to compare with, as `read_scores` reads them.
        column: Column of `scores`, if it has those of several detectors.
        compare_column: Column of `compare`, likewise.
        engine: Backend and precision of the scores of an exported model, as for `load_predictor`.

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
    for name, file, of in (("scores", scores, column), ("compare", compare, compare_column)):
        if of and file is None:
            raise ValueError(
                f"Expected {name} with the column {of!r} of it; got no file. Give the table of "
                "scores, or omit the column."
            )
    options = options or EvaluateOptions()
    check_evaluate_options(options, has_scores=scores is not None)
    directories = [data] if isinstance(data, (str, Path)) else list(data)
    sets = []
    if directories or scores is None:
        sets = load_eval_sets(directories, options.split, options.split_table)
    other = None if compare is None else read_scores(compare, compare_column)
    examples = errors = None
    if model_path is not None:
        table, metadata, examples, errors = score_model(
            Path(model_path), sets, options, engine or EngineOptions(), other
        )
    else:
        assert scores is not None
        table, metadata = _read_table(Path(scores), column, sets, options)
    comparison = None
    if compare is not None and other is not None:
        name = _name_table(Path(compare), compare_column)
        comparison = compare_scores(table, other, options.aggregation, name=name)
    threshold = decision_threshold(options, metadata.protocol.calibration)
    protocol = dataclasses.replace(metadata.protocol, **describe_origin())
    metadata = dataclasses.replace(metadata, protocol=protocol)
    report = build_report(table, threshold=threshold, options=options, **vars(metadata))
    return dataclasses.replace(report, comparison=comparison, examples=examples, errors=errors)


def check_evaluate_options(options: EvaluateOptions, *, has_scores: bool = False) -> None:
    """Check that options are within their ranges.

    Args:
        options: The options.
        has_scores: Whether a table of scores is evaluated instead of a model.

    Example:
        >>> check_evaluate_options(EvaluateOptions(n_resamples=7))
        Traceback (most recent call last):
            ...
        ValueError: Expected n_resamples of 100 or more, or 0 for no intervals; got 7. Try ...
    """
    if options.degrade and (has_scores or options.reconstruction):
        problem = "a table of scores" if has_scores else "--reconstruction"
        raise ValueError(
            f"Expected a model, and no reconstruction, with the degradation {options.degrade!r}; "
            f"got {problem}. Omit one of the two."
        )
    parse_degradation(options.degrade)  # raises before hours are spent on scoring
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


def _read_table(
    path: Path, column: str, sets: list[EvalSet], options: EvaluateOptions
) -> tuple[Scores, ScoresMetadata]:
    file = read_scores_file(path, column)
    scores = _add_groups(file.scores, sets) if sets else file.scores
    if file.metadata:
        metadata = ScoresMetadata.from_dict(file.metadata)
        protocol = metadata.protocol
        if not protocol.scores_origin:
            names = ("command", "versions", "created_at")
            origin = Origin(**{name: getattr(protocol, name) for name in names})
            protocol = dataclasses.replace(protocol, scores_origin=origin)
    else:
        benchmark = file.benchmark
        coverage = benchmark.coverage if benchmark else UNKNOWN
        rows = np.unique(np.stack([scores.video, scores.score]), axis=1).shape[1]
        names = [one.name for one in sets] or np.unique(scores.videos.data).tolist()
        protocol = Protocol(
            model=_name_table(path, column),
            checkpoint=benchmark.checkpoint if benchmark else TABLE,
            is_chosen_on_test=benchmark is not None and benchmark.is_chosen_on_test,
            split=options.split if sets else None,
            data={name: None for name in names if name},
            coverage=describe_coverage(sets) if sets else coverage,
            leakage="not checked: the model behind the scores is unknown",
            repeated_rows=0 if file.has_frame_index else len(scores) - rows,
        )
        metadata = ScoresMetadata(protocol)
    protocol = dataclasses.replace(protocol, scores_digest=sha256_of(path))
    metadata = dataclasses.replace(metadata, protocol=protocol)
    if sets:
        metadata = dataclasses.replace(metadata, excluded=find_excluded(sets, scores))
    return scores, metadata


def _name_table(path: Path, column: str) -> str:
    return f"{path.name}, column {column}" if column else path.name


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
