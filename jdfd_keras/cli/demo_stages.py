"""The stages of the two demos, run as the commands that a user types.

The short one judges two videos with the shipped detector; the other trains, evaluates and serves a
small one. All files are written to one folder; an interrupted demo is resumed.
"""

import base64
import contextlib
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import urllib3
from PIL import Image

from jdfd_keras.client.calibration import CALIBRATION
from jdfd_keras.client.metadata import DEMONSTRATION
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.datasets.synthetic.clips import (
    Portrait,
    find_portrait,
    make_clips,
    make_videos,
    read_portraits,
    vary_portrait,
)
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.report import load_report
from jdfd_keras.faces.extract import encode_png, extract_faces
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.console import print_message, track
from jdfd_keras.io.files import OPTIONS, init_folder, load_options, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.options import DemoOptions, FaceOptions, ModelOptions
from jdfd_keras.prediction.predict import Predictions
from jdfd_keras.training.run_folder import MONITOR, best_epoch, read_history

NAME = "demo"
# From random weights, the paper's SGD needs far more faces than a few minutes allow.
LEARNING_RATE = 0.0005
MIN_SUBJECTS = 6  # of the training; with fewer, a split may lack a class
SERVER_TIMEOUT_S = 120


# Of verdicts on a fake and on a real clip; others, such as `uncertain`, are `undecided`.
OUTCOMES = {
    ("fake", "fake"): "correct",
    ("fake", "no_evidence"): "wrong",
    ("real", "fake"): "wrong",
    ("real", "no_evidence"): "correct",
}


@dataclass(frozen=True)
class JudgedClip(Result):
    """A clip of the demo with its verdict."""

    truth: str  # `real` or `fake`, as the clip was made
    outcome: str  # of the verdict: `correct`, `wrong` or `undecided`
    verdict: Verdict


@dataclass(frozen=True)
class DemoResult(Result):
    """What the detector finds in a real and in a fake clip."""

    clips: tuple[JudgedClip, ...]
    model: str  # name of the model
    version: int
    notes: tuple[str, ...]  # sentences that every result of the model repeats
    report: str  # path of the page with the evidence


@dataclass(frozen=True)
class TrainingDemoResult(Result):
    """Outcome of the demo of the training; AUCs are None if undefined."""

    validation_frame_auc: float  # of the best epoch
    test_frame_auc: float | None
    test_video_auc: float | None
    verdicts: tuple[Verdict, ...]  # on one real and one fake test clip
    roc: str  # path of the ROC curve
    report: str  # path of the report page
    model: str  # folder of the exported model
    disclaimer: str = DEMONSTRATION


def run_demo(out: str | Path, options: DemoOptions | None = None) -> DemoResult:
    """Make a real and a fake video below `out`, and judge them with the shipped detector.

    Raises:
        ValueError: If an option of the training demo is given.
    """
    options = options or DemoOptions()
    out = Path(out)
    common = DemoOptions(portraits=options.portraits, seed=options.seed)
    if options != common:
        given = [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(DemoOptions)
            if getattr(options, field.name) != getattr(common, field.name)
        ]
        raise ValueError(
            f"Expected --train with options of the training; got {', '.join(given)} without it. "
            "Add --train, or omit the others."
        )
    if options.portraits:
        subject, other = _read_subjects(options.portraits, count=2, at_least=2)
    else:
        pixels = _read_astronaut()
        subject = find_portrait("astronaut", pixels)
        (other,) = vary_portrait(pixels, 1, options.seed)
    init_folder(out, demo=options)
    page, found = out / "verdicts.html", out / "verdicts.json"

    print_message(
        f"[1/2] Making two videos, one real, one with a swapped face, in {out / 'videos'}"
    )
    clips = make_videos(subject, other, out / "videos", seed=options.seed)
    print_message("[2/2] Judging them with the shipped detector")
    _run("predict", *clips, "--report", page, "--overwrite", "--format", "json", to=found)

    predictions = Predictions.from_dict(json.loads(found.read_text(encoding="utf-8")))
    return DemoResult(
        clips=tuple(map(_compare, predictions.files)),
        model=predictions.provenance.model,
        version=predictions.provenance.version,
        notes=predictions.provenance.notes,
        report=str(page),
    )


def _compare(verdict: Verdict) -> JudgedClip:
    """Compare a verdict with the class of the clip, which is the name of its folder."""
    truth = Path(verdict.path).parent.name
    return JudgedClip(truth, OUTCOMES.get((truth, verdict.verdict), "undecided"), verdict)


def run_training_demo(out: str | Path, options: DemoOptions) -> TrainingDemoResult:
    """Train, evaluate, export and serve a detector on generated clips, below `out`."""
    out = Path(out)
    subjects = _find_subjects(options)
    init_folder(out, demo=options)
    videos, prepared, run, report = (out / name for name in ("videos", "prepared", "run", "report"))
    model = out / "saved_models" / NAME

    print_message(f"[1/9] Making {2 * len(subjects)} short clips, real and fake, in {videos}")
    clips = make_clips(subjects, videos, num_frames=options.frames_per_clip, seed=options.seed)
    for _ in track(clips, "making clips", 2 * len(subjects), "clips"):
        pass

    print_message("[2/9] Extracting faces, split by source")
    _run(
        *("prepare", "folder", videos, "--out", prepared),
        *("--frames-per-video", options.frames_per_video),
        *("--face-size", options.face_size),
    )

    # Subjects made from one portrait may be near-duplicates in two splits.
    allow = () if options.portraits else ("--allow-leak",)
    print_message("[3/9] Training")
    _run(
        *("train", prepared, "--out", run, "--encoder-weights", _choose_weights(run)),
        *("--optimizer", "adam", "--learning-rate", LEARNING_RATE),
        *("--classifier-learning-rate", LEARNING_RATE, "--decay-rate", 0.6, "--decay-epochs", 1),
        *("--batch-size", 8, "--epochs", options.epochs, "--seed", options.seed, *allow),
        "--demonstration",
    )

    print_message("[4/9] Calibrating scores and thresholds on validation clips")
    _run("calibrate", run, prepared, *allow, unless=run / CALIBRATION)

    print_message("[5/9] Evaluating on test clips")
    evaluate = ("evaluate", run, prepared, "--out", report, "--reconstruction", *allow)
    _run(*evaluate, unless=report / "report.json")

    print_message("[6/9] Exporting for TensorFlow Serving")
    _run("export", run, "--name", NAME, "--saved-models", model.parent, unless=model / "1")

    print_message("[7/9] Serving in the background")
    with _server(model) as url:
        print_message("[8/9] Requesting verdicts on two test clips over REST")
        clips = _unseen_clips(videos, prepared)
        _request(url, out / "request.json", clips[-1], options)
        _run(
            *("predict", *clips, "--server", url, "--format", "json"),
            *("--frames-per-video", options.frames_per_video),
            to=out / "verdicts.json",
        )
        print_message("[9/9] Stopping the server")

    metrics, history = load_report(report), read_history(run)
    predictions = json.loads((out / "verdicts.json").read_text(encoding="utf-8"))
    return TrainingDemoResult(
        validation_frame_auc=history[best_epoch(history)][MONITOR],
        test_frame_auc=metrics.frame.auc.value,
        test_video_auc=metrics.video.auc.value,
        verdicts=tuple(Predictions.from_dict(predictions).files),
        roc=str(report / "roc.png"),
        report=str(report / "report.html"),
        model=str(model),
    )


def _find_subjects(options: DemoOptions) -> list[Portrait]:
    if options.portraits:
        return _read_subjects(options.portraits, count=options.subjects, at_least=MIN_SUBJECTS)
    return vary_portrait(_read_astronaut(), options.subjects, options.seed)


def _read_astronaut() -> np.ndarray:
    """Read the portrait of Eileen Collins by NASA, in the public domain: uint8[512, 512, 3], RGB.

    A lossless copy of `skimage.data.astronaut()`, so that only tests need scikit-image.
    """
    with Image.open(Path(__file__).with_name("astronaut.webp")) as image:
        return np.asarray(image)


def _read_subjects(directory: str, *, count: int, at_least: int) -> list[Portrait]:
    subjects = read_portraits(directory, count)
    if len(subjects) < at_least:
        raise ValueError(
            f"Expected at least {at_least} photographs with a face in {directory}; got "
            f"{len(subjects)}. Add photographs of upright faces."
        )
    return subjects


def _choose_weights(run: Path) -> str:
    """Choose ImageNet weights if available; a resumed run keeps its choice."""
    if (run / OPTIONS).is_file():
        return load_options(run / OPTIONS, "model", ModelOptions).encoder_weights or "none"
    from jdfd_keras.model.imagenet_weights import fetch_imagenet_weights

    try:
        fetch_imagenet_weights()
    except OSError:
        print_message(
            "The ImageNet weights are not cached and cannot be downloaded: the encoder starts from "
            "random weights, and learns less in the same time."
        )
        return "none"
    return "imagenet"


def _unseen_clips(videos: Path, prepared: Path) -> list[Path]:
    """Return the first real and the first fake test clip with a face."""
    clips, rows = [], read_videos(prepared, split_table=OFFICIAL)
    for name, label in CLASSES.items():
        tested = [row for row in rows if (row.split, row.label) == ("test", label)]
        shown = [row for row in tested if row.num_faces]
        if not shown:
            raise ValueError(
                f"Expected a {name} test clip that shows a face; got none. Try more --subjects."
            )
        clips.append(videos / shown[0].path)
    return clips


def _request(url: str, path: Path, clip: Path, options: DemoOptions) -> None:
    """Send faces as JSON, as a program in any language would, and print the answer.

    The request body is written to `path`.
    """
    face_options = FaceOptions(
        frames_per_video=options.frames_per_video, face_size=options.face_size
    )
    faces = extract_faces(clip, face_options).faces[:3]
    encoded = [base64.b64encode(encode_png(face.crop)).decode() for face in faces]
    body = {"instances": [{"b64": text} for text in encoded]}
    write_text_atomically(path, json.dumps(body))
    print_message(f"$ curl -d @{shlex.quote(str(path))} {url}:predict")
    try:
        answer = urllib3.request("POST", f"{url}:predict", json=body, timeout=SERVER_TIMEOUT_S)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(
            f"Expected the server at {url} to answer; got '{error}'. Check its own message above."
        ) from error
    print_message(answer.data.decode())


def _command(*words: object, to: Path | None = None) -> list[str]:
    """Print a command as the user would type it, and return the words to start it."""
    texts = [str(word) for word in words]
    print_message(
        f"$ {shlex.join(['jdfd-keras', *texts])}{f' > {shlex.quote(str(to))}' if to else ''}"
    )
    return [sys.executable, "-m", "jdfd_keras", *texts]


def _run(*words: object, to: Path | None = None, unless: Path | None = None) -> None:
    """Run a command, unless its output exists; its result goes to stderr or to a file."""
    if unless and unless.exists():
        print_message(f"Already done: {unless}")
        return
    with open(to, "wb") if to else contextlib.nullcontext(sys.stderr) as stdout:
        done = subprocess.run(_command(*words, to=to), stdout=stdout)
    if done.returncode:
        raise OSError(
            f"Expected `jdfd-keras {words[0]}` to finish; got exit code {done.returncode}. "
            "Fix the cause that it printed above, then run the same demo again: it is resumed."
        )


@contextlib.contextmanager
def _server(model: Path) -> Iterator[str]:
    """Serve a model in the background, yield its URL, and stop the server at the end."""
    words = ("serve", model, "--engine", "embedded", "--port", 0, "--grpc-port", 0)
    server = subprocess.Popen(_command(*words), stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(SERVER_TIMEOUT_S, server.kill)  # ends the wait for its first line
    timer.start()
    try:
        assert server.stdout is not None
        line = server.stdout.readline()  # an example request, once it is ready
        timer.cancel()
        print_message(line.rstrip())
        ready = re.search(r"http://[^/]+", line)
        if not ready:
            raise OSError(
                f"Expected a server that starts within {SERVER_TIMEOUT_S} s; got none. Check its "
                "own message above."
            )
        yield f"{ready[0]}/v1/models/{model.name}"
    finally:
        timer.cancel()
        server.terminate()
        try:
            server.wait(timeout=SERVER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
