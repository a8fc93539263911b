import dataclasses
import io
import json
import pickle

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import data

from jdfd_keras.datasets import extraction_task as take_module
from jdfd_keras.datasets.extraction_task import Take, estimate_jpeg_quality, part_name, read_part
from jdfd_keras.datasets.hashing import hash_face
from jdfd_keras.datasets.videos import Video
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import Extraction, Face, Track
from jdfd_keras.faces.quality import Quality
from jdfd_keras.io.storage import BeamStore, LocalStore
from jdfd_keras.options import FaceOptions, FilterOptions

VIDEO = Video("mine/fake/anna_bob", "fake/anna_bob.mp4", 1, "FaceSwap", "", ("anna", "bob"), "")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine" / "fake").mkdir(parents=True)
    (tmp_path / "mine" / VIDEO.path).write_bytes(b"\0" * 100)
    return tmp_path / "mine"


@pytest.fixture
def take(folder, tmp_path):
    stores = LocalStore(str(folder)), LocalStore(str(tmp_path / "out"))
    return Take(*stores, FaceOptions(frames_per_video=4, face_size=71), FilterOptions())


@pytest.fixture
def seen(monkeypatch):
    """The files of which faces were asked; three pretended ones are found in each."""
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
            position=index,
        )
        for index in range(3)
    ]
    asked = []

    def extract(path, options, filters):
        asked.append((path.name, options.face_size))
        tracks = [Track(0, 3, 1.25, 31.0, 0.0, 0.4), Track(1, 2, 1.0, 9.0, 0.0, 0.4)]
        dropped = {"not the largest face": 2}
        return Extraction(faces, tracks, 4, dropped, ["cut short", "odd"], 160, 90)

    monkeypatch.setattr(take_module, "extract_faces", extract)
    return asked


OUTCOME = {
    "file_bytes": 100,
    "width": 160,
    "height": 90,
    "jpeg_quality": 0,
    "num_frames": 4,
    "num_tracks": 2,
    "num_faces": 3,
    "dropped": {"not the largest face": 2},
    "warning": "cut short odd",
    "reason": "",
}


def read_examples(take, video=VIDEO):
    name = part_name(video) + ".tfrecord"
    if not take.out.exists(name):  # of a video without a face
        return []
    path = take.out.path(name)
    return [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in tf.data.TFRecordDataset(str(path))
    ]


def test_a_video_becomes_its_outcome(take, seen):
    assert take((VIDEO, 100)) == {"video_id": "mine/fake/anna_bob", **OUTCOME}
    assert seen == [("anna_bob.mp4", 71)]
    assert read_part(take.out, VIDEO)["outcome"] == OUTCOME


def test_its_records_and_rows_are_those_of_its_faces(take, seen):
    take((VIDEO, 100))
    rows, examples = read_part(take.out, VIDEO)["faces"], read_examples(take)
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


def test_a_finished_video_is_not_taken_again(take, seen):
    first = take((VIDEO, 100))
    assert take((VIDEO, 100)) == first
    assert pickle.loads(pickle.dumps(take))((VIDEO, 100)) == first
    assert len(seen) == 1


def test_a_video_whose_file_has_another_size_is_taken_again(take, seen):
    take((VIDEO, 100))
    assert take((VIDEO, 101))["file_bytes"] == 101
    assert take((VIDEO, 101))["file_bytes"] == 101
    assert len(seen) == 2


def test_a_video_whose_rows_were_not_written_is_taken_again(take, seen, monkeypatch):
    def break_off(*written):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(take_module, "write_text", break_off)
        with pytest.raises(KeyboardInterrupt):
            take((VIDEO, 100))
    assert take.out.exists(part_name(VIDEO) + ".tfrecord")
    assert take((VIDEO, 100))["num_faces"] == 3
    assert len(seen) == 2
    assert len(read_examples(take)) == 3


def test_what_fails_while_it_is_written_is_not_finished(take, seen, monkeypatch):
    def no_room(*face, **labels):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(take_module, "encode_face", no_room)
        with pytest.raises(OSError, match="No space left"):
            take((VIDEO, 100))
    assert take.out.list() == {}


def test_a_fault_of_the_machine_is_raised_and_is_no_outcome(take, monkeypatch):
    def full(*asked):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(take_module, "extract_faces", full)
    with pytest.raises(OSError, match="No space left"):
        take((VIDEO, 100))
    assert take.out.list() == {}


def test_a_file_that_is_gone_is_raised_and_is_no_outcome(take, folder):
    (folder / VIDEO.path).unlink()
    with pytest.raises(FileNotFoundError):
        take((VIDEO, 100))
    assert take.out.list() == {}


@pytest.mark.parametrize("kind", [LocalStore, BeamStore])
def test_a_text_that_is_named_as_a_video_is_an_outcome_with_its_reason(take, folder, kind):
    (folder / VIDEO.path).write_text("no video\n" * 30)
    outcome = dataclasses.replace(take, root=kind(str(folder)))((VIDEO, 270))
    assert (outcome["num_faces"], outcome["num_frames"], outcome["file_bytes"]) == (0, 0, 270)
    assert "got fake/anna_bob.mp4 (270 bytes), which is neither" in outcome["reason"]
    assert str(folder) not in json.dumps(outcome)
    assert read_part(take.out, VIDEO)["faces"] == read_examples(take) == []


def test_a_picture_without_a_face_says_so(take, folder):
    video = dataclasses.replace(VIDEO, path="fake/grey.jpg")
    picture = np.full((60, 80, 3), 128, np.uint8)
    Image.fromarray(picture).save(folder / "fake" / "grey.jpg", quality=60)
    outcome = take((video, 1))
    assert outcome["reason"] == "no face was found in 1 frame looked at"
    assert (outcome["width"], outcome["height"]) == (80, 60)
    assert outcome["jpeg_quality"] == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        ({}, "no face was found in 4 frames looked at"),
        ({"sharpness below 40": 4}, "no face that may be taken in 4 frames looked at"),
    ],
)
def test_a_video_of_which_no_face_is_taken_says_why(take, monkeypatch, dropped, reason):
    found = Extraction([], [], 4, dropped, [], 160, 90)
    monkeypatch.setattr(take_module, "extract_faces", lambda *asked: found)
    assert take((VIDEO, 100))["reason"] == reason


def test_a_video_that_cannot_be_looked_at_is_finished_with_the_reason(take, seen):
    outcome = take.fail((VIDEO, 100), "reading it ended the process with SIGSEGV")
    nothing = dict.fromkeys(["width", "height", "num_frames", "num_tracks", "num_faces"], 0)
    expected = {**OUTCOME, **nothing, "dropped": {}, "warning": ""}
    expected["reason"] = "reading it ended the process with SIGSEGV"
    assert outcome == {"video_id": "mine/fake/anna_bob", **expected}
    assert take((VIDEO, 100)) == outcome
    assert seen == []
    assert read_part(take.out, VIDEO)["faces"] == read_examples(take) == []


def test_the_name_of_a_part_is_stable_and_no_two_videos_share_one():
    # By sha256sum of the id.
    assert part_name(VIDEO) == "parts/12/12a9b783eb70f0e3d9653303"
    other = dataclasses.replace(VIDEO, path="elsewhere.mp4", label=0, split="test")
    assert part_name(other) == part_name(VIDEO)  # by its id alone
    ids = [
        f"mine/{kind}/{number}" for kind in ("real", "fake", "Fake", "é") for number in range(99)
    ]
    assert len({part_name(dataclasses.replace(VIDEO, video_id=name)) for name in ids}) == 396


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_quality_of_a_jpeg_is_estimated(tmp_path, quality, mode):
    picture = Image.fromarray(data.astronaut()).convert(mode)
    picture.save(tmp_path / "a.jpg", quality=quality, progressive=True, subsampling=2)
    assert estimate_jpeg_quality(tmp_path / "a.jpg") == pytest.approx(quality, abs=2)


@pytest.mark.parametrize("quality", [1, 10, 100])
def test_the_quality_of_a_jpeg_lies_within_1_and_100(tmp_path, quality):
    Image.fromarray(data.astronaut()).save(tmp_path / "a.jpg", quality=quality)
    assert 1 <= estimate_jpeg_quality(tmp_path / "a.jpg") <= 100


def test_the_quality_of_a_jpeg_is_told_whatever_its_name_or_its_end(tmp_path):
    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "JPEG", quality=50)
    (tmp_path / "a.png").write_bytes(file.getvalue()[:2000])
    assert estimate_jpeg_quality(tmp_path / "a.png") == pytest.approx(50, abs=2)


def test_the_quality_of_a_photograph_with_a_second_picture_is_told(tmp_path):
    # As telephones save them: a JPEG file all the same, and Pillow calls it MPO.
    picture = Image.fromarray(data.astronaut())
    more = [picture.resize((64, 64))]
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=more, quality=75)
    assert estimate_jpeg_quality(tmp_path / "a.jpg") == pytest.approx(75, abs=2)


def test_what_is_no_jpeg_has_no_quality(tmp_path):
    picture = data.astronaut()[:64, :64]
    for name in ("a.png", "a.webp", "a.bmp"):
        Image.fromarray(picture).save(tmp_path / name)
    for name, code in {"a.mp4": "mp4v", "a.avi": "MJPG"}.items():
        fourcc = cv2.VideoWriter_fourcc(*code)
        writer = cv2.VideoWriter(str(tmp_path / name), fourcc, 25, (64, 64))
        writer.write(picture)
        writer.release()
    (tmp_path / "a.jpg").write_text("a text")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "head.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    found = {path.name: estimate_jpeg_quality(path) for path in tmp_path.iterdir()}
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 8
