"""Scores to pictures for a report: PNG files readable in print and by the colour-blind.

Takes Scores; writes a file. Draws on matplotlib's Figure object with the Agg canvas, so it
needs no display and leaves the caller's own pyplot figures alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from jdfd_keras.evaluation.scores import Scores, to_videos

# Two colours of Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, that differ in
# lightness too; the dashes tell the curves apart without any colour.
VIDEO_STYLE = {"color": "#0072B2", "linestyle": "-", "linewidth": 2.0}
FRAME_STYLE = {"color": "#D55E00", "linestyle": (0, (4, 1.5)), "linewidth": 1.6}
CHANCE_STYLE = {"color": "0.55", "linestyle": ":", "linewidth": 1.2}


def plot_roc(path: str | Path, scores: Scores, *, title: str) -> None:
    """Draw the ROC curves of the videos and of the faces on one axis.

    Args:
        path: PNG file to write, replaced if it is there.
        scores: One row per face, with both classes.
        title: What was scored, on what.

    Raises:
        ValueError: If either class is absent: such scores have no curve.
    """
    if scores.label.all() or not scores.label.any():
        raise ValueError(
            f"Expected real and fake faces for a ROC curve; got {len(scores)} faces of at most "
            "one class. Score a split that holds both."
        )
    videos = to_videos(scores)
    figure = Figure(figsize=(5.2, 5.2), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label="chance (AUC 0.5)", **CHANCE_STYLE)
    for name, rows, style in (("faces", scores, FRAME_STYLE), ("videos", videos, VIDEO_STYLE)):
        fpr, tpr, _ = roc_curve(rows.label, rows.score)
        auc = roc_auc_score(rows.label, rows.score)
        # Not clipped: half of a perfect curve lies on the frame.
        axes.plot(fpr, tpr, label=f"{len(rows):,} {name} (AUC {auc:.3f})", clip_on=False, **style)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel="false positive rate (reals called fake)",
        ylabel="true positive rate (fakes called fake)",
    )
    axes.set_title(title, fontsize=11, pad=10, parse_math=False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="lower right", framealpha=1, edgecolor="0.8")
    figure.savefig(path, format="png")


def plot_faces(
    path: str | Path,
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 6,
) -> None:
    """Draw faces, each above what the decoder made of it where there is a decoder.

    Args:
        path: PNG file to write, replaced if it is there.
        pictures: float[2, size, size, 3] each, on the scale of -1..1: a face and its
            reconstruction; or float[1, size, size, 3] each, the face alone. At least one.
        captions: One for each.
        columns: Faces side by side.
    """
    rows = -(-len(pictures) // columns)
    depth = len(pictures[0])
    height = (1.35 * depth + 0.25) * rows  # inches, with a line for the captions
    figure = Figure(figsize=(1.35 * columns, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(depth * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, columns)
        cells = grid[depth * row : depth * (row + 1), column]
        for axes, part in zip(cells, picture, strict=True):
            axes.imshow(np.clip((part + 1) / 2, 0, 1))
        cells[0].set_title(caption, fontsize=8, parse_math=False)
    figure.savefig(path, format="png")
