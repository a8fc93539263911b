"""Callbacks of finished jobs that are to be sent, kept in the database of the jobs.

Takes what became of each attempt; returns the callbacks that are due. They are created in the
transaction that ends an analysis, so that a kill loses none. Sends nothing itself.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jdfd_keras.serving.jobs.job_database import JobDatabase
from jdfd_keras.serving.jobs.job_rows import select_jobs, to_storable
from jdfd_keras.serving.jobs.job_types import Job

WAITING, SENT, GIVEN_UP = "waiting", "sent", "given_up"  # states of a callback
MAX_DUE = 20  # callbacks that are read at once


@dataclass(frozen=True)
class DueCallback:
    """A callback of a finished job.

    Attributes:
        number: Its own number, which no later callback gets again.
        job: The job, without its result.
        state: WAITING, SENT or GIVEN_UP.
        created_at: When the job finished, in seconds since 1970.
        due_at: When it is sent next, likewise.
        attempts: Attempts so far.
        error: Why the last attempt failed; "" if it did not.
    """

    number: int
    job: Job
    state: str
    created_at: float
    due_at: float
    attempts: int
    error: str


class CallbackQueue:
    """The callbacks of a database; safe to use from many threads. Errors are those of `JobStore`.

    Example:
        >>> from pathlib import Path
        >>> from jdfd_keras.serving.jobs.job_store import JobStore
        >>> with JobStore(Path("no_callbacks.sqlite"), max_queued=1) as store:
        ...     store.callbacks.due(time.time())
        []
    """

    def __init__(self, database: JobDatabase):
        """Use an open database."""
        self._database = database

    def due(self, now: float) -> Sequence[DueCallback]:
        """Return callbacks that are due, at most MAX_DUE, those with the fewest attempts first.

        Args:
            now: The time, in seconds since 1970.
        """
        return self._select(
            "state = ? AND due_at <= ? ORDER BY attempts, due_at, number LIMIT ?",
            (WAITING, now, MAX_DUE),
        )

    def find(self, job_id: str) -> DueCallback | None:
        """Return the last callback of a job, in any state; None if it has none."""
        callbacks = self._select("job_id = ?", (to_storable(job_id),))
        return callbacks[0] if callbacks else None

    def wait(self, timeout_s: float) -> None:
        """Return as soon as a new callback is due, at the latest after `timeout_s`."""
        self._database.wait_until(lambda: bool(self.due(time.time())), timeout_s)

    def mark_sent(self, number: int) -> None:
        """Record that a callback was received; one that was deleted meanwhile is ignored."""
        self._update(number, "state = ?, attempts = attempts + 1, error = ''", SENT)

    def mark_failed(self, number: int, error: str, retry_at: float | None) -> None:
        """Record a failed attempt, and the time of the next; None: the callback is given up."""
        change = "attempts = attempts + 1, error = ?"
        if retry_at is None:
            self._update(number, f"{change}, state = ?", to_storable(error), GIVEN_UP)
        else:
            self._update(number, f"{change}, due_at = ?", to_storable(error), retry_at)

    def postpone(self, number: int, retry_at: float) -> None:
        """Change the time of the next attempt, without one."""
        self._update(number, "due_at = ?", retry_at)

    def _update(self, number: int, change: str, *values: Any) -> None:
        with self._database.write() as db:
            db.execute(f"UPDATE callbacks SET {change} WHERE number = ?", (*values, number))

    def _select(self, where: str, values: tuple) -> Sequence[DueCallback]:
        with self._database.read() as db:
            rows = db.execute(f"SELECT * FROM callbacks WHERE {where}", values).fetchall()
            jobs = [select_jobs(db, "WHERE id = ?", (row["job_id"],))[0] for row in rows]
        names = ("number", "state", "created_at", "due_at", "attempts", "error")
        return [
            DueCallback(job=job, **{name: row[name] for name in names})
            for row, job in zip(rows, jobs, strict=True)
        ]


def create_callbacks(db: sqlite3.Connection, where: str, value: str) -> None:
    """Create the callbacks of finished jobs that have a URL; none may have one already.

    Args:
        db: An open transaction, which ends or finds the jobs.
        where: SQL that is true for the jobs, with one parameter.
        value: The parameter.

    Example:
        >>> from pathlib import Path
        >>> database = JobDatabase(Path("no_callbacks.sqlite"))
        >>> with database.write() as db:
        ...     create_callbacks(db, "id = ?", "ab")
        >>> database.close()
    """
    now = time.time()
    db.execute(
        "INSERT INTO callbacks (job_id, created_at, due_at)"
        f" SELECT id, ?, ? FROM jobs WHERE callback != '' AND {where}",
        (now, now, value),
    )
