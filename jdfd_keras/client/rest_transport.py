"""Transport of arrays to a server and back over TensorFlow Serving's REST.

Takes the URL of a model; returns its signatures, and output arrays for input arrays. Independent of
the names of signatures. Imports no TensorFlow.
"""

import base64
import ipaddress
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

import numpy as np
import urllib3

from jdfd_keras.client.errors import (
    AccessDenied,
    ClientError,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTimeout,
    RequestTooLarge,
    ServerUnavailable,
)
from jdfd_keras.client.protos import DTYPES, MAX_ANSWER_BYTES
from jdfd_keras.client.signatures import Signature, TensorInfo, read_signature

URL = re.compile(
    r"https?://[^/@\s]+(/[^?#\s]*)?/v1/models/[^/:?#\s]+(/versions/\d{1,18}|/labels/[^/:?#\s]+)?/?"
)
RETRIED = (429, 502, 503)
BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30
READ_BYTES = 2**16
THREADS = 128  # connections that are kept open, one per thread
ERRORS = {401: AccessDenied, 403: AccessDenied, 413: RequestTooLarge, 504: RequestTimeout}
# Kinds of NumPy arrays that JSON numbers may become, by the kind of the output's dtype.
JSON_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


class RestTransport:
    """HTTP transport to one model; safe to use from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, retries: int, headers: Mapping[str, str]):
        """Create a connection pool; sends no request yet.

        Args:
            url: A match of URL.
            timeout_s: Seconds that each attempt may wait to connect, then for the start of the
                answer, and then for its end.
            retries: How often a request is repeated.
            headers: Headers of each request, such as `Authorization`.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = headers
        # A prediction changes nothing on the server, so a POST may be repeated too.
        self._retry = _Retry(
            retries,
            redirect=False,
            allowed_methods=None,
            status_forcelist=RETRIED,
            backoff_factor=BACKOFF_S,
            backoff_max=LONGEST_BACKOFF_S,
            backoff_jitter=BACKOFF_S,
            raise_on_status=False,
            retry_after_max=LONGEST_BACKOFF_S,
        )
        self._pool = _make_pool(url, timeout=timeout_s, maxsize=THREADS)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def read_signatures(self) -> dict[str, Signature]:
        """Request the signatures of the model.

        Raises:
            ClientError: If the server is unreachable or has no such model.
        """
        status, text = self._request("GET", "/metadata")
        if status != 200:
            raise self._error(status, text)
        answer = self._parse(text)
        try:
            definitions = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: read_signature(definition)
                for name, definition in definitions.items()
                if definition["method_name"]  # the initialization has none
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidResponse(self._url, f"metadata without signatures ({error!r})") from error

    def predict(
        self,
        name: str,
        signature: Signature,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Call a signature.

        Args:
            name: Name of the signature.
            signature: Its inputs and outputs.
            inputs: An array for each input.
            outputs: Outputs to return. The server sends all of them: REST has no filter.

        Returns:
            An array for each of `outputs`.

        Raises:
            RequestRefused: If the server rejects the inputs.
            RequestTooLarge: If they are too large together.
            ClientError: If the server is unreachable, fails, or returns another kind of answer.
        """
        columns = {key: _to_json(array) for key, array in inputs.items()}
        body = json.dumps({"signature_name": name, "inputs": columns}).encode("ascii")
        status, text = self._request("POST", ":predict", body)
        if status != 200:
            # An answer without that text is from a proxy, and not about the inputs.
            if status == 400 and _has_error(text):
                raise RequestRefused(self._url, f"status {status}: {_read_error(text)}")
            raise self._error(status, text)
        values = self._parse(text).get("outputs")
        if len(signature.outputs) == 1:
            values = dict.fromkeys(signature.outputs, values)
        try:
            return {key: _to_array(values[key], signature.outputs[key]) for key in outputs}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidResponse(self._url, f"{text[:80]!r} ({error!r})") from error

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            retry = self._retry
            while True:
                response = self._pool.request(
                    method,
                    self._url + path,
                    body=body,
                    headers=headers | dict(self._headers),
                    redirect=False,
                    retries=retry,
                    preload_content=False,
                )
                try:
                    return response.status, self._read(response)
                except urllib3.exceptions.ProtocolError as error:  # the connection broke
                    retry = response.retries.increment(method, path, error=error)
                    retry.sleep()
        except urllib3.exceptions.ReadTimeoutError as error:
            raise RequestTimeout(self._url, error) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ServerUnavailable(self._url, reason) from error

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Read an answer in chunks: each chunk may be in time although the answer never ends."""
        deadline = time.monotonic() + self._timeout_s
        text = bytearray()
        while chunk := response.read1(READ_BYTES):
            text += chunk
            error = None
            if time.monotonic() > deadline:
                reason = f"a part of the answer in {self._timeout_s:g} s"
                error = RequestTimeout(self._url, reason)
            elif len(text) > MAX_ANSWER_BYTES:
                error = InvalidResponse(self._url, f"more than {MAX_ANSWER_BYTES} bytes")
            if error:
                response.close()
                raise error
        response.release_conn()
        return bytes(text)

    def _error(self, status: int, text: bytes) -> ClientError:
        reason = f"status {status}: {_read_error(text)}"
        return ERRORS.get(status, RequestFailed)(self._url, reason)

    def _parse(self, text: bytes) -> dict:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidResponse(self._url, f"{text[:80]!r}") from error
        if not isinstance(answer, dict):
            raise InvalidResponse(self._url, f"{text[:80]!r}")
        return answer


class _Retry(urllib3.Retry):
    """Retry policy without repeats after a timeout, which would add to the load of the server."""

    def increment(
        self, method=None, url=None, response=None, error=None, _pool=None, _stacktrace=None
    ):
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine, which is reached without a proxy.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("example.org")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _make_pool(url: str, **settings) -> urllib3.PoolManager:
    scheme, host = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(url).hostname
    proxy = urllib.request.getproxies().get(scheme)
    if proxy is None or is_loopback(host) or urllib.request.proxy_bypass(host):
        return urllib3.PoolManager(**settings)
    login = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(login)) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)


def _to_json(array: np.ndarray) -> list:
    if array.dtype != object:
        return array.tolist()
    encoded = np.empty(array.shape, object)
    encoded.flat = [{"b64": base64.b64encode(value).decode("ascii")} for value in array.flat]
    return encoded.tolist()


def _to_array(values: list, info: TensorInfo) -> np.ndarray:
    if info.dtype == "string":
        return _to_bytes(np.array(values, object))
    _, dtype, _ = DTYPES[info.dtype]
    array = np.array(values)
    if array.size and array.dtype.kind not in JSON_KINDS[dtype.kind]:
        raise ValueError(f"{array.dtype} instead of {info.dtype}")
    return array.astype(dtype)


def _to_bytes(array: np.ndarray) -> np.ndarray:
    """Convert JSON strings, or base64 objects of outputs with names that end in `_bytes`."""
    result = np.empty(array.shape, object)
    result.flat = [
        base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
        for value in array.flat
    ]
    return result


def _has_error(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text)["error"], str)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _read_error(text: bytes) -> str:
    lines = json.loads(text)["error"].splitlines() if _has_error(text) else []
    return lines[0] if lines else f"{text[:80]!r}."
