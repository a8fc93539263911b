"""The Joint DeepFake Detector: a shared Xception encoder with a classifier and a decoder.

Pure Keras 3 without TensorFlow calls, so it runs on every Keras backend.
"""

import hashlib
import math
from typing import cast

import keras
import numpy as np

from jdfd_keras.model.xception_encoder import ENCODER_STRIDE, PYTORCH, encode, pool_like_pytorch
from jdfd_keras.options import ModelOptions

Tensor = keras.KerasTensor


def build_joint_detector(options: ModelOptions | None = None) -> keras.Model:
    """Build the Joint DeepFake Detector.

    The encoder is Xception without its top, followed by a 1x1 convolution and one dense layer to
    the latent vector, without global pooling, so that the position of a trace is kept. The decoder
    has stride-2 deconvolutions, five by default, and a resize, the classifier two dense layers.

    With `attention="residual"` the classifier reads a latent vector of its own, of the features of
    the 1x1 convolution, weighted in each cell by 1 to 2 by the reconstruction residual. No gradient
    of the classification loss flows through the residual: the decoder learns to reconstruct alone,
    and a class-activation map shows what the cells hold. The classifier then runs the decoder.

    `xception-pytorch` has the max-pool padding and batch-normalisation epsilon of PyTorch in the
    encoder, whose weights have the shapes of Keras' Xception.

    Args:
        options: Network, `xception` or `xception-pytorch`; default is the paper's.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255 (scaling is a layer
        of the model), and a dict of outputs:
        `classification`, float32[n, 1], P(fake) in [0, 1];
        `reconstruction`, float32[n, size, size, 3], the input scaled to -1..1; linear, so values
        may be outside that range. Missing without a decoder.

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If an option is out of its range.

    Example:
        >>> model = build_joint_detector(ModelOptions(image_size=71, encoder_weights=None))
        >>> model.output["reconstruction"].shape
        (None, 71, 71, 3)

    Reference:
        Yan, Li, Lu: "Deepfake Detection via Joint Unsupervised Reconstruction and Supervised
        Classification" (2022), section 3.2, equations 1 and 2; section 4.2; section 5 for the
        attention. Cao et al.: "End-to-End Reconstruction-Classification Learning for Face Forgery
        Detection" (2022), section 3.4, weights features by the residual, too.
    """
    options = options or ModelOptions()
    _check(options)
    size = options.image_size
    image = keras.Input((size, size, 3), name="image")
    x = encode(cast(Tensor, image), options)
    x = keras.layers.Conv2D(64, 1, use_bias=False, name="squeeze")(x)
    x = keras.layers.BatchNormalization(name="squeeze_bn")(x)
    features = keras.layers.ReLU(name="squeeze_relu")(x)
    x = keras.layers.Flatten(name="flatten")(features)
    latent = keras.layers.Dense(options.latent_dim, name="latent")(x)

    if options.attention == "residual":
        reconstruction = _decode(latent, options)
        attended = _attend(cast(Tensor, image), reconstruction, features, options)
        outputs = {"classification": _classify(attended, options), "reconstruction": reconstruction}
    else:
        outputs = {"classification": _classify(latent, options)}
        if options.decoder:
            outputs["reconstruction"] = _decode(latent, options)
    model = keras.Model(image, outputs, name="joint_deepfake_detector")
    return pool_like_pytorch(model) if options.network == PYTORCH else model


def _classify(x: Tensor, options: ModelOptions) -> Tensor:
    x = keras.layers.Dense(128, activation="relu", name="classifier_dense")(x)
    if options.dropout:
        x = keras.layers.Dropout(options.dropout, name="classifier_dropout")(x)
    x = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    return keras.layers.Activation("sigmoid", name="classification", dtype="float32")(x)


def _attend(
    image: Tensor, reconstruction: Tensor, features: Tensor, options: ModelOptions
) -> Tensor:
    """Weight features by 1 + a, where a in 0..1 is computed from the residual around a cell."""
    ops, layers = keras.ops, keras.layers
    height, width = features.shape[1:3]
    # In float32, since a good reconstruction differs from the face in digits that bfloat16 lacks,
    # and of parts of Keras alone, so that a saved model loads without this package.
    x = layers.Rescaling(1 / 127.5, offset=-1, name="classifier_scale", dtype="float32")(image)
    # The shape that it has already; without it, ONNX files are invalid (tf2onnx 1.17.0).
    fixed = layers.Reshape(image.shape[1:], name="classifier_reconstruction", dtype="float32")(
        ops.stop_gradient(reconstruction)
    )
    x = ops.absolute(ops.subtract(x, fixed))
    x = ops.mean(x, axis=-1, keepdims=True)
    pool = (math.ceil(options.image_size / height), math.ceil(options.image_size / width))
    x = layers.AveragePooling2D(pool, padding="same", name="classifier_residual", dtype="float32")(
        x
    )
    x = layers.BatchNormalization(
        center=False, scale=False, name="classifier_residual_bn", dtype="float32"
    )(x)
    x = layers.Conv2D(
        1, 3, padding="same", activation="sigmoid", name="classifier_attention", dtype="float32"
    )(x)
    weighted = layers.Multiply(name="classifier_weighted")([features, x])
    attended = layers.Add(name="classifier_attended")([features, weighted])
    x = layers.Flatten(name="classifier_flatten")(attended)
    return layers.Dense(options.latent_dim, name="classifier_latent")(x)


def _decode(latent: Tensor, options: ModelOptions) -> Tensor:
    widths, size = options.decoder_widths, options.image_size
    grid = math.ceil(size / ENCODER_STRIDE)
    x = keras.layers.Dense(grid * grid * widths[0], name="decoder_dense")(latent)
    x = keras.layers.Reshape((grid, grid, widths[0]), name="decoder_grid")(x)
    for index, width in enumerate(widths, start=1):
        x = keras.layers.Conv2DTranspose(
            width, 4, strides=2, padding="same", use_bias=False, name=f"decoder_deconv{index}"
        )(x)
        x = keras.layers.BatchNormalization(name=f"decoder_bn{index}")(x)
        x = keras.layers.ReLU(name=f"decoder_relu{index}")(x)
    x = keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", name=f"decoder_deconv{len(widths) + 1}"
    )(x)
    resize = keras.layers.Resizing(
        size, size, interpolation="bilinear", name="reconstruction", dtype="float32"
    )
    # Its default, True, would put the layers of attention after it in training mode (Keras 3.15.1).
    return resize(x, training=False)


def classifier_branch(model: keras.Model) -> keras.Model:
    """Return the classifier of a detector; the weights are shared.

    It has no decoder, except with attention, which reads the reconstruction.

    Example:
        >>> options = ModelOptions(image_size=71, encoder_weights=None)
        >>> detector = build_joint_detector(options)
        >>> classifier_branch(detector).output_shape
        (None, 1)
    """
    outputs = cast(dict, model.output)
    return keras.Model(model.input, outputs["classification"], name="classifier")


def is_classifier_weight(path: str) -> bool:
    """Return whether a variable, by its path, belongs only to the classifier branch.

    Example:
        >>> is_classifier_weight("classifier_dense/kernel")
        True
    """
    return path.split("/")[0].startswith("classifier_")


def _check(options: ModelOptions) -> None:
    if options.attention not in ("none", "residual"):
        raise ValueError(
            f"Expected the attention none or residual; got {options.attention!r}. Try 'none'."
        )
    if options.attention == "residual" and not options.decoder:
        raise ValueError(
            "Expected a network with a decoder for residual attention; got the network "
            f"{options.network!r} without decoder. Try the attention 'none', or the network "
            "'xception' with its decoder."
        )
    if min(options.latent_dim, len(options.decoder_widths), *options.decoder_widths) < 1:
        raise ValueError(
            "Expected latent_dim >= 1 and one decoder width or more, each >= 1; got "
            f"{options.latent_dim} and {list(options.decoder_widths)}. For a detector without "
            "decoder set decoder to false."
        )


def digest_weights(model: keras.Model) -> str:
    """Compute the SHA-256 of a model's weights: their dtypes, shapes and values, in order.

    Example:
        >>> image = keras.Input((2,))
        >>> one = keras.Model(image, keras.layers.Dense(1)(image))
        >>> other = keras.models.clone_model(one)
        >>> other.set_weights(one.get_weights())
        >>> digest_weights(other) == digest_weights(one)
        True
    """
    digest = hashlib.sha256()
    for variable in model.weights:  # without the state of dropout's random numbers
        value = np.ascontiguousarray(variable.numpy())
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
