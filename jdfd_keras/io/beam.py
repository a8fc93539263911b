"""One function over many items, on Apache Beam.

What `data.workers` does on this machine, on as many as a runner has: DirectRunner here,
FlinkRunner, SparkRunner and DataflowRunner on clusters. Needs the extra `beam`.
"""

import base64
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from jdfd_keras.io.storage import BeamStore, write_text
from jdfd_keras.io.workers import call_apart, stop_apart


def read_flags(runner: str, flags: Sequence[str]):
    """Read Beam's own options, and hand them to its file systems.

    Args:
        runner: A runner of Beam.
        flags: Its options, as `--name=value` or `--name`, `value`.

    Returns:
        Beam's PipelineOptions.

    Raises:
        OSError: If Beam is not installed.
        ValueError: If it does not know the runner or an option.
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
            f"Expected a runner of Apache Beam that can be had here; got {runner}: {error} Check "
            "the spelling, and that the extra of Beam for it is installed, such as "
            "apache-beam[gcp] for DataflowRunner."
        ) from error
    own = {}
    if runner == "DirectRunner":  # left alone it works in one process
        own = {"--direct_running_mode": "multi_processing", "--direct_num_workers": "0"}
    given = {flag.split("=")[0] for flag in flags}
    words = [f"{name}={value}" for name, value in own.items() if name not in given]
    options = PipelineOptions([f"--runner={runner}", *words, *flags])
    known = options.get_all_options()
    unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
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
    """Call a function on every item.

    Items and results pass through files, since there may be millions of them. An item that ends
    the process which works on it costs itself alone, as with `data.workers`.

    Args:
        function: Can be pickled, as can items and results.
        items: What it takes.
        options: As `read_flags` gives them.
        store: Where its files lie.
        folder: In which folder; emptied first.

    Yields:
        Item and result, in any order; the result may be a Died.

    Raises:
        OSError: If the pipeline fails.
        ValueError: If the runner lacks an option.
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
                | "apart" >> beam.Reshuffle()
                | "work" >> beam.Map(_Line(function))
                | "results" >> beam.io.WriteToText(store.path(f"{folder}/results"))
            )
    except ValueError as error:
        raise ValueError(
            f"Expected options that {options.view_as(StandardOptions).runner} can run with; got "
            f"'{' '.join(str(error).split())}'. Add what it asks for, as README shows."
        ) from error
    except (RuntimeError, BeamError, grpc.RpcError) as error:
        raise OSError(
            f"Expected {options.view_as(StandardOptions).runner} to finish the work; got "
            f"'{_find_cause(error)}'. What is done is kept: mend that and run the same again."
        ) from error
    finally:
        stop_apart()
    for name in sorted(store.list(folder)):
        if name.startswith(f"{folder}/results"):
            with store.open(name) as file:
                yield from (_from_line(line) for line in file.read().splitlines())


def _find_cause(error: Exception) -> str:
    """Find the line that says what happened, among the tracebacks that Beam hands on as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]
    return [*lines, *named][-1].partition(" [while running")[0]


class _Line:
    """The function on lines of text, in a process of its own that is kept for the next line."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, line: str) -> str:
        item = _from_line(line)
        return _to_line((item, call_apart(self.function, item)))


def _to_line(value) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def _from_line(line: str | bytes):
    return pickle.loads(base64.b64decode(line))
