"""One function over many items, in other processes of this machine.

An item whose process dies, as a damaged video can crash a decoder, or that needs too much time or
memory, does not stop the others and is reported by name. Independent of the function.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from jdfd_keras.options import LimitOptions

# One core each, so no threads; the memory of a frame is kept for the next (glibc, in bytes).
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
SECONDS_BETWEEN_CHECKS = 0.2  # of the limits
BYTES_PER_GB = 10**9
# Not with multiprocessing, which imports the script of the user again: one without the guard
# `if __name__ == "__main__"` would start the whole work in every process (Python 3.11).
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from jdfd_keras.io.workers import _serve; _serve(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class WorkerCrashed:
    """Result of an item whose process died twice; as text, a clause to follow the item's name."""

    cause: str  # such as "whose process died twice (SIGSEGV)"
    hint: str  # sentence that states what to try

    def __str__(self) -> str:
        return f"{self.cause}. {self.hint}"


@dataclass(frozen=True)
class LimitExceeded(WorkerCrashed):
    """Result of an item that needed more than a limit allows; it was tried once."""


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
    values = limits.max_seconds, limits.max_pixels, limits.max_faces_per_frame, limits.max_memory
    if not all(value >= 0 for value in values):  # NaN is not either
        raise ValueError(
            "Expected --max-seconds, --max-pixels, --max-faces-per-frame and --max-memory to be at "
            f"least 0; got {', '.join(map(str, values))}. Use 0 for no limit."
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
    crashed = []
    for item, result in _run(function, items, num_workers, limits):
        if isinstance(result, WorkerCrashed) and not isinstance(result, LimitExceeded):
            crashed.append(item)
        else:
            yield item, result
    if crashed:  # one by one: perhaps memory ran out because of the others
        yield from _run(function, crashed, 1, limits)


def _run(
    function: Callable, items: Iterable, num_workers: int, limits: LimitOptions | None
) -> Iterator[tuple[Any, Any]]:
    """Call a function on every item once."""
    items = iter(items)
    with contextlib.ExitStack() as stack:
        # What a process leaves in its temporary folder when it dies is deleted here.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jdfd-keras-"))
        workers = [_Worker(function, folder) for _ in range(num_workers)]
        for worker in workers:
            stack.callback(worker.stop)
        if limits:
            stack.enter_context(_enforce(limits, workers))
        for worker in workers:  # they start at the same time
            worker.take_next(items)
        for worker in workers:
            worker.send_item()
        while busy := [worker for worker in workers if worker.item is not _IDLE]:
            readable = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in readable:
                    yield worker.item, worker.receive()
                    worker.take_next(items)
                    worker.send_item()


@contextlib.contextmanager
def _enforce(limits: LimitOptions, workers: Sequence["_Worker"]) -> Iterator[None]:
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


_IDLE = object()  # the item of a worker without one


class _Worker:
    """A process that calls a function on one item at a time; another replaces one that died."""

    pipe: Connection
    process: subprocess.Popen | None = None

    def __init__(self, function: Callable, folder: str):
        self.function, self.folder = function, folder
        self.item: Any = _IDLE
        self._is_ready = False  # whether the process has imported the function
        self._lock = threading.Lock()  # of the following, which `enforce` uses in another thread
        self._since: float | None = None  # time at which the item was sent
        self._exceeded: LimitExceeded | None = None

    def take_next(self, items: Iterator) -> None:
        """Take the next item, if one is left, and start a process for it if there is none."""
        self.item = next(items, _IDLE)
        if self.item is not _IDLE and self.process is None:
            self._start_process()

    def send_item(self) -> None:
        """Send the item, if there is one, to the process as soon as that is ready."""
        if self.item is _IDLE:
            return
        if not self._is_ready:
            self._wait_until_ready()
        message = pickle.dumps(self.item)
        with self._lock:
            self._since = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send_bytes(message)

    def receive(self) -> Any:
        """Return the result of the item."""
        answer = self._receive_answer()
        with self._lock:
            self._since = None
            exceeded, self._exceeded = self._exceeded, None
        if exceeded:
            self.stop()
            return exceeded
        if answer is None:
            name = self._handle_exit()
            if name == signal.SIGKILL.name:
                return _describe_lack_of_memory(name)
            return WorkerCrashed(
                f"whose process died twice ({name})", "It may be damaged: save it again."
            )
        is_result, value = pickle.loads(answer)
        if is_result:
            return value
        error, text = value
        if isinstance(error, MemoryError):
            self.stop()
            return _describe_lack_of_memory("MemoryError")
        raise error from RuntimeError(f"in another process:\n{text}")

    def enforce(self, limits: LimitOptions) -> None:
        """Kill the process if its item needs more than a limit allows."""
        with self._lock, contextlib.suppress(psutil.Error):  # it may just have ended
            if not self.process or self._since is None or self._exceeded or self.pipe.poll():
                return
            if 0 < limits.max_seconds < time.monotonic() - self._since:
                self._exceeded = LimitExceeded(
                    f"whose analysis took more than {limits.max_seconds:g} s",
                    f"Try --max-seconds {2 * limits.max_seconds:g}, or 0 for no limit.",
                )
            elif limits.max_memory > 0:
                used = psutil.Process(self.process.pid).memory_info().rss
                if used > limits.max_memory * BYTES_PER_GB:
                    self._exceeded = LimitExceeded(
                        f"whose analysis needed more than {limits.max_memory:g} GB of memory",
                        f"Try --max-memory {2 * limits.max_memory:g}, or 0 for no limit.",
                    )
            if self._exceeded:
                self.process.kill()

    def stop(self) -> int:
        """Kill the process, if one runs; return its exit code."""
        if self.process is None:
            return 0
        with self.process:  # closes its input and waits for its end
            self.process.kill()  # no effect on one that has ended
        code = self.process.returncode
        self.pipe.close()
        self.process, self._is_ready = None, False
        return code

    def _start_process(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        command = [sys.executable, "-c", PROGRAM, str(other.fileno()), *map(str, sys.path)]
        # Blocked from the start: a Ctrl-C before _serve ignores it would print a traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with other:  # so that recv_bytes() raises EOFError once the process ends
                self.process = subprocess.Popen(
                    command,
                    env=os.environ | ENVIRONMENT | {"TMPDIR": self.folder},
                    stdin=subprocess.PIPE,  # closed when this process ends, even if it is killed
                    pass_fds=[other.fileno()],
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send_bytes(pickle.dumps(self.function))

    def _wait_until_ready(self) -> None:
        answer = self._receive_answer()
        if answer is None:
            problem = f"one that ended ({self._handle_exit()})"
        else:
            self._is_ready, value = pickle.loads(answer)
            problem = "" if self._is_ready else f"{type(value[0]).__name__}: {value[0]}"
        if problem:
            raise OSError(
                f"Expected a process that can start to work; got {problem}. Check the messages "
                "above, the installation of jdfd-keras and the memory of this machine."
            )

    def _receive_answer(self) -> bytes | None:
        """Return an answer of the process; None if it died."""
        with contextlib.suppress(EOFError, OSError):  # the latter if the answer was cut short
            return self.pipe.recv_bytes()
        return None

    def _handle_exit(self) -> str:
        """Return how the process ended: the name of a signal, or the exit code."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed the pipe only
            self.process.wait(timeout=10)
        code = self.stop()
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"


def _describe_lack_of_memory(cause: str) -> WorkerCrashed:
    return WorkerCrashed(
        f"whose process died twice ({cause}), perhaps because memory ran out",
        "Try a smaller copy, or a machine with more memory.",
    )


def _serve(file_descriptor: int) -> None:
    """Serve items in a separate process, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what to stop
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pipe = Connection(file_descriptor)

    def answer(call: Callable[[bytes], Any]) -> Any:
        """Send the result of a call, or its exception; return the result."""
        message, result = pipe.recv_bytes(), None
        try:
            result = call(message)
            text = pickle.dumps((True, result))
        except Exception as error:  # noqa: BLE001, raised again by the parent
            text = pickle.dumps((False, (_make_picklable(error), traceback.format_exc())))
        pipe.send_bytes(text)
        return result

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = answer(pickle.loads)
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(1)
        while True:
            answer(lambda message: function(pickle.loads(message)))


def _exit_with_parent() -> None:
    """Exit even within an item, so that nothing is written during a new run."""
    os.read(0, 1)  # returns when the parent has ended
    os._exit(1)


def _make_picklable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, an error class may raise anything when it is pickled
        if isinstance(error, MemoryError):
            return MemoryError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
