"""Faces of the input files of a prediction, extracted in other processes."""

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.faces.credentials import read_trust_anchors
from jdfd_keras.faces.extract import Extraction, Face, extract_faces
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.io.disk_space import is_disk_full
from jdfd_keras.io.workers import Part, WorkerCrashed, Workers
from jdfd_keras.options import CredentialOptions, FaceOptions, LimitOptions
from jdfd_keras.prediction.file_list import State, read_state

MAX_CROPS = 32  # of a part: 9 MB at 299 px


def hash_path(path: str | Path) -> str:
    """Return a short file name for a path: 16 hexadecimal digits of its SHA-256.

    Example:
        >>> hash_path("a.mp4")
        'e6d48eabd560bc60'
    """
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ExtractedPart:
    """Progress of a file, and faces of it that no later frame can change or filter out."""

    done: int  # frames
    total: int  # frames, as the file states; 0 if unknown
    first: int  # position of the first of the crops in the faces of the file
    crops: np.ndarray  # uint8[n, size, size, 3]; n is at most MAX_CROPS


class Extractor:
    """Processes that extract the faces of many files; a context manager.

    They start with the block, and extract while the caller does other work. Memory does not grow
    with the number or the length of the files: a process that is done with a file waits until its
    faces are received.

    Args:
        paths: The files.
        options: Face options.
        num_workers: Processes besides this one; at least 1.
        limits: Limits of one file; the defaults if not given.
        credentials: Whose Content Credentials are trusted; nobody's by default.

    Attributes:
        states: State of each file whose analysis has begun, read before it was opened, until its
            result is received.

    Raises:
        OSError: If the trust anchors cannot be read.
        ValueError: If they are not certificates of authorities.

    Example:
        >>> with Extractor([Path("video.mp4")], FaceOptions(face_size=71)) as extractor:
        ...     *parts, (path, extraction) = extractor.receive()
        >>> path, extraction.faces[3].crop.shape
        (PosixPath('video.mp4'), (71, 71, 3))
    """

    def __init__(
        self,
        paths: Iterable[Path],
        options: FaceOptions,
        num_workers: int = 1,
        limits: LimitOptions | None = None,
        credentials: CredentialOptions | None = None,
    ):
        self.options, self._paths = options, paths
        self.states: dict[Path, State] = {}
        limits, credentials = limits or LimitOptions(), credentials or CredentialOptions()
        if credentials.trust_anchors:
            read_trust_anchors(credentials.trust_anchors)
        extract = functools.partial(
            extract_file, options=options, limits=limits, credentials=credentials
        )
        self._workers = Workers(extract, num_workers, limits, has_parts=True)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Extractor":
        self._stack.enter_context(self._workers)
        # In a thread, since it waits until the processes have started.
        thread = self._stack.enter_context(ThreadPoolExecutor(1))
        self._sent = thread.submit(self._workers.send, self._begin())
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the processes at once."""
        self._stack.close()

    def receive(self) -> Iterator[tuple[Path, ExtractedPart | Extraction | OSError]]:
        """Yield each file with its faces, or with the error why there are none, when it is done.

        Before that there may be parts of the file, from its first face on, and again from there if
        its process died. A part is sent only if this iterator waits: the last faces, or all of
        them, come with the result alone.

        Raises:
            OSError: If no process can be started.
        """
        self._sent.result()
        for path, result in self._workers.receive():
            if isinstance(result, Part):
                result = result.value
            elif isinstance(result, WorkerCrashed):
                result = describe_crash(path, result)
            yield path, result
            if not isinstance(result, ExtractedPart):
                self.states.pop(path, None)

    def _begin(self) -> Iterator[Path]:
        """Yield the files when a process is free for them, and keep their states."""
        for path in self._paths:
            self.states[path] = read_state(path)
            yield path


def describe_crash(path: Path, crash: WorkerCrashed) -> UnreadableFileError:
    """Return the error of a file whose process died, or that was beyond a limit.

    Example:
        >>> crash = WorkerCrashed("whose process died twice (SIGSEGV)", "It may be damaged.")
        >>> str(describe_crash(Path("a.mp4"), crash))
        'Expected a video or image that can be analysed; got a.mp4, whose process died twice ...'
    """
    text = f"Expected a video or image that can be analysed; got {path}, {crash}"
    return UnreadableFileError(text, code=crash.code)


def personalize(value: Any, path: str, name: str) -> Any:
    """Replace the path of an analysed file by another name in all texts of a result.

    Args:
        value: A result as JSON, or a part of it; it is not changed.
        path: Path that the file was analysed under; its last part alone is replaced, too.
        name: The other name.

    Example:
        >>> failed = {"path": "files/ab.mp4", "error": "Try `ffmpeg -i ab.mp4 b.mp4`."}
        >>> personalize(failed, "files/ab.mp4", "a.mp4")
        {'path': 'a.mp4', 'error': 'Try `ffmpeg -i a.mp4 b.mp4`.'}
    """
    others = {path: name, Path(path).name: Path(name).name or name}
    # The longest first, and all at once: a name may contain the path.
    pattern = re.compile("|".join(map(re.escape, sorted(others, key=len, reverse=True))))

    def replace(part: Any) -> Any:
        if isinstance(part, str):
            return pattern.sub(lambda match: others[match[0]], part)
        if isinstance(part, dict):
            return {key: replace(entry) for key, entry in part.items()}
        return [replace(entry) for entry in part] if isinstance(part, list) else part

    return replace(value)


def extract_file(
    path: Path,
    options: FaceOptions,
    limits: LimitOptions,
    send: Callable[[Callable[[], ExtractedPart]], None] | None = None,
    credentials: CredentialOptions | None = None,
) -> Extraction | OSError:
    """Extract the faces of one file; return its error instead of raising it.

    Args:
        path: The file.
        options: Face options.
        limits: Limits of the file.
        send: Called after each frame with a function that returns the faces since its last call.
            With `tracks="largest"` a part has no crops: only the whole file shows which to keep.
        credentials: Whose Content Credentials are trusted; nobody's by default.

    Raises:
        OSError: If the disk of temporary files is full.

    Example:
        >>> extract_file(Path("none.mp4"), FaceOptions(), LimitOptions())
        FileNotFoundError('Expected a video or image file; got none.mp4, which is missing. ...')
    """
    faces: list[Face] = []
    num_sent = 0

    def take_part(done: int, total: int) -> ExtractedPart:
        nonlocal num_sent
        first, crops = num_sent, [face.crop for face in faces[num_sent : num_sent + MAX_CROPS]]
        num_sent += len(crops)
        shape = -1, options.face_size, options.face_size, 3
        return ExtractedPart(done, total, first, np.array(crops, np.uint8).reshape(shape))

    def report(done: int, total: int, new: list[Face]) -> None:
        if options.tracks == "all":
            faces.extend(new)
        if send:
            send(lambda: take_part(done, total))

    try:
        return extract_faces(
            path,
            options,
            limits=limits,
            on_frame=report,
            credentials=credentials or CredentialOptions(),
        )
    except OSError as error:
        if is_disk_full(error):  # not of this file
            raise
        return error
