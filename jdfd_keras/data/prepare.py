"""A folder of videos in, a prepared data set out: shards, manifest, options.

The one way through this room. Every video is finished by itself, so a run that was killed
goes on where it stopped and ends with the same bytes. A video that gives no face becomes a
row with its reason.

    <out>/options.json    what made it
    <out>/manifest.csv    one row per face (`data.manifest.FaceRow`)
    <out>/videos.csv      one row per video (`data.manifest.VideoRow`)
    <out>/shards/         train-00000.tfrecord, ...
    <out>/parts/          finished videos, while the run is not done
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.data.layouts import CLASSES, SPLITS, Video, list_folder
from jdfd_keras.data.manifest import (
    MANIFEST,
    VIDEOS,
    FaceRow,
    VideoRow,
    read_videos,
    write_rows,
)
from jdfd_keras.data.splits import shared_sources, split_by_source
from jdfd_keras.faces.decode import UnreadableFileError
from jdfd_keras.faces.extract import Extraction, Face, check_face_options, extract_faces
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, claim_directory
from jdfd_keras.progress import track

SHARDS = "shards"
PARTS = "parts"


@dataclass(frozen=True)
class PreparedSet:
    """What `prepare` made.

    Attributes:
        directory: The prepared data set.
        videos: One row per video, in the order of their ids.
        shared_sources: Sources that lie in more than one split, where the folder itself came
            with splits; source id to splits.
    """

    directory: Path
    videos: list[VideoRow]
    shared_sources: dict[str, set[str]]

    def count_faces(self) -> dict[str, dict[str, int]]:
        """Count faces: split, then `real` and `fake`, to their number."""
        return {
            split: {
                name: sum(
                    row.num_faces for row in self.videos if (row.split, row.label) == (split, label)
                )
                for name, label in CLASSES.items()
            }
            for split in SPLITS
        }

    def count_dropped(self) -> dict[str, int]:
        """Count the faces that were found and not taken, by reason."""
        counts: Counter = Counter()
        for row in self.videos:
            counts.update(row.dropped)
        return dict(counts)


def prepare(
    root: str | Path,
    out: str | Path,
    faces: FaceOptions | None = None,
    options: PrepareOptions | None = None,
    filters: FilterOptions | None = None,
) -> PreparedSet:
    """Prepare a data set of your own, laid out as `data.layouts.list_folder` says.

    Args:
        root: The folder of videos.
        out: The prepared data set; made, or gone on with when a run of the same options was
            interrupted, or left as it is when it is already done.
        faces: How faces are taken.
        options: How they are split and stored.
        filters: Which of them are too bad to be taken; none if not given.

    Returns:
        What was made; videos without a face are in it, with the reason.

    Raises:
        OSError: If `root` is not there or `out` cannot be written.
        ValueError: If an option is out of its range, if `root` lacks a class, cannot be split or
            shows no face of some class, or if `out` was made of other videos or with other
            options.
    """
    faces, options = faces or FaceOptions(), options or PrepareOptions()
    filters = filters or FilterOptions()
    check_face_options(faces, filters)
    if options.faces_per_shard < 1:
        raise ValueError(
            f"Expected faces_per_shard >= 1; got {options.faces_per_shard}. Try the default, 1024."
        )
    out = Path(out)
    videos = list_folder(root)
    if not all(video.split for video in videos):
        videos = split_by_source(
            videos, val_share=options.val_share, test_share=options.test_share, seed=options.seed
        )
    claim_directory(out, faces=faces, filters=filters, prepare=options)
    if not (out / MANIFEST).is_file():
        (out / PARTS).mkdir(exist_ok=True)
        for video in track(videos, "finding faces", len(videos), "videos"):
            _finish_video(Path(root), video, faces, filters, out / PARTS)
        _assemble(videos, out, options.faces_per_shard)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    rows = read_videos(out)
    _check_same_videos(out, rows, videos)
    return PreparedSet(out, rows, shared_sources(videos))


def _check_same_videos(out: Path, rows: list[VideoRow], videos: list[Video]) -> None:
    difference = {row.video_id for row in rows} ^ {video.video_id for video in videos}
    if difference:
        raise ValueError(
            f"Expected the videos that {out} was made of; got a folder that differs in "
            f"{len(difference)}, such as {min(difference)}. Prepare it into another --out."
        )


def _part(parts: Path, video: Video) -> Path:
    return parts / hashlib.sha256(video.video_id.encode()).hexdigest()[:24]


def _finish_video(
    root: Path, video: Video, options: FaceOptions, filters: FilterOptions, parts: Path
) -> None:
    """Write one video's records and rows; its .json comes last and says that it is finished."""
    from jdfd_keras.data.shards import encode_face, write_shard

    records, rows = (_part(parts, video).with_suffix(suffix) for suffix in (".tfrecord", ".json"))
    if rows.is_file():
        return
    reason = ""
    try:
        found = extract_faces(root / video.path, options, filters)
        if not found.faces:
            reason = "no face that may be taken" if found.dropped else "no face was found"
            num_frames = found.num_frames
            reason += f" in {num_frames} frame{'' if num_frames == 1 else 's'} looked at"
    except UnreadableFileError as error:  # and no fault of this machine, which must stop the run
        found = Extraction([], [], 0, {}, [])
        # As the tables name it, so that they are the same wherever the folder lies.
        reason = str(error).replace(str(root / video.path), video.path)
    write_shard(
        records,
        (
            encode_face(
                face.crop,
                label=video.label,
                video_id=video.video_id,
                frame_index=face.frame_index,
            )
            for face in found.faces
        ),
    )
    outcome = {
        "num_frames": found.num_frames,
        "num_tracks": len(found.tracks),
        "num_faces": len(found.faces),
        "dropped": found.dropped,
        "warning": " ".join(found.warnings),
        "reason": reason,
    }
    faces = [_describe(face, options) for face in found.faces]
    text = json.dumps({"outcome": outcome, "faces": faces})
    unfinished = rows.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, rows)


def _describe(face: Face, options: FaceOptions) -> dict:
    """Say all that the manifest says of a face, but for its video and shard."""
    return {
        "frame_index": face.frame_index,
        "time_s": round(face.time_s, 4),
        "track_id": face.track_id,
        "box": [int(edge) for edge in face.box[:4]],
        "detector": options.detector,
        "detector_score": round(face.box.score, 4),
        "landmarks": [round(float(value), 2) for value in face.landmarks.ravel()],
        "alignment_residual": round(face.alignment_residual, 5),
        "sharpness": round(face.quality.sharpness, 2),
        "outside": round(face.quality.outside, 4),
        "yaw_deg": round(face.quality.yaw_deg, 1),
    }


def _assemble(videos: list[Video], out: Path, faces_per_shard: int) -> None:
    """Join the parts into shards, then write both tables, the manifest last."""
    parts = {video.video_id: _part(out / PARTS, video) for video in videos}
    found = {
        video_id: json.loads(part.with_suffix(".json").read_text(encoding="utf-8"))
        for video_id, part in parts.items()
    }
    _check_faces(videos, {video_id: len(part["faces"]) for video_id, part in found.items()})

    from jdfd_keras.data.shards import join_shards

    shutil.rmtree(out / SHARDS, ignore_errors=True)
    (out / SHARDS).mkdir()
    rows: list[FaceRow] = []
    for name, members in _fill_shards(videos, found, faces_per_shard):
        join_shards(
            out / SHARDS / name,
            [parts[video.video_id].with_suffix(".tfrecord") for video in members],
        )
        rows += [
            FaceRow(
                **dataclasses.asdict(video),
                **{key: tuple(v) if isinstance(v, list) else v for key, v in face.items()},
                shard=name,
            )
            for video in members
            for face in found[video.video_id]["faces"]
        ]
    video_rows = [
        VideoRow(**dataclasses.asdict(video), **found[video.video_id]["outcome"])
        for video in videos
    ]
    write_rows(out / VIDEOS, video_rows, VideoRow)
    write_rows(out / MANIFEST, rows, FaceRow)


def _check_faces(videos: list[Video], num_faces: dict[str, int]) -> None:
    for name, label in CLASSES.items():
        if not any(num_faces[video.video_id] for video in videos if video.label == label):
            count = sum(video.label == label for video in videos)
            raise ValueError(
                f"Expected a face in at least one {name} video; got none in all {count}. See that "
                "they show upright faces of 40 pixels or more, or try --detector mtcnn."
            )


def _fill_shards(
    videos: list[Video], found: dict, faces_per_shard: int
) -> list[tuple[str, list[Video]]]:
    """Share the videos of each split out over its shards, mixed, whole videos each.

    Videos are taken in the order of their ids' hashes: always the same, and as good as random,
    so that a reader who shuffles some thousand faces at a time sees every class.
    """
    by_split = defaultdict(list)
    for video in sorted(videos, key=lambda v: hashlib.sha256(v.video_id.encode()).digest()):
        by_split[video.split].append(video)
    shards = []
    for split in SPLITS:
        members, filled = [[]], 0
        for video in by_split[split]:
            if filled >= faces_per_shard:
                members.append([])
                filled = 0
            members[-1].append(video)
            filled += len(found[video.video_id]["faces"])
        shards += [
            (f"{split}-{number:05d}.tfrecord", shard)
            for number, shard in enumerate(members)
            if shard
        ]
    return shards
