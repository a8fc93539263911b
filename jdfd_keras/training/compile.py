"""A network and its losses, weighed as in the paper.

Takes a detector; compiles it in place. Pure Keras: knows nothing of files or data.
"""

import keras

from jdfd_keras.options import OptimizerOptions, TrainOptions
from jdfd_keras.training.optimizer import build_optimizer

CLASSIFICATION = "classification"
RECONSTRUCTION = "reconstruction"


def compile_detector(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss_weights: dict[str, float] | None = None,
) -> None:
    """Compile a detector with both losses and the frame AUC.

    The total loss is 0.8 times the binary cross-entropy of `classification` plus 0.2 times the
    mean squared error of `reconstruction`, over all pixels on the scale of -1..1.

    Args:
        model: A detector as `build_detector` makes it.
        optimizer: Any Keras optimizer; the paper's SGD at constant rates if none is given.
        loss_weights: Other weights, for exactly these two outputs.

    Raises:
        ValueError: If the keys of `loss_weights` are not the outputs of the model.

    Reference:
        The paper, section 3.3, equations 3 to 5. Its equation 4 lacks the minus sign and sums
        its softmax over the batch; this is the cross-entropy that is meant.
    """
    defaults = TrainOptions()
    if loss_weights is None:
        loss_weights = {
            CLASSIFICATION: defaults.classification_weight,
            RECONSTRUCTION: defaults.reconstruction_weight,
        }
    # Keras matches these by sorted position, not by name, when a name is wrong (3.15.1): a typo
    # would swap 0.8 and 0.2 without a word.
    if set(loss_weights) != set(model.output):
        raise ValueError(
            f"Expected loss weights for the outputs {sorted(model.output)}; got "
            f"{sorted(loss_weights)}. Check the spelling."
        )
    if optimizer is None:
        optimizer = build_optimizer(OptimizerOptions(decay_rate=1.0), steps_per_epoch=1)
    model.compile(
        optimizer=optimizer,
        loss={
            # The mean over labelled faces: of others the weight is 0.
            CLASSIFICATION: keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight"),
            RECONSTRUCTION: "mean_squared_error",
        },
        loss_weights=loss_weights,
        # Left to itself, Keras turns XLA on where it can; it made Xception four times slower on
        # CPUs (0.94 against 4.4 images/s on 2 cores).
        jit_compile=False,
        weighted_metrics={
            CLASSIFICATION: [keras.metrics.AUC(name="frame_auc", num_thresholds=1000)]
        },
    )
