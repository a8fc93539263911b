"""What is evaluated: the faces of a split, its videos without one, and that training saw neither.

Takes prepared data sets; gives their rows. Reads no shards and needs no TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.datasets.leakage import COLUMNS, describe_leaks, find_leaks, refuse_leaks
from jdfd_keras.datasets.manifest import VideoRow, read_faces, read_videos
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.inference.model_files import load_calibration
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import (
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    SplitOptions,
)
from jdfd_keras.training.run_folder import read_seen

OF_FACES = ("frame_index", "track_id", "label", "manipulation", "compression", "split")
READ = (*COLUMNS, *OF_FACES, "shard", "offset")


@dataclass(frozen=True)
class Excluded:
    """A video without a score, what is known of it, and why it has none."""

    data: str
    video_id: str
    is_fake: bool
    reason: str
    split: str = ""
    compression: str = ""
    manipulation: str = ""


@dataclass(frozen=True, eq=False)
class TestSet:
    """One split of a prepared data set.

    Attributes:
        name: What it is called in the report.
        directory: Where it lies.
        rows: Its labelled faces, the columns READ, in the order of the manifest.
        videos: Its labelled videos, also those without a face.
    """

    __test__ = False  # pytest takes it for tests

    name: str
    directory: Path
    rows: pa.Table
    videos: list[VideoRow]


def gather(directories: Sequence[str | Path], split: str) -> list[TestSet]:
    """Read what is evaluated.

    Args:
        directories: Prepared data sets.
        split: The split of each.

    Raises:
        OSError: If a folder is no prepared data set.
        ValueError: If none or one twice is given, or the split of one is empty.
    """
    resolved = [Path(directory).resolve() for directory in directories]
    if not resolved or len(set(resolved)) < len(resolved):
        raise ValueError(
            "Expected prepared data sets, each once; got "
            f"{', '.join(map(str, directories)) or 'none'}. Name what `jdfd-keras prepare` made."
        )
    short = [path.name for path in resolved]
    names = short if len(set(short)) == len(short) else [str(path) for path in directories]
    return [_read(name, Path(d), split) for name, d in zip(names, directories, strict=True)]


def _read(name: str, directory: Path, split: str) -> TestSet:
    rows = read_faces(directory, split=split, columns=READ)
    rows = rows.filter(pc.not_equal(rows["label"], UNLABELLED))
    videos = [
        video
        for video in read_videos(directory)
        if video.label != UNLABELLED
        # Where faces are split singly, a video without any belongs to no split and to each.
        and (video.split == split or (not video.split and not video.num_faces))
    ]
    if not len(rows):
        raise ValueError(
            f"Expected faces in the split {split!r} of {directory}; got none, and "
            f"{len(videos)} videos without a face. Try another split, or prepare more videos."
        )
    return TestSet(name, directory, rows, videos)


def check_leaks(
    model_path: str | Path, sets: Sequence[TestSet], split: str, *, allow_leak: bool
) -> str:
    """See that what is evaluated was not trained on.

    Args:
        model_path: What is evaluated.
        sets: On what.
        split: Of which split they are. Validation is held against training alone; the others also
            against validation, on which the epoch was chosen, and what the run was calibrated on.
        allow_leak: Take a leak, and say so.

    Returns:
        A sentence for the report.

    Raises:
        ValueError: If something leaks and that is not allowed.
    """
    seen = read_seen(model_path)
    if seen is None:
        return "not checked: what this model was trained on is not known here"
    if split == "val":
        seen = seen.filter(pc.equal(seen["split"].cast(pa.string()), "train"))
    elif load_calibration(model_path) and (calibrated := read_seen(model_path, SEEN)) is not None:
        seen = seen.select(COLUMNS)
        seen = pa.concat_tables([seen, calibrated.select(COLUMNS).cast(seen.schema)])
    rows = pa.concat_tables([one.rows.select(COLUMNS) for one in sets])
    leaks = find_leaks({"training": seen, "evaluation": rows})
    if not allow_leak:
        refuse_leaks(
            leaks,
            f"the {split} split of {', '.join(str(one.directory) for one in sets)} and what "
            f"{model_path} was trained or calibrated on",
            "Evaluate on other data, or give --allow-leak: the report then says so.",
        )
    return describe_leaks(leaks, checked="training and evaluation")


def find_excluded(sets: Sequence[TestSet], scores: Scores) -> list[Excluded]:
    """List the videos that have no score, in order, and why."""
    scored = set(scores.videos.video_id.tolist())
    return [
        Excluded(
            data=one.name,
            video_id=video.video_id,
            is_fake=bool(video.label),
            reason=video.reason or "no face of it has a score",
            split=video.split,
            compression=video.compression,
            manipulation=video.manipulation,
        )
        for one in sets
        for video in one.videos
        if video.video_id not in scored
    ]


def describe_data(sets: Sequence[TestSet], options: EvaluateOptions) -> dict:
    """State what was evaluated, so that another may do it again; ready for JSON."""
    groups = {"split": SplitOptions, "faces": FaceOptions, "filters": FilterOptions}
    return {
        "split": options.split,
        "data": {
            one.name: {
                group: dataclasses.asdict(load_options(one.directory / OPTIONS, group, kind))
                for group, kind in groups.items()
            }
            for one in sets
        },
    }


SEEN = "calibration/seen.parquet"  # what it was found on, as a run's own seen.parquet
