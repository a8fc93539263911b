"""Temporary folders that do not outlast their process for long, however it ends.

Each is locked while its process lives. The first one of a process removes those of dead processes,
such as killed ones: folders without a lock, of the same user.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

# Nobody names a folder of results like this: folders with such a name are removed.
PREFIX = "jdfd-keras-temporary-"
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_cleaned: set[str] = set()  # the folders of temporary files that this process has cleaned


class TemporaryFolder(tempfile.TemporaryDirectory):
    """A new folder, as `tempfile.TemporaryDirectory`, that is locked until it is removed.

    It is removed at the end of its block, by `cleanup`, or at the end of the process. If a signal
    kills the process, the next process that makes a TemporaryFolder removes it. Child processes do
    not inherit the lock, unless they are forked.

    Example:
        >>> with TemporaryFolder() as folder:
        ...     _ = Path(folder, "notes.txt").write_text("one")
        >>> Path(folder).exists()
        False
    """

    def __init__(self) -> None:
        """Create the folder, and remove those of dead processes."""
        root = tempfile.gettempdir()
        if root not in _cleaned:
            _cleaned.add(root)
            remove_abandoned(root)
        self._lock = -1
        while True:
            # What a child process still writes must not turn the end into an error.
            super().__init__(prefix=PREFIX, ignore_cleanup_errors=True)
            if self._take_lock():
                return
            self.cleanup()  # another process has taken it for an abandoned one

    def cleanup(self) -> None:
        """Remove the folder."""
        super().cleanup()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _take_lock(self) -> bool:
        """Lock the folder; return False if another process is about to remove it."""
        try:
            self._lock = os.open(self.name, _OPEN)
        except FileNotFoundError:
            return False
        try:
            # A shared lock, which network file systems grant for a folder, too.
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # without locks here, other processes cannot take it for abandoned
            return True
        return os.path.isdir(self.name)


def remove_abandoned(root: str | Path) -> None:
    """Remove the temporary folders of dead processes of this user; others are left alone.

    Where folders cannot be locked, nothing is removed.

    Args:
        root: The folder of temporary files.

    Example:
        >>> Path("jdfd-keras-temporary-dead0000").mkdir()
        >>> remove_abandoned(".")
        >>> Path("jdfd-keras-temporary-dead0000").exists()
        False
    """
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        for name in names:
            _remove_if_abandoned(os.path.join(root, name))


def _remove_if_abandoned(path: str) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        folder = os.open(path, _OPEN)  # not through a link
        stack.callback(os.close, folder)
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            return
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its process lives
        shutil.rmtree(path, ignore_errors=True)
