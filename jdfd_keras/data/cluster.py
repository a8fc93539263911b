"""One function over many items, on Apache Beam.

What `data.workers` does on this machine, on as many as a runner has: DirectRunner here,
FlinkRunner, SparkRunner and DataflowRunner on clusters. Needs the extra `beam`.
"""

import base64
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence

from jdfd_keras.storage import BeamStore, write_text


def run_on_beam(
    function: Callable,
    items: Iterable,
    *,
    runner: str,
    flags: Sequence[str],
    store: BeamStore,
    folder: str,
) -> Iterator[object]:
    """Call a function on every item.

    Items and results pass through files, since there may be millions of them.

    Args:
        function: Can be pickled, as can items and results.
        items: What it takes.
        runner: A runner of Beam.
        flags: Beam's own options, as `--name=value` or `--name`, `value`.
        store: Where its files lie.
        folder: In which folder; emptied first.

    Yields:
        The results, in any order.

    Raises:
        OSError: If Beam is not installed, or the pipeline fails.
        ValueError: If Beam does not take the runner or an option.
    """
    try:
        import apache_beam as beam
        from apache_beam.error import BeamError
    except ImportError as error:
        raise OSError(
            f"Expected Apache Beam for --runner {runner}; got no such package. Install it with "
            "`pip install jdfd-keras[beam]`."
        ) from error
    options = _read_flags(runner, flags)
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
    except (RuntimeError, BeamError) as error:
        cause = str(error).strip().splitlines()[-1]
        raise OSError(
            f"Expected {runner} to finish the work; got '{cause}'. What is done is kept: mend "
            "that and run the same again."
        ) from error
    for name in sorted(store.list(folder)):
        if name.startswith(f"{folder}/results"):
            with store.open(name) as file:
                yield from (_from_line(line) for line in file.read().splitlines())


def _read_flags(runner: str, flags: Sequence[str]):
    from apache_beam.options.pipeline_options import PipelineOptions

    own = [f"--runner={runner}"]
    if runner == "DirectRunner" and not any("direct_" in flag for flag in flags):
        # Left alone it works in one process.
        own += ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    options = PipelineOptions([*own, *flags])
    known = options.get_all_options()
    unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
    if unknown:
        raise ValueError(
            "Expected options of `prepare` or of Apache Beam; got "
            f"{', '.join(f'--{name}' for name in sorted(unknown))}. Check the spelling."
        )
    return options


class _Line:
    """The function on lines of text."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, line: str) -> str:
        return _to_line(self.function(_from_line(line)))


def _to_line(value) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def _from_line(line: str | bytes):
    return pickle.loads(base64.b64decode(line))
