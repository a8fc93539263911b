"""Runs of a model that serve several requests at once.

Takes the arrays of one request; gives its outputs. Requests that wait for the same signature of
the same version are put together, whichever transport they came by, run in a thread and taken
apart again, so that each gets its own rows or its own error. Belongs to one event loop; knows
nothing of HTTP, gRPC or JSON.
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
from jdfd_keras.serving.server.prometheus import Metrics
from jdfd_keras.serving.server.repository import ServedVersion

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class _Request:
    served: ServedVersion
    signature: str
    outputs: tuple[str, ...]
    inputs: Arrays
    rows: int
    key: object  # of those that may run together
    arrived: float
    answer: asyncio.Future


class Batcher:
    """The queue of requests that wait for a model, and the threads that run it."""

    def __init__(
        self,
        *,
        max_batch_size: int,
        batch_timeout_s: float,
        max_queue: int,
        metrics: Metrics,
        # One run keeps all cores busy. Eight clients with a face each, Xception at 299 px on two
        # cores: 10.1 faces/s and p99 0.84 s with one thread, 9.9 faces/s and 1.3 s with two.
        threads: int = 1,
    ):
        """Set limits.

        Args:
            max_batch_size: Rows that run at once; a request of more is run in parts.
            batch_timeout_s: How long a batch that is not full waits for more.
            max_queue: Requests that may wait.
            metrics: Where batches are counted.
            threads: Batches that run at once.
        """
        self._max_batch_size = max_batch_size
        self._batch_timeout_s = batch_timeout_s
        self._max_queue = max_queue
        self._metrics = metrics
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, "model")
        self._waiting: list[_Request] = []
        self._running: set[asyncio.Task] = set()
        self._alarm: asyncio.TimerHandle | None = None
        # Signatures whose outputs have proved not to have a row for each of their inputs.
        self._uneven: weakref.WeakKeyDictionary[ServedVersion, set[str]] = (
            weakref.WeakKeyDictionary()
        )

    async def run(
        self, served: ServedVersion, signature: str, inputs: Arrays, outputs: Sequence[str] = ()
    ) -> Arrays:
        """Run one request, together with others where that changes nothing.

        A caller who is cancelled takes the request out of the queue.

        Args:
            served: The version, in use by the caller.
            signature: One of its signatures.
            inputs: An array for each of its inputs, of its dtypes and shapes.
            outputs: The outputs wanted; none: all.

        Returns:
            An array for each output wanted.

        Raises:
            CallError: If the model refuses the values, or too many requests wait.
        """
        outputs = tuple(sorted(set(outputs)))
        rows = self._count_rows(served, signature, inputs)
        if rows is None or rows <= self._max_batch_size:
            return await self._enqueue(served, signature, inputs, outputs, rows)
        parts = []
        for start in range(0, rows, self._max_batch_size):
            stop = min(start + self._max_batch_size, rows)
            part = {name: array[start:stop] for name, array in inputs.items()}
            parts.append(await self._enqueue(served, signature, part, outputs, stop - start))
            if not _has_rows(parts[-1], stop - start):
                self._uneven.setdefault(served, set()).add(signature)
                return await self._enqueue(served, signature, inputs, outputs, None)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def close(self, timeout_s: float = 30.0) -> None:
        """Wait for the batches that run, but not for ever, and end the threads."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        self._executor.shutdown(wait=False)

    def _count_rows(self, served: ServedVersion, name: str, inputs: Arrays) -> int | None:
        """Count the rows of a request; None where it must run alone and whole."""
        if not _may_be_batched(served.engine.signatures[name]) or name in self._uneven.get(
            served, ()
        ):
            return None
        rows = {len(array) for array in inputs.values()}
        return rows.pop() if len(rows) == 1 else None

    async def _enqueue(self, served, signature, inputs, outputs, rows: int | None) -> Arrays:
        if len(self._waiting) >= self._max_queue:
            raise CallError(
                f"{len(self._waiting)} requests wait already, the most that may. Try again later.",
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
            # The callers may be gone before the model is done; their hold on the engine with them.
            batch[0].served.hold()
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._running.add(task)
            task.add_done_callback(self._end_batch)
        self._metrics.queue_length.set(len(self._waiting))

    def _end_batch(self, task: asyncio.Task) -> None:
        self._running.discard(task)
        self._start_batches()
        task.result()

    def _take_batch(self) -> list[_Request]:
        """Take the requests that run next: those of the oldest that is due and their like."""
        now = asyncio.get_running_loop().time()
        batches: dict[object, list[_Request]] = {}
        rows: dict[object, int] = {}
        full = set()
        for request in self._waiting:
            taken = rows.get(request.key, 0)
            if request.key in full or (taken and taken + request.rows > self._max_batch_size):
                full.add(request.key)  # none overtakes another of its kind
                continue
            batches.setdefault(request.key, []).append(request)
            rows[request.key] = taken + request.rows
        for key, batch in batches.items():
            due = batch[0].arrived + self._batch_timeout_s
            if key in full or rows[key] in (0, self._max_batch_size) or due <= now:
                self._waiting = [request for request in self._waiting if request not in batch]
                return batch
        if batches:
            self._set_alarm(min(b[0].arrived for b in batches.values()) + self._batch_timeout_s)
        return []

    def _set_alarm(self, due: float) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._start_batches)

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
                if not request.answer.done():  # what failed above is told by the task
                    request.answer.set_exception(CallError("The model failed", "INTERNAL"))

    def _answer(self, batch: list[_Request]) -> list[Arrays | CallError]:
        """Run a batch; where it fails, its halves, until those at fault stand alone."""
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
            self._uneven.setdefault(first.served, set()).add(first.signature)
            return [answer for request in batch for answer in self._answer([request])]
        ends = list(itertools.accumulate(request.rows for request in batch))
        return [
            {name: array[start:end] for name, array in outputs.items()}
            for start, end in itertools.pairwise([0, *ends])
        ]


def _may_be_batched(signature: Signature) -> bool:
    """Tell whether every input and output has a first axis of any length."""
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return bool(signature.inputs) and all(info.shape and info.shape[0] is None for info in infos)


def _has_rows(outputs: Arrays, rows: int) -> bool:
    return all(len(array) == rows for array in outputs.values())


def _call(request: _Request, inputs: Arrays) -> Arrays:
    try:
        return request.served.engine.run(request.signature, inputs, request.outputs)
    except ValueError as error:  # the session's own check of shapes
        raise CallError(str(error)) from error
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except (MemoryError, RuntimeError, TypeError) as error:
        raise CallError(f"The model failed: {error!r}", "INTERNAL") from error
