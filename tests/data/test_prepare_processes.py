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

from jdfd_keras.data.manifest import read_manifest, read_videos
from jdfd_keras.data.prepare import prepare
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

    from jdfd_keras.data import take

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
    assert made.leaks.sources

    # The shards hold the faces in the order of the manifest, here too.
    from jdfd_keras.data.samples import read_crops

    crops = read_crops(tmp_path / "out", [row.shard for row in rows], range(len(rows)))
    from jdfd_keras.data.hashing import hash_face

    assert [hash_face(crops[index]) for index in range(len(rows))] == [row.phash for row in rows]


@pytest.fixture
def quiet_beam(caplog):
    caplog.set_level("ERROR", logger="apache_beam")
    caplog.set_level("ERROR", logger="root")


@pytest.mark.slow
def test_beam_with_several_processes_makes_the_same_bytes(
    clips_folder, prepared_set, tmp_path, quiet_beam
):
    out = tmp_path / "out"
    work = WorkOptions(runner="DirectRunner")
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    made = prepare(clips_folder, out, FACES, work=work, beam_flags=flags)
    assert bytes_of(out) == bytes_of(prepared_set)
    assert made.videos == read_videos(prepared_set)


def test_the_command_line_hands_beam_its_own_flags(clips_folder, prepared_set, tmp_path, capfd):
    from jdfd_keras.cli import main

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
    ],
)
def test_what_beam_does_not_know_is_refused_in_one_line(clips_folder, tmp_path, capfd, flags, told):
    from jdfd_keras.cli import main

    assert main([*command(clips_folder, tmp_path / "out")[3:], *flags]) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("jdfd-keras prepare: ")
    assert told in error


def test_a_fault_of_the_machine_stops_beam_too(clips_folder, tmp_path, monkeypatch, quiet_beam):
    from jdfd_keras.data import take

    def full(path, *options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(take, "extract_faces", full)
    flags = ["--direct_running_mode=in_memory"]
    with pytest.raises(OSError, match="DirectRunner to finish .*No space left on device"):
        prepare(
            clips_folder,
            tmp_path / "out",
            FACES,
            work=WorkOptions(runner="DirectRunner"),
            beam_flags=flags,
        )
