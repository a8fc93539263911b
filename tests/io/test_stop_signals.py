"""Signals end a command as exceptions do; a training holds them until a checkpoint is written."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from jdfd_keras.io import stop_signals
from jdfd_keras.io.stop_signals import SIGNALS, SignalHold, Stopped, exit_on_signals

pytestmark = pytest.mark.signals

CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def handlers_as_before():
    """Check that a test leaves no handler behind."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_block_with_the_exit_code_of_a_shell(number):
    with pytest.raises(SystemExit) as stopped, exit_on_signals():
        signal.raise_signal(number)
    assert stopped.value.code == CODES[number]
    assert stopped.value.name == signal.Signals(number).name


def test_ctrl_c_is_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), exit_on_signals():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("first", SIGNALS)
def test_the_same_request_again_does_not_interrupt_the_end(first):
    cleaned = []
    with pytest.raises((Stopped, KeyboardInterrupt)), exit_on_signals():
        try:
            signal.raise_signal(first)
        finally:
            for number in SIGNALS:
                signal.raise_signal(number)
            cleaned.append(True)
    assert cleaned


SECOND = """
import signal, time
from jdfd_keras.io import stop_signals
stop_signals.SAME_REQUEST_S = 0.05
with stop_signals.exit_on_signals():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)
        print("never")
"""


def test_a_later_signal_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)  # as of `nohup`
    try:
        with exit_on_signals(), SignalHold() as hold:
            signal.raise_signal(number)
            hold.start()
            signal.raise_signal(number)
            assert not hold.is_requested
    finally:
        signal.signal(number, before)


def test_another_thread_changes_no_handler():
    done = []

    def run():
        with exit_on_signals(), SignalHold() as hold:
            hold.start()
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_held_signal_is_handled_at_the_release(number):
    steps = []
    with pytest.raises((Stopped, KeyboardInterrupt)), exit_on_signals(), SignalHold() as hold:
        hold.start()
        signal.raise_signal(number)
        signal.raise_signal(number)  # the same request
        steps.append(hold.is_requested)
        hold.release()
        steps.append("never")
    assert steps == [True]


def test_a_held_signal_is_handled_at_the_latest_at_the_end_of_the_block():
    with pytest.raises(KeyboardInterrupt), SignalHold() as hold:
        hold.start()
        signal.raise_signal(signal.SIGINT)


def test_before_the_start_a_signal_does_not_wait():
    steps = []
    with pytest.raises(KeyboardInterrupt), SignalHold():
        signal.raise_signal(signal.SIGINT)
        steps.append("never")
    assert steps == []


def test_an_error_in_the_block_is_raised_instead_of_a_held_signal():
    with pytest.raises(OSError, match="full"), exit_on_signals(), SignalHold() as hold:
        hold.start()
        signal.raise_signal(signal.SIGTERM)
        raise OSError("full")


def test_a_later_signal_does_not_wait_and_a_notice_says_so(monkeypatch, capsys):
    monkeypatch.setattr(stop_signals, "SAME_REQUEST_S", 0.05)
    steps = []
    with pytest.raises(KeyboardInterrupt), SignalHold("stopping after this step") as hold:
        hold.start()
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.3)
        steps.append("waits")
        signal.raise_signal(signal.SIGINT)
        steps.append("never")
    assert steps == ["waits"]
    assert capsys.readouterr().err == "stopping after this step\n"


def test_no_notice_without_a_wait(monkeypatch, capsys):
    monkeypatch.setattr(stop_signals, "SAME_REQUEST_S", 0.05)
    with pytest.raises(KeyboardInterrupt), SignalHold("stopping after this step") as hold:
        hold.start()
        signal.raise_signal(signal.SIGINT)
        hold.release()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


HELD = """
import signal
from jdfd_keras.io.stop_signals import SignalHold
with SignalHold() as hold:
    hold.start()
    signal.raise_signal(signal.SIGTERM)
    print("checkpoint", flush=True)
    hold.release()
    print("never")
"""


def test_a_program_without_a_handler_ends_by_the_held_signal_itself():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "checkpoint\n")
