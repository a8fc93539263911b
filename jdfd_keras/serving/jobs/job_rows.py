"""Rows of the database of jobs as objects.

Takes an open transaction; returns jobs and submissions. Text of clients becomes text that SQLite
stores and compares as a whole.
"""

import json
import sqlite3
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jdfd_keras.options import PredictOptions
from jdfd_keras.serving.jobs.job_database import DamagedRowError
from jdfd_keras.serving.jobs.job_types import Job, JobError, Submission

JOBS = "jobs JOIN analyses ON analyses.key = jobs.key"
# Whether a text of `to_searchable` is part of the name, the first digits of the SHA-256, or the
# whole verdict.
MATCHES = """(
    instr(searchable_name, :text) OR substr(sha256, 1, length(:text)) = :text
    OR (verdict != '' AND replace(verdict, '_', ' ') = replace(:text, '_', ' '))
)"""
_COLUMNS = """
    jobs.id, jobs.name, jobs.callback, jobs.created_at, analyses.submission, analyses.state,
    analyses.finished_at, analyses.verdict, analyses.score, analyses.error, analyses.attempts,
    CASE analyses.state WHEN 'queued' THEN (
        SELECT COUNT(*) FROM analyses AS other
        WHERE other.state = 'queued' AND other.queue_number <= analyses.queue_number
    ) ELSE 0 END AS position
"""


def select_jobs(
    db: sqlite3.Connection, where: str, values: Any, *, with_result: bool = False
) -> Sequence[Job]:
    """Return jobs with their states and positions in the queue.

    Args:
        db: An open transaction.
        where: SQL after the tables, from WHERE on.
        values: Its parameters.
        with_result: Whether to read the results too, which may be large.

    Raises:
        DamagedRowError: If a text is not as it was stored.

    Example:
        >>> from pathlib import Path
        >>> from jdfd_keras.serving.jobs.job_database import JobDatabase
        >>> database = JobDatabase(Path("no_jobs.sqlite"))
        >>> with database.read() as db:
        ...     jobs = select_jobs(db, "WHERE id = ?", ("ab",))
        >>> database.close()
        >>> jobs
        []
    """
    columns = f"{_COLUMNS}, analyses.result" if with_result else _COLUMNS
    rows = db.execute(f"SELECT {columns} FROM {JOBS} {where}", values).fetchall()
    return [_to_job(row) for row in rows]


def parse_submission(text: str) -> Submission:
    """Return the submission of an analysis from its JSON.

    Raises:
        DamagedRowError: If it has other fields.

    Example:
        >>> parse_submission("{}")
        Traceback (most recent call last):
        jdfd_keras.serving.jobs.job_database.DamagedRowError: KeyError('options') in a submission
    """
    try:
        values = json.loads(text)
        return Submission(**values | {"options": PredictOptions(**values["options"])})
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRowError(f"{error!r} in a submission") from error


def to_storable(text: str) -> str:
    r"""Return text with escapes for lone surrogates and NUL, which SQLite does not store whole.

    Example:
        >>> to_storable("a\udc80.mp4")
        'a\\udc80.mp4'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def to_searchable(name: str) -> str:
    """Return a name in which case and the Unicode forms of a letter make no difference.

    Example:
        >>> to_searchable("STRASSE.MP4") == to_searchable("straße.mp4")
        True
    """
    return unicodedata.normalize("NFKC", to_storable(name)).casefold().strip()


def to_iso(moment: datetime | None = None) -> str:
    """Return a time, by default now, as UTC in ISO format with milliseconds, which sorts as text.

    Example:
        >>> to_iso(datetime(2026, 1, 2, tzinfo=UTC))
        '2026-01-02T00:00:00.000+00:00'
    """
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def _to_job(row: sqlite3.Row) -> Job:
    values: dict[str, Any] = dict(row)
    values["submission"] = parse_submission(row["submission"])
    try:
        values["error"] = row["error"] and JobError(**json.loads(row["error"]))
        values["result"] = json.loads(values.get("result") or "null")
    except (TypeError, ValueError) as error:
        raise DamagedRowError(f"{error!r} in a result") from error
    return Job(**values)
