"""Summary of a prepared dataset, read from its tables."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from jdfd_keras.datasets import manifest
from jdfd_keras.datasets.leakage import SharedSource
from jdfd_keras.datasets.prepare_tasks import VideoFile
from jdfd_keras.datasets.split_dataset import find_shared_splits
from jdfd_keras.datasets.split_tables import (
    OFFICIAL,
    list_split_tables,
    read_split_table,
)
from jdfd_keras.datasets.videos import (
    CLASSES,
    LABEL_NAMES,
    SPLITS,
    Video,
    count_by,
    has_known_source,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import Store


@dataclass(frozen=True)
class PreparedDataset(Result):
    """Summary of a prepared dataset.

    Attributes:
        videos: Number of its videos, with or without faces.
        faces: Class (`real`, `fake` and, if any, `unlabelled`) to number of faces.
        splits: The same by split, of the official split table; empty if there is none.
        not_split: Why there is no official split table; "" if there is one.
        filtered: Reason to number of faces that were found and filtered out.
        excluded: Video id to reason, of the videos that the layout or the official split excluded,
            and of those without a face.
        without_faces: Ids of the excluded videos without a face.
        paths: Video id to path in the source folder, of these.
        warnings: Video id to warning, of the damaged videos that still decoded.
        missing: Files that the lists of the dataset name and its folder lacks.
        unrecognized: Files in the folder that the layout does not use.
        notes: Sentences on what is uncertain about the layout, such as how files were grouped.
        shared_sources: Sources in two official splits; `audit` compares the faces too.
        unknown_sources: Number of videos of unknown source, which may share footage.
    """

    directory: str
    videos: int
    faces: dict[str, int]
    splits: dict[str, dict[str, int]]
    not_split: str
    filtered: dict[str, int]
    excluded: dict[str, str]
    without_faces: list[str]
    paths: dict[str, str]
    warnings: dict[str, str]
    missing: list[str]
    unrecognized: list[str]
    notes: list[str]
    shared_sources: list[SharedSource]
    unknown_sources: int


def check_videos(out: Store, items: Sequence[VideoFile]) -> None:
    """Check that a dataset was prepared from these videos.

    Raises:
        ValueError: If it was prepared from others, or their labels or published splits differ.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> check_videos(LocalStore("prepared"), [])
        Traceback (most recent call last):
        ValueError: Expected the videos that prepared was prepared from, ...
    """
    rows = manifest.read_videos(out)
    # Also their labels, sources and published splits, which a table may state otherwise now.
    names = [field.name for field in dataclasses.fields(Video)]
    stored = {(row.file_bytes, Video(*(getattr(row, name) for name in names))) for row in rows}
    difference = stored ^ {(item.file_bytes, item.video) for item in items}
    if changed := sorted({video.video_id for _, video in difference}):
        raise ValueError(
            f"Expected the videos that {out.location} was prepared from, with their labels and "
            f"published splits; got a difference in {plural(len(changed), 'video')}, such as "
            f"{changed[0]}. Prepare it into another --out."
        )


def summarize_prepared(out: Store, not_split: str = "") -> PreparedDataset:
    """Read a prepared dataset back.

    Args:
        out: The prepared dataset.
        not_split: Why there is no official split table.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> summarize_prepared(LocalStore("prepared")).videos
        16
    """
    rows, listing = manifest.read_videos(out), manifest.read_listing(out)
    is_split = OFFICIAL in list_split_tables(out)
    columns = ["video_id", "label", *(["split"] if is_split else [])]
    faces = manifest.read_faces(out, columns=columns)
    reasons = {row.video_id: row.reason for row in rows if not row.num_faces}
    table = read_split_table(out, OFFICIAL) if is_split else None
    counts = {group.label or "": group.num_faces for group in count_by(faces, "label")}
    classes = [name for name in LABEL_NAMES.values() if name in CLASSES or name in counts]
    by_split = {(g.split, g.label): g.num_faces for g in count_by(faces, *columns[2:], "label")}
    return PreparedDataset(
        directory=out.location,
        videos=len(rows),
        faces={name: counts.get(name, 0) for name in classes},
        splits={
            split: {name: by_split.get((split, name), 0) for name in classes}
            for split in (SPLITS if is_split else ())
        },
        not_split="" if is_split else not_split,
        filtered=manifest.count_filtered(rows),
        excluded=listing.excluded | (table.excluded if table else {}) | reasons,
        without_faces=list(reasons),
        paths={row.video_id: row.path for row in rows if not row.num_faces},
        warnings={row.video_id: row.warning for row in rows if row.warning},
        missing=listing.missing,
        unrecognized=listing.unrecognized,
        notes=listing.notes,
        shared_sources=find_shared_splits(table.rows, rows) if table else [],
        unknown_sources=sum(not has_known_source(row.source_ids) for row in rows),
    )
