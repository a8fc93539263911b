"""The faces of a training, loaded and checked before it starts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets import leakage
from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FAKE_COLUMNS,
    FaceIndex,
    add_fakes,
    concat,
    has_two_people,
    index_faces,
    sample_fraction,
)
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.manipulation_masks import MASK_COLUMNS
from jdfd_keras.datasets.mask_targets import add_masks
from jdfd_keras.datasets.split_tables import OFFICIAL, find_table_or_official
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions, PipelineOptions, UnlabelledOptions, parse_fakes
from jdfd_keras.training.run_folder import DataFacts

NUM_SHOWN_FACES = 8  # on the figure of reconstructions


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Faces to train and validate on."""

    facts: DataFacts  # for the run folder
    train: FaceIndex  # with blended fakes, if the training makes some
    val: FaceIndex  # all labelled; with blended fakes, if they are validated on
    # One row per stored face of both splits: the columns of `datasets.leakage.COLUMNS`, `split` and
    # `label`, which is -1 for faces that train the decoder only.
    provenance: pa.Table
    directories: tuple[Path, ...]  # the prepared datasets; the first one has all validation faces

    def read_examples(self) -> np.ndarray:
        """Read validation faces of each class, evenly spaced; float32[n, size, size, 3]."""
        indices = []
        for label in CLASSES.values():
            members = np.flatnonzero(self.val.label == label)
            count = min(NUM_SHOWN_FACES // len(CLASSES), len(members))
            indices += members[np.linspace(0, len(members) - 1, count).astype(int)].tolist()
        return np.stack([self.val.read(index) for index in indices]).astype(np.float32)


def load_training_data(
    directory: str | Path,
    unlabelled: UnlabelledOptions,
    *,
    seed: int,
    allow_leak: bool,
    split_table: str = OFFICIAL,
    pipeline: PipelineOptions | None = None,
    mask_cells: int = 0,
) -> TrainingData:
    """Load the faces of a training, and check that a detector can learn from them.

    Args:
        directory: A prepared dataset.
        unlabelled: Other datasets, and the share of their training faces to add with hidden
            labels. Their validation and test faces are not read.
        seed: Seed of the sample of unlabelled faces.
        allow_leak: Accept splits that share sources or near-duplicate faces.
        split_table: Name of the split table of the dataset, or the path of one. Of the others, the
            table of this name is used if they have it, or else their official one; all faces of a
            dataset that is not split are for training.
        pipeline: Kinds of blended fakes to train and to validate on; none if not given. With
            `val_fakes="auto"` a single person in validation is not swapped, if there are other
            kinds. Also whether to train on labelled fakes.
        mask_cells: Cells in a row and in a column of the masks of manipulated pixels, which the
            faces get; 0 for faces without masks.

    Raises:
        OSError: If a folder is not a prepared dataset, or has no such split table.
        ValueError: If a split lacks a class, real faces to blend, or shares faces with another, or
            no training fake has a mask.

    Example:
        >>> data = load_training_data("prepared", UnlabelledOptions(), seed=0, allow_leak=False)
        >>> len(data.train), len(data.val)
        (34, 16)
    """
    directory, pipeline = Path(directory), pipeline or PipelineOptions()
    own_columns = FAKE_COLUMNS if parse_fakes(pipeline.fakes) else COLUMNS
    if pipeline.val_fakes != "auto" or mask_cells:
        own_columns = FAKE_COLUMNS
    mask_columns = MASK_COLUMNS if mask_cells else ()
    columns = list(dict.fromkeys([*own_columns, *leakage.COLUMNS, *mask_columns, "split"]))
    faces = read_faces(directory, split_table=split_table, columns=columns)
    splits = leakage.by_split(faces)
    if not pipeline.labelled_fakes:
        if not parse_fakes(pipeline.fakes):
            raise ValueError(
                "Expected blended fakes for a training without labelled ones; got fakes "
                f"{pipeline.fakes!r}. Try --fakes mixed, or omit --no-labelled-fakes."
            )
        is_fake = np.asarray(splits["train"]["label"]) == CLASSES["fake"]
        splits["train"] = splits["train"].filter(pa.array(~is_fake))
    kinds = {
        "train": parse_fakes(pipeline.fakes),
        "val": _choose_val_fakes(pipeline, splits["val"]["label"].to_numpy()),
    }
    for split, blended in kinds.items():
        _check_classes(splits[split]["label"].to_numpy(), split, directory, blended)
    tables, indexes = [splits["train"]], [index_faces(directory, splits["train"])]
    own_faces = load_options(directory / OPTIONS, "faces", FaceOptions)
    for other in unlabelled.unlabelled:
        table_name = find_table_or_official(other, split_table)
        split = "train" if table_name else "all"
        table = read_faces(other, split=split, split_table=table_name, columns=columns)
        check_same_landmarks(own_faces, load_options(Path(other) / OPTIONS, "faces", FaceOptions))
        position = table.column_names.index("split")
        table = table.set_column(position, "split", pa.repeat("train", len(table)))
        if not len(table):
            raise ValueError(
                f"Expected training faces in {other}, to use as unlabelled faces; got none. Its "
                "other splits are reserved for testing: prepare it with a training split."
            )
        rows = sample_fraction(table["label"].to_numpy(), unlabelled.unlabelled_share, seed)
        tables.append(table.take(pa.array(rows)))
        indexes.append(index_faces(other, tables[-1], hide_labels=True))
    stored = concat(indexes)
    splits["train"] = pa.concat_tables([_decode_dictionaries(table) for table in tables])
    shared = leakage.find_leakage(splits)
    if not allow_leak:
        subject = f"the splits of {directory}"
        subject += " and the unlabelled faces" * bool(unlabelled.unlabelled)
        advice = (
            "Split it with `jdfd-keras split --strategy strict` and train with --split-table "
            "strict, check it with `jdfd-keras audit`, or use --allow-leak."
        )
        leakage.raise_on_leakage(shared, subject, advice)
    val_labels = splits["val"]["label"].to_numpy()
    is_labelled = val_labels != UNLABELLED
    provenance = pa.concat_tables([splits["train"], _decode_dictionaries(splits["val"])])
    labels = pa.array(np.concatenate([stored.label, val_labels]), pa.int8())
    val_table = splits["val"].filter(pa.array(is_labelled))
    val, masks = index_faces(directory, val_table), ""
    if mask_cells:
        own, train_masks = add_masks(indexes[0], tables[0], mask_cells)
        stored = concat([own, *indexes[1:]])
        if not (train_masks.dataset or train_masks.difference or kinds["train"]):
            raise ValueError(
                f"Expected masks of the manipulated pixels of training fakes in {directory}; got "
                f"{train_masks}. Prepare it with its mask videos, or with the real videos that the "
                "fakes are made of and the same sampled frames; or train another --method."
            )
        val, val_masks = add_masks(val, val_table, mask_cells)
        masks = f"{train_masks}; in validation: {val_masks}"
        print_message(masks)
    train = add_fakes(stored, kinds["train"])
    if pipeline.val_fakes == "auto" and kinds["val"] != ("swapped",) and not has_two_people(val):
        kinds["val"] = tuple(kind for kind in kinds["val"] if kind != "swapped")
    return TrainingData(
        facts=DataFacts(
            name=directory.resolve().name,
            digest=_digest(splits),
            train_faces=len(stored),
            unlabelled_faces=int((stored.label == UNLABELLED).sum()),
            val_faces=len(val),
            leakage=leakage.describe_leakage(shared, checked="training, validation and testing"),
            blended_fakes=0 if train.base is None else int((train.base >= 0).sum()),
            validated_on=_describe_val_fakes(kinds["val"], val_labels),
            masks=masks,
        ),
        train=train,
        val=add_fakes(val, kinds["val"], make_even=False),
        provenance=provenance.select([*leakage.COLUMNS, "split"]).append_column("label", labels),
        directories=(directory, *map(Path, unlabelled.unlabelled)),
    )


def _choose_val_fakes(pipeline: PipelineOptions, labels: np.ndarray) -> tuple[str, ...]:
    """Return the kinds of blended fakes to validate on."""
    if pipeline.val_fakes != "auto":
        try:
            return parse_fakes(pipeline.val_fakes)
        except ValueError as error:
            raise ValueError(f"{error} Or try --val-fakes auto, the default.") from error
    return () if (labels == CLASSES["fake"]).any() else parse_fakes(pipeline.fakes)


def _check_classes(
    labels: np.ndarray, split: str, directory: Path, blended: tuple[str, ...]
) -> None:
    """Check that a split has real faces, and fake ones unless they are blended."""
    counts = {name: int((labels == label).sum()) for name, label in CLASSES.items()}
    if counts["real"] and (counts["fake"] or blended):
        return
    advice = "split it otherwise with `jdfd-keras split`, or add videos"
    if counts["real"]:
        option = "--fakes" if split == "train" else "--val-fakes"
        advice = f"make fakes from the real faces with {option} mixed, {advice}"
    raise ValueError(
        f"Expected real and fake faces in the {split} split of {directory}; got {counts['real']} "
        f"real and {counts['fake']} fake. A detector cannot be trained or validated on one class: "
        f"{advice}."
    )


def _describe_val_fakes(blended: tuple[str, ...], labels: np.ndarray) -> str:
    named = [f"blended fakes ({', '.join(blended)})"] if blended else []
    if (labels == CLASSES["fake"]).any():
        named.insert(0, "labelled fakes")
    return " and ".join(named)


def _decode_dictionaries(table: pa.Table) -> pa.Table:
    """Decode dictionary columns, since dictionaries differ between datasets."""
    types = {field.name: field.type for field in table.schema}
    decoded = {n: t.value_type if pa.types.is_dictionary(t) else t for n, t in types.items()}
    return table.cast(pa.schema(decoded))


def _digest(splits: dict[str, pa.Table]) -> str:
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name in ("video_id", "phash", "label"):
            values = splits[split][name].cast(pa.string()).to_pylist()
            digest.update("\n".join([split, name, *values]).encode())
    return digest.hexdigest()[:16]
