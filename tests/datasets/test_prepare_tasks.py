import contextlib
import dataclasses
import json
import pickle
import re

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from jdfd_keras.datasets import manifest, prepare_tasks
from jdfd_keras.datasets.hashing import hash_face
from jdfd_keras.datasets.manifest import FaceRow, VideoOutcome
from jdfd_keras.datasets.prepare_tasks import (
    ExtractVideo,
    VideoFile,
    part_name,
    read_part,
)
from jdfd_keras.datasets.videos import Video
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import Extraction, Face, Track
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.faces.quality import Quality
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import FaceOptions, FilterOptions

VIDEO = Video("mine/fake/anna_bob", "fake/anna_bob.mp4", 1, "FaceSwap", "", ("anna", "bob"), "")
MEDIA = MediaInfo("mp4", "h264", "yuv420p", 90, 160, 25.0, 50, 2.0, encoder="Lavf60")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine" / "fake").mkdir(parents=True)
    (tmp_path / "mine" / VIDEO.path).write_bytes(b"\0" * 100)
    return tmp_path / "mine"


@pytest.fixture
def task(folder, tmp_path):
    stores = LocalStore(str(folder)), LocalStore(str(tmp_path / "out"))
    return ExtractVideo(*stores, FaceOptions(frames_per_video=4, face_size=71), FilterOptions())


@pytest.fixture
def seen(monkeypatch):
    """Names and face sizes of the extracted files; each has three random faces."""
    crops = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    faces = [
        Face(
            frame_index=10 * index,
            time_s=0.4,
            track_id=0,
            box=Box(-1, 2, 30, 41, 1.25),
            landmarks=np.full((68, 2), 1.25, np.float32),
            alignment_residual=0.0625,
            quality=Quality(1.25, 5.5, 31, 0.25, -3.5),
            crops=crops,
            crop_index=index,
        )
        for index in range(3)
    ]
    seen = []

    def extract(path, options, *others):
        seen.append((path.name, options.face_size))
        tracks = [Track(0, 3, 1.25, 31.0, 0.0, 0.4), Track(1, 2, 1.0, 9.0, 0.0, 0.4)]
        filtered = {"not the largest face": 2}
        warnings = ["cut short", "odd"]
        return Extraction(faces, tracks, 4, filtered, warnings, 160, 90, MEDIA, "ab" * 32)

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    return seen


OUTCOME = VideoOutcome(
    file_bytes=100,
    sha256="ab" * 32,
    width=160,
    height=90,
    container="mp4",
    codec="h264",
    pixel_format="yuv420p",
    frame_rate=25.0,
    file_frames=50,
    duration_s=2.0,
    encoder="Lavf60",
    num_frames=4,
    num_tracks=2,
    num_faces=3,
    filtered={"not the largest face": 2},
    warning="cut short odd",
    reason="",
)


def read_examples(task, video=VIDEO):
    name = part_name(video) + ".tfrecord"
    if not task.out.exists(name):  # a video without a face
        return []
    path = task.out.path(name)
    return [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in tf.data.TFRecordDataset(str(path))
    ]


def test_a_video_has_an_outcome(task, seen):
    assert task(VideoFile(VIDEO, 100)) == OUTCOME
    assert seen == [("anna_bob.mp4", 71)]
    assert read_part(task.out, VIDEO).outcome == OUTCOME


def test_a_finished_video_has_a_record_and_a_row_for_each_face(task, seen):
    task(VideoFile(VIDEO, 100))
    rows, examples = read_part(task.out, VIDEO).faces, read_examples(task)
    assert [row["frame_index"] for row in rows] == [0, 10, 20]
    assert rows[1] == {
        "frame_index": 10,
        "time_s": 0.4,
        "track_id": 0,
        "box": [-1, 2, 30, 41],
        "detector": "dlib",
        "detector_score": 1.25,
        "landmarks": [1.25] * 136,
        "alignment_residual": 0.0625,
        "sharpness": 5.5,
        "outside": 0.25,
        "yaw_deg": -3.5,
        "phash": rows[1]["phash"],
    }
    crops = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    for row, features, crop in zip(rows, examples, crops, strict=True):
        assert features["label"].int64_list.value == [1]
        assert features["video_id"].bytes_list.value == [b"mine/fake/anna_bob"]
        assert features["frame_index"].int64_list.value == [row["frame_index"]]
        png = np.frombuffer(features["image/encoded"].bytes_list.value[0], np.uint8)
        np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), crop)
        assert row["phash"] == hash_face(crop)


def test_a_finished_video_is_not_extracted_again(task, seen):
    first = task(VideoFile(VIDEO, 100))
    assert task(VideoFile(VIDEO, 100)) == first
    assert pickle.loads(pickle.dumps(task))(VideoFile(VIDEO, 100)) == first
    assert len(seen) == 1


def test_a_video_whose_file_size_changed_is_extracted_again(task, seen):
    task(VideoFile(VIDEO, 100))
    assert task(VideoFile(VIDEO, 101)).file_bytes == 101
    assert task(VideoFile(VIDEO, 101)).file_bytes == 101
    assert len(seen) == 2


def test_a_video_whose_rows_were_not_written_is_extracted_again(task, seen, monkeypatch):
    def interrupt(*written):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_tasks, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task(VideoFile(VIDEO, 100))
    assert task.out.exists(part_name(VIDEO) + ".tfrecord")
    assert task(VideoFile(VIDEO, 100)).num_faces == 3
    assert len(seen) == 2
    assert len(read_examples(task)) == 3


def test_a_video_whose_records_were_not_written_is_not_finished(task, seen, monkeypatch):
    def disk_full(*face, **labels):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_tasks, "encode_face", disk_full)
        with pytest.raises(OSError, match="No space left"):
            task(VideoFile(VIDEO, 100))
    assert task.out.list() == {}


def test_an_error_of_the_machine_is_raised_and_is_not_an_outcome(task, monkeypatch):
    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_tasks, "extract_faces", disk_full)
    with pytest.raises(OSError, match="No space left"):
        task(VideoFile(VIDEO, 100))
    assert task.out.list() == {}


def test_a_missing_file_is_an_error_and_not_an_outcome(task, folder):
    (folder / VIDEO.path).unlink()
    with pytest.raises(FileNotFoundError):
        task(VideoFile(VIDEO, 100))
    assert task.out.list() == {}


def test_a_text_file_with_a_video_suffix_has_an_outcome_with_the_reason(task, folder):
    (folder / VIDEO.path).write_text("not video\n" * 27)
    outcome = task(VideoFile(VIDEO, 270))
    assert (outcome.num_faces, outcome.num_frames, outcome.file_bytes) == (0, 0, 270)
    assert "got fake/anna_bob.mp4 (270 bytes)" in outcome.reason
    assert str(folder) not in json.dumps(outcome.to_dict())
    assert read_part(task.out, VIDEO).faces == read_examples(task) == []


def test_an_image_without_a_face_has_the_reason(task, folder):
    video = dataclasses.replace(VIDEO, path="fake/grey.jpg")
    image = np.full((60, 80, 3), 128, np.uint8)
    Image.fromarray(image).save(folder / "fake" / "grey.jpg", quality=60)
    outcome = task(VideoFile(video, 1))
    assert re.fullmatch("no face .* 1 .*frame", outcome.reason)
    assert (outcome.width, outcome.height) == (80, 60)
    assert outcome.jpeg_quality == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    ("filtered", "reason"),
    [
        ({}, "no face was found in 4 sampled frames"),
        ({"sharpness below 40": 4}, "all faces were filtered out in 4 sampled frames"),
    ],
)
def test_a_video_without_a_face_has_the_reason(task, monkeypatch, filtered, reason):
    found = Extraction([], [], 4, filtered, [], 160, 90)
    monkeypatch.setattr(prepare_tasks, "extract_faces", lambda *arguments: found)
    assert task(VideoFile(VIDEO, 100)).reason == reason


def test_a_video_that_crashes_its_process_is_finished_with_the_reason(task, seen):
    outcome = task.fail(VideoFile(VIDEO, 100), "reading it ended the process with SIGSEGV")
    reason = "reading it ended the process with SIGSEGV"
    assert outcome == VideoOutcome(file_bytes=100, reason=reason)
    assert task(VideoFile(VIDEO, 100)) == outcome
    assert seen == []
    assert read_part(task.out, VIDEO).faces == read_examples(task) == []


def test_the_name_of_a_part_is_stable_and_unique():
    # From sha256sum of the id.
    assert part_name(VIDEO) == "parts/12/12a9b783eb70f0e3d9653303"
    other = dataclasses.replace(VIDEO, path="elsewhere.mp4", label=0, split="test")
    assert part_name(other) == part_name(VIDEO)  # from its id alone
    ids = [
        f"mine/{kind}/{number}" for kind in ("real", "fake", "Fake", "é") for number in range(99)
    ]
    assert len({part_name(dataclasses.replace(VIDEO, video_id=name)) for name in ids}) == 396


CROPS = FaceOptions(detector="none", frames_per_video=3, face_size=40)


def write_crops(folder, count=6):
    """Write crops of one grey level each."""
    names = tuple(f"fake/anna_bob/{index:03}.png" for index in range(count))
    (folder / "fake" / "anna_bob").mkdir()
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((80, 80, 3), 10 * index, np.uint8))
    return names


def item_of(names, **files):
    video = dataclasses.replace(VIDEO, path="fake/anna_bob")
    return VideoFile(video, 999, frames=names, **files)


def test_a_video_of_image_files_is_extracted_from_the_sampled_ones(task, folder):
    names = write_crops(folder)
    for index in (0, 2, 4):
        (folder / names[index]).unlink()
    points = np.full((81, 2), 39.5)
    np.save(folder / "one.npy", points)
    item = item_of(names, landmarks=("", "one.npy", "", "", "", "missing.npy"))
    (folder / "missing.npy").write_bytes(b"damaged")
    outcome = dataclasses.replace(task, faces=CROPS)(item)
    assert (outcome.file_bytes, outcome.file_frames, outcome.num_frames) == (999, 6, 3)
    assert (outcome.num_faces, outcome.codec, outcome.reason) == (3, "png", "")
    assert outcome.warning == "1 file of landmarks could not be read, such as missing.npy"
    rows = read_part(task.out, item.video).faces
    assert [row["frame_index"] for row in rows] == [1, 3, 5]
    assert [row["landmarks"] for row in rows] == [[19.5] * 136, [], []]
    unknown = [(row["detector_score"], row["alignment_residual"], row["yaw_deg"]) for row in rows]
    assert unknown == [(None, None, None)] * 3
    assert {(row["detector"], row["time_s"], *row["box"]) for row in rows} == {
        ("none", 0.0, 0, 0, 80, 80)
    }
    text = task.out.path(part_name(item.video) + ".json").read_text()
    json.loads(text, parse_constant=pytest.fail)


def test_unknown_measures_are_null_in_the_table_and_nan_in_its_rows(task, folder, tmp_path):
    item = item_of(write_crops(folder))
    dataclasses.replace(task, faces=CROPS)(item)
    faces = read_part(task.out, item.video).faces
    rows = [FaceRow(**item.video.to_dict() | face | {"shard": "a", "offset": 0}) for face in faces]
    table = manifest.to_table(rows, FaceRow)
    assert table["yaw_deg"].null_count == table["detector_score"].null_count == 3
    restored = manifest.to_rows(table, FaceRow)
    assert all(np.isnan([row.yaw_deg, row.alignment_residual]).all() for row in restored)
    assert restored[0].landmarks == ()


def test_a_video_of_damaged_image_files_has_the_reason_with_its_folder(task, folder):
    names = write_crops(folder)
    for name in names:
        (folder / name).write_bytes(b"damaged")
    outcome = task(item_of(names))
    assert "in fake/anna_bob; got" in outcome.reason
    assert "fake/anna_bob/000.png" in outcome.reason
    assert str(folder) not in outcome.reason


def test_the_mask_of_a_face_is_in_its_record(task, seen, monkeypatch):
    png = cv2.imencode(".png", np.full((24, 24), 255, np.uint8))[1].tobytes()
    extract = prepare_tasks.extract_faces

    def extract_masked(*arguments):
        found = extract(*arguments)
        first, *others = found.faces
        return dataclasses.replace(found, faces=[dataclasses.replace(first, mask=png), *others])

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract_masked)
    task(VideoFile(VIDEO, 100))
    masked, *others = read_examples(task)
    assert masked["mask/encoded"].bytes_list.value == [png]
    assert all("mask/encoded" not in features for features in others)


def test_a_mask_chooses_the_face(task, folder, monkeypatch):
    given = []

    def extract(path, faces, filters, limits, landmarks, mask):
        given.append((path, landmarks, mask))
        return Extraction([], [], 1, {"the mask marks none of the faces": 3}, [])

    monkeypatch.setattr(prepare_tasks, "extract_faces", extract)
    item = VideoFile(VIDEO, 100, mask="masks/anna_bob.mp4")
    assert task(item).filtered == {"the mask marks none of the faces": 3}
    assert given == [(folder / VIDEO.path, [], folder / "masks/anna_bob.mp4")]


def test_of_image_files_elsewhere_only_the_sampled_ones_are_copied(task, folder, monkeypatch):
    names, copied = write_crops(folder), []

    @contextlib.contextmanager
    def copy(store, name):
        copied.append(name)
        yield store.path(name)

    monkeypatch.setattr(prepare_tasks, "local_path", copy)
    points = tuple(f"{index}.npy" for index in range(6))
    for name in points:
        np.save(folder / name, np.zeros((68, 2)))
    dataclasses.replace(task, faces=CROPS)(item_of(names, landmarks=points))
    assert copied == [files[index] for files in (names, points) for index in (1, 3, 5)]
