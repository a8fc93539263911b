"""Faces extracted in other processes are the same, and leave no files behind."""

import hashlib
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.io.workers import WorkerCrashed
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction import extraction

FACES = FaceOptions(face_size=71, frames_per_video=3, tracks="largest")


@pytest.fixture(scope="module")
def clip(clips_folder):
    return sorted(clips_folder.rglob("real/*.mp4"))[0]


def test_crops_are_passed_in_a_file_that_is_deleted_afterwards(clip, tmp_path):
    expected = extract_faces(clip, FACES)
    for path, file in extraction.extract_all(
        [clip, clip.with_name("none.mp4")], FACES, 0, tmp_path
    ):
        if path != clip:
            assert "none.mp4" in file and file.startswith("Expected ")
            continue
        (crops,) = tmp_path.iterdir()
        assert crops.stat().st_size == 3 * 71 * 71 * 3
        found = pickle.loads(pickle.dumps(file)).extraction  # as from another process
        assert len(found.faces) == 3
        for face, other in zip(found.faces, expected.faces, strict=True):
            np.testing.assert_array_equal(face.crop, other.crop)
            assert (face.frame_index, face.box) == (other.frame_index, other.box)
        assert found.num_frames == 3
        assert file.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == []


def test_a_clip_lasts_as_long_as_its_frames_and_an_image_has_no_duration(tmp_path, clip):
    assert extraction.extract_file(clip, FACES).duration_s == pytest.approx(6 / 25)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 50, 3), np.uint8))
    assert extraction.extract_file(tmp_path / "a.png", FACES).duration_s == 0


def test_a_crashed_process_fails_its_own_file_only(clip, tmp_path, monkeypatch):
    def run_all(function, items, num_workers):
        return (
            (item, WorkerCrashed("SIGSEGV") if item == "bad.mp4" else function(item))
            for item in items
        )

    monkeypatch.setattr(extraction, "run_all", run_all)
    (_, bad), (_, good) = extraction.extract_all(["bad.mp4", clip], FACES, 2, tmp_path)
    assert "bad.mp4, on" in bad and "crashed (SIGSEGV)" in bad
    assert len(good.extraction.faces) == 3


def test_an_animated_image_without_a_face_in_its_first_frame_has_no_verdict(tmp_path):
    grey = [Image.new("RGB", (60, 50), (value,) * 3) for value in (90, 120)]
    grey[0].save(tmp_path / "one.webp")
    grey[0].save(tmp_path / "two.webp", save_all=True, append_images=grey[1:])
    assert extraction.extract_file(tmp_path / "one.webp", FACES).extraction.faces == []
    with pytest.raises(OSError, match="two.webp, an animated image.* 1 are not read"):
        extraction.extract_file(tmp_path / "two.webp", FACES)


def test_a_file_that_changes_during_the_analysis_is_not_judged(tmp_path, monkeypatch):
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")

    def extract(path, options):
        found = extract_faces(path, options)
        Image.new("RGB", (70, 50), "red").save(path)
        return found

    monkeypatch.setattr(extraction, "extract_faces", extract)
    with pytest.raises(OSError, match="not change; got .*a.png"):
        extraction.extract_file(tmp_path / "a.png", FACES)
