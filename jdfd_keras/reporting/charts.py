"""Charts of scores: histograms, reliability, foreign data, and scores over the time of a video.

Each `plot_...` saves the figure of the `draw_...` with the same name as PNG and SVG. Elements
that differ by colour also differ by hatches, dashes or markers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from jdfd_keras.evaluation.calibrate import Reliability
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
TIMELINE_WIDTH, TIMELINE_HEIGHT = 7.2, 2.4  # inches
MAX_MARKED = 40  # points of a line; a longer line has fewer markers than points
GAP = 2.5  # times the usual time step, after which a line is interrupted


def plot_histograms(
    path: str | Path,
    label: np.ndarray,
    score: np.ndarray,
    *,
    title: str,
    threshold: float,
    uncertain: tuple[float, float] | None = None,
) -> None:
    """Draw the histograms of the scores of both classes.

    The bars of each class add up to 100 %, so that a small class is visible. One class may be
    absent.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        title: Title of the figure.
        threshold: A score at or above it is called fake; drawn as a line.
        uncertain: Low and high: a score in [low, high) is uncertain; drawn as a band.

    Raises:
        ValueError: If labels or scores are invalid, or a threshold is outside 0..1.

    Example:
        >>> plot_histograms("scores", np.array([0, 1]), np.array([0.1, 0.9]), title="Two videos",
        ...                 threshold=0.5)
    """
    thresholds = {"threshold": threshold, "uncertain": uncertain}
    save_figure(draw_histograms(label, score, title=title, **thresholds), path)


def plot_reliability(
    path: str | Path, reliabilities: Mapping[str, Reliability], *, title: str
) -> None:
    """Draw reliability diagrams: the share of fakes by mean score, with the counts below.

    Calibrated scores are on the diagonal. Empty bins have no point; the counts have a logarithmic
    scale.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        reliabilities: Reliability by its name in the legend, such as "before" and "after".
        title: Title of the figure.

    Raises:
        ValueError: If there is none, or one without a score.

    Example:
        >>> faces = measure_reliability(label, score)  # doctest: +SKIP
        >>> plot_reliability("reliability", {"faces": faces}, title="Faces")  # doctest: +SKIP
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
    """Draw the AUC by the share of unlabelled foreign faces in training, as in Fig. 4 of the paper.

    All values are in [0, 1]; the axes show percent. A missing value is a gap in its line.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        shares: Shares of foreign faces in [0, 1], increasing.
        series: By test set, for each share the mean AUC in [0, 1] and its spread or None, drawn as
            an error bar; or None where it was not run.
        published: By test set, for each share the AUC of the paper or None; drawn with hollow
            markers and dashes.
        title: Title of the figure.

    Raises:
        ValueError: If there is nothing to draw, a line does not have one value per share, or a
            value is out of range.

    Example:
        >>> plot_foreign_shares("foreign-data", [0.05, 0.1], {"uadfv": [(0.8, None), None]}, {},
        ...                     title="Trained on FaceForensics++")
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
    """Return the figure that `plot_histograms` saves."""
    label, score = np.asarray(label), np.asarray(score, dtype=np.float64)
    if not label.size or label.shape != score.shape or not np.isin(label, (0, 1)).all():
        raise ValueError(
            f"Expected labels of 0 and 1, and as many scores, at least one; got {label.dtype}"
            f"{list(label.shape)} labels and {list(score.shape)} scores. Label 1 is fake."
        )
    if not ((score >= 0) & (score <= 1)).all():
        raise ValueError(
            f"Expected scores in 0..1; got {score.min()}..{score.max()}. Apply a sigmoid to logits."
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
    for name, rows, color, hatch in classes:
        if rows.any():
            count, edges = np.histogram(score[rows], NUM_BINS, range=(0, 1))
            text = f"{rows.sum():,} {name}"
            bars = {"fill": True, "facecolor": "none", "edgecolor": color, "linewidth": 1.4}
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
    """Return the figure that `plot_reliability` saves."""
    counts = [int(reliability.count.sum()) for reliability in reliabilities.values()]
    if not reliabilities or not all(counts):
        raise ValueError(
            f"Expected reliabilities with scores; got {list(reliabilities)}, of {counts}. Score a "
            "dataset first."
        )
    figure = new_figure(WIDTH, 5.6)
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3.2, 1))
    for index, (name, reliability) in enumerate(reliabilities.items()):
        style = line_style(index)
        filled = reliability.count > 0
        text = f"{name} (ECE {reliability.ece:.3f})"
        points = reliability.mean_score[filled], reliability.fake_share[filled]
        axes.plot(*points, label=text, clip_on=False, **style)
        dashes = {key: style[key] for key in ("color", "linestyle", "linewidth")}
        below.stairs(reliability.count, reliability.edges, baseline=None, **dashes)
    axes.plot([0, 1], [0, 1], label="perfect calibration", **GUIDE)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of fakes in the bin")
    highest = max(reliability.count.max() for reliability in reliabilities.values())
    below.set(yscale="log", ylim=(0.7, 2 * highest), ylabel="count", xlabel="score, P(fake)")
    below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
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
    """Return the figure that `plot_foreign_shares` saves."""
    _check_shares(shares, series, published)
    figure = new_figure(WIDTH, 3.6)
    axes = figure.add_subplot()
    percent = 100 * np.asarray(shares, dtype=np.float64)
    names = list(dict.fromkeys([*series, *published]))  # each once, own results first
    for index, name in enumerate(names):
        style = line_style(index)
        if name in series:
            runs = [run or (None, None) for run in series[name]]
            mean, spread = 100 * np.array(runs, dtype=np.float64).T  # None becomes NaN, a gap
            filled = {"linestyle": "-", "markerfacecolor": style["color"]}
            axes.plot(percent, mean, label=name, **style | filled)
            bars = {"fmt": "none", "ecolor": style["color"], "capsize": 3}
            axes.errorbar(percent, mean, spread, **bars)
        if name in published:
            auc = 100 * np.array(published[name], dtype=np.float64)
            dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.0}
            axes.plot(percent, auc, label=f"{name}, in the paper", **style | dashed)
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
                f"{name}. Use None for a missing value."
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


def plot_time_line(
    path: str | Path,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    duration_s: float,
    uncertain: tuple[float, float],
    segment: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Draw scores over the time of a video, one line per track.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        lines: By name in the legend, increasing times in seconds and as many scores, P(fake) in
            [0, 1]; at least one point each. Long pauses are gaps in the line.
        duration_s: Duration of the video.
        uncertain: Low and high: a score in [low, high) is uncertain; drawn as a band, or as one
            line where both are equal.
        segment: Start and end in seconds of a segment that looks fake; drawn as a band.
        title: Title of the figure.

    Raises:
        ValueError: If there is no line, or times and scores do not match.

    Example:
        >>> plot_time_line("clip", {"track 0": ([0.0, 1.0], [0.2, 0.9])}, duration_s=1.5,
        ...                uncertain=(0.4, 0.6))
    """
    figure = draw_time_line(
        lines, duration_s=duration_s, uncertain=uncertain, segment=segment, title=title
    )
    save_figure(figure, path)


@with_own_settings
def draw_time_line(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    duration_s: float,
    uncertain: tuple[float, float],
    segment: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Return the figure that `plot_time_line` saves."""
    _check_lines(lines)
    figure = new_figure(TIMELINE_WIDTH, TIMELINE_HEIGHT)
    axes = figure.add_subplot()
    low, high = uncertain
    if low < high:
        axes.axhspan(low, high, label=f"uncertain, {low:.3g} to {high:.3g}", color="0.88", zorder=1)
    if segment:
        label = f"looks fake, {segment[0]:.1f} to {segment[1]:.1f} s"
        axes.axvspan(*segment, label=label, color=VERMILLION, alpha=0.15, linewidth=0, zorder=0.9)
    axes.axhline(high, label=f"fake from {high:.3g}", **GUIDE)
    steps = np.concatenate([np.diff(times_s) for times_s, _ in lines.values()])
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    for index, (name, (times_s, scores)) in enumerate(lines.items()):
        style = line_style(index) | {"markersize": 3.5, "linewidth": 1.1}
        if len(times_s) > MAX_MARKED:
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


def _check_lines(lines: Mapping) -> None:
    if not lines:
        raise ValueError("Expected at least one line; got none. Skip videos without a face.")
    for name, (times_s, scores) in lines.items():
        scores = np.asarray(scores, float)
        inside = (scores >= 0) & (scores <= 1)
        fits = scores.ndim == 1 and len(times_s) == len(scores) > 0
        if not (fits and inside.all() and (np.diff(times_s) >= 0).all()):
            raise ValueError(
                f"Expected increasing times and as many scores in 0..1, at least one; got "
                f"{len(times_s)} and {len(scores)} for {name}. Sort them by time."
            )
