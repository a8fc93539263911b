"""Face extraction: from a video or image to aligned face crops with their tracks.

With the detector `none`, images are crops already and are only resized.
"""

import math
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.align import (
    align_face,
    canonical_points,
    crop_mask,
    describe_distortion,
    resize_crop,
)
from jdfd_keras.faces.credentials import ContentCredentials, read_handle
from jdfd_keras.faces.decode import open_media, read_ahead
from jdfd_keras.faces.detect import Box, face_detector
from jdfd_keras.faces.face_mesh import landmark_finder
from jdfd_keras.faces.landmarks import read_landmarks
from jdfd_keras.faces.media import Frame, MediaFile, MediaInfo, UnreadableFileError, choose_frames
from jdfd_keras.faces.quality import (
    Quality,
    check_filters,
    estimate_yaw,
    filter_reason,
    find_marked_track,
    measure_sharpness,
)
from jdfd_keras.faces.track import TrackedFace, track_faces
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.options import CredentialOptions, FaceOptions, FilterOptions, LimitOptions

# More crops are kept in a temporary file, so that memory does not grow with the video.
MAX_BYTES_IN_MEMORY = 16 * 2**20
NO_TRACK = -1


class CropStore:
    """Crops of one size, uint8[size, size, 3]: in memory if they are few, or in a file."""

    def __init__(self, size: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY)  # noqa: SIM115, closed with the last face
        self._shape = (size, size, 3)
        self._count = 0

    def append(self, crop: np.ndarray) -> int:
        """Append a crop; return its index."""
        self._file.seek(self._count * crop.nbytes)
        self._file.write(crop.tobytes())
        self._count += 1
        return self._count - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Read a crop."""
        num_bytes = math.prod(self._shape)
        self._file.seek(index * num_bytes)
        return np.frombuffer(self._file.read(num_bytes), np.uint8).reshape(self._shape)

    def __getstate__(self) -> tuple[tuple[int, int, int], int, bytes | str]:
        """Return the crops for another process: the bytes, or a copy of the file."""
        self._file.seek(0)
        if self._count * math.prod(self._shape) <= MAX_BYTES_IN_MEMORY:
            return self._shape, self._count, self._file.read()
        with tempfile.NamedTemporaryFile(delete=False) as copy:
            shutil.copyfileobj(self._file, copy)
        return self._shape, self._count, copy.name

    def __setstate__(self, state: tuple[tuple[int, int, int], int, bytes | str]) -> None:
        """Take over the crops, and delete their file as soon as it is open."""
        self._shape, self._count, crops = state
        if isinstance(crops, str):
            self._file = open(crops, "r+b")  # noqa: SIM115, as above
            os.unlink(crops)
        else:
            self._file = tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY)  # noqa: SIM115
            self._file.write(crops)


def encode_png(crop: np.ndarray) -> bytes:
    """Encode a crop, uint8[size, size, 3] RGB, as PNG, which is lossless.

    Of five strategies and six filters of libpng this was the fastest on crops of 299 pixels, in
    three quarters of the time of the defaults, at the same file size.

    Example:
        >>> encode_png(np.zeros((71, 71, 3), np.uint8))[1:4]
        b'PNG'
    """
    params = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    params += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    return cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), params)[1].tobytes()


@dataclass(frozen=True)
class Face(Result):
    """One face of one frame; `to_dict` has no pixels."""

    frame_index: int  # position of the frame in the file, from 0
    time_s: float  # presentation time of the frame; 0 for images, also of a video of image files
    track_id: int  # id of the track in this file, from 0
    box: Box  # of the detector in pixels of the frame, with its score
    landmarks: np.ndarray  # float32[68, 2] in pixels of the crop; float32[0, 2] if unknown
    alignment_residual: float  # as a share of the crop's width, by `align_face`; NaN if unknown
    quality: Quality
    crops: CropStore = field(repr=False, metadata={"json": False})
    crop_index: int = field(repr=False, metadata={"json": False})
    # PNG of the marked pixels of the crop, uint8[size, size], 0 or 255; empty if they are unknown.
    mask: bytes = field(default=b"", repr=False, metadata={"json": False})

    @property
    def crop(self) -> np.ndarray:
        """The crop, uint8[size, size, 3], RGB; read from storage on every access."""
        return self.crops[self.crop_index]


@dataclass(frozen=True)
class Track(Result):
    """One person in a video."""

    track_id: int  # from 0
    num_faces: int  # sampled frames in which the face was detected
    confidence: float  # mean score of the detector, on its own scale; NaN if unknown
    width: float  # mean width of the box in pixels of the frame
    start_s: float  # time of the first and last of these frames
    end_s: float


@dataclass(frozen=True)
class Extraction(Result):
    """Faces and tracks of a file."""

    faces: list[Face]  # in the order of the file and, within a frame, of their tracks
    tracks: list[Track]  # in the order of appearance; also those with all faces filtered out
    num_frames: int  # sampled frames
    filtered: dict[str, int]  # reason to number of faces that were detected and filtered out
    warnings: list[str]  # sentences about the file, such as its damage
    width: int = 0  # of the first frame in pixels
    height: int = 0
    info: MediaInfo = field(default_factory=MediaInfo)
    # Of the bytes that were decoded, hexadecimal; of a video that is stored as image files, of the
    # SHA-256 digests of the decoded files in their order.
    sha256: str = ""
    file_bytes: int | None = None  # number of these bytes
    credentials: ContentCredentials | None = None  # if they were requested


def check_face_options(options: FaceOptions, filters: FilterOptions | None = None) -> None:
    """Check that options are within their ranges.

    Example:
        >>> check_face_options(FaceOptions(detector="retina"))
        Traceback (most recent call last):
            ...
        ValueError: Expected the detector 'dlib', 'mtcnn', 'mesh', or 'none' for images of ...
    """
    has_detector = options.detector != "none"
    if has_detector:
        face_detector(options.detector)
        landmark_finder(options.detector)
    canonical_points(options.face_size, options.margin, options.alignment)
    choose_frames(1, options.frames_per_video, every=0)
    if options.every < 0 or options.tracks not in ("largest", "all"):
        raise ValueError(
            f"Expected every >= 0 and tracks 'largest' or 'all'; got every={options.every} and "
            f"tracks={options.tracks!r}. Try the defaults, 0 and 'largest'."
        )
    check_filters(filters or FilterOptions(), has_detector=has_detector)


def extract_faces(
    path: str | Path | Sequence[str | Path],
    options: FaceOptions | None = None,
    filters: FilterOptions | None = None,
    limits: LimitOptions | None = None,
    landmarks: Sequence[str | Path] = (),
    mask: str | Path | None = None,
    on_frame: Callable[[int, int, list[Face]], None] | None = None,
    credentials: CredentialOptions | None = None,
    times_s: Sequence[float] = (),
) -> Extraction:
    """Extract the faces of a video or image.

    Memory does not grow with the length of the video: crops beyond 16 MiB are kept in a temporary
    file as long as the result exists.

    Args:
        path: The file; or the image files of a video in the order of its frames, of which only the
            sampled ones are read. Frames of image files have the time 0, unless it is given.
        options: Sampled frames, tracks, detector and alignment. With the detector `none`, every
            frame is a face of track 0.
        filters: Quality filters; none if not given.
        limits: Limits of the file; the defaults if not given.
        landmarks: With the detector `none`, a .npy file for each of the image files in `path`,
            float[k, 2] with k >= 68 in pixels of the image, of which the first 68 are dlib's; ""
            for none.
        mask: Video or image that marks the manipulated pixels. The face that it marks is extracted
            in place of the largest or of all, as by `find_marked_track`, with these pixels as its
            `mask`. Not used with the detector `none`.
        on_frame: Called after each frame with the number of frames so far and in all, and with the
            faces of this one, before any is filtered out.
        credentials: If given, also read the Content Credentials of the file, of the same bytes;
            there are none of a video that is stored as image files.
        times_s: Presentation time of each of the image files in `path`, if they are known: faces
            are then tracked as those of a video.

    Returns:
        The faces with their tracks, and the number of filtered faces by reason. `faces` is empty if
        no frame shows a face.

    Raises:
        OSError: If the file does not exist, cannot be decoded, is beyond a limit, or changes
            meanwhile.

    Example:
        >>> extraction = extract_faces("video.mp4", FaceOptions(frames_per_video=4))
        >>> len(extraction.faces), extraction.faces[0].crop.shape
        (4, (299, 299, 3))
    """
    options, filters = options or FaceOptions(), filters or FilterOptions()
    check_face_options(options, filters)
    limits = limits or LimitOptions()
    detector = face_detector(options.detector) if options.detector != "none" else None
    find, max_faces = landmark_finder(options.detector), limits.max_faces_per_frame
    crops, faces, matrices = CropStore(options.face_size), [], []
    num_frames = width = height = total = 0
    warnings: list[str] = []
    shapes: Counter[tuple[int, ...]] = Counter()
    damaged: list[str] = []  # files of landmarks
    count, every = options.frames_per_video, options.every
    with open_media(path, limits, times_s) as media:
        with read_ahead(media.read(count, every=every)) as frames:
            tracked = track_faces(
                frames, detector, max_faces=max_faces, warn=warnings.append, find=find
            )
            for frame, tracked_faces in tracked:
                num_frames += 1
                if num_frames == 1:
                    height, width = frame.shape[:2]
                    total = len(choose_frames(max(media.info.num_frames, 1), count, every))
                shapes[frame.shape[:2]] += 1
                if detector is None and landmarks and str(landmarks[frame.index]):
                    try:
                        points = read_landmarks(landmarks[frame.index])
                        tracked_faces = [tracked_faces[0]._replace(landmarks=points)]
                    except ValueError:
                        damaged.append(Path(landmarks[frame.index]).name)
                for face in tracked_faces:
                    cropped, matrix = _crop_face(frame, face, options, crops)
                    faces.append(cropped)
                    matrices.append(matrix)
                if on_frame:
                    on_frame(num_frames, total, faces[len(faces) - len(tracked_faces) :])
        signed = None
        if credentials and isinstance(media.file, MediaFile):
            signed = read_handle(media.file.handle, credentials, media.info.encoder)
    if detector is None:
        warnings += describe_distortion(shapes, options.face_size)
    if damaged:
        files = plural(len(damaged), "file")
        warnings.append(f"{files} of landmarks could not be read, such as {damaged[0]}")
    track_id, reason = _find_largest(faces), "not the largest face"
    if options.tracks == "all":
        track_id = None
    if mask and faces and detector is not None:

        def keep_mask(position: int, marked: np.ndarray) -> None:
            pixels = crop_mask(marked, matrices[position], options.face_size, (width, height))
            if pixels.any():
                encoded = cv2.imencode(".png", pixels)[1].tobytes()
                faces[position] = replace(faces[position], mask=encoded)

        try:
            boxes = [(face.frame_index, face.track_id, face.box) for face in faces]
            marked, notes = find_marked_track(
                mask, boxes, media.info.num_frames, (width, height), limits, keep_mask
            )
            warnings += notes
            track_id, reason = marked, "not the manipulated face"
            if marked is None:
                track_id, reason = NO_TRACK, "the mask marks none of the faces"
        except UnreadableFileError:
            faces_are = "all faces were" if track_id is None else "the largest face was"
            warnings.append(f"the mask {Path(mask).name} could not be read: {faces_are} taken")
    kept, filtered = _filter_faces(faces, track_id, reason, filters)
    return Extraction(
        faces=kept,
        tracks=_summarize_tracks(faces),
        num_frames=num_frames,
        filtered=filtered,
        warnings=[*media.warnings, *warnings],
        width=width,
        height=height,
        info=media.info,
        sha256=media.file.sha256,
        file_bytes=media.file.size,
        credentials=signed,
    )


def _crop_face(
    frame: Frame, tracked: TrackedFace, options: FaceOptions, crops: CropStore
) -> tuple[Face, np.ndarray]:
    """Return a face and the matrix of its alignment."""
    box, is_whole = tracked.box, options.detector == "none"
    if is_whole:
        aligned = resize_crop(frame.pixels, options.face_size, tracked.landmarks)
    else:
        aligned = align_face(frame.pixels, tracked.landmarks, box, options)
    face = Face(
        frame_index=frame.index,
        time_s=0.0 if math.isnan(frame.time_s) else frame.time_s,
        track_id=tracked.track_id,
        box=box,
        landmarks=aligned.landmarks,
        alignment_residual=aligned.residual,
        quality=Quality(
            detector_score=box.score,
            sharpness=measure_sharpness(frame.pixels, box),
            size_px=box.width,
            outside=aligned.outside,
            yaw_deg=math.nan if is_whole else estimate_yaw(tracked.landmarks),
        ),
        crops=crops,
        crop_index=crops.append(aligned.crop),
    )
    return face, aligned.matrix


def _summarize_tracks(faces: list[Face]) -> list[Track]:
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


def _find_largest(faces: list[Face]) -> int | None:
    """Return the track that fills most of the video."""
    presence: dict[int, float] = defaultdict(float)
    for face in faces:
        # False positives of dlib have scores near 0, so they have little weight.
        presence[face.track_id] += face.box.area * min(max(face.box.score, 0.0), 1.0)
    return max(presence, key=lambda track_id: presence[track_id], default=None)


def _filter_faces(
    faces: list[Face], track_id: int | None, other_reason: str, filters: FilterOptions
) -> tuple[list[Face], dict[str, int]]:
    """Keep the faces of a track, or of all with None, that no filter removes."""
    kept: list[Face] = []
    filtered: Counter[str] = Counter()
    for face in faces:
        if track_id is not None and face.track_id != track_id:
            reason = other_reason
        else:
            reason = filter_reason(face.quality, filters)
        if reason:
            filtered[reason] += 1
        else:
            kept.append(face)
    return kept, dict(filtered)
