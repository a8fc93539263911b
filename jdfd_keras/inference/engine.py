"""Identity of the engine that computed scores: backend, version and precision.

Engines agree only to some digits, so every result names its own.
"""

from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.io.results import Result
from jdfd_keras.options import EngineOptions

NOT_EXPORTED = "only exported models have OpenVINO files"
NAMES = {"openvino": "OpenVINO", "tensorflow": "TensorFlow", "numpy": "NumPy", "server": "server"}


@dataclass(frozen=True)
class Engine(Result):
    """Engine behind a predictor.

    Example:
        >>> Engine("openvino", "2026.4.1", "bfloat16").describe()
        'OpenVINO 2026.4.1, bfloat16'
    """

    # `openvino` or `tensorflow`, of Headpose `numpy`; `server` for a server that does not state its
    # own.
    backend: str
    version: str = ""  # of the library; "" if unknown
    precision: str = ""  # `float32`, `bfloat16`, `int8` or `float64`; "" if unknown
    note: str = ""  # clause that states why another engine was not used; "" if there is none

    def describe(self) -> str:
        """Return backend, version and precision, without the note."""
        name = " ".join(filter(None, (NAMES.get(self.backend, self.backend), self.version)))
        return ", ".join(filter(None, (name, self.precision)))


def check_engine_options(options: EngineOptions) -> None:
    """Raise a ValueError if TensorFlow is requested in a precision of OpenVINO.

    Example:
        >>> check_engine_options(EngineOptions("tensorflow", "int8"))
        Traceback (most recent call last):
        ValueError: Expected --precision auto or float32 with --backend tensorflow; got int8. ...
    """
    if options.backend == "tensorflow" and options.precision not in ("auto", "float32"):
        raise ValueError(
            "Expected --precision auto or float32 with --backend tensorflow; got "
            f"{options.precision}. Try --backend openvino."
        )


def identify_tensorflow(run: str | Path, options: EngineOptions) -> Engine:
    """Import TensorFlow and return the engine of a run folder or .keras file.

    Raises:
        ValueError: If another engine or precision is requested.

    Example:
        >>> identify_tensorflow("run", EngineOptions()).note
        'only exported models have OpenVINO files'
        >>> identify_tensorflow("run", EngineOptions(backend="openvino"))
        Traceback (most recent call last):
        ValueError: Expected an exported model with --backend openvino; got run. ...
    """
    check_engine_options(options)
    if options.backend == "openvino":
        raise ValueError(
            f"Expected an exported model with --backend openvino; got {run}. Export it with "
            "`jdfd-keras export`, or omit the option."
        )
    return import_engine(NOT_EXPORTED if options.backend == "auto" else "")


def import_engine(note: str = "") -> Engine:
    """Import TensorFlow and return it as the engine, with a note.

    Example:
        >>> import_engine().describe()
        'TensorFlow 2..., float32'
    """
    import_tensorflow()
    import tensorflow as tf

    return Engine("tensorflow", tf.__version__, "float32", note)
