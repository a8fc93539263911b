"""Writer of the shards and tables of a prepared dataset.

Takes the finished videos of `datasets.extraction_task`. Each shard is written by its own task,
together with its rows; the manifest is then copied from these, shard by shard, so that neither has
to fit in memory.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jdfd_keras.datasets.extraction_task import RECORDS, part_name, read_part
from jdfd_keras.datasets.manifest import (
    MANIFEST,
    VIDEOS,
    FaceRow,
    VideoOutcome,
    VideoRow,
    schema_of,
    to_table,
    write_table,
)
from jdfd_keras.datasets.records import SHARDS, read_framed
from jdfd_keras.datasets.splits import split_faces
from jdfd_keras.datasets.videos import CLASSES, SPLITS, Video
from jdfd_keras.io.storage import PARTS, Store
from jdfd_keras.options import SplitOptions


@dataclass(frozen=True)
class Shard:
    """The plan of one shard.

    Attributes:
        name: Name of the file.
        split: Split of its faces.
        members: Videos, each with the positions of those of its faces that are in this shard.
    """

    name: str
    split: str
    members: tuple[tuple[Video, tuple[int, ...]], ...]


@dataclass(frozen=True)
class WriteShard:
    """Task that writes one shard.

    Attributes:
        out: The prepared dataset.
    """

    out: Store

    def __call__(self, shard: Shard) -> str:
        """Write a shard, and its rows into the folder of the parts; return its name.

        Raises:
            ValueError: If a part is damaged.
        """
        rows, offset = [], 0
        with self.out.create(f"{SHARDS}/{shard.name}") as file:
            for video, positions in shard.members:
                faces, own = read_part(self.out, video).faces, set(positions)
                for position, framed in enumerate(self._read_records(video, len(faces))):
                    if position not in own:
                        continue
                    file.write(framed)
                    rows.append(
                        FaceRow(
                            **{**dataclasses.asdict(video), "split": shard.split},
                            **faces[position],
                            shard=shard.name,
                            offset=offset,
                        )
                    )
                    offset += len(framed)
        with self.out.create(_rows_name(shard)) as file:
            write_table(file, "parquet", FaceRow, [to_table(rows, FaceRow)])
        return shard.name

    def _read_records(self, video: Video, count: int) -> Iterator[bytes]:
        name = part_name(video) + RECORDS
        num_read = 0
        try:
            with self.out.open(name) as file:
                for framed in read_framed(file):
                    num_read += 1
                    yield framed
            if num_read != count:
                raise ValueError(f"{num_read} records")
        except ValueError as error:
            raise ValueError(
                f"Expected {count} records of {video.video_id} in {self.out.location}/{name}; got "
                f"{error}. Remove that file and the .json of the same name, and run again."
            ) from error


def plan_shards(
    videos: list[Video],
    num_faces: Mapping[str, int],
    *,
    faces_per_shard: int,
    splits: SplitOptions,
) -> list[Shard]:
    """Distribute the faces of each split over shards, in mixed order.

    Videos are ordered by the hash of their id: deterministic, and mixed well enough that a reader
    with a shuffle buffer of a few thousand faces sees every class.

    Args:
        videos: All videos; without a split for `--split paper`, which splits single faces.
        num_faces: Video id to number of faces.
        faces_per_shard: A shard is closed once it has this many faces. It may have more, since
            the faces of one video and split stay together.
        splits: Shares and seed of `--split paper`.

    Returns:
        The shards, in the order of SPLITS.

    Example:
        >>> plan_shards(videos, {v.video_id: 32 for v in videos}, faces_per_shard=1024,
        ...             splits=SplitOptions())[0].name
        'train-00000.tfrecord'
    """
    ordered = sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())
    positions = _split_faces(ordered, num_faces, splits) if splits.split == "paper" else None
    shards = []
    for split in SPLITS:
        members, filled = [[]], 0
        for video in ordered:
            if positions is not None:
                own = positions[split].get(video.video_id, ())
            else:
                own = tuple(range(num_faces[video.video_id])) if video.split == split else ()
            if not own:
                continue
            if filled >= faces_per_shard:
                members.append([])
                filled = 0
            members[-1].append((video, own))
            filled += len(own)
        shards += [
            Shard(f"{split}-{number:05d}.tfrecord", split, tuple(shard))
            for number, shard in enumerate(members)
            if shard
        ]
    return shards


def write_tables(
    out: Store,
    suffix: str,
    videos: list[Video],
    outcomes: Mapping[str, VideoOutcome],
    shards: list[Shard],
) -> None:
    """Write both tables of a prepared dataset; the manifest last, which marks it as finished.

    Args:
        out: The prepared dataset, with its shards.
        suffix: `parquet` or `csv`.
        videos: Its videos.
        outcomes: Video id to outcome.
        shards: Its shards, in the order of the manifest.
    """
    rows = [
        VideoRow(**dataclasses.asdict(video), **dataclasses.asdict(outcomes[video.video_id]))
        for video in videos
    ]
    with out.create(f"{VIDEOS}.{suffix}") as file:
        write_table(file, suffix, VideoRow, [to_table(rows, VideoRow)])
    with out.create(f"{MANIFEST}.{suffix}") as file:
        write_table(file, suffix, FaceRow, (_read_rows(out, shard) for shard in shards))


def check_faces(videos: list[Video], num_faces: Mapping[str, int]) -> None:
    """Check that both classes have faces.

    Args:
        videos: The videos.
        num_faces: Video id to number of faces.

    Raises:
        ValueError: If all videos of a class are without a face.
    """
    for name, label in CLASSES.items():
        members = [video for video in videos if video.label == label]
        if members and not any(num_faces[video.video_id] for video in members):
            raise ValueError(
                f"Expected a face in at least one {name} video; got none in all {len(members)}. "
                "Check that they show upright faces of 40 pixels or more, or try --detector mtcnn."
            )


def _split_faces(
    videos: list[Video], num_faces: Mapping[str, int], splits: SplitOptions
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Split single faces; return split to video id to the positions of its faces."""
    faces = [(v.video_id, position) for v in videos for position in range(num_faces[v.video_id])]
    assigned = split_faces(
        faces, val_share=splits.val_share, test_share=splits.test_share, seed=splits.seed
    )
    by_split: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in SPLITS}
    for (video_id, position), split in zip(faces, assigned, strict=True):
        by_split[split][video_id].append(position)
    return {
        split: {video_id: tuple(positions) for video_id, positions in by_video.items()}
        for split, by_video in by_split.items()
    }


def _rows_name(shard: Shard) -> str:
    return f"{PARTS}/{shard.name}.parquet"


def _read_rows(out: Store, shard: Shard) -> pa.Table:
    with out.open(_rows_name(shard)) as file:
        return pq.read_table(file, schema=schema_of(FaceRow))
