"""The service gives the verdicts of `predict`, and whatever harms one file costs that file."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.origin import recorded_command
from jdfd_keras.options import LimitOptions, PredictOptions
from jdfd_keras.prediction.predict import Predictions, predict_files
from jdfd_keras.serving.jobs import job_runner
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import JOB_CODES
from tests.serving.jobs.real_service import (
    make_predictor,
    running_service,
    submit,
    wait_for,
    wait_until,
    without_times,
)


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """Two clips, a portrait, an image without a face, an animation, damaged and other files."""
    from skimage import data

    folder = tmp_path_factory.mktemp("inputs")
    first, second = sorted(clips_folder.rglob("real/*.mp4"))[:2]
    shutil.copy(first, folder / "a clip.mp4")
    shutil.copy(second, folder / "b.MP4")
    (folder / "cut.mp4").write_bytes(first.read_bytes()[:3000])
    (folder / "text.mp4").write_text("not a video")
    (folder / "no suffix").write_text("not a video")
    Image.fromarray(data.astronaut()).save(folder / "portrait.jpg")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    frames = [Image.new("RGB", (64, 64), (index * 9, 0, 0)) for index in range(4)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder


@pytest.fixture(scope="module")
def clip(inputs):
    return inputs / "a clip.mp4"


@pytest.fixture
def harmful(harm, monkeypatch):
    """Let the analysis of a file do what its name states; returns a function to name uploads."""
    import harmful_functions

    monkeypatch.setattr(job_runner, "extract_file", harmful_functions.extract_harmful_file)
    return harm


@pytest.mark.parametrize("annotate", [False, True])
@pytest.mark.slow
def test_the_result_is_the_json_of_predict(inputs, tmp_path, annotate, capfd):
    files = sorted(inputs.iterdir())
    if annotate:
        files = [inputs / "a clip.mp4", inputs / "portrait.jpg", inputs / "sea.png"]
    options = {"threshold": 0.4, "frames_per_video": 4}
    words = ["predict", *map(str, files)]
    with recorded_command(["serve", "red"]), running_service(tmp_path / "state") as service:
        jobs = [submit(service, path, annotate=annotate, **options)[0] for path in files]
        found = wait_for(service, *jobs)
        with recorded_command(words):
            expected = []
            for path in files:
                every = 1 if annotate else 0
                predictions = predict_files(
                    [path], PredictOptions(**options, every=every), model="red"
                )
                expected.append(json.loads(json.dumps(predictions.to_dict())))
    for path, job, values in zip(files, found, expected, strict=True):
        text = json.dumps(values).replace(str(path), path.name)
        assert without_times(job.result) == without_times(json.loads(text)), path
        assert job.result["provenance"]["command"] == "jdfd-keras serve red"
        assert job.result["provenance"]["where"] == "red/1"
        assert Predictions.from_dict(job.result).to_dict() == job.result
        assert str(tmp_path) not in json.dumps(job.result) and job.submission.sha256 + "." not in (
            json.dumps(job.result)
        )
        [record] = job.result["files"] or job.result["failed"]
        if path.name in ("sea.png", "moving.gif"):
            assert (job.state, job.verdict, job.error.code) == ("failed", "no face", "no_face")
            assert path.name in job.error.message
        elif "error" in record:
            assert (job.state, job.verdict, job.score) == ("failed", "", None)
            assert (job.error.code, job.error.message) == (record["code"], record["error"])
            assert record["code"] == "undecodable"
            assert path.name in job.error.message
        else:
            assert (job.state, job.error) == ("done", None)
            assert (job.verdict, job.score) == (record["verdict"], record["score"])
            assert 0 < record["score"] < 1


def test_an_option_that_does_not_suit_the_model_is_refused_at_once(clip, tmp_path):
    with running_service(tmp_path / "state") as service:
        for options in (
            {"threshold": 2.0},
            {"threshold": float("nan")},
            {"frames_per_video": 0},
            {"every": -1},
            {"tracks": "some"},
            {"detector": "retina"},
        ):
            with pytest.raises(ValueError, match="Expected"):
                submit(service, clip, **options)
        file = (9, ".mp4", "", PredictOptions(), False)
        for sha256 in ("", "../../x", "AB" * 32):
            with pytest.raises(ValueError, match="SHA-256"):
                service.make_submission(sha256, *file)
        with pytest.raises(ValueError, match="suffix"):
            service.make_submission("ab" * 32, 9, "./../x", *file[2:])
        with pytest.raises(ValueError, match="below the root"):
            service.make_submission("ab" * 32, 9, ".mp4", "a.mp4", *file[3:])
    crops = make_predictor(detector="none")
    with running_service(tmp_path / "state", predictor=crops) as service:
        with pytest.raises(ValueError, match="Expected a detector"):
            submit(service, clip)
        [job] = wait_for(service, submit(service, clip, detector="none")[0])
        assert job.state == "done"


@pytest.mark.slow
def test_a_file_that_harms_its_process_fails_alone_and_has_a_code(
    clip, tmp_path, harmful, monkeypatch
):
    expected = {
        "killed": "out_of_memory",
        "crashes": "crashed",
        "raises": "undecodable",
        "changes": "changed",
    }
    source = job_runner.StateFolder.source
    names = {}

    def find(self, submission):  # a name that the process can read
        path = source(self, submission)
        return tmp_path / f"{names[submission.sha256]}.mp4" if names else path

    monkeypatch.setattr(job_runner.StateFolder, "source", find)
    with running_service(tmp_path / "state") as service:
        jobs = []
        for number, name in enumerate(["good", *expected, "fine"]):
            path = tmp_path / f"{name}.mp4"
            path.write_bytes(clip.read_bytes() + bytes(number))
            sha256 = sha256_of(path)
            names[sha256] = name
            submission = service.make_submission(
                sha256, path.stat().st_size, ".mp4", "", PredictOptions(), False
            )
            jobs.append(service.submit(submission, f"my {name}.mp4")[0])
        found = {job.name: job for job in wait_for(service, *jobs, timeout_s=200)}
    assert {found.pop(f"my {name}.mp4").state for name in ("good", "fine")} == {"done"}
    for name, code in expected.items():
        job = found.pop(f"my {name}.mp4")
        assert (job.state, job.error.code) == ("failed", code)
        [failed] = job.result["failed"]
        assert failed["code"] == code in JOB_CODES and harmful[name] in failed["error"]
        assert failed["path"] == f"my {name}.mp4" in failed["error"]
        assert (failed["sha256"] is None) == (name == "changes")
    assert found == {}


def test_limits_have_codes(inputs, clip, tmp_path):
    limits = LimitOptions(max_duration_s=0.1, max_pixels=200_000)
    with running_service(tmp_path / "state", limits=limits) as service:
        jobs = [submit(service, path)[0] for path in (clip, inputs / "portrait.jpg")]
        codes = [job.error.code for job in wait_for(service, *jobs)]
    assert codes == ["too_long", "too_many_pixels"]


def processes_of(service):
    return [p for p in psutil.Process().children() if "worker_process" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_of_a_file_does_no_harm(clip, tmp_path):
    with running_service(tmp_path / "state", workers=1) as service:
        [before] = wait_for(service, submit(service, clip, every=1)[0])
        [process] = processes_of(service)
        # The same file with other options.
        jobs = [submit(service, clip, every=1, threshold=0.1 + n / 100)[0] for n in range(8)]
        wait_until(lambda: any(service.get(job.id).state == "running" for job in jobs))
        process.send_signal(signal.SIGKILL)
        found = wait_for(service, *jobs)
        assert {job.state for job in found} == {"done"}
        assert {job.score for job in found} == {before.score}
        assert processes_of(service) != [process]


def test_an_error_of_the_program_costs_one_job(clip, inputs, tmp_path, monkeypatch, capfd):
    calls = []

    def score(crops):
        calls.append(1)
        if len(calls) == 1:
            raise TypeError("a bug at /secret/path")
        return crops[..., 0].mean(axis=(1, 2)) / 255

    predictor = make_predictor(score=score)
    with running_service(tmp_path / "state", predictor=predictor, workers=1) as service:
        jobs = [submit(service, path)[0] for path in (clip, inputs / "b.MP4")]
        first, second = wait_for(service, *jobs)
    assert (first.state, first.error.code, second.state) == ("failed", "internal", "done")
    assert "TypeError" in first.error.message and "/secret" not in json.dumps(first.result)
    assert "a bug at /secret/path" in capfd.readouterr().err


def test_progress_grows_from_0_to_1(clip, tmp_path):
    def score(crops):
        time.sleep(0.05)
        return crops[..., 0].mean(axis=(1, 2)) / 255

    predictor = make_predictor(score=score)
    shares = [0.0]
    with running_service(tmp_path / "state", predictor=predictor, workers=1) as service:
        job, _ = submit(service, clip, every=1, annotate=True)
        assert service.progress(job) == 0
        while (job := service.get(job.id)).state not in ("done", "failed"):
            shares.append(service.progress(job))
            time.sleep(0.002)
        assert job.state == "done" and service.progress(job) == 1.0
    assert shares == sorted(shares) and max(shares) >= 0.5 and min(shares) == 0


@pytest.mark.slow
def test_a_stopped_service_continues_after_the_next_start_and_does_no_finished_file_again(
    clip, inputs, tmp_path
):
    scored = []

    def score(crops):
        if scored:
            time.sleep(1)  # so that the first run ends before its last file
        scored.append(len(crops))
        return crops[..., 0].mean(axis=(1, 2)) / 255

    predictor = make_predictor(score=score)
    state = tmp_path / "state"
    jobs = []

    def count_unfinished():
        with contextlib.closing(JobStore(state / "jobs.sqlite", 10)) as store:
            found = [store.get(job.id).state for job in jobs]
        assert set(found) <= {"done", "queued"}  # no running one without a server
        return found.count("queued")

    with running_service(state, predictor=predictor) as service:
        for number in range(6):
            jobs.append(submit(service, clip, frames_per_video=1, threshold=number / 10)[0])
        wait_for(service, jobs[0])
    assert 0 < count_unfinished() < 6
    with running_service(state, predictor=predictor):
        pass
    unfinished, before = count_unfinished(), len(scored)
    assert unfinished
    with running_service(state, predictor=predictor) as service:
        found = wait_for(service, *jobs)
    assert [job.state for job in found] == ["done"] * 6
    assert len(scored) == before + unfinished
    assert {job.attempts for job in found} == {1}


SERVER = """
import sys, time
from pathlib import Path
from tests.serving.jobs.real_service import running_service
with running_service(Path(sys.argv[1]), workers=2):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_server_loses_and_doubles_nothing(clip, tmp_path):
    state = tmp_path / "state"
    with running_service(state, workers=1) as service:
        pass
    root = Path(__file__).parents[3]

    def start():
        command = [sys.executable, "-c", SERVER, str(state)]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE)
        process.stdout.readline()
        return process

    # As the HTTP interface of a process that is then killed.
    with running_service(state, workers=1) as service:
        jobs = [submit(service, clip, every=1, threshold=n / 100)[0] for n in range(12)]
    for seconds in (0.0, 0.5, 1.0):
        process = start()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with running_service(state, workers=2) as service:
        found = wait_for(service, *jobs)
        assert {job.state for job in found} == {"done"}
        assert service.list()[1] == 12
    assert len({job.score for job in found}) == 1  # only the thresholds differ


def test_an_analysis_that_ends_the_server_again_and_again_fails(clip, tmp_path, monkeypatch):
    state = tmp_path / "state"
    monkeypatch.setattr(job_runner.JobRunner, "start", lambda self: None)
    with running_service(state) as service:
        job, _ = submit(service, clip)
    for _ in range(10):
        with running_service(state) as service:
            assert service.get(job.id).state == "queued"
            assert service.store.claim()  # and then the server is killed
    with running_service(state) as service:
        found = service.get(job.id)
    assert (found.state, found.error.code) == ("failed", "crashed")
    assert found.result["failed"][0]["path"] == clip.name
    assert "ended 10 times" in found.error.message and str(state) not in found.error.message


def test_an_analysis_for_another_model_is_not_done_by_this_one(clip, tmp_path, monkeypatch):
    state = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(job_runner.JobRunner, "start", lambda self: None)
        with running_service(state) as service:
            job, _ = submit(service, clip)
    with running_service(state, predictor=make_predictor(digest="two")) as service:
        [found] = wait_for(service, job)
        again, is_new = submit(service, clip)
        assert is_new and again.id != job.id
        [done] = wait_for(service, again)
    assert (found.state, found.error.code, done.state) == ("failed", "internal", "done")
    assert "Submit the file again" in found.error.message


def test_a_result_waits_for_space_on_the_disk(clip, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(job_runner, "SECONDS_AFTER_FAILURE", 0.2)
    with running_service(tmp_path / "state") as service:
        finish, failures = service.store.finish, []

        def fail_twice(*arguments):
            if len(failures) < 2:
                failures.append(1)
                raise OSError(28, "No space left on device")
            return finish(*arguments)

        monkeypatch.setattr(service.store, "finish", fail_twice)
        [job] = wait_for(service, submit(service, clip)[0])
    assert job.state == "done" and len(failures) == 2
    assert "No space left" in capfd.readouterr().err


def test_an_annotation_that_fails_costs_no_verdict(clip, tmp_path, monkeypatch):
    with running_service(tmp_path / "state") as service:
        job, _ = submit(service, clip, annotate=True, every=1)
        [found] = wait_for(service, job)
        assert found.state == "done"
        annotated = service.report(found, "annotated.mp4")
        assert cv2.VideoCapture(str(annotated)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
        monkeypatch.setattr(job_runner, "ANNOTATED", ("annotated.txt", "annotated.txt"))
        [other] = wait_for(service, submit(service, clip, annotate=True, every=2)[0])
        assert (other.state, other.error) == ("done", None)
        with pytest.raises(FileNotFoundError, match="annotated") as caught:
            service.report(other, "annotated.mp4")
        assert str(tmp_path) not in str(caught.value)
        # The disk may be too full to state why.
        monkeypatch.setattr(job_runner, "NO_ANNOTATION", "none/reason.txt")
        [third] = wait_for(service, submit(service, clip, annotate=True, every=3)[0])
        assert (third.state, third.error) == ("done", None)


def test_processes_end_with_the_service(clip, tmp_path):
    with running_service(tmp_path / "state") as service:
        wait_for(service, submit(service, clip)[0])
        assert len(processes_of(service)) == 2
    assert processes_of(service) == []
