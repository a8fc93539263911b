"""Resuming `predict --out` in a result folder that has a verdict on every file.

    python benchmarks/result_folders.py --scratch DIR                 # a million files; 20 minutes
    python benchmarks/result_folders.py --scratch DIR --before OLD    # next to another version
    python benchmarks/result_folders.py --scratch DIR --files 1000    # mechanics only

Nothing is analysed: the files are empty, and their verdicts are lines made of one with 60 faces
(7 kB). They need 12 GB of disk. OLD is a folder with the package of another version. Linux only.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
FILES_PER_FOLDER = 1000
MTIME_NS = 1_700_000_000_000_000_000
TARGETS = {"step_s": ("time", "s", 10), "peak_mb": ("peak memory", "MB", 500)}


def main() -> None:
    """Run the measurements and write the results, or one measurement in this process."""
    arguments = _parse()
    if arguments.measure:
        sys.path.insert(0, str(arguments.package))
        folder = arguments.scratch
        print(json.dumps(_resume(folder) if arguments.measure == "resume" else _command(folder)))
        return
    sys.path[:0] = [str(ROOT), str(HERE)]
    from face_report import describe_machine

    result: dict = {"machine": describe_machine() | {"cores": str(os.cpu_count())}}
    folder = arguments.scratch / "small"
    result["small"] = make_folder(folder, min(arguments.files, arguments.small_files))
    result["small"]["again"] = _measure(folder, ROOT, "resume")
    result["small"]["command"] = _measure(folder, ROOT, "command")
    if arguments.before:
        result["small"]["before"] = _measure(folder, arguments.before, "resume")
    _forget_index(folder)
    result["small"]["first"] = _measure(folder, ROOT, "resume")
    folder = arguments.scratch / "large"
    result["large"] = make_folder(folder, arguments.files)
    result["large"]["again"] = _measure(folder, ROOT, "resume")
    if arguments.command:
        result["large"]["command"] = _measure(folder, ROOT, "command")
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(render(result), encoding="utf-8")
    print(render(result))


def make_folder(folder: Path, num_files: int) -> dict:
    """Create empty files and a finished result folder with a verdict on each.

    It is made by the functions of a run, but without waiting for the disk after each line.

    Returns:
        Number of files, of bytes of all lines, and of bytes of one of them.
    """
    from jdfd_keras.client.metadata import ModelMetadata
    from jdfd_keras.faces.credentials import ContentCredentials
    from jdfd_keras.inference.tracks import FaceScore, TrackScore
    from jdfd_keras.inference.verdict import Verdict, choose_faces, decision_thresholds
    from jdfd_keras.options import FaceOptions, PredictOptions
    from jdfd_keras.prediction import result_folder

    if folder.exists():
        shutil.rmtree(folder)
    metadata = ModelMetadata(FaceOptions(), None, "stub", 1, "ab")
    faces = choose_faces(metadata, PredictOptions())
    calibration = decision_thresholds(metadata, PredictOptions())
    files, out = folder / "files", folder / "out"
    box = (401, 203, 655, 502)
    verdict = Verdict(
        path="PATH",
        sha256="ab" * 32,
        verdict="uncertain",
        score=0.5,
        uncertain_from=0.3,
        uncertain_to=0.8,
        num_frames=30,
        duration_s=12.5,
        width=1920,
        height=1080,
        tracks=tuple(TrackScore(i, 30, 1.0, 0.0, 12.5, 0.5 - i / 8, "uncertain") for i in (0, 1)),
        faces=tuple(
            FaceScore(10 * (i // 2), i / 5 + 1 / 30, i % 2, box, 2**-0.5) for i in range(60)
        ),
        top_faces=tuple(range(6)),
        warnings=("the video has no audio",),
        analysed_at="2026-01-02T12:00:00+00:00",
        file_bytes=0,
        engine="OpenVINO 2026.4.1, bfloat16",
        num_people=2,
        credentials=ContentCredentials("none", "The file has none."),
    )
    text = json.dumps(verdict.to_dict() | {"mtime_ns": MTIME_NS})
    before, after = text.split('"PATH"')
    state, paths = (0, MTIME_NS), []
    for number in range(num_files):
        path = files / f"{number // FILES_PER_FOLDER:05}" / f"upload_{number:08}.mp4"
        if number % FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
        paths.append(str(path))
    result_folder.to_line = lambda one, _: f"{before}{json.dumps(one.path)}{after}\n".encode()
    settings = {"metadata": metadata, "faces": faces, "calibration": calibration}
    fsync, os.fsync = os.fsync, lambda _: None
    try:
        states = ((path, state) for path in paths)
        with result_folder.open_folder(out, states, **settings) as kept:
            for path in paths:
                kept.keep(dataclasses.replace(verdict, path=path), state=state)
            kept.finish(dataclasses.replace(verdict, path=path) for path in paths)
    finally:
        os.fsync = fsync
    size = (out / "verdicts.jsonl").stat().st_size
    return {"files": num_files, "bytes": size, "line_bytes": round(size / num_files)}


def compare_with_targets(result: dict) -> dict[str, float]:
    """Return the measurements that have a target."""
    return {name: result["large"]["again"][name] for name in TARGETS}


def render(result: dict) -> str:
    """Return the Markdown page of the results."""
    from tables import table

    machine, small, large = result["machine"], result["small"], result["large"]
    measured = compare_with_targets(result)
    rows = [
        [
            f"{text} from the list of {large['files']:,} files to the verdicts",
            f"at most {target} {unit}",
            f"{measured[name]:.1f} {unit}",
            "met" if measured[name] <= target else "**not met**",
        ]
        for name, (text, unit, target) in TARGETS.items()
    ]
    runs = [("all files again", large, large["again"]), ("all files again", small, small["again"])]
    if "before" in small:
        runs.append(("the same, all lines read", small, small["before"]))
    runs.append(("index and table made first", small, small["first"]))
    steps = [
        [
            name,
            f"{part['files']:,}",
            f"{run['step_s']:,.1f}",
            f"{run['peak_mb']:,.0f}",
            f"{run['list_s']:,.1f}",
            f"{run['import_mb']:,.0f}",
        ]
        for name, part, run in runs
    ]
    lines = [
        "# Result folders\n",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
        f"{machine['date']}; other programs ran beside. Lines of {large['line_bytes']:,} bytes, "
        f"{large['bytes'] / 1e9:.1f} GB in all.\n",
        table(["measurement", "target", "measured", ""], rows, "lrrl"),
        "\nMemory is the highest of the process with its imports (the last column), but without "
        "TensorFlow, which a local model imports. The time does not count the listing.\n",
        table(["run", "files", "s", "MB", "listing: s", "imports: MB"], steps, "lrrrrr"),
    ]
    for part in (large, small):
        if command := part.get("command"):
            lines.append(
                f"\nThe whole command on {part['files']:,} files, with the listing and a text "
                f"about each verdict: {command['command_s']:,.0f} s, {command['peak_mb']:.0f} MB, "
                f"{command['output_mb']:,.0f} MB of text."
            )
    return "\n".join(lines) + "\n"


def _resume(folder: Path) -> dict:
    """Resume a run in this process: the time after the files were listed, and the memory."""
    from jdfd_keras.prediction import predict

    ends = {}
    predict.load_predictor = _make_stub()
    list_files = predict.list_files

    def list_and_note(paths: list) -> tuple:
        ends["import_mb"], started = _peak_mb(), time.perf_counter()
        found = list_files(paths)
        ends["list_s"], ends["listed"] = time.perf_counter() - started, time.perf_counter()
        ends["list_mb"], ends["listed_cpu"] = _peak_mb(), time.process_time()
        return found

    predict.list_files = list_and_note
    predictions = predict.predict_files([folder / "files"], model="stub", out=folder / "out")
    step_s = time.perf_counter() - ends.pop("listed")
    step_cpu_s, peak_mb = time.process_time() - ends.pop("listed_cpu"), _peak_mb()
    expected = sum(1 for _ in (folder / "files").glob("*/*.mp4"))
    if len(predictions.files) != expected or predictions.failed:
        raise SystemExit(f"Expected {expected} verdicts; got {len(predictions.files)}.")
    return ends | {"step_s": step_s, "step_cpu_s": step_cpu_s, "peak_mb": peak_mb}


def _command(folder: Path) -> dict:
    """Run the whole command in this process, and write its text to a file."""
    from jdfd_keras.cli.main import main as run
    from jdfd_keras.prediction import predict

    predict.load_predictor = _make_stub()
    text, stdout, started = folder / "text", os.dup(1), time.perf_counter()
    with open(text, "wb") as file:
        os.dup2(file.fileno(), 1)
        words = [str(folder / "files"), "--model", "stub", "--out", str(folder / "out")]
        code = run(["predict", *words])
    os.dup2(stdout, 1)
    if code:
        raise SystemExit(f"Expected exit code 0; got {code}.")
    seconds, size = time.perf_counter() - started, text.stat().st_size
    return {"command_s": seconds, "peak_mb": _peak_mb(), "output_mb": size / 1e6}


def _make_stub() -> Callable:
    from jdfd_keras.client.metadata import ModelMetadata
    from jdfd_keras.inference.backends import Predictor
    from jdfd_keras.options import FaceOptions

    metadata = ModelMetadata(FaceOptions(), None, "stub", 1, "ab")
    predictor = Predictor("stub", metadata, lambda crops: crops[:, 0, 0, 0] / 255, None)
    return lambda *_: predictor


def _measure(folder: Path, package: Path, kind: str) -> dict:
    command = [sys.executable, __file__, "--scratch", folder, "--measure", kind]
    done = subprocess.run(
        [*map(str, command), "--package", str(package)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _forget_index(folder: Path) -> None:
    for name in ("verdicts.sqlite", "verdicts.csv"):
        (folder / "out" / name).unlink()


def _peak_mb() -> float:
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure resuming in large result folders.")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all files")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--small-files", type=int, default=20_000, help="next to another version")
    parser.add_argument("--before", type=Path, help="folder with the package of another version")
    parser.add_argument(
        "--command", action="store_true", help="also the whole command for all files"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "result_folders.json")
    parser.add_argument("--measure", choices=("resume", "command"), help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
