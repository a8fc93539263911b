"""Scores of a function of the user, which is called in another process with each file.

A plug-in is `module:function`. It is code of the user, which may do whatever the user may do; it
runs in a process of its own so that it can be stopped, and so that a crash costs one file.
"""

import contextlib
import functools
import hashlib
import importlib
import inspect
import numbers
import os
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.signatures import SAVED_MODELS
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.inference.verdict import NO_FACE
from jdfd_keras.io.worker_process import LimitExceeded, WorkerCrashed
from jdfd_keras.io.workers import Workers
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.opinions import FileOpinion, shorten_reason

PLUGIN_FAILED = "plugin_failed"  # code of a file whose function raised, or returned no score
NAME_ADVICE = "A plug-in is MODULE:FUNCTION, with the module in this folder or installed."
SCORE_ADVICE = "Return P(fake) from 0 to 1, or a list of it with one number for each person."
CHECK_ADVICE = "Check the plug-in."


@dataclass(frozen=True)
class PluginFacts:
    """What a plug-in states about itself."""

    version: str = ""
    # SHA-256 of the file of its module; if the function is of another file, of both, in turn.
    digest: str = ""
    thresholds: tuple[float, float] | None = None  # as `uncertain_from` and `uncertain_to`


@dataclass(frozen=True)
class Problem:
    """Why there are no scores or facts."""

    cause: str  # a clause that follows the name of the plug-in
    hint: str  # sentence that states what to try


def is_plugin(model: str | Path) -> bool:
    """Return whether a model is the name of a plug-in: `module:function`, and no existing path.

    Example:
        >>> is_plugin("my_scores:score"), is_plugin("package.scores:score")
        (True, True)
        >>> is_plugin("saved_models/detector"), is_plugin("C:/models/detector")
        (False, False)
        >>> is_plugin("http://127.0.0.1:8501/v1/models/detector")
        False
    """
    module, separator, function = str(model).partition(":")
    if not separator or os.path.splitdrive(model)[0]:  # a drive of Windows
        return False
    if not all(name.isidentifier() for name in (*module.split("."), function)):
        return False
    return not any(os.path.lexists(path) for path in (model, Path(SAVED_MODELS, str(model))))


class Plugin:
    """A plug-in in processes of its own; a context manager. They start with the block.

    Args:
        name: `module:function`. The module may be in the current folder; installed modules of the
            same name come first, so that no file beside the examined ones can replace them.
        num_workers: Number of processes, each of which imports the module; at least 1.
        limits: Time and memory for each file, and for the import; the defaults if not given.

    Attributes:
        facts: What it states about itself, once it is loaded.

    Example:
        >>> _ = Path("my_scores.py").write_text("def score(path): return [0.25, 0.75]")
        >>> with Plugin("my_scores:score") as plugin:
        ...     plugin.load()
        ...     list(plugin.ask([Path("video.mp4")]))
        [(PosixPath('video.mp4'), (0.25, 0.75))]
    """

    def __init__(self, name: str, num_workers: int = 1, limits: LimitOptions | None = None):
        self.name, self.facts = name, PluginFacts()
        limits = limits or LimitOptions()
        self._workers = Workers(functools.partial(call_plugin, name=name), num_workers, limits)

    def __enter__(self) -> "Plugin":
        self._workers.__enter__()
        try:
            self._workers.start()
        except BaseException:
            self._workers.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._workers.__exit__()

    def load(self) -> None:
        """Import the module, and read what the function states about itself.

        Raises:
            OSError: If that fails, crashes, or is beyond a limit.
        """
        self._workers.send([None])
        [(_, answer)] = self._workers.receive()
        if not isinstance(answer, PluginFacts):
            raise OSError(f"Expected a plug-in that can be loaded; got {self._describe(answer)}")
        self.facts = answer

    def ask(
        self, paths: Iterable[Path]
    ) -> Iterator[tuple[Path, tuple[float, ...] | UnreadableFileError]]:
        """Yield each file with its scores or its error, when it is done.

        There is no score if the plug-in found no face.

        Raises:
            OSError: If no process can be started.
        """
        self._workers.send(paths)
        for path, answer in self._workers.receive():
            yield path, self.read_answer(path, answer)

    def read_answer(self, path: Path, answer: Any) -> tuple[float, ...] | UnreadableFileError:
        """Return the scores that `call_plugin` returned in any process, or why there are none."""
        if isinstance(answer, tuple):
            return answer
        code = answer.code if isinstance(answer, WorkerCrashed) else PLUGIN_FAILED
        text = f"Expected scores for {path}; got {self._describe(answer)}"
        return UnreadableFileError(text, code=code)

    def choose_thresholds(self, threshold: float | None = None) -> Calibration:
        """Return the thresholds of verdicts: the requested one, else its own, else 0.5.

        Args:
            threshold: The requested one.
        """
        if threshold is not None:
            return Calibration().with_threshold(threshold)
        if self.facts.thresholds is None:
            return Calibration()
        uncertain_from, uncertain_to = self.facts.thresholds
        return Calibration(uncertain_from=uncertain_from, uncertain_to=uncertain_to)

    def _describe(self, answer: Problem | WorkerCrashed) -> str:
        # The hint of a crash is about a damaged file.
        hint = answer.hint if isinstance(answer, (Problem, LimitExceeded)) else CHECK_ADVICE
        return f"{self.name}, {answer.cause}. {hint}"


def judge_scores(label: str, scores: Sequence[float], thresholds: Calibration) -> FileOpinion:
    """Return the opinion of a plug-in: the highest score decides, as one fake face is enough.

    Args:
        label: Label of the plug-in.
        scores: Its scores of the people of a file; none if it found no face.
        thresholds: Thresholds of the verdict.

    Example:
        >>> judge_scores("my_scores:score", [0.25, 0.75], Calibration())
        FileOpinion(label='my_scores:score', verdict='fake', score=0.75, error='', code='')
        >>> judge_scores("my_scores:score", [], Calibration()).verdict
        'no face'
    """
    if not scores:
        return FileOpinion(label, NO_FACE)
    return FileOpinion(label, thresholds.judge(max(scores)), max(scores))


def call_plugin(path: Path | None, name: str) -> Any:
    """Call a plug-in in this process, which must be one of `Workers`.

    Args:
        path: The file; None for the facts of the plug-in.
        name: `module:function`.

    Returns:
        Scores, facts, or what is wrong, for `Plugin.read_answer`.

    Example:
        >>> from jdfd_keras.io.workers import run_all
        >>> _ = Path("my_scores.py").write_text("def score(path): return 0.75")
        >>> ask = functools.partial(call_plugin, name="my_scores:score")
        >>> list(run_all(ask, [Path("video.mp4")], 1))
        [(PosixPath('video.mp4'), (0.75,))]
    """
    _adapt_process()
    module_name, _, function_name = name.partition(":")
    module = None
    with _Catch() as caught:
        module = importlib.import_module(module_name)
    if module is None:
        return Problem(f"whose module cannot be imported: {caught.text}", NAME_ADVICE)
    function: Any = None
    with _Catch():  # a module may compute its attributes
        function = getattr(module, function_name, None)
    file = getattr(module, "__file__", None)
    if not callable(function):
        return Problem(f"whose module ({file}) has no function {function_name}", NAME_ADVICE)
    with _Catch() as caught:
        if path is None:
            return _read_facts(function, file)
        return to_scores(function(os.path.abspath(path)))
    return Problem(f"which raised {caught.text}", CHECK_ADVICE)


def _adapt_process() -> None:
    """Let what a plug-in prints go to stderr, and let it be found in the current folder."""
    if sys.stdout is not sys.stderr:
        os.dup2(sys.stderr.fileno(), 1)
        sys.stdout = sys.stderr
        sys.path.append(os.getcwd())


class _Catch(contextlib.AbstractContextManager):
    """Catch any exception of a plug-in, also those that are no errors, unless memory ran out."""

    text = ""  # the exception, and where it was raised

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None or isinstance(error, MemoryError):
            return False
        self.text = shorten_reason(
            " ".join("".join(traceback.format_exception_only(error)).split())
        )
        # Frames that are not of the plug-in.
        own = (__file__, os.path.dirname(importlib.__file__), "<frozen importlib")
        frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith(own)]
        if frames:
            self.text += f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
        return True


def _read_facts(function: Callable, file: str | None) -> PluginFacts | Problem:
    version = getattr(function, "version", "")
    if not isinstance(version, str):
        return Problem(f"whose version is {reprlib.repr(version)} and not a text", CHECK_ADVICE)
    thresholds = getattr(function, "thresholds", None)
    if thresholds is not None:
        found = to_scores(thresholds)
        if isinstance(found, Problem) or len(found) != 2 or found[0] > found[1]:
            return Problem(
                f"whose thresholds are {reprlib.repr(thresholds)} and not 2 numbers from 0 to 1, "
                "the lower one first",
                CHECK_ADVICE,
            )
        thresholds = found[0], found[1]
    return PluginFacts(shorten_reason(version), _hash_code(function, file), thresholds)


def _hash_code(function: Any, file: str | None) -> str:
    """Hash the file of a module, followed by that of its function if it is another one."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    # Of an object that can be called: its class.
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    paths = [file, code.co_filename if code else None]
    existing = [os.path.realpath(path) for path in paths if path and os.path.isfile(path)]
    digest = hashlib.sha256()
    for path in dict.fromkeys(existing):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest() if existing else ""


def to_scores(value: Any) -> tuple[float, ...] | Problem:
    """Return what a plug-in returned as numbers, or what is wrong with it.

    Example:
        >>> to_scores([0.25, 1])
        (0.25, 1.0)
        >>> to_scores(True).cause
        'which returned True (bool)'
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    is_several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    values: list[Any] = list(value) if is_several else [value]
    for one in values:
        if isinstance(one, (bool, np.bool_)) or not isinstance(one, numbers.Real):
            kind = type(one).__name__
            return Problem(f"which returned {reprlib.repr(value)} ({kind})", SCORE_ADVICE)
        number: Any = one  # not as float: an integer may be too large for one
        if not 0 <= number <= 1:  # NaN is not either
            return Problem(f"which returned {reprlib.repr(value)}", SCORE_ADVICE)
    return tuple(map(float, values))
