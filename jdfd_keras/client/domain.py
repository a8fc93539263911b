"""What validation files were like, to tell when a file is unlike them.

Takes measures of files; returns the domain of a calibration, and sentences that state in which
measures a file lies beyond it. Independent of how files are measured. Imports no TensorFlow.

Reference:
    Papadopoulos et al.: "Inductive Confidence Machines for Regression" (2002), conformal limits.
    Barber et al.: "Predictive Inference with the Jackknife+" (2021), distances from a fit to the
    other files, https://arxiv.org/abs/1905.02928
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.io.results import Result

MAX_FLAGGED = 0.05  # share of files like those of validation that may be beyond the domain
MIN_FILES = math.ceil(1 / MAX_FLAGGED) - 1  # fewer cannot support a limit for that share
MAX_FOLDS = 50
# Share of the files within one spread of the centre. Quantiles so far out make measures with heavy
# and light tails alike, and a few strange files do not widen them.
SPREAD = 0.95
LEAST = 1e-6  # smallest value of a measure on a logarithmic scale


@dataclass(frozen=True)
class FileMeasures(Result):
    """What the judged faces of a file and the file itself are like; NaN or "" if unknown.

    Example:
        >>> FileMeasures(size_px=80.0, pixel_format="yuv420p").sharpness
        nan
    """

    size_px: float = math.nan  # median width of the boxes, in pixels of the frame
    sharpness: float = math.nan  # median
    bits_per_pixel: float = math.nan  # of the whole file
    yaw_deg: float = math.nan  # median of the absolute values
    # Median width of the face in its crop, as a share of the crop; 0 if no face is found there.
    face_share: float = math.nan
    face_x: float = math.nan  # median position of the face in its crop, 0 is left and 1 is right
    face_y: float = math.nan  # 0 is the upper edge
    roll_deg: float = math.nan  # median of the absolute values, in the crop
    reconstruction_error: float = math.nan  # median mean squared error of the decoder
    # Likeness to drawings; that of a file to be judged follows from its texture.
    drawing: float = math.nan
    pixel_format: str = ""  # as in MediaInfo
    # Medians of `faces.texture.describe_texture`.
    texture: tuple[float, ...] = dataclasses.field(default=(), repr=False, metadata={"json": False})


@dataclass(frozen=True)
class _Scale:
    """How a measure is compared, and how a difference is stated."""

    is_log: bool
    least_spread: float  # so that a measure that did not vary still has a range
    unit: str
    below: str  # what the faces or the file are if the measure is below the range; "" if no matter
    above: str


_SCALES = {
    "size_px": _Scale(True, 0.05, " px", "the faces are smaller", "the faces are larger"),
    "sharpness": _Scale(True, 0.05, "", "the faces are less sharp", "the faces are sharper"),
    "bits_per_pixel": _Scale(
        True,
        0.05,
        " bits per pixel",
        "the file is more strongly compressed",
        "the file is less strongly compressed",
    ),
    "yaw_deg": _Scale(
        False, 1.0, " degrees", "the faces are turned less far", "the faces are turned further"
    ),
    "face_share": _Scale(
        False,
        0.01,
        " of the width",
        "the faces fill less of their crops",
        "the faces fill more of their crops",
    ),
    "face_x": _Scale(
        False,
        0.01,
        " of the width",
        "the faces are further left in their crops",
        "the faces are further right in their crops",
    ),
    "face_y": _Scale(
        False,
        0.01,
        " of the height",
        "the faces are higher in their crops",
        "the faces are lower in their crops",
    ),
    "roll_deg": _Scale(
        False,
        1.0,
        " degrees",
        "the faces are more upright in their crops",
        "the faces are tilted further in their crops",
    ),
    "reconstruction_error": _Scale(
        True,
        0.05,
        "",
        "the decoder reconstructs the faces with a smaller error",
        "the decoder reconstructs the faces with a larger error",
    ),
    "drawing": _Scale(False, 0.1, "", "", "the faces look more like drawings by their texture"),
}
MEASURES = tuple(_SCALES)
TITLES = {
    "pixel_format": "Pixel format",
    "size_px": "Width of the faces",
    "sharpness": "Sharpness of the faces",
    "bits_per_pixel": "Compression of the file",
    "yaw_deg": "Turn of the faces to the side",
    "face_share": "Width of the faces in their crops",
    "face_x": "Position in the crops, from the left",
    "face_y": "Position in the crops, from the top",
    "roll_deg": "Tilt in the crops",
    "reconstruction_error": "Reconstruction error of the decoder",
    "drawing": "Likeness of the texture to drawings",
}


@dataclass(frozen=True)
class Comparison(Result):
    """One measure of a file next to its range in validation, as text."""

    title: str
    value: str
    range: str
    is_within: bool


@dataclass(frozen=True)
class Spread(Result):
    """Centre and spread of a measure over validation files, on the scale it is compared on."""

    measure: str
    centre: float  # median; of the logarithm for sizes, sharpness, bits and errors
    below: float  # distance of the lower quantile, that has half of 1 - SPREAD of the files below
    above: float  # distance of the upper quantile


@dataclass(frozen=True)
class Domain(Result):
    """What the validation files of a calibration were like.

    The distance of a file is the largest one of its measures from their centres, in spreads. At
    most MAX_FLAGGED of files that are exchangeable with those of validation are beyond `limit`.

    Attributes:
        spreads: Of the measures that are known of enough files.
        limit: Largest distance within the domain; None if there are fewer than MIN_FILES.
        pixel_formats: Those of the files; empty if they are not compared.
        num_files: Validation files.
        drawing_weights: Weights of the texture in `drawing`, and then its offset; empty if it is
            not compared.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> files = [FileMeasures(sharpness=rng.uniform(20, 60)) for _ in range(100)]
        >>> fit_domain(files).check(FileMeasures(sharpness=3.1))
        ('the faces are less sharp (3.1) than those of validation (20 to 60)',)
    """

    spreads: tuple[Spread, ...] = ()
    limit: float | None = None
    pixel_formats: tuple[str, ...] = ()
    num_files: int = 0
    drawing_weights: tuple[float, ...] = dataclasses.field(default=(), repr=False)

    def complete(self, measures: FileMeasures) -> FileMeasures:
        """Return measures with `drawing`, if it is compared and the texture is known."""
        if not (self.drawing_weights and measures.texture):
            return measures
        *weights, offset = self.drawing_weights
        likeness = float(np.dot(weights, measures.texture)) + offset
        return dataclasses.replace(measures, drawing=likeness)

    def check(self, measures: FileMeasures) -> tuple[str, ...]:
        """Return a sentence on each measure in which a file is beyond the domain.

        Measures that are unknown, of the file or of validation, are not compared. Nothing is beyond
        a domain without a limit.
        """
        if self.limit is None:
            return ()
        measures = self.complete(measures)
        reasons = []
        pixel_format = normalize_format(measures.pixel_format)
        if pixel_format and self.pixel_formats and pixel_format not in self.pixel_formats:
            reasons.append(
                f"the pixel format {pixel_format} does not occur in validation "
                f"({', '.join(self.pixel_formats)})"
            )
        for spread in self.spreads:
            value = getattr(measures, spread.measure)
            if measure_distance(spread, value) > self.limit:
                reasons.append(_describe(spread, value, self.limit))
        return tuple(reasons)

    def compare(self, measures: FileMeasures) -> tuple[Comparison, ...]:
        """Return each measure that is compared, with its range in validation."""
        if self.limit is None:
            return ()
        measures = self.complete(measures)
        rows = []
        pixel_format = normalize_format(measures.pixel_format)
        if pixel_format and self.pixel_formats:
            known = ", ".join(self.pixel_formats)
            title, is_within = TITLES["pixel_format"], pixel_format in self.pixel_formats
            rows.append(Comparison(title, pixel_format, known, is_within))
        for spread in self.spreads:
            value = getattr(measures, spread.measure)
            if math.isnan(value):
                continue
            shown = f"{_show(value)}{_SCALES[spread.measure].unit}"
            is_within = measure_distance(spread, value) <= self.limit
            text = _describe_range(spread, self.limit)
            rows.append(Comparison(TITLES[spread.measure], shown, text, is_within))
        return tuple(rows)

    def distance(self, measures: FileMeasures) -> float:
        """Return the distance of a file from the centre of the domain; 0 if nothing is known."""
        measures = self.complete(measures)
        distances = [
            measure_distance(spread, getattr(measures, spread.measure)) for spread in self.spreads
        ]
        return max(distances, default=0.0)

    @property
    def note(self) -> str:
        """Why files are not compared with validation; "" if they are."""
        if self.limit is not None:
            return ""
        return (
            f"Files are not compared with those of validation: it has {self.num_files}, and at "
            f"least {MIN_FILES} are needed to state what is unlike them."
        )


def fit_domain(measures: Sequence[FileMeasures], drawing_weights: Sequence[float] = ()) -> Domain:
    """Fit the domain of validation files.

    The limit is a conformal one: files are divided into up to MAX_FOLDS folds, and each has a
    distance from the domain of the other folds, which is what a new file has from all of them. A
    pixel format that no other fold has is an infinite distance. Formats are not compared if new
    ones are so frequent that they alone could exceed MAX_FLAGGED, or with fewer than 39 files.

    Args:
        measures: Of the files of both classes, measured as a file to be judged is. If `drawing` is
            compared, that of a file is by weights that were fitted without it.
        drawing_weights: Of the domain.

    Returns:
        The domain; without a limit if there are fewer than MIN_FILES files.

    Example:
        >>> domain = fit_domain([FileMeasures(size_px=80.0)] * 18)
        >>> domain.limit, domain.note[-61:]
        (None, ' 18, and at least 19 are needed to state what is unlike them.')
    """
    num_files = len(measures)
    if num_files < MIN_FILES:
        return Domain(num_files=num_files)
    values = np.array(
        [[_transform(name, getattr(one, name)) for name in MEASURES] for one in measures]
    )
    formats = np.array([normalize_format(one.pixel_format) for one in measures])
    fold = np.arange(num_files) % min(num_files, MAX_FOLDS)
    distances, is_new = np.zeros(num_files), np.zeros(num_files, bool)
    for index in range(fold.max() + 1):
        others, own = fold != index, fold == index
        for spread, column in _fit_spreads(values[others]):
            distances[own] = np.fmax(distances[own], _standardize(spread, values[own, column]))
        is_new[own] = (formats[own] != "") & ~np.isin(formats[own], formats[others])
    num_beyond = int((num_files + 1) * MAX_FLAGGED + 1e-9)  # including the new file
    known_formats: tuple[str, ...] = ()
    if is_new.sum() + 2 <= num_beyond:
        known_formats = tuple(sorted(set(formats.tolist()) - {""}))
        distances[is_new] = math.inf
    limit = float(np.sort(distances)[num_files - num_beyond])
    spreads = tuple(spread for spread, _ in _fit_spreads(values))
    return Domain(spreads, limit, known_formats, num_files, tuple(drawing_weights))


def normalize_format(pixel_format: str) -> str:
    """Return the name of a pixel format without the mark of its range of values.

    Example:
        >>> normalize_format("yuvj420p")
        'yuv420p'
    """
    return pixel_format.replace("yuvj", "yuv", 1)


def measure_distance(spread: Spread, value: float) -> float:
    """Return the distance of a measure from its centre, in spreads; 0 if it is unknown.

    Example:
        >>> measure_distance(Spread("yaw_deg", 10.0, 2.0, 5.0), 20.0)
        2.0
    """
    distance = float(_standardize(spread, np.array(_transform(spread.measure, value))))
    return 0.0 if math.isnan(distance) else distance


def _standardize(spread: Spread, values: np.ndarray) -> np.ndarray:
    """Return the distances of values that are on the scale of the measure; NaN if unknown."""
    difference = values - spread.centre
    below = -difference / spread.below if _SCALES[spread.measure].below else 0 * difference
    return np.where(difference > 0, difference / spread.above, below)


def _transform(measure: str, value: float) -> float:
    # A sharpness or an error of 0 is finite on a logarithmic scale, too.
    return math.log(max(value, LEAST)) if _SCALES[measure].is_log else value


def _fit_spreads(values: np.ndarray) -> list[tuple[Spread, int]]:
    """Fit the measures float[n, m] of which enough are known; also return their columns."""
    fitted = []
    for column, (name, scale) in enumerate(_SCALES.items()):
        known = values[~np.isnan(values[:, column]), column]
        if len(known) < MIN_FILES - 1:  # of the other files of as few as possible
            continue
        centre, low, high = np.quantile(known, [0.5, (1 - SPREAD) / 2, (1 + SPREAD) / 2]).tolist()
        below, above = (max(scale.least_spread, side) for side in (centre - low, high - centre))
        fitted.append((Spread(name, centre, below, above), column))
    return fitted


def _describe(spread: Spread, value: float, limit: float) -> str:
    """Describe a value beyond the limit, next to the range within it."""
    scale = _SCALES[spread.measure]
    if spread.measure == "face_share" and value == 0:
        return "no face is found in the crops"
    how = scale.below if _transform(spread.measure, value) < spread.centre else scale.above
    return (
        f"{how} ({_show(value)}{scale.unit}) than those of validation "
        f"({_describe_range(spread, limit)})"
    )


def _describe_range(spread: Spread, limit: float) -> str:
    """Describe the lowest and the highest value of a measure within the domain."""
    scale = _SCALES[spread.measure]
    low, high = spread.centre - limit * spread.below, spread.centre + limit * spread.above
    if scale.is_log:
        low, high = math.exp(low), math.exp(high)
    if not scale.below:
        return f"up to {_show(high)}{scale.unit}"
    return f"{_show(max(low, 0.0))} to {_show(high)}{scale.unit}"


def _show(value: float) -> str:
    """Return a number with two digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 9.5 else f"{value:.2g}"
