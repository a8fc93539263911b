"""Which parts of a scene count as changed, against parts that are changed here."""

import numpy as np
import pytest

from jdfd_keras.faces.changes import SearchedScene, Window


@pytest.fixture
def scene_and_frame():
    rng = np.random.default_rng(0)
    frame = np.kron(rng.integers(40, 200, (60, 80, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    scene = SearchedScene()
    scene.add_search(frame, None)
    return scene, frame


def contains(windows, box):
    left, top, right, bottom = box
    return any(
        window.left <= left and window.top <= top and right <= window.right <= 640
        for window in windows
        if bottom <= window.bottom <= 480
    )


@pytest.mark.parametrize("gain, offset, sigma", [(1, 0, 3), (0.8, 0, 2), (1.1, -20, 2), (1, 25, 0)])
def test_noise_and_exposure_are_no_changes(scene_and_frame, gain, offset, sigma):
    scene, frame = scene_and_frame
    noise = np.random.default_rng(1).normal(0, sigma, frame.shape)
    later = np.clip(frame * gain + offset + noise, 0, 255).astype(np.uint8)
    assert scene.find_changes(later) == []


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (301, 203, 341, 243), (600, 440, 640, 480)])
@pytest.mark.parametrize("gain", [1.0, 0.9])
def test_a_change_of_the_size_of_the_smallest_face_is_in_a_window(scene_and_frame, box, gain):
    scene, frame = scene_and_frame
    left, top, right, bottom = box
    later = frame.copy()
    later[top:bottom, left:right] = frame[200:240, 100:140]
    windows = scene.find_changes((later * gain).astype(np.uint8))
    assert windows is not None
    assert contains(windows, box)
    assert sum(window.area for window in windows) < 0.1 * 480 * 640


def test_windows_do_not_overlap_and_contain_every_change(scene_and_frame):
    scene, frame = scene_and_frame
    later = frame.copy()
    boxes = [(40, 40, 90, 90), (110, 60, 160, 120), (400, 300, 520, 340), (430, 380, 480, 440)]
    for left, top, right, bottom in boxes:
        later[top:bottom, left:right] = 255 - later[top:bottom, left:right]
    windows = scene.find_changes(later)
    assert windows is not None
    assert all(contains(windows, box) for box in boxes)
    covered = np.zeros((480, 640), int)
    for left, top, right, bottom in windows:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1


def test_a_part_that_was_not_searched_keeps_its_change(scene_and_frame):
    """A slow change is found, too, however often another part is searched meanwhile."""
    scene, frame = scene_and_frame
    later = frame.astype(float)
    for step in range(1, 6):
        later[100:160, 100:160] += 1.5
        shown = later.astype(np.uint8)
        if step < 3:
            assert scene.find_changes(shown) == []
        scene.add_search(shown, [Window(400, 300, 480, 380)])
    shown = later.astype(np.uint8)
    windows = scene.find_changes(shown)
    assert windows is not None
    assert contains(windows, (100, 100, 160, 160))
    scene.add_search(shown, windows)
    assert scene.find_changes(shown) == []


def test_other_parts_are_in_windows_and_most_of_the_frame_is_all_of_it(scene_and_frame):
    scene, frame = scene_and_frame
    windows = scene.find_changes(frame, [(-30, 200, 50, 260)])
    assert windows is not None
    assert contains(windows, (0, 200, 50, 260))
    assert scene.find_changes(255 - frame[:, ::-1]) is None
    assert SearchedScene().find_changes(frame) is None
