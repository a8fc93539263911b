"""A server of the page whose jobs do what a test says: states, delays and refusals on demand.

It answers as `file_routes.py` does, so that the page can be tested without analyses.
"""

import asyncio
import hashlib
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from jdfd_keras.serving.jobs.app_page import PageFacts, page_response_parts

REPORT = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Report</title>"
    "<h1>Report</h1><p>The report of a test.</p></html>"
)
DIGEST = "ab" * 32


def make_document(name: str, **values: Any) -> dict[str, Any]:
    """Return the document of a job; `values` replace its defaults."""
    job_id = uuid.uuid4().hex
    path = f"/v1/files/{job_id}"
    document = {
        "id": job_id,
        "state": "queued",
        "progress": 0.0,
        "position": 1,
        "name": name,
        "sha256": hashlib.sha256(name.encode("utf-8", "replace")).hexdigest(),
        "bytes": 123_456,
        "created_at": "2026-11-29T15:21:00+00:00",
        "finished_at": "",
        "options": {"annotate": False},
        "verdict": "",
        "score": None,
        "error": None,
        "links": {"self": path, "report": "", "pdf": "", "json": "", "annotated": ""},
    }
    return document | values


@dataclass
class ScriptedServer:
    """The server, in a thread of its own; attributes may be changed while it runs."""

    facts: PageFacts = field(default_factory=PageFacts)
    jobs: list[dict[str, Any]] = field(default_factory=list)  # the newest first
    refusals: list[tuple[int, str]] = field(default_factory=list)  # of the next uploads
    is_down: bool = False  # lists and jobs answer 500
    token: str = ""
    bodies: list[bytes] = field(default_factory=list)
    origins: list[str | None] = field(default_factory=list)  # of the posts
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> "ScriptedServer":
        """Start the server on a free port of this machine."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def add(self, name: str, **values: Any) -> dict[str, Any]:
        """Add a job as the newest one."""
        document = make_document(name, **values)
        self.jobs.insert(0, document)
        return document

    def start(self, document: dict[str, Any], progress: float) -> None:
        """Let a job run."""
        document |= {"state": "running", "position": 0, "progress": progress}

    def finish(self, document: dict[str, Any], verdict: str = "fake", score: float = 0.973) -> None:
        """End a job with a verdict."""
        path = f"/v1/files/{document['id']}"
        names = {"report": "report.html", "pdf": "report.pdf", "json": "result.json"}
        document["links"] |= {key: f"{path}/{name}" for key, name in names.items()}
        document |= {"state": "done", "progress": 1.0, "position": 0}
        document |= {"verdict": verdict, "score": score, "finished_at": "2026-11-29T15:22:00+00:00"}

    def fail(self, document: dict[str, Any], code: str) -> None:
        """End a job without a verdict."""
        error = {"code": code, "message": f"Expected a video; got <i>{code}</i>."}
        document |= {"state": "failed", "progress": 1.0, "position": 0, "error": error}

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self.requests.append(f"{request.method} {request.raw_path}")
        if request.method == "POST":
            self.origins.append(request.headers.get("Origin"))
        if self.token and request.cookies.get("session") != "1":
            return await self._log_in(request)
        parts = page_response_parts(request.path, self.facts)
        if parts and request.method == "GET":
            return _page(parts)
        if request.path == "/v1/files" and request.method == "POST":
            return await self._receive(request)
        if self.is_down:
            return _error(500, "internal")
        if request.path == "/v1/files":
            return self._list(request)
        if request.path.startswith("/v1/files/"):
            return self._answer(request)
        if request.path == "/logout":
            response = web.Response(status=204)
            response.del_cookie("session")
            return response
        return web.Response(status=404)

    async def _log_in(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/login" and request.method == "POST":
            fields = await request.post()
            if fields.get("token") == self.token:
                response = web.Response(status=303, headers={"Location": "/"})
                response.set_cookie("session", "1", httponly=True, samesite="Strict")
                return response
            return _page(page_response_parts("/login", PageFacts(login_failed=True)), 401)
        if request.path in ("/login", "/app.css"):
            return _page(page_response_parts(request.path))
        if request.path == "/":
            return web.Response(status=303, headers={"Location": "/login"})
        return _error(401, "unauthorized")

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if self.refusals:
            return _error(*self.refusals.pop(0))
        self.bodies.append(body)
        sha256 = hashlib.sha256(body).hexdigest()
        name = request.query["name"]
        for document in self.jobs:
            if (document["sha256"], document["name"]) == (sha256, name):
                return web.json_response(document, status=200)
        queued = 1 + sum(document["state"] == "queued" for document in self.jobs)
        options = {"annotate": request.query["annotate"] == "true"}
        values = {"sha256": sha256, "bytes": len(body), "position": queued, "options": options}
        return web.json_response(self.add(name, **values), status=202)

    def _list(self, request: web.BaseRequest) -> web.Response:
        text = request.query.get("query", "").lower()
        limit, offset = (int(request.query[name]) for name in ("limit", "offset"))
        found = [
            document
            for document in self.jobs
            if text in document["name"].lower() or document["sha256"].startswith(text)
        ]
        return web.json_response({"files": found[offset : offset + limit], "total": len(found)})

    def _answer(self, request: web.BaseRequest) -> web.Response:
        _, _, _, job_id, *names = request.path.split("/")
        document = next((job for job in self.jobs if job["id"] == job_id), None)
        if document is None:
            return _error(404, "not_found")
        if request.method == "DELETE":
            self.jobs.remove(document)
            return web.Response(status=204)
        if names == ["report.html"]:
            return web.Response(text=REPORT, content_type="text/html")
        if names == ["report.pdf"]:
            return _error(501, "no_chromium")
        if names == ["result.json"]:
            headers = {"Content-Disposition": 'attachment; filename="clip-result.json"'}
            return web.json_response({"files": []}, headers=headers)
        result = {"files": []} if document["state"] in ("done", "failed") else None
        return web.json_response({"result": result} | document)


def _page(parts: tuple[bytes, str, dict[str, str]] | None, status: int = 200) -> web.Response:
    assert parts is not None
    body, content_type, headers = parts
    return web.Response(body=body, headers=headers | {"Content-Type": content_type}, status=status)


def _error(status: int, code: str) -> web.Response:
    document = {"error": {"code": code, "message": f"Expected another file; got <b>{code}</b>."}}
    headers = {"Retry-After": "1"} if status == 503 else {}
    return web.json_response(document, status=status, headers=headers)
