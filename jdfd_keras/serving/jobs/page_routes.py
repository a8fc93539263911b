"""The page of the file service and its sessions: /, its script and style, login and logout.

Takes requests; returns responses. What the page shows is made by `app_page`.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from jdfd_keras.serving.jobs.access import COOKIE, SAFE_METHODS, SESSION_S, Access
from jdfd_keras.serving.jobs.app_page import LOGIN, PUBLIC_PATHS, PageFacts, page_response_parts
from jdfd_keras.serving.jobs.http_responses import method_error, redirect
from jdfd_keras.serving.jobs.request_errors import RequestError
from jdfd_keras.serving.jobs.uploads import read_small
from jdfd_keras.serving.server.http_server import make_response

LOGOUT = "/logout"
PAGE_PATHS = ("/", "/app.js", "/app.css", LOGIN, LOGOUT)
MAX_FORM_BYTES = 2**14


class PageRoutes:
    """The routes of the page."""

    def __init__(self, access: Access, facts: PageFacts, run: Callable[..., Awaitable[Any]]):
        """Create the routes; `run` calls a function in another thread."""
        self._access, self._facts, self._run = access, facts, run

    def methods_of(self, path: str) -> list[str]:
        """Return the methods of a path of the page; none for another path."""
        if path not in PAGE_PATHS:
            return []
        pages = {LOGIN: ["GET", "HEAD", "POST"], LOGOUT: ["POST"]}
        return pages.get(path, ["GET", "HEAD"])

    async def answer(self, path: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for a path of the page."""
        if path in (LOGIN, LOGOUT) and request.method == "POST":
            return await (self._log_in if path == LOGIN else self._log_out)(request)
        if request.method not in SAFE_METHODS or path == LOGOUT:
            raise method_error(path, request.method, self.methods_of(path))
        is_free = not self._access.needs_token
        if path == LOGIN and is_free:
            return redirect("/")
        if path not in PUBLIC_PATHS:
            try:
                self._access.check_token(request.headers, request.cookies)
            except RequestError:
                if path != "/":
                    raise
                return redirect(LOGIN)
        return await self._run(_make_page, path, self._facts, 200)

    async def _log_in(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await read_small(request, MAX_FORM_BYTES)
        try:
            fields = dict(parse_qsl(body.decode(), max_num_fields=10))
        except ValueError:
            fields = {}
        if not self._access.is_token(fields.get("token", "").strip()):
            facts = PageFacts(has_token=True, login_failed=True)
            return await self._run(_make_page, LOGIN, facts, 401)
        response = redirect("/")
        response.set_cookie(
            COOKIE,
            self._access.start_session(),
            max_age=int(SESSION_S),
            path="/",
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _log_out(self, request: web.BaseRequest) -> web.StreamResponse:
        self._access.end_session(request.cookies.get(COOKIE, ""))
        response = redirect(LOGIN)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response


def _make_page(path: str, facts: PageFacts, status: int) -> web.Response:
    parts = page_response_parts(path, facts)
    if parts is None:
        raise RequestError("not_found", f"Expected a path of the page; got {path}. Try /.")
    body, content_type, headers = parts
    return make_response(status, body, content_type, headers)
