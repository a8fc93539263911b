"""Verdicts as text: lines for a person, a table for a program.

Takes the dict that `predict_files` gives; computes no verdict.
"""

import csv
import io
import sys
import unicodedata

from jdfd_keras.inference.verdict import deciding_faces, describe_borders, doubt

COLUMNS = (
    "path",
    "verdict",
    "score",
    "uncertain_from",
    "uncertain_to",
    "num_faces",
    "num_tracks",
    "num_frames",
    "duration_s",
    "width",
    "height",
    "file_bytes",
    "sha256",
    "strongest_time_s",
    "reason",
    "warnings",
    "error",
)
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, surrogates, line ends
FORMULA = ("=", "+", "-", "@")
MOST_BLOCKS = 40
BLOCKS, NOBODY = "▁▂▃▄▅▆▇█", "·"
PLAIN_BLOCKS, PLAIN_NOBODY = "0123456789", "."


def summarize(result: dict) -> str:
    """Put what `predict_files` gave into lines: verdict, time line and people of each file.

    The time line of a video shows the highest score of each moment, from the lowest block for 0 to
    a full one for 1; in tenths, where stdout has no such letters. Failures stand without their
    reasons. A file name with control characters is escaped.
    """
    lines = []
    for verdict in result["files"]:
        lines.append(_describe(verdict))
        if verdict["duration_s"] and verdict["faces"] and verdict["num_frames"] > 1:
            lines.append(f"  {draw_time_line(verdict, can_print(BLOCKS + NOBODY))}")
        if len(verdict["tracks"]) > 1:
            lines += [
                f"  track {track['track_id']}: {track['verdict']}, {_write_score(track)} "
                f"({count_of(track['num_faces'], 'face')}"
                f"{doubt(track)})"
                for track in verdict["tracks"]
            ]
        lines += [f"  warning: {warning}" for warning in verdict["warnings"]]
    lines += [f"{failure['path']}: no verdict" for failure in result["failed"]]
    return "\n".join(map(printable, lines))


def to_csv(result: dict) -> str:
    """Put what `predict_files` gave into a table: a header, and one row for every file in order.

    Numbers are rounded to six digits; the verdict and score of a file that failed are empty. A
    path that a spreadsheet would take for a formula begins with `./`.
    """
    rows = {verdict["path"]: _to_row(verdict) for verdict in result["files"]}
    rows |= {
        failure["path"]: {
            "path": _no_formula(failure["path"]),
            "error": " ".join(failure["error"].split()),
            **{name: failure.get(name, "") for name in ("file_bytes", "sha256")},
        }
        for failure in result["failed"]
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[path] for path in result["paths"])
    return text.getvalue().removesuffix("\n")


def draw_time_line(verdict: dict, has_blocks: bool = True) -> str:
    """Draw the scores over the time of a video in one line; a dot is a time without a face."""
    blocks, nobody = (BLOCKS, NOBODY) if has_blocks else (PLAIN_BLOCKS, PLAIN_NOBODY)
    duration_s = verdict["duration_s"]
    count = max(min(MOST_BLOCKS, verdict["num_frames"]), 1)
    highest: list[float | None] = [None] * count
    for face in deciding_faces(verdict):
        place = min(int(face["time_s"] / duration_s * count), count - 1)
        highest[place] = max(face["score"], highest[place] or 0.0)
    line = "".join(
        nobody if score is None else blocks[min(int(score * len(blocks)), len(blocks) - 1)]
        for score in highest
    )
    return (
        f"0:00 {line} {_clock(duration_s)}"
        if duration_s >= 10
        else f"0 s {line} {duration_s:.1f} s"
    )


def printable(text: str) -> str:
    """Escape what would move the cursor or turn the line, and what no terminal can show."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in UNSEEN
        else letter
        for letter in text
    )


def can_print(letters: str) -> bool:
    """Tell whether stdout has some letters."""
    try:
        letters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def count_of(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _describe(verdict: dict) -> str:
    if verdict["score"] is None:
        frames = count_of(verdict["num_frames"], "frame")
        return f"{verdict['path']}: {verdict['verdict']} ({frames} looked at)"
    deciding = len(deciding_faces(verdict))
    rest = len(verdict["faces"]) - deciding
    faces = count_of(deciding, "face") + (f" and {rest} of perhaps none" if rest else "")
    ground = f"since {verdict['reason']}" if verdict.get("reason") else ""
    return (
        f"{verdict['path']}: {verdict['verdict']}, {ground or _write_score(verdict)} "
        f"({faces}, {describe_borders(verdict)})"
    )


def _write_score(scored: dict) -> str:
    return f"score {scored['score']:.3f}"


def _no_formula(path: str) -> str:
    return f"./{path}" if path.startswith(FORMULA) else path


def _to_row(verdict: dict) -> dict:
    numbers = {name: verdict[name] for name in ("score", "uncertain_from", "uncertain_to")}
    numbers["duration_s"] = verdict["duration_s"]
    if verdict["strongest"]:
        numbers["strongest_time_s"] = verdict["faces"][verdict["strongest"][0]]["time_s"]
    return {
        "path": _no_formula(verdict["path"]),
        "verdict": verdict["verdict"],
        **{name: verdict.get(name, "") for name in ("file_bytes", "sha256", "reason")},
        "width": verdict["width"],
        "height": verdict["height"],
        "num_faces": len(verdict["faces"]),
        "num_tracks": len(verdict["tracks"]),
        "num_frames": verdict["num_frames"],
        "warnings": "; ".join(verdict["warnings"]),
        **{name: round(value, 6) for name, value in numbers.items() if value is not None},
    }


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes}:{seconds:02}"
