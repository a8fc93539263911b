"""Cost of writing `prepare`'s files so that a power failure does not lose them.

    python benchmarks/prepare_fsync.py                 # 15 minutes on two cores
    python benchmarks/prepare_fsync.py --subjects 2 --turns 1    # mechanics only

`prepare` runs in turns as it is, and with an `os.fsync` that does nothing, on generated clips. In
the first case the time inside `os.fsync` is measured too, in all processes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder

from face_report import describe_machine
from tables import table

HERE = Path(__file__).parent
FRAMES = 64  # of a clip
TARGET = 0.03  # set before the first run
# Python runs it at the start of every process.
REPLACEMENT = """
import os, time

fsync, log = os.fsync, os.environ.get("FSYNC_LOG")

def timed(file):
    start = time.perf_counter()
    fsync(file)
    line = f"{time.perf_counter() - start:.6f}\\n".encode()
    log_file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log_file, line)
    os.close(log_file)

if "FSYNC_LOG" in os.environ:
    os.fsync = timed if log else lambda file: None
"""


def measure(scratch: Path, subjects: int, turns: int) -> dict:
    """Run `prepare` in turns; return its seconds, and those inside of `os.fsync`."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

    clips = scratch / "clips"
    portraits = vary_portrait(astronaut(), subjects, seed=0)
    num_clips = sum(1 for _ in make_clips(portraits, clips, num_frames=FRAMES, seed=0))
    (scratch / "sitecustomize.py").write_text(REPLACEMENT, encoding="utf-8")
    rows = []
    for turn in range(turns):
        row: dict[str, float] = {}
        names = ("with", "without")
        for name in names if turn % 2 == 0 else reversed(names):
            log = scratch / f"fsync{turn}.log"
            environment = {
                "FSYNC_LOG": str(log) if name == "with" else "",
                "PYTHONPATH": os.pathsep.join([str(scratch), str(HERE.parent)]),
            }
            words = ["prepare", "folder", clips, "--out", scratch / f"{name}{turn}"]
            command = [sys.executable, "-m", "jdfd_keras", *map(str, words), "--workers", "1"]
            start = time.perf_counter()
            subprocess.run(
                command,
                env=os.environ | environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            row[f"{name}_s"] = round(time.perf_counter() - start, 3)
        each = [float(line) for line in log.read_text(encoding="ascii").split()]
        rows.append(row | {"fsync_s": round(sum(each), 4), "calls": len(each)})
    return {"clips": num_clips, "frames": FRAMES, "turns": rows}


def render(report: dict) -> str:
    """Return the results and the target as Markdown."""
    machine, found = report["machine"], report["fsync"]
    rows = found["turns"]
    share = statistics.median(row["fsync_s"] / row["with_s"] for row in rows)
    target = (
        "time inside `os.fsync` / time of `prepare`",
        f"at most {TARGET:.0%}",
        f"{share:.2%}",
        "met" if share <= TARGET else "**not met**",
    )
    turns = [
        (
            number + 1,
            f"{row['with_s']:.2f}",
            f"{row['without_s']:.2f}",
            f"{row['with_s'] / row['without_s']:.3f}",
            row["calls"],
            f"{row['fsync_s']:.3f}",
        )
        for number, row in enumerate(rows)
    ]
    lines = [
        "# Prepare: writing through to the disk",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
        table(("measurement", "target", "measured", ""), [target], "lrrl"),
        f"{found['clips']} clips of {found['frames']} frames, one worker process:",
        table(
            ("turn", "with, s", "without, s", "ratio", "calls", "inside of them, s"),
            turns,
            "rrrrrr",
        ),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Measure the cost of fsync in prepare.")
    parser.add_argument("--subjects", type=int, default=12, help="with one real and one fake clip")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "prepare_fsync.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        report = {
            "machine": describe_machine() | {"cores": str(os.cpu_count())},
            "fsync": measure(Path(directory), arguments.subjects, arguments.turns),
        }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    arguments.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
