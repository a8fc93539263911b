"""What Keras 3 lacks for training on several machines; to be deleted when it lacks it no more.

Under MultiWorkerMirroredStrategy, `model.fit` of Keras 3.15.1 fails in two steps of its trainer
(https://github.com/keras-team/keras/issues/20585):

- Before the first step it builds losses and metrics from one batch, for which it averages the
  batch over all devices. `Strategy.reduce` of several machines takes a tensor and not the nested
  structure that a batch is. The batch of one device has the shape that is asked for.
- After each step it averages the logs of all devices over their first axis. They are scalars and
  have none. Those of the first device of this machine are as good: at the end of an epoch Keras
  reads the metrics themselves, which are summed over all devices.

Delete this module, and its one call, once `tests/training/test_multiworker.py` passes without it.

What a training runs on: one device, all GPUs of a machine, or many machines.

Takes the name of a strategy, and TF_CONFIG where there are many machines; gives what the rest of
the training asks of them, which is written the same way for one and for many.
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


def mend_trainer() -> None:
    """Put both steps right, for this process."""
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


# What TensorFlow raises on a machine when another of them is gone.
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Devices:
    """Where a training runs.

    Attributes:
        strategy: TensorFlow's; None for one device.
        part: Which machine this is, from 0. The first writes the run folder.
        parts: How many machines there are.
        replicas: Devices of all machines together.
    """

    strategy: tf.distribute.Strategy | None = None
    part: int = 0
    parts: int = 1
    replicas: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this machine writes what all have made."""
        return self.part == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Make the variables of a model on all devices."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def distribute(self, make: Callable[..., tf.data.Dataset]):
        """Make the data set of each machine.

        Args:
            make: Takes `part`, `parts` and `replicas`, and gives batches of one device.
        """
        if self.strategy is None:
            return make(part=0, parts=1, replicas=1)
        return self.strategy.distribute_datasets_from_function(
            lambda _: make(part=self.part, parts=self.parts, replicas=self.replicas)
        )

    def any(self, is_true: bool) -> bool:
        """Tell whether a claim is true on any machine; all of them ask, and wait for all."""
        return is_true if self.parts == 1 else bool(self._count(tf.constant(is_true)) > 0)

    @cached_property
    def _count(self) -> Callable:
        @tf.function
        def count(is_true: tf.Tensor) -> tf.Tensor:
            one = self.strategy.run(lambda: tf.cast(is_true, tf.float32))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, one, axis=None)

        return count


def open_devices(strategy: str) -> Devices:
    """Take hold of the devices; of many machines before anything else is done with TensorFlow.

    Args:
        strategy: `none`, `mirrored` or `multiworker`.

    Raises:
        ValueError: If the strategy is unknown, or TF_CONFIG does not tell the machines.
    """
    if strategy == "none":
        return Devices()
    if strategy == "mirrored":
        mirrored = tf.distribute.MirroredStrategy()
        return Devices(mirrored, replicas=mirrored.num_replicas_in_sync)
    if strategy == "multiworker":
        part, parts = _read_cluster()

        mend_trainer()
        many = tf.distribute.MultiWorkerMirroredStrategy()
        return Devices(many, part, parts, many.num_replicas_in_sync)
    raise ValueError(
        f"Expected the strategy none, mirrored or multiworker; got {strategy!r}. See its spelling."
    )


@contextlib.contextmanager
def explain_loss(devices: Devices) -> Iterator[None]:
    """Turn what TensorFlow says when another machine is gone into an OSError."""
    try:
        yield
    except GONE as error:
        if devices.parts == 1:
            raise
        told = re.search(r"aborted by: (.*)", error.message)
        raise OSError(
            f"Expected all {devices.parts} machines of TF_CONFIG to go on; got, on machine "
            f"{devices.part}, '{told[1] if told else type(error).__name__}': another one has "
            "stopped. See its own message, then give the same command on all of them again: it "
            "goes on from the last checkpoint."
        ) from error


def _read_cluster() -> tuple[int, int]:
    text = os.environ.get("TF_CONFIG", "")
    try:
        told = json.loads(text)
        workers, task = told["cluster"]["worker"], told["task"]
        part = int(task["index"])
        if set(told["cluster"]) != {"worker"} or task["type"] != "worker":
            raise ValueError("other jobs than 'worker'")
        if not 0 <= part < len(workers):
            raise ValueError(f"the index {part} of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected TF_CONFIG to be, on each machine with its own index, such as "
            '\'{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", '
            f'"index": 0}}}}\'; got {text!r} ({error!r}). For one machine take --strategy '
            "mirrored or none."
        ) from error
    return part, len(workers)
