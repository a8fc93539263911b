"""The stages of the demo, run as the commands that a user types.

Takes a folder; writes clips, a prepared dataset, a trained detector, a report and an exported model
to it, and requests verdicts on test clips from a server. An interrupted demo is resumed.
"""

import base64
import contextlib
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import urllib3

from jdfd_keras.client import connect
from jdfd_keras.client.metadata import CALIBRATION
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.synthetic.clips import Portrait, make_clips, read_portraits, vary_portrait
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.evaluate_scores import load_report
from jdfd_keras.faces.extract import encode_png, extract_faces
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.console import track
from jdfd_keras.io.files import OPTIONS, init_folder, load_options, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.options import DemoOptions, FaceOptions, ModelOptions
from jdfd_keras.prediction.predict import Predictions
from jdfd_keras.reporting.report_text import format_value
from jdfd_keras.training.run_folder import MONITOR, best_epoch, read_history

NAME = "demo"
# From random weights, the paper's SGD needs far more faces than a few minutes allow.
LEARNING_RATE = 0.0005
MIN_SUBJECTS = 6  # with fewer, a split may lack a class
SERVER_TIMEOUT_S = 120
DISCLAIMER = (
    "The demo model cannot judge real videos: it was trained for a few minutes on generated clips "
    "with crude fakes."
)


@dataclass(frozen=True)
class DemoResult(Result):
    """Outcome of a demo.

    Attributes:
        validation_frame_auc: Frame AUC on the validation split, of the best epoch.
        test_frame_auc: Frame AUC on the test split; None if undefined.
        test_video_auc: Video AUC on the test split; None if undefined.
        verdicts: Verdict of one real and one fake test clip.
        roc: Path of the ROC curve.
        report: Path of the report page.
        model: Folder of the exported model.
        disclaimer: The limits of the model.
    """

    validation_frame_auc: float
    test_frame_auc: float | None
    test_video_auc: float | None
    verdicts: tuple[Verdict, ...]
    roc: str
    report: str
    model: str
    disclaimer: str = DISCLAIMER


def run_demo(out: str | Path, options: DemoOptions | None = None) -> DemoResult:
    """Run every stage on generated clips.

    Args:
        out: Folder for all files.
        options: Size of the demo, and the portraits of its clips.

    Raises:
        OSError: If a folder cannot be read or written, or one of the commands fails.
        ValueError: If there are too few photographs, or `out` was made with other options.
    """
    options = options or DemoOptions()
    out = Path(out)
    subjects = _find_subjects(options)
    init_folder(out, demo=options)

    _report(f"[1/9] Making {2 * len(subjects)} short clips, real and fake, in {out / 'videos'}")
    clips = make_clips(
        subjects, out / "videos", num_frames=options.frames_per_clip, seed=options.seed
    )
    for _ in track(clips, "making clips", 2 * len(subjects), "clips"):
        pass

    _report("[2/9] Extracting faces, split by source")
    _run(
        *("prepare", "folder", out / "videos", "--out", out / "prepared"),
        *("--frames-per-video", options.frames_per_video),
        *("--face-size", options.face_size, "--seed", options.seed),
    )

    # Subjects made from one portrait may be near-duplicates in two splits.
    allow = () if options.portraits else ("--allow-leak",)
    _report("[3/9] Training")
    _run(
        *("train", out / "prepared", "--out", out / "run"),
        *("--encoder-weights", _choose_weights(out / "run")),
        *("--optimizer", "adam", "--learning-rate", LEARNING_RATE),
        *("--classifier-learning-rate", LEARNING_RATE, "--decay-rate", 0.6, "--decay-epochs", 1),
        *("--batch-size", 8, "--epochs", options.epochs, "--seed", options.seed, *allow),
    )

    _report("[4/9] Calibrating scores and thresholds on validation clips")
    if (out / "run" / CALIBRATION).is_file():
        _report(f"Already done: {out / 'run' / CALIBRATION}")
    else:
        _run("calibrate", out / "run", out / "prepared", *allow)

    _report("[5/9] Evaluating on test clips")
    if (out / "report" / "report.json").is_file():
        _report(f"Already done: {out / 'report'}")
    else:
        _run(
            *("evaluate", out / "run", out / "prepared", "--out", out / "report"),
            *("--reconstruction", *allow),
        )

    _report("[6/9] Exporting for TensorFlow Serving")
    if (out / "saved_models" / NAME / "1").is_dir():
        _report(f"Already done: {out / 'saved_models' / NAME}")
    else:
        _run("export", out / "run", "--name", NAME, "--saved-models", out / "saved_models")

    _report("[7/9] Serving in the background")
    with _server(out / "saved_models" / NAME) as url:
        _report("[8/9] Requesting verdicts on two test clips over REST")
        clips = _unseen_clips(out)
        _request(url, out / "request.json", clips[-1], options)
        _run(
            *("predict", *clips, "--server", url, "--format", "json"),
            *("--frames-per-video", options.frames_per_video),
            to=out / "verdicts.json",
        )
        _report("[9/9] Stopping the server")
    return _summarize(out)


def _find_subjects(options: DemoOptions) -> list[Portrait]:
    if options.portraits:
        subjects = read_portraits(options.portraits, options.subjects)
        if len(subjects) < MIN_SUBJECTS:
            raise ValueError(
                f"Expected at least {MIN_SUBJECTS} photographs with a face in "
                f"{options.portraits}; got {len(subjects)}. Add photographs of upright faces."
            )
        return subjects
    from skimage.data import astronaut

    return vary_portrait(astronaut(), options.subjects, options.seed)


def _choose_weights(run: Path) -> str:
    """Choose ImageNet weights if available; a resumed run keeps its choice."""
    if (run / OPTIONS).is_file():
        return load_options(run / OPTIONS, "model", ModelOptions).encoder_weights
    from jdfd_keras.model.network import fetch_imagenet_weights

    try:
        fetch_imagenet_weights()
    except OSError:
        _report(
            "The ImageNet weights are not cached and cannot be downloaded: the encoder starts from "
            "random weights, and learns less in the same time."
        )
        return "none"
    return "imagenet"


def _unseen_clips(out: Path) -> list[Path]:
    """Return the first real and the first fake test clip with a face."""
    clips = []
    for name, label in CLASSES.items():
        rows = read_videos(out / "prepared")
        shown = [r for r in rows if (r.split, r.label) == ("test", label) and r.num_faces]
        if not shown:
            raise ValueError(
                f"Expected a {name} test clip that shows a face; got none. Try more --subjects."
            )
        clips.append(out / "videos" / shown[0].path)
    return clips


def _request(url: str, path: Path, clip: Path, options: DemoOptions) -> None:
    """Send faces as JSON, as a program in any language would, and print the answer.

    The request body is written to `path`.
    """
    face_options = FaceOptions(
        frames_per_video=options.frames_per_video, face_size=options.face_size
    )
    faces = extract_faces(clip, face_options).faces[:3]
    encoded = [base64.b64encode(encode_png(face.crop)) for face in faces]
    body = {"instances": [{"b64": text.decode()} for text in encoded]}
    write_text_atomically(path, json.dumps(body))
    _report(f"$ curl -d @{shlex.quote(str(path))} {url}:predict")
    try:
        answer = urllib3.request("POST", f"{url}:predict", json=body, timeout=SERVER_TIMEOUT_S)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(
            f"Expected the server at {url} to answer; got '{error}'. Check its own message above."
        ) from error
    _report(answer.data.decode())


def _summarize(out: Path) -> DemoResult:
    predictions = json.loads((out / "verdicts.json").read_text(encoding="utf-8"))
    report = load_report(out / "report")
    history = read_history(out / "run")
    return DemoResult(
        validation_frame_auc=history[best_epoch(history)][MONITOR],
        test_frame_auc=report.frame.auc.value,
        test_video_auc=report.video.auc.value,
        verdicts=Predictions.from_dict(predictions).files,
        roc=str(out / "report" / "roc.png"),
        report=str(out / "report" / "report.html"),
        model=str(out / "saved_models" / NAME),
    )


def describe_demo(result: DemoResult) -> str:
    """Return the outcome of a demo as lines for a terminal."""
    lines = [
        f"{Path(verdict.path).parent.name} clip {verdict.path}: {verdict.verdict}, "
        f"score {verdict.score:.2f}"
        for verdict in result.verdicts
    ]
    lines += [
        f"validation frame AUC {result.validation_frame_auc:.3f} (0.5 is chance), "
        f"test frame AUC {format_value(result.test_frame_auc)}, "
        f"test video AUC {format_value(result.test_video_auc)}",
        f"ROC curve: {result.roc}",
        f"report:    {result.report}",
        f"model:     {result.model}",
        result.disclaimer,
    ]
    return "\n".join(lines)


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _command(*words, to: Path | None = None) -> list[str]:
    """Print a command as the user would type it, and return the words to start it."""
    words = [str(word) for word in words]
    _report(f"$ {shlex.join(['jdfd-keras', *words])}{f' > {shlex.quote(str(to))}' if to else ''}")
    return [sys.executable, "-m", "jdfd_keras", *words]


def _run(*words, to: Path | None = None) -> None:
    """Run a command; its result goes to stderr or to a file."""
    with open(to, "wb") if to else contextlib.nullcontext(sys.stderr) as stdout:
        done = subprocess.run(_command(*words, to=to), stdout=stdout)
    if done.returncode:
        raise OSError(
            f"Expected `jdfd-keras {words[0]}` to finish; got exit code {done.returncode}. "
            "Fix the cause that it printed above, then run the same demo again: it is resumed."
        )


@contextlib.contextmanager
def _server(model: Path) -> Iterator[str]:
    """Serve a model in the background and stop it at the end.

    Yields:
        Its URL, once it is ready.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as free,
        socket.create_server(("127.0.0.1", 0)) as also_free,
    ):
        port, grpc_port = (server.getsockname()[1] for server in (free, also_free))
    url = f"http://127.0.0.1:{port}/v1/models/{model.name}"
    command = _command(
        "serve", model, "--engine", "embedded", "--port", port, "--grpc-port", grpc_port
    )
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        _wait_until_ready(server, url)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=SERVER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_until_ready(server: subprocess.Popen, url: str) -> None:
    end = time.monotonic() + SERVER_TIMEOUT_S
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), connect(url, retries=0):
            return
        time.sleep(0.5)
    raise OSError(
        f"Expected a server at {url} within {SERVER_TIMEOUT_S} s; got no answer. Check its "
        "own message above."
    )
