"""Result folder of `predict`, which keeps each verdict as soon as it is made.

options.json       model, face options, calibration and evidence; a run with others is refused
verdicts.jsonl     one line per file, in order of completion; each states its own engine
verdicts.sqlite    index of these lines, which is made again if it does not fit them
verdicts.csv       one row per file, written at the end
top_faces/         crops of the top faces of the most suspicious files
parts/             the lock of the run
"""

import contextlib
import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jdfd_keras import __version__
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.signatures import find_model
from jdfd_keras.faces.credentials import ContentCredentials, read_trust_anchors
from jdfd_keras.inference.tracks import LIMITS
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.files import OPTIONS, atomic_path, check_no_result, init_folder, sha256_of
from jdfd_keras.io.storage import LocalStore, exclusive_lock
from jdfd_keras.options import CredentialOptions, FaceOptions
from jdfd_keras.prediction.extraction import hash_path
from jdfd_keras.prediction.file_list import State, read_state
from jdfd_keras.prediction.kept_records import NO_LINE, FailedFile, KeptRecords, to_line
from jdfd_keras.prediction.verdict_index import FILES_PER_QUERY, INDEX, LineIndex, open_index
from jdfd_keras.prediction.verdict_table import COLUMNS, csv_lines

LINES, TABLE, TOP_FACES = "verdicts.jsonl", "verdicts.csv", "top_faces"
MAX_REPORTED = 50  # files with a section in a report; their top faces are kept


@dataclass(frozen=True)
class _Model:
    digest: str
    demonstration: bool = False


@contextlib.contextmanager
def open_folder(
    directory: str | Path,
    states: Iterable[tuple[str, State]],
    *,
    metadata: ModelMetadata,
    faces: FaceOptions,
    calibration: Calibration,
    credentials: CredentialOptions | None = None,
) -> Iterator["VerdictFolder"]:
    """Create a result folder, or open one to resume its run.

    Args:
        directory: The folder.
        states: Each file to analyse, and its state of now, of `read_state`.
        metadata: Metadata of the model, which a resumed run must have again.
        faces: Face options.
        calibration: Calibration with the thresholds of the verdicts.
        credentials: Trust anchors; files that were checked with others, or not checked since
            c2pa-python could not be used, are analysed again.

    Raises:
        OSError: If another run writes to it.
        ValueError: If it was made with other options, or holds other files or damaged lines.

    Example:
        >>> options = {"faces": FaceOptions(), "calibration": Calibration()}
        >>> options["metadata"] = ModelMetadata(FaceOptions(), None, "detector", 1, "ab")
        >>> with open_folder("verdicts", [("a.txt", None)], **options) as folder:
        ...     folder.keep(FailedFile("a.txt", "not a video"))
        FailedFile(path='a.txt', error='not a video', ...)
    """
    directory = Path(directory)
    model = _Model(metadata.digest, metadata.demonstration)
    init_folder(directory, model=model, faces=faces, calibration=calibration, evidence=LIMITS)
    with exclusive_lock(LocalStore(str(directory))), open(directory / LINES, "ab") as lines:
        anchors = credentials.trust_anchors if credentials else ""
        trust_list = read_trust_anchors(anchors)[1] if anchors else ""
        with open_index(directory / LINES, directory / INDEX) as index:
            yield VerdictFolder(directory, states, lines, index, trust_list)


class VerdictFolder:
    """An open result folder, created by `open_folder`."""

    def __init__(
        self,
        directory: Path,
        states: Iterable[tuple[str, State]],
        lines: BinaryIO,
        index: LineIndex,
        trust_list: str = "",
    ):
        """Find the verdicts of earlier runs."""
        self.directory, self._lines, self._index = directory, lines, index
        (directory / TOP_FACES).mkdir(exist_ok=True)
        self._names: list[str] = []
        # Of each file: its line, and whether that is a verdict.
        self._starts, self._is_verdict = array("q"), bytearray()
        self._positions: dict[str, int] = {}  # of the files without a result
        self._reported: list[tuple[int, float, str]] = []
        # Of all files of earlier runs there are hardly more crops than those of the reported ones.
        self._may_delete = len(os.listdir(directory / TOP_FACES)) > MAX_REPORTED
        self._is_outdated = functools.cache(functools.partial(_is_outdated, trust_list=trust_list))
        states = iter(states)
        while chunk := list(itertools.islice(states, FILES_PER_QUERY)):
            self._find(chunk)

    @property
    def is_complete(self) -> bool:
        """Whether every file has a verdict, or failed in this run."""
        return not self._positions

    def has_result(self, path: str) -> bool:
        """Return whether one of the files has a verdict, or failed in this run."""
        return path not in self._positions

    def keep(
        self,
        record: Verdict | FailedFile,
        crops: Sequence[np.ndarray] = (),
        state: State = None,
    ) -> Verdict | FailedFile:
        """Write a verdict and its top faces, or a failure; return it with facts of the file.

        Args:
            record: The verdict or failure.
            crops: Its top faces.
            state: State of the file before it was opened, of `read_state`.
        """
        if isinstance(record, Verdict):
            if crops:
                with atomic_path(self._crops_path(record.path)) as unfinished:
                    np.save(unfinished, np.stack(crops))
            self._may_delete = True
            self._report(record.suspicion)
        else:
            record = add_facts(record, state)
        _, mtime_ns = state or (None, None)
        line = to_line(record, mtime_ns)
        self._lines.write(line)
        self._lines.flush()
        os.fsync(self._lines.fileno())
        start = self._index.add(record, mtime_ns, line)
        position = self._positions.pop(record.path, None)
        if position is not None:
            self._starts[position] = start
            self._is_verdict[position] = isinstance(record, Verdict)
        return record

    def read_top_faces(self, path: str) -> np.ndarray:
        """Read the top faces of a file, uint8[n, size, size, 3]; n is 0 if none are kept."""
        file = self._crops_path(path)
        return np.load(file) if file.is_file() else np.empty((0, 0, 0, 3), np.uint8)

    def collect(
        self, lost: Callable[[str], FailedFile] | None = None
    ) -> tuple[KeptRecords, bytearray]:
        """Return the records of all files in their order, and which of them are verdicts.

        Args:
            lost: Returns the failure of a file without a result.
        """
        lines = (self.directory / LINES).absolute()  # the caller may change the current folder
        records = KeptRecords(lines, self._names, self._starts[:], lost)
        return records, self._is_verdict[:]

    def finish(self, records: Iterable[Verdict | FailedFile]) -> None:
        """Write the table of all files, unless it exists and they are the same lines."""
        path, columns = self.directory / TABLE, f"{__version__} {COLUMNS}"
        digest = hashlib.sha256(columns.encode() + self._starts.tobytes()).hexdigest()
        known = json.dumps([digest, read_state(path)])
        if not self._positions and self._index.read_fact("table") == known:
            return
        with atomic_path(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
            for line in csv_lines(records):
                file.write(f"{line}\n")
        self._index.keep_fact("table", json.dumps([digest, read_state(path)]))

    def _find(self, states: list[tuple[str, State]]) -> None:
        """Find the verdicts on files that have not changed since."""
        found = self._index.find(path for path, _ in states)
        for path, state in states:
            entry = found.get(path)
            is_kept = (
                entry is not None
                and entry.is_verdict
                and state == (entry.file_bytes, entry.mtime_ns)
                and not self._is_outdated(entry.credentials)
            )
            if entry is not None and is_kept:
                self._report((entry.suspicion, entry.score, path))
            else:
                self._positions[path] = len(self._names)
            self._names.append(path)
            self._starts.append(entry.start if entry is not None and is_kept else NO_LINE)
            self._is_verdict.append(is_kept)

    def _crops_path(self, path: str) -> Path:
        # Not an image suffix: the result folder may be inside the folder that is analysed.
        return self.directory / TOP_FACES / f"{hash_path(path)}.npy"

    def _report(self, suspicion: tuple[int, float, str]) -> None:
        """Keep the crops of a file if it is one of the most suspicious, else delete them."""
        if len(self._reported) < MAX_REPORTED:
            heapq.heappush(self._reported, suspicion)
            return
        *_, path = heapq.heappushpop(self._reported, suspicion)
        if self._may_delete:
            self._crops_path(path).unlink(missing_ok=True)


def _is_outdated(credentials: str | None, trust_list: str) -> bool:
    if credentials is None:  # in the lines of earlier versions
        return False
    state, detail, checked_with = json.loads(credentials)
    return ContentCredentials(state, detail, trust_list=checked_with).is_outdated(trust_list)


def add_facts(record: FailedFile, state: State) -> FailedFile:
    """Add the facts of a file to its failure.

    Args:
        record: The failure.
        state: State of the file before it was opened, of `read_state`; a file that has another
            one now has no SHA-256.

    Example:
        >>> failed = add_facts(FailedFile("face.png", "not a video"), read_state("face.png"))
        >>> failed.file_bytes == Path("face.png").stat().st_size, len(failed.sha256)
        (True, 64)
    """
    file_bytes, _ = state or (None, None)
    sha256 = _hash_if_unchanged(record.path, state)
    return dataclasses.replace(record, sha256=sha256, file_bytes=file_bytes)


def check_paths(
    files: Sequence[Path],
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    annotate: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Check, before any file is opened, that no output replaces an input or another output.

    Args:
        files: The files to analyse.
        model: The model, as for `load_predictor`, which must not contain an output.
        out: The result folder.
        report: The page about the verdicts.
        annotate: The annotated video or image.
        overwrite: Whether an existing page, video or image may be replaced.

    Example:
        >>> check_paths([Path("video.mp4")], annotate="video.mp4")
        Traceback (most recent call last):
        ValueError: Expected an unused path to write to; got video.mp4, which is an input. ...
    """
    model_folder = None
    with contextlib.suppress(OSError):  # a missing model is an error of `load_predictor`
        model_folder = Path(find_model(model))
    used: dict[Path, str] = {}
    if report is not None or annotate is not None:
        # Not Path.resolve, which raises a RuntimeError for a link to itself (Python 3.11).
        used = {Path(os.path.realpath(path)): "which is an input" for path in files}
    if out is not None:
        nearest = next(path for path in (Path(out), *Path(out).absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(
                f"Expected a folder for the verdicts, or a new name; got {out}, where {nearest} is "
                "a file. Choose another --out."
            )
        kept = {Path(out, name).resolve() for name in (OPTIONS, LINES, INDEX, TABLE)}
        used |= dict.fromkeys(kept, "which is part of the result folder")
    is_one = len(files) == 1
    has_others = report is not None and not (is_one and Path(report).suffix.lower() == ".pdf")
    if report is not None and has_others and Path(report).parent.is_dir():
        # The pages of several files, and the video of a page, are written beside the report.
        beside = Path(report).with_name(Path(report).stem + ("-player.mp4" if is_one else "_files"))
        beside = beside.resolve()
        if beside in used or any(beside in path.parents for path in used):
            raise ValueError(
                f"Expected an unused path to write to; got {beside}, which is an input or has one, "
                f"and is written beside the report {report}. Choose another name of the report."
            )
        check_no_result(beside, overwrite=overwrite)
        used[beside] = "which is written beside the report"
    for path in (report, annotate):
        if path is None:
            continue
        resolved = Path(path).resolve()
        if not resolved.parent.is_dir():
            raise FileNotFoundError(
                f"Expected an existing folder for {path}; got {Path(path).parent}, which is not a "
                "folder. Create it, or choose another."
            )
        if resolved.is_dir():
            raise IsADirectoryError(
                f"Expected a file to write to; got the folder {path}. Name a file in it."
            )
        if model_folder and resolved.is_relative_to(model_folder.resolve()):
            used[resolved] = f"which is inside the model {model_folder}"
        if resolved in used:
            raise ValueError(
                f"Expected an unused path to write to; got {path}, {used[resolved]}. Choose "
                "another name."
            )
        used[resolved] = "which is another output"
        check_no_result(path, overwrite=overwrite)


def _hash_if_unchanged(path: str, state: State) -> str | None:
    """Return the SHA-256 of a file that is still as `read_state` found it."""
    with contextlib.suppress(OSError):
        if Path(path).is_file():
            sha256 = sha256_of(path)
            return sha256 if read_state(path) == state else None
    return None
