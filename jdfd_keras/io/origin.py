"""How a result was made: the command line, the versions of the packages, and the time.

`cli` records its command line; from Python there is none. Imports no package that it describes.
"""

import contextlib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jdfd_keras
from jdfd_keras.io.results import Result

# Module to the names of its distributions.
DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "av": ("av",),
    "dlib": ("dlib", "dlib-bin"),
}
ENGINES = ("tensorflow", "keras", "openvino")  # only those that the process has imported
SECRETS = ("--token", "--callback-secret")  # flags whose value no result states
_COMMAND: ContextVar[str] = ContextVar("command", default="")


@dataclass(frozen=True, kw_only=True)
class Origin(Result):
    """Command line, versions and time of a result; a base class of results that are stored.

    Results with the same content are equal, whenever and by whatever they were made.
    """

    command: str = field(default="", compare=False)  # as it was typed; "" from Python
    # Package to version: Python, jdfd_keras, those that extract faces, and engines that were used.
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    created_at: str = field(default="", compare=False)  # UTC time in ISO format; "" if unknown


@contextlib.contextmanager
def recorded_command(words: Sequence[str]) -> Iterator[None]:
    """Let results that are made in the block state the command of these words, without secrets.

    Example:
        >>> with recorded_command(["predict", "a clip.mp4"]):
        ...     describe_origin()["command"]
        "jdfd-keras predict 'a clip.mp4'"
    """
    token = _COMMAND.set(shlex.join(["jdfd-keras", *mask_secrets(words)]))
    try:
        yield
    finally:
        _COMMAND.reset(token)


def mask_secrets(words: Sequence[str]) -> list[str]:
    """Replace the values of flags that are secrets.

    Example:
        >>> mask_secrets(["app", "--token", "mine", "--callback-secret=mine", "--port", "0"])
        ['app', '--token', '***', '--callback-secret=***', '--port', '0']
    """
    masked = []
    for word in words:
        flag, separator, _ = word.partition("=")
        if masked and masked[-1] in SECRETS:
            masked.append("***")
        else:
            masked.append(f"{flag}=***" if flag in SECRETS and separator else word)
    return masked


def describe_origin() -> dict[str, Any]:
    """Return the fields of `Origin` for a result that is made now.

    Example:
        >>> list(describe_origin())
        ['command', 'versions', 'created_at']
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": _COMMAND.get(), "versions": collect_versions(), "created_at": now}


def collect_versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages that results depend on.

    Engines are included only if this process has imported them.

    Example:
        >>> list(collect_versions())[:3]
        ['python', 'jdfd_keras', 'numpy']
    """
    versions = {"python": platform.python_version(), "jdfd_keras": jdfd_keras.__version__}
    for module, names in DISTRIBUTIONS.items():
        for name in names:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[module] = importlib.metadata.version(name)
    for name in ENGINES:
        if name in sys.modules:
            # OpenVINO's has its build behind a hyphen.
            versions[name] = sys.modules[name].__version__.split("-")[0]
    return versions
