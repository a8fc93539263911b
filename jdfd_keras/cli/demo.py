"""The whole line on clips made on the spot, by the commands that a user types.

Takes an empty folder; fills it with clips, faces, a trained detector, a report and an exported
model, and asks a server about clips that training never saw. A demonstration that was
interrupted goes on where it stopped.
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
from pathlib import Path

import urllib3

from jdfd_keras.client import connect
from jdfd_keras.client.metadata import CALIBRATION
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.synthetic.clips import Portrait, make_clips, read_portraits, vary_portrait
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.faces.extract import encode_png, extract_faces
from jdfd_keras.io.console import track
from jdfd_keras.io.files import OPTIONS, claim_directory, load_options
from jdfd_keras.options import DemoOptions, FaceOptions, ModelOptions
from jdfd_keras.reporting.report_text import format_value
from jdfd_keras.training.run_folder import MONITOR, best_epoch, read_history

NAME = "demo"
# From random weights the paper's SGD needs far more faces than minutes give.
LEARNING_RATE = 0.0005
FEWEST_PEOPLE = 6  # below, a split may lack a class
SERVER_TIMEOUT_S = 120
DISCLAIMER = (
    "This detector is a demonstration. It learned from minutes of made-up clips and is no judge "
    "of real videos."
)


def run_demo(out: str | Path, options: DemoOptions | None = None) -> tuple[dict, str]:
    """Run the demonstration.

    Args:
        out: The folder for all of it.
        options: Its size, and the portraits it is made of.

    Returns:
        What came out, JSON-ready, and the same in words.

    Raises:
        OSError: If a folder cannot be read or written, or one of the commands fails.
        ValueError: If there are too few photographs, or `out` was made with other options.
    """
    options = options or DemoOptions()
    out = Path(out)
    people = _find_people(options)
    claim_directory(out, demo=options)

    _say(f"[1/9] Making {2 * len(people)} short clips, real and fake, in {out / 'videos'}")
    clips = make_clips(
        people, out / "videos", num_frames=options.frames_per_clip, seed=options.seed
    )
    for _ in track(clips, "making clips", 2 * len(people), "clips"):
        pass

    _say("[2/9] Taking the faces out of them, split so that no source is in two splits")
    _run(
        *("prepare", "folder", out / "videos", "--out", out / "prepared"),
        *("--frames-per-video", options.frames_per_video),
        *("--face-size", options.face_size, "--seed", options.seed),
    )

    # People who are one portrait, varied, may look nearly alike in two splits.
    allow = () if options.portraits else ("--allow-leak",)
    _say("[3/9] Training")
    _run(
        *("train", out / "prepared", "--out", out / "run"),
        *("--encoder-weights", _choose_weights(out / "run")),
        *("--optimizer", "adam", "--learning-rate", LEARNING_RATE),
        *("--classifier-learning-rate", LEARNING_RATE, "--decay-rate", 0.6, "--decay-epochs", 1),
        *("--batch-size", 8, "--epochs", options.epochs, "--seed", options.seed, *allow),
    )

    _say("[4/9] Calibrating on validation clips: what a score means, and where a verdict begins")
    if (out / "run" / CALIBRATION).is_file():
        _say(f"Done before: {out / 'run' / CALIBRATION}")
    else:
        _run("calibrate", out / "run", out / "prepared", *allow)

    _say("[5/9] Measuring on clips that training never saw")
    if (out / "report" / "report.json").is_file():
        _say(f"Done before: {out / 'report'}")
    else:
        _run(
            *("evaluate", out / "run", out / "prepared", "--out", out / "report"),
            *("--reconstruction", *allow),
        )

    _say("[6/9] Exporting for TensorFlow Serving")
    if (out / "saved_models" / NAME / "1").is_dir():
        _say(f"Done before: {out / 'saved_models' / NAME}")
    else:
        _run("export", out / "run", "--name", NAME, "--saved-models", out / "saved_models")

    _say("[7/9] Serving in the background")
    with _server(out / "saved_models" / NAME) as url:
        _say("[8/9] Asking over REST about two clips that training never saw")
        clips = _unseen_clips(out)
        _request(url, out / "request.json", clips[-1], options)
        _run(
            *("predict", *clips, "--server", url, "--format", "json"),
            *("--frames-per-video", options.frames_per_video),
            to=out / "verdicts.json",
        )
        _say("[9/9] Stopping the server")
    return _summarize(out)


def _find_people(options: DemoOptions) -> list[Portrait]:
    if options.portraits:
        people = read_portraits(options.portraits, options.people)
        if len(people) < FEWEST_PEOPLE:
            raise ValueError(
                f"Expected at least {FEWEST_PEOPLE} photographs with a face in "
                f"{options.portraits}; got {len(people)}. Add photographs of upright faces."
            )
        return people
    from skimage.data import astronaut

    return vary_portrait(astronaut(), options.people, options.seed)


def _choose_weights(run: Path) -> str:
    """Choose ImageNet weights where they can be had; a run that was begun keeps its choice."""
    if (run / OPTIONS).is_file():
        return load_options(run / OPTIONS, "model", ModelOptions).encoder_weights
    from jdfd_keras.model.network import fetch_imagenet_weights

    try:
        fetch_imagenet_weights()
    except OSError:
        _say(
            "The ImageNet weights are neither here nor to be downloaded: the encoder starts from "
            "random weights, and so learns less in the same time."
        )
        return "none"
    return "imagenet"


def _unseen_clips(out: Path) -> list[Path]:
    """Take the first real and the first fake test clip that show a face."""
    clips = []
    for name, label in CLASSES.items():
        rows = read_videos(out / "prepared")
        shown = [r for r in rows if (r.split, r.label) == ("test", label) and r.num_faces]
        if not shown:
            raise ValueError(
                f"Expected a {name} test clip that shows a face; got none. Try more --people."
            )
        clips.append(out / "videos" / shown[0].path)
    return clips


def _request(url: str, path: Path, clip: Path, options: DemoOptions) -> None:
    """Send faces as JSON, as any program in any language would, and show the answer.

    The body is kept at `path`.
    """
    wanted = FaceOptions(frames_per_video=options.frames_per_video, face_size=options.face_size)
    faces = extract_faces(clip, wanted).faces[:3]
    encoded = [base64.b64encode(encode_png(face.crop)) for face in faces]
    body = {"instances": [{"b64": text.decode()} for text in encoded]}
    path.write_text(json.dumps(body), encoding="utf-8")
    _say(f"$ curl -d @{shlex.quote(str(path))} {url}:predict")
    try:
        answer = urllib3.request("POST", f"{url}:predict", json=body, timeout=SERVER_TIMEOUT_S)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(
            f"Expected the server at {url} to answer; got '{error}'. Its own message stands above, "
            "if it left one."
        ) from error
    _say(answer.data.decode())


def _summarize(out: Path) -> tuple[dict, str]:
    verdicts = json.loads((out / "verdicts.json").read_text(encoding="utf-8"))["files"]
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    history = read_history(out / "run")
    result = {
        "validation_frame_auc": history[best_epoch(history)][MONITOR],
        "test_frame_auc": report["frame"]["auc"]["value"],
        "test_video_auc": report["video"]["auc"]["value"],
        "verdicts": verdicts,
        "roc": str(out / "report" / "roc.png"),
        "report": str(out / "report" / "report.html"),
        "model": str(out / "saved_models" / NAME),
        "disclaimer": DISCLAIMER,
    }
    lines = [
        f"{Path(verdict['path']).parent.name} clip {verdict['path']}: called {verdict['verdict']}, "
        f"score {verdict['score']:.2f}"
        for verdict in verdicts
    ]
    lines += [
        f"validation frame AUC {result['validation_frame_auc']:.3f} (0.5 is chance), "
        f"test frame AUC {format_value(result['test_frame_auc'])}, "
        f"test video AUC {format_value(result['test_video_auc'])}",
        f"ROC curve: {result['roc']}",
        f"report:    {result['report']}",
        f"model:     {result['model']}",
        DISCLAIMER,
    ]
    return result, "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _command(*words, to: Path | None = None) -> list[str]:
    """Show a command as the user would type it, and give it as it is started here."""
    words = [str(word) for word in words]
    _say(f"$ {shlex.join(['jdfd-keras', *words])}{f' > {shlex.quote(str(to))}' if to else ''}")
    return [sys.executable, "-m", "jdfd_keras", *words]


def _run(*words, to: Path | None = None) -> None:
    """Run a command to its end, its result shown among the progress or kept in a file."""
    with open(to, "wb") if to else contextlib.nullcontext(sys.stderr) as stdout:
        done = subprocess.run(_command(*words, to=to), stdout=stdout)
    if done.returncode:
        raise OSError(
            f"Expected `jdfd-keras {words[0]}` to finish; got exit code {done.returncode}. Its "
            "own message stands above; mend that and run the same demo again: what is done is kept."
        )


@contextlib.contextmanager
def _server(model: Path) -> Iterator[str]:
    """Serve a model in the background and stop it at the end.

    Yields:
        Its URL, once it answers.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as free,
        socket.create_server(("127.0.0.1", 0)) as also_free,
    ):
        port, grpc_port = (taken.getsockname()[1] for taken in (free, also_free))
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
        f"Expected a server at {url} within {SERVER_TIMEOUT_S} s; got none. Its own message "
        "stands above, if it left one."
    )
