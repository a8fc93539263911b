"""The style of all figures, and how they are saved.

Creates matplotlib figures with a common style, title and legend, or as a `Canvas` on which images
and text are placed in inches, and saves them as PNG and SVG. Uses the Agg backend, so it needs no
display and does not change the caller's pyplot figures and settings. Independent of scores and
faces.
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

from jdfd_keras.io.files import atomic_path

# From Okabe and Ito (2008), https://jfly.uni-koeln.de/color/: distinguishable for colour-blind
# readers. Their yellow is omitted, since it is hardly visible on paper.
BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
PURPLE, ORANGE, SKY_BLUE = "#CC79A7", "#E69F00", "#56B4E9"
COLORS = (BLUE, VERMILLION, GREEN, BLACK, PURPLE, ORANGE, SKY_BLUE)
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GUIDE = {"color": "0.45", "linestyle": ":", "linewidth": 1.2, "zorder": 1}

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


def with_own_settings(draw: Callable) -> Callable:
    """Decorate a function to draw with SETTINGS and the defaults of matplotlib."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        with matplotlib.style.context(["default", SETTINGS]):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that is not registered in pyplot.

    Args:
        width: Width in inches.
        height: Height in inches.
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

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the path has one of the two suffixes.
    """
    if Path(path).suffix in (".png", ".svg"):
        raise ValueError(
            f"Expected a path without suffix, since two files are written; got {path}. Try "
            f"{Path(path).with_suffix('')}."
        )
    with warnings.catch_warnings():
        # Characters that are missing in the font are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        with atomic_path(f"{path}.png") as unfinished:
            figure.savefig(unfinished, format="png", metadata={"Software": None})
        with atomic_path(f"{path}.svg") as unfinished:
            figure.savefig(unfinished, format="svg", metadata={"Creator": None, "Date": None})


def line_style(index: int) -> dict:
    """Return the style of a curve; no two of the first 315 are equal.

    Colour, dashes and marker repeat with different periods. The first nine curves differ by their
    markers, so also without colour.

    Args:
        index: Index of the curve, from 0.

    Returns:
        Arguments for `Axes.plot`.
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


def curve_style(index: int) -> dict:
    """Return the style of a curve of many points: `line_style` with a few markers.

    Args:
        index: Index of the curve, from 0; neighbours have markers at different positions.

    Returns:
        Arguments for `Axes.plot`.
    """
    # Not clipped, since half of a perfect curve is on the frame. Not in the layout, in which an
    # unclipped curve without points would extend to the corner of the figure (matplotlib 3.11).
    whole = {"clip_on": False, "in_layout": False}
    return line_style(index) | whole | {"markevery": (0.03 + 0.037 * (index % 5), 0.19)}


def wrap(text: str, width: float, size: float) -> str:
    """Wrap text to a width.

    Args:
        text: The text; its line breaks are kept.
        width: Width in inches.
        size: Font size in points.
    """
    characters = max(4, int(width / (CHARACTER * size)))
    return "\n".join(textwrap.fill(line, characters) for line in text.split("\n"))


def height_of(text: str, size: float) -> float:
    """Return the height of text in inches; 0 for an empty one."""
    return (text.count("\n") + 1) * LINE * size if text else 0.0


def add_title_and_legend(figure: Figure, axes: Axes, title: str) -> None:
    """Add a title above the axes and a legend below; the figure grows by both.

    Args:
        figure: A figure in constrained layout.
        axes: The axes with the artists of the legend.
        title: Title, wrapped to the width of the figure.
    """
    width, height = figure.get_size_inches()
    title = wrap(title, width - 0.2, 10)
    figure.suptitle(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) * CHARACTER * 8 < width / 2 - 0.65 else 1
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


class Canvas:
    """A white figure on which images and text are placed, in inches from its upper left.

    All images share one axes, so that hundreds of them are fast, and none is interpolated.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure: Figure = new_figure(width, height)
        self.figure.set_layout_engine("none")
        self._axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def draw_image(self, image: np.ndarray, left: float, top: float, size: float, **scale) -> None:
        """Draw a square image without interpolation.

        Args:
            image: uint8[size, size, 3] RGB, or float[size, size].
            left: Left edge.
            top: Upper edge.
            size: Width and height.
            **scale: For a float image `cmap`, `vmin` and `vmax`.
        """
        extent = (left, left + size, top + size, top)
        self._axes.imshow(image, extent=extent, interpolation="none", aspect="auto", **scale)

    def draw_text(self, text: str, x: float, y: float, size: float, **alignment) -> None:
        """Draw text at a point; `alignment` as in `Axes.text`, such as `ha` and `va`."""
        self._axes.text(x, y, text, fontsize=size, linespacing=1.15, **alignment)

    def draw_color_bar(
        self, color_map: str, highest: float, left: float, top: float, width: float, label: str
    ) -> None:
        """Draw a colour bar with ticks and label below.

        Args:
            color_map: Name of the colour map.
            highest: Value of its last colour; the first is 0.
            left: Left edge.
            top: Upper edge.
            width: Width of the bar.
            label: Label, wrapped to the width.
        """
        height = 0.1
        left, bottom = left / self.width, (self.height - top - height) / self.height
        bar = self.figure.add_axes((left, bottom, width / self.width, height / self.height))
        scale = ScalarMappable(Normalize(0, highest), color_map)
        ticks = [0, highest / 2, highest]
        self.figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=ticks)
        bar.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        bar.tick_params(labelsize=7, length=2, pad=1.5)
        bar.set_xlabel(wrap(label, width + 0.1, 7), fontsize=7, labelpad=1.5)


def wrap_all(texts: list[str], width: float, size: float) -> tuple[list[str], float]:
    """Wrap texts to a width, and return the height of the highest.

    Args:
        texts: One for each image of a row.
        width: Width in inches.
        size: Font size in points.

    Returns:
        The texts, and a height in inches with a small margin; 0 if all are empty.
    """
    wrapped = [wrap(text, width, size) for text in texts]
    height = max((height_of(text, size) for text in wrapped), default=0.0)
    return wrapped, height + 0.04 if height else 0.0
