"""The pictures: files that can be looked at, drawn where the numbers and faces lie."""

import cv2
import numpy as np
import pytest

from jdfd_keras.evaluation.figures import plot_faces, plot_roc
from jdfd_keras.evaluation.scores import Scores

VIDEO_RGB = (0x00, 0x72, 0xB2)


def make_scores(label, score) -> Scores:
    num = len(label)
    return Scores([f"video/{index}" for index in range(num)], [0] * num, label, [""] * num, score)


def draw(path, label, score) -> np.ndarray:
    plot_roc(path, make_scores(label, score), title="a $5 b $5")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def count_inked_rows(picture: np.ndarray) -> np.ndarray:
    """Rows, from the top, in which the curve of the videos has its colour."""
    return np.flatnonzero((picture == VIDEO_RGB).all(axis=2).any(axis=1))


def test_the_roc_curve_is_a_picture_of_reasonable_size(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    picture = draw(tmp_path / "roc.png", label, np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1))
    height, width, _ = picture.shape
    assert 800 <= height <= 2000 and 800 <= width <= 2000
    assert (picture == 255).all(axis=2).mean() > 0.8  # paper white, not a dark screen
    assert len(count_inked_rows(picture)) > height / 2  # a curve from the bottom to the top


def test_a_perfect_detector_is_drawn_above_the_chance_line(tmp_path):
    perfect = draw(tmp_path / "perfect.png", [0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    inverted = draw(tmp_path / "inverted.png", [1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9])
    upper_left = (slice(0, perfect.shape[0] // 2), slice(0, perfect.shape[1] // 2))
    assert (perfect[upper_left] == VIDEO_RGB).all(axis=2).sum() > 1000
    assert (inverted[upper_left] == VIDEO_RGB).all(axis=2).sum() == 0


def test_pyplot_is_left_alone(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    draw(tmp_path / "roc.png", [0, 1], [0.1, 0.9])
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("label", [[0, 0], [1, 1], []])
def test_one_class_has_no_curve(tmp_path, label):
    with pytest.raises(ValueError, match="Expected real and fake faces"):
        plot_roc(tmp_path / "roc.png", make_scores(label, [0.5] * len(label)), title="t")
    assert not (tmp_path / "roc.png").exists()


RED, BLUE = (255, 0, 0), (0, 0, 255)


def draw_faces(path, *colours, count=8) -> np.ndarray:
    """Eight faces of one colour, in rows of six, each above a reconstruction of another."""
    one = np.stack([np.full((9, 9, 3), colour) for colour in colours]) / 127.5 - 1
    plot_faces(path, [one] * count, ["fake, score $0.5$"] * count)
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def count_spots(picture: np.ndarray, colour) -> int:
    spots = (picture == colour).all(axis=2).astype(np.uint8)
    return cv2.connectedComponents(spots)[0] - 1  # one is the paper


def test_each_face_stands_above_its_reconstruction(tmp_path):
    picture = draw_faces(tmp_path / "faces.png", RED, BLUE)
    assert (count_spots(picture, RED), count_spots(picture, BLUE)) == (8, 8)
    first_red, first_blue = (
        np.argwhere((picture == colour).all(axis=2)).min(axis=0) for colour in (RED, BLUE)
    )
    assert first_red[0] < first_blue[0] and abs(first_red[1] - first_blue[1]) <= 1


def test_faces_alone_are_as_large_and_leave_no_room_for_reconstructions(tmp_path):
    pairs = draw_faces(tmp_path / "pairs.png", RED, BLUE)
    alone = draw_faces(tmp_path / "alone.png", RED)
    assert (count_spots(alone, RED), count_spots(alone, BLUE)) == (8, 0)
    assert alone.shape[1] == pairs.shape[1] and alone.shape[0] < 0.6 * pairs.shape[0]
    sizes = [(picture == RED).all(axis=2).sum() for picture in (pairs, alone)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)
