"""Input files of a prediction: list them, and extract their faces.

Several processes extract; each file is returned as soon as it is done, its crops in a file.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class CropFile:
    """Crops of one size in a file, one after the other; each access reads the file."""

    path: Path
    size_px: int

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one crop, uint8[size, size, 3]."""
        count = 3 * self.size_px**2
        crop = np.fromfile(self.path, np.uint8, count, offset=index * count)
        return crop.reshape(self.size_px, self.size_px, 3)


def list_files(paths: Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """List files, and the videos and images below folders, sorted by name, each file once.

    Args:
        paths: Files, which are listed with any suffix, and folders.

    Returns:
        The files to analyse, including broken links, and the skipped files: those below folders
        without a video or image suffix. Hidden files are in neither.

    Example:
        >>> files, skipped = list_files(["video.mp4", "videos"])
        >>> files[0], len(files), skipped
        (PosixPath('video.mp4'), 17, [])
    """
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        entries = [
            entry
            for entry in sorted(path.rglob("*"))
            if not any(name.startswith(".") for name in entry.relative_to(path).parts)
            and (entry.is_file() or (entry.is_symlink() and not entry.exists()))
        ]
        media = [entry for entry in entries if has_suffix(entry.name)]
        if not media:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are recognized by their "
                "suffix, such as .mp4 or .jpg: name a file with another suffix itself."
            )
        files |= dict.fromkeys(media)
        others |= dict.fromkeys(entry for entry in entries if not has_suffix(entry.name))
    return list(files), [path for path in others if path not in files]


def read_state(path: str | Path) -> tuple[int, int] | None:
    """Return the size and modification time in ns of a file; None if it does not exist.

    Example:
        >>> read_state("photograph.png")[0] == len(Path("photograph.png").read_bytes())
        True
    """
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    return None


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

    Example:
        >>> extract_file("video.mp4", FaceOptions(face_size=71)).duration_s
        0.24
    """
    before = read_state(path)
    extraction = extract_faces(path, options)
    is_image = cv2.haveImageReader(str(path))
    if is_image and not extraction.faces:
        _refuse_animated(path)
    sha256 = sha256_of(path)
    if read_state(path) != before:
        raise OSError(
            f"Expected a file that does not change; got {path}, which was written to during the "
            "analysis. Try again when it is complete."
        )
    last_s = max((face.time_s for face in extraction.faces), default=0.0)
    duration_s = 0.0 if is_image else _read_duration(path)
    return FileExtraction(extraction, max(duration_s, last_s), sha256)


def extract_all(
    paths: Iterable[Path], options: FaceOptions, num_workers: int, folder: Path
) -> Generator[tuple[Path, FileExtraction | str], None, None]:
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

    Example:
        >>> options = FaceOptions(face_size=71, frames_per_video=4)
        >>> for path, file in extract_all([Path("video.mp4")], options, 0, Path()):
        ...     print(path, file.extraction.faces[3].crop.shape)
        video.mp4 (71, 71, 3)
    """
    extract = functools.partial(_extract_to_folder, options=options, folder=folder)
    for path, file in run_all(extract, paths, num_workers):
        if isinstance(file, WorkerCrashed):
            file = (
                f"Expected a video or image that can be decoded; got {path}, on which two "
                f"processes crashed ({file.signal}). It may be damaged: save it again."
            )
        try:
            yield path, file
        finally:
            _crops_path(folder, path).unlink(missing_ok=True)


def _extract_to_folder(path: Path, options: FaceOptions, folder: Path) -> FileExtraction | str:
    try:
        file = extract_file(path, options)
    except (OSError, cv2.error) as error:
        return str(error)
    crops = CropFile(_crops_path(folder, path), options.face_size)
    faces = []
    with open(crops.path, "wb") as stream:
        for index, face in enumerate(file.extraction.faces):
            stream.write(face.crop.tobytes())
            faces.append(dataclasses.replace(face, crops=crops, crop_index=index))
    return dataclasses.replace(file, extraction=dataclasses.replace(file.extraction, faces=faces))


def _crops_path(folder: Path, path: Path) -> Path:
    return folder / f"{hash_path(path)}.crops"


def _refuse_animated(path: str | Path) -> None:
    """Raise an error for an animated image, of which only the first frame is read."""
    with Image.open(path) as image:
        num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        raise UnreadableFileError(
            f"Expected an image or a video; got {path}, an animated image without a face in its "
            f"first frame; the other {num_frames - 1} are not read. Save it as a video, such as "
            ".mp4."
        )


def _read_duration(path: str | Path) -> float:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    fps, num_frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return max(num_frames / fps, 0.0) if fps > 0 else 0.0
