"""The scores of one video over its time, a line for each person.

Takes times and scores; writes PNG and SVG files. `plot_time_line` saves what `draw_time_line`
gives. Lines differ by colour, dashes and markers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jdfd_keras.evaluation.figures.style import (
    GUIDE,
    VERMILLION,
    add_title_and_legend,
    line_style,
    new_figure,
    save_figure,
    with_own_settings,
)

WIDTH, HEIGHT = 7.2, 2.4  # inches
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
    figure = new_figure(WIDTH, HEIGHT)
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
