"""Content Credentials of files whose faces no model has extracted, in other processes.

Takes paths; returns ContentCredentials. Files with a verdict of a model have them in that.
"""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

from jdfd_keras.faces.credentials import UNREADABLE, ContentCredentials, read_handle
from jdfd_keras.faces.decode import open_media
from jdfd_keras.io.workers import WorkerCrashed, run_all
from jdfd_keras.options import CredentialOptions, LimitOptions
from jdfd_keras.prediction.file_list import read_state
from jdfd_keras.prediction.model_run import States


def collect_credentials(
    paths: Sequence[Path],
    states: States,
    num_workers: int = 1,
    limits: LimitOptions | None = None,
    options: CredentialOptions | None = None,
) -> dict[str, ContentCredentials]:
    """Read the Content Credentials of files by path, in other processes.

    Args:
        paths: The files.
        states: State of each file before its analysis; a file that has another one has none here.
        num_workers: Processes besides this one; at least 1.
        limits: Limits of each file; the defaults if not given.
        options: Whose signatures are trusted; nobody's by default.

    Example:
        >>> states = {"photograph.png": read_state("photograph.png")}
        >>> collect_credentials([Path("photograph.png")], states)["photograph.png"].state
        'none'
    """
    limits = limits or LimitOptions()
    read = functools.partial(read_credentials_of, limits=limits, options=options)
    found = {}
    for path, credentials in run_all(read, paths, num_workers, limits) if paths else ():
        if isinstance(credentials, WorkerCrashed):
            credentials = describe_unreadable(credentials)
        if credentials and read_state(path) == states[str(path)]:
            found[str(path)] = credentials
    return found


def read_credentials_of(
    path: Path, limits: LimitOptions, options: CredentialOptions | None = None
) -> ContentCredentials | None:
    """Read the Content Credentials of a file in this process, with what its container states.

    Args:
        path: The file.
        limits: Limits of the file.
        options: Whose signatures are trusted.

    Returns:
        Those of `extract_faces`, also if the file cannot be decoded; None if it cannot be opened.

    Example:
        >>> read_credentials_of(Path("photograph.png"), LimitOptions()).state
        'none'
        >>> read_credentials_of(Path("none.mp4"), LimitOptions())
    """
    encoder = ""
    with contextlib.suppress(OSError), open_media(path, limits) as media:
        next(iter(media.read(1, every=1)), None)  # then its facts are known
        encoder = media.info.encoder
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        return read_handle(handle, options, encoder)
    return None


def describe_unreadable(crash: WorkerCrashed) -> ContentCredentials:
    """Return the state of a file whose credentials cannot be read, because that crashed.

    Example:
        >>> describe_unreadable(WorkerCrashed("whose process died twice", "Save it again.")).detail
        'The file could not be examined: its analysis ended with "whose process died twice".'
    """
    detail = f'The file could not be examined: its analysis ended with "{crash.cause}".'
    return ContentCredentials(UNREADABLE, detail)
