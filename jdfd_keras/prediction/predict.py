"""Verdicts on many files: faces are extracted in several processes and scored in this one.

Takes paths and a model or the URL of one; returns Predictions. On request it keeps the verdicts in
a result folder, so that a run can be resumed, and writes an annotated video.
"""

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.client.metadata import Calibration, check_threshold
from jdfd_keras.faces.overlay import check_overlay
from jdfd_keras.inference.backends import Predictor, load_predictor
from jdfd_keras.inference.verdict import (
    NUM_TOP_FACES,
    FileExtraction,
    Provenance,
    Verdict,
    choose_faces,
    decision_thresholds,
    judge,
)
from jdfd_keras.io.console import plural, printable, track
from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.results import Result
from jdfd_keras.io.workers import count_workers
from jdfd_keras.options import FaceOptions, PredictOptions, PredictRuntime
from jdfd_keras.prediction.annotate import annotate_file
from jdfd_keras.prediction.extraction import extract_all, extract_file, list_files
from jdfd_keras.prediction.result_folder import (
    MAX_REPORTED,
    FailedFile,
    VerdictFolder,
    check_paths,
    open_folder,
)

MAX_SKIPPED_NAMES = 3  # on stderr


@dataclass(frozen=True, eq=False)
class TopFaces:
    """Pixels of the top faces of one file, for a report.

    Attributes:
        crops: uint8[n, size, size, 3], in the order of the verdict's `top_faces`.
        cams: float32[n, size, size], their class-activation maps in 0..1; None without maps.
        failure: Why there are no maps; "" if there are.
    """

    crops: np.ndarray
    cams: np.ndarray | None
    failure: str = ""


@dataclass(frozen=True)
class Predictions(Result):
    """Verdicts on several files, each group in the order of the paths.

    Attributes:
        files: Verdicts.
        failed: Files without a verdict.
        paths: Paths of all files.
        skipped: Number of files below folders without a video or image suffix.
        provenance: Model, options and thresholds.
        top_faces: Top faces of the most suspicious files by path, if requested; not in JSON.
    """

    files: tuple[Verdict, ...]
    failed: tuple[FailedFile, ...]
    paths: tuple[str, ...]
    skipped: int
    provenance: Provenance
    top_faces: dict[str, TopFaces] = dataclasses.field(
        default_factory=dict, compare=False, repr=False, metadata={"json": False}
    )

    @property
    def records(self) -> tuple[Verdict | FailedFile, ...]:
        """Verdicts and failures in the order of the paths."""
        by_path = {record.path: record for record in (*self.files, *self.failed)}
        return tuple(by_path[path] for path in self.paths)


def predict_file(
    path: str | Path, predictor: Predictor, options: PredictOptions | None = None
) -> Verdict:
    """Return the verdict on one video or image.

    Args:
        path: The file.
        predictor: Predictor of `load_predictor`.
        options: Threshold, frames and tracks.

    Returns:
        The verdict with every face that it is based on; `no face` if there is none.

    Raises:
        OSError: If the file is not a video or image, or the predictor's server cannot be reached.
        ValueError: If an option is out of range, or a score is not a number from 0 to 1.

    Example:
        >>> predict_file("suspect.mp4", load_predictor("saved_models/detector")).verdict
        'fake'
    """
    options = options or PredictOptions()
    file = extract_file(path, choose_faces(predictor.metadata, options))
    return judge(path, file, predictor, decision_thresholds(predictor.metadata, options))


def predict_files(
    paths: Sequence[str | Path],
    options: PredictOptions | None = None,
    runtime: PredictRuntime | None = None,
    *,
    model: str | Path,
    out: str | Path | None = None,
    annotate: str | Path | None = None,
    explain: bool = False,
) -> Predictions:
    """Return the verdict on each of several files; a file that fails does not stop the others.

    Args:
        paths: Videos, images, and folders, which are searched at any depth.
        options: Threshold, frames and tracks.
        runtime: Number of processes and of explained faces. By default this process does all.
        model: Local model or URL of a served one, as for `load_predictor`.
        out: Result folder, which keeps each verdict as soon as it is made (`verdicts.jsonl`) and
            all of them at the end (`verdicts.csv`). A second call with it does not analyse files
            again that have a verdict and have not changed since.
        annotate: Annotated video or image of the only file; see `annotate_file`. All frames are
            then sampled, unless `options.every` states otherwise.
        explain: Whether to return the top faces with their class-activation maps, for
            `write_report`.

    Returns:
        The verdicts. The error of a failed file is also printed to stderr at once.

    Raises:
        OSError: If the model does not exist or its server becomes unreachable, or an output cannot
            be written. Verdicts made until then are kept in `out`.
        ValueError: If an option is out of range, there is no file, `out` was made with another
            model or other options, or an output would replace an input.

    Example:
        >>> predictions = predict_files(["suspect.mp4"], model="saved_models/detector")
        >>> predictions.files[0].verdict, round(predictions.files[0].score, 2)
        ('fake', 0.97)
    """
    options, runtime = options or PredictOptions(), runtime or PredictRuntime(workers=1)
    _check_numbers(options, runtime)
    files, skipped = list_files(paths)
    if annotate is not None:
        _check_annotate(files, annotate)
        options = dataclasses.replace(options, every=options.every or 1)
    check_paths(files, model=model, out=out, annotate=annotate)
    if skipped:
        print(_describe_skipped(skipped), file=sys.stderr)
    with contextlib.ExitStack() as stack:
        predictor = load_predictor(model)
        stack.callback(predictor.close)
        metadata = predictor.metadata
        faces, thresholds = choose_faces(metadata, options), decision_thresholds(metadata, options)
        # Crops need a folder also without a result folder.
        directory = out or stack.enter_context(tempfile.TemporaryDirectory(prefix="jdfd-keras-"))
        folder = stack.enter_context(
            open_folder(
                directory, files, digest=metadata.digest, faces=faces, thresholds=thresholds
            )
        )
        remaining = [path for path in files if str(path) not in folder.done]
        num_workers = count_workers(runtime.workers, len(remaining))
        # With a single process besides this one, this one would only wait.
        extractions = extract_all(
            remaining, faces, num_workers if num_workers > 1 else 0, folder.parts
        )
        records: dict[str, Verdict | FailedFile] = dict(folder.done)
        if remaining:
            # Top faces are kept even with --explain 0: a later run may need them for a report.
            num_top_faces = runtime.explain or NUM_TOP_FACES
            for path, file in track(extractions, "judging files", len(remaining), "files"):
                verdict = file
                if isinstance(file, FileExtraction):
                    verdict = _judge(path, file, predictor, thresholds, num_top_faces, out)
                records[str(path)] = _keep(path, file, verdict, folder)
        ordered = tuple(_escape(records[str(path)]) for path in files)
        verdicts = tuple(record for record in ordered if isinstance(record, Verdict))
        predictions = Predictions(
            files=verdicts,
            failed=tuple(record for record in ordered if isinstance(record, FailedFile)),
            paths=tuple(record.path for record in ordered),
            skipped=len(skipped),
            provenance=_describe_provenance(predictor, faces, thresholds, options),
            top_faces=_explain(verdicts, folder, predictor, runtime.explain) if explain else {},
        )
        folder.finish(ordered)
    if annotate is not None and verdicts:
        annotate_file(
            files[0],
            annotate,
            verdicts[0],
            every=faces.every,
            provenance=predictions.provenance,
        )
    return predictions


def _describe_skipped(paths: list[Path]) -> str:
    names = ", ".join(map(str, paths[:MAX_SKIPPED_NAMES]))
    more = ", ..." if len(paths) > MAX_SKIPPED_NAMES else ""
    are = "that is not a video or image" if len(paths) == 1 else "that are not videos or images"
    return printable(f"skipped {plural(len(paths), 'file')} {are} (by suffix): {names}{more}")


def _check_numbers(options: PredictOptions, runtime: PredictRuntime) -> None:
    if options.frames_per_video < 1 or min(options.every, runtime.workers, runtime.explain) < 0:
        raise ValueError(
            "Expected --frames-per-video to be at least 1, and --every, --workers and --explain "
            f"at least 0; got {options.frames_per_video}, {options.every}, {runtime.workers} and "
            f"{runtime.explain}. Omit the option to use its default."
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
    file: FileExtraction,
    predictor: Predictor,
    thresholds: Calibration,
    num_top_faces: int,
    out: str | Path | None,
) -> Verdict | str:
    """Return the verdict on a file, or the reason why there is none.

    Raises:
        OSError: If the predictor's server cannot be reached, which ends the run.
    """
    try:
        return judge(path, file, predictor, thresholds, num_top_faces)
    except ValueError as error:
        return str(error)
    except OSError as error:
        hint = (
            "Nothing is kept without --out: pass it to be able to resume a run."
            if out is None
            else f"The verdicts so far are in {out}: run the same command again to resume."
        )
        raise OSError(f"Expected scores for {path}; got '{error}' {hint}") from error


def _keep(
    path: Path, file: FileExtraction | str, verdict: Verdict | str, folder: VerdictFolder
) -> Verdict | FailedFile:
    """Write the verdict on a file to disk, or the reason why there is none."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(verdict, Verdict):
        crops = [file.extraction.faces[index].crop for index in verdict.top_faces]
        return folder.keep(dataclasses.replace(verdict, analysed_at=now), crops)
    print(printable(f"{path}: {verdict}"), file=sys.stderr)
    sha256 = None
    with contextlib.suppress(OSError):
        if path.is_file():
            sha256 = sha256_of(path)
    return folder.keep(FailedFile(str(path), verdict, now, sha256))


def _explain(
    verdicts: Sequence[Verdict], folder: VerdictFolder, predictor: Predictor, count: int
) -> dict[str, TopFaces]:
    """Read the top faces of the most suspicious files, and compute their maps.

    After a failure, such as a server that became unreachable, no further maps are requested.
    """
    reported = sorted(verdicts, key=lambda verdict: verdict.suspicion, reverse=True)[:MAX_REPORTED]
    failure = "" if predictor.explain else "the model has no class-activation maps"
    top_faces = {}
    for verdict in (
        track(reported, "explaining faces", len(reported), "files")
        if sum(bool(verdict.faces) for verdict in reported) > 1
        else reported
    ):
        crops, cams = folder.read_top_faces(verdict.path)[:count], None
        if len(crops) and not failure:
            try:
                cams = predictor.explain(crops)
            except OSError as error:
                failure = f"the model could not be reached ({error})"
        top_faces[verdict.path] = TopFaces(crops, cams, "" if cams is not None else failure)
    return top_faces


def _describe_provenance(
    predictor: Predictor, faces: FaceOptions, thresholds: Calibration, options: PredictOptions
) -> Provenance:
    metadata = predictor.metadata
    source = "calibrated" if metadata.calibration else "0.5"
    return Provenance(
        model=metadata.name,
        version=metadata.version,
        digest=metadata.digest,
        where=predictor.name,
        jdfd_keras=jdfd_keras.__version__,
        faces=faces,
        uncertain_from=thresholds.uncertain_from,
        uncertain_to=thresholds.uncertain_to,
        thresholds=source if options.threshold is None else "threshold",
        calibration=metadata.calibration,
    )


def _escape(record: Verdict | FailedFile) -> Verdict | FailedFile:
    """Escape bytes of a file name that are not UTF-8, which no table or page can contain."""
    texts = {
        field.name: value.encode("utf-8", "backslashreplace").decode()
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), str)
    }
    return dataclasses.replace(record, **texts)
