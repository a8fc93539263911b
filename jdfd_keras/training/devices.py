"""The devices of a training: one device, all GPUs of one machine, or several machines."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.processor import has_bfloat16
from jdfd_keras.options import TrainOptions

# Errors that TensorFlow raises on a machine when another machine has stopped.
_WORKER_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError, tf.errors.FailedPreconditionError),
)


@dataclass(frozen=True)
class Devices:
    """The devices that a training runs on."""

    strategy: tf.distribute.Strategy | None = None  # None for one device
    worker_index: int = 0  # of this machine; worker 0 is the chief
    num_workers: int = 1  # number of machines
    replicas: int = 1  # number of devices of all machines together

    @property
    def has_gpu(self) -> bool:
        """Whether this machine has a GPU that TensorFlow uses."""
        return bool(tf.config.list_physical_devices("GPU"))

    @property
    def is_chief(self) -> bool:
        """Whether this machine writes the run folder."""
        return self.worker_index == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Return the context in which a model's variables are created on all devices."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def distribute(
        self, make_dataset: Callable[..., tf.data.Dataset]
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """Create the dataset of this machine from the batches of one device.

        `make_dataset` is called with `worker_index`, `num_workers` and `replicas`.
        """
        worker = {"worker_index": self.worker_index, "num_workers": self.num_workers}
        if self.strategy is None:
            return make_dataset(**worker, replicas=1)
        return self.strategy.distribute_datasets_from_function(
            lambda _: make_dataset(**worker, replicas=self.replicas)
        )

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on any machine; all must call it, and wait."""
        if self.num_workers == 1:
            return condition
        return bool(self._count(tf.constant(condition)) > 0)

    @cached_property
    def _count(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy = self.strategy
        assert strategy is not None  # several machines have one

        @tf.function
        def count(condition: tf.Tensor) -> tf.Tensor:
            per_replica = strategy.run(lambda: tf.cast(condition, tf.float32))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

        return count


def open_devices(strategy: str) -> Devices:
    """Initialize the devices of a strategy.

    With `multiworker`, call it before any other function of TensorFlow; it waits for all machines.

    Args:
        strategy: `none`, `mirrored` or `multiworker` (of the machines in TF_CONFIG).

    Example:
        >>> open_devices("none")
        Devices(strategy=None, worker_index=0, num_workers=1, replicas=1)
    """
    if strategy == "none":
        return Devices()
    if strategy == "mirrored":
        mirrored = tf.distribute.MirroredStrategy()
        return Devices(mirrored, replicas=mirrored.num_replicas_in_sync)
    if strategy == "multiworker":
        worker_index, num_workers = _read_cluster()
        _patch_trainer()
        multiworker = tf.distribute.MultiWorkerMirroredStrategy()
        return Devices(multiworker, worker_index, num_workers, multiworker.num_replicas_in_sync)
    raise ValueError(
        f"Expected the strategy none, mirrored or multiworker; got {strategy!r}. Check its "
        "spelling."
    )


def resolve_precision(train: TrainOptions, run: str | Path, devices: Devices) -> TrainOptions:
    """Replace the precision `auto` by that of an existing run, or by the one of this machine.

    That is mixed_bfloat16 on one machine without a GPU whose processor has instructions for it,
    else float32. The choice is reported on stderr.

    Args:
        train: Options of the training.
        run: Folder whose `options.json`, if it exists, has the options of the training that is
            resumed.
        devices: Devices of the training.

    Example:
        >>> resolve_precision(TrainOptions(), "run", Devices()).precision
        'float32'
    """
    if train.precision != "auto":
        return train
    options = Path(run, OPTIONS)
    if options.is_file():
        precision = load_options(options, "train", TrainOptions).precision
        reason = "that of the run"
    elif devices.num_workers > 1:
        precision, reason = "float32", "several machines may have different processors"
    elif devices.has_gpu:
        precision, reason = "float32", "a GPU is used"
    elif has_bfloat16():
        precision, reason = "mixed_bfloat16", "the processor has instructions for bfloat16"
    else:
        precision, reason = "float32", "the processor has no instructions for bfloat16"
    print_message(f"precision {precision}: {reason}")
    return dataclasses.replace(train, precision=precision)


@contextlib.contextmanager
def reraise_device_errors(
    devices: Devices, *, image_size: int, batch_size: int, accumulate: int
) -> Iterator[None]:
    """Advise what to do if memory is insufficient, or another machine has stopped.

    Example:
        >>> with reraise_device_errors(Devices(), image_size=299, batch_size=32, accumulate=1):
        ...     raise MemoryError
        Traceback (most recent call last):
            ...
        ValueError: Expected memory for batches of 32 faces of 299 pixels; got 'MemoryError'. Try
        --batch-size 16 --accumulate 2, which averages as many faces.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        half = batch_size // 2 // devices.replicas * devices.replicas
        advice = f"Try --batch-size {half}" if half else "Try faces of a smaller --face-size"
        if half and devices.replicas == 1:
            advice += f" --accumulate {2 * accumulate}, which averages as many faces"
        cause = re.search(r"OOM when allocating.*", str(error))
        raise ValueError(
            f"Expected memory for batches of {batch_size} faces of {image_size} pixels; got "
            f"'{cause[0] if cause else type(error).__name__}'. {advice}."
        ) from error
    except _WORKER_LOST as error:
        if devices.num_workers == 1:
            raise
        cause = re.search(r"aborted by: (.*)", error.message)
        raise OSError(
            f"Expected all {devices.num_workers} machines of TF_CONFIG to keep running; got "
            f"'{cause[1] if cause else type(error).__name__}' on machine {devices.worker_index}: "
            "another machine has stopped. Check its error message, then run the same command on "
            "all machines again: training resumes from the last checkpoint."
        ) from error


def _read_cluster() -> tuple[int, int]:
    """Read the index of this machine and the number of machines from TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        worker_index = int(task["index"])
        if set(config["cluster"]) != {"worker"} or task["type"] != "worker":
            raise ValueError("jobs other than 'worker'")
        if not 0 <= worker_index < len(workers):
            raise ValueError(f"index {worker_index} of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected TF_CONFIG to be, on each machine with its own index, such as "
            '\'{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", '
            f'"index": 0}}}}\'; got {text!r} ({error!r}). Use --strategy mirrored or none on one '
            "machine."
        ) from error
    return worker_index, len(workers)


# Patch of Keras for several machines.
#
# Under MultiWorkerMirroredStrategy, `model.fit` of Keras 3.15.1 fails in two steps of its trainer
# (https://github.com/keras-team/keras/issues/20585). Delete this section, and the call of
# `_patch_trainer`, once tests/training/test_multiworker.py passes without it.
#
# - Before the first step, Keras builds losses and metrics from one batch, averaged over all
#   devices. `Strategy.reduce` of several machines takes a tensor, not the nested structure of
#   a batch. The batch of one device has the same shape and is used instead.
# - After each step, Keras averages the logs of all devices over their first axis, but they are
#   scalars. The logs of this machine's first device are used instead: at the end of an epoch
#   Keras reads the metrics themselves, which are summed over all devices.


def _patch_trainer() -> None:
    trainer.TensorFlowTrainer._maybe_symbolic_build = _build_from_one_batch
    trainer.reduce_per_replica = _take_first


def _build_from_one_batch(self, iterator=None, data_batch=None) -> None:
    strategy = self.distribute_strategy
    if iterator is not None:
        _, _, batches = next(iter(iterator))
        data_batch = keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    with strategy.scope():
        self._symbolic_build(data_batch=data_batch)


_reduce_per_replica = trainer.reduce_per_replica


def _take_first(values, strategy: tf.distribute.Strategy, reduction: str):
    return _reduce_per_replica(values, strategy, "first" if reduction == "auto" else reduction)
