"""Input files of a prediction: list them, a million in little memory.

Takes files and folders; gives the files to analyse.
"""

import contextlib
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from jdfd_keras.datasets.videos import has_suffix
from jdfd_keras.faces.media import URL, URL_ADVICE
from jdfd_keras.io.console import plural, printable

MAX_SKIPPED_NAMES = 3  # in a message
State = tuple[int, int] | None  # of `read_state`
_MISSING = -1, -1


class FileList(Sequence[Path]):
    """Paths of files, kept as texts; equal to any sequence of equal paths.

    Attributes:
        names: The texts.

    Example:
        >>> FileList(["a.mp4", "b.mp4"])[1]
        PosixPath('b.mp4')
    """

    def __init__(self, paths: Iterable[str | Path] = ()):
        self.names = list(map(str, paths))
        self._states: tuple[array[int], array[int]] | None = None  # sizes and times

    def read_states(self) -> Iterator[tuple[str, State]]:
        """Yield each path with its state, as `read_state` found it in the first call."""
        if self._states is None:
            self._states = array("q"), array("q")
            for name in self.names:
                size, mtime_ns = read_state(name) or _MISSING
                self._states[0].append(size)
                self._states[1].append(mtime_ns)
        for name, *state in zip(self.names, *self._states, strict=True):
            yield name, None if state[0] < 0 else (state[0], state[1])

    def select(self, flags: Iterable[object]) -> "FileList":
        """Return the files whose flag is true, of one flag for each."""
        return FileList(itertools.compress(self.names, flags))

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "FileList": ...

    def __getitem__(self, index: int | slice) -> "Path | FileList":
        if isinstance(index, slice):
            return FileList(self.names[index])
        return Path(self.names[index])

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.names)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileList):
            return self.names == other.names
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return repr(list(self))


def list_files(paths: Iterable[str | Path]) -> tuple[FileList, FileList]:
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
    files: dict[str, None] = {}
    others: dict[str, None] = {}
    for given in paths:
        path = Path(given)
        if not str(given):
            raise ValueError('Expected files and folders; got "". Try . for this folder.')
        if URL.match(str(given)) and not path.exists():
            raise ValueError(
                f"Expected files and folders; got {given}, which is a URL, and URLs are not read. "
                f"{URL_ADVICE}"
            )
        if not path.is_dir():
            files[str(path)] = None
            continue
        has_media = False
        for name in _walk(str(path), "" if str(path) == "." else str(path)):
            if has_suffix(os.path.basename(name)):
                files[name], has_media = None, True
            else:
                others[name] = None
        if not has_media:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are recognized by their "
                "suffix, such as .mp4 or .jpg: name a file with another suffix itself."
            )
    return FileList(files), FileList(path for path in others if path not in files)


def describe_skipped(paths: Sequence[Path]) -> str:
    """Describe the files below folders that are not analysed, by the names of some of them.

    Example:
        >>> describe_skipped([Path("videos/notes.txt")])
        'skipped 1 file that is not a video or image (by suffix): videos/notes.txt'
    """
    names = ", ".join(map(str, paths[:MAX_SKIPPED_NAMES]))
    more = ", ..." if len(paths) > MAX_SKIPPED_NAMES else ""
    are = "that is not a video or image" if len(paths) == 1 else "that are not videos or images"
    return printable(f"skipped {plural(len(paths), 'file')} {are} (by suffix): {names}{more}")


def read_state(path: str | Path) -> State:
    """Return the size and modification time in ns of a file; None if it does not exist.

    Example:
        >>> read_state("photograph.png")[0] == len(Path("photograph.png").read_bytes())
        True
    """
    try:  # not contextlib.suppress, which takes half a second for a million files
        status = os.stat(path)
    except (OSError, ValueError):  # of a NUL byte
        return None
    return status.st_size, status.st_mtime_ns


def _walk(folder: str, shown: str) -> Iterator[str]:
    """Yield the files below a folder in the order of their paths, without hidden ones."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = os.path.join(shown, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name)
        elif _is_file(entry):
            yield name


def _is_file(entry: os.DirEntry) -> bool:
    """Return whether an entry is a file, or a link to one or to nothing."""
    with contextlib.suppress(OSError):  # a link to itself
        if entry.is_file():
            return True
    return entry.is_symlink() and not os.path.exists(entry.path)
