"""Messages and progress on stderr, so that stdout has only results; and text that shows all of it.

On a terminal progress is a live bar; in a file or a pipe it is a plain line every few seconds.
"""

import atexit
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import rich.progress

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10
# Begin a formula; the last four are the full-width forms, which some locales accept.
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> plural(1, "video"), plural(2, "video")
        ('1 video', '2 videos')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    r"""Escape all invisible characters but the plain space, on one line.

    These are control characters, line breaks, direction marks, zero-width characters, surrogates
    and other spaces (`str.isprintable`). Letters and symbols of all scripts are unchanged, but an
    emoji that is joined of several ones (U+200D) is shown as its parts.

    Example:
        >>> printable("a" + chr(10) + "b")
        'a\\nb'
        >>> printable("a" + chr(0x202E) + "gpj.mp4")  # displayed as a4pm.jpg
        'a\\u202egpj.mp4'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    r"""Escape as `printable` does, but keep the line feeds.

    Example:
        >>> printable_lines("a" + chr(9) + "b" + chr(10) + "c")
        'a\\tb\nc'
    """
    return "\n".join(map(printable, text.split("\n")))


def csv_text(text: str) -> str:
    """Return a text for a cell of a CSV table: printable, and not a formula of a spreadsheet.

    Reference: OWASP (2023), https://owasp.org/www-community/attacks/CSV_Injection. A tab or line
    feed at its beginning is escaped.

    Example:
        >>> csv_text("=1+1"), csv_text("1+1")
        ("'=1+1", '1+1')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def print_message(text: str) -> None:
    """Print lines on stderr, with invisible characters escaped.

    Example:
        >>> print_message("warning: 1 video without a face")
    """
    print(printable_lines(text), file=sys.stderr, flush=True)


class Progress:
    """Progress of one task.

    Args:
        description: The task, in a few words.
        total: Number of units.
        unit: Name of the units, in the plural.
        done: Number of units done earlier, which do not count in the rate.

    Example:
        >>> progress = Progress("training", total=10, unit="epochs", done=2)
        >>> progress.advance(note="loss 0.5")
        >>> progress.done
        3
        >>> progress.close()
    """

    def __init__(self, description: str, total: int, unit: str, done: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.done: float = done
        self.done_before = done
        self.started = self.last_line = time.monotonic()
        self.warm = None  # time and count after the first step, which may compile or load
        self.stopped = None
        # A worker ignores Ctrl-C and is killed: it could not show the cursor again.
        has_bar = sys.stderr.isatty() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        self.bar = _start_bar(description, total, unit) if has_bar else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count units as done and show `note` next to them."""
        self.show(self.done + count, note)

    def show(self, done: float, note: str = "") -> None:
        """Set the number of units that are done, of which one may be done in part."""
        self.done = done
        now = time.monotonic()
        self.warm = self.warm or (now, self.done)
        if self.bar:
            rate = (self.done - self.warm[1]) / max(now - self.warm[0], 1e-9)
            self._update_bar(f"{note}, {rate:.1f}/s" if note and rate else note)
        elif now - self.last_line > SECONDS_BETWEEN_LINES and self.warm[1] < self.done < self.total:
            self.last_line = now
            unit_s = (now - self.warm[0]) / (self.done - self.warm[1])
            left_s = unit_s * (self.total - self.done)
            self._print(f"about {left_s:.0f} s left", f"{1 / unit_s:.1f}/s", note)

    def stop_clock(self, note: str) -> None:
        """Exclude the time from now on from the rate that `close` prints."""
        self.stopped = time.monotonic()
        self._update_bar(note)

    def close(self, note: str = "") -> None:
        """Print the final line; call it whether or not the task finished."""
        self._update_bar(note)
        if self.bar:
            self.bar.stop()
        else:
            spent_s = (self.stopped or time.monotonic()) - self.started
            rate = (self.done - self.done_before) / max(spent_s, 1e-9)
            self._print(f"{spent_s:.0f} s, {rate:.1f}/s", note)

    def _update_bar(self, note: str) -> None:
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.done, note=note)

    def _print(self, *notes: str) -> None:
        parts = [f"{self.description}: {int(self.done)}/{self.total} {self.unit}", *notes]
        print_message(", ".join(filter(None, parts)))


def track(items: Iterable[Item], description: str, total: int, unit: str) -> Iterator[Item]:
    """Yield items and show their progress.

    Example:
        >>> list(track("abc", "spelling", total=3, unit="letters"))
        ['a', 'b', 'c']
    """
    progress = Progress(description, total, unit)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()


def _start_bar(description: str, total: int, unit: str) -> "rich.progress.Progress":
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    bar = progress.Progress(
        *("{task.description}", progress.BarColumn(bar_width=24), progress.MofNCompleteColumn()),
        *(unit, progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn()),
        "{task.fields[note]}",
        console=Console(stderr=True),
    )
    bar.add_task(escape(description), total=total, note="")
    bar.start()
    atexit.register(bar.stop)  # shows the cursor again, however the program ends
    return bar


def import_tensorflow() -> str:
    """Import TensorFlow and return its version and devices as text.

    Messages about a missing CUDA driver are written before TensorFlow's log level takes effect
    (2.21.0); they are held back, and shown only if the import fails.

    Example:
        >>> import_tensorflow()
        'TensorFlow 2... on ...'
    """
    with tempfile.TemporaryFile() as messages:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow as tf

            devices = tf.config.list_physical_devices("GPU")
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return f"TensorFlow {tf.__version__} on {plural(len(devices), 'GPU') if devices else 'the CPU'}"


def import_openvino() -> str:
    """Import OpenVINO without its telemetry and return its version.

    `import openvino` alone sends an event to Google Analytics and writes an identifier to ~/intel
    (2026.4.1). It leaves both out where the package `openvino_telemetry`, which does this, cannot
    be imported; so does nncf. Every use of OpenVINO must therefore call this first.

    Raises:
        OSError: If OpenVINO cannot be imported.

    Example:
        >>> import_openvino()
        '20...'
    """
    # An import of a name that maps to None raises ModuleNotFoundError.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    except ImportError as error:
        raise OSError(
            f"Expected OpenVINO to be installed; got {error}. Try `pip install openvino`."
        ) from error
    return openvino.__version__.split("-")[0]
