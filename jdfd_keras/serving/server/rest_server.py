"""TensorFlow Serving's REST interface on a socket.

Takes calls and options; listens, reads bodies within limits, and writes answers. Which path
answers what is in `routes`. It has no TLS and no authentication: beyond this machine a proxy
stands in front.
"""

import asyncio
import contextlib
import gzip
import json
import logging
import zlib
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from jdfd_keras.serving.server import routes
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import Calls

METRICS = "/monitoring/prometheus/metrics"
IDLE_TIMEOUT_S = 60  # also for a head that does not come to its end
LINGER_TIMEOUT_S = 5
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MIN_ZIPPED_BYTES = 1024
NOT_FOUND = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n"


def _is_of_this_server(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


LOGGER = logging.getLogger(__name__)
# What is no HTTP is answered 400; a traceback for each would let anybody fill the disk.
LOGGER.addFilter(_is_of_this_server)


class RestServer:
    """The listening socket and its connections."""

    def __init__(self, calls: Calls):
        """Get ready; nothing listens yet.

        Args:
            calls: The models and limits.
        """
        self._calls = calls
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._runner = web.ServerRunner(
            web.Server(
                self._handle,
                handler_cancellation=True,  # who went away is not waited for
                keepalive_timeout=IDLE_TIMEOUT_S,
                lingering_time=LINGER_TIMEOUT_S,
                auto_decompress=False,  # it knows no limit
                access_log=None,
                logger=LOGGER,
            ),
            shutdown_timeout=1.0,
        )
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: The address.
            port: The port; 0 takes a free one, which `port` then tells.

        Raises:
            OSError: If the address cannot be had.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def drain(self, timeout_s: float) -> None:
        """Take no new connection, finish what is in flight, and end.

        Args:
            timeout_s: How long requests in flight are waited for.
        """
        self._is_draining = True
        for site in self._runner.sites:
            await site.stop()
        # The runner's own way to wait takes in no more of a body that is still on its way.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        path = request.raw_path
        if path == METRICS and request.method == "GET":
            text = await self._calls.translate(self._calls.metrics.expose)
            return _respond(200, text, "text/plain")
        if not path.startswith("/v1/"):
            return _respond(404, NOT_FOUND, "text/html")
        if request.method == "OPTIONS":
            # As TensorFlow Serving; no header lets a web page read answers.
            status = 200 if "Origin" in request.headers else 400
            return _respond(status, b"", "text/html; charset=ISO-8859-1")
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await self._answer(request, path)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        if self._is_draining or not request.content.is_eof():
            response.force_close()  # what follows would be read as the next request
        return response

    async def _answer(self, request: web.BaseRequest, path: str) -> web.Response:
        try:
            with self._calls.holding_bytes() as hold:
                with self._calls.counting_refusals("REST"):
                    body = await self._read_body(request, hold)
                    route = routes.parse_route(request.method, path)
                async with self._calls.counted(route.name, route.api, "REST"):
                    is_gzip = request.headers.get("Content-Encoding", "").lower() == "gzip"
                    if is_gzip:
                        body = await self._calls.translate(_inflate, body, self._max_body_bytes)
                        hold(len(body))
                    make_document = await routes.answer(self._calls, route, body)
                    del body
                    zips = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
                    text, is_zipped = await self._calls.translate(_write, make_document, zips)
        except CallError as error:
            text = _encode({"error": str(error)})
            response = _respond(error.http_status, text, "application/json")
            if error.code == "UNAVAILABLE":
                response.headers["Retry-After"] = "1"
            return response
        response = _respond(200, text, "application/json")
        if is_zipped:
            response.headers["Content-Encoding"] = "gzip"
        return response

    @property
    def _max_body_bytes(self) -> int:
        return self._calls.max_body_bytes

    async def _read_body(self, request: web.BaseRequest, hold: Callable[[int], None]) -> bytes:
        if (request.content_length or 0) > self._max_body_bytes:
            raise _too_large(request.content_length, self._max_body_bytes)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # or aiohttp would think that it had answered
        parts = bytearray()
        try:
            async with asyncio.timeout(self._calls.timeout_s):
                async for part in request.content.iter_any():
                    if len(parts) + len(part) > self._max_body_bytes:
                        raise _too_large(len(parts) + len(part), self._max_body_bytes)
                    hold(len(part))
                    parts += part
        except TimeoutError:
            raise CallError(
                f"The body did not come within {self._calls.timeout_s:.3g} seconds",
                "DEADLINE_EXCEEDED",
                http_status=408,
            ) from None
        except web.RequestPayloadError as error:
            raise CallError(f"The body cannot be read: {error}") from None
        return bytes(parts)


def _respond(status: int, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Server": "jdfd-keras"}
    return web.Response(status=status, body=body, headers=headers)


def _encode(document: dict) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _write(make_document: Callable[[], dict], zips: bool) -> tuple[bytes, bool]:
    text = _encode(make_document())
    if zips and len(text) >= MIN_ZIPPED_BYTES:
        return gzip.compress(text, compresslevel=1), True
    return text, False


def _inflate(body: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # gzip alone
    try:
        text = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise CallError(f"JSON Parse error: the body is not gzip: {error}") from None
    if len(text) > max_bytes:
        raise _too_large(f"more than {max_bytes} unpacked", max_bytes)
    if not unpacker.eof:
        raise CallError("JSON Parse error: the gzip body is cut short")
    return text


def _too_large(size, limit: int) -> CallError:
    return CallError(
        f"Request body of {size} bytes is above the limit of {limit}. Send fewer faces at once.",
        "RESOURCE_EXHAUSTED",
        http_status=413,
    )


def _accepts_gzip(header: str) -> bool:
    for item in header.lower().split(","):
        name, _, quality = item.partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
