"""A detector for TensorFlow Lite, small enough for a phone, and what that costs.

Takes a Keras model and a prepared data set; writes `.tflite` files that score, and how their AUC
differs from the model's own. The decoder is left out. Knows nothing of SavedModels.
"""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.metadata import SMALLEST, Calibration
from jdfd_keras.client.signatures import SCORE_FACES
from jdfd_keras.datasets.face_index import COLUMNS, FaceList, list_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.inference.explain import LOGIT
from jdfd_keras.reporting.markdown import table
from jdfd_keras.reporting.report_text import format_value
from jdfd_keras.serving.export.graph import Weights, score_of

KINDS = ("float16", "int8")
COSTS_FILE = "tflite.json"
FITTED, MEASURED = "train", "val"  # the splits
# Evenly spread over their split: enough for the range of every value, and for an AUC.
MOST_FITTED, MOST_MEASURED = 200, 1000


@dataclass(frozen=True)
class LiteCost:
    """What one format costs.

    Attributes:
        kind: Of KINDS.
        file: Its name, beside the list of costs.
        bytes: Its size.
        split: Of which faces this was measured, and
        num_faces: on how many.
        auc: Frame AUC of the model itself on these; None where a class is absent.
        lite_auc: That of the format.
        auc_loss: The first less the second.
        largest_change: Of the score of one face.
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
    """See that formats are known and have the data that they take.

    Raises:
        ValueError: If not.
    """
    if set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"Expected formats of TensorFlow Lite, each once, of {', '.join(KINDS)}; got "
            f"{', '.join(kinds)}."
        )
    if kinds and data is None:
        raise ValueError(
            f"Expected a prepared data set with {', '.join(kinds)}, to fit it and to measure what "
            "it costs; got none. Give --data."
        )


def export_all_lite(
    model: keras.Model,
    directory: Path,
    kinds: Sequence[str],
    calibration: Calibration | None,
    data: str | Path,
) -> list[LiteCost]:
    """Write formats of a detector, and what they cost.

    Args:
        model: A detector as `build_detector` makes it.
        directory: Where `classifier-<kind>.tflite` and tflite.json are written.
        kinds: Of KINDS.
        calibration: How scores are corrected, in the graph; not at all if not given.
        data: A prepared data set: int8 is fitted to its training faces, all are measured on
            those of validation.

    Returns:
        The cost of each, in the order of `kinds`.

    Raises:
        OSError: If the folder is no prepared data set.
        ValueError: If a split has no labelled faces, or faces of another size.
    """
    calibration = calibration or Calibration()
    size = model.input.shape[1]
    faces, label = _read_faces(data, MEASURED, MOST_MEASURED, size)
    score = tf.function(score_of(model, calibration))
    scores = np.concatenate([score(tf.cast(face[None], tf.float32)) for face in faces])
    auc = measure_auc(label == 1, scores.astype(np.float64))
    costs = []
    for kind in kinds:
        fitted = _read_faces(data, FITTED, MOST_FITTED, size)[0] if kind == "int8" else None
        path = directory / f"classifier-{kind}.tflite"
        path.write_bytes(convert_lite(model, kind, calibration, fitted))
        lite_scores = score_lite(path, faces)
        lite_auc = measure_auc(label == 1, lite_scores.astype(np.float64))
        costs.append(
            LiteCost(
                kind=kind,
                file=path.name,
                bytes=path.stat().st_size,
                split=MEASURED,
                num_faces=len(faces),
                auc=auc,
                lite_auc=lite_auc,
                auc_loss=None if auc is None else auc - lite_auc,
                largest_change=float(np.abs(lite_scores - scores).max()),
            )
        )
    told = json.dumps([asdict(cost) for cost in costs], indent=2)
    (directory / COSTS_FILE).write_text(f"{told}\n", encoding="utf-8")
    return costs


def convert_lite(
    model: keras.Model, kind: str, calibration: Calibration, fitted: np.ndarray | None = None
) -> bytes:
    """Convert the classification of a detector.

    Args:
        model: The detector.
        kind: `float16`: weights of half the size; `int8`: weights and arithmetic of 8 bits.
        calibration: How scores are corrected.
        fitted: uint8[m, size, size, 3], for int8: faces that show the range of every value.

    Returns:
        The file. Its signature `faces` takes `faces` uint8[n, size, size, 3] and gives `scores`
        float32[n].
    """
    logit_of = keras.Model(model.input, model.get_layer(LOGIT).output)
    # As `Calibration` cuts them; but from the logit itself: in 8 bits a score is 255/256 at most,
    # of which no correction makes several again.
    largest = np.log((1 - SMALLEST) / SMALLEST)
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="faces")

    @tf.function(input_signature=[spec])
    def score_faces(faces):
        logit = logit_of(tf.cast(faces, tf.float32), training=False)[:, 0]
        kept = tf.clip_by_value(logit, -largest, largest)
        return {"scores": tf.sigmoid(kept / calibration.temperature)}

    # Through a SavedModel: of a function alone the converter forgets the names (2.21.0).
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(Weights(model), directory, signatures={SCORE_FACES: score_faces})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=[SCORE_FACES]
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        else:
            converter.representative_dataset = lambda: ({"faces": face[None]} for face in fitted)
        with _without_deletion_warning():
            return converter.convert()


def score_lite(path: Path, faces: np.ndarray) -> np.ndarray:
    """Score faces with a converted detector.

    Args:
        path: The file.
        faces: uint8[n, size, size, 3].

    Returns:
        float32[n].
    """
    with _without_deletion_warning():
        interpreter = tf.lite.Interpreter(model_path=str(path))
    run = interpreter.get_signature_runner(SCORE_FACES)
    return np.concatenate([run(faces=face[None])["scores"] for face in faces])


def tell_lite(costs: Sequence[LiteCost]) -> dict[str, str]:
    """Tell what formats cost, as a section of the model card."""
    rows = [
        (
            cost.file,
            f"{cost.bytes / 2**20:.1f} MiB",
            *map(format_value, (cost.auc, cost.lite_auc, cost.auc_loss)),
            f"{cost.largest_change:.3f}",
        )
        for cost in costs
    ]
    header = ("file", "size", "frame AUC of the model", "of the file", "loss", "largest change")
    return {
        "TensorFlow Lite": f"{table(header, rows, align='lrrrrr')}\n\n"
        f"Measured on {costs[0].num_faces} faces of the split `{costs[0].split}`. The last column "
        "is how far the score of one face moved. The files lie in assets.extra; they take faces "
        "uint8[n, size, size, 3] and give the scores alone."
    }


def _read_faces(
    data: str | Path, split: str, most: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read labelled faces spread evenly over a split, and their labels."""
    table = read_faces(data, split=split, columns=COLUMNS)
    table = table.filter(np.asarray(table["label"]) != UNLABELLED)
    faces: FaceList = list_faces(data, table)
    if not len(faces) or faces.face_size != size:
        raise ValueError(
            f"Expected labelled faces of {size} pixels in the split {split!r} of {data}; got "
            f"{len(faces)} of {faces.face_size}. Give the data set that the model was trained on."
        )
    chosen = np.unique(np.linspace(0, len(faces) - 1, most).round().astype(int))
    return np.stack([faces.read(place) for place in chosen]), faces.label[chosen]


@contextlib.contextmanager
def _without_deletion_warning() -> Iterator[None]:
    # The interpreter warns of its end in TensorFlow 2.20, and is there in 2.21.0.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        yield
