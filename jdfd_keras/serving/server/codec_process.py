"""A process beside the server, in which large JSON bodies are decoded.

Python's JSON parser holds the interpreter lock: in a thread, a body of many small lists would let
all other requests wait until it is parsed.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from grpc import StatusCode

from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.io.worker_process import IDLE, Worker, WorkerCrashed
from jdfd_keras.serving.server.call_errors import CallError

IDLE_S = 30.0  # after which the process ends, and gives its memory back


class CodecProcess:
    """One process that calls functions, one at a time; belongs to an event loop.

    It starts with the first call, and ends when there was none for some time.

    Example:
        >>> async def add() -> int:
        ...     process = CodecProcess()
        ...     try:
        ...         return await process.run(sum, [1, 2])
        ...     finally:
        ...         process.close()
        >>> asyncio.run(add())
        3
    """

    def __init__(self):
        """Start nothing yet."""
        self._folder = TemporaryFolder()
        self._worker = Worker(_call, self._folder.name, False)
        self._thread = ThreadPoolExecutor(1, "codec process")  # all that uses the worker
        self._end: asyncio.TimerHandle | None = None

    async def run(self, function: Callable, *arguments: Any) -> Any:
        """Return what a function of a module returns; arguments and result are pickled.

        Raises:
            CallError: If the process died.
            Exception: That of the function.
        """
        loop = asyncio.get_running_loop()
        if self._end:
            self._end.cancel()
        try:
            item = partial(function, *arguments)
            return await loop.run_in_executor(self._thread, self._run, item)
        finally:
            self._end = loop.call_later(IDLE_S, self._thread.submit, self._worker.stop)

    def close(self) -> None:
        """End the process; what it is doing is lost."""
        if self._end:
            self._end.cancel()
        if process := self._worker.process:
            process.kill()
        self._thread.submit(self._worker.stop)
        self._thread.shutdown()
        self._folder.cleanup()

    def _run(self, item: Callable[[], Any]) -> Any:
        worker = self._worker
        worker.take_next(iter([item]))
        try:
            worker.send_item()
            result = worker.receive()
        finally:
            worker.item = IDLE
        if isinstance(result, WorkerCrashed):
            raise CallError(
                "Expected a body that can be decoded; got one of which a process died, perhaps "
                "because memory ran out. Send fewer values at once.",
                StatusCode.INTERNAL,
            )
        return result


def _call(item: Callable[[], Any]) -> Any:
    return item()
