"""One function over many items, in several processes.

Takes a function that can be pickled; gives its results as they come. A process that dies, as a
damaged video can make a decoder do, costs its own item alone, and the item is known.
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

# Each process has one core to itself; a library's own threads would take those of the others.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that worked on an item was ended by a signal, twice."""

    signal: str


def run_all(
    function: Callable, items: Iterable, num_workers: int, *, name: Callable[[object], str] = str
) -> Iterator[tuple[object, object]]:
    """Call a function on every item.

    Args:
        function: Can be pickled, as can items and results.
        items: Taken one by one, as workers are free.
        num_workers: Processes besides this one; with 0 all is done in this one, and an item that
            ends it ends all.
        name: What an item is called in an error.

    Yields:
        Item and result, in the order in which they are done. The result is a Died where the
        item ended its process with a fault such as SIGSEGV, and a new one too.

    Raises:
        OSError: If a process was killed, as a machine that is out of memory does.
        BaseException: What the function raises; the other processes are stopped.
    """
    if num_workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    items = iter(items)
    workers = [_Worker(function, name) for _ in range(num_workers)]
    try:
        for worker in workers:
            worker.give(items)
        while busy := {worker.pipe: worker for worker in workers if worker.is_busy}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                item = worker.item
                result = worker.take()
                if result is _GONE:  # a new process has the item
                    continue
                yield item, result
                worker.give(items)
    finally:
        for worker in workers:
            worker.stop()


def call_apart(function: Callable, item):
    """Call a function on one item in another process, which is kept for the thread's next call.

    Args:
        function: As for `run_all`; always an equal one in one thread.
        item: What it takes.

    Returns:
        The result, or a Died.

    Raises:
        OSError: If the process was killed.
        BaseException: What the function raises.
    """
    if getattr(_OWN, "worker", None) not in _KEPT or _OWN.worker.function != function:
        _OWN.worker = _Worker(function, str)
        _KEPT.append(_OWN.worker)
    _OWN.worker.give(iter([item]))
    while (result := _OWN.worker.take()) is _GONE:
        pass
    return result


def stop_apart() -> None:
    """End the processes that `call_apart` keeps in this one."""
    while _KEPT:
        _KEPT.pop().stop()


_OWN = threading.local()
_KEPT: list["_Worker"] = []
_GONE = object()
_NOTHING = object()


class _Worker:
    """A process, and the item that it has."""

    def __init__(self, function: Callable, name: Callable[[object], str]):
        self.function, self.name = function, name
        self.item = _NOTHING
        self._start()

    @property
    def is_busy(self) -> bool:
        return self.item is not _NOTHING

    def give(self, items: Iterator) -> None:
        """Hand over the next item, if there is one."""
        self.item = next(items, _NOTHING)
        self.tries = 1
        if self.is_busy:
            self._send()

    def take(self):
        """Take the result, or _GONE where the process died and a new one tries again."""
        try:
            is_result, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self._see_to_death(-self.process.exitcode)
        if not is_result:
            error, text = value
            raise error from RuntimeError(f"in another process:\n{text}")
        return value

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()  # so that the end of the process is the end of the pipe
        self.pipe.send(self.function)

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # take() finds that
            self.pipe.send(self.item)

    def _see_to_death(self, number: int):
        faults = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
        if number not in faults:
            cause, advice = f"exit code {-number}", "Its own message stands above."
            if number > 0:
                cause = f"signal {number}"
                advice = "The machine is perhaps out of memory: try fewer --workers."
            raise OSError(
                f"Expected the process that works on {self.name(self.item)} to finish; got "
                f"{cause}. {advice} What is done is kept."
            )
        self.pipe.close()
        self._start()
        if self.tries == 2:
            return Died(signal.Signals(number).name)
        self.tries += 1
        self._send()
        return _GONE


def _serve(pipe: Connection) -> None:
    """Work in a process of its own, until the other end of the pipe is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops what is to be stopped
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        function = pipe.recv()
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(1)
        while True:
            item = pipe.recv()
            try:
                answer = (True, function(item))
            except Exception as error:  # noqa: BLE001, raised again by the parent
                answer = (False, (_make_portable(error), traceback.format_exc()))
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    """End in the middle of an item too, so that nothing is written beside a new run."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _make_portable(error: Exception) -> Exception:
    """Give the error, or its words where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, whatever a class of errors does when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
