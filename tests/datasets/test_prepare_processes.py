"""prepare in several processes, killed, locked, on a full disk, on Beam: the same bytes."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.io.files import load_options
from jdfd_keras.options import FaceOptions, LimitOptions, PrepareRuntime

FACES = FaceOptions(frames_per_video=4, face_size=71)
FLAGS = ["--frames-per-video", "4", "--face-size", "71"]


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(clips, out, *flags):
    words = ["prepare", "folder", str(clips), "--out", str(out), *FLAGS, *flags]
    return [sys.executable, "-m", "jdfd_keras", *words]


def test_two_processes_write_the_same_bytes_as_one(clips_folder, prepared_set, tmp_path):
    prepare(clips_folder, tmp_path / "two", FACES, runtime=PrepareRuntime(workers=2))
    assert bytes_of(tmp_path / "two") == bytes_of(prepared_set)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_harms_one_video_excludes_that_video(clips_folder, harm, tmp_path, workers):
    import shutil

    root = tmp_path / "clips"
    shutil.copytree(clips_folder, root)
    for index, name in enumerate(harm):
        kind = ("real", "fake")[index % 2]
        shutil.copy(root / "real" / "person01.mp4", root / kind / f"{name}.mp4")
    limits = LimitOptions(max_seconds=6, max_memory=0.8)
    runtime = PrepareRuntime(workers=workers)
    result = prepare(root, tmp_path / "out", FACES, runtime=runtime, limits=limits)
    reasons = {path.rsplit("/", 1)[-1]: result.excluded[key] for key, path in result.paths.items()}
    for name, reason in harm.items():
        assert reason in reasons.pop(f"{name}.mp4")
    assert all("no face" in reason for reason in reasons.values())  # of coarse fakes
    videos = {video.path: video for video in read_videos(tmp_path / "out")}
    assert len(videos) == 16 + len(harm)
    assert videos["real/person01.mp4"].num_faces == 4
    assert "real/exits.mp4, whose process died twice" in videos["real/exits.mp4"].reason
    assert str(root) not in videos["fake/raises.mp4"].reason


def test_limits_are_kept_with_the_dataset_and_negative_ones_refused(
    clips_folder, prepared_set, tmp_path
):
    path = prepared_set / "options.json"
    assert load_options(path, "limits", LimitOptions) == LimitOptions()
    with pytest.raises(ValueError, match=r"max_memory 4.0 -> 8"):
        prepare(clips_folder, prepared_set, FACES, limits=LimitOptions(max_memory=8))
    with pytest.raises(ValueError, match="--max-faces-per-frame"):
        prepare(clips_folder, tmp_path / "out", FACES, limits=LimitOptions(max_faces_per_frame=-1))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_and_ends_with_the_same_bytes(
    clips_folder, prepared_set, tmp_path
):
    moments = random.Random()
    print("seed", seed := moments.randrange(10**6))  # shown if the test fails
    moments.seed(seed)
    out = tmp_path / "out"
    killed = 0
    for num_finished in (1, 6):
        # In its own process group, so that its workers can be found.
        run = subprocess.Popen(
            command(clips_folder, out, "--workers", "2"),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_parts(out, num_finished)
        time.sleep(moments.uniform(0, 0.3))
        killed += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_until_gone(run.pid)
    assert killed > 0, "the run finished before it was killed: try earlier moments"
    done = subprocess.run(command(clips_folder, out, "--workers", "2"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(prepared_set)


def wait_for_parts(out, count):
    end = time.monotonic() + 60
    while len(list(out.glob("parts/*/*.json"))) < count and time.monotonic() < end:
        time.sleep(0.01)


def wait_until_gone(group):
    """Wait until the worker processes of a killed run have ended on their own."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the workers of a killed run still exist")


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_an_error_while_the_first_is_running(
    clips_folder, prepared_set, tmp_path
):
    out = tmp_path / "out"
    first = subprocess.Popen(
        command(clips_folder, out, "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_for_parts(out, 1)
    with pytest.raises(OSError, match=f"only run .*{out}; got"):
        prepare(clips_folder, out, FACES)
    first.communicate()
    assert first.returncode == 0
    assert bytes_of(out) == bytes_of(prepared_set)


def limit_files_to_20_kb():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_resumes_when_there_is_space(
    clips_folder, prepared_set, tmp_path
):
    out = tmp_path / "out"
    words = command(clips_folder, out, "--workers", "2")
    full = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit_files_to_20_kb)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("jdfd-keras prepare: Expected free disk ")
    assert "File too large" in last and "finished videos" in last
    assert not (out / "manifest.parquet").exists()
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert bytes_of(out) == bytes_of(prepared_set)


def test_a_file_that_was_repaired_is_extracted_again(
    clips_folder, tmp_path, monkeypatch, in_this_process
):
    import shutil

    from jdfd_keras.datasets import prepare_tasks

    root = tmp_path / "clips"
    shutil.copytree(clips_folder, root)
    whole = (root / "fake/person03.mp4").read_bytes()
    (root / "fake/person03.mp4").write_bytes(whole[:300])
    extract, seen = prepare_tasks.extract_faces, []

    def interrupt_at_the_end(path, *options):
        if len(seen) == 15:
            raise KeyboardInterrupt
        seen.append(path.name)
        return extract(path, *options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", interrupt_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "out", FACES)
    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    (root / "fake/person03.mp4").write_bytes(whole)
    prepare(root, tmp_path / "out", FACES)
    videos = read_videos(tmp_path / "out")
    (repaired,) = [video for video in videos if video.path == "fake/person03.mp4"]
    assert "person03.mp4" in seen
    assert (repaired.num_faces > 0, repaired.reason) == (True, "")


@pytest.mark.slow
def test_beam_with_several_processes_writes_the_same_bytes(clips_folder, prepared_set, tmp_path):
    out = tmp_path / "out"
    runtime = PrepareRuntime(runner="DirectRunner")
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    result = prepare(clips_folder, out, FACES, runtime=runtime, beam_flags=flags)
    assert bytes_of(out) == bytes_of(prepared_set)
    assert result.videos == len(read_videos(prepared_set))


@pytest.mark.slow
def test_the_command_line_passes_unknown_flags_to_beam(clips_folder, prepared_set, tmp_path, capfd):
    from jdfd_keras.cli.main import main

    out = tmp_path / "out"
    words = command(clips_folder, out, "--format", "json", "--runner", "DirectRunner")[3:]
    assert main([*words, "--direct_running_mode", "in_memory", "--direct_num_workers=1"]) == 0
    assert json.loads(capfd.readouterr().out)["videos"] == 16
    assert bytes_of(out) == bytes_of(prepared_set)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runner", "NoRunner"], "NoRunner"),
        (["--runner", "DirectRunner", "--temp_locatoin=x"], "got --temp_locatoin"),
        (["--runner", "DataflowRunner"], "Missing required option: project."),
    ],
)
def test_a_beam_flag_that_is_invalid_is_an_error_in_one_line(
    clips_folder, tmp_path, capfd, flags, message
):
    from jdfd_keras.cli.main import main

    assert main([*command(clips_folder, tmp_path / "out")[3:], *flags]) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jdfd-keras prepare: ")
    assert message in error


@pytest.mark.slow
def test_an_error_of_the_machine_stops_beam_too_and_the_run_resumes(
    clips_folder, prepared_set, tmp_path
):
    words = command(clips_folder, tmp_path / "out", "--runner", "DirectRunner")
    words += ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
    full = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit_files_to_20_kb)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert "Expected free disk space" in last and "File too large" in last
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert bytes_of(tmp_path / "out") == bytes_of(prepared_set)


@pytest.mark.slow
def test_a_video_whose_label_was_corrected_is_extracted_again(clips_folder, tmp_path, monkeypatch):
    """The records of a part contain the label too."""
    import shutil

    from jdfd_keras.datasets import prepare as prepare_module

    root = tmp_path / "clips"
    shutil.copytree(clips_folder, root)
    shutil.move(root / "real/person00.mp4", root / "fake/person00.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "plan_shards", None)
        with pytest.raises(TypeError):
            prepare(root, tmp_path / "out", FACES)
    shutil.move(root / "fake/person00.mp4", root / "real/person00.mp4")
    prepare(root, tmp_path / "out", FACES)
    prepare(root, tmp_path / "whole", FACES)
    assert read_videos(tmp_path / "out") == read_videos(tmp_path / "whole")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_run_that_finished_while_another_waited_is_not_repeated(
    clips_folder, prepared_set, tmp_path, monkeypatch
):
    """The second run checks before the first is complete, and gets the lock after it."""
    import contextlib

    from jdfd_keras.datasets import prepare as prepare_module
    from jdfd_keras.io import storage

    exclusive_lock = storage.exclusive_lock

    @contextlib.contextmanager
    def late_lock(store):
        monkeypatch.setattr(storage, "exclusive_lock", exclusive_lock)
        prepare(clips_folder, tmp_path / "out", FACES)
        monkeypatch.setattr(prepare_module, "write_tables", None)  # an error if called again
        with exclusive_lock(store):
            yield

    monkeypatch.setattr(storage, "exclusive_lock", late_lock)
    prepare(clips_folder, tmp_path / "out", FACES)
    assert bytes_of(tmp_path / "out") == bytes_of(prepared_set)


def test_a_remote_folder_needs_a_runner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="got gs://bucket/videos. .* give --runner"):
        prepare("gs://bucket/videos", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["clips [old]", "what?", "all*"])
def test_a_location_that_beam_would_read_as_a_pattern_is_an_error(clips_folder, tmp_path, name):
    # Beam cannot escape these characters: it would find nothing, or the files of other folders.
    with pytest.raises(ValueError, match=r"location without .*; got .*Rename"):
        prepare(clips_folder, tmp_path / name, runtime=PrepareRuntime(runner="DirectRunner"))


def test_a_runner_without_beam_is_an_error_that_says_how_to_install_it(
    clips_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    for name in [name for name in sys.modules if name.startswith("apache_beam.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(OSError, match=r"Beam .*DirectRunner.*jdfd-keras\[beam\]"):
        prepare(clips_folder, tmp_path / "out", runtime=PrepareRuntime(runner="DirectRunner"))
