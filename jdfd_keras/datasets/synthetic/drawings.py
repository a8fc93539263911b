"""Drawn versions of photographs, by filters of OpenCV: cartoons, pencil drawings, painted areas.

They show what a drawn face would look like, so that one can be told from a photograph.
"""

from collections.abc import Callable

import cv2
import numpy as np


def _cartoon(pixels: np.ndarray, repeats: int, levels: int, block: int) -> np.ndarray:
    """Reduce smooth areas to a few colours, and darken contours."""
    flat = pixels
    for _ in range(repeats):
        flat = cv2.bilateralFilter(flat, 9, 40, 9)
    step = 256 / levels
    flat = np.clip(np.floor(flat / step) * step + step / 2, 0, 255).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(
        grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, 3
    )
    return np.where(lines[..., None] > 0, flat, flat // 4)


def _draw_lines(pixels: np.ndarray) -> np.ndarray:
    """Draw black lines on white."""
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    lines = cv2.adaptiveThreshold(
        grey, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 15, 3
    )
    return cv2.cvtColor(lines, cv2.COLOR_GRAY2RGB)


def _draw_in_pencil(pixels: np.ndarray, *, colour: bool) -> np.ndarray:
    grey, coloured = cv2.pencilSketch(pixels, sigma_s=60, sigma_r=0.07, shade_factor=0.05)
    return coloured if colour else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


# "family, kind": an experiment leaves out one family, to see whether the others stand for it.
DRAWINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cartoon, weak": lambda pixels: _cartoon(pixels, 3, 24, 9),
    "cartoon, strong": lambda pixels: _cartoon(pixels, 8, 8, 11),
    "pencil, colour": lambda pixels: _draw_in_pencil(pixels, colour=True),
    "pencil, grey": lambda pixels: _draw_in_pencil(pixels, colour=False),
    "stylised, weak": lambda pixels: cv2.stylization(pixels, sigma_s=40, sigma_r=0.3),
    # With a sigma_s of 120 an image of 128 pixels becomes black (OpenCV 5.0.0).
    "stylised, strong": lambda pixels: cv2.stylization(pixels, sigma_s=60, sigma_r=0.6),
    "lines, black": _draw_lines,
    "smoothed, weak": lambda pixels: cv2.edgePreservingFilter(pixels, sigma_s=40, sigma_r=0.3),
    "smoothed, strong": lambda pixels: cv2.edgePreservingFilter(pixels, sigma_s=80, sigma_r=0.6),
}


def draw_face(pixels: np.ndarray, drawing: str) -> np.ndarray:
    """Return a drawn version of an image.

    Args:
        pixels: uint8[height, width, 3], RGB.
        drawing: One of DRAWINGS.

    Raises:
        ValueError: If there is no such drawing.

    Example:
        >>> draw_face(np.full((64, 64, 3), 127, np.uint8), "lines, black").max()
        np.uint8(255)

    Reference:
        Gastal, Oliveira: "Domain Transform for Edge-Aware Image and Video Processing" (2011), for
        the filters of OpenCV.
    """
    if drawing not in DRAWINGS:
        raise ValueError(
            f"Expected a drawing of {', '.join(DRAWINGS)}; got {drawing!r}. Try 'lines, black'."
        )
    return np.ascontiguousarray(DRAWINGS[drawing](np.ascontiguousarray(pixels)))
