"""Degradations of face crops and frames at known strengths, to measure the robustness of a score.

Takes uint8 images, the name of one of DEGRADATIONS and its strength; returns degraded images of the
same size. The result depends on the image, the strength and a seed alone, not on the batch.
Independent of files and TensorFlow; OpenCV and FFmpeg do nearly all of the work, so several threads
can degrade images at the same time.

Reference:
    Jiang et al.: "DeeperForensics-1.0" (2020), https://arxiv.org/abs/2001.03024: five levels each;
    those of blur, noise and downscaling are from its published code. Rössler et al.:
    "FaceForensics++" (2019), https://arxiv.org/abs/1901.08971: CRF 23 and 40 of H.264. Hendrycks,
    Dietterich: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
    (2019), https://arxiv.org/abs/1903.12261: five levels of brightness.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import av
import cv2
import numpy as np

from jdfd_keras.datasets.synthetic.recompression import (
    compress_h264,
    compress_h265,
    compress_jpeg,
)

SCREENSHOT_QUALITY = 70  # of the JPEG file that a screenshot is sent as


@dataclass(frozen=True)
class Degradation:
    """A degradation and its strengths."""

    name: str
    unit: str  # of a strength
    strengths: tuple[float, float, float, float, float]  # from weak to strong
    low: float  # the allowed range, both ends included
    high: float
    description: str  # what it does, in a sentence
    encoder: str = ""  # that PyAV must have
    is_whole: bool = False  # whether strengths are whole numbers
    is_of_videos: bool = False  # whether it changes which frames a video has, not their pixels


DEGRADATIONS: dict[str, Degradation] = {
    one.name: one
    for one in (
        Degradation(
            *("jpeg", "quality", (90, 70, 50, 30, 10), 1, 100),
            "The image is saved as JPEG with 4:2:0 subsampling; the strength is the quality on the "
            "scale of the Independent JPEG Group.",
            is_whole=True,
        ),
        Degradation(
            *("h264", "CRF", (23, 30, 35, 40, 45), 0, 51),
            "The video is encoded as H.264 by x264 with the preset medium and 4:2:0 subsampling; "
            "a crop is encoded as a key frame of such a video.",
            encoder="libx264",
            is_whole=True,
        ),
        Degradation(
            *("h265", "CRF", (28, 32, 36, 40, 45), 0, 51),
            "The video is encoded as H.265 by x265 with the preset medium and 4:2:0 subsampling; "
            "a crop is encoded as a key frame of such a video.",
            encoder="libx265",
            is_whole=True,
        ),
        Degradation(
            *("downscaling", "factor", (2, 3, 4, 5, 6), 1, 64),
            "Both sides of the image are divided by the factor by averaging over areas, and the "
            "size is restored by bicubic interpolation.",
        ),
        Degradation(
            *("blur", "sigma in pixels", (1.17, 1.5, 2.17, 2.83, 3.5), 0.1, 50),
            "The image is convolved with a Gaussian that ends at three sigma.",
        ),
        Degradation(
            *("noise", "sigma in grey levels", (8, 11, 18, 25, 57), 0, 255),
            "Normal noise is added to each pixel and channel, independent of all others.",
        ),
        Degradation(
            *("brightness", "grey levels", (25, 51, 77, 102, 128), -255, 255),
            "The strength is added to all channels, and the sum is clipped to 0 to 255.",
        ),
        Degradation(
            *("gamma", "exponent", (1.25, 1.5, 2, 2.5, 3), 0.1, 10),
            "A level v becomes 255 (v / 255)^exponent: exponents above 1 darken the image.",
        ),
        Degradation(
            *("frame-drop", "share of frames", (0.1, 0.25, 0.5, 0.75, 0.9), 0, 1),
            "A random share of the frames of a video is removed, and the frames to analyse are "
            "chosen evenly from the rest; one frame is always kept.",
            is_of_videos=True,
        ),
        Degradation(
            *("screenshot", "factor", (1.25, 1.5, 2, 3, 4), 1, 16),
            "The image is resized to its size divided by the factor by bilinear interpolation, as "
            f"on a screen, and saved as JPEG of quality {SCREENSHOT_QUALITY}; a crop is resized "
            "back the same way, a frame keeps its new size.",
        ),
    )
}


def parse_degradations(text: str) -> tuple[tuple[str, float], ...]:
    """Parse a list of degradations, such as `jpeg,h264=23,h264=40`.

    Args:
        text: Names, separated by commas: NAME stands for its five strengths, NAME=STRENGTH for one,
            `all` for all degradations.

    Returns:
        Pairs of name and strength in the order of the text, each once.

    Raises:
        ValueError: If a name is unknown, or a strength is not a number of the degradation's range.

    Example:
        >>> parse_degradations("blur=2,gamma")[:3]
        (('blur', 2.0), ('gamma', 1.25), ('gamma', 1.5))
        >>> len(parse_degradations("all"))
        50
    """
    found: dict[tuple[str, float], None] = {}
    for item in text.split(","):
        name, separator, number = (part.strip() for part in item.partition("="))
        if separator:
            found[name, _parse_strength(name, number)] = None
            continue
        members = DEGRADATIONS.values() if name == "all" else [find_degradation(name)]
        found |= {(one.name, float(each)): None for one in members for each in one.strengths}
    return tuple(found)


def find_degradation(name: str) -> Degradation:
    """Return the degradation of a name.

    Example:
        >>> find_degradation("jpeg").strengths
        (90, 70, 50, 30, 10)
    """
    if name not in DEGRADATIONS:
        raise ValueError(
            f"Expected a degradation of {', '.join(DEGRADATIONS)}; got {name!r}. Try 'jpeg', "
            "'jpeg=30' or 'all'."
        )
    return DEGRADATIONS[name]


def check_strength(name: str, strength: float) -> None:
    """Check that a strength is within the range of a degradation.

    Raises:
        ValueError: If it is not, or the degradation is unknown.

    Example:
        >>> check_strength("jpeg", 101)
        Traceback (most recent call last):
        ValueError: Expected a quality from 1 to 100 for jpeg, a whole number; got 101. Try jpeg=90.
    """
    one = find_degradation(name)
    if not one.low <= strength <= one.high or (one.is_whole and strength != round(strength)):
        raise _strength_error(one, f"{strength:g}")


def check_encoder(name: str) -> None:
    """Check that the installed PyAV has the encoder of a degradation, if it needs one.

    Raises:
        ValueError: If it has not.

    Example:
        >>> check_encoder("h264")
    """
    encoder = find_degradation(name).encoder
    if encoder and encoder not in av.codecs_available:
        raise ValueError(
            f"Expected a PyAV with the encoder {encoder} for {name}; got PyAV {av.__version__}, "
            "whose FFmpeg lacks it. Try the wheels of PyAV, `pip install --force-reinstall "
            f"--only-binary av av`, or omit {name}."
        )


def degrade_crops(
    crops: np.ndarray, name: str, strength: float, *, seed: int, first: int = 0
) -> np.ndarray:
    """Degrade face crops.

    Args:
        crops: uint8[n, height, width, 3], RGB.
        name: A name of DEGRADATIONS that is not of videos.
        strength: Its strength.
        seed: Random seed of the noise.
        first: Index of the first crop in its dataset; the noise of a crop depends on its index, so
            that parts of a dataset can be degraded in any order.

    Returns:
        uint8[n, height, width, 3], RGB.

    Raises:
        ValueError: If the name, the strength or the shape is wrong, or PyAV lacks the encoder.

    Example:
        >>> crops = np.full((2, 71, 71, 3), 100, np.uint8)
        >>> degrade_crops(crops, "brightness", 25, seed=0).max()
        np.uint8(125)
    """
    check_strength(name, strength)
    check_encoder(name)
    if DEGRADATIONS[name].is_of_videos:
        raise ValueError(
            f"Expected a degradation of crops; got {name}, which is of videos. Try 'jpeg', or "
            "choose crops of a video with `choose_kept_frames`."
        )
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.dtype != np.uint8:
        raise ValueError(
            f"Expected crops as uint8[n, height, width, 3]; got {crops.dtype}{list(crops.shape)}. "
            "Try `crops[np.newaxis]` for one crop."
        )
    degraded = np.empty_like(crops)
    for index, crop in enumerate(crops):
        degraded[index] = degrade_image(crop, name, strength, key=(seed, first + index))
    return degraded


def degrade_image(
    pixels: np.ndarray, name: str, strength: float, *, key: tuple[int, ...] = (0,)
) -> np.ndarray:
    """Degrade an image of any size, without a check of name and strength.

    Args:
        pixels: uint8[height, width, 3], RGB.
        name: A name of DEGRADATIONS that is not of videos.
        strength: Its strength.
        key: Seed of the noise.

    Returns:
        uint8[height, width, 3], RGB.

    Example:
        >>> image = np.full((40, 60, 3), 128, np.uint8)
        >>> degrade_image(image, "gamma", 2.0)[0, 0].tolist()  # 255 (128 / 255)^2
        [64, 64, 64]
    """
    pixels = np.ascontiguousarray(pixels)
    if name == "noise":
        noise = np.random.default_rng(key).standard_normal(pixels.shape, np.float32)
        return _to_bytes(pixels + np.float32(strength) * noise)
    return _CHANGES[name](pixels, strength)


def choose_kept_frames(num_frames: int, share: float, *, seed: int) -> np.ndarray:
    """Choose the frames that are kept when a random share of them is dropped.

    Args:
        num_frames: Number of frames; at least 1.
        share: Share that is dropped, 0 to 1; one frame is always kept.
        seed: Random seed.

    Returns:
        int64[k], increasing, with k = num_frames - round(share num_frames), at least 1.

    Example:
        >>> len(choose_kept_frames(300, 0.9, seed=0)), len(choose_kept_frames(3, 1.0, seed=0))
        (30, 1)
    """
    count = max(num_frames - round(share * num_frames), 1)
    return np.sort(np.random.default_rng(seed).permutation(num_frames)[:count])


def shrink_to_screen(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Resize an image as a screen shows it, by bilinear interpolation of the nearest pixels.

    Args:
        pixels: uint8[height, width, 3], RGB.
        factor: Divisor of both sides.

    Example:
        >>> shrink_to_screen(np.zeros((90, 160, 3), np.uint8), 1.5).shape
        (60, 107, 3)
    """
    return cv2.resize(pixels, _divided_size(pixels, factor), interpolation=cv2.INTER_LINEAR)


def _parse_strength(name: str, number: str) -> float:
    one = find_degradation(name)
    try:
        strength = float(number)
    except ValueError:
        raise _strength_error(one, repr(number)) from None
    check_strength(name, strength)
    return strength


def _strength_error(one: Degradation, found: str) -> ValueError:
    kind = ", a whole number" if one.is_whole else ""
    return ValueError(
        f"Expected a {one.unit} from {one.low:g} to {one.high:g} for {one.name}{kind}; got "
        f"{found}. Try {one.name}={one.strengths[0]:g}."
    )


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _divided_size(pixels: np.ndarray, factor: float) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    return max(round(width / factor), 1), max(round(height / factor), 1)


def _downscale(pixels: np.ndarray, factor: float) -> np.ndarray:
    small = cv2.resize(pixels, _divided_size(pixels, factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    radius = max(math.ceil(3 * sigma), 1)
    size = (2 * radius + 1, 2 * radius + 1)
    return cv2.GaussianBlur(pixels, size, sigma, borderType=cv2.BORDER_REFLECT_101)


def _brighten(pixels: np.ndarray, levels: float) -> np.ndarray:
    return cv2.LUT(pixels, _to_bytes(np.arange(256) + levels))


def _apply_gamma(pixels: np.ndarray, exponent: float) -> np.ndarray:
    return cv2.LUT(pixels, _to_bytes(255 * (np.arange(256) / 255) ** exponent))


def _take_screenshot(pixels: np.ndarray, factor: float) -> np.ndarray:
    shown = compress_jpeg(shrink_to_screen(pixels, factor), SCREENSHOT_QUALITY)
    return cv2.resize(shown, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)


_CHANGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "jpeg": lambda pixels, quality: compress_jpeg(pixels, int(quality)),
    "h264": lambda pixels, crf: compress_h264(pixels, int(crf)),
    "h265": lambda pixels, crf: compress_h265(pixels, int(crf)),
    "downscaling": _downscale,
    "blur": _blur,
    "brightness": _brighten,
    "gamma": _apply_gamma,
    "screenshot": _take_screenshot,
}
