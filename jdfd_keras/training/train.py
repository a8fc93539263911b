"""Training of a detector: from a prepared dataset to a run folder.

Loads and checks the data, builds and compiles the network, fits it, and keeps the best epoch. A
run that was interrupted at any step resumes from its last checkpoint, with the same result.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.datasets.face_index import FaceIndex
from jdfd_keras.datasets.pipeline import read_epoch, stream_faces
from jdfd_keras.datasets.transforms import reraise_damaged_shards
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.io.files import OPTIONS, init_folder, load_groups, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import (
    AugmentOptions,
    DataLocation,
    FaceOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    SplitOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
)
from jdfd_keras.training.callbacks import (
    DrawFigures,
    ProgressLine,
    ResumeMetrics,
    RunFolder,
    StopAtNaN,
    ValidateAverage,
)
from jdfd_keras.training.checkpoint import Checkpoint, load_checkpoint, restore
from jdfd_keras.training.compile import (
    CLASSIFICATION,
    RECONSTRUCTION,
    build_optimizer,
    compile_detector,
)
from jdfd_keras.training.devices import open_devices, reraise_worker_loss
from jdfd_keras.training.run_folder import (
    LOGS,
    MONITOR,
    PROVENANCE,
    DataFacts,
    best_epoch,
    read_history,
    write_provenance,
)
from jdfd_keras.training.training_data import TrainSetup, check_setup, load_training_data

VALIDATION_BATCH_SIZE = 32
NUM_SHOWN_FACES = 8  # on the figure of reconstructions


@dataclass(frozen=True)
class TrainedRun(Result):
    """A finished training.

    Attributes:
        directory: The run folder.
        epochs: Number of epochs.
        best_epoch: Number of the epoch of `best.keras`, from 1.
        validation_frame_auc: Frame AUC of that epoch on the validation split.
    """

    directory: Path
    epochs: int
    best_epoch: int
    validation_frame_auc: float

    @property
    def history(self) -> list[dict[str, float]]:
        """Losses and metrics, one dict per epoch, read from the run folder."""
        return read_history(self.directory)


def train(
    data: str | Path,
    out: str | Path,
    model: ModelOptions | None = None,
    optimizer: OptimizerOptions | None = None,
    train: TrainOptions | None = None,
    pipeline: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
    *,
    loss: LossOptions | None = None,
    unlabelled: UnlabelledOptions | None = None,
    runtime: TrainRuntime | None = None,
) -> TrainedRun:
    """Train a detector on the training split and select its best epoch on the validation split.

    All batches of an epoch are full: the last one is filled up with the first faces of the next
    pass. On CPUs, weights are reproducible bit for bit with the same seed on the same machine,
    whether the run was interrupted or not.

    Args:
        data: A prepared dataset; its face size is the input size of the network.
        out: The run folder. It is created; an interrupted run with the same options is resumed,
            and a finished one is left unchanged.
        model: Network; `image_size` is replaced by the face size of the dataset.
        optimizer: Optimizer, with its learning rates.
        train: Epochs, batch size and seed; whether leakage between the splits is allowed.
        pipeline: Balance and weights of the classes, faces that the decoder learns, caching.
        augment: Random augmentation of training faces; default is none.
        loss: Weights of both losses.
        unlabelled: Other datasets, of which some faces train the decoder only.
        runtime: Devices and checkpoints.

    Returns:
        The run folder, its best epoch and validation AUC.

    Raises:
        OSError: If `data` is not a prepared dataset, the ImageNet weights cannot be downloaded,
            or another machine of the training stopped.
        ValueError: If the training or validation split lacks a class, the splits share sources or
            near-duplicate faces and `train.allow_leak` is false, an option is out of range, `out`
            belongs to a run with other options, the loss becomes NaN or infinite, or memory is
            insufficient.

    Example:
        >>> run = train("prepared", "run", train=TrainOptions(epochs=10))  # doctest: +SKIP
        >>> run.best_epoch, run.validation_frame_auc  # doctest: +SKIP
        (7, 0.981)
    """
    data, out = Path(data), Path(out)
    unlabelled = unlabelled or UnlabelledOptions()
    # Absolute paths, so that the run can be resumed from another working directory.
    paths = tuple(str(Path(directory).resolve()) for directory in unlabelled.unlabelled)
    unlabelled = dataclasses.replace(unlabelled, unlabelled=paths)
    train, runtime = train or TrainOptions(), runtime or TrainRuntime()
    if not 0 <= train.seed < 2**32:
        raise ValueError(f"Expected a seed from 0 to {2**32 - 1}; got {train.seed}. Try 0.")
    devices = open_devices(runtime.strategy)
    training_data = load_training_data(
        data, unlabelled, seed=train.seed, allow_leak=train.allow_leak
    )
    faces = load_options(data / OPTIONS, "faces", FaceOptions)
    model = model or ModelOptions()
    setup = TrainSetup(
        model=dataclasses.replace(
            model,
            image_size=faces.face_size,
            encoder_weights="none" if model.encoder_weights is None else model.encoder_weights,
        ),
        optimizer=optimizer or OptimizerOptions(),
        loss=loss or LossOptions(),
        pipeline=pipeline or PipelineOptions(),
        augment=augment or AugmentOptions(),
        train=train,
        runtime=runtime,
        devices=devices,
        data=training_data,
    )
    check_setup(setup)
    with (
        reraise_worker_loss(devices),
        reraise_damaged_shards(*training_data.directories),
        _reraise_out_of_memory(setup),
    ):
        if (out / OPTIONS).is_file():
            load_groups(out / OPTIONS)  # for the format version
        checkpoint = load_checkpoint(out)
        # Built before the folder is created: missing encoder weights leave no folder behind.
        detector = None if setup.is_done(checkpoint.history) else _build(setup, checkpoint)
        if devices.is_chief:
            _init_run_folder(
                out,
                setup,
                data,
                faces=faces,
                unlabelled=unlabelled,
                split=load_options(data / OPTIONS, "split", SplitOptions),
            )
        devices.any(True)  # wait until the run folder exists
        while not setup.is_done(checkpoint.history):
            if checkpoint.weights:
                with devices.scope():
                    restore(detector, checkpoint)
            _fit(detector, setup, checkpoint, out)
            devices.any(True)
            checkpoint = load_checkpoint(out)
    history = checkpoint.history
    best = best_epoch(history)
    return TrainedRun(out, len(history), best + 1, history[best][MONITOR])


def _init_run_folder(out: Path, setup: TrainSetup, data: Path, **groups: Any) -> None:
    """Create the run folder with its options and provenance, or check that it has the same."""
    for name in ("model", "optimizer", "loss", "pipeline", "augment", "train"):
        groups[name] = getattr(setup, name)
    groups["data"] = _keep_name(setup.data.facts, out)
    if not (out / OPTIONS).is_file():  # a resumed run may find its dataset elsewhere
        groups["location"] = DataLocation(str(data.resolve()))
    init_folder(out, **groups)
    if not (out / PROVENANCE).is_file():
        write_provenance(out, setup.data.provenance)


def _keep_name(facts: DataFacts, out: Path) -> DataFacts:
    """Return the facts with the dataset name of the run folder, if the digest is the same."""
    if (out / OPTIONS).is_file():
        stored = load_options(out / OPTIONS, "data", DataFacts)
        if stored.digest == facts.digest:
            return dataclasses.replace(facts, name=stored.name)
    return facts


def _build(setup: TrainSetup, checkpoint: Checkpoint) -> keras.Model:
    keras.utils.set_random_seed(setup.train.seed)
    options = setup.model
    if checkpoint.weights:  # they replace the initial weights
        options = dataclasses.replace(options, encoder_weights="none")
    dtype_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(setup.train.precision)
    try:
        with setup.devices.scope():
            detector = build_detector(options)
            if setup.devices.replicas > 1:
                # Normalize over the whole batch, for any number of devices that share it.
                for layer in detector.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True
            weights = {
                CLASSIFICATION: setup.loss.classification_weight,
                RECONSTRUCTION: setup.loss.reconstruction_weight,
            }
            compile_detector(
                detector,
                build_optimizer(setup.optimizer, setup.steps_per_epoch),
                {name: weights[name] for name in detector.output},
                setup.loss.label_smoothing,
            )
    finally:
        keras.config.set_dtype_policy(dtype_policy)
    return detector


def _fit(detector: keras.Model, setup: TrainSetup, start: Checkpoint, out: Path) -> None:
    """Train from a checkpoint to the end, or to the end of its epoch if it is within one.

    Keras runs the same number of steps in every epoch of a `fit`.
    """
    steps, batch_size = setup.steps_per_epoch, setup.train.batch_size
    data, devices = setup.data, setup.devices

    def make_train(**worker: int) -> tf.data.Dataset:
        return stream_faces(
            data.train,
            batch_size=batch_size,
            seed=setup.train.seed,
            start_step=start.epoch * steps + start.step,
            options=setup.pipeline,
            augment=setup.augment,
            **worker,
        ).map(select_outputs)

    def make_val(**worker: int) -> tf.data.Dataset:
        batches = read_epoch(data.val, max_batch_size=VALIDATION_BATCH_SIZE, **worker)
        return batches.map(select_outputs).repeat()

    def select_outputs(image, targets, *weights):
        named = (targets, *weights)
        return image, *({name: values[name] for name in detector.output} for values in named)

    callbacks = [StopAtNaN(start, setup.name_faces), ResumeMetrics(start)]
    if setup.optimizer.average:
        callbacks.append(ValidateAverage())
    if devices.is_chief:
        callbacks += [
            ProgressLine(steps, batch_size, start),
            keras.callbacks.TensorBoard(str(out / LOGS), write_graph=False),
            DrawFigures(out, out / LOGS / "figures", _select_faces(data.val), start.history),
        ]
    callbacks.append(RunFolder(out, start, devices, setup.runtime, setup.is_done))
    detector.fit(
        devices.distribute(make_train),
        validation_data=devices.distribute(make_val),
        # Given, and the dataset repeated: at the end of a dataset Keras runs one more step on some
        # devices, which counts in the means (3.15.1). Every validation starts a new iterator.
        validation_steps=math.ceil(len(data.val) / (VALIDATION_BATCH_SIZE * devices.replicas)),
        initial_epoch=start.epoch,
        epochs=start.epoch + 1 if start.step else setup.train.epochs,
        steps_per_epoch=steps - start.step,
        shuffle=False,  # the stream is shuffled
        verbose=0,
        callbacks=callbacks,
    )


def _select_faces(faces: FaceIndex) -> np.ndarray:
    """Read some faces of each class, evenly spaced; float32[n, size, size, 3]."""
    indices = []
    for label in CLASSES.values():
        members = np.flatnonzero(faces.label == label)
        count = min(NUM_SHOWN_FACES // len(CLASSES), len(members))
        indices += members[np.linspace(0, len(members) - 1, count).astype(int)].tolist()
    return np.stack([faces.read(index) for index in indices]).astype(np.float32)


@contextlib.contextmanager
def _reraise_out_of_memory(setup: TrainSetup) -> Iterator[None]:
    """Convert out-of-memory errors to a ValueError that suggests a smaller batch."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        batch_size, replicas = setup.train.batch_size, setup.devices.replicas
        half = batch_size // 2 // replicas * replicas
        advice = f"Try --batch-size {half}" if half else "Try faces of a smaller --face-size"
        if half and replicas == 1:
            advice += (
                f" --accumulate {2 * setup.optimizer.accumulate}, which averages as many faces"
            )
        cause = re.search(r"OOM when allocating.*", str(error))
        raise ValueError(
            f"Expected memory for batches of {batch_size} faces of {setup.model.image_size} "
            f"pixels; got '{cause[0] if cause else type(error).__name__}'. {advice}."
        ) from error
