"""What scores faces: a model on this machine, or a server.

Takes a path or a URL; gives a Scorer. The remote one imports no TensorFlow.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.claims import load_options
from jdfd_keras.evaluation.calibration import Calibration, load_calibration, read_calibration
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.options import (
    EvaluateOptions,
    FaceOptions,
)
from jdfd_keras.serving import client
from jdfd_keras.serving.contract import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    SCORE_FACES,
    find_versions,
)

BATCH_SIZE = EvaluateOptions().batch_size


@dataclass(frozen=True)
class Scorer:
    """Something that scores faces, called with uint8[n, size, size, 3] RGB, giving float64[n].

    Attributes:
        score: The function behind the call.
        faces: How faces must be taken for it.
        calibration: How its scores, which are corrected already, are read; None if not known.
    """

    score: Callable[[np.ndarray], np.ndarray]
    faces: FaceOptions
    calibration: Calibration | None = None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Score faces."""
        return self.score(crops)


def remote_scorer(url: str, faces: FaceOptions | None = None) -> Scorer:
    """Score on a server, TensorFlow Serving or ours.

    Args:
        url: As `client.score_faces` takes it.
        faces: How to take faces. A server tells only the size, which replaces the one given;
            the rest must be as in training.

    Returns:
        The scorer; its faces travel as PNG, so that nothing is lost.

    Raises:
        OSError: If the server is not there or serves something else.
        ValueError: If the URL is not that of a model.
    """
    size = client.face_size(url)

    def score(crops: np.ndarray) -> np.ndarray:
        encoded = [encode_png(crop) for crop in crops]
        return client.score_faces(url, encoded, batch_size=BATCH_SIZE)

    return Scorer(score, dataclasses.replace(faces or FaceOptions(), face_size=size))


def local_scorer(path: str | Path) -> Scorer:
    """Score on this machine.

    Args:
        path: A run folder, a .keras file, an exported model `saved_models/<name>` (its newest
            version is taken) or one version of it.

    Returns:
        The scorer, with the face options that were kept beside the model.

    Raises:
        OSError: If there is no such model.
        ValueError: If what is there is of another kind.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return _saved_model_scorer(path)
    if path.suffix == ".keras" or (path / "options.json").is_file():
        return _keras_scorer(path)
    return _saved_model_scorer(next(iter(find_versions(path).values())))


def _saved_model_scorer(path: Path) -> Scorer:
    from jdfd_keras.serving.engine import SavedModelEngine

    faces = load_options(path / ALIGNMENT_FILE, "faces", FaceOptions)
    calibration = None
    if (path / CALIBRATION_FILE).is_file():
        calibration = read_calibration(path / CALIBRATION_FILE)
    engine = SavedModelEngine(path)
    score = _in_batches(lambda crops: engine.run(SCORE_FACES, {"faces": crops})["scores"])
    return Scorer(score, faces, calibration)


def _keras_scorer(path: Path) -> Scorer:
    from jdfd_keras.model.network import classifier_of
    from jdfd_keras.training.run import load_run_model

    calibration = load_calibration(path)
    model, faces = load_run_model(path)
    classifier = classifier_of(model)
    correct = (calibration or Calibration()).apply

    def score(crops: np.ndarray) -> np.ndarray:
        return correct(classifier.predict_on_batch(crops.astype(np.float32))[:, 0])

    return Scorer(_in_batches(score), faces, calibration)


def _in_batches(score: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def score_all(crops: np.ndarray) -> np.ndarray:
        parts = [
            score(crops[start : start + BATCH_SIZE]) for start in range(0, len(crops), BATCH_SIZE)
        ]
        return np.concatenate(parts).astype(np.float64)

    return score_all
