"""Identity of the engine that computed scores: backend, version and precision.

Engines agree only to some digits, so every result names its own.
"""

from dataclasses import dataclass

from jdfd_keras.io.results import Result
from jdfd_keras.options import EngineOptions

NAMES = {"openvino": "OpenVINO", "tensorflow": "TensorFlow", "server": "server"}


@dataclass(frozen=True)
class Engine(Result):
    """Engine behind a predictor.

    Example:
        >>> Engine("openvino", "2026.4.1", "bfloat16").describe()
        'OpenVINO 2026.4.1, bfloat16'
    """

    backend: str  # `openvino` or `tensorflow`; `server` for a server that does not state its own
    version: str = ""  # of the library; "" if unknown
    precision: str = ""  # `float32`, `bfloat16` or `int8`; "" if unknown
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
