import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from jdfd_keras.io.workers import Died, call_apart, run_all, stop_apart

# What processes do: a module of its own, since they cannot import one that pytest imported.
FUNCTIONS = '''
import os
import signal
import time
from pathlib import Path


def double(number):
    return 2 * number


def name_process(number):
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


class OddError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def fail_oddly(number):
    raise OddError("this", number)


def fail_with_a_function(number):
    raise ValueError("beyond pickling", lambda: number)


def kill(order):
    number, way = order
    if way:
        os.kill(os.getpid(), getattr(signal, way))
    return number


def leave(code):
    os._exit(code)


def die_once(path):
    """Die where the file is not there yet, and leave it."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def say_process_and_sleep(order):
    folder, seconds = order
    Path(folder, str(os.getpid())).touch()
    time.sleep(seconds)
'''


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The module above, where this process and its workers find it."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "what_workers_do.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import what_workers_do

        yield what_workers_do
    del sys.modules["what_workers_do"]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_every_item_has_its_result(functions, num_workers):
    results = list(run_all(functions.double, range(20), num_workers))
    assert sorted(results) == [(number, 2 * number) for number in range(20)]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_there_may_be_fewer_items_than_workers_or_none(functions, num_workers):
    assert list(run_all(functions.double, [4], num_workers)) == [(4, 8)]
    assert list(run_all(functions.double, [], num_workers)) == []


def test_without_workers_it_is_this_process_and_with_some_others(functions):
    assert dict(run_all(functions.name_process, [1, 2], 0)) == dict.fromkeys([1, 2], os.getpid())
    (alone,) = {process for _, process in run_all(functions.name_process, [1, 2], 1)}
    assert alone != os.getpid()
    processes = {process for _, process in run_all(functions.name_process, range(20), 2)}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_results_come_as_they_are_done(functions, tmp_path):
    (tmp_path / "there").touch()
    items = [str(tmp_path / "late"), str(tmp_path / "there")]
    done = []
    for item, _ in run_all(functions.wait_for, items, 2):
        done.append(item)
        (tmp_path / "late").touch()
    assert done == items[::-1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_items_are_taken_as_workers_are_free(functions, num_workers):
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = run_all(functions.double, items(), num_workers)
    assert taken == []
    for done, _ in enumerate(results, start=1):
        assert len(taken) <= done + num_workers - 1
    assert taken == list(range(10))


def test_each_process_is_told_to_use_one_thread(functions, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert {threads for _, threads in run_all(functions.read_threads, range(4), 2)} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_what_the_function_raises_comes_through_and_the_others_stop(functions, num_workers):
    results, begun = [], time.monotonic()
    with pytest.raises(FileNotFoundError, match="no file 3"):
        results.extend(run_all(functions.fail_at, range(500), num_workers))
    assert time.monotonic() - begun < 10
    assert multiprocessing.active_children() == []


def test_processes_end_where_results_are_no_longer_wanted(functions):
    results = run_all(functions.sleep, [0, 60, 60, 60], 2)
    assert next(results) == (0, 0)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_last_item(functions):
    list(run_all(functions.double, range(3), 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("function", ["fail_oddly", "fail_with_a_function"])
def test_an_exception_that_cannot_be_handed_over_is_told_in_words(functions, function):
    with pytest.raises(Exception, match="this and 1|beyond pickling"):
        list(run_all(getattr(functions, function), [1], 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL"])
def test_an_item_that_kills_its_process_costs_itself_alone(functions, fault):
    items = [(number, fault if number == 2 else "") for number in range(6)]
    results = dict(run_all(functions.kill, items, 2))
    assert results.pop((2, fault)) == Died(fault)
    assert results == {(number, ""): number for number in (0, 1, 3, 4, 5)}


def test_every_item_may_kill_its_process(functions):
    items = [(number, "SIGSEGV") for number in range(3)]
    assert dict(run_all(functions.kill, items, 2)) == dict.fromkeys(items, Died("SIGSEGV"))


def test_an_item_whose_process_died_is_tried_again(functions, tmp_path):
    items = [str(tmp_path / name) for name in "abc"]
    assert dict(run_all(functions.die_once, items, 2)) == dict.fromkeys(items, "done")


def test_a_process_that_was_killed_is_an_error_that_names_its_item(functions):
    items = [(number, "SIGKILL" if number == 2 else "") for number in range(50)]
    with pytest.raises(OSError, match=r"Expected .* video 2 .*; got signal 9\. .*--workers"):
        list(run_all(functions.kill, items, 2, name=lambda item: f"video {item[0]}"))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_left_is_an_error_that_names_its_item(functions, code):
    with pytest.raises(OSError, match=rf"works on {code} .*; got exit code {code}\."):
        list(run_all(functions.leave, [code], 2))


def test_a_worker_leaves_an_interrupt_to_its_parent(functions):
    items = [(number, "SIGINT") for number in range(4)]
    assert sorted(run_all(functions.kill, items, 2)) == [(item, item[0]) for item in items]


def is_there(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="processes are read in /proc")
@pytest.mark.parametrize("seconds", [0.2, 60], ids=["short items", "long items"])
def test_workers_end_when_their_parent_is_killed(functions, tmp_path, seconds):
    program = tmp_path / "parent.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {os.path.dirname(functions.__file__)!r})
from jdfd_keras.io.workers import run_all
from what_workers_do import say_process_and_sleep
if __name__ == "__main__":
    items = (({str(tmp_path / "processes")!r}, {seconds}) for _ in range(10_000))
    for _ in run_all(say_process_and_sleep, items, 2):
        pass
""")
    (tmp_path / "processes").mkdir()
    parent = subprocess.Popen([sys.executable, str(program)])
    workers = []
    try:
        until = time.monotonic() + 20
        while len(workers) < 2 and time.monotonic() < until:
            time.sleep(0.05)
            workers = [int(name) for name in os.listdir(tmp_path / "processes")]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 5
        while any(map(is_there, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert [process for process in workers if is_there(process)] == []
    finally:
        for process in [parent.pid, *workers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        parent.wait()


def test_a_call_apart_keeps_its_process_and_costs_itself_alone(functions):
    processes = {call_apart(functions.name_process, item) for item in range(3)}
    assert len(processes) == 1
    assert os.getpid() not in processes
    assert call_apart(functions.kill, (1, "SIGSEGV")) == Died("SIGSEGV")
    assert call_apart(functions.kill, (2, "")) == 2
    with pytest.raises(FileNotFoundError, match="no file 3"):
        call_apart(functions.fail_at, 3)
    stop_apart()
    assert multiprocessing.active_children() == []
    assert call_apart(functions.double, 4) == 8
    stop_apart()
