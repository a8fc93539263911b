"""Tensors of TensorFlow's messages to arrays and back.

Takes a TensorProto and the input that it is meant for; gives an array. A message is not trusted:
one of a few bytes may call itself a terabyte. Knows nothing of requests.

TensorFlow Serving's gRPC interface.

Takes calls and options; answers PredictionService, ModelService and the standard health service.
It has no TLS and no authentication: beyond this machine a proxy stands in front.
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

from jdfd_keras.client.signatures import SCORE_BYTES, TensorInfo
from jdfd_keras.serving.server import inference_service as examples
from jdfd_keras.serving.server.call_errors import CODES, CallError
from jdfd_keras.serving.server.inference_service import Calls, find_signature
from jdfd_keras.serving.server.repository import ServedVersion


def decode_tensor(
    name: str, tensor: tensor_pb2.TensorProto, info: TensorInfo, max_bytes: int
) -> np.ndarray:
    """Turn a message into an array.

    Args:
        name: The input, for the words of an error.
        tensor: The message.
        info: What the signature says of the input; its shape is left to the caller.
        max_bytes: The largest array. A message may give one number for all of its elements.

    Returns:
        The array; text is an object array of bytes.

    Raises:
        CallError: If it is of another dtype, its shape and values do not fit, or it is too large.
    """
    expected = f"DT_{info.dtype.upper()}"
    if tensor.dtype != types_pb2.DataType.Value(expected):
        got = _DTYPES.get(tensor.dtype, tensor.dtype)
        raise CallError(f"input {name}: expected a tensor of {expected}, got {got}")
    sizes = [axis.size for axis in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise CallError(f"input {name}: the shape {sizes} is not known in full")
    count = math.prod(sizes)
    dtype = tf.as_dtype(tensor.dtype)
    if count * dtype.size > max_bytes:
        raise CallError(
            f"input {name}: a tensor of shape {sizes} is above the limit of {max_bytes} bytes"
        )
    if dtype == tf.string and len(tensor.string_val) != count:
        raise CallError(f"input {name}: {len(tensor.string_val)} texts for the shape {sizes}")
    try:
        return tf.make_ndarray(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise CallError(f"input {name}: {error}") from error


def encode_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Turn an output into a message."""
    return tf.make_tensor_proto(array)


_DTYPES = {value.number: value.name for value in types_pb2.DataType.DESCRIPTOR.values}

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
MAX_DETAIL = 1000  # gRPC sends the words of an error in a header, which has little room
METADATA_FIELD = "signature_def"
MOST_CALLS = 1000  # further ones are told RESOURCE_EXHAUSTED before their message is read
MIN_TRANSLATED_BYTES = 2**20  # a smaller message is read faster than a thread takes it over


class GrpcServer:
    """The listening socket and its services."""

    def __init__(self, calls: Calls):
        """Get ready; nothing listens yet.

        Args:
            calls: The models and limits.
        """
        self._server = grpc.aio.server(
            interceptors=[_Errors(calls)],
            maximum_concurrent_rpcs=MOST_CALLS,
            options=[
                ("grpc.max_receive_message_length", calls.max_body_bytes),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(calls), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            _ModelService(calls), self._server
        )
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen, and say that the server is healthy.

        Args:
            host: The address.
            port: The port; 0 takes a free one, which `port` then tells.

        Raises:
            RuntimeError: If the address cannot be had.
        """
        host = f"[{host}]" if ":" in host else host
        self.port = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def say_goodbye(self) -> None:
        """Say that the server is not healthy, for good; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def drain(self, timeout_s: float) -> None:
        """Take no new call, finish what is in flight, and end.

        Args:
            timeout_s: How long calls in flight are waited for.
        """
        await self._server.stop(timeout_s)


class _Errors(grpc.aio.ServerInterceptor):
    """Reads each message and turns what goes wrong into a status."""

    def __init__(self, calls: Calls):
        self._calls = calls

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(message: bytes, context: grpc.aio.ServicerContext):
            try:
                with contextlib.ExitStack() as held:
                    with self._calls.counting_refusals("GRPC"):
                        held.enter_context(self._calls.holding_bytes(len(message)))
                        read = functools.partial(_read_message, handler, message)
                        is_small = len(message) < MIN_TRANSLATED_BYTES
                        request = read() if is_small else await self._calls.translate(read)
                    return await handler.unary_unary(request, context)
            except NotImplementedError:  # what a servicer of TensorFlow Serving leaves open
                error = CallError("This server does not have this method", "UNIMPLEMENTED")
            except CallError as call_error:
                error = call_error
            return await context.abort(grpc.StatusCode[error.code], str(error)[:MAX_DETAIL])

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, calls: Calls):
        self._calls = calls

    async def Predict(self, request, context):  # noqa: N802
        async with self._counted(request.model_spec, "Predict", context):
            with self._use(request.model_spec) as served:
                name = request.model_spec.signature_name or SCORE_BYTES
                signature = find_signature(served, name)
                if request.inputs.keys() != signature.inputs.keys():
                    raise CallError(
                        "input size does not match signature: expected "
                        f"{sorted(signature.inputs)}, got {sorted(request.inputs)}"
                    )

                def read() -> dict[str, np.ndarray]:
                    limit = self._calls.max_body_bytes
                    return {
                        key: decode_tensor(key, tensor, signature.inputs[key], limit)
                        for key, tensor in request.inputs.items()
                    }

                inputs = await self._calls.translate(read)
                outputs = await self._calls.run(served, name, inputs, request.output_filter)
                response = predict_pb2.PredictResponse(model_spec=_spec_of(served, name))

                def write() -> None:
                    for key, array in outputs.items():
                        response.outputs[key].CopyFrom(encode_tensor(array))

                await self._calls.translate(write)
                return response

    async def Classify(self, request, context):  # noqa: N802
        async with self._counted(request.model_spec, "Classify", context):
            served_as, outputs = await self._run_examples(request, examples.CLASSIFY)
            result = classification_pb2.ClassificationResult()
            for row in examples.read_classes(outputs):
                classes = result.classifications.add().classes
                for label, score in row:
                    classes.add(label=label, score=score)
            return classification_pb2.ClassificationResponse(model_spec=served_as, result=result)

    async def Regress(self, request, context):  # noqa: N802
        async with self._counted(request.model_spec, "Regress", context):
            served_as, outputs = await self._run_examples(request, examples.REGRESS)
            result = regression_pb2.RegressionResult()
            for value in examples.read_values(outputs):
                result.regressions.add(value=value)
            return regression_pb2.RegressionResponse(model_spec=served_as, result=result)

    async def GetModelMetadata(self, request, context):  # noqa: N802
        async with self._counted(request.model_spec, "GetModelMetadata", context):
            if not request.metadata_field:
                raise CallError("GetModelMetadata requires at least one metadata_field")
            for field in request.metadata_field:
                if field != METADATA_FIELD:
                    raise CallError(f"Metadata field {field} is not supported")
            with self._use(request.model_spec) as served:
                response = get_model_metadata_pb2.GetModelMetadataResponse(
                    model_spec=_spec_of(served, "")
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
            name = request.model_spec.signature_name or SCORE_BYTES
            examples.check_signature(name, served.engine.signatures.get(name), method)
            limit = self._calls.max_body_bytes
            serialized = await self._calls.translate(
                examples.gather_examples, _serialize(request.input), limit
            )
            outputs = await self._calls.run(served, name, {examples.INPUT: serialized})
            return _spec_of(served, name), outputs

    def _counted(self, spec: model_pb2.ModelSpec, api: str, context: grpc.aio.ServicerContext):
        return self._calls.counted(spec.name, api, "GRPC", context.time_remaining())

    def _use(self, spec: model_pb2.ModelSpec):
        return self._calls.repository.use(spec.name, *_version_of(spec))


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, calls: Calls):
        self._calls = calls

    async def GetModelStatus(self, request, context):  # noqa: N802
        name = request.model_spec.name
        version, _ = _version_of(request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        async with self._calls.counted(name, "GetModelStatus", "GRPC", context.time_remaining()):
            for served in self._calls.repository.states(name, version):
                status = response.model_version_status.add(
                    version=served.version,
                    state=get_model_status_pb2.ModelVersionStatus.State.Value(served.state),
                )
                status.status.error_code = CODES.index(served.error_code)
                status.status.error_message = served.error
        return response


def _read_message(handler: grpc.RpcMethodHandler, message: bytes):
    try:
        return handler.request_deserializer(message)
    except DecodeError:  # which grpc.aio itself answers with UNKNOWN and a traceback
        raise CallError("The message cannot be read") from None


def _version_of(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return version, spec.version_label if choice == "version_label" else None


def _spec_of(served: ServedVersion, signature_name: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=served.name, signature_name=signature_name)
    spec.version.value = served.version
    return spec


def _serialize(source: input_pb2.Input) -> Iterator[bytes]:
    """Write the examples of a request, each with what they share, as a model reads them."""
    context = example_pb2.Example()
    messages = source.example_list.examples
    if source.WhichOneof("kind") == "example_list_with_context":
        context = source.example_list_with_context.context
        messages = source.example_list_with_context.examples
    if not messages:
        raise CallError("Input is empty")
    for message in messages:
        whole = example_pb2.Example()
        whole.CopyFrom(context)
        whole.MergeFrom(message)  # its own features override
        yield whole.SerializeToString()
