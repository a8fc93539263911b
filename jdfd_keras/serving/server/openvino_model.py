"""One version of a model with OpenVINO behind its signatures, for the embedded server.

Takes the folder of an exported version; answers as its SavedModel does. TensorFlow only reads the
images, by the same graph as in the SavedModel.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.client.signatures import (
    CLASSES,
    CLASSIFY,
    ENGINE_FILE,
    ENGINE_FOLDER,
    EXPLAIN,
    FACES,
    IMAGE_READER,
    METADATA,
    SERVING_DEFAULT,
)
from jdfd_keras.inference.openvino_engine import OpenVINOEngine
from jdfd_keras.inference.openvino_network import CAM, RECONSTRUCTION, SCORES
from jdfd_keras.inference.saved_model import LoadedVersion, SavedModelEngine, read_meta_graph

Arrays = dict[str, np.ndarray]
LABELS = [label.encode() for label in CLASSES]


class OpenVINOModel(LoadedVersion):
    """One version of a model, run by OpenVINO; safe to call from many threads at once.

    Example:
        >>> path = Path("saved_models/detector/1")
        >>> with OpenVINOModel(path, OpenVINOEngine(path, "float32")) as model:
        ...     model.run("faces", {"faces": np.zeros((2, 71, 71, 3), np.uint8)})["scores"].shape
        (2,)
    """

    def __init__(self, path: Path, engine: OpenVINOEngine):
        """Load the signatures of a version and the reader of its images.

        Args:
            path: Its folder.
            engine: Its engine; `close` closes it, too.

        Raises:
            OSError: If the reader is missing or damaged.
        """
        super().__init__(path, read_meta_graph(path))
        facts = json.loads((path / ENGINE_FOLDER / ENGINE_FILE).read_text(encoding="utf-8"))
        self._texts = {name.encode(): text.encode() for name, text in facts["metadata"].items()}
        self._reader = SavedModelEngine(path / ENGINE_FOLDER / IMAGE_READER)
        self._engine = engine

    def close(self) -> None:
        """Release the memory of the engine and of the reader."""
        self._reader.close()
        self._engine.close()

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str] | None = None) -> Arrays:
        """Call one signature, as `LoadedVersion.run`."""
        known = self.signatures[name].outputs
        requested = frozenset(outputs or known)
        if unknown := requested - known.keys():
            raise KeyError(min(unknown))
        values = self._compute(name, inputs, requested)
        return {output: values[output] for output in known if output in requested}

    def _compute(self, name: str, inputs: Arrays, requested: frozenset[str]) -> Arrays:
        """Compute at least the requested outputs of a signature."""
        if name in (SERVING_DEFAULT, CLASSIFY):
            return self._score_images(name, inputs, requested)
        if name == METADATA:
            contents = [self._texts.get(one, b"") for one in inputs["names"]]
            return {"contents": np.array(contents, object)}
        faces = inputs["faces"]
        if name == FACES:
            return {"scores": self._engine.run(SCORES, faces)}
        if name == EXPLAIN:
            return {"cam": self._engine.run(CAM, faces)}
        reconstruction = self._engine.run(RECONSTRUCTION, faces)
        difference = reconstruction - (faces / np.float32(127.5) - 1)
        error = np.square(difference).mean(axis=(1, 2, 3))
        return {"reconstruction": reconstruction, "error": error}

    def _score_images(self, name: str, inputs: Arrays, requested: frozenset[str]) -> Arrays:
        """Score encoded images: the valid ones, of which the reader returns pixels."""
        if "scores" not in requested:
            valid = self._reader.run(name, inputs, ["valid"])["valid"]
            return {"valid": valid, "classes": _label(len(valid))}
        images = self._reader.run(name, inputs)
        valid = images["valid"]
        scores = np.full(len(valid), np.nan, np.float32)
        scores[valid] = self._engine.run(SCORES, images["faces"][valid])
        if name == CLASSIFY:
            scores = np.stack([1 - scores, scores], axis=1)
        return {"scores": scores, "valid": valid, "classes": _label(len(valid))}


def _label(count: int) -> np.ndarray:
    return np.tile(np.array(LABELS, object), (count, 1))
