"""What the processes of the file service do with one file: extract faces, call a plug-in, annotate.

Imports no engine and no database, so that a process starts fast and stays small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.overlay import Overlay
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.options import CredentialOptions, FaceOptions, LimitOptions
from jdfd_keras.prediction.annotate import annotate_file
from jdfd_keras.prediction.file_credentials import read_credentials_of
from jdfd_keras.prediction.plugins import call_plugin


@dataclass(frozen=True)
class ExtractTask:
    """Extract the faces of a file, for all models with these options."""

    key: str  # of the analysis
    path: Path
    options: FaceOptions
    credentials: CredentialOptions | None = None


@dataclass(frozen=True)
class PluginTask:
    """Call a plug-in with a file."""

    key: str
    path: Path
    label: str  # of the plug-in among the models
    name: str


@dataclass(frozen=True)
class CredentialsTask:
    """Read the Content Credentials of a file, whether or not its faces can be extracted."""

    key: str
    path: Path
    credentials: CredentialOptions | None = None


@dataclass(frozen=True)
class AnnotateTask:
    """Draw the verdict on a copy of a file."""

    key: str
    path: Path
    out: Path
    verdict: Verdict
    provenance: Provenance
    every: int  # frame step of the verdict


Task = ExtractTask | PluginTask | CredentialsTask | AnnotateTask


def run_task(
    task: Task,
    extract: Callable[..., Extraction | OSError],
    limits: LimitOptions,
    send: Callable[[Callable[[], Any]], None] | None = None,
) -> Any:
    """Do a task; return its error instead of raising it.

    Args:
        task: The task.
        extract: `extract_file`.
        limits: Limits of the file.
        send: As for `extract_file` and `annotate_file`.

    Returns:
        An Extraction, the answer of `call_plugin`, Content Credentials, an Overlay, or an OSError.

    Example:
        >>> from jdfd_keras.prediction.extraction import extract_file
        >>> task = ExtractTask("ab", Path("video.mp4"), FaceOptions(face_size=71))
        >>> len(run_task(task, extract_file, LimitOptions()).faces)
        6
    """
    if isinstance(task, ExtractTask):
        further = {"limits": limits, "send": send, "credentials": task.credentials}
        return extract(task.path, options=task.options, **further)
    if isinstance(task, PluginTask):
        return call_plugin(task.path, task.name)
    if isinstance(task, CredentialsTask):
        return read_credentials_of(task.path, limits, task.credentials)
    try:
        return _annotate(task, limits, send)
    except OSError as error:
        return error


def _annotate(task: AnnotateTask, limits: LimitOptions, send: Any) -> Overlay:
    task.out.parent.mkdir(exist_ok=True)
    return annotate_file(
        task.path,
        task.out,
        task.verdict,
        task.provenance,
        every=task.every,
        limits=limits,
        send=send,
    )
