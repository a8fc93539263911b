"""One function over many items, in other processes of this machine.

An item whose process dies, as a damaged video can crash a decoder, or that needs too much time or
memory, does not stop the others and is reported by name. Independent of the function.
"""

import collections
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from jdfd_keras.io.console import Progress
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.io.worker_process import IDLE, LimitExceeded, Part, Worker, WorkerCrashed
from jdfd_keras.options import LimitOptions

SECONDS_BETWEEN_CHECKS = 0.2  # of the limits
MAX_WAKES = 4096  # read at once


def count_workers(requested: int, num_items: int) -> int:
    """Compute the number of processes: at most one per item; by default (0) one per core.

    Example:
        >>> count_workers(4, num_items=2)
        2
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(requested or cores or 1, max(1, num_items))


def check_limits(limits: LimitOptions) -> None:
    """Check that no limit is negative.

    Example:
        >>> check_limits(LimitOptions(max_seconds=-1))
        Traceback (most recent call last):
            ...
        ValueError: Expected --max-seconds, ... to be at least 0; got -1, ...
    """
    names = "max_seconds", "max_pixels", "max_faces_per_frame", "max_duration_s", "max_memory"
    values = [getattr(limits, name) for name in names]
    if not all(value >= 0 for value in values):  # NaN is not either
        *flags, last = (f"--{name.replace('_', '-')}" for name in names)
        raise ValueError(
            f"Expected {', '.join(flags)} and {last} to be at least 0; got "
            f"{', '.join(map(str, values))}. Use 0 for no limit."
        )


def run_all(
    function: Callable[[Any], Any],
    items: Iterable,
    num_workers: int,
    limits: LimitOptions | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Call a function on every item, in other processes of this machine.

    Args:
        function: Function of one item. It, the items and the results can be pickled, and it is in
            a module that other processes can import.
        items: Items, named by `str` in errors; the next one is read when a process is free.
        num_workers: Number of processes besides this one; at least 1.
        limits: Time and memory of a process for one item, without its start; none if not given.

    Yields:
        Item and result, in order of completion. The result is a WorkerCrashed if two processes died
        of the item, the second one alone, for any cause, including a MemoryError; and a
        LimitExceeded if it needed more than a limit allows.

    Raises:
        OSError: If no process can be started.
        BaseException: Any other exception of the function; the other processes are stopped.

    Example:
        >>> sorted(run_all(abs, [-1, 2], num_workers=2))
        [(-1, 1), (2, 2)]
    """
    with Workers(function, num_workers, limits) as workers:
        workers.send(items)
        yield from workers.receive()


def run_with_progress(
    function: Callable,
    item: Any,
    description: str,
    limits: LimitOptions | None = None,
) -> Any:
    """Call a function on one item in another process, and show its progress in frames.

    Args:
        function: Function as for `Workers` with `has_parts`; a part is the numbers of frames that
            are done, and in all.
        item: The item.
        description: The task, in a few words.
        limits: As for `run_all`.

    Returns:
        The result, as of `run_all`.

    Example:
        >>> run_with_progress(str.format, "a.mp4", "drawing faces")  # with the argument `send=`
        'a.mp4'
    """
    progress = None
    with Workers(function, 1, limits, has_parts=True) as workers:
        workers.send([item])
        try:
            for _, result in workers.receive():
                if not isinstance(result, Part):
                    if progress:
                        progress.show(progress.total)
                    return result
                done, total = result.value
                progress = progress or Progress(description, total, "frames")
                progress.show(done)
        finally:
            if progress:
                progress.close()


class Workers:
    """Processes that call one function, each on one item at a time; a context manager.

    They start when the first items are sent, or before that with `start`, and end with the block.

    Args:
        function: As for `run_all`.
        num_workers: As for `run_all`.
        limits: As for `run_all`.
        has_parts: Whether the function has an argument `send`, and calls that now and then with a
            function that returns a part of its result. If the caller of `receive` waits for a part,
            it is computed and sent; else nothing happens, so that no process waits for the caller.

    Example:
        >>> with Workers(abs, num_workers=2) as workers:
        ...     workers.send([-1, 2])
        ...     sorted(workers.receive())
        [(-1, 1), (2, 2)]
    """

    def __init__(
        self,
        function: Callable,
        num_workers: int,
        limits: LimitOptions | None = None,
        *,
        has_parts: bool = False,
    ):
        self._function, self._has_parts = function, has_parts
        self._num_workers, self._limits = num_workers, limits
        self._workers: list[Worker] = []
        self._items: Iterator = iter(())
        self._stack = contextlib.ExitStack()
        self._wake_lock = threading.Lock()  # of the following, which may be used by any thread
        self._wake_pipe = (-1, -1)  # file descriptors to read and to write; -1 if not open
        self._has_ended = False

    def __enter__(self) -> "Workers":
        # What a process leaves in its temporary folder when it dies is deleted at the end.
        directory = TemporaryFolder()
        folder = self._stack.enter_context(directory)
        for _ in range(self._num_workers):
            self._workers.append(Worker(self._function, folder, self._has_parts))
            self._stack.callback(self._workers[-1].stop)
        if self._limits:
            self._stack.enter_context(_enforce(self._limits, self._workers))
        self._wake_pipe = os.pipe()
        os.set_blocking(self._wake_pipe[1], False)
        self._stack.callback(self._close_pipe)
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start all processes; they import the function while the caller does other work."""
        for worker in self._workers:
            worker.start()

    def send(self, items: Iterable) -> None:
        """Give each process its first item, once it has started.

        Raises:
            OSError: If a process cannot be started.
        """
        self._items = iter(items)
        for worker in self._workers:  # they start at the same time
            worker.take_next(self._items)
        for worker in self._workers:
            worker.send_item()

    def receive(self) -> Iterator[tuple[Any, Any]]:
        """Yield items and results as `run_all`, and before a result its parts, each a Part.

        The parts of an item begin anew if its process died.
        """
        crashed = []
        for item, result in self._run():
            if isinstance(result, WorkerCrashed) and not isinstance(result, LimitExceeded):
                crashed.append(item)
            else:
                yield item, result
        if crashed:  # one by one: perhaps memory ran out because of the others
            for worker in self._workers:
                worker.stop()
            del self._workers[1:]
            self.send(crashed)
            yield from self._run()

    def serve(self, take: Callable[[], Any]) -> Iterator[tuple[Any, Any]]:
        """Yield items and results as `receive`, of items that come at any time, until `end`.

        An item whose process crashed is tried again when no other runs; until then no new one is
        taken. An exception of the function is the result of its item.

        Args:
            take: Returns the next item, or at once IDLE if there is none now. It is called when a
                process is free, and after IDLE once `wake` is called, or another item is done.

        Raises:
            OSError: If no process can be started.
        """
        crashed = collections.deque()
        is_second, may_have_items = False, True
        while not self._has_ended:
            if crashed and all(worker.item is IDLE for worker in self._workers):
                is_second = True
                self._workers[0].take_next(iter([crashed.popleft()]))
                self._workers[0].send_item()
            for worker in self._workers:
                if worker.item is IDLE and may_have_items and not (crashed or is_second):
                    worker.take_next(iter([take()]))
                    worker.send_item()
                    may_have_items = worker.item is not IDLE
            busy = [worker for worker in self._workers if worker.item is not IDLE]
            if self._has_parts:
                for worker in busy:
                    worker.request_part()
            readable = wait([self._wake_pipe[0], *(worker.pipe for worker in busy)])
            if self._wake_pipe[0] in readable:
                os.read(self._wake_pipe[0], MAX_WAKES)
                may_have_items = True
            for worker in busy:
                if worker.pipe not in readable:
                    continue
                item = worker.item
                try:
                    result = worker.receive()
                except Exception as error:  # noqa: BLE001, of the function: any
                    result = error
                if not isinstance(result, Part):
                    worker.item, may_have_items = IDLE, True
                    is_crash = isinstance(result, WorkerCrashed)
                    if is_crash and not isinstance(result, LimitExceeded) and not is_second:
                        crashed.append(item)
                        continue
                    is_second = False
                yield item, result

    def wake(self) -> None:
        """Let `serve` take items again; from any thread, also after the end."""
        # A full pipe wakes it anyway.
        with self._wake_lock, contextlib.suppress(BlockingIOError):
            if self._wake_pipe[1] >= 0:
                os.write(self._wake_pipe[1], b"\0")

    def end(self) -> None:
        """Let `serve` return soon, from any thread; items that run have no result."""
        self._has_ended = True
        self.wake()

    def _close_pipe(self) -> None:
        with self._wake_lock:
            for end in self._wake_pipe:
                os.close(end)
            self._wake_pipe = (-1, -1)

    def _run(self) -> Iterator[tuple[Any, Any]]:
        """Yield parts and results until no item is left; every item is tried once."""
        while busy := [worker for worker in self._workers if worker.item is not IDLE]:
            if self._has_parts:
                for worker in busy:
                    worker.request_part()
            readable = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in readable:
                    result = worker.receive()
                    yield worker.item, result
                    if not isinstance(result, Part):
                        worker.take_next(self._items)
                        worker.send_item()


@contextlib.contextmanager
def _enforce(limits: LimitOptions, workers: Sequence[Worker]) -> Iterator[None]:
    """Check the limits in a thread, because the caller may do other work between two results."""
    done = threading.Event()

    def check() -> None:
        while not done.wait(SECONDS_BETWEEN_CHECKS):
            for worker in workers:
                worker.enforce(limits)

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
