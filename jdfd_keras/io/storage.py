"""Folders, on this machine or on any file system that Apache Beam reads.

Takes the place of a folder; gives its files by name, read as streams and written whole or not
at all. Knows nothing of what is in them. Beam is imported only for places beyond this machine,
or where it is asked for.

One run at a time in a folder, on this machine or beyond it.
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

UNFINISHED = "unfinished"  # the folder of files while they are written; left by what was killed
PARTS = "parts"


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
        walk = os.walk(self.path(below), onerror=_refuse_unreadable, followlinks=True)
        for directory, folders, names in walk:
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
    """A folder of a file system that Beam reads: `gs://`, `s3://`, Azure's, or of this machine.

    Credentials and the like are Beam's own options: `FileSystems.set_options` comes first.
    """

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
        if is_local(self.place):  # links are followed as elsewhere
            return LocalStore(self.place).list(below)
        files = _call("match", [self.path(f"{below}/**" if below else "**")])[0].metadata_list
        start = len(self.path()) + 1
        # Consoles of object stores make folders as files whose names end in a slash.
        return {f.path[start:]: f.size_in_bytes for f in files if not f.path.endswith("/")}

    def exists(self, name: str) -> bool:  # noqa: D102
        return _call("exists", self.path(name))

    def open(self, name: str) -> BinaryIO:  # noqa: D102
        return _call("open", self.path(name), **_AS_IT_IS)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:  # noqa: D102
        path, unfinished = self.path(name), self.path(_unfinished())
        for folder in (path.rsplit("/", 1)[0], self.path(UNFINISHED)):
            with contextlib.suppress(OSError):  # it is there, or the file system has none
                _call("mkdirs", folder)
        try:
            with _call("create", unfinished, **_AS_IT_IS) as file:
                yield file
            try:
                _call("rename", [unfinished], [path])
            except OSError:
                if not (_call("exists", unfinished) and _call("exists", path)):
                    raise
                _call("delete", [path])  # some file systems do not replace
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
        if is_local(self.place):
            LocalStore(self.place).remove(below)
            return
        with contextlib.suppress(OSError):
            _call("delete", [f"{self.path(below)}/"])  # at once, where the file system can
        if names := self.list(below):
            _call("delete", [self.path(name) for name in names])


def is_local(place: str) -> bool:
    """Tell a folder of this machine from a place beyond it, which has a scheme."""
    return "://" not in place


_AS_IT_IS = {"mime_type": "application/octet-stream", "compression_type": "uncompressed"}


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _unfinished() -> str:
    """Name a file while it is written: its own, so that two writers of one file do not mix."""
    return f"{UNFINISHED}/{uuid.uuid4().hex}"


def _call(name: str, *arguments, **named):
    """Call one of Beam's file systems; whatever they raise becomes an OSError."""
    try:
        from apache_beam.io.filesystems import FileSystems
    except ImportError as error:
        raise OSError(
            "Expected Apache Beam for --runner; got no such package. Install it with "
            "`pip install jdfd-keras[beam]`."
        ) from error
    try:
        return getattr(FileSystems, name)(*arguments, **named)
    except OSError:
        raise
    except Exception as error:  # each file system has its own, such as S3ClientError
        raise OSError(
            f"Expected to {name} {arguments[0]} by way of Apache Beam; got "
            f"'{type(error).__name__}: {error}'. Check the address, the credentials and that the "
            "extra of Beam for that file system is installed, such as apache-beam[gcp]."
        ) from error


OWNER = f"{PARTS}/owner.json"
# Beyond this machine a run says now and then that it is still there.
SECONDS_BETWEEN_SIGNS = 60
SECONDS_UNTIL_GONE = 300
SECONDS_TO_SETTLE = 2  # after which the last of several that begin at once is seen by all


@contextlib.contextmanager
def hold(store: Store) -> Iterator[None]:
    """Keep other runs out of a folder.

    On this machine the system lets go when a run is killed. Other file systems have no locks: a
    file names the owner, who renews it; one who was killed is taken for gone five minutes later.

    Raises:
        OSError: If another run is at work there.
    """
    if is_local(store.place):
        path = Path(store.place, PARTS, "lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise _refuse(store, "Wait for it") from error
        return
    own = uuid.uuid4().hex
    if _read_owner(store) is not None:
        raise _refuse(store, f"If it was killed, try in {SECONDS_UNTIL_GONE // 60} minutes")
    _sign(store, own)
    time.sleep(SECONDS_TO_SETTLE)
    if _read_owner(store) != own:
        raise _refuse(store, "Wait for it")
    done = threading.Event()
    signs = threading.Thread(target=_keep_signing, args=(store, own, done), daemon=True)
    signs.start()
    try:
        yield
    finally:
        done.set()
        signs.join()
        _sign(store, own, at_s=0)  # of long ago: nobody is there any more


def _refuse(store: Store, advice: str) -> OSError:
    return OSError(
        f"Expected to be the only run that writes to {store.place}; got another one at work "
        f"there. {advice}, or choose another --out."
    )


def _read_owner(store: Store) -> str | None:
    """Read who is at work in a folder; nobody, if the last sign is of long ago."""
    if not store.exists(OWNER):
        return None
    sign = json.loads(read_text(store, OWNER))
    return sign["owner"] if time.time() - sign["at_s"] < SECONDS_UNTIL_GONE else None


def _sign(store: Store, own: str, at_s: float | None = None) -> None:
    at_s = time.time() if at_s is None else at_s
    write_text(store, OWNER, json.dumps({"owner": own, "at_s": at_s}))


def _keep_signing(store: Store, own: str, done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):  # the next one may succeed
            _sign(store, own)
