import signal
import time

import pytest

from jdfd_keras.io import console
from jdfd_keras.io.console import (
    Progress,
    csv_text,
    plural,
    print_message,
    printable,
    printable_lines,
    track,
)

INVISIBLE = [
    *map(chr, (0x00, 0x07, 0x09, 0x0A, 0x0D, 0x1B, 0x7F, 0x85, 0x9B)),
    *map(chr, range(0x202A, 0x202F)),  # direction of the text
    *map(chr, range(0x2066, 0x206A)),
    *map(chr, (0x200E, 0x200F, 0x061C)),
    *map(chr, (0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xAD)),  # no width
    *map(chr, (0xA0, 0x2028, 0x2029, 0x3000)),
    "\udcff",  # a byte of a name that is not UTF-8
    "\U000e0041",
]
READABLE = ["a b.mp4", "面.mp4", "анна.mp4", "שלום.mp4", "مرحبا.mp4", "é", "e\u0301", "🙂", "हिन्दी"]


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


@pytest.mark.parametrize("character", INVISIBLE, ids=lambda text: f"{ord(text):x}")
def test_an_invisible_character_is_escaped_as_in_python(character):
    shown = printable(f"a{character}b.mp4")
    assert shown.isascii() and shown.isprintable() and shown.startswith("a\\")
    escaped = shown[1:-5]
    assert escaped.encode().decode("unicode_escape") == character


@pytest.mark.parametrize("text", READABLE)
def test_names_in_any_script_stay_readable(text):
    assert printable(text) == printable_lines(text) == csv_text(text) == text


def test_lines_stay_lines():
    assert printable_lines("a\x1b[2J\nb\r\n") == "a\\x1b[2J\nb\\r\n"


def test_messages_go_to_stderr_without_invisible_characters(capsys):
    print_message("b\x1b[31m.mp4: \u202edamaged\nmore")
    assert capsys.readouterr() == ("", "b\\x1b[31m.mp4: \\u202edamaged\nmore\n")


@pytest.mark.parametrize(
    "text", ["=1+1.mp4", "+1", "-1", "@SUM(1)", "\t=1.mp4", "\r=1", "\n=1", "\uff1d1", "\u202e=1"]
)
def test_no_csv_text_is_a_formula(text):
    assert csv_text(text)[0] in "'\\"
    assert csv_text(text).endswith(text.lstrip("\t\r\n\u202e"))


def test_other_csv_text_is_unchanged():
    for text in ("a=1", "'=1", "1-2", "", "./=1"):
        assert csv_text(text) == text


def test_a_process_that_ignores_interrupts_shows_no_bar(monkeypatch, capsys):
    """It is killed on Ctrl-C, and a bar would leave the terminal without a cursor."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert list(track("ab", "spelling", 2, "letters")) == ["a", "b"]
    finally:
        signal.signal(signal.SIGINT, before)
    lines = capsys.readouterr().err
    assert "\x1b" not in lines and lines.startswith("spelling: 2/2 letters")
