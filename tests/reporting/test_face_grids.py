"""Grids of faces: positions, captions and unchanged pixels."""

import html

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from jdfd_keras.reporting.face_grids import (
    blend_cam,
    draw_explanations,
    draw_faces,
    draw_samples,
    plot_explanations,
    plot_faces,
    plot_samples,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def make_face(colour=RED, size=9) -> np.ndarray:
    return np.full((size, size, 3), colour, dtype=np.uint8)


def make_reconstruction(colour=BLUE, size=9) -> np.ndarray:
    return np.full((size, size, 3), colour) / 127.5 - 1


def read_image(path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(f"{path}.png"), cv2.COLOR_BGR2RGB)


def read_words(path) -> str:
    return html.unescape(path.with_suffix(".svg").read_text(encoding="utf-8"))


def find_areas(image: np.ndarray, colour) -> np.ndarray:
    """Return left, top, width and height of each area of a colour, from the top left."""
    spots = (image == colour).all(axis=2).astype(np.uint8)
    found = cv2.connectedComponentsWithStats(spots)[2][1:, :4]  # the first is the paper
    return found[np.lexsort((found[:, 0], found[:, 1] // 10))]


def test_each_face_is_above_its_reconstruction_and_residual(tmp_path):
    faces, reconstructions = [make_face()] * 8, [make_reconstruction()] * 8
    plot_faces(tmp_path / "f", faces, ["fake, $0.5$"] * 8, reconstructions=reconstructions)
    image = read_image(tmp_path / "f")
    # Red and blue differ by 2 in two of three channels, and the largest has the last colour.
    brightest = matplotlib.colormaps["viridis"](1.0, bytes=True)[:3]
    red, blue = find_areas(image, RED), find_areas(image, BLUE)
    bright = [spot for spot in find_areas(image, brightest) if spot[2] > 100]  # not of the bar
    assert len(red) == len(blue) == len(bright) == 8
    assert np.all(red[:, 0] == blue[:, 0]) and np.all(red[:, 1] < blue[:, 1])
    assert len(np.unique(red[:, 1])) == 2 and len(np.unique(red[:, 0])) == 6  # rows of six
    words = read_words(tmp_path / "f")
    assert words.count(">fake, $0.5$<") == 8 and words.count("<image") >= 24
    for text in (">face<", ">reconstruction<", ">residual<", ">0<", ">0.67<", ">1.3<"):
        assert text in words  # the bar ends at 4 / 3


def test_residuals_share_a_scale_up_to_the_largest():
    faces = [make_face((0, 0, 0)), make_face((0, 0, 0))]
    reconstructions = [np.full((9, 9, 3), -0.9), np.full((9, 9, 3), -0.5)]
    figure = draw_faces(faces, ["a", "b"], reconstructions=reconstructions)
    maps = [image for image in figure.axes[0].images if image.get_array().ndim == 2]
    np.testing.assert_allclose([part.get_array().mean() for part in maps], [0.1, 0.5], atol=1e-6)
    assert [part.get_clim() for part in maps] == [(0, 0.5)] * 2


def test_perfect_and_out_of_range_reconstructions_are_drawn():
    perfect = draw_faces([make_face()], ["a"], reconstructions=[make_reconstruction(RED)])
    assert perfect.axes[0].images[2].get_clim() == (0, 1)
    beyond = draw_faces([make_face()], ["a"], reconstructions=[np.full((9, 9, 3), 1.5)])
    assert beyond.axes[0].images[1].get_array().tolist() == make_face((255,) * 3).tolist()
    assert beyond.axes[0].images[2].get_array().mean() == pytest.approx((0.5 + 2.5 + 2.5) / 3)


def test_faces_alone_have_no_space_for_reconstructions(tmp_path):
    plot_faces(tmp_path / "f", [make_face()] * 7, ["a"] * 7)
    spots = find_areas(read_image(tmp_path / "f"), RED)
    assert len(spots) == 7
    gap = spots[6, 1] - spots[0, 1] - spots[0, 3]
    assert 0 < gap < spots[0, 3] / 2
    assert "reconstruction" not in read_words(tmp_path / "f")


@pytest.mark.parametrize("size", [71, 299])
def test_one_face_keeps_every_pixel(tmp_path, size):
    board = np.zeros((size, size, 3), dtype=np.uint8)
    board[::2, ::2] = RED
    board[1::2, 1::2] = RED
    board[~(board[..., 0] > 0)] = BLUE
    plot_faces(tmp_path / "f", [board], ["real, score 0.10"])
    image = read_image(tmp_path / "f")
    inside = (image == RED).all(axis=2) | (image == BLUE).all(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    face = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert face.shape[0] == face.shape[1] >= size
    assert inside.sum() == face.shape[0] * face.shape[1]  # no blend of two pixels anywhere
    assert np.count_nonzero(np.diff(face[0, :, 0].astype(int))) == size - 1


def test_a_face_is_neither_rotated_nor_mirrored(tmp_path):
    face = make_face((255, 255, 255))
    face[0, 0], face[-1, 0] = RED, BLUE  # upper left, lower left
    plot_faces(tmp_path / "f", [face], [""])
    image = read_image(tmp_path / "f")
    (red,), (blue,) = find_areas(image, RED), find_areas(image, BLUE)
    assert red[0] == blue[0] < image.shape[1] / 2 and red[1] < blue[1]


def test_samples_have_one_row_per_name(tmp_path):
    rows = {"UADFV $real$": [make_face(RED, 71)] * 2, "FF++ fake": [make_face(BLUE, 299)] * 3}
    plot_samples(tmp_path / "s", rows, title="Samples & more")
    image = read_image(tmp_path / "s")
    red, blue = find_areas(image, RED), find_areas(image, BLUE)
    assert (len(red), len(blue)) == (2, 3)
    assert red[0, 1] < blue[0, 1] and len(np.unique(blue[:, 1])) == 1
    assert red[:, 0].tolist() == blue[:2, 0].tolist()  # in the same columns
    assert red[:, 2:].tolist() == blue[:2, 2:].tolist()  # as large, whatever their pixels
    words = read_words(tmp_path / "s")
    assert all(f">{text}<" in words for text in (*rows, "Samples & more"))


def test_names_and_captions_are_within_the_figure_and_beside_the_faces():
    long = "a name of a dataset that goes on and on, and a_word_without_any_break_in_it_at_all"
    figures = [
        draw_samples({long: [make_face()], "b": [make_face()]}, title=long * 2),
        draw_faces([make_face()] * 2, [long, "b"], reconstructions=[make_reconstruction()] * 2),
        draw_explanations([make_face()], [long], cam=np.ones((1, 9, 9))),
        draw_explanations(
            [make_face()], [long], cam=np.ones((1, 9, 9)), residual=np.ones((1, 9, 9))
        ),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        images = [image.get_window_extent() for image in figure.axes[0].images]
        for axes in figure.axes:
            texts = [*axes.texts, axes.xaxis.label, *axes.get_xticklabels()]
            for text in (text for text in texts if text.get_visible() and text.get_text()):
                if axes is not figure.axes[0] or text in axes.texts:
                    box = text.get_window_extent()
                    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
                    assert not any(box.overlaps(image) for image in images)


def test_explanations_are_beside_their_face_under_headings(tmp_path):
    faces = [make_face((100, 100, 100))] * 3
    cam = np.stack([np.zeros((9, 9)), np.ones((9, 9)), np.ones((9, 9))])
    residual = np.full((3, 9, 9), 0.25)
    maps = {"cam": cam, "residual": residual}
    plot_explanations(tmp_path / "e", faces, ["a $1$", "b", "c"], **maps)
    words = read_words(tmp_path / "e")
    for text in ("face", "activation map", "residual"):
        assert words.count(f">{text}<") == 3
    assert ">a $1$<" in words and ">0.25<" in words and "half transparent" in words
    images = draw_explanations(faces, "abc", **maps).axes[0].images
    assert len(images) == 9
    # Half of grey 100, half of the colour of 0 or of 1 (inferno: nearly black, pale yellow).
    dark, light = (images[1 + 3 * index].get_array()[0, 0] for index in (0, 1))
    np.testing.assert_allclose(dark, (50, 50, 52), atol=1)
    np.testing.assert_allclose(light, (176, 178, 132), atol=1)


def test_explanations_without_residuals_are_two_images(tmp_path):
    figure = draw_explanations([make_face()], ["a"], cam=np.ones((1, 9, 9)))
    assert len(figure.axes[0].images) == 2 and len(figure.axes) == 2  # and one bar


def test_equal_faces_give_equal_bytes_and_pyplot_is_unchanged(tmp_path):
    before = pyplot.get_fignums()
    faces = [np.random.default_rng(0).integers(0, 255, (71, 71, 3), dtype=np.uint8)]
    for name in "ab":
        maps = {"cam": np.ones((1, 71, 71)), "residual": np.ones((1, 71, 71))}
        plot_explanations(tmp_path / name, faces, ["a"], **maps)
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("faces", "captions", "changes"),
    [
        ([], [], {}),
        ([make_face()], [], {}),
        ([make_face() / 255], ["a"], {}),
        ([make_face()[:5]], ["a"], {}),
        ([make_face()[..., :1]], ["a"], {}),
        ([make_face()], ["a"], {"columns": 0}),
        ([make_face()], ["a"], {"reconstructions": []}),
        ([make_face()], ["a"], {"reconstructions": [make_face()]}),
        ([make_face()], ["a"], {"reconstructions": [make_reconstruction() * 127.5 + 127.5 + 9]}),
        ([make_face()], ["a"], {"reconstructions": [make_reconstruction() * np.nan]}),
        ([make_face()], ["a"], {"reconstructions": [make_reconstruction(size=7)]}),
    ],
)
def test_invalid_faces_raise(faces, captions, changes):
    with pytest.raises(ValueError, match="Expected"):
        draw_faces(faces, captions, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"cam": np.full((1, 9, 9), 2.0)},
        {"cam": np.full((1, 9, 9), np.nan)},
        {"cam": np.ones((2, 9, 9))},
        {"cam": np.ones((1, 3, 3))},
        {"residual": np.full((1, 9, 9), -1.0)},
        {"residual": np.full((1, 9, 9), np.inf)},
        {"residual": np.ones((1, 9, 9, 3))},
    ],
)
def test_invalid_maps_raise(changes):
    with pytest.raises(ValueError, match="Expected"):
        draw_explanations([make_face()], ["a"], **{"cam": np.ones((1, 9, 9))} | changes)


@pytest.mark.parametrize("rows", [{}, {"a": []}, {"a": [make_face()], "b": [make_face() / 255]}])
def test_invalid_samples_raise(rows):
    with pytest.raises(ValueError, match=r"Expected .* of (any row|a|b)"):
        draw_samples(rows)


def test_a_smaller_map_is_resized_to_the_face():
    cam = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    blended = blend_cam(make_face((100, 100, 100), size=8), cam)
    assert (blended.shape, blended.dtype) == ((8, 8, 3), np.uint8)
    np.testing.assert_allclose(blended[0, 0], (50, 50, 52), atol=1)
    np.testing.assert_allclose(blended[-1, -1], (176, 178, 132), atol=1)
