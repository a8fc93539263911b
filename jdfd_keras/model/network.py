"""The two-branch network: one shared Xception encoder, a classifier and a decoder.

Takes a ModelOptions; gives a functional keras.Model. Pure Keras 3: no TensorFlow call, so the
same graph runs on every Keras backend. Knows nothing of files, losses or where faces come from.
"""

import math
from pathlib import Path

import keras

from jdfd_keras.model.weights import fetch_imagenet_weights
from jdfd_keras.options import ModelOptions

ENCODER_STRIDE = 32  # Xception halves its input five times


def build_detector(options: ModelOptions | None = None) -> keras.Model:
    """Build the Joint DeepFake Detector.

    The encoder is Xception without its top, squeezed by a 1x1 convolution and mapped to the
    latent vector by one dense layer: no global pooling, so that where a trace lies in the face
    is kept. The classifier is two dense layers; the decoder is stride-2 deconvolutions, five by
    default, and a bilinear resize.

    Args:
        options: Image size, latent length, decoder, initial encoder weights, dropout, batch
            normalisation.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] of pixel values in
        0..255 (scaling is inside), and a dict of outputs:
        `classification`, float32[n, 1], P(fake) in [0, 1];
        `reconstruction`, float32[n, size, size, 3], the input on the scale of -1..1, linear
        and so not clipped to it; not there without a decoder.

    Raises:
        ValueError: If `image_size` is below 71, another option is out of range, or the weights
            are of another network.
        OSError: If the weights cannot be found or downloaded.

    Reference:
        Yan, Li, Lu: "Deepfake Detection via Joint Unsupervised Reconstruction and Supervised
        Classification" (2022), section 3.2, equations 1 and 2; section 4.2.
    """
    options = options or ModelOptions()
    _check(options)
    size = options.image_size

    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image)
    x = _encoder(x, options.encoder_weights)
    x = keras.layers.Conv2D(64, 1, use_bias=False, name="squeeze")(x)
    x = keras.layers.BatchNormalization(name="squeeze_bn")(x)
    x = keras.layers.ReLU(name="squeeze_relu")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    latent = keras.layers.Dense(options.latent_dim, name="latent")(x)

    x = keras.layers.Dense(128, activation="relu", name="classifier_dense")(latent)
    if options.dropout:
        x = keras.layers.Dropout(options.dropout, name="classifier_dropout")(x)
    x = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = keras.layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    outputs = {"classification": x}
    if options.decoder:
        outputs["reconstruction"] = _decode(latent, options)

    model = keras.Model(image, outputs, name="joint_deepfake_detector")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = options.batch_norm_momentum
    return model


def _decode(latent, options: ModelOptions):
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
    return keras.layers.Resizing(
        size, size, interpolation="bilinear", name="reconstruction", dtype="float32"
    )(x)


def classifier_of(model: keras.Model) -> keras.Model:
    """Take the part of a detector that scores, leaving the decoder out.

    Args:
        model: A detector as `build_detector` makes it.

    Returns:
        keras.Model that shares its weights: `image` in, `classification` float32[n, 1] out.
    """
    return keras.Model(model.input, model.output["classification"], name="classifier")


def is_classifier_weight(path: str) -> bool:
    """Tell whether a variable, by its path, belongs to the classifier branch alone."""
    return path.split("/")[0].startswith("classifier_")


def _check(options: ModelOptions) -> None:
    if options.image_size < 71:
        raise ValueError(
            f"Expected image_size >= 71, the smallest that Xception takes; got "
            f"{options.image_size}. Try 96 for a quick look, 299 for the paper's size."
        )
    if min(options.latent_dim, len(options.decoder_widths), *options.decoder_widths) < 1:
        raise ValueError(
            "Expected latent_dim >= 1 and one decoder width or more, each >= 1; got "
            f"{options.latent_dim} and {list(options.decoder_widths)}. For a detector without "
            "decoder set decoder to false."
        )
    if not (0 <= options.dropout < 1 and 0 <= options.batch_norm_momentum < 1):
        raise ValueError(
            "Expected dropout and batch_norm_momentum from 0 to below 1; got "
            f"{options.dropout:g} and {options.batch_norm_momentum:g}. Try the defaults."
        )


def _encoder(x, encoder_weights: str):
    path = _weights_file(encoder_weights)
    try:
        return keras.applications.Xception(include_top=False, weights=path, input_tensor=x).output
    except (ValueError, KeyError, OSError) as error:
        if path is None:
            raise
        raise ValueError(
            f"Expected {path} to hold the weights of Keras' Xception without its top; got "
            f"'{' '.join(str(error).split())[:200]}'. Take the published file, or one that "
            "save_weights wrote of that network."
        ) from error


def _weights_file(encoder_weights: str) -> str | None:
    if encoder_weights == "none":
        return None
    if encoder_weights == "imagenet":
        return fetch_imagenet_weights()
    if not Path(encoder_weights).is_file():
        raise OSError(
            "Expected encoder_weights to be 'imagenet', 'none' or a Keras Xception weights file "
            f"(.h5, .weights.h5); got {encoder_weights!r}, which is no file. Check the path."
        )
    return encoder_weights
