"""Training of a detector: from a prepared dataset to a run folder.

A run that was interrupted at any step resumes from its last checkpoint, with the same result.
Ctrl-C and SIGTERM write one first.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import keras
import tensorflow as tf

from jdfd_keras.datasets.pipeline import read_epoch, stream_faces
from jdfd_keras.datasets.split_tables import absolute_name, read_split_table
from jdfd_keras.datasets.transforms import reraise_damaged_shards
from jdfd_keras.io.console import print_message
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.files import OPTIONS, init_folder, load_groups, load_options
from jdfd_keras.io.results import Result
from jdfd_keras.io.stop_signals import SignalHold
from jdfd_keras.model.embedding import EMBEDDING
from jdfd_keras.model.manipulation_map import count_map_cells
from jdfd_keras.model.mesonet import MESONETS
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import (
    AugmentOptions,
    DataLocation,
    FaceOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
    resolve_settings,
)
from jdfd_keras.training.callbacks import ProgressLine, RunFolder, StopAtNaN
from jdfd_keras.training.checkpoint import Checkpoint, load_checkpoint, restore
from jdfd_keras.training.compile import CLASSIFICATION, build_optimizer, compile_detector
from jdfd_keras.training.devices import (
    open_devices,
    reraise_device_errors,
    resolve_precision,
)
from jdfd_keras.training.fast_layers import accelerate
from jdfd_keras.training.headpose_run import METHOD as HEADPOSE_METHOD
from jdfd_keras.training.headpose_run import train_headpose
from jdfd_keras.training.run_folder import (
    LOGS,
    MONITOR,
    PROVENANCE,
    DataFacts,
    best_epoch,
    read_history,
    write_provenance,
)
from jdfd_keras.training.train_setup import TrainSetup, check_setup
from jdfd_keras.training.training_data import load_training_data
from jdfd_keras.training.validation import Validation

VALIDATION_BATCH_SIZE = 32
STOP_NOTICE = "stopping with a checkpoint after this step or validation; Ctrl-C: without, at once"


@dataclass(frozen=True)
class TrainedRun(Result):
    """A finished training."""

    directory: Path  # the run folder
    epochs: int
    best_epoch: int  # number of the epoch of `best.keras`, from 1
    validation_frame_auc: float  # of that epoch
    validated_on: str  # labelled fakes, or blended ones with their kinds

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

    Groups that are not given are those of the method of `model`, in METHOD_SETTINGS: for the Joint
    DeepFake Detector, the defaults.

    All batches of an epoch are full: the last one is filled up with the first faces of the next
    pass. On CPUs, weights are reproducible bit for bit with the same seed on the same machine,
    whether the run was interrupted or not.

    Args:
        data: A prepared dataset; its face size is the input size of the network.
        out: The run folder. It is created; an interrupted run with the same options is resumed,
            and a finished one is left unchanged.
        model: Method and network; `image_size` is replaced by the face size of the dataset.
        optimizer: Optimizer, with its learning rates.
        train: Epochs, batch size and seed; whether leakage between the splits is allowed.
        pipeline: Blended fakes, balance and weights of the classes, faces that the decoder learns,
            caching.
        augment: Random augmentation of training faces.
        loss: Weights of both losses.
        unlabelled: Other datasets, of which some faces train the decoder only.
        runtime: Devices and checkpoints.

    The precision `auto` is that of the run, if it exists, so that it is resumed in the precision
    that it began with, on another processor, too.

    Raises:
        OSError: If a file is missing or cannot be downloaded, the disk is full, or another machine
            stopped.
        KeyboardInterrupt: At Ctrl-C, after a checkpoint; a second one does not wait for it. Other
            signals that end the process wait for a checkpoint, too.
        ValueError: If the data, an option or the memory are unsuitable, the method does not have an
            option, the splits share footage, `out` belongs to a run with other options, or the loss
            becomes NaN or infinite.

    Example:
        >>> run = train(
        ...     "prepared",
        ...     "run",  # finished before, so that it is left unchanged
        ...     model=ModelOptions(encoder_weights="none", latent_dim=16),
        ...     optimizer=OptimizerOptions(optimizer="adam", learning_rate=0.0005),
        ...     train=TrainOptions(epochs=1, batch_size=8),
        ... )
        >>> run.epochs, run.best_epoch
        (1, 1)
    """
    data, out = Path(data), Path(out)
    if (out / OPTIONS).is_file():
        load_groups(out / OPTIONS)  # refuses another format version
    groups = resolve_settings(
        {
            "model": model,
            "optimizer": optimizer,
            "loss": loss,
            "train": train,
            "unlabelled": unlabelled,
            "pipeline": pipeline,
            "augment": augment,
        }
    )
    model, train = cast(ModelOptions, groups["model"]), cast(TrainOptions, groups["train"])
    unlabelled = cast(UnlabelledOptions, groups.pop("unlabelled"))
    if not 0 <= train.seed < 2**32:
        raise ValueError(f"Expected a seed from 0 to {2**32 - 1}; got {train.seed}. Try 0.")
    # Absolute paths, so that the run can be resumed from another working directory.
    train = dataclasses.replace(train, split_table=absolute_name(train.split_table))
    paths = tuple(str(Path(directory).resolve()) for directory in unlabelled.unlabelled)
    unlabelled = dataclasses.replace(unlabelled, unlabelled=paths)
    runtime = runtime or TrainRuntime()
    devices = open_devices(runtime.strategy)
    if model.method != HEADPOSE_METHOD:
        train = resolve_precision(train, out, devices)
    mask_cells = 0
    if model.method == "xception-regression":
        mask_cells = count_map_cells(load_options(data / OPTIONS, "faces", FaceOptions).face_size)
    loaded = load_training_data(
        data,
        unlabelled,
        seed=train.seed,
        allow_leak=train.allow_leak,
        split_table=train.split_table,
        pipeline=groups["pipeline"],
        mask_cells=mask_cells,
    )
    face_options = load_options(data / OPTIONS, "faces", FaceOptions)
    weights = "none" if model.encoder_weights is None else model.encoder_weights
    model = dataclasses.replace(model, image_size=face_options.face_size, encoder_weights=weights)
    if model.network in MESONETS:
        model = dataclasses.replace(model, decoder=False, encoder_weights="none")
    groups |= {"model": model, "train": train}
    setup = TrainSetup(**groups, runtime=runtime, devices=devices, data=loaded)

    def init() -> None:
        _init_run_folder(out, setup, data, face_options, unlabelled)

    batches = {"image_size": model.image_size, "batch_size": train.batch_size}
    with (
        reraise_device_errors(devices, **batches, accumulate=setup.optimizer.accumulate),
        reraise_damaged_shards(*loaded.directories),
        # Inside of the first: TensorFlow has one class of errors for memory and disk.
        reraise_disk_full(f"the run {out}", "training resumes from its last checkpoint"),
    ):
        if model.method == HEADPOSE_METHOD:
            history = train_headpose(data, out, train, init=init)
        else:
            history = _train_network(setup, out, init)
    best = best_epoch(history)
    return TrainedRun(
        out, len(history), best + 1, history[best][MONITOR], setup.data.facts.validated_on
    )


def _train_network(
    setup: TrainSetup, out: Path, init: Callable[[], None]
) -> list[dict[str, float]]:
    """Train to the end, from the last checkpoint of the run if it has one; return the history."""
    check_setup(setup)
    devices, checkpoint = setup.devices, load_checkpoint(out)
    # Built before the folder is created: missing encoder weights leave no folder behind.
    detector = None if setup.is_done(checkpoint.history) else _build(setup, checkpoint)
    if devices.is_chief:
        init()
        if detector:
            print_message("building the graph of the training, before the first step")
    devices.any(True)  # wait until the run folder exists
    while detector and not setup.is_done(checkpoint.history):
        if checkpoint.weights:
            with devices.scope():
                restore(detector, checkpoint)
        _fit(detector, setup, checkpoint, out)
        devices.any(True)
        checkpoint = load_checkpoint(out)
    return checkpoint.history


def _init_run_folder(
    out: Path, setup: TrainSetup, data: Path, faces: FaceOptions, unlabelled: UnlabelledOptions
) -> None:
    """Create the run folder with its options and provenance, or check that it has the same."""
    split = read_split_table(data, setup.train.split_table).options
    groups = {"faces": faces, "unlabelled": unlabelled, "split": split}
    for name in ("model", "optimizer", "loss", "pipeline", "augment", "train"):
        groups[name] = getattr(setup, name)
    groups["data"] = setup.data.facts
    if (out / OPTIONS).is_file():
        # A resumed run may find its dataset elsewhere, under another name.
        stored = load_options(out / OPTIONS, "data", DataFacts)
        if stored.digest == setup.data.facts.digest:
            groups["data"] = dataclasses.replace(setup.data.facts, name=stored.name)
    else:
        groups["location"] = DataLocation(str(data.resolve()))
    init_folder(out, **groups)
    if not (out / PROVENANCE).is_file():
        write_provenance(out, setup.data.provenance)


def _build(setup: TrainSetup, checkpoint: Checkpoint) -> keras.Model:
    keras.utils.set_random_seed(setup.train.seed)
    options = setup.model
    if checkpoint.history or checkpoint.weights:  # those of the checkpoint are used
        options = dataclasses.replace(options, encoder_weights="none")
    devices, dtype_policy = setup.devices, keras.config.dtype_policy()
    keras.config.set_dtype_policy(setup.train.precision)
    try:
        with devices.scope():
            detector = build_detector(options)
            if devices.replicas > 1:
                # Normalize over the whole batch, for any number of devices that share it.
                for layer in detector.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True
            optimizer = build_optimizer(setup.optimizer, setup.steps_per_epoch)
            if not devices.has_gpu and devices.replicas == 1:
                detector = accelerate(detector)
            compile_detector(detector, optimizer, setup.loss)
    finally:
        keras.config.set_dtype_policy(dtype_policy)
    return detector


def _fit(detector: keras.Model, setup: TrainSetup, start: Checkpoint, out: Path) -> None:
    """Train from a checkpoint to the end, or to the end of its epoch if it is within one.

    Keras runs the same number of steps in every epoch of a `fit`.
    """
    steps, batch_size = setup.steps_per_epoch, setup.train.batch_size
    data, devices, outputs = setup.data, setup.devices, list(cast(dict, detector.output))
    val_outputs = [name for name in outputs if name != EMBEDDING]

    def make_train(**worker: int) -> tf.data.Dataset:
        return stream_faces(
            data.train,
            batch_size=batch_size,
            seed=setup.train.seed,
            start_step=start.epoch * steps + start.step,
            options=setup.pipeline,
            augment=setup.augment,
            **worker,
        ).map(lambda *batch: select(batch, outputs))

    def make_val(**worker: int) -> tf.data.Dataset:
        reconstruct = setup.pipeline.reconstruct
        batches = read_epoch(
            data.val, max_batch_size=VALIDATION_BATCH_SIZE, reconstruct=reconstruct, **worker
        )
        return batches.map(lambda *batch: select(batch, val_outputs))

    def select(batch: tuple, names: list[str]) -> tuple:
        image, *named = batch
        # The triplet loss needs labels, and their weights.
        named = [{EMBEDDING: values[CLASSIFICATION], **values} for values in named]
        return image, *({name: values[name] for name in names} for values in named)

    callbacks: list[keras.callbacks.Callback] = [
        StopAtNaN(start, setup.name_faces),
        Validation(devices.distribute(make_val)),  # before the callbacks that use its results
    ]
    faces = None
    if devices.is_chief:
        faces = data.read_examples()
        callbacks += [
            ProgressLine(steps, batch_size, start),
            keras.callbacks.TensorBoard(str(out / LOGS), write_graph=False),
        ]
    with SignalHold(STOP_NOTICE) as hold:
        callbacks.append(RunFolder(out, start, devices, setup.runtime, setup.is_done, faces, hold))
        detector.fit(
            devices.distribute(make_train),
            initial_epoch=start.epoch,
            epochs=start.epoch + 1 if start.step else setup.train.epochs,
            steps_per_epoch=steps - start.step,
            shuffle=False,  # the stream is shuffled
            verbose=0,  # pyright: ignore[reportArgumentType], typed as its default "auto"
            callbacks=callbacks,
        )
