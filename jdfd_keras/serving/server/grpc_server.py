"""TensorFlow Serving's gRPC interface: PredictionService, ModelService, and the health service.

Takes an `InferenceService` and an address. Messages are not trusted: a TensorProto of a few bytes
may declare a terabyte. It has no TLS and no authentication: on a network, put a proxy before it.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from jdfd_keras.client.signatures import SERVING_DEFAULT, TensorInfo
from jdfd_keras.serving.server import inference_service as inference
from jdfd_keras.serving.server.call_errors import CODES, CallError
from jdfd_keras.serving.server.inference_service import InferenceService, find_signature
from jdfd_keras.serving.server.repository import ServedVersion

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
MAX_ERROR_CHARACTERS = 1000  # gRPC sends error texts in a header of limited size
METADATA_FIELD = "signature_def"
MAX_CONCURRENT_CALLS = 1000  # others get RESOURCE_EXHAUSTED before their message is read
MIN_THREADED_BYTES = 2**20  # parsing a smaller message takes less time than switching threads
DTYPES = {value.number: value.name for value in types_pb2.DataType.DESCRIPTOR.values}


def decode_tensor(
    name: str, tensor: tensor_pb2.TensorProto, info: TensorInfo, max_bytes: int
) -> np.ndarray:
    """Decode a TensorProto.

    Args:
        name: Name of the input, for errors.
        tensor: The message.
        info: The input in the signature; its shape is checked by the caller.
        max_bytes: Largest array in bytes. A message may hold one value for all elements.

    Returns:
        The array; strings become an object array of bytes.

    Raises:
        CallError: If it has another dtype, its values do not match its shape, or it is too large.
    """
    expected = f"DT_{info.dtype.upper()}"
    if tensor.dtype != types_pb2.DataType.Value(expected):
        got = DTYPES.get(tensor.dtype, tensor.dtype)
        raise CallError(f"input {name}: expected a tensor of {expected}, got {got}")
    sizes = [axis.size for axis in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise CallError(f"input {name}: the shape {sizes} is not fully defined")
    count = math.prod(sizes)
    dtype = tf.as_dtype(tensor.dtype)
    if count * dtype.size > max_bytes:
        raise CallError(
            f"input {name}: a tensor of shape {sizes} is above the limit of {max_bytes} bytes"
        )
    if dtype == tf.string and len(tensor.string_val) != count:
        raise CallError(f"input {name}: {len(tensor.string_val)} strings for the shape {sizes}")
    try:
        return tf.make_ndarray(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise CallError(f"input {name}: {error}") from error


def encode_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Encode an output as a TensorProto."""
    return tf.make_tensor_proto(array)


class GrpcServer:
    """The gRPC server and its services."""

    def __init__(self, service: InferenceService):
        """Create a server that does not listen yet.

        Args:
            service: The models and limits.
        """
        self._server = grpc.aio.server(
            interceptors=[_ErrorInterceptor(service)],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                ("grpc.max_receive_message_length", service.max_body_bytes),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(service), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            _ModelService(service), self._server
        )
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen, and report SERVING to health checks.

        Args:
            host: The address.
            port: The port; 0 chooses a free one. The attribute `port` holds the actual one.

        Raises:
            RuntimeError: If the address cannot be bound.
        """
        host = f"[{host}]" if ":" in host else host
        self.port = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def set_not_serving(self) -> None:
        """Report NOT_SERVING to health checks from now on; requests are still processed."""
        await self._health.enter_graceful_shutdown()

    async def drain(self, timeout_s: float) -> None:
        """Accept no new requests, complete those in flight, and close.

        Args:
            timeout_s: Longest time to wait for requests in flight, in seconds.
        """
        await self._server.stop(timeout_s)


class _ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Parses each message and converts errors to a gRPC status."""

    def __init__(self, service: InferenceService):
        self._service = service

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(message: bytes, context: grpc.aio.ServicerContext):
            try:
                with contextlib.ExitStack() as reserved:
                    with self._service.count_rejections("GRPC"):
                        reserved.enter_context(self._service.reserve_memory(len(message)))
                        read = functools.partial(_parse_message, handler, message)
                        is_small = len(message) < MIN_THREADED_BYTES
                        request = read() if is_small else await self._service.run_in_thread(read)
                    return await handler.unary_unary(request, context)
            except NotImplementedError:  # raised by the base class of a servicer
                error = CallError("This server does not implement this method", "UNIMPLEMENTED")
            except CallError as call_error:
                error = call_error
            return await context.abort(
                grpc.StatusCode[error.code], str(error)[:MAX_ERROR_CHARACTERS]
            )

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service: InferenceService):
        self._service = service

    async def Predict(self, request, context):  # noqa: N802
        async with self._track(request.model_spec, "Predict", context):
            with self._use(request.model_spec) as served:
                name = request.model_spec.signature_name or SERVING_DEFAULT
                signature = find_signature(served, name)
                if request.inputs.keys() != signature.inputs.keys():
                    raise CallError(
                        "input size does not match signature: expected "
                        f"{sorted(signature.inputs)}, got {sorted(request.inputs)}"
                    )

                def read() -> dict[str, np.ndarray]:
                    limit = self._service.max_body_bytes
                    return {
                        key: decode_tensor(key, tensor, signature.inputs[key], limit)
                        for key, tensor in request.inputs.items()
                    }

                inputs = await self._service.run_in_thread(read)
                outputs = await self._service.run(served, name, inputs, request.output_filter)
                response = predict_pb2.PredictResponse(model_spec=_make_spec(served, name))

                def write() -> None:
                    for key, array in outputs.items():
                        response.outputs[key].CopyFrom(encode_tensor(array))

                await self._service.run_in_thread(write)
                return response

    async def Classify(self, request, context):  # noqa: N802
        async with self._track(request.model_spec, "Classify", context):
            spec, outputs = await self._run_examples(request, inference.CLASSIFY)
            result = classification_pb2.ClassificationResult()
            for row in inference.read_classes(outputs):
                classes = result.classifications.add().classes
                for label, score in row:
                    classes.add(label=label, score=score)
            return classification_pb2.ClassificationResponse(model_spec=spec, result=result)

    async def Regress(self, request, context):  # noqa: N802
        async with self._track(request.model_spec, "Regress", context):
            spec, outputs = await self._run_examples(request, inference.REGRESS)
            result = regression_pb2.RegressionResult()
            for value in inference.read_values(outputs):
                result.regressions.add(value=value)
            return regression_pb2.RegressionResponse(model_spec=spec, result=result)

    async def GetModelMetadata(self, request, context):  # noqa: N802
        async with self._track(request.model_spec, "GetModelMetadata", context):
            if not request.metadata_field:
                raise CallError("GetModelMetadata requires at least one metadata_field")
            for field in request.metadata_field:
                if field != METADATA_FIELD:
                    raise CallError(f"Metadata field {field} is not supported")
            with self._use(request.model_spec) as served:
                response = get_model_metadata_pb2.GetModelMetadataResponse(
                    model_spec=_make_spec(served, "")
                )
                definitions = get_model_metadata_pb2.SignatureDefMap(
                    signature_def=served.engine.signature_defs
                )
                response.metadata[METADATA_FIELD].Pack(definitions)
                return response

    async def _run_examples(
        self, request, method: str
    ) -> tuple[model_pb2.ModelSpec, dict[str, np.ndarray]]:
        with self._use(request.model_spec) as served:
            name = request.model_spec.signature_name or SERVING_DEFAULT
            inference.check_signature(name, served.engine.signatures.get(name), method)
            limit = self._service.max_body_bytes
            serialized = await self._service.run_in_thread(
                inference.stack_examples, _serialize(request.input), limit
            )
            outputs = await self._service.run(served, name, {inference.INPUT: serialized})
            return _make_spec(served, name), outputs

    def _track(self, spec: model_pb2.ModelSpec, api: str, context: grpc.aio.ServicerContext):
        return self._service.track_request(spec.name, api, "GRPC", context.time_remaining())

    def _use(self, spec: model_pb2.ModelSpec):
        return self._service.repository.use(spec.name, *_requested_version(spec))


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service: InferenceService):
        self._service = service

    async def GetModelStatus(self, request, context):  # noqa: N802
        name = request.model_spec.name
        version, _ = _requested_version(request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        async with self._service.track_request(
            name, "GetModelStatus", "GRPC", context.time_remaining()
        ):
            for served in self._service.repository.states(name, version):
                status = response.model_version_status.add(
                    version=served.version,
                    state=get_model_status_pb2.ModelVersionStatus.State.Value(served.state),
                )
                status.status.error_code = CODES.index(served.error_code)
                status.status.error_message = served.error
        return response


def _parse_message(handler: grpc.RpcMethodHandler, message: bytes):
    try:
        return handler.request_deserializer(message)
    except DecodeError:  # grpc.aio itself would answer UNKNOWN and log a traceback
        raise CallError("The message cannot be read") from None


def _requested_version(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return version, spec.version_label if choice == "version_label" else None


def _make_spec(served: ServedVersion, signature_name: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=served.name, signature_name=signature_name)
    spec.version.value = served.version
    return spec


def _serialize(source: input_pb2.Input) -> Iterator[bytes]:
    """Serialize the examples of a request, each merged with their shared context."""
    context = example_pb2.Example()
    messages = source.example_list.examples
    if source.WhichOneof("kind") == "example_list_with_context":
        context = source.example_list_with_context.context
        messages = source.example_list_with_context.examples
    if not messages:
        raise CallError("Input is empty")
    for message in messages:
        merged = example_pb2.Example()
        merged.CopyFrom(context)
        merged.MergeFrom(message)  # its own features take precedence
        yield merged.SerializeToString()
