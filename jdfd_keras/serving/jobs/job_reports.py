"""Pages of a job that has ended, made when they are first requested, and its annotated file.

Takes a job with its result; returns the path of a file. The page is that of `predict --report`,
with several models their comparison and the page of each.
"""

import dataclasses
import threading
import weakref
from pathlib import Path

import numpy as np

from jdfd_keras.options import LimitOptions, PredictRuntime
from jdfd_keras.prediction.evidence import TopFaces, explain_top_faces
from jdfd_keras.prediction.opinions import Opinions
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.reporting.opinions_page import write_opinions
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.serving.jobs.job_types import Job
from jdfd_keras.serving.jobs.served_models import ServedModels
from jdfd_keras.serving.jobs.state_folder import ANNOTATED, NO_ANNOTATION, StateFolder

HTML, PDF, PLAYER = "report.html", "report.pdf", "report-player.mp4"
# Of each model beside the comparison of several; see `write_opinions`.
FOLDER, PAGES = "report_files", ("index.html", "index-player.mp4", "index.pdf")
OTHER_MODEL = "the server was started with other models since"


class JobReports:
    """The pages of all jobs; may be used by several threads, each page is made once.

    Args:
        folder: Files and results.
        models: The models; may be used by several threads.
        limits: Limits of each file.
    """

    def __init__(self, folder: StateFolder, models: ServedModels, limits: LimitOptions):
        """Make no page yet."""
        self._folder, self._models, self._limits = folder, models, limits
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
        self._make_once(job, path.with_name(HTML) if name == PLAYER else path)
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected a player beside {HTML}; got none: a small video is within the page."
            )
        return path

    def find_page(self, job: Job, label: str, name: str) -> Path:
        """Return the path of a page or player of one of several models; made if needed.

        Args:
            job: As for `find`.
            label: Folder of the model; untrusted text.
            name: One of PAGES.

        Raises:
            FileNotFoundError: If there is no such page.
            OSError: As `find`.
        """
        pages = self._folder.pages(job.submission.key, job.id)
        if job.result is not None and "models" in job.result and name in PAGES:
            self._make_once(job, pages / (PDF if name.endswith(".pdf") else HTML))
            # The names of existing folders alone: no other text becomes part of a path.
            folder = pages / FOLDER
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.name == label and (entry / name).is_file():
                    return entry / name
        raise FileNotFoundError(f"Expected a page of a model; got {label}/{name}. See {HTML}.")

    def has_annotated(self, job: Job) -> bool:
        """Return whether the annotated file of a job exists."""
        folder = self._folder.analysis(job.submission.key)
        return any((folder / name).is_file() for name in ANNOTATED)

    def _make_once(self, job: Job, page: Path) -> None:
        with self._guard:
            lock = self._locks.setdefault(job.id, threading.Lock())
        with lock:
            if not page.is_file():
                self._make(job, page)

    def _make(self, job: Job, page: Path) -> None:
        values = job.result or {}
        page.parent.mkdir(parents=True, exist_ok=True)
        source = self._folder.source(job.submission)
        if "models" not in values:
            predictions = self._explain(job, Predictions.from_dict(values))
            sources = dict.fromkeys(predictions.paths, source)
            write_report(predictions, page, overwrite=True, limits=self._limits, sources=sources)
            return
        opinions = Opinions.from_dict(values)
        explained = tuple(
            known and self._explain(job, known, number)
            for number, known in enumerate(opinions.predictions)
        )
        opinions = dataclasses.replace(opinions, predictions=explained)
        sources = dict.fromkeys((file.path for file in opinions.files), source)
        write_opinions(opinions, page, overwrite=True, limits=self._limits, sources=sources)

    def _explain(self, job: Job, predictions: Predictions, number: int = 0) -> Predictions:
        """Add the top faces of a model, by its position, with their maps."""
        shown, key = predictions.most_suspicious, job.submission.key
        predictor = self._models.find(predictions.provenance.digest)

        def read(_: str) -> np.ndarray:
            return self._folder.read_top_faces(key, number)

        if predictor:
            top_faces = explain_top_faces(shown, read, predictor, PredictRuntime().explain)
        else:
            top_faces = {one.path: TopFaces(read(one.path), None, OTHER_MODEL) for one in shown}
        return dataclasses.replace(predictions, top_faces=top_faces)

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
