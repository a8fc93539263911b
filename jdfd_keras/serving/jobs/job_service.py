"""File service without its interface: jobs, their files, and the threads that complete them.

Takes files with options; returns jobs. `file_routes.py` gives it an HTTP interface.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.credentials import read_trust_anchors
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.inference.verdict import Provenance
from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import sync
from jdfd_keras.io.workers import check_limits, count_workers
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    FileServiceOptions,
    LimitOptions,
    PredictOptions,
)
from jdfd_keras.serving.jobs.job_reports import JobReports
from jdfd_keras.serving.jobs.job_runner import JobRunner
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import DONE, FAILED, Job, Submission
from jdfd_keras.serving.jobs.served_models import ServedModels, load_models
from jdfd_keras.serving.jobs.state_folder import (
    SHA256,
    SUFFIX,
    StateFolder,
    personalize_job,
    state_directory,
)
from jdfd_keras.serving.jobs.webhooks import Webhooks

MAX_ATTEMPTS = 10  # starts of an analysis that the server did not survive
SECONDS_BETWEEN_CLEANINGS = 60.0
MANY_FILES = 10**6  # the number of files is not known before


class JobService:
    """The service; a context manager, which loads the models and starts the threads.

    Attributes:
        options: Options of the service.
        limits: Limits of each file.
        state: The state folder.
        store: Jobs and analyses; its results have the stored names of the files as paths.
        webhooks: Callbacks.
        metadata: Metadata of the model, of several of the first one; None of plug-ins alone.
        engine_text: Engine of the scores.
        opinions: Facts about each model as text, if there are several.

    Example:
        >>> from shutil import copy
        >>> from jdfd_keras.io.files import sha256_of
        >>> with JobService("saved_models/detector", FileServiceOptions(state="state")) as service:
        ...     upload = Path(copy("face.png", service.state / "incoming"))
        ...     file = sha256_of(upload), upload.stat().st_size, ".png", ""
        ...     submission = service.make_submission(*file, PredictOptions(), annotate=False)
        ...     job, is_new = service.submit(submission, "a portrait.png", "", upload)
        >>> job.name, job.state, is_new
        ('a portrait.png', 'queued', True)
    """

    metadata: ModelMetadata | None
    engine_text: str
    opinions: tuple[str, ...]
    store: JobStore
    webhooks: Webhooks

    def __init__(
        self,
        model: str | Path | None,
        options: FileServiceOptions,
        *,
        limits: LimitOptions | None = None,
        engine: EngineOptions | None = None,
        opinions: Sequence[str | Path] = (),
        credentials: CredentialOptions | None = None,
    ):
        """Create a service that does nothing yet.

        Args:
            model: Model, as for `load_predictor`; the version that is the newest when it starts.
            options: State folder, root, limits and callbacks.
            limits: Limits of each file; the defaults if not given.
            engine: Engine of the scores.
            opinions: Further models and plug-ins, each of which judges each file on its own.
            credentials: Whose Content Credentials are trusted.
        """
        self.options, self.limits = options, limits or LimitOptions()
        check_limits(self.limits)
        self._given, self._engine = (model, *opinions), engine
        self._credentials = credentials or CredentialOptions()
        self._folder = StateFolder(state_directory(options.state), options.root)
        self.state = self._folder.path
        self._stopped = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "JobService":
        """Start.

        Raises:
            OSError: If another server uses the state folder, or a model cannot be loaded.
            ValueError: If an option is out of range.
        """
        anchors = self._credentials.trust_anchors
        trust_list = read_trust_anchors(anchors)[1] if anchors else ""
        if self._folder.root and not self._folder.root.is_dir():
            raise NotADirectoryError(
                f"Expected a folder as --root; got {self.options.root}. Check the path."
            )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._folder.open())
            self.store = JobStore(self._folder.database, self.options.max_jobs)
            stack.callback(self.store.close)
            self._models = load_models(
                self._given, self._engine, self.limits, load_predictor, trust_list
            )
            stack.callback(self._models.close)
            self._describe_models(self._models)
            names = filter(None, (name.strip() for name in self.options.callback_hosts.split(",")))
            self.webhooks = Webhooks(self.store, self.options.callback_secret, frozenset(names))
            num_workers = count_workers(self.options.workers, MANY_FILES)
            self._reports = JobReports(self._folder, self._models, self.limits)
            self._runner = JobRunner(
                *(self.store, self._folder, self._models, self.limits, num_workers),
                *(self._hide_paths, self._credentials),
            )
            describe = functools.partial(self._runner.describe_crashed, attempts=MAX_ATTEMPTS)
            self.store.recover(MAX_ATTEMPTS, describe)
            self._clean()
            stack.enter_context(self.webhooks)
            cleaner = threading.Thread(target=self._clean_regularly, name="cleaner", daemon=True)
            cleaner.start()
            stack.callback(cleaner.join)
            stack.callback(self._stopped.set)
            self._runner.start()
            stack.callback(self._runner.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all threads and processes; what they were doing is done after the next start."""
        self._stack.close()

    def make_submission(
        self,
        sha256: str,
        file_bytes: int,
        suffix: str,
        path: str,
        options: PredictOptions,
        annotate: bool,
    ) -> Submission:
        """Return a submission of a file to these models.

        Args:
            sha256: SHA-256 of the file, hexadecimal.
            file_bytes: Its size.
            suffix: Suffix of its name in lower case, such as ".mp4"; or "".
            path: Path of a file below `options.root`, relative to that or absolute; "": an upload.
            options: Threshold, frames, tracks and detector.
            annotate: Whether to draw the verdict on a copy of the file.

        Raises:
            ValueError: If an option does not suit the model, or a name is not plain.
        """
        self._models.check(options)
        if annotate and self._models.single is None:
            raise ValueError(
                f"Expected annotate=false with several models; got true for {len(self.opinions)}. "
                "The report of each model shows its boxes and scores on the file."
            )
        if not (SHA256.fullmatch(sha256) and SUFFIX.fullmatch(suffix)):
            raise ValueError(
                f"Expected a SHA-256 and a suffix such as .mp4; got {sha256!r} and {suffix!r}. "
                "Write both in lower case."
            )
        if path:
            root = self._folder.root
            real = (root / path).resolve() if root else None
            if root is None or real is None or not real.is_relative_to(root):
                raise ValueError(
                    f"Expected a path below the root {self.options.root}; got {path}. Choose a "
                    "file in that folder."
                )
            path = str(real.relative_to(root))
        identity = self._models.identity
        return Submission(sha256, file_bytes, suffix, path, options, annotate, *identity)

    def submit(
        self, submission: Submission, name: str, callback: str = "", upload: Path | None = None
    ) -> tuple[Job, bool]:
        """Store a job, and its file, which is on disk when this returns.

        Args:
            submission: Of `make_submission`.
            name: File name of the job.
            callback: URL that is told of the end, which `webhooks.check` allows; "" for none.
            upload: The received file, in `incoming` of the state folder, which is moved; None for
                one below the root.

        Returns:
            The job, and whether it is new.

        Raises:
            QueueFullError: If too many files wait.
            OSError: If it cannot be stored, with errno ENOSPC if the disk is full; nothing of it
                is then kept.
        """
        if upload is not None:
            sync(upload)  # before the lock, since it takes time
        with self._folder.lock:
            try:
                if upload is not None:
                    self._folder.keep_upload(submission, upload)
                job, is_new = self.store.submit(submission, name, callback)
            except OSError:
                with contextlib.suppress(OSError):
                    self._folder.clean(self.store.live_names)
                raise
        self._runner.wake()
        return self._complete(job), is_new

    def get(self, job_id: str) -> Job | None:
        """Return a job with its result, in which the path is the name of the job; None if none."""
        job = self.store.get(job_id)
        return job and self._complete(job)

    def list(self, query: str = "", limit: int = 50, offset: int = 0) -> tuple[Sequence[Job], int]:
        """Return jobs without results, as `JobStore.list`, with names as `get`."""
        jobs, total = self.store.list(query, limit, offset)
        return [self._complete(job) for job in jobs], total

    def progress(self, job: Job) -> float:
        """Return the share of a job that is done, from 0 to 1."""
        return 1.0 if job.state in (DONE, FAILED) else self._runner.progress(job.submission.key)

    def report(self, job: Job, name: str) -> Path:
        """Return the path of a page or annotated file of a job that has ended; see `JobReports`.

        Raises:
            FileNotFoundError: If it has no such file, or there is no Chromium for a PDF.
            OSError: If a page cannot be written.
        """
        return self._reports.find(personalize_job(job), name)

    def report_page(self, job: Job, label: str, name: str) -> Path:
        """Return the path of a page of one model beside a report, as `report`."""
        return self._reports.find_page(personalize_job(job), label, name)

    def delete(self, job_id: str) -> bool:
        """Delete a job, and the files that no other needs; return whether it existed."""
        was_there = self.store.delete(job_id)
        if was_there:
            try:
                self._folder.clean(self.store.live_names)
            except OSError as error:  # the job is deleted; its files are, within a minute
                print_message(f"file service: {error}")
        return was_there

    def _clean_regularly(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_CLEANINGS):
            try:
                self._clean()
            except OSError as error:
                print_message(f"file service: {error}")
            self._runner.wake()  # if the disk was full

    def _clean(self) -> None:
        """Delete jobs and files that have been kept long enough."""
        try:
            if self.options.keep_hours:
                before = datetime.now(UTC) - timedelta(hours=self.options.keep_hours)
                self.store.expire(before.isoformat())
        finally:  # a full disk stops the first, and needs the second
            self._folder.clean(self.store.live_names)

    def _describe_models(self, models: ServedModels) -> None:
        self.metadata, self.engine_text = models.metadata, models.models[0].identity[1]
        self.opinions = () if models.single else tuple(m.describe() for m in models.models)

    def _complete(self, job: Job) -> Job:
        """Return a job with its own name in all texts, and whether its annotated file exists."""
        exists = not job.submission.annotate or self._reports.has_annotated(job)
        return dataclasses.replace(personalize_job(job), is_annotated=exists)

    def _hide_paths(self, provenance: Provenance) -> Provenance:
        """Shorten the paths of this machine to their last names."""
        where, command = provenance.where, provenance.command
        if "://" not in where:
            where = "/".join(Path(where).parts[-2:])
        models = (str(model or "") for model in self._given)
        anchors = self._credentials.trust_anchors
        for given in (self.options.state, self.options.root, anchors, *models):
            if "/" in given and "://" not in given:
                command = command.replace(given, Path(given).name)
        return dataclasses.replace(provenance, where=where, command=command)
