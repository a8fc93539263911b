"""Conversion of the classifier to TensorFlow Lite, with the loss of accuracy.

Takes a Keras model and a prepared dataset; writes `.tflite` files without the decoder, and the
differences of their scores and AUC from the model's.
"""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.metadata import SMALLEST, Calibration
from jdfd_keras.client.signatures import FACES
from jdfd_keras.datasets.face_index import COLUMNS, FaceIndex, index_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.inference.explain import LOGIT
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, atomic_path, load_groups, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.reporting.markdown import table
from jdfd_keras.reporting.report_text import format_value
from jdfd_keras.serving.export.graph import Weights, make_score_fn

KINDS = ("float16", "int8")
COSTS_FILE = "tflite.json"
CALIBRATION_SPLIT, EVALUATION_SPLIT = "train", "val"
# Evenly spread over the split: enough for the value ranges of int8, and for an AUC.
NUM_CALIBRATION_FACES, NUM_EVALUATION_FACES = 200, 1000


@dataclass(frozen=True)
class LiteCost(Result):
    """Size and loss of accuracy of one format.

    Attributes:
        kind: One of KINDS.
        file: File name, in the same folder as tflite.json.
        bytes: File size.
        split: Split of the evaluation faces.
        num_faces: Number of evaluation faces.
        auc: Frame AUC of the Keras model; None if a class is absent.
        lite_auc: Frame AUC of the file.
        auc_loss: `auc` minus `lite_auc`.
        largest_change: Largest absolute difference between the two scores of a face.
    """

    kind: str
    file: str
    bytes: int
    split: str
    num_faces: int
    auc: float | None
    lite_auc: float | None
    auc_loss: float | None
    largest_change: float


def check_lite(kinds: Sequence[str], data: str | Path | None) -> None:
    """Check the requested formats before anything is written.

    Raises:
        OSError: If `data` is not a prepared dataset.
        ValueError: If a format is unknown or repeated, or there is no dataset.

    Example:
        >>> check_lite(["float16", "int8"], data="prepared")
    """
    if set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"Expected formats of TensorFlow Lite, each once, of {', '.join(KINDS)}; got "
            f"{', '.join(kinds)}. Try {KINDS[0]}."
        )
    if kinds and data is None:
        raise ValueError(
            f"Expected a prepared dataset with {', '.join(kinds)}, to calibrate and evaluate the "
            "format; got none. Give --data."
        )
    if data is not None:
        load_groups(Path(data) / OPTIONS)


def export_all_lite(
    model: keras.Model,
    directory: Path,
    kinds: Sequence[str],
    calibration: Calibration | None,
    data: str | Path,
) -> list[LiteCost]:
    """Convert a detector to several formats and evaluate each.

    Args:
        model: A detector from `build_detector`.
        directory: Output folder for `classifier-<kind>.tflite` and tflite.json.
        kinds: Formats, of KINDS.
        calibration: Calibration of the scores, applied in the graph; none if None.
        data: A prepared dataset: value ranges of int8 come from its training faces, all formats
            are evaluated on its validation faces.

    Returns:
        One result per format, in the order of `kinds`.

    Raises:
        OSError: If the folder is not a prepared dataset.
        ValueError: If a split has no labelled faces, or faces of another size.
    """
    calibration = calibration or Calibration()
    size = model.input.shape[1]
    faces, label = _read_faces(data, EVALUATION_SPLIT, NUM_EVALUATION_FACES, size)
    score = tf.function(make_score_fn(model, calibration))
    scores = np.concatenate([score(tf.cast(face[None], tf.float32)) for face in faces])
    auc = measure_auc(label == 1, scores.astype(np.float64))
    costs = []
    for kind in kinds:
        calibration_faces = None
        if kind == "int8":
            calibration_faces, _ = _read_faces(data, CALIBRATION_SPLIT, NUM_CALIBRATION_FACES, size)
        path = directory / f"classifier-{kind}.tflite"
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(convert_lite(model, kind, calibration, calibration_faces))
        lite_scores = score_lite(path, faces)
        lite_auc = measure_auc(label == 1, lite_scores.astype(np.float64))
        costs.append(
            LiteCost(
                kind=kind,
                file=path.name,
                bytes=path.stat().st_size,
                split=EVALUATION_SPLIT,
                num_faces=len(faces),
                auc=auc,
                lite_auc=lite_auc,
                auc_loss=None if auc is None else auc - lite_auc,
                largest_change=float(np.abs(lite_scores - scores).max()),
            )
        )
    text = json.dumps([cost.to_dict() for cost in costs], indent=2)
    write_text_atomically(directory / COSTS_FILE, f"{text}\n")
    return costs


def convert_lite(
    model: keras.Model, kind: str, calibration: Calibration, faces: np.ndarray | None = None
) -> bytes:
    """Convert the classifier of a detector.

    Args:
        model: The detector.
        kind: `float16`: weights of 16 bits; `int8`: weights and arithmetic of 8 bits.
        calibration: Calibration of the scores.
        faces: uint8[m, size, size, 3], for int8: representative faces for the value ranges.

    Returns:
        The content of a `.tflite` file. Its signature `faces` maps `faces`
        uint8[n, size, size, 3] to `scores` float32[n].
    """
    logit_model = keras.Model(model.input, model.get_layer(LOGIT).output)
    # Clipped as in `Calibration`, but from the logit: in 8 bits a score is at most 255/256, and
    # calibration cannot separate scores that were rounded to it.
    largest = np.log((1 - SMALLEST) / SMALLEST)
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="faces")

    @tf.function(input_signature=[spec])
    def score_faces(faces):
        logit = logit_model(tf.cast(faces, tf.float32), training=False)[:, 0]
        clipped = tf.clip_by_value(logit, -largest, largest)
        return {"scores": tf.sigmoid(clipped / calibration.temperature)}

    # From a SavedModel: the converter loses the names of a plain function (2.21.0).
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(Weights(model), directory, signatures={FACES: score_faces})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[FACES])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        else:
            converter.representative_dataset = lambda: ({"faces": face[None]} for face in faces)
        with _without_deletion_warning():
            return converter.convert()


def score_lite(path: Path, faces: np.ndarray) -> np.ndarray:
    """Score faces with a converted detector.

    Args:
        path: A `.tflite` file.
        faces: uint8[n, size, size, 3], RGB.

    Returns:
        float32[n], P(fake), in [0, 1].
    """
    with _without_deletion_warning():
        interpreter = tf.lite.Interpreter(model_path=str(path))
    run = interpreter.get_signature_runner(FACES)
    return np.concatenate([run(faces=face[None])["scores"] for face in faces])


def describe_lite(costs: Sequence[LiteCost]) -> dict[str, str]:
    """Return a section of the model card, as Markdown by title."""
    rows = [
        (
            cost.file,
            f"{cost.bytes / 2**20:.1f} MiB",
            *map(format_value, (cost.auc, cost.lite_auc, cost.auc_loss)),
            f"{cost.largest_change:.3f}",
        )
        for cost in costs
    ]
    header = ("file", "size", "frame AUC (model)", "frame AUC (file)", "loss", "largest change")
    return {
        "TensorFlow Lite": f"{table(header, rows, align='lrrrrr')}\n\n"
        f"Measured on {plural(costs[0].num_faces, 'face')} of the split `{costs[0].split}`. The "
        "last column is the largest change of the score of one face. The files are in "
        "assets.extra; their input is faces uint8[n, size, size, 3], their output is the scores."
    }


def _read_faces(
    data: str | Path, split: str, count: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read up to `count` labelled faces spread evenly over a split, and their labels."""
    table = read_faces(data, split=split, columns=COLUMNS)
    table = table.filter(np.asarray(table["label"]) != UNLABELLED)
    faces: FaceIndex = index_faces(data, table)
    if not len(faces) or faces.face_size != size:
        raise ValueError(
            f"Expected labelled faces of {size} pixels in the split {split!r} of {data}; got "
            f"{len(faces)} of {faces.face_size}. Give the dataset that the model was trained on."
        )
    chosen = np.unique(np.linspace(0, len(faces) - 1, count).round().astype(int))
    return np.stack([faces.read(index) for index in chosen]), faces.label[chosen]


@contextlib.contextmanager
def _without_deletion_warning() -> Iterator[None]:
    # The interpreter announces its removal in TensorFlow 2.20, but 2.21.0 still has it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        yield
