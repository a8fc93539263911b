"""A table of files as a dataset: a CSV file with one row per video, image or folder of frames.

    path,label,split,source_id,manipulation,compression
    clips/anna.mp4,real,train,anna,,c23
    clips/swap7.mp4,fake,train,anna;bob,FaceSwap,c23
    crops/talk/0001.png,0,test,,,
    frames/talk2/,1,test,talk2,Deepfakes,

The columns `path` and `label` are required; the order and the case of their names do not matter.
"""

import csv
import io
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jdfd_keras.datasets.layouts.folder import SPLIT_WORDS, build_listing, probe_files
from jdfd_keras.datasets.layouts.frames import MediaEntry, natural_key
from jdfd_keras.datasets.videos import (
    IMAGE_SUFFIXES,
    LABEL_NAMES,
    DatasetFiles,
    Listing,
    has_suffix,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.storage import LocalStore

REQUIRED = ("path", "label")
COLUMNS = (*REQUIRED, "split", "source_id", "manipulation", "compression")
LABELS = {name: label for label, name in LABEL_NAMES.items()} | {"0": 0, "1": 1}
SHOWN = 5  # of invalid rows


class _Row(NamedTuple):
    """A row with cells, by the name of their column."""

    line: int
    cells: dict[str, str]


class _Problem(NamedTuple):
    line: int
    text: str


def list_table(root: DatasetFiles, table: str | Path, name: str = "") -> Listing:
    """List a dataset from a table, a CSV file in UTF-8 separated by `,`, `;` or tabs.

    - `path`: a video or image of any suffix, or a folder of frames, relative to the root or an
      absolute path in it. Images that their names state to be frames of one video are one
      (`layouts.frames`) where split and source_id are equal too.
    - `label`: real, fake, unlabelled, 0 (real) or 1 (fake).
    - `split`: train, val, valid, validation, test, or empty in all rows.
    - `source_id`: footage that the file shows, several separated by `;`. Where it is empty,
      sources are found by the names, as in the layout `folder`.
    - `manipulation`: of fakes, "fake" if empty; ignored for others. `compression`: c23 and so on.

    Args:
        root: The folder of the files.
        table: Path of the CSV file, on this machine.
        name: Name of the dataset, the first part of its video ids; that of the table's file,
            without its suffix, if not given.

    Returns:
        The videos; `missing` are rows without a file. Files without a row are `unrecognized` if
        they are fewer than the others, and counted in `notes`.

    Raises:
        OSError: If the table cannot be read.
        ValueError: If it lacks a column or rows, has invalid rows, which are named by line, or
            names no existing file.

    Example:
        >>> from jdfd_keras.datasets.videos import read_dataset_files
        >>> text = "path;label;split" + chr(10) + "real/person00.mp4;real;test" + chr(10)
        >>> _ = Path("table.csv").write_text(text)
        >>> listing = list_table(read_dataset_files(LocalStore("videos")), "table.csv")
        >>> listing.videos[0].video_id, listing.videos[0].split, listing.videos[0].source_ids
        ('table/real/person00', 'test', ('person00',))
    """
    table = Path(table)
    rows, others = _read_rows(table)
    below = _list_folders(root)
    entries, problems, lines = {}, [], {}  # the latter: path to line
    has_splits = any(row.cells["split"] for row in rows)
    for row in rows:
        path = _locate(root, row.cells["path"], below)
        texts = list(_check_row(row, has_splits))
        if path is None:
            texts.insert(0, f"path {row.cells['path']!r}")
        elif path in lines:
            texts.insert(0, f"path {path!r}, as in line {lines[path]}")
        problems += [_Problem(row.line, text) for text in texts]
        if path is not None and not texts:
            lines[path] = row.line
            entries[path] = _describe(row, path, below)
    problems += _find_repeated_frames(entries, lines)
    if problems:
        raise _invalid_rows(root, table, problems)
    unknown = [path for path in entries if path in below.files and not has_suffix(path)]
    for path, is_image in probe_files(root, unknown).items():
        entries[path] = entries[path]._replace(is_image=is_image)
    existing = [entry for path, entry in entries.items() if path in below.files or entry.frames]
    missing = [
        f"{path} (line {lines[path]})" for path in entries.keys() - {e.path for e in existing}
    ]
    if not existing:
        raise ValueError(
            f"Expected files of the table {table} in {root.store.location}; got none of "
            f"{plural(len(missing), 'path')}, such as {min(missing)}. Give the folder that the "
            "paths are relative to with --root."
        )
    listing = build_listing(existing, name or table.stem)
    used = {path for entry in existing for path in entry.frames or (entry.path,)}
    unused = [path for path in root.files if path not in used and not _is_same(root, path, table)]
    if unused:
        are = "is" if len(unused) == 1 else "are"
        listing.notes.append(
            f"{plural(len(unused), 'file')} in {root.store.location} {are} not in the table, such "
            f"as {unused[0]}."
        )
    if others:
        listing.notes.append(
            f"The table has other columns, which are not used: {', '.join(others)}."
        )
    listing.missing.extend(sorted(missing, key=natural_key))
    listing.unrecognized.extend(unused if len(unused) < len(used) else [])
    return listing


def _read_rows(table: Path) -> tuple[list[_Row], list[str]]:
    """Return the rows of a table with all its cells, and the names of other columns."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected the table of a dataset, a CSV file; got {table}, which does not exist. "
            "Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a CSV file in UTF-8; got {table}, with '{error}'. Save it as UTF-8."
        ) from error
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    numbered, line = [], 1
    try:
        for cells in reader:
            numbered.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file; got '{error}' in line {reader.line_num} of {table}. Check the "
            "quotes of that line."
        ) from error
    filled = [(line, cells) for line, cells in numbered if any(cells)]
    names = [name.lower() for name in filled[0][1]] if filled else []
    known = [name for name in names if name in COLUMNS]
    if set(REQUIRED) - set(names) or len(known) > len(set(known)):
        raise ValueError(
            f"Expected the columns {' and '.join(REQUIRED)}, and perhaps "
            f"{', '.join(COLUMNS[len(REQUIRED) :])}, each once, in the first line of {table}; got "
            f"{', '.join(map(repr, names)) or 'an empty file'}. Name its columns."
        )
    if len(filled) == 1:
        raise ValueError(f"Expected rows in {table}; got the names of columns only. Add rows.")
    problems = [
        _Problem(line, f"{len(cells)} cells in {len(names)} columns")
        for line, cells in filled[1:]
        if len(cells) > len(names)
    ]
    if problems:
        raise ValueError(
            f"Expected at most {plural(len(names), 'cell')} in each row of {table}; got "
            f"{_show(problems)}. Quote cells that contain {separator!r}."
        )
    rows = [
        _Row(line, dict.fromkeys(COLUMNS, "") | dict(zip(names, cells, strict=False)))
        for line, cells in filled[1:]
    ]
    return rows, [name for name in names if name not in COLUMNS]


class _Tree(NamedTuple):
    """The files of a dataset, hidden ones too, and the images in each folder."""

    files: set[str]
    images: Mapping[str, list[str]]


def _list_folders(root: DatasetFiles) -> _Tree:
    images = {}
    for path in root.files:
        if has_suffix(path, IMAGE_SUFFIXES):
            images.setdefault(posixpath.dirname(path), []).append(path)
    return _Tree({*root.files, *root.hidden}, images)


def _locate(root: DatasetFiles, text: str, tree: _Tree) -> str | None:
    """Return the path relative to the root; None if it is empty or outside."""
    if text in tree.files:
        return text
    if "\\" in text and "/" not in text:  # as written on Windows
        text = text.replace("\\", "/")
    if isinstance(root.store, LocalStore) and text.startswith("/"):
        places = {os.path.abspath(root.store.location), os.path.realpath(root.store.location)}
    else:
        places = {root.store.location.rstrip("/")} if "://" in text else set()
    if places:
        beginning = next((place for place in places if text.startswith(f"{place}/")), None)
        if beginning is None:
            return None
        text = text[len(beginning) + 1 :]
    path = posixpath.normpath(text) if text else "."
    is_outside = path == "." or path.startswith(("../", "/")) or path == ".."
    return None if is_outside else path


def _check_row(row: _Row, has_splits: bool) -> Iterator[str]:
    """Yield what is invalid in the cells of a row but its path."""
    label, split = row.cells["label"], row.cells["split"]
    if label.lower() not in LABELS:
        yield f"label {label!r}"
    if split and split.lower() not in SPLIT_WORDS:
        yield f"split {split!r}"
    if has_splits and not split:
        yield "no split, which other rows have"


def _describe(row: _Row, path: str, tree: _Tree) -> MediaEntry:
    label, is_file = LABELS[row.cells["label"].lower()], path in tree.files
    return MediaEntry(
        path=path,
        label=label,
        split=SPLIT_WORDS.get(row.cells["split"].lower(), ""),
        folders=tuple(path.split("/")[:-1]),
        is_image=is_file and has_suffix(path, IMAGE_SUFFIXES),
        frames=() if is_file else tuple(sorted(tree.images.get(path, ()), key=natural_key)),
        manipulation=(row.cells["manipulation"] or "fake") if label == 1 else "",
        compression=row.cells["compression"],
        sources=tuple(sorted({s.strip() for s in row.cells["source_id"].split(";")} - {""})),
        origin=f"line {row.line}",
    )


def _find_repeated_frames(
    entries: Mapping[str, MediaEntry], lines: Mapping[str, int]
) -> list[_Problem]:
    """Find images that have a row of their own and are in a folder that has one."""
    return [
        _Problem(lines[frame], f"path {frame!r}, in the folder of line {lines[path]}")
        for path, entry in entries.items()
        for frame in entry.frames
        if frame in lines
    ]


def _invalid_rows(root: DatasetFiles, table: Path, problems: list[_Problem]) -> ValueError:
    return ValueError(
        f"Expected rows with a path in {root.store.location} that no other row has, a label "
        f"({', '.join(LABELS)}) and, in all rows or none, a split ({', '.join(SPLIT_WORDS)}) in "
        f"{table}; got {_show(problems)}. Correct these rows."
    )


def _show(problems: list[_Problem]) -> str:
    """Return the number of problems and the first ones."""
    problems = sorted(problems)
    shown = "; ".join(f"line {problem.line}: {problem.text}" for problem in problems[:SHOWN])
    return f"{plural(len(problems), 'problem')}: {shown}{'; ...' if len(problems) > SHOWN else ''}"


def _is_same(root: DatasetFiles, path: str, table: Path) -> bool:
    """Return whether a file in the root is the table itself."""
    if not isinstance(root.store, LocalStore) or posixpath.basename(path) != table.name:
        return False
    return os.path.realpath(root.store.path(path)) == os.path.realpath(table)
