"""Calibration and metadata of an exported model: face options, thresholds, name and digest.

The metadata is stored in the graph, behind the signature `metadata`, so that TensorFlow Serving
returns it too, and a client judges faces exactly as with a local model. Imports no TensorFlow.
"""

import dataclasses
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.errors import InvalidMetadata
from jdfd_keras.client.signatures import ENGINE_FILE
from jdfd_keras.io.files import FORMAT_VERSION, load_options, save_options, to_json
from jdfd_keras.options import FaceOptions

ALIGNMENT = "alignment.json"
CALIBRATION = "calibration.json"
MODEL = "model.json"
ENGINE_FIELDS = ("backend", "version", "precision", "note")
FILES = (ALIGNMENT, CALIBRATION, MODEL)
# The logits of 0 and 1 are infinite. 1 - 2**-23 is a float32, so that a graph clips at the same
# value.
SMALLEST = 2.0**-23
VERDICTS = ("real", "uncertain", "fake")


@dataclass(frozen=True)
class Calibration:
    """Temperature and thresholds of a detector, fitted on validation videos.

    Attributes:
        temperature: Divisor of the logits.
        threshold: Videos that score at or above it are fake, if the decision is binary.
        uncertain_from: Videos that score below it are real.
        uncertain_to: Videos that score at or above it are fake; from `uncertain_from` to below
            it, they are uncertain. Both equal `threshold` if no video is to be uncertain.
        target_error_rate: Bound on the share of real validation videos called fake, and of fake
            ones called real.
        data: Name of the dataset.
        num_real, num_fake: Validation videos.
        ece_before, ece_after: Expected calibration error of the faces without and with the
            temperature.
        model: SHA-256 of the model file; "" if unknown.

    Example:
        >>> Calibration(uncertain_from=0.3, uncertain_to=0.8).judge(0.5)
        'uncertain'
    """

    temperature: float = 1.0
    threshold: float = 0.5
    uncertain_from: float = 0.5
    uncertain_to: float = 0.5
    target_error_rate: float = 0.0
    data: str = ""
    num_real: int = 0
    num_fake: int = 0
    ece_before: float = 0.0
    ece_after: float = 0.0
    model: str = ""

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Correct float[n], the network's P(fake), by the temperature; returns float64[n]."""
        return apply_temperature(np.asarray(score, np.float64), self.temperature)

    def judge(self, score: float) -> str:
        """Return `fake`, `real` or `uncertain` for a corrected score."""
        if score >= self.uncertain_to:
            return "fake"
        return "real" if score < self.uncertain_from else "uncertain"

    def with_threshold(self, threshold: float) -> "Calibration":
        """Return a copy with one threshold, below which scores are real; none is uncertain."""
        return dataclasses.replace(
            self, threshold=threshold, uncertain_from=threshold, uncertain_to=threshold
        )


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON.

    Example:
        >>> save_calibration("calibration.json", Calibration(temperature=1.5))
        >>> read_calibration("calibration.json").temperature
        1.5
    """
    save_options(path, calibration=calibration)


def read_calibration(path: str | Path) -> Calibration:
    """Read a file that `save_calibration` wrote.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or has other content.

    Example:
        >>> calibration = read_calibration("run/calibration.json")
        >>> calibration.num_real, calibration.num_fake
        (2, 2)
    """
    calibration = load_options(path, "calibration", Calibration)
    temperature, threshold = calibration.temperature, calibration.threshold
    band = calibration.uncertain_from, calibration.uncertain_to
    is_number = all(isinstance(value, (int, float)) for value in (temperature, threshold, *band))
    # NaN fails every comparison.
    if not (is_number and temperature > 0 and 0 <= threshold <= 1 and 0 <= band[0] <= band[1] <= 1):
        raise ValueError(
            "Expected a temperature above 0, and a threshold and an uncertain range in 0..1; got "
            f"{temperature!r}, {threshold!r} and {band} in {path}. Calibrate again."
        )
    return calibration


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless a threshold is in [0, 1].

    Example:
        >>> check_threshold(50)
        Traceback (most recent call last):
        ValueError: Expected a threshold in 0..1; got 50. A score is a probability: try 0.5.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"Expected a threshold in 0..1; got {threshold}. A score is a probability: try 0.5."
        )


def round_score(score: np.ndarray | float) -> np.ndarray:
    """Round mean scores to 1e-12, so that means that differ by the rounding of floats are equal.

    The mean of 0.2 and 0.4 is 0.30000000000000004 in floats, that of 0.3 and 0.3 is 0.3. Every
    score that is a mean is rounded before it is ranked or compared with a threshold.

    Example:
        >>> round_score(np.array([(0.2 + 0.4) / 2, (0.3 + 0.3) / 2])).tolist()
        [0.3, 0.3]
    """
    # First to a multiple of 2**-40: many means of decimal scores lie exactly between two multiples
    # of 1e-12, such as those of 32 scores of 8 digits, but none between two multiples of 2**-40
    # where floats round. The second rounding gives decimals of up to 12 digits back.
    return np.round(np.rint(np.asarray(score) * 2.0**40) / 2.0**40, 12)


def to_logit(score: np.ndarray) -> np.ndarray:
    """Compute the logits of scores; scores of 0 and 1 are clipped to keep them finite.

    Example:
        >>> to_logit(np.array([0.5]))
        array([0.])
    """
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(kept / (1 - kept))


def apply_temperature(score: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of scores by a temperature; 1 leaves the scores unchanged.

    Example:
        >>> apply_temperature(np.array([0.5, 0.8]), 2.0).round(3)
        array([0.5  , 0.667])
    """
    return score if temperature == 1 else 1 / (1 + np.exp(-to_logit(score) / temperature))


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of one version of a model.

    Attributes:
        faces: Options that its faces must be extracted with.
        calibration: Thresholds of its scores, which are corrected already; None if the model is
            not calibrated.
        name: Name that it is served under.
        version: Version number; 0 before it is exported.
        digest: SHA-256 of its weights, which identifies it.
    """

    faces: FaceOptions
    calibration: Calibration | None
    name: str
    version: int
    digest: str


def write_metadata(metadata: ModelMetadata) -> dict[str, str]:
    """Serialize metadata as JSON texts by the names in FILES; a missing calibration is empty.

    Example:
        >>> write_metadata(ModelMetadata(FaceOptions(), None, "detector", 1, "ab"))["model.json"]
        '{"name": "detector", "version": 1, "digest": "ab"}'
    """
    calibration = metadata.calibration
    model = {key: getattr(metadata, key) for key in ("name", "version", "digest")}
    return {
        ALIGNMENT: to_json({"faces": metadata.faces}),
        CALIBRATION: to_json({"calibration": calibration}) if calibration else "",
        MODEL: json.dumps(model),
    }


def read_metadata(call: Callable[[np.ndarray], np.ndarray], url: str | Path) -> ModelMetadata:
    """Read the metadata of a model through its signature `metadata`.

    Args:
        call: Function from the input `names` to the output `contents`, both object arrays of
            bytes.
        url: URL or path of the model, for the message.

    Raises:
        InvalidMetadata: If the contents are not the texts of `write_metadata`.

    Example:
        >>> texts = write_metadata(ModelMetadata(FaceOptions(), None, "detector", 1, "ab"))
        >>> read_metadata(lambda names: [texts[n.decode()].encode() for n in names], "model").name
        'detector'
    """
    try:
        contents = call(np.array([name.encode() for name in FILES], object))
        texts = {name: text.decode() for name, text in zip(FILES, contents, strict=True)}
        alignment = json.loads(texts[ALIGNMENT])
        if (version := alignment.get("format_version")) != FORMAT_VERSION:
            raise InvalidMetadata(url, f"format_version {FORMAT_VERSION}; got {version}")
        faces = FaceOptions(**alignment["faces"])
        calibration = None
        if texts[CALIBRATION]:
            calibration = Calibration(**json.loads(texts[CALIBRATION])["calibration"])
        metadata = ModelMetadata(faces, calibration, **json.loads(texts[MODEL]))
        for group in (faces, calibration or Calibration(), metadata):
            _check_types(group)
        return metadata
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InvalidMetadata(url, f"format_version {FORMAT_VERSION}; got {error!r}") from error


def read_engine(call: Callable[[np.ndarray], np.ndarray], url: str | Path) -> dict[str, str]:
    """Read the engine that computes the scores of a model, through its signature `metadata`.

    Args:
        call: Function from the input `names` to the output `contents`, both object arrays of
            bytes.
        url: URL of the model, for the message.

    Returns:
        The fields of `inference.engine.Engine`; empty if the server does not state them, as
        TensorFlow Serving.

    Raises:
        InvalidMetadata: If the content is something else.

    Example:
        >>> read_engine(lambda names: [b'{"backend": "tensorflow"}'], "model")
        {'backend': 'tensorflow'}
    """
    try:
        (content,) = call(np.array([ENGINE_FILE.encode()], object))
        engine = json.loads(content) if content else {}
    except (RecursionError, ValueError) as error:
        raise InvalidMetadata(url, f"JSON as {ENGINE_FILE}; got {error!r}") from error
    is_known = isinstance(engine, dict) and engine.keys() <= set(ENGINE_FIELDS)
    if not is_known or not all(isinstance(text, str) for text in engine.values()):
        raise InvalidMetadata(url, f"texts named {ENGINE_FIELDS} as {ENGINE_FILE}; got {content!r}")
    return engine


def _check_types(group: object) -> None:
    for name, kind in typing.get_type_hints(type(group)).items():
        value = getattr(group, name)
        # JSON may hold true instead of a number, and bool is a subclass of int.
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
            raise TypeError(f"{value!r} as {name}")
