"""Signed callbacks: a POST to the client's URL when a job is done or failed.

Takes the callbacks that are due from the store of the jobs; records there what became of each, so
that every one is sent at least once, also after a kill. Sends to hosts that the operator allowed by
name, follows no redirect and uses no proxy.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from jdfd_keras.serving.jobs.callback_queue import DueCallback
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import Job
from jdfd_keras.serving.jobs.state_folder import personalize_job

LOGGER = logging.getLogger(__name__)
TIMEOUT_S = 10.0  # from the connection to the status of the answer
FIRST_RETRY_S, MAX_RETRY_S = 1.0, 3600.0  # doubled after each attempt
GIVE_UP_AFTER_S = 24 * 3600.0
TOLERANCE_S = 300.0  # age of a signature that a receiver accepts
MAX_SILENCE_S = 60.0  # an unreachable host gets one attempt, not one for each of its callbacks
POLL_S = 0.5  # retries become due, and `close` is noticed
STORE_RETRY_S = 30.0  # after a full disk; a callback that was sent is then sent again
MAX_URL = 2048  # characters
_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)  # no space, control character or other alphabet


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a callback, the header `X-JDFD-Signature`.

    Args:
        secret: The secret that server and receiver share.
        timestamp: The header `X-JDFD-Timestamp`, seconds since 1970.
        body: The body of the request.

    Returns:
        `sha256=` and the HMAC-SHA256 of timestamp, `.` and body, hexadecimal.

    Example:
        >>> sign("secret", "1767225600", b"{}")
        'sha256=...'
    """
    message = timestamp.encode() + b"." + body
    digest = hmac.new(secret.encode("utf-8", "surrogateescape"), message, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def verify_signature(
    secret: str,
    timestamp: str,
    body: bytes,
    signature: str,
    *,
    now: float | None = None,
    tolerance_s: float = TOLERANCE_S,
) -> bool:
    """Return whether a callback comes from a server with the secret, and is recent.

    A receiver calls it before it reads the body. A callback may come more than once: the header
    `X-JDFD-Delivery` has the id of the job.

    Args:
        secret: The secret that server and receiver share.
        timestamp: The header `X-JDFD-Timestamp`.
        body: The body of the request, as received.
        signature: The header `X-JDFD-Signature`.
        now: The time in seconds since 1970; default: the clock.
        tolerance_s: Largest difference between now and the timestamp.

    Example:
        >>> headers = {"X-JDFD-Timestamp": "1767225600"}
        >>> headers["X-JDFD-Signature"] = sign("secret", "1767225600", b"{}")
        >>> received = (headers["X-JDFD-Timestamp"], b"{}", headers["X-JDFD-Signature"])
        >>> verify_signature("secret", *received, now=1767225601.0)
        True
        >>> verify_signature("secret", *received)  # long ago
        False
    """
    if not re.fullmatch(r"\d{1,12}", timestamp, re.ASCII):
        return False
    age_s = (time.time() if now is None else now) - int(timestamp)
    expected = sign(secret, timestamp, body).encode("ascii")
    is_same = hmac.compare_digest(expected, signature.encode("utf-8", "surrogatepass"))
    return is_same and abs(age_s) <= tolerance_s


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str  # as in the URL, in lower case; an IPv6 address in brackets
    port: int
    path: str  # with the query

    def is_in(self, hosts: frozenset[str]) -> bool:
        """Return whether the host is allowed; one without a port only on the usual port."""
        is_usual = self.port == _PORTS[self.scheme]
        return f"{self.host}:{self.port}" in hosts or (is_usual and self.host in hosts)

    def connect(self) -> HTTPConnection:
        host = self.host.strip("[]")
        if self.scheme == "http":
            return HTTPConnection(host, self.port, timeout=TIMEOUT_S)
        context = ssl.create_default_context()
        return HTTPSConnection(host, self.port, timeout=TIMEOUT_S, ssl_context=context)


class Webhooks:
    """Thread that sends the callbacks of finished jobs.

    Example:
        >>> from pathlib import Path
        >>> with JobStore(Path("callbacks.sqlite"), max_queued=1) as store:
        ...     webhooks = Webhooks(store, "secret", frozenset({"example.org"}))
        ...     webhooks.check("https://example.org/done")
        ...     webhooks.check("https://example.com/done")
        Traceback (most recent call last):
        ValueError: Expected a callback to an allowed host; got example.com:443. ...
    """

    def __init__(self, store: JobStore, secret: str, hosts: frozenset[str]):
        """Start no thread yet.

        Args:
            store: The store; open until `close` returns.
            secret: Secret of the signatures; "" to allow no callback.
            hosts: Names of the allowed hosts, or `name:port` for another port than 80 of http and
                443 of https.
        """
        self._store, self._secret = store, secret
        self._hosts = frozenset(host.strip().lower() for host in hosts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._unreachable: dict[str, float] = {}  # host and port: time of the next attempt

    def __enter__(self) -> Self:
        """Start the thread."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread."""
        self.close()

    def check(self, url: str) -> None:
        """Check that a callback may be sent to a URL.

        Raises:
            ValueError: If not.
        """
        self._parse(url)

    def start(self) -> None:
        """Start to send the callbacks that are due."""
        self._thread.start()

    def close(self) -> None:
        """Stop after at most about TIMEOUT_S; what is not sent is sent after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._store.callbacks.wait(POLL_S)
                for callback in self._store.callbacks.due(time.time()):
                    if self._stop.is_set():
                        break
                    self._deliver(callback)
            except OSError as error:
                LOGGER.warning("Callbacks wait for %g s: %s", STORE_RETRY_S, error)
                self._stop.wait(STORE_RETRY_S)

    def _deliver(self, callback: DueCallback) -> None:
        queue, job = self._store.callbacks, callback.job
        host, retry_s = "an invalid URL", _retry_delay(callback.attempts)
        try:
            target = self._parse(job.callback)
            host = f"{target.host}:{target.port}"
            is_silent = time.time() < self._unreachable.get(host, 0.0)
            status = 0 if is_silent else self._post(target, job)
        except ValueError as reason:
            is_silent, error = False, str(reason)
        except (HTTPError, http.client.HTTPException, OSError) as reason:
            is_silent, error = False, f"{type(reason).__name__}: {reason}"
            self._unreachable[host] = time.time() + min(retry_s, MAX_SILENCE_S)
        else:
            error = "" if 200 <= status < 300 else f"status {status}"
        if is_silent:
            queue.postpone(callback.number, self._unreachable[host])
        elif not error:
            queue.mark_sent(callback.number)
        else:
            now = time.time()
            is_last = now + retry_s > callback.created_at + GIVE_UP_AFTER_S
            queue.mark_failed(callback.number, error, None if is_last else now + retry_s)
            if is_last:
                # Not the URL: its query may hold a token of the client.
                LOGGER.warning("Callback of job %s to %s given up: %s", job.id, host, error)

    def _post(self, target: _Target, job: Job) -> int:
        """Send the callback of a job; return the status of the answer, whose body is not read."""
        body, timestamp = _to_body(job), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "jdfd-keras",
            "Connection": "close",
            "X-JDFD-Timestamp": timestamp,
            "X-JDFD-Signature": sign(self._secret, timestamp, body),
            "X-JDFD-Delivery": job.id,
        }
        connection = target.connect()
        try:
            connection.connect()
            # Each byte of an answer may be in time although its headers never end.
            with _deadline(connection, TIMEOUT_S):
                connection.request(
                    "POST", target.path, body=body, headers=headers, preload_content=False
                )
                response = connection.getresponse()
                response.close()
            return response.status
        finally:
            connection.close()

    def _parse(self, url: str) -> _Target:
        """Return where a callback is sent to; a ValueError if it is not allowed."""
        if not self._secret:
            raise ValueError(
                "Expected no callback, since this server has no --callback-secret; got one. Try "
                "to poll GET /v1/files/ID."
            )
        target = _parse_url(url)
        if not target.is_in(self._hosts):
            raise ValueError(
                f"Expected a callback to an allowed host; got {target.host}:{target.port}. Try a "
                "host of --callback-hosts, or start the server with this one."
            )
        return target


def _parse_url(url: str) -> _Target:
    advice = (
        f"Try http or https, a host, and at most {MAX_URL} ASCII characters without user, password "
        "and fragment."
    )
    is_plain = len(url) <= MAX_URL and _PRINTABLE.fullmatch(url) and not set(url) & set("\\#")
    if not is_plain:
        raise ValueError(f"Expected an HTTP URL as callback; got another text. {advice}")
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise ValueError(f"Expected an HTTP URL as callback; got '{error}'. {advice}") from error
    if split.scheme not in _PORTS or not host or "@" in split.netloc:
        # Not the URL itself, which may hold a password.
        raise ValueError(
            "Expected an HTTP URL as callback; got another scheme, no host, or a user or password. "
            f"{advice}"
        )
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    port = _PORTS[split.scheme] if port is None else port
    return _Target(split.scheme, f"[{host}]" if ":" in host else host, port, path)


def _to_body(job: Job) -> bytes:
    job = personalize_job(job)
    error = {"code": job.error.code, "message": job.error.message} if job.error else None
    values = {
        "id": job.id,
        "state": job.state,
        "name": job.name,
        "sha256": job.submission.sha256,
        "verdict": job.verdict,
        "score": job.score,
        "error": error,
        "finished_at": job.finished_at,
    }
    return json.dumps(values).encode("ascii")


def _retry_delay(attempts: int) -> float:
    """Return the seconds after a failed attempt, by the number of those before it."""
    return min(FIRST_RETRY_S * 2.0 ** min(attempts, 60), MAX_RETRY_S)


@contextlib.contextmanager
def _deadline(connection: HTTPConnection, timeout_s: float) -> Iterator[None]:
    """Shut the socket of an open connection down if the block takes longer."""
    sock = connection.sock

    def shut_down() -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
