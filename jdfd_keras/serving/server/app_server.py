"""A server of the file service alone: the page and /v1/files, without TensorFlow Serving's API.

It needs no TensorFlow, so that it starts soon.
"""

import contextlib

from jdfd_keras.serving.server.http_server import LOOPBACK, HttpServer, Routes
from jdfd_keras.serving.server.loop_thread import LoopThread

DRAIN_TIMEOUT_S = 30


class AppServer:
    """A server on one port that runs in its own thread and event loop.

    A context manager: requests are served inside the block; on exit, those in flight are completed.

    Attributes:
        url: Base URL, such as `http://127.0.0.1:8501`.
    """

    def __init__(self, routes: Routes, host: str, port: int):
        """Create a server of some routes on a port, 0 for a free one."""
        self._routes, self._host, self._port = routes, host, port
        self._loop = LoopThread()
        self.url = ""

    def __enter__(self):
        """Listen.

        Raises:
            OSError: If the address cannot be bound.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._loop.close)
            self._loop.start()
            undo.callback(self._loop.stop)
            undo.callback(self._loop.wait_for, self._drain)
            self._loop.wait_for(self._start)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    async def _start(self) -> None:
        self._http = HttpServer(self._routes)
        host = LOOPBACK.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        try:
            self.url = f"http://{host}:{await self._http.start(self._host, self._port)}"
        except (OSError, OverflowError) as error:
            raise OSError(
                f"Expected to listen on {self._host} port {self._port}; got '{error}'. Is another "
                "server running there? Try --port 0 for a free one."
            ) from error

    async def _drain(self) -> None:
        await self._http.drain(DRAIN_TIMEOUT_S)
