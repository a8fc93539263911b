"""Training speed, compared to plain Keras, no decoder, PyTorch and XLA; memory over time.

Each variant runs in its own process, several times in turns, so that machine load affects all of
them alike. Generates its own faces. If JAX finds a GPU, the network is also timed on it. Linux
only.

    python benchmarks/training.py                # about an hour on two cores
    python benchmarks/training.py --only jax     # one part; results of the others are kept
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

HERE = Path(__file__).parent
SIZE = 299
REPETITIONS = 3
BATCHES = (4, 16)
TARGETS = {  # set before the first run; ratios of the seconds per step, first over second
    "pipeline": ("training from shards with all augmentations / from memory", 1.05),
    "decoder": ("with decoder / without decoder", 1.35),
    "torch 4": ("batches of 4: from memory / PyTorch in its faster precision", 1.0),
    "torch 16": ("batches of 16: from memory / PyTorch in its faster precision", 1.0),
    "plain 4": ("batches of 4: from memory / plain Keras in float32", 0.55),
    "plain 16": ("batches of 16: from memory / plain Keras in float32", 0.55),
    "memory": ("memory growth over the second half of the steps, MB", 20.0),
}
PEAKS = {  # bf16 without sparsity, FLOP/s, from NVIDIA's data sheets
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
}
JAX_BATCHES = (4, 16, 64, 256)


def main() -> None:
    """Run the selected parts and write the results as JSON and Markdown."""
    arguments = _parse()
    if arguments.variant:
        print(json.dumps(VARIANTS[arguments.variant](arguments)))
        return
    from face_report import describe_machine

    from jdfd_keras.io.files import write_text_atomically

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    report["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        arguments.data = Path(directory) / "set"
        for name, measure in {"steps": measure_steps, "memory": measure_memory}.items():
            if arguments.only in ("", name):
                report[name] = measure(arguments)
        if arguments.only in ("", "jax"):
            report["jax"] = _run("jax", arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out, json.dumps(report, indent=1) + "\n")
    page = render(report)
    write_text_atomically(out.with_suffix(".md"), page)
    print(page)


def measure_steps(arguments: argparse.Namespace) -> dict:
    """Time a step of each variant and batch size, in turns."""
    prepare_set(arguments.data, arguments.size, num_faces=64)
    names = ["from shards", "in memory", "plain Keras, float32", "without decoder"]
    if importlib.util.find_spec("torch"):
        names += ["PyTorch, float32", "PyTorch, bfloat16"]
    names += ["in memory, XLA"] * arguments.xla
    seconds = {}
    for batch_size in arguments.batch_sizes:
        batches = argparse.Namespace(**{**vars(arguments), "batch_size": batch_size})
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(arguments.repetitions):
            for name in names:
                times[name] += _run(name, batches)["seconds"]
        medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
        seconds[str(batch_size)] = medians
    return {
        "size": arguments.size,
        "processes": arguments.repetitions,
        "precision": _auto_precision(),
        "seconds": seconds,
    }


def _auto_precision() -> str:
    """Return the precision that `train` takes on this machine by default."""
    from jdfd_keras.options import TrainOptions
    from jdfd_keras.training.devices import Devices, resolve_precision

    return resolve_precision(TrainOptions(), "", Devices()).precision


def measure_memory(arguments: argparse.Namespace) -> dict:
    """Measure the memory of a training of many steps."""
    small = argparse.Namespace(**{**vars(arguments), "size": 71, "data": arguments.data / "small"})
    prepare_set(small.data, small.size, num_faces=256)
    return _run("memory", small)


def prepare_set(out: Path, size: int, num_faces: int) -> None:
    """Write a prepared dataset of noisy photographs; validation has a quarter as many faces."""
    import cv2
    import pandas as pd
    from skimage import data

    from jdfd_keras.datasets.manifest import FaceRow, VideoRow, to_table, write_table
    from jdfd_keras.datasets.records import encode_face, frame_record
    from jdfd_keras.datasets.split_tables import OFFICIAL, write_split_table
    from jdfd_keras.datasets.synthetic.clips import vary_portrait
    from jdfd_keras.io.files import OPTIONS, save_options
    from jdfd_keras.io.storage import LocalStore
    from jdfd_keras.options import FaceOptions, SplitOptions

    (out / "shards").mkdir(parents=True)
    rng = np.random.default_rng(0)
    portraits = [p.pixels[30:230, 120:320] for p in vary_portrait(data.astronaut(), 16, 0)]
    rows, splits = [], {"train": range(num_faces), "val": range(num_faces // 4)}
    for index, (split, numbers) in enumerate(splits.items()):
        shard = f"{index:05d}.tfrecord"
        with open(out / "shards" / shard, "wb") as file:
            for number in numbers:
                crop = cv2.resize(portraits[number % 16], (size, size)).astype(np.float32)
                crop = np.clip(crop + rng.normal(0, 2, crop.shape), 0, 255).astype(np.uint8)
                face = {"label": number % 2, "video_id": f"a/{split}", "frame_index": number}
                location = {"split": split, "shard": shard, "offset": file.tell()}
                rows.append(_row(FaceRow, face | location))
                file.write(frame_record(encode_face(crop, **face)))
    with open(out / "manifest.parquet", "wb") as file:
        write_table(file, FaceRow, [to_table(rows, FaceRow)])
    videos = [VideoRow(f"a/{split}", "", 0, "", "", (), split, file_bytes=0) for split in splits]
    with open(out / "videos.parquet", "wb") as file:
        write_table(file, VideoRow, [to_table(videos, VideoRow)])
    table = {"video_id": [f"a/{split}" for split in splits], "split": list(splits), "reason": ""}
    write_split_table(LocalStore(str(out)), OFFICIAL, pd.DataFrame(table), SplitOptions())
    save_options(out / OPTIONS, faces=FaceOptions(face_size=size))


def _row(kind: type, values: dict):
    """Make a row of a manifest with a random hash and empty fields for the missing values."""
    empty = {"str": "", "int": 0, "float": 0.0}
    row = {f.name: empty.get(getattr(f.type, "__name__", ""), ()) for f in dataclasses.fields(kind)}
    seed = len(values["split"]) * 10**6 + values["offset"]
    row["phash"] = np.random.default_rng(seed).bytes(32).hex()
    return kind(**row | values)


def time_shards(arguments: argparse.Namespace) -> dict:
    """Time `train` itself: from shards, with all augmentations and callbacks."""
    from jdfd_keras import options
    from jdfd_keras.training import train as stage

    ends = []

    class Timed(stage.RunFolder):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            # From the end of one step to the end of the next, so waiting for faces counts.
            ends.append(time.perf_counter())
            if len(ends) > arguments.warm_up + arguments.steps:
                raise KeyboardInterrupt

    stage.RunFolder = Timed
    groups = {
        "model": options.ModelOptions(encoder_weights="none"),
        "train": options.TrainOptions(
            epochs=1000, batch_size=arguments.batch_size, allow_leak=True
        ),
        "augment": options.AugmentOptions(
            *[True] * len(dataclasses.fields(options.AugmentOptions))
        ),
    }
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(KeyboardInterrupt):
        stage.train(arguments.data, Path(directory) / "run", **groups)
    return {"seconds": np.diff(ends)[arguments.warm_up :].tolist()}


def time_memory_faces(
    arguments: argparse.Namespace, decoder: bool = True, xla: bool = False, fast: bool = True
) -> dict:
    """Time a bare Keras loop with the same network and faces in memory.

    Args:
        arguments: Sizes.
        decoder: Whether the network has its decoder.
        xla: Whether XLA compiles it.
        fast: Whether it computes as in `train`, in the precision `auto`; else by the layers of
            Keras in float32.
    """
    import keras
    import tensorflow as tf

    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import ModelOptions
    from jdfd_keras.training.fast_layers import accelerate

    keras.config.set_dtype_policy(_auto_precision() if fast else "float32")
    model = build_detector(
        ModelOptions(image_size=arguments.size, encoder_weights="none", decoder=decoder)
    )
    model = accelerate(model) if fast else model
    losses = {"classification": "binary_crossentropy", "reconstruction": "mean_squared_error"}
    weights = {"classification": 0.8, "reconstruction": 0.2}
    model.compile(
        keras.optimizers.SGD(0.005, momentum=0.9),
        loss={name: losses[name] for name in model.output},
        loss_weights={name: weights[name] for name in model.output},
        jit_compile=xla,
    )
    rng = np.random.default_rng(0)
    shape = (arguments.batch_size, arguments.size, arguments.size, 3)
    faces = rng.uniform(0, 255, shape).astype(np.float32)
    targets = {
        "classification": (np.arange(arguments.batch_size) % 2)[:, None].astype(np.float32),
        "reconstruction": faces / 127.5 - 1,
    }
    targets = {name: targets[name] for name in model.output}
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append(time.perf_counter())

    count = arguments.warm_up + arguments.steps + 1
    batches = tf.data.Dataset.from_tensors((faces, targets)).repeat(count)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[Clock()])
    precision = keras.config.dtype_policy().name
    return {"seconds": np.diff(ends)[arguments.warm_up :].tolist(), "precision": precision}


def time_torch(arguments: argparse.Namespace, precision: str) -> dict:
    """Time the same network in PyTorch."""
    import torch
    from torch_detector import time_steps

    sizes = (arguments.batch_size, arguments.size, arguments.warm_up, arguments.steps)
    return {"seconds": time_steps(*sizes, precision), "version": torch.__version__}


def watch_memory(arguments: argparse.Namespace) -> dict:
    """Train for many steps and record the resident memory after each."""
    from jdfd_keras import options
    from jdfd_keras.training import train as stage

    memory_mb = []

    class Watched(stage.RunFolder):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            memory_mb.append(pages * resource.getpagesize() / 1e6)
            if len(memory_mb) >= arguments.memory_steps:
                raise KeyboardInterrupt

    stage.RunFolder = Watched
    groups = {
        "model": options.ModelOptions(encoder_weights="none"),
        "train": options.TrainOptions(epochs=10**6, batch_size=4, allow_leak=True),
        "augment": options.AugmentOptions(flip=True, noise=True, jpeg=True),
        "runtime": options.TrainRuntime(checkpoint_steps=50),
    }
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(KeyboardInterrupt):
        stage.train(arguments.data, Path(directory) / "run", **groups)
    half = len(memory_mb) // 2
    first, second = memory_mb[half : half + half // 2], memory_mb[half + half // 2 :]
    return {
        "steps": len(memory_mb),
        "after_50_mb": round(memory_mb[min(50, half)]),
        "at_end_mb": round(memory_mb[-1]),
        "growth_mb": round(statistics.median(second) - statistics.median(first), 1),
    }


def measure_jax(arguments: argparse.Namespace) -> dict:
    """Time the same network with Keras on JAX, if JAX finds a GPU."""
    if not importlib.util.find_spec("jax"):
        return {"skipped": "JAX is not installed"}
    os.environ["KERAS_BACKEND"] = "jax"
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu" and not arguments.jax_on_cpu:
        return {"skipped": f"JAX finds no GPU, only {device.device_kind}"}
    import keras

    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import ModelOptions
    from jdfd_keras.training.compile import compile_detector

    peak = next((peak for name, peak in PEAKS.items() if name in device.device_kind), None)
    rows = []
    for precision in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(precision)
        model = build_detector(ModelOptions(image_size=arguments.size, encoder_weights="none"))
        compile_detector(model)
        flops = 3 * _count_flops(model, arguments.size)  # forward pass, and twice that backward
        for batch_size in arguments.jax_batches:
            shape = (batch_size, arguments.size, arguments.size, 3)
            faces = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
            targets = {
                "classification": (np.arange(batch_size) % 2)[:, None].astype(np.float32),
                "reconstruction": faces / 127.5 - 1,
            }
            try:
                for _ in range(arguments.warm_up):
                    model.train_on_batch(faces, targets)
                start = time.perf_counter()
                for _ in range(arguments.steps):
                    model.train_on_batch(faces, targets)
                rate = arguments.steps * batch_size / (time.perf_counter() - start)
            except jax.errors.JaxRuntimeError as error:
                rows.append(
                    {"precision": precision, "batch_size": batch_size, "failed": str(error)[:80]}
                )
                continue
            rows.append(
                {
                    "precision": precision,
                    "batch_size": batch_size,
                    "images_per_s": round(rate, 1),
                    "share_of_peak": round(rate * flops / peak, 3) if peak else None,
                }
            )
    return {"device": device.device_kind, "jax": jax.__version__, "rows": rows}


def _count_flops(model, size: int) -> float:
    """Count the floating-point operations of the forward pass of one face, by XLA."""
    import jax

    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    forward = jax.jit(lambda w, o, x: model.stateless_call(w, o, x, training=False)[0])
    face = np.zeros((1, size, size, 3), np.float32)
    counted = forward.lower(weights, others, face).compile().cost_analysis()
    return float((counted[0] if isinstance(counted, list) else counted)["flops"])


VARIANTS = {
    "from shards": time_shards,
    "in memory": time_memory_faces,
    "in memory, XLA": lambda arguments: time_memory_faces(arguments, xla=True),
    "without decoder": lambda arguments: time_memory_faces(arguments, decoder=False),
    "plain Keras, float32": lambda arguments: time_memory_faces(arguments, fast=False),
    "PyTorch, float32": lambda arguments: time_torch(arguments, "float32"),
    "PyTorch, bfloat16": lambda arguments: time_torch(arguments, "bfloat16"),
    "memory": watch_memory,
    "jax": measure_jax,
}


def _run(variant: str, arguments: argparse.Namespace) -> dict:
    """Run a variant in its own process."""
    print(f"{variant} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--variant", variant]
    for name in ("data", "size", "batch_size", "warm_up", "steps", "memory_steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    command += ["--jax-on-cpu"] * arguments.jax_on_cpu
    command += ["--jax-batches", ",".join(map(str, arguments.jax_batches))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def find_ratios(report: dict) -> dict[str, float]:
    """Compute the values of TARGETS that were measured."""
    measured = {}
    if steps := report.get("steps"):
        first = next(iter(steps["seconds"].values()))
        measured["pipeline"] = first["from shards"] / first["in memory"]
        measured["decoder"] = first["in memory"] / first["without decoder"]
        for batch_size, seconds in steps["seconds"].items():
            ours = seconds["in memory"]
            measured[f"plain {batch_size}"] = ours / seconds["plain Keras, float32"]
            others = [value for name, value in seconds.items() if name.startswith("PyTorch")]
            if others:
                measured[f"torch {batch_size}"] = ours / min(others)
        measured = {name: measured[name] for name in TARGETS if name in measured}
    if memory := report.get("memory"):
        measured["memory"] = memory["growth_mb"]
    return measured


def render(report: dict) -> str:
    """Render the results beside their targets as Markdown."""
    from tables import table

    machine = report["machine"]
    lines = [
        "# Training",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    rows = [
        (
            TARGETS[name][0],
            f"{TARGETS[name][1]:g}",
            f"{value:.3f}".rstrip("0").rstrip("."),
            "met" if value <= TARGETS[name][1] else "**not met**",
        )
        for name, value in find_ratios(report).items()
    ]
    lines.append(table(("measurement", "target (at most)", "measured", ""), rows, "lrrl"))
    if steps := report.get("steps"):
        lines += [
            "## A step",
            f"Faces of {steps['size']} pixels; medians over {steps['processes']} "
            f"process{'es' * (steps['processes'] > 1)} each, in turns. Variants without another "
            f"name compute as `train` does by default here, in {steps['precision']}; PyTorch in "
            "the channels-last layout, bfloat16 by autocast.",
            table(
                ("variant", "batch", "seconds per step", "faces/s"),
                [
                    (n, b, f"{s:.3f}", f"{int(b) / s:.2f}")
                    for b, seconds in steps["seconds"].items()
                    for n, s in seconds.items()
                ],
                "lrrr",
            ),
        ]
    if memory := report.get("memory"):
        lines += [
            "## Memory",
            f"{memory['steps']} steps of 4 faces of 71 pixels, a checkpoint every 50 steps, "
            f"validation and figures every 64: {memory['after_50_mb']} MB after 50 steps, "
            f"{memory['at_end_mb']} MB at the end.",
        ]
    if jax := report.get("jax"):
        lines += ["## Keras on JAX, on a GPU"]
        if "skipped" in jax:
            lines.append(f"Skipped: {jax['skipped']}.")
        else:
            lines += [
                f"{jax['device']}, JAX {jax['jax']}; faces in memory; share of the peak in bf16.",
                table(
                    ("precision", "batch", "images/s", "share of peak"),
                    [
                        (
                            r["precision"],
                            r["batch_size"],
                            r.get("images_per_s", r.get("failed")),
                            "" if r.get("share_of_peak") is None else f"{r['share_of_peak']:.1%}",
                        )
                        for r in jax["rows"]
                    ],
                    "lrrr",
                ),
            ]
    return "\n\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training speed and memory.")
    parser.add_argument(
        "--only", choices=("steps", "memory", "jax"), default="", help="part to run"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="face size in pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help=argparse.SUPPRESS)
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=BATCHES, help="faces per step (4 16)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=REPETITIONS, help="processes (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=8, help="timed steps per process (%(default)s)"
    )
    parser.add_argument("--warm-up", type=int, default=2, help="untimed steps before (%(default)s)")
    parser.add_argument("--memory-steps", type=int, default=2000, help="steps (%(default)s)")
    parser.add_argument("--xla", action="store_true", help="also time XLA on the CPU")
    parser.add_argument("--jax-on-cpu", action="store_true", help="also time JAX without a GPU")
    parser.add_argument(
        "--jax-batches",
        type=lambda text: tuple(int(number) for number in text.split(",")),
        default=JAX_BATCHES,
        help="faces per step on JAX (4,16,64,256)",
    )
    parser.add_argument("--scratch", help="folder for temporary files (system default)")
    parser.add_argument("--out", default=HERE / "results" / "training.json", help="JSON file")
    parser.add_argument("--variant", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
