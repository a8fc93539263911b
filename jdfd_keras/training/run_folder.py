"""The run folder: names, formats, reading and writing of the files of one training.

    <run>/options.json             options of the run, facts about its dataset and its location
    <run>/history.csv              one row of losses and metrics per epoch
    <run>/curves.png               the same as curves
    <run>/reconstructions.png      some validation faces above their reconstructions
    <run>/best.keras               detector of the epoch with the best validation frame AUC
    <run>/last.keras               detector of the last epoch
    <run>/checkpoint.npz           complete state of the training, for resuming
    <run>/training_faces.parquet   video, sources, hash and label of every face of the training
    <run>/logs/                    TensorBoard

Trains nothing. Imports Keras only when a model is read or written.
"""

import csv
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from jdfd_keras.io.files import OPTIONS, atomic_path, load_groups, load_options, sha256_of
from jdfd_keras.options import FaceOptions

if TYPE_CHECKING:
    import keras

HISTORY = "history.csv"
CURVES = "curves.png"
RECONSTRUCTIONS = "reconstructions.png"
BEST = "best.keras"
LAST = "last.keras"
LOGS = "logs"
PROVENANCE = "training_faces.parquet"
MONITOR = "val_classification_frame_auc"  # metric that selects the best epoch
OUTPUTS = ({"classification"}, {"classification", "reconstruction"})  # of a detector


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data of a run, kept in its options.json.

    Attributes:
        name: Name of the dataset.
        digest: Digest of video, hash and label of all faces, which identifies the data.
        train_faces: Training faces, including the unlabelled ones.
        unlabelled_faces: Training faces that train the decoder only.
        val_faces: Labelled validation faces.
        leakage: Leakage between the splits, as a sentence.
    """

    name: str
    digest: str
    train_faces: int
    unlabelled_faces: int
    val_faces: int
    leakage: str


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained detector.

    Attributes:
        model: The model; it computes in float32 even if it was trained in mixed precision.
        faces: Options of the face crops it was trained on.
    """

    model: "keras.Model"
    faces: FaceOptions


def load_run_model(path: str | Path) -> TrainedModel:
    """Load a trained detector.

    Args:
        path: A run folder, of which the best model is loaded, or a `.keras` file.

    Returns:
        The model and its face options. For a `.keras` file outside a run folder, they are the
        default ones at the model's input size.

    Raises:
        OSError: If there is no model at `path`.
        ValueError: If the file is damaged, its model is not a detector, or the run folder is of
            another format version.

    Example:
        >>> load_run_model("run").model.input.shape  # doctest: +SKIP
        (None, 299, 299, 3)
    """
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected a run folder with {BEST}, or a .keras file; got {path}, which "
            f"{f'has no {BEST}' if path.is_dir() else 'does not exist'}. Train a detector with "
            "`jdfd-keras train`."
        )
    if not zipfile.is_zipfile(file) or "config.json" not in zipfile.ZipFile(file).namelist():
        raise ValueError(
            f"Expected a Keras model file (.keras); got {file} ({file.stat().st_size} bytes), "
            "which is truncated or of another format. Try to copy it again."
        )
    options, faces = file.parent / OPTIONS, None
    if options.is_file():
        faces = load_options(options, "faces", FaceOptions)
    import keras

    model = keras.models.load_model(file, compile=False)
    if not isinstance(model.output, dict) or set(model.output) not in OUTPUTS:
        raise ValueError(
            "Expected a detector with the output 'classification' and, if it has a decoder, "
            f"'reconstruction'; got {file} with the outputs {model.output_names}. Train one with "
            "`jdfd-keras train`."
        )
    for layer in model.layers:
        # Works only before the first call: a traced graph keeps its precision (Keras 3.15.1).
        if layer.dtype_policy.name.startswith("mixed_"):
            layer.dtype_policy = "float32"
    return TrainedModel(model, faces or FaceOptions(face_size=model.input.shape[1]))


def digest_model(path: str | Path) -> str:
    """Compute the SHA-256 of a model file, or of the best model of a run folder.

    Raises:
        OSError: If the file cannot be read.
    """
    path = Path(path)
    return sha256_of(path / BEST if path.is_dir() else path)


def write_epoch(run: str | Path, model: "keras.Model", history: list[dict[str, float]]) -> None:
    """Write the model of the last epoch, also as the best model if it is the best, and the history.

    The models are for inference: they have no optimizer and load without this package.

    Args:
        run: The run folder.
        model: The model in training.
        history: One dict per epoch, with the same keys.

    Raises:
        OSError: If a file cannot be written.
    """
    run = Path(run)
    _save_model(model, run / LAST)
    if best_epoch(history) == len(history) - 1:
        with atomic_path(run / BEST) as unfinished:
            shutil.copyfile(run / LAST, unfinished)
    with (
        atomic_path(run / HISTORY) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _save_model(model: "keras.Model", path: Path) -> None:
    import keras

    # A new keras.Model without compile(); its arguments would otherwise be saved, too.
    bare = keras.Model(model.input, model.output, name=model.name)
    synchronized = [layer for layer in bare.layers if getattr(layer, "synchronized", False)]
    for layer in synchronized:  # over devices, which an inference machine may not have
        layer.synchronized = False
    with atomic_path(path) as unfinished:
        bare.save(unfinished)
    for layer in synchronized:
        layer.synchronized = True


def write_provenance(run: str | Path, faces: pa.Table, name: str = PROVENANCE) -> None:
    """Write the table of the faces that a run was trained or validated on, for leakage checks.

    Args:
        run: The run folder.
        faces: One row per face: the columns of `datasets.leakage.COLUMNS`, `split` and, for
            training, `label`.
        name: File name of the table in the folder.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_path(Path(run, name)) as unfinished:
        pq.write_table(faces, unfinished, compression="zstd")


def read_provenance(path: str | Path, name: str = PROVENANCE) -> pa.Table | None:
    """Read a table that `write_provenance` wrote.

    Args:
        path: A run folder, or a `.keras` file in one.
        name: File name of the table in the folder.

    Returns:
        The table; None for a model outside a run folder.

    Raises:
        ValueError: If the table is damaged, or the run folder is of another format version.
    """
    path = Path(path)
    run = path if path.is_dir() else path.parent
    table = run / name
    if not table.is_file():
        return None
    if (run / OPTIONS).is_file():
        load_groups(run / OPTIONS)  # for the format version
    try:
        return pq.read_table(table)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected a table of the faces of a training at {table}; got {error}. The file is "
            "damaged: restore it, or train again."
        ) from error


def read_history(run: str | Path) -> list[dict[str, float]]:
    r"""Read the losses and metrics of a run.

    Args:
        run: A run folder.

    Returns:
        One dict per finished epoch, in order; empty if no epoch is finished.

    Example:
        >>> _ = Path("history.csv").write_text("epoch,loss\n1,0.7\n2,0.5\n")
        >>> read_history(".")
        [{'epoch': 1.0, 'loss': 0.7}, {'epoch': 2.0, 'loss': 0.5}]
    """
    path = Path(run) / HISTORY
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def best_epoch(history: list[dict[str, float]]) -> int:
    """Find the epoch with the best validation frame AUC.

    Args:
        history: One dict per epoch; at least one.

    Returns:
        Its index, from 0. Of equal epochs it is the last, since the decoder keeps learning
        when the classifier no longer improves.

    Example:
        >>> best_epoch([{MONITOR: 0.8}, {MONITOR: 0.9}, {MONITOR: 0.85}])
        1
    """
    # Rounded, since Keras sums areas in float32 and may return 1.0000001.
    return max(range(len(history)), key=lambda epoch: (round(history[epoch][MONITOR], 6), epoch))
