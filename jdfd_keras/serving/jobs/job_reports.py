"""Pages of a job that has ended, made when they are first requested, and its annotated file.

Takes a job with its result; returns the path of a file. The page is that of `predict --report`.
"""

import dataclasses
import threading
import weakref
from pathlib import Path

from jdfd_keras.inference.backends import Predictor
from jdfd_keras.options import LimitOptions, PredictRuntime
from jdfd_keras.prediction.evidence import explain_top_faces
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.serving.jobs.job_types import Job
from jdfd_keras.serving.jobs.state_folder import ANNOTATED, NO_ANNOTATION, StateFolder

HTML, PDF, PLAYER = "report.html", "report.pdf", "report-player.mp4"


class JobReports:
    """The pages of all jobs; may be used by several threads, each page is made once.

    Args:
        folder: Files and results.
        predictor: The model; may be used by several threads.
        limits: Limits of each file.
    """

    def __init__(self, folder: StateFolder, predictor: Predictor, limits: LimitOptions):
        """Make no page yet."""
        self._folder, self._predictor, self._limits = folder, predictor, limits
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = (
            weakref.WeakValueDictionary()
        )

    def find(self, job: Job, name: str) -> Path:
        """Return the path of a page, a player or an annotated file; a page is made if needed.

        Args:
            job: A job that has ended, with its result, which has the name of the job as its path.
            name: HTML, PDF, PLAYER or one of ANNOTATED.

        Raises:
            FileNotFoundError: If the job has no such file, or there is no Chromium for a PDF.
            OSError: If the page cannot be written.
        """
        if job.result is None or name not in (HTML, PDF, PLAYER, *ANNOTATED):
            raise FileNotFoundError(
                f"Expected the name of a file of a job that has ended; got {name}. Try {HTML}."
            )
        if name in ANNOTATED:
            return self._find_annotated(job, name)
        path = self._folder.pages(job.submission.key, job.id) / name
        page = path.with_name(HTML) if name == PLAYER else path
        with self._guard:
            lock = self._locks.setdefault(job.id, threading.Lock())
        with lock:
            if not page.is_file():
                self._make(job, page)
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected a player beside {HTML}; got none: a small video is within the page."
            )
        return path

    def _make(self, job: Job, page: Path) -> None:
        predictions = Predictions.from_dict(job.result or {})
        key = job.submission.key
        top_faces = explain_top_faces(
            predictions.most_suspicious,
            lambda _: self._folder.read_top_faces(key),
            self._predictor,
            PredictRuntime().explain,
        )
        predictions = dataclasses.replace(predictions, top_faces=top_faces)
        page.parent.mkdir(parents=True, exist_ok=True)
        source = self._folder.source(job.submission)
        sources = dict.fromkeys(predictions.paths, source)
        write_report(predictions, page, overwrite=True, limits=self._limits, sources=sources)

    def _find_annotated(self, job: Job, name: str) -> Path:
        folder = self._folder.analysis(job.submission.key)
        if (folder / name).is_file():
            return folder / name
        reason = "Submit the file with annotate=true."
        if (folder / NO_ANNOTATION).is_file():
            reason = (folder / NO_ANNOTATION).read_text(encoding="utf-8")
        others = [other for other in ANNOTATED if (folder / other).is_file()]
        reason = f"Try {others[0]}." if others else reason
        raise FileNotFoundError(f"Expected the annotated file {name}; got none. {reason}")
