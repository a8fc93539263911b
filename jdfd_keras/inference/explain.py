"""Explanations of a detector: class-activation maps, and the residual of its decoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.io.results import Result

LOGIT = "classifier_logit"


@dataclass(frozen=True, eq=False)
class Explanation(Result):
    """Maps of n faces, in their order."""

    # float32[n, size, size], class-activation map: contributions to the logit of fake, at least 0.
    # Those of all faces of a model have one unit, and can be compared. All 0 if none is to fake.
    cam: np.ndarray
    # float32[n, size, size], mean over the channels of |face - reconstruction|, both scaled to
    # -1..1; None without a decoder.
    residual: np.ndarray | None
    # float32[n, size, size, 3], linear output of the decoder, not clipped to -1..1.
    reconstruction: np.ndarray | None


def explain_faces(model: keras.Model, faces: np.ndarray, *, batch_size: int = 32) -> Explanation:
    """Compute a class-activation map and the reconstruction residual of each face.

    The map is a Grad-CAM of the logit at the last layer of the classifier that has spatial axes, in
    the elementwise variant called HiResCAM: activation times gradient, summed over the channels,
    clipped at 0. That layer is the ReLU of the squeeze, with attention the weighted features, in
    MesoNet the last max pool. The original Grad-CAM first averages the gradient over the map, which
    suits a network with global average pooling. Here each cell of the map has its own weights in
    the next layer, and the average would mix them: a texture that is evidence in one cell and
    harmless in another would light up in both.

    A map is resized bilinearly, and is in units of the uncalibrated logit: the maps of several
    faces need one scale, which states its highest value. Scaled on its own, every face would seem
    to have evidence. The score, not the map, states how fake a face is.

    Args:
        model: A detector of `build_detector`, built or loaded; it is not changed.
        faces: uint8 or float[n, size, size, 3], pixel values in 0..255; n may be 0. Pass many
            faces in one call, since each call traces the model again.
        batch_size: Faces per forward pass.

    Reference:
        Selvaraju et al.: "Grad-CAM" (2017), https://arxiv.org/abs/1610.02391.
        Draelos, Carin: "Use HiResCAM instead of Grad-CAM" (2020),
        https://arxiv.org/abs/2011.08891.

    Example:
        >>> import jdfd_keras as jk
        >>> faces, _ = next(iter(jk.load_faces("prepared", "test", batch_size=8)))
        >>> explanation = explain_faces(jk.load_run_model("run").model, faces.numpy())
        >>> explanation.cam.shape, explanation.residual.shape
        ((8, 71, 71), (8, 71, 71))
    """
    cam_fn = make_cam_fn(model, reconstruct=True)
    _check_faces(model, faces)
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; got {batch_size}. Try the default.")

    def explain(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = cam_fn(image)
        cam = tf.expand_dims(outputs["cam"], -1)
        resized = tf.image.resize(cam, model.input_shape[1:3])
        return outputs | {"cam": tf.squeeze(resized, -1)}

    pixels = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    # The concrete function: a new tf.function per call warns of retracing from the fifth call on.
    traced: Any = tf.function(explain, input_signature=[pixels])
    concrete = traced.get_concrete_function()
    cam = np.empty(faces.shape[:3], np.float32)
    residual = reconstruction = None
    if "reconstruction" in concrete.structured_outputs:
        residual = np.empty(faces.shape[:3], np.float32)
        reconstruction = np.empty(faces.shape, np.float32)
    for start in range(0, len(faces), batch_size):
        batch = slice(start, start + batch_size)
        image = np.asarray(faces[batch], np.float32)
        outputs = concrete(tf.constant(image))
        cam[batch] = outputs["cam"]
        if reconstruction is not None and residual is not None:
            reconstruction[batch] = outputs["reconstruction"]
            residual[batch] = np.abs(image / 127.5 - 1 - reconstruction[batch]).mean(axis=-1)
    return Explanation(cam, residual, reconstruction)


def make_cam_fn(
    model: keras.Model, *, reconstruct: bool = False
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Create a function that computes class-activation maps, for use within a graph.

    A graph keeps only the values between the map and the logit: 16 faces of 299 px took 0.6 GB,
    the same as a prediction; an eager gradient tape took 6.4 GB.

    Args:
        model: A detector, as for `explain_faces`.
        reconstruct: Also return the reconstruction, if the model has a decoder.

    Returns:
        A function from float32[n, size, size, 3], pixel values in 0..255, to a dict of `cam`,
        float32[n, height, width], the map of `explain_faces` before it is resized, and
        `reconstruction` if requested.

    Example:
        >>> import jdfd_keras as jk
        >>> cam_fn = tf.function(make_cam_fn(jk.load_run_model("run").model))
        >>> cam_fn(tf.zeros((1, 71, 71, 3)))["cam"].shape
        TensorShape([1, 3, 3])
    """
    outputs: Any = model.output if isinstance(model.output, dict) else {}
    layer = _last_spatial_layer(model)
    if "classification" not in outputs or layer is None:
        raise ValueError(
            f"Expected a model with the output 'classification', the layer {LOGIT!r} and a layer "
            f"with spatial axes before it; got {model.name!r} with the outputs "
            f"{model.output_names} and the last layer {model.layers[-1].name!r}. Pass a model of "
            "build_detector."
        )
    tensors = {"cells": layer.output, LOGIT: model.get_layer(LOGIT).output}
    if reconstruct and "reconstruction" in outputs:
        tensors["reconstruction"] = outputs["reconstruction"]
    inner = keras.Model(model.input, tensors)

    def explain(image: tf.Tensor) -> dict[str, tf.Tensor]:
        # Of the triplet method, whose training keeps the classifier's gradients from its encoder.
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map({"StopGradient": "Identity"}):
            outputs = inner(image, training=False)
        cells = outputs.pop("cells")
        # A GradientTape would add the gradients down to the image to the graph.
        (gradient,) = tf.gradients(outputs.pop(LOGIT), cells)
        contribution = tf.reduce_sum(
            tf.cast(cells, tf.float32) * tf.cast(gradient, tf.float32), axis=-1
        )
        return outputs | {"cam": tf.nn.relu(contribution)}

    return explain


def _last_spatial_layer(model: keras.Model) -> keras.layers.Layer | None:
    """Return the layer whose output has spatial axes and is nearest to the logit."""
    if LOGIT not in {layer.name for layer in model.layers}:
        return None
    branch = keras.Model(model.input, model.get_layer(LOGIT).output)
    layers = [layer for layer in branch.layers[1:] if len(layer.output.shape) == 4]
    return layers[-1] if layers else None


def _check_faces(model: keras.Model, faces: np.ndarray) -> None:
    expected = tuple(model.input_shape[1:])
    if faces.ndim != 4 or faces.shape[1:] != expected:
        raise ValueError(
            f"Expected faces of {expected}, the input of {model.name!r}, in one array; got "
            f"{faces.dtype}{list(faces.shape)}. Crop them with the --face-size of the training "
            "data; for a single face pass face[None]."
        )
    # Negated, so that NaN fails too.
    if faces.size and not (faces.min() >= 0 and faces.max() <= 255):
        raise ValueError(
            f"Expected pixel values in 0..255; got {faces.min():g} to {faces.max():g}. Rescale "
            "faces of another range, such as -1..1, first."
        )
