"""Transport of arrays to a model and back over TensorFlow Serving's REST. Imports no TensorFlow."""

import base64
import ipaddress
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import urllib3
from urllib3.util import parse_url

from jdfd_keras.client.errors import (
    AccessDenied,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTimeout,
    RequestTooLarge,
    ServerUnavailable,
)
from jdfd_keras.client.protos import DTYPES, MAX_ANSWER_BYTES
from jdfd_keras.client.signatures import Signature, TensorInfo, read_signatures

URL = re.compile(
    r"https?://[^/@\s]+(/[^?#\s]*)?/v1/models/[^/:?#\s]+(/versions/\d{1,18}|/labels/[^/:?#\s]+)?/?"
)
BUSY = (429, 502, 503)
ERRORS = {401: AccessDenied, 403: AccessDenied, 413: RequestTooLarge, 504: RequestTimeout}
READ_BYTES = 2**16
THREADS = 128  # connections that are kept open, one per thread
# Kinds of NumPy arrays that JSON numbers may become, by the kind of the output's dtype.
JSON_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


class RestTransport:
    """HTTP transport to one model; safe to use from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str]):
        """Create a connection pool for a match of URL; sends no request yet.

        The timeout applies to the connection, then to the start of the answer, and then to its end.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", **headers}
        self._pool = _make_pool(url, timeout=timeout_s, maxsize=THREADS)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def read_signatures(self) -> dict[str, Signature]:
        """Request the signatures of the model."""
        answer = self._request("GET", "/metadata")
        try:
            return read_signatures(json.loads(answer)["metadata"]["signature_def"]["signature_def"])
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise InvalidResponse(self._url, f"metadata without signatures ({error!r})") from error

    def predict(
        self,
        name: str,
        signature: Signature,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Call a signature; the server sends all outputs, since REST has no filter."""
        columns = {key: _to_json(array) for key, array in inputs.items()}
        body = json.dumps({"signature_name": name, "inputs": columns}).encode("ascii")
        answer = self._request("POST", ":predict", body)
        try:
            values = json.loads(answer)["outputs"]
            if len(signature.outputs) == 1:
                values = dict.fromkeys(signature.outputs, values)
            return {key: _to_array(values[key], signature.outputs[key]) for key in outputs}
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise InvalidResponse(self._url, f"{answer[:80]!r} ({error!r})") from error

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            response = self._pool.request(
                method,
                self._url + path,
                body=body,
                headers=self._headers,
                redirect=False,
                retries=False,
                preload_content=False,
            )
            text = self._read(response)
            wait_s = urllib3.Retry().get_retry_after(response) or 0
        except urllib3.exceptions.ReadTimeoutError as error:
            raise RequestTimeout(self._url, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnavailable(self._url, error, retry_after_s=0) from error
        status = response.status
        if status == 200:
            return text
        message = _read_error(text)
        reason = f"status {status}: {message or f'{text[:80]!r}.'}"
        # A 400 without an error in JSON is from a proxy, and not about the inputs.
        if status == 400 and body and message:
            raise RequestRefused(self._url, reason)
        kind = ERRORS.get(status, RequestFailed)
        raise kind(self._url, reason, wait_s if status in BUSY else None)

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Read an answer in chunks: each chunk may be in time although the answer never ends."""
        deadline = time.monotonic() + self._timeout_s
        text = bytearray()
        while chunk := response.read1(READ_BYTES):
            text += chunk
            if time.monotonic() > deadline:
                response.close()
                raise RequestTimeout(self._url, f"a part of the answer in {self._timeout_s:g} s")
            if len(text) > MAX_ANSWER_BYTES:
                response.close()
                raise InvalidResponse(self._url, f"more than {MAX_ANSWER_BYTES} bytes")
        response.release_conn()
        return bytes(text)


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


def _make_pool(url: str, **settings: Any) -> urllib3.PoolManager:
    split = urllib.parse.urlsplit(url)
    host = split.hostname or ""
    proxy = urllib.request.getproxies().get(split.scheme)
    if proxy is None or is_loopback(host) or urllib.request.proxy_bypass(host):
        return urllib3.PoolManager(**settings)
    login = parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(login)) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)


def _to_json(array: np.ndarray) -> list:
    if array.dtype == object:
        array = np.vectorize(_encode, otypes=[object])(array)
    return array.tolist()


def _to_array(values: Any, info: TensorInfo) -> np.ndarray:
    if info.dtype == "string":
        return np.vectorize(_decode, otypes=[object])(np.array(values, object))
    _, dtype, _ = DTYPES[info.dtype]
    array = np.array(values)
    if array.size and array.dtype.kind not in JSON_KINDS[dtype.kind]:
        raise ValueError(f"{array.dtype} instead of {info.dtype}")
    return array.astype(dtype)


def _encode(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _decode(value: Any) -> bytes:
    """Decode a string, or the base64 of an output with a name that ends in `_bytes`."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return value.encode()


def _read_error(text: bytes) -> str:
    """Return the first line of the error in an answer; "" if there is none."""
    try:
        return json.loads(text)["error"].splitlines()[0]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return ""
