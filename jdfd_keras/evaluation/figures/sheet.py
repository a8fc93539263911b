"""A sheet of paper on which pictures and words lie where they are put, in inches.

Gives a Figure; takes pictures, words and places. Knows nothing of what the pictures show.
Hundreds of them cost one axes, not one each, and none is blurred.
"""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jdfd_keras.evaluation.figures.style import height_of, new_figure, wrap


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
