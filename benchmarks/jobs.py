"""The file service under load, next to `predict --out` on the same files, and killed at random.

    python benchmarks/jobs.py --scratch DIR                  # everything; 40 minutes on two cores
    python benchmarks/jobs.py --scratch DIR --only kills     # load, memory, overhead or kills
    python benchmarks/jobs.py --scratch DIR --clips 8 --images 8 --kills 2    # mechanics only

Clips and images are generated from scikit-image's public-domain portrait, varied. Linux only.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import psutil
import urllib3
from domain import render_frames, write_clip
from face_report import describe_machine
from tables import table

from jdfd_keras.datasets.synthetic.clips import vary_portrait
from jdfd_keras.io.console import print_message, track

HERE = Path(__file__).parent
SECONDS = (2, 10)  # of a clip
FRAMES_PER_S = 25
CLIENTS = 8
LONGEST_S = 8.0  # from a start to the kill; analyses that ten starts interrupt fail as crashed
TARGETS = {  # chosen before the first run
    "throughput": ("files per hour of the service / of `predict --out`", "at least", 0.95),
    "growth_mb": ("memory growth while the same clips are analysed again, MB", "at most", 30),
    "overhead_ms": ("time of a job above that of a file of `predict --out`, ms", "at most", 50),
    "lost": ("jobs lost, doubled or failed after the kills", "at most", 0),
}


def main() -> None:
    """Run the parts, and write the results as JSON and Markdown."""
    arguments = _parse()
    scratch: Path = arguments.scratch
    clips, images = make_files(scratch, arguments.clips, arguments.images)
    path = arguments.out
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    parts: dict[str, Callable[[], dict]] = {
        "load": lambda: measure_load(clips, scratch / "load", arguments.model),
        "memory": lambda: measure_memory(clips, scratch / "memory", arguments.model),
        "overhead": lambda: measure_overhead(images, scratch / "overhead", arguments.model),
        "kills": lambda: measure_kills(
            clips[: arguments.killed_clips], scratch / "kills", arguments.model, arguments.kills
        ),
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            result[name] = measure()
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if parts.keys() <= result.keys():
        path.with_suffix(".md").write_text(render(result), encoding="utf-8")
        print(render(result))


def make_files(scratch: Path, num_clips: int, num_images: int) -> tuple[list[Path], list[Path]]:
    """Write clips of 2 to 10 seconds and images, none like another, unless they exist."""
    from skimage.data import astronaut

    subjects = vary_portrait(astronaut(), 8, seed=0)
    clips, images = [], []
    for number in track(range(num_clips), "clips", num_clips, "clips"):
        rng = np.random.default_rng((number, 0))
        frames = round(FRAMES_PER_S * rng.uniform(*SECONDS))
        subject = subjects[number % len(subjects)]
        clips.append(scratch / "clips" / f"{number:03d}.mp4")
        write_clip(clips[-1], render_frames(subject, rng, frames), 23)
    for number in range(num_images):
        rng = np.random.default_rng((number, 1))
        images.append(scratch / "images" / f"{number:03d}.jpg")
        images[-1].parent.mkdir(parents=True, exist_ok=True)
        (frame,) = render_frames(subjects[number % len(subjects)], rng, 1)
        cv2.imwrite(str(images[-1]), frame[..., ::-1])
    return clips, images


class Server:
    """`jdfd-keras app` in a process group of its own; a context manager that kills it."""

    def __init__(self, state: Path, model: str | None):
        """Start the server, and wait until it prints its address."""
        words = ["app", "--no-open", "--port", "0", "--state", str(state)]
        words += ["--model", model] if model else []
        log = state.with_suffix(".log")
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jdfd_keras", *words],
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.url = ""
        for line in self.process.stdout or ():
            found = re.search(rb"http://[\w.:]+", line)
            if found:
                self.url = found[0].decode()
                break
        if not self.url:
            self.kill()
            raise OSError(f"Expected a server that prints its address; got none. See {log}.")

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the server and all its processes at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def measure_memory(self) -> float:
        """Return the memory of the server and its processes in MB, shared pages once."""
        total = 0
        for process in (root := psutil.Process(self.process.pid), *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 1e6


def submit(pool: urllib3.PoolManager, url: str, path: Path, **options: int) -> str:
    """Upload a file; return the id of its job."""
    query = urlencode({"name": path.name, **options})
    response = pool.request(
        "POST", f"{url}/v1/files?{query}", body=path.read_bytes(), retries=False, timeout=60.0
    )
    if response.status not in (200, 202):
        raise OSError(f"Expected 202; got {response.status} {response.data[:300]!r}")
    return response.json()["id"]


def fetch(pool: urllib3.PoolManager, url: str, job: str) -> dict:
    """Return the document of a job."""
    response = pool.request("GET", f"{url}/v1/files/{job}", retries=False, timeout=60.0)
    if response.status != 200:
        raise OSError(f"Expected 200; got {response.status} {response.data[:300]!r}")
    return response.json()


def run_clients(
    url: str, files: Sequence[Path], clients: int, poll_s: float = 0.25, **options: int
) -> list[dict]:
    """Submit files from several clients, each waiting for its own before the next one."""

    def run(path: Path) -> dict:
        job = submit(pool, url, path, **options)
        while (document := fetch(pool, url, job))["state"] in ("queued", "running"):
            time.sleep(poll_s)
        return document

    with urllib3.PoolManager(maxsize=clients) as pool, ThreadPoolExecutor(clients) as threads:
        return list(threads.map(run, files))


def run_predict(files: Sequence[Path], out: Path, model: str | None) -> float:
    """Run `predict --out` on files in a new process; return its seconds."""
    words = ["predict", *map(str, files), "--out", str(out), "--format", "json"]
    words += ["--model", model] if model else []
    start = time.monotonic()
    with open(out.with_suffix(".json"), "wb") as stdout, open(out.with_suffix(".log"), "wb") as log:
        subprocess.run(
            [sys.executable, "-m", "jdfd_keras", *words], stdout=stdout, stderr=log, check=True
        )
    return time.monotonic() - start


def measure_load(clips: Sequence[Path], scratch: Path, model: str | None) -> dict:
    """Time both ways on all clips, with all starts."""
    scratch = _empty(scratch)
    half = len(clips) // 2
    # In turns, so that a slower machine for a while slows both.
    predict_s = run_predict(clips[:half], scratch / "first", model)
    start = time.monotonic()
    with Server(scratch / "state", model) as server:
        documents = run_clients(server.url, clips, CLIENTS)
        service_s = time.monotonic() - start
    predict_s += run_predict(clips[half:], scratch / "second", model)
    scores = {}
    for name in ("first", "second"):
        predictions = json.loads((scratch / f"{name}.json").read_text(encoding="utf-8"))
        scores |= {file["sha256"]: file["score"] for file in predictions["files"]}
    return {
        "clips": len(clips),
        "clients": CLIENTS,
        "predict_s": predict_s,
        "service_s": service_s,
        "failed": sum(document["state"] != "done" for document in documents),
        "other_scores": sum(scores[one["sha256"]] != one["score"] for one in documents),
    }


def measure_memory(clips: Sequence[Path], scratch: Path, model: str | None) -> dict:
    """Sample the memory of the server and its processes while it analyses all clips twice.

    The second time with one frame less, which is another analysis. The first time each process
    meets clips that are larger than those before, and keeps what it needed for them.
    """
    scratch = _empty(scratch)
    passes: list[list[float]] = [[], []]
    with Server(scratch / "state", model) as server:
        for frames, values in zip((32, 31), passes, strict=True):
            with _sample(server.measure_memory, values):
                run_clients(server.url, clips, CLIENTS, frames_per_video=frames)
    return {
        "clips": len(clips),
        "memory_mb": [[round(value, 1) for value in values] for values in passes],
    }


def measure_overhead(images: Sequence[Path], scratch: Path, model: str | None) -> dict:
    """Time images both ways without the start: the service is warm, one image is subtracted."""
    scratch = _empty(scratch)
    one_s = run_predict(images[:1], scratch / "one", model)
    all_s = run_predict(images, scratch / "all", model)
    with Server(scratch / "state", model) as server:
        run_clients(server.url, images[:1], 1)
        start = time.monotonic()
        run_clients(server.url, images[1:], CLIENTS, poll_s=0.05)
        service_s = time.monotonic() - start
    return {"images": len(images), "predict_s": all_s - one_s, "service_s": service_s}


def measure_kills(clips: Sequence[Path], scratch: Path, model: str | None, kills: int) -> dict:
    """Kill the server at random moments while files are submitted; check all jobs at the end."""
    scratch = _empty(scratch)
    rng = random.Random(0)
    state = scratch / "state"
    address = {"url": ""}
    jobs: dict[Path, str] = {}
    retries = 0

    def keep_submitting(path: Path) -> None:
        nonlocal retries
        with urllib3.PoolManager() as pool:
            while path not in jobs:
                try:
                    jobs[path] = submit(pool, address["url"], path)
                except (OSError, ValueError, urllib3.exceptions.HTTPError):
                    retries += 1
                    time.sleep(0.2)

    done_before_end = 0
    with ThreadPoolExecutor(CLIENTS) as threads:
        for number in range(kills):
            server = Server(state, model)
            address["url"] = server.url
            if number == 0:
                # One after the other, so that some uploads are cut off too.
                threads.submit(lambda: [_pause(rng, keep_submitting, clip) for clip in clips])
            time.sleep(rng.uniform(0.0, LONGEST_S))
            server.kill()
            print_message(f"killed {number + 1} times, {len(jobs)} jobs submitted")
        with Server(state, model) as server, urllib3.PoolManager() as pool:
            address["url"] = server.url
            while len(jobs) < len(clips):
                time.sleep(0.2)
            documents = {path: fetch(pool, server.url, job) for path, job in jobs.items()}
            done_before_end = sum(one["state"] == "done" for one in documents.values())
            while any(one["state"] in ("queued", "running") for one in documents.values()):
                time.sleep(0.5)
                documents = {path: fetch(pool, server.url, job) for path, job in jobs.items()}
            response = pool.request("GET", f"{server.url}/v1/files?limit=1")
            total = response.json()["total"]
    wrong = sum(
        one["state"] != "done" or one["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest()
        for path, one in documents.items()
    )
    left = sorted(path.name for path in (state / "incoming").iterdir())
    return {
        "kills": kills,
        "jobs": len(clips),
        "in_service": total,
        "wrong": wrong,
        "done_before_last_start": done_before_end,
        "retried_requests": retries,
        "unfinished_uploads_left": len(left),
    }


def compare_with_targets(result: dict) -> dict[str, float]:
    """Return the measured value of each target."""
    load, overhead, kills = result["load"], result["overhead"], result["kills"]
    first, second = (
        float(np.mean(values[-max(len(values) // 4, 1) :]))
        for values in result["memory"]["memory_mb"]
    )
    return {
        "throughput": load["predict_s"] / load["service_s"],
        "growth_mb": second - first,
        "overhead_ms": 1000
        * (overhead["service_s"] - overhead["predict_s"])
        / (overhead["images"] - 1),
        "lost": kills["wrong"] + abs(kills["in_service"] - kills["jobs"]),
    }


def render(result: dict) -> str:
    """Return the Markdown page of the results."""
    machine, load, kills = result["machine"], result["load"], result["kills"]
    measured = compare_with_targets(result)
    rows = []
    for name, (text, side, target) in TARGETS.items():
        value = measured[name]
        is_met = value >= target if side == "at least" else value <= target
        shown = f"{value:.3f}" if name == "throughput" else f"{value:.0f}"
        rows.append([text, f"{side} {target}", shown, "met" if is_met else "**not met**"])
    per_hour = [3600 * load["clips"] / load[f"{name}_s"] for name in ("service", "predict")]
    lines = [
        "# The file service\n",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
        f"{machine['date']}.\n",
        table(["measurement", "target", "measured", ""], rows, "lrrl"),
        f"\n- **Load**: {load['clips']} clips of {SECONDS[0]} to {SECONDS[1]} s, {load['clients']} "
        f"clients: {per_hour[0]:,.0f} files per hour by the service and {per_hour[1]:,.0f} by "
        f"`predict --out` in two runs, with all starts; {load['failed']} failed, "
        f"{load['other_scores']} with another score.",
        f"- **Memory** of all processes, at the end of each time: "
        f"{' and '.join(f'{values[-1]:,.0f}' for values in result['memory']['memory_mb'])} MB.",
        f"- **Overhead**: {result['overhead']['images'] - 1} images, {load['clients']} "
        "clients; both without their start.",
        f"- **Kills**: SIGKILL to the server and its processes {kills['kills']} times, 0 to "
        f"{LONGEST_S:g} s after it was ready, while {kills['jobs']} clips were submitted and "
        "analysed; "
        f"{kills['retried_requests']} requests had to be sent again, "
        f"{kills['done_before_last_start']} jobs were done before the last start, "
        f"{kills['unfinished_uploads_left']} unfinished uploads were left.",
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _sample(measure: Callable[[], float], values: list[float]) -> Iterator[None]:
    """Call a function once per second in a thread."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(1.0):
            with contextlib.suppress(psutil.Error):
                values.append(measure())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _pause(rng: random.Random, function: Callable[[Path], None], path: Path) -> None:
    function(path)
    time.sleep(rng.uniform(0.0, 1.0))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the file service.")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all files")
    parser.add_argument("--only", choices=("load", "memory", "overhead", "kills"))
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--images", type=int, default=101)
    parser.add_argument("--killed-clips", type=int, default=150, help="clips of the kill run")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--model", help="default: the shipped detector")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "jobs.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
