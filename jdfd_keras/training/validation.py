"""Validation after every epoch: losses, and the exact AUC that selects the best epoch.

Takes the faces of validation; adds the results to the logs of the epoch. Writes no file.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import rankdata

from jdfd_keras.model.embedding import EMBEDDING
from jdfd_keras.training.compile import CLASSIFICATION, swap_average
from jdfd_keras.training.run_folder import MONITOR


class Validation(keras.callbacks.Callback):
    """Score all validation faces after every epoch, in one pass, on all devices of the model.

    It replaces `validation_data` of `fit`, whose AUC is coarse. Put it before callbacks that use
    its results, such as ProgressLine and RunFolder. It adds to the logs of the epoch:

    - `val_loss`, and with a decoder `val_classification_loss` and `val_reconstruction_loss`: the
      losses and weights of `compile_detector`, as means over the faces by their sample weights.
      Keras averages those of the outputs over batches, however small the last one is (3.15.1). The
      triplet loss, of the output `embedding`, is not one of a face: it is no part of `val_loss`.
    - `val_classification_frame_auc`: the probability that a fake face scores above a real one,
      ties counted half, of the faces with a sample weight above 0 for `classification`.

    If the optimizer keeps a moving average of the weights, that average is validated.

    Args:
        faces: Batches of `(image, targets)` or `(image, targets, weights)`, as `load_faces`
            returns them, of both classes; or the same, distributed by the strategy of the model.

    Raises:
        ValueError: At the end of an epoch, if a score or a loss is not finite, or a class is
            absent.
    """

    def __init__(self, faces: tf.data.Dataset | tf.distribute.DistributedDataset) -> None:
        super().__init__()
        self.faces = faces

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare the pass over the faces for this model."""
        detector = cast(keras.Model, self.model)
        names = [name for name in cast(dict, detector.output) if name != EMBEDDING]
        losses = cast(Any, detector.loss)
        if not isinstance(losses, dict) or not all(
            isinstance(losses.get(name), keras.losses.Loss) for name in names
        ):
            raise ValueError(
                f"Expected a detector with a keras.losses.Loss for each of {', '.join(names)}; got "
                f"{losses}. Compile it with compile_detector."
            )
        weights = cast(dict, detector.get_compile_config())["loss_weights"] or {}
        self._loss_weights = {name: weights.get(name, 1.0) for name in names}
        strategy = cast(Any, detector).distribute_strategy
        faces: Any = self.faces
        if isinstance(faces, tf.data.Dataset):
            faces = strategy.experimental_distribute_dataset(faces)
        score = _score_fn(detector, {name: losses[name] for name in names})

        @tf.function(input_signature=[faces.element_spec], autograph=False)
        def score_batch(batch):
            return strategy.gather(strategy.run(score, args=(batch,)), axis=0)

        self._batches: Iterable = faces
        self._score_batch = score_batch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Score the faces and add the results to the logs."""
        detector = cast(keras.Model, self.model)
        swap_average(detector)
        try:
            batches = [self._score_batch(batch) for batch in self._batches]
        finally:
            swap_average(detector)
        none = np.empty((0, 2 + 2 * len(self._loss_weights)))
        faces = np.concatenate([none, *(batch.numpy() for batch in batches)])  # in float64
        finite = np.isfinite(faces).all(axis=1)
        if not finite.all():
            raise ValueError(
                "Expected finite scores and losses of the validation faces; got nan or inf for "
                f"{(~finite).sum()} of {len(faces)} faces in epoch {epoch + 1}. The last "
                "checkpoint before it is kept. Try a lower --learning-rate, or --clip-norm 1, in "
                "another run."
            )
        label, score, losses, weights = *faces[:, :2].T, *np.split(faces[:, 2:], 2, axis=1)
        totals = weights.sum(axis=0)
        means = (losses * weights).sum(axis=0) / np.where(totals, totals, 1.0)
        by_name = dict(zip(self._loss_weights, means.tolist(), strict=True))
        is_used = weights[:, list(by_name).index(CLASSIFICATION)] > 0
        added = {MONITOR: _measure_auc(label[is_used] > 0.5, score[is_used])}
        added["val_loss"] = sum(self._loss_weights[name] * loss for name, loss in by_name.items())
        if len(by_name) > 1:
            added |= {f"val_{name}_loss": loss for name, loss in by_name.items()}
        logs.update(sorted(added.items()))  # Keras sorts them, too


def _score_fn(
    detector: keras.Model, losses: dict[str, keras.losses.Loss]
) -> Callable[[tuple], tf.Tensor]:
    """Create the function from a batch to float32[n, 2 + 2 * outputs].

    Its columns are label and score, then the loss of each output, then the weight in each.
    """

    def score(batch: tuple) -> tf.Tensor:
        image, targets, weights = cast(Any, keras.utils.unpack_x_y_sample_weight(batch))
        outputs = {
            name: tf.cast(output, tf.float32)
            for name, output in cast(dict, detector(image, training=False)).items()
        }
        # Not the loss itself but its `call`, which returns one value per face.
        values = [loss.call(targets[name], outputs[name]) for name, loss in losses.items()]
        columns = [targets[CLASSIFICATION][:, 0], outputs[CLASSIFICATION][:, 0], *values]
        for name in losses:
            columns.append(tf.ones_like(values[0]) if weights is None else weights[name])
        return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=1)

    if cast(Any, detector).jit_compile:
        return tf.function(score, autograph=False, jit_compile=True, reduce_retracing=True)
    return score


def _measure_auc(label: np.ndarray, score: np.ndarray) -> float:
    num_fake = int(label.sum())
    num_real = len(label) - num_fake
    if not (num_real and num_fake):
        raise ValueError(
            f"Expected real and fake validation faces; got {num_real} real and {num_fake} fake. "
            "The best epoch cannot be found on one class: validate on faces of both."
        )
    # The Mann-Whitney statistic. Ranks are multiples of one half, so that their sum is exact.
    wins = rankdata(score)[label].sum() - num_fake * (num_fake + 1) / 2
    return float(wins / (num_real * num_fake))
