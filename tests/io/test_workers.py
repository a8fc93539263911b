import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from jdfd_keras.io.workers import WorkerCrashed, count_workers, run_all


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_item_has_its_result(functions, num_workers):
    results = list(run_all(functions.double, range(20), num_workers))
    assert sorted(results) == [(number, 2 * number) for number in range(20)]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_fewer_items_than_workers_and_no_items_are_allowed(functions, num_workers):
    assert list(run_all(functions.double, [4], num_workers)) == [(4, 8)]
    assert list(run_all(functions.double, [], num_workers)) == []


def test_zero_workers_run_in_this_process_and_others_in_their_own(functions):
    assert dict(run_all(functions.process_id, [1, 2], 0)) == dict.fromkeys([1, 2], os.getpid())
    (alone,) = {process for _, process in run_all(functions.process_id, [1, 2], 1)}
    assert alone != os.getpid()
    processes = {process for _, process in run_all(functions.process_id, range(20), 2)}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_results_are_yielded_in_order_of_completion(functions, tmp_path):
    (tmp_path / "there").touch()
    items = [str(tmp_path / "late"), str(tmp_path / "there")]
    done = []
    for item, _ in run_all(functions.wait_for, items, 2):
        done.append(item)
        (tmp_path / "late").touch()
    assert done == items[::-1]


@pytest.mark.parametrize("num_workers", [2])
def test_an_item_is_read_when_a_worker_is_free(functions, num_workers):
    started = []

    def items():
        for number in range(10):
            started.append(number)
            yield number

    results = run_all(functions.double, items(), num_workers)
    assert started == []
    for done, _ in enumerate(results, start=1):
        assert len(started) <= done + num_workers - 1
    assert started == list(range(10))


def test_each_process_uses_one_thread(functions, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert {threads for _, threads in run_all(functions.read_threads, range(4), 2)} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_of_the_function_is_raised_and_the_other_processes_stop(
    functions, num_workers
):
    results, start = [], time.monotonic()
    with pytest.raises(FileNotFoundError, match="no file 3"):
        results.extend(run_all(functions.fail_at, range(500), num_workers))
    assert time.monotonic() - start < 10
    assert multiprocessing.active_children() == []


def test_processes_end_when_the_iterator_is_closed(functions):
    results = run_all(functions.sleep, [0, 60, 60, 60], 2)
    assert next(results) == (0, 0)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_last_item(functions):
    list(run_all(functions.double, range(3), 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("function", ["raise_unpicklable_class", "raise_unpicklable_argument"])
def test_the_message_of_an_unpicklable_exception_is_kept(functions, function):
    with pytest.raises(Exception, match="this and 1|beyond pickling"):
        list(run_all(getattr(functions, function), [1], 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGABRT"])
def test_an_item_that_crashes_its_process_fails_alone(functions, fault):
    items = [(number, fault if number == 2 else "") for number in range(6)]
    results = dict(run_all(functions.kill, items, 2))
    assert results.pop((2, fault)) == WorkerCrashed(fault)
    assert results == {(number, ""): number for number in (0, 1, 3, 4, 5)}


def test_every_item_may_crash_its_process(functions):
    items = [(number, "SIGSEGV") for number in range(3)]
    assert dict(run_all(functions.kill, items, 2)) == dict.fromkeys(items, WorkerCrashed("SIGSEGV"))


def test_an_item_whose_process_crashed_is_tried_again(functions, tmp_path):
    items = [str(tmp_path / name) for name in "abc"]
    assert dict(run_all(functions.crash_once, items, 2)) == dict.fromkeys(items, "done")


def test_a_killed_process_is_an_error_that_names_its_item(functions):
    items = [(number, "SIGKILL" if number == 2 else "") for number in range(50)]
    with pytest.raises(
        OSError, match=r"Expected .*\(2, 'SIGKILL'\) .*; got signal 9\. .*--workers"
    ):
        list(run_all(functions.kill, items, 2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_exits_is_an_error_that_names_its_item(functions, code):
    with pytest.raises(OSError, match=rf"on {code} .*; got exit code {code}\."):
        list(run_all(functions.exit_with, [code], 2))


def test_a_worker_ignores_an_interrupt(functions):
    items = [(number, "SIGINT") for number in range(4)]
    assert sorted(run_all(functions.kill, items, 2)) == [(item, item[0]) for item in items]


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("seconds", [0.2, 60], ids=["short items", "long items"])
def test_workers_end_when_their_parent_is_killed(functions, tmp_path, seconds):
    program = tmp_path / "parent.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {os.path.dirname(functions.__file__)!r})
from jdfd_keras.io.workers import run_all
from worker_functions import report_process_and_sleep
if __name__ == "__main__":
    items = (({str(tmp_path / "processes")!r}, {seconds}) for _ in range(10_000))
    for _ in run_all(report_process_and_sleep, items, 2):
        pass
""")
    (tmp_path / "processes").mkdir()
    parent = subprocess.Popen([sys.executable, str(program)])
    workers = []
    try:
        deadline = time.monotonic() + 20
        while len(workers) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            workers = [int(name) for name in os.listdir(tmp_path / "processes")]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 5
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [process for process in workers if is_alive(process)] == []
    finally:
        for process in [parent.pid, *workers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        parent.wait()


def test_workers_are_at_most_one_per_item_and_by_default_one_per_core(monkeypatch):
    assert count_workers(3, num_items=10) == 3
    assert count_workers(3, num_items=2) == 2
    assert count_workers(3, num_items=0) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert count_workers(0, num_items=10) == 3
    assert count_workers(0, num_items=1) == 1
