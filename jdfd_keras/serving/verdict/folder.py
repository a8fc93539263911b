"""The folder of a run of `predict`: what is done stays done, whatever ends the run.

    options.json       what the verdicts were made with; other options are refused
    verdicts.jsonl     one line a file, as it is done
    verdicts.csv       one row a file, once all are done
    strongest/         crops of the strongest faces of the most suspicious files
    parts/             crops that wait to be scored, and the lock of the run

Takes verdicts ready for JSON; knows nothing of how they are made.
"""

import contextlib
import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.claims import claim_directory
from jdfd_keras.data.lock import hold
from jdfd_keras.data.take import PARTS
from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.options import FaceOptions
from jdfd_keras.serving.verdict.judge import RANK
from jdfd_keras.serving.verdict.taking import read_state
from jdfd_keras.storage import UNFINISHED, LocalStore, write_text

LINES, TABLE, STRONGEST = "verdicts.jsonl", "verdicts.csv", "strongest"
MOST_SHOWN = 50  # files of which the strongest faces are kept


@dataclass(frozen=True)
class _Model:
    digest: str


@contextlib.contextmanager
def open_folder(
    directory: str | Path,
    paths: Iterable[Path],
    *,
    digest: str,
    faces: FaceOptions,
    borders: Calibration,
) -> Iterator["VerdictFolder"]:
    """Begin a folder, or go on with one.

    Args:
        directory: Made if it is not there.
        paths: The files to be judged.
        digest: Of the model that the verdicts are made with.
        faces: How faces are taken.
        borders: Where fake and real begin.

    Raises:
        OSError: If it cannot be written, or another run writes to it.
        ValueError: If it was made with other options, or holds other files or damaged lines.
    """
    claim_directory(directory, model=_Model(digest), faces=faces, borders=borders)
    with hold(LocalStore(str(directory))):
        folder = VerdictFolder(Path(directory), paths)
        try:
            yield folder
        finally:
            folder.lines.close()


def rank(record: dict) -> tuple[int, float, str]:
    """Order files by suspicion, the most suspicious is the greatest: by verdict, then by score."""
    score = -1.0 if record["score"] is None else record["score"]
    return RANK[record["verdict"]], score, record["path"]


class VerdictFolder:
    """An open folder; made by `open_folder`."""

    def __init__(self, directory: Path, paths: Iterable[Path]):
        """Read what is done already, and clear what a killed run has left."""
        self.directory, self.parts = directory, directory / PARTS
        for left in self.parts.glob("*.crops"):
            left.unlink()
        (directory / STRONGEST).mkdir(exist_ok=True)
        # Before any is looked at: one that changes meanwhile is not done.
        self._stamps = {str(path): read_state(path) for path in paths}
        records = _read_lines(directory / LINES)
        self.done = {
            path: _without_time(records[path])
            for path, stamp in self._stamps.items()
            if path in records and _is_done(records[path], stamp)
        }
        self.lines = open(directory / LINES, "ab")  # noqa: SIM115, closed by open_folder
        self._shown = [rank(record) for record in self.done.values()]
        heapq.heapify(self._shown)
        self._forget_others()

    def keep(self, record: dict, crops: list[np.ndarray]) -> dict:
        """Keep a verdict, or why there is none, before anything else is done.

        Args:
            record: The fields of a Verdict, or `path` and `error`.
            crops: Its strongest faces.

        Returns:
            The record, as it is read back, with the file's length, `file_bytes`.
        """
        if "error" not in record:
            if crops:
                np.save(self._crops_of(record["path"]), np.stack(crops))
            heapq.heappush(self._shown, rank(record))
            self._forget_others()
        line = json.dumps(record | self._stamps[record["path"]])
        self.lines.write(line.encode() + b"\n")
        self.lines.flush()
        os.fsync(self.lines.fileno())
        return _without_time(json.loads(line))

    def read_strongest(self, path: str) -> np.ndarray:
        """Read the strongest faces of a file, uint8[n, size, size, 3]; none where none are kept."""
        place = self._crops_of(path)
        return np.load(place) if place.is_file() else np.empty((0, 0, 0, 3), np.uint8)

    def finish(self, table: str) -> None:
        """Write the table of all files, whole or not at all."""
        store = LocalStore(str(self.directory))
        write_text(store, TABLE, table)
        store.remove(UNFINISHED)

    def _crops_of(self, path: str) -> Path:
        # No picture by its name, so that a folder within the folder that is judged is no harm.
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return self.directory / STRONGEST / f"{name}.npy"

    def _forget_others(self) -> None:
        while len(self._shown) > MOST_SHOWN:
            *_, path = heapq.heappop(self._shown)
            self._crops_of(path).unlink(missing_ok=True)


def _read_lines(path: Path) -> dict[str, dict]:
    """Read the last record of every file; a line that was cut short by a kill is taken off."""
    if not path.exists():
        return {}
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        os.truncate(path, end)
    records = {}
    for number, line in enumerate(whole[:end].splitlines(), start=1):
        try:
            record = json.loads(line)
            records[record["path"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected a verdict as JSON in line {number} of {path}; got {error!r}. The file "
                "is damaged: take that line out, and its file is judged again."
            ) from error
    return records


def _is_done(record: dict, stamp: dict) -> bool:
    return "error" not in record and bool(stamp) and stamp.items() <= record.items()


def _without_time(record: dict) -> dict:
    return {key: value for key, value in record.items() if key != "mtime_ns"}
