import collections
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from jdfd_keras.io import console
from jdfd_keras.io.worker_process import IDLE
from jdfd_keras.io.workers import (
    LimitExceeded,
    Part,
    WorkerCrashed,
    Workers,
    check_limits,
    count_workers,
    run_all,
    run_with_progress,
)
from jdfd_keras.options import LimitOptions

NO_LIMITS = LimitOptions(max_seconds=0, max_memory=0)


OTHERS = set()


@pytest.fixture(autouse=True)
def other_processes():
    """Processes that were there before, such as that of a server of other tests."""
    OTHERS.update(psutil.Process().children(recursive=True))


def children():
    return [child for child in psutil.Process().children(recursive=True) if child not in OTHERS]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_item_has_its_result(functions, num_workers):
    results = list(run_all(functions.double, range(20), num_workers))
    assert sorted(results) == [(number, 2 * number) for number in range(20)]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_fewer_items_than_workers_and_no_items_are_allowed(functions, num_workers):
    assert list(run_all(functions.double, [4], num_workers)) == [(4, 8)]
    assert list(run_all(functions.double, [], num_workers)) == []


def test_the_work_is_done_in_other_processes(functions):
    (alone,) = {process for _, process in run_all(functions.process_id, [1, 2], 1)}
    assert alone != os.getpid()
    (single,) = {process for _, process in run_all(functions.process_id, [1], 1)}
    assert single != os.getpid()
    processes = {process for _, process in run_all(functions.process_id, range(40), 2)}
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


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_exception_of_the_function_is_raised_and_the_other_processes_stop(
    functions, num_workers
):
    results, start = [], time.monotonic()
    with pytest.raises(FileNotFoundError, match="no file 3"):
        results.extend(run_all(functions.fail_at, range(500), num_workers))
    assert time.monotonic() - start < 10
    assert children() == []


def test_processes_end_when_the_iterator_is_closed(functions):
    results = run_all(functions.sleep, [0, 60, 60, 60], 2)
    assert next(results) == (0, 0)
    assert len(children()) == 2
    results.close()
    assert children() == []


def test_processes_end_with_the_last_item(functions):
    list(run_all(functions.double, range(3), 2))
    assert children() == []


@pytest.mark.parametrize("function", ["raise_unpicklable_class", "raise_unpicklable_argument"])
def test_the_message_of_an_unpicklable_exception_is_kept(functions, function):
    with pytest.raises(Exception, match="this and 1|beyond pickling"):
        list(run_all(getattr(functions, function), [1], 2))
    assert children() == []


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_an_item_that_ends_its_process_fails_alone(functions, fault, num_workers):
    items = [(number, fault if number == 2 else "") for number in range(6)]
    results = dict(run_all(functions.kill, items, num_workers))
    crashed = results.pop((2, fault))
    assert type(crashed) is WorkerCrashed and f"twice ({fault})" in str(crashed)
    assert ("memory" in str(crashed)) == (fault == "SIGKILL")
    assert results == {(number, ""): number for number in (0, 1, 3, 4, 5)}
    assert children() == []


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_exits_costs_its_item(functions, code):
    ((item, crashed),) = run_all(functions.exit_with, [code], 1)
    assert item == code and f"died twice (exit code {code})" in str(crashed)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_memory_error_costs_its_item(functions, num_workers):
    items = [(number, number == 1) for number in range(4)]
    results = dict(run_all(functions.run_out_of_memory, items, num_workers))
    reason = str(results.pop((1, True)))
    assert "twice (MemoryError), perhaps because memory ran out" in reason
    assert results == {(number, False): number for number in (0, 2, 3)}


def test_every_item_may_crash_its_process(functions):
    items = [(number, "SIGSEGV") for number in range(3)]
    results = dict(run_all(functions.kill, items, 2))
    assert sorted(results) == items
    assert {type(result) for result in results.values()} == {WorkerCrashed}


def test_an_item_that_ended_its_process_is_tried_again_once_and_alone(functions, tmp_path):
    items = [(str(tmp_path), number, number in (0, 3)) for number in range(8)]
    results = list(run_all(functions.record_overlap, items, 3))
    assert sorted(number for (_, number, _), _ in results[-2:]) == [0, 3]
    for number in range(8):
        tries = (tmp_path / f"tries-{number}").read_text().split()
        assert len(tries) == (2 if number in (0, 3) else 1)
        if number in (0, 3):
            assert tries[1] == "1"


def test_an_item_whose_process_crashed_is_tried_again(functions, tmp_path):
    items = [str(tmp_path / name) for name in "abc"]
    assert dict(run_all(functions.crash_once, items, 2)) == dict.fromkeys(items, "done")


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(
    ("item", "limits", "reason"),
    [
        ("sleep", {"max_seconds": 0.5}, "took more than 0.5 s. Try --max-seconds 1, or 0"),
        ("allocate", {"max_memory": 0.1}, "more than 0.1 GB of memory. Try --max-memory 0.2, or 0"),
    ],
)
def test_an_item_beyond_a_limit_is_stopped_and_not_tried_again(
    functions, num_workers, item, limits, reason
):
    limits = LimitOptions(**{"max_seconds": 0, "max_memory": 0} | limits)
    start = time.monotonic()
    results = dict(run_all(functions.die_by_name, ["a", item, "b", "c"], num_workers, limits))
    assert time.monotonic() - start < 10
    exceeded = results.pop(item)
    assert isinstance(exceeded, LimitExceeded) and reason in str(exceeded)
    assert set(results) == {"a", "b", "c"}
    assert children() == []


def test_a_limit_is_kept_while_the_caller_does_other_work(functions):
    results = run_all(
        functions.die_by_name, ["a", "sleep"], 2, LimitOptions(max_seconds=0.5, max_memory=0)
    )
    assert next(results)[0] == "a"
    time.sleep(2)
    assert [child.status() for child in children()].count(psutil.STATUS_ZOMBIE) == 1
    ((item, exceeded),) = results
    assert item == "sleep" and isinstance(exceeded, LimitExceeded)


def test_the_time_until_the_caller_takes_a_result_does_not_count(functions):
    limits = LimitOptions(max_seconds=3, max_memory=0)
    large = "b" * 10**6  # more than a pipe holds
    results = run_all(functions.double, ["a", large], 2, limits)
    first = next(results)
    time.sleep(4)
    assert {item: len(result) for item, result in [first, *results]} == {"a": 2, large: 2 * 10**6}


def test_the_start_of_a_process_does_not_count(functions, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = LimitOptions(max_seconds=0.5, max_memory=0)
    start = time.monotonic()
    assert list(run_all(functions.double, [1], 1, limits)) == [(1, 2)]
    assert time.monotonic() - start > 1


def test_0_is_no_limit(functions):
    assert list(run_all(functions.sleep, [0.5], 1, NO_LIMITS)) == [(0.5, 0.5)]
    threads = threading.active_count()
    assert list(run_all(functions.sleep, [0.5], 1, LimitOptions())) == [(0.5, 0.5)]
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    "name",
    ["max_seconds", "max_pixels", "max_memory", "max_faces_per_frame", "max_duration_s"],
)
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_negative_limit_is_an_error_that_names_its_flag(name, value):
    with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')}\b.* 0; got .*{value}"):
        check_limits(LimitOptions(**{name: value}))


def test_a_process_that_cannot_start_ends_the_run(functions, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(OSError, match=r"can start to work; got one that ended \(exit code 7"):
            list(run_all(functions.double, range(9), 2))
    gone = tmp_path / "vanishing.py"
    gone.write_text("def double(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    import vanishing

    gone.unlink()
    with pytest.raises(OSError, match="can start to work; got ModuleNotFoundError: .*'vanishing'"):
        list(run_all(vanishing.double, range(9), 2))
    del sys.modules["vanishing"]
    assert children() == []


def test_temporary_files_of_a_process_are_deleted(functions):
    results = list(run_all(functions.leave_a_temporary_file, range(2), 1))
    assert [name for _, name in results if Path(name).exists()] == []


def test_a_worker_ignores_an_interrupt(functions):
    items = [(number, "SIGINT") for number in range(4)]
    assert sorted(run_all(functions.kill, items, 2)) == [(item, item[0]) for item in items]


def test_parts_come_in_order_before_the_result_of_their_item(functions):
    with Workers(functions.count_slowly, 2, has_parts=True) as workers:
        workers.send([40, 20, 30])
        received = list(workers.receive())
    for number in (20, 30, 40):
        *parts, result = [value for item, value in received if item == number]
        assert result == number and len(parts) > 3
        assert [part.value for part in parts] == sorted({part.value for part in parts})
    assert children() == []


def test_no_process_waits_for_a_caller_that_takes_no_part(functions):
    with Workers(functions.count_slowly, 1, NO_LIMITS, has_parts=True) as workers:
        workers.send([50])
        time.sleep(3)  # the item is done
        start = time.monotonic()
        received = [value for _, value in workers.receive()]
        assert received[-1] == 50 and len(received) <= 2
        assert time.monotonic() - start < 0.5


def test_a_part_that_is_not_requested_is_not_computed(functions):
    with Workers(functions.fail_if_a_part_is_made, 1, has_parts=True) as workers:
        workers.send([1])
        time.sleep(3)
        assert list(workers.receive()) == [(1, None)]


def test_the_parts_of_a_process_that_died_begin_anew(functions, tmp_path):
    path = str(tmp_path / "crashed")
    with Workers(functions.send_and_crash_once, 2, has_parts=True) as workers:
        workers.send([path])
        *parts, (_, result) = workers.receive()
    values = [part.value for _, part in parts]
    assert result == "done" and all(isinstance(part, Part) for _, part in parts)
    assert sum(later <= earlier for earlier, later in itertools.pairwise(values)) == 1


def test_the_progress_of_one_item_is_shown(functions, monkeypatch, capsys):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.1)
    assert run_with_progress(functions.count_slowly, 100, "annotating") == 100
    *lines, last = capsys.readouterr().err.splitlines()
    assert lines and all("/100 frames, about " in line for line in lines)
    assert last.startswith("annotating: 100/100 frames, ")


def take_from(items):
    """Return a function that takes items as they come."""
    return lambda: items.popleft() if items else IDLE


def serve_all(function, items, num_workers=2, limits=None):
    """Serve items that are all there; end once each has a result."""
    received = []
    with Workers(function, num_workers, limits) as workers:
        for item, result in workers.serve(take_from(collections.deque(items))):
            received.append((item, result))
            if len(received) == len(items):
                workers.end()
    return received


def test_items_are_served_that_come_while_others_run(functions):
    items, received = collections.deque([0.4]), []
    with Workers(functions.sleep, 2) as workers:

        def add():
            time.sleep(0.2)
            items.extend([0, 0.01])
            workers.wake()
            time.sleep(1)  # all are done, and nothing runs
            items.append(0.02)
            workers.wake()

        workers.start()
        thread = threading.Thread(target=add)
        thread.start()
        for item, result in workers.serve(take_from(items)):
            assert item == result
            received.append(item)
            if len(received) == 4:
                break
        thread.join()
        workers.wake()  # nobody serves
    assert sorted(received) == [0, 0.01, 0.02, 0.4]
    workers.wake()  # after the end
    assert children() == []


def test_serving_ends_at_once_while_all_processes_are_busy(functions):
    with Workers(functions.sleep, 2) as workers:
        workers.start()
        timer = threading.Timer(1, workers.end)
        timer.start()
        start = time.monotonic()
        assert list(workers.serve(take_from(collections.deque([60, 60])))) == []
        assert time.monotonic() - start < 10
        timer.join()
    assert children() == []


def test_nothing_is_taken_again_and_again_while_there_is_nothing(functions):
    calls = []

    def take():
        calls.append(1)
        return 30 if len(calls) == 1 else IDLE

    with Workers(functions.count_slowly, 2, has_parts=True) as workers:
        for number, (_, result) in enumerate(workers.serve(take)):
            if not isinstance(result, Part):
                assert number > 3
                break
    assert len(calls) == 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_item_that_ends_its_process_is_served_again_once_and_others_as_usual(
    functions, num_workers
):
    items = [(number, "SIGKILL" if number in (1, 3) else "") for number in range(6)]
    results = dict(serve_all(functions.kill, items, num_workers))
    for number in (1, 3):
        crashed = results.pop((number, "SIGKILL"))
        assert isinstance(crashed, WorkerCrashed) and "twice (SIGKILL)" in str(crashed)
    assert results == {(number, ""): number for number in (0, 2, 4, 5)}


def test_an_item_is_served_again_alone(functions, tmp_path):
    items = [(str(tmp_path), number, number in (0, 3)) for number in range(8)]
    results = serve_all(functions.record_overlap, items, 3)
    assert sorted(number for (_, number, _), _ in results) == list(range(8))
    for number in range(8):
        tries = (tmp_path / f"tries-{number}").read_text().split()
        assert len(tries) == (2 if number in (0, 3) else 1)
        if number in (0, 3):
            assert tries[1] == "1"


def test_an_exception_of_the_function_is_the_result_of_its_item(functions):
    results = dict(serve_all(functions.fail_at, list(range(6))))
    error = results.pop(3)
    assert isinstance(error, FileNotFoundError) and "no file 3" in str(error)
    assert results == {number: number for number in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize(
    ("item", "limits", "code"),
    [
        ("sleep", {"max_seconds": 0.5}, "too_long"),
        ("allocate", {"max_memory": 0.1}, "out_of_memory"),
        ("kill", {}, "out_of_memory"),
        ("memory", {}, "out_of_memory"),
        ("exit", {}, "crashed"),
    ],
)
def test_the_reason_why_a_process_died_has_a_code(functions, item, limits, code):
    limits = LimitOptions(**{"max_seconds": 0, "max_memory": 0} | limits)
    results = dict(serve_all(functions.die_by_name, ["a", item, "b"], 1, limits))
    assert isinstance(results[item], WorkerCrashed) and results[item].code == code
    assert results["a"] != os.getpid() != results["b"]


UNGUARDED = """
import sys
sys.path.insert(0, {folder!r})
print("once")
from jdfd_keras.io.workers import run_all
from worker_functions import double
print(sorted(run_all(double, [1, 2, 3], 2)))
"""


@pytest.mark.parametrize("is_file", [True, False], ids=["a file", "the standard input"])
def test_a_script_needs_no_guard(functions, tmp_path, is_file):
    text = UNGUARDED.format(folder=os.path.dirname(functions.__file__))
    (tmp_path / "script.py").write_text(text)
    words = [sys.executable, str(tmp_path / "script.py") if is_file else "-"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("once\n[(1, 2), (2, 4), (3, 6)]\n", "")


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


def test_a_function_that_forks_gives_no_item_the_result_of_another(functions):
    assert sorted(run_all(functions.fork, range(30), 2)) == [(item, item) for item in range(30)]


def test_a_program_that_a_function_started_ends_with_its_process(functions, tmp_path):
    path = tmp_path / "program"
    limits = LimitOptions(max_seconds=1, max_memory=0)
    [(_, result)] = run_all(functions.start_program, [str(path)], 1, limits)
    assert isinstance(result, LimitExceeded)
    program = int(path.read_text())
    end = time.monotonic() + 10
    while psutil.pid_exists(program) and time.monotonic() < end:
        if psutil.Process(program).status() == psutil.STATUS_ZOMBIE:  # nobody has read its end
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(program)


def test_a_function_has_no_input(functions):
    assert list(run_all(functions.read_input, [1], 1)) == [(1, "")]
