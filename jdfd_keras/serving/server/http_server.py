"""The HTTP server below the APIs: its settings, and the end of requests in flight.

Knows no routes: a subclass or a function answers a request. It has no TLS: on a network, put a
proxy before it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

IDLE_TIMEOUT_S = 60  # also for request headers that never end
LINGER_TIMEOUT_S = 5
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# The loopback address for a server that listens on all addresses.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}

LOGGER = logging.getLogger(__name__)
# Invalid HTTP is answered 400; a traceback for each request could fill the disk.
LOGGER.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
)


class Routes(Protocol):
    """An API that shares the port with others."""

    def find(self, path: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None:
        """Return the function that answers a path, which has no query; None if none does."""
        ...

    def stop(self) -> None:
        """Refuse new work from now on."""
        ...


class HttpServer:
    """The HTTP server and its connections."""

    def __init__(self, routes: Routes | None = None):
        """Create a server of some routes that does not listen yet."""
        self._routes = routes
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._runner = web.ServerRunner(
            web.Server(
                self._handle,
                handler_cancellation=True,  # stop when the client disconnects
                keepalive_timeout=IDLE_TIMEOUT_S,
                lingering_time=LINGER_TIMEOUT_S,
                auto_decompress=False,  # aiohttp's has no size limit
                access_log=None,
                logger=LOGGER,
            ),
            shutdown_timeout=1.0,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, a free one for 0."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024).start()
        return self._runner.addresses[0][1]

    async def drain(self, timeout_s: float) -> None:
        """Accept no new connections, complete requests in flight up to a timeout, and close."""
        self._is_draining = True
        if self._routes:
            self._routes.stop()
        for site in self._runner.sites:
            await site.stop()
        # While the runner itself waits, it does not read the rest of a partly received body.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._routes and (answer := self._routes.find(request.raw_path.partition("?")[0])):
            return await self._complete(request, answer(request))
        return await self._handle_other(request)

    async def _handle_other(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request without a route."""
        return make_response(404, b"Not Found", "text/plain")

    async def _complete(
        self, request: web.BaseRequest, answer: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Answer a request that is completed before the server closes."""
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await answer
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        if self._is_draining or not request.content.is_eof():
            response.force_close()  # the rest of the body would be read as the next request
        return response


def make_response(
    status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a response that states this server and no version.

    Example:
        >>> make_response(404, b"Not Found", "text/plain").headers["Server"]
        'jdfd-keras'
    """
    headers = {"Content-Type": content_type, "Server": "jdfd-keras", **(headers or {})}
    return web.Response(status=status, body=body, headers=headers)


async def request_body(request: web.BaseRequest) -> None:
    """Ask a client for the body of its request, if it waits for that."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        writer: Any = request.writer
        await writer.write(CONTINUE)
        writer.output_size = 0  # else aiohttp assumes that a response was sent
