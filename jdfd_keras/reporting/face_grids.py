"""What may be drawn as a face, and the refusal of what would be drawn wrongly without a word.

Takes faces, captions and maps as the callers gave them; gives nothing back.

Faces to pictures: samples, reconstructions with what they miss, and explanations.

Takes faces as pixels and maps of their size; writes PNG and SVG files. Each `plot_...` saves
what the `draw_...` of the same name gives. Pixels are never blurred; maps are in colours that
grow lighter evenly, so they can be read in greyscale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jdfd_keras.reporting.style import (
    Sheet,
    height_of,
    save_figure,
    with_own_settings,
    wrap,
    wrap_all,
)


def check_faces(faces: Sequence[np.ndarray], whose: str = "") -> None:
    """Refuse what is no face: floats would be clipped, others stretched.

    Args:
        faces: uint8[size, size, 3] each, at least one.
        whose: For the message, such as "of FF++ real".

    Raises:
        ValueError: If there is none, or one of another kind.
    """
    kinds = [describe(face) for face in faces]
    if not kinds:
        raise ValueError(f"Expected at least one face {whose}; got none. Leave out what is empty.")
    for position, face in enumerate(map(np.asarray, faces)):
        square = face.ndim == 3 and face.shape[0] == face.shape[1] > 0 and face.shape[2] == 3
        if face.dtype != np.uint8 or not square:
            raise ValueError(
                f"Expected faces uint8[size, size, 3] {whose}; got {kinds[position]} at "
                f"{position}. From -1..1, try `np.uint8(np.round((face + 1) * 127.5))`."
            )


def check_captions(faces: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> None:
    """Refuse faces without their captions.

    Raises:
        ValueError: If faces are none, the captions are not as many, or columns are below 1.
    """
    check_faces(faces)
    if len(captions) != len(faces) or columns < 1:
        raise ValueError(
            f"Expected a caption for each of {len(faces)} faces and columns >= 1; got "
            f"{len(captions)} captions, columns={columns}. An empty caption is one, too."
        )


def check_reconstructions(faces: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> None:
    """Refuse reconstructions that are not of these faces, or not on the scale of -1..1.

    A decoder without a last activation goes somewhat beyond -1..1; that is allowed.

    Raises:
        ValueError: If number, shape, type or scale is another.
    """
    if len(made) != len(faces):
        raise ValueError(
            f"Expected a reconstruction for each of {len(faces)} faces; got {len(made)}. Pass "
            "those of the faces that are drawn."
        )
    for position, (face, part) in enumerate(zip(faces, map(np.asarray, made), strict=True)):
        is_float = np.issubdtype(part.dtype, np.floating)
        # Half of the pixels of a picture on 0..255 are far above 2; no decoder is so far off.
        if part.shape != face.shape or not is_float or not np.median(np.abs(part)) <= 2:
            raise ValueError(
                f"Expected reconstructions float{list(face.shape)} on the scale of -1..1; got "
                f"{describe(part)} at {position}. Pass what the decoder gives, unscaled."
            )


def check_maps(faces: Sequence[np.ndarray], maps: np.ndarray, what: str, highest: float) -> None:
    """Refuse maps that are not of these faces, or not on their scale.

    Args:
        faces: Checked before.
        maps: float[n, size, size], in [0, highest].
        what: For the message.
        highest: A rounding error above it is taken; infinity for no end.

    Raises:
        ValueError: If number, size or range is another.
    """
    if len(maps) != len(faces):
        raise ValueError(
            f"Expected {what} of {len(faces)} faces; got {len(maps)}. Pass those of the faces "
            "that are drawn."
        )
    for position, (face, part) in enumerate(zip(faces, map(np.asarray, maps), strict=True)):
        inside = np.isfinite(part) & (part >= 0) & (part <= highest + 1e-5)
        if part.shape != face.shape[:2] or not inside.all():
            raise ValueError(
                f"Expected {what} float{list(face.shape[:2])} in 0..{highest}; got "
                f"{describe(part)} at {position}. Resize a map to its face and scale it first."
            )


def describe(pixels: np.ndarray) -> str:
    """Say type, shape and range of pixels, for a message."""
    pixels = np.asarray(pixels)
    text = f"{pixels.dtype}{list(pixels.shape)}"
    return f"{text} in {pixels.min():.3g}..{pixels.max():.3g}" if pixels.size else text


CELL, GAP, MARGIN = 1.2, 0.06, 0.1  # inches: a face, between faces, around all
TEXT = 7  # points
BAR = 0.7  # inches: a colour bar with its ticks and label
NARROWEST = 2.6  # inches
RESIDUAL_COLOURS, ACTIVATION_COLOURS = "viridis", "inferno"
RESIDUAL = "residual: mean |face - reconstruction| over RGB, on -1..1"


def plot_samples(
    path: str | Path, rows: Mapping[str, Sequence[np.ndarray]], *, title: str = ""
) -> None:
    """Draw a row of faces for each name, as the paper's Fig. 2.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        rows: By name, such as "FF++ Deepfakes": uint8[size, size, 3] RGB each, at least one.
            There are as many columns as the longest row has faces.
        title: Above all; may be empty.

    Raises:
        ValueError: If there is no face, or one of another kind.
    """
    save_figure(draw_samples(rows, title=title), path)


def plot_faces(
    path: str | Path,
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    reconstructions: Sequence[np.ndarray] | None = None,
    columns: int = 6,
) -> None:
    """Draw faces, each above what the decoder made of it and what it missed, if there is one.

    The colours of the residuals go from 0 to the largest in this figure, for all faces alike.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        faces: uint8[size, size, 3] RGB each, at least one.
        captions: One for each.
        reconstructions: float[size, size, 3] for each, on the scale of -1..1, beyond which
            they are shown clipped; the residual is taken before.
        columns: Faces side by side, at most.

    Raises:
        ValueError: If faces, captions and reconstructions do not fit together.
    """
    figure = draw_faces(faces, captions, reconstructions=reconstructions, columns=columns)
    save_figure(figure, path)


def plot_explanations(
    path: str | Path,
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    activation: np.ndarray,
    residual: np.ndarray | None = None,
    columns: int = 2,
) -> None:
    """Draw faces, each beside where the detector looked and what the decoder missed.

    The activation lies half transparent over the face in grey. The colours of the residuals go
    from 0 to the largest in this figure.

    Args:
        path: Without a suffix: `.png` and `.svg` are put behind it. Files there are replaced.
        faces: uint8[size, size, 3] RGB each, at least one.
        captions: One for each.
        activation: float[n, size, size], in [0, 1].
        residual: float[n, size, size], mean over the channels, pixels on -1..1; or None.
        columns: Faces side by side, at most, each with its maps.

    Raises:
        ValueError: If faces, captions and maps do not fit together.
    """
    maps = {"activation": activation, "residual": residual}
    save_figure(draw_explanations(faces, captions, columns=columns, **maps), path)


@with_own_settings
def draw_samples(rows: Mapping[str, Sequence[np.ndarray]], *, title: str = "") -> Figure:
    """Draw what `plot_samples` saves."""
    for name, faces in rows.items() or [("any row", [])]:
        check_faces(faces, f"of {name}")
    longest = max(map(len, rows.values()))
    names = [wrap(name, 1.4, 8) for name in rows]
    room = max(len(line) for name in names for line in name.split("\n")) * 8 * 0.6 / 72
    left = MARGIN + room + 0.08
    width = max(left + _span(longest) + MARGIN, NARROWEST)
    title = wrap(title, width - 2 * MARGIN, 10)
    top = MARGIN + (height_of(title, 10) + 0.08 if title else 0)
    sheet = Sheet(width, top + _span(len(rows)) + MARGIN)
    sheet.put_text(title, width / 2, MARGIN, 10, ha="center", va="top")
    for row, (name, faces) in enumerate(zip(names, rows.values(), strict=True)):
        y = top + row * (CELL + GAP)
        sheet.put_text(name, left - 0.08, y + CELL / 2, 8, ha="right", va="center")
        for column, face in enumerate(faces):
            sheet.put_picture(face, left + column * (CELL + GAP), y, CELL)
    return sheet.figure


@with_own_settings
def draw_faces(
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    reconstructions: Sequence[np.ndarray] | None = None,
    columns: int = 6,
) -> Figure:
    """Draw what `plot_faces` saves."""
    check_captions(faces, captions, columns)
    pictures, residuals = [[face] for face in faces], []
    if reconstructions is not None:
        check_reconstructions(faces, reconstructions)
        for picture, face, made in zip(pictures, faces, reconstructions, strict=True):
            picture.append((np.clip((made + 1) * 127.5, 0, 255)).round().astype(np.uint8))
            residuals.append(np.abs(face / 127.5 - 1 - made).mean(axis=2))
            picture.append(residuals[-1])
    scale = _residual_scale(residuals)
    captions, room = wrap_all(list(captions), CELL, TEXT)
    columns, depth = min(columns, len(faces)), len(pictures[0])
    names = ("face", "reconstruction", "residual")[: depth if depth > 1 else 0]
    left = MARGIN + (0.18 if names else 0)
    width = max(left + _span(columns) + MARGIN, NARROWEST)
    block = room + _span(depth) + 0.12
    num_blocks = -(-len(faces) // columns)
    sheet = Sheet(width, MARGIN + num_blocks * block + (BAR if residuals else 0))
    left = (width - _span(columns) + left - MARGIN) / 2
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = left + column * (CELL + GAP), MARGIN + row * block + room
        sheet.put_text(caption, x + CELL / 2, y - 0.04, TEXT, ha="center", va="bottom")
        for step, part in enumerate(picture):
            top = y + step * (CELL + GAP)
            sheet.put_picture(part, x, top, CELL, **scale if part.ndim == 2 else {})
            if column == 0 and names:
                place = {"rotation": 90, "ha": "right", "va": "center"}
                sheet.put_text(names[step], x - 0.05, top + CELL / 2, TEXT, **place)
    if residuals:
        bar = min(width - 0.5, 3.6)
        _put_bar(sheet, scale, (width - bar) / 2, bar, RESIDUAL)
    return sheet.figure


@with_own_settings
def draw_explanations(
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    activation: np.ndarray,
    residual: np.ndarray | None = None,
    columns: int = 2,
) -> Figure:
    """Draw what `plot_explanations` saves."""
    check_captions(faces, captions, columns)
    check_maps(faces, activation, "activations", highest=1)
    parts = [("face", faces)]
    parts.append(("activation", list(map(_lay_over, faces, activation))))
    if residual is not None:
        check_maps(faces, residual, "residuals", highest=np.inf)
        parts.append(("residual", residual))
    scale = _residual_scale(residual)
    group = _span(len(parts))
    captions, room = wrap_all(list(captions), group, TEXT + 1)
    heading = 0.15
    columns, between = min(columns, len(faces)), 0.25
    content = columns * (group + between) - between
    width = content + 2 * MARGIN
    block = room + heading + CELL + 0.15
    sheet = Sheet(width, MARGIN + -(-len(faces) // columns) * block + BAR)
    for index, caption in enumerate(captions):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * (group + between), MARGIN + row * block + room
        sheet.put_text(caption, x + group / 2, y - 0.04, TEXT + 1, ha="center", va="bottom")
        for name, pictures in parts:
            place = {"ha": "center", "va": "bottom"}
            sheet.put_text(name, x + CELL / 2, y + heading - 0.03, TEXT, **place)
            shown = scale if name == "residual" else {}
            sheet.put_picture(pictures[index], x, y + heading, CELL, **shown)
            x += CELL + GAP
    bar = min(content - 0.2 if residual is None else content / 2 - 0.3, 2.6)
    most = {"cmap": ACTIVATION_COLOURS, "vmax": 1}
    _put_bar(sheet, most, MARGIN + 0.1, bar, "activation, half transparent on the face")
    if residual is not None:
        _put_bar(sheet, scale, width - MARGIN - 0.1 - bar, bar, RESIDUAL)
    return sheet.figure


def _span(count: int) -> float:
    return count * (CELL + GAP) - GAP


def _lay_over(face: np.ndarray, activation: np.ndarray) -> np.ndarray:
    grey = face.mean(axis=2, keepdims=True)
    colours = 255 * matplotlib.colormaps[ACTIVATION_COLOURS](activation)[..., :3]
    return ((grey + colours) / 2).round().astype(np.uint8)


def _residual_scale(residuals: Sequence[np.ndarray] | None) -> dict:
    if residuals is None or not len(residuals):
        return {}
    most = max(float(np.max(part)) for part in residuals)
    return {"cmap": RESIDUAL_COLOURS, "vmin": 0, "vmax": most or 1.0}  # none is missed: 0..1


def _put_bar(sheet: Sheet, scale: dict, left: float, width: float, label: str) -> None:
    top = sheet.height - BAR + 0.02
    sheet.put_colour_bar(scale["cmap"], scale["vmax"], left, top, width, label)
