"""A file that is being received: it is written in pieces, hashed and limited, or deleted.

It has a random name in `incoming/`, never that of the client. A full disk is an error of its own.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from jdfd_keras.serving.jobs.request_errors import RequestError

MIN_FREE_BYTES = 64 * 2**20  # left free on the disk, for the database and results
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class IncomingFile:
    """A file that is being received; its methods may be called in any thread.

    Attributes:
        path: Where it is.
        file_bytes: Bytes so far.
    """

    def __init__(self, folder: Path, max_bytes: int):
        """Create an empty file of a random name in a folder."""
        self.path = folder / f"{secrets.token_hex(16)}.part"
        self.file_bytes = 0
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        # A thread may still write when the connection is closed and the file is deleted.
        self._lock = threading.Lock()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            RequestError: `too_large`.
            OSError: If the disk is full.
        """
        with self._lock:
            if self._file.closed:
                return
            self.file_bytes += len(chunk)
            if self.file_bytes > self._max_bytes:
                raise too_large(self._max_bytes)
            self._digest.update(chunk)
            remaining = memoryview(chunk)
            while remaining:  # a write may be partial, for example when the disk becomes full
                remaining = remaining[self._file.write(remaining) :]

    def finish(self) -> str:
        """Close the file and return its SHA-256, hexadecimal."""
        with self._lock:
            self._file.close()
            return self._digest.hexdigest()

    def discard(self) -> None:
        """Close the file and delete it, if it is still where it was."""
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)


def too_large(max_bytes: int) -> RequestError:
    """Return the error of a body that is too large.

    Example:
        >>> too_large(5 * 2**20).message
        'Expected a file of at most 5 MiB; got a larger one. Start the server with a larger ...'
    """
    return RequestError(
        "too_large",
        f"Expected a file of at most {max_bytes / 2**20:g} MiB; got a larger one. Start the server "
        "with a larger --max-upload-mb, or shorten the file.",
    )


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn the error of a full disk into a RequestError; other errors stay as they are.

    Raises:
        RequestError: `disk_full`.

    Example:
        >>> with disk_errors():
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        jdfd_keras.serving.jobs.request_errors.RequestError: Expected space on the disk ...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise RequestError(
            "disk_full",
            "Expected space on the disk of the server for the file; got a full disk. Nothing of it "
            "is kept. Delete files, or try again later.",
        ) from None


def check_space(folder: Path, num_bytes: int) -> None:
    """Check that a file of this size fits on the disk.

    Raises:
        RequestError: `disk_full`.

    Example:
        >>> check_space(Path("."), 10)
    """
    with disk_errors():
        if shutil.disk_usage(folder).free < num_bytes + MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, "no space for the whole file")
