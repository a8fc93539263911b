"""Who may use the file service: token, sessions of the page, Host and Origin of a request.

Takes the headers of a request; raises a RequestError or returns nothing. Without a token only this
machine has access, and a web page of another site must not use the browser of its user as a way
in: neither by a name that resolves to this machine (Host), nor by a form or script (Origin).
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from jdfd_keras.serving.jobs.request_errors import RequestError

COOKIE = "jdfd_keras_session"
SESSION_S = 12 * 3600.0
MAX_SESSIONS = 1000
HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(:[0-9]{1,5})?")
SAFE_METHODS = ("GET", "HEAD")
# Of every response; a page adds its own policy.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"  # of JSON


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is reachable from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost")
        (True, True, True)
        >>> is_loopback("0.0.0.0"), is_loopback("localhost.example.org"), is_loopback("")
        (False, False, False)
    """
    name = host.strip("[]").lower()
    if name in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str) -> None:
    """Check that a server without a token listens on this machine only.

    Raises:
        ValueError: If other machines could use it.

    Example:
        >>> check_exposure("0.0.0.0", token="")
        Traceback (most recent call last):
        ValueError: Expected a --token with --host 0.0.0.0, which other machines can reach; got ...
    """
    if not token and not is_loopback(host):
        raise ValueError(
            f"Expected a --token with --host {host or chr(39) * 2}, which other machines can "
            "reach; got none. Try --token @FILE, with the output of `openssl rand -hex 16` in the "
            "file, or --host 127.0.0.1."
        )


class Access:
    """The token and the sessions of a server.

    Attributes:
        needs_token: Whether a request must have the token or a session.
    """

    def __init__(self, token: str = ""):
        """Create the access of a token; without one, of this machine only."""
        self.needs_token = bool(token)
        self._digest = _digest(token)
        self._sessions: dict[str, float] = {}  # digest of the identifier to the time of its end

    def check_site(self, method: str, headers: Mapping[str, str]) -> None:
        """Check that a request is not sent by a page of another site.

        Raises:
            RequestError: `forbidden_host` or `foreign_origin`.
        """
        host = headers.get("Host", "")
        match = HOST.fullmatch(host)
        # With a token, a name that resolves to this machine is of no use to another site: it has
        # neither the token nor the cookie, which belongs to the name.
        if not match or not (self.needs_token or is_loopback(match["name"])):
            raise RequestError(
                "forbidden_host",
                f"Expected a Host such as 127.0.0.1:8501 or localhost; got {host[:200]!r}. Other "
                "names need a server with --token.",
            )
        if method in SAFE_METHODS:
            return
        origin = headers.get("Origin")
        is_foreign = origin is not None and _host_of(origin) != host.lower()
        site = headers.get("Sec-Fetch-Site", "same-origin")
        if is_foreign or site not in ("same-origin", "none"):
            raise RequestError(
                "foreign_origin",
                f"Expected a request of this site; got Origin {(origin or site)[:200]!r}. Pages of "
                "other sites have no access.",
            )

    def check_token(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> None:
        """Check the token, or the session of the page.

        Raises:
            RequestError: `unauthorized`.
        """
        if not self.needs_token:
            return
        # Another scheme may be for a proxy before this server.
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self.is_token(token.strip()):
                return
            found = "another one"
        elif self.is_session(cookies.get(COOKIE, "")):
            return
        else:
            found = "none"
        raise RequestError(
            "unauthorized",
            f"Expected the header 'Authorization: Bearer TOKEN' with the token of the server; got "
            f"{found}. Use the one that the server was started with.",
        )

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token, in a time that does not depend on the text."""
        return self.needs_token and hmac.compare_digest(_digest(text), self._digest)

    def is_session(self, identifier: str) -> bool:
        """Return whether a session exists and has not ended."""
        return self._sessions.get(_digest(identifier), 0.0) > time.monotonic()

    def start_session(self) -> str:
        """Return the identifier of a new session, for its cookie."""
        now = time.monotonic()
        self._sessions = {key: end for key, end in self._sessions.items() if end > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]  # the oldest
        identifier = secrets.token_urlsafe(32)
        self._sessions[_digest(identifier)] = now + SESSION_S
        return identifier

    def end_session(self, identifier: str) -> None:
        """End a session, if it exists."""
        self._sessions.pop(_digest(identifier), None)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as a bracket without an address
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
