"""TensorFlow Serving's REST interface: routes, and the HTTP server.

Takes an `InferenceService` and an address; reads requests within the limits and sends responses.
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
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.server import inference_service as inference
from jdfd_keras.serving.server import rest_codec
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import InferenceService
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
NOT_FOUND = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n"


def _is_server_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


LOGGER = logging.getLogger(__name__)
# Invalid HTTP is answered 400; a traceback for each request could fill the disk.
LOGGER.addFilter(_is_server_error)


@dataclass(frozen=True)
class Route:
    """A parsed path.

    Attributes:
        api: The API, named as in gRPC.
        name: The model.
        version: The requested version, or None.
        label: The requested version label, or None.
    """

    api: str
    name: str
    version: int | None
    label: str | None


def parse_route(method: str, path: str) -> Route:
    """Parse a path.

    Args:
        method: `GET`, `POST` and so on.
        path: The raw path with its query, neither decoded nor normalized.

    Returns:
        The route.

    Raises:
        CallError: If the path is not part of the interface.

    Example:
        >>> parse_route("POST", "/v1/models/detector/labels/stable:predict")
        Route(api='Predict', name='detector', version=None, label='stable')
    """
    match = ROUTE.fullmatch(path)
    verb = match["verb"] if match else None
    if not match or method != ("POST" if (verb or "").startswith(":") else "GET"):
        if method == "GET" and path == "/v1/models":
            raise CallError("Missing model name in request.")
        raise CallError(f"Malformed request: {method} {path}")
    version = match["version"] and int(match["version"])
    if version and version > MAX_VERSION:
        raise CallError(f"Failed to convert version: {version} to numeric.")
    return Route(APIS[verb], match["name"], version, match["label"])


class RestServer:
    """The HTTP server and its connections."""

    def __init__(self, service: InferenceService):
        """Create a server that does not listen yet.

        Args:
            service: The models and limits.
        """
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
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: The address.
            port: The port; 0 chooses a free one. The attribute `port` holds the actual one.

        Raises:
            OSError: If the address cannot be bound.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def drain(self, timeout_s: float) -> None:
        """Accept no new connections, complete requests in flight, and close.

        Args:
            timeout_s: Longest time to wait for requests in flight, in seconds.
        """
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
            return _make_response(404, NOT_FOUND, "text/html")
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
            with service.reserve_memory() as reserve:
                with service.count_rejections("REST"):
                    body = await self._read_body(request, reserve)
                    route = parse_route(request.method, path)
                async with service.track_request(route.name, route.api, "REST"):
                    if request.headers.get("Content-Encoding", "").lower() == "gzip":
                        body = await service.run_in_thread(_unzip, body, service.max_body_bytes)
                        reserve(len(body))
                    make_document = await _dispatch(service, route, body)
                    del body
                    zips = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
                    text, is_zipped = await service.run_in_thread(_write, make_document, zips)
        except CallError as error:
            text = _encode({"error": str(error)})
            response = _make_response(error.http_status, text, "application/json")
            if error.code == "UNAVAILABLE":
                response.headers["Retry-After"] = "1"
            return response
        response = _make_response(200, text, "application/json")
        if is_zipped:
            response.headers["Content-Encoding"] = "gzip"
        return response

    async def _read_body(self, request: web.BaseRequest, reserve: Callable[[int], None]) -> bytes:
        limit = self._service.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(request.content_length, limit)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # else aiohttp assumes that a response was sent
        body = bytearray()
        try:
            async with asyncio.timeout(self._service.timeout_s):
                async for chunk in request.content.iter_any():
                    if len(body) + len(chunk) > limit:
                        raise _too_large(len(body) + len(chunk), limit)
                    reserve(len(chunk))
                    body += chunk
        except TimeoutError:
            raise CallError(
                f"The body was not received within {self._service.timeout_s:.3g} seconds",
                "DEADLINE_EXCEEDED",
                http_status=408,
            ) from None
        except web.RequestPayloadError as error:
            raise CallError(f"The body cannot be read: {error}") from None
        return bytes(body)


async def _dispatch(service: InferenceService, route: Route, body: bytes) -> Callable[[], dict]:
    """Process a request; return a function that creates the response document, in a thread."""
    if route.api == "GetModelStatus":  # ignores a label, even one that does not exist
        return partial(_status_document, service.repository.states(route.name, route.version))
    with service.repository.use(route.name, route.version, route.label) as served:
        if route.api == "GetModelMetadata":
            return partial(
                _metadata_document, served.name, served.version, served.engine.describe()
            )
        if route.api == "Predict":
            request, inputs = await service.run_in_thread(_read_predict, served, body)
            outputs = await service.run(served, request.signature_name, inputs)
            return partial(rest_codec.encode_outputs, outputs, request.is_row)
        method = inference.CLASSIFY if route.api == "Classify" else inference.REGRESS
        limit = service.max_body_bytes
        name, inputs = await service.run_in_thread(_read_examples, served, body, method, limit)
        outputs = await service.run(served, name, inputs)
        read = inference.read_classes if route.api == "Classify" else inference.read_values
        return lambda: {"results": read(outputs)}


def _status_document(states: list[ServedVersion]) -> dict:
    return {
        "model_version_status": [
            {
                "version": str(served.version),
                "state": served.state,
                "status": {"error_code": served.error_code, "error_message": served.error},
            }
            for served in states
        ]
    }


def _metadata_document(name: str, version: int, signatures: dict) -> dict:
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _read_predict(
    served: ServedVersion, body: bytes
) -> tuple[rest_codec.PredictRequest, dict[str, np.ndarray]]:
    request = rest_codec.parse_predict(body)
    signature = inference.find_signature(served, request.signature_name)
    return request, rest_codec.decode_inputs(request, signature)


def _read_examples(
    served: ServedVersion, body: bytes, method: str, limit: int
) -> tuple[str, dict[str, np.ndarray]]:
    name, features = rest_codec.parse_examples(body)
    inference.check_signature(name, served.engine.signatures.get(name), method)
    serialized = (serialize_example(feature) for feature in features)
    return name, {inference.INPUT: inference.stack_examples(serialized, limit)}


def _make_response(status: int, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Server": "jdfd-keras"}
    return web.Response(status=status, body=body, headers=headers)


def _encode(document: dict) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _write(make_document: Callable[[], dict], zips: bool) -> tuple[bytes, bool]:
    text = _encode(make_document())
    if zips and len(text) >= MIN_ZIPPED_BYTES:
        return gzip.compress(text, compresslevel=1), True
    return text, False


def _unzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)  # gzip only
    try:
        text = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise CallError(f"JSON Parse error: the body is not gzip: {error}") from None
    if len(text) > max_bytes:
        raise _too_large(f"more than {max_bytes} unpacked", max_bytes)
    if not decompressor.eof:
        raise CallError("JSON Parse error: the gzip body is truncated")
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
