"""An event loop in a thread of its own, and a server that runs until a signal."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Server = TypeVar("Server")
SECONDS_BETWEEN_CHECKS = 0.5  # of signals


class LoopThread:
    """An event loop and its thread."""

    def __init__(self):
        """Create the loop; the thread does not run yet."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_for(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a function in the loop and wait for its end; its error is raised here."""
        asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def close(self) -> None:
        """Close the loop, whose thread does not run."""
        self._loop.close()


def run_until_signal(
    server: AbstractContextManager[Server], on_ready: Callable[[Server], None]
) -> None:
    """Run a server until SIGTERM or SIGINT, then end its block.

    Must be called from the main thread. A second signal ends the process immediately.

    Args:
        server: The server; it serves inside its block.
        on_ready: Called with it once it accepts requests.

    Example:
        >>> import contextlib
        >>> def stop(name: str) -> None:
        ...     print(f"{name} serves")
        ...     signal.raise_signal(signal.SIGTERM)
        >>> run_until_signal(contextlib.nullcontext("this"), stop)
        this serves
    """
    stopped = threading.Event()

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server as running:
            on_ready(running)
            # Woken regularly: a signal that the system delivers to another thread wakes no wait
            # here, and Python calls the handler in this thread only (seen once with OpenVINO).
            while not stopped.wait(SECONDS_BETWEEN_CHECKS):
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
