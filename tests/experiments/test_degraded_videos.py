"""Degraded videos that are stored as image files, with landmarks."""

import cv2
import numpy as np
import pytest

from jdfd_keras.experiments.degraded_videos import ExtractDegraded, SourceVideo
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions

CROPS = FaceOptions(detector="none", frames_per_video=3, face_size=64)


@pytest.fixture
def video(tmp_path):
    """Six images of one colour each, with landmarks."""
    files, landmarks = [], []
    for index in range(6):
        files.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(files[-1]), np.full((64, 64, 3), 40 * index, np.uint8))
        landmarks.append(tmp_path / f"{index}.npy")
        np.save(landmarks[-1], np.full((68, 2), 10.0 + index))
    return SourceVideo("a", tuple(map(str, files)), True, tuple(map(str, landmarks)))


def extract(video, name, strength):
    task = ExtractDegraded(name, strength, 0, CROPS, FilterOptions(), LimitOptions())
    return task(video)


def test_the_sampled_images_are_degraded_and_keep_their_indices(video):
    found = extract(video, "brightness", 20)
    assert found.frame_index.tolist() == [1, 3, 5] and found.reason == ""
    assert found.crops[:, 0, 0, 0].tolist() == [60, 140, 220]
    assert found.crops.shape == (3, 64, 64, 3)


def test_images_are_encoded_as_one_video(video):
    found = extract(video, "h264", 30)
    assert found.frame_index.tolist() == [1, 3, 5]
    assert np.abs(found.crops[:, 32, 32, 0] - np.array([40.0, 120.0, 200.0])).max() < 8


def test_few_images_are_left_if_most_are_dropped(video):
    found = extract(video, "frame-drop", 0.75)
    levels = found.crops[:, 0, 0, 0]
    assert len(levels) == 2 and set(levels.tolist()) <= {0, 40, 80, 120, 160, 200}


def test_a_video_that_cannot_be_decoded_has_a_reason_without_the_temporary_folder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    found = extract(SourceVideo("a", (str(tmp_path / "a.mp4"),)), "blur", 2)
    assert len(found.crops) == 0 and "a.mp4" in found.reason
