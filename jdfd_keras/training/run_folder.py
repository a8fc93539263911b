"""The run folder: names, formats, reading and writing of the files of one training.

<run>/options.json             options of the run, facts about its dataset and its location
<run>/history.csv              one row of losses and metrics per epoch
<run>/curves.png               the same as curves
<run>/reconstructions.png      some validation faces above their reconstructions
<run>/best.keras               detector of the epoch with the best validation frame AUC
<run>/last.keras               detector of the last epoch
<run>/checkpoint.npz           complete state of the training, for resuming; of a finished one
                               the history alone, unless TrainRuntime.keep_optimizer is set
<run>/training_faces.parquet   video, sources, hash and label of every face of the training
<run>/logs/                    TensorBoard
"""

import csv
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from jdfd_keras.io.files import (
    OPTIONS,
    atomic_path,
    init_folder,
    load_groups,
    load_options,
    sha256_of,
)
from jdfd_keras.options import FaceOptions, ModelOptions, TrainOptions

if TYPE_CHECKING:
    import keras

    from jdfd_keras.model.weight_import import ImportFacts

HISTORY = "history.csv"
CURVES = "curves.png"
RECONSTRUCTIONS = "reconstructions.png"
BEST = "best.keras"
LAST = "last.keras"
LOGS = "logs"
PROVENANCE = "training_faces.parquet"
IMPORTED = "imported"  # group in options.json of the facts about published weights
SAVED_OUTPUTS = ("classification", "reconstruction")  # others are of the training alone
MONITOR = "val_classification_frame_auc"  # exact; it selects the best epoch


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data of a run, kept in its options.json."""

    name: str  # of the dataset
    digest: str  # of video, hash and label of all faces
    train_faces: int  # including the unlabelled ones
    unlabelled_faces: int  # training faces that train the decoder only
    val_faces: int  # labelled ones
    leakage: str  # between the splits, as a sentence
    blended_fakes: int = 0  # made from as many real training faces, anew in every epoch
    validated_on: str = "labelled fakes"  # or blended ones, with their kinds
    masks: str = ""  # where those of the fakes are from, if the method learns them


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained detector; it computes in float32 even if it was trained in mixed precision."""

    model: "keras.Model"
    faces: FaceOptions  # of the face crops it was trained on
    demonstration: bool = False  # trained for demonstration only


def load_run_model(path: str | Path) -> TrainedModel:
    """Load a trained detector.

    Args:
        path: A run folder, of which the best model is loaded, or a `.keras` file.

    Returns:
        The model, its face options and its mark of a demonstration. For a `.keras` file outside a
        run folder, they are the default ones at the model's input size, and no mark.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If the file is damaged, is no detector, or has layers that are not those of
            Keras, such as Lambda, which would run Python code of the file; or if the run is one of
            Headpose, which has no network.

    Example:
        >>> loaded = load_run_model("run")
        >>> loaded.faces.face_size, loaded.model.count_params()
        (71, 22783676)
    """
    from jdfd_keras.training.headpose_run import check_has_network

    check_has_network(path)
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
    faces, demonstration = None, False
    if (options := file.parent / OPTIONS).is_file():
        faces = load_options(options, "faces", FaceOptions)
        if "train" in load_groups(options):  # not of published weights
            demonstration = load_options(options, "train", TrainOptions).demonstration
    model = _load_keras_file(file)
    outputs = model.output
    names = set(outputs) if isinstance(outputs, dict) else set()
    if SAVED_OUTPUTS[0] not in names or names - set(SAVED_OUTPUTS):
        raise ValueError(
            "Expected a detector with the output 'classification' and, if it has a decoder, "
            f"'reconstruction'; got {file} with the outputs {model.output_names}. Train one with "
            "`jdfd-keras train`."
        )
    for layer in model.layers:
        # Works only before the first call: a traced graph keeps its precision (Keras 3.15.1).
        if layer.dtype_policy.name.startswith("mixed_"):
            layer.dtype_policy = "float32"
    faces = faces or FaceOptions(face_size=model.input_shape[1])
    return TrainedModel(model, faces, demonstration)


def _load_keras_file(file: Path) -> "keras.Model":
    """Load a model; its layers are those of Keras, none of which runs code from the file."""
    import keras

    try:
        return cast(keras.Model, keras.models.load_model(file, compile=False))
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        advice = (
            "Train a detector with `jdfd-keras train`, or replace that layer by layers of Keras."
        )
        if "safe_mode" in text or "unsafe_deserialization" in text:
            # Without the text of Keras (3.15.1), which advises to switch its safe mode off.
            raise ValueError(
                f"Expected a model that consists of Keras' own layers; got {file}, which has a "
                "layer with Python code of its author, such as Lambda. It was not loaded, since "
                f"that code could do anything on this machine. {advice}"
            ) from None
        if isinstance(error, TypeError):
            reason = text.rpartition("Exception encountered: ")[2].partition(". ")[0][:200]
            raise ValueError(
                f"Expected a model that consists of Keras' own layers; got {file}: {reason}. "
                f"{advice}"
            ) from error
        raise


def digest_model(path: str | Path) -> str:
    """Compute the SHA-256 of a model file, or of the best or only model of a run folder.

    Raises:
        FileNotFoundError: If it does not exist.

    Example:
        >>> digest_model("run") == digest_model("run/best.keras")
        True
    """
    file = find_model_file(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected a model at {file}; got none. If its training is not finished, run the same "
            "`jdfd-keras train` again."
        )
    return sha256_of(file)


def find_model_file(path: str | Path) -> Path:
    """Return the file of the best or only model of a run folder, or a model file itself.

    Example:
        >>> find_model_file("run").name, find_model_file("headpose_run").name
        ('best.keras', 'headpose.safetensors')
    """
    from jdfd_keras.training.headpose_run import HEADPOSE, is_headpose_run

    path = Path(path)
    model = HEADPOSE if is_headpose_run(path) else BEST
    return path / model if path.is_dir() else path


def write_epoch(run: str | Path, model: "keras.Model", history: list[dict[str, float]]) -> None:
    """Write the history, and the model of its last epoch, also as the best one if it is.

    The models are for inference: they have no optimizer and no outputs that only the training
    needs, and load without this package.

    Example:
        >>> import keras
        >>> image = keras.Input((2,))
        >>> model = keras.Model(image, keras.layers.Dense(1)(image))
        >>> write_epoch(".", model, [{"epoch": 1, MONITOR: 0.8, "val_loss": 0.5}])
        >>> Path("best.keras").is_file(), read_history(".")
        (True, [{'epoch': 1.0, 'val_classification_frame_auc': 0.8, 'val_loss': 0.5}])
    """
    run = Path(run)
    import keras

    # A new keras.Model without compile(); its arguments would otherwise be saved, too.
    outputs = cast(Any, model.output)
    if isinstance(outputs, dict):
        outputs = {name: outputs[name] for name in SAVED_OUTPUTS if name in outputs}
    bare = keras.Model(model.input, outputs, name=model.name)
    synchronized = [layer for layer in bare.layers if getattr(layer, "synchronized", False)]
    for layer in synchronized:  # over devices, which an inference machine may not have
        layer.synchronized = False
    with atomic_path(run / LAST) as unfinished:
        bare.save(unfinished)
    for layer in synchronized:
        layer.synchronized = True
    if best_epoch(history) == len(history) - 1:
        with atomic_path(run / BEST) as unfinished:
            shutil.copyfile(run / LAST, unfinished)
    write_history(run, history)


def write_history(run: str | Path, history: list[dict[str, float]]) -> None:
    """Write the losses and metrics of a run, one dict per epoch.

    Example:
        >>> write_history(".", [{"epoch": 1.0, "val_loss": 0.5}])
        >>> read_history(".")
        [{'epoch': 1.0, 'val_loss': 0.5}]
    """
    with (
        atomic_path(Path(run) / HISTORY) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def write_imported_run(run: str | Path, model: "keras.Model", facts: "ImportFacts") -> None:
    """Write a run folder of a published detector, of whose training nothing is known.

    It has `options.json`, with the face options at the model's image size, and the best model.

    Args:
        run: A new or empty folder.
        model: The detector.
        facts: The origin of its weights.

    Raises:
        ValueError: If the folder holds files.

    Example:
        >>> import jdfd_keras as jk
        >>> from jdfd_keras.model.weight_import import ImportFacts
        >>> facts = ImportFacts("mesonet-meso4", "meso4", "Meso4_DF.h5", "ab" * 32)
        >>> model = jk.build_detector(jk.ModelOptions(network="meso4", image_size=256))
        >>> write_imported_run("meso4", model, facts)
        >>> load_run_model("meso4").faces.face_size, was_imported("meso4")
        (256, True)
    """
    run, size = Path(run), model.input_shape[1]
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(
            f"Expected a new or empty folder to write; got {run}, which exists. Choose another "
            "--out."
        )
    options = ModelOptions(
        network=facts.network, image_size=size, decoder=False, encoder_weights="none"
    )
    try:
        init_folder(run, faces=FaceOptions(face_size=size), model=options, **{IMPORTED: facts})
        with atomic_path(run / BEST) as unfinished:
            model.save(unfinished)
    except BaseException:  # such as a full disk: the next attempt expects an empty folder
        (run / OPTIONS).unlink(missing_ok=True)
        raise


def was_imported(path: str | Path) -> bool:
    """Return whether a model was published, and written by `write_imported_run`.

    Args:
        path: A run folder or a `.keras` file.

    Example:
        >>> was_imported("run/best.keras")
        False
    """
    path = Path(path)
    options = (path if path.is_dir() else path.parent) / OPTIONS
    return options.is_file() and IMPORTED in load_groups(options)


def write_provenance(run: str | Path, faces: pa.Table, name: str = PROVENANCE) -> None:
    """Write the table of the faces that a run was trained or validated on, for leakage checks.

    It has the columns of `datasets.leakage.COLUMNS`, `split` and, for training, `label`.

    Example:
        >>> write_provenance(".", pa.table({"video_id": ["clips/a"], "split": ["train"]}))
        >>> read_provenance(".").to_pylist()
        [{'video_id': 'clips/a', 'split': 'train'}]
    """
    with atomic_path(Path(run, name)) as unfinished:
        pq.write_table(faces, unfinished, compression="zstd")


def read_provenance(path: str | Path, name: str = PROVENANCE) -> pa.Table | None:
    """Read a table that `write_provenance` wrote; None for a model outside a run folder.

    Example:
        >>> read_provenance("run/best.keras").column_names
        ['video_id', 'source_ids', 'phash', 'split', 'label']
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


def find_split_table(path: str | Path) -> str:
    """Return the split table that a model was trained with; "" if that is unknown.

    Args:
        path: A run folder or a `.keras` file.

    Example:
        >>> find_split_table("run/best.keras")
        'official'
    """
    path = Path(path)
    options = (path if path.is_dir() else path.parent) / OPTIONS
    if not options.is_file() or was_imported(path):
        return ""
    return load_options(options, "train", TrainOptions).split_table


def read_history(run: str | Path) -> list[dict[str, float]]:
    """Read the losses and metrics of a run: one dict per finished epoch, in order.

    Example:
        >>> history = read_history("run")
        >>> len(history), history[0]["epoch"]
        (1, 1.0)
    """
    path = Path(run) / HISTORY
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def best_epoch(history: list[dict[str, float]]) -> int:
    """Return the index of the epoch with the best validation frame AUC.

    Of epochs with the same AUC it is the one with the lowest validation loss, and of those the
    last.

    Example:
        >>> best_epoch([{MONITOR: auc, "val_loss": 0.5} for auc in (0.8, 0.9, 0.85)])
        1
        >>> best_epoch([{MONITOR: 1.0, "val_loss": loss} for loss in (0.3, 0.2, 0.4)])
        1
    """

    def rank(epoch: int) -> tuple[float, float, int]:
        return history[epoch][MONITOR], -history[epoch]["val_loss"], epoch

    return max(range(len(history)), key=rank)
