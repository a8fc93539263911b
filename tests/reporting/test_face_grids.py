"""Grids of faces: every crop is at its position with its pixels unchanged."""

import html
import warnings

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from jdfd_keras.reporting.face_grids import (
    SheetFace,
    SheetRow,
    allocate_slots,
    blend_cam,
    draw_sheet,
    plot_faces,
)

RED, BLUE, SKY_BLUE = (255, 0, 0), (0, 0, 255), (0x56, 0xB4, 0xE9)


def make_crops(count, size=160, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC) for crop in coarse]


def make_row(crops, title="a row", notes=(), colour=(1, 2, 3), caption="frame 1, 0.04 s"):
    return SheetRow(title, notes, [SheetFace(crop, caption) for crop in crops], colour)


def make_face(colour=RED, size=160):
    return np.full((size, size, 3), colour, np.uint8)


def read_image(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def draw(path, rows, **words):
    draw_sheet(path, rows, **({"title": "clip.mp4"} | words))
    return read_image(path)


def find(sheet, image):
    """Return column and row of an image, and the largest difference of a pixel there."""
    distances = cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(distances)
    height, width = image.shape[:2]
    here = sheet[y : y + height, x : x + width].astype(int)
    return x, y, np.abs(here - image).max()


def find_areas(image, colour):
    """Return left, top, width and height of each area of a colour, from the top left."""
    spots = (image == colour).all(axis=2).astype(np.uint8)
    found = cv2.connectedComponentsWithStats(spots)[2][1:, :4]  # the first is the paper
    return found[np.lexsort((found[:, 0], found[:, 1] // 10))]


def has_ink(pixels):
    return bool((pixels < 128).any())


def test_crops_are_on_the_sheet_unchanged_and_in_order(tmp_path):
    crops = make_crops(10)
    sheet = draw(tmp_path / "sheet.PNG", [make_row(crops)])
    xs, ys, differences = zip(*(find(sheet, crop) for crop in crops), strict=True)
    assert max(differences) == 0
    assert list(xs[:8]) == sorted(set(xs[:8])) and xs[8:] == xs[:2]
    assert len(set(ys[:8])) == 1 and ys[8] == ys[9] > ys[0] + 160
    assert min(np.diff(xs[:8])) > 160  # side by side, without overlap


def test_rows_are_stacked_with_bars_of_their_colours(tmp_path):
    crops = make_crops(5)
    rows = [make_row(crops[:2], colour=(230, 159, 0)), make_row(crops[2:], colour=(0, 114, 178))]
    sheet = draw(tmp_path / "sheet.png", rows)
    tops = [find(sheet, crop)[1] for crop in crops]
    assert tops[0] == tops[1] < tops[2] == tops[3] == tops[4]
    for row, top in zip(rows, (tops[0], tops[2]), strict=True):
        bar = np.argwhere((sheet == row.colour).all(axis=2))
        assert bar[:, 0].min() <= top and bar[:, 0].max() >= top + 160
        assert bar[:, 1].max() < find(sheet, crops[0])[0]


@pytest.mark.parametrize(("size", "times"), [(71, 3), (150, 1), (299, 1)])
def test_small_crops_are_enlarged_by_integers_and_others_are_unchanged(tmp_path, size, times):
    (crop,) = make_crops(1, size)
    sheet = draw(tmp_path / "sheet.png", [make_row([crop])])
    assert find(sheet, crop.repeat(times, axis=0).repeat(times, axis=1))[2] == 0


def test_large_crops_are_reduced_without_distortion(tmp_path):
    (crop,) = make_crops(1, 960)
    sheet = draw(tmp_path / "sheet.png", [make_row([crop])])
    third = crop.reshape(320, 3, 320, 3, 3).mean(axis=(1, 3))
    assert find(sheet, np.rint(third).astype(np.uint8))[2] <= 1


def test_crops_of_two_sizes_are_equally_wide(tmp_path):
    rows = [make_row([make_face(RED, 71)] * 2), make_row([make_face(BLUE, 299)] * 3)]
    sheet = draw(tmp_path / "sheet.png", rows)
    red, blue = find_areas(sheet, RED), find_areas(sheet, BLUE)
    assert (len(red), len(blue)) == (2, 3) and red[0, 1] < blue[0, 1]
    assert red[:, 0].tolist() == blue[:2, 0].tolist()  # in the same columns
    assert red[:, 2:].tolist() == blue[:2, 2:].tolist() == [[299, 299]] * 2


def test_captions_are_below_their_crops_and_not_wider(tmp_path):
    crops = make_crops(3)
    faces = [
        SheetFace(crops[0], "frame 120, 4.80 s\nsharp 312"),
        SheetFace(crops[1], "a name much longer than any crop is wide " * 3),
        SheetFace(crops[2]),
    ]
    sheet = draw(tmp_path / "sheet.png", [SheetRow("a row", (), faces)])
    below = [
        sheet[y + 160 : y + 200, x : x + 160] for x, y, _ in (find(sheet, crop) for crop in crops)
    ]
    assert [has_ink(strip) for strip in below] == [True, True, False]
    x, y, _ = find(sheet, crops[1])
    beside = [sheet[y + 160 : y + 200, x - 8 : x - 1], sheet[y + 160 : y + 200, x + 161 : x + 168]]
    assert not any(has_ink(strip) for strip in beside)


def test_long_titles_and_notes_wrap_and_lengthen_the_row(tmp_path):
    crops = make_crops(2)
    notes = ["180 faces of many people in several places at once"] * 6
    rows = [make_row(crops[:1], "fake NeuralTexturesAndMore", notes), make_row(crops[1:])]
    sheet = draw(tmp_path / "sheet.png", rows)
    (x, top, _), (_, next_top, _) = (find(sheet, crop) for crop in crops)
    assert not has_ink(sheet[top:next_top, x - 8 : x])
    written = np.flatnonzero((sheet[top:next_top, : x - 8] < 128).any(axis=(1, 2)))
    assert len(written) > 60 and next_top - top > 160 + 100


def test_landmarks_are_drawn_at_their_positions(tmp_path):
    crop = np.full((160, 160, 3), 30, np.uint8)
    crop[0, 0] = 200  # a mark to find it by
    points = np.array([[40.0, 100.0], [120.0, 20.0]])
    row = SheetRow("a row", (), [SheetFace(crop, landmarks=points)])
    sheet = draw(tmp_path / "sheet.png", [row])
    left, top, _ = find(sheet, crop)
    for x, y in points.astype(int):
        around = sheet[top + y - 8 : top + y + 9, left + x - 8 : left + x + 9]
        weights = np.abs(around.astype(int) - 30).sum(axis=2)
        assert tuple(around[8, 8]) == SKY_BLUE
        rows, columns = np.mgrid[-8:9, -8:9]
        middle = [(weights * axis).sum() / weights.sum() for axis in (columns, rows)]
        assert middle == pytest.approx([0, 0], abs=0.3)
    drawn = (sheet[top : top + 160, left : left + 160] != 30).any(axis=2).mean()
    assert drawn < 0.01  # the face remains visible


def test_a_row_may_have_text_only(tmp_path):
    (crop,) = make_crops(1)
    rows = [SheetRow("track 0", ["none taken"], [], (213, 94, 0)), make_row([crop])]
    sheet = draw(tmp_path / "sheet.png", rows)
    bar = np.argwhere((sheet == (213, 94, 0)).all(axis=2))[:, 0]
    assert bar.max() < find(sheet, crop)[1]


def test_symbols_and_missing_letters_cause_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = make_row(make_crops(1), "$5 a_b^c$", caption="人.mp4 $x$")
        draw(tmp_path / "sheet.png", [row], title="人物 $\\frac{1}$.mp4", notes=["$", ""])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [make_row([])],
        [make_row(make_crops(1))] * 25,
        [make_row([make_face() / 255])],
        [make_row([make_face()[:5]])],
    ],
    ids=["no row", "no face", "too many rows", "not uint8", "not square"],
)
def test_invalid_rows_raise_an_error(tmp_path, rows):
    with pytest.raises(ValueError, match="Expected"):
        draw_sheet(tmp_path / "sheet.png", rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("num_faces", "slots"),
    [
        ([180], [48]),
        ([10, 3], [10, 3]),
        ([100, 100], [24, 24]),
        ([100, 40, 30], [24, 16, 8]),
        ([0, 100], [0, 48]),
        ([100] * 10, [8] * 10),
        ([], []),
    ],
)
def test_slots_are_allocated_line_by_line(num_faces, slots):
    assert allocate_slots(num_faces) == slots


def test_each_face_is_next_to_its_reconstruction_and_residual(tmp_path):
    blue = make_face(BLUE) / 127.5 - 1
    # Red and blue differ by 2 in two of three channels: the residual is 4 / 3, the highest.
    residual = np.full((5, 160, 160), 4 / 3)
    faces, captions = [make_face()] * 5, ["fake, $0.5$"] * 5
    plot_faces(
        tmp_path / "f", faces, captions, reconstruction=np.stack([blue] * 5), residual=residual
    )
    image = read_image(tmp_path / "f.png")
    brightest = matplotlib.colormaps["viridis"](1.0, bytes=True)[:3]
    bright = [spot for spot in find_areas(image, brightest) if spot[2] == 160]  # not of the bar
    red, blue = find_areas(image, RED), find_areas(image, BLUE)
    assert len(red) == len(blue) == len(bright) == 5
    assert np.all(red[:, 1] == blue[:, 1]) and np.all(red[:, 0] < blue[:, 0])
    assert len(np.unique(red[:, 1])) == 3 and len(np.unique(red[:, 0])) == 2  # two on a line
    words = html.unescape((tmp_path / "f.svg").read_text(encoding="utf-8"))
    assert words.count(">fake, $0.5$<") == words.count(">face<") == 5
    assert words.count("<image") >= 15
    for text in (">reconstruction<", ">residual<", ">0<", ">0.67<", ">1.3<"):
        assert text in words  # the bar ends at 4 / 3


def test_activation_maps_are_blended_with_their_faces_on_one_scale(tmp_path):
    cam = np.stack([np.zeros((160, 160)), np.full((160, 160), 4.2)])
    plot_faces(tmp_path / "e", [make_face((100, 100, 100))] * 2, ["a", "b"], cam=cam)
    image = read_image(tmp_path / "e.png")
    grey = [area for area in find_areas(image, (100, 100, 100)) if area[2] == 160]
    assert len(grey) == 2
    # Half of grey 100, half of the colour of 0 or of 1 (inferno: nearly black, pale yellow).
    for (left, top, *_), colour in zip(grey, [(50, 50, 52), (176, 178, 132)], strict=True):
        np.testing.assert_allclose(image[top + 80, left + 160 + 80], colour, atol=1)
    words = (tmp_path / "e.svg").read_text(encoding="utf-8")
    assert ">4.2<" in words and ">2.1<" in words  # of the bar


def test_equal_faces_give_equal_bytes_and_pyplot_is_unchanged(tmp_path):
    before = pyplot.get_fignums()
    for name in "ab":
        maps = {"cam": np.ones((1, 71, 71)), "residual": np.ones((1, 71, 71))}
        plot_faces(tmp_path / name, make_crops(1, 71), ["a"], **maps)
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
    assert pyplot.get_fignums() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_perfect_and_out_of_range_reconstructions_are_drawn(tmp_path):
    for name, pixels, residual in (("perfect", 0.0, 0.0), ("beyond", 1.5, 1.5)):
        maps = {
            "reconstruction": np.full((1, 160, 160, 3), pixels),
            "residual": np.full((1, 160, 160), residual),
        }
        plot_faces(tmp_path / name, [make_face((128, 128, 128))], ["a"], **maps)
    words = (tmp_path / "perfect.svg").read_text()
    assert ">0.5<" in words and ">1<" in words  # a scale from 0 to 1
    assert ">1.5<" in (tmp_path / "beyond.svg").read_text()


def test_a_smaller_map_is_resized_to_the_face():
    cam = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    blended = blend_cam(make_face((100, 100, 100), size=8), cam)
    assert (blended.shape, blended.dtype) == ((8, 8, 3), np.uint8)
    np.testing.assert_allclose(blended[0, 0], (50, 50, 52), atol=1)
    np.testing.assert_allclose(blended[-1, -1], (176, 178, 132), atol=1)


def test_invisible_characters_of_names_are_escaped_on_a_sheet(tmp_path):
    def draw(name):
        face = SheetFace(np.full((80, 80, 3), 90, np.uint8), name)
        draw_sheet(tmp_path / "s.png", [SheetRow(name, [name], [face])], title=name, notes=[name])
        return (tmp_path / "s.png").read_bytes()

    assert draw("a\u202egpj") == draw(r"a\u202egpj") != draw("agpj")
