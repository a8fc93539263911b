"""Client of a served model: TensorFlow Serving or `jdfd-keras serve`, over REST or gRPC.

Takes the model's URL; returns the outputs of its signatures, and scores of encoded faces. Imports
no TensorFlow.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

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
from jdfd_keras.client.metadata import ModelMetadata, read_metadata
from jdfd_keras.client.protos import check_inputs, fits
from jdfd_keras.client.signatures import EXPLAIN, FACES, METADATA, SERVING_DEFAULT, Signature

TIMEOUT_S = 60.0
RETRIES = 3
BATCH_SIZE = 32
AUTHORIZATION = "JDFD_AUTHORIZATION"


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
        headers: HTTP headers or gRPC metadata of every request, for a proxy that requires
            credentials: `{"Authorization": "Bearer ..."}`. The default is `Authorization` with
            the content of the environment variable JDFD_AUTHORIZATION, if it is set.

    Returns:
        The client. Close it after use: `with connect(url) as client`.

    Raises:
        ClientError: If the server is unreachable or has no such model.
        ValueError: If the URL is not the URL of a model, or a number is out of range.

    Example:
        >>> with connect("grpc://127.0.0.1:8500/detector") as client:
        ...     scores = client.predict_files(["face.png"])  # float64[1], P(fake)
    """
    if timeout_s <= 0 or retries < 0 or batch_size < 1:
        raise ValueError(
            f"Expected timeout_s > 0, retries >= 0 and batch_size >= 1; got {timeout_s}, {retries} "
            f"and {batch_size}. Omit them to use {TIMEOUT_S:g}, {RETRIES} and {BATCH_SIZE}."
        )
    if headers is None:
        headers = (
            {"Authorization": os.environ[AUTHORIZATION]} if os.environ.get(AUTHORIZATION) else {}
        )
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        # Without the values, which are secret.
        raise ValueError(
            f"Expected headers of printable ASCII; got others in {', '.join(headers)}. Check "
            f"{AUTHORIZATION} for a line break at its end."
        )
    if rest_transport.URL.fullmatch(url):
        transport = rest_transport.RestTransport(
            url, timeout_s=timeout_s, retries=retries, headers=headers
        )
    elif grpc_transport.URL.fullmatch(url):
        transport = grpc_transport.GrpcTransport(
            url, timeout_s=timeout_s, retries=retries, headers=headers
        )
    else:
        shown = re.sub(r"//.*@", "//...@", url)  # messages are shared; passwords must not be
        raise ValueError(
            "Expected the URL of a served model, such as http://127.0.0.1:8501/v1/models/detector "
            f"or grpc://127.0.0.1:8500/detector; got {shown!r}. Use the URL that `jdfd-keras "
            "serve` prints, without a user name and password."
        )
    try:
        return Client(url, transport, batch_size)
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
        self,
        url: str,
        transport: rest_transport.RestTransport | grpc_transport.GrpcTransport,
        batch_size: int,
    ):
        self.url = url
        self._transport = transport
        self._batch_size = batch_size
        self.signatures: dict[str, Signature] = transport.read_signatures()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @functools.cached_property
    def metadata(self) -> ModelMetadata:
        """The model's metadata; read from the server once.

        Raises:
            ClientError: If the server does not answer, or the model has no readable metadata.
        """
        return read_metadata(
            lambda names: self.predict(METADATA, {"names": names}, ["contents"])["contents"],
            self.url,
        )

    @property
    def size(self) -> int:
        """Width and height, in pixels, of the model's input faces.

        Raises:
            ClientError: If the model is not a detector.
        """
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
            ClientError: If the server is unreachable, refuses the request, lacks the signature or
                an output, or returns arrays that do not match the signature.
            ValueError: If the inputs do not match the signature.

        Example:
            >>> faces = np.zeros((2, client.size, client.size, 3), np.uint8)
            >>> client.predict("faces", {"faces": faces})["scores"].shape
            (2,)
        """
        signature = self._signature(name)
        outputs = list(signature.outputs) if outputs is None else list(outputs)
        if missing := set(outputs) - set(signature.outputs):
            reason = f"outputs {sorted(missing)} of {name!r}; got {sorted(signature.outputs)}"
            raise SignatureMissing(self.url, reason)
        arrays = check_inputs(name, signature, inputs)
        values = self._transport.predict(name, signature, arrays, outputs)
        for output, array in values.items():
            if not fits(array, signature.outputs[output]):
                got = f"{array.dtype}{list(array.shape)} as {output!r} of {name!r}"
                raise InvalidResponse(self.url, got)
        return values

    def predict_faces(self, encoded_faces: Sequence[bytes]) -> np.ndarray:
        """Score face crops.

        If the server refuses a batch, the batch is sent again in halves, so that one invalid face
        does not cost the other faces their scores. After a refusal the signatures are read again,
        because a removed version label is refused in the same way.

        Args:
            encoded_faces: JPEG, PNG, BMP or WebP files of one face each, of any size; a face of
                `size` is not resized.

        Returns:
            float64[n], P(fake), in the order of the faces; NaN for bytes that cannot be decoded.

        Raises:
            ClientError: If the server returns no scores for a reason other than an invalid face.

        Example:
            >>> client.predict_faces([Path("face.png").read_bytes()]).shape
            (1,)
        """
        signature = self._signature(SERVING_DEFAULT)
        outputs = [name for name in ("scores", "valid") if name in signature.outputs]
        refusals = []

        def request(faces: Sequence[bytes]) -> np.ndarray:
            image_bytes = np.array(list(faces), object)
            values = self.predict(SERVING_DEFAULT, {"image_bytes": image_bytes}, outputs)
            scores = values["scores"].astype(np.float64)
            valid = values.get("valid", ~np.isnan(scores))
            if scores.shape != (len(faces),) or valid.shape != scores.shape:
                raise InvalidResponse(self.url, f"{scores} as the scores of {len(faces)} faces")
            # NaN compares as false: a valid face must have a score.
            if not ((scores >= 0) & (scores <= 1))[valid].all():
                raise InvalidResponse(self.url, f"{scores[valid]} as scores of valid faces")
            return np.where(valid, scores, np.nan)

        def mark_invalid(error: RequestRefused) -> np.ndarray:
            refusals.append(error)
            return np.array([np.nan])

        scores = [np.empty(0)]
        for batch in self._batches(encoded_faces):
            scores.append(_split_on_refusal(request, batch, mark_invalid))
            if refusals:
                self._check_model(refusals.pop())
                refusals.clear()
        return np.concatenate(scores)

    def predict_files(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Score image files of face crops.

        Args:
            paths: Image files of one face each; one batch at a time is held in memory.

        Returns:
            float64[n], P(fake), in the order of the files; NaN for files that cannot be decoded.

        Raises:
            ClientError: As `predict_faces`.
            OSError: If a file cannot be read. All files are checked before the first request.

        Example:
            >>> client.predict_files(["face.png", "other.jpg"]).shape
            (2,)
        """
        paths = list(map(Path, paths))
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(
                    f"Expected image files of face crops; got {path}, which is not a file. Check "
                    "its name."
                )
        scores = [
            self.predict_faces([path.read_bytes() for path in batch])
            for batch in self._batches(paths)
        ]
        return np.concatenate([np.empty(0), *scores])

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Compute a class-activation map of each face.

        Args:
            faces: uint8[n, size, size, 3], RGB.

        Returns:
            float32[n, height, width], contributions to the fake score in 0..1, at the resolution
            of the encoder's last convolution.

        Raises:
            ClientError: If the server returns no maps.
            ValueError: If the faces have another dtype or shape.

        Example:
            >>> client.explain(np.zeros((1, client.size, client.size, 3), np.uint8)).ndim
            3
        """

        def request(batch: np.ndarray) -> np.ndarray:
            cam = self.predict(EXPLAIN, {"faces": batch}, ["cam"])["cam"]
            if cam.ndim != 3 or len(cam) != len(batch):
                raise InvalidResponse(self.url, f"{list(cam.shape)} as maps of {len(batch)} faces")
            return cam

        faces = check_inputs(EXPLAIN, self._signature(EXPLAIN), {"faces": faces})["faces"]
        if not len(faces):
            return np.empty((0, 0, 0), np.float32)
        return np.concatenate([_split_on_refusal(request, batch) for batch in self._batches(faces)])

    def _check_model(self, refusal: RequestRefused) -> None:
        """Check that the model behind the URL still has the signatures it had at first."""
        if self._transport.read_signatures() != self.signatures:
            raise RequestFailed(self.url, f"{refusal} and other signatures than before.")

    def _batches(self, items: Sequence):
        return (
            items[start : start + self._batch_size]
            for start in range(0, len(items), self._batch_size)
        )

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            existing = sorted(self.signatures)
            raise SignatureMissing(self.url, f"the signature {name!r}; got {existing}")
        return self.signatures[name]


def _split_on_refusal(
    request: Callable[[Sequence], np.ndarray],
    items: Sequence,
    on_refused: Callable[[RequestRefused], np.ndarray] | None = None,
) -> np.ndarray:
    """Request all items at once; in halves if they are too large together or one is refused.

    `on_refused` returns the result of a single refused item; without it the error is raised.
    """
    try:
        return request(items)
    except (RequestRefused, RequestTooLarge) as error:
        if len(items) == 1:
            if on_refused is None or isinstance(error, RequestTooLarge):
                raise
            return on_refused(error)
    middle = len(items) // 2
    halves = items[:middle], items[middle:]
    return np.concatenate([_split_on_refusal(request, half, on_refused) for half in halves])
