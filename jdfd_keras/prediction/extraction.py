"""Input files of a prediction: list them, and extract their faces.

Takes paths; returns the faces of each file as soon as it is done, from several processes. The
crops are passed in files. Independent of scores.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from jdfd_keras.datasets.videos import has_suffix
from jdfd_keras.faces.decode import UnreadableFileError
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.verdict import FileExtraction
from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.workers import WorkerCrashed, run_all
from jdfd_keras.options import FaceOptions


class FileState(NamedTuple):
    """Size and modification time of a file, which differ once it has changed."""

    file_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class CropFile:
    """Crops of one size in a file, one after the other; each access reads the file."""

    path: Path
    size_px: int

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one crop, uint8[size, size, 3]."""
        shape = (self.size_px, self.size_px, 3)
        count = int(np.prod(shape))
        return np.fromfile(self.path, np.uint8, count, offset=index * count).reshape(shape)


def list_files(paths: Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """List files, and the videos and images below folders, sorted by name, each file once.

    Args:
        paths: Files, which are listed with any suffix, and folders.

    Returns:
        The files to analyse, including broken links, and the skipped files: those below folders
        without a video or image suffix. Hidden files are in neither.

    Raises:
        ValueError: If a folder has no video or image.

    Example:
        >>> list_files(["uploads"])
        ([PosixPath('uploads/a.mp4')], [PosixPath('uploads/notes.txt')])
    """
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        listed = sorted(entry for entry in path.rglob("*") if not _is_hidden(entry, path))
        listed = [entry for entry in listed if entry.is_file() or _is_broken_link(entry)]
        media = [entry for entry in listed if has_suffix(entry.name)]
        if not media:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are recognized by their "
                "suffix, such as .mp4 or .jpg: name a file with another suffix itself."
            )
        files |= dict.fromkeys(media)
        others |= dict.fromkeys(entry for entry in listed if not has_suffix(entry.name))
    return list(files), [path for path in others if path not in files]


def read_state(path: str | Path) -> FileState | None:
    """Return the size and the modification time of a file; None if it does not exist.

    Example:
        >>> read_state("missing.mp4") is None
        True
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileState(status.st_size, status.st_mtime_ns)


def hash_path(path: str | Path) -> str:
    """Return a short file name for a path: 16 hexadecimal digits of its SHA-256.

    Example:
        >>> hash_path("a.mp4")
        'e6d48eabd560bc60'
    """
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def extract_file(path: str | Path, options: FaceOptions) -> FileExtraction:
    """Extract the faces of one file.

    Raises:
        OSError: If the file does not exist or cannot be decoded, is animated without a face in its
            first frame, or changed meanwhile.
        ValueError: If an option is out of range.

    Example:
        >>> extract_file("suspect.mp4", FaceOptions()).duration_s
        12.4
    """
    before = read_state(path)
    extraction = extract_faces(path, options)
    if not extraction.faces:
        _refuse_animated(path)
    sha256 = sha256_of(path)
    if read_state(path) != before:
        raise OSError(
            f"Expected a file that does not change; got {path}, which was written to during the "
            "analysis. Try again when it is complete."
        )
    last_s = max((face.time_s for face in extraction.faces), default=0.0)
    return FileExtraction(extraction, max(_read_duration(path), last_s), sha256)


def extract_all(
    paths: Iterable[Path], options: FaceOptions, num_workers: int, folder: str | Path
) -> Iterator[tuple[Path, FileExtraction | str]]:
    """Extract the faces of many files, in several processes.

    Memory does not grow with the number or the length of the files: a process that is done with a
    file waits until its faces were used; their crops are in `folder` until then.

    Args:
        paths: The files.
        options: Face options.
        num_workers: Processes besides this one; with 0 this process does the work.
        folder: Folder for the crops of as many files as there are processes.

    Yields:
        A file with its faces, or with the reason why there are none; in order of completion. The
        crops are deleted when the next file is requested.

    Raises:
        OSError: If a process was killed, for example because memory ran out.

    Example:
        >>> for path, file in extract_all([Path("a.mp4")], FaceOptions(), 0, "crops"):
        ...     print(path, len(file.extraction.faces))
        a.mp4 32
    """
    extract = _ExtractFile(options, Path(folder))
    for path, file in run_all(extract, paths, num_workers):
        if isinstance(file, WorkerCrashed):
            file = (
                f"Expected a video or image that can be decoded; got {path}, on which two "
                f"processes crashed ({file.signal}). It may be damaged: save it again."
            )
        try:
            yield path, file
        finally:
            extract.crop_path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class _ExtractFile:
    options: FaceOptions
    folder: Path

    def __call__(self, path: Path) -> FileExtraction | str:
        try:
            file = extract_file(path, self.options)
        except (OSError, cv2.error) as error:
            return str(error)
        crops = CropFile(self.crop_path(path), self.options.face_size)
        faces = []
        with open(crops.path, "wb") as stream:
            for position, face in enumerate(file.extraction.faces):
                stream.write(face.crop.tobytes())
                faces.append(dataclasses.replace(face, crops=crops, crop_index=position))
        extraction = dataclasses.replace(file.extraction, faces=faces)
        return dataclasses.replace(file, extraction=extraction)

    def crop_path(self, path: Path) -> Path:
        return self.folder / f"{hash_path(path)}.crops"


def _refuse_animated(path: str | Path) -> None:
    """Raise an error for an animated image, of which only the first frame is read."""
    if not cv2.haveImageReader(str(path)):
        return
    with Image.open(path) as image:
        num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        raise UnreadableFileError(
            f"Expected an image or a video; got {path}, an animated image without a face in its "
            f"first frame; the other {num_frames - 1} are not read. Save it as a video, such as "
            ".mp4."
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


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(name.startswith(".") for name in path.relative_to(folder).parts)


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
