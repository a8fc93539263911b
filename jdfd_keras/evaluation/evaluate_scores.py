"""A table of scores, of this detector or of any other, to the same report.

Takes a file; writes the same folder as `evaluate`, without pictures of faces. Needs no TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import Excluded, TestSet, find_excluded, gather
from jdfd_keras.evaluation.report import (
    UNKNOWN,
    build_report,
    check_options,
    choose_threshold,
    read_calibrated,
)
from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.evaluation.scores_file import digest_scores, knows_frames, read_scores, read_told
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import check_folder, clear_folder, write_folder


def evaluate_scores(
    path: str | Path,
    out: str | Path,
    options: EvaluateOptions | None = None,
    *,
    data: Sequence[str | Path] = (),
    compare: str | Path | None = None,
) -> dict:
    """Measure scores that are there already.

    Args:
        path: A table as `read_scores` takes it. One that `evaluate` wrote knows how it came about.
        out: The folder of the report; made if it is not there, files of its names are replaced.
        options: Threshold, how a video is scored, intervals; the split, of `data`.
        data: Prepared data sets that the scores are of. With them, videos that have no score are
            named, and scores of other videos, or with other labels, refused.
        compare: Scores of another detector to test against.

    Returns:
        The report, as in report.json; see `build_report`.

    Raises:
        OSError: If a file is not there, or `out` cannot be made.
        ValueError: If the table is not valid, or an option is out of range; if the videos are not
            those of `data`, or none is in the other table.
    """
    options = options or EvaluateOptions()
    check_options(options)
    path, out = Path(path), Path(out)
    check_folder(out, path, compare)
    scores = read_scores(path)
    told = read_told(path)
    if told and told["digest"] != digest_scores(scores):
        told = None  # what it says is of the table as it was
    sets = gather(data, options.split) if data else []
    if sets:
        check_videos(scores, sets, options.split)
        scores = _name_groups(scores, sets)
    comparison = None
    if compare is not None:
        comparison = {"with": Path(compare).name} | compare_scores(
            scores, read_scores(compare), options.aggregation
        )
    if told:  # of an evaluation of ours, of which nothing need be guessed
        protocol, mean_face_mse = told["protocol"], told["mean_face_mse"]
        excluded = [Excluded(**video) for video in told["excluded"]]
    else:
        protocol, mean_face_mse = _describe(path, scores, sets, options), None
        excluded = []
    if sets:
        excluded = find_excluded(sets, scores)
    report = build_report(
        scores,
        threshold=choose_threshold(options, read_calibrated(protocol)),
        options=options,
        protocol=protocol,
        excluded=excluded,
        mean_face_mse=mean_face_mse,
    )
    if comparison:
        report["comparison"] = comparison
    out.mkdir(parents=True, exist_ok=True)
    clear_folder(out)
    write_folder(out, scores, report)
    return report


def _describe(
    path: Path, scores: Scores, sets: Sequence[TestSet], options: EvaluateOptions
) -> dict:
    """State how little is known of scores from elsewhere; ready for JSON."""
    names = [one.name for one in sets] or [name for name in np.unique(scores.videos.data) if name]
    return {
        "model": path.name,
        "checkpoint": "scores given by themselves: how they came about is not known here",
        "training": UNKNOWN,
        **({"split": options.split} if sets else {}),
        "data": {str(name): {} for name in names},
        "coverage": "of all videos of the split, by the manifest" if sets else UNKNOWN,
        "calibration": UNKNOWN,
        "leaks": "not checked: what gave the scores is not known here",
        **({} if knows_frames(path) else {"repeated_rows": _count_repeated(scores)}),
        "versions": {"jdfd_keras": jdfd_keras.__version__},
    }


def _name_groups(scores: Scores, sets: Sequence[TestSet]) -> Scores:
    """Put to each video what its data set knows of it, so that it is grouped with others there."""
    known = {video.video_id: (one.name, video) for one in sets for video in one.videos}
    rows = [known[name] for name in scores.videos.video_id.tolist()]
    groups = {"data": np.array([name for name, _ in rows], np.str_)}
    for group in GROUPS[1:]:
        groups[group] = np.array([getattr(video, group) for _, video in rows], np.str_)
    return dataclasses.replace(scores, videos=dataclasses.replace(scores.videos, **groups))


def _count_repeated(scores: Scores) -> int:
    return len(scores) - len(np.unique(np.stack([scores.video, scores.score]), axis=1).T)


def check_videos(scores: Scores, sets: Sequence[TestSet], split: str) -> None:
    """See that scores are of the videos of data sets.

    Raises:
        ValueError: If a video is not of them, or has another label there.
    """
    known = {video.video_id: bool(video.label) for one in sets for video in one.videos}
    where = f"the {split} split of {', '.join(str(one.directory) for one in sets)}"
    names = scores.videos.video_id.tolist()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Expected scores of the videos in {where}; got {len(unknown)} that are not there, "
            f"such as {unknown[0]!r}. Another --split? Else leave the data set out, or these "
            "scores."
        )
    labels = scores.videos.label.tolist()
    differing = [n for n, label in zip(names, labels, strict=True) if known[n] != label]
    if differing:
        raise ValueError(
            f"Expected the labels of {where}; got other ones for {len(differing)} videos, such as "
            f"{differing[0]!r}. In the table 1 must be fake, 0 real."
        )
