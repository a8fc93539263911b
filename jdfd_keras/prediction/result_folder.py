"""The folder of a run of `predict`: what is done stays done, whatever ends the run.

    options.json       what the verdicts were made with; other options are refused
    verdicts.jsonl     one line a file, as it is done
    verdicts.csv       one row a file, once all are done
    strongest/         crops of the strongest faces of the most suspicious files
    parts/             crops that wait to be scored, and the lock of the run

Takes verdicts ready for JSON; knows nothing of how they are made.

Where `predict` reads and writes: files listed, and nothing written over what is read.

Takes paths; gives the files to be judged, and refuses places. Opens no file.
"""

import contextlib
import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.videos import has_suffix
from jdfd_keras.inference.verdict import RANK
from jdfd_keras.io.files import OPTIONS, claim_directory
from jdfd_keras.io.storage import PARTS, UNFINISHED, LocalStore, hold, write_text
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction.extraction import read_state

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


def list_files(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """List files, and the videos and images below folders in the order of their names, each once.

    Returns:
        These, links that lead nowhere among them, and the other files below folders that are not
        hidden.

    Raises:
        ValueError: If a folder holds none.
    """
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        seen = sorted(found for found in path.rglob("*") if not _is_hidden(found, path))
        seen = [found for found in seen if found.is_file() or _leads_nowhere(found)]
        below = [found for found in seen if has_suffix(found.name)]
        if not below:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are known by their "
                "suffix, such as .mp4 or .jpg: name a file of another suffix itself."
            )
        files |= dict.fromkeys(below)
        others |= dict.fromkeys(found for found in seen if not has_suffix(found.name))
    return list(files), [path for path in others if path not in files]


def check_places(
    files: Sequence[Path],
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    annotate: str | Path | None = None,
) -> None:
    """See that nothing is written over what is read or is written too, before a file is opened.

    Raises:
        OSError: If there is no folder for something, or a folder or file of another kind there.
        ValueError: If two places are the same, or one lies within the model.
    """
    taken = {path.resolve(): "which is looked at" for path in files}
    if out is not None:
        _check_out(Path(out))
        kept = {Path(out, name).resolve() for name in (OPTIONS, LINES, TABLE)}
        taken |= dict.fromkeys(kept, "in which verdicts are kept")
    for place in (report, annotate):
        if place is None:
            continue
        where = Path(place).resolve()
        if not where.parent.is_dir():
            raise FileNotFoundError(
                f"Expected a folder that is there for {place}; got {Path(place).parent}, which is "
                "none. Make it, or choose another."
            )
        if where.is_dir():
            raise IsADirectoryError(
                f"Expected a file to write to; got the folder {place}. Name a file in it."
            )
        if model is not None and where.is_relative_to(Path(model).resolve()):
            taken[where] = f"which lies within the model {model}"
        if where in taken:
            raise ValueError(
                f"Expected a place of its own to write to; got {place}, {taken[where]}. Choose "
                "another name."
            )
        taken[where] = "which is written already"


def _check_out(out: Path) -> None:
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(
            f"Expected a folder, or a name for one, to keep verdicts in; got {out}, where "
            f"{nearest} is a file. Choose another --out."
        )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
