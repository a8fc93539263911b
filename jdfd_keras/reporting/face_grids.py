"""Grids of faces: contact sheets, samples, reconstructions and class-activation maps.

The Agg canvas needs no display and does not change the caller's pyplot figures.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from jdfd_keras.io.console import plural, printable
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.palette import SKY_BLUE
from jdfd_keras.reporting.style import save_figure, with_own_settings

COLUMNS = 8  # faces on a line, or fewer if each is followed by maps
MAX_IMAGES = 6  # on a line, of faces with maps
MAX_LINES = 6  # 48 faces; with more rows than that, one line each
MAX_ROWS = 24
# Width of a crop in pixels: smaller crops are enlarged by an integer factor, larger ones are
# reduced, all others are unchanged.
MIN_CELL, MAX_CELL = 150, 320
DPI = 200  # a face of 299 pixels is 1.5 inches wide
LANDMARK_COLOUR = SKY_BLUE  # not a skin colour
# Perceptually uniform, so that maps can be read in greyscale, too.
RESIDUAL_COLORS, CAM_COLORS = "viridis", "inferno"
RESIDUAL = "residual: mean |face - reconstruction| over RGB, pixels in -1..1"
CAM = "class-activation map, half transparent over the face: contribution to the logit of fake"


# Relative size and weight of text; plain text is 7.5 % of a crop's width, which is legible when the
# whole sheet is shown on a screen.
PLAIN, ROW_TITLE, HEADING = (0.075, "normal"), (0.09, "bold"), (0.1125, "bold")
LINE_HEIGHT = 1.4
Style = tuple[float, str]


@dataclass(frozen=True)
class SheetFace:
    """One face of a sheet."""

    crop: np.ndarray  # uint8[size, size, 3], RGB
    caption: str = ""  # lines below it; lines that are too wide are shortened in the middle
    landmarks: np.ndarray | None = None  # float[n, 2] in pixels of the crop, drawn as dots
    maps: dict[str, np.ndarray] | None = None  # further images by the name above them

    @property
    def images(self) -> dict[str, np.ndarray]:
        """The crop and its maps by name; the crop alone needs none."""
        return {"face": self.crop} | self.maps if self.maps else {"": self.crop}


@dataclass(frozen=True)
class SheetRow:
    """A group of faces on a sheet, on one or more lines."""

    title: str  # without any title, the sheet has no column for titles and notes
    notes: Sequence[str]  # lines below the title
    faces: Sequence[SheetFace]  # empty for a row with text only
    colour: tuple[int, int, int] = (150, 150, 150)  # RGB of the bar on the left


def allocate_slots(num_faces: Sequence[int]) -> list[int]:
    """Allocate the slots of a sheet to its rows, line by line.

    Every row has one line; each further line goes to the row that shows the smallest share of its
    faces. At most 48 faces are shown, or one line of 8 each if there are more than 6 rows.

    Example:
        >>> allocate_slots([100, 40, 3])
        [24, 16, 3]
    """
    slots = [min(count, COLUMNS) for count in num_faces]
    for _ in range(MAX_LINES - sum(count > 0 for count in num_faces)):
        unfinished = [row for row, count in enumerate(num_faces) if slots[row] < count]
        if unfinished:
            row = min(unfinished, key=lambda row: slots[row] / num_faces[row])
            slots[row] = min(num_faces[row], slots[row] + COLUMNS)
    return slots


@with_own_settings
def draw_sheet(
    path: str | Path,
    rows: Sequence[SheetRow],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    scales: Sequence[tuple[str, str, float]] = (),
) -> None:
    """Draw faces in rows, with titles on the left and captions below the faces.

    Args:
        path: The .png file, or a path without suffix for a .png and an .svg file; replaced if they
            exist. Equal sheets have equal bytes.
        rows: The rows from top to bottom, at most 24; all crops are drawn as wide as the largest.
        title: Title of the sheet.
        notes: Lines below the title; long ones are wrapped.
        scales: Colour bars of the maps: label, colour map and highest value; the lowest is 0.

    Raises:
        ValueError: If there is no face, there are too many rows, or an image is not a crop.

    Example:
        >>> face = SheetFace(np.zeros((160, 160, 3), np.uint8), "frame 0")
        >>> draw_sheet("sheet.png", [SheetRow("track 0", ["1 face"], [face])], title="clip.mp4")
        >>> cv2.imread("sheet.png").shape
        (276, 736, 3)
    """
    faces = [face for row in rows for face in row.faces]
    if not faces or len(rows) > MAX_ROWS:
        raise ValueError(
            f"Expected 1 to {MAX_ROWS} rows with faces; got {plural(len(rows), 'row')} with "
            f"{plural(len(faces), 'face')}. Choose fewer rows, or a file with faces."
        )
    for image in (image for face in faces for image in face.images.values()):
        size = len(image)
        if image.dtype != np.uint8 or image.shape != (size, size, 3) or not size:
            raise ValueError(
                f"Expected images uint8[size, size, 3]; got {image.dtype}{list(image.shape)}. From "
                "-1..1, try `np.uint8(np.round((image + 1) * 127.5))`."
            )
    with warnings.catch_warnings():
        # Letters that are missing in the font are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        sheet = _Sheet(rows)
        sheet.add_heading(title, notes)
        for row in rows:
            sheet.add_row(row)
        sheet.add_scales(scales)
        sheet.save(Path(path))


def plot_faces(
    path: str | Path,
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    cam: np.ndarray | None = None,
    reconstruction: np.ndarray | None = None,
    residual: np.ndarray | None = None,
) -> None:
    """Draw faces, each next to its class-activation map, reconstruction and residual, if given.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended.
        faces: uint8[size, size, 3] RGB each, at least one.
        captions: One per face.
        cam: float[n, size, size], class-activation maps of at least 0. All have one scale, to the
            largest of them, as of residuals.
        reconstruction: float[n, size, size, 3], pixels in -1..1; others are clipped.
        residual: float[n, size, size] of at least 0.

    Example:
        >>> face, cam = cv2.imread("face.png"), np.ones((1, 71, 71))
        >>> plot_faces("faces", [face], ["real, score 0.02"], cam=cam)
        >>> sorted(path.name for path in Path().glob("faces.*"))
        ['faces.png', 'faces.svg']
    """
    maps, scales = {}, []
    if cam is not None:
        highest = find_scale(cam)
        maps["activation map"] = [
            blend_cam(*pair) for pair in zip(faces, cam / highest, strict=True)
        ]
        scales.append((CAM, CAM_COLORS, highest))
    if reconstruction is not None:
        pixels = np.clip((reconstruction + 1) * 127.5, 0, 255)
        maps["reconstruction"] = pixels.round().astype(np.uint8)
    if residual is not None:
        highest = find_scale(residual)
        colors = matplotlib.colormaps[RESIDUAL_COLORS](residual / highest, bytes=True)
        maps["residual"] = colors[..., :3]
        scales.append((RESIDUAL, RESIDUAL_COLORS, highest))
    sheet = [
        SheetFace(face, caption, maps={name: of_all[index] for name, of_all in maps.items()})
        for index, (face, caption) in enumerate(zip(faces, captions, strict=True))
    ]
    draw_sheet(path, [SheetRow("", (), sheet)], scales=scales)


def find_scale(maps: np.ndarray) -> float:
    """Return the highest value of maps that share a scale from 0; 1 if there is none, or all are 0.

    Example:
        >>> find_scale(np.array([0.5, 2.0])), find_scale(np.zeros(3))
        (2.0, 1.0)
    """
    return float(maps.max(initial=0.0)) or 1.0


def blend_cam(face: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Blend a class-activation map half transparently with a face in grey.

    Args:
        face: uint8[size, size, 3] RGB, as is the result.
        cam: float[height, width] in [0, 1], a map divided by the scale of its page (`find_scale`);
            resized bilinearly to the face.

    Example:
        >>> blend_cam(np.full((240, 240, 3), 100, np.uint8), np.zeros((10, 10)))[0, 0]
        array([50, 50, 52], dtype=uint8)
    """
    if cam.shape != face.shape[:2]:
        cam = cv2.resize(cam, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    grey = face.mean(axis=2, keepdims=True)
    colors = 255 * matplotlib.colormaps[CAM_COLORS](cam)[..., :3]
    return ((grey + colors) / 2).round().astype(np.uint8)


class _Sheet:
    """A page that grows downwards; all lengths are in pixels."""

    def __init__(self, rows: Sequence[SheetRow]) -> None:
        faces = [face for row in rows for face in row.faces]
        size, depth = max(len(face.crop) for face in faces), max(len(f.images) for f in faces)
        self.cell = min(size * -(-MIN_CELL // size), MAX_CELL)
        self.gap = round(0.05 * self.cell)
        self.columns = COLUMNS if depth == 1 else max(MAX_IMAGES // depth, 1)
        # A face and its maps, with a wider gap to the next face.
        self.group = depth * (self.cell + self.gap) + (2 * self.gap if depth > 1 else 0)
        self.label_width = round(1.1 * self.cell) if any(row.title for row in rows) else 0
        groups = min(max(len(row.faces) for row in rows), self.columns)
        width = max(groups * self.group, 3 * (self.cell + self.gap))
        self.width = 7 * self.gap + self.label_width + width
        self.height = 3.0 * self.gap
        self.figure = Figure(dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1), frameon=False, xticks=(), yticks=())

    def add_heading(self, title: str, notes: Sequence[str]) -> None:
        left, width = 3 * self.gap, self.width - 6 * self.gap
        titles = [self._cut(title, width, HEADING)] if title else []
        bottom = self._write(left, self.height, titles, HEADING)
        bottom = self._write(left, bottom, self._wrap(notes, width, PLAIN), PLAIN)
        self.height = bottom + (2 * self.gap if title or notes else 0)

    def add_row(self, row: SheetRow) -> None:
        bar_left, top = 3 * self.gap, self.height
        bottom, left = top, bar_left
        if self.label_width:
            left, width = bar_left + 2 * self.gap, self.label_width - 2 * self.gap
            bottom = self._write(left, top, self._wrap([row.title], width, ROW_TITLE), ROW_TITLE)
            bottom = self._write(left, bottom, self._wrap(row.notes, width, PLAIN), PLAIN)
            left += self.label_width
        for start in range(0, len(row.faces), self.columns):
            line_bottom = max(
                self._add_face(face, left + column * self.group, top)
                for column, face in enumerate(row.faces[start : start + self.columns])
            )
            bottom = max(bottom, line_bottom)
            top = line_bottom + 1.5 * self.gap
        if self.label_width:
            bar = (bar_left, self.height), 0.7 * self.gap, bottom - self.height
            self.axes.add_patch(Rectangle(*bar, facecolor=np.divide(row.colour, 255)))
        self.height = bottom + 3 * self.gap

    def add_scales(self, scales: Sequence[tuple[str, str, float]]) -> None:
        left, top = 3 * self.gap + self.cell // 8, self.height
        width, height = round(1.5 * self.cell), round(0.08 * self.cell)
        gradient = np.linspace(0, 1, 256)[np.newaxis]
        for label, color_map, highest in scales:
            colors = matplotlib.colormaps[color_map](gradient)
            self._show(colors, left, top, width, height)
            bottom = top + height + 0.3 * self.gap
            for share in (0, 0.5, 1):
                tick = f"{share * highest:.2g}"
                self._write(left + share * width, bottom, [tick], PLAIN, ha="center")
            lines = ["", *self._wrap([label], width, PLAIN)]
            self.height = max(self.height, self._write(left, bottom, lines, PLAIN) + self.gap)
            left += width + self.cell // 4

    def save(self, path: Path) -> None:
        height = round(self.height + self.gap)
        # A hundredth of a pixel more, since Agg truncates sizes, and 29 / 100 * 100 is below 29.
        self.figure.set_size_inches((self.width + 0.01) / DPI, (height + 0.01) / DPI)
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        if path.suffix.lower() != ".png":
            save_figure(self.figure, path)
            return
        with atomic_path(path) as unfinished:
            self.figure.savefig(unfinished, format="png")

    def _add_face(self, face: SheetFace, left: float, top: float) -> float:
        """Add the images of a face with their names and the caption; return their bottom."""
        names_top = top
        top = round(top + (LINE_HEIGHT * PLAIN[0] * self.cell if face.maps else 0))
        for position, (name, image) in enumerate(face.images.items()):
            own_left = left + position * (self.cell + self.gap)
            self._write(own_left + self.cell / 2, names_top, [name], PLAIN, ha="center")
            if len(image) > self.cell:
                image = cv2.resize(image, (self.cell, self.cell), interpolation=cv2.INTER_AREA)
            self._show(image, own_left, top, self.cell, self.cell)
        if face.landmarks is not None:
            # Landmarks refer to pixel centres, and so do the markers of Agg.
            x, y = ((face.landmarks + 0.5) * self.cell / len(face.crop) - 0.5).T
            dot_pt = max(0.012 * self.cell, 1.5) * 72 / DPI
            self.axes.plot(left + x, top + y, ".", ms=2 * dot_pt, mew=0, color=LANDMARK_COLOUR)
        width = len(face.images) * (self.cell + self.gap) - self.gap
        lines = [self._cut(line, width, PLAIN) for line in face.caption.splitlines()]
        return self._write(left, top + self.cell + 0.3 * self.gap, lines, PLAIN)

    def _show(self, image: np.ndarray, left: float, top: float, width: int, height: int) -> None:
        extent = (left, left + width, top + height, top)
        self.axes.imshow(image, extent=extent, interpolation="none", aspect="auto")

    def _write(
        self, left: float, top: float, lines: Sequence[str], style: Style, ha: str = "left"
    ) -> float:
        """Write lines; return their bottom."""
        size = style[0] * self.cell
        font = {"fontproperties": self._font(style), "parse_math": False}
        for line in lines:
            # On the baseline: aligned at the top, lines with and without tall letters would jump.
            self.axes.text(left, top + size, line, ha=ha, va="baseline", **font)
            top += LINE_HEIGHT * size
        return top

    def _wrap(self, texts: Sequence[str], width: float, style: Style) -> list[str]:
        """Wrap texts between words."""
        lines = []
        for words in map(str.split, texts):
            while words:
                count = len(words)
                while count > 1 and self._measure(" ".join(words[:count]), style) > width:
                    count -= 1
                lines.append(self._cut(" ".join(words[:count]), width, style))
                words = words[count:]
        return lines

    def _cut(self, text: str, width: float, style: Style) -> str:
        """Remove letters from the middle until a text is narrow enough."""
        kept = cut = printable(text)
        while len(kept) > 2 and self._measure(cut, style) > width:
            middle = len(kept) // 2
            kept = kept[:middle] + kept[middle + 1 :]
            cut = f"{kept[:middle]}…{kept[middle:]}"
        return cut

    def _measure(self, text: str, style: Style) -> float:
        renderer = self.canvas.get_renderer()
        return renderer.get_text_width_height_descent(text, self._font(style), False)[0]

    def _font(self, style: Style) -> FontProperties:
        return FontProperties(size=style[0] * self.cell * 72 / DPI, weight=style[1])
