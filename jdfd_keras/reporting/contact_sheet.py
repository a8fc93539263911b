"""Contact sheets of face crops.

Takes crops with captions, in rows with titles; writes one PNG file. Draws on a matplotlib Figure
with the Agg canvas, so it needs no display and does not change the caller's pyplot figures.
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

from jdfd_keras.io.console import plural
from jdfd_keras.io.files import atomic_path

COLUMNS = 8
MAX_LINES = 6  # 48 faces; with more rows than that, one line each
MAX_ROWS = 24
# Width of a crop on the sheet in pixels: smaller crops are enlarged by an integer factor, larger
# ones are reduced, all others are unchanged.
MIN_CELL, MAX_CELL = 150, 320
DPI = 100
LANDMARK_COLOUR = "#56B4E9"  # sky blue, not a skin colour: Okabe and Ito (2008)


class _Style(NamedTuple):
    scale: float
    weight: str


PLAIN, ROW_TITLE, HEADING = _Style(1.0, "normal"), _Style(1.2, "bold"), _Style(1.5, "bold")
TEXT_SIZE = 0.075  # of a crop's width: legible when the whole sheet is shown on a screen
LINE_HEIGHT = 1.4


@dataclass(frozen=True)
class SheetFace:
    """One face of a sheet.

    Attributes:
        crop: uint8[size, size, 3], RGB.
        caption: Lines below it; lines that are too wide are shortened in the middle.
        landmarks: float[n, 2] in pixels of the crop, drawn as dots; none if not given.
    """

    crop: np.ndarray
    caption: str
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class SheetRow:
    """A group of faces on a sheet, on one or more lines.

    Attributes:
        title: Name of the group.
        notes: Lines below the title.
        faces: The faces, all of one size; empty for a row with text only.
        colour: RGB in 0..255 of the bar on the left.
    """

    title: str
    notes: Sequence[str]
    faces: Sequence[SheetFace]
    colour: tuple[int, int, int] = (150, 150, 150)


def allocate_slots(num_faces: Sequence[int]) -> list[int]:
    """Allocate the slots of a sheet to its rows, line by line.

    Every row has one line; each further line goes to the row that shows the smallest share of its
    faces.

    Args:
        num_faces: Number of faces of each row.

    Returns:
        Number of faces to show in each row: at most 48 in total, or one line of 8 each if there
        are more than 6 rows.

    Example:
        >>> allocate_slots([100, 40, 3])
        [24, 16, 3]
    """
    slots = [min(count, COLUMNS) for count in num_faces]
    lines_left = MAX_LINES - sum(count > 0 for count in slots)
    while lines_left > 0 and slots != list(num_faces):
        shares = [
            shown / count if count else 1.0 for shown, count in zip(slots, num_faces, strict=True)
        ]
        row = int(np.argmin(shares))
        slots[row] = min(num_faces[row], slots[row] + COLUMNS)
        lines_left -= 1
    return slots


def draw_sheet(
    path: str | Path, rows: Sequence[SheetRow], *, title: str, notes: Sequence[str] = ()
) -> None:
    """Draw faces in rows, with titles on the left and captions below the faces.

    Args:
        path: PNG file to write, replaced atomically if it exists.
        rows: The rows from top to bottom, at most 24.
        title: Title of the sheet.
        notes: Lines below the title; long ones are wrapped.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If there is no face, there are too many rows, or crops differ in size.

    Example:
        >>> face = SheetFace(np.zeros((160, 160, 3), np.uint8), "frame 0")
        >>> draw_sheet("sheet.png", [SheetRow("track 0", ["1 face"], [face])], title="clip.mp4")
    """
    path = Path(path)
    shapes = {face.crop.shape for row in rows for face in row.faces}
    if len(shapes) != 1 or len(rows) > MAX_ROWS:
        raise ValueError(
            f"Expected 1 to {MAX_ROWS} rows with faces of one size; got {plural(len(rows), 'row')} "
            f"with the sizes {sorted(shapes)}. Choose fewer rows, or faces of one face_size."
        )
    with warnings.catch_warnings():
        # Letters that are missing in the font are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        sheet = _Sheet(shapes.pop()[0], max(len(row.faces) for row in rows))
        sheet.add_heading(title, notes)
        for row in rows:
            sheet.add_row(row)
        sheet.save(path)


class _Sheet:
    """A page that grows downwards; all lengths are in pixels."""

    def __init__(self, size: int, max_faces: int) -> None:
        self.enlarge = -(-MIN_CELL // size)
        self.cell = min(size * self.enlarge, MAX_CELL)
        self.gap = round(0.05 * self.cell)
        self.label_width = round(1.1 * self.cell)
        columns = min(max(max_faces, 3), COLUMNS)
        self.width = 7 * self.gap + self.label_width + columns * (self.cell + self.gap)
        self.height = 3.0 * self.gap
        self.figure = Figure(dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.images: list[tuple[np.ndarray, float, float]] = []

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
        for image, left, top in self.images:
            self.figure.figimage(image, left, height - top - self.cell, origin="upper", zorder=-1)
        with atomic_path(path) as unfinished:
            self.figure.savefig(unfinished, format="png")

    def _add_face(self, face: SheetFace, left: float, top: float) -> float:
        """Add a crop with its caption; return their bottom."""
        top = round(top)
        shape = (self.cell, self.cell)
        interpolation = cv2.INTER_NEAREST if self.enlarge > 1 else cv2.INTER_AREA
        self.images.append((cv2.resize(face.crop, shape, interpolation=interpolation), left, top))
        if face.landmarks is not None:
            # Landmarks refer to pixel centres, and so do the markers of Agg.
            x, y = ((face.landmarks + 0.5) * self.cell / len(face.crop) - 0.5).T
            dot_pt = max(0.012 * self.cell, 1.5) * 72 / DPI
            self.axes.plot(left + x, top + y, ".", ms=2 * dot_pt, mew=0, color=LANDMARK_COLOUR)
        lines = [self._cut(line, self.cell, PLAIN) for line in face.caption.splitlines()]
        return self._write(left, top + self.cell + 0.3 * self.gap, lines, PLAIN)

    def _write(self, left: float, top: float, lines: list[str], style: _Style) -> float:
        """Write lines; return their bottom."""
        size = self._size(style)
        for line in lines:
            # On the baseline: aligned at the top, lines with and without tall letters would jump.
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
        """Wrap texts between words."""
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
        """Remove letters from the middle until a text is narrow enough."""
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
