"""Face crops to a contact sheet: one PNG on which a person sees what was taken.

Takes crops with captions, in titled rows; writes a file. Knows nothing of where they came from.
Draws on matplotlib's Figure object with the Agg canvas, so it needs no display and leaves the
caller's own pyplot figures alone.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

COLUMNS = 8
# 48 faces; one line for each row where there are more rows than that.
MOST_LINES = 6
MOST_ROWS = 24
# Width of a crop on the sheet in pixels: smaller ones are enlarged by a whole number, larger ones
# made smaller, all others shown pixel for pixel.
LEAST_CELL, MOST_CELL = 150, 320
DPI = 100
LANDMARK_COLOUR = "#56B4E9"  # sky blue, which no skin has: Okabe and Ito (2008)


class _Style(NamedTuple):
    scale: float
    weight: str


PLAIN, ROW_TITLE, HEADING = _Style(1.0, "normal"), _Style(1.2, "bold"), _Style(1.5, "bold")
TEXT_SIZE = 0.075  # of a crop's width: legible still where the whole sheet is shown on a screen
LINE_HEIGHT = 1.4


@dataclass(frozen=True)
class SheetFace:
    """One picture of a sheet.

    Attributes:
        crop: uint8[size, size, 3], RGB.
        caption: A line or more to stand below it; what is too wide is cut in the middle.
        landmarks: float[n, 2] in pixels of the crop, to be drawn as dots; none if not given.
    """

    crop: np.ndarray
    caption: str
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class SheetRow:
    """A group of faces on a sheet, in as many lines as they need.

    Attributes:
        title: What they have in common.
        notes: Lines to stand below the title.
        faces: The faces, all of one size; none for a row of words alone.
        colour: RGB in 0..255 of the bar beside it.
    """

    title: str
    notes: Sequence[str]
    faces: Sequence[SheetFace]
    colour: tuple[int, int, int] = (150, 150, 150)


def share_places(num_faces: Sequence[int]) -> list[int]:
    """Share the places of one sheet out over its rows, line by line.

    Every row gets a line; lines that are left go to the row of which the smallest part is shown.

    Args:
        num_faces: Faces that each row has.

    Returns:
        How many of them to show, in the same order: at most 48 in all (or a line of 8 each, where
        there are more than 6 rows).
    """
    places = [min(count, COLUMNS) for count in num_faces]
    lines_left = MOST_LINES - sum(place > 0 for place in places)
    while lines_left > 0 and places != list(num_faces):
        parts = [
            shown / count if count else 1.0 for shown, count in zip(places, num_faces, strict=True)
        ]
        row = int(np.argmin(parts))
        places[row] = min(num_faces[row], places[row] + COLUMNS)
        lines_left -= 1
    return places


def draw_sheet(
    path: str | Path, rows: Sequence[SheetRow], *, title: str, notes: Sequence[str] = ()
) -> None:
    """Draw faces in rows, each with its title at the left and captions below the faces.

    Args:
        path: PNG file to write, replaced, once the new one is whole, if it is there.
        rows: What to show, from the top; at most 24 rows.
        title: What all of it is.
        notes: Lines below the title, wrapped where they are long.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If there is no face, too many rows, or a crop of another size.
    """
    path = Path(path)
    shapes = {face.crop.shape for row in rows for face in row.faces}
    if len(shapes) != 1 or len(rows) > MOST_ROWS:
        raise ValueError(
            f"Expected 1 to {MOST_ROWS} rows with faces of one size; got {len(rows)} rows with "
            f"the sizes {sorted(shapes)}. Choose fewer, or take all faces with one face_size."
        )
    with warnings.catch_warnings():
        # A box stands for a letter that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        sheet = _Sheet(shapes.pop()[0], max(len(row.faces) for row in rows))
        sheet.add_heading(title, notes)
        for row in rows:
            sheet.add_row(row)
        sheet.save(path)


class _Sheet:
    """A page that grows downwards; all lengths in pixels."""

    def __init__(self, size: int, most_faces: int) -> None:
        self.enlarge = -(-LEAST_CELL // size)
        self.cell = min(size * self.enlarge, MOST_CELL)
        self.gap = round(0.05 * self.cell)
        self.label_width = round(1.1 * self.cell)
        columns = min(max(most_faces, 3), COLUMNS)
        self.width = 7 * self.gap + self.label_width + columns * (self.cell + self.gap)
        self.height = 3.0 * self.gap
        self.figure = Figure(dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.pictures: list[tuple[np.ndarray, float, float]] = []

    def add_heading(self, title: str, notes: Sequence[str]) -> None:
        left, width = 3 * self.gap, self.width - 6 * self.gap
        titles = [self._cut(title, width, HEADING)]
        bottom = self._write(left, self.height, titles, HEADING)
        bottom = self._write(left, bottom, self._wrap(notes, width, PLAIN), PLAIN)
        self.height = bottom + 2 * self.gap

    def add_row(self, row: SheetRow) -> None:
        bar_left, top = 3 * self.gap, self.height
        left, width = bar_left + 2 * self.gap, self.label_width - 2 * self.gap
        bottom = self._write(left, top, self._wrap([row.title], width, ROW_TITLE), ROW_TITLE)
        bottom = self._write(left, bottom, self._wrap(row.notes, width, PLAIN), PLAIN)
        left += self.label_width
        for start in range(0, len(row.faces), COLUMNS):
            line_bottom = max(
                self._add_face(face, left + column * (self.cell + self.gap), top)
                for column, face in enumerate(row.faces[start : start + COLUMNS])
            )
            bottom = max(bottom, line_bottom)
            top = line_bottom + 1.5 * self.gap
        bar = (bar_left, self.height), 0.7 * self.gap, bottom - self.height
        self.axes.add_patch(Rectangle(*bar, facecolor=np.divide(row.colour, 255)))
        self.height = bottom + 3 * self.gap

    def save(self, path: Path) -> None:
        height = round(self.height + self.gap)
        self.figure.set_size_inches(self.width / DPI, height / DPI)
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        for picture, left, top in self.pictures:
            self.figure.figimage(picture, left, height - top - self.cell, origin="upper", zorder=-1)
        unfinished = path.with_name(f"unfinished-{path.name}")
        self.figure.savefig(unfinished, format="png")
        unfinished.replace(path)

    def _add_face(self, face: SheetFace, left: float, top: float) -> float:
        """Place a crop and its caption and say where they end."""
        top = round(top)
        shape = (self.cell, self.cell)
        how = cv2.INTER_NEAREST if self.enlarge > 1 else cv2.INTER_AREA
        self.pictures.append((cv2.resize(face.crop, shape, interpolation=how), left, top))
        if face.landmarks is not None:
            # Pixels are counted by their middles in the crop, and by Agg where it puts markers.
            x, y = ((face.landmarks + 0.5) * self.cell / len(face.crop) - 0.5).T
            dot_pt = max(0.012 * self.cell, 1.5) * 72 / DPI
            self.axes.plot(left + x, top + y, ".", ms=2 * dot_pt, mew=0, color=LANDMARK_COLOUR)
        lines = [self._cut(line, self.cell, PLAIN) for line in face.caption.splitlines()]
        return self._write(left, top + self.cell + 0.3 * self.gap, lines, PLAIN)

    def _write(self, left: float, top: float, lines: list[str], style: _Style) -> float:
        """Write lines and say where they end."""
        size = self._size(style)
        for line in lines:
            # At the base line: aligned at the top, lines with and without high letters would jump.
            self.axes.text(
                left,
                top + size,
                line,
                fontsize=size * 72 / DPI,
                fontweight=style.weight,
                parse_math=False,
                va="baseline",
            )
            top += LINE_HEIGHT * size
        return top

    def _wrap(self, texts: Sequence[str], width: float, style: _Style) -> list[str]:
        """Break texts between words where they would be wider."""
        lines = []
        for text in texts:
            line = ""
            for word in text.split():
                longer = f"{line} {word}".strip()
                if line and self._measure(longer, style) > width:
                    lines.append(line)
                    line = word
                else:
                    line = longer
            lines.append(line)
        return [self._cut(line, width, style) for line in lines]

    def _cut(self, text: str, width: float, style: _Style) -> str:
        """Take letters out of the middle until a text is no wider."""
        kept, cut = text, text
        while len(kept) > 2 and self._measure(cut, style) > width:
            middle = len(kept) // 2
            kept = kept[:middle] + kept[middle + 1 :]
            cut = f"{kept[:middle]}…{kept[middle:]}"
        return cut

    def _measure(self, text: str, style: _Style) -> float:
        font = FontProperties(size=self._size(style) * 72 / DPI, weight=style.weight)
        return self.canvas.get_renderer().get_text_width_height_descent(text, font, False)[0]

    def _size(self, style: _Style) -> float:
        return style.scale * TEXT_SIZE * self.cell
