"""The common style: two files, equal bytes for equal input, no global changes."""

import json
import re
import warnings

import cv2
import matplotlib
import pytest

from jdfd_keras.reporting.style import (
    add_title_and_legend,
    curve_style,
    line_style,
    new_figure,
    save_figure,
)


def draw(path, text="a $5 b $5"):
    figure = new_figure(3, 2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], clip_on=False, **line_style(1))
    axes.bar([0], [1], hatch="//")
    axes.set_title(text)
    save_figure(figure, path)


def test_a_figure_is_saved_as_png_and_svg(tmp_path):
    draw(tmp_path / "roc.v2")  # not a suffix of an image
    assert sorted(path.name for path in tmp_path.iterdir()) == ["roc.v2.png", "roc.v2.svg"]
    height, width, _ = cv2.imread(str(tmp_path / "roc.v2.png")).shape
    assert width >= 3 * 150 and height >= 2 * 150  # 150 dots to the inch, or more
    assert "<svg" in (tmp_path / "roc.v2.svg").read_text(encoding="utf-8")


def test_equal_figures_give_equal_bytes_and_replace_existing_files(tmp_path):
    draw(tmp_path / "a")
    draw(tmp_path / "b", text="another")
    draw(tmp_path / "b")
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "dc:date" not in text and not re.search(r"20\d\d-\d\d-\d\d", text)


def test_a_character_missing_in_the_font_gives_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "roc", text="人脸 \U0001f600")
    assert "人脸" in (tmp_path / "roc.svg").read_text(encoding="utf-8")


def test_pyplot_and_its_settings_are_unchanged(tmp_path):
    from matplotlib import pyplot

    with matplotlib.rc_context({"font.size": 31, "text.parse_math": True}):
        figures, settings = pyplot.get_fignums(), json.dumps(dict(matplotlib.rcParams), default=str)
        draw(tmp_path / "roc", text="plain")
        assert pyplot.get_fignums() == figures
        assert json.dumps(dict(matplotlib.rcParams), default=str) == settings


@pytest.mark.parametrize("style", [line_style, curve_style])
def test_twelve_curves_differ_without_colour_and_nine_by_marker(style):
    looks = [(style(index)["linestyle"], style(index)["marker"]) for index in range(12)]
    assert len(set(looks)) == 12
    assert len({marker for _, marker in looks[:9]}) == 9


def test_colours_follow_okabe_and_ito_without_their_yellow():
    theirs = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}
    assert {line_style(index)["color"] for index in range(20)} == theirs


def test_long_words_of_title_and_legend_are_wrapped_to_the_width():
    figure = new_figure(3, 2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label="y" * 80)
    add_title_and_legend(figure, axes, "x" * 80)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for text in (figure._suptitle, *figure.legends[0].get_texts()):
        assert text.get_window_extent(renderer).width < 3 * figure.dpi
    assert figure.get_figheight() > 2.5


def test_invisible_characters_of_names_are_escaped_in_a_figure():
    figure = new_figure(6, 2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label="b\x1b[31m")
    add_title_and_legend(figure, axes, "a\u202egpj 面\nof 2 videos")
    assert figure.get_suptitle() == "a\\u202egpj 面\nof 2 videos"
    assert figure.legends[0].get_texts()[0].get_text() == "b\\x1b[31m"
