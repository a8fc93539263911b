"""Speed of a verdict and what it is made of, next to an earlier build, TensorFlow and PyTorch.

Makes its own clips and a detector with random weights. Each variant runs in its own process,
several times in turns, so that machine load affects all of them alike. Linux only.

    python benchmarks/speed.py --reference PATH/bin/jdfd-keras --int8 saved_models/NAME/VERSION
    python benchmarks/speed.py --only scoring    # parts; results of the others are kept
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from speed_clips import CLIP, FULL_HD, write_long_clip, write_short_clip
from speed_processes import other_build, this_build
from speed_report import OURS, OURS_TENSORFLOW, REFERENCE, render

HERE = Path(__file__).parent
ONNX_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Amounts of work."""

    face: int = 299  # width and height of the model's faces
    warm_up: int = 1  # untimed turns, after which files are in memory
    turns: int = 3
    clip_s: float = 15.0
    faces: int = 64  # scored per turn
    tracked_s: float = 6.0  # of the clip whose frames are all searched for faces
    minutes: float = 10.0  # of the long clip


DRY = Sizes(
    face=71,
    warm_up=0,
    turns=1,
    clip_s=0.4,
    faces=4,
    tracked_s=0.2,
    minutes=0.1,
)


def main() -> None:
    """Run the selected parts and write the results as JSON and Markdown."""
    arguments = _parse()
    from face_report import describe_machine

    from jdfd_keras.io.files import write_text_atomically

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        bench = Bench(arguments, Path(directory))
        for name in arguments.only or PARTS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            machine = describe_machine() | {"cores": str(os.cpu_count())}
            report[name] = {"machine": machine, "is_dry": arguments.dry} | PARTS[name](bench)
            report = {part: report[part] for part in PARTS if part in report}
            write_text_atomically(out, json.dumps(report, indent=1) + "\n")
            write_text_atomically(out.with_suffix(".md"), render(report))
    print(render(report))


class Bench:
    """The builds, the clips and the models of one run.

    Attributes:
        sizes: Amounts of work.
        folder: Folder of everything that the run writes.
        builds: This build and the reference, if one is given, by name.
        reference: Version of the reference; "" without one.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.sizes = DRY if arguments.dry else Sizes()
        self.int8: Path | None = arguments.int8
        self.folder = folder
        self.builds = {OURS: this_build()}
        self.reference = ""
        if arguments.reference:
            self.builds[REFERENCE] = other_build(arguments.reference)
            version = self.builds[REFERENCE].run("--version")["output"].strip()
            self.reference = f"{version}, {arguments.commit}" if arguments.commit else version

    def export(self, build: str, *options: str) -> Path:
        """Export a detector with random weights, the same for all builds; return its version."""
        model = self.folder / "detector.keras"
        if not model.is_file():
            self.builds[OURS].work("make", model, self.sizes.face)
        out = self.folder / "models" / build.replace(" ", "-") / str(len(options))
        if not out.is_dir():
            saved = ("--name", "detector", "--saved-models", str(out))
            self.builds[build].run("export", str(model), *saved, *options)
        return out / "detector" / "1"

    def take_turns(
        self, measures: Mapping[str, Callable[[], dict]], turns: int = 0
    ) -> dict[str, list[dict]]:
        """Run each measurement once per turn; return its results by turn.

        Args:
            measures: The measurements by name.
            turns: Number of turns, without a warm-up; 0: those of `sizes`.
        """
        warm_up, turns = (0, turns) if turns else (self.sizes.warm_up, self.sizes.turns)
        results: dict[str, list[dict]] = {name: [] for name in measures}
        for _ in range(warm_up + turns):
            for name, measure in measures.items():
                results[name].append(measure())
        return {name: measured[warm_up:] for name, measured in results.items()}


def measure_predict(bench: Bench) -> dict:
    """Time `predict` of a short clip in a new process each."""
    clip = bench.folder / "clip.mp4"
    write_short_clip(clip, CLIP, bench.sizes.clip_s)

    def measure(build: str, *options: str) -> Callable[[], dict]:
        model = bench.export(build)
        call = ("predict", str(clip), "--model", str(model), "--format", "json", *options)
        return lambda: bench.builds[build].run(*call)

    measures = {
        OURS: measure(OURS),
        OURS_TENSORFLOW: measure(OURS, "--backend", "tensorflow"),
    }
    if bench.reference:
        measures[REFERENCE] = measure(REFERENCE)
    results = bench.take_turns(measures)
    answers = {name: json.loads(turns[-1]["output"]) for name, turns in results.items()}
    return {
        "clip_s": bench.sizes.clip_s,
        "size": bench.sizes.face,
        "reference": bench.reference,
        "wall_s": _collect(results, "wall_s"),
        "cpu_s": _collect(results, "cpu_s"),
        "faces": {name: len(answer["files"][0]["faces"]) for name, answer in answers.items()},
        "score": {name: answer["files"][0]["score"] for name, answer in answers.items()},
        "engine": {name: _find_engine(answer) for name, answer in answers.items()},
    }


def measure_scoring(bench: Bench) -> dict:
    """Compare the engines of a detector with random weights, and ONNX Runtime if installed."""
    options = ()
    if bench.sizes != DRY and _has(*ONNX_PACKAGES):
        from training import prepare_set

        data = bench.folder / "set"
        prepare_set(data, bench.sizes.face, num_faces=64)
        options = ("--formats", "onnx", "--data", str(data))
    version = bench.export(OURS, *options)
    if _has("nncf"):
        # On a copy: `predict` takes the engine that the export wrote.
        version = shutil.copytree(version, bench.folder / "int8" / "1", dirs_exist_ok=True)
        bench.builds[OURS].work("quantize", version)
    return _compare_engines(bench, version)


def _has(*packages: str) -> bool:
    return all(map(importlib.util.find_spec, packages))


def measure_int8(bench: Bench) -> dict:
    """Compare the engines of a given export, and read what int8 was found to lose."""
    if bench.int8 is None:
        return {"skipped": "no export with an int8 engine was given"}
    path = bench.int8 / "openvino" / "engine.json"
    quality = json.loads(path.read_text(encoding="utf-8"))["int8"]
    if not quality:
        raise ValueError(
            f"Expected --int8 to be a version with an int8 engine; got {bench.int8}. Export the "
            "model with --formats openvino-int8."
        )
    return _compare_engines(bench, bench.int8) | {"quality": quality}


def _compare_engines(bench: Bench, version: Path) -> dict:
    """Time scoring with each engine of a version, through `load_predictor`."""

    def measure(model: Path, *engine: str) -> Callable[[], dict]:
        return lambda: bench.builds[OURS].work("score", model, *engine, bench.sizes.faces)

    measures = {"tensorflow float32": measure(version, "tensorflow", "float32")}
    for precision in ("float32", "bfloat16", "int8"):
        file = "int8.xml" if precision == "int8" else "float32.xml"
        if (version / "openvino" / file).is_file():
            measures[f"openvino {precision}"] = measure(version, "openvino", precision)
    if (onnx := version / "assets.extra/classifier.onnx").is_file():
        measures["onnxruntime float32"] = measure(onnx, "onnxruntime", "float32")
    results = bench.take_turns(measures)
    return {
        "faces": bench.sizes.faces,
        "size": results["tensorflow float32"][0]["size"],
        "engine": {name: turns[0]["engine"] for name, turns in results.items()},
        "per_s": _collect(results, "per_s"),
    }


def read_training(bench: Bench) -> dict:
    """Read the training steps that `training.py` measured, in a run of its own."""
    report = json.loads((HERE / "results/training.json").read_text(encoding="utf-8"))
    steps = report["steps"]
    batches = {
        batch: {"seconds": {name: [value] for name, value in seconds.items()}}
        for batch, seconds in steps["seconds"].items()
    }
    facts = {name: steps[name] for name in ("size", "processes", "precision")}
    return {"machine": report["machine"], "is_dry": False, "batches": batches} | facts


def measure_tracking(bench: Bench) -> dict:
    """Time detection, tracking and alignment of every frame, and compare the tracks."""
    clip = bench.folder / "full-hd.mp4"
    write_short_clip(clip, FULL_HD, bench.sizes.tracked_s)
    measures = {
        name: lambda build=build: build.work("track", clip) for name, build in bench.builds.items()
    }
    results = bench.take_turns(measures)
    report: dict = {
        "clip_s": bench.sizes.tracked_s,
        "reference": bench.reference,
        "per_s": _collect(results, "per_s"),
        "tracks": {name: len(turns[-1]["tracks"]) for name, turns in results.items()},
    }
    if bench.reference:
        ours, theirs = (results[name][-1]["tracks"] for name in (OURS, REFERENCE))
        report["overlap"] = smallest_overlap(ours, theirs)
    return report


def smallest_overlap(ours: list[dict], theirs: list[dict]) -> float:
    """Return the smallest intersection over union of two builds' boxes of the same face.

    Args:
        ours: For each track its faces: frame to left, top, right, bottom.
        theirs: The same by the other build.

    Returns:
        The overlap; 0 if there are other tracks, or tracks with faces in other frames.
    """
    if [track.keys() for track in ours] != [track.keys() for track in theirs]:
        return 0.0
    pairs = zip(ours, theirs, strict=True)
    overlaps = [_overlap(box, other[frame]) for one, other in pairs for frame, box in one.items()]
    return min(overlaps, default=0.0)


def _overlap(box: list[int], other: list[int]) -> float:
    def area(left: int, top: int, right: int, bottom: int) -> int:
        return max(0, right - left) * max(0, bottom - top)

    shared = area(*map(max, box[:2], other[:2]), *map(min, box[2:], other[2:]))
    return shared / (area(*box) + area(*other) - shared)


def measure_memory(bench: Bench) -> dict:
    """Record the memory of `predict` and of all its processes on a long clip."""
    clip = bench.folder / "long.mp4"
    seconds = write_long_clip(clip, FULL_HD, 60 * bench.sizes.minutes)
    call = ("predict", str(clip), "--model", str(bench.export(OURS)), "--format", "json")
    watched = bench.builds[OURS].watch(*call)
    answer = json.loads(watched.pop("output"))
    faces = len(answer["files"][0]["faces"])
    return {"clip_s": seconds, "faces": faces, "engine": _find_engine(answer)} | watched


def _collect(results: dict[str, list[dict]], key: str) -> dict[str, list[float]]:
    return {name: [turn[key] for turn in turns] for name, turns in results.items()}


def _find_engine(answer: dict) -> str:
    return answer["files"][0].get("engine", "")  # earlier builds do not name it


PARTS: Mapping[str, Callable[[Bench], dict]] = {
    "predict": measure_predict,
    "scoring": measure_scoring,
    "int8": measure_int8,
    "training": read_training,
    "tracking": measure_tracking,
    "memory": measure_memory,
}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed next to an earlier build and TensorFlow.")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(PARTS), help="parts to run; others keep their results"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="PATH", help="jdfd-keras of an earlier build"
    )
    parser.add_argument("--commit", help="name of the earlier build beside its version")
    parser.add_argument(
        "--int8", type=Path, metavar="VERSION", help="exported version with an int8 engine"
    )
    parser.add_argument("--dry", action="store_true", help="tiny sizes, to try the benchmark")
    parser.add_argument("--scratch", help="folder for temporary files (system default)")
    parser.add_argument("--out", default=HERE / "results" / "speed.json", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
