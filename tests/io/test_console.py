import time

import pytest

from jdfd_keras.io import console
from jdfd_keras.io.console import Progress, plural, track


def test_items_pass_through_and_the_last_line_goes_to_stderr(capsys):
    assert list(track("abc", "spelling", 3, "letters")) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("spelling: 3/3 letters, 0 s")


def test_the_remaining_time_excludes_the_first_slow_step(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Progress("training", 10, "faces")
    progress.advance(1)  # took 100 s: it compiled
    progress.advance(2, "loss 0.5")  # 10 s per face, 7 faces left
    assert capsys.readouterr().err == "training: 3/10 faces, about 70 s left, 0.1/s, loss 0.5\n"


def test_lines_are_printed_at_intervals(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 1e6)
    progress = Progress("training", 10, "faces")
    for _ in range(5):
        progress.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 videos"), (1, "1 video"), (2, "2 videos"), (21, "21 videos")]
)
def test_a_noun_agrees_with_its_count(count, text):
    assert plural(count, "video") == text
