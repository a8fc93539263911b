"""Faces to explanations: where a detector saw a fake, and what its decoder could not redraw.

Takes a keras.Model and faces; gives maps of the size of the faces, in memory that does not grow
with the faces but for the maps themselves. Knows nothing of files or drawing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

LAST_CONVOLUTION = "squeeze_relu"  # of the encoder; after it no value knows its place
LOGIT = "classifier_logit"


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a detector made of n faces, in their order.

    Attributes:
        activation: float32[n, size, size], what spoke for fake, from 0 to 1; 0 everywhere where
            nothing did. 1 is the strongest voice in that face, for fake or for real.
        residual: float32[n, size, size], mean over the channels of |face - reconstruction|, both
            on the scale of -1..1; None without a decoder.
        reconstruction: float32[n, size, size, 3] as the model gives it, linear and so not clipped
            to -1..1; None without a decoder.
    """

    activation: np.ndarray
    residual: np.ndarray | None
    reconstruction: np.ndarray | None


def explain_faces(model: keras.Model, faces: np.ndarray, *, batch_size: int = 32) -> Explanation:
    """Map what spoke for fake in each face, and what the decoder could not redraw.

    The activation map is a Grad-CAM of the logit at the encoder's last convolution (the squeeze,
    after its ReLU), in the elementwise form that is called HiResCAM: activation times gradient,
    summed over the channels, negative sums cut off. The first Grad-CAM averages the gradient over
    the map before; it suits a network that averages too. Here each cell of the map has weights of
    its own in the next layer, and the average mixes them: a texture that is a trace in one place
    and harmless in another lights up in both.

    A map is divided by the largest sum in its face, of either sign, and enlarged bilinearly. So
    a face in which all but a little spoke for real stays dark; how sure the detector is of a face
    is said by its score, not by the map.

    Args:
        model: A detector as `build_detector` makes it, built or loaded; it is left as it was.
        faces: uint8 or float[n, size, size, 3], pixel values, 0..255. No faces give empty maps;
            many are quicker in one call, since each call traces the model anew.
        batch_size: Faces per pass; at least 1.

    Returns:
        The maps in the order of the faces.

    Raises:
        ValueError: If the model is no such detector, the faces have another size than it takes or
            values that are no pixels, or `batch_size` is below 1.

    Reference:
        Selvaraju et al.: "Grad-CAM" (2017), https://arxiv.org/abs/1610.02391.
        Draelos, Carin: "Use HiResCAM instead of Grad-CAM" (2020),
        https://arxiv.org/abs/2011.08891.
    """
    _check_model(model)
    _check_faces(model, faces)
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; got {batch_size}. Try the default.")
    explain = _make_pass(model)
    shape = faces.shape[:3]
    activation = np.empty(shape, np.float32)
    has_decoder = "reconstruction" in model.output
    residual = np.empty(shape, np.float32) if has_decoder else None
    reconstruction = np.empty(faces.shape, np.float32) if has_decoder else None
    for start in range(0, len(faces), batch_size):
        batch = slice(start, start + batch_size)
        image = np.asarray(faces[batch], np.float32)
        outputs = explain(tf.constant(image))
        activation[batch] = outputs["activation"]
        if has_decoder:
            reconstruction[batch] = outputs["reconstruction"]
            residual[batch] = np.abs(image / 127.5 - 1 - reconstruction[batch]).mean(axis=-1)
    return Explanation(activation, residual, reconstruction)


def activation_of(
    model: keras.Model, *, reconstruct: bool = False
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Make the function that maps what spoke for fake, cell by cell, for use within a graph.

    A graph drops every value that the short way back from the logit to the map does not need: 16
    faces of 299 px took 0.6 GB, as a prediction does; an eager tape 6.4.

    Args:
        model: As `explain_faces` takes it.
        reconstruct: Whether the function gives the reconstruction too, where there is a decoder.

    Returns:
        A function from float32[n, size, size, 3], pixel values, 0..255, to `activation`,
        float32[n, height, width], the map of `explain_faces` before it is enlarged, and where
        asked for `reconstruction`.

    Raises:
        ValueError: If the model is no such detector.
    """
    _check_model(model)
    wanted = {name: model.get_layer(name).output for name in (LAST_CONVOLUTION, LOGIT)}
    if reconstruct and "reconstruction" in model.output:
        wanted["reconstruction"] = model.output["reconstruction"]
    inner = keras.Model(model.input, wanted)

    def explain(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = inner(image, training=False)
        cells = outputs.pop(LAST_CONVOLUTION)
        # Not a tape's, which writes the whole way back to the image into the graph.
        (gradient,) = tf.gradients(outputs.pop(LOGIT), cells)
        voice = tf.reduce_sum(tf.cast(cells, tf.float32) * tf.cast(gradient, tf.float32), axis=-1)
        strongest = tf.reduce_max(tf.abs(voice), axis=(1, 2), keepdims=True)
        return outputs | {"activation": tf.math.divide_no_nan(tf.nn.relu(voice), strongest)}

    return explain


def _make_pass(model: keras.Model):
    activation = activation_of(model, reconstruct=True)

    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)])
    def explain(image):
        outputs = activation(image)
        share = outputs["activation"]
        enlarged = tf.image.resize(share[..., None], model.input_shape[1:3])[..., 0]
        return outputs | {"activation": enlarged}

    # The concrete function: a tf.function made per call warns of retracing from the fifth on.
    return explain.get_concrete_function()


def _check_model(model: keras.Model) -> None:
    layers = {layer.name for layer in model.layers}
    outputs = model.output if isinstance(model.output, dict) else {}
    if "classification" not in outputs or not {LAST_CONVOLUTION, LOGIT} <= layers:
        raise ValueError(
            f"Expected a model with the output 'classification' and the layers "
            f"{LAST_CONVOLUTION!r} and {LOGIT!r}; got {model.name!r} with the outputs "
            f"{model.output_names} and {len(layers)} layers, without "
            f"{sorted({LAST_CONVOLUTION, LOGIT} - layers)}. Give one that build_detector made."
        )


def _check_faces(model: keras.Model, faces: np.ndarray) -> None:
    expected = tuple(model.input_shape[1:])
    if faces.ndim != 4 or faces.shape[1:] != expected:
        raise ValueError(
            f"Expected faces of {expected}, which is what {model.name!r} takes, in one array; got "
            f"{faces.dtype}{list(faces.shape)}. Crop them with the --face-size of the training "
            "data; one face alone is faces[None]."
        )
    # Written so that NaN fails it too.
    if faces.size and not (faces.min() >= 0 and faces.max() <= 255):
        raise ValueError(
            f"Expected pixel values in 0..255; got {faces.min():g} to {faces.max():g}. Faces on "
            "another scale, -1..1 say, are to be put back on it first."
        )
