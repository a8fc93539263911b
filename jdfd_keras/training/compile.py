"""Losses, metric and optimizer of a detector, with a learning rate per branch."""

from typing import Any, cast

import keras

from jdfd_keras.model.embedding import EMBEDDING
from jdfd_keras.model.manipulation_map import MANIPULATION_MAP, MAP_WEIGHT, ManipulationMapLoss
from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.options import LossOptions, OptimizerOptions
from jdfd_keras.training.triplet_loss import TripletLoss

CLASSIFICATION = "classification"
RECONSTRUCTION = "reconstruction"
FRAME_AUC = "classification_frame_auc"  # in the logs, for models with one output and with two
TRIPLET_WEIGHT = 1.0  # of any value: no weight learns from the triplet loss and another one


@keras.saving.register_keras_serializable(package="jdfd_keras")
class FaceSquaredError(keras.losses.Loss):
    """Mean squared error per face, so that each face has one sample weight.

    It is averaged over the pixels, so that it does not grow with the image size.
    keras.losses.MeanSquaredError keeps height and width, to which weights of shape [n] do not
    broadcast (3.15.1). Reference: the paper, section 3.3, equation 5.
    """

    def call(self, y_true, y_pred):
        """Compute float32[n] from true and predicted faces, both [n, height, width, 3]."""
        error = keras.ops.square(y_pred - keras.ops.cast(y_true, y_pred.dtype))
        return keras.ops.mean(error, axis=(1, 2, 3))


def compile_detector(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: LossOptions | None = None,
) -> None:
    """Compile a detector with its losses and the frame AUC.

    The total loss is 0.8 times the binary cross-entropy of `classification` plus 0.2 times the
    mean squared error of `reconstruction`, over all pixels on the scale of -1..1. A detector
    without a decoder has only the first term. Both are weighted means over the faces of a batch,
    with sample weights float32[n] for each output; faces of weight 0 are ignored.

    The outputs of baselines have the losses of their sources, of weight 1: `embedding` the triplet
    loss over a batch, whose target is the label, and `manipulation_map` the mean absolute error.

    Args:
        model: A detector from `build_detector`.
        optimizer: Any Keras optimizer; default is the paper's SGD with constant learning rates.
        loss: Weights of both losses, and label smoothing.

    Example:
        >>> import jdfd_keras as jk
        >>> detector = jk.build_detector(jk.ModelOptions(image_size=71, encoder_weights="none"))
        >>> compile_detector(detector, keras.optimizers.Adam(1e-3))
        >>> validation = jk.load_faces("prepared", "val", batch_size=8)
        >>> sorted(detector.evaluate(validation, verbose=0, return_dict=True))
        ['classification_frame_auc', 'classification_loss', 'loss', 'reconstruction_loss']

    Reference:
        The paper, section 3.3, equations 3 to 5. Its equation 4 lacks the minus sign and sums
        its softmax over the batch; this is the intended cross-entropy.
    """
    loss = loss or LossOptions()
    smoothing, mean = loss.label_smoothing, "mean_with_sample_weight"
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"Expected label_smoothing from 0 to below 1; got {smoothing:g}. 0.1 is usual."
        )
    losses: dict[str, keras.losses.Loss] = {
        CLASSIFICATION: keras.losses.BinaryCrossentropy(label_smoothing=smoothing, reduction=mean),
        RECONSTRUCTION: FaceSquaredError(reduction=mean),
        EMBEDDING: TripletLoss(reduction=mean),
        MANIPULATION_MAP: ManipulationMapLoss(reduction=mean),
    }
    weights = {
        CLASSIFICATION: loss.classification_weight,
        RECONSTRUCTION: loss.reconstruction_weight,
        EMBEDDING: TRIPLET_WEIGHT,
        MANIPULATION_MAP: MAP_WEIGHT,
    }
    # Keras adds the name of the output to that of a metric only if there are two outputs (3.15.1).
    outputs = cast(dict, model.output)
    auc = "frame_auc" if len(outputs) > 1 else FRAME_AUC
    model.compile(
        optimizer=optimizer or build_optimizer(OptimizerOptions(decay_rate=1.0), steps_per_epoch=1),
        # The keys of both dicts must be those of the outputs: if one is misspelt, Keras matches the
        # weights by sorted position (3.15.1), which would silently swap 0.8 and 0.2.
        loss={name: losses[name] for name in outputs},
        loss_weights={name: weights[name] for name in outputs},
        # "auto", the default of Keras, uses XLA only on a single GPU: on CPUs XLA made Xception
        # four times slower (0.94 against 4.4 images/s on 2 cores), and Keras does not support it
        # on several devices.
        jit_compile="auto",
        # Only to show progress on training faces: its thresholds are evenly spaced, so that
        # confident scores tie. The AUC that selects an epoch is that of training/validation.py.
        weighted_metrics={CLASSIFICATION: [keras.metrics.AUC(name=auc, num_thresholds=1000)]},
    )


class _BranchOptimizer(keras.optimizers.Optimizer):
    """Mixin: the learning rate of the classifier is a fixed multiple of that of all other weights.

    Schedule, momentum, clipping, accumulation and state are those of the Keras optimizer that it
    is mixed into; only the learning rate of the update and of the weight decay differs.
    """

    def __init__(self, *args: Any, classifier_rate_factor: float = 1.0, **kwargs: Any) -> None:
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

    def get_config(self):
        return super().get_config() | {"classifier_rate_factor": self.classifier_rate_factor}


@keras.saving.register_keras_serializable(package="jdfd_keras")
class BranchSGD(_BranchOptimizer, keras.optimizers.SGD):
    """SGD with a learning rate per branch (the paper, section 4.2)."""


@keras.saving.register_keras_serializable(package="jdfd_keras")
class BranchAdam(_BranchOptimizer, keras.optimizers.Adam):  # pyright: ignore[reportIncompatibleMethodOverride], Keras' own names of arguments differ
    """Adam with a learning rate per branch."""


def swap_average(model: keras.Model) -> None:
    """Swap the weights of a model with their moving average, if it has one; again to swap back.

    The swap is exact; keras.callbacks.SwapEMAWeights adds and subtracts, which rounds (3.15.1).

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(use_ema=True))
        >>> model.optimizer.build(model.trainable_variables)
        >>> _ = model.layers[0].bias.assign([5.0])
        >>> swap_average(model)
        >>> float(model.layers[0].bias[0])
        0.0
    """
    # It wraps another one where losses are scaled for float16.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
            weight = variable.numpy()
            variable.assign(average.numpy())
            average.assign(weight)


def build_optimizer(options: OptimizerOptions, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Build the optimizer, which multiplies its learning rates by a factor every few epochs.

    Example:
        >>> optimizer = build_optimizer(OptimizerOptions(), steps_per_epoch=100)
        >>> optimizer.classifier_rate_factor
        0.08
    """
    limits = {
        "learning_rate": (options.learning_rate > 0, "above 0"),
        "classifier_learning_rate": (options.classifier_learning_rate > 0, "above 0"),
        "decay_rate": (options.decay_rate > 0, "above 0"),
        "decay_epochs": (options.decay_epochs >= 1, "from 1"),
        "accumulate": (options.accumulate >= 1, "from 1"),
        "momentum": (0 <= options.momentum < 1, "from 0 to below 1"),
        "average": (0 <= options.average < 1, "from 0 to below 1"),
        "weight_decay": (options.weight_decay >= 0, "from 0"),
        "clip_norm": (options.clip_norm >= 0, "from 0"),
    }
    for name, (is_valid, expected) in limits.items():
        if not is_valid:
            value, default = getattr(options, name), getattr(OptimizerOptions(), name)
            raise ValueError(f"Expected {name} {expected}; got {value:g}. Try {default:g}.")
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
