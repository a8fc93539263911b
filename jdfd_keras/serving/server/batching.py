"""Dynamic batching: one run of a model for several waiting requests.

Takes the arrays of one request; returns its outputs. Waiting requests for the same signature of
the same version, of both transports, are concatenated, run in a thread, and split again, so that
each receives its own rows or its own error. Belongs to one event loop; independent of HTTP, gRPC
and JSON.
"""

import asyncio
import itertools
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from jdfd_keras.client.signatures import Signature
from jdfd_keras.serving.server.call_errors import CallError, from_tensorflow
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import ServedVersion

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class _Request:
    served: ServedVersion
    signature: str
    outputs: tuple[str, ...]
    inputs: Arrays
    rows: int
    key: object  # requests with equal keys may share a batch
    arrived: float
    answer: asyncio.Future


class Batcher:
    """The queue of waiting requests, and the threads that run the model."""

    def __init__(
        self,
        *,
        max_batch_size: int,
        batch_timeout_s: float,
        max_queue: int,
        metrics: ServerMetrics,
        # One batch keeps all cores busy. Eight clients with one face each, Xception at 299 px, two
        # cores: 10.1 faces/s and p99 0.84 s with one thread, 9.9 faces/s and 1.3 s with two.
        threads: int = 1,
    ):
        """Create an empty queue.

        Args:
            max_batch_size: Largest number of rows per batch; a larger request is split.
            batch_timeout_s: How long an incomplete batch waits for more requests, in seconds.
            max_queue: Largest number of waiting requests.
            metrics: The metrics to update.
            threads: Number of batches that run concurrently.
        """
        self._max_batch_size = max_batch_size
        self._batch_timeout_s = batch_timeout_s
        self._max_queue = max_queue
        self._metrics = metrics
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, "model")
        self._waiting: list[_Request] = []
        self._running: set[asyncio.Task] = set()
        self._timer: asyncio.TimerHandle | None = None
        # Signatures that have returned outputs without one row per input row.
        self._unbatchable: weakref.WeakKeyDictionary[ServedVersion, set[str]] = (
            weakref.WeakKeyDictionary()
        )

    async def run(
        self, served: ServedVersion, signature: str, inputs: Arrays, outputs: Sequence[str] = ()
    ) -> Arrays:
        """Run one request, in a batch with others if the result is the same.

        If the caller is cancelled, the request leaves the queue.

        Args:
            served: The version, acquired by the caller.
            signature: One of its signatures.
            inputs: One array per input, of its dtype and shape.
            outputs: Names of the outputs to return; all if empty.

        Returns:
            One array per output.

        Raises:
            CallError: If the model rejects the values or the queue is full.
        """
        outputs = tuple(sorted(set(outputs)))
        rows = self._count_rows(served, signature, inputs)
        if rows is None or rows <= self._max_batch_size:
            return await self._enqueue(served, signature, inputs, outputs, rows)
        chunks = []
        for start in range(0, rows, self._max_batch_size):
            stop = min(start + self._max_batch_size, rows)
            chunk = {name: array[start:stop] for name, array in inputs.items()}
            chunks.append(await self._enqueue(served, signature, chunk, outputs, stop - start))
            if not _has_rows(chunks[-1], stop - start):
                self._unbatchable.setdefault(served, set()).add(signature)
                return await self._enqueue(served, signature, inputs, outputs, None)
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    async def close(self, timeout_s: float = 30.0) -> None:
        """Wait for running batches up to a timeout in seconds, then end the threads."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        self._executor.shutdown(wait=False)

    def _count_rows(self, served: ServedVersion, name: str, inputs: Arrays) -> int | None:
        """Count the rows of a request; None if it must run in a separate batch, unsplit."""
        if not _is_batchable(served.engine.signatures[name]) or name in self._unbatchable.get(
            served, ()
        ):
            return None
        rows = {len(array) for array in inputs.values()}
        return rows.pop() if len(rows) == 1 else None

    async def _enqueue(self, served, signature, inputs, outputs, rows: int | None) -> Arrays:
        if len(self._waiting) >= self._max_queue:
            raise CallError(
                f"{len(self._waiting)} requests are waiting already, the limit. Try again later.",
                "UNAVAILABLE",
            )
        loop = asyncio.get_running_loop()
        shapes = [(name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items())]
        key = object() if rows is None else (served, signature, outputs, tuple(shapes))
        request = _Request(
            served, signature, outputs, inputs, rows or 0, key, loop.time(), loop.create_future()
        )
        self._waiting.append(request)
        self._metrics.queue_length.set(len(self._waiting))
        self._start_batches()
        try:
            return await request.answer
        finally:
            if request in self._waiting:  # the caller was cancelled
                self._waiting.remove(request)
                self._metrics.queue_length.set(len(self._waiting))

    def _start_batches(self) -> None:
        while len(self._running) < self._threads and (batch := self._take_batch()):
            # The callers may release the engine before the model finishes.
            batch[0].served.acquire()
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._running.add(task)
            task.add_done_callback(self._end_batch)
        self._metrics.queue_length.set(len(self._waiting))

    def _end_batch(self, task: asyncio.Task) -> None:
        self._running.discard(task)
        self._start_batches()
        task.result()

    def _take_batch(self) -> list[_Request]:
        """Remove the next batch from the queue: the oldest that is due."""
        now = asyncio.get_running_loop().time()
        batches: dict[object, list[_Request]] = {}
        rows: dict[object, int] = {}
        full = set()
        for request in self._waiting:
            count = rows.get(request.key, 0)
            if request.key in full or (count and count + request.rows > self._max_batch_size):
                full.add(request.key)  # requests of one key keep their order
                continue
            batches.setdefault(request.key, []).append(request)
            rows[request.key] = count + request.rows
        for key, batch in batches.items():
            due = batch[0].arrived + self._batch_timeout_s
            if key in full or rows[key] in (0, self._max_batch_size) or due <= now:
                self._waiting = [request for request in self._waiting if request not in batch]
                return batch
        if batches:
            self._set_timer(min(b[0].arrived for b in batches.values()) + self._batch_timeout_s)
        return []

    def _set_timer(self, due: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._start_batches)

    async def _run_batch(self, batch: list[_Request]) -> None:
        loop = asyncio.get_running_loop()
        self._metrics.batch_rows.observe(max(1, sum(request.rows for request in batch)))
        try:
            answers = await loop.run_in_executor(self._executor, self._answer, batch)
            for request, answer in zip(batch, answers, strict=True):
                if request.answer.done():  # the caller was cancelled
                    continue
                if isinstance(answer, CallError):
                    request.answer.set_exception(answer)
                else:
                    request.answer.set_result(answer)
        finally:
            batch[0].served.release()
            for request in batch:
                if not request.answer.done():  # the task itself raises the cause
                    request.answer.set_exception(CallError("The model failed", "INTERNAL"))

    def _answer(self, batch: list[_Request]) -> list[Arrays | CallError]:
        """Run a batch; if it fails, run its halves, until only invalid requests fail."""
        first = batch[0]
        if len(batch) == 1:
            try:
                return [_call(first, first.inputs)]
            except CallError as error:
                return [error]
        inputs = {
            name: np.concatenate([request.inputs[name] for request in batch])
            for name in first.inputs
        }
        try:
            outputs = _call(first, inputs)
        except CallError:
            middle = len(batch) // 2
            return self._answer(batch[:middle]) + self._answer(batch[middle:])
        if not _has_rows(outputs, sum(request.rows for request in batch)):
            self._unbatchable.setdefault(first.served, set()).add(first.signature)
            return [answer for request in batch for answer in self._answer([request])]
        ends = list(itertools.accumulate(request.rows for request in batch))
        return [
            {name: array[start:end] for name, array in outputs.items()}
            for start, end in itertools.pairwise([0, *ends])
        ]


def _is_batchable(signature: Signature) -> bool:
    """Check that every input and output has a variable first axis."""
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return bool(signature.inputs) and all(info.shape and info.shape[0] is None for info in infos)


def _has_rows(outputs: Arrays, rows: int) -> bool:
    return all(len(array) == rows for array in outputs.values())


def _call(request: _Request, inputs: Arrays) -> Arrays:
    try:
        return request.served.engine.run(request.signature, inputs, request.outputs)
    except ValueError as error:  # the session checks shapes itself
        raise CallError(str(error)) from error
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except (MemoryError, RuntimeError, TypeError) as error:
        raise CallError(f"The model failed: {error!r}", "INTERNAL") from error
