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
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, check_threshold
from jdfd_keras.faces.overlay import check_overlay
from jdfd_keras.inference.backends import Scorer, local_scorer, remote_scorer
from jdfd_keras.inference.verdict import (
    STRONGEST,
    Taken,
    Verdict,
    choose_borders,
    choose_faces,
    judge,
)
from jdfd_keras.io.console import track
from jdfd_keras.options import FaceOptions, PredictOptions, PredictWorkOptions
from jdfd_keras.prediction.annotate import annotate_file
from jdfd_keras.prediction.extraction import read_sha256, take_all, take_faces
from jdfd_keras.prediction.result_folder import VerdictFolder, check_places, list_files, open_folder
from jdfd_keras.reporting.verdict_text import count_of, printable, to_csv

MOST_PASSED_OVER = 3  # named on stderr


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
        `files`: the fields of a Verdict for each file that has one, when it was `judged`, in UTC,
        and its length, `file_bytes`; `failed`: path and error of each other file, which also goes
        to stderr at once, and these two and `sha256` where it can be read; `paths`: all of them.
        Each in the order in which the files were named. `passed_over`: how many files of folders
        are none by their suffix. `made_with`: the model, and what the verdicts rest on beside it;
        its `borders` are `calibrated`, a `threshold` that was asked for, or `0.5`. Ready for JSON.

    Raises:
        OSError: If the model or the server is not there, or goes while files are judged, or
            something cannot be written. What was judged till then is kept in `out`.
        ValueError: If not exactly one of both is given, an option is out of its range, there is no
            file, `out` was made with another model or other options, or something would be
            written over a file that is looked at.
    """
    options, work = options or PredictOptions(), work or PredictWorkOptions(workers=1)
    if (model is None) == (server is None):
        raise ValueError(
            f"Expected a model or a server to score with; got model={model!r} and "
            f"server={server!r}. Give one of them."
        )
    _check_numbers(options, work)
    files, passed_over = list_files(paths)
    if annotate is not None:
        _check_annotate(files, annotate)
        options = dataclasses.replace(options, every=options.every or 1)
    check_places(files, model=model, out=out, report=report, annotate=annotate)
    if passed_over:
        print(_name_passed_over(passed_over), file=sys.stderr)
    with contextlib.ExitStack() as stack:
        scorer = local_scorer(model) if model is not None else remote_scorer(server)
        stack.callback(scorer.close)
        known = scorer.description
        faces, borders = choose_faces(known, options), choose_borders(known, options)
        if out is None:
            # Also without a folder of its own, as a run needs room for crops.
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="jdfd-keras-"))
        folder = stack.enter_context(
            open_folder(out or place, files, digest=known.digest, faces=faces, borders=borders)
        )
        todo = [path for path in files if str(path) not in folder.done]
        taken = take_all(todo, faces, _count_workers(work, len(todo)), folder.parts)
        records = dict(folder.done)
        for path, what in track(taken, "judging files", len(todo), "files") if todo else ():
            verdict = what
            if isinstance(what, Taken):
                # As many as usual also where no report is asked for: it may be later.
                count = work.explain or STRONGEST
                verdict = _judge(path, what, scorer, borders, count, out)
            records[str(path)] = _keep(path, what, verdict, folder)
        result = _sort(files, records) | {
            "passed_over": len(passed_over),
            "made_with": _describe_making(scorer, faces, borders, options),
        }
        folder.finish(to_csv(result) + "\n")
        if report is not None:
            from jdfd_keras.reporting.verdict_page import write_report

            def read_strongest(path: str) -> np.ndarray:
                return folder.read_strongest(path)[: work.explain]

            write_report(report, result, scorer, faces, read_strongest)
    if annotate is not None and result["files"]:
        verdict, made_with = result["files"][0], result["made_with"]
        annotate_file(files[0], annotate, verdict, every=faces.every, made_with=made_with)
    return result


def _name_passed_over(paths: list[Path]) -> str:
    named = ", ".join(map(str, paths[:MOST_PASSED_OVER]))
    more = ", ..." if len(paths) > MOST_PASSED_OVER else ""
    return printable(
        f"passed over {count_of(len(paths), 'file')} that no video or image is by its suffix: "
        f"{named}{more}"
    )


def _check_numbers(options: PredictOptions, work: PredictWorkOptions) -> None:
    if options.frames_per_video < 1 or min(options.every, work.workers, work.explain) < 0:
        raise ValueError(
            "Expected --frames-per-video to be at least 1, and --every, --workers and --explain "
            f"at least 0; got {options.frames_per_video}, {options.every}, {work.workers} and "
            f"{work.explain}. Leave out what you have no wish for."
        )
    if options.threshold is not None:
        check_threshold(options.threshold)


def _check_annotate(files: list[Path], annotate: str | Path) -> None:
    if len(files) != 1:
        raise ValueError(
            f"Expected one file to annotate; got {len(files)}. Annotate them one by one."
        )
    check_overlay(files[0], annotate)


def _judge(
    path: Path,
    taken: Taken,
    scorer: Scorer,
    borders: Calibration,
    count: int,
    out: str | Path | None,
) -> Verdict | str:
    """Judge what a file gave; in words, why that cannot be done.

    Raises:
        OSError: If the scorer cannot be asked: another file would fare no better.
    """
    try:
        return judge(path, taken, scorer, borders, count)
    except ValueError as error:
        return str(error)
    except OSError as error:
        rest = (
            "Nothing is kept without --out: give one, and a run that broke off can go on."
            if out is None
            else f"What was judged so far lies in {out}: the same command goes on with the rest."
        )
        raise OSError(f"Expected scores for {path}; got '{error}' {rest}") from error


def _keep(path: Path, taken: Taken | str, verdict: Verdict | str, folder: VerdictFolder) -> dict:
    """Keep the verdict on a file, or why there is none."""
    judged = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(verdict, Verdict):
        strongest = [taken.found.faces[place].crop for place in verdict.strongest]
        return folder.keep(dataclasses.asdict(verdict) | {"judged": judged}, strongest)
    print(printable(f"{path}: {verdict}"), file=sys.stderr)
    record = {"path": str(path), "error": verdict, "judged": judged}
    with contextlib.suppress(OSError):
        if path.is_file():
            record["sha256"] = read_sha256(path)
    return folder.keep(record, [])


def _describe_making(
    scorer: Scorer, faces: FaceOptions, borders: Calibration, options: PredictOptions
) -> dict:
    known = scorer.description
    kind = "threshold" if options.threshold is not None else "calibrated"
    return {
        "model": known.name,
        "version": known.version,
        "digest": known.digest,
        "where": scorer.name,
        "jdfd_keras": jdfd_keras.__version__,
        "faces": dataclasses.asdict(faces),
        "uncertain_from": borders.uncertain_from,
        "uncertain_to": borders.uncertain_to,
        "borders": kind if known.calibration or options.threshold is not None else "0.5",
    }


def _count_workers(work: PredictWorkOptions, num_files: int) -> int:
    """Count the processes beside this one; a single one would only wait for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    num_workers = min(work.workers or cores, num_files)
    return num_workers if num_workers > 1 else 0


def _sort(files: list[Path], records: dict[str, dict]) -> dict:
    """Put verdicts and failures into the order in which the files were named."""
    ordered = [_without_bytes(records[str(path)]) for path in files]
    return {
        "files": [record for record in ordered if "error" not in record],
        "failed": [record for record in ordered if "error" in record],
        "paths": [record["path"] for record in ordered],
    }


def _without_bytes(record: dict) -> dict:
    """Write what is no UTF-8 as escapes: a table or a page could not be written with it."""
    return {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in record.items()
    }


def predict_file(
    path: str | Path, scorer: Scorer, options: PredictOptions | None = None
) -> Verdict:
    """Give a verdict on a video or image.

    Args:
        path: The file.
        scorer: Of `local_scorer` or `remote_scorer`.
        options: Threshold, frames and people.

    Returns:
        The verdict with every face it rests on; `no face` is one, too.

    Raises:
        OSError: If the file is no video or image, or the scorer cannot be asked.
        ValueError: If an option is out of its range, or a score is not a number from 0 to 1:
            then there is no verdict.
    """
    options = options or PredictOptions()
    faces = choose_faces(scorer.description, options)
    return judge(path, take_faces(path, faces), scorer, choose_borders(scorer.description, options))
