"""Verdicts on many files: faces are extracted in other processes and scored in this one.

Takes paths and a model or the URL of one; returns Predictions. On request it keeps the verdicts in
a result folder, so that a run can be resumed, and writes an annotated video.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.client.calibration import check_threshold
from jdfd_keras.faces.credentials import read_trust_anchors
from jdfd_keras.faces.overlay import Overlay, check_overlay
from jdfd_keras.inference.backends import Predictor, load_predictor
from jdfd_keras.inference.verdict import (
    NUM_TOP_FACES,
    Verdict,
    choose_faces,
    decision_thresholds,
    judge,
)
from jdfd_keras.io.console import printable
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.io.workers import (
    WorkerCrashed,
    check_limits,
    count_workers,
    run_all,
    run_with_progress,
)
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FaceOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
)
from jdfd_keras.prediction.annotate import annotate_file
from jdfd_keras.prediction.extraction import ExtractedPart, Extractor
from jdfd_keras.prediction.file_list import FileList, describe_skipped, list_files
from jdfd_keras.prediction.model_run import Extractions, open_run
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.prediction.result_folder import LINES, check_paths
from jdfd_keras.prediction.scoring import FaceScores, find_missing, guess_faces


def predict_file(
    path: str | Path,
    predictor: Predictor,
    options: PredictOptions | None = None,
    limits: LimitOptions | None = None,
    credentials: CredentialOptions | None = None,
) -> Verdict:
    """Return the verdict on one video or image, whose faces are extracted in another process.

    Args:
        path: The file.
        predictor: Predictor of `load_predictor`.
        options: Threshold, frames and tracks.
        limits: Limits of the file; the defaults if not given.
        credentials: How the Content Credentials of the file are checked; the defaults if not given.

    Raises:
        OSError: If the file is not a video or image or is beyond a limit, or the predictor's server
            cannot be reached.
        ValueError: If an option is out of range, or a score is not a number from 0 to 1.

    Example:
        >>> predictor = load_predictor("saved_models/detector")
        >>> verdict = predict_file("video.mp4", predictor, PredictOptions(frames_per_video=3))
        >>> verdict.num_frames, len(verdict.tracks)
        (3, 1)
    """
    options, limits = options or PredictOptions(), limits or LimitOptions()
    check_limits(limits)
    faces = choose_faces(predictor.metadata, options)
    calibration = decision_thresholds(predictor.metadata, options)
    scores = FaceScores(predictor)
    with Extractor([Path(path)], faces, 1, limits, credentials) as extractor:
        for _, result in extractor.receive():
            if isinstance(result, ExtractedPart):
                scores.add(result)
            elif isinstance(result, OSError):
                raise result
            else:
                extraction, scored = scores.finish(result)
                return judge(
                    path,
                    extraction,
                    predictor,
                    calibration,
                    engine=predictor.engine.describe(),
                    scored=scored,
                    reconstruct_error=predictor.reconstruct_error,
                    demonstration=predictor.metadata.demonstration,
                )
    raise AssertionError("every file has a result")


def predict_files(
    paths: Sequence[str | Path],
    options: PredictOptions | None = None,
    runtime: PredictRuntime | None = None,
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    annotate: str | Path | None = None,
    overwrite: bool = False,
    explain: bool = False,
    limits: LimitOptions | None = None,
    engine: EngineOptions | None = None,
    credentials: CredentialOptions | None = None,
) -> Predictions:
    """Return the verdict on each of several files; a file that fails does not stop the others.

    Faces are extracted in other processes, so that a file that crashes a decoder fails alone; the
    error of a failed file is also printed to stderr at once.

    Args:
        paths: Videos, images, and folders, which are searched at any depth.
        options: Threshold, frames, tracks and detector; with the detector `none`, images are taken
            as they are.
        runtime: Number of processes besides this one, by default one, and of explained faces.
        model: Path or name of a local model, or URL of a served one, as for `load_predictor`; by
            default the detector that comes with the package.
        out: Result folder, which keeps each verdict as soon as it is made (`verdicts.jsonl`) and
            all of them at the end (`verdicts.csv`). A second call with it does not analyse files
            again that have a verdict and have not changed since. The result reads verdicts from it
            when they are used, so keep the folder as long as the result.
        annotate: Annotated video or image of the only file; see `annotate_file`. All frames are
            then sampled, unless `options.every` states otherwise.
        overwrite: Replace an existing annotated file; verdicts in `out` are kept in any case.
        explain: Whether to return the top faces with their class-activation maps, for
            `write_report`.
        limits: Limits of one file; the defaults if not given.
        engine: Backend and precision of the scores of a local model, as for `load_predictor`.
        credentials: How Content Credentials are checked; the defaults if not given.

    Raises:
        OSError: If no file or no model exists, the model's server becomes unreachable, or an output
            cannot be written. Verdicts made until then are kept in `out`.
        ValueError: If an option is out of range, there is no file, `out` was made with another
            model or other options, or an output would replace an input.

    Example:
        >>> predictions = predict_files(["video.mp4"], model="saved_models/detector", out="results")
        >>> predictions.provenance.version, len(predictions.files[0].faces)
        (1, 6)
    """
    options, runtime = options or PredictOptions(), runtime or PredictRuntime(workers=1)
    limits = limits or LimitOptions()
    check_numbers(options, runtime, limits)
    if credentials and credentials.trust_anchors:  # before a model is loaded
        read_trust_anchors(credentials.trust_anchors)
    files, skipped = list_files(paths)
    if annotate is not None and len(files) != 1:
        raise ValueError(
            f"Expected one file to annotate; got {len(files)}. Annotate them one by one."
        )
    check_paths(files, model=model, out=out, annotate=annotate, overwrite=overwrite)
    failed = find_missing(files, limits)
    if annotate is not None:
        # In another process, as it decodes; if that crashes, so does the analysis, which names it.
        check = functools.partial(check_overlay, out=annotate, limits=limits)
        list(run_all(check, files, 1, limits))
        options = dataclasses.replace(options, every=options.every or 1)
    if skipped:
        print(describe_skipped(skipped), file=sys.stderr)
    existing = files.select(name not in failed for name in files.names) if failed else files
    num_workers = count_workers(runtime.workers, len(existing))

    def open_extractor(paths: FileList, faces: FaceOptions) -> Extractor:
        return Extractor(paths, faces, num_workers, limits, credentials)

    with contextlib.ExitStack() as stack:
        stack.enter_context(reraise_disk_full(*describe_space(out)))
        extractions = stack.enter_context(Extractions(open_extractor))
        # Extraction starts while the model is loaded, unless there may be verdicts already.
        guess = None if out and Path(out, LINES).exists() else guess_faces(model, options)
        if guess:
            extractions.start(existing, guess)
        predictor = load_predictor(model, engine)
        stack.callback(predictor.close)
        # Top faces need a folder also without a result folder.
        directory = out or stack.enter_context(TemporaryFolder())
        # Top faces are kept even with --explain 0: a later run may need them for a report.
        num_top_faces = runtime.explain or NUM_TOP_FACES
        run = stack.enter_context(
            open_run(
                predictor,
                options,
                files.read_states(),
                failed,
                directory,
                out=out,
                num_top_faces=num_top_faces,
                credentials=credentials,
            )
        )
        extractions.judge(files, [run])
        predictions = run.collect(files.names, len(skipped), runtime.explain if explain else None)
    if annotate is not None and predictions.files:
        error = _annotate(files[0], annotate, predictions, run.faces.every, limits)
        predictions = dataclasses.replace(predictions, annotation_error=error)
    return predictions


def check_numbers(options: PredictOptions, runtime: PredictRuntime, limits: LimitOptions) -> None:
    """Check that the options of a prediction are within their ranges.

    Example:
        >>> check_numbers(PredictOptions(every=-1), PredictRuntime(), LimitOptions())
        Traceback (most recent call last):
        ValueError: Expected --frames-per-video to be at least 1, and --every, ... got 32, -1, ...
    """
    if options.frames_per_video < 1 or min(options.every, runtime.workers, runtime.explain) < 0:
        raise ValueError(
            "Expected --frames-per-video to be at least 1, and --every, --workers and --explain "
            f"at least 0; got {options.frames_per_video}, {options.every}, {runtime.workers} and "
            f"{runtime.explain}. Omit the option to use its default."
        )
    if options.threshold is not None:
        check_threshold(options.threshold)
    check_limits(limits)


def describe_space(out: str | Path | None) -> tuple[str, str]:
    """Describe what a prediction writes, and what it does after a full disk.

    Args:
        out: The result folder, if there is one.

    Example:
        >>> describe_space("results")
        ('the verdicts in results and in the folder for temporary files', 'verdicts ... are kept')
        >>> describe_space(None)
        ('faces in the folder for temporary files (TMPDIR)', '')
    """
    if out is None:
        return "faces in the folder for temporary files (TMPDIR)", ""
    return f"the verdicts in {out} and in the folder for temporary files", (
        "verdicts made until now are kept"
    )


def _annotate(
    path: Path, out: str | Path, predictions: Predictions, every: int, limits: LimitOptions
) -> str:
    """Annotate the only file in another process; return why that failed, or ""."""
    (verdict,) = predictions.files
    annotate = functools.partial(
        annotate_file,
        out=out,
        verdict=verdict,
        provenance=predictions.provenance,
        every=every,
        limits=limits,
    )
    try:
        with reraise_disk_full(f"{out} and in the folder for temporary files"):
            result = run_with_progress(annotate, path, "annotating", limits)
    except OSError as error:
        result = error
    if isinstance(result, Overlay):
        for warning in result.warnings:
            print(printable(f"{out}: {warning}"), file=sys.stderr)
        return ""
    if isinstance(result, WorkerCrashed):
        result = f"Expected a file that can be annotated; got {path}, {result}"
    print(printable(f"{out}: {result}"), file=sys.stderr)
    return str(result)
