"""Generalisation to an unseen kind of blended fakes, without a decoder and with several.

Each arm is a normal training on real photographs alone, with blended fakes of three of the four
kinds; the fourth is held out and tested on people whom training and validation never saw. A round
trains all arms with one seed and one held-out kind; 12 rounds are the full grid of 3 seeds and 4
kinds. Any number of complete rounds gives a table of paired differences, which is rewritten after
each of them; its means weigh all kinds alike after multiples of 4. An interrupted benchmark goes on
where it stopped when the same command is given again.

    python benchmarks/generalisation.py --portraits DIR --scratch DIR
    python benchmarks/generalisation.py --scratch DIR --size 71 --subjects 12 --epochs 1 \
        --rounds 1 --encoder-weights none     # mechanics only, on one portrait varied
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from jdfd_keras.options import (
    FAKE_KINDS,
    AugmentOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    from jdfd_keras.datasets.face_index import FaceIndex

HERE = Path(__file__).parent
SEEDS = 3
DRAWS = 4  # fakes of each kind per test face
CRF = 40  # of the test faces in H.264
MESONET_RATE, MESONET_PASSES = 0.001, 3  # its paper's learning rate; times as many passes
MIN_ROUNDS = 3  # for an interval
BASELINE = "no decoder"
ARMS = {
    BASELINE: (ModelOptions(decoder=False), "all"),
    "all": (ModelOptions(), "all"),
    "real": (ModelOptions(), "real"),
    "clean": (ModelOptions(), "clean"),
    "clean + attention": (ModelOptions(attention="residual"), "clean"),
    "meso4": (ModelOptions(network="meso4", decoder=False, encoder_weights="none"), "all"),
    "mesoinception4": (
        ModelOptions(network="mesoinception4", decoder=False, encoder_weights="none"),
        "all",
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all rounds in a scratch folder have in common."""

    size: int
    epochs: int
    batch_size: int
    precision: str
    learning_rate: float
    encoder_weights: str
    has_photographs: bool


def main() -> None:
    """Train all rounds and write the results as JSON and Markdown after each."""
    arguments = _parse()
    arguments.has_photographs = bool(arguments.portraits)
    settings = Settings(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)}
    )
    if arguments.arm:
        train_arm(arguments, settings)
        return
    from jdfd_keras.io.files import init_folder

    arguments.scratch.mkdir(parents=True, exist_ok=True)
    init_folder(arguments.scratch, settings=settings)
    if not arguments.render_only:
        prepare_portraits(arguments)
        for number in range(arguments.rounds):
            for arm in ARMS:
                if not _figures(arguments.scratch, number, arm).is_file():
                    _run(number, arm)
            _write(arguments, settings)
    print(_write(arguments, settings))


def prepare_portraits(arguments: argparse.Namespace) -> None:
    """Prepare the photographs as a dataset of real faces, split by person."""
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.options import FaceOptions, PrepareOptions

    real = arguments.scratch / "photographs" / "real"
    if not real.is_dir():
        unfinished = real.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if arguments.portraits:
            for path in sorted(arguments.portraits.iterdir()):
                if path.is_file():
                    shutil.copy(path, unfinished)
        else:
            import cv2
            from skimage.data import astronaut

            from jdfd_keras.datasets.synthetic.clips import vary_portrait

            for subject in vary_portrait(astronaut(), arguments.subjects, seed=0):
                cv2.imwrite(str(unfinished / f"{subject.name}.png"), subject.pixels[..., ::-1])
        unfinished.rename(real)
    prepare(
        real.parent,
        arguments.scratch / "prepared",
        FaceOptions(face_size=arguments.size),
        PrepareOptions(name="portraits"),
    )


def train_arm(arguments: argparse.Namespace, settings: Settings) -> None:
    """Train an arm in one round, test it and write its figures; its run folder is removed."""
    from jdfd_keras.datasets.face_index import FAKE_COLUMNS, index_faces
    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.inference.backends import load_predictor
    from jdfd_keras.io.files import write_text_atomically
    from jdfd_keras.training.train import train

    seed, held_out = choose_round(arguments.round)
    data = arguments.scratch / "prepared"
    figures = _figures(arguments.scratch, arguments.round, arguments.arm)
    run = figures.with_suffix("")
    was_interrupted = run.exists()
    model, reconstruct = ARMS[arguments.arm]
    is_mesonet = model.network.startswith("meso")
    if not is_mesonet:
        model = dataclasses.replace(model, encoder_weights=settings.encoder_weights)
    rate = MESONET_RATE if is_mesonet else settings.learning_rate
    start = time.perf_counter()
    trained = train(
        data,
        run,
        model,
        OptimizerOptions(
            optimizer="adam", learning_rate=rate, classifier_learning_rate=rate, decay_rate=1.0
        ),
        TrainOptions(
            epochs=settings.epochs * (MESONET_PASSES if is_mesonet else 1),
            batch_size=settings.batch_size,
            precision=settings.precision,
            seed=seed,
            allow_leak=not arguments.portraits,  # variants of one portrait are near-duplicates
        ),
        PipelineOptions(
            fakes=",".join(kind for kind in FAKE_KINDS if kind != held_out),
            reconstruct=reconstruct,
        ),
        AugmentOptions(flip=True, jpeg=True, h264=True),
    )
    minutes = (time.perf_counter() - start) / 60
    test = index_faces(data, read_faces(data, split="test", columns=FAKE_COLUMNS))
    with contextlib.closing(load_predictor(run)) as predictor:
        auc, auc_h264 = measure_kinds(predictor, test)
    result = {
        "auc": auc,
        "auc_h264": auc_h264,
        "validation_auc": trained.validation_frame_auc,
        "best_epoch": trained.best_epoch,
        "minutes": None if was_interrupted else minutes,
    }
    write_text_atomically(figures, json.dumps(result, indent=1) + "\n")
    shutil.rmtree(run)  # some hundred MB


def measure_kinds(predictor, faces: "FaceIndex") -> tuple[dict[str, float], dict[str, float]]:
    """Measure the AUC of real faces against fakes of each kind, as they are and in H.264.

    Args:
        predictor: A function from uint8[n, size, size, 3] to float[n] scores.
        faces: Real faces with landmarks, of two people or more.

    Returns:
        Kind to AUC; the fakes are the same for every predictor.
    """
    from jdfd_keras.datasets.face_index import add_fakes
    from jdfd_keras.datasets.transforms import compress_h264
    from jdfd_keras.evaluation.metrics import measure_auc

    crops = {"real": np.stack([faces.read(index) for index in range(len(faces))])}
    for kind in FAKE_KINDS:
        index = add_fakes(faces, (kind,))
        assert index.base is not None
        crops[kind] = np.stack(
            [
                index.blend(int(fake), index.read, seed=0, epoch=draw).pixels
                for draw in range(DRAWS)
                for fake in np.flatnonzero(index.base >= 0)
            ]
        )
    measured = []
    for compress in (lambda crop: crop, lambda crop: compress_h264(crop, CRF)):
        scores = {
            name: predictor(np.stack([compress(crop) for crop in images]))
            for name, images in crops.items()
        }
        real = scores.pop("real")
        measured.append(
            {
                kind: measure_auc(
                    np.repeat([0, 1], [len(real), len(fake)]), np.concatenate([real, fake])
                )
                for kind, fake in scores.items()
            }
        )
    return measured[0], measured[1]


def choose_round(number: int) -> tuple[int, str]:
    """Return the seed and the held-out kind of a round; 12 rounds have every pair once."""
    return number % SEEDS, FAKE_KINDS[number % len(FAKE_KINDS)]


def read_rounds(scratch: Path) -> list[dict]:
    """Read the figures of the rounds in which all arms are finished."""
    complete = []
    for folder in sorted((scratch / "runs").glob("*")):
        number = int(folder.name)
        paths = {arm: _figures(scratch, number, arm) for arm in ARMS}
        if all(path.is_file() for path in paths.values()):
            seed, held_out = choose_round(number)
            arms = {
                arm: json.loads(path.read_text(encoding="utf-8")) for arm, path in paths.items()
            }
            complete.append({"seed": seed, "held_out": held_out, "arms": arms})
    return complete


def _figures(scratch: Path, number: int, arm: str) -> Path:
    return scratch / "runs" / f"{number:02d}" / f"{arm.replace(' ', '')}.json"


def _run(number: int, arm: str) -> None:
    """Train and test an arm in its own process."""
    seed, held_out = choose_round(number)
    print(
        f"round {number + 1}: seed {seed}, without {held_out}: {arm} ...",
        file=sys.stderr,
        flush=True,
    )
    command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--round", str(number)]
    subprocess.run(command, stdout=sys.stderr, check=True)


def _write(arguments: argparse.Namespace, settings: Settings) -> str:
    """Write the results of all complete rounds and return the page."""
    from face_report import describe_machine

    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.io.files import sha256_of, write_text_atomically

    splits = read_faces(arguments.scratch / "prepared", columns=["split"])["split"].to_pylist()
    weights = settings.encoder_weights
    report = {
        "machine": describe_machine() | {"cores": str(os.cpu_count())},
        "faces": {split: splits.count(split) for split in ("train", "val", "test")},
        "settings": dataclasses.asdict(settings)
        | {
            "encoder_weights": weights
            if weights in ("imagenet", "none")
            else f"a file, SHA-256 {sha256_of(weights)[:16]}"
        },
        "rounds": read_rounds(arguments.scratch),
    }
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out, json.dumps(report, indent=1) + "\n")
    page = render(report)
    write_text_atomically(out.with_suffix(".md"), page)
    return page


def summarize(complete: Sequence[dict]) -> dict[str, dict[str, list[float]]]:
    """Return the figures of each arm, one per complete round; minutes if it was uninterrupted."""
    arms = {}
    for arm in ARMS:
        rows = [(one["held_out"], one["arms"][arm], one["arms"][BASELINE]) for one in complete]
        held_out = [own["auc"][kind] for kind, own, _ in rows]
        arms[arm] = {
            "held_out": held_out,
            "difference": [
                a - base["auc"][k] for a, (k, _, base) in zip(held_out, rows, strict=True)
            ],
            "seen": [
                # As all kinds have as many fakes, this is the AUC of them together.
                statistics.mean(own["auc"][seen] for seen in FAKE_KINDS if seen != kind)
                for kind, own, _ in rows
            ],
            "held_out_h264": [own["auc_h264"][kind] for kind, own, _ in rows],
            "minutes": [own["minutes"] for _, own, _ in rows if own["minutes"] is not None],
        }
    return arms


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % t-interval of a mean; None for fewer than three values."""
    from scipy.stats import t

    if len(values) < MIN_ROUNDS:
        return None
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def render(report: dict) -> str:
    """Render the results as Markdown."""
    from tables import table

    machine, settings, faces, complete = (
        report[name] for name in ("machine", "settings", "faces", "rounds")
    )
    arms = summarize(complete)
    weights = {"imagenet": "ImageNet weights", "none": "random weights"}
    start = weights.get(settings["encoder_weights"], settings["encoder_weights"])
    lines = [
        "# Generalisation",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    if not settings["has_photographs"]:
        lines.append(
            "**Mechanics only**: all subjects are variants of one portrait, so that the figures "
            "say nothing about other faces."
        )
    lines += [
        f"{faces['train']} training, {faces['val']} validation and {faces['test']} test faces, "
        f"each of another person, {settings['size']} pixels; {settings['epochs']} passes in "
        f"batches of {settings['batch_size']}, Adam at {settings['learning_rate']:g}, "
        f"{settings['precision']}, from {start}; augmentation: flip, JPEG, H.264. MesoNet starts "
        f"from random weights, with Adam at {MESONET_RATE:g} and {MESONET_PASSES} times as "
        "many passes. Training and validation use three kinds of blended fakes; `held-out AUC` is "
        f"that of the test faces against fakes of the fourth kind, {DRAWS} of each face.",
        f"{len(complete)} of {SEEDS * len(FAKE_KINDS)} rounds.",
        table(
            (
                "arm",
                "held-out AUC",
                f"difference from {BASELINE}",
                "seen kinds",
                f"held-out, H.264 at CRF {CRF}",
                "minutes",
                "rounds",
            ),
            [
                (
                    arm,
                    _mean(values["held_out"]),
                    "" if arm == BASELINE else _mean(values["difference"], "+.3f"),
                    _mean(values["seen"]),
                    _mean(values["held_out_h264"]),
                    f"{statistics.mean(values['minutes']):.1f}" if values["minutes"] else "",
                    len(complete),
                )
                for arm, values in arms.items()
            ],
            "lrrrrrr",
        ),
        "Means over rounds with 95 % t-intervals, cut off at an AUC of 1. Rounds differ in seed "
        "and in held-out kind, so an interval covers both, but not the choice of photographs: all "
        "rounds share the split and the test fakes. Differences are paired: both arms of the same "
        "round. With fewer than "
        f"{MIN_ROUNDS} rounds there is no interval.",
        "## Held-out AUC by kind",
        table(
            ("arm", *FAKE_KINDS),
            [
                (
                    arm,
                    *(_mean(_of_kind(complete, values, kind), bounds=False) for kind in FAKE_KINDS),
                )
                for arm, values in arms.items()
            ],
            "l" + "r" * len(FAKE_KINDS),
        ),
        "Means over the rounds that hold out the kind; empty where no such round is complete.",
    ]
    return "\n\n".join(lines) + "\n"


def _of_kind(complete: Sequence[dict], values: dict[str, list[float]], kind: str) -> list[float]:
    pairs = zip(complete, values["held_out"], strict=True)
    return [auc for one, auc in pairs if one["held_out"] == kind]


def _mean(values: Sequence[float], spec: str = ".3f", bounds: bool = True) -> str:
    """Write a mean with its interval."""
    if not values:
        return ""
    text, ends = format(statistics.mean(values), spec), interval(values) if bounds else None
    if ends and not spec.startswith("+"):  # an AUC
        ends = max(ends[0], 0.0), min(ends[1], 1.0)
    return f"{text} ({ends[0]:{spec}} to {ends[1]:{spec}})" if ends else text


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Generalisation to an unseen kind of fakes.")
    parser.add_argument(
        "--portraits", type=Path, help="folder of photographs, one of each person (one varied)"
    )
    parser.add_argument(
        "--subjects", type=int, default=24, help="variants without --portraits (%(default)s)"
    )
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all runs, kept")
    parser.add_argument("--rounds", type=int, default=12, help="rounds to train (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="passes per arm (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="face size in pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="faces per step (%(default)s)")
    parser.add_argument("--precision", default="mixed_bfloat16", help="(%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="(%(default)s)")
    parser.add_argument(
        "--encoder-weights", default="imagenet", help="imagenet, none or a file (%(default)s)"
    )
    parser.add_argument(
        "--render-only", action="store_true", help="write the results of the complete rounds"
    )
    parser.add_argument("--out", default=HERE / "results" / "generalisation.json", help="JSON file")
    parser.add_argument("--arm", choices=tuple(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
