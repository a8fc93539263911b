"""Leakage: sources and near-duplicate faces that two subsets of the data share.

Takes columns of manifests, by subset: the splits of a dataset, or training and evaluation faces.
Reads no images.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.hashing import find_near_duplicates, unpack_hashes
from jdfd_keras.datasets.videos import SPLITS, dataset_namespace
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result

COLUMNS = ("video_id", "source_ids", "phash")
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class SharedSource(Result):
    """Footage in two or more subsets.

    Attributes:
        source: Its namespace and id, such as `ffpp/605`.
        videos: Name of a subset to the ids of the videos there that show it.
    """

    source: str
    videos: dict[str, list[str]]


@dataclass(frozen=True)
class NearDuplicate(Result):
    """Two videos in two subsets with nearly the same face, though they share no source.

    Attributes:
        subsets: Names of the subsets.
        videos: Ids of the videos.
        num_faces: Pairs of near-duplicate faces.
        bits: Different bits, of 256, in the most similar pair.
        rows: Rows of that pair in the tables of the two subsets.
    """

    subsets: tuple[str, str]
    videos: tuple[str, str]
    num_faces: int
    bits: int
    rows: tuple[int, int]


@dataclass(frozen=True)
class Leakage(Result):
    """Sources and faces that subsets share; false if there are none.

    Attributes:
        shared_sources: Sorted by name.
        near_duplicates: Pairs of videos, those with the most faces first.
    """

    shared_sources: list[SharedSource]
    near_duplicates: list[NearDuplicate]

    def __bool__(self) -> bool:
        return bool(self.shared_sources or self.near_duplicates)


@dataclass(frozen=True)
class _Subset:
    names: list[str]  # of the videos
    sources: list[tuple[str, ...]]  # of the videos
    video: np.ndarray  # int64[n], index of the video of each face


def find_leakage(subsets: Mapping[str, pa.Table]) -> Leakage:
    """Find the sources and near-duplicate faces that are in more than one subset.

    Faces of shared sources are not compared: they are expected to be similar.

    Args:
        subsets: Name to a table with the columns COLUMNS, one row per face.

    Raises:
        ValueError: If a hash is invalid.

    Example:
        >>> faces = {"video_id": ["a/1"], "source_ids": [["anna"]], "phash": ["0" * 64]}
        >>> leakage = find_leakage({"train": pa.table(faces), "test": pa.table(faces)})
        >>> leakage.shared_sources[0].source
        'a/anna'
    """
    tables = {name: table for name, table in subsets.items() if len(table)}
    read = {name: _read_subset(table) for name, table in tables.items()}
    hashes = {name: unpack_hashes(table["phash"].to_pylist()) for name, table in tables.items()}
    shared_sources = _find_shared_sources(read)
    shared = {entry.source for entry in shared_sources}
    near = []
    for pair in combinations(read, 2):
        near += _find_near_duplicates(pair, read, hashes, shared)
    near.sort(key=lambda pair: (-pair.num_faces, pair.bits, pair.videos))
    return Leakage(shared_sources, near)


def find_shared_sources(subsets: Mapping[str, pa.Table]) -> list[SharedSource]:
    """Find the sources in more than one subset, by their ids only.

    Args:
        subsets: Name to a table with the columns `video_id` and `source_ids`, one row per face.

    Example:
        >>> faces = pa.table({"video_id": ["a/1"], "source_ids": [["anna"]]})
        >>> find_shared_sources({"train": faces, "test": faces})
        [SharedSource(source='a/anna', videos={'train': ['a/1'], 'test': ['a/1']})]
    """
    return _find_shared_sources(
        {name: _read_subset(table) for name, table in subsets.items() if len(table)}
    )


def by_split(table: pa.Table) -> dict[str, pa.Table]:
    """Split a table by its column `split`.

    Example:
        >>> {name: len(rows) for name, rows in by_split(pa.table({"split": ["val"]})).items()}
        {'train': 0, 'val': 1, 'test': 0}
    """
    splits = np.asarray(table["split"].cast(pa.string()))
    return {split: table.filter(pa.array(splits == split)) for split in SPLITS}


def read_sources(table: pa.Table) -> set[str]:
    """Return the sources of a table, with their namespaces.

    Args:
        table: Columns `video_id` and `source_ids`, one row per face.

    Example:
        >>> read_sources(pa.table({"video_id": ["a/1"], "source_ids": [["anna"]]}))
        {'a/anna'}
    """
    return {source for sources in _read_subset(table).sources for source in sources}


def describe_leakage(leakage: Leakage, *, checked: str) -> str:
    """Describe leakage in one sentence, for a report.

    Args:
        leakage: Result of `find_leakage`.
        checked: Names of the subsets, such as `training and validation`.

    Example:
        >>> describe_leakage(Leakage([], []), checked="training and validation")
        'none between training and validation: no shared source, no near-duplicate face'
    """
    if not leakage:
        return f"none between {checked}: no shared source, no near-duplicate face"
    return (
        f"{plural(len(leakage.shared_sources), 'source')} shared and "
        f"{plural(len(leakage.near_duplicates), 'pair')} of videos with near-duplicate faces "
        f"between {checked}; allowed by --allow-leak"
    )


def raise_on_leakage(leakage: Leakage, subject: str, advice: str) -> None:
    """Raise an error if there is leakage.

    Args:
        leakage: Result of `find_leakage`.
        subject: What was checked, for the message.
        advice: What to try, for the message.

    Raises:
        ValueError: If there is leakage; the message has the first examples.

    Example:
        >>> raise_on_leakage(Leakage([], []), "the splits", "Prepare it with --split strict.")
    """
    if not leakage:
        return
    examples = [
        f"source {entry.source} in {' and '.join(entry.videos)}" for entry in leakage.shared_sources
    ] + [
        f"{pair.videos[0]} ({pair.subsets[0]}) looks like {pair.videos[1]} ({pair.subsets[1]})"
        for pair in leakage.near_duplicates
    ]
    raise ValueError(
        f"Expected {subject} to share no footage; got "
        f"{plural(len(leakage.shared_sources), 'shared source')} and "
        f"{plural(len(leakage.near_duplicates), 'pair')} of videos with near-duplicate faces: "
        f"{'; '.join(examples[:MAX_EXAMPLES])}{' ...' if len(examples) > MAX_EXAMPLES else '.'} "
        f"{advice}"
    )


def _read_subset(table: pa.Table) -> _Subset:
    column = table["video_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    video = column.indices.to_numpy().astype(np.int64)
    names = column.dictionary.to_pylist()
    _, first = np.unique(video, return_index=True)
    source_ids = table["source_ids"].take(pa.array(first)).to_pylist()
    return _Subset(
        names=names,
        sources=[
            tuple(f"{dataset_namespace(name)}/{source}" for source in ids)
            for name, ids in zip(names, source_ids, strict=True)
        ],
        video=video,
    )


def _find_shared_sources(subsets: Mapping[str, _Subset]) -> list[SharedSource]:
    videos: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, subset in subsets.items():
        for video_id, sources in zip(subset.names, subset.sources, strict=True):
            for source in sources:
                videos[source][name].append(video_id)
    return [
        SharedSource(source, {name: sorted(ids) for name, ids in by_subset.items()})
        for source, by_subset in sorted(videos.items())
        if len(by_subset) > 1
    ]


def _find_near_duplicates(
    pair: tuple[str, str],
    subsets: Mapping[str, _Subset],
    hashes: Mapping[str, np.ndarray],
    shared: set[str],
) -> list[NearDuplicate]:
    one, other = (subsets[name] for name in pair)
    rows = [
        np.flatnonzero(np.array([shared.isdisjoint(ids) for ids in subset.sources])[subset.video])
        for subset in (one, other)
    ]
    a, b, bits = find_near_duplicates(
        *(hashes[name][indices] for name, indices in zip(pair, rows, strict=True))
    )
    a, b = rows[0][a], rows[1][b]
    videos = np.stack([one.video[a], other.video[b]], axis=1)
    # Pairs are sorted by bits, so the first pair of two videos is the most similar one.
    unique, first, counts = np.unique(videos, axis=0, return_index=True, return_counts=True)
    return [
        NearDuplicate(
            subsets=pair,
            videos=(one.names[v], other.names[w]),
            num_faces=int(count),
            bits=int(bits[index]),
            rows=(int(a[index]), int(b[index])),
        )
        for (v, w), index, count in zip(unique, first, counts, strict=True)
    ]
