"""Training of the methods of Table 2: overhead over a bare Keras loop, and one pass of each.

Both use one prepared dataset of generated clips. A step of `train` and one of the bare loop are
timed in processes of their own, in turns, so that machine load affects both alike. Linux only.

    python benchmarks/methods.py                   # about half an hour on two cores
    python benchmarks/methods.py --faces 200 --steps 2 --repetitions 1  # short, to try it
    python benchmarks/methods.py --only passes     # one part; results of the other are kept
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from jdfd_keras.options import METHODS

HERE = Path(__file__).parent
FRAMES = 10  # of a clip; a subject has a real and a fake one
TARGETS = {  # set before the first run
    "overhead": ("a step of train / of a bare Keras loop, the slowest of the methods", 1.10),
    "hours": ("one pass of every method, hours", 2.0),
}
NETWORKS = [method for method in METHODS if method != "headpose"]


def main() -> None:
    """Run the selected parts and write the results as JSON and Markdown."""
    arguments = _parse()
    if arguments.variant:
        time_steps = {"train": time_train, "bare": time_bare_loop}[arguments.variant]
        print(json.dumps(time_steps(arguments)))
        return
    from face_report import describe_machine

    from jdfd_keras.io.files import write_text_atomically

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    report["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        arguments.data = Path(directory) / "set"
        report["data"] = prepare_set(arguments)
        if arguments.only in ("", "steps"):
            report["steps"] = measure_steps(arguments)
        if arguments.only in ("", "passes"):
            report["passes"] = measure_passes(arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out, json.dumps(report, indent=1) + "\n")
    page = render(report)
    write_text_atomically(out.with_suffix(".md"), page)
    print(page)


def prepare_set(arguments: argparse.Namespace) -> dict:
    """Prepare clips of varied subjects of one public-domain portrait, with `prepare`."""
    from skimage import data

    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait
    from jdfd_keras.options import FaceOptions

    subjects = vary_portrait(data.astronaut(), max(8, arguments.faces // (2 * FRAMES)), seed=0)
    clips = arguments.data.with_name("clips")
    for _ in make_clips(subjects, clips, num_frames=FRAMES, seed=0):
        pass
    prepare(clips, arguments.data, FaceOptions(frames_per_video=FRAMES, face_size=arguments.size))
    splits = read_faces(arguments.data, columns=["split"])["split"].to_pylist()
    counts = {split: splits.count(split) for split in ("train", "val", "test")}
    return counts | {"size": arguments.size, "steps": arguments.steps}


def measure_steps(arguments: argparse.Namespace) -> dict:
    """Time a step of each network in `train` and in a bare loop, in turns; medians in seconds."""
    report = {}
    for method in arguments.methods:
        times: dict[str, list[float]] = {"train": [], "bare": []}
        for _ in range(arguments.repetitions):
            for variant, seconds in times.items():
                seconds += _run(variant, method, arguments)
        report[method] = {name: round(statistics.median(own), 4) for name, own in times.items()}
        report[method]["batch_size"] = _settings_of(method)["train"].batch_size
    return report


def measure_passes(arguments: argparse.Namespace) -> dict:
    """Run `jdfd-keras train` for one epoch of each method; wall time and peak memory."""
    report = {}
    for method in [*arguments.methods, "headpose"]:
        print(f"one pass of {method} ...", file=sys.stderr, flush=True)
        words = ["train", str(arguments.data), "--method", method, "--allow-leak"]
        if method != "headpose":
            words += ["--epochs", "1", "--encoder-weights", "none"]
        words += ["--out", str(arguments.data.with_name(f"run-{method}"))]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "jdfd_keras", *words], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"train --method {method} exited with {process.returncode}")
        wall_s = time.perf_counter() - start
        report[method] = {"wall_s": round(wall_s, 1), "peak_mb": round(usage.ru_maxrss / 1024)}
    return report


def _settings_of(method: str) -> dict:
    """Return the option groups of a training of one long epoch with random weights."""
    from jdfd_keras.options import ModelOptions, resolve_settings

    groups = resolve_settings({"model": ModelOptions(method=method)})
    groups["model"] = dataclasses.replace(groups["model"], encoder_weights="none")
    groups["train"] = dataclasses.replace(groups["train"], epochs=1000, allow_leak=True)
    return groups


def time_train(arguments: argparse.Namespace) -> list[float]:
    """Time `train` itself, from shards, from the end of one step to the end of the next."""
    from jdfd_keras.training import train as stage

    ends = []

    class Timed(stage.RunFolder):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            ends.append(time.perf_counter())
            if len(ends) > arguments.warm_up + arguments.steps:
                raise KeyboardInterrupt

    stage.RunFolder = Timed
    groups = _settings_of(arguments.method)
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(KeyboardInterrupt):
        stage.train(arguments.data, Path(directory) / "run", **groups)
    return np.diff(ends)[arguments.warm_up :].tolist()


def time_bare_loop(arguments: argparse.Namespace) -> list[float]:
    """Time `fit` on one batch in memory: the same network, losses, optimizer and precision."""
    import keras
    import tensorflow as tf

    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.training.compile import build_optimizer, compile_detector
    from jdfd_keras.training.devices import Devices, resolve_precision
    from jdfd_keras.training.fast_layers import accelerate

    groups, size = _settings_of(arguments.method), arguments.size
    batch_size = groups["train"].batch_size
    keras.config.set_dtype_policy(resolve_precision(groups["train"], "", Devices()).precision)
    model = accelerate(build_detector(dataclasses.replace(groups["model"], image_size=size)))
    compile_detector(model, build_optimizer(groups["optimizer"], 1000), groups["loss"])
    rng = np.random.default_rng(0)
    faces = rng.uniform(0, 255, (batch_size, size, size, 3)).astype(np.float32)
    label = (np.arange(batch_size) % 2)[:, None].astype(np.float32)
    targets = {"classification": label, "embedding": label, "reconstruction": faces / 127.5 - 1}
    if "manipulation_map" in model.output:
        cells = model.output["manipulation_map"].shape[1:]
        targets["manipulation_map"] = rng.uniform(0, 1, (batch_size, *cells)).astype(np.float32)
    targets = {name: targets[name] for name in model.output}
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append(time.perf_counter())

    count = arguments.warm_up + arguments.steps + 1
    batches = tf.data.Dataset.from_tensors((faces, targets)).repeat(count)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[Clock()])
    return np.diff(ends)[arguments.warm_up :].tolist()


def _run(variant: str, method: str, arguments: argparse.Namespace) -> list[float]:
    """Run a variant in its own process."""
    print(f"a step of {method}, {variant} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--variant", variant, "--method", method]
    for name in ("data", "size", "warm_up", "steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def find_results(report: dict) -> dict[str, float]:
    """Compute the values of TARGETS that were measured."""
    results = {}
    if steps := report.get("steps"):
        results["overhead"] = max(one["train"] / one["bare"] for one in steps.values())
    if passes := report.get("passes"):
        results["hours"] = sum(one["wall_s"] for one in passes.values()) / 3600
    return results


def render(report: dict) -> str:
    """Render the results beside their targets as Markdown."""
    from tables import table

    machine, data = report["machine"], report["data"]
    rows = [
        (
            TARGETS[name][0],
            f"{TARGETS[name][1]:.2f}",
            f"{value:.2f}",
            "met" if value <= TARGETS[name][1] else "**not met**",
        )
        for name, value in find_results(report).items()
    ]
    steps, passes = report.get("steps", {}), report.get("passes", {})
    by_method = []
    for method in METHODS:
        step, one = steps.get(method), passes.get(method)
        if step or one:
            by_method.append(
                (
                    method,
                    step["batch_size"] if step else "",
                    f"{step['train']:.3f}" if step else "",
                    f"{step['bare']:.3f}" if step else "",
                    f"{step['train'] / step['bare']:.3f}" if step else "",
                    f"{one['wall_s']:.0f}" if one else "",
                    one["peak_mb"] if one else "",
                )
            )
    header = ("method", "faces per step", "train, s", "bare loop, s", "ratio", "one pass, s")
    count = sum(data[split] for split in ("train", "val", "test"))
    blocks = [
        "# Methods",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
        table(("measurement", "target (at most)", "measured", ""), rows, "lrrl"),
        f"{count} faces of {data['size']} pixels, {data['train']} of them for training; each "
        "method with the settings of its source and random weights. Seconds of a step are medians "
        f"of {data['steps']} steps of each process. One pass is `train` for one epoch with its "
        "start, validation, figures and checkpoints; that of headpose is its whole training.",
        table((*header, "peak memory, MB"), by_method, "lrrrrrr"),
    ]
    return "\n\n".join(blocks) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("", "steps", "passes"), default="")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=NETWORKS)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scratch", help="folder for the dataset and the runs")
    parser.add_argument("--out", default=str(HERE / "results" / "methods.json"))
    parser.add_argument("--variant", choices=("train", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
