"""Input files of a prediction: list them, and extract their faces in other processes."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

from jdfd_keras.datasets.videos import has_suffix
from jdfd_keras.faces.extract import Extraction, extract_faces
from jdfd_keras.faces.media import URL, URL_ADVICE, UnreadableFileError
from jdfd_keras.io.workers import WorkerCrashed, run_all
from jdfd_keras.options import FaceOptions, LimitOptions


def list_files(paths: Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """List files, and the videos and images below folders, sorted by name, each file once.

    Args:
        paths: Files, which are listed with any suffix, and folders.

    Returns:
        The files to analyse, including broken links, and the skipped files: those below folders
        without a video or image suffix. Hidden files are in neither.

    Raises:
        ValueError: If a path is a URL, or a folder has no video or image.

    Example:
        >>> files, skipped = list_files(["video.mp4", "videos"])
        >>> files[0], len(files), skipped
        (PosixPath('video.mp4'), 17, [])
    """
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if URL.match(str(given)) and not path.exists():
            raise ValueError(
                f"Expected files and folders; got {given}, which is a URL, and URLs are not read. "
                f"{URL_ADVICE}"
            )
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


def extract_all(
    paths: Iterable[Path],
    options: FaceOptions,
    num_workers: int = 1,
    limits: LimitOptions | None = None,
) -> Generator[tuple[Path, Extraction | OSError], None, None]:
    """Extract the faces of many files, in other processes.

    Memory does not grow with the number or the length of the files: a process that is done with a
    file waits until its faces are requested.

    Args:
        paths: The files.
        options: Face options.
        num_workers: Processes besides this one; at least 1.
        limits: Limits of one file; the defaults if not given.

    Yields:
        A file with its faces, or with the error why there are none, in order of completion.

    Example:
        >>> options = FaceOptions(face_size=71, frames_per_video=4)
        >>> for path, extraction in extract_all([Path("video.mp4")], options):
        ...     print(path, extraction.faces[3].crop.shape)
        video.mp4 (71, 71, 3)
    """
    limits = limits or LimitOptions()
    extract = functools.partial(extract_file, options=options, limits=limits)
    for path, result in run_all(extract, paths, num_workers, limits):
        if isinstance(result, WorkerCrashed):
            result = UnreadableFileError(
                f"Expected a video or image that can be analysed; got {path}, {result}"
            )
        yield path, result


def extract_file(path: Path, options: FaceOptions, limits: LimitOptions) -> Extraction | OSError:
    """Extract the faces of one file; return its error instead of raising it.

    Example:
        >>> extract_file(Path("none.mp4"), FaceOptions(), LimitOptions())
        FileNotFoundError('Expected a video or image file; got none.mp4, which is missing. ...')
    """
    try:
        return extract_faces(path, options, limits=limits)
    except OSError as error:
        return error
