"""A video or image in, aligned face crops out.

The one way through this room: decode, find and follow, align, measure, choose. Takes a path;
gives faces. Knows nothing of labels, data sets or TensorFlow (unless MTCNN is chosen, which
runs on it).
"""

import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.align import align_face, canonical_points
from jdfd_keras.faces.decode import Frame, read_frames, sample_frame_indices
from jdfd_keras.faces.detect import Box, face_detector
from jdfd_keras.faces.quality import (
    Quality,
    check_filters,
    estimate_yaw,
    find_fault,
    measure_sharpness,
)
from jdfd_keras.faces.track import Sighting, track_faces
from jdfd_keras.options import FaceOptions, FilterOptions

# Crops beyond this are kept in a temporary file, so that memory does not grow with the video.
MOST_BYTES_IN_MEMORY = 16 * 2**20


class CropStore:
    """Crops of one size, appended and read back; a few in memory, many in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(MOST_BYTES_IN_MEMORY)  # noqa: SIM115, closed with the last face
        self._shape: tuple[int, ...] = (0, 0, 3)
        self._count = 0

    def __len__(self) -> int:
        """Count the crops."""
        return self._count

    def append(self, crop: np.ndarray) -> None:
        """Keep one more crop, uint8[size, size, 3]."""
        self._shape = crop.shape
        self._file.seek(self._count * crop.nbytes)
        self._file.write(crop.tobytes())
        self._count += 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one crop back."""
        size = int(np.prod(self._shape))
        self._file.seek(index * size)
        return np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)


def encode_png(crop: np.ndarray) -> bytes:
    """Encode a crop, uint8[size, size, 3] RGB, without loss; the way that is fast for faces.

    Of five strategies and six filters of libpng this was the fastest on crops of 299 pixels, in
    three quarters of the default's time, at the default's size.
    """
    how = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    how += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    return cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), how)[1].tobytes()


@dataclass(frozen=True)
class Face:
    """One face of one frame.

    Attributes:
        frame_index: The frame's position in the file, from 0.
        time_s: Its presentation time in seconds.
        track_id: The person's track in this file, from 0.
        box: Where the detector saw the face, in pixels of the frame, and its score.
        landmarks: float32[68, 2], in pixels of the crop.
        alignment_residual: As `align_face` gives it, a share of the crop's width.
        quality: How well it can be seen.
        crops: Where the crop is kept,
        position: and at which place.
    """

    frame_index: int
    time_s: float
    track_id: int
    box: Box
    landmarks: np.ndarray
    alignment_residual: float
    quality: Quality
    crops: CropStore
    position: int

    @property
    def crop(self) -> np.ndarray:
        """The crop, uint8[size, size, 3], RGB; read anew every time."""
        return self.crops[self.position]


@dataclass(frozen=True)
class Track:
    """One person of a video.

    Attributes:
        track_id: What its faces carry.
        num_faces: Frames in which the face was found, of those looked at.
        confidence: Mean score of the detector, on its own scale.
        width: Mean width of the box in pixels of the frame.
        start_s: Time of the first of them in seconds.
        end_s: Time of the last.
    """

    track_id: int
    num_faces: int
    confidence: float
    width: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Extraction:
    """What a file gave.

    Attributes:
        faces: The faces taken, in the order of the file; those of one frame in that of their
            tracks.
        tracks: Everybody who was found, taken or not, in the order of appearance.
        num_frames: Frames looked at.
        dropped: Faces found and not taken, by reason.
        warnings: What was wrong with the file, as sentences.
        width: Width of the first frame in pixels.
        height: Its height.
    """

    faces: list[Face]
    tracks: list[Track]
    num_frames: int
    dropped: dict[str, int]
    warnings: list[str]
    width: int = 0
    height: int = 0


def check_face_options(options: FaceOptions, filters: FilterOptions | None = None) -> None:
    """See that options are within their ranges, before any file is opened.

    Raises:
        ValueError: If one is not.
    """
    face_detector(options.detector)
    canonical_points(options.face_size, options.margin, options.alignment)
    sample_frame_indices(1, options.frames_per_video)
    if options.every < 0 or options.tracks not in ("largest", "all"):
        raise ValueError(
            f"Expected every >= 0 and tracks 'largest' or 'all'; got every={options.every} and "
            f"tracks={options.tracks!r}. Try the defaults, 0 and 'largest'."
        )
    check_filters(filters or FilterOptions())


def extract_faces(
    path: str | Path, options: FaceOptions | None = None, filters: FilterOptions | None = None
) -> Extraction:
    """Take the faces of a video or image.

    Args:
        path: The file.
        options: Which frames, which people, detector and alignment.
        filters: Which faces are too bad to be taken; none if not given.

    Returns:
        The faces with their tracks, and what was left out for which reason; no faces if no
        frame shows one. Memory does not grow with the length of the video, but crops beyond
        16 MiB take room in the folder for temporary files while the result is held.

    Raises:
        OSError: If the file is not there or nothing of it decodes.
        ValueError: If an option is out of its range.
    """
    options, filters = options or FaceOptions(), filters or FilterOptions()
    check_face_options(options, filters)
    warnings: list[str] = []
    frames = read_frames(path, options.frames_per_video, every=options.every, warn=warnings.append)
    crops, faces, num_frames, width, height = CropStore(), [], 0, 0, 0
    for frame, sightings in track_faces(frames, face_detector(options.detector)):
        num_frames += 1
        if num_frames == 1:
            height, width = frame.pixels.shape[:2]
        faces += [_take_face(frame, sighting, options, crops) for sighting in sightings]
    tracks = _sum_up_tracks(faces)
    taken, dropped = _choose(faces, options.tracks, filters)
    return Extraction(taken, tracks, num_frames, dropped, warnings, width, height)


def _take_face(frame: Frame, sighting: Sighting, options: FaceOptions, crops: CropStore) -> Face:
    box = sighting.box
    aligned = align_face(
        frame.pixels,
        sighting.landmarks,
        size=options.face_size,
        margin=options.margin,
        mode=options.alignment,
        box=box,
    )
    crops.append(aligned.crop)
    return Face(
        frame_index=frame.index,
        time_s=frame.time_s,
        track_id=sighting.track_id,
        box=box,
        landmarks=aligned.landmarks,
        alignment_residual=aligned.residual,
        quality=Quality(
            detector_score=box.score,
            sharpness=measure_sharpness(frame.pixels, box),
            size_px=box.width,
            outside=aligned.outside,
            yaw_deg=estimate_yaw(sighting.landmarks),
        ),
        crops=crops,
        position=len(crops) - 1,
    )


def _sum_up_tracks(faces: list[Face]) -> list[Track]:
    by_track: dict[int, list[Face]] = defaultdict(list)
    for face in faces:
        by_track[face.track_id].append(face)
    return [
        Track(
            track_id=track_id,
            num_faces=len(members),
            confidence=float(np.mean([face.box.score for face in members])),
            width=float(np.mean([face.box.width for face in members])),
            start_s=members[0].time_s,
            end_s=members[-1].time_s,
        )
        for track_id, members in sorted(by_track.items())
    ]


def _choose(
    faces: list[Face], tracks: str, filters: FilterOptions
) -> tuple[list[Face], dict[str, int]]:
    presence: Counter = Counter()
    for face in faces:
        # Boxes that are no faces have scores near 0 in dlib: they weigh little.
        presence[face.track_id] += face.box.area * min(max(face.box.score, 0.0), 1.0)
    largest = max(presence, key=presence.get, default=None)
    taken, dropped = [], Counter()
    for face in faces:
        if tracks == "largest" and face.track_id != largest:
            fault = "not the largest face"
        else:
            fault = find_fault(face.quality, filters)
        if fault:
            dropped[fault] += 1
        else:
            taken.append(face)
    return taken, dict(dropped)
