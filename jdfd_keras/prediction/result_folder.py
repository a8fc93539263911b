"""Result folder of `predict`, which keeps each verdict as soon as it is made.

options.json       model, face options, calibration and evidence; a run with others is refused
verdicts.jsonl     one line per file, in order of completion; each states its own engine
verdicts.csv       one row per file, written at the end
top_faces/         crops of the top faces of the most suspicious files
parts/             the lock of the run
"""

import contextlib
import csv
import dataclasses
import heapq
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.likelihood import ErrorRate
from jdfd_keras.client.metadata import DEMONSTRATION, ModelMetadata
from jdfd_keras.client.signatures import find_model
from jdfd_keras.faces.credentials import read_trust_anchors
from jdfd_keras.inference.tracks import LIMITS
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.console import FORMULA, csv_text
from jdfd_keras.io.files import (
    OPTIONS,
    atomic_path,
    check_no_result,
    init_folder,
    sha256_of,
    write_text_atomically,
)
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore, exclusive_lock
from jdfd_keras.options import CredentialOptions, FaceOptions
from jdfd_keras.prediction.extraction import hash_path, read_state

LINES, TABLE, TOP_FACES = "verdicts.jsonl", "verdicts.csv", "top_faces"
MAX_REPORTED = 50  # files with a section in a report; their top faces are kept
COLUMNS = (
    *("path", "verdict", "score", "log10_lr", "support", "uncertain_from", "uncertain_to"),
    *("real_as_high", "real_as_high_at_most", "fake_as_low", "fake_as_low_at_most"),
    *("num_people", "num_tracks", "num_faces", "num_frames", "duration_s", "width", "height"),
    *("file_bytes", "sha256", "top_face_time_s", "reasons", "not_judged", "warnings", "error"),
    *("engine", "note", "credentials", "ai_claims"),
)


@dataclass(frozen=True)
class FailedFile(Result):
    """A file without a verdict."""

    path: str
    error: str  # the reason
    analysed_at: str = ""  # UTC time in ISO format
    sha256: str | None = None  # None if the file cannot be read, or changed during the run
    file_bytes: int | None = None  # None if it does not exist
    # The reason for programs, such as `undecodable` or `too_long`; "" if it was not recorded.
    code: str = ""


@dataclass(frozen=True)
class _Model:
    digest: str
    demonstration: bool = False


@contextlib.contextmanager
def open_folder(
    directory: str | Path,
    states: Mapping[str, tuple[int, int] | None],
    *,
    metadata: ModelMetadata,
    faces: FaceOptions,
    calibration: Calibration,
    credentials: CredentialOptions | None = None,
) -> Iterator["VerdictFolder"]:
    """Create a result folder, or open one to resume its run.

    Args:
        directory: The folder.
        states: State of each file to analyse by path, of `read_state` before it was opened.
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
        >>> with open_folder("verdicts", {"a.txt": None}, **options) as folder:
        ...     folder.keep(FailedFile("a.txt", "not a video"))
        FailedFile(path='a.txt', error='not a video', ...)
    """
    model = _Model(metadata.digest, metadata.demonstration)
    init_folder(directory, model=model, faces=faces, calibration=calibration, evidence=LIMITS)
    with exclusive_lock(LocalStore(str(directory))), open(Path(directory, LINES), "ab") as lines:
        anchors = credentials.trust_anchors if credentials else ""
        trust_list = read_trust_anchors(anchors)[1] if anchors else ""
        yield VerdictFolder(Path(directory), states, lines, trust_list)


class VerdictFolder:
    """An open result folder, created by `open_folder`."""

    def __init__(
        self,
        directory: Path,
        states: Mapping[str, tuple[int, int] | None],
        lines: BinaryIO,
        trust_list: str = "",
    ):
        """Read the verdicts of earlier runs."""
        self.directory, self._lines = directory, lines
        (directory / TOP_FACES).mkdir(exist_ok=True)
        self._states = states
        earlier = _read_lines(directory / LINES)
        self.done: dict[str, Verdict] = {}  # by path, of files that have not changed since
        for path, state in self._states.items():
            record, mtime_ns = earlier.get(path, (None, None))
            if not isinstance(record, Verdict) or state != (record.file_bytes, mtime_ns):
                continue
            # None in the lines of earlier versions
            if record.credentials is None or not record.credentials.is_outdated(trust_list):
                self.done[path] = record
        self._reported = [verdict.suspicion for verdict in self.done.values()]
        heapq.heapify(self._reported)
        self._delete_unreported()

    def keep(
        self, record: Verdict | FailedFile, crops: Sequence[np.ndarray] = ()
    ) -> Verdict | FailedFile:
        """Write a verdict and its top faces, or a failure; return it with facts of the file."""
        if isinstance(record, Verdict):
            if crops:
                with atomic_path(self._crops_path(record.path)) as unfinished:
                    np.save(unfinished, np.stack(crops))
            heapq.heappush(self._reported, record.suspicion)
            self._delete_unreported()
        state = self._states[record.path]
        _, mtime_ns = state or (None, None)
        if isinstance(record, FailedFile):
            record = add_facts(record, state)
        line = json.dumps(record.to_dict() | {"mtime_ns": mtime_ns})
        self._lines.write(line.encode() + b"\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        return record

    def read_top_faces(self, path: str) -> np.ndarray:
        """Read the top faces of a file, uint8[n, size, size, 3]; n is 0 if none are kept."""
        file = self._crops_path(path)
        return np.load(file) if file.is_file() else np.empty((0, 0, 0, 3), np.uint8)

    def finish(self, records: Iterable[Verdict | FailedFile]) -> None:
        """Write the table of all files."""
        write_text_atomically(self.directory / TABLE, to_csv(records) + "\n")

    def _crops_path(self, path: str) -> Path:
        # Not an image suffix: the result folder may be inside the folder that is analysed.
        return self.directory / TOP_FACES / f"{hash_path(path)}.npy"

    def _delete_unreported(self) -> None:
        while len(self._reported) > MAX_REPORTED:
            *_, path = heapq.heappop(self._reported)
            self._crops_path(path).unlink(missing_ok=True)


def add_facts(record: FailedFile, state: tuple[int, int] | None) -> FailedFile:
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


def to_csv(records: Iterable[Verdict | FailedFile]) -> str:
    """Format verdicts and failures as a CSV table: a header, and one row per file.

    Numbers are rounded to six digits; a failure has no verdict and score. Invisible characters are
    escaped. A path that a spreadsheet would read as a formula begins with `./`, another text with
    an apostrophe. The note states that the model of a verdict is for demonstration only, if it is.

    Example:
        >>> to_csv([FailedFile("a.txt", "not a video")]).splitlines()[1]
        'a.txt,,,,,,,,,,,,,,,,,,,,,,,,not a video,,,,'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _to_cell(value) for name, value in _to_row(record).items()})
    return text.getvalue().removesuffix("\n")


def check_paths(
    files: Iterable[Path],
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
    files, model_folder = list(files), None
    with contextlib.suppress(OSError):  # a missing model is an error of `load_predictor`
        model_folder = Path(find_model(model))
    # Not Path.resolve, which raises a RuntimeError for a link to itself (Python 3.11).
    used = {Path(os.path.realpath(path)): "which is an input" for path in files}
    if out is not None:
        nearest = next(path for path in (Path(out), *Path(out).absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(
                f"Expected a folder for the verdicts, or a new name; got {out}, where {nearest} is "
                "a file. Choose another --out."
            )
        kept = {Path(out, name).resolve() for name in (OPTIONS, LINES, TABLE)}
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


def _hash_if_unchanged(path: str, state: tuple[int, int] | None) -> str | None:
    """Return the SHA-256 of a file that is still as `read_state` found it."""
    with contextlib.suppress(OSError):
        if Path(path).is_file():
            sha256 = sha256_of(path)
            return sha256 if read_state(path) == state else None
    return None


def _read_lines(path: Path) -> dict[str, tuple[Verdict | FailedFile, int | None]]:
    """Read the last record of every file, with its time; cut off a truncated last line."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    records = {}
    for number, line in enumerate(content[:end].splitlines(), start=1):
        try:
            values = json.loads(line)
            mtime_ns = values.pop("mtime_ns")
            kind = FailedFile if "error" in values else Verdict
            records[values["path"]] = kind.from_dict(values), mtime_ns
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a verdict as JSON in line {number} of {path}; got {error!r}. The file "
                "is damaged: delete that line to analyse its file again."
            ) from error
    return records


def _to_row(record: Verdict | FailedFile) -> dict[str, Any]:
    path = f"./{record.path}" if record.path.startswith(FORMULA) else record.path
    row = {"path": path, "sha256": record.sha256, "file_bytes": record.file_bytes}
    if isinstance(record, FailedFile):
        return row | {"error": " ".join(record.error.split())}
    same = ("verdict", "score", "uncertain_from", "uncertain_to", "num_people", "num_frames")
    row |= {name: getattr(record, name) for name in same}
    row |= {name: getattr(record, name) for name in ("duration_s", "width", "height", "engine")}
    row |= {"num_faces": len(record.faces), "num_tracks": len(record.tracks)}
    row["note"] = DEMONSTRATION if record.demonstration else ""
    if record.credentials:
        claims = [f"{claim.source}: {claim.text}" for claim in record.credentials.ai_claims]
        row |= {"credentials": record.credentials.state, "ai_claims": "; ".join(claims)}
    if record.likelihood:
        row |= {"log10_lr": record.likelihood.log10, "support": record.likelihood.support}
    for name in ("real_as_high", "fake_as_low") if record.error_rates else ():
        rate: ErrorRate = getattr(record.error_rates, name)
        row |= {name: rate.rate, f"{name}_at_most": rate.high}
    if record.top_faces:
        row["top_face_time_s"] = record.faces[record.top_faces[0]].time_s
    row["not_judged"] = "; ".join(
        f"person {track.track_id}: {track.not_judged}"
        for track in record.tracks
        if track.not_judged
    )
    return row | {name: "; ".join(getattr(record, name)) for name in ("reasons", "warnings")}


def _to_cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return round(value, 6) if isinstance(value, float) else value
