"""The run folder: what one training was told and what it gave.

    <run>/options.json         what it was told, and facts of its data set
    <run>/history.csv          one row per epoch
    <run>/curves.png           the same as a picture
    <run>/reconstructions.png  some faces of validation, and what the decoder makes of them
    <run>/best.keras           the detector of the epoch with the best validation frame AUC
    <run>/last.keras           the detector of the last epoch
    <run>/checkpoint.npz       all that is needed to go on, as of some step
    <run>/seen.parquet         video, sources, hash, label of every face it was trained or chosen on
    <run>/logs/                TensorBoard

Knows file names and how to read a trained model back; trains nothing.
"""

import csv
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions

HISTORY = "history.csv"
LAST = "last.keras"
BEST = "best.keras"
LOGS = "logs"
SEEN = "seen.parquet"
# Without a decoder, and with one.
OUTPUTS = ({"classification"}, {"classification", "reconstruction"})
MONITOR = "val_classification_frame_auc"  # what the best epoch is chosen by


def load_run_model(path: str | Path):
    """Read a trained detector back.

    Args:
        path: A run folder, whose best model is taken, or a `.keras` file.

    Returns:
        The keras.Model, and the FaceOptions its crops were made with. The model computes in
        float32 even where it was trained in mixed precision. A `.keras` file that lies in no
        run folder gives the default FaceOptions at the model's own size.

    Raises:
        OSError: If there is no model at `path`.
        ValueError: If the file is damaged, or holds no detector.
    """
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected a run folder with {BEST}, or a .keras file; got {path}, which "
            f"{'holds none' if path.is_dir() else 'is not there'}. Make one with "
            "`jdfd-keras train`."
        )
    if not zipfile.is_zipfile(file) or "config.json" not in zipfile.ZipFile(file).namelist():
        raise ValueError(
            f"Expected a Keras model file (.keras); got {file} ({file.stat().st_size} bytes), "
            "which is none. It was cut short or is of another kind: copy it again."
        )
    import keras

    model = keras.models.load_model(file, compile=False)
    if not isinstance(model.output, dict) or set(model.output) not in OUTPUTS:
        raise ValueError(
            "Expected a detector with the output 'classification' and, where it has a decoder, "
            f"'reconstruction'; got {file} with the outputs {model.output_names}. Make one with "
            "`jdfd-keras train`."
        )
    for layer in model.layers:
        # Enough only before the first call: what is traced stays in its precision (Keras 3.15.1).
        if layer.dtype_policy.name.startswith("mixed_"):
            layer.dtype_policy = "float32"
    options = file.parent / OPTIONS
    if options.is_file():
        return model, load_options(options, "faces", FaceOptions)
    return model, FaceOptions(face_size=model.input.shape[1])


def digest_model(path: str | Path) -> str:
    """Give the SHA-256 of a model file, or of the best one of a run folder."""
    path = Path(path)
    with open(path / BEST if path.is_dir() else path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_epoch(run: str | Path, model, history: list[dict[str, float]]) -> None:
    """Write what the last epoch gave: its model, which may be the best, and the history.

    The models are for scoring: they hold no optimizer, and load without this package.

    Args:
        run: The run folder.
        model: The keras.Model that is being trained.
        history: A dict for each epoch, with the same keys.
    """
    last = _save_model(model, Path(run, LAST))
    if best_epoch(history) == len(history) - 1:
        unfinished = shutil.copyfile(last, _unfinished(run, BEST))
        os.replace(unfinished, Path(run, BEST))
    with open(_unfinished(run, HISTORY), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    os.replace(_unfinished(run, HISTORY), Path(run, HISTORY))


def _save_model(model, path: Path) -> Path:
    import keras

    # A model of its own: that it was compiled, and how, would be saved with this one.
    bare = keras.Model(model.input, model.output, name=model.name)
    together = [layer for layer in bare.layers if getattr(layer, "synchronized", False)]
    for layer in together:  # over devices, which those who load it need not have
        layer.synchronized = False
    bare.save(_unfinished(path.parent, path.name))
    for layer in together:
        layer.synchronized = True
    os.replace(_unfinished(path.parent, path.name), path)
    return path


def _unfinished(run: str | Path, name: str) -> Path:
    return Path(run, f"unfinished-{name}")


def write_seen(run: str | Path, faces: pa.Table, name: str = SEEN) -> None:
    """Keep what tells which faces a run was trained or chosen on, so that leaks can be found.

    Args:
        run: The run folder.
        faces: The columns of `data.leaks.COLUMNS`, `split` and, of a training, `label`.
        name: Of the table, below the folder.
    """
    path = Path(run, name)
    pq.write_table(faces, _unfinished(path.parent, path.name), compression="zstd")
    os.replace(_unfinished(path.parent, path.name), path)


def read_seen(path: str | Path, name: str = SEEN) -> pa.Table | None:
    """Read what `write_seen` kept.

    Args:
        path: A run folder, or a `.keras` file in one.
        name: Which of the tables of its kind.

    Returns:
        Its columns; older runs have no `label`. None for a model that lies in no run folder.

    Raises:
        ValueError: If the table is damaged.
    """
    path = Path(path)
    seen = (path if path.is_dir() else path.parent) / name
    if not seen.is_file():
        return None
    try:
        return pq.read_table(seen)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected a table of the faces that training saw at {seen}; got {error}. It is "
            "damaged: restore it, or train again."
        ) from error


def read_history(run: str | Path) -> list[dict[str, float]]:
    """Read what every epoch of a run gave.

    Args:
        run: A run folder.

    Returns:
        One dict per finished epoch, in order; empty if no epoch was finished.
    """
    path = Path(run) / HISTORY
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def best_epoch(history: list[dict[str, float]]) -> int:
    """Find the position, from 0, of the epoch that `best.keras` is of.

    It is the best by validation frame AUC; of equal ones the last, since the decoder goes on
    learning when the classifier is done.
    """
    # Rounded, since Keras sums areas in float32 and may give 1.0000001.
    return max(range(len(history)), key=lambda epoch: (round(history[epoch][MONITOR], 6), epoch))
