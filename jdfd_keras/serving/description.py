"""What a served model tells of itself: how faces are taken for it, and how its scores are read.

The texts lie in the graph, behind the signature `describe`, so that TensorFlow Serving hands them
out too: whoever asks a server takes and judges faces just as with the model on this machine.
Imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jdfd_keras.claims import to_json
from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.options import FaceOptions

ALIGNMENT = "alignment.json"
CALIBRATION = "calibration.json"
MODEL = "model.json"
FILES = (ALIGNMENT, CALIBRATION, MODEL)


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
