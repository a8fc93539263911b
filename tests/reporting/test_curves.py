"""The curves over all thresholds: what is drawn is what the scores say."""

import html

import numpy as np
import pytest
from scipy.stats import norm

from jdfd_keras.reporting.curves import (
    Curve,
    draw_det,
    draw_precision_recall,
    draw_roc,
)
from jdfd_keras.reporting.style import save_figure

# Two fake and two real rows; one of the four pairs is in the wrong order.
SMALL = Curve("small", np.array([False, True, False, True]), np.array([0.1, 0.35, 0.4, 0.8]))
PERFECT = Curve("perfect", np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9]))


def make_curve(name: str, shift: float, num=400, seed=0) -> Curve:
    """Return normal scores with fakes `shift` standard deviations higher."""
    label = np.arange(num) % 2 == 1
    return Curve(name, label, np.random.default_rng(seed).normal(shift * label))


def find_line(figure, name: str):
    (line,) = [line for line in figure.axes[0].lines if line.get_label().startswith(f"{name} (")]
    return line


def read_words(path) -> str:
    return html.unescape(path.with_suffix(".svg").read_text(encoding="utf-8"))


def test_the_roc_curve_passes_through_its_points():
    line = find_line(draw_roc([SMALL], title="t"), "small")
    points = [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]  # counted by hand, from the top score
    assert line.get_xydata().tolist() == [list(point) for point in points]
    assert line.get_label() == "small (AUC 0.750)"


def test_nine_curves_are_nine_lines_and_a_diagonal(tmp_path):
    names = [f"({trained}, {tested})" for trained in "UFC" for tested in "UFC"]
    curves = [make_curve(name, 0.5, seed=seed) for seed, name in enumerate(names)]
    lines = draw_roc(curves, title="t").axes[0].lines
    assert len(lines) == 10
    assert [line.get_xydata().tolist() for line in lines].count([[0, 0], [1, 1]]) == 1
    save_figure(draw_roc(curves, title="Trained $5, tested $5 & more"), tmp_path / "roc")
    words = read_words(tmp_path / "roc")
    assert all(f">{name} (AUC 0." in words for name in names)
    assert ">Trained $5, tested $5 & more<" in words


def test_normal_scores_are_a_straight_det_line():
    # Real N(0, 1), fake N(2, 1): probit(miss) = -2 - probit(FPR), crossing at Phi(-1) = 15.87 %.
    label = np.repeat([False, True], 20000)
    quantiles = norm.ppf((np.arange(20000) + 0.5) / 20000)
    curve = Curve("normal", label, np.concatenate([quantiles, quantiles + 2]))
    line = find_line(draw_det([curve], title="t"), "normal")
    fpr, miss = line.get_xydata().T
    inside = (abs(fpr) < 2.9) & (abs(miss) < 2.9)
    assert inside.sum() > 10000
    np.testing.assert_allclose(miss[inside], -2 - fpr[inside], atol=0.05)
    assert line.get_label() == "normal (EER 15.9%)"


def test_points_collinear_in_rates_are_kept_in_det_curves():
    tied = Curve("tied", np.arange(6) % 2 == 1, np.array([3, 3, 2, 2, 1, 1.0]))
    points = find_line(draw_det([tied], title="t"), "tied").get_xydata()
    third = 0.4307  # the deviate of two thirds
    np.testing.assert_allclose(points[1:3], [[-third, third], [third, -third]], atol=1e-4)


def test_chance_and_equal_errors_are_the_diagonals_of_det():
    lines = {line.get_label(): line for line in draw_det([SMALL], title="t").axes[0].lines}
    low_high = np.array([-3.0902, 3.0902])
    equal, chance = lines["equal error rate"], lines["chance (EER 50%)"]
    np.testing.assert_allclose(equal.get_xydata(), np.stack([low_high] * 2, axis=1), atol=1e-4)
    np.testing.assert_allclose(chance.get_xydata()[:, 1], -chance.get_xydata()[:, 0])
    assert equal.get_linestyle() != chance.get_linestyle()


def test_rates_of_0_and_1_are_drawn_on_the_frame():
    figure = draw_det([SMALL], title="t")
    points = find_line(figure, "small").get_xydata()
    low, high = figure.axes[0].get_xlim()
    assert np.isfinite(points).all() and points.min() == low and points.max() == high
    assert (low, high) == pytest.approx((-3.0902, 3.0902), abs=1e-4)  # of 0.1 % and 99.9 %


def test_the_legend_explains_the_missing_det_curve_of_a_perfect_detector():
    wrong = Curve("wrong", PERFECT.label, -PERFECT.score)
    figure = draw_det([PERFECT, wrong, SMALL], title="t")
    assert len(find_line(figure, "perfect").get_xydata()) == 0
    assert len(find_line(figure, "wrong").get_xydata()) == 0
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "perfect (EER 0.0%, no curve: all errors below 0.1%)" in labels
    assert "wrong (EER 100.0%, no curve: both errors above 99.9%)" in labels


def test_an_invisible_curve_does_not_change_the_layout():
    widths = []
    for curves in ([SMALL], [SMALL, PERFECT]):
        figure = draw_det(curves, title="t")
        figure.draw_without_rendering()
        widths.append(figure.axes[0].get_window_extent().width)
    assert widths[1] == pytest.approx(widths[0], rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_below_the_steps_is_the_average_precision(seed):
    curve = make_curve("c", 0.3, num=60, seed=seed)
    line = find_line(draw_precision_recall([curve], title="t"), "c")
    assert line.get_drawstyle() == "steps-post"
    recall, precision = line.get_xydata().T
    area = np.sum(-np.diff(recall) * precision[:-1])
    # By its definition: the mean, over the fakes, of the precision at each one's score.
    called = [curve.score >= score for score in curve.score[curve.label]]
    expected = np.mean([curve.label[rows].mean() for rows in called])
    assert area == pytest.approx(expected, rel=1e-9)
    assert f"AP {expected:.3f}" in line.get_label()


def test_precision_starts_at_0_if_a_real_one_scores_highest():
    curve = Curve("upside down", np.array([True, False]), np.array([0.1, 0.9]))
    line = find_line(draw_precision_recall([curve], title="t"), "upside down")
    precision_at_no_recall = line.get_ydata()[line.get_xdata() == 0]
    assert precision_at_no_recall.max() == 0.0


def test_each_base_rate_is_drawn_and_in_the_legend():
    label = np.arange(100) < 20
    figure = draw_precision_recall([SMALL, Curve("few", label, np.sin(np.arange(100)))], title="t")
    levels = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert [0.5, 0.5] in map(list, levels) and [0.2, 0.2] in map(list, levels)
    assert "fakes 20%)" in find_line(figure, "few").get_label()


def test_lines_stay_lines_in_the_svg(tmp_path):
    save_figure(draw_roc([make_curve("c", 1), SMALL], title="t"), tmp_path / "roc")
    assert "<image" not in read_words(tmp_path / "roc")
