"""One process that calls a function on one item at a time, and the program that it runs.

Messages are pickles: items and requests for parts one way, parts, results and errors the other.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from jdfd_keras.options import LimitOptions

# One core each, so no threads; the memory of a frame is kept for the next (glibc, in bytes).
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
BYTES_PER_GB = 10**9
# Messages: of the parent, one without content among the items; of a worker, the kind of an answer.
PART_REQUEST = b""
PART, RESULT, ERROR = "part", "result", "error"
OUT_OF_MEMORY, TOO_LONG = "out_of_memory", "too_long"  # codes of a crash
# Not with multiprocessing, which imports the script of the user again: one without the guard
# `if __name__ == "__main__"` would start the whole work in every process (Python 3.11).
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from jdfd_keras.io.worker_process import _serve; _serve(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class Part:
    """Part of a result that a function sent while it runs."""

    value: Any


@dataclass(frozen=True)
class WorkerCrashed:
    """Result of an item whose process died twice; as text, a clause to follow the item's name."""

    cause: str  # such as "whose process died twice (SIGSEGV)"
    hint: str  # sentence that states what to try
    code: str = "crashed"  # or `out_of_memory`, `too_long`

    def __str__(self) -> str:
        return f"{self.cause}. {self.hint}"


@dataclass(frozen=True)
class LimitExceeded(WorkerCrashed):
    """Result of an item that needed more than a limit allows; it was tried once."""


IDLE = object()  # the item of a worker without one


class Worker:
    """A process that calls a function on one item at a time; another replaces one that died."""

    pipe: Connection
    process: subprocess.Popen | None = None

    def __init__(self, function: Callable, folder: str, has_parts: bool):
        self.function, self.folder, self.has_parts = function, folder, has_parts
        self.item: Any = IDLE
        self._has_requested = False  # a part of the item
        self._is_ready = False  # whether the process has imported the function
        self._lock = threading.Lock()  # of the following, which `enforce` uses in another thread
        self._since: float | None = None  # time at which the item was sent
        self._exceeded: LimitExceeded | None = None

    def take_next(self, items: Iterator) -> None:
        """Take the next item, if one is left, and start a process for it if there is none."""
        self.item = next(items, IDLE)
        if self.item is not IDLE:
            self.start()

    def send_item(self) -> None:
        """Send the item, if there is one, to the process as soon as that is ready."""
        if self.item is IDLE:
            return
        if not self._is_ready:
            self._wait_until_ready()
        message, self._has_requested = pickle.dumps(self.item), False
        with self._lock:
            self._since = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send_bytes(message)

    def request_part(self) -> None:
        """Request a part of the result, unless one is requested already."""
        if not self._has_requested:
            self._has_requested = True
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # as above
                self.pipe.send_bytes(PART_REQUEST)

    def receive(self) -> Any:
        """Return the result of the item, or a part of it."""
        answer = self._receive_answer()
        kind: str = ""
        value: Any = None
        if answer is not None:
            kind, value = pickle.loads(answer)
        if kind == PART:
            self._has_requested = False
            return Part(value)
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
        if kind == RESULT:
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
                    TOO_LONG,
                )
            elif limits.max_memory > 0:
                used = psutil.Process(self.process.pid).memory_info().rss
                if used > limits.max_memory * BYTES_PER_GB:
                    self._exceeded = LimitExceeded(
                        f"whose analysis needed more than {limits.max_memory:g} GB of memory",
                        f"Try --max-memory {2 * limits.max_memory:g}, or 0 for no limit.",
                        OUT_OF_MEMORY,
                    )
            if self._exceeded:
                self._kill()

    def stop(self) -> int:
        """Kill the process, if one runs; return its exit code."""
        if self.process is None:
            return 0
        with self.process:  # closes its input and waits for its end
            self._kill()
        code = self.process.returncode
        self.pipe.close()
        self.process, self._is_ready = None, False
        return code

    def _kill(self) -> None:
        """Kill the process and the programs that it has started, which are its group."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(self.process.pid, signal.SIGKILL)

    def start(self) -> None:
        """Start a process, if none runs."""
        if self.process is not None:
            return
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
                    start_new_session=True,  # a group of its own
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send_bytes(pickle.dumps((self.function, self.has_parts)))

    def _wait_until_ready(self) -> None:
        answer = self._receive_answer()
        if answer is None:
            problem = f"one that ended ({self._handle_exit()})"
        else:
            kind, value = pickle.loads(answer)
            self._is_ready = kind == RESULT
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
        OUT_OF_MEMORY,
    )


def _serve(file_descriptor: int) -> None:
    """Serve items in a separate process, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what to stop
    parent = os.dup(0)
    _redirect(0, os.O_RDONLY)  # a function that reads its input would wait for ever
    threading.Thread(target=_exit_with_parent, args=[parent], daemon=True).start()
    pipe, own_pid = Connection(file_descriptor), os.getpid()

    def send(part: Callable[[], Any]) -> None:
        """Send a part of the result, if it is requested."""
        if pipe.poll() and pipe.recv_bytes() == PART_REQUEST:
            pipe.send_bytes(pickle.dumps((PART, part())))

    def answer(call: Callable[[bytes], Any]) -> Any:
        """Send the result of a call, or its exception; return the result."""
        message, result = pipe.recv_bytes(), None
        while message == PART_REQUEST:  # of an item that was finished before
            message = pipe.recv_bytes()
        try:
            result = call(message)
            text = pickle.dumps((RESULT, result))
        except Exception as error:  # noqa: BLE001, raised again by the parent
            text = pickle.dumps((ERROR, (_make_picklable(error), traceback.format_exc())))
        if os.getpid() != own_pid:  # a fork by the function: its answer would be a second one
            os._exit(1)
        pipe.send_bytes(text)
        return result

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function, has_parts = answer(pickle.loads) or sys.exit()
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(1)
        _silence_libraries()
        further = {"send": send} if has_parts else {}
        while True:
            answer(lambda message: function(pickle.loads(message), **further))


def _silence_libraries() -> None:
    """Discard what codecs print on damaged files; Python's own messages are still printed."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    _redirect(2, os.O_WRONLY)


def _redirect(file_descriptor: int, mode: int) -> None:
    null = os.open(os.devnull, mode)
    os.dup2(null, file_descriptor)
    os.close(null)


def _exit_with_parent(parent: int) -> None:
    """End this process and its group even within an item, so that nothing disturbs a new run."""
    os.read(parent, 1)  # returns when the parent has ended
    os.killpg(0, signal.SIGKILL)


def _make_picklable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, an error class may raise anything when it is pickled
        if isinstance(error, MemoryError):
            return MemoryError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
