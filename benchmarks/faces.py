"""How fast, how exactly and how completely faces are taken, beside the field's usual way.

Takes portraits, of which it makes clips with known faces, or a folder of videos; prints a table
and writes it as JSON and Markdown. Both ways (see `face_measures.py`) run in one process on one
core, clip by clip, so that only their ratio needs believing. Linux only.

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
    UsualWay,
    measure_clip,
    measure_memory,
    profile_ours,
    take_and_write,
    use_one_core,
)
from face_report import MOST_MEMORY_MB, describe_machine, judge, render, render_memory, summarize

from jdfd_keras.faces.decode import read_frames

HERE = Path(__file__).parent
VIDEO_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


def main() -> None:
    """Run the part that was asked for and write what came."""
    arguments = _parse()
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
    """Measure both ways on every clip; gives the report."""
    _warm_up(arguments, directory)
    usual, results, stages = UsualWay(), [], {}
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
    source = "a folder of videos" if arguments.clips else "clips made of portraits"
    return {
        "machine": describe_machine(),
        "source": source,
        "seed": arguments.seed,
        "kinds": rows,
        "ms_per_frame": stages,
        "reach": judge(rows),
    }


def _clips(
    arguments: argparse.Namespace, directory: Path
) -> Iterator[tuple[str, Path, list[list[TrueFace]] | None]]:
    """Give each clip with its kind and, where it was made here, its true faces."""
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
    """Load the trained files of our way; the other's are loaded when it is made."""
    if not arguments.clips:
        take_and_write(_portraits(arguments, directory)[0])


def _portraits(arguments: argparse.Namespace, directory: Path) -> list[Path]:
    """List photographs: of the folder given, or the two of the public domain in packages."""
    if arguments.portraits:
        paths = Path(arguments.portraits).iterdir()
        return sorted(path for path in paths if cv2.haveImageReader(str(path)))
    from matplotlib import cbook
    from skimage import data

    astronaut = directory / "astronaut.png"
    cv2.imwrite(str(astronaut), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return [astronaut, Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))]


def run_memory(arguments: argparse.Namespace, directory: Path) -> dict:
    """Measure the peak of memory on a long clip and on a short one."""
    people = read_people(_portraits(arguments, directory), 1)
    clips = []
    for minutes in sorted({1.0, arguments.minutes}):
        path = directory / "long.mp4"
        print(f"writing {minutes:g} minutes of 1080p", file=sys.stderr)
        write_long_clip(path, LONG, people, round(minutes * 60 * FRAMES_PER_S))
        clips.append({"minutes": minutes, **measure_memory(path)})
        path.unlink()
    peak = clips[-1]["peak_mb"]
    came = f"{peak:.0f} MB"
    expected = f"less than {MOST_MEMORY_MB} MB for {clips[-1]['minutes']:g} minutes of 1080p"
    reach = [{"expected": expected, "came": came, "met": peak < MOST_MEMORY_MB}]
    return {"machine": describe_machine(), "clips": clips, "reach": reach}


def _frame_size(path: Path) -> str:
    frame = next(read_frames(path, 1, every=1))
    return "{1} x {0}".format(*frame.pixels.shape)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ours beside the usual way of taking faces.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--portraits", help="folder of photographs to make clips of")
    source.add_argument("--clips", help="folder of videos to take instead; nothing is true there")
    parser.add_argument("--people", type=int, default=40, help="portraits read (%(default)s)")
    parser.add_argument(
        "--clips-per-kind", type=int, default=2, help="clips of each kind (%(default)s)"
    )
    parser.add_argument("--kinds", default="", help="only those with this in their name: 480p")
    parser.add_argument(
        "--length", type=float, default=1.0, help="length of the clips, of the full one"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of people and motion")
    parser.add_argument("--profile", action="store_true", help="say where our time goes")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--minutes", type=float, default=10.0, help="with --memory: of the clip")
    parser.add_argument("--out", help="JSON file; the page goes beside it (benchmarks/results)")
    arguments = parser.parse_args()
    name = "faces_memory.json" if arguments.memory else "faces.json"
    arguments.out = arguments.out or HERE / "results" / name
    return arguments


if __name__ == "__main__":
    main()
