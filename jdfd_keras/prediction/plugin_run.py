"""A plug-in on its way through files, and the folder that keeps its answers.

options.json       the plug-in
answers.jsonl      one line per file, in order of completion
parts/             the lock of the run
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.media import CHANGED, UnreadableFileError
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import init_folder
from jdfd_keras.io.storage import LocalStore, exclusive_lock
from jdfd_keras.prediction.file_list import read_state
from jdfd_keras.prediction.kept_records import FailedFile, escape_names
from jdfd_keras.prediction.model_run import States
from jdfd_keras.prediction.opinions import FileOpinion, opinion_of
from jdfd_keras.prediction.plugins import Plugin, Problem, judge_scores, to_scores
from jdfd_keras.prediction.scoring import fail

ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class _Name:
    name: str


@contextlib.contextmanager
def open_answers(
    directory: str | Path | None, plugin: Plugin, states: States
) -> Iterator["AnswerFolder"]:
    """Create the folder of a plug-in, or open it to resume a run.

    Args:
        directory: The folder; None to keep nothing.
        plugin: The plug-in, loaded: answers of another version or of other files of its code are
            not used.
        states: State of each file by path, before the plug-in opens it.

    Raises:
        OSError: If another run writes to it.
        ValueError: If it belongs to another plug-in, or holds other files.

    Example:
        >>> plugin, states = Plugin("my_scores:score"), {"a.mp4": (9, 1)}
        >>> with open_answers("answers", plugin, states) as folder:
        ...     folder.keep("a.mp4", (0.25,))
        >>> with open_answers("answers", plugin, states) as folder:
        ...     folder.done
        {'a.mp4': (0.25,)}
    """
    if directory is None:
        yield AnswerFolder(b"", plugin, states, None)
        return
    init_folder(directory, plugin=_Name(plugin.name))
    path = Path(directory, ANSWERS)
    with exclusive_lock(LocalStore(str(directory))), open(path, "ab") as lines:
        yield AnswerFolder(path.read_bytes(), plugin, states, lines)


class AnswerFolder:
    """An open folder of a plug-in, created by `open_answers`.

    Attributes:
        done: Scores by path, of files that have not changed since.
    """

    def __init__(self, content: bytes, plugin: Plugin, states: States, lines: BinaryIO | None):
        """Read the answers of earlier runs."""
        self._plugin, self._states, self._lines = plugin, states, lines
        self.done: dict[str, tuple[float, ...]] = {}
        if lines and content and not content.endswith(b"\n"):  # of a killed run
            lines.write(b"\n")
        for line in content.splitlines():
            # A damaged line is not used: its file is asked about again.
            with contextlib.suppress(KeyError, RecursionError, TypeError, ValueError):
                stored = json.loads(line)
                path, scores = stored["path"], to_scores(stored["scores"])
                if isinstance(scores, Problem) or path not in states:
                    continue
                if stored == self._to_line(path, scores):
                    self.done[path] = scores

    def keep(self, path: str, scores: Sequence[float]) -> None:
        """Write the scores of a file."""
        if self._lines:
            self._lines.write(json.dumps(self._to_line(path, scores)).encode() + b"\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())

    def _to_line(self, path: str, scores: Sequence[float]) -> dict[str, Any]:
        file_bytes, mtime_ns = self._states[path] or (None, None)
        facts = self._plugin.facts
        return {
            "path": path,
            "scores": list(scores),
            "file_bytes": file_bytes,
            "mtime_ns": mtime_ns,
            "version": facts.version,
            "digest": facts.digest,
        }


def ask_plugin(
    plugin: Plugin,
    label: str,
    states: States,
    failed: Mapping[str, FailedFile],
    folder: AnswerFolder,
    thresholds: Calibration,
) -> dict[str, FileOpinion]:
    """Return the opinions of a plug-in by path, and show the progress.

    Args:
        plugin: The plug-in, loaded.
        label: Its label.
        states: All files.
        failed: Files about which it is not asked, by path.
        folder: Its folder.
        thresholds: Thresholds of its verdicts.

    Raises:
        OSError: If no process can be started, or nothing can be written.

    Example:
        >>> _ = Path("my_scores.py").write_text("def score(path): return 0.75")
        >>> states = {"video.mp4": read_state("video.mp4")}
        >>> with Plugin("my_scores:score") as plugin:
        ...     plugin.load()
        ...     with open_answers(None, plugin, states) as folder:
        ...         opinions = ask_plugin(plugin, "mine", states, {}, folder, Calibration())
        >>> opinions["video.mp4"].verdict
        'fake'
    """
    opinions = {}
    for path, failure in failed.items():
        opinions[path] = opinion_of(label, escape_names(failure))
    for path, scores in folder.done.items():
        opinions[path] = judge_scores(label, scores, thresholds)
    remaining = [Path(path) for path in states if path not in opinions]
    if not remaining:
        return opinions
    progress = Progress(f"judging files with {label}", len(remaining), "files")
    try:
        for path, answer in plugin.ask(remaining):
            if read_state(path) != states[str(path)]:
                text = (
                    f"Expected a file that stays as it is; got {path}, which was written to during "
                    "the analysis. Try again when it is complete."
                )
                answer = UnreadableFileError(text, code=CHANGED)
            if isinstance(answer, OSError):
                failure = fail(path, answer, label)
                opinions[str(path)] = opinion_of(label, escape_names(failure))
            else:
                folder.keep(str(path), answer)
                opinions[str(path)] = judge_scores(label, answer, thresholds)
            progress.advance()
    finally:
        progress.close()
    return opinions
