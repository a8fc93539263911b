"""Responses of the file service: JSON, redirects, names of downloads, and errors of methods."""

import json
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from jdfd_keras.io.console import print_message
from jdfd_keras.serving.jobs.access import NO_CONTENT_POLICY
from jdfd_keras.serving.jobs.incoming_file import FULL
from jdfd_keras.serving.jobs.request_errors import RequestError
from jdfd_keras.serving.server.http_server import make_response

JSON = "application/json; charset=utf-8"
# Shown by the browser; others are saved.
INLINE = ("report.html", "report-player.mp4", "index.html", "index-player.mp4")


def respond_json(document: Any, status: int = 200) -> web.Response:
    r"""Return a JSON response.

    Example:
        >>> respond_json({"name": "é"}).body
        b'{"name": "\xc3\xa9"}'
    """
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")
    headers = {"Content-Security-Policy": NO_CONTENT_POLICY}
    return make_response(status, text, JSON, headers)


def respond_failure(error: Exception, request: str) -> web.Response:
    """Return the response to a request that failed, and print why.

    The reason may name paths of this machine, so that only its operator is told.

    Args:
        error: The error, with errno ENOSPC or similar if the disk is full.
        request: Method and path of the request.

    Example:
        >>> respond_failure(PermissionError("not readable"), "GET /v1/files").status
        500
    """
    is_of_system = isinstance(error, OSError)
    reason = str(error) if is_of_system else "".join(traceback.format_exception(error))
    print_message(f"file service: {request}: {reason}")
    code, problem = "internal", "an error that the server has logged. Try again"
    if is_of_system and error.errno in FULL:
        code, problem = "disk_full", "a full disk. Free some of it, or try again later"
    refusal = RequestError(code, f"Expected to answer; got {problem}.")
    return respond_json(refusal.to_dict(), refusal.status)


def redirect(path: str) -> web.Response:
    """Return a redirection, which is followed by GET.

    Example:
        >>> redirect("/login").status
        303
    """
    return web.Response(status=303, headers={"Location": path, "Server": "jdfd-keras"})


def describe_disposition(name: str, download: str) -> str:
    """Return how a browser saves a download: under the name of the file and its own suffix.

    Args:
        name: Name of the file that was submitted; untrusted text.
        download: Name of the download, such as report.pdf.

    Reference: RFC 6266 (2011), https://www.rfc-editor.org/rfc/rfc6266.

    Example:
        >>> describe_disposition('a"b.mp4', "report.pdf").split("; ")[1]
        'filename="a_b-report.pdf"'
    """
    kind = "inline" if download in INLINE else "attachment"
    stem, _, suffix = download.partition(".")
    given = Path(name).stem
    # Without what is a separator, a wildcard or invisible on some system.
    clean = "".join(c if c.isprintable() and c not in '<>:"/\\|?*%' else "_" for c in given)[:120]
    file_name = f"{clean or 'file'}-{stem}.{suffix}"
    plain = "".join(c if c.isascii() else "_" for c in file_name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def describe_file(name: str, download: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a file of a job.

    Args:
        name: Name of the file that was submitted; untrusted text.
        download: Name of the download.
        kinds: Media types by name of the download; without its own, none is stated.

    Example:
        >>> describe_file("a.mp4", "report.html", {"report.html": "text/html"})["Content-Type"]
        'text/html; charset=utf-8'
    """
    kind = kinds.get(download, "")
    stated = {"Content-Type": kind + "; charset=utf-8" * kind.endswith("html")} if kind else {}
    return stated | {
        "Content-Disposition": describe_disposition(name, download),
        "Server": "jdfd-keras",
        # The page shows reports in a frame; their own policy is within them.
        "Content-Security-Policy": "frame-ancestors 'self'",
    }


def method_error(path: str, method: str, methods: Sequence[str]) -> RequestError:
    """Return the error of a method that a path does not have.

    Example:
        >>> method_error("/", "PUT", ["GET", "HEAD"]).message
        'Expected GET or HEAD for /; got PUT. Try that.'
    """
    return RequestError(
        "method_not_allowed",
        f"Expected {' or '.join(methods)} for {path}; got {method[:20]}. Try that.",
    )
