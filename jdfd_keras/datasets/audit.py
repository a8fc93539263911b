"""Audit of prepared datasets: statistics, leakage and shortcuts.

Counts faces, finds sources and near-duplicate faces shared by splits and datasets, and measures
which properties of the files, other than the faces, separate real from fake videos. Reads tables;
images are read only for the near-duplicates that are displayed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from jdfd_keras.datasets.leakage import (
    COLUMNS,
    Leakage,
    NearDuplicate,
    SharedSource,
    by_split,
    find_leakage,
    read_sources,
)
from jdfd_keras.datasets.manifest import (
    FaceRow,
    VideoRow,
    read_faces,
    read_listing,
    read_videos,
    schema_of,
)
from jdfd_keras.datasets.records import SHARDS, read_crop
from jdfd_keras.datasets.splits import reason_kind
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, FaceCount, count_by
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, SplitOptions

MAX_LISTED = 1000  # findings of each kind in a result; the counts include all
# A property of the file is a shortcut if its AUC is this far from 0.5 and not by chance (two
# standard errors).
SHORTCUT_AUC = 0.7
COMPRESSIONS = {"raw": 0, "c23": 1, "c40": 2}
READ_COLUMNS = (*COLUMNS, "split", "label", "manipulation", "compression", "sharpness", "box")


@dataclass(frozen=True)
class Shortcut(Result):
    """Separation of fake from real videos by a property of the files, not of the faces.

    Attributes:
        measure: Name of the property.
        num_videos: Videos that have it.
        auc: AUC of the property as the only score; None if a class has no videos.
        is_shortcut: Whether a detector could use it instead of the face.
    """

    measure: str
    num_videos: int
    auc: float | None
    is_shortcut: bool


@dataclass(frozen=True)
class DatasetStatistics(Result):
    """Statistics of one prepared dataset.

    Attributes:
        name: Name of the folder; its path if several have this name.
        directory: The folder.
        split: Rule of the splits.
        num_videos: Videos, with or without faces.
        num_faces: Faces.
        counts: Counts by split, class, manipulation and compression.
        fake_share: Split to share of fakes among its labelled faces; None if it has none.
        without_faces: `real`, `fake` or `unlabelled` to number of videos without a face.
        reasons: Video id to reason, of the first MAX_LISTED videos without a face.
        excluded: Reason to number of videos that the layout or the split excluded.
        missing: Number of files that the lists of the dataset name and its folder lacked.
        unrecognized: Number of videos and images in its folder that the layout does not list.
        shortcuts: Measured properties of the videos.
    """

    name: str
    directory: str
    split: str
    num_videos: int
    num_faces: int
    counts: list[FaceCount]
    fake_share: dict[str, float | None]
    without_faces: dict[str, int]
    reasons: dict[str, str]
    excluded: dict[str, int]
    missing: int
    unrecognized: int
    shortcuts: list[Shortcut]


@dataclass(frozen=True)
class FaceLocation(Result):
    """One face of a prepared dataset.

    Attributes:
        directory: The dataset.
        video_id: Id of its video.
        frame_index: Position of its frame in the video, from 0.
        shard: Name of its shard.
        offset: Start of its record in the shard, in bytes.
    """

    directory: str
    video_id: str
    frame_index: int
    shard: str
    offset: int

    def read_crop(self) -> np.ndarray:
        """Read the crop, uint8[size, size, 3], RGB.

        Raises:
            ValueError: If the shard does not exist or is damaged.
        """
        return read_crop(Path(self.directory) / SHARDS / self.shard, self.offset)


@dataclass(frozen=True)
class DuplicatePair(Result):
    """Two videos in two splits with nearly the same face.

    Attributes:
        splits: Their splits.
        videos: Their ids.
        num_faces: Pairs of near-duplicate faces.
        bits: Different bits, of 256, in the most similar pair.
        faces: The faces of that pair.
    """

    splits: tuple[str, str]
    videos: tuple[str, str]
    num_faces: int
    bits: int
    faces: tuple[FaceLocation, FaceLocation]


@dataclass(frozen=True)
class CommonSources(Result):
    """Sources in two datasets, in any split.

    Attributes:
        datasets: Names of the datasets.
        num_sources: Number of common sources.
        sources: The first MAX_LISTED, with their namespaces.
    """

    datasets: tuple[str, str]
    num_sources: int
    sources: list[str]


@dataclass(frozen=True)
class AuditResult(Result):
    """Statistics, leakage and shortcuts of prepared datasets.

    Attributes:
        datasets: Statistics of each.
        num_shared_sources: Sources in two or more splits, of all datasets together.
        shared_sources: The first MAX_LISTED of them.
        num_near_duplicates: Pairs of videos with near-duplicate faces in two splits.
        near_duplicates: The first MAX_LISTED of them.
        common_sources: Sources of every two datasets that have some in common.
        alignments: Name of a dataset to the alignment of its crops: near-duplicates with different
            alignments are not found.
        failed: One sentence per kind of leakage; empty if there is none.
    """

    datasets: list[DatasetStatistics]
    num_shared_sources: int
    shared_sources: list[SharedSource]
    num_near_duplicates: int
    near_duplicates: list[DuplicatePair]
    common_sources: list[CommonSources]
    alignments: dict[str, str]
    failed: list[str]


def audit(directories: Sequence[str | Path]) -> AuditResult:
    """Audit one or more prepared datasets.

    Args:
        directories: The datasets. Sources and faces in the training split of one and the test
            split of another are leakage too.

    Raises:
        OSError: If a folder is not a prepared dataset.
        ValueError: If one is damaged, given twice, or has another format version.

    Example:
        >>> result = audit(["prepared"])
        >>> [row.measure for row in result.datasets[0].shortcuts if row.is_shortcut]
        []
    """
    directories = [Path(directory) for directory in directories]
    names = _choose_names(directories)
    faces = [read_faces(directory, columns=READ_COLUMNS) for directory in directories]
    leakage, origins = _find_leakage(faces)
    sources, duplicates = leakage.shared_sources, leakage.near_duplicates
    failed = []
    if sources:
        failed.append(f"{plural(len(sources), 'source')} in two splits")
    if duplicates:
        pairs = plural(len(duplicates), "pair")
        failed.append(f"{pairs} of videos with near-duplicate faces in two splits")
    return AuditResult(
        datasets=[
            _describe_dataset(name, directory, table)
            for name, directory, table in zip(names, directories, faces, strict=True)
        ],
        num_shared_sources=len(sources),
        shared_sources=sources[:MAX_LISTED],
        num_near_duplicates=len(duplicates),
        near_duplicates=_locate_faces(duplicates[:MAX_LISTED], origins, directories),
        common_sources=_find_common_sources(names, faces),
        alignments={
            name: _describe_alignment(directory)
            for name, directory in zip(names, directories, strict=True)
        },
        failed=failed,
    )


def _choose_names(directories: list[Path]) -> list[str]:
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise ValueError(
            f"Expected each dataset once; got {', '.join(map(str, directories))}. Omit the "
            "repeated one."
        )
    names = [directory.name for directory in resolved]
    return names if len(set(names)) == len(names) else [str(directory) for directory in directories]


def _find_leakage(faces: list[pa.Table]) -> tuple[Leakage, dict[str, np.ndarray]]:
    """Find the leakage between the splits of all datasets together.

    Returns:
        The leakage; and split to int64[n, 2], the dataset of each face and its row there.
    """
    columns = [*COLUMNS, "split"]
    plain = pa.schema([schema_of(FaceRow).field(name) for name in columns])
    whole = pa.concat_tables([table.select(columns).cast(plain) for table in faces])
    origin = np.concatenate(
        [
            np.stack([np.full(len(table), number), np.arange(len(table))], axis=1)
            for number, table in enumerate(faces)
        ]
    )
    splits = np.asarray(whole["split"])
    return find_leakage(by_split(whole)), {split: origin[splits == split] for split in SPLITS}


def _locate_faces(
    pairs: list[NearDuplicate], origins: dict[str, np.ndarray], directories: list[Path]
) -> list[DuplicatePair]:
    """Find the most similar faces of each pair in their datasets."""
    keys = [
        [tuple(origins[split][row].tolist()) for split, row in zip(p.subsets, p.rows, strict=True)]
        for p in pairs
    ]
    faces = {}
    for number, directory in enumerate(directories):
        rows = sorted({row for pair in keys for dataset, row in pair if dataset == number})
        if rows:
            columns = ["video_id", "frame_index", "shard", "offset"]
            table = read_faces(directory, columns=columns).take(pa.array(rows))
            for row, values in zip(rows, table.to_pylist(), strict=True):
                faces[number, row] = FaceLocation(str(directory), **values)
    return [
        DuplicatePair(p.subsets, p.videos, p.num_faces, p.bits, (faces[one], faces[other]))
        for p, (one, other) in zip(pairs, keys, strict=True)
    ]


def _describe_dataset(name: str, directory: Path, faces: pa.Table) -> DatasetStatistics:
    videos, listing = read_videos(directory), read_listing(directory)
    without = [row for row in videos if not row.num_faces]
    counts = count_by(faces, "split", "label", "manipulation", "compression")
    return DatasetStatistics(
        name=name,
        directory=str(directory),
        split=load_options(directory / OPTIONS, "split", SplitOptions).split,
        num_videos=len(videos),
        num_faces=len(faces),
        counts=counts,
        fake_share={split: _measure_fake_share(counts, split) for split in SPLITS},
        without_faces=dict(Counter(LABEL_NAMES[row.label] for row in without)),
        reasons={row.video_id: row.reason for row in without[:MAX_LISTED]},
        excluded=dict(Counter(map(reason_kind, listing.excluded.values()))),
        missing=len(listing.missing),
        unrecognized=len(listing.unrecognized),
        shortcuts=_measure_shortcuts(videos, faces),
    )


def _measure_fake_share(counts: list[FaceCount], split: str) -> float | None:
    faces: Counter = Counter()
    for group in counts:
        if group.split == split:
            faces[group.label] += group.num_faces
    total = faces["fake"] + faces["real"]
    return faces["fake"] / total if total else None


def _measure_shortcuts(videos: list[VideoRow], faces: pa.Table) -> list[Shortcut]:
    """Measure how well each property separates fake from real videos."""
    means = faces.select(["video_id", "sharpness"])
    boxes = faces["box"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
    means = means.append_column("width", pa.array(boxes[:, 2] - boxes[:, 0]))
    means = means.group_by("video_id").aggregate([("sharpness", "mean"), ("width", "mean")])
    by_video = {row["video_id"]: row for row in means.to_pylist()}
    measures = {
        "file size": lambda row: row.file_bytes,
        "frame size": lambda row: row.width * row.height or None,
        "compression (raw, c23, c40)": lambda row: COMPRESSIONS.get(row.compression),
        "JPEG quality": lambda row: row.jpeg_quality or None,
        "faces found per frame": lambda row: (
            row.num_faces / row.num_frames if row.num_frames else None
        ),
        "sharpness": lambda row: by_video.get(row.video_id, {}).get("sharpness_mean"),
        "width of the detected face": lambda row: by_video.get(row.video_id, {}).get("width_mean"),
    }
    labelled = [row for row in videos if row.label in CLASSES.values()]
    shortcuts = []
    for name, measure in measures.items():
        pairs = [(row.label, value) for row in labelled if (value := measure(row)) is not None]
        labels = [label for label, _ in pairs]
        auc, is_shortcut = None, False
        if len(set(labels)) == 2:
            auc = float(roc_auc_score(labels, [value for _, value in pairs]))
            distance = abs(auc - 0.5)
            is_shortcut = distance >= SHORTCUT_AUC - 0.5 and distance > 2 * _chance_error(labels)
        shortcuts.append(Shortcut(name, len(pairs), auc, is_shortcut))
    return shortcuts


def _chance_error(labels: list[int]) -> float:
    """Compute the standard error of the AUC of an uninformative measure (Mann and Whitney)."""
    num_fake = sum(labels)
    num_real = len(labels) - num_fake
    return ((num_real + num_fake + 1) / (12 * num_real * num_fake)) ** 0.5


def _find_common_sources(names: list[str], faces: list[pa.Table]) -> list[CommonSources]:
    sources = [read_sources(table) for table in faces]
    return [
        CommonSources((names[i], names[j]), len(common), sorted(common)[:MAX_LISTED])
        for i, j in combinations(range(len(names)), 2)
        if (common := sources[i] & sources[j])
    ]


def _describe_alignment(directory: Path) -> str:
    faces = load_options(directory / OPTIONS, "faces", FaceOptions)
    return f"{faces.alignment}, margin {faces.margin:g}"
