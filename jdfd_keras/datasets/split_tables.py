"""Split tables: the split of every video, or face, of a prepared dataset, as a small CSV file.

    <dataset>/splits/NAME.csv     video_id,split,reason; an excluded video has no split
    <dataset>/splits/NAME.json    the options that the table was made with

A dataset has as many as needed, since its faces are stored without their splits. A table of your
own is a CSV file with the columns video_id and split.
"""

import csv
import functools
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from jdfd_keras.datasets.videos import SPLITS
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import load_options, to_json, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore, Store, local_path, write_text
from jdfd_keras.options import SplitOptions

FOLDER = "splits"
OFFICIAL = "official"  # the table that `prepare` writes
OWN = "own table"  # strategy of a table without options
FACE_KEY = ("video_id", "frame_index", "track_id")
_LISTED = 5


@dataclass(frozen=True, eq=False)
class SplitTable(Result):
    """A split of a prepared dataset.

    Attributes:
        name: Its name, or the path of a file that is not in the dataset.
        path: Path of the file.
        options: Options it was made with.
        rows: Columns `video_id`, `split` (`train`, `val`, `test` or "", if excluded) and `reason`;
            one row per video or, if it also has `frame_index` and `track_id`, per face.
    """

    name: str
    path: str
    options: SplitOptions
    rows: pd.DataFrame = field(repr=False, metadata={"json": False})

    @property
    def of_faces(self) -> bool:
        """Whether it splits single faces instead of videos."""
        return "frame_index" in self.rows.columns

    @functools.cached_property
    def split_of(self) -> dict[str, str]:
        """Video id to split; "" for all videos if the table splits faces."""
        rows = self.rows.drop_duplicates("video_id")
        splits = [""] * len(rows) if self.of_faces else rows["split"]
        return dict(zip(rows["video_id"], splits, strict=True))

    @property
    def excluded(self) -> dict[str, str]:
        """Excluded video to the reason, "" if the table states none."""
        rows = self.rows[self.rows["split"] == ""]
        return dict(zip(rows["video_id"], rows["reason"], strict=True))

    def assign(self, faces: pa.Table) -> np.ndarray:
        """Return the split of each face: object[n], "" for those of excluded videos.

        Args:
            faces: All faces of the dataset, with the columns FACE_KEY.

        Raises:
            ValueError: If the table is of another dataset.
        """
        video_ids = faces["video_id"].cast(pa.string()).combine_chunks().dictionary_encode()
        if not self.of_faces:
            names = video_ids.dictionary.to_pylist()
            self.check_videos(names)
            splits = np.array([self.split_of[name] for name in names], object)
            return splits[video_ids.indices.to_numpy()]
        keys = pd.DataFrame({name: faces[name].to_pandas() for name in FACE_KEY})
        keys["video_id"] = keys["video_id"].astype(object)
        rows = self.rows.astype({"frame_index": np.int64, "track_id": np.int64})
        if len(rows) > len(keys):
            raise self._other_dataset(f"rows for {plural(len(rows) - len(keys), 'other face')}")
        merged = keys.merge(rows, on=list(FACE_KEY), how="left")["split"]
        absent = merged.isna().to_numpy()
        if absent.any():
            face = keys[absent].iloc[0]
            raise self._other_dataset(
                f"no row for frame {face.frame_index}, track {face.track_id} of {face.video_id}"
            )
        return merged.to_numpy(object)

    def check_videos(self, video_ids: Iterable[str], *, is_all: bool = False) -> None:
        """Check that the table has these videos and, if they are all, no others.

        A table that splits faces has no row for a video without a face: `assign` checks its rows.
        """
        video_ids = set(video_ids)
        absent = sorted(video_ids - self.split_of.keys())
        if absent and not self.of_faces:
            raise self._other_dataset(f"no row for {_name_some(absent)}")
        if is_all and (others := sorted(self.split_of.keys() - video_ids)):
            raise self._other_dataset(f"rows for other videos, {_name_some(others)}")

    def _other_dataset(self, problem: str) -> ValueError:
        return ValueError(
            f"Expected a split table of this dataset, with its videos and no others; got "
            f"{self.path}, which has {problem}. It is of another dataset: create one with "
            "`jdfd-keras split`."
        )


def write_split_table(
    store: Store, name: str, rows: pd.DataFrame, options: SplitOptions
) -> SplitTable:
    """Write a split table of a prepared dataset, first its options, so that it is never half-made.

    Example:
        >>> rows = pd.DataFrame({"video_id": ["a/1"], "split": ["test"], "reason": [""]})
        >>> write_split_table(LocalStore("tables"), "mine", rows, SplitOptions()).excluded
        {}
    """
    texts = {
        f"{FOLDER}/{name}.json": to_json({"split": options}),
        f"{FOLDER}/{name}.csv": rows.to_csv(index=False, lineterminator="\n"),
    }
    for file, text in texts.items():
        if isinstance(store, LocalStore):  # without its folder of unfinished work
            store.path(file).parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(store.path(file), text)
        else:
            write_text(store, file, text)
    return SplitTable(name, f"{store.location}/{FOLDER}/{name}.csv", options, rows)


def read_split_table(directory: str | Path | Store, name: str) -> SplitTable:
    """Read a split table.

    Args:
        directory: The prepared dataset.
        name: Name of one of its tables, or the path of a CSV file.

    Raises:
        OSError: If there is no such table.
        ValueError: If it is damaged; lines are named.

    Example:
        >>> read_split_table("prepared", "official").rows["split"].value_counts()["train"]
        np.int64(10)
    """
    if not name:
        raise ValueError("Expected the name of a split table; got an empty one. Try official.")
    if name.endswith(".csv"):
        store, stem = LocalStore(str(Path(name).parent)), Path(name).stem
        path = name
    else:
        store, stem = _open(directory), f"{FOLDER}/{name}"
        path = f"{store.location}/{stem}.csv"
    if not store.exists(f"{stem}.csv"):
        names = ", ".join(list_split_tables(directory)) or "none, as it has not been split"
        raise FileNotFoundError(
            f"Expected the split table {name!r} of {_open(directory).location}; got {names}. "
            "Create it with `jdfd-keras split`; to evaluate all faces, --split all needs none."
        )
    with store.open(f"{stem}.csv") as file:
        rows = _parse(file.read(), path)
    options = SplitOptions(strategy=OWN)
    if store.exists(f"{stem}.json"):
        with local_path(store, f"{stem}.json") as copy:
            options = load_options(copy, "split", SplitOptions)
    return SplitTable(name, path, options, rows)


def find_table_or_official(directory: str | Path, name: str) -> str:
    """Return the name of a split table if a dataset has it, or else the official or none, "".

    For a dataset that is used beside the one that was split so.

    Example:
        >>> find_table_or_official("prepared", "kfold-0-of-5")
        'official'
    """
    existing = list_split_tables(directory)
    return next((table for table in (name, OFFICIAL) if table in existing), "")


def absolute_name(name: str) -> str:
    """Return the name of a split table, or the absolute path if it is a file.

    Example:
        >>> absolute_name("official"), absolute_name("/data/mine.csv")
        ('official', '/data/mine.csv')
    """
    return str(Path(name).resolve()) if name.endswith(".csv") else name


def list_split_tables(directory: str | Path | Store) -> list[str]:
    """List the names of the split tables of a prepared dataset.

    Example:
        >>> "official" in list_split_tables("prepared")
        True
    """
    names = (name.rsplit("/", 1)[-1] for name in _open(directory).list(FOLDER))
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


def _open(directory: str | Path | Store) -> Store:
    return LocalStore(str(directory)) if isinstance(directory, str | Path) else directory


def _name_some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _parse(content: bytes, path: str) -> pd.DataFrame:
    """Parse the text of a table; raise ValueError with the lines of invalid rows."""
    rows = _read_csv(content, path)
    is_face = "frame_index" in rows or "track_id" in rows
    needed = [*(FACE_KEY if is_face else FACE_KEY[:1]), "split"]
    if absent := [name for name in needed if name not in rows]:
        raise ValueError(
            f"Expected the columns {', '.join(needed)} in {path}; got no {', '.join(absent)}. Add "
            "them, or create the table with `jdfd-keras split`."
        )
    if "reason" not in rows:
        rows["reason"] = ""
    allowed = {"split": f"({'|'.join(SPLITS)})?"} | dict.fromkeys(needed[1:-1], "[0-9]{1,18}")
    invalid = [
        f"line {line}: {name} {value!r}"
        for name, pattern in allowed.items()
        for line, value in zip(rows.index, rows[name].tolist(), strict=True)
        if not re.fullmatch(pattern, value)
    ]
    for line in rows.index[rows.duplicated(list(needed[:-1]))]:
        invalid.append(f"line {line}: a second row for {rows['video_id'][line]}")
    if invalid:
        raise ValueError(
            f"Expected one row per {'face' if is_face else 'video'}, with the split train, val, "
            f"test or none, in {path}; got {len(invalid)} invalid: {_name_some(invalid)}. "
            "Correct these lines, or create the table with `jdfd-keras split`."
        )
    return rows.reset_index(drop=True)


def _read_csv(content: bytes, path: str) -> pd.DataFrame:
    """Read the columns of a CSV file as text; the index has the line of each row."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise ValueError(f"line 1: {', '.join(columns)}")
        lines, rows = [], []
        for row in reader:
            if row and len(row) != len(columns):
                raise ValueError(f"line {reader.line_num}: {plural(len(row), 'field')}")
            if row:
                lines.append(reader.line_num)
                rows.append(row)
    except (ValueError, csv.Error) as error:  # also of the encoding
        raise ValueError(
            f"Expected a CSV file with the columns video_id and split at {path}, and as many "
            f"fields in each line; got '{error}'. Create it again with `jdfd-keras split`."
        ) from error
    return pd.DataFrame(rows, pd.Index(lines), columns, dtype=object)
