"""Audit of prepared datasets: statistics, leakage and shortcuts.

Counts faces, finds sources and near-duplicate faces shared by splits and datasets, and measures
which properties of the files, other than the faces, separate real from fake videos. Leakage is
ruled out only if all faces are split and their sources are known. Reads tables; images are read
only for the near-duplicates that are displayed.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pyarrow as pa

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
from jdfd_keras.datasets.shortcuts import Shortcut, measure_shortcuts
from jdfd_keras.datasets.split_tables import (
    OFFICIAL,
    SplitTable,
    list_split_tables,
    read_split_table,
)
from jdfd_keras.datasets.splits import reason_kind
from jdfd_keras.datasets.videos import LABEL_NAMES, SPLITS, FaceCount, count_by, has_known_source
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions

MAX_LISTED = 1000  # findings of each kind in a result; the counts include all
LOCATION = ("frame_index", "shard", "offset")
STATISTICS = ("label", "manipulation", "compression", "sharpness", "box")


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
    split_table: str  # "" if it is not split; then the split of all faces is ""
    other_tables: list[str]  # names of its other split tables
    strategy: str  # of the split table; "" if it is not split
    num_videos: int  # with or without faces, as in `counts`
    num_faces: int
    unknown_sources: int  # number of videos of unknown source
    # By split, class, manipulation and compression; the split of excluded videos is "".
    counts: list[FaceCount]
    fake_share: dict[str, float | None]  # of the labelled faces of a split; None if it has none
    without_faces: dict[str, int]  # class to number of videos without a face
    reasons: dict[str, str]  # video id to reason, of the first MAX_LISTED of these
    excluded: dict[str, int]  # reason to number of videos that the layout excluded
    excluded_by_split: dict[str, int]  # the same of the split table; "" for no stated reason
    missing: int  # files that the lists of the dataset name and its folder lacks
    unrecognized: int  # files in its folder that the layout does not use
    notes: list[str]  # sentences on what is uncertain, such as how files were grouped
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
    uncertain: list[str]  # why there may be leakage that was not found, one sentence per reason
    leakage: str  # `found`, `not ruled out` (if some of it is uncertain) or `none`


def audit(directories: Sequence[str | Path], split_table: str = OFFICIAL) -> AuditResult:
    """Audit one or more prepared datasets.

    Args:
        directories: The datasets. Sources and faces in the training split of one and the test
            split of another are leakage too.
        split_table: Name of the split table of all datasets, or the path of one. The faces of a
            dataset without the official table are not split, and are not compared.

    Raises:
        OSError: If a folder is not a prepared dataset, or has no such split table.
        ValueError: If one is damaged, given twice, or has another format version; or the split
            table is damaged or of another dataset.

    Example:
        >>> result = audit(["prepared"])
        >>> result.datasets[0].num_videos, result.num_shared_sources
        (16, 0)
    """
    named = _name_datasets([Path(directory) for directory in directories])
    split_tables = {name: _read_table(path, split_table) for name, path in named.items()}
    compared = [*COLUMNS, "split", *LOCATION]
    faces = {
        name: _read_faces(directory, split_tables[name], [*compared, *STATISTICS])
        for name, directory in named.items()
    }
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
    not_split = [f"{name} is not split" for name, table in split_tables.items() if table is None]
    uncertain = [f"{leakage.unknown}: footage may be in two splits"] if leakage.unknown else []
    uncertain += [f"{reason}: its faces are not compared" for reason in not_split]
    return AuditResult(
        datasets=[
            _describe_dataset(name, directory, split_tables[name], faces[name])
            for name, directory in named.items()
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
        uncertain=uncertain,
        leakage="found" if failed else "not ruled out" if uncertain else "none",
    )


def _read_table(directory: Path, name: str) -> SplitTable | None:
    """Read a split table; None if it is the official one, which some datasets do not have."""
    if name == OFFICIAL and OFFICIAL not in list_split_tables(directory):
        return None
    return read_split_table(directory, name)


def _read_faces(directory: Path, table: SplitTable | None, columns: list[str]) -> pa.Table:
    if table:
        return read_faces(directory, split_table=table.name, columns=columns)
    faces = read_faces(directory, split_table="", columns=columns)
    splits = pa.repeat("", len(faces)).dictionary_encode()  # instead of the published ones
    return faces.set_column(faces.column_names.index("split"), "split", splits)


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


def _describe_dataset(
    name: str, directory: Path, table: SplitTable | None, faces: pa.Table
) -> DatasetStatistics:
    videos, listing = read_videos(directory), read_listing(directory)
    split_of, excluded = (table.split_of, table.excluded) if table else ({}, {})
    without = [
        dataclasses.replace(row, split=split_of.get(row.video_id, ""))
        for row in videos
        if not row.num_faces
    ]
    counts = count_by(faces, "split", "label", "manipulation", "compression", without_faces=without)
    num_faces: Counter[tuple] = Counter()
    for group in counts:
        num_faces[group.split, group.label] += group.num_faces
    num_labelled = {
        split: num_faces[split, "fake"] + num_faces[split, "real"]
        for split in (SPLITS if table else ("",))
    }
    return DatasetStatistics(
        name=name,
        directory=str(directory),
        split_table=table.name if table else "",
        other_tables=[n for n in list_split_tables(directory) if not table or n != table.name],
        strategy=table.options.strategy if table else "",
        num_videos=len(videos),
        num_faces=len(faces),
        unknown_sources=sum(not has_known_source(row.source_ids) for row in videos),
        counts=counts,
        fake_share={
            split: num_faces[split, "fake"] / total if total else None
            for split, total in num_labelled.items()
        },
        without_faces=dict(Counter(LABEL_NAMES[row.label] for row in without)),
        reasons={row.video_id: row.reason for row in without[:MAX_LISTED]},
        excluded=dict(Counter(map(reason_kind, listing.excluded.values()))),
        excluded_by_split=dict(Counter(map(reason_kind, excluded.values()))),
        missing=len(listing.missing),
        unrecognized=len(listing.unrecognized),
        notes=listing.notes,
        formats=_count_formats(videos),
        shortcuts=measure_shortcuts(videos, faces),
    )


def _count_formats(videos: list[VideoRow]) -> list[FormatCount]:
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for row in videos:
        if row.codec:
            counts[row.container, row.codec, row.pixel_format][LABEL_NAMES[row.label]] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return [FormatCount(*names, dict(by_class)) for names, by_class in ordered]


def _find_common_sources(faces: dict[str, pa.Table]) -> list[CommonSources]:
    sources = {name: set(chain(*read_sources(table).values())) for name, table in faces.items()}
    return [
        CommonSources((one, other), len(common), sorted(common)[:MAX_LISTED])
        for one, other in combinations(sources, 2)
        if (common := sources[one] & sources[other])
    ]
