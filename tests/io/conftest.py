"""Functions for worker processes."""

import sys

import pytest

# The functions of the workers are in a module of their own: a new process cannot import a test.
FUNCTIONS = '''
import os
import signal
import time
from pathlib import Path


def double(number):
    return 2 * number


def process_id(number):
    time.sleep(0.05)
    return os.getpid()


def read_threads(number):
    return os.environ["OMP_NUM_THREADS"]


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)


def fail_at(number):
    if number == 3:
        raise FileNotFoundError("no file 3")
    time.sleep(0.2)
    return number


class UnpicklableError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def raise_unpicklable_class(number):
    raise UnpicklableError("this", number)


def raise_unpicklable_argument(number):
    raise ValueError("beyond pickling", lambda: number)


def kill(item):
    number, signal_name = item
    if signal_name:
        os.kill(os.getpid(), getattr(signal, signal_name))
    return number


def exit_with(code):
    os._exit(code)


def crash_once(path):
    """Crash if the file does not exist, and create it."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def report_process_and_sleep(item):
    folder, seconds = item
    Path(folder, str(os.getpid())).touch()
    time.sleep(seconds)
'''


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The module above, importable by this process and its workers."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "worker_functions.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import worker_functions

        yield worker_functions
    del sys.modules["worker_functions"]
