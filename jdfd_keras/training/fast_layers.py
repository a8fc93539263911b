"""A detector's layers in fewer and faster operations of TensorFlow, for training on CPUs.

The layers, their variables and the saved model remain those of Keras; only the computation differs,
by rounding. Measured with TensorFlow 2.21.0 and Keras 3.15.1, of which two habits are avoided:

- `BatchNormalization` is a dozen operations, in float32 even in mixed precision; here it is the
  fused one.
- The fused one is several times slower where the number of channels is not a multiple of 16, as the
  728 of Xception's middle flow: oneDNN has no vectorised code for it. Such activations get a few
  channels of zeros, which every layer before the next one of another kind computes with.
"""

from dataclasses import dataclass
from typing import Any, cast

import keras
import tensorflow as tf

CHANNEL_BLOCK = 16  # channels that oneDNN computes together
MAX_ADDED_SHARE = 0.05  # of channels; more would cost more than it saves
BATCH_NORM_INPUTS = 4  # dimensions of the activations that the fused operation takes


@dataclass(frozen=True)
class _Padded:
    """Activations whose last channels are only there to fill a block."""

    tensor: tf.Tensor
    channels: int  # without those


class FastModel(keras.Model):
    """A functional model that computes with fast operations; see `accelerate`."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Compute the outputs as the model does whose layers it has."""

        def run(operation: Any, *args: Any, **kwargs: Any) -> Any:
            fast = _choose(operation, args)
            if fast:
                is_training = kwargs.get("training", training)
                return fast(operation, *args, training=bool(is_training))
            # Layers get `training` from the call of this model.
            return operation(*cast(Any, keras.tree.map_structure(_strip, args)), **kwargs)

        # The loop over the layers of Keras' own functional models (3.15.1).
        functional = cast(Any, self)
        inputs = functional._standardize_inputs(inputs)
        outputs = functional._run_through_graph(inputs, call_fn=run)
        return keras.tree.map_structure(_strip, outputs)


def accelerate(model: keras.Model) -> keras.Model:
    """Return a model of the same layers that trains faster on CPUs, on the TensorFlow backend.

    Train either of them: they share all variables. Save the one that was given, since the other
    one needs this package. Outputs and gradients differ by rounding.

    Args:
        model: A functional model, such as a detector from `build_detector`.

    Example:
        >>> import jdfd_keras as jk
        >>> detector = jk.build_detector(jk.ModelOptions(image_size=71, encoder_weights="none"))
        >>> fast = accelerate(detector)
        >>> fast.variables[0] is detector.variables[0]
        True
    """
    # Of type float32, so that variables are cast by each layer, not by the model.
    return FastModel(model.inputs[0], model.output, name=model.name, dtype="float32")


def _choose(operation: Any, args: tuple) -> Any:
    """Return the fast function of an operation, or None."""
    layers = keras.layers
    if isinstance(operation, layers.BatchNormalization):
        return _normalize if _can_fuse(operation, args[0]) else None
    if isinstance(operation, (layers.SeparableConv2D, layers.Conv2D)):
        pads = isinstance(args[0], _Padded) or _pad_to_block(operation.filters)
        return _convolve if pads and _can_pad(operation) else None
    channelwise = (layers.ReLU, layers.MaxPooling2D, layers.Add)
    if isinstance(operation, channelwise) or _is_relu(operation):
        values = keras.tree.flatten(args)
        is_padded = all(isinstance(value, _Padded) for value in values)
        return _run_padded if is_padded else None
    return None


def _is_relu(operation: Any) -> bool:
    is_activation = isinstance(operation, keras.layers.Activation)
    return is_activation and operation.activation is keras.activations.relu


def _can_fuse(layer: Any, inputs: Any) -> bool:
    rank = len(_tensor(inputs).shape)
    is_plain = layer.center and layer.scale and not layer.renorm and not layer.synchronized
    is_last = layer.axis in (-1, rank - 1)
    return rank == BATCH_NORM_INPUTS and is_last and is_plain


def _can_pad(layer: Any) -> bool:
    is_linear = not layer.use_bias and layer.activation is keras.activations.linear
    is_grouped = max(getattr(layer, name, 1) for name in ("groups", "depth_multiplier")) > 1
    return is_linear and not is_grouped and layer.data_format == "channels_last"


def _pad_to_block(channels: int) -> int:
    """Return how many channels fill the last block; 0 if they are too many to pay."""
    added = -channels % CHANNEL_BLOCK
    return added if added <= MAX_ADDED_SHARE * channels else 0


def _tensor(value: Any) -> Any:
    return value.tensor if isinstance(value, _Padded) else value


def _strip(value: Any) -> Any:
    """Remove added channels."""
    return _tensor(value)[..., : value.channels] if isinstance(value, _Padded) else value


def _fill(weight: Any, size: int, axis: int, value: float = 0.0) -> Any:
    """Extend an axis of a weight to a size.

    By concatenation, since TensorFlow's pass for oneDNN aborted the process with another operation
    (2.21.0).
    """
    weight = tf.convert_to_tensor(weight)
    shape = weight.shape.as_list()
    shape[axis] = size - shape[axis]
    if not shape[axis]:
        return weight
    return tf.concat([weight, tf.fill(shape, tf.cast(value, weight.dtype))], axis)


def _run_padded(layer: Any, values: Any, training: bool) -> _Padded:
    """Call a layer that computes each channel by itself; all values are padded."""
    channels = keras.tree.flatten(values)[0].channels
    return _Padded(layer(keras.tree.map_structure(_tensor, values)), channels)


def _convolve(layer: Any, inputs: Any, training: bool) -> Any:
    """Convolve; rows of zeros in the kernel keep added channels without effect."""
    x: Any = tf.cast(_tensor(inputs), layer.compute_dtype)
    size = layer.filters + _pad_to_block(layer.filters)
    options = {
        "strides": layer.strides,
        "padding": layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": layer.dilation_rate,
    }

    def fill(kernel: Any, *, outputs: bool) -> Any:
        kernel = _fill(tf.cast(kernel, layer.compute_dtype), x.shape[-1], axis=2)
        return _fill(kernel, size, axis=3) if outputs else kernel

    if isinstance(layer, keras.layers.SeparableConv2D):
        depthwise = fill(layer.depthwise_kernel, outputs=False)
        pointwise = fill(layer.pointwise_kernel, outputs=True)
        x = keras.ops.separable_conv(x, depthwise, pointwise, **options)
    else:
        x = keras.ops.conv(x, fill(layer.kernel, outputs=True), **options)
    return _Padded(x, layer.filters) if size > layer.filters else x


def _normalize(layer: Any, inputs: Any, training: bool) -> Any:
    """Normalize by the fused operation, and update the moving averages as Keras does."""
    x: Any = tf.cast(_tensor(inputs), layer.compute_dtype)
    size, channels = x.shape[-1], layer.gamma.shape[0]
    # Added channels become zeros again: their scale and offset are zeros.
    weights = {"scale": _fill(layer.gamma, size, 0), "offset": _fill(layer.beta, size, 0)}
    if training and layer.trainable:
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, **weights, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
        )
        # The variance is that of a sample, divided by n - 1; Keras' is divided by n.
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
        variance *= (count - 1) / count
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            new = value[:channels] * (1.0 - layer.momentum)
            average.assign(average * layer.momentum + new)
    else:
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            **weights,
            mean=_fill(layer.moving_mean, size, 0),
            variance=_fill(layer.moving_variance, size, 0, value=1.0),
            epsilon=layer.epsilon,
            is_training=False,
        )
    return _Padded(y, channels) if size > channels else y
