"""Charts: bars, bins and points are at the right positions."""

import html

import numpy as np
import pytest

from jdfd_keras.evaluation.reliability import Reliability
from jdfd_keras.reporting.charts import (
    draw_foreign_shares,
    draw_histograms,
    draw_reliability,
)
from jdfd_keras.reporting.style import save_figure

LABEL = np.array([False] * 4 + [True] * 2)
SCORE = np.array([0.01, 0.02, 0.07, 0.61, 0.99, 1.0])


def make_reliability(**changes) -> Reliability:
    """Return four bins, one of them empty."""
    values = {
        "edges": np.linspace(0, 1, 5),
        "count": np.array([8, 0, 2, 10]),
        "mean_score": np.array([0.1, np.nan, 0.6, 0.9]),
        "fake_share": np.array([0.25, np.nan, 0.5, 1.0]),
        "ece": 0.1204,
    }
    return Reliability(**values | changes)


def test_the_bars_of_a_class_are_shares_of_the_class():
    axes = draw_histograms(LABEL, SCORE, title="t", threshold=0.5).axes[0]
    bars = {patch.get_label(): patch.get_data() for patch in axes.patches}
    real, fake = bars["4 real"], bars["2 fake"]
    assert real.edges[[0, -1]].tolist() == [0, 1]
    assert real.values[[0, 1, 12]].tolist() == [0.5, 0.25, 0.25]  # bins of 0.05
    assert fake.values[19] == 1.0  # a score of 1 is in the last bin
    assert real.values.sum() == fake.values.sum() == 1.0


def test_classes_differ_by_their_hatches():
    axes = draw_histograms(LABEL, SCORE, title="t", threshold=0.5).axes[0]
    hatches = [patch.get_hatch() for patch in axes.patches]
    assert all(hatches) and len(set(hatches)) == 2


def test_threshold_and_band_are_drawn_with_labels(tmp_path):
    band = {"threshold": 0.5, "uncertain": (0.4, 0.65)}
    axes = draw_histograms(LABEL, SCORE, title="t", **band).axes[0]
    assert list(axes.lines[0].get_xdata()) == [0.5, 0.5]
    (shade,) = [patch for patch in axes.patches if "uncertain" in patch.get_label()]
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((0.4, 0.65))
    save_figure(draw_histograms(LABEL, SCORE, title="$a$ b", **band), tmp_path / "scores")
    words = html.unescape((tmp_path / "scores.svg").read_text(encoding="utf-8"))
    for text in ("4 real", "2 fake", "threshold 0.5", "uncertain [0.4, 0.65)", "$a$ b"):
        assert f">{text}<" in words


def test_thresholds_have_three_digits():
    band = {"threshold": 0.6499999, "uncertain": (0.41749214, 0.88199996)}
    labels = draw_histograms(LABEL, SCORE, title="t", **band).axes[0].get_legend_handles_labels()[1]
    assert {"threshold 0.65", "uncertain [0.417, 0.882)"} <= set(labels)


def test_one_class_has_a_histogram():
    axes = draw_histograms(LABEL[LABEL], SCORE[LABEL], title="t", threshold=0.5).axes[0]
    assert [patch.get_label() for patch in axes.patches] == ["2 fake"]


def test_reliability_has_a_point_per_filled_bin_and_the_counts_below():
    after = make_reliability(ece=0.05)
    figure = draw_reliability({"before": make_reliability(), "after": after}, title="t")
    points, counts = figure.axes
    before = points.lines[0]
    assert before.get_xydata().tolist() == [[0.1, 0.25], [0.6, 0.5], [0.9, 1.0]]
    assert before.get_label() == "before (ECE 0.120)"
    assert [0, 1] in [list(line.get_xdata()) for line in points.lines]  # the diagonal
    assert counts.patches[0].get_data().values.tolist() == [8, 0, 2, 10]
    assert len({line.get_marker() for line in points.lines[:2]}) == 2


SHARES = [0, 0.1, 0.5]
SERIES = {"FF++": [(0.6, 0.02), None, (0.8, None)], "UADFV": [(0.9, None)] * 3}
PUBLISHED = {"FF++": [0.65, 0.7, None], "Celeb-DF": [0.55, None, 0.6]}


def test_shares_are_in_percent_and_a_missing_value_is_a_gap():
    axes = draw_foreign_shares(SHARES, SERIES, PUBLISHED, title="t").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    ours, theirs = lines["FF++"], lines["FF++, in the paper"]
    np.testing.assert_allclose(ours.get_xdata(), [0, 10, 50])
    np.testing.assert_allclose(ours.get_ydata(), [60, np.nan, 80])
    np.testing.assert_allclose(theirs.get_ydata(), [65, 70, np.nan])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "10", "50"]


def test_a_spread_is_an_error_bar():
    axes = draw_foreign_shares(SHARES, {"FF++": SERIES["FF++"]}, {}, title="t").axes[0]
    (bars,) = axes.containers
    segments = [part for part in bars[2][0].get_segments() if np.isfinite(part).all() and len(part)]
    np.testing.assert_allclose(segments, [[[0, 58], [0, 62]]])


def test_the_values_of_the_paper_are_hollow_and_dashed():
    axes = draw_foreign_shares(SHARES, SERIES, PUBLISHED, title="t").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    ours, theirs = lines["FF++"], lines["FF++, in the paper"]
    assert ours.get_marker() == theirs.get_marker() and ours.get_color() == theirs.get_color()
    assert (ours.get_linestyle(), theirs.get_linestyle()) == ("-", "--")
    assert (ours.get_markerfacecolor(), theirs.get_markerfacecolor()) == (ours.get_color(), "white")
    assert lines["Celeb-DF, in the paper"].get_marker() != theirs.get_marker()
