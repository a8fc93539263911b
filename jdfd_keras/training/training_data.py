"""What a detector learns from: faces of prepared data sets, looked at before hours go by.

Takes folders; gives lists of faces, and the facts by which a run knows them again.

What a training was told, as a whole, and whether it can be done.

Takes options, devices and faces; answers what follows of them. Trains nothing.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets import leakage as leaks
from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FaceList,
    draw_order,
    draw_share,
    join_lists,
    list_faces,
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
    RunOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.training.devices import Devices
from jdfd_keras.training.run_folder import best_epoch


@dataclass(frozen=True)
class DataFacts:
    """What a run folder says of its data; `digest` tells it from all other.

    Attributes:
        name: Of the data set.
        digest: Of videos, hashes and labels of all its faces.
        train_faces: Faces of training, with the unlabelled ones.
        unlabelled_faces: Those of them that train the decoder alone.
        val_faces: Faces of validation.
        leaks: What lies on two sides, as a sentence.
    """

    name: str
    digest: str
    train_faces: int
    unlabelled_faces: int
    val_faces: int
    leaks: str


@dataclass(frozen=True, eq=False)
class Material:
    """What a detector learns from and is chosen on.

    Attributes:
        facts: For the run folder.
        train: Faces of training.
        val: Faces of validation, all of them labelled.
        seen: The columns of `data.leaks.COLUMNS`, `split` and `label` of both; no label is told of
            what trains the decoder alone.
        directories: The data sets they are of.
    """

    facts: DataFacts
    train: FaceList
    val: FaceList
    seen: pa.Table
    directories: tuple[Path, ...]


def gather(
    data: str | Path, foreign: UnlabelledOptions, *, seed: int, allow_leak: bool
) -> Material:
    """See that a data set can be learned from, and list its faces.

    Args:
        data: A prepared data set.
        foreign: Others, and the share of their training faces that is taken as unlabelled. Their
            faces of validation and testing are never looked at.
        seed: Of what is drawn.
        allow_leak: Take what lies on two sides.

    Raises:
        OSError: If a folder is no prepared data set.
        ValueError: If a split lacks a class or is empty, something leaks, or the data sets were
            prepared at different sizes.
    """
    data = Path(data)
    columns = list(dict.fromkeys([*COLUMNS, *leaks.COLUMNS, "split"]))
    parts = leaks.by_split(read_faces(data, columns=columns))
    for split in ("train", "val"):
        _check_classes(data, split, parts[split])
    labelled = np.asarray(parts["val"]["label"]) != UNLABELLED
    tables, lists = [parts["train"]], [list_faces(data, parts["train"])]
    for directory in foreign.unlabelled:
        table = read_faces(directory, split="train", columns=columns)
        if not len(table):
            raise ValueError(
                f"Expected training faces in {directory}, to be taken as unlabelled; got none. "
                "Its other splits are kept for testing: prepare it with a training split."
            )
        rows = draw_share(table["label"].to_numpy(), foreign.unlabelled_share, seed)
        tables.append(table.take(pa.array(rows)))
        lists.append(list_faces(directory, tables[-1], hide_labels=True))
    train = join_lists(lists)
    sides = {**parts, "train": pa.concat_tables([_plain(table) for table in tables])}
    found = leaks.find_leaks(sides)
    if not allow_leak:
        leaks.refuse_leaks(
            found,
            f"the splits of {data}" + " and the unlabelled faces" * bool(foreign.unlabelled),
            "Prepare it with --split strict, look at `jdfd-keras audit`, or give --allow-leak.",
        )
    facts = DataFacts(
        name=data.resolve().name,
        digest=_digest(sides),
        train_faces=len(train),
        unlabelled_faces=int((train.label == UNLABELLED).sum()),
        val_faces=int(labelled.sum()),
        leaks=leaks.describe_leaks(found, checked="training, validation and testing"),
    )
    val = list_faces(data, parts["val"].filter(pa.array(labelled)))
    seen = pa.concat_tables([sides["train"], _plain(parts["val"])])
    label = np.concatenate([train.label, np.asarray(parts["val"]["label"])])
    seen = seen.select([*leaks.COLUMNS, "split"]).append_column("label", pa.array(label, pa.int8()))
    directories = (data, *map(Path, foreign.unlabelled))
    return Material(facts, train, val, seen, directories)


def _check_classes(data: Path, split: str, table: pa.Table) -> None:
    labels = table["label"].to_numpy()
    counts = {name: int((labels == label).sum()) for name, label in CLASSES.items()}
    if not all(counts.values()):
        raise ValueError(
            f"Expected real and fake faces in the {split} split of {data}; got "
            f"{counts['real']} real and {counts['fake']} fake. A detector cannot learn or be "
            "chosen on one class: add videos and prepare the data set again."
        )


def _plain(table: pa.Table) -> pa.Table:
    """Undo dictionaries, which differ from data set to data set."""
    return pa.table(
        {
            name: column.cast(column.type.value_type)
            if pa.types.is_dictionary(column.type)
            else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def _digest(sides: dict[str, pa.Table]) -> str:
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name in ("video_id", "phash", "label"):
            values = sides[split][name].cast(pa.string()).to_pylist()
            digest.update("\n".join([split, name, *values]).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """All that a training was told, and what it runs on."""

    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    train: TrainOptions
    run: RunOptions
    devices: Devices
    material: Material

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps that the training faces fill."""
        return math.ceil(len(self.material.train) / self.train.batch_size)

    def is_done(self, history: list[dict[str, float]]) -> bool:
        """Tell whether training ends after these epochs."""
        if len(history) >= self.train.epochs:
            return True
        waited = len(history) - 1 - best_epoch(history) if history else 0
        return bool(self.train.patience) and waited >= self.train.patience

    def name_faces(self, epoch: int, step: int) -> list[str]:
        """Name the faces of a step, both counted from 0."""
        faces, batch = self.material.train, self.train.batch_size
        first = (epoch * self.steps_per_epoch + step) * batch
        names = []
        for position in range(first, first + batch):
            number, place = divmod(position, len(faces))
            order = draw_order(
                faces.label, seed=self.train.seed, number=number, balance=self.pipeline.balance
            )
            names.append(faces.name(int(order[place])))
        return names


def check_plan(plan: Plan) -> None:
    """See that a training can be done as it was told.

    Raises:
        ValueError: If an option is out of range, or two of them exclude each other.
    """
    options, devices = plan.train, plan.devices
    if options.epochs < 1 or options.batch_size < 1:
        raise ValueError(
            f"Expected epochs >= 1 and batch_size >= 1; got {options.epochs} and "
            f"{options.batch_size}. Try the defaults, 20 and 4."
        )
    if min(options.patience, plan.run.checkpoint_minutes, plan.run.checkpoint_steps) < 0:
        raise ValueError(
            "Expected patience, checkpoint_minutes and checkpoint_steps of 0, for none, or above; "
            f"got {options.patience}, {plan.run.checkpoint_minutes:g} and "
            f"{plan.run.checkpoint_steps}."
        )
    if options.batch_size % devices.replicas:
        several = devices.replicas * max(1, round(options.batch_size / devices.replicas))
        raise ValueError(
            f"Expected a batch_size that {devices.replicas} devices can share; got "
            f"{options.batch_size}. It is of all devices together: try {several}."
        )
    if plan.material.facts.val_faces < devices.replicas:
        raise ValueError(
            f"Expected as many faces of validation as devices, {devices.replicas}; got "
            f"{plan.material.facts.val_faces}. Add videos, or take fewer devices."
        )
    if devices.replicas > 1 and (plan.optimizer.accumulate > 1 or plan.optimizer.clip_norm):
        raise ValueError(
            f"Expected neither accumulate nor clip_norm with {devices.replicas} devices; got "
            f"{plan.optimizer.accumulate} and {plan.optimizer.clip_norm:g}. Keras clips the part "
            "of each device by itself and cannot accumulate on several (3.15.1): leave them out."
        )
    if plan.pipeline.reconstruct == "real" and plan.material.facts.unlabelled_faces:
        raise ValueError(
            "Expected reconstruct 'all' with unlabelled faces, which teach the decoder alone; got "
            "'real', and whether they are real is not known. Leave one of both out."
        )
    if not plan.model.decoder and plan.material.facts.unlabelled_faces:
        raise ValueError(
            "Expected a decoder, since unlabelled faces teach it alone; got decoder false. Leave "
            "the unlabelled faces out."
        )
    check_options(plan.material.train, plan.pipeline)
