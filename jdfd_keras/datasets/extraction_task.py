"""The task of a worker: extract the faces of one video, and write its records and rows.

Runs in a process on this machine or on a cluster. A video without a face has an outcome with the
reason; an error of the machine is raised.

    parts/<name>.tfrecord    the records of the video
    parts/<name>.json        its outcome and rows; written last, so it marks the video as finished
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

from jdfd_keras.datasets.hashing import hash_face
from jdfd_keras.datasets.manifest import VideoOutcome
from jdfd_keras.datasets.records import encode_face, frame_record
from jdfd_keras.datasets.videos import Video
from jdfd_keras.faces.decode import UnreadableFileError
from jdfd_keras.faces.extract import Extraction, Face, extract_faces
from jdfd_keras.io.console import plural
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import PARTS, Store, read_text, write_text
from jdfd_keras.options import FaceOptions, FilterOptions

RECORDS, ROWS = ".tfrecord", ".json"

# Sum of the standard's quantization table for luminance, which the quality scales.
# Reference: ITU-T T.81 (1992), table K.1; the Independent JPEG Group's jcparam.c for the scale.
LUMINANCE_SUM = 3688
OUT_OF_MEMORY = -4  # OpenCV's StsNoMem


@dataclass(frozen=True)
class ExtractedVideo(Result):
    """A finished video, as stored in `parts/<name>.json`.

    Attributes:
        label: Label that its records have.
        outcome: The outcome.
        faces: One dict per record: the fields of FaceRow beyond those of a Video, without `shard`
            and `offset`.
    """

    label: int
    outcome: VideoOutcome
    faces: list


@dataclass(frozen=True)
class ExtractVideo:
    """Task that extracts the faces of one video.

    Attributes:
        root: Folder of the videos.
        out: The prepared dataset.
        faces: Face extraction options.
        filters: Face quality filters.
    """

    root: Store
    out: Store
    faces: FaceOptions
    filters: FilterOptions

    def __call__(self, item: tuple[Video, int]) -> VideoOutcome:
        """Extract and write the faces of a video, unless it is finished already.

        A finished video is extracted again if the size of its file or its label has changed.

        Args:
            item: The video and the size of its file in bytes.
        """
        video, file_bytes = item
        if self.out.exists(part_name(video) + ROWS):
            part = read_part(self.out, video)
            if (part.outcome.file_bytes, part.label) == (file_bytes, video.label):
                return part.outcome
        with self.root.fetch(video.path) as path:
            extraction, reason = self._extract(path, video)
            quality = estimate_jpeg_quality(path)
        outcome = VideoOutcome(
            file_bytes=file_bytes,
            width=extraction.width,
            height=extraction.height,
            jpeg_quality=quality,
            num_frames=extraction.num_frames,
            num_tracks=len(extraction.tracks),
            num_faces=len(extraction.faces),
            filtered=extraction.filtered,
            warning=" ".join(extraction.warnings),
            reason=reason,
        )
        return self._write(video, outcome, extraction.faces)

    def fail(self, item: tuple[Video, int], reason: str) -> VideoOutcome:
        """Write the outcome of a video that crashes the process reading it."""
        video, file_bytes = item
        outcome = VideoOutcome(
            file_bytes=file_bytes,
            width=0,
            height=0,
            jpeg_quality=0,
            num_frames=0,
            num_tracks=0,
            num_faces=0,
            filtered={},
            warning="",
            reason=reason,
        )
        return self._write(video, outcome, [])

    def _write(self, video: Video, outcome: VideoOutcome, faces: list[Face]) -> VideoOutcome:
        rows = []
        if faces:  # some file systems cannot store an empty file
            with self.out.create(part_name(video) + RECORDS) as file:
                for face in faces:
                    crop = face.crop
                    record = encode_face(
                        crop,
                        label=video.label,
                        video_id=video.video_id,
                        frame_index=face.frame_index,
                    )
                    file.write(frame_record(record))
                    rows.append(_to_row(face, self.faces.detector) | {"phash": hash_face(crop)})
        part = ExtractedVideo(video.label, outcome, rows)
        write_text(self.out, part_name(video) + ROWS, json.dumps(part.to_dict()))
        return outcome

    def _extract(self, path: Path, video: Video) -> tuple[Extraction, str]:
        """Extract faces; return them with the reason if there are none."""
        try:
            extraction = extract_faces(path, self.faces, self.filters)
        # Only errors of the file: an error of this machine must stop the run.
        except (UnreadableFileError, cv2.error) as error:
            if getattr(error, "code", 0) == OUT_OF_MEMORY:
                raise MemoryError(f"OpenCV, at {video.path}: {error}") from error
            # The relative path, so that the tables do not depend on where the folder is.
            reason = " ".join(str(error).replace(str(path), video.path).split())
            return Extraction([], [], 0, {}, []), reason
        if extraction.faces:
            return extraction, ""
        problem = "all faces were filtered out" if extraction.filtered else "no face was found"
        return extraction, f"{problem} in {plural(extraction.num_frames, 'sampled frame')}"


def part_name(video: Video) -> str:
    """Return the name of the files of a finished video, without their suffix."""
    digest = hashlib.sha256(video.video_id.encode()).hexdigest()[:24]
    return f"{PARTS}/{digest[:2]}/{digest}"


def read_part(store: Store, video: Video) -> ExtractedVideo:
    """Read the outcome and the rows of a finished video.

    Raises:
        OSError: If the video is not finished.
        ValueError: If the file is damaged.
    """
    return ExtractedVideo.from_dict(json.loads(read_text(store, part_name(video) + ROWS)))


def estimate_jpeg_quality(path: Path) -> int:
    """Estimate the quality at which a JPEG was saved from its quantization table.

    Returns:
        1 to 100 on the scale of the Independent JPEG Group, which most programs use; 0 if the file
        is not a JPEG.

    Example:
        >>> estimate_jpeg_quality(Path("photograph.jpg"))
        90
    """
    try:
        with Image.open(path) as image:
            if image.format not in ("JPEG", "MPO"):
                return 0
            scale = 100 * sum(image.quantization[0]) / LUMINANCE_SUM
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        return 0  # not an image, or a damaged one, which `extract_faces` reports
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(max(round(quality), 1), 100)


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
