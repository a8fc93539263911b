"""Endless loop from queued analyses to results: the thread of the file service that computes.

Faces are extracted in other processes that stay, and scored in this one meanwhile, as `predict`
does. Takes analyses from a JobStore and returns outcomes to it.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import CHANGED, UnreadableFileError
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import (
    NO_FACE,
    Provenance,
    Verdict,
    choose_faces,
    decision_thresholds,
)
from jdfd_keras.io.console import print_message
from jdfd_keras.io.worker_process import IDLE, Part, WorkerCrashed
from jdfd_keras.io.workers import Workers
from jdfd_keras.options import FaceOptions, LimitOptions
from jdfd_keras.prediction.extraction import (
    ExtractedPart,
    describe_crash,
    extract_file,
    personalize,
    read_state,
)
from jdfd_keras.prediction.predictions import collect_predictions, describe_provenance
from jdfd_keras.prediction.result_folder import FailedFile, add_facts
from jdfd_keras.prediction.scoring import Judge, fail
from jdfd_keras.serving.jobs.analysis_tasks import AnnotateTask, ExtractTask, run_task
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import JobError, Outcome, Submission, digest_settings
from jdfd_keras.serving.jobs.state_folder import ANNOTATED, NO_ANNOTATION, StateFolder, stored_name

SECONDS_AFTER_FAILURE = 5.0  # until the next attempt to start processes, or to store a result
ANNOTATION_SHARE = 0.5  # of the progress


@dataclass
class _Analysis:
    """An analysis that runs."""

    submission: Submission
    path: Path
    faces: FaceOptions
    calibration: Calibration
    judge: Judge
    state: tuple[int, int] | None  # of the file, of `read_state`
    error: ValueError | None = None  # why it cannot begin
    progress: float = 0.0
    # Of the verdict while it is annotated.
    crops: list[np.ndarray] = dataclasses.field(default_factory=list)
    provenance: Provenance | None = None


class JobRunner:
    """The thread, and its processes.

    Args:
        store: Queued analyses, and their outcomes.
        folder: Files and results.
        predictor: The model; may be used by several threads.
        limits: Limits of each file.
        num_workers: Processes besides this one; at least 1.
        hide_paths: Removes folders of this machine from a provenance.
    """

    def __init__(
        self,
        store: JobStore,
        folder: StateFolder,
        predictor: Predictor,
        limits: LimitOptions,
        num_workers: int,
        hide_paths: Callable[[Provenance], Provenance] = lambda provenance: provenance,
    ):
        """Start nothing yet."""
        self._store, self._folder, self._predictor = store, folder, predictor
        self._limits, self._num_workers, self._hide_paths = limits, num_workers, hide_paths
        self._running: dict[str, _Analysis] = {}  # by key
        self._to_annotate: collections.deque[AnnotateTask] = collections.deque()
        self._stopped = threading.Event()
        self._workers: Workers | None = None
        # Results state the command of the thread that creates this one.
        run = functools.partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="jobs", daemon=True)

    def start(self) -> None:
        """Start the thread, which starts the processes."""
        self._thread.start()

    def close(self) -> None:
        """End the processes at once; what they were doing returns to the queue."""
        self._stopped.set()
        if workers := self._workers:
            workers.end()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Look for queued analyses."""
        if workers := self._workers:
            workers.wake()

    def progress(self, key: str) -> float:
        """Return the share of a running analysis that is done, from 0 to 1."""
        analysis = self._running.get(key)
        return analysis.progress if analysis else 0.0

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001, the service must not end
                _report(error)
            finally:
                self._workers = None
                self._release()
            self._stopped.wait(SECONDS_AFTER_FAILURE)

    def _serve(self) -> None:
        task = functools.partial(run_task, extract=extract_file, limits=self._limits)
        with Workers(task, self._num_workers, self._limits, has_parts=True) as workers:
            self._workers = workers
            if self._stopped.is_set():  # meanwhile: `close` did not find the processes
                return
            workers.start()
            for task, result in workers.serve(self._take):
                try:
                    self._receive(task, result)
                except Exception as error:  # noqa: BLE001, must cost this analysis only
                    _report(error)
                    if analysis := self._running.get(task.key):
                        self._fail(analysis, _describe_bug(error))
                if self._stopped.is_set():
                    return

    def _release(self) -> None:
        """Return what runs to the queue."""
        self._to_annotate.clear()
        for key in list(self._running):
            del self._running[key]
            try:
                self._store.release(key)
            except OSError as error:  # the next start does it
                _report(error)

    def _take(self) -> Any:
        """Return the next task, or IDLE."""
        while not self._stopped.is_set():
            if self._to_annotate:
                return self._to_annotate.popleft()
            try:
                claimed = self._store.claim()
            except OSError as error:  # such as a full disk; asked again later
                _report(error)
                return IDLE
            if claimed is None:
                return IDLE
            key, submission = claimed
            self._folder.discard(key)  # of an earlier attempt
            analysis = self._running[key] = self._begin(submission)
            if analysis.error is None:
                return ExtractTask(key, analysis.path, analysis.faces)
            self._fail(analysis, analysis.error)
        return IDLE

    def _begin(self, submission: Submission) -> _Analysis:
        metadata, options = self._predictor.metadata, submission.options
        if submission.annotate:
            options = dataclasses.replace(options, every=options.every or 1)
        faces, calibration = metadata.faces, metadata.calibration or Calibration()
        engine, problem = self._predictor.engine.describe(), None
        try:
            faces = choose_faces(metadata, options)
            calibration = decision_thresholds(metadata, options)
            submitted = submission.digest, submission.engine, submission.settings
            if submitted != (metadata.digest, engine, digest_settings(metadata)):
                raise ValueError(
                    f"Expected the model {submission.digest[:8]} with {submission.engine}, which "
                    f"the file was submitted for; got {metadata.digest[:8]} with {engine}, or "
                    "another calibration, after a new start of the server. Submit the file again."
                )
        except ValueError as error:
            problem = error
        path = self._folder.source(submission)
        judge = Judge(self._predictor, calibration, None)
        state = read_state(path)
        return _Analysis(submission, path, faces, calibration, judge, state, problem)

    def _receive(self, task: ExtractTask | AnnotateTask, result: Any) -> None:
        """Continue or end an analysis with a part or the result of a task."""
        analysis = self._running[task.key]
        part = result.value if isinstance(result, Part) else None
        if isinstance(part, ExtractedPart):
            analysis.judge.add(analysis.path, part)
            share = min(part.done / max(part.total, part.done + 1), 1.0)
            whole = 1 - ANNOTATION_SHARE if analysis.submission.annotate else 1.0
            analysis.progress = whole * share
        elif part is not None:
            done, total = part
            share = min(done / max(total, done + 1), 1.0)
            analysis.progress = 1 - ANNOTATION_SHARE + ANNOTATION_SHARE * share
        elif isinstance(task, ExtractTask):
            self._judge(task, analysis, result)
        else:
            self._end_annotation(task, analysis, result)

    def _judge(self, task: ExtractTask, analysis: _Analysis, result: Any) -> None:
        path, submission = analysis.path, analysis.submission
        if isinstance(result, WorkerCrashed):
            result = describe_crash(path, result)
        if isinstance(result, Extraction) and result.sha256 != submission.sha256:
            result = UnreadableFileError(
                f"Expected the bytes of {path} that were submitted; got others. Submit the file "
                "again.",
                code=CHANGED,
            )
        if not isinstance(result, (Extraction, OSError)):
            raise result
        record, crops = analysis.judge.judge(path, result)
        if isinstance(record, FailedFile) or not submission.annotate:
            self._finish(analysis, record, crops)
            return
        analysis.crops, analysis.progress = crops, 1 - ANNOTATION_SHARE
        analysis.provenance = self._describe(analysis)
        out = self._folder.analysis(task.key) / ANNOTATED[record.duration_s == 0]
        self._to_annotate.append(
            AnnotateTask(task.key, path, out, record, analysis.provenance, analysis.faces.every)
        )

    def _end_annotation(self, task: AnnotateTask, analysis: _Analysis, result: Any) -> None:
        """End an analysis; a failed annotation costs no verdict."""
        if isinstance(result, WorkerCrashed):
            result = describe_crash(analysis.path, result)
        if isinstance(result, Exception):
            reason = " ".join(str(result).split())
            print_message(f"{task.path}: not annotated: {reason}")
            name = stored_name(analysis.submission)
            reason = personalize(reason, str(task.path), name)
            reason = reason.replace(f"{task.out.parent}{os.sep}", "")
            with contextlib.suppress(OSError):  # the disk may be full, too
                (task.out.parent / NO_ANNOTATION).write_text(reason, encoding="utf-8")
        self._finish(analysis, task.verdict, analysis.crops)

    def _fail(self, analysis: _Analysis, error: Exception) -> None:
        self._finish(analysis, fail(analysis.path, error))

    def _describe(self, analysis: _Analysis) -> Provenance:
        options = analysis.submission.options
        return self._hide_paths(
            describe_provenance(self._predictor, analysis.faces, analysis.calibration, options)
        )

    def _finish(
        self,
        analysis: _Analysis,
        record: Verdict | FailedFile,
        crops: list[np.ndarray] | None = None,
    ) -> None:
        """Store the outcome; wait if the disk is full."""
        key = analysis.submission.key
        if isinstance(record, FailedFile):
            record = add_facts(record, analysis.state)
        outcome = self._make_outcome(analysis, record)
        while True:
            try:
                with self._folder.lock:
                    self._folder.keep_top_faces(key, crops or [])
                    if not self._store.finish(key, outcome):
                        self._folder.discard(key)
                del self._running[key]
                return
            except OSError as error:
                _report(error)
                if self._stopped.wait(SECONDS_AFTER_FAILURE):
                    return

    def _make_outcome(self, analysis: _Analysis, record: Verdict | FailedFile) -> Outcome:
        provenance = analysis.provenance or self._describe(analysis)
        result = collect_predictions([record], provenance).to_dict()
        name = stored_name(analysis.submission)
        result = personalize(result, str(analysis.path), name)
        if isinstance(record, FailedFile):
            [failed] = result["failed"]
            return Outcome(result, error=JobError(failed["code"], failed["error"]))
        error = None
        if record.verdict == NO_FACE:
            text = (
                f"Expected a face; got none in the sampled frames of {name} ({record.num_frames}). "
                "Sample more frames, or check that a face is large enough."
            )
            error = JobError("no_face", text)
        return Outcome(result, record.verdict, record.score, error)

    def describe_crashed(self, submission: Submission, attempts: int) -> Outcome:
        """Return the outcome of an analysis whose server died with it again and again."""
        analysis = self._begin(submission)
        record = FailedFile(
            str(analysis.path),
            f"Expected a file that can be analysed; got {analysis.path}, during whose analysis the "
            f"server ended {attempts} times. Submit it again if these had another reason.",
            code="crashed",
        )
        return self._make_outcome(analysis, add_facts(record, analysis.state))


def _describe_bug(error: Exception) -> ValueError:
    kind = type(error).__name__
    return ValueError(
        f"Expected an analysis; got an error of the server ({kind}), which its log has. Try again."
    )


def _report(error: Exception) -> None:
    """Print an error of the service itself, with where it happened unless it is of the system."""
    text = str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error))
    print_message(f"file service: {text}")
