"""Endless loop from queued analyses to results: the thread of the file service that computes.

Faces are extracted in other processes that stay, and scored in this one meanwhile, as `predict`
does. Takes analyses from a JobStore and returns outcomes to it.
"""

import collections
import contextlib
import functools
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.inference.verdict import Provenance
from jdfd_keras.io.console import print_message
from jdfd_keras.io.worker_process import IDLE, Part, WorkerCrashed
from jdfd_keras.io.workers import Workers
from jdfd_keras.options import CredentialOptions, LimitOptions
from jdfd_keras.prediction.extraction import (
    describe_crash,
    extract_file,
    personalize,
)
from jdfd_keras.serving.jobs.analysis_tasks import AnnotateTask, ExtractTask, Task, run_task
from jdfd_keras.serving.jobs.file_analysis import (
    ANNOTATION_SHARE,
    FileAnalysis,
    describe_bug,
    print_error,
)
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import Outcome, Submission
from jdfd_keras.serving.jobs.served_models import ServedModels
from jdfd_keras.serving.jobs.state_folder import ANNOTATED, NO_ANNOTATION, StateFolder, stored_name

SECONDS_AFTER_FAILURE = 5.0  # until the next attempt to start processes, or to store a result


class JobRunner:
    """The thread, and its processes.

    Args:
        store: Queued analyses, and their outcomes.
        folder: Files and results.
        models: The models; may be used by several threads.
        limits: Limits of each file.
        num_workers: Processes besides this one; at least 1.
        hide_paths: Removes folders of this machine from a provenance.
        credentials: Whose Content Credentials are trusted.
    """

    def __init__(
        self,
        store: JobStore,
        folder: StateFolder,
        models: ServedModels,
        limits: LimitOptions,
        num_workers: int,
        hide_paths: Callable[[Provenance], Provenance] = lambda provenance: provenance,
        credentials: CredentialOptions | None = None,
    ):
        """Start nothing yet."""
        self._store, self._folder, self._models = store, folder, models
        self._limits, self._num_workers, self._hide_paths = limits, num_workers, hide_paths
        self._credentials = credentials
        self._running: dict[str, FileAnalysis] = {}  # by key
        self._tasks: collections.deque[Task] = collections.deque()  # of these, not begun yet
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
                print_error(error)
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
                    print_error(error)
                    if analysis := self._running.get(task.key):
                        analysis.fail(describe_bug(error))
                        self._finish(analysis)
                if self._stopped.is_set():
                    return

    def _release(self) -> None:
        """Return what runs to the queue."""
        self._tasks.clear()
        for key in list(self._running):
            del self._running[key]
            try:
                self._store.release(key)
            except OSError as error:  # the next start does it
                print_error(error)

    def _take(self) -> Any:
        """Return the next task, or IDLE."""
        while not self._stopped.is_set():
            if self._tasks:
                return self._tasks.popleft()
            try:
                claimed = self._store.claim()
            except OSError as error:  # such as a full disk; asked again later
                print_error(error)
                return IDLE
            if claimed is None:
                return IDLE
            key, submission = claimed
            self._folder.discard(key)  # of an earlier attempt
            analysis = self._running[key] = self._begin(submission)
            self._tasks.extend(analysis.tasks)
            if not analysis.tasks:
                self._finish(analysis)
        return IDLE

    def _begin(self, submission: Submission) -> FileAnalysis:
        path = self._folder.source(submission)
        return FileAnalysis(submission, path, self._models, self._hide_paths, self._credentials)

    def _receive(self, task: Task, result: Any) -> None:
        """Continue or end an analysis with a part or the result of a task."""
        analysis = self._running.get(task.key)
        if isinstance(task, AnnotateTask):
            if analysis and isinstance(result, Part):
                done, total = result.value
                share = min(done / max(total, done + 1), 1.0)
                analysis.progress = 1 - ANNOTATION_SHARE + ANNOTATION_SHARE * share
            elif analysis:
                self._end_annotation(task, analysis, result)
        elif analysis is None or not analysis.has_task(task):
            return  # of an analysis that ended before, because of an error of the program
        elif isinstance(result, Part):
            assert isinstance(task, ExtractTask)
            analysis.add(task, result.value)
        else:
            analysis.receive(task, result)
            if not analysis.tasks:
                self._annotate_or_finish(task.key, analysis)

    def _annotate_or_finish(self, key: str, analysis: FileAnalysis) -> None:
        verdict = analysis.verdict
        if verdict is None or not analysis.submission.annotate:
            self._finish(analysis)
            return
        out = self._folder.analysis(key) / ANNOTATED[verdict.duration_s == 0]
        provenance = analysis.describe()
        every = provenance.faces.every
        self._tasks.append(AnnotateTask(key, analysis.path, out, verdict, provenance, every))

    def _end_annotation(self, task: AnnotateTask, analysis: FileAnalysis, result: Any) -> None:
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
        self._finish(analysis)

    def _finish(self, analysis: FileAnalysis) -> None:
        """Store the outcome; wait if the disk is full."""
        key, outcome = analysis.submission.key, analysis.make_outcome()
        while True:
            try:
                with self._folder.lock:
                    self._folder.keep_top_faces(key, analysis.crops)
                    if not self._store.finish(key, outcome):
                        self._folder.discard(key)
                del self._running[key]
                return
            except OSError as error:
                print_error(error)
                if self._stopped.wait(SECONDS_AFTER_FAILURE):
                    return

    def describe_crashed(self, submission: Submission, attempts: int) -> Outcome:
        """Return the outcome of an analysis whose server died with it again and again."""
        analysis = self._begin(submission)
        text = (
            f"Expected a file that can be analysed; got {analysis.path}, during whose analysis the "
            f"server ended {attempts} times. Submit it again if these had another reason."
        )
        analysis.fail(UnreadableFileError(text, code="crashed"))
        return analysis.make_outcome()
