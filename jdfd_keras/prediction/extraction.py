"""Videos and images to faces, in several processes; the crops travel in files.

Takes paths; gives what each one gave, as it is done. Knows nothing of scores.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from jdfd_keras.faces.decode import UnreadableFileError
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.verdict import Taken
from jdfd_keras.io.workers import Died, run_all
from jdfd_keras.options import FaceOptions


@dataclass(frozen=True)
class CropFile:
    """Crops of one size in a file, one after the other; read anew every time."""

    path: Path
    size_px: int

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one crop, uint8[size, size, 3]."""
        shape = (self.size_px, self.size_px, 3)
        count = int(np.prod(shape))
        return np.fromfile(self.path, np.uint8, count, offset=index * count).reshape(shape)


def take_faces(path: str | Path, options: FaceOptions) -> Taken:
    """Take the faces of one file.

    Raises:
        OSError: If it is not there or nothing of it decodes, it is animated but shows no face in
            its first frame, or it was written to meanwhile.
        ValueError: If an option is out of its range.
    """
    before = read_state(path)
    found = extract_faces(path, options)
    if not found.faces:
        _refuse_animated(path)
    sha256 = read_sha256(path)
    if read_state(path) != before:
        raise OSError(
            f"Expected a file that stays as it is; got {path}, which was written to while it was "
            "looked at. Try again when it is complete."
        )
    last_s = max((face.time_s for face in found.faces), default=0.0)
    return Taken(found, max(_read_duration(path), last_s), sha256)


def read_state(path: str | Path) -> dict:
    """Say what tells a file from a changed one; nothing of one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return {}
    return {"file_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def read_sha256(path: str | Path) -> str:
    """Digest a file.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def take_all(
    paths: Iterable[Path], options: FaceOptions, num_workers: int, folder: str | Path
) -> Iterator[tuple[Path, Taken | str]]:
    """Take the faces of many files.

    Memory does not grow with their number or length: a process that is done with a file waits
    until that one was used, and its crops lie in `folder` till then.

    Args:
        paths: The files.
        options: How faces are taken.
        num_workers: Processes besides this one; with 0 all is done in this one.
        folder: Room for the crops of as many files as there are processes.

    Yields:
        A file and what it gave, or in words why it gave nothing; in the order in which they are
        done. The crops are gone when the next one is asked for.

    Raises:
        OSError: If a process was killed, as a machine that is out of memory does.
    """
    take = _Take(options, Path(folder))
    for path, taken in run_all(take, paths, num_workers):
        if isinstance(taken, Died):
            taken = (
                f"Expected a video or image that can be decoded; got {path}, on which a process "
                f"was ended by {taken.signal}, twice. It is perhaps damaged: save it anew."
            )
        try:
            yield path, taken
        finally:
            take.place(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Take:
    options: FaceOptions
    folder: Path

    def __call__(self, path: Path) -> Taken | str:
        try:
            taken = take_faces(path, self.options)
        except (OSError, cv2.error) as error:
            return str(error)
        crops = CropFile(self.place(path), self.options.face_size)
        faces = []
        with open(crops.path, "wb") as file:
            for position, face in enumerate(taken.found.faces):
                file.write(face.crop.tobytes())
                faces.append(dataclasses.replace(face, crops=crops, position=position))
        return dataclasses.replace(taken, found=dataclasses.replace(taken.found, faces=faces))

    def place(self, path: Path) -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.crops"


def _refuse_animated(path: str | Path) -> None:
    """Refuse to say that there is no face in a picture of which one frame alone was seen."""
    if not cv2.haveImageReader(str(path)):
        return
    with Image.open(path) as image:
        num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        raise UnreadableFileError(
            f"Expected a picture or a video; got {path}, an animated picture whose first frame "
            f"shows no face; the other {num_frames - 1} are not looked at. Save it as a video, "
            "such as .mp4."
        )


def _read_duration(path: str | Path) -> float:
    if cv2.haveImageReader(str(path)):
        return 0.0
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        return max(capture.get(cv2.CAP_PROP_FRAME_COUNT) / fps, 0.0) if fps > 0 else 0.0
    finally:
        capture.release()
