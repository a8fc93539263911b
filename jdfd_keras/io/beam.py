"""One function over many items, on Apache Beam (extra `beam`), which runs on clusters.

As in `io.workers`, an item whose process dies, or that is beyond a limit, does not stop the others.
Beam is imported only to run on it.
"""

import base64
import functools
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jdfd_keras.io.storage import Store, read_text, write_text
from jdfd_keras.io.workers import run_all
from jdfd_keras.options import LimitOptions

ITEMS_PER_PROCESS = 8  # starting one takes seconds, mostly the imports of the function

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def read_beam_flags(runner: str, flags: Sequence[str]) -> "PipelineOptions":
    """Parse the options of Apache Beam and pass them to its file systems.

    Args:
        runner: Name of a Beam runner, such as `DirectRunner`.
        flags: Its options, as `--name=value` or `--name`, `value`.

    Example:
        >>> options = read_beam_flags("DirectRunner", ["--direct_num_workers=2"])
        >>> options.get_all_options()["direct_running_mode"]
        'multi_processing'
    """
    try:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.runner import create_runner
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
    # All cores; the default of the DirectRunner is a single process. Later flags override these.
    direct = ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    options = PipelineOptions([f"--runner={runner}", *direct, *flags])
    every = options.get_all_options(retain_unknown_options=True)
    if unknown := sorted(every.keys() - options.get_all_options().keys()):
        raise ValueError(
            "Expected options of `prepare` or of Apache Beam; got "
            f"{', '.join(f'--{name}' for name in unknown)}. Check the spelling."
        )
    FileSystems.set_options(options)
    return options


def run_on_beam(
    function: Callable[[Any], Any],
    items: Iterable,
    *,
    options: "PipelineOptions",
    store: Store,
    folder: str,
    limits: LimitOptions | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Call a function on every item, as `io.workers.run_all`, on an Apache Beam runner.

    Args:
        function: As for `run_all`.
        items: As for `run_all`.
        options: Options of `read_beam_flags`.
        store: Storage of the items and results, which pass through files as there may be millions.
        folder: Folder of these files in the store; emptied first.
        limits: As for `run_all`.

    Raises:
        OSError: If the pipeline fails.
        ValueError: If the runner needs further options.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
        >>> list(run_on_beam(abs, [-1], options=options, store=LocalStore("beam"), folder="parts"))
        [(-1, 1)]
    """
    import apache_beam as beam
    import grpc
    from apache_beam.error import BeamError
    from apache_beam.io.textio import ReadFromText, WriteToText
    from apache_beam.options.pipeline_options import StandardOptions

    store.remove(folder)
    write_text(store, f"{folder}/items", "".join(f"{_to_line(item)}\n" for item in items))
    runner, location = options.view_as(StandardOptions).runner, store.path(folder)
    work = functools.partial(_call_on_lines, function, limits)
    try:
        with beam.Pipeline(options=options) as pipeline:
            lines = pipeline | "items" >> ReadFromText(f"{location}/items") | beam.Reshuffle()
            batches = lines | beam.BatchElements(ITEMS_PER_PROCESS, ITEMS_PER_PROCESS)
            _ = batches | beam.FlatMap(work) | "results" >> WriteToText(f"{location}/results")
    except ValueError as error:
        raise ValueError(
            f"Expected all options that {runner} needs; got '{' '.join(str(error).split())}'. Add "
            "the missing ones, as docs/datasets.md shows."
        ) from error
    except (RuntimeError, BeamError, grpc.RpcError) as error:
        raise OSError(
            f"Expected {runner} to finish the work; got '{_find_cause(error)}'. Fix the cause and "
            "run the same command again: finished items are kept."
        ) from error
    for name in sorted(store.list(folder)):
        if name.startswith(f"{folder}/results"):
            yield from map(_from_line, read_text(store, name).splitlines())


def _find_cause(error: Exception) -> str:
    """Find the line with the error among the tracebacks that Beam passes on as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]
    return [*lines, *named][-1].partition(" [while running")[0]


def _call_on_lines(
    function: Callable, limits: LimitOptions | None, lines: list[str]
) -> Iterator[str]:
    return map(_to_line, run_all(function, map(_from_line, lines), num_workers=1, limits=limits))


def _to_line(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def _from_line(line: str) -> Any:
    return pickle.loads(base64.b64decode(line))
