"""Faces that two splits, or training and evaluation, should not share, found.

Takes the columns of manifests; gives the sources that lie on two sides, and the pairs of videos
with nearly the same face. Reads no pictures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.hashing import find_near, unpack_hashes
from jdfd_keras.datasets.videos import SPLITS, family

COLUMNS = ("video_id", "source_ids", "phash")
MOST_NAMED = 3


@dataclass(frozen=True)
class SharedSource:
    """Footage that lies on two sides or more.

    Attributes:
        source: Its family of data sets and its id, such as `ffpp/605`.
        places: Side to the ids of the videos that show it.
    """

    source: str
    places: dict[str, list[str]]


@dataclass(frozen=True)
class NearPair:
    """Two videos on two sides that have nearly the same face, though they share no source.

    Attributes:
        sides: Where they lie.
        videos: Their ids.
        num_faces: Pairs of faces that are nearly alike.
        bits: Bits of 256 in which the most alike pair differs.
        rows: Where the faces of that pair stand in the tables of the two sides.
    """

    sides: tuple[str, str]
    videos: tuple[str, str]
    num_faces: int
    bits: int
    rows: tuple[int, int]


@dataclass(frozen=True)
class Leaks:
    """What lies on two sides.

    Attributes:
        sources: Shared footage, by name.
        near: Pairs of videos; those with the most faces first.
    """

    sources: list[SharedSource]
    near: list[NearPair]

    def __bool__(self) -> bool:
        return bool(self.sources or self.near)


@dataclass(frozen=True)
class _Side:
    names: list[str]  # of the videos
    sources: list[tuple[str, ...]]  # of the videos
    video: np.ndarray  # int64[n], of each face


def find_leaks(sides: Mapping[str, pa.Table]) -> Leaks:
    """Find what lies on more than one side.

    Faces of a source that lies on two sides are not compared any more: that they are alike is
    said already.

    Args:
        sides: Name to a table with the columns COLUMNS, one row per face.

    Returns:
        The leaks; false if there are none.

    Raises:
        ValueError: If a hash is none.
    """
    sides = {name: table for name, table in sides.items() if len(table)}
    read = {name: _read_side(table) for name, table in sides.items()}
    hashes = {name: unpack_hashes(table["phash"].to_pylist()) for name, table in sides.items()}
    sources = _find_shared(read)
    shared = {entry.source for entry in sources}
    near = []
    for one, other in combinations(read, 2):
        near += _find_near((one, other), read, hashes, shared)
    near.sort(key=lambda pair: (-pair.num_faces, pair.bits, pair.videos))
    return Leaks(sources, near)


def find_shared_sources(sides: Mapping[str, pa.Table]) -> list[SharedSource]:
    """Find the footage that lies on more than one side, by name alone.

    Args:
        sides: Name to a table with the columns `video_id` and `source_ids`, one row per face.
    """
    return _find_shared({name: _read_side(table) for name, table in sides.items() if len(table)})


def by_split(table: pa.Table) -> dict[str, pa.Table]:
    """Part a table by its column `split`."""
    splits = np.asarray(table["split"].cast(pa.string()))
    return {split: table.filter(pa.array(splits == split)) for split in SPLITS}


def describe_leaks(leaks: Leaks, *, checked: str) -> str:
    """Say in a sentence what was found, for a report.

    Args:
        leaks: What was found.
        checked: Between what, such as `training and validation`.
    """
    if not leaks:
        return f"none between {checked}: no shared source, no near-duplicate face"
    return (
        f"{count_of(leaks.sources, 'source')} shared and {count_of(leaks.near, 'pair')} of videos "
        f"with near-duplicate faces between {checked}; allowed by --allow-leak"
    )


def refuse_leaks(leaks: Leaks, place: str, advice: str) -> None:
    """Stop where something leaks.

    Args:
        leaks: What was found.
        place: In what.
        advice: What to try.

    Raises:
        ValueError: If there is a leak; names the first ones.
    """
    if not leaks:
        return
    examples = [
        f"source {entry.source} in {' and '.join(entry.places)}" for entry in leaks.sources
    ] + [
        f"{pair.videos[0]} ({pair.sides[0]}) looks like {pair.videos[1]} ({pair.sides[1]})"
        for pair in leaks.near
    ]
    raise ValueError(
        f"Expected {place} to share no footage; got {count_of(leaks.sources, 'shared source')} and "
        f"{count_of(leaks.near, 'pair')} of videos with near-duplicate faces: "
        f"{'; '.join(examples[:MOST_NAMED])}{' ...' if len(examples) > MOST_NAMED else '.'} "
        f"{advice}"
    )


def count_of(items: Sequence, noun: str) -> str:
    """Say how many there are, in the plural where that is due."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _read_side(table: pa.Table) -> _Side:
    column = table["video_id"].cast(pa.string()).combine_chunks().dictionary_encode()
    video = column.indices.to_numpy().astype(np.int64)
    names = column.dictionary.to_pylist()
    _, first = np.unique(video, return_index=True)
    sources = table["source_ids"].take(pa.array(first)).to_pylist()
    return _Side(
        names=names,
        sources=[
            tuple(f"{family(name)}/{source}" for source in of)
            for name, of in zip(names, sources, strict=True)
        ],
        video=video,
    )


def _find_shared(sides: Mapping[str, _Side]) -> list[SharedSource]:
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, of in sides.items():
        for name, sources in zip(of.names, of.sources, strict=True):
            for source in sources:
                places[source][side].append(name)
    return [
        SharedSource(source, {side: sorted(names) for side, names in of.items()})
        for source, of in sorted(places.items())
        if len(of) > 1
    ]


def _find_near(
    pair: tuple[str, str],
    sides: Mapping[str, _Side],
    hashes: Mapping[str, np.ndarray],
    shared: set[str],
) -> list[NearPair]:
    one, other = (sides[name] for name in pair)
    rows = [
        np.flatnonzero(np.array([shared.isdisjoint(of) for of in side.sources])[side.video])
        for side in (one, other)
    ]
    a, b, bits = find_near(*(hashes[name][of] for name, of in zip(pair, rows, strict=True)))
    a, b = rows[0][a], rows[1][b]
    videos = np.stack([one.video[a], other.video[b]], axis=1)
    # The pairs come sorted by bits: the first of each pair of videos is the most alike.
    unique, first, counts = np.unique(videos, axis=0, return_index=True, return_counts=True)
    return [
        NearPair(
            sides=pair,
            videos=(one.names[v], other.names[w]),
            num_faces=int(count),
            bits=int(bits[at]),
            rows=(int(a[at]), int(b[at])),
        )
        for (v, w), at, count in zip(unique, first, counts, strict=True)
    ]
