"""Speed, accuracy and recall of face extraction next to the usual method.

Takes portraits, from which it makes clips with known faces, or a folder of videos; prints a table
and writes it as JSON and Markdown. Both methods (see `face_measures.py`) run in one process on one
core, clip by clip, so that their ratio does not depend on the machine. Linux only.

    python benchmarks/faces.py [--portraits DIR | --clips DIR] [--profile]
    python benchmarks/faces.py --memory [--minutes 10]
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder

import cv2
import numpy as np
from face_clips import (
    FRAMES_PER_S,
    KINDS,
    LONG,
    TrueFace,
    read_people,
    write_clip,
    write_long_clip,
)
from face_measures import (
    UsualMethod,
    extract_and_write,
    measure_clip,
    measure_memory,
    profile_ours,
    use_one_core,
    work_as_worker,
)
from face_report import (
    MAX_MEMORY_MB,
    compare_with_targets,
    describe_machine,
    render,
    render_memory,
    summarize,
)

from jdfd_keras.faces.decode import read_frames

HERE = Path(__file__).parent
VIDEO_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


def main() -> None:
    """Run the selected part and write its report."""
    arguments = _parse()
    work_as_worker()
    use_one_core()
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        if arguments.memory:
            report = run_memory(arguments, Path(directory))
        else:
            report = run_clips(arguments, Path(directory))
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render_memory(report) if arguments.memory else render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def run_clips(arguments: argparse.Namespace, directory: Path) -> dict:
    """Measure both methods on every clip; return the report."""
    _warm_up(arguments, directory)
    usual, results, stages = UsualMethod(), [], {}
    for number, (kind, path, truth) in enumerate(_clips(arguments, directory)):
        results.append({"kind": kind, **measure_clip(path, truth, usual)})
        last = results[-1]
        print(
            f"{number + 1}. {kind}: {last['frames']} frames, usual {last['usual_s']:.1f} s, "
            f"ours {last['our_s']:.2f} s",
            file=sys.stderr,
        )
        if arguments.profile:
            for stage, seconds in profile_ours(path).items():
                share = stages.setdefault(kind, {})
                share[stage] = share.get(stage, 0.0) + 1000 * seconds
        if truth is not None:
            path.unlink()
    rows = {
        kind: summarize([result for result in results if result["kind"] == kind])
        for kind in dict.fromkeys(result["kind"] for result in results)
    }
    rows["all"] = summarize(results)
    for kind, milliseconds in stages.items():
        frames = rows[kind]["frames"]
        stages[kind] = {stage: round(ms / frames, 3) for stage, ms in milliseconds.items()}
    source = "a folder of videos" if arguments.clips else "clips made from portraits"
    return {
        "machine": describe_machine(),
        "source": source,
        "seed": arguments.seed,
        "kinds": rows,
        "ms_per_frame": stages,
        "targets": compare_with_targets(rows),
    }


def _clips(
    arguments: argparse.Namespace, directory: Path
) -> Iterator[tuple[str, Path, list[list[TrueFace]] | None]]:
    """Yield the kind and path of each clip and, if it was made here, its true faces."""
    if arguments.clips:
        paths = sorted(Path(arguments.clips).rglob("*"))
        for path in (path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES):
            yield _frame_size(path), path, None
        return
    people = read_people(_portraits(arguments, directory), arguments.people)
    for repeat in range(arguments.clips_per_kind):
        for number, kind in enumerate(KINDS):
            if arguments.kinds not in kind.name:
                continue
            seed = arguments.seed + 1000 * repeat + number
            chosen = np.random.default_rng(seed).permutation(len(people))
            cast = [people[index] for index in np.resize(chosen, len(kind.roles))]
            path = directory / f"clip{seed}.mp4"
            frames = max(int(kind.num_frames * arguments.length), 2)
            yield (
                kind.name,
                path,
                write_clip(path, dataclasses.replace(kind, num_frames=frames), cast, seed),
            )


def _warm_up(arguments: argparse.Namespace, directory: Path) -> None:
    """Load what our method loads at its first use; UsualMethod loads its own."""
    import scipy.optimize  # noqa: F401

    if not arguments.clips:
        extract_and_write(_portraits(arguments, directory)[0])


def _portraits(arguments: argparse.Namespace, directory: Path) -> list[Path]:
    """List photographs: of --portraits, or the two public-domain ones of installed packages."""
    if arguments.portraits:
        paths = Path(arguments.portraits).iterdir()
        return sorted(path for path in paths if cv2.haveImageReader(str(path)))
    from matplotlib import cbook
    from skimage import data

    astronaut = directory / "astronaut.png"
    cv2.imwrite(str(astronaut), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return [astronaut, Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))]


def run_memory(arguments: argparse.Namespace, directory: Path) -> dict:
    """Measure the peak memory on a long clip and on a short one."""
    people = read_people(_portraits(arguments, directory), 1)
    clips = []
    for minutes in sorted({1.0, arguments.minutes}):
        path = directory / "long.mp4"
        print(f"writing {minutes:g} minutes of 1080p", file=sys.stderr)
        write_long_clip(path, LONG, people, round(minutes * 60 * FRAMES_PER_S))
        clips.append({"minutes": minutes, **measure_memory(path)})
        path.unlink()
    peak = clips[-1]["peak_mb"]
    target = f"less than {MAX_MEMORY_MB} MB for {clips[-1]['minutes']:g} minutes of 1080p"
    row = {"target": target, "measured": f"{peak:.0f} MB", "met": peak < MAX_MEMORY_MB}
    return {"machine": describe_machine(), "clips": clips, "targets": [row]}


def _frame_size(path: Path) -> str:
    frame = next(read_frames(path, 1, every=1))
    return "{1} x {0}".format(*frame.pixels.shape)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Face extraction next to the usual method.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--portraits", help="folder of photographs to make clips from")
    source.add_argument("--clips", help="folder of videos to use instead, without true faces")
    parser.add_argument("--people", type=int, default=40, help="number of portraits (%(default)s)")
    parser.add_argument(
        "--clips-per-kind", type=int, default=2, help="clips of each kind (%(default)s)"
    )
    parser.add_argument(
        "--kinds", default="", help="only kinds whose name contains this, such as 480p"
    )
    parser.add_argument(
        "--length",
        type=float,
        default=1.0,
        help="length of the clips as a share of the full length",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of people and motion")
    parser.add_argument("--profile", action="store_true", help="profile the stages of our method")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="with --memory: length of the clip in minutes"
    )
    parser.add_argument(
        "--out", help="JSON file; the Markdown page is written beside it (benchmarks/results)"
    )
    arguments = parser.parse_args()
    name = "memory.json" if arguments.memory else "faces.json"
    arguments.out = arguments.out or HERE / "results" / name
    return arguments


if __name__ == "__main__":
    main()
