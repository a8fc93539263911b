"""Folders, on this machine or on any file system that Apache Beam reads.

Takes the location of a folder; lists its files by name, opens them as streams and writes them
whole or not at all. `exclusive_lock` locks a folder against other runs. Independent of the contents
of the files. Beam is imported only for locations beyond this machine, or on request.
"""

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from filelock import FileLock, Timeout

UNFINISHED = ".unfinished"  # the folder of files while they are written; a killed run leaves it
PARTS = "parts"


class Store(Protocol):
    """A folder. The names of its files are relative to it, with `/` as the separator."""

    location: str

    def list(self, below: str = "") -> dict[str, int]:
        """List all files in a subfolder, recursively; return name to size in bytes."""

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; raise OSError if it does not exist."""

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Write a file, replaced if it exists, that appears once the context ends without error."""

    def fetch(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yield the path of a file on this machine, a temporary copy if it is elsewhere."""

    def remove(self, below: str) -> None:
        """Remove a subfolder and its files, if it exists."""


def read_text(store: Store, name: str) -> str:
    """Read a UTF-8 text file, without its byte order mark.

    Raises:
        OSError: If it does not exist.
        ValueError: If it is not UTF-8.

    Example:
        >>> write_text(LocalStore("."), "notes.txt", "one")
        >>> read_text(LocalStore("."), "notes.txt")
        'one'
    """
    with store.open(name) as file:
        return file.read().decode("utf-8-sig")


def write_text(store: Store, name: str, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> write_text(LocalStore("."), "notes.txt", "one")
    """
    with store.create(name) as file:
        file.write(text.encode("utf-8"))


@dataclass(frozen=True)
class LocalStore:
    """A folder on this machine.

    Example:
        >>> store = LocalStore("out")
        >>> with store.create("a/b.txt") as file:
        ...     _ = file.write(b"one")
        >>> store.list()
        {'a/b.txt': 3}
    """

    location: str

    def path(self, name: str = "") -> Path:
        """Return the path of a file."""
        return Path(self.location, name)

    def list(self, below: str = "") -> dict[str, int]:  # noqa: D102, see Store
        sizes, visited = {}, set()
        # Datasets are often links to other disks; a link to a parent folder is followed once.
        walk = os.walk(self.path(below), onerror=_raise_unless_missing, followlinks=True)
        for directory, folders, names in walk:
            real = os.path.realpath(directory)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders.sort()  # the same one of two links to one folder is followed on every machine
            relative = Path(directory).relative_to(self.location)
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a broken link, or just removed
                    sizes[(relative / name).as_posix()] = Path(directory, name).stat().st_size
        return sizes

    def exists(self, name: str) -> bool:  # noqa: D102
        return self.path(name).is_file()

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return open(self.path(name), "rb")

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        path, unfinished = self.path(name), self.path(_unfinished_name())
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
    """A folder on a file system that Beam reads: `gs://`, `s3://`, Azure's, or on this machine.

    Credentials are options of Beam: call `workers.read_beam_flags` first.

    Raises:
        ValueError: If the location contains `*`, `?` or `[`.

    Example:
        >>> store = BeamStore("gs://bucket/videos")
        >>> store.path("real/anna.mp4")
        'gs://bucket/videos/real/anna.mp4'
    """

    location: str

    def __post_init__(self):
        if set(self.location) & set("*?["):
            raise ValueError(
                f"Expected a location without *, ? and [, which Beam reads as patterns; got "
                f"{self.location}. Rename the folder."
            )

    def path(self, name: str = "") -> str:
        """Return the path or URL of a file."""
        return f"{self.location.rstrip('/')}/{name}" if name else self.location.rstrip("/")

    def list(self, below: str = "") -> dict[str, int]:  # noqa: D102
        if is_local(self.location):  # follows links
            return LocalStore(self.location).list(below)
        files = _call("match", [self.path(f"{below}/**" if below else "**")])[0].metadata_list
        start = len(self.path()) + 1
        # Consoles of object stores represent folders as files with a trailing slash.
        return {f.path[start:]: f.size_in_bytes for f in files if not f.path.endswith("/")}

    def exists(self, name: str) -> bool:  # noqa: D102
        return _call("exists", self.path(name))

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return _call("open", self.path(name), **_UNCHANGED)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        path, unfinished = self.path(name), self.path(_unfinished_name())
        for folder in (path.rsplit("/", 1)[0], self.path(UNFINISHED)):
            with contextlib.suppress(OSError):  # it exists, or the file system has no folders
                _call("mkdirs", folder)
        try:
            with _call("create", unfinished, **_UNCHANGED) as file:
                yield file
            try:
                _call("rename", [unfinished], [path])
            except OSError:
                if not (_call("exists", unfinished) and _call("exists", path)):
                    raise
                _call("delete", [path])  # some file systems do not replace files
                _call("rename", [unfinished], [path])
        finally:
            with contextlib.suppress(OSError):
                _call("delete", [unfinished])

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:  # noqa: D102
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, name.rsplit("/", 1)[-1])
            with self.open(name) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
            yield path

    def remove(self, below: str) -> None:  # noqa: D102
        if is_local(self.location):
            LocalStore(self.location).remove(below)
            return
        with contextlib.suppress(OSError):
            _call("delete", [f"{self.path(below)}/"])  # in one call, if the file system can
        if names := self.list(below):
            _call("delete", [self.path(name) for name in names])


def is_local(location: str) -> bool:
    """Return whether a location is a folder on this machine, that is, without a URL scheme.

    Example:
        >>> is_local("gs://bucket/videos")
        False
    """
    return "://" not in location


# Beam would otherwise decompress files by their suffix.
_UNCHANGED = {"mime_type": "application/octet-stream", "compression_type": "uncompressed"}


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _unfinished_name() -> str:
    """Return a new name, so that two writers of the same file do not mix."""
    return f"{UNFINISHED}/{uuid.uuid4().hex}"


def _call(name: str, *args, **kwargs):
    """Call a method of Beam's file systems; convert their errors to OSError."""
    try:
        from apache_beam.io.filesystems import FileSystems
    except ImportError as error:
        raise OSError(
            "Expected Apache Beam for --runner; got no such package. Install it with "
            "`pip install jdfd-keras[beam]`."
        ) from error
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


OWNER = f"{PARTS}/owner.json"
# Beyond this machine, a run renews its lease regularly.
RENEW_EVERY_S = 60
LEASE_S = 300
SETTLE_S = 2  # of several runs that start at the same time, all see the last lease after this


@contextlib.contextmanager
def exclusive_lock(store: Store) -> Iterator[None]:
    """Lock a folder against other runs.

    On this machine the operating system releases the lock of a killed run. Other file systems have
    no locks: there a file names the owner, which renews this lease, and a lease without renewal
    expires after five minutes.

    Raises:
        OSError: If another run holds the lock.

    Example:
        >>> with exclusive_lock(LocalStore("out")):
        ...     write_text(LocalStore("out"), "a.txt", "one")
    """
    if is_local(store.location):
        path = Path(store.location, PARTS, "lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise _lock_error(store, "Wait for it") from error
        return
    owner = uuid.uuid4().hex
    if _read_owner(store) is not None:
        raise _lock_error(store, f"If it was killed, try in {LEASE_S // 60} minutes")
    _renew_lease(store, owner)
    time.sleep(SETTLE_S)
    if _read_owner(store) != owner:
        raise _lock_error(store, "Wait for it")
    done = threading.Event()
    renewals = threading.Thread(target=_keep_renewing, args=(store, owner, done), daemon=True)
    renewals.start()
    try:
        yield
    finally:
        done.set()
        renewals.join()
        _renew_lease(store, owner, at_s=0)  # expired: the lock is free


def _lock_error(store: Store, advice: str) -> OSError:
    return OSError(
        f"Expected to be the only run that writes to {store.location}; got another one. {advice}, "
        "or choose another --out."
    )


def _read_owner(store: Store) -> str | None:
    """Read the owner of the lease on a folder; None if it has expired."""
    if not store.exists(OWNER):
        return None
    lease = json.loads(read_text(store, OWNER))
    return lease["owner"] if time.time() - lease["at_s"] < LEASE_S else None


def _renew_lease(store: Store, owner: str, at_s: float | None = None) -> None:
    at_s = time.time() if at_s is None else at_s
    write_text(store, OWNER, json.dumps({"owner": owner, "at_s": at_s}))


def _keep_renewing(store: Store, owner: str, done: threading.Event) -> None:
    while not done.wait(RENEW_EVERY_S):
        with contextlib.suppress(OSError):  # the next renewal may succeed
            _renew_lease(store, owner)
