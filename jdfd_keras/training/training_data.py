"""The faces and the setup of a training, loaded and checked before it starts.

Takes prepared datasets and options; returns the faces to train and validate on, and the checked
setup of a training, with the values derived from it. Trains nothing.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets import leakage
from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FaceIndex,
    concat,
    epoch_order,
    index_faces,
    sample_fraction,
)
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.pipeline import check_options
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
)
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import DataFacts, best_epoch


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Faces to train and validate on.

    Attributes:
        facts: Facts for the run folder.
        train: Training faces.
        val: Validation faces, all labelled.
        provenance: One row per face of both splits: the columns of `datasets.leakage.COLUMNS`,
            `split` and `label`, which is -1 for faces that train the decoder only.
        directories: The prepared datasets.
    """

    facts: DataFacts
    train: FaceIndex
    val: FaceIndex
    provenance: pa.Table
    directories: tuple[Path, ...]


def load_training_data(
    directory: str | Path, unlabelled: UnlabelledOptions, *, seed: int, allow_leak: bool
) -> TrainingData:
    """Load the faces of a training, and check that a detector can learn from them.

    Args:
        directory: A prepared dataset.
        unlabelled: Other datasets, and the share of their training faces to add with hidden
            labels. Their validation and test faces are not read.
        seed: Seed of the sample of unlabelled faces.
        allow_leak: Accept splits that share sources or near-duplicate faces.

    Raises:
        OSError: If a folder is not a prepared dataset.
        ValueError: If a split lacks a class or is empty, the splits share footage, or the datasets
            have different face sizes.

    Example:
        >>> data = load_training_data(
        ...     "prepared", UnlabelledOptions(), seed=0, allow_leak=False
        ... )  # doctest: +SKIP
        >>> data.facts.train_faces == len(data.train)  # doctest: +SKIP
        True
    """
    directory = Path(directory)
    columns = list(dict.fromkeys([*COLUMNS, *leakage.COLUMNS, "split"]))
    splits = leakage.by_split(read_faces(directory, columns=columns))
    for split in ("train", "val"):
        _check_classes(directory, split, splits[split])
    tables, indexes = [splits["train"]], [index_faces(directory, splits["train"])]
    for other in unlabelled.unlabelled:
        table = read_faces(other, split="train", columns=columns)
        if not len(table):
            raise ValueError(
                f"Expected training faces in {other}, to use as unlabelled faces; got none. Its "
                "other splits are reserved for testing: prepare it with a training split."
            )
        rows = sample_fraction(table["label"].to_numpy(), unlabelled.unlabelled_share, seed)
        tables.append(table.take(pa.array(rows)))
        indexes.append(index_faces(other, tables[-1], hide_labels=True))
    train = concat(indexes)
    splits["train"] = pa.concat_tables([_decode_dictionaries(table) for table in tables])
    shared = leakage.find_leakage(splits)
    if not allow_leak:
        leakage.raise_on_leakage(
            shared,
            f"the splits of {directory}"
            + " and the unlabelled faces" * bool(unlabelled.unlabelled),
            "Prepare it with --split strict, check it with `jdfd-keras audit`, or use "
            "--allow-leak.",
        )
    val_labels = splits["val"]["label"].to_numpy()
    is_labelled = val_labels != UNLABELLED
    provenance = pa.concat_tables([splits["train"], _decode_dictionaries(splits["val"])])
    labels = pa.array(np.concatenate([train.label, val_labels]), pa.int8())
    return TrainingData(
        facts=DataFacts(
            name=directory.resolve().name,
            digest=_digest(splits),
            train_faces=len(train),
            unlabelled_faces=int((train.label == UNLABELLED).sum()),
            val_faces=int(is_labelled.sum()),
            leakage=leakage.describe_leakage(shared, checked="training, validation and testing"),
        ),
        train=train,
        val=index_faces(directory, splits["val"].filter(pa.array(is_labelled))),
        provenance=provenance.select([*leakage.COLUMNS, "split"]).append_column("label", labels),
        directories=(directory, *map(Path, unlabelled.unlabelled)),
    )


def _check_classes(directory: Path, split: str, table: pa.Table) -> None:
    labels = table["label"].to_numpy()
    counts = {name: int((labels == label).sum()) for name, label in CLASSES.items()}
    if not all(counts.values()):
        raise ValueError(
            f"Expected real and fake faces in the {split} split of {directory}; got "
            f"{counts['real']} real and {counts['fake']} fake. A detector cannot be trained or "
            "validated on one class: add videos and prepare the dataset again."
        )


def _decode_dictionaries(table: pa.Table) -> pa.Table:
    """Decode dictionary columns, since dictionaries differ between datasets."""
    return pa.table(
        {
            name: column.cast(column.type.value_type)
            if pa.types.is_dictionary(column.type)
            else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def _digest(splits: dict[str, pa.Table]) -> str:
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name in ("video_id", "phash", "label"):
            values = splits[split][name].cast(pa.string()).to_pylist()
            digest.update("\n".join([split, name, *values]).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TrainSetup:
    """All options of a training, its devices and its data."""

    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    train: TrainOptions
    runtime: TrainRuntime
    devices: Devices
    data: TrainingData

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in which every training face is used once."""
        return math.ceil(len(self.data.train) / self.train.batch_size)

    def is_done(self, history: list[dict[str, float]]) -> bool:
        """Return whether training stops after the epochs of a history."""
        if len(history) >= self.train.epochs:
            return True
        waited = len(history) - 1 - best_epoch(history) if history else 0
        return bool(self.train.patience) and waited >= self.train.patience

    def name_faces(self, epoch: int, step: int) -> list[str]:
        """Return the names of the faces of a step; both are counted from 0."""
        faces, batch_size = self.data.train, self.train.batch_size
        first = (epoch * self.steps_per_epoch + step) * batch_size
        names = []
        for index in range(first, first + batch_size):
            data_epoch, position = divmod(index, len(faces))  # starts before its training epoch
            order = epoch_order(
                faces.label, seed=self.train.seed, epoch=data_epoch, balance=self.pipeline.balance
            )
            names.append(faces.name(int(order[position])))
        return names


def check_setup(setup: TrainSetup) -> None:
    """Check that the options of a training are valid and fit its devices and data.

    Raises:
        ValueError: If an option is out of range, or two options exclude each other.
    """
    options, facts, replicas = setup.train, setup.data.facts, setup.devices.replicas
    if options.epochs < 1 or options.batch_size < 1:
        raise ValueError(
            f"Expected epochs >= 1 and batch_size >= 1; got {options.epochs} and "
            f"{options.batch_size}. Try the defaults, 20 and 4."
        )
    if min(options.patience, setup.runtime.checkpoint_minutes, setup.runtime.checkpoint_steps) < 0:
        raise ValueError(
            "Expected patience, checkpoint_minutes and checkpoint_steps >= 0; got "
            f"{options.patience}, {setup.runtime.checkpoint_minutes:g} and "
            f"{setup.runtime.checkpoint_steps}. Try 0, which turns them off."
        )
    if options.batch_size % replicas:
        nearest = replicas * max(1, round(options.batch_size / replicas))
        raise ValueError(
            f"Expected a batch_size that is divisible by the {replicas} devices; got "
            f"{options.batch_size}. It counts the faces of all devices together: try {nearest}."
        )
    if facts.val_faces < replicas:
        raise ValueError(
            f"Expected at least as many validation faces as devices, {replicas}; got "
            f"{facts.val_faces}. Add videos, or use fewer devices."
        )
    if replicas > 1 and (setup.optimizer.accumulate > 1 or setup.optimizer.clip_norm):
        raise ValueError(
            f"Expected neither accumulate nor clip_norm with {replicas} devices; got "
            f"{setup.optimizer.accumulate} and {setup.optimizer.clip_norm:g}. Keras clips the "
            "gradient of each device separately and cannot accumulate on several (3.15.1): omit "
            "both options."
        )
    if setup.pipeline.reconstruct == "real" and facts.unlabelled_faces:
        raise ValueError(
            "Expected reconstruct 'all' with unlabelled faces, which train the decoder only; got "
            "'real', but their class is unknown. Omit one of the two options."
        )
    if not setup.model.decoder and facts.unlabelled_faces:
        raise ValueError(
            "Expected a decoder, since unlabelled faces train the decoder only; got decoder "
            "false. Omit the unlabelled faces."
        )
    check_options(setup.data.train, setup.pipeline)
