"""What the processes of the file service do with one file: extract its faces, or annotate it.

Imports no engine and no database, so that a process starts fast and stays small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.overlay import Overlay
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.options import FaceOptions, LimitOptions
from jdfd_keras.prediction.annotate import annotate_file


@dataclass(frozen=True)
class ExtractTask:
    """Extract the faces of a file."""

    key: str  # of the analysis
    path: Path
    options: FaceOptions


@dataclass(frozen=True)
class AnnotateTask:
    """Draw the verdict on a copy of a file."""

    key: str
    path: Path
    out: Path
    verdict: Verdict
    provenance: Provenance
    every: int  # frame step of the verdict


def run_task(
    task: ExtractTask | AnnotateTask,
    extract: Callable[..., Extraction | OSError],
    limits: LimitOptions,
    send: Callable[[Callable[[], Any]], None] | None = None,
) -> Extraction | Overlay | OSError:
    """Do a task; return its error instead of raising it.

    Args:
        task: The task.
        extract: `extract_file`.
        limits: Limits of the file.
        send: As for `extract_file` and `annotate_file`.

    Example:
        >>> from jdfd_keras.prediction.extraction import extract_file
        >>> task = ExtractTask("ab", Path("video.mp4"), FaceOptions(face_size=71))
        >>> len(run_task(task, extract_file, LimitOptions()).faces)
        6
    """
    if isinstance(task, ExtractTask):
        return extract(task.path, options=task.options, limits=limits, send=send)
    try:
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
    except OSError as error:
        return error
