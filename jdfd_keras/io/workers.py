"""One function over many items, in several processes of this machine.

An item that crashes its process, as a damaged video can crash a decoder, does not stop the others
and is reported by name. Independent of the function.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# Each process has one core; the threads of these libraries would compete for the other cores.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class WorkerCrashed:
    """Result of an item that crashed its process twice."""

    signal: str  # name of the last one, such as SIGSEGV


def count_workers(requested: int, num_items: int) -> int:
    """Compute the number of processes: at most one per item; by default (0) one per core.

    Example:
        >>> count_workers(4, num_items=2)
        2
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(requested or cores or 1, max(1, num_items))


def run_all(
    function: Callable[[Any], Any], items: Iterable, num_workers: int
) -> Iterator[tuple[Any, Any]]:
    """Call a function on every item, in several processes of this machine.

    Args:
        function: Function of one item. It, the items and the results can be pickled.
        items: Items, named by `str` in errors; the next one is read when a process is free.
        num_workers: Number of processes besides this one. With 0 this process does the work, and
            an item that crashes it ends the run.

    Yields:
        Item and result, in order of completion. The result is a WorkerCrashed if the item crashed
        two processes by a fault such as SIGSEGV.

    Raises:
        OSError: If a process was killed or exited, for example because memory ran out.
        BaseException: Any exception of the function; the other processes are stopped.

    Example:
        >>> sorted(run_all(abs, [-1, 2], num_workers=2))
        [(-1, 1), (2, 2)]
    """
    if num_workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    items = iter(items)
    workers = [_Worker(function) for _ in range(num_workers)]
    try:
        for worker in workers:
            worker.start_next(items)
        while busy := [worker for worker in workers if worker.item is not _IDLE]:
            readable = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in readable:
                    item, result = worker.item, worker.receive()
                    if result is not _RETRYING:
                        yield item, result
                        worker.start_next(items)
    finally:
        for worker in workers:
            worker.stop()


_IDLE = object()  # the item of a worker without one
_RETRYING = object()  # the result of an item that a new process tries again


class _Worker:
    """A process that calls a function on one item at a time; another replaces a crashed one."""

    def __init__(self, function: Callable):
        self.function = function
        self._start_process()

    def start_next(self, items: Iterator) -> None:
        """Send the next item to the process, if one is left."""
        self.item, self.tries = next(items, _IDLE), 0
        if self.item is not _IDLE:
            self._send()

    def receive(self) -> Any:
        """Return the result, or _RETRYING if the process crashed and a new one has the item."""
        try:
            is_result, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._handle_exit()
        if not is_result:
            error, text = value
            raise error from RuntimeError(f"in another process:\n{text}")
        return value

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        with contextlib.suppress(OSError):  # the garbage collector may have closed it before
            self.pipe.close()

    def _send(self) -> None:
        self.tries += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send(self.item)

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        # Blocked from the start: a Ctrl-C before _serve ignores it would print a traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        other.close()  # so that recv() raises EOFError once the process ends
        self.pipe.send(self.function)

    def _handle_exit(self) -> Any:
        self.process.join()
        code = self.process.exitcode or 0
        if -code not in {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}:
            cause = f"exit code {code}. Check its own message above."
            if code < 0:
                cause = (
                    f"signal {-code}. The machine is perhaps out of memory: try fewer --workers."
                )
            raise OSError(
                f"Expected the process that works on {self.item} to finish; got {cause} Finished "
                "items are kept."
            )
        self.pipe.close()
        self._start_process()
        if self.tries == 2:
            return WorkerCrashed(signal.Signals(-code).name)
        self._send()
        return _RETRYING


def _serve(pipe: Connection) -> None:
    """Serve items in a separate process, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what to stop
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = pipe.recv()
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(1)
        while True:
            item = pipe.recv()
            try:
                answer = (True, function(item))
            except Exception as error:  # noqa: BLE001, raised again by the parent
                answer = (False, (_make_picklable(error), traceback.format_exc()))
            pipe.send(answer)


def _exit_with_parent() -> None:
    """Exit even within an item, so that nothing is written during a new run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _make_picklable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, an error class may raise anything when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
