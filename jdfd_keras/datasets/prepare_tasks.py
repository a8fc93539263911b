"""The tasks of `prepare`: extract the faces of one video, and write one shard from such videos.

    parts/<name>.tfrecord    the records of a finished video
    parts/<name>.json        its outcome and rows; written last, so it marks the video as finished
    parts/<shard>.parquet    the rows of a shard

The manifest is copied from the rows of the shards, so that neither has to fit in memory.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jdfd_keras.datasets import manifest
from jdfd_keras.datasets.hashing import hash_face
from jdfd_keras.datasets.manifest import FaceRow, VideoOutcome, VideoRow, media_facts
from jdfd_keras.datasets.records import SHARDS, encode_face, frame_record, read_framed
from jdfd_keras.datasets.videos import Listing, Video
from jdfd_keras.faces.extract import Extraction, Face, extract_faces
from jdfd_keras.faces.media import UnreadableFileError, choose_frames
from jdfd_keras.io.console import plural, print_message
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import PARTS, Store, local_path, read_text, write_text
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions

RECORDS, ROWS = ".tfrecord", ".json"


@dataclass(frozen=True)
class ExtractedVideo(Result):
    """A finished video, as stored in `parts/<name>.json`.

    `label` is that in its records, `beside` that of its VideoFile; `faces` has one dict per record,
    with the fields of FaceRow that are not those of a Video, `shard` or `offset`.
    """

    label: int
    beside: str
    outcome: VideoOutcome
    faces: list


@dataclass(frozen=True)
class VideoFile:
    """A video, the size of its file or files, and files beside it; see Listing."""

    video: Video
    file_bytes: int
    frames: tuple[str, ...] = ()
    landmarks: tuple[str, ...] = ()
    mask: str = ""

    @property
    def beside(self) -> str:
        """Digest of the names of the mask and the landmarks; "" if it has neither."""
        names = "\n".join((self.mask, *self.landmarks))
        return (
            hashlib.sha256(names.encode()).hexdigest()[:16] if self.mask or self.landmarks else ""
        )

    def __str__(self) -> str:
        return self.video.path


@dataclass(frozen=True)
class ExtractVideo:
    """Task that extracts the faces of one video of the folder `root`.

    A video without a face has an outcome with the reason; an error of the machine is raised.
    """

    root: Store
    out: Store
    faces: FaceOptions
    filters: FilterOptions
    limits: LimitOptions = LimitOptions()
    again: bool = False  # whether to extract finished videos again

    def __call__(self, item: VideoFile) -> VideoOutcome:
        """Extract and write the faces of a video, unless it is finished already.

        A finished video is extracted again if the size of its file, its label, or the names of its
        mask and landmarks have changed, and if its outcome is empty or cut.
        """
        video = item.video
        if not self.again and self.out.exists(part_name(video) + ROWS):
            try:
                part = read_part(self.out, video)
            except ValueError:
                print_message(
                    f"warning: {self.out.location}/{part_name(video)}{ROWS} is damaged, perhaps by "
                    f"a power failure: {video.path} is extracted again"
                )
            else:
                found = (part.outcome.file_bytes, part.label, part.beside)
                if found == (item.file_bytes, video.label, item.beside):
                    return part.outcome
        extraction, reason = self._extract(item)
        outcome = VideoOutcome(
            file_bytes=item.file_bytes,
            sha256=extraction.sha256,
            width=extraction.width,
            height=extraction.height,
            **media_facts(extraction.info),
            num_frames=extraction.num_frames,
            num_tracks=len(extraction.tracks),
            num_faces=len(extraction.faces),
            filtered=extraction.filtered,
            warning=" ".join(extraction.warnings),
            reason=reason,
        )
        return self._write(item, outcome, extraction.faces)

    def fail(self, item: VideoFile, reason: str) -> VideoOutcome:
        """Write the outcome of a video whose process dies, or is beyond a limit."""
        return self._write(item, VideoOutcome(item.file_bytes, reason=reason), [])

    def _write(self, item: VideoFile, outcome: VideoOutcome, faces: list[Face]) -> VideoOutcome:
        video, rows = item.video, []
        if faces:  # some file systems cannot store an empty file
            with self.out.create(part_name(video) + RECORDS) as file:
                for face in faces:
                    crop = face.crop
                    index, video_id = face.frame_index, video.video_id
                    record = encode_face(
                        crop,
                        label=video.label,
                        video_id=video_id,
                        frame_index=index,
                        mask=face.mask,
                    )
                    file.write(frame_record(record))
                    rows.append(_to_row(face, self.faces.detector) | {"phash": hash_face(crop)})
        part = ExtractedVideo(video.label, item.beside, outcome, rows)
        write_text(self.out, part_name(video) + ROWS, json.dumps(part.to_dict()))
        return outcome

    def _extract(self, item: VideoFile) -> tuple[Extraction, str]:
        """Extract faces; return them with the reason if there are none."""
        with contextlib.ExitStack() as stack:

            def fetch(name: str) -> Path:
                return stack.enter_context(local_path(self.root, name))

            names = item.frames or (item.video.path,)
            count, every = self.faces.frames_per_video, self.faces.every
            # The other files are not opened.
            paths = {
                index: fetch(names[index]) for index in choose_frames(len(names), count, every)
            }
            landmarks = [
                fetch(name) if name and index in paths else ""
                for index, name in enumerate(item.landmarks)
            ]
            try:
                files = [paths.get(index, name) for index, name in enumerate(names)]
                extraction = extract_faces(
                    files if item.frames else paths[0],
                    self.faces,
                    self.filters,
                    self.limits,
                    landmarks,
                    fetch(item.mask) if item.mask else None,
                )
            # Only errors of the file: an error of this machine must stop the run.
            except UnreadableFileError as error:
                # Relative paths, so that the tables do not depend on where the folder is.
                reason = " ".join(str(error).split())
                for index, path in paths.items():
                    reason = reason.replace(str(path), names[index])
                if item.frames:
                    folder = next(iter(paths.values())).parent
                    reason = reason.replace(str(folder), item.video.path)
                return Extraction([], [], 0, {}, []), reason
        if extraction.faces:
            return extraction, ""
        problem = "all faces were filtered out" if extraction.filtered else "no face was found"
        return extraction, f"{problem} in {plural(extraction.num_frames, 'sampled frame')}"


def part_name(video: Video) -> str:
    """Return the name of the files of a finished video, without their suffix.

    Example:
        >>> part_name(Video("mine/a", "a.mp4", 0, "", "", ("a",), "train"))
        'parts/67/6725cf0f44211e46f590c5ee'
    """
    digest = hashlib.sha256(video.video_id.encode()).hexdigest()[:24]
    return f"{PARTS}/{digest[:2]}/{digest}"


def read_part(store: Store, video: Video) -> ExtractedVideo:
    """Read the outcome and the rows of a finished video.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> folders = LocalStore("videos"), LocalStore("extracted")
        >>> extract = ExtractVideo(*folders, FaceOptions(frames_per_video=4), FilterOptions())
        >>> video = Video("mine/a", "real/person00.mp4", 0, "", "", ("a",), "train")
        >>> outcome = extract(VideoFile(video, file_bytes=0))
        >>> read_part(LocalStore("extracted"), video).outcome.num_faces
        4
    """
    return ExtractedVideo.from_dict(json.loads(read_text(store, part_name(video) + ROWS)))


def _to_row(face: Face, detector: str) -> dict:
    """Return the manifest fields of a face, without those of its video, its hash and its shard."""
    return {
        "frame_index": face.frame_index,
        "time_s": round(face.time_s, 4),
        "track_id": face.track_id,
        "box": [int(edge) for edge in face.box[:4]],
        "detector": detector,
        "detector_score": round(face.box.score, 4),
        "landmarks": [round(float(value), 2) for value in face.landmarks.ravel()],
        "alignment_residual": round(face.alignment_residual, 5),
        "sharpness": round(face.quality.sharpness, 2),
        "outside": round(face.quality.outside, 4),
        "yaw_deg": round(face.quality.yaw_deg, 1),
    }


@dataclass(frozen=True)
class Shard:
    """The plan of one shard: `videos` are those whose faces are in it."""

    name: str
    videos: tuple[Video, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def rows_name(self) -> str:
        """Name of the file of its rows, which the manifest is copied from."""
        return f"{PARTS}/{self.name}.parquet"


class _DamagedVideosError(Exception):
    """Ids of videos whose records are damaged."""


@dataclass(frozen=True)
class WriteShard:
    """Task that writes one shard into the prepared dataset `out`."""

    out: Store

    def __call__(self, shard: Shard) -> tuple[str, ...]:
        """Write a shard, and its rows into the folder of the parts.

        Returns:
            The ids of the videos whose records are damaged; the shard is written without any.
        """
        try:
            self._write(shard)
        except _DamagedVideosError as error:
            return error.args
        return ()

    def _write(self, shard: Shard) -> None:
        rows, offset, damaged = [], 0, []
        with self.out.create(f"{SHARDS}/{shard.name}") as file:
            for video in shard.videos:
                faces = read_part(self.out, video).faces
                records = self._read_records(video, len(faces))
                if records is None:
                    damaged.append(video.video_id)
                    continue
                for face, record in zip(faces, records, strict=True):
                    file.write(record)
                    location = {"shard": shard.name, "offset": offset}
                    rows.append(FaceRow(**video.to_dict() | face | location))
                    offset += len(record)
            if damaged:
                raise _DamagedVideosError(*damaged)  # removes the file
        with self.out.create(shard.rows_name) as file:
            manifest.write_table(file, FaceRow, [manifest.to_table(rows, FaceRow)])

    def _read_records(self, video: Video, count: int) -> list[bytes] | None:
        """Return the records of a finished video; None if they are missing, cut or damaged."""
        try:
            with self.out.open(part_name(video) + RECORDS) as file:
                records = list(read_framed(file))
        except (FileNotFoundError, ValueError):
            return None
        return records if len(records) == count else None


def plan_shards(
    videos: list[Video], num_faces: Mapping[str, int], *, faces_per_shard: int
) -> list[Shard]:
    """Distribute videos over shards, in mixed order.

    Videos are ordered by the hash of their id: deterministic, and mixed well enough that a reader
    with a shuffle buffer of a few thousand faces sees every class.

    Args:
        videos: All videos.
        num_faces: Video id to number of faces.
        faces_per_shard: A shard is closed once it has this many faces. The faces of one video stay
            together.

    Example:
        >>> video = Video("mine/a", "a.mp4", 0, "", "", ("a",), "train")
        >>> plan_shards([video], {"mine/a": 2}, faces_per_shard=1024)[0].name
        '00000.tfrecord'
    """
    ordered = sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())
    members, filled = [], faces_per_shard
    for video in (video for video in ordered if num_faces[video.video_id]):
        if filled >= faces_per_shard:
            members.append([])
            filled = 0
        members[-1].append(video)
        filled += num_faces[video.video_id]
    return [Shard(f"{number:05d}.tfrecord", tuple(shard)) for number, shard in enumerate(members)]


def write_tables(
    out: Store, listing: Listing, outcomes: Mapping[str, VideoOutcome], shards: list[Shard]
) -> None:
    """Write both tables of a dataset with its shards; the manifest last, which marks it finished.

    Args:
        out: The prepared dataset.
        listing: Its videos.
        outcomes: Video id to outcome.
        shards: Its shards.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> write_tables(LocalStore("empty_dataset"), Listing([]), {}, [])
        >>> sorted(LocalStore("empty_dataset").list())
        ['manifest.parquet', 'videos.parquet']
    """
    rows = []
    for video in listing.videos:
        values = video.to_dict() | outcomes[video.video_id].to_dict()
        values["subjects"] = listing.subjects.get(video.video_id, ())
        values["frames"] = listing.frames.get(video.video_id, ())
        rows.append(VideoRow(**values))
    with out.create(manifest.VIDEOS) as file:
        manifest.write_table(file, VideoRow, [manifest.to_table(rows, VideoRow)])
    with out.create(manifest.MANIFEST) as file:
        manifest.write_table(file, FaceRow, (_read_rows(out, shard) for shard in shards))


def _read_rows(out: Store, shard: Shard) -> pa.Table:
    with out.open(shard.rows_name) as file:
        return pq.read_table(file, schema=manifest.schema_of(FaceRow))
