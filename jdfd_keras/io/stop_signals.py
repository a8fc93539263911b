"""Signals that end a command: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.

They end it as exceptions do, so that temporary files are removed and outputs are whole. Signals
that were ignored before, as with `nohup`, stay so.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jdfd_keras.io.console import print_message

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A further signal within this time is the same request: `timeout` sends its signal twice, and a
# terminal to all processes of a command.
SAME_REQUEST_S = 2.0
Handler = Callable[[int, FrameType | None], Any]


class Stopped(SystemExit):
    """The end of a command by SIGTERM or SIGHUP; the exit code is 128 + its number, as of shells.

    Example:
        >>> Stopped(signal.SIGTERM).code
        143
    """

    def __init__(self, number: int):
        """Take the number of the signal."""
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let the first signal end the block by an exception, and a later one the process at once.

    Outside of the main thread, which alone handles signals, nothing changes.

    Raises:
        KeyboardInterrupt: At SIGINT.
        Stopped: At SIGTERM and SIGHUP.

    Example:
        >>> with exit_on_signals():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        jdfd_keras.io.stop_signals.Stopped: 143
    """
    stopped_at = None

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped_at
        now = time.monotonic()
        if stopped_at is not None:
            if now - stopped_at > SAME_REQUEST_S:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        stopped_at = now
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    before = _replace_handlers(stop)
    try:
        yield
    finally:
        _restore(before)


class SignalHold:
    """Signals that wait for the end of a step; a context manager, which handles a held one.

    Example:
        >>> try:
        ...     with SignalHold() as hold:
        ...         hold.start()
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("a checkpoint" if hold.is_requested else "no checkpoint")
        ... except KeyboardInterrupt:
        ...     print("then the end")
        a checkpoint
        then the end
    """

    def __init__(self, notice: str = ""):
        """Hold nothing yet; the notice is printed when a signal has waited for some time."""
        self.notice = notice
        self._before: dict[int, Any] | None = None
        self._number = 0
        self._since = 0.0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "SignalHold":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:  # it ends in any case
            self._number = 0
        self.release()

    @property
    def is_requested(self) -> bool:
        """Whether a signal waits."""
        return self._number != 0

    def start(self) -> None:
        """Hold signals from now on; a second one after some time does not wait."""
        if self._before is None:
            self._before = _replace_handlers(self._hold)

    def release(self) -> None:
        """Hold signals no more, and handle the one that waits as if it came now."""
        if self._timer:
            self._timer.cancel()
        before, self._before = self._before or {}, None
        _restore(before)
        number, self._number = self._number, 0
        if number:
            signal.raise_signal(number)

    def _hold(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not self._number:
            self._number, self._since = number, now
            if self.notice:
                # In a thread: a handler must not print, since it may interrupt a print.
                self._timer = threading.Timer(SAME_REQUEST_S, print_message, [self.notice])
                self._timer.daemon = True
                self._timer.start()
        elif now - self._since > SAME_REQUEST_S:
            self._number = number
            self.release()


def _replace_handlers(handler: Handler) -> dict[int, Any]:
    """Handle the signals that are not ignored; return their earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
