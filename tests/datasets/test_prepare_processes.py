"""prepare in several processes, killed, locked out, short of room, on Beam: the same bytes."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from jdfd_keras.datasets.manifest import read_manifest, read_videos
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.options import FaceOptions, PrepareOptions, SplitOptions, WorkOptions

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


def test_two_processes_make_the_same_bytes_as_one(clips_folder, prepared_set, tmp_path):
    prepare(clips_folder, tmp_path / "two", FACES, work=WorkOptions(workers=2))
    assert bytes_of(tmp_path / "two") == bytes_of(prepared_set)


def test_killed_at_random_moments_it_goes_on_and_ends_with_the_same_bytes(
    clips_folder, prepared_set, tmp_path
):
    moments = random.Random()
    print("seed", seed := moments.randrange(10**6))  # shown where the test fails
    moments.seed(seed)
    begun = time.monotonic()
    assert (
        subprocess.run(command(clips_folder, tmp_path / "whole", "--workers", "2")).returncode == 0
    )
    whole_s = time.monotonic() - begun
    out = tmp_path / "out"
    killed = 0
    for _ in range(3):
        # In a group of its own, so that what it started can be looked for.
        run = subprocess.Popen(
            command(clips_folder, out, "--workers", "2"),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(0.1, 0.9) * whole_s)
        killed += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_until_gone(run.pid)
    assert killed > 0, "it was done before it was killed: later moments are of no use"
    done = subprocess.run(command(clips_folder, out, "--workers", "2"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(prepared_set)


def wait_until_gone(group):
    """Processes that a killed run had started end by themselves."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the workers of a killed run are still there")


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_is_at_work(
    clips_folder, prepared_set, tmp_path
):
    out = tmp_path / "out"
    first = subprocess.Popen(
        command(clips_folder, out, "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 30
    while not list(out.glob("parts/*/*.json")) and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(OSError, match="only run that writes to .*; got another one"):
        prepare(clips_folder, out, FACES)
    first.communicate()
    assert first.returncode == 0
    assert bytes_of(out) == bytes_of(prepared_set)


def limit_files_to_20_kb():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_room_it_stops_in_one_line_and_goes_on_when_there_is_some(
    clips_folder, prepared_set, tmp_path, workers
):
    out = tmp_path / "out"
    words = command(clips_folder, out, "--workers", workers)
    full = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit_files_to_20_kb)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("jdfd-keras prepare: Expected room for the faces at")
    assert "File too large" in last and "what is done is kept" in last
    assert not (out / "manifest.parquet").exists()
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert bytes_of(out) == bytes_of(prepared_set)


def test_a_file_that_was_mended_since_is_taken_anew(clips_folder, tmp_path, monkeypatch):
    import shutil

    from jdfd_keras.datasets import extraction_task as take

    root = tmp_path / "clips"
    shutil.copytree(clips_folder, root)
    whole = (root / "fake/person03.mp4").read_bytes()
    (root / "fake/person03.mp4").write_bytes(whole[:300])
    extract, seen = take.extract_faces, []

    def stop_at_the_end(path, *options):
        if len(seen) == 15:
            raise KeyboardInterrupt
        seen.append(path.name)
        return extract(path, *options)

    monkeypatch.setattr(take, "extract_faces", stop_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "out", FACES)
    monkeypatch.setattr(take, "extract_faces", extract)
    (root / "fake/person03.mp4").write_bytes(whole)
    made = prepare(root, tmp_path / "out", FACES)
    (mended,) = [video for video in made.videos if video.path == "fake/person03.mp4"]
    assert "person03.mp4" in seen
    assert (mended.num_faces > 0, mended.reason) == (True, "")


def test_both_forms_of_the_tables_hold_the_same(clips_folder, prepared_set, tmp_path):
    prepare(clips_folder, tmp_path / "out", FACES, PrepareOptions(manifest="csv"))
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {
        "manifest.csv",
        "videos.csv",
    }
    assert read_manifest(tmp_path / "out") == read_manifest(prepared_set)
    assert read_videos(tmp_path / "out") == read_videos(prepared_set)


def test_faces_are_split_singly_as_the_paper_has_it(clips_folder, prepared_set, tmp_path):
    splits = SplitOptions(split="paper", val_share=0.1, test_share=0.15)
    made = prepare(clips_folder, tmp_path / "out", FACES, splits=splits)
    rows, official = read_manifest(tmp_path / "out"), read_manifest(prepared_set)

    def known_by(row):
        return row.video_id, row.frame_index, row.phash

    assert sorted(map(known_by, rows)) == sorted(map(known_by, official))
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    assert counts["test"] == round(0.15 * len(rows))
    assert counts["val"] == round(0.1 * len(rows))
    both = {r.video_id for r in rows if r.split == "test"} & {
        r.video_id for r in rows if r.split == "train"
    }
    assert both
    assert made.shared_sources

    # The shards hold the faces in the order of the manifest, here too.
    from jdfd_keras.datasets.records import read_crops

    crops = read_crops(
        tmp_path / "out",
        [row.shard for row in rows],
        [row.offset for row in rows],
        range(len(rows)),
    )
    from jdfd_keras.datasets.hashing import hash_face

    assert [hash_face(crops[index]) for index in range(len(rows))] == [row.phash for row in rows]


@pytest.mark.slow
def test_beam_with_several_processes_makes_the_same_bytes(clips_folder, prepared_set, tmp_path):
    out = tmp_path / "out"
    work = WorkOptions(runner="DirectRunner")
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    made = prepare(clips_folder, out, FACES, work=work, beam_flags=flags)
    assert bytes_of(out) == bytes_of(prepared_set)
    assert made.videos == read_videos(prepared_set)


def test_the_command_line_hands_beam_its_own_flags(clips_folder, prepared_set, tmp_path, capfd):
    from jdfd_keras.cli.main import main

    out = tmp_path / "out"
    words = command(clips_folder, out, "--format", "json", "--runner", "DirectRunner")[3:]
    assert main([*words, "--direct_running_mode", "in_memory", "--direct_num_workers=1"]) == 0
    assert json.loads(capfd.readouterr().out)["videos"] == 16
    assert bytes_of(out) == bytes_of(prepared_set)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--runner", "NoRunner"], "NoRunner"),
        (["--runner", "DirectRunner", "--temp_locatoin=x"], "got --temp_locatoin"),
        (["--runner", "DataflowRunner"], "Missing required option: project."),
    ],
)
def test_what_beam_does_not_know_is_refused_in_one_line(clips_folder, tmp_path, capfd, flags, told):
    from jdfd_keras.cli.main import main

    assert main([*command(clips_folder, tmp_path / "out")[3:], *flags]) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jdfd-keras prepare: ")
    assert told in error


def test_a_fault_of_the_machine_stops_beam_too_and_it_goes_on(clips_folder, prepared_set, tmp_path):
    words = command(clips_folder, tmp_path / "out", "--runner", "DirectRunner")
    words += ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
    full = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit_files_to_20_kb)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert "DirectRunner to finish the work" in last and "File too large" in last
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert bytes_of(tmp_path / "out") == bytes_of(prepared_set)


def test_a_label_that_was_mended_since_is_taken_anew(clips_folder, tmp_path, monkeypatch):
    """The records of a part hold the label too."""
    import shutil

    from jdfd_keras.datasets import prepare as prepare_module

    root = tmp_path / "clips"
    shutil.copytree(clips_folder, root)
    shutil.move(root / "real/person00.mp4", root / "fake/person00.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_assemble", None)
        with pytest.raises(TypeError):
            prepare(root, tmp_path / "out", FACES)
    shutil.move(root / "fake/person00.mp4", root / "real/person00.mp4")
    made = prepare(root, tmp_path / "out", FACES)
    whole = prepare(root, tmp_path / "whole", FACES)
    assert made.videos == whole.videos
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_finished_set_that_lacks_a_shard_is_not_called_done(clips_folder, prepared_set, tmp_path):
    import shutil

    shutil.copytree(prepared_set, tmp_path / "out")
    (tmp_path / "out/shards/val-00000.tfrecord").unlink()
    with pytest.raises(ValueError, match="got none called val-00000.tfrecord"):
        prepare(clips_folder, tmp_path / "out", FACES)


def test_a_run_that_ended_while_another_waited_is_left_alone(
    clips_folder, prepared_set, tmp_path, monkeypatch
):
    """The second run looked before the first was done, and holds the folder after."""
    import contextlib

    from jdfd_keras.datasets import prepare as prepare_module

    hold = prepare_module.hold

    @contextlib.contextmanager
    def late(store):
        monkeypatch.setattr(prepare_module, "hold", hold)
        prepare(clips_folder, tmp_path / "out", FACES)
        monkeypatch.setattr(prepare_module, "_assemble", None)  # which would be a second time
        with hold(store):
            yield

    monkeypatch.setattr(prepare_module, "hold", late)
    prepare(clips_folder, tmp_path / "out", FACES)
    assert bytes_of(tmp_path / "out") == bytes_of(prepared_set)


def test_a_place_beyond_this_machine_takes_a_runner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="got gs://bucket/videos. Give --runner"):
        prepare("gs://bucket/videos", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_beam_a_runner_is_refused_in_words(clips_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    for name in [name for name in sys.modules if name.startswith("apache_beam.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(OSError, match=r"got no such package. Install it with"):
        prepare(clips_folder, tmp_path / "out", work=WorkOptions(runner="DirectRunner"))
