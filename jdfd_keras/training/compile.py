"""Losses, metric and optimizer of a detector.

Takes a detector and compiles it in place, with the paper's losses and an optimizer that has a
learning rate per branch. Pure Keras; independent of files and data.
"""

import keras

from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.options import LossOptions, OptimizerOptions

CLASSIFICATION = "classification"
RECONSTRUCTION = "reconstruction"


@keras.saving.register_keras_serializable(package="jdfd_keras")
class FaceSquaredError(keras.losses.Loss):
    """Mean squared error per face, so that each face has one sample weight.

    keras.losses.MeanSquaredError keeps height and width, to which weights of shape [n] do not
    broadcast (3.15.1).

    Reference:
        The paper, section 3.3, equation 5; averaged over the pixels, so that it does not grow
        with the image size.
    """

    def call(self, y_true, y_pred):
        """Compute float32[n] from true and predicted faces, both [n, height, width, 3]."""
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
    without a decoder has only the first term. Both are weighted means over the faces of a batch,
    with sample weights float32[n] for each output; faces of weight 0 are ignored.

    Args:
        model: A detector from `build_detector`.
        optimizer: Any Keras optimizer; default is the paper's SGD with constant learning rates.
        loss_weights: Weight per output of the model; default is 0.8 and 0.2.
        label_smoothing: Label smoothing, from 0 to below 1; default is 0.

    Raises:
        ValueError: If the keys of `loss_weights` are not the outputs of the model, or
            `label_smoothing` is out of range.

    Example:
        >>> from jdfd_keras.model.network import build_detector
        >>> from jdfd_keras.options import ModelOptions
        >>> detector = build_detector(ModelOptions(image_size=71, encoder_weights="none"))
        >>> compile_detector(detector, keras.optimizers.Adam(1e-3))

    Reference:
        The paper, section 3.3, equations 3 to 5. Its equation 4 lacks the minus sign and sums
        its softmax over the batch; this is the intended cross-entropy.
    """
    defaults = LossOptions()
    if loss_weights is None:
        paper_weights = {
            CLASSIFICATION: defaults.classification_weight,
            RECONSTRUCTION: defaults.reconstruction_weight,
        }
        loss_weights = {name: paper_weights[name] for name in model.output}
    # If a key is misspelt, Keras matches the weights by sorted position (3.15.1): a typo would
    # silently swap 0.8 and 0.2.
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
        # "auto", the default of Keras, uses XLA only on a single GPU: on CPUs XLA made Xception
        # four times slower (0.94 against 4.4 images/s on 2 cores), and Keras does not support it
        # on several devices.
        jit_compile="auto",
        weighted_metrics={
            CLASSIFICATION: [keras.metrics.AUC(name="frame_auc", num_thresholds=1000)]
        },
    )


class _BranchRate:
    """Mixin: the learning rate of the classifier is a fixed multiple of that of all other weights.

    Schedule, momentum, clipping, accumulation and state are those of the Keras optimizer that it
    is mixed into; only the learning rate of the update and of the weight decay differs.
    """

    def __init__(self, *args, classifier_rate_factor: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.classifier_rate_factor = classifier_rate_factor

    def build(self, variables):
        # By position: on TensorFlow, update_step receives bare variables, which have no path.
        self._rate_factors = [
            self.classifier_rate_factor if is_classifier_weight(variable.path) else 1.0
            for variable in variables
        ]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        rate = learning_rate * self._rate_factors[self._get_variable_index(variable)]
        if self.weight_decay and self._use_weight_decay(variable):
            decay = keras.ops.cast(rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables):
        """Do nothing: update_step applies it at the learning rate of each variable."""

    def swap_average(self) -> None:
        """Swap the weights with their moving average; a second call swaps them back.

        The swap is exact; keras.callbacks.SwapEMAWeights adds and subtracts, which rounds (3.15.1).
        """
        averages = self._model_variables_moving_average
        for variable, average in zip(self._trainable_variables, averages, strict=True):
            weight = variable.numpy()
            variable.assign(average.numpy())
            average.assign(weight)

    def get_config(self):
        return super().get_config() | {"classifier_rate_factor": self.classifier_rate_factor}


@keras.saving.register_keras_serializable(package="jdfd_keras")
class BranchSGD(_BranchRate, keras.optimizers.SGD):
    """SGD with a learning rate per branch (the paper, section 4.2)."""


@keras.saving.register_keras_serializable(package="jdfd_keras")
class BranchAdam(_BranchRate, keras.optimizers.Adam):
    """Adam with a learning rate per branch."""


def build_optimizer(options: OptimizerOptions, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Build the optimizer with its learning rate schedule.

    Args:
        options: Optimizer, learning rates and their decay, momentum and the rest.
        steps_per_epoch: Steps per epoch, which convert `decay_epochs` to steps.

    Returns:
        An optimizer that multiplies its learning rates by `decay_rate` every `decay_epochs`
        epochs.

    Raises:
        ValueError: If an option is out of range, or the optimizer is unknown.

    Example:
        >>> optimizer = build_optimizer(OptimizerOptions(), steps_per_epoch=100)
        >>> optimizer.classifier_rate_factor
        0.08
    """
    _check_optimizer_options(options)
    schedule = keras.optimizers.schedules.ExponentialDecay(
        options.learning_rate,
        decay_steps=options.decay_epochs * steps_per_epoch,
        decay_rate=options.decay_rate,
        staircase=True,
    )
    common = {
        "classifier_rate_factor": options.classifier_learning_rate / options.learning_rate,
        "weight_decay": options.weight_decay or None,
        "global_clipnorm": options.clip_norm or None,
        "use_ema": options.average > 0,
        "ema_momentum": options.average,
        "gradient_accumulation_steps": options.accumulate if options.accumulate > 1 else None,
    }
    if options.optimizer == "sgd":
        return BranchSGD(schedule, momentum=options.momentum, **common)
    if options.optimizer == "adam":
        return BranchAdam(schedule, **common)
    raise ValueError(
        f"Expected the optimizer 'sgd' or 'adam'; got {options.optimizer!r}. Any other Keras "
        "optimizer can be passed to compile_detector in Python."
    )


def _check_optimizer_options(options: OptimizerOptions) -> None:
    if min(options.learning_rate, options.classifier_learning_rate, options.decay_rate) <= 0:
        raise ValueError(
            "Expected learning_rate, classifier_learning_rate and decay_rate above 0; got "
            f"{options.learning_rate}, {options.classifier_learning_rate}, {options.decay_rate}. "
            "Try the paper's 0.005, 0.0004 and 0.2."
        )
    if options.decay_epochs < 1 or options.accumulate < 1:
        raise ValueError(
            f"Expected decay_epochs >= 1 and accumulate >= 1; got {options.decay_epochs} and "
            f"{options.accumulate}. For constant learning rates set decay_rate to 1."
        )
    if not (0 <= options.momentum < 1 and 0 <= options.average < 1):
        raise ValueError(
            f"Expected momentum and average from 0 to below 1; got {options.momentum:g} and "
            f"{options.average:g}. 0.9 and 0.999 are usual."
        )
    if min(options.weight_decay, options.clip_norm) < 0:
        raise ValueError(
            f"Expected weight_decay and clip_norm >= 0; got {options.weight_decay:g} and "
            f"{options.clip_norm:g}. Try 0, which turns them off."
        )
