"""The tables of a prepared data set: one row per face, one row per video.

Takes rows; gives CSV files and back. Knows neither pixels nor TensorFlow.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.data.layouts import Video

MANIFEST = "manifest.csv"
VIDEOS = "videos.csv"


@dataclass(frozen=True)
class FaceRow(Video):
    """One face of a prepared data set, after what is known of its video.

    Rows stand in the order of the shards.

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
        shard: The file in `shards/` that holds the crop.
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
    shard: str


@dataclass(frozen=True)
class VideoRow(Video):
    """One video of a prepared data set, also where it gave no face, after what is known of it.

    Attributes:
        num_frames: Frames looked at.
        num_tracks: People found in it.
        num_faces: Faces taken from it.
        dropped: Faces found and not taken, by reason.
        warning: What is wrong with the file, though it gave frames; "" if nothing is.
        reason: Why there are no faces; "" where there are some.
    """

    num_frames: int
    num_tracks: int
    num_faces: int
    dropped: dict[str, int]
    warning: str
    reason: str


def write_rows(path: str | Path, rows: Iterable[FaceRow | VideoRow], kind: type) -> None:
    """Write a table whole or not at all.

    Args:
        path: The CSV file, replaced if it is there.
        rows: Its rows.
        kind: `FaceRow` or `VideoRow`; gives the columns.
    """
    path = Path(path)
    unfinished = path.with_name(f"unfinished-{path.name}")
    names = [field.name for field in dataclasses.fields(kind)]
    with open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([_to_cell(getattr(row, name)) for name in names])
    os.replace(unfinished, path)


def read_manifest(directory: str | Path) -> list[FaceRow]:
    """Read the faces of a prepared data set, in the order of its shards.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If its table is damaged.
    """
    return _read_rows(Path(directory) / MANIFEST, FaceRow)


def read_videos(directory: str | Path) -> list[VideoRow]:
    """Read the videos of a prepared data set, those without a face included.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If its table is damaged.
    """
    return _read_rows(Path(directory) / VIDEOS, VideoRow)


_FROM_CELL = {
    str: str,
    int: int,
    float: float,
    tuple[str, ...]: lambda cell: tuple(json.loads(cell)),
    tuple[int, ...]: lambda cell: tuple(json.loads(cell)),
    tuple[float, ...]: lambda cell: tuple(json.loads(cell)),
    dict[str, int]: json.loads,
}


def _to_cell(value) -> str:
    return json.dumps(value) if isinstance(value, tuple | dict) else str(value)


def _read_rows(path: Path, kind: type) -> list:
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a prepared data set in {path.parent}; got no {path.name} there. Make one "
            "with `jdfd-keras prepare`, or run it again if it was interrupted."
        )
    names = [field.name for field in dataclasses.fields(kind)]
    parsers = [_FROM_CELL[field.type] for field in dataclasses.fields(kind)]
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if header != names:
                raise ValueError(f"the columns {', '.join(header)}")
            for cells in reader:
                rows.append(kind(*(f(cell) for f, cell in zip(parsers, cells, strict=True))))
        except (csv.Error, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a row for the columns {', '.join(names)} in line {reader.line_num} of "
                f"{path}; got {error}. The table is damaged or of another version: prepare the "
                "data set again."
            ) from error
    return rows
