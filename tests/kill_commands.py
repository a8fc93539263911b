"""The commands that `kills.py` kills: how each is started, what it has finished, and its result."""

import contextlib
import csv
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import urllib3

from jdfd_keras.io.files import sha256_of
from tests.serving.jobs.app_process import AppProcess
from tests.serving.jobs.json_differences import VARYING, find_differences

ROOT = Path(__file__).parents[1]
WAIT_S = 300.0
FACES = ("--frames-per-video", "4", "--face-size", "71")
TRAINING = {  # of tests/training/small_run.py; everything with a state
    "model": {"dropout": 0.3, "encoder_weights": "none"},
    "optimizer": {"learning_rate": 0.05, "decay_epochs": 1, "average": 0.9},
    "train": {"epochs": 6, "batch_size": 4, "seed": 3},
    "pipeline": {"balance": True},
    "augment": {"flip": True, "noise": True},
    "runtime": {"checkpoint_steps": 4},
}
WAITING = "SELECT COUNT(*) FROM analyses WHERE state NOT IN ('done', 'failed')"
LOCAL = "command, times and path of the model"


class Command:
    """A command that is killed and resumed; its own process group has all its processes.

    Attributes:
        item: What it finishes one by one.
        checked: How its result is compared with that of an undisturbed run.
    """

    name = item = checked = ""

    def __init__(self, clips: Path, prepared: Path):
        """Keep the inputs."""
        self.clips, self.prepared = clips, prepared

    def words(self, out: Path) -> list[str]:
        """Return the arguments of Python."""
        raise NotImplementedError

    def start(self, out: Path) -> subprocess.Popen:
        """Start the command, or resume it."""
        with out.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.words(out)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def finish(self, out: Path) -> None:
        """Resume the command and let it end."""
        code = self.start(out).wait(WAIT_S)
        if code:
            log = out.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"{self.name} ended with {code}:\n{log[-2000:]}")

    def finished(self, out: Path) -> dict[str, object] | None:
        """Return each finished item with what changes if it is made again; None: all is done."""
        raise NotImplementedError

    def check(self, out: Path, whole: Path) -> list[str]:
        """Return how a finished result differs from an undisturbed one."""
        raise NotImplementedError


class Prepare(Command):
    """`prepare` with two worker processes."""

    name, item = "prepare", "video"
    checked = "bytes of all files"

    def words(self, out):
        return ["-m", "jdfd_keras", "prepare", "folder", str(self.clips), "--out", str(out)] + [
            *FACES,
            *("--workers", "2"),
        ]

    def finished(self, out):
        found = {}
        for path in out.glob("parts/*/*.json"):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_mtime_ns
        return None if (out / "manifest.parquet").exists() else found

    def check(self, out, whole):
        return _differences(_bytes_below(out), _bytes_below(whole))


class Train(Command):
    """`jdfd_keras.train` with a network of a few weights."""

    name, item = "train", "epoch"
    checked = "history, and bits of all weights and of the optimizer's state"

    def words(self, out):
        script = ROOT / "tests/training/small_run.py"
        return [str(script), str(self.prepared), str(out), json.dumps(TRAINING)]

    def finished(self, out):
        if not (out / "checkpoint.npz").is_file():
            return {}
        self._read(out)  # whole at any moment
        return {row["epoch"]: row for row in self._read_history(out)}

    def check(self, out, whole):
        first, second = (self._read(each) for each in (out, whole))
        faults = [name for name in first | second if not np.array_equal(first[name], second[name])]
        return faults + _differences(*({"history": self._read_history(n)} for n in (out, whole)))

    def _read(self, out):
        with np.load(out / "checkpoint.npz") as file:
            return {name: file[name] for name in file.files if name != "metadata"}

    def _read_history(self, out):
        path = out / "history.csv"
        return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


class Predict(Command):
    """`predict --out` with the shipped detector."""

    name, item = "predict --out", "file"
    checked = f"one line for each file; the table and all values but {LOCAL}"

    def words(self, out):
        return ["-m", "jdfd_keras", "predict", str(self.clips), "--out", str(out)]

    def finished(self, out):
        lines = self._read_lines(out)
        return dict(zip((json.loads(line)["path"] for line in lines), lines, strict=True))

    def check(self, out, whole):
        paths = Counter(json.loads(line)["path"] for line in self._read_lines(out))
        faults = [f"{path}: {count} lines" for path, count in paths.items() if count != 1]
        first, second = (
            {path: json.loads(line) | {"analysed_at": ""} for path, line in found.items()}
            for found in (self.finished(out), self.finished(whole))
        )
        faults += _differences(first, second)
        rows = [sorted((each / "verdicts.csv").read_text().splitlines()) for each in (out, whole)]
        faults += [] if rows[0] == rows[1] else ["verdicts.csv"]
        names = [sorted(path.name for path in (n / "top_faces").iterdir()) for n in (out, whole)]
        return faults + ([] if names[0] == names[1] else ["top_faces"])

    def _read_lines(self, out):
        path = out / "verdicts.jsonl"
        content = path.read_text(encoding="utf-8") if path.is_file() else ""
        return content.split("\n")[:-1]  # a line that was cut off has no end


class Service(Command):
    """`app` with the shipped detector; a client submits the files until each has a job."""

    name, item = "file service", "job"
    checked = f"one job and one analysis for each file; all values but {LOCAL}"

    def __init__(self, clips, prepared):
        super().__init__(clips, prepared)
        self.files = sorted(clips.rglob("*.mp4"))

    def start(self, out):
        app = AppProcess(out, "--workers", "2")
        threading.Thread(target=self._submit, args=[app.url]).start()
        return app.process

    def finish(self, out):
        with AppProcess(out, "--workers", "2") as app:
            self._submit(app.url)
            end = time.monotonic() + WAIT_S
            while self._query(out, WAITING) != [(0,)]:
                if time.monotonic() > end:
                    raise AssertionError("jobs have not ended")
                time.sleep(0.1)
            pool = urllib3.PoolManager()
            listed = pool.request("GET", f"{app.url}/v1/files?limit=100").json()["files"]
            documents = {
                one["sha256"]: pool.request("GET", f"{app.url}/v1/files/{one['id']}").json()
                for one in listed
            }
        document = {"jobs": len(listed), "documents": documents}
        out.with_suffix(".json").write_text(json.dumps(document), encoding="utf-8")

    def finished(self, out):
        return dict(
            # A failed one is made again when its file is submitted again.
            self._query(out, "SELECT key, finished_at FROM analyses WHERE state = 'done'")
        )

    def check(self, out, whole):
        first, second = (
            json.loads(each.with_suffix(".json").read_text(encoding="utf-8"))
            for each in (out, whole)
        )
        names = {sha256_of(path) for path in self.files}
        faults = [] if first["documents"].keys() == names else ["files without a job"]
        counts = {
            "jobs of the interface": first["jobs"],
            "jobs": self._query(out, "SELECT COUNT(*) FROM jobs")[0][0],
            "analyses": self._query(out, "SELECT COUNT(*) FROM analyses")[0][0],
            "uploads": len(list((out / "files").iterdir())),
        }
        faults += [f"{count} {name}" for name, count in counts.items() if count != len(names)]
        faults += [f"left: {path.name}" for path in (out / "incoming").iterdir()]
        if self._query(out, "PRAGMA integrity_check") != [("ok",)]:
            faults.append("database")
        for name, document in first["documents"].items():
            other = second["documents"][name]
            if document["state"] != other["state"]:
                faults.append(f"{name}: {document['state']}")
            found = find_differences(document["result"], other["result"])
            faults += [f"{name}: {place}" for place in found - VARYING]
        return faults

    def _submit(self, url):
        """Submit all files, as a client does that repeats what was not answered."""
        with urllib3.PoolManager() as pool, contextlib.suppress(urllib3.exceptions.HTTPError):
            for path in self.files:
                response = pool.request(
                    *("POST", f"{url}/v1/files?name={path.name}"),
                    body=path.read_bytes(),
                    retries=False,
                    timeout=60.0,
                )
                if response.status not in (200, 202):
                    raise AssertionError(response.data[:300])

    def _query(self, out, text):
        # Of a copy: a reader of the database itself would repair it, which is the server's work.
        copy = out.with_name(f"{out.name}-copy")
        try:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for name in ("jobs.sqlite", "jobs.sqlite-wal"):
                if (out / name).exists():
                    shutil.copy(out / name, copy / name)
            with contextlib.closing(sqlite3.connect(copy / "jobs.sqlite")) as database:
                return database.execute(text).fetchall()
        except (FileNotFoundError, sqlite3.DatabaseError):  # changed while it was copied
            return []


COMMANDS = (Prepare, Train, Predict, Service)


def _bytes_below(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _differences(first: dict, second: dict) -> list[str]:
    return sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))
