"""Charts of scores: histograms, reliability, and shares of foreign data.

Elements that differ by colour also differ by hatches, dashes or markers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jdfd_keras.reporting.style import (
    BLUE,
    GUIDE,
    VERMILLION,
    WIDTH,
    add_title_and_legend,
    line_style,
    new_figure,
    with_own_settings,
)
from jdfd_keras.reporting.templating import format_value

if TYPE_CHECKING:
    from jdfd_keras.evaluation.reliability import Reliability

NUM_BINS = 20


@with_own_settings
def draw_histograms(
    label: np.ndarray,
    score: np.ndarray,
    *,
    title: str,
    threshold: float,
    uncertain: tuple[float, float] | None = None,
) -> Figure:
    """Draw the histograms of the scores of both classes, of which one may be absent.

    The bars of each class add up to 100 %, so that a small class is visible.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        title: Title of the figure.
        threshold: A score at or above it is called fake; drawn as a line.
        uncertain: Low and high: a score in [low, high) is uncertain; drawn as a band.

    Example:
        >>> label, score = np.array([False, True, True]), np.array([0.1, 0.9, 0.99])
        >>> figure = draw_histograms(label, score, title="3 videos", threshold=0.5)
        >>> [bars.get_label() for bars in figure.axes[0].patches]
        ['1 real', '2 fake']
    """
    figure = new_figure(WIDTH, 3.2)
    axes = figure.add_subplot()
    classes = (("real", ~label, BLUE, "////"), ("fake", label, VERMILLION, "...."))
    for name, rows, color, hatch in classes:
        if rows.any():
            count, edges = np.histogram(score[rows], NUM_BINS, range=(0, 1))
            text = f"{rows.sum():,} {name}"
            bars = {"fill": True, "facecolor": "none", "edgecolor": color, "linewidth": 1.4}
            axes.stairs(count / rows.sum(), edges, label=text, hatch=hatch, zorder=3, **bars)
    line = {"color": "black", "linestyle": (0, (5, 1.5)), "zorder": 4}
    axes.axvline(threshold, label=f"threshold {threshold:.3g}", **line)
    if uncertain:
        text = f"uncertain [{uncertain[0]:.3g}, {uncertain[1]:.3g})"
        axes.axvspan(*uncertain, label=text, facecolor="0.86", edgecolor="0.6", zorder=1)
    axes.set(xlim=(0, 1), xlabel="score, P(fake)", ylabel=f"share of the class, {NUM_BINS} bins")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    add_title_and_legend(figure, axes, title)
    return figure


@with_own_settings
def draw_reliability(reliabilities: "Mapping[str, Reliability]", *, title: str) -> Figure:
    """Draw reliability diagrams: the share of fakes by mean score, with the counts below.

    Calibrated scores are on the diagonal. Empty bins have no point; the counts have a logarithmic
    scale.

    Args:
        reliabilities: Reliability by its name in the legend, such as "before" and "after"; each of
            at least one score.
        title: Title of the figure.

    Example:
        >>> from jdfd_keras.evaluation.reliability import measure_reliability
        >>> faces = measure_reliability(np.array([True, False]), np.array([0.9, 0.1]))
        >>> draw_reliability({"faces": faces}, title="2 faces").axes[0].lines[0].get_label()
        'faces (ECE 0.100)'
    """
    figure = new_figure(WIDTH, 5.6)
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3.2, 1))
    for index, (name, reliability) in enumerate(reliabilities.items()):
        style = line_style(index)
        filled = reliability.count > 0
        text = f"{name} (ECE {format_value(reliability.ece)})"
        points = reliability.mean_score[filled], reliability.fake_share[filled]
        axes.plot(*points, label=text, clip_on=False, **style)
        dashes = {key: style[key] for key in ("color", "linestyle", "linewidth")}
        below.stairs(reliability.count, reliability.edges, baseline=None, **dashes)
    axes.plot([0, 1], [0, 1], label="perfect calibration", **GUIDE)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of fakes, equal priors")
    highest = max(reliability.count.max() for reliability in reliabilities.values())
    below.set(yscale="log", ylim=(0.7, 2 * highest), ylabel="count", xlabel="score, P(fake)")
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.yaxis.set_minor_formatter(NullFormatter())
    add_title_and_legend(figure, axes, title)
    return figure


@with_own_settings
def draw_foreign_shares(
    shares: Sequence[float],
    series: Mapping[str, Sequence[tuple[float, float | None] | None]],
    published: Mapping[str, Sequence[float | None]],
    *,
    title: str,
) -> Figure:
    """Draw the AUC by the share of unlabelled foreign faces in training, as in Fig. 4 of the paper.

    All values are in [0, 1]; the axes show percent. A missing value is a gap in its line.

    Args:
        shares: Shares of foreign faces, increasing.
        series: By test set, for each share the mean AUC and its spread or None, drawn as an error
            bar; or None where it was not run.
        published: By test set, for each share the AUC of the paper or None; drawn with hollow
            markers and dashes.
        title: Title of the figure.

    Example:
        >>> series = {"UADFV": [(0.8, None), (0.9, 0.02)]}
        >>> figure = draw_foreign_shares([0.05, 0.1], series, {}, title="Trained on FF++")
        >>> figure.axes[0].lines[0].get_xydata().tolist()
        [[5.0, 80.0], [10.0, 90.0]]
    """
    figure = new_figure(WIDTH, 3.6)
    axes = figure.add_subplot()
    percent = 100 * np.asarray(shares, dtype=np.float64)
    names = dict.fromkeys([*series, *published])  # each once, own results first
    for index, name in enumerate(names):
        style = line_style(index)
        if name in series:
            runs = [run or (None, None) for run in series[name]]
            mean, spread = 100 * np.array(runs, dtype=np.float64).T  # None becomes NaN, a gap
            filled = {"linestyle": "-", "markerfacecolor": style["color"]}
            axes.plot(percent, mean, label=name, **style | filled)
            axes.errorbar(percent, mean, spread, fmt="none", ecolor=style["color"], capsize=3)
        if name in published:
            auc = 100 * np.array(published[name], dtype=np.float64)
            dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.0}
            axes.plot(percent, auc, label=f"{name}, in the paper", **style | dashed)
    axes.set(xlabel="share of the foreign faces, unlabelled, in training (%)", ylabel="AUC (%)")
    axes.set_xticks(percent, [f"{share:g}" for share in percent])
    add_title_and_legend(figure, axes, title)
    return figure
