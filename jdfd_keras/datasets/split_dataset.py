"""Splitting of a prepared dataset: from its videos and a rule to split tables.

Reads tables only, so that any number of splits cost one extraction of the faces.
"""

import dataclasses
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from jdfd_keras.datasets.leakage import SharedSource, find_shared_sources
from jdfd_keras.datasets.manifest import VideoRow, read_faces, read_videos
from jdfd_keras.datasets.split_tables import (
    FACE_KEY,
    SplitTable,
    list_split_tables,
    read_split_table,
    write_split_table,
)
from jdfd_keras.datasets.splits import (
    FOLDED,
    CannotSplitError,
    assign_splits,
    classes_to_split,
    list_manipulations,
    reason_kind,
)
from jdfd_keras.datasets.videos import (
    CLASSES,
    LABEL_NAMES,
    SPLITS,
    Listing,
    Video,
    has_known_source,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import SplitOptions

_SOURCES = pa.schema([("video_id", pa.string()), ("source_ids", pa.list_(pa.string()))])


@dataclass(frozen=True)
class SplitSummary(Result):
    """A split table that `split_dataset` wrote.

    Attributes:
        name: Name of the table, for `--split-table`.
        path: Path of the table.
        options: Options it was made with.
        counts: Split to class (`real`, `fake` and, if any, `unlabelled`) to number of videos, or
            of faces if the table splits faces.
        of_faces: Whether it splits faces.
        excluded: Reason to number of videos.
        shared_sources: Sources that are in two splits.
        unknown_sources: Number of videos of unknown source, which may share footage.
        faceless: Groups such as `fake in val` that have videos, but no face.
    """

    name: str
    path: str
    options: SplitOptions
    counts: dict[str, dict[str, int]]
    of_faces: bool
    excluded: dict[str, int]
    shared_sources: list[SharedSource]
    unknown_sources: int
    faceless: list[str]


def split_dataset(
    directory: str | Path, options: SplitOptions | None = None, name: str = ""
) -> list[SplitSummary]:
    """Split a prepared dataset: write one split table, or one per fold if no fold is given.

    Args:
        directory: The prepared dataset.
        options: The strategy, its fold, shares and seed.
        name: Name of the table; default: from the options, such as `kfold-0-of-5`. With several
            folds, `-0`, `-1` and so on are added.

    Returns:
        A summary of each table, in the order of the folds. A table with the same name and options
        is left unchanged.

    Raises:
        OSError: If the folder is not a prepared dataset.
        ValueError: If an option is out of range, the dataset has too few videos, sources or
            manipulations, or there is another table of this name. No table is then written.

    Example:
        >>> tables = split_dataset("prepared", SplitOptions(strategy="kfold", folds=3))
        >>> [table.name for table in tables], tables[0].counts["test"]
        (['kfold-0-of-3', 'kfold-1-of-3', 'kfold-2-of-3'], {'real': 3, 'fake': 3})
    """
    options, rows = _drop_unused(options or SplitOptions()), read_videos(directory)
    listing = list_rows(rows)
    folds = _list_folds(listing, options)
    tables, problems = [], []
    for fold in folds:
        own = dataclasses.replace(options, fold=fold)
        if name:
            table_name = f"{name}-{fold}" if len(folds) > 1 else name
        else:
            table_name = _default_name(own, listing)
        if table_name in {chosen for chosen, *_ in tables}:  # manipulations such as A/B and A B
            table_name += f"-{fold}"
        _check_name(directory, table_name, own)
        is_paper = own.strategy == "paper"
        try:
            assign = functools.partial(_assign_faces, directory) if is_paper else assign_rows
            table = assign(listing, own)
        except CannotSplitError as error:
            if len(folds) == 1:
                raise
            problems.append(f"{table_name} (--fold {fold}): {error}")
            continue
        tables.append((table_name, table, own))
    if problems:
        raise CannotSplitError(
            f"Expected {len(folds)} folds; got {len(problems)} that cannot be made: "
            f"{' '.join(problems)} Or make the others with --fold, one by one."
        )
    store, existing = LocalStore(str(directory)), list_split_tables(directory)
    return [
        summarize_split(
            read_split_table(store, table_name)
            if table_name in existing
            else write_split_table(store, table_name, table, own),
            rows,
        )
        for table_name, table, own in tables
    ]


def list_rows(rows: Sequence[VideoRow]) -> Listing:
    """Return the videos of a prepared dataset as a listing, with their published splits.

    Example:
        >>> len(list_rows(read_videos("prepared")).videos)
        16
    """
    subjects = {row.video_id: row.subjects for row in rows if row.subjects}
    return Listing(list(rows), subjects=subjects)


def assign_rows(listing: Listing, options: SplitOptions) -> pd.DataFrame:
    """Return the rows of a split table of videos, by any strategy but `paper`.

    Example:
        >>> rows = assign_rows(list_rows(read_videos("prepared")), SplitOptions())
        >>> rows["split"].value_counts().to_dict()
        {'train': 10, 'val': 4, 'test': 2}
    """
    used, excluded = assign_splits(listing, options)
    split = {video.video_id: video.split for video in used}
    names = [video.video_id for video in listing.videos]
    return pd.DataFrame(
        {
            "video_id": names,
            "split": [split.get(name, "") for name in names],
            "reason": [excluded.get(name, "") for name in names],
        }
    )


def summarize_split(table: SplitTable, videos: Sequence[VideoRow]) -> SplitSummary:
    """Count the videos of a split table, and find the sources that its splits share.

    Example:
        >>> table = read_split_table("prepared", "official")
        >>> summarize_split(table, read_videos("prepared")).unknown_sources
        0
    """
    by_id = {video.video_id: video for video in videos}
    pairs = list(zip(table.rows["video_id"], table.rows["split"], strict=True))
    counts = Counter((split, LABEL_NAMES[by_id[name].label]) for name, split in pairs)
    with_faces = {
        (split, LABEL_NAMES[by_id[name].label]) for name, split in pairs if by_id[name].num_faces
    }
    classes = [n for n in LABEL_NAMES.values() if n in CLASSES or any(n in key for key in counts)]
    split = set(table.split_of) - set(table.excluded)
    return SplitSummary(
        name=table.name,
        path=table.path,
        options=table.options,
        counts={name: {kind: counts[name, kind] for kind in classes} for name in SPLITS},
        of_faces=table.of_faces,
        excluded=dict(Counter(map(reason_kind, table.excluded.values()))),
        shared_sources=find_shared_splits(table.rows, videos),
        unknown_sources=sum(not has_known_source(by_id[name].source_ids) for name in split),
        faceless=[
            f"{kind} in {name}"
            for name in SPLITS
            for kind in classes
            if counts[name, kind] and (name, kind) not in with_faces
        ],
    )


def find_shared_splits(rows: pd.DataFrame, videos: Sequence[Video]) -> list[SharedSource]:
    """Find the sources that are in two splits of the rows of a split table, by their ids only.

    Example:
        >>> table = read_split_table("prepared", "official")
        >>> find_shared_splits(table.rows, read_videos("prepared"))
        []
    """
    sources = {video.video_id: list(video.source_ids) for video in videos}
    subsets = {}
    for name in SPLITS:
        names = rows.loc[rows["split"] == name, "video_id"].unique().tolist()
        columns = {"video_id": names, "source_ids": [sources[video_id] for video_id in names]}
        subsets[name] = pa.table(columns, schema=_SOURCES)
    return find_shared_sources(subsets)


def split_faces(
    faces: Sequence[tuple[str, int]], *, val_share: float, test_share: float, seed: int
) -> list[str]:
    """Draw a split for every single face, as in the paper's Table 1.

    Faces of one video are in all splits, so a detector is tested on subjects, locations and cameras
    that it was trained on.

    Args:
        faces: Video id and position in the video of each face, without repetition.
        val_share: Share for validation, exact except for rounding.
        test_share: Share for testing, exact except for rounding.
        seed: Seed of the draw, which does not depend on the order of the faces.

    Returns:
        `train`, `val` or `test` for every face.

    Example:
        >>> faces = [("clips/a", position) for position in range(10)]
        >>> split_faces(faces, val_share=0.1, test_share=0.1, seed=0).count("train")
        8
    """
    keys = [
        hashlib.sha256(f"{seed} {video_id} {position}".encode()).digest()[:16]
        for video_id, position in faces
    ]
    num_test, num_val = round(test_share * len(faces)), round(val_share * len(faces))
    splits = ["train"] * len(faces)
    for rank, index in enumerate(sorted(range(len(faces)), key=keys.__getitem__)):
        if rank < num_test + num_val:
            splits[index] = "test" if rank < num_test else "val"
    return splits


def _assign_faces(directory: str | Path, listing: Listing, options: SplitOptions) -> pd.DataFrame:
    """Return the rows of a split table of faces, by the paper's rule."""
    _, excluded = assign_splits(listing, options)
    faces = read_faces(directory, split_table="", columns=[*FACE_KEY, "label"]).to_pandas()
    faces["video_id"] = faces["video_id"].astype(object)
    faces = faces.sort_values(list(FACE_KEY), kind="stable", ignore_index=True)
    position = faces.groupby("video_id").cumcount()
    faces["reason"] = [excluded.get(name, "") for name in faces["video_id"]]
    used = faces["reason"] == ""
    faces["split"] = ""
    faces.loc[used, "split"] = split_faces(
        list(zip(faces["video_id"][used], position[used], strict=True)),
        val_share=options.val_share,
        test_share=options.test_share,
        seed=options.seed,
    )
    found = set(zip(faces["split"], faces["label"], strict=True))
    classes = classes_to_split(faces["label"])
    if lacking := [
        f"{kind} faces in {name}"
        for name in SPLITS
        for kind, label in classes.items()
        if (name, label) not in found
    ]:
        raise CannotSplitError(
            "Expected enough faces for a training, a validation and a test split with "
            f"{' and '.join(classes)} faces each; got {plural(int(used.sum()), 'face')}, which "
            f"leaves no {', no '.join(lacking)}. Prepare more videos, or try larger shares."
        )
    return faces[[*FACE_KEY, "split", "reason"]]


def _list_folds(listing: Listing, options: SplitOptions) -> list[int | None]:
    """List the folds of a rule: those of kfold, the manipulations of leave-one-out, else one."""
    if options.fold is not None or options.strategy not in FOLDED:
        return [options.fold]
    if options.strategy == "kfold":
        return list(range(options.folds)) or [0]
    return list(range(len(list_manipulations(listing.videos)))) or [0]


def _drop_unused(options: SplitOptions) -> SplitOptions:
    """Return the options with defaults where the strategy has no use for one."""
    unused = {"folds": SplitOptions.folds}
    if options.strategy == "kfold":
        unused = {"val_share": SplitOptions.val_share, "test_share": SplitOptions.test_share}
    return dataclasses.replace(options, **unused)


def _default_name(options: SplitOptions, listing: Listing) -> str:
    name = options.strategy
    if options.strategy == "kfold":
        name += f"-{options.fold}-of-{options.folds}"
    elif options.strategy == "leave-one-out" and options.fold is not None:
        manipulations = list_manipulations(listing.videos)[options.fold : options.fold + 1]
        name += "".join(f"-{_to_name(held_out)}" for held_out in manipulations)
    if options.base != SplitOptions.base:
        name += f"-{options.base}"
    if options.compression != "all":
        name += f"-{_to_name(options.compression)}"
    return f"{name}-seed-{options.seed}" if options.seed else name


def _to_name(text: str) -> str:
    return re.sub(r"[^\w+.-]+", "-", text)


def _check_name(directory: str | Path, name: str, options: SplitOptions) -> None:
    """Check that a name is valid, and not that of a table with other options."""
    if not re.fullmatch(r"\w[\w+.-]*", name) or name.endswith(".csv"):
        raise ValueError(
            f"Expected a name of letters, digits, -, _, + and . for a split table; got {name!r}. "
            "Omit --name to use the default."
        )
    if name in list_split_tables(directory):
        old, new = vars(read_split_table(directory, name).options), vars(options)
        changed = [f"{key} {old[key]!r} -> {new[key]!r}" for key in new if old[key] != new[key]]
        if changed:
            raise ValueError(
                f"Expected a new name for a split table with other options; got {name}, which "
                f"{directory} has already ({', '.join(changed)}). Choose another --name."
            )
