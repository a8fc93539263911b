"""Inference backends: scores and class-activation maps from a local model or a server.

Takes a path or a URL; returns a Predictor with the same results for both. TensorFlow is imported
only for a local model that OpenVINO does not run.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jdfd_keras.client.calibration import CALIBRATION, Calibration, read_calibration
from jdfd_keras.client.errors import SignatureMissing
from jdfd_keras.client.metadata import ModelMetadata, read_metadata
from jdfd_keras.client.signatures import (
    EXPLAIN,
    FACES,
    METADATA,
    RECONSTRUCT,
    find_model,
    find_versions,
)
from jdfd_keras.faces.extract import Extraction, encode_png
from jdfd_keras.inference.engine import (
    Engine,
    check_engine_options,
    identify_tensorflow,
    import_engine,
)
from jdfd_keras.inference.engine_errors import name_errors, naming_errors
from jdfd_keras.inference.openvino_engine import OpenVINOEngine, load_engine
from jdfd_keras.inference.openvino_network import CAM, RECONSTRUCTION, SCORES
from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import OPTIONS
from jdfd_keras.options import EngineOptions, EvaluateOptions
from jdfd_keras.training.headpose_run import is_headpose_run

if TYPE_CHECKING:
    import keras

    from jdfd_keras.client import Client

BATCH_SIZE = EvaluateOptions().batch_size
_ArrayFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Predictor:
    """A loaded model; call it with uint8[n, size, size, 3] RGB faces to get float64[n] P(fake).

    Example:
        >>> with contextlib.closing(load_predictor("saved_models/detector")) as predictor:
        ...     scores = predictor(np.zeros((2, 71, 71, 3), np.uint8))
        >>> scores.shape, scores.dtype
        ((2,), dtype('float64'))
    """

    name: str  # path or URL of the model
    metadata: ModelMetadata
    score: _ArrayFunction  # the function behind the call
    # From the same faces to float32[n, size, size] class-activation maps, all in one unit, if it
    # has them.
    explain: _ArrayFunction | None
    close: Callable[[], None] = lambda: None  # releases connections or memory
    engine: Engine = Engine("server")  # of the scores; maps are computed in float32
    # Faces that are computed together: the last digits of a score depend on the others.
    batch_size: int = BATCH_SIZE
    # From the same faces to float64[n], the mean squared error of their reconstruction per pixel
    # and channel, pixels in -1..1; None without a decoder.
    reconstruct_error: _ArrayFunction | None = None
    # Of Headpose, which scores no pixels: from the faces of a file to those that have a head pose,
    # and float64[n], their P(fake).
    score_poses: Callable[[Extraction], tuple[Extraction, np.ndarray]] | None = None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Score faces."""
        return self.score(crops)


def load_predictor(
    model: str | Path | None = None, engine: EngineOptions | None = None
) -> Predictor:
    """Load a local model, or connect to a served one.

    An exported model is run by OpenVINO if it was exported with the files for it, and if the
    processor computes in the precision. Else TensorFlow takes over in float32, and a message on
    stderr and the predictor's `engine` state why.

    Args:
        model: A run folder, a .keras file, an exported model `saved_models/<name>` (its newest
            version is used) or one version of it; the name of an exported model, as for
            `find_model`; or the URL of a served model, as for `client.connect`. By default the
            detector that comes with the package.
        engine: Backend and precision of the scores of a local model.

    Returns:
        The predictor. For a URL, faces are sent as PNG, which is lossless. The predictor keeps
        the version that it connected to, if this is served under the number it was exported with,
        and fails once the server unloads it.

    Raises:
        OSError, ValueError: If there is no such model, the requested engine cannot run it, or the
            server is unreachable. An exception of the engine in a later call is an OSError, too.

    Example:
        >>> predictor = load_predictor("saved_models/detector", EngineOptions(backend="tensorflow"))
        >>> predictor.metadata.version, predictor.engine.describe()
        (1, 'TensorFlow 2..., float32')
    """
    options = engine or EngineOptions()
    check_engine_options(options)
    if "://" in str(model):
        if options != EngineOptions():
            raise ValueError(
                "Expected no --backend and --precision with a server, which chooses its own "
                f"engine; got {options.backend} and {options.precision}. Omit them."
            )
        return _load_served(str(model))
    path = Path(find_model(model))
    with naming_errors(f"a model that can be loaded from {path}", is_load=True):
        predictor = _load_local(path, options)
    explain, measure = predictor.explain, predictor.reconstruct_error
    return dataclasses.replace(
        predictor,
        score=name_errors(predictor.score, "scores", path),
        explain=explain and name_errors(explain, "class-activation maps", path),
        reconstruct_error=measure and name_errors(measure, "reconstructions", path),
    )


def _load_local(path: Path, options: EngineOptions) -> Predictor:
    if is_headpose_run(path):
        from jdfd_keras.inference.headpose_predictor import load_headpose_predictor

        return load_headpose_predictor(path, options)
    is_version = (path / "saved_model.pb").is_file()
    if not is_version and (path.suffix == ".keras" or (path / OPTIONS).is_file()):
        return _load_keras(path, identify_tensorflow(path, options))
    version = path if is_version else next(iter(find_versions(path).values()))
    openvino, note = load_engine(version, options)
    if openvino:
        return _from_openvino(openvino)
    predictor = _load_saved_model(version, note)
    if note:
        print_message(f"scores by {predictor.engine.describe()}: {note}")
    return predictor


def _load_served(url: str) -> Predictor:
    client = _connect_to_version(url)

    def score(crops: np.ndarray) -> np.ndarray:
        return client.predict_faces([encode_png(crop) for crop in crops])

    explain = partial(_compute_maps, client.explain) if EXPLAIN in client.signatures else None
    errors = client.reconstruct_error if RECONSTRUCT in client.signatures else None
    # A server that does not state its engine may be TensorFlow Serving.
    engine = Engine(**{"backend": "server"} | client.engine)
    return Predictor(
        client.url, client.metadata, score, explain, client.close, engine, reconstruct_error=errors
    )


def _connect_to_version(url: str) -> "Client":
    """Connect to a fixed version: the newest, or that of a label, may soon be another one."""
    from jdfd_keras.client import connect

    client = connect(url, batch_size=BATCH_SIZE)
    try:
        metadata = client.metadata
    except OSError:
        client.close()
        raise
    if re.search("/versions/[^/]+/?$", url):
        return client
    # If it is served under another number than it was exported with, that number is missing or
    # another model; only the given URL is then certain.
    with contextlib.suppress(OSError):
        name = re.sub("(/labels/[^/]+)?/?$", "", url)
        pinned = connect(f"{name}/versions/{metadata.version}", batch_size=BATCH_SIZE)
        if pinned.metadata == metadata:
            client.close()
            return pinned
        pinned.close()
    return client


def _from_openvino(openvino: OpenVINOEngine) -> Predictor:
    maps = partial(_compute_maps, partial(openvino.run, CAM)) if CAM in openvino.outputs else None

    def reconstruct(crops: np.ndarray) -> np.ndarray:
        return _measure_errors(openvino.run(RECONSTRUCTION, crops, is_fast=True), crops)

    has_decoder = RECONSTRUCTION in openvino.outputs
    return Predictor(
        str(openvino.path),
        openvino.metadata,
        lambda crops: openvino.run(SCORES, crops).astype(np.float64),
        maps,
        openvino.close,
        openvino.engine,
        batch_size=1,
        reconstruct_error=partial(_compute_scores, reconstruct) if has_decoder else None,
    )


def _load_saved_model(path: Path, note: str) -> Predictor:
    identity = import_engine(note)
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
        return engine.run(EXPLAIN, {"faces": crops})["cam"]

    def reconstruct(crops: np.ndarray) -> np.ndarray:
        return engine.run(RECONSTRUCT, {"faces": crops})["error"]

    maps = partial(_compute_maps, explain) if EXPLAIN in engine.signatures else None
    errors = partial(_compute_scores, reconstruct) if RECONSTRUCT in engine.signatures else None
    scores = partial(_compute_scores, score)
    return Predictor(
        str(path), metadata, scores, maps, engine.close, identity, reconstruct_error=errors
    )


def _load_keras(path: Path, identity: Engine) -> Predictor:
    import tensorflow as tf

    from jdfd_keras.inference.explain import make_cam_fn
    from jdfd_keras.model.network import classifier_branch, digest_weights
    from jdfd_keras.training.run_folder import load_run_model

    calibration = load_calibration(path)
    run = load_run_model(path)
    classifier = classifier_branch(run.model)
    correct = (calibration or Calibration()).apply
    pixels = tf.TensorSpec(run.model.input_shape, tf.float32)
    cam = tf.function(make_cam_fn(run.model), input_signature=[pixels])

    def score(crops: np.ndarray) -> np.ndarray:
        return correct(classifier.predict_on_batch(crops.astype(np.float32))[:, 0])

    def explain(crops: np.ndarray) -> np.ndarray:
        return cam(tf.constant(crops, tf.float32))["cam"].numpy()

    # Its version is 0 until it is exported.
    digest = digest_weights(run.model)
    metadata = ModelMetadata(run.faces, calibration, path.stem, 0, digest, run.demonstration)
    scores, maps = partial(_compute_scores, score), partial(_compute_maps, explain)
    errors = make_reconstruct_error(run.model)
    return Predictor(str(path), metadata, scores, maps, engine=identity, reconstruct_error=errors)


def make_reconstruct_error(model: "keras.Model") -> _ArrayFunction | None:
    """Create the function `reconstruct_error` of a Predictor for a detector.

    Returns:
        The function; None if the model has no decoder.

    Example:
        >>> import jdfd_keras as jk
        >>> measure = make_reconstruct_error(jk.load_run_model("run").model)
        >>> measure(np.zeros((2, 71, 71, 3), np.uint8)).shape
        (2,)
    """
    if "reconstruction" not in model.output:
        return None

    def reconstruct(crops: np.ndarray) -> np.ndarray:
        outputs = model.predict_on_batch(crops.astype(np.float32))
        return _measure_errors(outputs["reconstruction"], crops)

    return partial(_compute_scores, reconstruct)


def _compute_scores(score: _ArrayFunction, crops: np.ndarray) -> np.ndarray:
    scores = np.empty(len(crops), np.float64)
    for start in range(0, len(crops), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        scores[batch] = score(crops[batch])
    return scores


def _measure_errors(reconstruction: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Compute the mean squared errors, as the signature `reconstruct` does."""
    difference = reconstruction - (crops / np.float32(127.5) - 1)
    return np.square(difference).mean(axis=(1, 2, 3))


def _compute_maps(explain: _ArrayFunction, crops: np.ndarray) -> np.ndarray:
    """Explain in batches and resize the maps as `explain_faces`: bilinear, by pixel centres."""
    maps = np.empty(crops.shape[:3], np.float32)
    for start in range(0, len(crops), BATCH_SIZE):
        for face, cam in enumerate(explain(crops[start : start + BATCH_SIZE]), start):
            maps[face] = cv2.resize(cam, maps.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    return maps


def load_calibration(model_path: str | Path) -> Calibration | None:
    """Read the calibration of a run folder or of a .keras file in it.

    Returns:
        The calibration; None if there is none, or if it belongs to another model of the run.

    Raises:
        ValueError: If the best model of the run has changed since.

    Example:
        >>> load_calibration("run").num_real
        2
    """
    from jdfd_keras.training.run_folder import digest_model, find_model_file

    model_path = Path(model_path)
    run = model_path if model_path.is_dir() else model_path.parent
    if not (run / CALIBRATION).is_file():
        return None
    calibration = read_calibration(run / CALIBRATION)
    if calibration.model == digest_model(model_path):
        return calibration
    if model_path.is_dir():
        raise ValueError(
            f"Expected {run / CALIBRATION} to belong to {find_model_file(run)}; got that of "
            "another model, since training has continued. Run `jdfd-keras calibrate` again, or "
            "remove the file."
        )
    return None
