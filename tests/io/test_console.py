import time

from jdfd_keras.io import console as progress
from jdfd_keras.io.console import Progress, track


def test_items_pass_through_and_the_end_is_told_on_stderr(capsys):
    assert list(track("abc", "spelling", 3, "letters")) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("spelling: 3/3 letters, 0 s")


def test_time_left_is_estimated_without_the_first_slow_step(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    work = Progress("training", 10, "faces")
    work.advance(1)  # took 100 s: it compiled
    work.advance(2, "loss 0.5")  # 10 s a face, 7 faces to go
    assert capsys.readouterr().err == "training: 3/10 faces, about 70 s left, 0.1/s, loss 0.5\n"


def test_lines_do_not_follow_each_other_at_once(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e6)
    work = Progress("training", 10, "faces")
    for _ in range(5):
        work.advance()
    assert capsys.readouterr().err == ""
