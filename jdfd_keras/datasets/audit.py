"""Audit of prepared datasets: statistics, leakage and shortcuts.

Counts faces, finds sources and near-duplicate faces shared by splits and datasets, and measures
which properties of the files, other than the faces, separate real from fake videos. Reads tables;
images are read only for the near-duplicates that are displayed.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from jdfd_keras.datasets.leakage import (
    COLUMNS,
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
FOLDS = 5  # of the videos, for a property of categories
COMPRESSIONS = {"raw": 0, "c23": 1, "c40": 2}
LOCATION = ("frame_index", "shard", "offset")
STATISTICS = ("label", "manipulation", "compression", "sharpness", "box")


@dataclass(frozen=True)
class Shortcut(Result):
    """Separation of fake from real videos by a property of the files, not of the faces."""

    measure: str
    num_videos: int  # that have the property
    auc: float | None  # of the property as the only score; None if a class has too few videos
    is_shortcut: bool  # whether a detector could use it instead of the face
    # Of a category: the value whose number of fakes differs most from the expected one.
    value: str | None = None
    fake_share: float | None = None  # among the videos with this value


@dataclass(frozen=True)
class FormatCount(Result):
    """Number of videos of each class in one format; those that cannot be decoded have none."""

    container: str
    codec: str
    pixel_format: str
    num_videos: dict[str, int]  # by class


@dataclass(frozen=True)
class DatasetStatistics(Result):
    """Statistics of one prepared dataset."""

    name: str  # of the folder; its path if several have this name
    directory: str
    split: str  # rule of the splits
    num_videos: int  # with or without faces, as in `counts`
    num_faces: int
    counts: list[FaceCount]  # by split, class, manipulation and compression
    fake_share: dict[str, float | None]  # of the labelled faces of a split; None if it has none
    without_faces: dict[str, int]  # class to number of videos without a face
    reasons: dict[str, str]  # video id to reason, of the first MAX_LISTED of these
    excluded: dict[str, int]  # reason to number of videos that the layout or the split excluded
    missing: int  # files that the lists of the dataset name and its folder lacks
    unrecognized: int  # videos and images in its folder that the layout does not list
    formats: list[FormatCount]  # the most frequent first
    shortcuts: list[Shortcut]


@dataclass(frozen=True)
class FaceLocation(Result):
    """One face of a prepared dataset."""

    directory: str
    video_id: str
    frame_index: int
    shard: str
    offset: int  # of its record in the shard, in bytes

    def read_crop(self) -> np.ndarray:
        """Read the crop, uint8[size, size, 3], RGB."""
        return read_crop(Path(self.directory) / SHARDS / self.shard, self.offset)


@dataclass(frozen=True)
class DuplicatePair(Result):
    """Two videos in two splits with nearly the same face."""

    splits: tuple[str, str]
    videos: tuple[str, str]
    num_faces: int  # pairs of near-duplicate faces
    bits: int  # different ones, of 256, in the most similar pair
    faces: tuple[FaceLocation, FaceLocation]  # that pair


@dataclass(frozen=True)
class CommonSources(Result):
    """Sources in two datasets, in any split."""

    datasets: tuple[str, str]
    num_sources: int
    sources: list[str]  # the first MAX_LISTED, with their namespaces


@dataclass(frozen=True)
class AuditResult(Result):
    """Statistics, leakage and shortcuts of prepared datasets.

    Lists of findings have the first MAX_LISTED; their counts include all.
    """

    datasets: list[DatasetStatistics]
    num_shared_sources: int  # in two or more splits, of all datasets together
    shared_sources: list[SharedSource]
    num_near_duplicates: int  # pairs of videos with near-duplicate faces in two splits
    near_duplicates: list[DuplicatePair]
    common_sources: list[CommonSources]
    # Name of a dataset to the alignment of its crops: near-duplicates with different alignments are
    # not found.
    alignments: dict[str, str]
    failed: list[str]  # one sentence per kind of leakage


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
        >>> result.datasets[0].num_videos, result.num_shared_sources
        (16, 0)
    """
    named = _name_datasets([Path(directory) for directory in directories])
    compared = [*COLUMNS, "split", *LOCATION]
    columns = [*compared, *STATISTICS]
    faces = {name: read_faces(directory, columns=columns) for name, directory in named.items()}
    plain = pa.schema([schema_of(FaceRow).field(name) for name in compared])
    tables = [
        table.select(compared)
        .cast(plain)
        .append_column("directory", pa.repeat(str(named[name]), len(table)))
        for name, table in faces.items()
    ]
    splits = by_split(pa.concat_tables(tables))
    leakage = find_leakage(splits)
    sources, duplicates = leakage.shared_sources, leakage.near_duplicates
    failed = []
    if sources:
        failed.append(f"{plural(len(sources), 'source')} in two splits")
    if duplicates:
        pairs = plural(len(duplicates), "pair")
        failed.append(f"{pairs} of videos with near-duplicate faces in two splits")
    return AuditResult(
        datasets=[
            _describe_dataset(name, directory, faces[name]) for name, directory in named.items()
        ],
        num_shared_sources=len(sources),
        shared_sources=sources[:MAX_LISTED],
        num_near_duplicates=len(duplicates),
        near_duplicates=[_locate_faces(pair, splits) for pair in duplicates[:MAX_LISTED]],
        common_sources=_find_common_sources(faces),
        alignments={
            name: f"{options.alignment}, margin {options.margin:g}"
            for name, directory in named.items()
            for options in [load_options(directory / OPTIONS, "faces", FaceOptions)]
        },
        failed=failed,
    )


def _name_datasets(directories: list[Path]) -> dict[str, Path]:
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise ValueError(
            f"Expected each dataset once; got {', '.join(map(str, directories))}. Omit the "
            "repeated one."
        )
    names = [directory.name for directory in resolved]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in directories]
    return dict(zip(names, directories, strict=True))


def _locate_faces(pair: NearDuplicate, splits: dict[str, pa.Table]) -> DuplicatePair:
    """Find the most similar faces of two videos in their datasets."""
    columns = ["directory", "video_id", *LOCATION]
    one, other = (
        FaceLocation(**splits[split].select(columns).slice(row, 1).to_pylist()[0])
        for split, row in zip(pair.subsets, pair.rows, strict=True)
    )
    return DuplicatePair(pair.subsets, pair.videos, pair.num_faces, pair.bits, (one, other))


def _describe_dataset(name: str, directory: Path, faces: pa.Table) -> DatasetStatistics:
    videos, listing = read_videos(directory), read_listing(directory)
    without = [row for row in videos if not row.num_faces]
    counts = count_by(faces, "split", "label", "manipulation", "compression", without_faces=without)
    num_faces: Counter[tuple] = Counter()
    for group in counts:
        num_faces[group.split, group.label] += group.num_faces
    num_labelled = {split: num_faces[split, "fake"] + num_faces[split, "real"] for split in SPLITS}
    return DatasetStatistics(
        name=name,
        directory=str(directory),
        split=load_options(directory / OPTIONS, "split", SplitOptions).split,
        num_videos=len(videos),
        num_faces=len(faces),
        counts=counts,
        fake_share={
            split: num_faces[split, "fake"] / total if total else None
            for split, total in num_labelled.items()
        },
        without_faces=dict(Counter(LABEL_NAMES[row.label] for row in without)),
        reasons={row.video_id: row.reason for row in without[:MAX_LISTED]},
        excluded=dict(Counter(map(reason_kind, listing.excluded.values()))),
        missing=len(listing.missing),
        unrecognized=len(listing.unrecognized),
        formats=_count_formats(videos),
        shortcuts=_measure_shortcuts(videos, faces),
    )


def _count_formats(videos: list[VideoRow]) -> list[FormatCount]:
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for row in videos:
        if row.codec:
            counts[row.container, row.codec, row.pixel_format][LABEL_NAMES[row.label]] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return [FormatCount(*names, dict(by_class)) for names, by_class in ordered]


def _measure_shortcuts(videos: list[VideoRow], faces: pa.Table) -> list[Shortcut]:
    """Measure how well each property separates fake from real videos."""
    boxes = faces["box"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
    means = (
        faces.select(["video_id", "sharpness"])
        .append_column("face_width", [boxes[:, 2] - boxes[:, 0]])
        .group_by("video_id")
        .aggregate([("sharpness", "mean"), ("face_width", "mean")])
        .to_pandas()
        .set_index("video_id")
    )
    table = pd.DataFrame(map(vars, videos)).join(means, on="video_id")
    table = table[table.label.isin(CLASSES.values())]
    measures = {
        "file size": table.file_bytes,
        "frame size": (table.width * table.height).where(table.width > 0),
        "compression (raw, c23, c40)": table.compression.map(COMPRESSIONS),
        "JPEG quality": table.jpeg_quality.where(table.jpeg_quality > 0),
        "faces found per frame": table.num_faces / table.num_frames.where(table.num_frames > 0),
        "sharpness": table.sharpness_mean,
        "width of the detected face": table.face_width_mean,
        "frame rate": table.frame_rate.where(table.frame_rate > 0),
        "duration": table.duration_s.where(table.duration_s > 0),
        "bit rate": table.bit_rate.where(table.bit_rate > 0),
    }
    is_decoded = table.codec != ""
    categories = {
        "codec": table.codec,
        "pixel format": table.pixel_format,
        "encoder": table.encoder.replace("", "not stated"),
    }
    return [_measure_shortcut(name, values, table.label) for name, values in measures.items()] + [
        _measure_category(name, values[is_decoded], table.label[is_decoded])
        for name, values in categories.items()
    ]


def _measure_shortcut(name: str, values: pd.Series, labels: pd.Series) -> Shortcut:
    values = values.dropna()
    labels = labels.loc[values.index]
    auc = float(roc_auc_score(labels, values)) if labels.nunique() == 2 else None
    is_shortcut = auc is not None and _is_telling(abs(auc - 0.5), labels)
    return Shortcut(name, len(labels), auc, is_shortcut)


def _measure_category(name: str, values: pd.Series, labels: pd.Series) -> Shortcut:
    """Measure a property without an order by the share of fakes of each of its values.

    The share is that of other videos (TargetEncoder), and only videos that share those others are
    compared: an uninformative property, and one that differs in every video, have an AUC of 0.5.
    """
    num_folds = min(FOLDS, int(labels.sum()), int((1 - labels).sum()))
    if num_folds < 2:
        return Shortcut(name, len(labels), auc=None, is_shortcut=False)
    table, aucs = values.to_frame(), []
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    for others, own in folds.split(table, labels):
        encoder = TargetEncoder(target_type="binary").fit(table.iloc[others], labels.iloc[others])
        aucs.append(roc_auc_score(labels.iloc[own], encoder.transform(table.iloc[own])))
    auc = float(np.mean(aucs))
    sizes, fakes, share = Counter(values), Counter(values[labels == 1]), labels.mean()
    shares = {value: fakes[value] / size for value, size in sizes.items()}
    excess = {value: abs(fakes[value] - share * size) for value, size in sizes.items()}
    value = max(sizes, key=lambda value: (round(excess[value], 6), shares[value], value))
    # Below 0.5, fakes have values that are rare among other fakes: that identifies no class.
    is_shortcut = _is_telling(auc - 0.5, labels)
    return Shortcut(name, len(labels), auc, is_shortcut, value, shares[value])


def _is_telling(distance: float, labels: pd.Series) -> bool:
    num_fake = int(labels.sum())
    num_real = len(labels) - num_fake
    # Of an uninformative measure (Mann and Whitney).
    standard_error = ((num_real + num_fake + 1) / (12 * num_real * num_fake)) ** 0.5
    return distance >= SHORTCUT_AUC - 0.5 and distance > 2 * standard_error


def _find_common_sources(faces: dict[str, pa.Table]) -> list[CommonSources]:
    sources = {name: set(chain(*read_sources(table).values())) for name, table in faces.items()}
    return [
        CommonSources((one, other), len(common), sorted(common)[:MAX_LISTED])
        for one, other in combinations(sources, 2)
        if (common := sources[one] & sources[other])
    ]
