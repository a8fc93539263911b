"""Client of a served model, over REST or gRPC. Imports no TensorFlow."""

import functools
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jdfd_keras.client import grpc_transport, rest_transport
from jdfd_keras.client.errors import (
    ClientError,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTooLarge,
    SignatureMissing,
)
from jdfd_keras.client.grpc_transport import GrpcTransport
from jdfd_keras.client.metadata import ModelMetadata, read_engine, read_metadata
from jdfd_keras.client.protos import check_inputs, fits
from jdfd_keras.client.rest_transport import RestTransport
from jdfd_keras.client.signatures import (
    EXPLAIN,
    FACES,
    METADATA,
    RECONSTRUCT,
    SERVING_DEFAULT,
    Signature,
)

TIMEOUT_S = 60.0
RETRIES = 3
BATCH_SIZE = 32
BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30
AUTHORIZATION = "JDFD_AUTHORIZATION"  # a whole header, also of another scheme
TOKEN = "JDFD_KERAS_TOKEN"  # as of the server

Value = TypeVar("Value")


def connect(
    url: str,
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    batch_size: int = BATCH_SIZE,
    headers: Mapping[str, str] | None = None,
) -> "Client":
    """Connect to a served model and read its signatures.

    Args:
        url: URL of the model, such as `http://127.0.0.1:8501/v1/models/detector` over REST or
            `grpc://127.0.0.1:8500/detector` over gRPC; `https` and `grpcs` use TLS. It may end in
            one version: `/versions/2` or `/labels/stable`.
        timeout_s: Seconds that each attempt may wait for its answer; above 0.
        retries: How often a request is repeated, after increasing delays, if the server is
            unreachable or busy; a request that timed out is not repeated.
        batch_size: Faces per request; at least 1.
        headers: HTTP headers or gRPC metadata of every request, for a server or proxy that
            requires credentials: `{"Authorization": "Bearer ..."}`. The default is `Authorization`
            with the content of the environment variable JDFD_AUTHORIZATION, else with the token
            in JDFD_KERAS_TOKEN (`@FILE`: in a file), if one is set.

    Returns:
        The client; a context manager that closes it.

    Raises:
        ClientError: If the server is unreachable or has no such model.
        ValueError: If the URL is not the URL of a model, or a number is out of range.
        OSError: If the file of the token cannot be read.

    Example:
        >>> with connect("grpc://127.0.0.1:8500/detector") as client:
        ...     print(client.size, client.metadata.name)
        71 detector
    """
    if timeout_s <= 0 or retries < 0 or batch_size < 1:
        raise ValueError(
            f"Expected timeout_s > 0, retries >= 0 and batch_size >= 1; got {timeout_s}, {retries} "
            f"and {batch_size}. Omit them to use {TIMEOUT_S:g}, {RETRIES} and {BATCH_SIZE}."
        )
    if headers is None:
        headers = _read_authorization()
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        # Without the values, which are secret.
        raise ValueError(
            f"Expected headers of printable ASCII; got others in {', '.join(headers)}. Check "
            f"{AUTHORIZATION} and {TOKEN} for a line break at the end."
        )
    if rest_transport.URL.fullmatch(url):
        transport = RestTransport(url, timeout_s=timeout_s, headers=headers)
    elif grpc_transport.URL.fullmatch(url):
        transport = GrpcTransport(url, timeout_s=timeout_s, headers=headers)
    else:
        shown = re.sub(r"//.*@", "//...@", url)  # messages are shared; passwords must not be
        raise ValueError(
            "Expected the URL of a served model, such as http://127.0.0.1:8501/v1/models/detector "
            f"or grpc://127.0.0.1:8500/detector; got {shown!r}. Use the URL that `jdfd-keras "
            "serve` prints, without a user name and password."
        )
    try:
        return Client(url, transport, retries, batch_size)
    except ClientError:
        transport.close()
        raise


class Client:
    """Client of one served model, created by `connect`; safe to use from many threads at once.

    Attributes:
        url: URL of the model.
        signatures: Signatures of the model, by name.
    """

    def __init__(
        self, url: str, transport: RestTransport | GrpcTransport, retries: int, batch_size: int
    ):
        self.url = url
        self._transport = transport
        self._retries = retries
        self._batch_size = batch_size
        self.signatures = self._repeat(transport.read_signatures)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @functools.cached_property
    def metadata(self) -> ModelMetadata:
        """The model's metadata; read from the server once."""
        return read_metadata(self._read_contents, self.url)

    @functools.cached_property
    def engine(self) -> dict[str, str]:
        """The engine that computes the scores: its `backend`, `version`, `precision` and `note`.

        Read from the server once; empty if the server does not state it, as TensorFlow Serving.
        """
        return read_engine(self._read_contents, self.url)

    @property
    def size(self) -> int:
        """Width and height, in pixels, of the model's input faces."""
        faces = self._signature(FACES).inputs.get("faces")
        if faces is None or faces.shape is None or len(faces.shape) != 4 or not faces.shape[1]:
            raise InvalidResponse(self.url, f"{faces} as the faces of {FACES!r}")
        return faces.shape[1]

    def predict(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call a signature with one request.

        Args:
            name: One of `signatures`.
            inputs: An array-like for each input of the signature; strings are bytes.
            outputs: Outputs to return; all by default. gRPC computes no others.

        Returns:
            An array for each output; strings are an object array of bytes.

        Raises:
            ClientError: If the request fails, or the model lacks the signature or an output.
            ValueError: If the inputs do not match the signature.

        Example:
            >>> with connect("http://127.0.0.1:8501/v1/models/detector") as client:
            ...     values = client.predict("faces", {"faces": np.zeros((2, 71, 71, 3), np.uint8)})
            >>> values["scores"].shape
            (2,)
        """
        signature = self._signature(name)
        outputs = list(signature.outputs) if outputs is None else list(outputs)
        if missing := set(outputs) - set(signature.outputs):
            reason = f"outputs {sorted(missing)} of {name!r}; got {sorted(signature.outputs)}"
            raise SignatureMissing(self.url, reason)
        arrays = check_inputs(name, signature, inputs)
        values = self._repeat(lambda: self._transport.predict(name, signature, arrays, outputs))
        for output, array in values.items():
            if not fits(array, signature.outputs[output]):
                got = f"{array.dtype}{list(array.shape)} as {output!r} of {name!r}"
                raise InvalidResponse(self.url, got)
        return values

    def predict_faces(self, encoded_faces: Sequence[bytes]) -> np.ndarray:
        """Score face crops.

        If the server refuses a batch, it is sent again in halves, so that one invalid face does not
        cost the other faces their scores.

        Args:
            encoded_faces: JPEG, PNG, BMP or WebP files of one face each, of any size; a face of
                `size` is not resized.

        Returns:
            float64[n], P(fake), in the order of the faces; NaN for bytes that cannot be decoded.

        Raises:
            ClientError: If the server returns no scores for a reason other than an invalid face.

        Example:
            >>> with connect("http://127.0.0.1:8501/v1/models/detector") as client:
            ...     scores = client.predict_faces([Path("face.png").read_bytes(), b"not an image"])
            >>> np.isnan(scores)
            array([False,  True])
        """
        signature = self._signature(SERVING_DEFAULT)
        outputs = [name for name in ("scores", "valid") if name in signature.outputs]

        def request(faces: Sequence[bytes]) -> np.ndarray:
            image_bytes = np.array(list(faces), object)
            try:
                values = self.predict(SERVING_DEFAULT, {"image_bytes": image_bytes}, outputs)
            except RequestRefused as error:
                if len(faces) > 1:
                    raise
                # A removed version label is refused in the same way as an invalid face.
                if self._repeat(self._transport.read_signatures) != self.signatures:
                    reason = f"{error} and other signatures than before."
                    raise RequestFailed(self.url, reason) from error
                return np.array([np.nan])
            scores = values["scores"].astype(np.float64)
            valid = values.get("valid", ~np.isnan(scores))
            if scores.shape != (len(faces),) or valid.shape != scores.shape:
                raise InvalidResponse(self.url, f"{scores} as the scores of {len(faces)} faces")
            # NaN compares as false: a valid face must have a score.
            if not ((scores >= 0) & (scores <= 1))[valid].all():
                raise InvalidResponse(self.url, f"{scores[valid]} as scores of valid faces")
            return np.where(valid, scores, np.nan)

        scores = [_request_in_halves(request, batch) for batch in self._batches(encoded_faces)]
        return np.concatenate([np.empty(0), *scores])

    def predict_files(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Score image files of face crops.

        Args:
            paths: Image files of one face each; one batch at a time is held in memory.

        Returns:
            float64[n], P(fake), in the order of the files; NaN for files that cannot be decoded.

        Raises:
            OSError: As `predict_faces`, or before the first request if a file does not exist.

        Example:
            >>> with connect("http://127.0.0.1:8501/v1/models/detector") as client:
            ...     client.predict_files(["face.png", "photograph.png"]).shape
            (2,)
        """
        files = list(map(Path, paths))
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(
                    f"Expected image files of face crops; got {path}, which is not a file. Check "
                    "its name."
                )
        scores = [np.empty(0)]
        for batch in self._batches(files):
            scores.append(self.predict_faces([path.read_bytes() for path in batch]))
        return np.concatenate(scores)

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Compute a class-activation map of each face.

        Args:
            faces: uint8[n, size, size, 3], RGB.

        Returns:
            float32[n, height, width], contributions to the uncalibrated logit of fake, at least 0,
            at the resolution of the encoder's last convolution. All faces have one unit.

        Raises:
            ClientError: If the server returns no maps.
            ValueError: If the faces have another dtype or shape.

        Example:
            >>> with connect("http://127.0.0.1:8501/v1/models/detector") as client:
            ...     client.explain(np.zeros((1, 71, 71, 3), np.uint8)).shape
            (1, 3, 3)
        """
        return self._predict_each(EXPLAIN, "cam", 3, faces)

    def reconstruct_error(self, faces: np.ndarray) -> np.ndarray:
        """Compute the error of the reconstruction of each face, by a model with a decoder.

        Over REST the server answers with the reconstructions, too: some megabytes per face.

        Args:
            faces: uint8[n, size, size, 3], RGB.

        Returns:
            float32[n], mean squared error per pixel and channel, pixels in -1..1.

        Raises:
            ClientError: If the server returns no errors, or the model has no decoder.
            ValueError: If the faces have another dtype or shape.

        Example:
            >>> with connect("http://127.0.0.1:8501/v1/models/detector") as client:
            ...     client.reconstruct_error(np.zeros((1, 71, 71, 3), np.uint8)).shape
            (1,)
        """
        return self._predict_each(RECONSTRUCT, "error", 1, faces)

    def _predict_each(self, name: str, output: str, ndim: int, faces: np.ndarray) -> np.ndarray:
        """Compute an output of a signature with the input `faces`, in batches."""

        def request(batch: np.ndarray) -> np.ndarray:
            values = self.predict(name, {"faces": batch}, [output])[output]
            if values.ndim != ndim or len(values) != len(batch):
                got = f"{list(values.shape)} as {output!r} of {len(batch)} faces"
                raise InvalidResponse(self.url, got)
            return values

        faces = check_inputs(name, self._signature(name), {"faces": faces})["faces"]
        if not len(faces):
            return np.empty((0,) * ndim, np.float32)
        return np.concatenate(
            [_request_in_halves(request, batch) for batch in self._batches(faces)]
        )

    def _repeat(self, request: Callable[[], Value]) -> Value:
        """Send a request, again if the server is unreachable or busy."""
        for attempt in range(self._retries):
            try:
                return request()
            except ClientError as error:
                if error.retry_after_s is None:
                    raise
                longest = BACKOFF_S * 2**attempt
                wait_s = max(error.retry_after_s, random.uniform(longest / 2, longest))
                time.sleep(min(wait_s, LONGEST_BACKOFF_S))
        return request()

    def _read_contents(self, names: np.ndarray) -> np.ndarray:
        return self.predict(METADATA, {"names": names}, ["contents"])["contents"]

    def _batches(self, items: Any) -> Iterator[Any]:
        for start in range(0, len(items), self._batch_size):
            yield items[start : start + self._batch_size]

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            existing = sorted(self.signatures)
            raise SignatureMissing(self.url, f"the signature {name!r}; got {existing}")
        return self.signatures[name]


def _read_authorization() -> dict[str, str]:
    """Read the header of the environment, or of the file that it names."""
    if value := os.environ.get(AUTHORIZATION):
        return {"Authorization": value}
    token = os.environ.get(TOKEN, "")
    if token.startswith("@"):
        token = Path(token[1:]).read_text(encoding="utf-8").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _request_in_halves(request: Callable[[Any], np.ndarray], items: Any) -> np.ndarray:
    """Request all items at once; in halves if they are too large together or one is refused."""
    try:
        return request(items)
    except (RequestRefused, RequestTooLarge):
        if len(items) == 1:
            raise
    middle = len(items) // 2
    halves = items[:middle], items[middle:]
    return np.concatenate([_request_in_halves(request, half) for half in halves])
