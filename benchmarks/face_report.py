"""Measures of clips to a table and a verdict.

Takes what `face_measures.py` gives; gives rows, what was expected beside what came, and a page
of Markdown. Runs nothing itself.
"""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import cv2
import dlib
import numpy as np

# Written down before the first run.
LEAST_SPEEDUP = 15.0
LARGEST_MEDIAN, LARGEST_P99 = 0.01, 0.05  # of the distance between the outer eye corners
MOST_MEMORY_MB = 600
COLUMNS = {
    "Clips": ("clips", "d"),
    "Frames": ("frames", "d"),
    "Usual way, frames/s": ("usual_fps", ".2f"),
    "Ours, frames/s": ("our_fps", ".1f"),
    "Ratio": ("speedup", ".1f"),
    "Ratio, were it to take each face": ("each_speedup", ".1f"),
    "Ratio of processor time": ("cpu_speedup", ".1f"),
    "Recall, usual": ("usual_recall", ".2%"),
    "Recall, ours": ("our_recall", ".2%"),
    "Precision, usual": ("usual_precision", ".2%"),
    "Precision, ours": ("our_precision", ".2%"),
    "People": ("people", "d"),
    "Tracks": ("tracks", "d"),
    "Tracks of two people": ("mixed_tracks", "d"),
}
LANDMARK_COLUMNS = {
    "To the usual way: median": ("median_difference", ".2%"),
    "99 %": ("p99_difference", ".2%"),
    "Usual way to itself: median": ("median_noise", ".2%"),
    "99 % ": ("p99_noise", ".2%"),
    "Usual way to the truth: median": ("usual_error", ".2%"),
    "Ours to the truth: median": ("our_error", ".2%"),
}
MEMORY_COLUMNS = {
    "Minutes": ("minutes", "g"),
    "Frames": ("frames", "d"),
    "Faces": ("faces", "d"),
    "Seconds": ("seconds", ".0f"),
    "Before, MB": ("before_mb", ".0f"),
    "Peak, MB": ("peak_mb", ".0f"),
}


def summarize(results: Sequence[dict]) -> dict:
    """Sum the clips of one kind up."""

    def total(name: str) -> float:
        return sum(result[name] for result in results)

    row = {
        "clips": len(results),
        "frames": total("frames"),
        "usual_fps": total("frames") / total("usual_s"),
        "our_fps": total("frames") / total("our_s"),
        "speedup": total("usual_s") / total("our_s"),
        "each_speedup": total("usual_each_s") / total("our_s"),
        "cpu_speedup": total("usual_cpu_s") / total("our_cpu_s"),
        "tracks": total("tracks"),
        "usual_boxes": total("usual_boxes"),
        "our_boxes": total("our_boxes"),
        "shared_boxes": sum(len(result["difference"]) for result in results),
    }
    for name in ("difference", "noise"):
        distances = [value for result in results for value in result[name]]
        for share, label in ((0.5, "median"), (0.99, "p99")):
            row[f"{label}_{name}"] = float(np.quantile(distances or [np.nan], share))
    if "true" in results[0]:
        row |= {"people": total("people"), "mixed_tracks": total("mixed_tracks")}
        for name in ("usual", "our"):
            boxes = total(f"{name}_boxes")
            row[f"{name}_recall"] = total(f"{name}_found") / total("true")
            row[f"{name}_precision"] = 1 - total(f"{name}_false") / boxes if boxes else 1.0
            errors = [value for result in results for value in result[f"{name}_error"]]
            row[f"{name}_error"] = float(np.median(errors or [np.nan]))
    return row


def judge(rows: dict) -> list[dict]:
    """Say what was expected, what came, and whether it is met."""
    everything, kinds = rows["all"], [row for name, row in rows.items() if name != "all"]
    slowest = min(row["speedup"] for row in kinds)
    median, p99 = everything["median_difference"], everything["p99_difference"]
    claims = [
        (
            f"at least {LEAST_SPEEDUP:g} times the frames per second, overall",
            f"{everything['speedup']:.1f}",
            everything["speedup"] >= LEAST_SPEEDUP,
        ),
        ("the same for each kind of clip", f"{slowest:.1f} at least", slowest >= LEAST_SPEEDUP),
        (
            f"landmarks off detection on every frame by {LARGEST_MEDIAN:.0%} at most, median",
            f"{median:.2%}",
            median <= LARGEST_MEDIAN,
        ),
        (
            f"by {LARGEST_P99:.0%} at most in 99 of 100 faces",
            f"{p99:.2%}",
            p99 <= LARGEST_P99,
        ),
    ]
    if "our_recall" in everything:
        usual, ours = everything["usual_recall"], everything["our_recall"]
        claims.append(
            ("recall at least the usual way's", f"{ours:.2%} to {usual:.2%}", ours >= usual)
        )
    else:
        shared, boxes = everything["shared_boxes"], everything["usual_boxes"]
        claims.append(
            ("every face that the usual way finds", f"{shared} of {boxes}", shared >= boxes)
        )
    return [
        {"expected": expected, "came": came, "met": bool(met)} for expected, came, met in claims
    ]


def describe_machine() -> dict:
    """Name what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": f"1 of {os.cpu_count()}",
        "python": platform.python_version(),
        "dlib": dlib.__version__,
        "opencv": cv2.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def render(report: dict) -> str:
    """Write the page of a run over clips."""
    rows = report["kinds"]
    parts = [
        "# Faces: ours beside the usual way\n",
        f"{_say_machine(report['machine'])} Source: {report['source']}, seed {report['seed']}.\n",
        _reach_table(report["reach"]),
        "## Speed, finding, tracks\n",
        _table("Clips of", rows, COLUMNS),
        "## Landmarks\n",
        "Mean distance of the 68 points by the distance of the outer eye corners, per face.\n",
        _table("Clips of", rows, LANDMARK_COLUMNS),
    ]
    if report["ms_per_frame"]:
        stages = report["ms_per_frame"]
        names = next(iter(stages.values()))
        parts += [
            "## Where our time goes\n",
            "Milliseconds a frame, with a profiler watching.\n",
            _table("Clips of", stages, {name: (name, ".2f") for name in names}),
        ]
    return "\n".join(parts)


def render_memory(report: dict) -> str:
    """Write the page of a run over long clips."""
    rows = {f"1080p, {clip['minutes']:g} min": clip for clip in report["clips"]}
    return "\n".join(
        [
            "# Faces: peak of memory\n",
            _say_machine(report["machine"]) + "\n",
            _reach_table(report["reach"]),
            _table("Clip", rows, MEMORY_COLUMNS),
        ]
    )


def _say_machine(machine: dict) -> str:
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}, dlib {machine['dlib']}, OpenCV {machine['opencv']}."
    )


def _reach_table(reach: list[dict]) -> str:
    lines = ["| Expected beforehand | Came | |", "| --- | --- | --- |"]
    lines += [
        f"| {claim['expected']} | {claim['came']} | {'met' if claim['met'] else '**not met**'} |"
        for claim in reach
    ]
    return "\n".join(lines) + "\n"


def _table(first: str, rows: dict[str, dict], columns: dict[str, tuple[str, str]]) -> str:
    """Lay rows out; columns that none of them has are left out."""
    shown = {
        title: how for title, how in columns.items() if any(how[0] in r for r in rows.values())
    }
    lines = [" | ".join(["", first, *shown, ""]).strip(), "| --- |" + " ---: |" * len(shown)]
    for name, row in rows.items():
        cells = [format(row[key], how) if key in row else "" for key, how in shown.values()]
        lines.append(" | ".join(["", name, *cells, ""]).strip())
    return "\n".join(lines) + "\n"
