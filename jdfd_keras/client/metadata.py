"""Metadata of an exported model: face options, calibration, name, digest and what it is not for.

The metadata is stored in the graph, behind the signature `metadata`, so that TensorFlow Serving
returns it too, and a client judges faces exactly as with a local model. Imports no TensorFlow.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import CALIBRATION, Calibration, check_calibration
from jdfd_keras.client.errors import InvalidMetadata
from jdfd_keras.client.signatures import ENGINE_FILE
from jdfd_keras.io.files import FORMAT_VERSION, to_json
from jdfd_keras.io.results import check_types
from jdfd_keras.options import FaceOptions

ALIGNMENT = "alignment.json"
MODEL = "model.json"
ENGINE_FIELDS = ("backend", "version", "precision", "note")
MODEL_FIELDS = ("name", "version", "digest", "demonstration")
FILES = (ALIGNMENT, CALIBRATION, MODEL)
# Sentences that results repeat: the first one of every model, the second one of a marked model.
NOT_SEEN = (
    "The detector examines faces only, for traces like those in its training data: it does not see "
    "changed sound or generated scenes nor, unless it was trained on them, fully generated faces "
    "or talking heads without blending."
)
DEMONSTRATION = "For demonstration only: this model cannot judge real videos."


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
        demonstration: Whether it was trained for demonstration only; its results state so.
    """

    faces: FaceOptions
    calibration: Calibration | None
    name: str
    version: int
    digest: str
    demonstration: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that every result of the model repeats.

        Example:
            >>> ModelMetadata(FaceOptions(), None, "demo", 1, "ab", demonstration=True).notes[0]
            'For demonstration only: this model cannot judge real videos.'
        """
        return (DEMONSTRATION, NOT_SEEN) if self.demonstration else (NOT_SEEN,)


def write_metadata(metadata: ModelMetadata) -> dict[str, str]:
    """Serialize metadata as JSON texts by the names in FILES; a missing calibration is empty.

    Example:
        >>> write_metadata(ModelMetadata(FaceOptions(), None, "detector", 1, "ab"))["model.json"]
        '{"name": "detector", "version": 1, "digest": "ab", "demonstration": false}'
    """
    calibration = metadata.calibration
    model = {key: getattr(metadata, key) for key in MODEL_FIELDS}
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
            calibration = Calibration.from_dict(json.loads(texts[CALIBRATION])["calibration"])
        metadata = ModelMetadata(faces, calibration, **json.loads(texts[MODEL]))
        check_types(metadata)
        if calibration:
            check_calibration(calibration)
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
