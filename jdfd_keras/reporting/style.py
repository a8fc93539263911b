"""How every figure looks, and how it becomes files.

Gives a matplotlib Figure of the wanted size, the styles that tell its curves apart, its title
and legend, and its two files. Draws on the Agg canvas, so it needs no display and leaves the
caller's own pyplot figures and settings alone. Knows nothing of scores or faces.

A sheet of paper on which pictures and words lie where they are put, in inches.

Gives a Figure; takes pictures, words and places. Knows nothing of what the pictures show.
Hundreds of them cost one axes, not one each, and none is blurred.
"""

import functools
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

# Of Okabe and Ito (2008), https://jfly.uni-koeln.de/color/: told apart by the colour-blind.
# Their yellow is left out, as it is hardly seen on paper.
BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
PURPLE, ORANGE, SKY_BLUE = "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILLION, GREEN, BLACK, PURPLE, ORANGE, SKY_BLUE)
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GUIDE = {"color": "0.45", "linestyle": ":", "linewidth": 1.2, "zorder": 1}

DPI = 300  # a face of 299 px, 1.2 inches wide, keeps all its pixels
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
    "image.composite_image": False,  # one picture in the SVG for each face
    "image.interpolation": "none",
    "legend.fontsize": 8,
    "text.parse_math": False,  # a "$" in the name of a data set is a "$"
    "svg.fonttype": "none",
    "svg.hashsalt": "jdfd-keras",
}
# Inches that a letter of one point takes, in the mean, and a line.
LETTER, LINE = 0.6 / 72, 1.25 / 72


def with_own_settings(draw: Callable) -> Callable:
    """Make a function draw by SETTINGS and matplotlib's defaults, whatever the caller has set."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        with matplotlib.style.context(["default", SETTINGS]):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure that pyplot does not know of.

    Args:
        width: In inches.
        height: In inches.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@with_own_settings
def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG and as SVG; the same figure gives the same bytes.

    Args:
        figure: What to write.
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.

    Raises:
        ValueError: If the path ends in one of the two already.
    """
    if Path(path).suffix in (".png", ".svg"):
        raise ValueError(
            f"Expected a path without a suffix, as two files are written; got {path}. Try "
            f"{Path(path).with_suffix('')}."
        )
    with warnings.catch_warnings():
        # A box stands for a sign that the font lacks; the reader of the figure sees that himself.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(f"{path}.png", format="png", metadata={"Software": None})
        figure.savefig(f"{path}.svg", format="svg", metadata={"Creator": None, "Date": None})


def line_style(index: int) -> dict:
    """Style the curve of a number, so that no two of the first 315 look alike.

    Colour, dashes and marker go round at their own paces: the first nine differ by their
    markers alone, and so without any colour.

    Args:
        index: Counted from 0.

    Returns:
        Arguments for `Axes.plot`.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.4,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.1,
        "zorder": 3,
    }


def curve_style(index: int) -> dict:
    """Style a curve of many points as `line_style`, with a marker now and then.

    Args:
        index: Counted from 0. The markers of neighbours lie apart.

    Returns:
        Arguments for `Axes.plot`.
    """
    # Not clipped: half of a perfect curve lies on the frame. Out of the layout, for which a
    # curve without points that is not clipped would reach to the figure's corner (3.11).
    whole = {"clip_on": False, "in_layout": False}
    return line_style(index) | whole | {"markevery": (0.03 + 0.037 * (index % 5), 0.19)}


def wrap(text: str, width: float, size: float) -> str:
    """Break text into lines that fit.

    Args:
        text: Its own line breaks are kept.
        width: Room, in inches.
        size: Of the letters, in points.
    """
    letters = max(4, int(width / (LETTER * size)))
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def height_of(text: str, size: float) -> float:
    """Say how high some lines of text are, in inches; nothing is 0 high."""
    return (text.count("\n") + 1) * LINE * size if text else 0.0


def add_title_and_legend(figure: Figure, axes: Axes, title: str) -> None:
    """Put a title above and a legend beneath, where it hides nothing; the figure grows by both.

    Args:
        figure: In constrained layout.
        axes: With what the legend lists.
        title: Wrapped to the figure.
    """
    width, height = figure.get_size_inches()
    title = wrap(title, width - 0.2, 10)
    figure.suptitle(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) * LETTER * 8 < width / 2 - 0.65 else 1
    labels = [wrap(label, width / columns - 0.65, 8) for label in labels]
    lines = [label.count("\n") + 1 for label in labels]
    rows = -(-len(labels) // columns)
    rows_height = 0.17 * max(sum(lines[:rows]), sum(lines[rows:]))
    figure.set_size_inches(width, height + height_of(title, 10) + rows_height + 0.1)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=4,
        columnspacing=1.5,
    )


class Sheet:
    """A white sheet; places are counted from its upper left, in inches."""

    def __init__(self, width: float, height: float):
        """Take a sheet of this size."""
        self.width, self.height = width, height
        self.figure: Figure = new_figure(width, height)
        self.figure.set_layout_engine("none")
        self._axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def put_picture(self, picture: np.ndarray, left: float, top: float, size: float, **scale):
        """Put a square picture, every pixel of which stays a square.

        Args:
            picture: uint8[size, size, 3] RGB, or float[size, size].
            left: Its left edge.
            top: Its upper edge.
            size: Its width and height.
            **scale: For a picture of floats `cmap`, `vmin` and `vmax`.
        """
        extent = (left, left + size, top + size, top)
        self._axes.imshow(picture, extent=extent, interpolation="none", aspect="auto", **scale)

    def put_text(self, text: str, x: float, y: float, size: float, **place) -> None:
        """Put words; `place` is how they lie about the point, as `Axes.text` takes it."""
        self._axes.text(x, y, text, fontsize=size, linespacing=1.15, **place)

    def put_colour_bar(
        self, colours: str, most: float, left: float, top: float, width: float, label: str
    ) -> None:
        """Put a bar that tells what the colours mean, with its ticks and label beneath.

        Args:
            colours: Name of the colour map.
            most: What its last colour stands for; its first stands for 0.
            left: Of the bar.
            top: Of the bar.
            width: Of the bar.
            label: What is measured; wrapped to the bar.
        """
        height = 0.1
        place = (left, self.height - top - height, width, height)
        bar = self.figure.add_axes(
            [part / whole for part, whole in zip(place, (self.width, self.height) * 2, strict=True)]
        )
        scale = ScalarMappable(Normalize(0, most), colours)
        ticks = [0, most / 2, most]
        self.figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=ticks)
        bar.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        bar.tick_params(labelsize=7, length=2, pad=1.5)
        bar.set_xlabel(wrap(label, width + 0.1, 7), fontsize=7, labelpad=1.5)


def wrap_all(texts: list[str], width: float, size: float) -> tuple[list[str], float]:
    """Break texts into lines that fit, and say how much room the highest needs.

    Args:
        texts: One for each picture of a row.
        width: Room, in inches.
        size: Of the letters, in points.

    Returns:
        The texts, and a height in inches with a little air; 0 if all are empty.
    """
    wrapped = [wrap(text, width, size) for text in texts]
    height = max((height_of(text, size) for text in wrapped), default=0.0)
    return wrapped, height + 0.04 if height else 0.0
