"""The shipped detector: its training, choice, calibration, test and export, from portraits alone.

People are split into those of training, validation and test. The detector trains on blended fakes
of photographs; clips and pictures of the others, forged in four ways that it was not trained on,
tell after how many epochs to stop, calibrate it, and test it.

    python benchmarks/detector.py --portraits DIR --scratch DIR
    python benchmarks/detector.py --scratch DIR --people 24 --size 71 --epochs 2 \
        --encoder-weights none --saved-models DIR      # mechanics only, on one portrait varied

An interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from detector_clips import FORGERIES, Eigenfaces, write_files
from tables import table

from jdfd_keras.datasets.synthetic.clips import read_portraits, vary_portrait
from jdfd_keras.io.console import print_message, track
from jdfd_keras.io.files import atomic_path

HERE = Path(__file__).parent
NAME = "jdfd-faces"
SHARES = {"train": 0.734, "val": 0.126}  # of the people; the others are for testing
SPLIT_SEED = 22
KEPT_EPOCHS = 5  # after as many, the detector is kept
NUM_AVERAGED = 3  # kept detectors whose weights are averaged
FRAMES_PER_VIDEO = 10
TRAINING = (
    *("--recipe", "robust", "--no-blur", "--decay-rate", "0.6", "--decay-epochs", "15"),
    *("--seed", "0"),
)
CARD = {
    "Data and licence": {
        "training data": "photographs of adults from FFHQ (Karras, Laine, Aila, NVIDIA, 2019), "
        "512 pixels wide, one of each person, and blended fakes made of them while training; no "
        "deepfake was used",
        "initial weights": "ImageNet weights of Xception in Keras",
        "licence of the weights": "CC BY-NC-SA 4.0, as FFHQ: for non-commercial use only. dlib's "
        "landmarks, which it needs, are for non-commercial use as well",
        "how it was made": "benchmarks/detector.py; see docs/detector.md",
    },
    "What it sees": {
        "sees": "traces of blending and of re-rendering in the inner face, as face swaps and many "
        "face re-enactments leave them",
        "does not see": "fully generated faces and scenes, talking heads without blending, sound, "
        "and edits outside of the face",
    },
    "What its calibration knows": {
        "files": "clips and pictures made from portraits of people who are not in the training: "
        "camera motion, blur, noise, H.264 with rate factors 18 to 33, JPEG with qualities 60 to "
        "97, PNG; faces forged in four ways that are not in the training",
        "error rates": "the thresholds, likelihood ratios and error rates hold for such files; "
        "those on real deepfakes are another matter and were not measured",
        "intervals": "each person has two real and three fake files, which are alike, so that the "
        "true intervals are wider than those stated here",
    },
}


def main() -> None:
    """Run all stages, and write the results as JSON and Markdown."""
    arguments = _parse()
    scratch = arguments.scratch
    split_people(arguments)
    faces, clips = scratch / "faces", scratch / "clips-faces"
    size = ("--face-size", str(arguments.size))
    _run("prepare", "folder", scratch / "people", "--out", faces, *size, "--name", "portraits")
    train_detector(arguments, faces)
    write_clips(arguments)
    frames = ("--frames-per-video", str(FRAMES_PER_VIDEO))
    root = ("--root", scratch / "clips", "--name", "held-out")
    _run("prepare", "table", scratch / "clips.csv", *root, "--out", clips, *size, *frames)
    curve = measure_epochs(arguments, clips)
    chosen = choose_epochs({int(epochs): auc["all"] for epochs, auc in curve.items()})
    run = keep_run(arguments, chosen)
    report = scratch / "report"
    leak = () if arguments.portraits else ("--allow-leak",)  # variants are near-duplicates
    _run("calibrate", run, clips, *leak, unless=run / "calibration.json")
    _run("evaluate", run, clips, "--out", report, *leak, unless=report / "report.json")
    export(arguments, run, report)
    result = describe(arguments, curve, chosen, report)
    out = Path(arguments.out)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(render(result), encoding="utf-8")
    draw_curve(result, arguments.figure)
    print(render(result))


def split_people(arguments: argparse.Namespace) -> None:
    """Copy the photographs into a folder for each split, one person in one split."""
    people = arguments.scratch / "people"
    if people.is_dir():
        return
    unfinished = people.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    photographs = unfinished / "all"
    photographs.mkdir(parents=True)
    if arguments.portraits:
        for path in sorted(arguments.portraits.glob("*.jpg"))[: arguments.people]:
            shutil.copy(path, photographs / f"ffhq{path.name}")
    else:
        from skimage.data import astronaut

        for subject in vary_portrait(astronaut(), arguments.people, seed=0):
            cv2.imwrite(str(photographs / f"{subject.name}.png"), subject.pixels[..., ::-1])
    names = sorted(path.name for path in photographs.iterdir())
    for split, members in divide(names).items():
        folder = unfinished / split / "real"
        folder.mkdir(parents=True)
        for name in members:
            (photographs / name).rename(folder / name)
    photographs.rmdir()
    unfinished.rename(people)


def divide(names: Sequence[str]) -> dict[str, list[str]]:
    """Divide names among train, val and test at random, always in the same way."""
    order = list(names)
    random.Random(SPLIT_SEED).shuffle(order)
    num_train, num_val = (round(share * len(order)) for share in SHARES.values())
    return {
        "train": order[:num_train],
        "val": order[num_train : num_train + num_val],
        "test": order[num_train + num_val :],
    }


def train_detector(arguments: argparse.Namespace, faces: Path) -> None:
    """Train, and keep the detector after every few epochs."""
    run = arguments.scratch / "run"
    kept = arguments.scratch / "kept"
    kept.mkdir(exist_ok=True)
    if (kept / "finished").is_file():
        return
    weights = ("--encoder-weights", arguments.encoder_weights)
    epochs = ("--epochs", str(arguments.epochs))
    leak = () if arguments.portraits else ("--allow-leak",)
    is_finished = threading.Event()
    keeper = threading.Thread(target=_keep_epochs, args=(run, kept, is_finished))
    keeper.start()
    try:
        _run("train", faces, "--out", run, *TRAINING, *weights, *epochs, *leak)
    finally:
        is_finished.set()
        keeper.join()
    (kept / "finished").touch()


def _keep_epochs(run: Path, kept: Path, is_finished: threading.Event) -> None:
    while not is_finished.wait(5):
        history = run / "history.csv"
        epochs = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
        if epochs and epochs % KEPT_EPOCHS == 0:
            _keep(run, kept, epochs)  # an epoch takes longer than the pause between two looks


def _keep(run: Path, kept: Path, epochs: int) -> None:
    """Keep the model of the last epoch; it is written before the history is."""
    target = kept / f"{epochs:03d}.keras"
    if not target.is_file():
        shutil.copy(run / "last.keras", kept / "unfinished")
        (kept / "unfinished").rename(target)


def average_kept(arguments: argparse.Namespace) -> dict[int, Path]:
    """Average the weights of every NUM_AVERAGED kept detectors that follow each other.

    Reference: Izmailov et al.: "Averaging Weights Leads to Wider Optima and Better Generalization"
    (2018), https://arxiv.org/abs/1803.05407.

    Returns:
        Epochs of the last of them to the averaged detector.
    """
    import keras

    kept = sorted((arguments.scratch / "kept").glob("*.keras"))
    folder = arguments.scratch / "averaged"
    folder.mkdir(exist_ok=True)
    averaged = {}
    for end in range(NUM_AVERAGED, len(kept) + 1):
        files = kept[end - NUM_AVERAGED : end]
        target = averaged[int(files[-1].stem)] = folder / files[-1].name
        if not target.is_file():
            models = [keras.models.load_model(file, compile=False) for file in files]
            weights = zip(*(model.get_weights() for model in models), strict=True)
            models[0].set_weights([np.mean(values, axis=0) for values in weights])
            with atomic_path(target) as unfinished:
                models[0].save(unfinished)
    if not averaged:
        raise ValueError(
            f"Expected {NUM_AVERAGED} kept detectors to average; got {len(kept)}. Try --epochs "
            f"{NUM_AVERAGED * KEPT_EPOCHS}."
        )
    return averaged


def write_clips(arguments: argparse.Namespace) -> None:
    """Write the clips and pictures of the people of validation and test, and their table."""
    scratch = arguments.scratch
    out = scratch / "clips.csv"
    if out.is_file():
        return
    people = {
        split: read_portraits(scratch / "people" / split / "real", 10_000)
        for split in (*SHARES, "test")
    }
    eigenfaces = Eigenfaces(people["train"])
    rows = []
    for split in ("val", "test"):
        files = write_files(people[split], scratch / "clips", split, eigenfaces)
        rows += track(files, f"files of {split}", 5 * len(people[split]), "files")
    with atomic_path(out) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def measure_epochs(arguments: argparse.Namespace, clips: Path) -> dict[str, dict[str, float]]:
    """Measure the AUC of validation files of each averaged detector, by kind of forgery.

    Returns:
        Epochs as text to kind to AUC of files, `all` for all kinds; and `frame`, of all faces.
    """
    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.evaluation.metrics import measure_auc
    from jdfd_keras.inference.backends import predict_dataset
    from jdfd_keras.training.run_folder import load_run_model

    path = arguments.scratch / "epochs.json"
    curve = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    columns = ["video_id", "label", "manipulation"]
    rows = read_faces(clips, split="val", columns=columns).to_pandas()
    for number, file in average_kept(arguments).items():
        epochs = str(number)
        if epochs in curve:
            continue
        faces = load_faces(clips, "val", batch_size=32)
        rows["score"] = predict_dataset(load_run_model(file).model, faces).score
        videos = rows.groupby("video_id", observed=True).agg(
            {"label": "first", "manipulation": "first", "score": "mean"}
        )
        auc = {"frame": measure_auc(rows["label"].to_numpy(), rows["score"].to_numpy())}
        for kind in ("all", *FORGERIES):
            one = videos[
                (videos["label"] == 0) | videos["manipulation"].isin([kind]) | (kind == "all")
            ]
            auc[kind] = measure_auc(one["label"].to_numpy(int), one["score"].to_numpy())
        curve[epochs] = auc
        path.write_text(json.dumps(curve, indent=1), encoding="utf-8")
        print_message(f"{epochs} epochs: AUC {auc['all']:.3f} of validation files")
    return curve


def choose_epochs(auc: dict[int, float]) -> int:
    """Return the number of epochs with the highest AUC, of equal ones the lowest."""
    return max(sorted(auc), key=auc.__getitem__)


def keep_run(arguments: argparse.Namespace, epochs: int) -> Path:
    """Write a run folder of the detector that is averaged up to an epoch.

    The learning rates do not depend on the number of epochs: a training with fewer is the same.
    """
    run, chosen = arguments.scratch / "run", arguments.scratch / f"run-{epochs}"
    if chosen.is_dir():
        return chosen
    unfinished = arguments.scratch / "unfinished-run"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    shutil.copy(run / "training_faces.parquet", unfinished)
    options = json.loads((run / "options.json").read_text(encoding="utf-8"))
    options["train"]["epochs"] = epochs
    options["data"]["validated_on"] = (
        "clips and pictures of other people, forged in ways that it was not trained on "
        f"({', '.join(FORGERIES)})"
    )
    options["averaged"] = {
        "epochs": [epochs - KEPT_EPOCHS * back for back in reversed(range(NUM_AVERAGED))]
    }
    (unfinished / "options.json").write_text(json.dumps(options, indent=1), encoding="utf-8")
    lines = (run / "history.csv").read_text(encoding="utf-8").splitlines()
    (unfinished / "history.csv").write_text("\n".join(lines[: epochs + 1]) + "\n", encoding="utf-8")
    averaged = arguments.scratch / "averaged" / f"{epochs:03d}.keras"
    shutil.copy(averaged, unfinished / "best.keras")
    unfinished.rename(chosen)
    return chosen


def export(arguments: argparse.Namespace, run: Path, report: Path) -> None:
    """Export the run, unless it is exported, with what its model card must state."""
    from jdfd_keras.serving.export.exporter import export_detector

    target = arguments.saved_models / NAME
    if not (target / "1").exists():
        export_detector(run, target, report=report, card=CARD)


def describe(
    arguments: argparse.Namespace, curve: dict[str, dict[str, float]], chosen: int, report: Path
) -> dict:
    """Collect the results of all stages."""
    from face_report import describe_machine

    from jdfd_keras.evaluation.report import load_report

    measured = load_report(report)
    people = arguments.scratch / "people"
    history = (arguments.scratch / "run" / "history.csv").read_text(encoding="utf-8").splitlines()
    column = history[0].split(",").index("val_classification_frame_auc")

    def state(metrics) -> dict:
        return {
            "videos": [metrics.video.num_real, metrics.video.num_fake],
            "video_auc": [metrics.video.auc.value, metrics.video.auc.low, metrics.video.auc.high],
            "frame_auc": [metrics.frame.auc.value, metrics.frame.auc.low, metrics.frame.auc.high],
        }

    return {
        "machine": describe_machine() | {"cores": str(os.cpu_count())},
        "source": "portraits" if arguments.portraits else "one portrait, varied",
        "people": {
            split: len(list((people / split / "real").iterdir())) for split in (*SHARES, "test")
        },
        "command": ["train", "faces", "--out", "run", *TRAINING, "--epochs", arguments.epochs],
        "size": arguments.size,
        "validation": [float(line.split(",")[column]) for line in history[1:]],
        "epochs": curve,
        "chosen": chosen,
        "test": {"all": state(measured)}
        | {name: state(one) for name, one in measured.by_manipulation.items()},
    }


def render(result: dict) -> str:
    """Return the Markdown page of the results."""
    machine, people = result["machine"], result["people"]
    kinds = ("all", *FORGERIES)
    lines = [
        "# The shipped detector\n",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
        f"{machine['date']}. Source: {result['source']}; {people['train']} people for training, "
        f"{people['val']} for validation, {people['test']} for testing.\n",
        f"Chosen: {result['chosen']} epochs, those with the highest AUC of validation files. The "
        f"weights are the mean of those after the last {NUM_AVERAGED} multiples of {KEPT_EPOCHS} "
        "epochs.\n",
        "## AUC of validation files, by the number of epochs\n",
        table(
            ["epochs", *kinds, "all faces"],
            [
                [epochs, *(f"{auc[kind]:.3f}" for kind in kinds), f"{auc['frame']:.3f}"]
                for epochs, auc in result["epochs"].items()
            ],
            "r" * (len(kinds) + 2),
        ),
        "\n## AUC of test files, with 95 % intervals\n",
        table(
            ["fakes", "real / fake files", "AUC of files", "AUC of faces"],
            [
                [
                    name,
                    "{} / {}".format(*one["videos"]),
                    _interval(one["video_auc"]),
                    _interval(one["frame_auc"]),
                ]
                for name, one in result["test"].items()
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _interval(values: Sequence[float | None]) -> str:
    if values[1] is None:
        return f"{values[0]:.3f}"
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)


def draw_curve(result: dict, path: Path) -> None:
    """Draw the AUC of validation over the epochs: of blended fakes, and of files of each kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    seen = result["validation"]
    axes.plot(range(1, len(seen) + 1), seen, color="0.6", label="blended faces, as in training")
    epochs = [int(name) for name in result["epochs"]]
    for kind in ("all", *FORGERIES):
        values = [auc[kind] for auc in result["epochs"].values()]
        label = "files of all kinds not trained on" if kind == "all" else kind
        axes.plot(epochs, values, marker="o", lw=2.5 if kind == "all" else 1, label=label)
    axes.axvline(result["chosen"], color="0.3", ls=":", label=f"chosen: {result['chosen']} epochs")
    axes.set(xlabel="epochs", ylabel="AUC in validation")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _run(*words: object, unless: Path | None = None) -> None:
    if unless and unless.exists():
        return
    texts = [str(word) for word in words]
    print_message(f"$ jdfd-keras {' '.join(texts)}")
    subprocess.run([sys.executable, "-m", "jdfd_keras", *texts], stdout=sys.stderr, check=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and export the shipped detector.")
    parser.add_argument("--portraits", type=Path, help="photographs, one per person")
    parser.add_argument("--people", type=int, default=10_000, help="most people")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all files")
    parser.add_argument("--size", type=int, default=192, help="of the faces, in pixels")
    parser.add_argument("--epochs", type=int, default=40, help="most epochs")
    parser.add_argument("--encoder-weights", default="imagenet", help="as for `train`")
    parser.add_argument("--saved-models", type=Path, default=HERE.parent / "saved_models")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "docs" / "detector.png")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "detector.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
