"""The tables of a prepared dataset: one row per face, one row per video.

Writes rows to Parquet or CSV files (by suffix) and reads them, as PyArrow tables, which scale to
millions of faces, or as dataclasses. Independent of pixels and TensorFlow.
"""

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jdfd_keras.datasets.videos import Video
from jdfd_keras.io.files import OPTIONS, check_same_options
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore, Store, read_text

MANIFEST = "manifest"
VIDEOS = "videos"
LISTING = "listing.json"
SUFFIXES = ("parquet", "csv")


@dataclass(frozen=True)
class FaceRow(Video):
    """One face of a prepared dataset: the fields of its video, then its own.

    Rows are in the order of the shards. With `--split paper`, `split` is that of the face, not of
    its video.

    Attributes:
        frame_index: Position of the frame in the video, from 0.
        time_s: Presentation time of the frame in seconds.
        track_id: Track of the person in the video, from 0.
        box: Left, top, right and bottom of the detection in pixels of the frame.
        detector: Name of the face detector.
        detector_score: Confidence of the detector, on its own scale.
        landmarks: 68 pairs of x and y in pixels of the crop.
        alignment_residual: Residual from `faces.align.align_face`.
        sharpness: Sharpness from `faces.quality.measure_sharpness`.
        outside: Share of the crop outside the frame, 0 to 1.
        yaw_deg: Yaw in degrees from `faces.quality.estimate_yaw`.
        phash: Perceptual hash from `datasets.hashing.hash_face`.
        shard: Name of the file in `shards/` that holds the crop.
        offset: Start of its record in that file, in bytes.
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
class VideoOutcome(Result):
    """The result of extracting the faces of one video.

    Attributes:
        file_bytes: Size of the file in bytes.
        width: Width of its frames in pixels; 0 if none decoded.
        height: Height of its frames in pixels; 0 if none decoded.
        jpeg_quality: Quality at which a JPEG was saved, 1 to 100; 0 for other files.
        num_frames: Sampled frames.
        num_tracks: Tracks found in them.
        num_faces: Faces in the dataset.
        filtered: Reason to number of faces that were found and filtered out.
        warning: Damage to a file that still decoded; "" if none.
        reason: Why the video has no faces; "" if it has some.
    """

    file_bytes: int
    width: int
    height: int
    jpeg_quality: int
    num_frames: int
    num_tracks: int
    num_faces: int
    filtered: dict[str, int]
    warning: str
    reason: str


@dataclass(frozen=True)
class VideoRow(VideoOutcome, Video):
    """One video of a prepared dataset, with or without faces: its fields, then the outcome."""


@dataclass(frozen=True)
class ListingSummary(Result):
    """Files and videos of the source folder that are not in a prepared dataset.

    Attributes:
        missing: Files that the lists of the dataset name and the folder lacks.
        unrecognized: Videos and images in the folder that the layout does not list.
        excluded: Video id to reason, of the videos that the layout or the split excluded.
    """

    missing: list[str]
    unrecognized: list[str]
    excluded: dict[str, str]


_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[int, ...]: pa.list_(pa.int32()),
    tuple[float, ...]: pa.list_(pa.float32()),
    dict[str, int]: pa.string(),  # as JSON, which every Parquet reader can display
}
# Columns with few distinct values: dictionary-encoded in memory too.
_REPEATED = ("video_id", "path", "manipulation", "compression", "split", "detector", "shard")


def schema_of(kind: type) -> pa.Schema:
    """Return the columns of the table of `FaceRow` or `VideoRow`."""
    return pa.schema([(field.name, _TYPES[field.type]) for field in dataclasses.fields(kind)])


def to_table(rows: Iterable[FaceRow | VideoRow], kind: type) -> pa.Table:
    """Convert rows to a table with the columns `schema_of(kind)`."""
    rows = list(rows)
    columns = [
        pa.array([_plain(getattr(row, field.name)) for row in rows], _TYPES[field.type])
        for field in dataclasses.fields(kind)
    ]
    return pa.Table.from_arrays(columns, schema=schema_of(kind))


def to_rows(table: pa.Table, kind: type) -> list:
    """Convert a table to rows, such as `to_rows(read_faces("prepared"), FaceRow)`."""
    columns = [
        [_restore(value, field.type) for value in table[field.name].to_pylist()]
        for field in dataclasses.fields(kind)
    ]
    return [kind(*values) for values in zip(*columns, strict=True)]


def write_table(file: BinaryIO, suffix: str, kind: type, tables: Iterable[pa.Table]) -> None:
    """Write tables one after the other into one file, without holding all of them in memory.

    Args:
        file: The open file.
        suffix: `parquet` or `csv`.
        kind: `FaceRow` or `VideoRow`; defines the columns.
        tables: The rows, from `to_table`.

    Example:
        >>> file = io.BytesIO()
        >>> write_table(file, "csv", VideoRow, [to_table([], VideoRow)])
        >>> file.getvalue()[:13]
        b'video_id,path'
    """
    if suffix == "parquet":
        with pq.ParquetWriter(
            file, schema_of(kind), compression="zstd", write_page_checksum=True
        ) as writer:
            for table in tables:
                writer.write_table(table)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(schema_of(kind).names)
    for table in tables:
        columns = [map(_to_cell, table[name].to_pylist()) for name in table.column_names]
        writer.writerows(zip(*columns, strict=True))
    text.flush()
    text.detach()


def read_faces(
    directory: str | Path | Store, *, split: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the faces of a prepared dataset as a table, in the order of its shards.

    Args:
        directory: The prepared dataset.
        split: Read only this split; all if not given.
        columns: Read only these fields of FaceRow; all if not given.

    Raises:
        OSError: If the folder is not a prepared dataset.
        ValueError: If its table is damaged, or it has another format version.

    Example:
        >>> faces = read_faces("prepared", split="test", columns=["video_id", "label"])
    """
    names = list(columns) if columns is not None else schema_of(FaceRow).names
    table = _read_table(
        directory, MANIFEST, FaceRow, names + ["split"] * (bool(split) and "split" not in names)
    )
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    return table.select(names)


def read_manifest(directory: str | Path | Store, *, split: str | None = None) -> list[FaceRow]:
    """Read the faces of a prepared dataset as rows; errors are those of `read_faces`.

    For a few thousand faces: a row takes much more memory than its line of the table.

    Example:
        >>> sharpness = [face.sharpness for face in read_manifest("prepared")]
    """
    return to_rows(read_faces(directory, split=split), FaceRow)


def read_videos(directory: str | Path | Store) -> list[VideoRow]:
    """Read the videos of a prepared dataset, including those without a face.

    Raises:
        OSError: If the folder is not a prepared dataset.
        ValueError: If its table is damaged, or it has another format version.

    Example:
        >>> reasons = {v.path: v.reason for v in read_videos("prepared") if not v.num_faces}
    """
    return to_rows(_read_table(directory, VIDEOS, VideoRow, schema_of(VideoRow).names), VideoRow)


def read_listing(directory: str | Path | Store) -> ListingSummary:
    """Read which files and videos of the source folder are not in a prepared dataset.

    Raises:
        ValueError: If the file is missing or damaged, or it has another format version.

    Example:
        >>> read_listing("prepared").missing
    """
    store = _as_store(directory)
    _check_version(store)
    try:
        return ListingSummary.from_dict(json.loads(read_text(store, LISTING)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected missing, unrecognized and excluded as JSON in {store.location}/{LISTING}; "
            f"got '{error}'. Prepare the dataset again, or copy it whole."
        ) from error


def count_filtered(videos: Iterable[VideoOutcome]) -> dict[str, int]:
    """Count the filtered faces of videos by reason."""
    counts: Counter = Counter()
    for video in videos:
        counts.update(video.filtered)
    return dict(counts)


def find_table(store: Store, name: str) -> str | None:
    """Return the file name of a table, Parquet or CSV; None if it does not exist."""
    names = [f"{name}.{suffix}" for suffix in SUFFIXES]
    return next(filter(store.exists, names), None)


def _as_store(directory: str | Path | Store) -> Store:
    return LocalStore(str(directory)) if isinstance(directory, str | Path) else directory


def _check_version(store: Store) -> None:
    if store.exists(OPTIONS):
        check_same_options(read_text(store, OPTIONS), store.location, {})  # checks only the version


def _read_table(directory, name: str, kind: type, columns: list[str]) -> pa.Table:
    store = _as_store(directory)
    file_name = find_table(store, name)
    if file_name is None:
        raise FileNotFoundError(
            f"Expected a prepared dataset in {store.location}; got no {name}.parquet or "
            f"{name}.csv. Create one with `jdfd-keras prepare`, or resume it if it was interrupted."
        )
    _check_version(store)
    with store.open(file_name) as file:
        if file_name.endswith("csv"):
            return _read_csv(file, f"{store.location}/{file_name}", kind, columns)
        return _read_parquet(file, f"{store.location}/{file_name}", kind, columns)


def _read_parquet(file: BinaryIO, path: str, kind: type, columns: list[str]) -> pa.Table:
    try:
        schema = pq.ParquetFile(file).schema_arrow
        if schema.remove_metadata() != schema_of(kind):
            raise ValueError(f"the columns {', '.join(schema.names)}")
        repeated = [name for name in _REPEATED if name in columns]
        parquet = pq.ParquetFile(file, read_dictionary=repeated, page_checksum_verification=True)
        table = parquet.read(columns=columns).unify_dictionaries()
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"Expected a Parquet table with the columns {', '.join(schema_of(kind).names)} at "
            f"{path}; got {error}. The table is damaged or of another version: prepare the "
            "dataset again."
        ) from error


def _parse(cell: str, kind: type):
    """Parse a CSV cell; raise ValueError, TypeError or an Arrow error if it is of another type."""
    if kind in (str, float):
        return kind(cell)
    if kind is int:
        return pa.scalar(int(cell), pa.int64()).as_py()
    value = json.loads(cell)
    if kind == dict[str, int]:
        if not isinstance(value, dict):
            raise ValueError(f"{cell!r}, which is not an object")
        return cell
    if not isinstance(value, list) or None in value:
        raise ValueError(f"{cell!r}, which is not a list of values")
    pa.scalar(value, _TYPES[kind])
    return value


def _read_csv(file: BinaryIO, path: str, kind: type, columns: list[str]) -> pa.Table:
    names = schema_of(kind).names
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    values: dict[str, list] = {name: [] for name in columns}
    reader = csv.reader((line.decode() for line in file), strict=True)
    try:
        header = next(reader, [])
        if header != names:
            raise ValueError(f"the columns {', '.join(header)}")
        positions = [(names.index(name), fields[name], values[name]) for name in columns]
        for cells in reader:
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells")
            for position, field_type, column in positions:
                column.append(_parse(cells[position], field_type))
        arrays = [pa.array(values[name], _TYPES[fields[name]]) for name in columns]
    except (csv.Error, pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected a row for the columns {', '.join(names)} in line {reader.line_num} of "
            f"{path}; got {error}. The table is damaged or of another version: prepare the "
            "dataset again."
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
    # The shortest text that restores the 32-bit number: 0.1, not 0.10000000149011612.
    return json.dumps([float(str(np.float32(v))) if isinstance(v, float) else v for v in value])
