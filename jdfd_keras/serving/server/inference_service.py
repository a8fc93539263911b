"""Inference for both transports: metrics, limits, input checks, and running the model.

REST and gRPC share one `InferenceService`, which belongs to one event loop. The functions
below it check and read the inputs and outputs of Classify and Regress; their checks and error
texts follow TensorFlow Serving 2.20.0 as recorded.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.server.batching import Batcher
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion

CLASSIFY = "classify"
REGRESS = "regress"
INPUT = "inputs"  # this name and the next are fixed by TensorFlow Serving
VALUES = "outputs"
METHOD_NAMES = {CLASSIFY: "classification", REGRESS: "regression"}
# Memory for all request bodies, in bodies of the largest size.
MAX_LARGEST_BODIES = 8
CODEC_THREADS = 2


class InferenceService:
    """The models of a server and the limits of its requests.

    Attributes:
        repository: The models.
        metrics: The metrics.
        timeout_s: Longest time for one request, in seconds.
        max_body_bytes: Largest request body, in bytes.
    """

    def __init__(self, repository: Repository, metrics: ServerMetrics, options: ServeOptions):
        """Create a service without requests.

        Args:
            repository: The models.
            metrics: The metrics to update.
            options: The limits.
        """
        self.repository = repository
        self.metrics = metrics
        self.timeout_s = options.timeout_s
        self.max_body_bytes = options.max_body_mb * 2**20
        self._reserved_bytes = 0
        self._codec_threads = ThreadPoolExecutor(CODEC_THREADS, "codec")
        self._batcher = Batcher(
            max_batch_size=options.max_batch_size,
            batch_timeout_s=options.batch_timeout_ms / 1000,
            max_queue=options.max_queue,
            metrics=metrics,
        )

    async def close(self) -> None:
        """Wait for running batches, then end the threads."""
        await self._batcher.close()
        self._codec_threads.shutdown(wait=False)

    @contextlib.asynccontextmanager
    async def track_request(
        self, model: str, api: str, entrypoint: str, timeout_s: float | None = None
    ) -> AsyncIterator[None]:
        """Count a request and cancel it at its timeout.

        Args:
            model: The requested model.
            api: `Predict`, `Classify` and so on.
            entrypoint: `REST` or `GRPC`.
            timeout_s: The client's own timeout in seconds, used if it is shorter.

        Raises:
            CallError: DEADLINE_EXCEEDED at the timeout.
        """
        start = time.monotonic()
        limit = min(self.timeout_s, math.inf if timeout_s is None else timeout_s)
        code = "INTERNAL"
        self.metrics.in_flight.inc()
        try:
            async with asyncio.timeout(limit):
                yield
            code = "OK"
        except TimeoutError:
            code = "DEADLINE_EXCEEDED"
            raise CallError(f"No answer within {limit:.3g} seconds", code) from None
        except CallError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self.metrics.in_flight.dec()
            self.metrics.count(model, api, entrypoint, code, time.monotonic() - start)

    @contextlib.contextmanager
    def count_rejections(self, entrypoint: str) -> Iterator[None]:
        """Count requests that are rejected before their model is known.

        Args:
            entrypoint: `REST` or `GRPC`.
        """
        start = time.monotonic()
        try:
            yield
        except CallError as error:
            self.metrics.count("", "", entrypoint, error.code, time.monotonic() - start)
            raise

    @contextlib.contextmanager
    def reserve_memory(self, size: int = 0) -> Iterator[Callable[[int], None]]:
        """Count the memory of a request body inside the block.

        Args:
            size: Bytes that are held already.

        Yields:
            A function that reserves further bytes.

        Raises:
            CallError: UNAVAILABLE if all bodies together exceed the limit; the yielded function
                raises it, too.
        """
        reserved = 0

        def reserve(more: int) -> None:
            nonlocal reserved
            if self._reserved_bytes + more > MAX_LARGEST_BODIES * self.max_body_bytes:
                raise CallError("Too many large requests at once. Try again later.", "UNAVAILABLE")
            reserved += more
            self._add_reserved(more)

        try:
            reserve(size)
            yield reserve
        finally:
            self._add_reserved(-reserved)

    async def run_in_thread(self, function: Callable, *arguments):
        """Encode or decode in a thread, so that the event loop is not blocked."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._codec_threads, function, *arguments)

    async def run(
        self,
        served: ServedVersion,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Run a signature of a version.

        Args:
            served: The version, acquired by the caller.
            signature_name: One of its signatures.
            inputs: One array per input, of its dtype.
            outputs: Names of the outputs to return; all if empty.

        Returns:
            One array per output.

        Raises:
            CallError: If an input has the wrong shape, an output does not exist, the model rejects
                the values, or the queue is full.
        """
        signature = served.engine.signatures[signature_name]
        for name, array in inputs.items():
            _check_shape(name, array.shape, signature.inputs[name])
        for name in outputs:
            if name not in signature.outputs:
                raise CallError(
                    f"output tensor alias not found in signature: {name} Outputs expected to be "
                    f"in the set {{{','.join(signature.outputs)}}}."
                )
        return await self._batcher.run(served, signature_name, inputs, outputs)

    def _add_reserved(self, change: int) -> None:
        self._reserved_bytes += change
        self.metrics.body_bytes.set(self._reserved_bytes)


def find_signature(served: ServedVersion, name: str) -> Signature:
    """Return the signature that a Predict request names.

    Raises:
        CallError: If the version has no such signature.
    """
    signatures = served.engine.signatures
    if name not in signatures:
        raise CallError(
            f'Serving signature name: "{name}" not found in signature def', "FAILED_PRECONDITION"
        )
    return signatures[name]


def check_signature(name: str, signature: Signature | None, method: str) -> None:
    """Check that a signature supports a method.

    Args:
        name: The requested name.
        signature: The signature of that name, or None.
        method: `CLASSIFY` or `REGRESS`.

    Raises:
        CallError: If it does not.
    """
    if signature is None:
        raise CallError(f"No signature was found with the name: {name}")
    if signature.inputs.keys() != {INPUT}:
        raise CallError(f"No {METHOD_NAMES[method]} inputs found in SignatureDef: {name}")
    if method == REGRESS and VALUES not in signature.outputs:
        raise CallError(f"No regression outputs found in SignatureDef: {name}")


def stack_examples(serialized: Iterable[bytes], limit: int) -> np.ndarray:
    """Stack serialized examples, up to a total size.

    Args:
        serialized: One message per example, each with the shared context: a small request can
            expand to many large messages.
        limit: Largest total size in bytes.

    Returns:
        string[n].

    Raises:
        CallError: RESOURCE_EXHAUSTED if the total is larger.

    Example:
        >>> stack_examples([b"first", b"second"], 100).tolist()
        [b'first', b'second']
    """
    messages, size = [], 0
    for message in serialized:
        messages.append(message)
        size += len(message)
        if size > limit:
            raise CallError(
                f"The examples with their context have more than {limit} bytes. Send fewer at "
                "once.",
                "RESOURCE_EXHAUSTED",
                http_status=413,
            )
    examples = np.empty(len(messages), object)
    examples[:] = messages
    return examples


def read_classes(outputs: dict[str, np.ndarray]) -> list[list[tuple[str, float]]]:
    """Convert the outputs of a Classify signature to labels with scores.

    Args:
        outputs: `scores` float[n, k], `classes` string[n, k], or one of them.

    Returns:
        (label, score) pairs per example, in the order of the model. Bytes that are not UTF-8
        become U+FFFD.

    Raises:
        CallError: If there are other outputs, or their shapes differ.

    Example:
        >>> read_classes({"scores": np.array([[0.75, 0.25]])})
        [[('', 0.75), ('', 0.25)]]
    """
    if not 1 <= len(outputs) <= 2:
        raise CallError(f"Expected one or two output Tensors, found {len(outputs)}")
    shapes = {name: array.shape for name, array in outputs.items()}
    if (
        not outputs.keys() <= {"classes", "scores"}
        or any(array.ndim != 2 for array in outputs.values())
        or len(set(shapes.values())) > 1
    ):
        raise CallError(
            f"Expected outputs 'classes' and 'scores' of two axes and one shape, found {shapes}"
        )
    shape = next(iter(shapes.values()))
    scores = outputs.get("scores", np.zeros(shape)).tolist()
    classes = outputs.get("classes", np.full(shape, b"", object)).tolist()
    return [
        [(label.decode("utf-8", "replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(classes, scores, strict=True)
    ]


def read_values(outputs: dict[str, np.ndarray]) -> list[float]:
    """Convert the output of a Regress signature to numbers.

    Args:
        outputs: `outputs` float[n] or float[n, 1].

    Returns:
        One value per example.

    Raises:
        CallError: If it has another shape.

    Example:
        >>> read_values({"outputs": np.array([[1.5], [2.0]])})
        [1.5, 2.0]
    """
    values = outputs[VALUES]
    if values.ndim == 0 or values.shape[1:] not in ((), (1,)):
        raise CallError(f"Expected output 'outputs' of shape [n] or [n, 1], found {values.shape}")
    return values.ravel().tolist()


def _check_shape(name: str, shape: tuple[int, ...], info: TensorInfo) -> None:
    expected = info.shape
    if expected is not None and (
        len(shape) != len(expected)
        or any(want not in (None, got) for want, got in zip(expected, shape, strict=True))
    ):
        axes = ["?" if size is None else str(size) for size in expected]
        raise CallError(f"input {name}: expected shape [{','.join(axes)}], got {list(shape)}")
