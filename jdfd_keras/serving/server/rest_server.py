"""TensorFlow Serving's REST interface: routes, and the HTTP server.

It has no TLS and no authentication: on a network, put a proxy before it.
"""

import asyncio
import contextlib
import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from grpc import StatusCode

from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.server import rest_codec
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import Call, InferenceService
from jdfd_keras.serving.server.repository import MAX_VERSION, ServedVersion

ROUTE = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]{1,30})|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>/metadata|:predict|:classify|:regress)?"
)
APIS = {
    None: "GetModelStatus",
    "/metadata": "GetModelMetadata",
    ":predict": "Predict",
    ":classify": "Classify",
    ":regress": "Regress",
}
METRICS = "/monitoring/prometheus/metrics"
IDLE_TIMEOUT_S = 60  # also for request headers that never end
LINGER_TIMEOUT_S = 5
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MIN_ZIPPED_BYTES = 1024

LOGGER = logging.getLogger(__name__)
# Invalid HTTP is answered 400; a traceback for each request could fill the disk.
LOGGER.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
)


def _parse_route(method: str, path: str) -> tuple[str, str, int | None, str | None]:
    """Return the API, the model, and the version or label of a raw, not normalized path."""
    match = ROUTE.fullmatch(path)
    version = int(match["version"]) if match and match["version"] else None
    if (
        not match
        or method != ("POST" if (match["verb"] or "").startswith(":") else "GET")
        or (version or 0) > MAX_VERSION
    ):
        raise CallError(
            "Expected a request such as GET /v1/models/NAME or POST /v1/models/NAME:predict; got "
            f"{method} {path[:200]}."
        )
    return APIS[match["verb"]], match["name"], version, match["label"]


class RestServer:
    """The HTTP server and its connections."""

    def __init__(self, service: InferenceService):
        """Create a server that does not listen yet."""
        self._service = service
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
        for site in self._runner.sites:
            await site.stop()
        # While the runner itself waits, it does not read the rest of a partly received body.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        path = request.raw_path
        if path == METRICS and request.method == "GET":
            text = await self._service.run_in_thread(self._service.metrics.expose)
            return _make_response(200, text, "text/plain")
        if not path.startswith("/v1/"):
            return _make_response(404, b"Not Found", "text/plain")
        if request.method == "OPTIONS":
            # As TensorFlow Serving; no header allows a web page to read responses.
            status = 200 if "Origin" in request.headers else 400
            return _make_response(status, b"", "text/html; charset=ISO-8859-1")
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await self._respond(request, path)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        if self._is_draining or not request.content.is_eof():
            response.force_close()  # the rest of the body would be read as the next request
        return response

    async def _respond(self, request: web.BaseRequest, path: str) -> web.Response:
        service = self._service
        try:
            async with service.handle("REST") as call:
                body = await self._read_body(request, call)
                api, name, version, label = _parse_route(request.method, path)
                call.begin(name, api)
                if request.headers.get("Content-Encoding", "").lower() == "gzip":
                    body = await service.run_in_thread(_unzip, body, service.max_body_bytes)
                    call.reserve(len(body))
                if api == "GetModelStatus":  # ignores a label, even one that does not exist
                    make_document = partial(service.repository.describe, name, version)
                else:
                    with service.repository.use(name, version, label) as served:
                        make_document = await _dispatch(service, served, api, body)
                del body
                text = await service.run_in_thread(lambda: _encode(make_document()))
                headers = {}
                if len(text) >= MIN_ZIPPED_BYTES and _accepts_gzip(request):
                    text = await service.run_in_thread(gzip.compress, text, 1)
                    headers["Content-Encoding"] = "gzip"
                return _make_response(200, text, "application/json", headers)
        except CallError as error:
            text = _encode({"error": str(error)})
            headers = {"Retry-After": "1"} if error.code is StatusCode.UNAVAILABLE else {}
            return _make_response(error.http_status, text, "application/json", headers)

    async def _read_body(self, request: web.BaseRequest, call: Call) -> bytes:
        limit = self._service.max_body_bytes
        _check_size(request.content_length or 0, limit)
        if request.headers.get("Expect", "").lower() == "100-continue":
            writer: Any = request.writer
            await writer.write(CONTINUE)
            writer.output_size = 0  # else aiohttp assumes that a response was sent
        body = bytearray()
        try:
            async for chunk in request.content.iter_any():
                _check_size(len(body) + len(chunk), limit)
                call.reserve(len(chunk))
                body += chunk
        except web.RequestPayloadError as error:
            raise CallError(f"Expected a body that can be read; got '{error}'.") from None
        return bytes(body)


async def _dispatch(
    service: InferenceService, served: ServedVersion, api: str, body: bytes
) -> Callable[[], dict[str, Any]]:
    """Process a request; return a function that creates the response document, in a thread."""
    if api == "GetModelMetadata":
        spec = {"name": served.name, "signature_name": "", "version": str(served.version)}
        signatures = {"signature_def": {"signature_def": served.engine.describe()}}
        return lambda: {"model_spec": spec, "metadata": signatures}
    if api == "Predict":
        decode = partial(rest_codec.decode_predict, body, served.find_signature)
        name, is_row, inputs = await service.run_in_thread(decode)
        outputs = await service.run(served, name, inputs)
        return lambda: rest_codec.encode_outputs(outputs, is_row=is_row)
    name, examples = await service.run_in_thread(rest_codec.parse_examples, body)
    rows = await service.run_examples(served, name, api, map(serialize_example, examples))
    return lambda: {"results": rows}


def _make_response(
    status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> web.Response:
    headers = {"Content-Type": content_type, "Server": "jdfd-keras", **(headers or {})}
    return web.Response(status=status, body=body, headers=headers)


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _unzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)  # gzip only
    try:
        text = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise CallError(f"Expected a gzip body; got '{error}'.") from None
    _check_size(len(text), max_bytes)
    if not decompressor.eof:
        raise CallError("Expected a complete gzip body; got a part of one.")
    return text


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise CallError(
            f"Expected a request body of at most {limit} bytes; got {size} or more. Send fewer "
            "faces at once.",
            StatusCode.RESOURCE_EXHAUSTED,
            http_status=413,
        )


def _accepts_gzip(request: web.BaseRequest) -> bool:
    header = request.headers.get("Accept-Encoding", "").lower().replace(" ", "")
    accepted = (item.partition(";") for item in header.split(","))
    return any(name == "gzip" and not re.fullmatch(r"q=0(\.0*)?", q) for name, _, q in accepted)
