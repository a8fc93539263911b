"""What classify and regress say of a model's outputs, for every transport.

Takes a signature and its outputs; gives classes with their scores, or values. Which outputs are
refused, and with which words, follows TensorFlow Serving 2.20.0 as it was measured.

What every call needs, whichever transport it came by.

Counts it, limits its time and the memory that its body may hold, checks its inputs against the
signature and has the model run. The transports translate; they share one `Calls`. Belongs to one
event loop.
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
from jdfd_keras.serving.server.prometheus import Metrics
from jdfd_keras.serving.server.repository import Repository, ServedVersion

CLASSIFY = "classify"
REGRESS = "regress"
INPUT = "inputs"  # the names that TensorFlow Serving fixes
VALUES = "outputs"
NAMES = {CLASSIFY: "classification", REGRESS: "regression"}


def check_signature(name: str, signature: Signature | None, method: str) -> None:
    """See that a signature can be called by a method.

    Args:
        name: What was asked for.
        signature: What has that name; None if nothing has.
        method: `CLASSIFY` or `REGRESS`.

    Raises:
        CallError: If it cannot.
    """
    if signature is None:
        raise CallError(f"No signature was found with the name: {name}")
    if signature.inputs.keys() != {INPUT}:
        raise CallError(f"No {NAMES[method]} inputs found in SignatureDef: {name}")
    if method == REGRESS and VALUES not in signature.outputs:
        raise CallError(f"No regression outputs found in SignatureDef: {name}")


def gather_examples(serialized: Iterable[bytes], limit: int) -> np.ndarray:
    """Put examples together that share a context, as far as they are not too large together.

    Args:
        serialized: A message each, with the context in it: a small request may make many large
            ones.
        limit: Bytes that they may have together.

    Returns:
        string[n].

    Raises:
        CallError: If they have more.
    """
    gathered, size = [], 0
    for message in serialized:
        gathered.append(message)
        size += len(message)
        if size > limit:
            raise CallError(
                f"The examples with their context have more than {limit} bytes. Send fewer at "
                "once.",
                "RESOURCE_EXHAUSTED",
                http_status=413,
            )
    examples = np.empty(len(gathered), object)
    examples[:] = gathered
    return examples


def read_classes(outputs: dict[str, np.ndarray]) -> list[list[tuple[str, float]]]:
    """Read the outputs of a classify signature.

    Args:
        outputs: `scores` float[n, k], `classes` string[n, k], or one of them.

    Returns:
        For each example its classes, in the order of the model, with their scores. Names that
        are not UTF-8 are mended with U+FFFD.

    Raises:
        CallError: If there are other outputs, or not one row for each example.
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
    """Read the output of a regress signature.

    Args:
        outputs: `outputs` float[n] or float[n, 1].

    Returns:
        A value for each example.

    Raises:
        CallError: If it has another shape.
    """
    values = outputs[VALUES]
    if values.ndim == 0 or values.shape[1:] not in ((), (1,)):
        raise CallError(f"Expected output 'outputs' of shape [n] or [n, 1], found {values.shape}")
    return values.ravel().tolist()


# Bodies of the largest size that may be held at once.
MAX_LARGEST_BODIES = 8
TRANSLATORS = 2


class Calls:
    """The models of a server and the limits of what is asked of them.

    Attributes:
        repository: The models.
        metrics: Where calls are counted.
        timeout_s: How long a call may take.
        max_body_bytes: The largest body of a request.
    """

    def __init__(self, repository: Repository, metrics: Metrics, options: ServeOptions):
        """Begin without a call.

        Args:
            repository: The models.
            metrics: Where calls are counted.
            options: The limits.
        """
        self.repository = repository
        self.metrics = metrics
        self.timeout_s = options.timeout_s
        self.max_body_bytes = options.max_body_mb * 2**20
        self._held_bytes = 0
        self._translators = ThreadPoolExecutor(TRANSLATORS, "translate")
        self._batcher = Batcher(
            max_batch_size=options.max_batch_size,
            batch_timeout_s=options.batch_timeout_ms / 1000,
            max_queue=options.max_queue,
            metrics=metrics,
        )

    async def close(self) -> None:
        """Wait for the models, and end the threads."""
        await self._batcher.close()
        self._translators.shutdown(wait=False)

    @contextlib.asynccontextmanager
    async def counted(
        self, model: str, api: str, entrypoint: str, timeout_s: float | None = None
    ) -> AsyncIterator[None]:
        """Count a call and end it when its time is over.

        Args:
            model: The model asked for.
            api: `Predict`, `Classify` and so on.
            entrypoint: `REST` or `GRPC`.
            timeout_s: The client's own limit, if it is shorter.

        Raises:
            CallError: If its time is over.
        """
        begun = time.monotonic()
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
            self.metrics.count(model, api, entrypoint, code, time.monotonic() - begun)

    @contextlib.contextmanager
    def counting_refusals(self, entrypoint: str) -> Iterator[None]:
        """Count what is refused before it is known which model it is for.

        Args:
            entrypoint: `REST` or `GRPC`.
        """
        begun = time.monotonic()
        try:
            yield
        except CallError as error:
            self.metrics.count("", "", entrypoint, error.code, time.monotonic() - begun)
            raise

    @contextlib.contextmanager
    def holding_bytes(self, size: int = 0) -> Iterator[Callable[[int], None]]:
        """Account for the memory of a body as long as it is held.

        Args:
            size: What is held already.

        Yields:
            A function that takes how many bytes more are held.

        Raises:
            CallError: If all bodies together are too large; the function may raise it as well.
        """
        held = 0

        def hold(more: int) -> None:
            nonlocal held
            if self._held_bytes + more > MAX_LARGEST_BODIES * self.max_body_bytes:
                raise CallError("Too many large requests at once. Try again later.", "UNAVAILABLE")
            held += more
            self._change_held(more)

        try:
            hold(size)
            yield hold
        finally:
            self._change_held(-held)

    async def translate(self, function: Callable, *arguments):
        """Run what costs time in a thread, so that the event loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._translators, function, *arguments)

    async def run(
        self,
        served: ServedVersion,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Run a signature of a version.

        Args:
            served: The version, in use by the caller.
            signature_name: One of its signatures.
            inputs: An array for each input, of its dtype.
            outputs: The outputs wanted; none: all.

        Returns:
            An array for each output wanted.

        Raises:
            CallError: If inputs, outputs or shapes do not fit, the model refuses the values, or
                too many requests wait.
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

    def _change_held(self, change: int) -> None:
        self._held_bytes += change
        self.metrics.body_bytes.set(self._held_bytes)


def find_signature(served: ServedVersion, name: str) -> Signature:
    """Give the signature that predict is asked for.

    Raises:
        CallError: If the version has none of that name.
    """
    signatures = served.engine.signatures
    if name not in signatures:
        raise CallError(
            f'Serving signature name: "{name}" not found in signature def', "FAILED_PRECONDITION"
        )
    return signatures[name]


def _check_shape(name: str, shape: tuple[int, ...], info: TensorInfo) -> None:
    expected = info.shape
    if expected is not None and (
        len(shape) != len(expected)
        or any(want not in (None, got) for want, got in zip(expected, shape, strict=True))
    ):
        axes = ["?" if size is None else str(size) for size in expected]
        raise CallError(f"input {name}: expected shape [{','.join(axes)}], got {list(shape)}")
