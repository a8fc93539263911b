"""What scores and explains faces: a model on this machine, or a server.

Takes a path or a URL; gives a Scorer, with the same results whichever it is. The remote one
imports no TensorFlow.

Faces to scores: one pass of a detector over a data set.

Takes a keras.Model and batches; gives a score and a label per face, and the error of the decoder
where that is asked for, in memory that does not grow with the faces but for these numbers. Knows
nothing of files or names.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jdfd_keras.client import Client, connect
from jdfd_keras.client.errors import lacks
from jdfd_keras.client.metadata import Calibration, Description, read_description
from jdfd_keras.client.signatures import DESCRIBE, EXPLAIN, SCORE_FACES, find_versions
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.inference.model_files import load_calibration
from jdfd_keras.options import EvaluateOptions

if TYPE_CHECKING:
    import keras

BATCH_SIZE = EvaluateOptions().batch_size
_VERSION = re.compile(r"(.+?)(?:/(versions|labels)/[^/]+)?/?")


@dataclass(frozen=True)
class Scorer:
    """Something that scores faces, called with uint8[n, size, size, 3] RGB, giving float64[n].

    Attributes:
        name: Where the model is, for people: a path or a URL.
        description: What it is, how faces must be taken for it and its scores be read.
        score: The function behind the call.
        explain: From the same faces to float32[n, size, size], what spoke for fake, 0..1; None
            where the model cannot tell.
        close: Lets go of connections or memory; to be called once it is no longer needed.
    """

    name: str
    description: Description
    score: Callable[[np.ndarray], np.ndarray]
    explain: Callable[[np.ndarray], np.ndarray] | None
    close: Callable[[], None] = lambda: None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Score faces."""
        return self.score(crops)


def remote_scorer(url: str) -> Scorer:
    """Score on a server, TensorFlow Serving or ours.

    Args:
        url: As `client.connect` takes it.

    Returns:
        The scorer; its faces travel as PNG, so that nothing is lost. It stays with the version
        that it found, if that is served under the number that it was exported with, and fails
        when the server lets go of it.

    Raises:
        OSError: If the server is not there or serves something else.
        ValueError: If the URL is not that of a model.
    """
    client = _connect_to_version(url)

    def score(crops: np.ndarray) -> np.ndarray:
        return client.score([encode_png(crop) for crop in crops])

    def explain(crops: np.ndarray) -> np.ndarray:
        return _enlarge(client.explain(crops), crops.shape[:3])

    has_explain = EXPLAIN in client.signatures
    explain = explain if has_explain else None
    return Scorer(client.url, client.description, score, explain, client.close)


def _connect_to_version(url: str) -> Client:
    """Connect to one version: the newest, or what a label points to, may be another one soon."""
    client = connect(url, batch_size=BATCH_SIZE)
    try:
        known = client.description
    except OSError:
        client.close()
        raise
    name, kind = _VERSION.fullmatch(url).groups()
    if kind == "versions":
        return client
    # It may be served under another number than it was exported with: then it is not there, or
    # another model is, and the URL is all that is known.
    with contextlib.suppress(OSError):
        pinned = connect(f"{name}/versions/{known.version}", batch_size=BATCH_SIZE)
        if pinned.description == known:
            client.close()
            return pinned
        pinned.close()
    return client


def local_scorer(path: str | Path) -> Scorer:
    """Score on this machine.

    Args:
        path: A run folder, a .keras file, an exported model `saved_models/<name>` (its newest
            version is taken) or one version of it.

    Returns:
        The scorer.

    Raises:
        OSError: If there is no such model, or it was exported before models described themselves.
        ValueError: If what is there is of another kind.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return _saved_model_scorer(path)
    if path.suffix == ".keras" or (path / "options.json").is_file():
        return _keras_scorer(path)
    return _saved_model_scorer(next(iter(find_versions(path).values())))


def _saved_model_scorer(path: Path) -> Scorer:
    from jdfd_keras.inference.saved_model import SavedModelEngine

    engine = SavedModelEngine(path)
    if DESCRIBE not in engine.signatures:
        engine.close()
        raise lacks(path, f"the signature {DESCRIBE!r}", engine.signatures)
    description = read_description(lambda names: engine.run(DESCRIBE, {"names": names})["contents"])

    def score(crops: np.ndarray) -> np.ndarray:
        return engine.run(SCORE_FACES, {"faces": crops})["scores"]

    def explain(crops: np.ndarray) -> np.ndarray:
        return _enlarge(engine.run(EXPLAIN, {"faces": crops})["activation"], crops.shape[:3])

    has_explain = EXPLAIN in engine.signatures
    explain = _maps_of(explain) if has_explain else None
    return Scorer(str(path), description, _scores_of(score), explain, engine.close)


def _keras_scorer(path: Path) -> Scorer:
    import tensorflow as tf

    from jdfd_keras.inference.explain import activation_of
    from jdfd_keras.model.network import classifier_of, digest_weights
    from jdfd_keras.training.run_folder import load_run_model

    calibration = load_calibration(path)
    model, faces = load_run_model(path)
    classifier = classifier_of(model)
    correct = (calibration or Calibration()).apply
    pixels = tf.TensorSpec(model.input.shape, tf.float32)
    activation = tf.function(activation_of(model), input_signature=[pixels])

    def score(crops: np.ndarray) -> np.ndarray:
        return correct(classifier.predict_on_batch(crops.astype(np.float32))[:, 0])

    def explain(crops: np.ndarray) -> np.ndarray:
        maps = activation(tf.constant(crops, tf.float32))["activation"]
        return _enlarge(maps.numpy(), crops.shape[:3])

    # It has no number until it is exported.
    description = Description(faces, calibration, path.stem, 0, digest_weights(model))
    return Scorer(str(path), description, _scores_of(score), _maps_of(explain))


def _scores_of(score: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Score in batches."""
    return lambda crops: _fill(np.empty(len(crops), np.float64), score, crops)


def _maps_of(explain: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Explain in batches."""
    return lambda crops: _fill(np.empty(crops.shape[:3], np.float32), explain, crops)


def _fill(
    result: np.ndarray, ask: Callable[[np.ndarray], np.ndarray], crops: np.ndarray
) -> np.ndarray:
    for start in range(0, len(crops), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        result[batch] = ask(crops[batch])
    return result


def _enlarge(maps: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Enlarge maps to faces, as `explain_faces` does: bilinear, by the centres of the pixels."""
    enlarged = np.empty(shape, np.float32)
    for target, small in zip(enlarged, maps, strict=True):
        target[:] = cv2.resize(small, shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    return enlarged


@dataclass(frozen=True, eq=False)
class ScoredFaces:
    """What one pass over a data set gave, in its order.

    Attributes:
        score: float64[n], P(fake).
        label: float64[n], as the data set has it, 1 is fake.
        error: float64[n], mean squared error of the reconstruction per pixel and channel, pixels
            in -1..1; None where it was not computed.
        mean_face_mse: The error of always answering the mean of these faces, which is their
            variance. A decoder that is no better has only learned the mean face.
    """

    score: np.ndarray
    label: np.ndarray
    error: np.ndarray | None = None
    mean_face_mse: float | None = None


def score_dataset(
    model: "keras.Model", dataset: Iterable, *, reconstruct: bool = False
) -> ScoredFaces:
    """Score every face of a data set in one pass.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        dataset: Batches of (image, targets) as `load_faces` gives them, not shuffled if the
            scores are to be matched to anything.
        reconstruct: Run the decoder too, if there is one, and measure it; else it is not computed.

    Returns:
        Scores and labels in the order of the data set.

    Raises:
        ValueError: If the model has no output `classification`, the faces have another size than
            the model takes, or there are none.
    """
    if not isinstance(model.output, dict) or "classification" not in model.output:
        raise ValueError(
            f"Expected a model with the output 'classification'; got {model.name!r} with "
            f"{model.output_names}. Give one that build_detector made."
        )
    from jdfd_keras.model.network import classifier_of

    reconstruct = reconstruct and "reconstruction" in model.output
    scorer = model if reconstruct else classifier_of(model)
    scores, labels, errors, variance = [], [], [], _Variance()
    for image, targets in dataset:
        _check_size(model, image)
        outputs = scorer.predict_on_batch(image)
        if reconstruct:
            face = np.asarray(targets["reconstruction"], np.float64)
            variance.add(face)
            errors.append(np.square(outputs["reconstruction"] - face).mean(axis=(1, 2, 3)))
            outputs = outputs["classification"]
        scores.append(np.asarray(outputs, np.float64)[:, 0])
        labels.append(np.asarray(targets["classification"], np.float64)[:, 0])
    if not scores:
        raise ValueError(
            "Expected a data set with at least one face; got none. Was every video of the "
            "split excluded?"
        )
    error = (np.concatenate(errors), variance.result()) if reconstruct else (None, None)
    return ScoredFaces(np.concatenate(scores), np.concatenate(labels), *error)


class _Variance:
    """Mean square distance of faces from their mean face, summed up face by face."""

    def __init__(self):
        self.num_faces = 0
        self.squares = 0.0
        self.sum = 0.0  # float64[size, size, 3] after the first batch

    def add(self, face: np.ndarray) -> None:
        self.num_faces += len(face)
        self.squares += np.square(face).sum()
        self.sum = self.sum + face.sum(axis=0)

    def result(self) -> float:
        mean = self.sum / self.num_faces
        variance = self.squares / (self.num_faces * mean.size) - np.square(mean).mean()
        return max(0.0, float(variance))  # faces all alike may round below 0


def _check_size(model: "keras.Model", image) -> None:
    expected = tuple(model.input_shape[1:])
    if tuple(image.shape[1:]) != expected:
        raise ValueError(
            f"Expected faces of {expected}, which is what {model.name!r} takes; the data set has "
            f"{tuple(image.shape[1:])}. Prepare it with the --face-size of the training data."
        )
