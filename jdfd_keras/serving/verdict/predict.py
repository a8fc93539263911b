"""Verdicts on many files: faces taken in several processes, scored in this one.

Takes paths and a model or server; gives a dict that is ready for JSON, and on request a folder
that can be gone on with, a page and an annotated film.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.data.videos import has_suffix
from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.faces.overlay import check_overlay
from jdfd_keras.options import PredictOptions, PredictWorkOptions
from jdfd_keras.progress import track
from jdfd_keras.serving.scorers import Scorer, local_scorer, remote_scorer
from jdfd_keras.serving.verdict.annotate import annotate_file
from jdfd_keras.serving.verdict.folder import VerdictFolder, open_folder
from jdfd_keras.serving.verdict.judge import choose_borders, choose_faces, judge
from jdfd_keras.serving.verdict.taking import Taken, take_all
from jdfd_keras.serving.verdict.text import to_csv


@dataclass(frozen=True)
class _Model:
    """What a folder of verdicts is bound to, beside options and calibration."""

    digest: str


def predict_files(
    paths: Sequence[str | Path],
    options: PredictOptions | None = None,
    work: PredictWorkOptions | None = None,
    *,
    model: str | Path | None = None,
    server: str | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    annotate: str | Path | None = None,
) -> dict:
    """Give a verdict on each of several files; one that has none does not stop the others.

    Args:
        paths: Videos and images, and folders of such: all below them, but for hidden ones.
        options: Threshold, frames and people.
        work: How many processes, and how many frames a report explains. All is done in this
            process if not given.
        model: A model on this machine, as `local_scorer` takes it; either this or `server`.
        server: The URL of a served model, as `remote_scorer` takes it.
        out: A folder that keeps each verdict as it comes (`verdicts.jsonl`) and all of them at the
            end (`verdicts.csv`). Called again with it, files that are judged and have not changed
            since are not looked at again.
        report: An HTML page on the verdicts, for people; replaced if it is there.
        annotate: A film or picture of the one file, with its scores drawn on it; see
            `annotate_file`. All frames are then looked at, unless `options.every` says otherwise.

    Returns:
        `files`: the fields of a Verdict for each file that has one; `failed`: path and error of
        each other file, which also goes to stderr at once; `paths`: all of them. Each in the order
        in which the files were named. Ready for JSON.

    Raises:
        OSError: If the model or the server is not there, or something cannot be written.
        ValueError: If not exactly one of both is given, an option is out of its range, there is no
            file, or `out` was made with another model or other options.
    """
    options, work = options or PredictOptions(), work or PredictWorkOptions(workers=1)
    if (model is None) == (server is None):
        raise ValueError(
            f"Expected a model or a server to score with; got model={model!r} and "
            f"server={server!r}. Give one of them."
        )
    files = list_files(paths)
    if annotate is not None:
        _check_annotate(files, annotate)
        options = dataclasses.replace(options, every=options.every or 1)
    for place in (report, annotate):
        if place is not None and not Path(place).parent.is_dir():
            raise FileNotFoundError(
                f"Expected a folder that is there for {place}; got {Path(place).parent}, which is "
                "none. Make it, or choose another."
            )
    scorer = local_scorer(model) if model is not None else remote_scorer(server)
    faces = choose_faces(scorer.description, options)
    borders = choose_borders(scorer.description, options)
    made_with = {"model": _Model(scorer.description.digest), "faces": faces, "borders": borders}
    with contextlib.ExitStack() as stack:
        if out is None:
            # Also without a folder of its own, as a run needs room for crops.
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="jdfd-keras-"))
        folder = stack.enter_context(open_folder(out or place, files, **made_with))
        todo = [path for path in files if str(path) not in folder.done]
        taken = take_all(todo, faces, _count_workers(work, len(todo)), folder.parts)
        records = dict(folder.done)
        for path, what in track(taken, "judging files", len(todo), "files") if todo else ():
            records[str(path)] = _finish(path, what, folder, scorer, borders, work.explain)
        result = _sort(files, records)
        folder.finish(to_csv(result) + "\n")
        if report is not None:
            from jdfd_keras.serving.verdict.page import write_report

            write_report(report, result, scorer, faces, folder.read_strongest)
    if annotate is not None and result["files"]:
        annotate_file(files[0], annotate, result["files"][0], every=faces.every)
    return result


def list_files(paths: Sequence[str | Path]) -> list[Path]:
    """List files, and the videos and images below folders in the order of their names, each once.

    Raises:
        ValueError: If a folder holds none.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        below = sorted(found for found in path.rglob("*") if _is_media(found.relative_to(path)))
        below = [found for found in below if found.is_file()]
        if not below:
            raise ValueError(
                f"Expected videos or images below {path}; got none. They are known by their "
                "suffix, such as .mp4 or .jpg: name a file of another suffix itself."
            )
        files |= dict.fromkeys(below)
    return list(files)


def _is_media(path: Path) -> bool:
    return has_suffix(path.name) and not any(part.startswith(".") for part in path.parts)


def _check_annotate(files: list[Path], annotate: str | Path) -> None:
    if len(files) != 1:
        raise ValueError(
            f"Expected one file to annotate; got {len(files)}. Annotate them one by one."
        )
    check_overlay(files[0], annotate)


def _finish(
    path: Path,
    taken: Taken | str,
    folder: VerdictFolder,
    scorer: Scorer,
    borders: Calibration,
    explain: int,
) -> dict:
    """Judge what a file gave, and keep the verdict, or why there is none."""
    if isinstance(taken, Taken):
        try:
            verdict = judge(path, taken, scorer, borders, max(explain, 1))
        except (OSError, ValueError) as error:
            taken = str(error)
        else:
            faces = taken.found.faces
            strongest = [faces[place].crop for place in verdict.strongest[:explain]]
            return folder.keep(dataclasses.asdict(verdict), strongest)
    print(f"{path}: {taken}", file=sys.stderr)
    return folder.keep({"path": str(path), "error": taken}, [])


def _count_workers(work: PredictWorkOptions, num_files: int) -> int:
    """Count the processes beside this one; a single one would only wait for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    num_workers = min(work.workers or cores, num_files)
    return num_workers if num_workers > 1 else 0


def _sort(files: list[Path], records: dict[str, dict]) -> dict:
    """Put verdicts and failures into the order in which the files were named."""
    ordered = [records[str(path)] for path in files]
    return {
        "files": [record for record in ordered if "error" not in record],
        "failed": [record for record in ordered if "error" in record],
        "paths": [record["path"] for record in ordered],
    }
