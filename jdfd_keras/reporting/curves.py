"""Curves over all thresholds: ROC, detection error trade-off (DET), precision and recall.

Each `plot_...` saves the figure of the `draw_...` with the same name as PNG and SVG. Elements
that differ by colour also differ by dashes and markers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from jdfd_keras.reporting.style import (
    GUIDE,
    WIDTH,
    add_title_and_legend,
    curve_style,
    new_figure,
    save_figure,
    with_own_settings,
)

RATE_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
LOWEST, HIGHEST = RATE_TICKS[0], RATE_TICKS[-1]


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores of one detector on one dataset.

    Attributes:
        name: Name in the legend.
        label: bool[n], True is fake.
        score: float64[n], higher is more fake.
    """

    name: str
    label: np.ndarray
    score: np.ndarray


def plot_roc(path: str | Path, curves: Sequence[Curve], *, title: str) -> None:
    """Draw ROC curves with the diagonal of chance, and each AUC in the legend.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        curves: At least one, each with both classes; in the order of the legend.
        title: Title of the figure.

    Raises:
        ValueError: If there is no curve, or one lacks a class or has invalid labels or scores.

    Example:
        >>> curve = Curve("a detector", np.array([0, 1]), np.array([0.1, 0.9]))
        >>> plot_roc("roc", [curve], title="Two videos")
    """
    save_figure(draw_roc(curves, title=title), path)


def plot_det(path: str | Path, curves: Sequence[Curve], *, title: str) -> None:
    """Draw DET curves: miss rate against false positive rate on normal deviate axes.

    Normally distributed scores yield straight lines. Rates below 0.1 % or above 99.9 %, such as 0
    and 1 with infinite deviates, are drawn on the frame. A detector with both rates on the
    frame at one threshold, such as a perfect one, has no curve; the legend states that.

    Reference:
        Martin et al. (1997), "The DET curve in assessment of detection task performance",
        https://www.isca-archive.org/eurospeech_1997/martin97b_eurospeech.html

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        curves: As for `plot_roc`.
        title: Title of the figure.

    Raises:
        ValueError: As `plot_roc`.
    """
    save_figure(draw_det(curves, title=title), path)


def plot_precision_recall(path: str | Path, curves: Sequence[Curve], *, title: str) -> None:
    """Draw precision against recall of detecting fakes.

    The curve is a step function, so that the area below it is the average precision in the legend.
    The share of fakes, which is the precision of chance, is a thin line of the same colour.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        curves: As for `plot_roc`.
        title: Title of the figure.

    Raises:
        ValueError: As `plot_roc`.
    """
    save_figure(draw_precision_recall(curves, title=title), path)


@with_own_settings
def draw_roc(curves: Sequence[Curve], *, title: str) -> Figure:
    """Return the figure that `plot_roc` saves."""
    figure, axes = _start(curves)
    for index, (name, label, score) in enumerate(map(_read, curves)):
        fpr, tpr, _ = roc_curve(label, score)
        text = f"{name} (AUC {roc_auc_score(label, score):.3f})"
        axes.plot(fpr, tpr, label=text, **curve_style(index))
    axes.plot([0, 1], [0, 1], label="chance (AUC 0.5)", **GUIDE)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="false positive rate (real called fake)",
        ylabel="true positive rate (fakes called fake)",
    )
    add_title_and_legend(figure, axes, title)
    return figure


@with_own_settings
def draw_det(curves: Sequence[Curve], *, title: str) -> Figure:
    """Return the figure that `plot_det` saves."""
    figure, axes = _start(curves)
    for index, (name, label, score) in enumerate(map(_read, curves)):
        # Points on a straight line in rates are not on one in deviates.
        fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
        miss = 1 - tpr
        # The gap FPR - miss rate increases at every point, so the EER is unique.
        text = f"EER {np.interp(0, fpr - miss, fpr):.1%}"
        if ((fpr <= LOWEST) & (miss <= LOWEST)).any():
            fpr, miss = np.empty((2, 0))
            text += ", no curve: all errors below 0.1%"
        elif ((fpr >= HIGHEST) & (miss >= HIGHEST)).any():
            fpr, miss = np.empty((2, 0))
            text += ", no curve: both errors above 99.9%"
        deviates = norm.ppf(np.clip([fpr, miss], LOWEST, HIGHEST))
        axes.plot(*deviates, label=f"{name} ({text})", **curve_style(index))
    ends = norm.ppf([LOWEST, HIGHEST])
    axes.plot(ends, ends, label="equal error rate", **GUIDE | {"linestyle": "-"})
    axes.plot(ends, -ends, label="chance (EER 50%)", **GUIDE)
    ticks = {"ticks": norm.ppf(RATE_TICKS), "labels": [f"{100 * rate:g}" for rate in RATE_TICKS]}
    axes.set_xticks(**ticks)
    axes.set_yticks(**ticks)
    axes.set(
        xlim=ends,
        ylim=ends,
        xlabel="false positive rate in % (real called fake)",
        ylabel="miss rate in % (fakes called real)",
    )
    add_title_and_legend(figure, axes, title)
    return figure


@with_own_settings
def draw_precision_recall(curves: Sequence[Curve], *, title: str) -> Figure:
    """Return the figure that `plot_precision_recall` saves."""
    figure, axes = _start(curves)
    for index, (name, label, score) in enumerate(map(_read, curves)):
        precision, recall, _ = precision_recall_curve(label, score)
        # scikit-learn adds a last point of precision 1: the first step is extended to recall 0.
        precision[-1] = precision[-2]
        share = label.mean()
        text = f"{name} (AP {average_precision_score(label, score):.3f}, fakes {share:.0%})"
        style = curve_style(index)
        axes.plot(recall, precision, label=text, drawstyle="steps-post", **style)
        axes.axhline(share, color=style["color"], linestyle=style["linestyle"], linewidth=0.7)
    axes.plot([], [], label="share of fakes (chance)", color="0.45", linewidth=0.7)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="recall (fakes called fake)",
        ylabel="precision (of those called fake)",
    )
    add_title_and_legend(figure, axes, title)
    return figure


def _start(curves: Sequence[Curve]) -> tuple[Figure, Axes]:
    if not curves:
        raise ValueError("Expected at least one curve; got none. Score a dataset first.")
    figure = new_figure(WIDTH, WIDTH)
    return figure, figure.add_subplot(aspect="equal", anchor="N")


def _read(curve: Curve) -> tuple[str, np.ndarray, np.ndarray]:
    label, score = np.asarray(curve.label), np.asarray(curve.score, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape or not np.isin(label, (0, 1)).all():
        raise ValueError(
            f"Expected labels of 0 and 1, and as many scores, for {curve.name}; got "
            f"{label.dtype}{list(label.shape)} labels, {list(score.shape)} scores. Label 1 is fake."
        )
    label = label.astype(bool)
    if label.all() or not label.any():
        raise ValueError(
            f"Expected real and fake faces or videos for the curve of {curve.name}; got "
            f"{len(label)} of at most one class. Score a split that has both."
        )
    if not np.isfinite(score).all():
        raise ValueError(
            f"Expected finite scores for {curve.name}; got "
            f"{np.count_nonzero(~np.isfinite(score))} that are not. Remove rows without a score."
        )
    return curve.name, label, score
