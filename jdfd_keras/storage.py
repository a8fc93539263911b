"""Folders, on this machine or on any file system that Apache Beam reads.

Takes the place of a folder; gives its files by name, read as streams and written whole or not
at all. Knows nothing of what is in them. Beam is imported only for places beyond this machine,
or where it is asked for.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

UNFINISHED = "unfinished"  # the folder of files while they are written; left by what was killed


class Store(Protocol):
    """A folder. Names are relative to it, with `/` between their parts."""

    place: str

    def list(self, below: str = "") -> dict[str, int]:
        """List all files in a folder and in those below it, by name, with their bytes."""

    def exists(self, name: str) -> bool:
        """Tell whether a file is there."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Write a file that is there, whole, once the context ends well; and else is not."""

    def fetch(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Lend a file as one of this machine."""

    def remove(self, below: str) -> None:
        """Remove a folder and all in it, if it is there."""


def read_text(store: Store, name: str) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: If it is not there.
        ValueError: If it is no text in UTF-8.
    """
    with store.open(name) as file:
        return file.read().decode("utf-8-sig")


def write_text(store: Store, name: str, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with store.create(name) as file:
        file.write(text.encode("utf-8"))


@dataclass(frozen=True)
class LocalStore:
    """A folder of this machine."""

    place: str

    def path(self, name: str = "") -> Path:
        """Say where a file lies."""
        return Path(self.place, name)

    def list(self, below: str = "") -> dict[str, int]:  # noqa: D102, as Store says
        found, seen = {}, set()
        # Data sets are often links to other disks; one that leads back up is followed once.
        for directory, folders, names in os.walk(self.path(below), followlinks=True):
            real = os.path.realpath(directory)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()  # so that of two links to one folder the same is taken everywhere
            relative = Path(directory).relative_to(self.place)
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a link to nothing, or gone by now
                    found[(relative / name).as_posix()] = Path(directory, name).stat().st_size
        return found

    def exists(self, name: str) -> bool:  # noqa: D102
        return self.path(name).is_file()

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return open(self.path(name), "rb")

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        path, unfinished = self.path(name), self.path(_unfinished())
        for needed in (path, unfinished):
            needed.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "wb") as file:
                yield file
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:  # noqa: D102
        yield self.path(name)

    def remove(self, below: str) -> None:  # noqa: D102
        shutil.rmtree(self.path(below), ignore_errors=True)


@dataclass(frozen=True)
class BeamStore:
    """A folder of any file system that Beam reads: `gs://`, `s3://`, `hdfs://` and local ones."""

    place: str

    def __post_init__(self):
        if set(self.place) & set("*?["):
            raise ValueError(
                f"Expected a place without *, ? and [, which Beam takes for patterns; got "
                f"{self.place}. Rename the folder."
            )

    def path(self, name: str = "") -> str:
        """Say where a file lies."""
        return f"{self.place.rstrip('/')}/{name}" if name else self.place.rstrip("/")

    def list(self, below: str = "") -> dict[str, int]:  # noqa: D102
        files = _beam().match([self.path(f"{below}/**" if below else "**")])[0].metadata_list
        start = len(self.path()) + 1
        return {file.path[start:]: file.size_in_bytes for file in files}

    def exists(self, name: str) -> bool:  # noqa: D102
        return _beam().exists(self.path(name))

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return _beam().open(self.path(name), **_AS_IT_IS)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        unfinished = self.path(_unfinished())
        _make_directory(self.path(UNFINISHED))
        try:
            with _beam().create(unfinished, **_AS_IT_IS) as file:
                yield file
            _make_directory(self.path(name).rsplit("/", 1)[0])
            try:
                _beam().rename([unfinished], [self.path(name)])
            except OSError:  # some file systems do not replace
                _beam().delete([self.path(name)])
                _beam().rename([unfinished], [self.path(name)])
        finally:
            with contextlib.suppress(OSError):
                _beam().delete([unfinished])

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:  # noqa: D102
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, name.rsplit("/", 1)[-1])
            with self.open(name) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
            yield path

    def remove(self, below: str) -> None:  # noqa: D102
        with contextlib.suppress(OSError):
            _beam().delete([f"{self.path(below)}/"])  # at once, where the file system can
        if names := self.list(below):
            _beam().delete([self.path(name) for name in names])


_AS_IT_IS = {"mime_type": "application/octet-stream", "compression_type": "uncompressed"}


def _unfinished() -> str:
    """Name a file while it is written: its own, so that two writers of one file do not mix."""
    return f"{UNFINISHED}/{uuid.uuid4().hex}"


def _beam():
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _make_directory(path: str) -> None:
    with contextlib.suppress(OSError):  # it is there, or the file system has none
        _beam().mkdirs(path)
