"""Grids of faces: samples, reconstructions with residuals, and class-activation maps.

Each `plot_...` saves the figure of the `draw_...` with the same name as PNG and SVG. Faces are not
interpolated; maps have perceptually uniform colours, which can be read in greyscale. Faces and
maps are checked first, since matplotlib would clip or stretch wrong ones silently.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jdfd_keras.reporting.style import (
    Canvas,
    height_of,
    save_figure,
    with_own_settings,
    wrap,
    wrap_all,
)

CELL, GAP, MARGIN = 1.2, 0.06, 0.1  # inches: a face, between faces, around all
TEXT = 7  # font size in points
BAR = 0.7  # inches: height of a colour bar with ticks and label
MIN_WIDTH = 2.6  # inches
RESIDUAL_COLORS, CAM_COLORS = "viridis", "inferno"
RESIDUAL = "residual: mean |face - reconstruction| over RGB, pixels in -1..1"


def plot_samples(
    path: str | Path, rows: Mapping[str, Sequence[np.ndarray]], *, title: str = ""
) -> None:
    """Draw one row of faces per name, as in Fig. 2 of the paper.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        rows: Faces, uint8[size, size, 3] RGB, at least one, by name, such as "FF++ Deepfakes".
        title: Title of the figure; may be empty.

    Raises:
        ValueError: If a row has no face, or one of another dtype or shape.

    Example:
        >>> plot_samples("samples", {"real": [np.zeros((299, 299, 3), np.uint8)]})
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
    """Draw faces, each above its reconstruction and residual if there is one.

    All residuals have one colour scale, from 0 to the largest in the figure.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        faces: uint8[size, size, 3] RGB each, at least one.
        captions: One per face.
        reconstructions: float[size, size, 3] per face, pixels in -1..1; values outside are clipped
            in the image, not in the residual.
        columns: Maximum number of faces in a row.

    Raises:
        ValueError: If faces, captions and reconstructions do not match.

    Example:
        >>> plot_faces("faces", [np.zeros((299, 299, 3), np.uint8)], ["real, score 0.02"])
    """
    figure = draw_faces(faces, captions, reconstructions=reconstructions, columns=columns)
    save_figure(figure, path)


def plot_explanations(
    path: str | Path,
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    cam: np.ndarray,
    residual: np.ndarray | None = None,
    columns: int = 2,
) -> None:
    """Draw faces, each next to its class-activation map and residual.

    The map is blended with the face in grey; see `blend_cam`. All residuals have one colour scale,
    from 0 to the largest in the figure.

    Args:
        path: Path without suffix; `.png` and `.svg` are appended and existing files replaced.
        faces: uint8[size, size, 3] RGB each, at least one.
        captions: One per face.
        cam: float[n, size, size], class-activation maps in [0, 1].
        residual: float[n, size, size], mean over RGB, pixels in -1..1; or None.
        columns: Maximum number of faces in a row, each with its maps.

    Raises:
        ValueError: If faces, captions and maps do not match.

    Example:
        >>> face, cam = np.zeros((299, 299, 3), np.uint8), np.zeros((1, 299, 299))
        >>> plot_explanations("errors", [face], ["fake, score 0.1"], cam=cam)
    """
    maps = {"cam": cam, "residual": residual}
    save_figure(draw_explanations(faces, captions, columns=columns, **maps), path)


@with_own_settings
def draw_samples(rows: Mapping[str, Sequence[np.ndarray]], *, title: str = "") -> Figure:
    """Return the figure that `plot_samples` saves."""
    for name, faces in rows.items() or [("any row", [])]:
        _check_faces(faces, f"of {name}")
    longest = max(map(len, rows.values()))
    names = [wrap(name, 1.4, 8) for name in rows]
    name_width = max(len(line) for name in names for line in name.split("\n")) * 8 * 0.6 / 72
    left = MARGIN + name_width + 0.08
    width = max(left + _span(longest) + MARGIN, MIN_WIDTH)
    title = wrap(title, width - 2 * MARGIN, 10)
    top = MARGIN + (height_of(title, 10) + 0.08 if title else 0)
    canvas = Canvas(width, top + _span(len(rows)) + MARGIN)
    canvas.draw_text(title, width / 2, MARGIN, 10, ha="center", va="top")
    for row, (name, faces) in enumerate(zip(names, rows.values(), strict=True)):
        y = top + row * (CELL + GAP)
        canvas.draw_text(name, left - 0.08, y + CELL / 2, 8, ha="right", va="center")
        for column, face in enumerate(faces):
            canvas.draw_image(face, left + column * (CELL + GAP), y, CELL)
    return canvas.figure


@with_own_settings
def draw_faces(
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    reconstructions: Sequence[np.ndarray] | None = None,
    columns: int = 6,
) -> Figure:
    """Return the figure that `plot_faces` saves."""
    _check_captions(faces, captions, columns)
    columns_of_images, residuals = [[face] for face in faces], []
    if reconstructions is not None:
        _check_reconstructions(faces, reconstructions)
        for images, face, reconstruction in zip(
            columns_of_images, faces, reconstructions, strict=True
        ):
            images.append((np.clip((reconstruction + 1) * 127.5, 0, 255)).round().astype(np.uint8))
            residuals.append(np.abs(face / 127.5 - 1 - reconstruction).mean(axis=2))
            images.append(residuals[-1])
    scale = _residual_scale(residuals)
    captions, caption_height = wrap_all(list(captions), CELL, TEXT)
    columns, depth = min(columns, len(faces)), len(columns_of_images[0])
    names = ("face", "reconstruction", "residual")[: depth if depth > 1 else 0]
    left = MARGIN + (0.18 if names else 0)
    width = max(left + _span(columns) + MARGIN, MIN_WIDTH)
    block = caption_height + _span(depth) + 0.12
    num_blocks = -(-len(faces) // columns)
    canvas = Canvas(width, MARGIN + num_blocks * block + (BAR if residuals else 0))
    left = (width - _span(columns) + left - MARGIN) / 2
    for index, (images, caption) in enumerate(zip(columns_of_images, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = left + column * (CELL + GAP), MARGIN + row * block + caption_height
        canvas.draw_text(caption, x + CELL / 2, y - 0.04, TEXT, ha="center", va="bottom")
        for step, image in enumerate(images):
            top = y + step * (CELL + GAP)
            canvas.draw_image(image, x, top, CELL, **scale if image.ndim == 2 else {})
            if column == 0 and names:
                alignment = {"rotation": 90, "ha": "right", "va": "center"}
                canvas.draw_text(names[step], x - 0.05, top + CELL / 2, TEXT, **alignment)
    if residuals:
        bar = min(width - 0.5, 3.6)
        _draw_bar(canvas, scale, (width - bar) / 2, bar, RESIDUAL)
    return canvas.figure


@with_own_settings
def draw_explanations(
    faces: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    cam: np.ndarray,
    residual: np.ndarray | None = None,
    columns: int = 2,
) -> Figure:
    """Return the figure that `plot_explanations` saves."""
    _check_captions(faces, captions, columns)
    _check_maps(faces, cam, "class-activation maps", highest=1)
    images = {"face": faces, "activation map": [*map(blend_cam, faces, cam)]}
    if residual is not None:
        _check_maps(faces, residual, "residuals", highest=np.inf)
        images["residual"] = residual
    scale = _residual_scale(residual)
    group = _span(len(images))
    captions, caption_height = wrap_all(list(captions), group, TEXT + 1)
    heading = 0.15
    columns, between = min(columns, len(faces)), 0.25
    content = columns * (group + between) - between
    width = content + 2 * MARGIN
    block = caption_height + heading + CELL + 0.15
    canvas = Canvas(width, MARGIN + -(-len(faces) // columns) * block + BAR)
    for index, caption in enumerate(captions):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * (group + between), MARGIN + row * block + caption_height
        canvas.draw_text(caption, x + group / 2, y - 0.04, TEXT + 1, ha="center", va="bottom")
        for name, of_name in images.items():
            alignment = {"ha": "center", "va": "bottom"}
            canvas.draw_text(name, x + CELL / 2, y + heading - 0.03, TEXT, **alignment)
            shown = scale if name == "residual" else {}
            canvas.draw_image(of_name[index], x, y + heading, CELL, **shown)
            x += CELL + GAP
    bar = min(content - 0.2 if residual is None else content / 2 - 0.3, 2.6)
    cam_scale = {"cmap": CAM_COLORS, "vmax": 1}
    _draw_bar(
        canvas, cam_scale, MARGIN + 0.1, bar, "class-activation map, half transparent over the face"
    )
    if residual is not None:
        _draw_bar(canvas, scale, width - MARGIN - 0.1 - bar, bar, RESIDUAL)
    return canvas.figure


def _span(count: int) -> float:
    return count * (CELL + GAP) - GAP


def blend_cam(face: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Blend a class-activation map half transparently with a face in grey.

    Args:
        face: uint8[size, size, 3] RGB.
        cam: float[height, width] in [0, 1]; resized bilinearly to the face.

    Returns:
        uint8[size, size, 3] RGB.

    Example:
        >>> blend_cam(np.zeros((240, 240, 3), np.uint8), np.zeros((10, 10))).shape
        (240, 240, 3)
    """
    if cam.shape != face.shape[:2]:
        cam = cv2.resize(cam, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    grey = face.mean(axis=2, keepdims=True)
    colors = 255 * matplotlib.colormaps[CAM_COLORS](cam)[..., :3]
    return ((grey + colors) / 2).round().astype(np.uint8)


def _residual_scale(residuals: Sequence[np.ndarray] | None) -> dict:
    if residuals is None or not len(residuals):
        return {}
    highest = max(float(np.max(residual)) for residual in residuals)
    return {"cmap": RESIDUAL_COLORS, "vmin": 0, "vmax": highest or 1.0}  # 0..1 if all are 0


def _draw_bar(canvas: Canvas, scale: dict, left: float, width: float, label: str) -> None:
    top = canvas.height - BAR + 0.02
    canvas.draw_color_bar(scale["cmap"], scale["vmax"], left, top, width, label)


def _check_faces(faces: Sequence[np.ndarray], origin: str = "") -> None:
    """Check that all faces are uint8[size, size, 3], at least one.

    Args:
        faces: The faces.
        origin: For the message, such as "of FF++ real".
    """
    kinds = [_describe(face) for face in faces]
    if not kinds:
        raise ValueError(f"Expected at least one face {origin}; got none. Omit empty rows.")
    for position, face in enumerate(map(np.asarray, faces)):
        square = face.ndim == 3 and face.shape[0] == face.shape[1] > 0 and face.shape[2] == 3
        if face.dtype != np.uint8 or not square:
            raise ValueError(
                f"Expected faces uint8[size, size, 3] {origin}; got {kinds[position]} at "
                f"{position}. From -1..1, try `np.uint8(np.round((face + 1) * 127.5))`."
            )


def _check_captions(faces: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> None:
    """Check faces, that there are as many captions, and the number of columns."""
    _check_faces(faces)
    if len(captions) != len(faces) or columns < 1:
        raise ValueError(
            f"Expected a caption for each of {len(faces)} faces and columns >= 1; got "
            f'{len(captions)} captions, columns={columns}. Use "" for an empty caption.'
        )


def _check_reconstructions(
    faces: Sequence[np.ndarray], reconstructions: Sequence[np.ndarray]
) -> None:
    """Check number, shape, dtype and scale of reconstructions.

    A linear decoder may exceed -1..1 somewhat; that is allowed.
    """
    if len(reconstructions) != len(faces):
        raise ValueError(
            f"Expected a reconstruction for each of {len(faces)} faces; got "
            f"{len(reconstructions)}. Pass those of the drawn faces."
        )
    for position, (face, own) in enumerate(
        zip(faces, map(np.asarray, reconstructions), strict=True)
    ):
        is_float = np.issubdtype(own.dtype, np.floating)
        # The median of an image in 0..255 is far above 2.
        if own.shape != face.shape or not is_float or not np.median(np.abs(own)) <= 2:
            raise ValueError(
                f"Expected reconstructions float{list(face.shape)} in -1..1; got "
                f"{_describe(own)} at {position}. Pass the unscaled output of the decoder."
            )


def _check_maps(faces: Sequence[np.ndarray], maps: np.ndarray, name: str, highest: float) -> None:
    """Check number, size and range of maps.

    Args:
        faces: Checked faces.
        maps: float[n, size, size], in [0, highest].
        name: Name of the maps for the message.
        highest: Highest value, up to rounding errors; infinity for no limit.
    """
    if len(maps) != len(faces):
        raise ValueError(
            f"Expected {name} of {len(faces)} faces; got {len(maps)}. Pass those of the "
            "drawn faces."
        )
    for position, (face, own) in enumerate(zip(faces, map(np.asarray, maps), strict=True)):
        inside = np.isfinite(own) & (own >= 0) & (own <= highest + 1e-5)
        if own.shape != face.shape[:2] or not inside.all():
            raise ValueError(
                f"Expected {name} float{list(face.shape[:2])} in 0..{highest}; got "
                f"{_describe(own)} at {position}. Resize and scale the map first."
            )


def _describe(pixels: np.ndarray) -> str:
    """Return dtype, shape and range of pixels for a message."""
    pixels = np.asarray(pixels)
    text = f"{pixels.dtype}{list(pixels.shape)}"
    return f"{text} in {pixels.min():.3g}..{pixels.max():.3g}" if pixels.size else text
