"""Optimizers with a learning rate for each branch.

Takes OptimizerOptions; gives an ordinary, serialisable Keras optimizer. Pure Keras.
"""

import keras

from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.options import OptimizerOptions


class _BranchRate:
    """Steps the classifier at a fixed share of the rate of all other weights.

    Schedules, momentum, clipping, accumulation and the state of the optimizer are those of the
    Keras class it is mixed into; only the size of the last step and of the decay of weights, which
    goes with the rate, differ.
    """

    def __init__(self, *args, classifier_rate_factor: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.classifier_rate_factor = classifier_rate_factor

    def build(self, variables):
        # By position: on TensorFlow, update_step is handed bare variables, which have no path.
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
        """Leave it to update_step, which knows the rate of each variable."""

    def swap_average(self) -> None:
        """Put the moving average of the weights in their place, and them in its; again: back.

        Exactly, where keras.callbacks.SwapEMAWeights adds and subtracts and so rounds (3.15.1).
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
    """SGD with a rate per branch (the paper, section 4.2)."""


@keras.saving.register_keras_serializable(package="jdfd_keras")
class BranchAdam(_BranchRate, keras.optimizers.Adam):
    """Adam with a rate per branch."""


def build_optimizer(options: OptimizerOptions, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Build the optimizer and its step schedule.

    Args:
        options: Kind, rates, momentum, decay and the rest.
        steps_per_epoch: Steps in one pass; turns `decay_epochs` into steps.

    Returns:
        An optimizer whose rate is multiplied by `decay_rate` every `decay_epochs` epochs.

    Raises:
        ValueError: If an option is out of range, or the kind is unknown.
    """
    _check(options)
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
        "optimizer can be given to compile_detector from Python."
    )


def _check(options: OptimizerOptions) -> None:
    if min(options.learning_rate, options.classifier_learning_rate, options.decay_rate) <= 0:
        raise ValueError(
            "Expected learning_rate, classifier_learning_rate and decay_rate above 0; got "
            f"{options.learning_rate}, {options.classifier_learning_rate}, {options.decay_rate}. "
            "Try the paper's 0.005, 0.0004 and 0.2."
        )
    if options.decay_epochs < 1 or options.accumulate < 1:
        raise ValueError(
            f"Expected decay_epochs >= 1 and accumulate >= 1; got {options.decay_epochs} and "
            f"{options.accumulate}. For a constant rate set decay_rate to 1."
        )
    if not (0 <= options.momentum < 1 and 0 <= options.average < 1):
        raise ValueError(
            f"Expected momentum and average from 0 to below 1; got {options.momentum:g} and "
            f"{options.average:g}. 0.9 and 0.999 are usual."
        )
    if min(options.weight_decay, options.clip_norm) < 0:
        raise ValueError(
            f"Expected weight_decay and clip_norm of 0, for none, or above; got "
            f"{options.weight_decay:g} and {options.clip_norm:g}."
        )
