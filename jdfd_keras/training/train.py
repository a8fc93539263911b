"""A prepared data set in, a run folder out.

The one way through this room: look at the data, build, compile, fit, keep the best epoch. A run
that was interrupted, at whatever step, goes on from its last checkpoint to the same end.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.datasets.face_index import FaceList
from jdfd_keras.datasets.pipeline import share_faces, stream_faces
from jdfd_keras.datasets.transforms import explain_damage
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.io.files import OPTIONS, claim_directory, load_options
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import (
    AugmentOptions,
    FaceOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    PlaceOptions,
    RunOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.training.callbacks import (
    ContinueMetrics,
    Pictures,
    ProgressLine,
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
from jdfd_keras.training.devices import explain_loss, open_devices
from jdfd_keras.training.run_folder import LOGS, MONITOR, SEEN, best_epoch, write_seen
from jdfd_keras.training.training_data import DataFacts, Plan, check_plan, gather

VALIDATION_BATCH = 32
FACES_SHOWN = 8


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


def train(
    data: str | Path,
    out: str | Path,
    model: ModelOptions | None = None,
    optimizer: OptimizerOptions | None = None,
    options: TrainOptions | None = None,
    pipeline: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
    *,
    loss: LossOptions | None = None,
    unlabelled: UnlabelledOptions | None = None,
    run: RunOptions | None = None,
) -> TrainedRun:
    """Train a detector on the training split and choose its best epoch on the validation split.

    An epoch is as many steps as the training faces fill; all batches are full, the last one with
    the first faces of the next pass. On CPUs, the same seed on the same machine gives the same
    weights, bit for bit, interrupted or not.

    Args:
        data: A prepared data set; the network takes its face size.
        out: The run folder; made, or gone on with when a run of the same options was
            interrupted, or left as it is when that run is done.
        model: The network; `image_size` is replaced by the data set's face size.
        optimizer: How weights are stepped.
        options: Epochs, batch, seed; whether a leaking data set is taken.
        pipeline: Balance and weights of the classes, what the decoder learns, caching.
        augment: How training faces are changed at random; not at all if not given.
        loss: Weights of both losses.
        unlabelled: Other data sets, of which some faces teach the decoder alone.
        run: Devices and checkpoints.

    Returns:
        What was made.

    Raises:
        OSError: If `data` is no prepared data set, ImageNet weights cannot be had, or another
            machine stopped.
        ValueError: If the training or validation split lacks a class, splits share sources or
            near-duplicate faces and `options.allow_leak` is not given, an option is out of
            range, `out` was made with other options, the loss stops being a number, or memory
            does not suffice.
    """
    data, out = Path(data), Path(out)
    options, optimizer = options or TrainOptions(), optimizer or OptimizerOptions()
    pipeline, unlabelled = pipeline or PipelineOptions(), unlabelled or UnlabelledOptions()
    # In full, so that the run can be gone on with from elsewhere.
    foreign = tuple(str(Path(directory).resolve()) for directory in unlabelled.unlabelled)
    unlabelled = dataclasses.replace(unlabelled, unlabelled=foreign)
    run = run or RunOptions()
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"Expected a seed from 0 to {2**32 - 1}; got {options.seed}. Try 0.")
    devices = open_devices(run.strategy)
    material = gather(data, unlabelled, seed=options.seed, allow_leak=options.allow_leak)
    faces = load_options(data / OPTIONS, "faces", FaceOptions)
    plan = Plan(
        model=dataclasses.replace(model or ModelOptions(), image_size=faces.face_size),
        optimizer=optimizer,
        loss=loss or LossOptions(),
        pipeline=pipeline,
        augment=augment or AugmentOptions(),
        train=options,
        run=run,
        devices=devices,
        material=material,
    )
    check_plan(plan)
    told = {"data": _keep_name(material.facts, out), "faces": faces, "unlabelled": unlabelled}
    told |= {name: getattr(plan, name) for name in ("model", "optimizer", "loss", "pipeline")}
    told |= {"augment": plan.augment, "train": options}
    told["split"] = load_options(data / OPTIONS, "split", SplitOptions)

    with explain_loss(devices), explain_damage(*material.directories), _explain_memory(plan):
        checkpoint = load_checkpoint(out)
        # Built before the folder is claimed: weights that cannot be had leave nothing behind.
        detector = None if plan.is_done(checkpoint.history) else _build(plan, checkpoint)
        if devices.is_chief:
            is_new = not (out / OPTIONS).is_file()
            claim_directory(
                out, **told, **({"place": PlaceOptions(str(data.resolve()))} if is_new else {})
            )
            if not (out / SEEN).is_file():
                write_seen(out, plan.material.seen)
        devices.any(True)  # the folder is claimed before anyone goes on
        while not plan.is_done(checkpoint.history):
            if checkpoint.weights:
                with devices.scope():
                    restore(detector, checkpoint)
            _fit(detector, plan, checkpoint, out)
            devices.any(True)
            checkpoint = load_checkpoint(out)
    best = best_epoch(checkpoint.history)
    return TrainedRun(out, checkpoint.history, best + 1, checkpoint.history[best][MONITOR])


def _keep_name(facts: DataFacts, out: Path) -> DataFacts:
    """Call the data set of a run as it was called, though its folder has another name now."""
    if (out / OPTIONS).is_file():
        before = load_options(out / OPTIONS, "data", DataFacts)
        if before.digest == facts.digest:
            return dataclasses.replace(facts, name=before.name)
    return facts


def _build(plan: Plan, checkpoint: Checkpoint) -> keras.Model:
    keras.utils.set_random_seed(plan.train.seed)
    options = plan.model
    if checkpoint.weights:  # which take the place of those to begin with
        options = dataclasses.replace(options, encoder_weights="none")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(plan.train.precision)
    try:
        with plan.devices.scope():
            detector = build_detector(options)
            if plan.devices.replicas > 1:
                # So that a batch is normalised as a whole, however many devices share it.
                for layer in detector.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True
            weights = {
                CLASSIFICATION: plan.loss.classification_weight,
                RECONSTRUCTION: plan.loss.reconstruction_weight,
            }
            compile_detector(
                detector,
                build_optimizer(plan.optimizer, plan.steps_per_epoch),
                {name: weights[name] for name in detector.output},
                plan.loss.label_smoothing,
            )
    finally:
        keras.config.set_dtype_policy(before)
    return detector


def _fit(detector: keras.Model, plan: Plan, begun: Checkpoint, out: Path) -> None:
    """Train from a checkpoint to the end; from within an epoch only to its end.

    Keras gives every epoch of a call the same number of steps.
    """
    steps, batch_size = plan.steps_per_epoch, plan.train.batch_size
    material, devices = plan.material, plan.devices

    def make_train(**share: int) -> tf.data.Dataset:
        return stream_faces(
            material.train,
            batch_size=batch_size,
            seed=plan.train.seed,
            start_step=begun.epoch * steps + begun.step,
            options=plan.pipeline,
            augment=plan.augment,
            **share,
        ).map(for_detector)

    def make_val(**share: int) -> tf.data.Dataset:
        shared = share_faces(material.val, most=VALIDATION_BATCH, **share)
        return shared.map(for_detector).repeat()

    def for_detector(image, targets, *weights):
        return image, *({name: of[name] for name in detector.output} for of in (targets, *weights))

    callbacks = [StopAtNaN(begun, plan.name_faces), ContinueMetrics(begun)]
    if plan.optimizer.average:
        callbacks.append(ValidateAverage())
    if devices.is_chief:
        callbacks += [
            ProgressLine(steps, batch_size, begun),
            keras.callbacks.TensorBoard(str(out / LOGS), write_graph=False),
            Pictures(out, out / LOGS / "pictures", _choose_shown(material.val), begun.history),
        ]
    callbacks.append(RunFolder(out, begun, devices, plan.run, plan.is_done))
    detector.fit(
        devices.distribute(make_train),
        validation_data=devices.distribute(make_val),
        # Told, and the data repeated: at their end Keras runs one more step on some devices, which
        # counts in the means (3.15.1). Every validation begins them anew.
        validation_steps=math.ceil(len(material.val) / (VALIDATION_BATCH * devices.replicas)),
        initial_epoch=begun.epoch,
        epochs=begun.epoch + 1 if begun.step else plan.train.epochs,
        steps_per_epoch=steps - begun.step,
        shuffle=False,  # the stream did
        verbose=0,
        callbacks=callbacks,
    )


def _choose_shown(faces: FaceList) -> np.ndarray:
    """Read some faces of each class, spread evenly; float32[n, size, size, 3]."""
    positions = []
    for label in CLASSES.values():
        members = np.flatnonzero(faces.label == label)
        count = min(FACES_SHOWN // len(CLASSES), len(members))
        positions += members[np.linspace(0, len(members) - 1, count).astype(int)].tolist()
    return np.stack([faces.read(position) for position in positions]).astype(np.float32)


@contextlib.contextmanager
def _explain_memory(plan: Plan) -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        batch_size, replicas = plan.train.batch_size, plan.devices.replicas
        half = batch_size // 2 // replicas * replicas
        advice = f"Try --batch-size {half}" if half else "Try faces of a smaller --face-size"
        if half and replicas == 1:
            advice += f" --accumulate {2 * plan.optimizer.accumulate}, which averages as many faces"
        told = re.search(r"OOM when allocating.*", str(error))
        raise ValueError(
            f"Expected memory for {batch_size} faces of {plan.model.image_size} pixels at once; "
            f"got '{told[0] if told else type(error).__name__}'. {advice}."
        ) from error
