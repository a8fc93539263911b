"""The tables of a prepared data set: one row per face, one row per video.

Takes rows; gives Parquet or CSV files, by their ending, and back: as columns, which is how
millions are handled, or as rows. Knows neither pixels nor TensorFlow.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jdfd_keras.datasets.videos import Video
from jdfd_keras.io.storage import LocalStore, Store, read_text

MANIFEST = "manifest"
VIDEOS = "videos"
LISTING = "listing.json"
SUFFIXES = ("parquet", "csv")


@dataclass(frozen=True)
class FaceRow(Video):
    """One face of a prepared data set, after what is known of its video.

    Rows stand in the order of the shards. Of a data set whose faces were split singly, `split`
    is that of the face.

    Attributes:
        frame_index: The frame's position in the video, from 0.
        time_s: Its presentation time in seconds.
        track_id: The person's track in the video, from 0.
        box: Left, top, right and bottom of the detection, in pixels of the frame.
        detector: What found the face.
        detector_score: How sure it was, on its own scale.
        landmarks: 68 times x and y, in pixels of the crop.
        alignment_residual: As `faces.align.align_face` gives it.
        sharpness: As `faces.quality.measure_sharpness` gives it.
        outside: Share of the crop that lies outside the frame.
        yaw_deg: As `faces.quality.estimate_yaw` gives it.
        phash: As `data.hashing.hash_face` gives it.
        shard: The file in `shards/` that holds the crop.
        offset: Where its record begins in that file, in bytes.
    """

    frame_index: int
    time_s: float
    track_id: int
    box: tuple[int, ...]
    detector: str
    detector_score: float
    landmarks: tuple[float, ...]
    alignment_residual: float
    sharpness: float
    outside: float
    yaw_deg: float
    phash: str
    shard: str
    offset: int


@dataclass(frozen=True)
class VideoRow(Video):
    """One video of a prepared data set, also where it gave no face, after what is known of it.

    Attributes:
        file_bytes: Size of the file.
        width: Width of its frames in pixels, 0 where none decoded.
        height: Their height.
        jpeg_quality: Quality at which a JPEG was saved, 1 to 100; 0 for all else.
        num_frames: Frames looked at.
        num_tracks: People found in it.
        num_faces: Faces taken from it.
        dropped: Faces found and not taken, by reason.
        warning: What is wrong with the file, though it gave frames; "" if nothing is.
        reason: Why there are no faces; "" where there are some.
    """

    file_bytes: int
    width: int
    height: int
    jpeg_quality: int
    num_frames: int
    num_tracks: int
    num_faces: int
    dropped: dict[str, int]
    warning: str
    reason: str


_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[int, ...]: pa.list_(pa.int32()),
    tuple[float, ...]: pa.list_(pa.float32()),
    dict[str, int]: pa.string(),  # as JSON, so that every reader of Parquet can show it
}
# Columns that repeat a few values: kept once each in memory too.
_REPEATED = ("video_id", "path", "manipulation", "compression", "split", "detector", "shard")


def schema_of(kind: type) -> pa.Schema:
    """Give the columns of a table.

    Args:
        kind: `FaceRow` or `VideoRow`.
    """
    return pa.schema([(field.name, _TYPES[field.type]) for field in dataclasses.fields(kind)])


def to_table(rows: Iterable[FaceRow | VideoRow], kind: type) -> pa.Table:
    """Put rows into columns."""
    rows = list(rows)
    columns = [
        pa.array([_plain(getattr(row, field.name)) for row in rows], _TYPES[field.type])
        for field in dataclasses.fields(kind)
    ]
    return pa.Table.from_arrays(columns, schema=schema_of(kind))


def to_rows(table: pa.Table, kind: type) -> list:
    """Put columns into rows."""
    columns = [
        [_restore(value, field.type) for value in table[field.name].to_pylist()]
        for field in dataclasses.fields(kind)
    ]
    return [kind(*values) for values in zip(*columns, strict=True)]


def write_table(file: BinaryIO, suffix: str, kind: type, pieces: Iterable[pa.Table]) -> None:
    """Write a table, piece after piece, so that it need not be held whole.

    Args:
        file: Where to.
        suffix: `parquet` or `csv`.
        kind: `FaceRow` or `VideoRow`; gives the columns.
        pieces: Its rows, as `to_table` gives them.
    """
    if suffix == "parquet":
        with pq.ParquetWriter(
            file, schema_of(kind), compression="zstd", write_page_checksum=True
        ) as writer:
            for piece in pieces:
                writer.write_table(piece)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(schema_of(kind).names)
    for piece in pieces:
        columns = [map(_to_cell, piece[name].to_pylist()) for name in piece.column_names]
        writer.writerows(zip(*columns, strict=True))
    text.flush()
    text.detach()


def read_faces(
    place: str | Path | Store, *, split: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the faces of a prepared data set, in the order of its shards, as columns.

    Args:
        place: The prepared data set.
        split: Only the faces of this split.
        columns: Only these fields of FaceRow; all if not given.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If its table is damaged.
    """
    wanted = list(columns) if columns is not None else schema_of(FaceRow).names
    table = _read_table(
        place, MANIFEST, FaceRow, wanted + ["split"] * (bool(split) and "split" not in wanted)
    )
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    return table.select(wanted)


def read_manifest(place: str | Path | Store, *, split: str | None = None) -> list[FaceRow]:
    """Read the faces of a prepared data set as rows; for some thousands of them.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If its table is damaged.
    """
    return to_rows(read_faces(place, split=split), FaceRow)


def read_videos(place: str | Path | Store) -> list[VideoRow]:
    """Read the videos of a prepared data set, those without a face included.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If its table is damaged.
    """
    return to_rows(_read_table(place, VIDEOS, VideoRow, schema_of(VideoRow).names), VideoRow)


def read_listing(place: str | Path | Store) -> dict:
    """Read what the layout missed, did not know, or left out: `missing`, `unknown`, `left_out`.

    Raises:
        ValueError: If the file is not there or damaged.
    """
    store = _as_store(place)
    try:
        listing = json.loads(read_text(store, LISTING))
        return {name: listing[name] for name in ("missing", "unknown", "left_out")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"Expected missing, unknown and left_out as JSON in {store.place}/{LISTING}; got "
            f"'{error}'. Prepare the data set again, or copy it whole."
        ) from error


def find_table(store: Store, name: str) -> str | None:
    """Find the file of a table in whichever form it is there."""
    there = [f"{name}.{suffix}" for suffix in SUFFIXES if store.exists(f"{name}.{suffix}")]
    return there[0] if there else None


def _as_store(place: str | Path | Store) -> Store:
    return LocalStore(str(place)) if isinstance(place, str | Path) else place


def _read_table(place, name: str, kind: type, columns: list[str]) -> pa.Table:
    store = _as_store(place)
    file_name = find_table(store, name)
    if file_name is None:
        raise FileNotFoundError(
            f"Expected a prepared data set in {store.place}; got no {name}.parquet or {name}.csv "
            "there. Make one with `jdfd-keras prepare`, or run it again if it was interrupted."
        )
    with store.open(file_name) as file:
        if file_name.endswith("csv"):
            return _read_csv(file, f"{store.place}/{file_name}", kind, columns)
        return _read_parquet(file, f"{store.place}/{file_name}", kind, columns)


def _read_parquet(file: BinaryIO, place: str, kind: type, columns: list[str]) -> pa.Table:
    try:
        found = pq.ParquetFile(file).schema_arrow
        if found.remove_metadata() != schema_of(kind):
            raise ValueError(f"the columns {', '.join(found.names)}")
        repeated = [name for name in _REPEATED if name in columns]
        parquet = pq.ParquetFile(file, read_dictionary=repeated, page_checksum_verification=True)
        table = parquet.read(columns=columns).unify_dictionaries()
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"Expected a Parquet table with the columns {', '.join(schema_of(kind).names)} at "
            f"{place}; got {error}. The table is damaged or of another version: prepare the data "
            "set again."
        ) from error


def _parse(kind: type):
    """Give the function that reads a cell back; it raises ValueError for one of another kind."""
    if kind in (str, float):
        return kind

    def parse_int(cell: str) -> int:
        return pa.scalar(int(cell), pa.int64()).as_py()

    def parse_list(cell: str) -> list:
        values = json.loads(cell)
        if not isinstance(values, list) or None in values:
            raise ValueError(f"{cell!r}, which is no list of values")
        pa.scalar(values, _TYPES[kind])
        return values

    def parse_dict(cell: str) -> str:
        if not isinstance(json.loads(cell), dict):
            raise ValueError(f"{cell!r}, which is no object")
        return cell

    if kind is int:
        return parse_int
    return parse_dict if kind == dict[str, int] else parse_list


def _read_csv(file: BinaryIO, place: str, kind: type, columns: list[str]) -> pa.Table:
    names = schema_of(kind).names
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    found: dict[str, list] = {name: [] for name in columns}
    reader = csv.reader((line.decode() for line in file), strict=True)
    try:
        header = next(reader, [])
        if header != names:
            raise ValueError(f"the columns {', '.join(header)}")
        positions = [(names.index(name), _parse(fields[name]), found[name]) for name in columns]
        for cells in reader:
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells")
            for position, parse, column in positions:
                column.append(parse(cells[position]))
        arrays = [pa.array(found[name], _TYPES[fields[name]]) for name in columns]
    except (csv.Error, pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected a row for the columns {', '.join(names)} in line {reader.line_num} of "
            f"{place}; got {error}. The table is damaged or of another version: prepare the "
            "data set again."
        ) from error
    return pa.Table.from_arrays(arrays, names=columns)


def _plain(value):
    return json.dumps(value) if isinstance(value, dict) else value


def _restore(value, kind: type):
    if kind == dict[str, int]:
        return json.loads(value)
    return tuple(value) if isinstance(value, list) else value


def _to_cell(value) -> str:
    if not isinstance(value, list):
        return str(value)
    # A number of 32 bits in as few digits as tell it again: 0.1, not 0.10000000149011612.
    return json.dumps([float(str(np.float32(v))) if isinstance(v, float) else v for v in value])
