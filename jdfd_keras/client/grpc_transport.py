"""Arrays to a server and back over TensorFlow Serving's gRPC.

Takes the URL of a model; gives its signatures, and arrays for arrays. Knows no signature by name.
Imports no TensorFlow.
"""

import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from jdfd_keras.client import protos as wire
from jdfd_keras.client.errors import (
    not_allowed,
    not_answered,
    not_in_time,
    not_there,
    not_understood,
    refused,
    too_large,
)
from jdfd_keras.client.rest_transport import BACKOFF_S, LONGEST_BACKOFF_S, is_loopback
from jdfd_keras.client.signatures import Signature

URL = re.compile(
    r"(?P<scheme>grpcs?)://(?P<target>(?P<host>\[[^\]\s]+\]|[^/:@\s]+):\d+)/(?P<name>[^/:?#\s]+)"
    r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:?#\s]+))?/?"
)
SERVICE = "/tensorflow.serving.PredictionService"
# As REST's 503 and 429.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

CONNECTED_S = 0.2  # until a channel that is connected says so


class GrpcTransport:
    """The way to one model over gRPC; may be used from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, retries: int, headers: Mapping[str, str]):
        """Prepare the way; asks nothing yet.

        Args:
            url: Of the form of URL.
            timeout_s: How long each try may take.
            retries: How often a request is repeated.
            headers: What goes with each request as its metadata, such as `Authorization`.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._retries = retries
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        parts = URL.fullmatch(url)
        self._spec = wire.ModelSpec(name=parts["name"], version_label=parts["label"] or "")
        if parts["version"]:
            self._spec.version.value = int(parts["version"])
        self._channel = _make_channel(parts["scheme"], parts["target"], parts["host"])
        self._predict = self._channel.unary_unary(
            f"{SERVICE}/Predict",
            request_serializer=wire.PredictRequest.SerializeToString,
            response_deserializer=wire.PredictResponse.FromString,
        )
        self._read_metadata = self._channel.unary_unary(
            f"{SERVICE}/GetModelMetadata",
            request_serializer=wire.GetModelMetadataRequest.SerializeToString,
            response_deserializer=wire.GetModelMetadataResponse.FromString,
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def read_signatures(self) -> dict[str, Signature]:
        """Ask for the signatures of the model.

        Raises:
            OSError: If the server is not there, or has no such model.
        """
        request = wire.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        response = self._call(self._read_metadata, request)
        try:
            return wire.read_signatures(response)
        except DecodeError as error:
            raise not_understood(self._url, f"metadata without signatures ({error})") from error

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
            signature: What it takes and gives; not looked at, since a message tells.
            inputs: An array for each of its inputs.
            outputs: The outputs wanted; no others are computed.

        Returns:
            An array for each output wanted.

        Raises:
            RefusedError: If the server finds fault with the inputs.
            TooLargeError: If they are too large together.
            OSError: If the server is not there, fails, or answers something else.
        """
        request = wire.PredictRequest(model_spec=self._spec, output_filter=outputs)
        request.model_spec.signature_name = name
        for key, array in inputs.items():
            request.inputs[key].CopyFrom(wire.encode_tensor(array))
        response = self._call(self._predict, request, refusal=grpc.StatusCode.INVALID_ARGUMENT)
        try:
            # Not [key], which would make what is not there.
            return {key: wire.decode_tensor(dict(response.outputs)[key]) for key in outputs}
        except (KeyError, ValueError) as error:
            raise not_understood(self._url, f"outputs {list(response.outputs)}: {error}") from error

    def _call(self, method, request, refusal: grpc.StatusCode | None = None):
        attempt = 0
        while True:
            try:
                return method(request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                code, reason = error.code(), f"{error.code().name}: {error.details()}"
                if code is refusal:
                    raise refused(self._url, reason) from error
                # The words of gRPC's core; a full queue has the same code.
                if "message larger than max" in reason:
                    raise too_large(self._url, f"{reason}.") from error
                if code not in RETRIED or attempt == self._retries:
                    raise self._tell(code)(self._url, reason) from error
            longest = min(BACKOFF_S * 2**attempt, LONGEST_BACKOFF_S)
            time.sleep(random.uniform(longest / 2, longest))
            attempt += 1

    def _tell(self, code: grpc.StatusCode) -> Callable[[str, object], OSError]:
        """Choose the error that says what a status is about."""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return not_in_time
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return not_allowed
        # gRPC itself says UNAVAILABLE where nobody is there, and a server whose queue is full.
        if code is grpc.StatusCode.UNAVAILABLE and not self._is_connected():
            return not_there
        return not_answered

    def _is_connected(self) -> bool:
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=CONNECTED_S)
        except grpc.FutureTimeoutError:
            ready.cancel()
            return False
        return True


def _make_channel(scheme: str, target: str, host: str) -> grpc.Channel:
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", wire.MAX_ANSWER_BYTES),
        ("grpc.enable_http_proxy", 0 if is_loopback(host) else 1),
    ]
    if scheme == "grpc":
        return grpc.insecure_channel(target, options)
    # gRPC has authorities of its own; those of the system are the ones that an operator changes.
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    roots = "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode("ascii")
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots or None), options)
