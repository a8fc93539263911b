"""The devices of a training: one device, all GPUs of one machine, or several machines.

Takes the name of a strategy and, for several machines, TF_CONFIG; returns a `Devices`, with which
the training code is the same for one device and for many. The last section patches the trainer
of Keras for several machines.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

# Errors that TensorFlow raises on a machine when another machine has stopped.
WORKER_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Devices:
    """The devices that a training runs on.

    Attributes:
        strategy: The TensorFlow strategy; None for one device.
        worker_index: Index of this machine, from 0. Worker 0 is the chief.
        num_workers: Number of machines.
        replicas: Number of devices of all machines together.
    """

    strategy: tf.distribute.Strategy | None = None
    worker_index: int = 0
    num_workers: int = 1
    replicas: int = 1

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
        """Create the dataset of this machine.

        Args:
            make_dataset: Called with `worker_index`, `num_workers` and `replicas`; returns a
                tf.data.Dataset with the batches of one device.

        Returns:
            A tf.data.Dataset, or a tf.distribute.DistributedDataset if there is a strategy.
        """
        if self.strategy is None:
            return make_dataset(worker_index=0, num_workers=1, replicas=1)
        return self.strategy.distribute_datasets_from_function(
            lambda _: make_dataset(
                worker_index=self.worker_index,
                num_workers=self.num_workers,
                replicas=self.replicas,
            )
        )

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on any machine; every machine must call it, and waits.

        With `any(True)` the machines wait for each other.
        """
        if self.num_workers == 1:
            return condition
        return bool(self._count(tf.constant(condition)) > 0)

    @cached_property
    def _count(self) -> Callable:
        @tf.function
        def count(condition: tf.Tensor) -> tf.Tensor:
            per_replica = self.strategy.run(lambda: tf.cast(condition, tf.float32))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

        return count


def open_devices(strategy: str) -> Devices:
    """Initialize the devices of a strategy.

    With `multiworker`, call it before any other function of TensorFlow; it waits for all machines.

    Args:
        strategy: `none`, `mirrored` or `multiworker`.

    Raises:
        ValueError: If the strategy is unknown, or TF_CONFIG does not describe the machines.

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
        patch_trainer()
        multiworker = tf.distribute.MultiWorkerMirroredStrategy()
        return Devices(multiworker, worker_index, num_workers, multiworker.num_replicas_in_sync)
    raise ValueError(
        f"Expected the strategy none, mirrored or multiworker; got {strategy!r}. Check its "
        "spelling."
    )


@contextlib.contextmanager
def reraise_worker_loss(devices: Devices) -> Iterator[None]:
    """Convert the errors that TensorFlow raises when another machine has stopped to an OSError."""
    try:
        yield
    except WORKER_LOST as error:
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
# `patch_trainer`, once tests/training/test_multiworker.py passes without it.


def patch_trainer() -> None:
    """Replace both steps of the Keras trainer, in this process.

    - Before the first step, Keras builds losses and metrics from one batch, averaged over all
      devices. `Strategy.reduce` of several machines takes a tensor, not the nested structure of
      a batch. The batch of one device has the same shape and is used instead.
    - After each step, Keras averages the logs of all devices over their first axis, but they are
      scalars. The logs of this machine's first device are used instead: at the end of an epoch
      Keras reads the metrics themselves, which are summed over all devices.
    """
    trainer.TensorFlowTrainer._maybe_symbolic_build = _build_from_one_batch
    trainer.reduce_per_replica = _take_first


def _build_from_one_batch(model, iterator=None, data_batch=None) -> None:
    strategy = model.distribute_strategy
    if iterator is not None:
        _, _, batches = next(iter(iterator))
        data_batch = keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    with strategy.scope():
        model._symbolic_build(data_batch=data_batch)


_reduce_per_replica = trainer.reduce_per_replica


def _take_first(values, strategy: tf.distribute.Strategy, reduction: str):
    return _reduce_per_replica(values, strategy, "first" if reduction == "auto" else reduction)
