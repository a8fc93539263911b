"""The HTTP interface of the file service: jobs below /v1/files, their downloads, and the page.

Takes requests; returns responses. All work that may wait for a disk or for a report is done by
other threads. Errors are JSON: {"error": {"code", "message"}}.
"""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from jdfd_keras.reporting.pdf import find_chromium
from jdfd_keras.serving.jobs.access import SECURITY_HEADERS, Access
from jdfd_keras.serving.jobs.api_routes import (
    DOWNLOADS,
    LIST_QUERY,
    MAX_LISTED,
    PAGES,
    ROUTES,
    Route,
)
from jdfd_keras.serving.jobs.app_page import PageFacts
from jdfd_keras.serving.jobs.http_responses import (
    JSON,
    describe_file,
    method_error,
    respond_failure,
    respond_json,
)
from jdfd_keras.serving.jobs.incoming_file import disk_errors
from jdfd_keras.serving.jobs.job_documents import MAX_WHOLE_NUMBER, describe_job, parse_options
from jdfd_keras.serving.jobs.job_types import QUEUED, RUNNING, Job, QueueFullError
from jdfd_keras.serving.jobs.openapi import describe_api
from jdfd_keras.serving.jobs.page_routes import PAGE_PATHS, PageRoutes
from jdfd_keras.serving.jobs.request_errors import RETRY_AFTER_S, RequestError
from jdfd_keras.serving.jobs.request_fields import check_fields, check_known, whole_number
from jdfd_keras.serving.jobs.uploads import (
    Upload,
    check_headers,
    check_name,
    open_below_root,
    plain_suffix,
    read_small,
    receive,
)
from jdfd_keras.serving.server.http_server import make_response, request_body

if TYPE_CHECKING:
    from jdfd_keras.serving.jobs.job_service import JobService

PREFIXES = ("/v1/files/", "/v1/openapi.json/")
DISK_THREADS = 8
HASH_THREADS = 2  # of files below the root, which may be large
REPORT_THREADS = 2  # each may run Chromium
MAX_UPLOADS = 32  # at once
MAX_JSON_BYTES = 2**16


class FileRoutes:
    """The routes of one service; they belong to one event loop.

    A route of `serving.server.http_server.Routes`.
    """

    def __init__(self, service: "JobService", token: str = ""):
        """Create the routes of a running service; without a token, for this machine only."""
        self._service = service
        self._access = Access(token)
        self._threads = ThreadPoolExecutor(DISK_THREADS, "files")
        self._hash_threads = ThreadPoolExecutor(HASH_THREADS, "hashes")
        self._report_threads = ThreadPoolExecutor(REPORT_THREADS, "reports")
        self._num_uploads = 0
        self._is_stopping = False
        options, limits = service.options, service.limits
        self._max_bytes = options.max_upload_mb * 2**20
        facts = PageFacts(
            metadata=service.metadata,
            engine=service.engine_text,
            max_upload_bytes=self._max_bytes,
            max_duration_s=limits.max_duration_s,
            keep_hours=options.keep_hours,
            has_token=self._access.needs_token,
            opinions=service.opinions,
        )
        self._page = PageRoutes(self._access, facts, self._run)

    @property
    def state(self) -> Path:
        """Folder of jobs, files and results."""
        return self._service.state

    def stop(self) -> None:
        """Refuse new files from now on; those that are being received are completed."""
        self._is_stopping = True

    def close(self) -> None:
        """End the threads, after the last request."""
        for threads in (self._threads, self._hash_threads, self._report_threads):
            threads.shutdown()

    def find(self, path: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None:
        """Return the function that answers a path; None if it is not of the file service."""
        if f"{path}/".startswith(PREFIXES):
            return functools.partial(self._answer, path, self._answer_api)
        if path in PAGE_PATHS:
            return functools.partial(self._answer, path, self._page.answer)
        return None

    async def _answer(
        self, path: str, answer: Callable[..., Awaitable[web.StreamResponse]], request: Any
    ) -> web.StreamResponse:
        try:
            self._access.check_site(request.method, request.headers)
            response = await answer(path, request)
        except RequestError as error:
            response = respond_json(error.to_dict(), error.status)
            if error.code in RETRY_AFTER_S:
                response.headers["Retry-After"] = str(RETRY_AFTER_S[error.code])
            if error.code == "unauthorized":
                response.headers["WWW-Authenticate"] = "Bearer"
            if error.code == "method_not_allowed":
                response.headers["Allow"] = ", ".join(self._methods_of(path))
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:  # noqa: BLE001, of any library: every answer is JSON
            response = respond_failure(error, f"{request.method} {path[:200]}")
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _answer_api(self, path: str, request: web.BaseRequest) -> web.StreamResponse:
        self._access.check_token(request.headers, request.cookies)
        for route in ROUTES:
            parameters = route.match(path)
            if parameters is not None and _is_method(request.method, route):
                return await getattr(self, f"_{route.operation}")(request, **parameters)
        if self._methods_of(path):
            raise method_error(path, request.method, self._methods_of(path))
        raise RequestError(
            "not_found",
            f"Expected a path such as /v1/files or /v1/files/ID; got {path[:200]}. See "
            "/v1/openapi.json.",
        )

    async def _run(
        self, function: Callable[..., Any], *arguments: Any, threads: Executor | None = None
    ) -> Any:
        """Call a function in another thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads or self._threads, function, *arguments)

    async def _submit(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._is_stopping:
            raise RequestError(
                "stopping", "Expected a running server; got one that stops. Try again later."
            )
        if self._num_uploads >= MAX_UPLOADS:
            raise _queue_full()
        self._num_uploads += 1  # before any other request can be handled
        try:
            if await self._run(self._service.store.is_full):
                raise _queue_full()
            if request.content_type == "application/json":
                upload, fields = await self._read_path(request)
                return await self._submit_file(upload, fields, None)
            query = check_fields(request.query)
            # Before the body: a wrong option must not cost an upload.
            parse_options({name: value for name, value in query.items() if name != "name"})
            if not request.content_type.startswith("multipart/"):
                check_name(query.get("name", ""))
            incoming = self._service.state / "incoming"
            await self._run(check_headers, request, self._max_bytes, incoming)
            await request_body(request)
            async with receive(request, incoming, self._max_bytes, self._threads) as upload:
                fields = query | upload.fields
                fields.pop("name", None)
                return await self._submit_file(upload, fields, upload.path)
        finally:
            self._num_uploads -= 1

    async def _read_path(self, request: web.BaseRequest) -> tuple[Upload, dict[str, Any]]:
        root = self._service.options.root
        await request_body(request)
        try:
            fields = json.loads(await read_small(request, MAX_JSON_BYTES))
        except (ValueError, RecursionError) as error:
            if isinstance(error, RequestError):
                raise
            fields = None
        if not root or not isinstance(fields, dict):
            raise RequestError(
                "bad_request",
                'Expected a file, or {"path": ...} with a server that has --root; got JSON. Try '
                "curl -F file=@clip.mp4.",
            )
        path = fields.pop("path", None)
        parse_options(fields)
        hashing = self._run(open_below_root, Path(root), path, threads=self._hash_threads)
        return await hashing, fields

    async def _submit_file(
        self, upload: Upload, fields: Mapping[str, Any], received: Path | None
    ) -> web.StreamResponse:
        options, annotate, callback = parse_options(fields)
        service = self._service

        def submit() -> web.Response:
            try:
                submission = service.make_submission(
                    upload.sha256,
                    upload.file_bytes,
                    plain_suffix(upload.name),
                    "" if received else str(upload.path),
                    options,
                    annotate,
                )
            except ValueError as error:  # options that do not suit the model
                raise RequestError("bad_request", str(error)) from None
            if callback:
                try:
                    service.webhooks.check(callback)
                except ValueError as error:
                    raise RequestError("callback_not_allowed", str(error)) from None
            try:
                with disk_errors():
                    job, is_new = service.submit(submission, upload.name, callback, received)
            except QueueFullError:
                raise _queue_full() from None
            document = describe_job(job, service.progress(job))
            response = respond_json(document, 202 if is_new else 200)
            response.headers["Location"] = document["links"]["self"]
            return response

        return await self._run(submit)

    async def _list(self, request: web.BaseRequest) -> web.StreamResponse:
        fields = check_fields(request.query)
        check_known(fields, LIST_QUERY)
        limit = whole_number(fields.get("limit", "50"), "limit", 1, MAX_LISTED)
        offset = whole_number(fields.get("offset", "0"), "offset", 0, MAX_WHOLE_NUMBER)
        query = fields.get("query", "")

        def describe() -> web.Response:
            jobs, total = self._service.list(query, limit, offset)
            files = [describe_job(job, self._service.progress(job), False) for job in jobs]
            return respond_json({"files": files, "total": total})

        return await self._run(describe)

    async def _get(self, request: web.BaseRequest, id: str) -> web.StreamResponse:
        def describe() -> web.Response:
            job = self._find_job(id)
            return respond_json(describe_job(job, self._service.progress(job)))

        return await self._run(describe)

    async def _delete(self, request: web.BaseRequest, id: str) -> web.StreamResponse:
        if not await self._run(self._service.delete, id):
            raise _no_job(id)
        return web.Response(status=204, headers={"Server": "jdfd-keras"})

    async def _describe(self, request: web.BaseRequest) -> web.StreamResponse:
        return respond_json(describe_api())

    async def _download(
        self, request: web.BaseRequest, id: str, download: str
    ) -> web.StreamResponse:
        job = await self._run(self._find_ended, id)
        if download == "result.json":
            if job.result is None:
                raise _no_file(download)
            text = await self._run(functools.partial(json.dumps, job.result, indent=2))
            headers = describe_file(job.name, download, {})
            return make_response(200, text.encode() + b"\n", JSON, headers)
        # An annotated file exists already: it does not wait for the reports of others.
        threads = self._threads if download.startswith("annotated") else self._report_threads
        make = functools.partial(self._service.report, job, download)
        path = await self._run(self._make_report, make, download, threads=threads)
        return web.FileResponse(path, headers=describe_file(job.name, download, DOWNLOADS))

    async def _model_page(
        self, request: web.BaseRequest, id: str, label: str, page: str
    ) -> web.StreamResponse:
        job = await self._run(self._find_ended, id)
        make = functools.partial(self._service.report_page, job, unquote(label), page)
        path = await self._run(self._make_report, make, page, threads=self._report_threads)
        return web.FileResponse(path, headers=describe_file(job.name, page, PAGES))

    def _make_report(self, make: Callable[[], Path], name: str) -> Path:
        if name.endswith(".pdf"):
            try:
                find_chromium()
            except FileNotFoundError:
                raise RequestError(
                    "no_chromium",
                    "Expected Chromium on the server, which prints PDF; got none. Print "
                    "report.html with a browser.",
                ) from None
        try:
            with disk_errors():
                return make()
        except FileNotFoundError:
            raise _no_file(name) from None

    def _methods_of(self, path: str) -> list[str]:
        methods = [route.method for route in ROUTES if route.match(path) is not None]
        return methods + ["HEAD"] * ("GET" in methods) or self._page.methods_of(path)

    def _find_job(self, id: str) -> Job:
        if (job := self._service.get(id)) is None:
            raise _no_job(id)
        return job

    def _find_ended(self, id: str) -> Job:
        job = self._find_job(id)
        if job.state in (QUEUED, RUNNING):
            raise RequestError(
                "not_ready",
                f"Expected a job that has ended; got one that is {job.state}. Try again when its "
                "state is done or failed.",
            )
        return job


def _is_method(method: str, route: Route) -> bool:
    return method == route.method or (method == "HEAD" and route.method == "GET")


def _queue_full() -> RequestError:
    return RequestError(
        "queue_full", "Expected space in the queue; got a full one. Try again later."
    )


def _no_job(id: str) -> RequestError:
    return RequestError(
        "not_found", f"Expected the id of a job; got {id}, which is deleted or never was."
    )


def _no_file(name: str) -> RequestError:
    return RequestError(
        "not_found", f"Expected a file of this job; it has no {name}. See the links of the job."
    )
