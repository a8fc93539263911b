"""Leakage: sources and near-duplicate faces that two subsets of the data share.

Takes columns of manifests, by subset: the splits of a dataset, or training and evaluation faces.
Reads no images. A video of unknown source shares footage with none by its ids, so that leakage is
not ruled out by them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.hashing import find_near_duplicates, unpack_hashes
from jdfd_keras.datasets.videos import SPLITS, dataset_namespace, has_known_source
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result

COLUMNS = ("video_id", "source_ids", "phash")
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class SharedSource(Result):
    """Footage in two or more subsets."""

    source: str  # its namespace and id, such as `ffpp/605`; `video ID` if its source is unknown
    videos: dict[str, list[str]]  # name of a subset to the ids of the videos there that show it


@dataclass(frozen=True)
class NearDuplicate(Result):
    """Two videos in two subsets with nearly the same face, though they share no source."""

    subsets: tuple[str, str]
    videos: tuple[str, str]
    num_faces: int  # pairs of near-duplicate faces
    bits: int  # different ones, of 256, in the most similar pair
    rows: tuple[int, int]  # of that pair in the tables of the two subsets


@dataclass(frozen=True)
class Leakage(Result):
    """Sources and faces that subsets share; false if none was found."""

    shared_sources: list[SharedSource]  # sorted by name
    near_duplicates: list[NearDuplicate]  # those with the most faces first
    num_videos: int = 0  # compared ones
    unknown_sources: int = 0  # of these, whose source is unknown

    def __bool__(self) -> bool:
        return bool(self.shared_sources or self.near_duplicates)

    @property
    def unknown(self) -> str:
        """A part of a sentence on the videos of unknown source; "" if there are none."""
        if not self.unknown_sources:
            return ""
        videos = plural(self.num_videos, "video")
        return f"the sources of {self.unknown_sources} of {videos} are unknown"


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
    subsets = {name: table for name, table in subsets.items() if len(table)}
    shared_sources = find_shared_sources(subsets)
    shared = {entry.source for entry in shared_sources}
    faces = {name: _select_faces(table, shared) for name, table in subsets.items()}
    near = [
        pair for names in combinations(faces, 2) for pair in _find_near_duplicates(names, faces)
    ]
    near.sort(key=lambda pair: (-pair.num_faces, pair.bits, pair.videos))
    sources = {name: ids for table in subsets.values() for name, ids in read_sources(table).items()}
    num_unknown = sum(
        not has_known_source(source.split("/", 1)[1] for source in ids) for ids in sources.values()
    )
    return Leakage(shared_sources, near, len(sources), num_unknown)


def find_shared_sources(subsets: Mapping[str, pa.Table]) -> list[SharedSource]:
    """Find the sources in more than one subset, by their ids only.

    A video of unknown source is in two subsets only if its faces are.

    Args:
        subsets: Name to a table with the columns `video_id` and `source_ids`, one row per face.

    Example:
        >>> faces = pa.table({"video_id": ["a/1"], "source_ids": [["anna"]]})
        >>> find_shared_sources({"train": faces, "test": faces})
        [SharedSource(source='a/anna', videos={'train': ['a/1'], 'test': ['a/1']})]
    """
    videos: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, table in subsets.items():
        for video_id, sources in sorted(read_sources(table).items()):
            for source in sources or [_own_source(video_id)]:
                videos[source][name].append(video_id)
    return [
        SharedSource(source, dict(by_subset))
        for source, by_subset in sorted(videos.items())
        if len(by_subset) > 1
    ]


def by_split(table: pa.Table) -> dict[str, pa.Table]:
    """Split a table by its column `split`.

    Example:
        >>> {name: len(rows) for name, rows in by_split(pa.table({"split": ["val"]})).items()}
        {'train': 0, 'val': 1, 'test': 0}
    """
    splits = np.asarray(table["split"].cast(pa.string()))
    return {split: table.filter(pa.array(splits == split)) for split in SPLITS}


def read_sources(table: pa.Table) -> dict[str, list[str]]:
    """Return the sources of each video, with their namespaces.

    Args:
        table: Columns `video_id` and `source_ids`, one row per face.

    Example:
        >>> read_sources(pa.table({"video_id": ["a/1", "a/1"], "source_ids": [["anna"]] * 2}))
        {'a/1': ['a/anna']}
    """
    video_ids = table["video_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    _, first = np.unique(video_ids.indices.to_numpy(), return_index=True)
    source_ids = table["source_ids"].take(pa.array(first)).to_pylist()
    return {
        video_id: [f"{dataset_namespace(video_id)}/{source}" for source in sources]
        for video_id, sources in zip(video_ids.dictionary.to_pylist(), source_ids, strict=True)
    }


def describe_leakage(leakage: Leakage, *, checked: str) -> str:
    """Describe leakage in one sentence, for a report.

    Args:
        leakage: Result of `find_leakage`.
        checked: Names of the subsets, such as `training and validation`.

    Example:
        >>> describe_leakage(Leakage([], []), checked="training and validation")
        'none between training and validation: no shared source, no near-duplicate face'
    """
    if leakage:
        sentence = (
            f"{plural(len(leakage.shared_sources), 'source')} shared and "
            f"{plural(len(leakage.near_duplicates), 'pair')} of videos with near-duplicate faces "
            f"between {checked}; allowed by --allow-leak"
        )
        return f"{sentence}; {leakage.unknown}" if leakage.unknown else sentence
    if leakage.unknown:
        return (
            f"not ruled out between {checked}: no shared source and no near-duplicate face was "
            f"found, but {leakage.unknown}"
        )
    return f"none between {checked}: no shared source, no near-duplicate face"


def raise_on_leakage(leakage: Leakage, subject: str, advice: str) -> None:
    """Raise a ValueError with the first examples if there is leakage.

    Args:
        leakage: Result of `find_leakage`.
        subject: What was checked, for the message.
        advice: What to try, for the message.

    Example:
        >>> shared = SharedSource("a/anna", {"train": ["a/1"], "test": ["a/2"]})
        >>> raise_on_leakage(Leakage([shared], []), "the splits", "Try the strategy strict.")
        Traceback (most recent call last):
        ValueError: Expected the splits to share no footage; got 1 shared source and 0 pairs of...
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


def _own_source(video_id: str) -> str:
    """Return the name of the source of a video of unknown source, which no other video has."""
    return f"video {video_id}"


def _select_faces(table: pa.Table, shared: set[str]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return the rows of videos without shared sources, with their video ids and hashes."""
    video_ids = table["video_id"].cast(pa.string())
    compared = [
        name
        for name, ids in read_sources(table).items()
        if shared.isdisjoint(ids or [_own_source(name)])
    ]
    rows = np.flatnonzero(video_ids.to_pandas().isin(compared))
    hashes = unpack_hashes(table["phash"].take(rows).to_pylist())
    return rows, video_ids.take(rows).to_pylist(), hashes


def _find_near_duplicates(
    subsets: tuple[str, str], faces: dict[str, tuple[np.ndarray, list[str], np.ndarray]]
) -> list[NearDuplicate]:
    (rows, videos, hashes), (other_rows, other_videos, other_hashes) = (faces[n] for n in subsets)
    pairs: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for a, b, bits in zip(*find_near_duplicates(hashes, other_hashes), strict=True):
        pairs[videos[a], other_videos[b]].append((int(bits), int(rows[a]), int(other_rows[b])))
    # Faces are sorted by bits, so the first pair of two videos is the most similar one.
    return [
        NearDuplicate(subsets, names, len(found), bits=found[0][0], rows=found[0][1:])
        for names, found in pairs.items()
    ]
