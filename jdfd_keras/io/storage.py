"""Folders, on this machine or on any file system that Apache Beam reads.

Files are listed by name, opened as streams, and written whole or not at all. Beam is imported only
to use a folder beyond this machine.
"""

import builtins
import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from jdfd_keras.io.files import replace_durably
from jdfd_keras.io.temporary_folder import TemporaryFolder

PARTS = "parts"  # the folder of unfinished work, which a run removes at its end


@dataclass(frozen=True)
class LocalStore:
    """A folder on this machine. Names of files are relative to it, with `/` as the separator.

    Example:
        >>> store = LocalStore("store")
        >>> with store.create("a/b.txt") as file:
        ...     _ = file.write(b"one")
        >>> store.list()
        {'a/b.txt': 3}
    """

    location: str

    def path(self, name: str = "") -> Path:
        """Return the path of a file."""
        return Path(self.location, name)

    def list(self, below: str = "") -> dict[str, int]:
        """Return the names of all files in a subfolder, recursively, with their bytes."""
        sizes = {}
        for path, is_listed in self._walk(below):
            if is_listed:
                with contextlib.suppress(FileNotFoundError):  # just removed
                    sizes[path.relative_to(self.location).as_posix()] = path.stat().st_size
        return sizes

    def list_skipped(self) -> builtins.list[str]:
        """Return what `list` skips: broken links, pipes, and links to folders listed already."""
        paths = (path for path, is_listed in self._walk() if not is_listed)
        return sorted(path.relative_to(self.location).as_posix() for path in paths)

    def _walk(self, below: str = "") -> Iterator[tuple[Path, bool]]:
        """Yield the path of each entry other than folders, and whether `list` lists it."""
        visited = set()
        # Datasets are often links to other disks; a link to a parent folder is followed once.
        walk = os.walk(self.path(below), onerror=_raise_unless_missing, followlinks=True)
        for directory, folders, names in walk:
            real = os.path.realpath(directory)
            if real in visited:
                folders.clear()
                yield Path(directory), False
                continue
            folders.sort()  # the same one of two links to one folder is followed on every machine
            visited.add(real)
            for name in names:
                path = Path(directory, name)
                yield path, path.is_file()

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        return self.path(name).is_file()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; raise OSError if it does not exist."""
        return open(self.path(name), "rb")

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file, replaced if it exists, that appears once the block ends without error.

        A power failure leaves it whole, but not one in the folder of unfinished work.
        """
        # A name of its own, so that two writers of the same file do not mix.
        path, unfinished = self.path(name), self.path(f"{PARTS}/unfinished-{uuid.uuid4().hex}")
        for needed in (path, unfinished):
            needed.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "wb") as file:
                yield file
            if name.startswith(f"{PARTS}/"):  # thousands of small files, which are checked later
                os.replace(unfinished, path)
            else:
                replace_durably(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def remove(self, below: str) -> None:
        """Remove a file, or a subfolder and its files, if it exists."""
        if self.exists(below):
            self.path(below).unlink()
        shutil.rmtree(self.path(below), ignore_errors=True)


@dataclass(frozen=True)
class BeamStore:
    """A folder on an object store that Beam reads, such as `gs://` or `s3://`.

    It has the methods of LocalStore. Credentials are options of Beam, see `beam.read_beam_flags`.

    Example:
        >>> store = BeamStore("gs://bucket/videos")
        >>> store.path("real/anna.mp4")
        'gs://bucket/videos/real/anna.mp4'
    """

    location: str

    def path(self, name: str = "") -> str:  # noqa: D102, as for the others, see LocalStore
        return f"{self.location.rstrip('/')}/{name}".rstrip("/")

    def list(self, below: str = "") -> dict[str, int]:  # noqa: D102
        files = _call("match", [f"{self.path(below)}/**"])[0].metadata_list
        start = len(self.path()) + 1
        # Consoles of object stores represent folders as files with a trailing slash.
        return {f.path[start:]: f.size_in_bytes for f in files if not f.path.endswith("/")}

    def exists(self, name: str) -> bool:  # noqa: D102
        return _call("exists", self.path(name))

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return _call("open", self.path(name), **_UNCHANGED)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        unfinished = self.path(f"{PARTS}/unfinished-{uuid.uuid4().hex}")
        try:
            with _call("create", unfinished, **_UNCHANGED) as file:
                yield file  # an error here would otherwise publish a part of the file
            _call("rename", [unfinished], [self.path(name)])
        finally:
            with contextlib.suppress(OSError):
                _call("delete", [unfinished])

    def remove(self, below: str) -> None:  # noqa: D102
        if self.exists(below):
            _call("delete", [self.path(below)])
        elif self.list(below):
            _call("delete", [f"{self.path(below)}/"])  # with the slash, all files below it


Store = LocalStore | BeamStore


def open_store(location: str | Path, runner: str = "") -> Store:
    """Open a folder; one beyond this machine needs an Apache Beam runner.

    Example:
        >>> open_store("videos")
        LocalStore(location='videos')
    """
    if runner and set(str(location)) & set("*?["):
        raise ValueError(
            "Expected a location without *, ? and [, which Beam reads as patterns; got "
            f"{location}. Rename the folder."
        )
    if "://" not in str(location):
        # Beam workers have their own working directories, so the path must be absolute.
        return LocalStore(str(Path(location).resolve() if runner else location))
    if not runner:
        raise ValueError(
            f"Expected a folder on this machine; got {location}. Download its files first; or, if "
            "it is an object store, give --runner, such as DirectRunner, to use Apache Beam."
        )
    return BeamStore(str(location))


def read_text(store: Store, name: str) -> str:
    """Read a UTF-8 text file, without its byte order mark.

    Example:
        >>> write_text(LocalStore("."), "notes.txt", "one")
        >>> read_text(LocalStore("."), "notes.txt")
        'one'
    """
    with store.open(name) as file:
        return file.read().decode("utf-8-sig")


def write_text(store: Store, name: str, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Example:
        >>> write_text(LocalStore("."), "notes/one.txt", "one")
        >>> LocalStore(".").exists("notes/one.txt")
        True
    """
    with store.create(name) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def local_path(store: Store, name: str) -> Iterator[Path]:
    """Yield the path of a file on this machine, a temporary copy if it is elsewhere.

    Example:
        >>> with local_path(LocalStore("videos"), "real/person00.mp4") as path:
        ...     print(path)
        videos/real/person00.mp4
    """
    if isinstance(store, LocalStore):
        yield store.path(name)
        return
    with TemporaryFolder() as directory:
        path = Path(directory, name.rsplit("/", 1)[-1])
        with store.open(name) as source, open(path, "wb") as copy:
            shutil.copyfileobj(source, copy)
        yield path


@contextlib.contextmanager
def exclusive_lock(store: Store) -> Iterator[None]:
    """Lock a folder against other runs, on this machine; other file systems have no locks.

    The operating system releases the lock of a killed run.

    Raises:
        OSError: If another run holds the lock.

    Example:
        >>> with exclusive_lock(LocalStore("locked")), exclusive_lock(LocalStore("locked")):
        ...     pass
        Traceback (most recent call last):
        OSError: Expected to be the only run that writes to locked; got another one. ...
    """
    if isinstance(store, BeamStore):
        yield
        return
    path = Path(store.location, PARTS, "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise OSError(
            f"Expected to be the only run that writes to {store.location}; got another one. Wait "
            "for it, or choose another --out."
        ) from error


# Beam would otherwise decompress files by their suffix.
_UNCHANGED = {"mime_type": "application/octet-stream", "compression_type": "uncompressed"}


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of Beam's file systems; convert their errors to OSError."""
    from apache_beam.io.filesystems import FileSystems

    try:
        return getattr(FileSystems, name)(*args, **kwargs)
    except OSError:
        raise
    except Exception as error:  # each file system has its own, such as S3ClientError
        raise OSError(
            f"Expected to {name} {args[0]} with Apache Beam; got '{type(error).__name__}: "
            f"{error}'. Check the address, the credentials and that Beam's extra for that file "
            "system is installed, such as apache-beam[gcp]."
        ) from error
