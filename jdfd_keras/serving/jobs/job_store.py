"""Jobs and their analyses, which survive a kill at any moment.

Takes submissions, and outcomes of analyses; returns jobs and the next analysis to do. Each method
is one transaction of the database.
"""

import json
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jdfd_keras.serving.jobs.callback_queue import CallbackQueue, create_callbacks
from jdfd_keras.serving.jobs.job_database import JobDatabase
from jdfd_keras.serving.jobs.job_rows import (
    JOBS,
    MATCHES,
    parse_submission,
    select_jobs,
    to_iso,
    to_searchable,
    to_storable,
)
from jdfd_keras.serving.jobs.job_types import (
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    Job,
    Outcome,
    QueueFullError,
    Submission,
)

_NEXT_NUMBER = "(SELECT ifnull(max(queue_number), 0) + 1 FROM analyses)"


@dataclass(frozen=True)
class LiveNames:
    """What the files of jobs are named after; files with other names can be removed.

    Attributes:
        keys: Keys of the analyses, also of running ones whose jobs are deleted.
        uploads: SHA-256 and suffix of their uploads, such as "ab12.mp4".
        job_ids: Identities of the jobs.
    """

    keys: frozenset[str]
    uploads: frozenset[str]
    job_ids: frozenset[str]


class JobStore:
    """The jobs of one server; safe to use from many threads.

    All methods raise an OSError if the database cannot be read or written, with errno ENOSPC if the
    disk is full.

    Attributes:
        callbacks: The callbacks of finished jobs.

    Example:
        >>> from jdfd_keras.options import PredictOptions
        >>> file = Submission("ab" * 32, 9, ".mp4", "", PredictOptions(), False, "cd", "CPU")
        >>> with JobStore(Path("jobs.sqlite"), max_queued=1) as store:
        ...     job, is_new = store.submit(file, "clip.mp4")
        ...     key, _ = store.claim()
        ...     _ = store.finish(key, Outcome({"files": []}, verdict="fake", score=0.9))
        ...     is_new, job.position, store.get(job.id).verdict
        (True, 1, 'fake')
    """

    def __init__(self, path: Path, max_queued: int):
        """Open the database, or create it in an existing folder.

        Args:
            path: Its path.
            max_queued: Analyses that may wait.
        """
        self._max_queued = max_queued
        self._database = JobDatabase(path)
        self.callbacks = CallbackQueue(self._database)

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the database; everything is on disk already."""
        self._database.close()

    def submit(self, submission: Submission, name: str, callback: str = "") -> tuple[Job, bool]:
        """Store a job, and queue its analysis unless it is queued, running or done.

        The same analysis, name and callback are the same job. If the analysis failed, it is queued
        again, for all its jobs.

        Args:
            submission: The file and its options.
            name: File name; lone surrogates and NUL are stored as escapes.
            callback: URL that is told of the end; "" for none.

        Returns:
            The job, with its result if it is done, and whether it is new.

        Raises:
            QueueFullError: If the analysis would have to be queued and `max_queued` are.
        """
        same = (submission.key, to_storable(name), to_storable(callback))
        with self._database.write() as db:
            row = db.execute("SELECT state FROM analyses WHERE key = ?", same[:1]).fetchone()
            state = row["state"] if row else FAILED
            if state == FAILED:
                self._queue(db, submission)
            row = db.execute(
                "SELECT id FROM jobs WHERE key = ? AND name = ? AND callback = ?", same
            ).fetchone()
            job_id = row["id"] if row else uuid.uuid4().hex
            if row is None:
                db.execute(
                    "INSERT INTO jobs (id, key, name, callback, sha256, searchable_name,"
                    " created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (job_id, *same, submission.sha256, to_searchable(name), to_iso()),
                )
                if state == DONE:
                    create_callbacks(db, "id = ?", job_id)
            [job] = select_jobs(db, "WHERE id = ?", (job_id,), with_result=True)
        return job, row is None

    def is_full(self) -> bool:
        """Return whether a submission that needs a new analysis raises QueueFullError."""
        with self._database.read() as db:
            return _count_queued(db) >= self._max_queued

    def claim(self) -> tuple[str, Submission] | None:
        """Mark the oldest queued analysis as running; return its key and submission, or None."""
        with self._database.write() as db:
            row = db.execute(
                "SELECT key, submission FROM analyses WHERE state = ? ORDER BY queue_number"
                " LIMIT 1",
                (QUEUED,),
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE analyses SET state = ?, attempts = attempts + 1 WHERE key = ?",
                (RUNNING, row["key"]),
            )
            return row["key"], parse_submission(row["submission"])

    def wait_for_work(self, timeout_s: float) -> None:
        """Return as soon as an analysis is queued, at the latest after `timeout_s`."""

        def has_queued() -> bool:
            with self._database.read() as db:
                return _count_queued(db) > 0

        self._database.wait_until(has_queued, timeout_s)

    def finish(self, key: str, outcome: Outcome) -> bool:
        """Store the end of a running analysis, and create the callbacks of its jobs.

        The outcome of an analysis that is not running is ignored.

        Returns:
            False if all its jobs were deleted, so that its files can be removed.
        """
        with self._database.write() as db:
            return _finish(db, key, outcome)

    def release(self, key: str) -> None:
        """Return a running analysis to its position in the queue; the attempt is not counted."""
        with self._database.write() as db:
            db.execute(
                "UPDATE analyses SET state = ?, attempts = attempts - 1"
                " WHERE key = ? AND state = ?",
                (QUEUED, key, RUNNING),
            )
            _delete_unwanted(db)

    def recover(self, max_attempts: int, crashed: Callable[[Submission], Outcome]) -> None:
        """Return the analyses that a killed server was running to the queue.

        After the first time to their positions. After that to the end, so that a file that ends the
        server again and again does not keep it from the others, and that others are not blamed.

        Args:
            max_attempts: Starts after which an analysis fails instead.
            crashed: Returns the outcome of such an analysis; must not call the store.
        """
        with self._database.write() as db:
            rows = db.execute(
                "SELECT key, submission FROM analyses WHERE state = ? AND attempts >= ?",
                (RUNNING, max_attempts),
            ).fetchall()
            for row in rows:
                _finish(db, row["key"], crashed(parse_submission(row["submission"])))
            again = db.execute(
                "SELECT key FROM analyses WHERE state = ? AND attempts > 1 ORDER BY queue_number",
                (RUNNING,),
            ).fetchall()
            for row in again:
                db.execute(
                    f"UPDATE analyses SET queue_number = {_NEXT_NUMBER} WHERE key = ?",
                    (row["key"],),
                )
            db.execute("UPDATE analyses SET state = ? WHERE state = ?", (QUEUED, RUNNING))
            _delete_unwanted(db)

    def get(self, job_id: str) -> Job | None:
        """Return a job with its result; None if it does not exist."""
        with self._database.read() as db:
            jobs = select_jobs(db, "WHERE id = ?", (to_storable(job_id),), with_result=True)
        return jobs[0] if jobs else None

    def list(self, query: str = "", limit: int = 50, offset: int = 0) -> tuple[Sequence[Job], int]:
        """Return jobs without results, the newest first, and the number of all that match.

        Args:
            query: Part of the name, in any case, first digits of the SHA-256, or the whole verdict
                or agreement, such as `fake` or `no evidence`; "": all jobs.
            limit: Largest number of jobs; at least 0.
            offset: Matching jobs to skip, the newest first; at least 0.
        """
        if limit < 0 or offset < 0:
            raise ValueError(
                f"Expected limit and offset to be at least 0; got {limit} and {offset}. Try "
                "limit=50 and offset=0."
            )
        values: dict[str, Any] = {"text": to_searchable(query)}
        with self._database.read() as db:
            count = f"SELECT COUNT(*) FROM {JOBS} WHERE {MATCHES}"
            [total] = db.execute(count, values).fetchone()
            # At most the total, since SQLite has no larger integers than 64 bits.
            values |= {"limit": min(limit, total), "offset": min(offset, total)}
            order = "ORDER BY jobs.number DESC LIMIT :limit OFFSET :offset"
            return select_jobs(db, f"WHERE {MATCHES} {order}", values), total

    def delete(self, job_id: str) -> bool:
        """Delete a job with its callback, and its analysis unless that is running or shared.

        Returns:
            False if it does not exist.
        """
        with self._database.write() as db:
            count = db.execute("DELETE FROM jobs WHERE id = ?", (to_storable(job_id),)).rowcount
            _delete_unwanted(db)
        if count:
            self._database.erase_deleted()
        return count > 0

    def expire(self, before: str) -> Sequence[str]:
        """Delete the jobs that were created and finished before a time, and their callbacks.

        Args:
            before: The time in ISO format, with a zone.

        Returns:
            Their identities.
        """
        latest = to_iso(datetime.fromisoformat(before))
        with self._database.write() as db:
            rows = db.execute(
                f"SELECT id FROM {JOBS} WHERE state IN (?, ?) AND created_at < ?"
                " AND finished_at < ?",
                (DONE, FAILED, latest, latest),
            ).fetchall()
            db.executemany("DELETE FROM jobs WHERE id = ?", map(tuple, rows))
            _delete_unwanted(db)
        if rows:
            self._database.erase_deleted()
        return [row["id"] for row in rows]

    def live_names(self) -> LiveNames:
        """Return the names of the files of all jobs."""
        with self._database.read() as db:
            rows = db.execute("SELECT key, submission FROM analyses").fetchall()
            job_ids = frozenset(row["id"] for row in db.execute("SELECT id FROM jobs"))
            files = [parse_submission(row["submission"]) for row in rows]
        uploads = frozenset(file.sha256 + file.suffix for file in files if not file.path)
        return LiveNames(frozenset(row["key"] for row in rows), uploads, job_ids)

    def _queue(self, db: sqlite3.Connection, submission: Submission) -> None:
        """Queue an analysis that is new or failed, as the last one."""
        if (queued := _count_queued(db)) >= self._max_queued:
            raise QueueFullError(
                f"Expected fewer than {self._max_queued} queued files; got {queued}. Try again "
                "when some are finished."
            )
        db.execute(
            "DELETE FROM callbacks WHERE job_id IN (SELECT id FROM jobs WHERE key = ?)",
            (submission.key,),
        )
        db.execute(
            "INSERT INTO analyses (key, submission, state, queue_number)"
            f" VALUES (?, ?, ?, {_NEXT_NUMBER})"
            " ON CONFLICT (key) DO UPDATE SET state = excluded.state,"
            " queue_number = excluded.queue_number, attempts = 0, finished_at = '', verdict = '',"
            " score = NULL, error = NULL, result = NULL",
            (submission.key, json.dumps(asdict(submission)), QUEUED),
        )


def _count_queued(db: sqlite3.Connection) -> int:
    [count] = db.execute("SELECT COUNT(*) FROM analyses WHERE state = ?", (QUEUED,)).fetchone()
    return count


def _finish(db: sqlite3.Connection, key: str, outcome: Outcome) -> bool:
    [is_wanted] = db.execute("SELECT EXISTS (SELECT 1 FROM jobs WHERE key = ?)", (key,)).fetchone()
    if not is_wanted:
        db.execute("DELETE FROM analyses WHERE key = ?", (key,))
        return False
    values = {
        "key": key,
        "state": FAILED if outcome.error else DONE,
        "finished_at": to_iso(),
        "verdict": outcome.verdict,
        "score": outcome.score,
        "error": json.dumps(asdict(outcome.error)) if outcome.error else None,
        "result": json.dumps(outcome.result),
    }
    changed = db.execute(
        "UPDATE analyses SET state = :state, finished_at = :finished_at, verdict = :verdict,"
        " score = :score, error = :error, result = :result"
        " WHERE key = :key AND state = 'running'",
        values,
    ).rowcount
    if changed:
        create_callbacks(db, "key = ?", key)
    return True


def _delete_unwanted(db: sqlite3.Connection) -> None:
    """Delete the analyses without a job; that of a running one comes to `_finish`."""
    db.execute(
        "DELETE FROM analyses WHERE state != ?"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.key = analyses.key)",
        (RUNNING,),
    )
