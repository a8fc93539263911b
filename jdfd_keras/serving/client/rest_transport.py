"""Arrays to a server and back over TensorFlow Serving's REST.

Takes the URL of a model; gives its signatures, and arrays for arrays. Knows no signature by name.
Imports no TensorFlow.
"""

import base64
import ipaddress
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Sequence

import numpy as np
import urllib3

from jdfd_keras.serving.client.errors import (
    not_answered,
    not_there,
    not_understood,
    refused,
    too_large,
)
from jdfd_keras.serving.client.wire import DTYPES
from jdfd_keras.serving.contract import Signature, TensorInfo

URL = re.compile(
    r"https?://[^/@\s]+(/[^?#\s]*)?/v1/models/[^/:?#\s]+(/versions/\d{1,18}|/labels/[^/:?#\s]+)?/?"
)
RETRIED = (429, 502, 503, 504)
BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30
THREADS = 128  # whose connections are kept open
# What NumPy makes of JSON, by the kind of array that is wanted.
JSON_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


class RestTransport:
    """The way to one model over HTTP; may be used from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, retries: int):
        """Prepare the way; asks nothing yet.

        Args:
            url: Of the form of URL.
            timeout_s: How long each try may wait: to connect, and then for each part of the
                answer.
            retries: How often a request is repeated.
        """
        self._url = url.rstrip("/")
        # To predict changes nothing on the server, so a POST may be repeated too.
        retry = urllib3.Retry(
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
        self._pool = _make_pool(url, timeout=timeout_s, retries=retry, maxsize=THREADS)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def read_signatures(self) -> dict[str, Signature]:
        """Ask for the signatures of the model.

        Raises:
            OSError: If the server is not there, or has no such model.
        """
        status, text = self._request("GET", "/metadata")
        if status != 200:
            raise not_answered(self._url, f"status {status}: {_read_error(text)}")
        answer = self._parse(text)
        try:
            definitions = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: _read_signature(definition)
                for name, definition in definitions.items()
                if definition["method_name"]  # the initialisation has none
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise not_understood(self._url, f"metadata without signatures ({error!r})") from error

    def predict(
        self,
        name: str,
        signature: Signature,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Call a signature.

        Args:
            name: The signature's.
            signature: What it takes and gives.
            inputs: An array for each of its inputs.
            outputs: The outputs wanted. All of them travel: REST has no choice.

        Returns:
            An array for each output wanted.

        Raises:
            RefusedError: If the server finds fault with the inputs.
            TooLargeError: If they are too large together.
            OSError: If the server is not there, fails, or answers something else.
        """
        columns = {key: _to_json(array) for key, array in inputs.items()}
        body = json.dumps({"signature_name": name, "inputs": columns}).encode("ascii")
        status, text = self._request("POST", ":predict", body)
        if status != 200:
            reason = f"status {status}: {_read_error(text)}"
            if status == 413:
                raise too_large(self._url, reason)
            # One without that text is of a proxy, and not about the inputs.
            if status == 400 and _has_error(text):
                raise refused(self._url, reason)
            raise not_answered(self._url, reason)
        values = self._parse(text).get("outputs")
        if len(signature.outputs) == 1:
            values = dict.fromkeys(signature.outputs, values)
        try:
            return {key: _to_array(values[key], signature.outputs[key]) for key in outputs}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise not_understood(self._url, f"{text[:80]!r} ({error!r})") from error

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            response = self._pool.request(
                method, self._url + path, body=body, headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise not_there(self._url, getattr(error, "reason", None) or error) from error
        return response.status, response.data

    def _parse(self, text: bytes) -> dict:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise not_understood(self._url, f"{text[:80]!r}") from error
        if not isinstance(answer, dict):
            raise not_understood(self._url, f"{text[:80]!r}")
        return answer


def is_loopback(host: str) -> bool:
    """Tell whether a host, a name or an address, is this machine: no proxy leads there."""
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
        raise ValueError(f"{array.dtype} in place of {info.dtype}")
    return array.astype(dtype)


def _to_bytes(array: np.ndarray) -> np.ndarray:
    """Take text as it comes in JSON, or as base64 where the output's name asks for it."""
    result = np.empty(array.shape, object)
    result.flat = [
        base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
        for value in array.flat
    ]
    return result


def _read_signature(definition: dict) -> Signature:
    def read(tensors: dict) -> dict[str, TensorInfo]:
        return {name: _read_tensor_info(info) for name, info in tensors.items()}

    return Signature(
        definition["method_name"], read(definition["inputs"]), read(definition["outputs"])
    )


def _read_tensor_info(info: dict) -> TensorInfo:
    dtype = info["dtype"].removeprefix("DT_").lower()
    if info["tensor_shape"]["unknown_rank"]:
        return TensorInfo(dtype, None)
    sizes = (int(axis["size"]) for axis in info["tensor_shape"]["dim"])
    return TensorInfo(dtype, tuple(size if size >= 0 else None for size in sizes))


def _has_error(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text)["error"], str)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _read_error(text: bytes) -> str:
    lines = json.loads(text)["error"].splitlines() if _has_error(text) else []
    return lines[0] if lines else f"{text[:80]!r}."
