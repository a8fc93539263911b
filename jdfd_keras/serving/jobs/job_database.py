"""The SQLite database of the jobs: its tables, transactions and errors.

Takes a path; gives transactions, each of which is on disk when its block ends, so that a killed
process has done all of it or none. Independent of what the statements mean.
"""

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

SCHEMA_VERSION = 1  # raised when a table changes
BUSY_TIMEOUT_S = 10.0  # another process may read the database, such as a backup
# A running analysis may have no job left: its result is then discarded. Every other has a job.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE analyses (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    submission TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    queue_number INTEGER NOT NULL UNIQUE,
    attempts INTEGER NOT NULL DEFAULT 0,
    finished_at TEXT NOT NULL DEFAULT '',
    verdict TEXT NOT NULL DEFAULT '',
    score REAL,
    error TEXT,
    result TEXT
);
CREATE INDEX analyses_by_state ON analyses (state, queue_number);
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL REFERENCES analyses (key),
    name TEXT NOT NULL,
    callback TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    searchable_name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (key, name, callback)
);
CREATE TABLE callbacks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given_up')),
    created_at REAL NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX callbacks_by_state ON callbacks (state, attempts, due_at);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
# The two that are not named so are a quota or a limit of the file size, and a new -shm file.
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class DamagedRowError(ValueError):
    """A row holds a text that this version did not write."""


class JobDatabase:
    """A database that is open in one process; safe to use from many threads.

    All methods raise an OSError if it cannot be read or written, with errno ENOSPC if the disk is
    full.

    Example:
        >>> database = JobDatabase(Path("empty.sqlite"))
        >>> with database.read() as db:
        ...     [count] = db.execute("SELECT COUNT(*) FROM jobs").fetchone()
        >>> database.close()
        >>> count
        0
    """

    def __init__(self, path: Path):
        """Open the database, or create it with mode 0600.

        Args:
            path: Its path, in an existing folder; files with the suffixes -wal and -shm belong to
                it.
        """
        self.path = path
        self._changed = threading.Condition(threading.RLock())
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        with contextlib.ExitStack() as stack:
            stack.callback(self._db.close)
            with self._explain_errors():
                self._open()
            stack.pop_all()

    def close(self) -> None:
        """Close the database; everything is on disk already."""
        with self._changed:
            self._db.close()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Run the statements of the block on one state of the database."""
        with self._changed, self._explain_errors(), self._transaction("BEGIN"):
            yield self._db

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run the statements of the block all, or none if it raises."""
        with self._changed, self._explain_errors():
            with self._transaction("BEGIN IMMEDIATE"):
                yield self._db
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until a condition is true after a write; at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(condition, timeout_s)

    def erase_deleted(self) -> None:
        """Remove deleted rows from the -wal file too, where earlier transactions left them."""
        # The rows are deleted already, and the next checkpoint can do it: an error is no failure.
        with self._changed, contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _open(self) -> None:
        [mode] = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise OSError(
                f"Expected a local disk for {self.path}, where SQLite can write ahead; got one "
                f"with the journal mode {mode!r}. Try a state folder on another disk."
            )
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA secure_delete = ON")  # names and verdicts do not stay on disk
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        [tables] = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            self._db.executescript(_SCHEMA)
        elif version != SCHEMA_VERSION:
            raise OSError(
                f"Expected schema version {SCHEMA_VERSION} in {self.path}; got {version}. It was "
                "made by another version of jdfd-keras: use that version, or try another state "
                "folder."
            )
        [status] = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if status != "ok":
            raise DamagedRowError(status)

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            # After some errors, such as a full disk, SQLite has rolled back on its own.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except DamagedRowError as error:
            raise self._damage_error(error) from error
        except sqlite3.DatabaseError as error:
            # The others, such as a use after `close`, are errors of the caller.
            if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
                raise
            name = error.sqlite_errorname
            if name in _FULL:
                raise OSError(
                    errno.ENOSPC,
                    f"Expected free disk space for the jobs in {self.path}; got '{error}'. Free "
                    "some, or try a state folder on another disk.",
                ) from error
            if name.startswith(_DAMAGED):
                raise self._damage_error(error) from error
            raise OSError(
                f"Expected to read and write the database of jobs {self.path}; got '{error}'. Try "
                "to find other programs that use it, and check its owner and mode."
            ) from error

    def _damage_error(self, reason: Exception) -> OSError:
        line = " ".join(str(reason).split())  # a report of SQLite has several
        return OSError(
            f"Expected a database of jobs in {self.path}; got '{line}'. Try a backup of it, or "
            "move it and its -wal and -shm files away: the server then starts without jobs."
        )
