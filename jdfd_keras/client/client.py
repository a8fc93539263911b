"""Ask a served model: TensorFlow Serving or `jdfd-keras serve`, over REST or gRPC.

Takes the model's URL; gives what its signatures give, and scores for encoded faces. Imports no
TensorFlow.

Scores in one call: a connection made, asked and closed.

Takes a model's URL and encoded faces, or their files; gives scores. Imports no TensorFlow.
"""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.client import grpc_transport, rest_transport
from jdfd_keras.client.errors import (
    RefusedError,
    TooLargeError,
    lacks,
    not_answered,
    not_understood,
)
from jdfd_keras.client.metadata import Description, read_description
from jdfd_keras.client.protos import check_inputs, fits
from jdfd_keras.client.signatures import DESCRIBE, EXPLAIN, SCORE_BYTES, SCORE_FACES, Signature

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
    """Find a served model, and learn what it takes and gives.

    Args:
        url: The model, such as `http://127.0.0.1:8501/v1/models/detector` over REST or
            `grpc://127.0.0.1:8500/detector` over gRPC; `https` and `grpcs` go through TLS. One
            version may be named after it: `/versions/2` or `/labels/stable`.
        timeout_s: How long each try may wait for its answer.
        retries: How often a request is repeated, ever later, where the server cannot be reached
            or is busy; not where its answer did not come in time.
        batch_size: Faces a request; at least 1.
        headers: What goes with each request, for a proxy before the server that wants to know who
            asks: `{"Authorization": "Bearer ..."}`. If not given, `Authorization` is what the
            environment variable JDFD_AUTHORIZATION holds, if anything.

    Returns:
        The client, to be closed after use: `with connect(url) as client`.

    Raises:
        OSError: If the server is not there, or has no such model.
        ValueError: If the URL is not that of a model, or a number is out of range.
    """
    if timeout_s <= 0 or retries < 0 or batch_size < 1:
        raise ValueError(
            f"Expected timeout_s > 0, retries >= 0 and batch_size >= 1; got {timeout_s}, {retries} "
            f"and {batch_size}. Leave them out for {TIMEOUT_S:g}, {RETRIES} and {BATCH_SIZE}."
        )
    if headers is None:
        headers = (
            {"Authorization": os.environ[AUTHORIZATION]} if os.environ.get(AUTHORIZATION) else {}
        )
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        # Without the values, which are secret.
        raise ValueError(
            f"Expected headers of printable ASCII; got others in {', '.join(headers)}. A line end "
            f"in {AUTHORIZATION} is a usual cause."
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
        shown = re.sub(r"//.*@", "//...@", url)  # errors are passed on, passwords must not be
        raise ValueError(
            "Expected the URL of a served model, such as http://127.0.0.1:8501/v1/models/detector "
            f"or grpc://127.0.0.1:8500/detector; got {shown!r}. `jdfd-keras serve` prints it when "
            "it is ready; a user name and password cannot stand in it."
        )
    try:
        return Client(url, transport, batch_size)
    except OSError:
        transport.close()
        raise


class Client:
    """One served model; made by `connect`. May be used from many threads at once.

    Attributes:
        url: Where it is.
        signatures: What it takes and gives, by the names of its signatures.
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
    def description(self) -> Description:
        """What the model tells of itself, as of the first time it is asked for.

        Raises:
            OSError: If it does not.
        """
        return read_description(
            lambda names: self.predict(DESCRIBE, {"names": names}, ["contents"])["contents"]
        )

    @property
    def size(self) -> int:
        """Width and height, in pixels, of the faces that the model was trained on.

        Raises:
            OSError: If it is no detector.
        """
        faces = self._signature(SCORE_FACES).inputs.get("faces")
        if faces is None or faces.shape is None or len(faces.shape) != 4 or not faces.shape[1]:
            raise not_understood(self.url, f"{faces} as the faces of {SCORE_FACES!r}")
        return faces.shape[1]

    def predict(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call a signature, once.

        Args:
            name: One of `signatures`.
            inputs: An array, or what makes one, for each of its inputs; bytes for text.
            outputs: Which of its outputs to give; all if not given. gRPC computes no others.

        Returns:
            An array for each output. Text is an object array of bytes.

        Raises:
            OSError: If the server is not there, refuses, has no such signature or output, or gives
                something else than its signature says.
            ValueError: If the inputs are not those of the signature.
        """
        signature = self._signature(name)
        outputs = list(signature.outputs) if outputs is None else list(outputs)
        if missing := set(outputs) - set(signature.outputs):
            raise lacks(self.url, f"outputs {sorted(missing)} of {name!r}", signature.outputs)
        arrays = check_inputs(name, signature, inputs)
        values = self._transport.predict(name, signature, arrays, outputs)
        for output, array in values.items():
            if not fits(array, signature.outputs[output]):
                got = f"{array.dtype}{list(array.shape)} as {output!r} of {name!r}"
                raise not_understood(self.url, got)
        return values

    def score(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Score face crops.

        A batch that the server refuses as a whole is sent again in halves, so that a bad face
        costs no other one its score. Where one was refused the model is asked for, too: a label
        that has gone is refused in the same way.

        Args:
            encoded: JPEG, PNG, BMP or WebP files of one face each, of any size. Taken at `size`
                nothing is resized.

        Returns:
            float64[n], P(fake), in the order of the faces; NaN where one is no image.

        Raises:
            OSError: If there are no scores, for another reason than a face.
        """
        signature = self._signature(SCORE_BYTES)
        wanted = [name for name in ("scores", "valid") if name in signature.outputs]
        refusals = []

        def ask(faces: Sequence[bytes]) -> np.ndarray:
            image_bytes = np.array(list(faces), object)
            values = self.predict(SCORE_BYTES, {"image_bytes": image_bytes}, wanted)
            scores = values["scores"].astype(np.float64)
            valid = values.get("valid", ~np.isnan(scores))
            if scores.shape != (len(faces),) or valid.shape != scores.shape:
                raise not_understood(self.url, f"{scores} as the scores of {len(faces)} faces")
            # NaN compares as false: a face that was read must have a score.
            if not ((scores >= 0) & (scores <= 1))[valid].all():
                raise not_understood(self.url, f"{scores[valid]} as scores of faces that are valid")
            return np.where(valid, scores, np.nan)

        def refuse(error: RefusedError) -> np.ndarray:
            refusals.append(error)
            return np.array([np.nan])

        parts = [np.empty(0)]
        for batch in self._batches(encoded):
            parts.append(_ask_in_parts(ask, batch, refuse))
            if refusals:
                self._check_model(refusals.pop())
                refusals.clear()
        return np.concatenate(parts)

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Map what spoke for fake in each face.

        Args:
            faces: uint8[n, size, size, 3] RGB.

        Returns:
            float32[n, h, w], 0..1, at the size of the encoder's last convolution.

        Raises:
            OSError: If there are no maps.
            ValueError: If the faces are not such ones.
        """

        def ask(part: np.ndarray) -> np.ndarray:
            maps = self.predict(EXPLAIN, {"faces": part}, ["activation"])["activation"]
            if maps.ndim != 3 or len(maps) != len(part):
                raise not_understood(self.url, f"{list(maps.shape)} as maps of {len(part)} faces")
            return maps

        faces = check_inputs(EXPLAIN, self._signature(EXPLAIN), {"faces": faces})["faces"]
        if not len(faces):
            return np.empty((0, 0, 0), np.float32)
        return np.concatenate([_ask_in_parts(ask, batch) for batch in self._batches(faces)])

    def _check_model(self, refusal: RefusedError) -> None:
        """See that what refused a face is still the model that was found."""
        if self._transport.read_signatures() != self.signatures:
            raise not_answered(self.url, f"{refusal} and other signatures than before.")

    def _batches(self, items: Sequence):
        return (
            items[start : start + self._batch_size]
            for start in range(0, len(items), self._batch_size)
        )

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise lacks(self.url, f"the signature {name!r}", self.signatures)
        return self.signatures[name]


def _ask_in_parts(
    ask: Callable[[Sequence], np.ndarray],
    items: Sequence,
    refuse: Callable[[RefusedError], np.ndarray] | None = None,
) -> np.ndarray:
    """Ask for all at once; in halves where the server does not take so much, or one among it.

    `refuse` gives the answer for one that the server refuses; without it that is an error.
    """
    try:
        return ask(items)
    except (RefusedError, TooLargeError) as error:
        if len(items) == 1:
            if refuse is None or isinstance(error, TooLargeError):
                raise
            return refuse(error)
    middle = len(items) // 2
    halves = items[:middle], items[middle:]
    return np.concatenate([_ask_in_parts(ask, half, refuse) for half in halves])


def score_faces(
    url: str,
    encoded_faces: Sequence[bytes],
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    batch_size: int = BATCH_SIZE,
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Score face crops on a server.

    Args:
        url: The model, as `connect` takes it; so the numbers.
        encoded_faces: As `Client.score` takes them.
        timeout_s: How long each try may wait for its answer.
        retries: How often a request is repeated.
        batch_size: Faces a request.
        headers: What goes with each request.

    Returns:
        float64[n], P(fake), in the order of the faces; NaN where one is no image.

    Raises:
        OSError: If the server is not there, fails, or serves something else.
        ValueError: If the URL is not that of a model, or a number is out of range.
    """
    with connect(
        url, timeout_s=timeout_s, retries=retries, batch_size=batch_size, headers=headers
    ) as client:
        return client.score(encoded_faces)


def score_files(
    url: str,
    paths: Sequence[str | Path],
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    batch_size: int = BATCH_SIZE,
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Score image files of face crops on a server.

    Args:
        url: As `score_faces` takes it, and the rest too.
        paths: The files, of one face each; a batch of them is in memory at a time.
        timeout_s: How long each try may wait for its answer.
        retries: How often a request is repeated.
        batch_size: Faces a request.
        headers: What goes with each request.

    Returns:
        float64[n], P(fake), in the order of the files; NaN where one is no image.

    Raises:
        OSError: As `score_faces`, and if a file cannot be read.
        ValueError: As `score_faces`.
    """
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"Expected image files of face crops; got {path}, which is none. Check its name."
            )
    with connect(
        url, timeout_s=timeout_s, retries=retries, batch_size=batch_size, headers=headers
    ) as client:
        parts = [
            client.score([Path(path).read_bytes() for path in paths[start : start + batch_size]])
            for start in range(0, len(paths), batch_size)
        ]
    return np.concatenate([np.empty(0), *parts])
