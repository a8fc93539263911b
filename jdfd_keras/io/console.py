"""Progress of long work, on stderr, so that stdout holds results alone.

A live bar where a person looks on; a plain line now and then where stderr is a file or a pipe.

TensorFlow without its notes on stderr, which are for those who build it.
"""

import atexit
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

SECONDS_BETWEEN_LINES = 10


class Progress:
    """How far one piece of work has come.

    Args:
        description: What is done, in a few words.
        total: How many units there are.
        unit: What is counted, in the plural.
        done: How many are done already; their time is not known.
    """

    def __init__(self, description: str, total: int, unit: str, done: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.done = self.done_before = done
        self.begun = self.last_line = time.monotonic()
        self.warm = None  # time and count after the first step, which may compile or load
        self.stopped = None
        self.bar = _start_bar(description, total, unit) if sys.stderr.isatty() else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count units as done; `note` is what a person may want to see beside them."""
        self.done += count
        now = time.monotonic()
        self.warm = self.warm or (now, self.done)
        if self.bar:
            pace = (self.done - self.warm[1]) / max(now - self.warm[0], 1e-9)
            notes = f"{note}, {pace:.1f}/s" if note and pace else note
            self.bar.update(self.bar.task_ids[0], completed=self.done, note=notes)
        elif now - self.last_line > SECONDS_BETWEEN_LINES and self.warm[1] < self.done < self.total:
            self.last_line = now
            pace_s = (now - self.warm[0]) / (self.done - self.warm[1])
            left_s = pace_s * (self.total - self.done)
            self._print(f"about {left_s:.0f} s left", f"{1 / pace_s:.1f}/s", note)

    def stop_clock(self, note: str) -> None:
        """Leave what follows, until it is over, out of the pace."""
        self.stopped = time.monotonic()
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done, note=note)

    def close(self, note: str = "") -> None:
        """Say that the work is over, finished or not."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done, note=note)
            self.bar.stop()
        else:
            spent_s = (self.stopped or time.monotonic()) - self.begun
            pace = (self.done - self.done_before) / max(spent_s, 1e-9)
            self._print(f"{spent_s:.0f} s, {pace:.1f}/s", note)

    def _print(self, *notes: str) -> None:
        text = ", ".join(filter(None, notes))
        print(
            f"{self.description}: {self.done}/{self.total} {self.unit}, {text}",
            file=sys.stderr,
            flush=True,
        )


def track(items: Iterable, description: str, total: int, unit: str) -> Iterator:
    """Pass items on and show how far the work has come; the arguments are Progress's."""
    progress = Progress(description, total, unit)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()


def _start_bar(description: str, total: int, unit: str):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    bar.add_task(description, total=total, note="")
    bar.start()
    atexit.register(bar.stop)  # gives the cursor back, whatever ends the program
    return bar


def import_tensorflow() -> str:
    """Import TensorFlow and say what it runs on.

    Its notes on a missing CUDA driver are written before its log level counts (2.21.0); they are
    held back, and shown only if the import fails.
    """
    with tempfile.TemporaryFile() as notes:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            devices = tf.config.list_physical_devices("GPU")
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return f"TensorFlow {tf.__version__} on {f'{len(devices)} GPU' if devices else 'the CPU'}"
