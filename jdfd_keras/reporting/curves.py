"""Curves over all thresholds: ROC, detection error trade-off (DET), precision and recall.

Elements that differ by colour also differ by dashes and markers. scikit-learn's displays draw ROC
and precision; its DET display has no limits for rates of 0 and 1, so that curve is drawn here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.metrics import (
    PrecisionRecallDisplay,
    RocCurveDisplay,
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
    with_own_settings,
)

RATE_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
SOLID_GUIDE: dict[str, Any] = GUIDE | {"linestyle": "-"}
LOWEST, HIGHEST = RATE_TICKS[0], RATE_TICKS[-1]


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores of one detector on one dataset with both classes."""

    name: str  # in the legend
    label: np.ndarray  # bool[n], True is fake
    score: np.ndarray  # float64[n], higher is more fake


@with_own_settings
def draw_roc(curves: Sequence[Curve], *, title: str) -> Figure:
    """Draw ROC curves with the diagonal of chance, and each AUC in the legend.

    Args:
        curves: The curves, in the order of the legend.
        title: Title of the figure.

    Example:
        >>> curve = Curve("a detector", np.array([False, True]), np.array([0.1, 0.9]))
        >>> [line.get_label() for line in draw_roc([curve], title="2 videos").axes[0].lines]
        ['a detector (AUC 1.000)', 'chance (AUC 0.5)']
    """
    figure, axes = _start()
    for index, curve in enumerate(curves):
        fpr, tpr, _ = roc_curve(curve.label, curve.score)
        text = f"{curve.name} (AUC {roc_auc_score(curve.label, curve.score):.3f})"
        RocCurveDisplay(fpr=fpr, tpr=tpr).plot(axes, curve_kwargs=curve_style(index))
        axes.lines[-1].set_label(text)  # in the call it would make a second legend
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
    """Draw DET curves: miss rate against false positive rate on normal deviate axes.

    Normally distributed scores yield straight lines. Rates below 0.1 % or above 99.9 %, such as 0
    and 1 with infinite deviates, are drawn on the frame. A detector with both rates on the
    frame at one threshold, such as a perfect one, has no curve; the legend states that.

    Args:
        curves: The curves, in the order of the legend.
        title: Title of the figure.

    Reference:
        Martin et al. (1997), "The DET curve in assessment of detection task performance",
        https://www.isca-archive.org/eurospeech_1997/martin97b_eurospeech.html

    Example:
        >>> curve = Curve("a detector", np.array([False, True]), np.array([0.1, 0.9]))
        >>> draw_det([curve], title="2 videos").axes[0].lines[0].get_label()
        'a detector (EER 0.0%, no curve: all errors below 0.1%)'
    """
    figure, axes = _start()
    for index, curve in enumerate(curves):
        # Points on a straight line in rates are not on one in deviates.
        fpr, tpr, _ = roc_curve(curve.label, curve.score, drop_intermediate=False)
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
        axes.plot(*deviates, label=f"{curve.name} ({text})", **curve_style(index))
    ends = norm.ppf([LOWEST, HIGHEST])
    axes.plot(ends, ends, label="equal error rate", **SOLID_GUIDE)
    axes.plot(ends, -ends, label="chance (EER 50%)", **GUIDE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(RATE_TICKS), [f"{100 * rate:g}" for rate in RATE_TICKS])
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
    """Draw precision against recall of detecting fakes.

    The curve is a step function, so that the area below it is the average precision in the legend.
    The share of fakes, which is the precision of chance, is a thin line of the same colour.

    Args:
        curves: The curves, in the order of the legend.
        title: Title of the figure.

    Example:
        >>> curve = Curve("a detector", np.array([False, True]), np.array([0.1, 0.9]))
        >>> draw_precision_recall([curve], title="2 videos").axes[0].lines[0].get_label()
        'a detector (AP 1.000, fakes 50%)'
    """
    figure, axes = _start()
    for index, curve in enumerate(curves):
        precision, recall, _ = precision_recall_curve(curve.label, curve.score)
        # scikit-learn adds a last point of precision 1: the first step is extended to recall 0.
        precision[-1] = precision[-2]
        share, ap = curve.label.mean(), average_precision_score(curve.label, curve.score)
        text, style = f"{curve.name} (AP {ap:.3f}, fakes {share:.0%})", curve_style(index)
        PrecisionRecallDisplay(precision, recall).plot(axes, curve_kwargs=style)
        axes.lines[-1].set_label(text)
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


def _start() -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH, WIDTH)
    return figure, figure.add_subplot(aspect="equal", anchor="N")
