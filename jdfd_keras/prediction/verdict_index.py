"""Index of the lines of a result folder: where the last record of each file is.

Takes a file of lines; gives the place of a record and the few facts that resuming a run needs. The
lines are the truth: the index is made of them, and made again if it does not fit them.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.console import Progress
from jdfd_keras.prediction.kept_records import FailedFile, parse_line

INDEX = "verdicts.sqlite"
FORMAT = 1  # raised when the tables change
LINES_PER_COMMIT = 1000  # those after the last commit of a killed run are read again
REPORTED_BYTES = 1 << 26  # more are read with a progress bar
CACHE_KB = 32_000
FILES_PER_QUERY = 500

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (
    path BLOB PRIMARY KEY, start INTEGER, is_verdict INTEGER, file_bytes INTEGER, mtime_ns INTEGER,
    suspicion INTEGER, score REAL, credentials TEXT
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """Facts of the last line of a file."""

    start: int  # in bytes
    is_verdict: bool
    file_bytes: int | None
    mtime_ns: int | None
    suspicion: int  # of a verdict, the first two values of `Verdict.suspicion`
    score: float
    credentials: str | None  # of a verdict, state, detail and trust list as JSON; None if not read


@contextlib.contextmanager
def open_index(lines: Path, path: Path) -> Iterator["LineIndex"]:
    """Open the index of a file of lines, and read those that it does not have yet.

    A cut last line is removed from the file. An index that is damaged or does not fit the lines is
    replaced; where SQLite cannot write it, it is a temporary one.

    Args:
        lines: The file, which nobody else writes to.
        path: The index.

    Raises:
        OSError: If the lines cannot be read.
        ValueError: If a line is damaged.

    Example:
        >>> Path("one.jsonl").touch()
        >>> with open_index(Path("one.jsonl"), Path("one.sqlite")) as index:
        ...     index.find(["a.mp4"])
        {}
    """
    for place in (path, path, ""):
        connection = None
        try:
            connection = sqlite3.connect(place)
            index = LineIndex(lines, connection)
            break
        except sqlite3.Error:
            if connection:
                connection.close()
            if place == "":
                raise
            for suffix in ("", "-journal"):
                with contextlib.suppress(OSError):  # then it is a temporary one
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        except BaseException:
            if connection:
                connection.close()
            raise
    else:
        raise AssertionError("the last one opens or raises")
    with contextlib.closing(connection):
        try:
            yield index
        finally:
            index.commit()


class LineIndex:
    """An index, created by `open_index`."""

    def __init__(self, lines: Path, connection: sqlite3.Connection):
        """Check the index, and read the lines that follow its last one."""
        self._lines, self._connection = lines, connection
        self._num_pending, self._is_writable = 0, True
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        connection.executescript(_TABLES)
        try:
            facts = json.loads(self.read_fact("indexed") or "{}")
            fits = self._fits(facts)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError("damaged") from error
        if not fits:
            connection.execute("DELETE FROM lines")
            connection.execute("DELETE FROM facts")
            facts = {}
        self._end, self._num_lines = facts.get("end", 0), facts.get("num_lines", 0)
        self._last_start, self._last_line = facts.get("last_start", 0), None  # None: as stored
        self._last_digest = facts.get("last_digest", "")
        if os.stat(lines).st_size > self._end or not facts:
            self._read_new_lines()
            self.commit()

    def find(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of some files, at most FILES_PER_QUERY, by path."""
        names = {_to_key(path): path for path in paths}
        rows = self._connection.execute(
            f"SELECT * FROM lines WHERE path IN ({','.join('?' * len(names))})", [*names]
        )
        return {names[row[0]]: Entry._make(row[1:]) for row in rows}

    def add(self, record: Verdict | FailedFile, mtime_ns: int | None, line: bytes) -> int:
        """Add the line that was just written, and return its start.

        An error of SQLite only ends the indexing: the next run reads the lines that follow.
        """
        start = self._end
        if self._is_writable:
            try:
                self._insert(record, mtime_ns, line)
            except sqlite3.Error:
                self._is_writable = False
        self._end = start + len(line)
        if self._num_pending >= LINES_PER_COMMIT:
            self.commit()
        return start

    def read_fact(self, name: str) -> str | None:
        """Return a text that was kept with the index; None if it was made again since."""
        query = "SELECT value FROM facts WHERE name = ?"
        row = self._connection.execute(query, [name]).fetchone()
        return row[0] if row else None

    def keep_fact(self, name: str, value: str) -> None:
        """Keep a text with the index."""
        if self._is_writable:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("REPLACE INTO facts VALUES (?, ?)", [name, value])

    def commit(self) -> None:
        """Write what was added to the disk."""
        if not self._is_writable:
            return
        if self._last_line is not None:
            self._last_digest = hashlib.sha256(self._last_line).hexdigest()
        facts = {
            "format": FORMAT,
            "end": self._end,
            "num_lines": self._num_lines,
            "mtime_ns": os.stat(self._lines).st_mtime_ns,
            "last_start": self._last_start,
            "last_digest": self._last_digest,
        }
        self.keep_fact("indexed", json.dumps(facts))
        try:
            self._connection.commit()
            self._num_pending = 0
        except sqlite3.Error:
            self._is_writable = False

    def _fits(self, facts: dict[str, Any]) -> bool:
        """Return whether the file still begins with the indexed lines."""
        if not facts or facts["format"] != FORMAT:
            return False
        status = os.stat(self._lines)
        if status.st_size == facts["end"]:
            return status.st_mtime_ns == facts["mtime_ns"]
        if status.st_size < facts["end"]:  # lines were deleted
            return False
        with open(self._lines, "rb") as file:
            file.seek(facts["last_start"])
            last = file.read(facts["end"] - facts["last_start"])
        return hashlib.sha256(last).hexdigest() == facts["last_digest"]

    def _read_new_lines(self) -> None:
        with open(self._lines, "rb") as file:
            size = os.fstat(file.fileno()).st_size - self._end
            file.seek(self._end)
            progress = None
            if size > REPORTED_BYTES:
                progress = Progress("indexing verdicts", size >> 20, "MB")
            try:
                self._read_lines(file, progress)
            finally:
                if progress:
                    progress.close()

    def _read_lines(self, file: BinaryIO, progress: Progress | None) -> None:
        first = self._end
        for line in file:
            if not line.endswith(b"\n"):  # of a killed run
                os.truncate(self._lines, self._end)
                return
            try:
                record, mtime_ns = parse_line(line)
            except ValueError as error:
                raise ValueError(
                    f"Expected a verdict as JSON in line {self._num_lines + 1} of {self._lines}; "
                    f"got {error}. The file is damaged: delete that line to analyse its file again."
                ) from error
            self._insert(record, mtime_ns, line)
            self._end += len(line)
            if self._num_pending >= LINES_PER_COMMIT * 20:
                self.commit()
            if progress and not self._num_lines % LINES_PER_COMMIT:
                progress.show((self._end - first) >> 20)

    def _insert(self, record: Verdict | FailedFile, mtime_ns: int | None, line: bytes) -> None:
        suspicion, score, credentials = 0, 0.0, None
        if isinstance(record, Verdict):
            suspicion, score, _ = record.suspicion
            if record.credentials:
                found = record.credentials
                credentials = json.dumps([found.state, found.detail, found.trust_list])
        is_verdict = isinstance(record, Verdict)
        facts = is_verdict, record.file_bytes, mtime_ns, suspicion, score, credentials
        row = _to_key(record.path), self._end, *facts
        self._connection.execute("REPLACE INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._last_start, self._last_line = self._end, line
        self._num_lines += 1
        self._num_pending += 1


def _to_key(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")  # names need not be UTF-8
