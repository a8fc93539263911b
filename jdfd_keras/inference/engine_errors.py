"""Exceptions of the engines that compute scores, as an OSError that names the model.

An engine may raise exceptions of its own, such as when the memory of a GPU is used up. They are not
errors of a file or of an option, and end the use of that model only.
"""

import contextlib
import functools
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MAX_REASON = 300  # characters of the text of an engine
# What libraries raise for a damaged model, besides the exceptions of an engine.
DAMAGED = (TypeError, LookupError, AttributeError, EOFError, zipfile.BadZipFile)
RUN_HINT = "Try again with more free memory, or with another --backend."
LOAD_HINT = "It may be damaged, or memory may have run out: copy or export it again, or try later."


def name_errors(
    function: Callable[[np.ndarray], np.ndarray], result: str, model: str | Path
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of faces that raises an OSError for an exception of its engine.

    Args:
        function: The function.
        result: What it computes, in a few words.
        model: Path of the model.

    Example:
        >>> def fails(faces):
        ...     raise RuntimeError("out of memory")
        >>> name_errors(fails, "scores", "saved_models/detector/1")(np.zeros((1, 71, 71, 3)))
        Traceback (most recent call last):
        OSError: Expected scores from saved_models/detector/1; got 'RuntimeError: out of ...
    """

    @functools.wraps(function)
    def call(faces: np.ndarray) -> np.ndarray:
        with naming_errors(f"{result} from {model}"):
            return function(faces)

    return call


@contextlib.contextmanager
def naming_errors(expected: str, *, is_load: bool = False) -> Iterator[None]:
    """Raise an OSError for an exception of an engine in the block.

    Args:
        expected: What was expected, in a few words with the name of the model.
        is_load: Whether the block loads the model, which may be damaged.

    Example:
        >>> with naming_errors("a model that can be loaded from saved_models/detector"):
        ...     raise MemoryError
        Traceback (most recent call last):
        OSError: Expected a model that can be loaded from ...; got 'MemoryError'. Try ...
    """
    try:
        yield
    # Evaluated only after an exception, when TensorFlow is imported if it raised it.
    except _list_errors(is_load=is_load) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise OSError(
            f"Expected {expected}; got '{reason[:MAX_REASON]}'. "
            f"{LOAD_HINT if is_load else RUN_HINT}"
        ) from error


def _list_errors(*, is_load: bool) -> tuple[type[Exception], ...]:
    errors = (MemoryError, RuntimeError, *(DAMAGED if is_load else ()))
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        errors = (*errors, tf.errors.OpError)
    return errors
