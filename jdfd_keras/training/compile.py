"""A network and its losses, weighed as in the paper.

Takes a detector; compiles it in place. Pure Keras: knows nothing of files or data.
"""

import keras

from jdfd_keras.options import LossOptions, OptimizerOptions
from jdfd_keras.training.optimizer import build_optimizer

CLASSIFICATION = "classification"
RECONSTRUCTION = "reconstruction"


@keras.saving.register_keras_serializable(package="jdfd_keras")
class FaceSquaredError(keras.losses.Loss):
    """Mean squared error of each face, so that it can be weighed as a whole.

    Keras' own keeps height and width, and weights of [n] do not fit it (3.15.1).

    Reference:
        The paper, section 3.3, equation 5; per pixel, so that it does not grow with their number.
    """

    def call(self, y_true, y_pred):
        """Take two of [n, height, width, 3]; give [n]."""
        error = keras.ops.square(y_pred - keras.ops.cast(y_true, y_pred.dtype))
        return keras.ops.mean(error, axis=(1, 2, 3))


def compile_detector(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss_weights: dict[str, float] | None = None,
    label_smoothing: float | None = None,
) -> None:
    """Compile a detector with its losses and the frame AUC.

    The total loss is 0.8 times the binary cross-entropy of `classification` plus 0.2 times the
    mean squared error of `reconstruction`, over all pixels on the scale of -1..1. A detector
    without decoder has the first term alone. Both are means over the faces of a batch by their
    sample weights, float32[n] for each: faces of weight 0 count as if they were not there.

    Args:
        model: A detector as `build_detector` makes it.
        optimizer: Any Keras optimizer; the paper's SGD at constant rates if none is given.
        loss_weights: Other weights, for exactly the outputs of the model.
        label_smoothing: Labels are drawn towards one half by this share, 0 if not given.

    Raises:
        ValueError: If the keys of `loss_weights` are not the outputs of the model, or the
            smoothing is out of range.

    Reference:
        The paper, section 3.3, equations 3 to 5. Its equation 4 lacks the minus sign and sums
        its softmax over the batch; this is the cross-entropy that is meant.
    """
    defaults = LossOptions()
    if loss_weights is None:
        both = {
            CLASSIFICATION: defaults.classification_weight,
            RECONSTRUCTION: defaults.reconstruction_weight,
        }
        loss_weights = {name: both[name] for name in model.output}
    # Keras matches these by sorted position, not by name, when a name is wrong (3.15.1): a typo
    # would swap 0.8 and 0.2 without a word.
    if set(loss_weights) != set(model.output):
        raise ValueError(
            f"Expected loss weights for the outputs {sorted(model.output)}; got "
            f"{sorted(loss_weights)}. Check the spelling."
        )
    if label_smoothing is None:
        label_smoothing = defaults.label_smoothing
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"Expected label_smoothing from 0 to below 1; got {label_smoothing:g}. 0.1 is usual."
        )
    if optimizer is None:
        optimizer = build_optimizer(OptimizerOptions(decay_rate=1.0), steps_per_epoch=1)
    losses = {
        CLASSIFICATION: keras.losses.BinaryCrossentropy(
            label_smoothing=label_smoothing, reduction="mean_with_sample_weight"
        ),
        RECONSTRUCTION: FaceSquaredError(reduction="mean_with_sample_weight"),
    }
    model.compile(
        optimizer=optimizer,
        loss={name: losses[name] for name in model.output},
        loss_weights=loss_weights,
        # "auto", Keras' default, compiles with XLA on one GPU alone: on CPUs it made Xception
        # four times slower (0.94 against 4.4 images/s on 2 cores), and Keras cannot on several.
        jit_compile="auto",
        weighted_metrics={
            CLASSIFICATION: [keras.metrics.AUC(name="frame_auc", num_thresholds=1000)]
        },
    )
