"""Folder of the file service: uploads by content, results by analysis, and who may use it.

jobs.sqlite              jobs and analyses, of `job_store.py`
lock                     of the server that uses the folder
incoming/                uploads that are being received; emptied at the start
files/SHA256.SUFFIX      uploads
results/KEY/             top faces of each model, and annotated file of an analysis
results/KEY/JOB/         pages of a job
"""

import contextlib
import dataclasses
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from jdfd_keras.io.files import atomic_path, replace_durably, sync
from jdfd_keras.prediction.extraction import personalize
from jdfd_keras.serving.jobs.job_store import LiveNames
from jdfd_keras.serving.jobs.job_types import Job, Submission

NO_SUFFIX = ".file"  # of the upload of a name without one; a bare hash is also in results
TOP_FACES = "top_faces.npy"  # of the first model; `top_faces-2.npy` of the second one
ANNOTATED = ("annotated.mp4", "annotated.png")
NO_ANNOTATION = "no_annotation.txt"  # why there is none
UNFINISHED = ".unfinished-*"
SUFFIX = re.compile(r"(\.[a-z0-9]+)?")
SHA256 = re.compile("[0-9a-f]{64}")


def state_directory(given: str = "") -> Path:
    """Return the state folder that is used if none is given: that of the user.

    Example:
        >>> state_directory("state")
        PosixPath('state')
        >>> state_directory().name
        'jdfd-keras'
    """
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if os.path.isabs(base) else Path.home() / ".local" / "state", "jdfd-keras")


def stored_name(submission: Submission) -> str:
    """Return the name of a file in stored results, in place of the path that was analysed.

    It is the name of the upload, or the path below `--root`: no folder of this machine.

    Example:
        >>> from jdfd_keras.options import PredictOptions
        >>> stored_name(Submission("ab", 9, ".mp4", "", PredictOptions(), False, "cd", "CPU"))
        'ab.mp4'
    """
    return submission.path or f"{submission.sha256}{submission.suffix or NO_SUFFIX}"


def personalize_job(job: Job) -> Job:
    """Return a job whose texts have its name in place of the stored one.

    Example:
        >>> from jdfd_keras.options import PredictOptions
        >>> from jdfd_keras.serving.jobs.job_types import JobError
        >>> file = Submission("ab", 9, ".mp4", "", PredictOptions(), False, "cd", "CPU")
        >>> error = JobError("undecodable", "Expected a video; got ab.mp4.")
        >>> personalize_job(Job("0" * 32, "a clip.mp4", file, error=error)).error.message
        'Expected a video; got a clip.mp4.'
    """
    path, error = stored_name(job.submission), job.error
    if error is not None:
        error = dataclasses.replace(error, message=personalize(error.message, path, job.name))
    return dataclasses.replace(job, error=error, result=personalize(job.result, path, job.name))


class StateFolder:
    """Paths of a state folder, and its changes; safe to use from many threads.

    Attributes:
        path: The folder.
        lock: Held while files are stored or removed, so that none is removed before its job is
            stored.
    """

    def __init__(self, path: str | Path, root: str = ""):
        """Create nothing yet; `root` is the folder of the files that are analysed in place."""
        self.path = Path(os.path.abspath(path))
        self.root = Path(os.path.realpath(root)) if root else None
        self.lock = threading.RLock()
        self.database, self.incoming = self.path / "jobs.sqlite", self.path / "incoming"
        self.files, self.results = self.path / "files", self.path / "results"

    @contextlib.contextmanager
    def open(self) -> Iterator["StateFolder"]:
        """Create the folder for this user only, lock it, and remove unfinished files.

        Raises:
            OSError: If another server uses it.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with FileLock(self.path / "lock", timeout=0):
                for folder in (self.incoming, self.files, self.results):
                    folder.mkdir(mode=0o700, exist_ok=True)
                for left in (*self.incoming.iterdir(), *self.results.rglob(UNFINISHED)):
                    left.unlink(missing_ok=True)
                yield self
        except Timeout as error:
            raise OSError(
                f"Expected to be the only server with the state folder {self.path}; got another "
                "one. Stop it, or choose another --state."
            ) from error

    def source(self, submission: Submission) -> Path:
        """Return the path of the file of a submission."""
        folder = self.root if submission.path else self.files
        return (folder or self.files) / stored_name(submission)

    def analysis(self, key: str) -> Path:
        """Return the folder of an analysis."""
        return self.results / key

    def pages(self, key: str, job_id: str) -> Path:
        """Return the folder of the pages of a job."""
        return self.results / key / job_id

    def keep_upload(self, submission: Submission, upload: Path) -> None:
        """Move a received file from `incoming`; it is on disk when this returns.

        Raises:
            OSError: With errno ENOSPC if the disk is full; the file is then where it was.
        """
        target = self.source(submission)
        sync(upload)  # before the lock, since it takes time
        with self.lock:
            if target.exists():
                upload.unlink()
                return
            replace_durably(upload, target)

    def keep_top_faces(self, key: str, crops_by_model: Sequence[Sequence[np.ndarray]]) -> None:
        """Store the top faces of an analysis in place of what an earlier one left."""
        folder = self.analysis(key)
        folder.mkdir(exist_ok=True)
        for old in [entry for entry in folder.iterdir() if entry.is_dir()]:
            shutil.rmtree(old, ignore_errors=True)  # pages
        for number, crops in enumerate(crops_by_model):
            file = self._top_faces(key, number)
            file.unlink(missing_ok=True)
            if crops:
                with atomic_path(file) as unfinished:
                    np.save(unfinished, np.stack(crops))

    def read_top_faces(self, key: str, number: int = 0) -> np.ndarray:
        """Read the top faces of an analysis by a model, uint8[n, size, size, 3].

        Args:
            key: Identity of the analysis.
            number: Position of the model.

        Returns:
            The faces; n is 0 if there are none.
        """
        file = self._top_faces(key, number)
        return np.load(file) if file.is_file() else np.empty((0, 0, 0, 3), np.uint8)

    def _top_faces(self, key: str, number: int) -> Path:
        name = f"-{number + 1}.".join(TOP_FACES.split(".")) if number else TOP_FACES
        return self.analysis(key) / name

    def discard(self, key: str) -> None:
        """Remove all results of an analysis."""
        shutil.rmtree(self.analysis(key), ignore_errors=True)

    def clean(self, read_names: Callable[[], LiveNames]) -> None:
        """Remove the files of jobs that do not exist; the names are read while none is stored."""
        with self.lock:
            names = read_names()
            for file in self.files.iterdir():
                if not {file.name, file.name.removesuffix(NO_SUFFIX)} & names.uploads:
                    file.unlink(missing_ok=True)
            for folder in self.results.iterdir():
                if folder.name not in names.keys:
                    self.discard(folder.name)
                    continue
                with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                    for pages in [entry for entry in folder.iterdir() if entry.is_dir()]:
                        if pages.name not in names.job_ids:
                            shutil.rmtree(pages, ignore_errors=True)
