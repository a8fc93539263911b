"""The contact sheet shows every crop unchanged, at its position."""

import warnings

import cv2
import numpy as np
import pytest

from jdfd_keras.reporting.contact_sheet import SheetFace, SheetRow, allocate_slots, draw_sheet

SKY_BLUE = (0x56, 0xB4, 0xE9)


def make_crops(count, size=160, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC) for crop in coarse]


def make_row(crops, title="a row", notes=(), colour=(1, 2, 3), caption="frame 1, 0.04 s"):
    return SheetRow(title, notes, [SheetFace(crop, caption) for crop in crops], colour)


def draw(path, rows, **words):
    draw_sheet(path, rows, **({"title": "clip.mp4"} | words))
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def find(sheet, image):
    """Return column and row of an image, and the largest difference of a pixel there."""
    distances = cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(distances)
    height, width = image.shape[:2]
    here = sheet[y : y + height, x : x + width].astype(int)
    return x, y, np.abs(here - image).max()


def has_ink(pixels):
    return bool((pixels < 128).any())


def test_crops_are_on_the_sheet_unchanged_and_in_order(tmp_path):
    crops = make_crops(10)
    sheet = draw(tmp_path / "sheet.png", [make_row(crops)])
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


@pytest.mark.parametrize(("size", "times"), [(71, 3), (80, 2), (150, 1), (299, 1), (320, 1)])
def test_small_crops_are_enlarged_by_integers_and_others_are_unchanged(tmp_path, size, times):
    (crop,) = make_crops(1, size)
    sheet = draw(tmp_path / "sheet.png", [make_row([crop])])
    assert find(sheet, crop.repeat(times, axis=0).repeat(times, axis=1))[2] == 0


def test_large_crops_are_reduced_without_distortion(tmp_path):
    (crop,) = make_crops(1, 960)
    sheet = draw(tmp_path / "sheet.png", [make_row([crop])])
    third = crop.reshape(320, 3, 320, 3, 3).mean(axis=(1, 3))
    assert find(sheet, np.rint(third).astype(np.uint8))[2] <= 1


def test_captions_are_below_their_crops_and_not_wider(tmp_path):
    crops = make_crops(3)
    faces = [
        SheetFace(crops[0], "frame 120, 4.80 s\nsharp 312"),
        SheetFace(crops[1], "a name much longer than any crop is wide " * 3),
        SheetFace(crops[2], ""),
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
    sheet = draw(
        tmp_path / "sheet.png", [SheetRow("a row", (), [SheetFace(crop, "", landmarks=points)])]
    )
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


def test_pyplot_and_the_folder_are_unchanged(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    draw(tmp_path / "sheet.png", [make_row(make_crops(1))])
    assert pyplot.get_fignums() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [make_row([])],
        [make_row(make_crops(1)), make_row(make_crops(1, 80))],
        [make_row(make_crops(1))] * 25,
    ],
    ids=["no row", "no face", "two sizes", "too many rows"],
)
def test_invalid_rows_raise_an_error(tmp_path, rows):
    with pytest.raises(ValueError, match="Expected 1 to 24 rows with faces of one size"):
        draw_sheet(tmp_path / "sheet.png", rows, title="t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("num_faces", "slots"),
    [
        ([180], [48]),
        ([20], [20]),
        ([10, 3], [10, 3]),
        ([100, 100], [24, 24]),
        ([300, 12], [40, 8]),
        ([100, 40, 30], [24, 16, 8]),
        ([0, 100], [0, 48]),
        ([100] * 6, [8] * 6),
        ([100] * 10, [8] * 10),
        ([3] * 10, [3] * 10),
        ([], []),
    ],
)
def test_slots_are_allocated_line_by_line(num_faces, slots):
    assert allocate_slots(num_faces) == slots
