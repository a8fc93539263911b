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
"""

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
