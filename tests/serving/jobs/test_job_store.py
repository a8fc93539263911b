import errno
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jdfd_keras.options import PredictOptions
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import JobError, Outcome, QueueFullError, Submission

ROOT = Path(__file__).parents[3]
FAKE = Outcome({"files": ["a fake"]}, "fake", 0.9)
BROKEN = Outcome({"failed": ["no video"]}, error=JobError("undecodable", "not a video \udc80"))


def submission(number=0, **changes):
    """Return a submission that differs by its number."""
    values = {"sha256": f"{number:064x}", "file_bytes": 9, "suffix": ".mp4", "path": ""}
    values |= {"options": PredictOptions(threshold=0.25), "annotate": False}
    return Submission(**values | {"digest": "ab", "engine": "CPU"} | changes)


def crash(_):
    """Return the outcome of an analysis that a server did not survive."""
    return Outcome({"failed": []}, error=JobError("crashed", "the server died"))


@pytest.fixture
def path(tmp_path):
    """Path of a database that does not exist yet."""
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path):
    """An empty store for 3 queued analyses."""
    with JobStore(path, max_queued=3) as store:
        yield store


def states(store, *jobs):
    """Return the states of jobs, and their positions if they are queued."""
    return [(job.state, job.position) for job in map(store.get, [job.id for job in jobs])]


def later(seconds):
    """Return a time from now, as ISO text."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_job_goes_from_queued_over_running_to_done(store):
    job, is_new = store.submit(submission(), "clip.mp4")
    assert (is_new, job.state, job.position, job.attempts) == (True, "queued", 1, 0)
    assert re.fullmatch(r"[0-9a-f]{32}", job.id)
    assert store.claim() == (submission().key, submission())
    assert store.claim() is None
    running = store.get(job.id)
    assert (running.state, running.position, running.attempts) == ("running", 0, 1)
    assert (running.finished_at, running.result, running.error) == ("", None, None)
    assert store.finish(submission().key, FAKE)
    done = store.get(job.id)
    assert (done.state, done.verdict, done.score) == ("done", "fake", 0.9)
    assert done.result == {"files": ["a fake"]}
    assert job.created_at <= done.finished_at <= later(0)
    assert done.submission == submission()


def test_a_failed_analysis_has_a_result_and_a_reason(store):
    job, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.finish(submission().key, BROKEN)
    failed = store.get(job.id)
    assert (failed.state, failed.verdict, failed.score) == ("failed", "", None)
    assert failed.error == JobError("undecodable", "not a video \udc80")
    assert failed.result == {"failed": ["no video"]}


def test_the_same_analysis_name_and_callback_are_the_same_job(store):
    first, _ = store.submit(submission(), "clip.mp4", "http://a/")
    assert store.submit(submission(), "clip.mp4", "http://a/") == (first, False)
    other_name, is_new = store.submit(submission(), "other.mp4", "http://a/")
    assert is_new
    other_callback, is_new = store.submit(submission(), "clip.mp4")
    assert is_new
    assert len({first.id, other_name.id, other_callback.id}) == 3
    assert store.claim()
    assert store.claim() is None, "they share one analysis"
    store.finish(submission().key, FAKE)
    assert {store.get(job.id).score for job in (first, other_name, other_callback)} == {0.9}


def test_a_new_job_of_a_finished_analysis_is_done_at_once(store):
    store.submit(submission(), "clip.mp4")
    store.claim()
    store.finish(submission().key, FAKE)
    job, is_new = store.submit(submission(), "copy.mp4")
    assert (is_new, job.state, job.result) == (True, "done", FAKE.result)
    assert store.claim() is None


@pytest.mark.parametrize(
    "change",
    [
        {"options": PredictOptions(threshold=0.5)},
        {"annotate": True},
        {"digest": "cd"},
        {"engine": "GPU"},
        {"suffix": ".png"},
        {"path": "/data/clip.mp4"},
    ],
)
def test_another_analysis_of_the_same_bytes_is_done_too(store, change):
    first, _ = store.submit(submission(), "clip.mp4")
    second, is_new = store.submit(submission(**change), "clip.mp4")
    assert is_new
    assert states(store, first, second) == [("queued", 1), ("queued", 2)]


def test_a_failed_analysis_that_is_submitted_again_is_queued_again_for_all_its_jobs(store):
    first, _ = store.submit(submission(), "clip.mp4")
    second, _ = store.submit(submission(), "other.mp4")
    store.claim()
    store.finish(submission().key, BROKEN)
    job, is_new = store.submit(submission(), "clip.mp4")
    assert (job.id, is_new) == (first.id, False)
    assert (job.error, job.result, job.finished_at, job.attempts) == (None, None, "", 0)
    assert states(store, first, second) == [("queued", 1), ("queued", 1)]
    store.claim()
    store.finish(submission().key, FAKE)
    assert states(store, first, second) == [("done", 0), ("done", 0)]


def test_the_queue_is_bounded_but_not_for_jobs_that_need_no_new_analysis(store):
    jobs = [store.submit(submission(number), "clip.mp4")[0] for number in range(3)]
    assert store.is_full()
    with pytest.raises(QueueFullError, match="fewer than 3 queued files; got 3"):
        store.submit(submission(3), "clip.mp4")
    assert store.list()[1] == 3, "a refused job leaves nothing"
    assert store.submit(submission(2), "clip.mp4") == (jobs[2], False)
    assert store.submit(submission(2), "other.mp4")[1]
    store.claim()
    assert not store.is_full()
    store.submit(submission(3), "clip.mp4")
    store.finish(submission(0).key, BROKEN)
    with pytest.raises(QueueFullError):
        store.submit(submission(0), "clip.mp4")
    assert store.get(jobs[0].id).state == "failed"


def test_analyses_are_claimed_in_the_order_of_their_submission(store):
    for number in (2, 0, 1):
        store.submit(submission(number), "clip.mp4")
    claimed = [store.claim()[1] for _ in range(3)]
    assert claimed == [submission(2), submission(0), submission(1)]


def test_positions_count_the_queued_analyses_before(store):
    jobs = [store.submit(submission(number), "clip.mp4")[0] for number in range(3)]
    assert [job.position for job in store.list()[0]] == [3, 2, 1]
    store.claim()
    assert states(store, *jobs) == [("running", 0), ("queued", 1), ("queued", 2)]
    store.delete(jobs[1].id)
    assert store.get(jobs[2].id).position == 1


def test_a_released_analysis_is_the_next_again_and_its_attempt_does_not_count(store):
    jobs = [store.submit(submission(number), "clip.mp4")[0] for number in range(2)]
    store.claim()
    store.release(submission(0).key)
    assert states(store, *jobs) == [("queued", 1), ("queued", 2)]
    assert store.get(jobs[0].id).attempts == 0
    assert store.claim()[1] == submission(0)


def test_running_analyses_are_queued_again_after_a_restart_until_they_crashed_too_often(path):
    for attempt in (1, 2, 3):
        with JobStore(path, max_queued=3) as store:
            store.recover(3, crash)
            job, _ = store.submit(submission(), "clip.mp4", "http://a/")
            assert job.state == "queued"
            store.claim()
            assert store.get(job.id).attempts == attempt
    with JobStore(path, max_queued=3) as store:
        store.recover(3, crash)
        assert store.get(job.id).error.code == "crashed"
        assert store.callbacks.find(job.id).state == "waiting"
        assert store.claim() is None


def test_an_analysis_that_was_interrupted_twice_waits_behind_the_others(tmp_path):
    with JobStore(tmp_path / "jobs.sqlite", max_queued=9) as store:
        jobs = [store.submit(submission(number), "a.mp4")[0] for number in range(3)]
        orders = []
        for _ in range(3):
            [key, _] = store.claim()
            store.recover(9, crash)
            places = {store.get(job.id).position: job.submission.sha256[-1] for job in jobs}
            orders.append((key == jobs[0].submission.key, "".join(map(places.get, (1, 2, 3)))))
    # The first interruption may be chance; after the second, the next one has its turn.
    assert orders == [(True, "012"), (True, "120"), (False, "120")]


def test_recovery_leaves_queued_and_finished_jobs_as_they_are(store):
    jobs = [store.submit(submission(number), "clip.mp4")[0] for number in range(3)]
    store.claim()
    store.finish(submission(0).key, FAKE)
    store.claim()
    store.recover(3, crash)
    assert states(store, *jobs) == [("done", 0), ("queued", 1), ("queued", 2)]


def test_deleting_a_job_leaves_the_others_of_its_analysis(store):
    first, _ = store.submit(submission(), "clip.mp4")
    second, _ = store.submit(submission(), "other.mp4")
    store.claim()
    store.finish(submission().key, FAKE)
    assert store.delete(first.id)
    assert not store.delete(first.id)
    assert store.get(first.id) is None
    assert store.get(second.id).result == FAKE.result
    assert store.live_names().keys == {submission().key}
    store.delete(second.id)
    assert store.live_names() == type(store.live_names())(frozenset(), frozenset(), frozenset())


def test_a_deleted_job_that_was_queued_is_not_done(store):
    job, _ = store.submit(submission(), "clip.mp4")
    store.delete(job.id)
    assert store.claim() is None


def test_the_result_of_a_deleted_job_that_was_running_is_discarded(store):
    job, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.delete(job.id)
    assert store.live_names().keys == {submission().key}, "it still writes its files"
    assert not store.finish(submission().key, FAKE)
    assert store.live_names().keys == frozenset()
    assert store.submit(submission(), "clip.mp4")[0].state == "queued"


@pytest.mark.parametrize("end", ["release", "recover"])
def test_a_running_analysis_of_a_deleted_job_is_not_queued_again(store, end):
    job, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.delete(job.id)
    store.release(submission().key) if end == "release" else store.recover(3, crash)
    assert store.claim() is None
    assert store.live_names().keys == frozenset()


def test_a_job_that_is_deleted_and_submitted_again_while_running_is_done_once(store):
    job, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.delete(job.id)
    again, is_new = store.submit(submission(), "clip.mp4")
    assert (is_new, again.state, again.id != job.id) == (True, "running", True)
    assert store.claim() is None
    assert store.finish(submission().key, FAKE)
    assert store.get(again.id).state == "done"


def test_a_second_outcome_of_an_analysis_changes_nothing(store):
    job, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.finish(submission().key, FAKE)
    assert store.finish(submission().key, BROKEN)
    assert store.get(job.id).state == "done"
    assert not store.finish("unknown", BROKEN)


def test_only_finished_jobs_expire_by_the_time_of_their_end(store):
    jobs = [store.submit(submission(number), "clip.mp4")[0] for number in range(3)]
    store.claim()
    store.claim()
    store.finish(submission(0).key, FAKE)
    assert store.expire(later(-60)) == []
    assert store.expire(later(60)) == [jobs[0].id]
    assert store.get(jobs[0].id) is None
    assert states(store, *jobs[1:]) == [("running", 0), ("queued", 1)]
    assert store.live_names().keys == {submission(1).key, submission(2).key}


def test_a_new_job_of_an_old_analysis_does_not_expire_with_the_old_ones(store):
    old, _ = store.submit(submission(), "clip.mp4")
    store.claim()
    store.finish(submission().key, FAKE)
    time.sleep(0.005)
    between = later(0)
    time.sleep(0.005)
    new, _ = store.submit(submission(), "copy.mp4")
    assert store.expire(between) == [old.id]
    assert store.get(new.id).result == FAKE.result


def test_deleted_names_and_results_do_not_stay_in_the_files(store, path):
    job, _ = store.submit(submission(), "private-name.mp4")
    store.claim()
    store.finish(submission().key, Outcome({"files": ["private-result" * 1000]}, "real", 0.1))
    files = [path, Path(f"{path}-wal")]
    assert any(b"private-result" in file.read_bytes() for file in files)
    store.expire(later(60))
    assert not any(b"private" in file.read_bytes() for file in files)


def test_live_names_are_those_of_uploads_and_not_of_files_below_a_root(store):
    job, _ = store.submit(submission(1), "a.mp4")
    other, _ = store.submit(submission(2, path="/data/b.mp4"), "b.mp4")
    names = store.live_names()
    assert names.uploads == {f"{1:064x}.mp4"}
    assert names.keys == {submission(1).key, submission(2, path="/data/b.mp4").key}
    assert names.job_ids == {job.id, other.id}


NAMES = ("Straße 100%.mp4", "a_b.mp4", "Übung.mov", "ab.png")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", NAMES),
        ("A_B", ("a_b.mp4",)),
        ("%", ("Straße 100%.mp4",)),
        ("STRASSE", ("Straße 100%.mp4",)),
        ("u\u0308BUNG", ("Übung.mov",)),
        ("\\", ()),
        ("' OR 1=1 --", ()),
        ("x" * 100_000, ()),
        (f"{1:064x}", ("a_b.mp4",)),
        (f"{1:064X}"[:64], ("a_b.mp4",)),
        ("0" * 20, NAMES),
        ("*", ()),
    ],
)
def test_a_query_is_part_of_a_name_or_the_start_of_a_hash(path, query, found):
    with JobStore(path, max_queued=9) as store:
        for number, name in enumerate(NAMES):
            store.submit(submission(number), name)
        jobs, total = store.list(query)
    assert tuple(job.name for job in reversed(jobs)) == found
    assert total == len(found)


def test_lists_are_newest_first_and_have_pages_without_results(path):
    with JobStore(path, max_queued=9) as store:
        for number in range(5):
            store.submit(submission(number), f"{number}.mp4")
        store.claim()
        store.finish(submission(0).key, FAKE)
        pages = [[job.name[0] for job in store.list(limit=2, offset=o)[0]] for o in (0, 2, 4, 6)]
        assert pages == [["4", "3"], ["2", "1"], ["0"], []]
        oldest = store.list(limit=2**70, offset=4)[0][0]
        assert (oldest.verdict, oldest.score, oldest.result) == ("fake", 0.9, None)
        assert store.list(limit=0, offset=2**70) == ([], 5)
        with pytest.raises(ValueError, match="at least 0; got -1 and 0"):
            store.list(limit=-1)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a\udc80.mp4", "a\\udc80.mp4"),
        ("a\x00b", "a\\x00b"),
        ("'; DROP TABLE jobs; --", "'; DROP TABLE jobs; --"),
        ("<b>\n\u202e🎬", "<b>\n\u202e🎬"),
        ("", ""),
        ("n" * 10_000, "n" * 10_000),
    ],
)
def test_any_text_can_be_a_name(store, name, stored):
    job, _ = store.submit(submission(), name, name)
    assert store.get(job.id).name == stored
    assert store.submit(submission(), name, name) == (job, False)
    assert store.list(name)[1] == 1
    assert store.get(name) is None
    assert not store.delete(name)


def test_a_path_that_is_not_utf8_comes_back_as_it_was(store):
    path = os.fsdecode(b"/data/\xff.mp4")
    job, _ = store.submit(submission(path=path), "clip.mp4")
    assert store.get(job.id).submission.path == path


def test_waiting_for_work_ends_when_something_is_queued(store):
    started = threading.Event()

    def wait():
        started.set()
        store.wait_for_work(30.0)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    store.submit(submission(), "clip.mp4")
    thread.join(10.0)
    assert not thread.is_alive()
    start = time.monotonic()
    store.wait_for_work(30.0)
    assert time.monotonic() - start < 10, "what was queued before is work too"
    store.claim()
    start = time.monotonic()
    store.wait_for_work(0.05)
    assert time.monotonic() - start >= 0.04


def test_many_threads_claim_each_analysis_once(path):
    with JobStore(path, max_queued=100) as store:
        claimed = []

        def work(first):
            for number in range(first, 40, 4):
                store.submit(submission(number), "clip.mp4")
                claimed.append(store.claim()[0])
                store.list()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == sorted(submission(number).key for number in range(40))


def test_the_database_is_private_and_as_durable_as_sqlite_can(store, path):
    store.submit(submission(), "clip.mp4")
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["jobs.sqlite", "jobs.sqlite-shm", "jobs.sqlite-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    db = store._database._db
    pragmas = ("journal_mode", "synchronous", "foreign_keys")
    assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas] == ["wal", 2, 1]


def test_a_full_disk_is_an_error_of_its_own_and_keeps_nothing_half(store):
    kept, _ = store.submit(submission(0), "clip.mp4")
    db = store._database._db
    [pages] = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="free disk space") as caught:
        store.submit(submission(1), "n" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    store.claim()
    with pytest.raises(OSError, match="free disk space"):
        store.finish(submission(0).key, Outcome({"files": ["x" * 100_000]}, "real", 0.1))
    assert store.list()[1] == 1
    assert states(store, kept) == [("running", 0)]
    db.execute("PRAGMA max_page_count = 1000000")
    store.finish(submission(0).key, FAKE)
    assert states(store, kept) == [("done", 0)]


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from tests.serving.jobs.test_job_store import *\n"
        "store = JobStore(Path(sys.argv[1]), 3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    store.submit(submission(), 'n' * 1_000_000)\n"
        "except OSError as error:\n    print(error.errno == errno.ENOSPC, store.list()[1])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "jobs.sqlite")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["True", "0"], run.stderr


def damage_header(path):
    path.write_bytes(b"this is not a database" * 100)


def damage_pages(path):
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)


def damage_submission(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE analyses SET submission = '{}'")
    db.close()


def damage_result(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE analyses SET result = '{', state = 'done'")
    db.close()


@pytest.mark.parametrize("damage", [damage_header, damage_pages, damage_submission, damage_result])
def test_a_damaged_database_is_an_error_that_names_it(path, damage):
    with JobStore(path, max_queued=3) as store:
        job, _ = store.submit(submission(), "clip.mp4")
    damage(path)

    def read():
        with JobStore(path, max_queued=3) as store:
            store.get(job.id)

    with pytest.raises(OSError, match=f"Expected a database of jobs in {path}; got '.+'. Try "):
        read()


@pytest.mark.parametrize(
    ("statement", "version"), [("PRAGMA user_version = 7", 7), ("CREATE TABLE t (a)", 0)]
)
def test_another_schema_version_is_refused_and_left_as_it_is(path, statement, version):
    db = sqlite3.connect(path)
    db.execute(statement)
    db.close()
    with pytest.raises(OSError, match=f"Expected schema version 1 in {path}; got {version}"):
        JobStore(path, max_queued=3)
    db = sqlite3.connect(path)
    assert db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'jobs'").fetchone() == (0,)
    db.close()


def test_a_database_that_another_program_holds_is_an_error(store, path, monkeypatch):
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    store._database._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(OSError, match="got 'database is locked'"):
        store.submit(submission(), "clip.mp4")
    other.close()
    assert store.submit(submission(), "clip.mp4")[1]


def test_a_killed_process_loses_and_doubles_nothing(tmp_path):
    """A fresh process forks 30 children that use the store, and kills each at a random moment."""
    kills = 30
    command = [sys.executable, "-m", "tests.serving.jobs.test_job_store", str(tmp_path), str(kills)]
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    done_at = {key: at for at, (step, key) in enumerate(lines) if step == "finished"}
    submitted = {key for step, key in lines if step == "submitted"}
    assert len(done_at) > kills, "the children came to work"
    late = [
        key
        for at, (step, key) in enumerate(lines)
        if step == "claimed" and at > done_at.get(key, len(lines))  # killed before it was logged
    ]
    assert late == [], "nothing that is finished is done again"
    assert max(Counter(key for step, key in lines if step == "finished").values()) == 1
    with JobStore(tmp_path / "jobs.sqlite", 10**6) as store:
        jobs, total = store.list(limit=10**6)
        assert submitted <= {job.submission.key for job in jobs}, "nothing that is stored is lost"
        assert len({job.submission.key for job in jobs}) == total, "each job is stored once"
        assert {job.state for job in jobs} == {"done"}
        for job in jobs:
            assert store.get(job.id).result == {"key": job.submission.key}
            assert store.callbacks.find(job.id).state == "waiting"


def use_store(folder, first):
    """Submit, claim and finish; log each step after it returned, or before a claimed one."""
    with open(folder / "log", "a") as log, JobStore(folder / "jobs.sqlite", 10**6) as store:

        def write(step, key):
            log.write(f"{step} {key}\n")
            log.flush()

        store.recover(10**6, crash)
        for number in range(first, first + 1000):
            for name in ("clip.mp4", "clip.mp4"):  # as a client that had no answer
                store.submit(submission(number), name, "http://a/")
            write("submitted", submission(number).key)
            if number % 3 == 0:
                continue  # so that a queue is left
            drain(store, write, 1)


def drain(store, write, count):
    """Finish queued analyses."""
    while count and (claimed := store.claim()):
        key, _ = claimed
        write("claimed", key)
        store.finish(key, Outcome({"key": key}, "fake", 0.9))
        write("finished", key)
        count -= 1


def main(folder, kills):
    """Fork and kill the children, then finish what they left."""
    moments = random.Random(0)
    for number in range(kills):
        child = os.fork()
        if child == 0:
            use_store(folder, 1000 * number)
            os._exit(0)
        time.sleep(moments.uniform(0.005, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with open(folder / "log", "a") as log, JobStore(folder / "jobs.sqlite", 10**6) as store:
        store.recover(10**6, crash)
        drain(store, lambda step, key: log.write(f"{step} {key}\n"), -1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
