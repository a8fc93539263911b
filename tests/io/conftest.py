"""Functions for worker processes."""

import sys

import pytest

# The functions of the workers are in a module of their own: a new process cannot import a test.
FUNCTIONS = '''
import os
import signal
import subprocess
import sys
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


def run_out_of_memory(item):
    number, is_bad = item
    if is_bad:
        raise MemoryError("no memory for it")
    return number


def die_by_name(name):
    """Do what the name of an item says, and return the process for any other name."""
    causes = {
        "exit": lambda: os._exit(3),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "memory": lambda: run_out_of_memory((0, True)),
        "sleep": lambda: time.sleep(60),
        "allocate": lambda: allocate(2 * 10**8),
    }
    causes.get(name, lambda: None)()
    return os.getpid()


def allocate(num_bytes):
    memory = b"1" * num_bytes
    time.sleep(60)
    return memory


def record_overlap(item):
    """Kill this process if `item` is bad, after writing down whether another item is running."""
    folder, number, is_bad = item
    (Path(folder) / f"running-{number}").touch()
    time.sleep(0.1)
    running = len(list(Path(folder).glob("running-*")))
    with open(Path(folder) / f"tries-{number}", "a") as file:
        print(running, file=file)
    (Path(folder) / f"running-{number}").unlink()
    if is_bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def leave_a_temporary_file(number):
    import tempfile

    with tempfile.NamedTemporaryFile(delete=False) as file:
        return file.name


def crash_once(path):
    """Crash if the file does not exist, and create it."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def count_slowly(number, send):
    for done in range(1, number + 1):
        time.sleep(0.01)
        send(lambda: (done, number))
    return number


def send_and_crash_once(path, send):
    for done in range(50):
        time.sleep(0.01)
        send(lambda: done)
        if done == 30 and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def fail_if_a_part_is_made(number, send):
    time.sleep(0.5)
    return send(lambda: 1 / 0)


def report_process_and_sleep(item):
    folder, seconds = item
    Path(folder, str(os.getpid())).touch()
    time.sleep(seconds)


def fork(number):
    """Return the number in two processes."""
    os.fork()
    return number


def start_program(path):
    """Start a program that runs for a minute, write its id, and wait for it."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(path, "w") as file:
        file.write(str(program.pid))
    program.wait()


def read_input(number):
    """Return what is left to read of the standard input."""
    return sys.stdin.read()
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
