"""Scores to charts: where they lie, whether they mean what they say, what foreign data brings.

Takes labels and scores, reliabilities or AUCs; writes PNG and SVG files. Each `plot_...` saves
what the `draw_...` of the same name gives. What is told by colour is told by hatches, dashes
or markers too.

The scores of one video over its time, a line for each person.

Takes times and scores; writes PNG and SVG files. `plot_time_line` saves what `draw_time_line`
gives. Lines differ by colour, dashes and markers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from jdfd_keras.evaluation.reliability import Reliability
from jdfd_keras.reporting.style import (
    BLUE,
    GUIDE,
    VERMILLION,
    WIDTH,
    add_title_and_legend,
    line_style,
    new_figure,
    save_figure,
    with_own_settings,
)

NUM_BINS = 20


def plot_histograms(
    path: str | Path,
    label: np.ndarray,
    score: np.ndarray,
    *,
    title: str,
    threshold: float,
    uncertain: tuple[float, float] | None = None,
) -> None:
    """Draw how the scores of the reals and those of the fakes are spread.

    The bars of a class add up to 100 %, so a small class is seen as well as a large one. One
    class may be absent.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        title: What was scored, on what.
        threshold: A score at or above it is called fake; drawn as a line.
        uncertain: Low and high: a score in [low, high) is called neither; shaded.

    Raises:
        ValueError: If labels and scores are no such, or a border lies outside 0..1.
    """
    borders = {"threshold": threshold, "uncertain": uncertain}
    save_figure(draw_histograms(label, score, title=title, **borders), path)


def plot_reliability(
    path: str | Path, reliabilities: Mapping[str, Reliability], *, title: str
) -> None:
    """Draw the share of fakes against the mean score, bin by bin, and the counts beneath.

    A detector whose scores are true probabilities lies on the diagonal. Bins without a score
    have no point; the counts are on a scale of powers of ten.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        reliabilities: By the name that the legend shows, such as "before" and "after".
        title: What was scored, on what.

    Raises:
        ValueError: If there is none, or one of them without a score.
    """
    save_figure(draw_reliability(reliabilities, title=title), path)


def plot_foreign_shares(
    path: str | Path,
    shares: Sequence[float],
    series: Mapping[str, Sequence[tuple[float, float | None] | None]],
    published: Mapping[str, Sequence[float | None]],
    *,
    title: str,
) -> None:
    """Draw the AUC against the share of unlabelled foreign faces in training: the paper's Fig. 4.

    All numbers are shares of 1; the axes show them in percent. What was not run leaves a gap
    in its line.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        shares: In [0, 1], increasing.
        series: By test set, for each share: mean AUC in [0, 1] and its spread, drawn as a bar
            to either side, or None; or None where it was not run.
        published: By test set, for each share, the AUC in the paper, or None. Drawn hollow and
            dashed.
        title: What was trained, on what.

    Raises:
        ValueError: If there is nothing to draw, a line has not one value per share, or a
            number lies outside its range.
    """
    save_figure(draw_foreign_shares(shares, series, published, title=title), path)


@with_own_settings
def draw_histograms(
    label: np.ndarray,
    score: np.ndarray,
    *,
    title: str,
    threshold: float,
    uncertain: tuple[float, float] | None = None,
) -> Figure:
    """Draw what `plot_histograms` saves."""
    label, score = np.asarray(label), np.asarray(score, dtype=np.float64)
    if not label.size or label.shape != score.shape or not np.isin(label, (0, 1)).all():
        raise ValueError(
            f"Expected labels of 0 and 1, and as many scores, at least one; got {label.dtype}"
            f"{list(label.shape)} labels and {list(score.shape)} scores. True is fake."
        )
    if not ((score >= 0) & (score <= 1)).all():
        raise ValueError(
            f"Expected scores in 0..1; got {score.min()}..{score.max()}. A histogram would leave "
            "the others out: try the sigmoid of a logit."
        )
    low, high = uncertain or (0, 1)
    if not (0 <= threshold <= 1 and 0 <= low <= high <= 1):
        raise ValueError(
            f"Expected a threshold and a band low <= high in 0..1; got threshold={threshold}, "
            f"uncertain={uncertain}. Try threshold=0.5, uncertain=(0.4, 0.6)."
        )
    figure = new_figure(WIDTH, 3.2)
    axes = figure.add_subplot()
    label = label.astype(bool)
    classes = (("real", ~label, BLUE, "////"), ("fake", label, VERMILLION, "...."))
    for name, rows, colour, hatch in classes:
        if rows.any():
            count, edges = np.histogram(score[rows], NUM_BINS, range=(0, 1))
            text = f"{rows.sum():,} {name}"
            bars = {"fill": True, "facecolor": "none", "edgecolor": colour, "linewidth": 1.4}
            axes.stairs(count / rows.sum(), edges, label=text, hatch=hatch, zorder=3, **bars)
    axes.axvline(
        threshold,
        label=f"threshold {threshold:.3g}",
        color="black",
        linestyle=(0, (5, 1.5)),
        zorder=4,
    )
    if uncertain:
        text = f"uncertain [{low:.3g}, {high:.3g})"
        axes.axvspan(low, high, label=text, facecolor="0.86", edgecolor="0.6", zorder=1)
    axes.set(xlim=(0, 1), xlabel="score, P(fake)", ylabel=f"share of the class, {NUM_BINS} bins")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    add_title_and_legend(figure, axes, title)
    return figure


@with_own_settings
def draw_reliability(reliabilities: Mapping[str, Reliability], *, title: str) -> Figure:
    """Draw what `plot_reliability` saves."""
    if not reliabilities or not all(part.count.any() for part in reliabilities.values()):
        raise ValueError(
            f"Expected reliabilities with scores; got {list(reliabilities)}, of "
            f"{[int(part.count.sum()) for part in reliabilities.values()]}. Score a set first."
        )
    figure = new_figure(WIDTH, 5.6)
    axes, beneath = figure.subplots(2, sharex=True, height_ratios=(3.2, 1))
    for index, (name, part) in enumerate(reliabilities.items()):
        style = line_style(index)
        filled = part.count > 0
        text = f"{name} (ECE {part.ece:.3f})"
        points = part.mean_score[filled], part.fake_share[filled]
        axes.plot(*points, label=text, clip_on=False, **style)
        dashes = {key: style[key] for key in ("color", "linestyle", "linewidth")}
        beneath.stairs(part.count, part.edges, baseline=None, **dashes)
    axes.plot([0, 1], [0, 1], label="a score that is the true probability", **GUIDE)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of fakes in the bin")
    most = max(part.count.max() for part in reliabilities.values())
    beneath.set(yscale="log", ylim=(0.7, 2 * most), ylabel="count", xlabel="score, P(fake)")
    beneath.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    beneath.yaxis.set_minor_formatter(NullFormatter())
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
    """Draw what `plot_foreign_shares` saves."""
    _check_shares(shares, series, published)
    figure = new_figure(WIDTH, 3.6)
    axes = figure.add_subplot()
    percent = 100 * np.asarray(shares, dtype=np.float64)
    names = list(dict.fromkeys([*series, *published]))  # each once, ours first
    for index, name in enumerate(names):
        style = line_style(index)
        if name in series:
            runs = [run or (None, None) for run in series[name]]
            mean, spread = 100 * np.array(runs, dtype=np.float64).T  # None becomes NaN: no mark
            ours = {"linestyle": "-", "markerfacecolor": style["color"]}
            axes.plot(percent, mean, label=name, **style | ours)
            bars = {"fmt": "none", "ecolor": style["color"], "capsize": 3}
            axes.errorbar(percent, mean, spread, **bars)
        if name in published:
            auc = 100 * np.array(published[name], dtype=np.float64)
            theirs = {"linestyle": (0, (4, 2)), "linewidth": 1.0}
            axes.plot(percent, auc, label=f"{name}, in the paper", **style | theirs)
    axes.set(xlabel="share of the foreign faces, unlabelled, in training (%)", ylabel="AUC (%)")
    axes.set_xticks(percent, [f"{share:g}" for share in percent])
    add_title_and_legend(figure, axes, title)
    return figure


def _check_shares(shares: Sequence[float], series: Mapping, published: Mapping) -> None:
    if not (series or published) or not len(shares):
        raise ValueError("Expected at least one test set and one share; got none. Train first.")
    for name, values in [*series.items(), *published.items()]:
        if len(values) != len(shares):
            raise ValueError(
                f"Expected a value for each of the {len(shares)} shares; got {len(values)} for "
                f"{name}. Put None where there is none."
            )
    runs = [run for values in series.values() for run in values if run is not None]
    numbers = [*shares, *(mean for mean, _ in runs), *(spread or 0 for _, spread in runs)]
    numbers += [auc for values in published.values() for auc in values if auc is not None]
    outside = [number for number in numbers if not 0 <= number <= 1]
    if outside or not (np.diff(shares) > 0).all():
        raise ValueError(
            f"Expected increasing shares, AUCs and spreads in 0..1; got shares {list(shares)} and "
            f"{outside} outside. Divide percents by 100."
        )


TIMELINE_WIDTH, TIMELINE_HEIGHT = 7.2, 2.4  # inches
MOST_MARKED = 40  # points of a line, beyond which it has no marker at each
# A person who was not seen for that many times the usual step leaves a gap in the line.
GAP = 2.5


def plot_time_line(
    path: str | Path,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    duration_s: float,
    uncertain: tuple[float, float],
    part: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Draw scores over time.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        lines: By the name that the legend shows: times in seconds, increasing, and scores, P(fake)
            in [0, 1]; at least one point each.
        duration_s: Of the video.
        uncertain: Low and high: a score in [low, high) is called neither; shaded. One line where
            both are the same.
        part: From and to, in seconds, of a part that looks fake though the mean does not; shaded.
        title: What was scored.

    Raises:
        ValueError: If there is no line, or times and scores do not fit together.
    """
    figure = draw_time_line(
        lines, duration_s=duration_s, uncertain=uncertain, part=part, title=title
    )
    save_figure(figure, path)


@with_own_settings
def draw_time_line(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    duration_s: float,
    uncertain: tuple[float, float],
    part: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw what `plot_time_line` saves."""
    _check(lines)
    figure = new_figure(TIMELINE_WIDTH, TIMELINE_HEIGHT)
    axes = figure.add_subplot()
    low, high = uncertain
    if low < high:
        axes.axhspan(low, high, label=f"uncertain, {low:.3g} to {high:.3g}", color="0.88", zorder=1)
    if part:
        label = f"looks fake, {part[0]:.1f} to {part[1]:.1f} s"
        axes.axvspan(*part, label=label, color=VERMILLION, alpha=0.15, linewidth=0, zorder=0.9)
    axes.axhline(high, label=f"fake from {high:.3g}", **GUIDE)
    steps = np.concatenate([np.diff(times_s) for times_s, _ in lines.values()])
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    for index, (name, (times_s, scores)) in enumerate(lines.items()):
        style = line_style(index) | {"markersize": 3.5, "linewidth": 1.1}
        if len(times_s) > MOST_MARKED:
            style["markevery"] = (0.03, 0.1)
        points = _break_at_gaps(np.asarray(times_s, float), np.asarray(scores, float), usual_s)
        axes.plot(*points, label=name, clip_on=False, in_layout=False, **style)
    axes.set(
        xlim=(0, max(duration_s, *(max(times_s) for times_s, _ in lines.values()), 1e-3)),
        ylim=(0, 1),
        xlabel="time in the video (s)",
        ylabel="score, P(fake)",
    )
    add_title_and_legend(figure, axes, title)
    return figure


def _break_at_gaps(
    times_s: np.ndarray, scores: np.ndarray, usual_s: float
) -> tuple[np.ndarray, np.ndarray]:
    gaps = np.flatnonzero(np.diff(times_s) > GAP * usual_s) + 1
    return np.insert(times_s, gaps, np.nan), np.insert(scores, gaps, np.nan)


def _check(lines: Mapping) -> None:
    if not lines:
        raise ValueError("Expected a line at least; got none. A video without a face has none.")
    for name, (times_s, scores) in lines.items():
        scores = np.asarray(scores, float)
        inside = (scores >= 0) & (scores <= 1)
        fits = scores.ndim == 1 and len(times_s) == len(scores) > 0
        if not (fits and inside.all() and (np.diff(times_s) >= 0).all()):
            raise ValueError(
                f"Expected increasing times and as many scores in 0..1, one at least; got "
                f"{len(times_s)} and {len(scores)} of {name}. Sort them by time."
            )
