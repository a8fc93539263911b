import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections import Counter

import cv2
import numpy as np
import pytest

from jdfd_keras.datasets import prepare_tasks
from jdfd_keras.datasets.manifest import FaceRow, read_faces, read_videos, to_rows
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.datasets.split_dataset import split_dataset
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import Extraction, Face
from jdfd_keras.faces.quality import Quality
from jdfd_keras.io.files import load_options
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions

FACES = FaceOptions(frames_per_video=4, face_size=71)


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_clip_without_a_face(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 96))
    for level in range(60, 70):
        writer.write(np.full((96, 96, 3), level, np.uint8))
    writer.release()


@pytest.fixture
def fake_extraction(monkeypatch, in_this_process):
    """Replace face extraction: fast, with three random faces that differ between videos."""

    def extract(path, *options):
        name = f"{path.parent.name}/{path.name}"
        digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8)
        crops = [np.resize(digest + np.uint8(index), (8, 8, 3)) for index in range(3)]
        faces = [
            Face(
                frame_index=index,
                time_s=index / 25,
                track_id=0,
                box=Box(0, 0, 9, 9, 1.0),
                landmarks=np.zeros((68, 2), np.float32),
                alignment_residual=0.01,
                quality=Quality(1.0, 5.0, 9, 0.0, 0.0),
                crops=crops,
                crop_index=index,
            )
            for index in range(3)
        ]
        return Extraction(faces, [], 3, {"not the largest face": 2}, [])

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    return extract


@pytest.fixture
def folder(tmp_path):
    """A folder of 12 subjects with a real and a fake video each, for `fake_extraction`."""
    for number in range(12):
        for kind in ("real", "fake"):
            (tmp_path / "mine" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "mine" / kind / f"{number:02d}.mp4").write_bytes(b"\0")
    return tmp_path / "mine"


def test_a_prepared_set_has_tables_options_and_shards_and_nothing_else(prepared_set):
    assert set(bytes_of(prepared_set)) == {
        "listing.json",
        "manifest.parquet",
        "options.json",
        "shards/00000.tfrecord",
        "splits/official.csv",
        "splits/official.json",
        "videos.parquet",
    }
    assert not (prepared_set / "parts").exists()
    assert load_options(prepared_set / "options.json", "faces", FaceOptions) == FACES
    options = load_options(prepared_set / "options.json", "prepare", PrepareOptions)
    assert options == PrepareOptions()


def test_the_tables_of_faces_and_videos_agree(prepared_set):
    faces = to_rows(read_faces(prepared_set, split_table=""), FaceRow)
    videos = read_videos(prepared_set)
    assert len(videos) == 16
    assert [video.video_id for video in videos] == sorted(video.video_id for video in videos)
    for video in videos:
        own = [face for face in faces if face.video_id == video.video_id]
        assert len(own) == video.num_faces
        assert [face.frame_index for face in own] == sorted({face.frame_index for face in own})
        for face in own:
            shared = [field.name for field in dataclasses.fields(video)][:7]
            assert all(getattr(face, name) == getattr(video, name) for name in shared)
            assert len(face.landmarks) == 136
            assert len(face.box) == 4
            assert face.detector == "dlib"
            assert 0 < face.alignment_residual < 0.1
            assert face.time_s == pytest.approx(face.frame_index / 25)
    # Four of six frames are sampled, 1.5 apart from 0.75 on.
    assert {face.frame_index for face in faces} == {0, 2, 3, 5}


def test_no_source_is_in_two_splits_and_each_split_has_both_classes(prepared_set):
    splits, labels = {}, {}
    for face in to_rows(read_faces(prepared_set), FaceRow):
        labels.setdefault(face.split, set()).add(face.label)
        for source_id in face.source_ids:
            splits.setdefault(source_id, set()).add(face.split)
    assert labels == {"train": {0, 1}, "val": {0, 1}, "test": {0, 1}}
    assert [source_id for source_id, found in splits.items() if len(found) > 1] == []


def test_faces_are_counted_by_split_and_class(fake_extraction, folder, tmp_path):
    result = prepare(folder, tmp_path / "out", FACES)
    assert result.faces == {"real": 36, "fake": 36}
    # 15 % of 12 subjects, of three faces per video.
    assert result.splits == {
        "train": {"real": 24, "fake": 24},
        "val": {"real": 6, "fake": 6},
        "test": {"real": 6, "fake": 6},
    }
    assert result.not_split == ""
    assert result.directory == str(tmp_path / "out")
    assert result.videos == 24
    assert result.filtered == {"not the largest face": 48}
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_a_damaged_video_keeps_the_faces_that_decode_and_has_a_warning(clips_folder, tmp_path):
    root = tmp_path / "mixed"
    shutil.copytree(clips_folder, root)
    whole = list(read_frames(root / "real" / "person02.mp4", 99))
    writer = cv2.VideoWriter(
        str(root / "real" / "cut.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 160)
    )
    for frame in whole * 3:
        writer.write(frame.pixels[..., ::-1].copy())
    writer.release()
    data = (root / "real" / "cut.avi").read_bytes()
    (root / "real" / "cut.avi").write_bytes(data[: len(data) // 2])
    result = prepare(root, tmp_path / "out", FACES)
    videos = read_videos(tmp_path / "out")
    (cut,) = [video for video in videos if video.path == "real/cut.avi"]
    assert cut.num_faces == cut.num_frames == 4
    assert "cut short" in cut.warning
    assert all(video.warning == "" for video in videos if video is not cut)
    assert result.warnings == {"mixed/real/cut": cut.warning}
    assert all(video.num_tracks >= 1 for video in videos if video.num_faces)


def test_filters_are_stored_with_the_set_and_different_ones_are_an_error(
    fake_extraction, folder, tmp_path
):
    filters = FilterOptions(min_sharpness=3)
    prepare(folder, tmp_path / "out", FACES, filters=filters)
    assert load_options(tmp_path / "out" / "options.json", "filters", FilterOptions) == filters
    with pytest.raises(ValueError, match="min_sharpness 3 -> 0.0"):
        prepare(folder, tmp_path / "out", FACES)


def test_videos_without_a_face_are_rows_with_reasons(clips_folder, tmp_path):
    root = tmp_path / "mixed"
    shutil.copytree(clips_folder, root)
    write_clip_without_a_face(root / "real" / "wall.mp4")
    (root / "fake" / "notes.mp4").write_text("Dear diary")
    shutil.copy(root / "fake" / "person02.mp4", root / "fake" / "cut.mp4")
    whole = (root / "fake" / "cut.mp4").read_bytes()
    (root / "fake" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    result = prepare(root, tmp_path / "out", FaceOptions(frames_per_video=1, face_size=71))
    videos = read_videos(tmp_path / "out")
    empty = {video.path: video.reason for video in videos if video.num_faces == 0}
    # The detector may miss the one sampled frame of a coarsely rendered fake as well.
    assert {"real/wall.mp4", "fake/notes.mp4", "fake/cut.mp4"} <= set(empty)
    assert "" not in empty.values()
    assert "no face" in empty["real/wall.mp4"]
    assert "got fake/notes.mp4" in empty["fake/notes.mp4"]
    assert "cut short" in empty["fake/cut.mp4"]  # without the index at its end, nothing decodes
    assert all(video.reason == "" for video in videos if video.num_faces)
    assert sorted(result.excluded.values()) == sorted(empty.values())
    assert result.without_faces == list(result.excluded)
    assert "wall" not in "".join(
        face.path for face in to_rows(read_faces(tmp_path / "out"), FaceRow)
    )


@pytest.mark.parametrize("finished", [0, 7, 23])
def test_a_resumed_run_ends_with_the_same_bytes(
    fake_extraction, folder, tmp_path, monkeypatch, finished
):
    options = PrepareOptions(faces_per_shard=10)
    prepare(folder, tmp_path / "whole", FACES, options)
    seen = []

    def interrupted(path, *options):
        if len(seen) == finished:
            raise KeyboardInterrupt
        seen.append(path)
        return fake_extraction(path, *options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "resumed", FACES, options)
    assert not (tmp_path / "resumed" / "manifest.parquet").exists()

    def resumed(path, *options):
        assert path not in seen
        return fake_extraction(path, *options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", resumed)
    prepare(folder, tmp_path / "resumed", FACES, options)
    assert bytes_of(tmp_path / "resumed") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "name",
    [
        "shards/00000.tfrecord",
        "listing.json",
        "splits/official.json",
        "splits/official.csv",
        "videos.parquet",
        "manifest.parquet",
    ],
)
def test_a_run_interrupted_while_it_writes_its_result_resumes(
    fake_extraction, folder, tmp_path, monkeypatch, name
):
    prepare(folder, tmp_path / "whole", FACES)
    replace = os.replace  # every file is written under another name first

    def interrupt(unfinished, path):
        if str(path).endswith(name):
            raise KeyboardInterrupt
        replace(unfinished, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, tmp_path / "resumed", FACES)
    assert (tmp_path / "resumed" / "parts").exists()
    prepare(folder, tmp_path / "resumed", FACES)
    assert bytes_of(tmp_path / "resumed") == bytes_of(tmp_path / "whole")
    assert not (tmp_path / "resumed" / "parts").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def lose_content(path):
    """As a file system may after a power failure: the size is right, the content is not there."""
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


def lose(path):
    path.unlink()


@pytest.mark.parametrize("suffix", [".json", ".tfrecord"])
@pytest.mark.parametrize("damage", [cut, lose_content, empty, lose])
def test_finished_videos_that_a_power_failure_damaged_are_extracted_again(
    fake_extraction, folder, tmp_path, monkeypatch, capfd, suffix, damage
):
    options = PrepareOptions(faces_per_shard=10)
    prepare(folder, tmp_path / "whole", FACES, options)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("jdfd_keras.datasets.prepare.plan_shards", lambda *_, **__: 1 / 0)
        prepare(folder, tmp_path / "resumed", FACES, options)
    parts = sorted((tmp_path / "resumed/parts").rglob(f"*{suffix}"))[:3]
    for path in parts:
        damage(path)
    capfd.readouterr()
    prepare(folder, tmp_path / "resumed", FACES, options)
    assert bytes_of(tmp_path / "resumed") == bytes_of(tmp_path / "whole")
    printed = capfd.readouterr().err
    if suffix == ".tfrecord":
        assert "the records of 3 videos" in printed and "extracted again" in printed
    elif damage is not lose:
        assert all(path.name in printed for path in parts)


@pytest.mark.parametrize(
    "name",
    ["shards/00001.tfrecord", "listing.json", "videos.parquet", "manifest.parquet"],
)
@pytest.mark.parametrize("damage", [cut, empty, lose_content])
def test_files_of_a_complete_set_that_are_damaged_are_written_again(
    fake_extraction, folder, tmp_path, capfd, name, damage
):
    if (name, damage) == ("shards/00001.tfrecord", lose_content):
        damage = lose  # a change inside a shard is found when its records are read
    options = PrepareOptions(faces_per_shard=10)
    prepare(folder, tmp_path / "out", FACES, options)
    before = bytes_of(tmp_path / "out")
    damage(tmp_path / "out" / name)
    capfd.readouterr()
    prepare(folder, tmp_path / "out", FACES, options)
    assert bytes_of(tmp_path / "out") == before
    assert name.rsplit("/")[-1] in capfd.readouterr().err
    assert not (tmp_path / "out/parts").exists()


def test_a_shard_that_would_have_other_faces_is_an_error(
    fake_extraction, folder, tmp_path, monkeypatch
):
    prepare(folder, tmp_path / "out", FACES, PrepareOptions(faces_per_shard=10))
    lose(tmp_path / "out/shards/00001.tfrecord")

    def other_faces(*arguments):
        found = fake_extraction(*arguments)
        return dataclasses.replace(found, faces=found.faces[:1])

    monkeypatch.setattr(prepare_tasks, "extract_faces", other_faces)
    with pytest.raises(ValueError, match="got others of 00001.tfrecord"):
        prepare(folder, tmp_path / "out", FACES, PrepareOptions(faces_per_shard=10))
    assert not (tmp_path / "out/shards/00001.tfrecord").exists()


def test_the_result_is_on_the_disk_before_it_has_its_name(
    fake_extraction, folder, tmp_path, monkeypatch
):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_sync(handle):
        events.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def record_rename(source, target):
        events.append(("rename", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    out = tmp_path / "out"
    prepare(folder, out, FACES)
    for path in (path for path in out.rglob("*") if path.is_file()):
        inode, parent = path.stat().st_ino, path.parent.stat().st_ino
        renamed = events.index(("rename", inode))
        assert ("sync", inode) in events[:renamed], path
        assert ("sync", parent) in events[renamed:], path


def test_leftovers_of_a_killed_run_are_removed_from_a_complete_set(
    fake_extraction, folder, tmp_path
):
    prepare(folder, tmp_path / "out", FACES)
    for leftover in ("parts/00/0.json", "parts/unfinished-0"):
        (tmp_path / "out" / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / leftover).touch()
    prepare(folder, tmp_path / "out", FACES)
    assert not (tmp_path / "out" / "parts").exists()


def test_a_second_run_changes_nothing(clips_folder, prepared_set, monkeypatch):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in [prepared_set, *prepared_set.rglob("*")]
        }

    monkeypatch.setattr(prepare_tasks, "extract_faces", None)
    before, start = state(), time.monotonic()
    result = prepare(clips_folder, prepared_set, FACES)
    assert time.monotonic() - start < 1
    assert state() == before
    assert result.videos == 16


def test_the_result_does_not_depend_on_where_the_folder_is(
    fake_extraction, folder, tmp_path, monkeypatch
):
    prepare(folder, tmp_path / "one", FACES)
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / folder.name)
    monkeypatch.chdir(moved.parent)
    prepare(moved.name, "two", FACES)
    assert bytes_of(tmp_path / "one") == bytes_of(moved.parent / "two")


def test_shards_have_whole_videos_and_about_faces_per_shard_faces(
    fake_extraction, folder, tmp_path
):
    prepare(folder, tmp_path / "out", FACES, PrepareOptions(faces_per_shard=10))
    rows = to_rows(read_faces(tmp_path / "out"), FaceRow)
    shards = {}
    for row in rows:
        shards.setdefault(row.video_id, set()).add(row.shard)
    assert all(len(names) == 1 for names in shards.values())
    counts = Counter(row.shard for row in rows)
    # Four videos of three faces: the first multiple of 3 from 10 on.
    assert counts == {f"{number:05d}.tfrecord": 12 for number in range(6)}


def test_classes_are_mixed_within_a_shard(fake_extraction, folder, tmp_path):
    prepare(folder, tmp_path / "out", FACES)
    faces = read_faces(tmp_path / "out", columns=["label", "split"]).to_pandas()
    for column in (faces["label"], faces["split"].astype(str)):
        changes = (column != column.shift()).sum() - 1
        assert changes > 4  # 1, if all fakes came before all real ones


def test_splits_of_the_folder_are_kept_and_shared_sources_are_named_before_the_extraction(
    fake_extraction, folder, tmp_path, monkeypatch, capsys
):
    for number in range(12):
        split = "train" if number < 8 else "val" if number < 10 else "test"
        for kind in ("real", "fake"):
            (tmp_path / "sorted" / split / kind).mkdir(parents=True, exist_ok=True)
            name = f"{number:02d}.mp4"
            (folder / kind / name).rename(tmp_path / "sorted" / split / kind / name)
    (tmp_path / "sorted" / "test" / "fake" / "00.mp4").write_bytes(b"\0")
    warned = []

    def extract(path, *options):
        warned.append("the official split shares footage: 1 source" in capsys.readouterr().err)
        return fake_extraction(path, *options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    result = prepare(tmp_path / "sorted", tmp_path / "out", FACES)
    assert warned == [True] + [False] * 24
    (shared,) = result.shared_sources
    assert shared.source == "sorted/00"
    assert set(shared.videos) == {"train", "test"}
    videos = read_videos(tmp_path / "out")
    assert all(video.path.startswith(f"{video.split}/") for video in videos)


@pytest.mark.parametrize(
    ("faces", "options", "message"),
    [
        (FaceOptions(frames_per_video=4, face_size=72), PrepareOptions(), "face_size 71 -> 72"),
        (
            FaceOptions(frames_per_video=5, face_size=71),
            PrepareOptions(),
            "frames_per_video 4 -> 5",
        ),
        (FACES, PrepareOptions(faces_per_shard=9), "faces_per_shard 1024 -> 9"),
    ],
)
def test_different_options_are_an_error_that_names_them(
    clips_folder, prepared_set, faces, options, message
):
    before = bytes_of(prepared_set)
    with pytest.raises(ValueError, match=message):
        prepare(clips_folder, prepared_set, faces, options)
    assert bytes_of(prepared_set) == before


def test_different_videos_are_an_error(fake_extraction, folder, tmp_path):
    prepare(folder, tmp_path / "out", FACES)
    (folder / "real" / "new.mp4").write_bytes(b"\0")
    with pytest.raises(ValueError, match="in 1 video, such as mine/real/new"):
        prepare(folder, tmp_path / "out", FACES)


def test_a_folder_of_other_files_is_an_error_and_unchanged(folder, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"sea")
    with pytest.raises(ValueError, match="holds other files"):
        prepare(folder, tmp_path / "holiday", FACES)
    assert bytes_of(tmp_path / "holiday") == {"beach.jpg": b"sea"}


@pytest.mark.parametrize(
    ("faces", "options", "message"),
    [
        (FaceOptions(face_size=0), PrepareOptions(), "size=0"),
        (FaceOptions(frames_per_video=0), PrepareOptions(), "count=0"),
        (FaceOptions(detector="retina"), PrepareOptions(), "'retina'"),
        (FACES, PrepareOptions(layout="mine"), "got 'mine'"),
        (FACES, PrepareOptions(faces_per_shard=0), "faces_per_shard >= 1, .*; got 0"),
    ],
)
def test_an_invalid_option_is_an_error_before_anything_is_written(
    folder, tmp_path, faces, options, message
):
    with pytest.raises(ValueError, match=message):
        prepare(folder, tmp_path / "out", faces, options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_too_small_to_split_is_prepared_and_says_what_it_lacks(
    fake_extraction, folder, tmp_path, capsys
):
    for number in range(2, 12):
        (folder / "fake" / f"{number:02d}.mp4").unlink()
    for number in range(2, 12):
        (folder / "real" / f"{number:02d}.mp4").unlink()
    result = prepare(folder, tmp_path / "out", FACES)
    assert result.videos == 4
    assert result.faces == {"real": 6, "fake": 6}
    assert result.splits == {}
    assert "no fake videos in val" in result.not_split
    assert f"warning: not split. {result.not_split}" in capsys.readouterr().err
    assert not (tmp_path / "out" / "splits").exists()
    assert read_faces(tmp_path / "out", split="all", split_table="").num_rows == 12
    with pytest.raises(OSError, match="official.*got none.*jdfd-keras split"):
        read_faces(tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    assert prepare(folder, tmp_path / "out", FACES) == result
    assert bytes_of(tmp_path / "out") == before


def test_fakes_without_any_face_do_not_stop_the_run(fake_extraction, folder, tmp_path, monkeypatch):
    def extract(path, *rest):
        none = Extraction([], [], 3, {}, [])
        return none if path.parent.name == "fake" else fake_extraction(path, *rest)

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    result = prepare(folder, tmp_path / "out", FACES)
    assert result.faces == {"real": 36, "fake": 0}
    assert len(result.without_faces) == 12


def test_no_face_at_all_is_an_error(fake_extraction, folder, tmp_path, monkeypatch):
    none = Extraction([], [], 3, {}, [])
    monkeypatch.setattr(prepare_tasks, "extract_faces", lambda *arguments: none)
    with pytest.raises(ValueError, match="at least one video; got none in all 24"):
        prepare(folder, tmp_path / "out", FACES)
    assert not (tmp_path / "out" / "manifest.parquet").exists()


def test_the_official_split_table_has_every_video(fake_extraction, folder, tmp_path):
    prepare(folder, tmp_path / "out", FACES)
    text = (tmp_path / "out" / "splits" / "official.csv").read_text().splitlines()
    assert text[0] == "video_id,split,reason"
    rows = [line.split(",") for line in text[1:]]
    kinds = [(kind, number) for kind in ("fake", "real") for number in range(12)]
    assert [row[0] for row in rows] == [f"mine/{kind}/{number:02d}" for kind, number in kinds]
    # A fake is in the split of its source.
    assert [row[1] for row in rows[:12]] == [row[1] for row in rows[12:]]
    path = tmp_path / "out" / "splits" / "official.json"
    assert load_options(path, "split", SplitOptions) == SplitOptions()


def test_prepared_again_a_set_keeps_its_split_tables(fake_extraction, folder, tmp_path):
    prepare(folder, tmp_path / "out", FACES)
    split_dataset(tmp_path / "out", SplitOptions(strategy="kfold"))
    before = bytes_of(tmp_path / "out")
    assert "splits/kfold-4-of-5.csv" in before
    prepare(folder, tmp_path / "out", FACES)
    assert bytes_of(tmp_path / "out") == before


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="not a folder"):
        prepare(tmp_path / "nothing", tmp_path / "out")


def test_an_error_of_the_machine_stops_the_run_and_is_not_a_row(
    fake_extraction, folder, tmp_path, monkeypatch
):
    def disk_full(path, *rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_tasks, "extract_faces", disk_full)
    with pytest.raises(OSError, match="No space left"):
        prepare(folder, tmp_path / "out", FACES)
    monkeypatch.setattr(prepare_tasks, "extract_faces", fake_extraction)
    prepare(folder, tmp_path / "out", FACES)
    assert all(video.num_faces == 3 for video in read_videos(tmp_path / "out"))
