"""A prepared data set in, a run folder out.

The one way through this room: build, compile, fit, keep the best epoch. A run that was
interrupted goes on after its last finished epoch.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import keras
import pyarrow as pa

from jdfd_keras.claims import OPTIONS, claim_directory, load_options
from jdfd_keras.data.leaks import COLUMNS, by_split, describe_leaks, find_leaks, refuse_leaks
from jdfd_keras.data.manifest import read_faces
from jdfd_keras.data.pipeline import explain_damage, load_faces
from jdfd_keras.data.videos import CLASSES
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import (
    AugmentOptions,
    FaceOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    SplitOptions,
    TrainOptions,
)
from jdfd_keras.training.callbacks import ProgressLine, RunFolder, StopAtNaN
from jdfd_keras.training.compile import CLASSIFICATION, RECONSTRUCTION, compile_detector
from jdfd_keras.training.optimizer import build_optimizer
from jdfd_keras.training.run import (
    LAST,
    LOGS,
    MONITOR,
    SEEN,
    best_epoch,
    read_history,
    write_seen,
)

VALIDATION_BATCH = 32


@dataclass(frozen=True)
class TrainedRun:
    """What `train` made.

    Attributes:
        directory: The run folder.
        history: One dict per epoch, in order.
        best_epoch: The epoch that `best.keras` is of, from 1.
        best_frame_auc: Its frame AUC on the validation split.
    """

    directory: Path
    history: list[dict[str, float]]
    best_epoch: int
    best_frame_auc: float


@dataclass(frozen=True)
class DataFacts:
    """What a run folder says of its data set; `digest` tells it from all others."""

    name: str
    digest: str
    train_faces: int
    val_faces: int
    leaks: str


def train(
    data: str | Path,
    out: str | Path,
    model: ModelOptions | None = None,
    optimizer: OptimizerOptions | None = None,
    options: TrainOptions | None = None,
    pipeline: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
) -> TrainedRun:
    """Train a detector on the training split and choose its best epoch on the validation split.

    Args:
        data: A prepared data set; the network takes its face size.
        out: The run folder; made, or gone on with when a run of the same options was
            interrupted, or left as it is when that run is done.
        model: The network; `image_size` is replaced by the data set's face size.
        optimizer: How weights are stepped.
        options: Epochs, batch, loss weights, seed; whether a leaking data set is taken.
        pipeline: Balance of the classes, caching.
        augment: How training faces are changed at random; not at all if not given.

    Returns:
        What was made.

    Raises:
        OSError: If `data` is no prepared data set, or ImageNet weights cannot be had.
        ValueError: If the training or validation split lacks a class, splits share sources or
            near-duplicate faces and `options.allow_leak` is not given, an option is out of
            range, `out` was made with other options, or the loss stops being a number.
    """
    data, out = Path(data), Path(out)
    options, optimizer = options or TrainOptions(), optimizer or OptimizerOptions()
    if options.epochs < 1 or options.batch_size < 1:
        raise ValueError(
            f"Expected epochs >= 1 and batch_size >= 1; got {options.epochs} and "
            f"{options.batch_size}. Try the defaults, 20 and 4."
        )
    pipeline, augment = pipeline or PipelineOptions(), augment or AugmentOptions()
    facts, seen = _look_at(data, options.allow_leak)
    faces = load_options(data / OPTIONS, "faces", FaceOptions)
    model = dataclasses.replace(model or ModelOptions(), image_size=faces.face_size)
    told = {"data": facts, "faces": faces, "model": model, "optimizer": optimizer}
    told |= {"pipeline": pipeline, "augment": augment}
    told["split"] = load_options(data / OPTIONS, "split", SplitOptions)

    history = read_history(out)
    # What an epoch draws depends on how many came before it in this process: a run that goes on
    # takes another seed, so as not to repeat the order of its first epochs.
    seed = options.seed + len(history)
    keras.utils.set_random_seed(seed)
    # Built before the folder is claimed: weights that cannot be had leave nothing behind.
    detector = None if history else _build(model, optimizer, options, facts)
    claim_directory(out, **told, train=options)
    if not (out / SEEN).is_file():
        write_seen(out, seen)
    if len(history) < options.epochs:
        detector = detector or keras.models.load_model(out / LAST)
        with explain_damage(data):
            detector.fit(
                load_faces(
                    data,
                    "train",
                    batch_size=options.batch_size,
                    shuffle=True,
                    seed=seed,
                    options=pipeline,
                    augment=augment,
                ),
                validation_data=load_faces(
                    data, "val", batch_size=VALIDATION_BATCH, labelled_only=True
                ),
                initial_epoch=len(history),
                epochs=options.epochs,
                shuffle=False,  # load_faces did
                verbose=0,
                callbacks=[
                    StopAtNaN(),
                    ProgressLine(facts.train_faces, options.batch_size),
                    RunFolder(out, history),
                    keras.callbacks.TensorBoard(str(out / LOGS), write_graph=False),
                ],
            )
        history = read_history(out)
    best = best_epoch(history)
    return TrainedRun(out, history, best + 1, history[best][MONITOR])


def _look_at(data: Path, allow_leak: bool) -> tuple[DataFacts, pa.Table]:
    """See that a data set can be learned from, before hours go by.

    Returns:
        What the run says of it, and the columns by which its faces are known again.
    """
    faces = read_faces(data, columns=[*COLUMNS, "split", "label"])
    parts = by_split(faces)
    for split in ("train", "val"):
        labels = parts[split]["label"].to_numpy()
        counts = {name: int((labels == label).sum()) for name, label in CLASSES.items()}
        if not all(counts.values()):
            raise ValueError(
                f"Expected real and fake faces in the {split} split of {data}; got "
                f"{counts['real']} real and {counts['fake']} fake. A detector cannot learn or be "
                "chosen on one class: add videos and prepare the data set again."
            )
    leaks = find_leaks(parts)
    if not allow_leak:
        refuse_leaks(
            leaks,
            f"the splits of {data}",
            "Prepare it with --split strict, look at `jdfd-keras audit`, or give --allow-leak.",
        )
    facts = DataFacts(
        name=data.resolve().name,
        digest=_digest(parts),
        train_faces=len(parts["train"]),
        val_faces=len(parts["val"]),
        leaks=describe_leaks(leaks, checked="training, validation and testing"),
    )
    return facts, pa.concat_tables([parts["train"], parts["val"]])


def _digest(parts: dict[str, pa.Table]) -> str:
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name in ("video_id", "phash", "label"):
            values = parts[split][name].cast(pa.string()).to_pylist()
            digest.update("\n".join([split, name, *values]).encode())
    return digest.hexdigest()[:16]


def _build(
    model: ModelOptions, optimizer: OptimizerOptions, options: TrainOptions, facts: DataFacts
) -> keras.Model:
    detector = build_detector(model)
    steps_per_epoch = math.ceil(facts.train_faces / options.batch_size)
    compile_detector(
        detector,
        build_optimizer(optimizer, steps_per_epoch),
        {
            CLASSIFICATION: options.classification_weight,
            RECONSTRUCTION: options.reconstruction_weight,
        },
    )
    return detector
