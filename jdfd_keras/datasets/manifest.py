"""The tables of a prepared dataset: one row per face, one row per video.

Parquet files, read as PyArrow tables, which scale to millions of faces, or as dataclasses.
Independent of pixels and TensorFlow.
"""

import dataclasses
import json
import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jdfd_keras.datasets.split_tables import FACE_KEY, OFFICIAL, read_split_table
from jdfd_keras.datasets.videos import Video
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.io.files import OPTIONS, check_same_options
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore, Store, read_text

MANIFEST = "manifest.parquet"
VIDEOS = "videos.parquet"
LISTING = "listing.json"


@dataclass(frozen=True)
class FaceRow(Video):
    """One face of a prepared dataset: the fields of its video, then its own.

    See `faces.extract.Face` for what the measured fields mean. `split` is the published one;
    `read_faces` replaces it by that of a split table.

    Attributes:
        frame_index: Position of the frame in the video, from 0.
        time_s: Presentation time of the frame; 0 of a video that is stored as image files.
        track_id: Track of the person in the video, from 0.
        box: Left, top, right and bottom of the detection in pixels of the frame.
        detector_score: Null in the table without a detector, as alignment_residual and yaw_deg.
        landmarks: 68 pairs of x and y in pixels of the crop; none if they are unknown.
        outside: Share of the crop outside the frame, 0 to 1.
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
        file_bytes: Size of the file.
        sha256: SHA-256 of its bytes, hexadecimal; "" if none decoded, as all facts below.
        width: Of its frames in pixels, as `height`; 0 if none decoded.
        container: This and the fields to `jpeg_quality` are those of `faces.media.MediaInfo`, with
            `file_frames` as its `num_frames`; see `media_facts`.
        num_frames: Sampled frames.
        filtered: Reason to number of faces that were found and filtered out.
        warning: Damage to a file that still decoded; "" if none.
        reason: Why the video has no faces; "" if it has some.
    """

    file_bytes: int
    sha256: str = ""
    width: int = 0
    height: int = 0
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    frame_rate: float = 0.0
    file_frames: int = 0
    duration_s: float = 0.0
    interlaced: bool = False
    sample_aspect_ratio: str = ""
    orientation: str = ""
    colour: str = ""
    bit_rate: int = 0
    encoder: str = ""
    jpeg_quality: int = 0
    num_frames: int = 0
    num_tracks: int = 0
    num_faces: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    warning: str = ""
    reason: str = ""


@dataclass(frozen=True)
class VideoRow(VideoOutcome, Video):
    """One video of a prepared dataset, with or without faces.

    Attributes:
        subjects: Ids of the subjects in it, where one subject is in several sources; else empty.
        frames: Its image files in order, if it is stored as images, relative to the dataset's root.
    """

    subjects: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListingSummary(Result):
    """What a listing states beyond the videos of a prepared dataset; see Listing."""

    missing: list[str]
    unrecognized: list[str]
    excluded: dict[str, str]
    notes: list[str]


Row = TypeVar("Row", FaceRow, VideoRow)

_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    bool: pa.bool_(),
    float: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[int, ...]: pa.list_(pa.int32()),
    tuple[float, ...]: pa.list_(pa.float32()),
    dict[str, int]: pa.string(),  # as JSON, which every Parquet reader can display
}
# Columns with few distinct values: dictionary-encoded in memory too.
_REPEATED = ("video_id", "path", "manipulation", "compression", "split", "detector", "shard")


def media_facts(info: MediaInfo) -> dict[str, Any]:
    """Return the facts about a file that are fields of VideoOutcome, by field.

    The size of its coded picture is not: the tables have that of the frames.

    Example:
        >>> facts = media_facts(MediaInfo(codec="h264", num_frames=300))
        >>> VideoOutcome(file_bytes=9, **facts).file_frames
        300
    """
    facts = info.to_dict()
    del facts["width"], facts["height"]
    facts["file_frames"] = facts.pop("num_frames")
    return facts


def schema_of(kind: type[FaceRow | VideoRow]) -> pa.Schema:
    """Return the columns of the table of `FaceRow` or `VideoRow`.

    Example:
        >>> schema_of(VideoRow).names[:3]
        ['video_id', 'path', 'label']
    """
    hints = typing.get_type_hints(kind)
    return pa.schema([(field.name, _TYPES[hints[field.name]]) for field in fields(kind)])


def to_table(rows: Iterable[FaceRow | VideoRow], kind: type[FaceRow | VideoRow]) -> pa.Table:
    """Convert rows to a table with the columns `schema_of(kind)`.

    Example:
        >>> to_table(read_videos("prepared"), VideoRow).num_rows
        16
    """
    plain = [
        {k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.to_dict().items()}
        for row in rows
    ]
    return pa.Table.from_pylist(plain, schema=schema_of(kind))


def to_rows(table: pa.Table, kind: type[Row]) -> list[Row]:
    """Convert a table to rows; one takes much more memory than its line of the table.

    Example:
        >>> faces = to_rows(read_faces("prepared").slice(0, 9), FaceRow)
        >>> len(faces), faces[0].detector
        (9, 'dlib')
    """
    return [
        kind.from_dict(row | {k: json.loads(row[k]) for k in row.keys() & {"filtered"}})
        for row in table.to_pylist()
    ]


def write_table(file: BinaryIO, kind: type[FaceRow | VideoRow], tables: Iterable[pa.Table]) -> None:
    """Write tables of `to_table` into one file, without holding all of them in memory.

    Example:
        >>> with open("videos.parquet", "wb") as file:
        ...     write_table(file, VideoRow, [to_table([], VideoRow)])
        >>> pq.read_table("videos.parquet").num_rows
        0
    """
    with pq.ParquetWriter(
        file, schema_of(kind), compression="zstd", write_page_checksum=True
    ) as writer:
        for table in tables:
            writer.write_table(table)


def read_faces(
    directory: str | Path | Store,
    *,
    split: str | None = None,
    split_table: str = OFFICIAL,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read the faces of a prepared dataset as a table, in the order of its shards.

    Args:
        directory: The prepared dataset.
        split: Read only this split; all faces if it is None or `all`.
        split_table: Name of the split table that states the column `split`, or the path of one. If
            it is "", the column has the published split.
        columns: Read only these fields of FaceRow.

    Raises:
        OSError: If the folder is not a prepared dataset, or has no such split table.
        ValueError: If its table is damaged, it has another format version, or the split table is
            of another dataset.

    Example:
        >>> faces = read_faces("prepared", split="test", columns=["video_id", "label"])
        >>> faces.column_names, faces["label"].to_pylist()[:4]
        (['video_id', 'label'], [0, 0, 0, 0])
    """
    names = list(columns) if columns is not None else schema_of(FaceRow).names
    selects = split not in (None, "all")
    needed = [*names, *({"split"} - set(names) if selects else ())]
    if split_table and "split" in needed:
        videos = _read_table(directory, VIDEOS, VideoRow, ["video_id"])["video_id"]
        splits = read_split_table(directory, split_table)
        splits.check_videos(videos.to_pylist(), is_all=True)
        keys = FACE_KEY if splits.of_faces else FACE_KEY[:1]
        needed += [name for name in keys if name not in needed]
        table = _read_table(directory, MANIFEST, FaceRow, needed)
        assigned = pa.array(splits.assign(table), pa.string()).dictionary_encode()
        table = table.set_column(table.column_names.index("split"), "split", assigned)
    else:
        table = _read_table(directory, MANIFEST, FaceRow, needed)
    if selects:
        table = table.filter(pc.field("split") == split)
    return table.select(names)


def read_videos(directory: str | Path | Store, *, split_table: str = "") -> list[VideoRow]:
    """Read the videos of a prepared dataset, including those without a face.

    Args:
        directory: The prepared dataset.
        split_table: As for `read_faces`; by default, videos have their published split. With a
            table that splits faces, they have none.

    Example:
        >>> videos = read_videos("prepared")
        >>> len(videos), videos[-1].video_id, videos[-1].num_frames
        (16, 'videos/real/person07', 4)
    """
    rows = to_rows(_read_table(directory, VIDEOS, VideoRow, schema_of(VideoRow).names), VideoRow)
    if not split_table:
        return rows
    splits = read_split_table(directory, split_table)
    splits.check_videos([row.video_id for row in rows], is_all=True)
    return [dataclasses.replace(row, split=splits.split_of.get(row.video_id, "")) for row in rows]


def read_listing(directory: str | Path | Store) -> ListingSummary:
    """Read which files and videos of the source folder are not in a prepared dataset.

    Example:
        >>> read_listing("prepared").missing
        []
    """
    store = _open_prepared(directory)
    try:
        return ListingSummary.from_dict(json.loads(read_text(store, LISTING)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected missing, unrecognized and excluded as JSON in {store.location}/{LISTING}; "
            f"got '{error}'. Prepare the dataset again, or copy it whole."
        ) from error


def count_filtered(videos: Iterable[VideoOutcome]) -> dict[str, int]:
    """Count the filtered faces of videos by reason.

    Example:
        >>> blurred = VideoOutcome(file_bytes=9, filtered={"sharpness below 40": 2})
        >>> count_filtered([blurred, blurred])
        {'sharpness below 40': 4}
    """
    counts: Counter[str] = Counter()
    for video in videos:
        counts.update(video.filtered)
    return dict(counts)


def _open_prepared(directory: str | Path | Store) -> Store:
    """Return the folder as a store, after a check of its format version."""
    store = LocalStore(str(directory)) if isinstance(directory, str | Path) else directory
    if store.exists(OPTIONS):
        check_same_options(read_text(store, OPTIONS), store.location, {})
    return store


def _read_table(
    directory: str | Path | Store, name: str, kind: type[FaceRow | VideoRow], columns: list[str]
) -> pa.Table:
    store = _open_prepared(directory)
    path, schema = f"{store.location}/{name}", schema_of(kind)
    if not store.exists(name):
        raise FileNotFoundError(
            f"Expected a prepared dataset in {store.location}; got no {name}. Create one with "
            "`jdfd-keras prepare`, or resume it if it was interrupted."
        )
    try:
        with store.open(name) as file:
            stored = pq.read_schema(file)
            if stored.remove_metadata() != schema:
                raise ValueError(f"the columns {', '.join(stored.names)}")
            repeated = [column for column in _REPEATED if column in columns]
            parquet = pq.ParquetFile(
                file, read_dictionary=repeated, page_checksum_verification=True
            )
            table = parquet.read(columns=columns).unify_dictionaries()
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"Expected a Parquet table with the columns {', '.join(schema.names)} at {path}; got "
            f"{error}. The table is damaged or of another version: prepare the dataset again."
        ) from error
