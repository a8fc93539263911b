"""Inference for both transports: metrics, token, limits, input checks, and running the model.

REST and gRPC share one `InferenceService`, which belongs to one event loop.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from jdfd_keras.io.memory import release_memory
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.jobs.access import Access
from jdfd_keras.serving.jobs.request_errors import RequestError
from jdfd_keras.serving.server.batching import Arrays, Batcher
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.codec_process import CodecProcess
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion
from jdfd_keras.serving.server.rest_codec import count_structure

INPUT = "inputs"  # fixed by TensorFlow Serving for Classify and Regress, as the output names are
MAX_LARGEST_BODIES = 8  # memory for all request bodies, in bodies of the largest size
CODEC_THREADS = 2
SMALL_BYTES = 2**18  # bodies below it have threads of their own
MIN_RELEASED_BYTES = 2**25  # of request bodies at once, after which memory is released
SECONDS_AFTER_BURST = 0.5  # until then responses are sent
# JSON outside of strings from which on a body is decoded in another process: less takes some 30 ms.
MIN_PROCESS_BYTES = 2**18

Value = TypeVar("Value")


class InferenceService:
    """The models of a server and the limits of its requests.

    Attributes:
        repository: The models.
        metrics: The metrics.
        timeout_s: Longest time for one request.
        max_body_bytes: Largest request body.
        reserved_bytes: Memory held by all request bodies.
    """

    def __init__(self, repository: Repository, options: ServeOptions, token: str = ""):
        """Create a service without requests; must be called in the event loop."""
        self._access = Access(token)
        self.repository = repository
        self.metrics = ServerMetrics(repository)
        self.timeout_s = options.timeout_s
        self.max_body_bytes = options.max_body_mb * 2**20
        self.reserved_bytes = 0
        self._peak_bytes = 0  # since memory was released
        self._max_json_bytes = options.max_json_mb * 2**20
        self._codec_process = CodecProcess()
        self._codec_threads = ThreadPoolExecutor(CODEC_THREADS, "codec")
        self._small_threads = ThreadPoolExecutor(CODEC_THREADS, "small codec")
        self._batcher = Batcher(options, self.metrics)

    async def close(self) -> None:
        """Wait for running batches, then end the threads."""
        await self._batcher.close()
        self._codec_process.close()
        self._codec_threads.shutdown(wait=False)
        self._small_threads.shutdown(wait=False)

    def check_token(self, authorization: str) -> None:
        """Check the header or metadata `authorization` of a request, if the server has a token.

        Raises:
            CallError: UNAUTHENTICATED.
        """
        try:
            self._access.check_token({"Authorization": authorization}, cookies={})
        except RequestError as error:
            raise CallError(error.message, StatusCode.UNAUTHENTICATED) from None

    @contextlib.asynccontextmanager
    async def handle(self, entrypoint: str) -> AsyncIterator["Call"]:
        """Count a request over `REST` or `GRPC`, and cancel it at its timeout.

        Raises:
            CallError: DEADLINE_EXCEEDED at the timeout, with 408 if the request is incomplete.
        """
        call = Call(self)
        code = StatusCode.INTERNAL
        try:
            async with asyncio.timeout(self.timeout_s) as call.timeout:
                yield call
            code = StatusCode.OK
        except TimeoutError:
            code = StatusCode.DEADLINE_EXCEEDED
            limit = f"{call.limit_s:.3g} seconds"
            if call.api:
                raise CallError(f"Expected an answer within {limit}; got none.", code) from None
            message = f"Expected a body within {limit}; got a part of it."
            raise CallError(message, code, http_status=408) from None
        except CallError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = StatusCode.CANCELLED
            raise
        finally:
            call.end(entrypoint, code)

    async def run_in_thread(
        self, function: Callable[..., Value], *arguments: Any, body_bytes: int
    ) -> Value:
        """Encode or decode in a thread, so that the event loop is not blocked.

        Args:
            function: Function to call.
            *arguments: Its arguments.
            body_bytes: Size of the request; a small one does not wait for large ones.
        """
        threads = self._small_threads if body_bytes < SMALL_BYTES else self._codec_threads
        return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    async def decode(self, function: Callable[..., Value], body: bytes, *arguments: Any) -> Value:
        """Decode a JSON body by a function of a module, without blocking other requests.

        Raises:
            CallError: If it has too many values, or the function raises one.
        """
        size = await self.run_in_thread(count_structure, body, body_bytes=len(body))
        if size > self._max_json_bytes:
            raise CallError(
                f"Expected at most {self._max_json_bytes} bytes of JSON outside of strings; got "
                f"{size}. Send image files as base64, fewer values at once, or use gRPC.",
                StatusCode.RESOURCE_EXHAUSTED,
                http_status=413,
            )
        if size < MIN_PROCESS_BYTES:
            return await self.run_in_thread(function, body, *arguments, body_bytes=len(body))
        return await self._codec_process.run(function, body, *arguments)

    def change_reserved(self, change: int) -> None:
        """Count bytes of request bodies, and release the memory of a burst at its end."""
        self.reserved_bytes += change
        self._peak_bytes = max(self._peak_bytes, self.reserved_bytes)
        self.metrics.body_bytes.set(self.reserved_bytes)
        if not self.reserved_bytes and self._peak_bytes >= MIN_RELEASED_BYTES:
            self._peak_bytes = 0
            asyncio.get_running_loop().call_later(
                SECONDS_AFTER_BURST, self._codec_threads.submit, release_memory
            )

    async def run(
        self, served: ServedVersion, name: str, inputs: Arrays, outputs: Sequence[str] = ()
    ) -> Arrays:
        """Run a signature of a version that the caller holds; without `outputs`, for all of them.

        Raises:
            CallError: If an input has the wrong shape, an output does not exist, the model rejects
                the values, or the queue is full.
        """
        signature = served.engine.signatures[name]
        for key, array in inputs.items():
            shape = signature.inputs[key].shape
            if shape is not None and not tf.TensorShape(shape).is_compatible_with(array.shape):
                raise CallError(
                    f"Expected the shape {shape} as the input {key!r}; got {array.shape}."
                )
        if unknown := set(outputs) - signature.outputs.keys():
            raise CallError(
                f"Expected outputs of {sorted(signature.outputs)}; got {sorted(unknown)}."
            )
        return await self._batcher.run(served, name, inputs, outputs)

    async def run_examples(
        self,
        served: ServedVersion,
        name: str,
        api: str,
        examples: Iterable[bytes],
        body_bytes: int,
    ) -> list:
        """Run a signature of `Classify` or `Regress` on serialized examples.

        They are consumed in a thread and have the shared context: a small request can expand to
        many large messages.

        Returns:
            For each example (label, score) pairs in the order of the model, or one value.

        Raises:
            CallError: If the signature does not support the method, the examples are larger than a
                body may be, or as `run`.
        """
        signature = served.find_signature(name, StatusCode.INVALID_ARGUMENT)
        if signature.inputs.keys() != {INPUT} or (
            api == "Regress" and "outputs" not in signature.outputs
        ):
            raise CallError(
                f"Expected a signature for {api}, with the input {INPUT!r}; got {name!r} with "
                f"{sorted(signature.inputs)} and the outputs {sorted(signature.outputs)}."
            )
        inputs = await self.run_in_thread(
            _stack_examples, examples, self.max_body_bytes, body_bytes=body_bytes
        )
        outputs = await self.run(served, name, {INPUT: inputs})
        return _read_classes(outputs) if api == "Classify" else _read_values(outputs)


class Call:
    """One request, from its first byte on.

    Attributes:
        api: `Predict`, `Classify` and so on; "" until `begin`.
        limit_s: Its longest time.
        timeout: Its timeout, set by the service.
    """

    def __init__(self, service: InferenceService):
        """Start with an unknown model and no reserved memory."""
        self._service = service
        self._model = self.api = ""
        self.limit_s = service.timeout_s
        self.timeout: asyncio.Timeout
        self._started = time.monotonic()
        self._reserved = 0

    def reserve(self, size: int) -> None:
        """Count `size` more bytes as held by the request.

        Raises:
            CallError: UNAVAILABLE if all bodies together exceed the limit.
        """
        service = self._service
        if service.reserved_bytes + size > MAX_LARGEST_BODIES * service.max_body_bytes:
            raise CallError(
                f"Expected requests of at most {MAX_LARGEST_BODIES} times the largest size at "
                "once; got more. Try again later.",
                StatusCode.UNAVAILABLE,
            )
        self._change_reserved(size)

    def begin(self, model: str, api: str, limit_s: float | None = None) -> None:
        """Start the time of a complete request, up to the client's own limit if it is shorter."""
        self._model, self.api = model, api
        self.limit_s = min(self.limit_s, math.inf if limit_s is None else limit_s)
        self._started = time.monotonic()
        self.timeout.reschedule(asyncio.get_running_loop().time() + self.limit_s)
        self._service.metrics.in_flight.inc()

    def end(self, entrypoint: str, code: StatusCode) -> None:
        """Release the memory and count the request, also if it was rejected before `begin`."""
        metrics = self._service.metrics
        self._change_reserved(-self._reserved)
        if self.api:
            metrics.in_flight.dec()
        if self.api or code not in (StatusCode.OK, StatusCode.CANCELLED):
            seconds = time.monotonic() - self._started
            metrics.count(self._model, self.api, entrypoint, code.name, seconds)

    def _change_reserved(self, change: int) -> None:
        self._reserved += change
        self._service.change_reserved(change)


def _read_classes(outputs: Arrays) -> list[list[tuple[str, float]]]:
    """Pair labels with scores; bytes that are not UTF-8 become U+FFFD."""
    shapes = {name: array.shape for name, array in outputs.items()}
    shape = next(iter(shapes.values()), ())
    is_known = bool(shapes) and shapes.keys() <= {"classes", "scores"}
    if not is_known or set(shapes.values()) != {shape} or len(shape) != 2:
        raise CallError(
            f"Expected the outputs 'classes' and 'scores' of one shape [n, k]; got {shapes}."
        )
    scores = outputs.get("scores", np.zeros(shape)).tolist()
    classes = outputs.get("classes", np.full(shape, b"", object)).tolist()
    return [
        [(label.decode("utf-8", "replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(classes, scores, strict=True)
    ]


def _read_values(outputs: Arrays) -> list[float]:
    values = outputs["outputs"]
    if values.ndim == 0 or values.shape[1:] not in ((), (1,)):
        raise CallError(f"Expected 'outputs' of the shape [n] or [n, 1]; got {values.shape}.")
    return values.ravel().tolist()


def _stack_examples(serialized: Iterable[bytes], limit: int) -> np.ndarray:
    messages, size = [], 0
    for message in serialized:
        messages.append(message)
        size += len(message)
        if size > limit:
            raise CallError(
                f"Expected examples of at most {limit} bytes with their context; got more. Send "
                "fewer at once.",
                StatusCode.RESOURCE_EXHAUSTED,
                http_status=413,
            )
    if not messages:
        raise CallError("Expected at least one example; got none.")
    examples = np.empty(len(messages), object)
    examples[:] = messages
    return examples
