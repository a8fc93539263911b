"""Evaluation of a table of scores, without a model, and reports as files.

    <folder>/report.json       every number of a report
    <folder>/scores.parquet    one row per face, from which the report can be computed again

The scores may be of this detector or of any other. Imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import (
    UNKNOWN,
    EvalSet,
    Protocol,
    check_options,
    choose_threshold,
    find_excluded,
    load_eval_sets,
)
from jdfd_keras.evaluation.report import Report, ScoresMetadata, build_report
from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.evaluation.scores_file import (
    digest_scores,
    has_frame_index,
    read_metadata,
    read_scores,
    write_scores,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.options import EvaluateOptions

REPORT = "report.json"
SCORES = "scores.parquet"


def evaluate_scores(
    path: str | Path,
    options: EvaluateOptions | None = None,
    *,
    data: Sequence[str | Path] = (),
    compare: str | Path | None = None,
) -> Report:
    """Evaluate existing scores.

    Args:
        path: A table as `read_scores` reads it. A scores.parquet that `write_evaluation` wrote
            also holds the protocol of its evaluation.
        options: Threshold, aggregation and intervals; the split of `data`.
        data: Prepared datasets that the scores are of. With them, videos without a score are
            listed, and scores of other videos or with other labels raise an error.
        compare: Scores of another detector to compare with.

    Returns:
        The report, with the scores and without faces.

    Raises:
        OSError: If a file does not exist.
        ValueError: If the table is not valid, an option is out of range, the videos are not those
            of `data`, or none of them is in the other table.

    Example:
        >>> evaluate_scores("ours.csv", compare="theirs.csv").comparison  # doctest: +SKIP
    """
    options = options or EvaluateOptions()
    check_options(options)
    path = Path(path)
    scores = read_scores(path)
    metadata = read_metadata(path, ScoresMetadata)
    if metadata and metadata.digest != digest_scores(scores):
        metadata = None  # the table was changed since
    sets = load_eval_sets(data, options.split) if data else []
    if sets:
        check_videos(scores, sets, options.split)
        scores = _add_groups(scores, sets)
    comparison = None
    if compare is not None:
        comparison = compare_scores(
            scores, read_scores(compare), options.aggregation, name=Path(compare).name
        )
    protocol = metadata.protocol if metadata else _describe(path, scores, sets, options)
    excluded = metadata.excluded if metadata else ()
    report = build_report(
        scores,
        threshold=choose_threshold(options, protocol.calibration),
        options=options,
        protocol=protocol,
        excluded=find_excluded(sets, scores) if sets else excluded,
        mean_face_mse=metadata.mean_face_mse if metadata else None,
    )
    return dataclasses.replace(report, comparison=comparison)


def _describe(
    path: Path, scores: Scores, sets: Sequence[EvalSet], options: EvaluateOptions
) -> Protocol:
    """Return the protocol of scores from an unknown model."""
    names = [one.name for one in sets] or [name for name in np.unique(scores.videos.data) if name]
    return Protocol(
        model=path.name,
        checkpoint="a table of scores: the model behind it is unknown",
        split=options.split if sets else None,
        data={str(name): None for name in names},
        coverage="all videos of the split in the manifest" if sets else UNKNOWN,
        leakage="not checked: the model behind the scores is unknown",
        repeated_rows=0 if has_frame_index(path) else _count_repeated(scores),
        versions={"jdfd_keras": jdfd_keras.__version__},
    )


def _add_groups(scores: Scores, sets: Sequence[EvalSet]) -> Scores:
    """Add dataset, split, compression and manipulation of each video from its dataset."""
    videos = {video.video_id: (one.name, video) for one in sets for video in one.videos}
    rows = [videos[name] for name in scores.videos.video_id.tolist()]
    groups = {"data": np.array([name for name, _ in rows], np.str_)}
    for group in GROUPS[1:]:
        groups[group] = np.array([getattr(video, group) for _, video in rows], np.str_)
    return dataclasses.replace(scores, videos=dataclasses.replace(scores.videos, **groups))


def _count_repeated(scores: Scores) -> int:
    return len(scores) - len(np.unique(np.stack([scores.video, scores.score]), axis=1).T)


def check_videos(scores: Scores, sets: Sequence[EvalSet], split: str) -> None:
    """Check that scores are of the videos of datasets.

    Args:
        scores: One row per face.
        sets: The datasets, as `load_eval_sets` loads them.
        split: Their split, for the message.

    Raises:
        ValueError: If a video is not in the datasets, or has another label there.
    """
    label_of = {video.video_id: bool(video.label) for one in sets for video in one.videos}
    where = f"the {split} split of {', '.join(str(one.directory) for one in sets)}"
    names = scores.videos.video_id.tolist()
    others = [name for name in names if name not in label_of]
    if others:
        raise ValueError(
            f"Expected scores of the videos in {where}; got {len(others)} of other videos, such "
            f"as {others[0]!r}. Try another --split, or omit the dataset or these scores."
        )
    labels = scores.videos.label.tolist()
    differing = [n for n, label in zip(names, labels, strict=True) if label_of[n] != label]
    if differing:
        raise ValueError(
            f"Expected the labels of {where}; got other labels for "
            f"{plural(len(differing), 'video')}, such as {differing[0]!r}. Write 1 for fake and 0 "
            "for real."
        )


def save_report(report: Report, folder: str | Path) -> None:
    """Write the scores and the numbers of a report, as scores.parquet and report.json.

    Args:
        report: As `evaluate` returns it.
        folder: An existing folder. report.json is written last: where it exists, both are
            complete.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the report was loaded from JSON, and so has no scores.

    Example:
        >>> save_report(evaluate_scores("ours.csv"), "report")  # doctest: +SKIP
    """
    check_has_scores(report)
    metadata = ScoresMetadata(
        protocol=report.protocol,
        excluded=report.excluded,
        mean_face_mse=report.reconstruction and report.reconstruction.mean_face_mse,
        digest=digest_scores(report.scores),
    )
    folder = Path(folder)
    (folder / REPORT).unlink(missing_ok=True)
    write_scores(folder / SCORES, report.scores, metadata)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    write_text_atomically(folder / REPORT, text + "\n")


def check_has_scores(report: Report) -> None:
    """Check that a report has its scores, which report.json does not contain.

    Raises:
        ValueError: If it was loaded from JSON.
    """
    if report.scores is None:
        raise ValueError(
            f"Expected a report with its scores; got one that was loaded from {REPORT}. Evaluate "
            f"{SCORES} again."
        )


def load_report(folder: str | Path) -> Report:
    """Load the report.json of a folder, without scores and faces.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or was written by another version of this package.

    Example:
        >>> load_report("report").video.auc.value  # doctest: +SKIP
        0.953
    """
    path = Path(folder) / REPORT
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder that `jdfd-keras evaluate` wrote; got {folder}, without {REPORT}. "
            "Give the --out of that command."
        )
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(
            f"Expected {path} as `jdfd-keras evaluate` writes it; got '{error}'. Evaluate again."
        ) from error
