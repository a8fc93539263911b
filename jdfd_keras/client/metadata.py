"""What a served model tells of itself: how faces are taken for it, and how its scores are read.

The texts lie in the graph, behind the signature `describe`, so that TensorFlow Serving hands them
out too: whoever asks a server takes and judges faces just as with the model on this machine.
Imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.io.files import load_options, save_options, to_json
from jdfd_keras.options import FaceOptions

ALIGNMENT = "alignment.json"
CALIBRATION = "calibration.json"
MODEL = "model.json"
FILES = (ALIGNMENT, CALIBRATION, MODEL)
GROUP = "calibration"
# At 0 and 1 a logit has no end. 1 - 2**-23 is a float32, so that a graph cuts at the same place.
SMALLEST = 2.0**-23
VERDICTS = ("real", "uncertain", "fake")


@dataclass(frozen=True)
class Calibration:
    """How the scores of a detector are corrected and read; kept with it.

    Attributes:
        temperature: By which logits are divided.
        threshold: A video at or above it is called fake, where only yes or no is wanted.
        uncertain_from: Below it a video is called real; from it on it is uncertain,
        uncertain_to: and from this on fake. Both are the threshold where nothing is uncertain.
        wanted_rate: The share of the reals called fake, and of the fakes called real, that the
            validation videos were not to exceed.
        data: Name of the data set it was found on.
        num_real: Its real videos in validation.
        num_fake: Its fake ones.
        ece_before: Expected calibration error of its faces, as they came.
        ece_after: The same with the temperature.
        model: SHA-256 of the model file it belongs to; "" if none is known.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    uncertain_from: float = 0.5
    uncertain_to: float = 0.5
    wanted_rate: float = 0.0
    data: str = ""
    num_real: int = 0
    num_fake: int = 0
    ece_before: float = 0.0
    ece_after: float = 0.0
    model: str = ""

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Correct scores.

        Args:
            score: float[n], P(fake) as the network gives it, in [0, 1].

        Returns:
            float64[n], in the same order; as they are where the temperature is 1.
        """
        return apply_temperature(np.asarray(score, np.float64), self.temperature)

    def judge(self, score: float) -> str:
        """Say `fake`, `real` or `uncertain` of a corrected score."""
        if score >= self.uncertain_to:
            return "fake"
        return "real" if score < self.uncertain_from else "uncertain"

    def at(self, threshold: float) -> "Calibration":
        """Take another threshold, with nothing uncertain about it."""
        return dataclasses.replace(
            self, threshold=threshold, uncertain_from=threshold, uncertain_to=threshold
        )


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    save_options(path, **{GROUP: calibration})


def read_calibration(path: str | Path) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        OSError: If there is no file.
        ValueError: If it is damaged, or of another kind.
    """
    calibration = load_options(path, GROUP, Calibration)
    temperature, threshold = calibration.temperature, calibration.threshold
    band = calibration.uncertain_from, calibration.uncertain_to
    is_number = all(isinstance(value, (int, float)) for value in (temperature, threshold, *band))
    # NaN fails every comparison.
    if not (is_number and temperature > 0 and 0 <= threshold <= 1 and 0 <= band[0] <= band[1] <= 1):
        raise ValueError(
            "Expected a temperature above 0, and a threshold and a band in 0..1; got "
            f"{temperature!r}, {threshold!r} and {band} in {path}. Calibrate again."
        )
    return calibration


def to_logit(score: np.ndarray) -> np.ndarray:
    """Compute the logits of scores, finite also at 0 and 1."""
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(kept / (1 - kept))


def apply_temperature(score: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of scores by a temperature; 1 leaves them as they are."""
    return score if temperature == 1 else 1 / (1 + np.exp(-to_logit(score) / temperature))


@dataclass(frozen=True)
class Description:
    """One version of a model.

    Attributes:
        faces: How faces must be taken for it.
        calibration: How its scores, which are corrected already, are read; None if not known.
        name: The name it is served under.
        version: Its number.
        digest: SHA-256 over its weights: what tells two models apart.
    """

    faces: FaceOptions
    calibration: Calibration | None
    name: str
    version: int
    digest: str


def write_description(description: Description) -> dict[str, str]:
    """Put a description into texts, by the names in FILES; one that is not known is empty."""
    calibration = description.calibration
    told = {key: getattr(description, key) for key in ("name", "version", "digest")}
    return {
        ALIGNMENT: to_json({"faces": description.faces}),
        CALIBRATION: to_json({"calibration": calibration}) if calibration else "",
        MODEL: json.dumps(told),
    }


def read_description(ask: Callable[[np.ndarray], np.ndarray]) -> Description:
    """Ask a model what it is.

    Args:
        ask: The signature `describe`: from `names` to `contents`, both object arrays of bytes.

    Raises:
        OSError: If the texts are not such ones.
    """
    try:
        contents = ask(np.array([name.encode() for name in FILES], object))
        texts = {name: text.decode() for name, text in zip(FILES, contents, strict=True)}
        faces = FaceOptions(**json.loads(texts[ALIGNMENT])["faces"])
        calibration = None
        if texts[CALIBRATION]:
            calibration = Calibration(**json.loads(texts[CALIBRATION])["calibration"])
        description = Description(faces, calibration, **json.loads(texts[MODEL]))
        for part in (faces, calibration or Calibration(), description):
            _check_types(part)
        return description
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise OSError(
            f"Expected a model to describe itself; got {error!r} of it. It was perhaps exported by "
            "another version of jdfd-keras: export it again."
        ) from error


def _check_types(part: object) -> None:
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        allowed = int | float if field.type is float else field.type
        # JSON has true where a number is meant, and Python takes that for one.
        if not isinstance(value, allowed) or (isinstance(value, bool) and field.type is not bool):
            raise TypeError(f"{value!r} as {field.name}")


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that no score can lie on.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"Expected a threshold in 0..1; got {threshold}. A score is a probability: try 0.5."
        )
