"""One video in, its part of a prepared data set out: records and rows.

The function that every worker runs, on this machine or on a cluster. A video that gives no face
has an outcome with the reason; a fault of the machine is raised.

    parts/<name>.tfrecord    its records
    parts/<name>.json        its outcome and its rows; comes last and says that it is finished
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

from jdfd_keras.datasets.hashing import hash_face
from jdfd_keras.datasets.records import encode_face, frame_record
from jdfd_keras.datasets.videos import Video
from jdfd_keras.faces.decode import UnreadableFileError
from jdfd_keras.faces.extract import Extraction, Face, extract_faces
from jdfd_keras.io.storage import PARTS, Store, read_text, write_text
from jdfd_keras.options import FaceOptions, FilterOptions

RECORDS, ROWS = ".tfrecord", ".json"

# What the standard's table of quantization for brightness adds up to; quality scales it.
# Reference: ITU-T T.81 (1992), table K.1; the Independent JPEG Group's jcparam.c for the scale.
LUMINANCE_SUM = 3688
OUT_OF_MEMORY = -4  # OpenCV's StsNoMem


@dataclass(frozen=True)
class Take:
    """The task of a worker: to finish one video.

    Attributes:
        root: Where the videos lie.
        out: The prepared data set.
        faces: How faces are taken.
        filters: Which of them are too bad to be taken.
    """

    root: Store
    out: Store
    faces: FaceOptions
    filters: FilterOptions

    def __call__(self, work: tuple[Video, int]) -> dict:
        """Finish a video, unless it is finished, and neither file nor label has changed since.

        Args:
            work: The video and the size of its file in bytes.

        Returns:
            Its outcome: `video_id`, and the fields that VideoRow has beyond those of a Video.
        """
        video, file_bytes = work
        name = part_name(video)
        if self.out.exists(name + ROWS):
            part = read_part(self.out, video)
            outcome = part["outcome"]
            if (outcome["file_bytes"], part["label"]) == (file_bytes, video.label):
                return {"video_id": video.video_id, **outcome}
        with self.root.fetch(video.path) as path:
            found, reason = self._look_at(path, video)
            quality = estimate_jpeg_quality(path)
        outcome = {
            "file_bytes": file_bytes,
            "width": found.width,
            "height": found.height,
            "jpeg_quality": quality,
            "num_frames": found.num_frames,
            "num_tracks": len(found.tracks),
            "num_faces": len(found.faces),
            "dropped": found.dropped,
            "warning": " ".join(found.warnings),
            "reason": reason,
        }
        return self.finish(video, outcome, found.faces)

    def finish(self, video: Video, outcome: dict, faces: list[Face]) -> dict:
        """Write what a video gave; its rows come last."""
        rows = []
        if faces:  # some file systems cannot hold a file of nothing
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
                    rows.append(_describe(face, self.faces.detector) | {"phash": hash_face(crop)})
        part = {"label": video.label, "outcome": outcome, "faces": rows}
        write_text(self.out, part_name(video) + ROWS, json.dumps(part))
        return {"video_id": video.video_id, **outcome}

    def fail(self, work: tuple[Video, int], reason: str) -> dict:
        """Finish a video that cannot be looked at."""
        video, file_bytes = work
        nothing = dict.fromkeys(
            ("width", "height", "jpeg_quality", "num_frames", "num_tracks", "num_faces"), 0
        )
        outcome = {"file_bytes": file_bytes, **nothing, "dropped": {}, "warning": ""}
        return self.finish(video, outcome | {"reason": reason}, [])

    def _look_at(self, path: Path, video: Video) -> tuple[Extraction, str]:
        try:
            found = extract_faces(path, self.faces, self.filters)
        # And no fault of this machine, which must stop the run.
        except (UnreadableFileError, cv2.error) as error:
            if getattr(error, "code", 0) == OUT_OF_MEMORY:
                raise MemoryError(f"OpenCV, at {video.path}: {error}") from error
            # As the tables name it, so that they are the same wherever the folder lies.
            reason = " ".join(str(error).replace(str(path), video.path).split())
            return Extraction([], [], 0, {}, []), reason
        if found.faces:
            return found, ""
        reason = "no face that may be taken" if found.dropped else "no face was found"
        frames = f"{found.num_frames} frame{'' if found.num_frames == 1 else 's'}"
        return found, f"{reason} in {frames} looked at"


def part_name(video: Video) -> str:
    """Name the files of a video's part, without their endings."""
    digest = hashlib.sha256(video.video_id.encode()).hexdigest()[:24]
    return f"{PARTS}/{digest[:2]}/{digest}"


def read_part(store: Store, video: Video) -> dict:
    """Read the `label`, the `outcome` and the `faces` of a finished video."""
    return json.loads(read_text(store, part_name(video) + ROWS))


def estimate_jpeg_quality(path: Path) -> int:
    """Estimate the quality at which a JPEG was saved, from its table of quantization.

    Returns:
        1 to 100 on the scale of the Independent JPEG Group, which most programs use; 0 for what
        is no JPEG.
    """
    try:
        with Image.open(path) as image:
            if image.format not in ("JPEG", "MPO"):
                return 0
            scale = 100 * sum(image.quantization[0]) / LUMINANCE_SUM
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        return 0  # no image, or one that extract_faces has said all about
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(max(round(quality), 1), 100)


def _describe(face: Face, detector: str) -> dict:
    """Say what the manifest says of a face, but for its video, hash and shard."""
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
