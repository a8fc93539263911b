"""Transport of arrays to a server and back over TensorFlow Serving's gRPC.

Takes the URL of a model; returns its signatures, and output arrays for input arrays. Independent of
the names of signatures. Imports no TensorFlow.
"""

import random
import re
import ssl
import time
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from jdfd_keras.client import protos
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
from jdfd_keras.client.rest_transport import BACKOFF_S, LONGEST_BACKOFF_S, is_loopback
from jdfd_keras.client.signatures import Signature

URL = re.compile(
    r"(?P<scheme>grpcs?)://(?P<target>(?P<host>\[[^\]\s]+\]|[^/:@\s]+):\d+)/(?P<name>[^/:?#\s]+)"
    r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:?#\s]+))?/?"
)
SERVICE = "/tensorflow.serving.PredictionService"
# The equivalents of REST's 503 and 429.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

CONNECTED_S = 0.2  # a connected channel reports that it is ready within this time


class GrpcTransport:
    """gRPC transport to one model; safe to use from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, retries: int, headers: Mapping[str, str]):
        """Open a channel; sends no request yet.

        Args:
            url: A match of URL.
            timeout_s: Seconds that each attempt may take.
            retries: How often a request is repeated.
            headers: Metadata of each request, such as `Authorization`.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._retries = retries
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        match = URL.fullmatch(url)
        self._spec = protos.ModelSpec(name=match["name"], version_label=match["label"] or "")
        if match["version"]:
            self._spec.version.value = int(match["version"])
        self._channel = _make_channel(match["scheme"], match["target"], match["host"])
        self._predict = self._channel.unary_unary(
            f"{SERVICE}/Predict",
            request_serializer=protos.PredictRequest.SerializeToString,
            response_deserializer=protos.PredictResponse.FromString,
        )
        self._read_metadata = self._channel.unary_unary(
            f"{SERVICE}/GetModelMetadata",
            request_serializer=protos.GetModelMetadataRequest.SerializeToString,
            response_deserializer=protos.GetModelMetadataResponse.FromString,
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def read_signatures(self) -> dict[str, Signature]:
        """Request the signatures of the model.

        Raises:
            ClientError: If the server is unreachable or has no such model.
        """
        request = protos.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        response = self._call(self._read_metadata, request)
        try:
            return protos.read_signatures(response)
        except DecodeError as error:
            raise InvalidResponse(self._url, f"metadata without signatures ({error})") from error

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
            signature: Its inputs and outputs; unused, since a gRPC message states its dtypes.
            inputs: An array for each input.
            outputs: Outputs to return; no others are computed.

        Returns:
            An array for each of `outputs`.

        Raises:
            RequestRefused: If the server rejects the inputs.
            RequestTooLarge: If they are too large together.
            ClientError: If the server is unreachable, fails, or returns another kind of answer.
        """
        request = protos.PredictRequest(model_spec=self._spec, output_filter=outputs)
        request.model_spec.signature_name = name
        for key, array in inputs.items():
            request.inputs[key].CopyFrom(protos.encode_tensor(array))
        response = self._call(self._predict, request, refusal=grpc.StatusCode.INVALID_ARGUMENT)
        try:
            # response.outputs[key] would create a missing output.
            return {key: protos.decode_tensor(dict(response.outputs)[key]) for key in outputs}
        except (KeyError, ValueError) as error:
            reason = f"outputs {list(response.outputs)}: {error}"
            raise InvalidResponse(self._url, reason) from error

    def _call(self, method, request, refusal: grpc.StatusCode | None = None):
        attempt = 0
        while True:
            try:
                return method(request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                code, reason = error.code(), f"{error.code().name}: {error.details()}"
                if code is refusal:
                    raise RequestRefused(self._url, reason) from error
                # Text of gRPC's core; a full queue has the same code.
                if "message larger than max" in reason:
                    raise RequestTooLarge(self._url, f"{reason}.") from error
                if code not in RETRIED or attempt == self._retries:
                    raise self._error_class(code)(self._url, reason) from error
            longest = min(BACKOFF_S * 2**attempt, LONGEST_BACKOFF_S)
            time.sleep(random.uniform(longest / 2, longest))
            attempt += 1

    def _error_class(self, code: grpc.StatusCode) -> type[ClientError]:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RequestTimeout
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return AccessDenied
        # UNAVAILABLE is the code of gRPC itself if no server listens, and of a server with a full
        # queue.
        if code is grpc.StatusCode.UNAVAILABLE and not self._is_connected():
            return ServerUnavailable
        return RequestFailed

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
        ("grpc.max_receive_message_length", protos.MAX_ANSWER_BYTES),
        ("grpc.enable_http_proxy", 0 if is_loopback(host) else 1),
    ]
    if scheme == "grpc":
        return grpc.insecure_channel(target, options)
    # gRPC brings its own certificate authorities; operators configure those of the system.
    certificates = ssl.create_default_context().get_ca_certs(binary_form=True)
    roots = "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode("ascii")
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots or None), options)
