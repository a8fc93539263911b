"""One function over many items, in several processes or on Apache Beam.

Takes a function that can be pickled and its items; yields each item with its result. An item that
crashes its process, as a damaged video can crash a decoder, does not stop the others and is
reported by name. Independent of the function. Beam is imported only to run on it (extra `beam`).
"""

import base64
import contextlib
import functools
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from jdfd_keras.io.storage import BeamStore, write_text

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

# Each process has one core; the threads of these libraries would compete for the other cores.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class WorkerCrashed:
    """Result of an item that crashed its process twice."""

    signal: str  # name of the last one, such as SIGSEGV


def count_workers(requested: int, num_items: int) -> int:
    """Compute the number of processes for some items.

    Args:
        requested: Number of processes; 0 for one per available core.
        num_items: Number of items.

    Returns:
        At least 1 and at most `num_items`, or 1 without items.

    Example:
        >>> count_workers(4, num_items=2)
        2
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(requested or cores or 1, max(1, num_items))


def run_all(
    function: Callable, items: Iterable, num_workers: int, *, name: Callable[[object], str] = str
) -> Iterator[tuple[object, object]]:
    """Call a function on every item, in several processes of this machine.

    Args:
        function: Function of one item. It, the items and the results can be pickled.
        items: Items; the next one is read when a process is free.
        num_workers: Number of processes besides this one. With 0 this process does the work, and
            an item that crashes it ends the run.
        name: Returns the name of an item for error messages.

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
    workers = [_Worker(function, name) for _ in range(num_workers)]
    try:
        for worker in workers:
            worker.start_next(items)
        while busy := {worker.pipe: worker for worker in workers if worker.is_busy}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]
                item = worker.item
                result = worker.receive()
                if result is _RETRYING:
                    continue
                yield item, result
                worker.start_next(items)
    finally:
        for worker in workers:
            worker.stop()


_IDLE = object()  # the item of a worker without one
_RETRYING = object()  # the result of an item that a new process tries again


class _Worker:
    """A process and its current item."""

    def __init__(self, function: Callable, name: Callable[[object], str]):
        self.function, self.name = function, name
        self.item = _IDLE
        self._start_process()

    @property
    def is_busy(self) -> bool:
        return self.item is not _IDLE

    def start_next(self, items: Iterator) -> None:
        """Send the next item to the process, if one is left."""
        self.item = next(items, _IDLE)
        self.tries = 1
        if self.is_busy:
            self._send()

    def receive(self):
        """Return the result, or _RETRYING if the process crashed and a new one has the item."""
        try:
            is_result, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self._handle_exit(-self.process.exitcode)
        if not is_result:
            error, text = value
            raise error from RuntimeError(f"in another process:\n{text}")
        return value

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()  # so that recv() raises EOFError once the process ends
        self.pipe.send(self.function)

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() handles it
            self.pipe.send(self.item)

    def _handle_exit(self, number: int):
        faults = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
        if number not in faults:
            cause, advice = f"exit code {-number}", "Check its own message above."
            if number > 0:
                cause = f"signal {number}"
                advice = "The machine is perhaps out of memory: try fewer --workers."
            raise OSError(
                f"Expected the process that works on {self.name(self.item)} to finish; got "
                f"{cause}. {advice} Finished items are kept."
            )
        self.pipe.close()
        self._start_process()
        if self.tries == 2:
            return WorkerCrashed(signal.Signals(number).name)
        self.tries += 1
        self._send()
        return _RETRYING


def _serve(pipe: Connection) -> None:
    """Serve items in a separate process, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what to stop
    threading.Thread(target=_exit_with_parent, daemon=True).start()
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
                answer = (False, (_make_picklable(error), traceback.format_exc()))
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _exit_with_parent() -> None:
    """Exit even within an item, so that nothing is written during a new run."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _make_picklable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, an error class may raise anything when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


_THREAD = threading.local()  # .worker: the worker of `call_in_subprocess` in this thread
_KEPT: list[_Worker] = []


def call_in_subprocess(function: Callable, item: object) -> object:
    """Call a function on one item in another process, kept for the next call of this thread.

    Args:
        function: As for `run_all`. A call with another function starts a new process.
        item: Its argument.

    Returns:
        The result, or a WorkerCrashed.

    Raises:
        OSError: If the process was killed or exited.
        BaseException: Any exception of the function.
    """
    if getattr(_THREAD, "worker", None) not in _KEPT or _THREAD.worker.function != function:
        _THREAD.worker = _Worker(function, str)
        _KEPT.append(_THREAD.worker)
    _THREAD.worker.start_next(iter([item]))
    while (result := _THREAD.worker.receive()) is _RETRYING:
        pass
    return result


def stop_subprocesses() -> None:
    """Stop the processes that `call_in_subprocess` keeps."""
    while _KEPT:
        _KEPT.pop().stop()


def read_beam_flags(runner: str, flags: Sequence[str]) -> "PipelineOptions":
    """Parse the options of Apache Beam and pass them to its file systems.

    Args:
        runner: Name of a Beam runner, such as `DirectRunner`.
        flags: Its options, as `--name=value` or `--name`, `value`.

    Returns:
        Beam's PipelineOptions.

    Raises:
        OSError: If Beam is not installed.
        ValueError: If Beam does not know the runner or an option.
    """
    try:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners import create_runner
    except ImportError as error:
        raise OSError(
            f"Expected Apache Beam for --runner {runner}; got no such package. Install it with "
            "`pip install jdfd-keras[beam]`."
        ) from error
    try:
        create_runner(runner)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"Expected an available runner of Apache Beam; got {runner}: {error} Check the "
            "spelling, and that Beam's extra for it is installed, such as apache-beam[gcp] for "
            "DataflowRunner."
        ) from error
    defaults = {}
    if runner == "DirectRunner":  # its own default is a single process
        defaults = {"--direct_running_mode": "multi_processing", "--direct_num_workers": "0"}
    flag_names = {flag.split("=")[0] for flag in flags}
    extra = [f"{name}={value}" for name, value in defaults.items() if name not in flag_names]
    options = PipelineOptions([f"--runner={runner}", *extra, *flags])
    parsed = options.get_all_options()
    unknown = set(options.get_all_options(retain_unknown_options=True)) - set(parsed)
    if unknown:
        raise ValueError(
            "Expected options of `prepare` or of Apache Beam; got "
            f"{', '.join(f'--{name}' for name in sorted(unknown))}. Check the spelling."
        )
    FileSystems.set_options(options)
    return options


def run_on_beam(
    function: Callable, items: Iterable, *, options, store: BeamStore, folder: str
) -> Iterator[tuple[object, object]]:
    """Call a function on every item, on an Apache Beam runner.

    DirectRunner works on this machine, FlinkRunner, SparkRunner and DataflowRunner on clusters.
    As in `run_all`, an item that crashes its process does not stop the others.

    Args:
        function: Function of one item. It, the items and the results can be pickled.
        items: Items.
        options: PipelineOptions of `read_beam_flags`.
        store: Storage of the items and results, which pass through files as there may be millions.
        folder: Folder of these files in the store; emptied first.

    Yields:
        Item and result, in any order. The result may be a WorkerCrashed.

    Raises:
        OSError: If the pipeline fails.
        ValueError: If the runner needs further options.

    Example:
        >>> options = read_beam_flags("DirectRunner", [])
        >>> results = run_on_beam(abs, [-1], options=options, store=BeamStore("out"), folder="beam")
        >>> list(results)
        [(-1, 1)]
    """
    import apache_beam as beam
    import grpc
    from apache_beam.error import BeamError
    from apache_beam.options.pipeline_options import StandardOptions

    store.remove(folder)
    write_text(store, f"{folder}/items", "".join(f"{_to_line(item)}\n" for item in items))
    try:
        with beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | "items" >> beam.io.ReadFromText(store.path(f"{folder}/items"))
                | "reshuffle" >> beam.Reshuffle()
                | "work" >> beam.Map(functools.partial(_call_on_line, function))
                | "results" >> beam.io.WriteToText(store.path(f"{folder}/results"))
            )
    except ValueError as error:
        raise ValueError(
            f"Expected all options that {options.view_as(StandardOptions).runner} needs; got "
            f"'{' '.join(str(error).split())}'. Add the missing ones, as README shows."
        ) from error
    except (RuntimeError, BeamError, grpc.RpcError) as error:
        raise OSError(
            f"Expected {options.view_as(StandardOptions).runner} to finish the work; got "
            f"'{_find_cause(error)}'. Fix the cause and run the same command again: finished "
            "items are kept."
        ) from error
    finally:
        stop_subprocesses()
    for name in sorted(store.list(folder)):
        if name.startswith(f"{folder}/results"):
            with store.open(name) as file:
                yield from (_from_line(line) for line in file.read().splitlines())


def _find_cause(error: Exception) -> str:
    """Find the line with the error among the tracebacks that Beam passes on as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]
    return [*lines, *named][-1].partition(" [while running")[0]


def _call_on_line(function: Callable, line: str) -> str:
    item = _from_line(line)
    return _to_line((item, call_in_subprocess(function, item)))


def _to_line(value) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def _from_line(line: str | bytes):
    return pickle.loads(base64.b64decode(line))
