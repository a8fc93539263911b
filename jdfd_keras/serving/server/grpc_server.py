"""TensorFlow Serving's gRPC interface: PredictionService, ModelService, and the health service.

Messages are not trusted: a TensorProto of a few bytes may declare a terabyte. It has no TLS: on a
network, put a proxy before it. For a health check no token is needed.
"""

import contextlib
import math
import traceback
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from grpc import StatusCode
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import (
    aio as health,  # pyright: ignore[reportAttributeAccessIssue]: imported behind a condition
)
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorflow_serving import apis as tensorflow_serving_apis
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from jdfd_keras.client.signatures import SERVING_DEFAULT, Signature
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import Call, InferenceService
from jdfd_keras.serving.server.repository import ServedVersion

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
MAX_ERROR_CHARACTERS = 1000  # gRPC sends error texts in a header of limited size
MAX_CONCURRENT_CALLS = 1000  # others get RESOURCE_EXHAUSTED before their message is read
MIN_THREADED_BYTES = 2**20  # parsing a smaller message takes less time than switching threads
SIGNATURES = "signature_def"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

# The messages of both services. Their classes are created at run time, unseen by type checkers.
apis: Any = tensorflow_serving_apis


class GrpcServer:
    """The gRPC server and its services."""

    def __init__(self, service: InferenceService):
        """Create a server that does not listen yet."""
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[_Interceptor(service, self._health)],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                ("grpc.max_receive_message_length", service.max_body_bytes),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        servicer = _Servicer(service)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen, and report SERVING to health checks; return the port, a free one for 0."""
        host = f"[{host}]" if ":" in host else host
        port = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        for service in SERVICES:
            await self._health.set(service, HealthCheckResponse.SERVING)
        return port

    async def set_not_serving(self) -> None:
        """Report NOT_SERVING to health checks from now on; requests are still processed."""
        await self._health.enter_graceful_shutdown()

    async def drain(self, timeout_s: float) -> None:
        """Accept no new requests, complete those in flight up to a timeout, and close."""
        await self._server.stop(timeout_s)


class _Interceptor(grpc.aio.ServerInterceptor):
    """Checks the token, parses each message, counts the request, and converts its errors."""

    def __init__(self, service: InferenceService, health: Any):
        self._service = service

        async def check_health(_: Any, context: Any) -> HealthCheckResponse:
            return await health.Check(HealthCheckRequest(), context)

        # Without a token: of the server as a whole, since the message is not read.
        self._health_check = grpc.stream_unary_rpc_method_handler(
            check_health, response_serializer=HealthCheckResponse.SerializeToString
        )

    async def intercept_service(self, continuation, handler_call_details):
        metadata: dict[str, Any] = dict(handler_call_details.invocation_metadata)
        try:
            self._service.check_token(metadata.get("authorization", ""))
        except CallError as error:
            if handler_call_details.method == HEALTH_CHECK:
                return self._health_check
            Call(self._service).end("GRPC", error.code)
            return _make_refusal(error)
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        api = handler_call_details.method.rpartition("/")[2]

        async def answer(message: Any, context: Any) -> Any:
            try:
                async with self._service.handle("GRPC") as call:
                    call.reserve(len(message))
                    request = await self._parse(handler, message)
                    if hasattr(request, "model_spec"):  # not a health check
                        call.begin(request.model_spec.name, api, context.time_remaining())
                    return await handler.unary_unary(request, context)
            except NotImplementedError:  # raised by the base class of a servicer
                code, text = StatusCode.UNIMPLEMENTED, f"{api} is not supported."
            except CallError as error:
                code, text = error.code, str(error)[:MAX_ERROR_CHARACTERS]
                traceback.clear_frames(error.__traceback__)
            # gRPC keeps the exception of `abort` for a while, and with it this frame.
            message = request = None
            return await context.abort(code, text)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )

    async def _parse(self, handler: Any, message: bytes) -> Any:
        try:
            if len(message) < MIN_THREADED_BYTES:
                return handler.request_deserializer(message)
            return await self._service.run_in_thread(
                handler.request_deserializer, message, body_bytes=len(message)
            )
        except DecodeError:  # grpc.aio itself would answer UNKNOWN and log a traceback
            raise CallError("Expected a protobuf message; got bytes that are not.") from None


def _make_refusal(error: CallError) -> grpc.RpcMethodHandler:
    """Return a handler that refuses each call; as one of streams it does not read the message."""
    code, text = error.code, str(error)

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(code, text)

    return grpc.stream_stream_rpc_method_handler(refuse)


class _Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, service: InferenceService):
        self._service = service

    async def Predict(self, request, context):  # noqa: N802
        service, size = self._service, request.ByteSize()
        with self._use(request) as served:
            name = request.model_spec.signature_name or SERVING_DEFAULT
            signature, limit = served.find_signature(name), service.max_body_bytes
            inputs = await service.run_in_thread(
                _decode_inputs, request.inputs, signature, limit, body_bytes=size
            )
            outputs = await service.run(served, name, inputs, request.output_filter)
            response = apis.predict_pb2.PredictResponse(model_spec=_spec(served, name))

            def encode() -> None:
                for key, array in outputs.items():
                    response.outputs[key].CopyFrom(tf.make_tensor_proto(array))

            await service.run_in_thread(encode, body_bytes=size)
            return response

    async def Classify(self, request, context):  # noqa: N802
        spec, rows = await self._run_examples(request, "Classify")
        classes = [[{"label": label, "score": score} for label, score in row] for row in rows]
        result = {"classifications": [{"classes": row} for row in classes]}
        return apis.classification_pb2.ClassificationResponse(model_spec=spec, result=result)

    async def Regress(self, request, context):  # noqa: N802
        spec, values = await self._run_examples(request, "Regress")
        result = {"regressions": [{"value": value} for value in values]}
        return apis.regression_pb2.RegressionResponse(model_spec=spec, result=result)

    async def GetModelMetadata(self, request, context):  # noqa: N802
        fields = list(request.metadata_field)
        if set(fields) != {SIGNATURES}:
            raise CallError(f"Expected the metadata_field {SIGNATURES!r}; got {fields}.")
        with self._use(request) as served:
            metadata = apis.get_model_metadata_pb2
            response = metadata.GetModelMetadataResponse(model_spec=_spec(served, ""))
            definitions = served.engine.signature_defs
            response.metadata[SIGNATURES].Pack(metadata.SignatureDefMap(signature_def=definitions))
            return response

    async def GetModelStatus(self, request, context):  # noqa: N802
        version, _ = _requested_version(request.model_spec)
        document = self._service.repository.describe(request.model_spec.name, version)
        return ParseDict(document, apis.get_model_status_pb2.GetModelStatusResponse())

    async def _run_examples(self, request, api: str) -> tuple[dict[str, Any], list]:
        with self._use(request) as served:
            name = request.model_spec.signature_name or SERVING_DEFAULT
            examples = _serialize_examples(request.input)
            rows = await self._service.run_examples(served, name, api, examples, request.ByteSize())
            return _spec(served, name), rows

    def _use(self, request) -> contextlib.AbstractContextManager[ServedVersion]:
        spec = request.model_spec
        return self._service.repository.use(spec.name, *_requested_version(spec))


def _requested_version(spec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return version, spec.version_label if choice == "version_label" else None


def _spec(served: ServedVersion, signature_name: str) -> dict[str, Any]:
    version = {"value": served.version}
    return {"name": served.name, "signature_name": signature_name, "version": version}


def _decode_inputs(
    tensors: dict[str, Any], signature: Signature, max_bytes: int
) -> dict[str, np.ndarray]:
    if tensors.keys() != signature.inputs.keys():
        raise CallError(f"Expected the inputs {sorted(signature.inputs)}; got {sorted(tensors)}.")
    return {
        name: _decode_tensor(name, tensor, signature.inputs[name].dtype, max_bytes)
        for name, tensor in tensors.items()
    }


def _decode_tensor(name: str, tensor: Any, dtype: str, max_bytes: int) -> np.ndarray:
    kind = tf.as_dtype(dtype)
    sizes = [axis.size for axis in tensor.tensor_shape.dim]
    count = math.prod(sizes)
    if tensor.dtype != kind.as_datatype_enum:
        got = f"number {tensor.dtype} of types.proto"
    elif tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        got = f"the incomplete shape {sizes}"
    elif count * kind.size > max_bytes:  # a message may hold one value for all elements
        got = f"the shape {sizes}, above the limit of {max_bytes} bytes"
    elif kind == tf.string and len(tensor.string_val) != count:
        got = f"{len(tensor.string_val)} strings for the shape {sizes}"
    else:
        try:
            return tf.make_ndarray(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            got = f"'{error}'"
    raise CallError(f"Expected {dtype} as the input {name!r}; got {got}.")


def _serialize_examples(source: Any) -> Iterator[bytes]:
    """Serialize the examples of a request, each merged with their shared context."""
    kind = source.WhichOneof("kind")
    context = source.example_list_with_context.context
    for message in getattr(source, kind).examples if kind else ():
        merged = tf.train.Example()
        merged.CopyFrom(context)
        merged.MergeFrom(message)  # its own features take precedence
        yield merged.SerializeToString()
