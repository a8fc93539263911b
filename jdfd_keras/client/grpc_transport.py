"""Transport of arrays to a model and back over TensorFlow Serving's gRPC. Imports no TensorFlow."""

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from grpc import StatusCode

from jdfd_keras.client import protos
from jdfd_keras.client.errors import (
    AccessDenied,
    InvalidResponse,
    RequestFailed,
    RequestRefused,
    RequestTimeout,
    RequestTooLarge,
    ServerUnavailable,
)
from jdfd_keras.client.rest_transport import is_loopback
from jdfd_keras.client.signatures import Signature, read_signatures

URL = re.compile(
    r"(?P<scheme>grpcs?)://(?P<target>(?P<host>\[[^\]\s]+\]|[^/:@\s]+):\d+)/(?P<name>[^/:?#\s]+)"
    r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:?#\s]+))?/?"
)
BUSY = (StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED)  # REST's 503 and 429
ERRORS = {
    StatusCode.DEADLINE_EXCEEDED: RequestTimeout,
    StatusCode.UNAUTHENTICATED: AccessDenied,
    StatusCode.PERMISSION_DENIED: AccessDenied,
}
READY = grpc.ChannelConnectivity.READY.value[0]


class GrpcTransport:
    """gRPC transport to one model; safe to use from many threads at once."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str]):
        """Open a channel for a match of URL; sends no request yet. The headers are metadata."""
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        match = URL.fullmatch(url)
        assert match is not None
        self._spec = protos.ModelSpec(name=match["name"], version_label=match["label"] or "")
        if match["version"]:
            self._spec.version.value = int(match["version"])
        self._channel = _make_channel(match["scheme"], match["target"], match["host"])

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def read_signatures(self) -> dict[str, Signature]:
        """Request the signatures of the model."""
        request = protos.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        response = self._call("GetModelMetadata", request, protos.GetModelMetadataResponse)
        try:
            packed = protos.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        except DecodeError as error:
            raise InvalidResponse(self._url, f"metadata without signatures ({error})") from error
        definitions = MessageToDict(
            packed, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return read_signatures(definitions["signature_def"])

    def predict(
        self,
        name: str,
        signature: Signature,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Call a signature; no other outputs are computed. A message states its own dtypes."""
        request = protos.PredictRequest(model_spec=self._spec, output_filter=outputs)
        request.model_spec.signature_name = name
        for key, array in inputs.items():
            request.inputs[key].CopyFrom(protos.encode_tensor(array))
        # A dict, since response.outputs[key] would create a missing output.
        tensors = dict(self._call("Predict", request, protos.PredictResponse).outputs)
        try:
            return {key: protos.decode_tensor(tensors[key]) for key in outputs}
        except (KeyError, ValueError) as error:
            raise InvalidResponse(self._url, f"outputs {list(tensors)}: {error}") from error

    def _call(self, method: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            f"/tensorflow.serving.PredictionService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return call(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            code, reason = error.code(), f"{error.code().name}: {error.details()}"
            if code is StatusCode.INVALID_ARGUMENT and method == "Predict":
                raise RequestRefused(self._url, reason) from error
            # Text of gRPC's core; a full queue has the same code.
            if "message larger than max" in reason:
                raise RequestTooLarge(self._url, f"{reason}.") from error
            kind = ERRORS.get(code, RequestFailed)
            # A server with a full queue answers UNAVAILABLE, too.
            if code is StatusCode.UNAVAILABLE and not _is_connected(self._channel):
                kind = ServerUnavailable
            raise kind(self._url, reason, 0 if code in BUSY else None) from error


def _is_connected(channel: Any) -> bool:
    # The public channel_ready_future polls in a thread, which prints a traceback if the channel is
    # closed (grpcio 1.85.1).
    try:
        return channel._channel.check_connectivity_state(False) == READY
    except AttributeError:  # another grpcio
        return False


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
