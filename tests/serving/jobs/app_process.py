"""`jdfd-keras app` with the shipped detector in processes of its own, which a test may kill."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class AppProcess:
    """A running `jdfd-keras app`; a context manager that ends it in an orderly way.

    Attributes:
        url: Its address, such as http://127.0.0.1:8501.
        log: Its stderr.
    """

    def __init__(
        self, state: Path, *words: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it with a state folder and further words; return once it accepts requests."""
        self.log = state.with_suffix(".log")
        command = ["app", "--port", "0", "--no-open", "--state", str(state), *words]
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jdfd_keras", *command],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | dict(environment or {}),
                start_new_session=True,
            )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip().removesuffix("/")
        assert self.url.startswith("http://127.0.0.1:"), self.log.read_text()

    def __enter__(self) -> "AppProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self._end(0)

    def kill(self, is_alone: bool = False) -> None:
        """Kill it and its processes at once, as a power cut does; or it alone."""
        (os.kill if is_alone else os.killpg)(self.process.pid, signal.SIGKILL)
        self._end(-signal.SIGKILL)

    def _end(self, expected: int) -> None:
        code = self.process.wait(60)
        with contextlib.suppress(OSError):
            self.process.stdout.close()
        assert code == expected, self.log.read_text()
