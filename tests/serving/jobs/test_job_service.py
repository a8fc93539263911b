"""Jobs and files come and go together, whatever happens in between."""

import dataclasses
import errno
import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.io import files as files_module
from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.origin import recorded_command
from jdfd_keras.options import PredictOptions
from jdfd_keras.serving.jobs import job_runner, job_service, state_folder
from jdfd_keras.serving.jobs.job_types import QueueFullError
from jdfd_keras.serving.jobs.state_folder import state_directory
from tests.serving.jobs.real_service import (
    files_below,
    make_predictor,
    running_service,
    submit,
    wait_for,
    wait_until,
)


@pytest.fixture(scope="module")
def clip(clips_folder):
    return sorted(clips_folder.rglob("real/*.mp4"))[0]


@pytest.fixture
def idle(monkeypatch):
    """Services that queue, but analyse nothing."""
    monkeypatch.setattr(job_runner.JobRunner, "start", lambda self: None)


def stored(service):
    return files_below(service.state / "files"), files_below(service.state / "results")


def test_an_upload_is_on_disk_before_its_job(clip, tmp_path, idle, monkeypatch):
    synced, order = [], []
    for module in (state_folder, files_module):
        monkeypatch.setattr(module, "sync", lambda path: synced.append(Path(path)))
    monkeypatch.setattr(job_service, "sync", lambda path: synced.append(Path(path)))
    with running_service(tmp_path / "state") as service:
        store = service.store.submit

        def record(*arguments):
            order.append((stored(service)[0], list(synced)))
            return store(*arguments)

        monkeypatch.setattr(service.store, "submit", record)
        job, is_new = submit(service, clip)
        [(files, before)] = order
        assert files == [f"{sha256_of(clip)}.mp4"] and is_new
        assert before[0].parent == service.state / "incoming"
        assert before[-1] == service.state / "files"
        assert os.listdir(service.state / "incoming") == []
        assert (job.state, job.position, service.progress(job)) == ("queued", 1, 0.0)


def test_the_state_folder_is_of_its_user_and_of_one_server(clip, tmp_path, idle):
    state = tmp_path / "new" / "state"
    with running_service(state) as service:
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        with (
            pytest.raises(OSError, match="only server with the state folder .* another --state"),
            running_service(state),
        ):
            pass
        job, _ = submit(service, clip)
    (state / "incoming" / "left.part").write_bytes(b"1")
    (state / "results" / job.submission.key).mkdir()
    (state / "results" / job.submission.key / ".unfinished-1-a.npy").write_bytes(b"1")
    (state / "files" / "of-no-job.mp4").write_bytes(b"1")
    (state / "results" / "of-no-job").mkdir()
    with running_service(state) as service:
        assert files_below(state / "incoming") == []
        assert stored(service) == ([f"{job.submission.sha256}.mp4"], [])
        assert os.listdir(state / "results") == [job.submission.key]
        assert service.get(job.id).position == 1


def test_the_default_state_folder_is_that_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory() == tmp_path / "jdfd-keras"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, as its standard says
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_directory() == tmp_path / ".local" / "state" / "jdfd-keras"
    assert state_directory("~/x") == tmp_path / "x"


def test_jobs_share_the_analysis_of_the_same_bytes_and_options(clip, tmp_path):
    with running_service(tmp_path / "state", workers=1) as service:
        job, is_new = submit(service, clip, "a.mp4")
        same, is_same_new = submit(service, clip, "a.mp4")
        other, is_other_new = submit(service, clip, "b.mp4")
        assert (is_new, is_same_new, is_other_new) == (True, False, True)
        assert same.id == job.id != other.id
        first, second = wait_for(service, job, other)
        assert first.attempts == second.attempts == 1
        assert first.result["paths"] == ["a.mp4"] and second.result["paths"] == ["b.mp4"]
        again, _ = submit(service, clip, "c.mp4")
        assert (again.state, again.result["paths"]) == ("done", ["c.mp4"])
        assert service.report(first, "report.html") != service.report(second, "report.html")
        assert service.delete(job.id) and not service.delete(job.id)
        files, results = stored(service)
        assert len(files) == 1
        key = job.submission.key
        assert results == [f"{key}/{other.id}/report.html", f"{key}/top_faces.npy"]
        assert service.get(job.id) is None and service.get(other.id).state == "done"
        assert service.delete(other.id) and service.delete(again.id)
        assert stored(service) == ([], []) and os.listdir(service.state / "results") == []


def test_a_model_that_is_calibrated_again_analyses_a_file_again(clip, tmp_path, idle):
    plain = make_predictor()
    faces = dataclasses.replace(plain.metadata.faces, frames_per_video=5)
    changed = [
        dataclasses.replace(plain.metadata, calibration=Calibration(uncertain_to=0.9)),
        dataclasses.replace(plain.metadata, faces=faces),
    ]
    keys = set()
    for metadata in (plain.metadata, *changed, plain.metadata):
        predictor = dataclasses.replace(plain, metadata=metadata)
        with running_service(tmp_path / "state", predictor=predictor) as service:
            keys.add(submit(service, clip)[0].submission.key)
    assert len(keys) == 3


def test_a_job_is_deleted_although_its_files_are_not(clip, tmp_path, idle, monkeypatch, capfd):
    with running_service(tmp_path / "state") as service:
        job, _ = submit(service, clip)

        def fail(_):
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(service._folder, "clean", fail)
            assert service.delete(job.id) and service.get(job.id) is None
        assert "Input/output error" in capfd.readouterr().err
        assert len(stored(service)[0]) == 1
        service._clean()
        assert stored(service) == ([], [])


def test_a_result_may_be_discarded_while_files_are_cleaned(clip, tmp_path, idle, monkeypatch):
    with running_service(tmp_path / "state") as service:
        job, _ = submit(service, clip)
        folder = service.state / "results" / job.submission.key
        folder.mkdir()
        names = service.store.live_names()
        iterdir = Path.iterdir

        def discard_before(path):
            if path == folder:
                folder.rmdir()
            return iterdir(path)

        monkeypatch.setattr(Path, "iterdir", discard_before)
        service._folder.clean(lambda: names)
        assert not folder.exists()


def test_files_are_removed_although_the_disk_is_too_full_to_delete_jobs(
    tmp_path, idle, monkeypatch
):
    with running_service(tmp_path / "state") as service:
        (service.state / "files" / "of-no-job.mp4").write_bytes(b"1")

        def fail(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(service.store, "expire", fail)
        with pytest.raises(OSError, match="No space"):
            service._clean()
        assert stored(service) == ([], [])


def test_a_job_that_is_deleted_while_it_runs_leaves_nothing(clip, tmp_path, monkeypatch):
    with running_service(tmp_path / "state", workers=1) as service:
        receive = service._runner._receive
        deleted = []

        def delete_before_the_result(task, result):
            if not deleted:
                deleted.append(service.delete(job.id))
            receive(task, result)

        monkeypatch.setattr(service._runner, "_receive", delete_before_the_result)
        job, _ = submit(service, clip)
        wait_until(lambda: deleted and not service._runner._running)
        assert deleted == [True] and service.get(job.id) is None
        assert service.list()[1] == 0
        service._clean()
        assert stored(service) == ([], [])
        [again] = wait_for(service, submit(service, clip)[0])
        assert again.state == "done"


def test_a_full_queue_keeps_nothing(clip, tmp_path, idle):
    with running_service(tmp_path / "state", max_jobs=1) as service:
        submit(service, clip)
        with pytest.raises(QueueFullError):
            submit(service, clip, "b.mp4", threshold=0.3)
        assert len(stored(service)[0]) == 1  # of the first
        other = tmp_path / "other.mp4"
        other.write_bytes(b"other")
        with pytest.raises(QueueFullError):
            submit(service, other)
        assert len(stored(service)[0]) == 1 and service.list()[1] == 1


@pytest.mark.parametrize("where", ["upload", "move", "store"])
def test_a_full_disk_keeps_nothing(clip, tmp_path, idle, monkeypatch, where):
    with running_service(tmp_path / "state") as service:

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        if where == "upload":
            monkeypatch.setattr(job_service, "sync", fail)
        elif where == "move":
            monkeypatch.setattr(state_folder.os, "replace", fail)
        else:
            monkeypatch.setattr(service.store, "submit", fail)
        with pytest.raises(OSError) as caught:
            submit(service, clip)
        assert caught.value.errno == errno.ENOSPC
        assert stored(service) == ([], []) and service.list()[1] == 0


def test_jobs_are_deleted_after_their_time(clip, tmp_path, monkeypatch):
    with running_service(tmp_path / "state", workers=1, keep_hours=2) as service:
        job, _ = submit(service, clip)
        wait_for(service, job)
        service._clean()
        assert service.get(job.id) is not None

        class Later(datetime):
            @classmethod
            def now(cls, zone=None):
                return datetime.now(zone) + timedelta(hours=2, seconds=2)

        monkeypatch.setattr(job_service, "datetime", Later)
        service._clean()
        assert service.get(job.id) is None and stored(service) == ([], [])


def test_the_cleaner_goes_on_after_an_error(tmp_path, idle, monkeypatch, capfd):
    monkeypatch.setattr(job_service, "SECONDS_BETWEEN_CLEANINGS", 0.05)
    with running_service(tmp_path / "state") as service:
        calls = []

        def fail(before):
            calls.append(datetime.fromisoformat(before) < datetime.now(UTC))
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(service.store, "expire", fail)
        wait_until(lambda: len(calls) >= 3, 10)
    assert all(calls) and "No space left" in capfd.readouterr().err


def test_a_file_below_the_root_is_analysed_in_place_and_must_not_change(clip, tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4"):
        (root / "sub" / name).write_bytes(clip.read_bytes())
    with running_service(tmp_path / "state", root=str(root), workers=1) as service:

        def submit_path(path, sha256=None):
            sha256 = sha256 or sha256_of(clip)
            values = (clip.stat().st_size, ".mp4", str(path), PredictOptions(), False)
            submission = service.make_submission(sha256, *values)
            return service.submit(submission, Path(path).name)[0]

        relative, absolute = submit_path("sub/a.mp4"), submit_path(root / "sub" / "a.mp4")
        assert relative.id == absolute.id
        changed = submit_path("sub/b.mp4", sha256="ab" * 32)
        missing = submit_path("sub/none.mp4")
        done, failed, none = wait_for(service, relative, changed, missing)
        assert (done.state, done.result["paths"]) == ("done", ["a.mp4"])
        assert (failed.state, failed.error.code, none.error.code) == (
            "failed",
            "changed",
            "missing",
        )
        for job in (done, failed, none):
            text = json.dumps(job.result) + str(job.error)
            assert str(root) not in text and str(service.state) not in text
        assert stored(service)[0] == []
        page = service.report(done, "report.html").read_text()
        assert str(tmp_path) not in page and "a.mp4" in page
        for path in ("../x.mp4", "/etc/passwd", str(tmp_path / "x.mp4")):
            with pytest.raises(ValueError, match="below the root"):
                submit_path(path)
        service.delete(done.id)
        assert (root / "sub" / "a.mp4").is_file()
    with pytest.raises(OSError, match="folder as --root"), running_service(tmp_path, root="none"):
        pass


def test_a_result_states_the_command_without_the_folders_of_the_server(clip, tmp_path):
    state = tmp_path / "state"
    words = ["serve", "red", "--files", "--state", str(state)]
    with recorded_command(words), running_service(state, workers=1) as service:
        [job] = wait_for(service, submit(service, clip)[0])
    provenance = job.result["provenance"]
    assert provenance["command"] == "jdfd-keras serve red --files --state state"
    assert provenance["where"] == "red/1"


def test_all_threads_end_with_the_service(clip, tmp_path):
    before = set(threading.enumerate())
    with running_service(tmp_path / "state", workers=1) as service:
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {
            *("jobs", "cleaner", "webhooks"),
        }
        submit(service, clip)
    assert set(threading.enumerate()) - before == set()
