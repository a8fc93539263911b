"""Report of the face benchmark.

Takes the measurements of `face_measures.py`; returns rows, targets with their measured values, and
a Markdown page. Runs nothing itself.
"""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import dlib
import numpy as np

# Targets, chosen before the first run.
MIN_SPEEDUP = 15.0
MAX_MEDIAN, MAX_P99 = 0.01, 0.05  # as shares of the distance between the outer eye corners
MAX_MEMORY_MB = 600
COLUMNS = {
    "Clips": ("clips", "d"),
    "Frames": ("frames", "d"),
    "Usual method, frames/s": ("usual_fps", ".2f"),
    "Ours, frames/s": ("our_fps", ".1f"),
    "Ratio": ("speedup", ".1f"),
    "Ratio for every face": ("each_speedup", ".1f"),
    "Ratio of processor time": ("cpu_speedup", ".1f"),
    "Ratio of sampling 32 frames, OpenCV": ("sampling_speedup", ".2f"),
    "Recall, usual": ("usual_recall", ".2%"),
    "Recall, ours": ("our_recall", ".2%"),
    "Precision, usual": ("usual_precision", ".2%"),
    "Precision, ours": ("our_precision", ".2%"),
    "People": ("people", "d"),
    "Tracks": ("tracks", "d"),
    "Mixed tracks": ("mixed_tracks", "d"),
}
LANDMARK_COLUMNS = {
    "To the usual method: median": ("median_difference", ".2%"),
    "99 %": ("p99_difference", ".2%"),
    "Usual method to itself: median": ("median_noise", ".2%"),
    "99 % ": ("p99_noise", ".2%"),
    "Usual method to the truth: median": ("usual_error", ".2%"),
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
    """Compute the totals of the clips of one kind."""

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
        "sampling_speedup": total("opencv_sampling_s") / total("our_sampling_s"),
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


def compare_with_targets(rows: dict) -> list[dict]:
    """Return each target, the measured value, and whether it is met."""
    everything, kinds = rows["all"], [row for name, row in rows.items() if name != "all"]
    slowest = min(row["speedup"] for row in kinds)
    median, p99 = everything["median_difference"], everything["p99_difference"]
    targets = [
        (
            f"at least {MIN_SPEEDUP:g} times the frames per second, overall",
            f"{everything['speedup']:.1f}",
            everything["speedup"] >= MIN_SPEEDUP,
        ),
        ("the same for each kind of clip", f"at least {slowest:.1f}", slowest >= MIN_SPEEDUP),
        (
            f"landmarks differ from detection on every frame by at most {MAX_MEDIAN:.0%}, median",
            f"{median:.2%}",
            median <= MAX_MEDIAN,
        ),
        (
            f"by at most {MAX_P99:.0%} in 99 of 100 faces",
            f"{p99:.2%}",
            p99 <= MAX_P99,
        ),
    ]
    if "our_recall" in everything:
        usual, ours = everything["usual_recall"], everything["our_recall"]
        targets.append(
            (
                "recall at least that of the usual method",
                f"{ours:.2%} to {usual:.2%}",
                ours >= usual,
            )
        )
    else:
        shared, boxes = everything["shared_boxes"], everything["usual_boxes"]
        targets.append(
            ("every face that the usual method finds", f"{shared} of {boxes}", shared >= boxes)
        )
    return [
        {"target": target, "measured": measured, "met": bool(met)}
        for target, measured, met in targets
    ]


def describe_machine() -> dict:
    """Return the machine and the library versions that the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": f"1 of {os.cpu_count()}",
        "python": platform.python_version(),
        "dlib": dlib.__version__,
        "opencv": cv2.__version__,
        "pyav": av.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def render(report: dict) -> str:
    """Return the Markdown page of a run over clips."""
    rows = report["kinds"]
    parts = [
        "# Faces: ours and the usual method\n",
        f"{_machine_text(report['machine'])} Source: {report['source']}, seed {report['seed']}.\n",
        _targets_table(report["targets"]),
        "## Speed, detection, tracks\n",
        _table("Kind of clip", rows, COLUMNS),
        "## Landmarks\n",
        "Mean distance of the 68 points divided by that of the outer eye corners, per face.\n",
        _table("Kind of clip", rows, LANDMARK_COLUMNS),
    ]
    if report["ms_per_frame"]:
        stages = report["ms_per_frame"]
        names = next(iter(stages.values()))
        parts += [
            "## Time of our stages\n",
            "Milliseconds per frame, with the overhead of the profiler.\n",
            _table("Kind of clip", stages, {name: (name, ".2f") for name in names}),
        ]
    return "\n".join(parts)


def render_memory(report: dict) -> str:
    """Return the Markdown page of a run over long clips."""
    rows = {f"1080p, {clip['minutes']:g} min": clip for clip in report["clips"]}
    return "\n".join(
        [
            "# Faces: peak memory\n",
            _machine_text(report["machine"]) + "\n",
            _targets_table(report["targets"]),
            _table("Clip", rows, MEMORY_COLUMNS),
        ]
    )


def _machine_text(machine: dict) -> str:
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}, dlib {machine['dlib']}, OpenCV {machine['opencv']}, PyAV "
        f"{machine['pyav']}."
    )


def _targets_table(targets: list[dict]) -> str:
    lines = ["| Target | Measured | |", "| --- | --- | --- |"]
    lines += [
        f"| {row['target']} | {row['measured']} | {'met' if row['met'] else '**not met**'} |"
        for row in targets
    ]
    return "\n".join(lines) + "\n"


def _table(first: str, rows: dict[str, dict], columns: dict[str, tuple[str, str]]) -> str:
    """Return a Markdown table of the columns that at least one row has."""
    shown = {
        title: column
        for title, column in columns.items()
        if any(column[0] in row for row in rows.values())
    }
    lines = [" | ".join(["", first, *shown, ""]).strip(), "| --- |" + " ---: |" * len(shown)]
    for name, row in rows.items():
        cells = [format(row[key], spec) if key in row else "" for key, spec in shown.values()]
        lines.append(" | ".join(["", name, *cells, ""]).strip())
    return "\n".join(lines) + "\n"
