"""The table of verdicts and failures as CSV: one row per file.

Takes records; gives text.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from jdfd_keras.client.likelihood import ErrorRate
from jdfd_keras.client.metadata import DEMONSTRATION
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.console import FORMULA, csv_text
from jdfd_keras.prediction.kept_records import FailedFile

COLUMNS = (
    *("path", "verdict", "score", "log10_lr", "support", "uncertain_from", "uncertain_to"),
    *("real_as_high", "real_as_high_at_most", "fake_as_low", "fake_as_low_at_most"),
    *("num_people", "num_tracks", "num_faces", "num_frames", "duration_s", "width", "height"),
    *("file_bytes", "sha256", "top_face_time_s", "reasons", "not_judged", "warnings", "error"),
    *("engine", "note", "credentials", "ai_claims"),
)


def to_csv(records: Iterable[Verdict | FailedFile]) -> str:
    """Format verdicts and failures as a CSV table: a header, and one row per file.

    Numbers are rounded to six digits; a failure has no verdict and score. Invisible characters are
    escaped. A path that a spreadsheet would read as a formula begins with `./`, another text with
    an apostrophe. The note states that the model of a verdict is for demonstration only, if it is.

    Example:
        >>> to_csv([FailedFile("a.txt", "not a video")]).splitlines()[1]
        'a.txt,,,,,,,,,,,,,,,,,,,,,,,,not a video,,,,'
    """
    return "\n".join(csv_lines(records))


def csv_lines(records: Iterable[Verdict | FailedFile]) -> Iterator[str]:
    """Yield the lines of `to_csv` one by one.

    Example:
        >>> next(csv_lines([]))[:18]
        'path,verdict,score'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        yield _take(text)
        writer.writerow({name: _to_cell(value) for name, value in _to_row(record).items()})
    yield _take(text)


def _take(text: io.StringIO) -> str:
    """Return the line that was just written, and remove it."""
    line = text.getvalue().removesuffix("\n")
    text.seek(0)
    text.truncate()
    return line


def _to_row(record: Verdict | FailedFile) -> dict[str, Any]:
    path = f"./{record.path}" if record.path.startswith(FORMULA) else record.path
    row = {"path": path, "sha256": record.sha256, "file_bytes": record.file_bytes}
    if isinstance(record, FailedFile):
        return row | {"error": " ".join(record.error.split())}
    same = ("verdict", "score", "uncertain_from", "uncertain_to", "num_people", "num_frames")
    row |= {name: getattr(record, name) for name in same}
    row |= {name: getattr(record, name) for name in ("duration_s", "width", "height", "engine")}
    row |= {"num_faces": len(record.faces), "num_tracks": len(record.tracks)}
    row["note"] = DEMONSTRATION if record.demonstration else ""
    if record.credentials:
        claims = [f"{claim.source}: {claim.text}" for claim in record.credentials.ai_claims]
        row |= {"credentials": record.credentials.state, "ai_claims": "; ".join(claims)}
    if record.likelihood:
        row |= {"log10_lr": record.likelihood.log10, "support": record.likelihood.support}
    for name in ("real_as_high", "fake_as_low") if record.error_rates else ():
        rate: ErrorRate = getattr(record.error_rates, name)
        row |= {name: rate.rate, f"{name}_at_most": rate.high}
    if record.top_faces:
        row["top_face_time_s"] = record.faces[record.top_faces[0]].time_s
    row["not_judged"] = "; ".join(
        f"person {track.track_id}: {track.not_judged}"
        for track in record.tracks
        if track.not_judged
    )
    return row | {name: "; ".join(getattr(record, name)) for name in ("reasons", "warnings")}


def _to_cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return round(value, 6) if isinstance(value, float) else value
