"""The page of the file service: uploads, their progress, and the cases of this server.

Takes the path of a request and facts about the server; returns the body and the headers of the
response. The page gets the cases by HTTP from its own server (`file_routes.py`), so that it needs
nothing else, and its script and style are files of their own: the content security policy allows
no others. Knows no jobs.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jdfd_keras.io.console import plural
from jdfd_keras.reporting.templating import render_template

if TYPE_CHECKING:
    from jdfd_keras.client.metadata import ModelMetadata

HTML, SCRIPT, STYLE = (f"text/{kind}; charset=utf-8" for kind in ("html", "javascript", "css"))
LOGIN = "/login"
PUBLIC_PATHS = (LOGIN, "/app.css")  # that a browser needs before the login
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:"),
        *("connect-src 'self'", "frame-src 'self'", "form-action 'self'", "base-uri 'none'"),
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`, with which a browser posts the login form with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class PageFacts:
    """What the page states about its server.

    Attributes:
        metadata: Metadata of the model, or of the first one; None if it is not stated.
        engine: Engine of the scores, as text; "" if it is not stated.
        max_upload_bytes: Largest upload; 0 if there is no limit.
        max_duration_s: Longest video in seconds; 0 if there is no limit.
        keep_hours: Hours after which a case is removed; 0 if it is kept.
        has_token: Whether users log in with a token.
        login_failed: Whether the token was wrong; for the login page.
        opinions: Facts about each model as text, if there are several.
    """

    metadata: "ModelMetadata | None" = None
    engine: str = ""
    max_upload_bytes: int = 0
    max_duration_s: float = 0.0
    keep_hours: float = 0.0
    has_token: bool = False
    login_failed: bool = False
    opinions: tuple[str, ...] = ()


def page_response_parts(
    path: str, facts: PageFacts | None = None
) -> tuple[bytes, str, dict[str, str]] | None:
    """Return the response to a GET request of the page.

    Args:
        path: Path of the URL, without a query.
        facts: Facts about the server.

    Returns:
        Body, content type, and the other headers; None if the path is not one of the page.

    Example:
        >>> body, content_type, headers = page_response_parts("/")
        >>> content_type, b"<script src" in body, headers["Cache-Control"]
        ('text/html; charset=utf-8', True, 'no-store')
        >>> page_response_parts("/other") is None
        True
    """
    facts = facts or PageFacts()
    if path == "/app.js":
        return _render_file("app.js.j2"), SCRIPT, dict(HEADERS)
    if path == "/app.css":
        return _render_file("app.css.j2"), STYLE, dict(HEADERS)
    if path == LOGIN:
        return render_template("app_login.html.j2", facts=facts).encode(), HTML, dict(HEADERS)
    if path != "/":
        return None
    text = render_template(
        "app.html.j2",
        facts=facts,
        limits=describe_limits(facts),
        kept=describe_retention(facts.keep_hours),
    )
    return text.encode(), HTML, dict(HEADERS)


def describe_limits(facts: PageFacts) -> str:
    """Return the limits of one file in words; "" if there are none.

    Example:
        >>> describe_limits(PageFacts(max_upload_bytes=2048 * 2**20, max_duration_s=3600))
        'Up to 2 GiB and 60 minutes each'
    """
    size, seconds = facts.max_upload_bytes, facts.max_duration_s
    limits = []
    if size:
        limits.append(f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB")
    if seconds:
        is_short = seconds < 120
        unit = "second" if is_short else "minute"
        limits.append(plural(round(seconds if is_short else seconds / 60), unit))
    return f"Up to {' and '.join(limits)} each" if limits else ""


def describe_retention(keep_hours: float) -> str:
    """Return how long cases are kept, as a clause; "" if they are not removed.

    Example:
        >>> describe_retention(168), describe_retention(1), describe_retention(0)
        ('for 7 days', 'for 1 hour', '')
    """
    if not keep_hours:
        return ""
    if keep_hours >= 48:
        return f"for {plural(round(keep_hours / 24), 'day')}"
    if keep_hours >= 1:
        return f"for {plural(round(keep_hours), 'hour')}"
    return f"for {plural(max(round(keep_hours * 60), 1), 'minute')}"


@functools.cache
def _render_file(name: str) -> bytes:
    return render_template(name).encode()
