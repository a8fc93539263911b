"""Export of the classifier for other runtimes, with the loss of accuracy.

Takes a Keras model and a prepared dataset; writes LiteRT (TensorFlow Lite) and ONNX files without
the decoder, except with attention, which needs it, and the differences of their scores and AUC from
the model's. OpenVINO reads the ONNX file, too.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.calibration import SMALLEST, Calibration
from jdfd_keras.datasets.face_index import COLUMNS, index_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.split_tables import OFFICIAL, find_table_or_official
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.inference.explain import LOGIT
from jdfd_keras.io.files import OPTIONS, load_groups, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.model.network import classifier_branch
from jdfd_keras.training.run_folder import find_split_table

FILES = {
    "float16": "classifier-float16.tflite",
    "int8": "classifier-int8.tflite",
    "onnx": "classifier.onnx",
}
OPENVINO_INT8 = "openvino-int8"  # in another folder, with the other files of the engine
COSTS_FILE = "formats.json"
ONNX_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")
CALIBRATION_SPLIT, EVALUATION_SPLIT = "train", "val"
# Evenly spread over the split: enough for the value ranges of int8, and for an AUC.
NUM_CALIBRATION_FACES, NUM_EVALUATION_FACES = 200, 1000


@dataclass(frozen=True)
class FormatCost(Result):
    """Size and loss of accuracy of one format.

    Attributes:
        kind: Format, one of FILES.
        file: File name, in the same folder as formats.json.
        bytes: File size.
        split: Split of the faces that were scored.
        num_faces: Number of these faces.
        auc: Frame AUC of the Keras model; None if a class is absent.
        file_auc: Frame AUC of the file.
        auc_loss: `auc` minus `file_auc`.
        largest_change: Largest absolute difference between the two scores of a face.
    """

    kind: str
    file: str
    bytes: int
    split: str
    num_faces: int
    auc: float | None
    file_auc: float | None
    auc_loss: float | None
    largest_change: float


def check_formats(
    kinds: Sequence[str],
    data: str | Path | None,
    foreign: str | Path | None = None,
    *,
    allow_loss: bool = False,
) -> None:
    """Check the requested formats before anything is written.

    Args:
        kinds: Formats: FILES and OPENVINO_INT8.
        data: A prepared dataset, needed by every format.
        foreign: A second one, for OPENVINO_INT8 only.
        allow_loss: Whether OPENVINO_INT8 may lose too much.

    Raises:
        OSError: If `data` or `foreign` is not a prepared dataset, or a package is not installed.
        ValueError: If a format is unknown or repeated, or a format lacks a dataset or a dataset its
            format.

    Example:
        >>> check_formats(["float16"], data=None)
        Traceback (most recent call last):
        ValueError: Expected both formats and data or neither, ...
    """
    known = (*FILES, OPENVINO_INT8)
    if set(kinds) - set(known) or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"Expected formats, each once, of {', '.join(known)}; got {', '.join(kinds)}. Try int8."
        )
    if bool(kinds) != (data is not None):
        raise ValueError(
            "Expected both formats and data or neither, since data calibrates int8 and measures "
            f"the loss of AUC; got the formats {', '.join(kinds) or 'none'} and the data "
            f"{data or 'none'}. Try --formats float16 int8 --data DATA."
        )
    is_int8 = OPENVINO_INT8 in kinds
    if is_int8 != (foreign is not None) or (allow_loss and not is_int8):
        raise ValueError(
            f"Expected foreign data for {OPENVINO_INT8}, and it or --allow-loss for nothing else; "
            f"got the formats {', '.join(kinds) or 'none'} and the foreign data "
            f"{foreign or 'none'}. Try --formats {OPENVINO_INT8} --data DATA --foreign OTHER, "
            "where OTHER was prepared from videos of another source."
        )
    if is_int8 and importlib.util.find_spec("nncf") is None:
        raise OSError(
            f"Expected nncf to be installed for {OPENVINO_INT8}; got no such package. Try "
            "`pip install 'jdfd-keras[int8]'`."
        )
    if "onnx" in kinds:
        missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise OSError(
                f"Expected the packages {', '.join(ONNX_PACKAGES)} to export ONNX; got no "
                f"{', '.join(missing)}. Try `pip install jdfd-keras[onnx]`."
            )
    for one in filter(None, (data, foreign)):
        load_groups(Path(one) / OPTIONS)


def choose_split_table(model_path: str | Path | None, data: str | Path) -> str:
    """Return the split table that a model was trained with, if a dataset has it, else OFFICIAL.

    Args:
        model_path: Run folder or `.keras` file; None if unknown.
        data: A prepared dataset.

    Example:
        >>> choose_split_table("run", "prepared")
        'official'
    """
    trained = "" if model_path is None else find_split_table(model_path)
    is_file = trained.endswith(".csv") and Path(trained).is_file()
    return trained if is_file else find_table_or_official(data, trained) or OFFICIAL


def export_formats(
    model: keras.Model,
    directory: Path,
    kinds: Sequence[str],
    calibration: Calibration | None,
    data: str | Path,
    split_table: str = OFFICIAL,
) -> list[FormatCost]:
    """Convert the classifier of a detector to several formats, and evaluate each.

    The input of each file is `faces` uint8[n, size, size, 3], its output `scores` float32[n].

    Args:
        model: A detector from `build_detector`.
        directory: Output folder for the FILES and formats.json.
        kinds: Formats, of FILES.
        calibration: Calibration of the scores, applied in the graph; none if None.
        data: A prepared dataset: value ranges of int8 come from its training faces, all formats
            are evaluated on its validation faces.
        split_table: Its split table, by name or path.

    Returns:
        One result per format, in the order of `kinds`.

    Raises:
        OSError: If the folder is not a prepared dataset, or has no such split table.
        ValueError: If a split has no labelled faces, or faces of another size.

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> model = load_run_model("run").model
        >>> (cost,) = export_formats(model, Path("."), ["float16"], None, "prepared")
        >>> cost.file, cost.num_faces, cost.largest_change < 0.001
        ('classifier-float16.tflite', 16, True)
    """
    size = model.input_shape[1]
    faces, label = _read_faces(data, EVALUATION_SPLIT, split_table, NUM_EVALUATION_FACES, size)
    calibration = calibration or Calibration()
    score = tf.function(make_score_fn(model, calibration))
    scores = np.concatenate([score(tf.cast(face[None], tf.float32)) for face in faces])
    classifier = _build_classifier(model, calibration)
    classifier(faces[:1])  # Keras exports ONNX only of a model that was called (3.15.1)
    auc = measure_auc(label == 1, scores.astype(np.float64))
    costs = []
    for kind in kinds:
        path = directory / FILES[kind]
        examples = None
        if kind == "int8":
            count = NUM_CALIBRATION_FACES
            examples, _ = _read_faces(data, CALIBRATION_SPLIT, split_table, count, size)
        _convert(classifier, path, kind, examples)
        file_scores = _score_file(path, faces)
        file_auc = measure_auc(label == 1, file_scores.astype(np.float64))
        costs.append(
            FormatCost(
                kind=kind,
                file=path.name,
                bytes=path.stat().st_size,
                split=EVALUATION_SPLIT,
                num_faces=len(faces),
                auc=auc,
                file_auc=file_auc,
                auc_loss=None if auc is None or file_auc is None else auc - file_auc,
                largest_change=float(np.abs(file_scores - scores).max()),
            )
        )
    text = json.dumps([cost.to_dict() for cost in costs], indent=2)
    write_text_atomically(directory / COSTS_FILE, f"{text}\n")
    return costs


def make_score_fn(model: keras.Model, calibration: Calibration) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the scoring function of a detector, for use in a graph.

    Args:
        model: A detector.
        calibration: Calibration of the scores.

    Returns:
        A function from float32[n, S, S, 3], pixel values in [0, 255], to float32[n], P(fake).

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> score = make_score_fn(load_run_model("run").model, Calibration())
        >>> score(tf.zeros([2, 71, 71, 3])).shape
        TensorShape([2])
    """
    # A model with this output only, so that a decoder it does not need is not part of the graph.
    classifier = classifier_branch(model)

    def score(image: tf.Tensor) -> tf.Tensor:
        raw = classifier(image, training=False)[:, 0]
        if (calibration.temperature, calibration.bias) == (1, 0):
            return raw
        clipped = tf.clip_by_value(raw, SMALLEST, 1 - SMALLEST)
        logit = tf.math.log(clipped / (1 - clipped))
        return tf.sigmoid(logit / calibration.temperature + calibration.bias)

    return score


def _convert(classifier: keras.Model, path: Path, kind: str, examples: np.ndarray | None) -> None:
    """Write a classifier in one format; int8 takes its value ranges from example faces."""
    options: dict[str, Any] = {"format": "onnx"}
    if kind != "onnx":
        options = {"format": "litert", "optimizations": [tf.lite.Optimize.DEFAULT]}
    if kind == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if examples is not None:
        options["representative_dataset"] = lambda: ([face[None]] for face in examples)
    with warnings.catch_warnings():
        # Keras looks for np.object, which is a warning of NumPy 2 (3.15.1).
        warnings.filterwarnings("ignore", message="In the future `np.object`")
        classifier.export(path, verbose=False, **options)


def _build_classifier(model: keras.Model, calibration: Calibration) -> keras.Model:
    """Return the classifier with its calibration, from uint8 crops to scores."""
    faces = keras.Input(model.input_shape[1:], dtype="uint8", name="faces")
    logit_model = keras.Model(model.input, model.get_layer(LOGIT).output)
    logit = logit_model(keras.ops.cast(faces, "float32"))[:, 0]
    # Clipped as in `Calibration`, but from the logit: in 8 bits a score is at most 255/256, and
    # calibration cannot separate scores that were rounded to it.
    largest = np.log((1 - SMALLEST) / SMALLEST)
    clipped = keras.ops.clip(logit, -largest, largest)
    corrected = keras.ops.add(keras.ops.divide(clipped, calibration.temperature), calibration.bias)
    return keras.Model(faces, {"scores": keras.ops.sigmoid(corrected)})


def _score_file(path: Path, faces: np.ndarray) -> np.ndarray:
    """Score faces with the runtime of a `.tflite` or `.onnx` file, one by one."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        scores = [session.run(["scores"], {"faces": face[None]})[0] for face in faces]
        return np.concatenate(cast("list[np.ndarray]", scores))
    with warnings.catch_warnings():
        # It announces its removal in TensorFlow 2.20, but 2.21.0 still has it.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        run = tf.lite.Interpreter(model_path=str(path)).get_signature_runner()
    return np.concatenate([run(faces=face[None])["scores"] for face in faces])


def _read_faces(
    data: str | Path, split: str, split_table: str, count: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read up to `count` labelled faces spread evenly over a split, and their labels."""
    table = read_faces(data, split=split, split_table=split_table, columns=COLUMNS)
    faces = index_faces(data, table.filter(np.asarray(table["label"]) != UNLABELLED))
    if not len(faces) or faces.face_size != size:
        raise ValueError(
            f"Expected labelled faces of {size} pixels in the split {split!r} of {data}; got "
            f"{len(faces)} of {faces.face_size}. Give the dataset that the model was trained on."
        )
    chosen = np.unique(np.linspace(0, len(faces) - 1, count).round().astype(int))
    return np.stack([faces.read(index) for index in chosen]), faces.label[chosen]
