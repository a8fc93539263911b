"""Texture of a face crop, in numbers that tell photographs from drawings.

Photographs have texture at all scales; drawings have contours and flat areas. Independent of
detectors and models.
"""

import cv2
import numpy as np

TEXTURE_WIDTH = 128  # to which crops are scaled, so that crops of all sizes are comparable
# Part of the crop that skin, eyes, nose and mouth fill: rows and columns as shares.
_ROWS, _COLUMNS = (0.2, 0.85), (0.2, 0.8)
_SIGMAS = (0.6, 1.0, 1.7, 2.9, 5.0)  # of the Gaussians whose differences are the bands
_RADII = (1, 2, 3)  # of local binary patterns, in pixels
_FLAT, _BRIGHT, _DARK = 0.5, 235, 30  # grey levels; the first per pixel
_STEP = 1.0  # grey levels by which a neighbour must be brighter, so that noise does not count
_OFFSETS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
NUM_TEXTURE = 3 * (len(_SIGMAS) - 1) + 7 + 10 * len(_RADII)


def describe_texture(crop: np.ndarray) -> np.ndarray:
    """Describe the texture of the inner face.

    Args:
        crop: uint8[size, size, 3], RGB.

    Returns:
        float64[NUM_TEXTURE], finite: logarithms of the variance, the kurtosis and the ratio of
        median to root mean square of each band; of the flat share; chroma, brightness, contrast,
        bright and dark share; and square roots of the shares of the uniform local binary patterns.

    Example:
        >>> describe_texture(np.full((299, 299, 3), 127, np.uint8)).shape == (NUM_TEXTURE,)
        True

    Reference:
        Ojala, Pietikainen, Maenpaa: "Multiresolution Gray-Scale and Rotation Invariant Texture
        Classification with Local Binary Patterns" (2002).
    """
    if len(crop) != TEXTURE_WIDTH:
        is_larger = len(crop) > TEXTURE_WIDTH
        interpolation = cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR
        crop = cv2.resize(crop, (TEXTURE_WIDTH, TEXTURE_WIDTH), interpolation=interpolation)
    rows, columns = (
        slice(round(low * TEXTURE_WIDTH), round(high * TEXTURE_WIDTH))
        for low, high in (_ROWS, _COLUMNS)
    )
    face = np.ascontiguousarray(crop[rows, columns])
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    smooth = [cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in _SIGMAS]
    values = []
    for fine, coarse in zip(smooth[:-1], smooth[1:], strict=True):
        band = fine - coarse
        variance = float(band.var()) + 1e-3
        kurtosis = float(np.mean((band - band.mean()) ** 4)) / variance**2
        ratio = (float(np.median(np.abs(band))) + 1e-3) / (variance**0.5 + 1e-3)
        values += [np.log(variance), np.log(kurtosis + 0.1), np.log(ratio)]
    slope = np.hypot(*(cv2.Sobel(smooth[1], cv2.CV_32F, x, 1 - x) for x in (0, 1))) / 8
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    values += [
        np.log(np.mean(slope < _FLAT) + 0.01),
        np.log(chroma.mean() + 0.5),
        np.log(chroma.std() + 0.5),
        grey.mean() / 255,
        np.log(grey.std() + 0.5),
        np.log(np.mean(grey > _BRIGHT) + 0.01),
        np.log(np.mean(grey < _DARK) + 0.01),
    ]
    patterns = _count_patterns(cv2.GaussianBlur(grey, (0, 0), 0.5))
    return np.append(np.array(values, np.float64), patterns)


def _count_patterns(grey: np.ndarray) -> np.ndarray:
    """Return the square roots of the shares of the ten patterns, for each radius."""
    height, width = grey.shape
    edge = max(_RADII)
    inner = grey[edge:-edge, edge:-edge]
    shares = []
    for radius in _RADII:
        brighter = np.stack(
            [
                grey[
                    edge + y * radius : height - edge + y * radius,
                    edge + x * radius : width - edge + x * radius,
                ]
                > inner + _STEP
                for y, x in _OFFSETS
            ]
        )
        changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
        pattern = np.where(changes <= 2, brighter.sum(axis=0), 9)
        shares.append(np.bincount(pattern.ravel(), minlength=10) / pattern.size)
    return np.sqrt(np.concatenate(shares))
