"""TensorFlow Serving's REST interface.

It has no TLS: on a network, put a proxy before it.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from grpc import StatusCode

from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.server import rest_codec
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.http_server import (
    HttpServer,
    Routes,
    make_response,
    request_body,
)
from jdfd_keras.serving.server.inference_service import Call, InferenceService
from jdfd_keras.serving.server.repository import MAX_VERSION, ServedVersion

# As in TensorFlow Serving, case does not matter but in names and verbs.
ROUTE = re.compile(
    r"(?i:/v1/models/)(?P<name>[^/:]+)"
    r"(?:(?i:/versions/)(?P<version>[0-9]{1,30})|(?i:/labels/)(?P<label>[^/:]+))?"
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
MIN_ZIPPED_BYTES = 1024
ERROR_HEADERS = {
    StatusCode.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
    StatusCode.UNAVAILABLE: {"Retry-After": "1"},
}


def _parse_route(method: str, path: str) -> tuple[str, str, int | None, str | None]:
    """Return the API, the model, and the version or label of a raw, not normalized path."""
    match = ROUTE.fullmatch(path)
    verb = match["verb"] if match else None
    version = int(match["version"]) if match and match["version"] else None
    if (
        not match
        or method != ("POST" if (verb or "").startswith(":") else "GET")
        or (version or 0) > MAX_VERSION
    ):
        raise CallError(
            "Expected a request such as GET /v1/models/NAME or POST /v1/models/NAME:predict; got "
            f"{method} {path[:200]}."
        )
    label = unquote(match["label"]) if match["label"] else None
    return APIS[verb], unquote(match["name"]), version, label


class RestServer(HttpServer):
    """TensorFlow Serving's API, and perhaps others on the same port."""

    def __init__(self, service: InferenceService, routes: Routes | None = None):
        """Create a server that does not listen yet."""
        super().__init__(routes)
        self._service = service

    async def _handle_other(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        try:
            self._service.check_token(request.headers.get("Authorization", ""))
        except CallError as error:
            Call(self._service).end("REST", error.code)
            response = _respond_error(error)
            if not request.content.is_eof():
                response.force_close()  # the body is not read
            return response
        if path == METRICS and request.method == "GET":
            text = await self._service.run_in_thread(self._service.metrics.expose, body_bytes=0)
            return make_response(200, text, "text/plain")
        if not path.lower().startswith("/v1/"):
            return make_response(404, b"Not Found", "text/plain")
        if request.method == "OPTIONS":
            # As TensorFlow Serving; no header allows a web page to read responses.
            status = 200 if "Origin" in request.headers else 400
            return make_response(status, b"", "text/html; charset=ISO-8859-1")
        return await self._complete(request, self._respond(request, path))

    async def _respond(self, request: web.BaseRequest, path: str) -> web.Response:
        service = self._service
        try:
            async with service.handle("REST") as call:
                body = await self._read_body(request, call)
                api, name, version, label = _parse_route(request.method, path)
                call.begin(name, api)
                if request.headers.get("Content-Encoding", "").lower() == "gzip":
                    limit = service.max_body_bytes
                    body = await service.run_in_thread(_unzip, body, limit, body_bytes=limit)
                    call.reserve(len(body))
                if api == "GetModelStatus":  # ignores a label, even one that does not exist
                    make_document = partial(service.repository.describe, name, version)
                else:
                    with service.repository.use(name, version, label) as served:
                        make_document = await _dispatch(service, served, api, body)
                size = len(body)
                del body
                text = await service.run_in_thread(
                    lambda: _encode(make_document()), body_bytes=size
                )
                headers = {}
                if len(text) >= MIN_ZIPPED_BYTES and _accepts_gzip(request):
                    text = await service.run_in_thread(gzip.compress, text, 1, body_bytes=size)
                    headers["Content-Encoding"] = "gzip"
                return make_response(200, text, "application/json", headers)
        except CallError as error:
            return _respond_error(error)

    async def _read_body(self, request: web.BaseRequest, call: Call) -> bytes:
        limit = self._service.max_body_bytes
        _check_size(request.content_length or 0, limit)
        await request_body(request)
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
        signatures = served.engine.signatures
        name, is_row, inputs = await service.decode(rest_codec.decode_predict, body, signatures)
        outputs = await service.run(served, name, inputs)
        return lambda: rest_codec.encode_outputs(outputs, is_row=is_row)
    name, examples = await service.decode(rest_codec.parse_examples, body)
    serialized = map(serialize_example, examples)
    rows = await service.run_examples(served, name, api, serialized, len(body))
    return lambda: {"results": rows}


def _respond_error(error: CallError) -> web.Response:
    headers = ERROR_HEADERS.get(error.code)
    text = _encode({"error": str(error)})
    return make_response(error.http_status, text, "application/json", headers)


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
