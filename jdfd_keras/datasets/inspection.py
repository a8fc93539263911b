"""Summary of the faces of a video, an image or a prepared dataset, for visual inspection.

Returns the faces that a training or a verdict is based on, as data; `reporting.dataset_report`
draws the contact sheet.
"""

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdfd_keras.datasets.manifest import count_filtered, read_faces, read_videos
from jdfd_keras.datasets.records import choose_evenly, choose_over_videos, read_crops
from jdfd_keras.datasets.split_tables import OFFICIAL, list_split_tables
from jdfd_keras.datasets.videos import LABEL_NAMES, FaceCount, count_by
from jdfd_keras.faces.extract import Extraction, Face, check_face_options, extract_faces
from jdfd_keras.faces.media import MediaInfo, UnreadableFileError
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.io.workers import WorkerCrashed, check_limits, run_all
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions

SHOWN = ("video_id", "split", "manipulation", "frame_index")  # columns of a SampledFace


@dataclass(frozen=True)
class TrackSummary(Result):
    """One track of a video."""

    track_id: int
    num_faces: int  # sampled frames in which the face was found
    num_kept: int  # of these, that were not filtered out
    confidence: float  # mean score of the detector, on its own scale
    width: float  # mean width of the box in pixels of the frame
    start_s: float
    end_s: float  # of the last face


@dataclass(frozen=True)
class FileInspection(Result):
    """Summary of the faces of a video or image."""

    path: str
    num_frames: int  # sampled ones
    num_faces: int  # that were not filtered out
    tracks: list[TrackSummary]  # in order of appearance, also those with all faces filtered out
    filtered: dict[str, int]  # reason to number of faces that were found and filtered out
    warnings: list[str]  # sentences about the file, such as its damage
    reason: str  # why there are no faces; "" if there are some
    media: MediaInfo
    sha256: str  # of the file
    faces: list[Face] = field(metadata={"json": False}, repr=False)
    options: FaceOptions = field(metadata={"json": False}, repr=False)
    limits: LimitOptions = field(metadata={"json": False}, repr=False)
    kind: str = "file"

    def sample(self, track_id: int, count: int) -> list[Face]:
        """Return up to `count` evenly spread faces of a track."""
        return choose_evenly([face for face in self.faces if face.track_id == track_id], count)


@dataclass(frozen=True, eq=False)
class SampledFace:
    """One face of a prepared dataset with its crop."""

    video_id: str
    split: str  # "" if the split table excludes its video, or there is none
    manipulation: str
    frame_index: int
    landmarks: np.ndarray  # float[68, 2], in pixels of the crop; float[0, 2] if it has none
    crop: np.ndarray  # uint8[size, size, 3], RGB


@dataclass(frozen=True)
class DatasetInspection(Result):
    """Summary of a prepared dataset."""

    path: str
    num_videos: int  # with or without faces
    num_faces: int
    groups: list[FaceCount]  # by split, class and manipulation; videos with or without faces
    totals: list[FaceCount]  # by class and manipulation, over all splits; videos with faces
    filtered: dict[str, int]  # reason to number of faces that were found and filtered out
    excluded: dict[str, str]  # video id to reason, of the videos without a face
    warnings: list[str]  # damage to videos that still decoded, with their paths
    reason: str  # why there are no faces; "" if there are some
    split_table: str  # that has the splits; "" if there is none: these are the published ones
    kind: str = "dataset"

    def sample(
        self, counts: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], list[SampledFace]]:
        """Read faces from as many videos as possible.

        Args:
            counts: Label and manipulation to number of faces.

        Returns:
            Label and manipulation to faces, in the order of their video ids.
        """
        columns = ["label", "manipulation", "video_id", "split", "frame_index", "shard", "offset"]
        rows = read_faces(self.path, split_table=self.split_table, columns=columns).to_pydict()
        members: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, label in enumerate(rows["label"]):
            members[LABEL_NAMES[label], rows["manipulation"][index]].append(index)
        chosen = {
            key: choose_over_videos(rows["video_id"], members[key], count)
            for key, count in counts.items()
        }
        selected = sorted({index for indices in chosen.values() for index in indices})
        crops = read_crops(self.path, rows["shard"], rows["offset"], selected)
        landmarks = read_faces(self.path, split_table="", columns=["landmarks"])["landmarks"]
        landmarks = landmarks.take(np.array(selected, int))
        faces = {
            index: SampledFace(
                *(rows[name][index] for name in SHOWN),
                landmarks=np.reshape(points, (-1, 2)),
                crop=crops[index],
            )
            for index, points in zip(selected, landmarks.to_pylist(), strict=True)
        }
        return {key: [faces[index] for index in indices] for key, indices in chosen.items()}


InspectionResult = FileInspection | DatasetInspection


def inspect(
    path: str | Path,
    *,
    faces: FaceOptions | None = None,
    filters: FilterOptions | None = None,
    all_frames: bool = False,
    limits: LimitOptions | None = None,
) -> InspectionResult:
    """Summarize the faces of a video or image, or those of a prepared dataset.

    Args:
        path: A video, an image or a prepared dataset.
        faces: Face extraction, for a video or image; a dataset has its own options.
        filters: Face quality filters, for a video or image.
        all_frames: Sample every frame unless `faces.every` is set, as an overlay does, so that
            both have the same tracks.
        limits: Limits of a video or image; the defaults if not given.

    Raises:
        OSError: If the path does not exist, cannot be read or is beyond a limit.
        ValueError: If an option is out of range, or the dataset is damaged.

    Example:
        >>> result = inspect("video.mp4", faces=FaceOptions(frames_per_video=4))
        >>> [(track.num_faces, track.num_kept) for track in result.tracks]
        [(4, 4)]
    """
    path = Path(path)
    if path.is_dir():
        return _inspect_dataset(path)
    faces, filters = faces or FaceOptions(), filters or FilterOptions()
    limits = limits or LimitOptions()
    check_face_options(faces, filters)
    check_limits(limits)
    if all_frames:
        faces = dataclasses.replace(faces, every=faces.every or 1)
    # In another process, so that a decoder that crashes is an error.
    extract = functools.partial(extract_faces, options=faces, filters=filters, limits=limits)
    ((_, result),) = run_all(extract, [path], num_workers=1, limits=limits)
    if isinstance(result, WorkerCrashed):
        raise UnreadableFileError(
            f"Expected a video or image that can be analysed; got {path}, {result}"
        )
    return _summarize(path, result, faces, limits)


def _summarize(
    path: Path, extraction: Extraction, options: FaceOptions, limits: LimitOptions
) -> FileInspection:
    kept = Counter(face.track_id for face in extraction.faces)
    reason = ""
    if not extraction.faces:
        reason = "all faces were filtered out" if extraction.filtered else "no face was found"
        reason += f" in {plural(extraction.num_frames, 'sampled frame')}"
    return FileInspection(
        path=str(path),
        num_frames=extraction.num_frames,
        num_faces=len(extraction.faces),
        tracks=[
            TrackSummary(
                track_id=track.track_id,
                num_faces=track.num_faces,
                num_kept=kept[track.track_id],
                confidence=round(track.confidence, 3),
                width=round(track.width, 1),
                start_s=round(track.start_s, 3),
                end_s=round(track.end_s, 3),
            )
            for track in extraction.tracks
        ],
        filtered=extraction.filtered,
        warnings=extraction.warnings,
        reason=reason,
        media=extraction.info,
        sha256=extraction.sha256,
        faces=extraction.faces,
        options=options,
        limits=limits,
    )


def _inspect_dataset(directory: Path) -> DatasetInspection:
    columns = ["split", "label", "manipulation", "video_id"]
    table = OFFICIAL if OFFICIAL in list_split_tables(directory) else ""
    faces = read_faces(directory, split_table=table, columns=columns)
    videos = read_videos(directory, split_table=table)
    without_faces = [video for video in videos if not video.num_faces]
    return DatasetInspection(
        path=str(directory),
        num_videos=len(videos),
        num_faces=len(faces),
        groups=count_by(faces, "split", "label", "manipulation", without_faces=without_faces),
        totals=count_by(faces, "label", "manipulation"),
        filtered=count_filtered(videos),
        excluded={video.video_id: video.reason for video in without_faces},
        warnings=[f"{video.path}: {video.warning}" for video in videos if video.warning],
        reason="" if len(faces) else "the dataset has no face",
        split_table=table,
    )
