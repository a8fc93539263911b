"""The style of all figures, and how they are saved.

Uses the Agg backend, so it needs no display and does not change the caller's pyplot figures and
settings. Independent of scores and faces.
"""

import functools
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jdfd_keras.io.console import printable
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION

# Without yellow, which is hardly visible on paper.
COLORS = (BLUE, VERMILLION, GREEN, BLACK, PURPLE, ORANGE, SKY_BLUE)
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GUIDE: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.2, "zorder": 1}

DPI = 300  # a face of 299 px at 1.2 inches keeps all its pixels
WIDTH = 5.2  # inches
SETTINGS = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "0.9",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "hatch.linewidth": 0.8,
    "image.composite_image": False,  # one image per face in the SVG
    "image.interpolation": "none",
    "legend.fontsize": 8,
    "text.parse_math": False,  # names of datasets may contain "$"
    "svg.fonttype": "none",
    "svg.hashsalt": "jdfd-keras",
}
# Mean width of a character and height of a line, in inches per point of font size.
CHARACTER, LINE = 0.6 / 72, 1.25 / 72
Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def with_own_settings(draw: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Decorate a function to draw with SETTINGS and the defaults of matplotlib.

    Example:
        >>> with_own_settings(lambda: matplotlib.rcParams["axes.grid"])()
        True
    """

    @functools.wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        with matplotlib.style.context(["default", SETTINGS]):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches that is not registered in pyplot.

    Example:
        >>> new_figure(3, 2).get_size_inches()
        array([3., 2.])
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@with_own_settings
def save_figure(figure: Figure, path: str | Path) -> None:
    """Save a figure as PNG and SVG; equal figures have equal bytes.

    Args:
        figure: The figure.
        path: Path without suffix, to which `.png` and `.svg` are appended; existing files are
            replaced.

    Example:
        >>> save_figure(new_figure(3, 2), "empty")
        >>> Path("empty.png").exists(), Path("empty.svg").exists()
        (True, True)
    """
    with warnings.catch_warnings():
        # Characters that are missing in the font are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        with atomic_path(f"{path}.png") as unfinished:
            figure.savefig(unfinished, format="png", metadata={"Software": None})
        with atomic_path(f"{path}.svg") as unfinished:
            figure.savefig(unfinished, format="svg", metadata={"Creator": None, "Date": None})


def line_style(index: int) -> dict[str, Any]:
    """Return the style of a curve as arguments for `Axes.plot`; no two of the first 315 are equal.

    Colour, dashes and marker repeat with different periods. The first nine curves differ by their
    markers, so also without colour.

    Args:
        index: Index of the curve, from 0.

    Example:
        >>> line_style(0)["marker"], line_style(1)["marker"]
        ('o', 's')
    """
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.4,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.1,
        "zorder": 3,
    }


def curve_style(index: int) -> dict[str, Any]:
    """Return the style of a curve of many points: `line_style` with a few markers.

    Args:
        index: Index of the curve, from 0; neighbours have markers at different positions.

    Example:
        >>> curve_style(0)["markevery"]  # first marker, and distance of markers, along the curve
        (0.03, 0.19)
    """
    # Not clipped, since half of a perfect curve is on the frame. Not in the layout, in which an
    # unclipped curve without points would extend to the corner of the figure (matplotlib 3.11).
    whole = {"clip_on": False, "in_layout": False}
    return line_style(index) | whole | {"markevery": (0.03 + 0.037 * (index % 5), 0.19)}


def add_title_and_legend(figure: Figure, axes: Axes, title: str) -> None:
    """Add a title above the axes and a legend below; the figure grows by both.

    Args:
        figure: A figure in constrained layout.
        axes: The axes with the artists of the legend.
        title: Title, wrapped to the width of the figure.

    Example:
        >>> figure = new_figure(3, 2)
        >>> axes = figure.add_subplot()
        >>> line = axes.plot([0, 1], [0, 1], label="chance")
        >>> add_title_and_legend(figure, axes, "A diagonal")
        >>> figure.get_suptitle(), figure.legends[0].get_texts()[0].get_text()
        ('A diagonal', 'chance')
    """
    width, height = figure.get_size_inches()
    title = _wrap(title, width - 0.2, 10)
    figure.suptitle(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) * CHARACTER * 8 < width / 2 - 0.65 else 1
    labels = [_wrap(label, width / columns - 0.65, 8) for label in labels]
    lines = [label.count("\n") + 1 for label in labels]
    rows = -(-len(labels) // columns)
    rows_height = 0.17 * max(sum(lines[:rows]), sum(lines[rows:]))
    title_height = (title.count("\n") + 1) * LINE * 10 if title else 0.0
    figure.set_size_inches(width, height + title_height + rows_height + 0.1)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=4,
        columnspacing=1.5,
    )


def _wrap(text: str, width: float, size: float) -> str:
    """Wrap text of a font size in points to a width in inches; its line breaks are kept."""
    characters = max(4, int(width / (CHARACTER * size)))
    return "\n".join(textwrap.fill(printable(line), characters) for line in text.split("\n"))
