"""How a command ends: by a signal, by a full disk, with or without something to resume."""

import argparse
import signal
import subprocess
import sys

import pytest

from jdfd_keras.cli import main as command_line
from jdfd_keras.cli.main import COMMANDS, main
from jdfd_keras.cli.parser import Command, Output
from jdfd_keras.io.temporary_folder import TemporaryFolder

pytestmark = pytest.mark.signals

SIGNALS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "stopped by SIGTERM"),
    signal.SIGHUP: (129, "stopped by SIGHUP"),
}


class OpError(Exception):
    """An error as of TensorFlow, which is no OSError."""


@pytest.fixture
def run(monkeypatch):
    """A function that runs a command whose work is another function."""

    def run_command(name, work, is_resumable=False, out=None):
        command = Command(lambda _: None, work, is_resumable=is_resumable)
        monkeypatch.setitem(COMMANDS, name, command)
        words = argparse.Namespace(command=name, words=[name], format="text", out=out)
        monkeypatch.setattr(command_line, "parse", lambda _: words)
        return main([name])

    return run_command


@pytest.fixture(autouse=True)
def default_handlers():
    """Let no signal be ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_every_command_without_temporary_files(
    run, tmp_path, monkeypatch, capsys, name, number
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work(_):
        with TemporaryFolder():
            signal.raise_signal(number)

    code, text = SIGNALS[number]
    assert run(name, work) == code
    assert capsys.readouterr().err == f"jdfd-keras {name}: {text}.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("is_resumable", "out"), [(True, "run"), (True, None), (False, "run")])
def test_the_line_states_how_to_resume_if_that_is_possible(run, capsys, number, is_resumable, out):
    def work(_):
        signal.raise_signal(number)

    run("train", work, is_resumable, out)
    has_hint = " Run the same command again to resume." in capsys.readouterr().err
    assert has_hint == (is_resumable and out is not None)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OpError("a; No space left on device [Op]")]
)
def test_a_full_disk_is_one_line_in_every_command(run, capsys, error):
    def work(_):
        raise error

    assert run("evaluate", work, out="report") == 1
    assert capsys.readouterr().err == (
        "jdfd-keras evaluate: Expected free disk space for the output report and in the folder for "
        "temporary files; got 'No space left on device'. Free some and run the same command "
        "again.\n"
    )


def test_an_error_of_the_program_is_not_hidden(run):
    def work(_):
        raise OpError("a bug")

    with pytest.raises(OpError):
        run("evaluate", work)


def test_a_result_that_cannot_be_printed_is_one_line(run):
    code = (
        "import sys\nfrom jdfd_keras.cli import main\nfrom jdfd_keras.cli.parser import *\n"
        "work = lambda _: Output({}, 'x' * 100)\n"
        "main.COMMANDS['inspect'] = main.COMMANDS['inspect']._replace(run=work)\n"
        "main.parse = lambda _: argparse.Namespace(command='inspect', words=[], format='text')\n"
        "sys.exit(main.main([]))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == (
        "jdfd-keras inspect: Expected free disk space for the output and in the folder for "
        "temporary files; got 'No space left on device'. Free some and run the same command "
        "again.\n"
    )
    assert run("inspect", lambda _: Output({}, "done")) == 0
