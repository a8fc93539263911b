"""Inference backends: scores and class-activation maps from a local model or a server.

Takes a path or a URL; returns a Predictor with the same results for both. With a
server, no TensorFlow is imported. `predict_dataset` scores a dataset in one pass and keeps only
the results in memory.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jdfd_keras.client import Client, SignatureMissing, connect
from jdfd_keras.client.metadata import (
    CALIBRATION,
    Calibration,
    ModelMetadata,
    read_calibration,
    read_metadata,
)
from jdfd_keras.client.signatures import EXPLAIN, FACES, METADATA, find_versions
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.run_folder import BEST, digest_model

if TYPE_CHECKING:
    import keras

BATCH_SIZE = EvaluateOptions().batch_size
_ArrayFunction = Callable[[np.ndarray], np.ndarray]
_VERSION = re.compile(r"(.+?)(?:/(versions|labels)/[^/]+)?/?")


@dataclass(frozen=True)
class Predictor:
    """A loaded model; call it with uint8[n, size, size, 3] RGB faces to get float64[n] P(fake).

    Attributes:
        name: Path or URL of the model.
        metadata: Its face options, calibration, name, version and digest.
        score: The function behind the call.
        explain: Function from the same faces to float32[n, size, size] class-activation maps in
            0..1; None if the model has none.
        close: Function that releases connections or memory; call it after use.

    Example:
        >>> with contextlib.closing(load_predictor("saved_models/detector")) as predictor:
        ...     scores = predictor(np.zeros((2, 299, 299, 3), np.uint8))  # float64[2]
    """

    name: str
    metadata: ModelMetadata
    score: _ArrayFunction
    explain: _ArrayFunction | None
    close: Callable[[], None] = lambda: None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Score faces."""
        return self.score(crops)


def load_predictor(model: str | Path) -> Predictor:
    """Load a local model, or connect to a served one.

    Args:
        model: A run folder, a .keras file, an exported model `saved_models/<name>` (its newest
            version is used) or one version of it; or the URL of a served model, as for
            `client.connect`.

    Returns:
        The predictor. For a URL, faces are sent as PNG, which is lossless. The predictor keeps
        the version that it connected to, if this is served under the number it was exported with,
        and fails once the server unloads it.

    Raises:
        OSError: If there is no such model, the server is unreachable, or the model was exported
            without metadata.
        ValueError: If the path is not a model, or the URL is not that of a model.

    Example:
        >>> load_predictor("saved_models/detector").metadata.version
        1
    """
    if "://" in str(model):
        return _load_served(str(model))
    path = Path(model)
    if (path / "saved_model.pb").is_file():
        return _load_saved_model(path)
    if path.suffix == ".keras" or (path / "options.json").is_file():
        return _load_keras(path)
    return _load_saved_model(next(iter(find_versions(path).values())))


def _load_served(url: str) -> Predictor:
    client = _connect_to_version(url)

    def score(crops: np.ndarray) -> np.ndarray:
        return client.predict_faces([encode_png(crop) for crop in crops])

    def explain(crops: np.ndarray) -> np.ndarray:
        return _resize(client.explain(crops), crops.shape[:3])

    has_explain = EXPLAIN in client.signatures
    explain = explain if has_explain else None
    return Predictor(client.url, client.metadata, score, explain, client.close)


def _connect_to_version(url: str) -> Client:
    """Connect to a fixed version: the newest, or that of a label, may soon be another one."""
    client = connect(url, batch_size=BATCH_SIZE)
    try:
        metadata = client.metadata
    except OSError:
        client.close()
        raise
    name, kind = _VERSION.fullmatch(url).groups()
    if kind == "versions":
        return client
    # If it is served under another number than it was exported with, that number is missing or
    # another model; only the given URL is then certain.
    with contextlib.suppress(OSError):
        pinned = connect(f"{name}/versions/{metadata.version}", batch_size=BATCH_SIZE)
        if pinned.metadata == metadata:
            client.close()
            return pinned
        pinned.close()
    return client


def _load_saved_model(path: Path) -> Predictor:
    from jdfd_keras.inference.saved_model import SavedModelEngine

    engine = SavedModelEngine(path)
    if METADATA not in engine.signatures:
        engine.close()
        existing = sorted(engine.signatures)
        raise SignatureMissing(path, f"the signature {METADATA!r}; got {existing}")
    metadata = read_metadata(lambda names: engine.run(METADATA, {"names": names})["contents"], path)

    def score(crops: np.ndarray) -> np.ndarray:
        return engine.run(FACES, {"faces": crops})["scores"]

    def explain(crops: np.ndarray) -> np.ndarray:
        return _resize(engine.run(EXPLAIN, {"faces": crops})["cam"], crops.shape[:3])

    has_explain = EXPLAIN in engine.signatures
    explain = _explain_in_batches(explain) if has_explain else None
    return Predictor(str(path), metadata, _score_in_batches(score), explain, engine.close)


def _load_keras(path: Path) -> Predictor:
    import tensorflow as tf

    from jdfd_keras.inference.explain import make_cam_fn
    from jdfd_keras.model.network import classifier_branch, digest_weights
    from jdfd_keras.training.run_folder import load_run_model

    calibration = load_calibration(path)
    run = load_run_model(path)
    model = run.model
    classifier = classifier_branch(model)
    correct = (calibration or Calibration()).apply
    pixels = tf.TensorSpec(model.input.shape, tf.float32)
    cam = tf.function(make_cam_fn(model), input_signature=[pixels])

    def score(crops: np.ndarray) -> np.ndarray:
        return correct(classifier.predict_on_batch(crops.astype(np.float32))[:, 0])

    def explain(crops: np.ndarray) -> np.ndarray:
        return _resize(cam(tf.constant(crops, tf.float32))["cam"].numpy(), crops.shape[:3])

    # Its version is 0 until it is exported.
    metadata = ModelMetadata(run.faces, calibration, path.stem, 0, digest_weights(model))
    score_fn, explain_fn = _score_in_batches(score), _explain_in_batches(explain)
    return Predictor(str(path), metadata, score_fn, explain_fn)


def _score_in_batches(score: _ArrayFunction) -> _ArrayFunction:
    """Return a function that scores in batches."""
    return lambda crops: _fill(np.empty(len(crops), np.float64), score, crops)


def _explain_in_batches(explain: _ArrayFunction) -> _ArrayFunction:
    """Return a function that explains in batches."""
    return lambda crops: _fill(np.empty(crops.shape[:3], np.float32), explain, crops)


def _fill(result: np.ndarray, call: _ArrayFunction, crops: np.ndarray) -> np.ndarray:
    for start in range(0, len(crops), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        result[batch] = call(crops[batch])
    return result


def _resize(cam: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resize maps to [n, size, size] as `explain_faces` does: bilinear, by pixel centres."""
    enlarged = np.empty(shape, np.float32)
    for target, small in zip(enlarged, cam, strict=True):
        target[:] = cv2.resize(small, shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    return enlarged


@dataclass(frozen=True, eq=False)
class FacePredictions(Result):
    """Scores and labels of the faces of a dataset, in its order.

    Attributes:
        score: float64[n], P(fake).
        label: float64[n], of the dataset; 1 is fake.
        error: float64[n], mean squared error of the reconstruction per pixel and channel, pixels
            in -1..1; None if it was not computed.
        mean_face_mse: Error of a decoder that always returns the mean of these faces, which is
            their variance. A decoder that is not better has only learned the mean face.
    """

    score: np.ndarray
    label: np.ndarray
    error: np.ndarray | None = None
    mean_face_mse: float | None = None


def predict_dataset(
    model: "keras.Model", dataset: Iterable, *, reconstruct: bool = False
) -> FacePredictions:
    """Score every face of a dataset in one pass.

    Args:
        model: A detector of `build_detector`, with or without a decoder.
        dataset: Batches of (image, targets), as from `load_faces`; unshuffled if the scores are
            to be matched to faces.
        reconstruct: Run the decoder too, if the model has one, and measure its error.

    Returns:
        Scores and labels in the order of the dataset.

    Raises:
        ValueError: If the model has no output `classification`, the faces do not have its input
            size, or the dataset is empty.

    Example:
        >>> predict_dataset(model, load_faces("prepared", split="test")).score.dtype
        dtype('float64')
    """
    if not isinstance(model.output, dict) or "classification" not in model.output:
        raise ValueError(
            f"Expected a model with the output 'classification'; got {model.name!r} with "
            f"{model.output_names}. Pass a model of build_detector."
        )
    from jdfd_keras.model.network import classifier_branch

    reconstruct = reconstruct and "reconstruction" in model.output
    predictor = model if reconstruct else classifier_branch(model)
    scores, labels, errors, variance = [], [], [], _Variance()
    for image, targets in dataset:
        _check_size(model, image)
        outputs = predictor.predict_on_batch(image)
        if reconstruct:
            face = np.asarray(targets["reconstruction"], np.float64)
            variance.add(face)
            errors.append(np.square(outputs["reconstruction"] - face).mean(axis=(1, 2, 3)))
            outputs = outputs["classification"]
        scores.append(np.asarray(outputs, np.float64)[:, 0])
        labels.append(np.asarray(targets["classification"], np.float64)[:, 0])
    if not scores:
        raise ValueError(
            "Expected a dataset with at least one face; got none. Check whether every video of "
            "the split was excluded."
        )
    error = (np.concatenate(errors), variance.result()) if reconstruct else (None, None)
    return FacePredictions(np.concatenate(scores), np.concatenate(labels), *error)


class _Variance:
    """Running mean squared distance of faces from their mean face."""

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
        return max(0.0, float(variance))  # identical faces may round below 0


def _check_size(model: "keras.Model", image) -> None:
    expected = tuple(model.input_shape[1:])
    if tuple(image.shape[1:]) != expected:
        raise ValueError(
            f"Expected faces of {expected}, the input of {model.name!r}; got "
            f"{tuple(image.shape[1:])}. Prepare the dataset with the --face-size of the training "
            "data."
        )


def load_calibration(model_path: str | Path) -> Calibration | None:
    """Read the calibration of a trained detector.

    Args:
        model_path: A run folder, or a `.keras` file.

    Returns:
        The calibration; None if there is none, or if it belongs to another model of the run.

    Raises:
        ValueError: If it is damaged, or the best model of the run has changed since.

    Example:
        >>> load_calibration("run").temperature
        1.31
    """
    model_path = Path(model_path)
    run = model_path if model_path.is_dir() else model_path.parent
    if not (run / CALIBRATION).is_file():
        return None
    calibration = read_calibration(run / CALIBRATION)
    if calibration.model == digest_model(model_path):
        return calibration
    if model_path.is_dir():
        raise ValueError(
            f"Expected {run / CALIBRATION} to belong to {run / BEST}; got the calibration of "
            "another model, since training has continued. Run `jdfd-keras calibrate` again, or "
            "remove the file."
        )
    return None
