"""The network: a shared Xception encoder with two branches, a classifier and a decoder.

Pure Keras 3 without TensorFlow calls, so it runs on every Keras backend.
"""

import hashlib
import http.client
import math
import os
import urllib.request
from pathlib import Path
from typing import cast

import keras
import numpy as np

from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path
from jdfd_keras.options import ModelOptions

NAME = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/xception/{NAME}"
MD5 = "b0042744bf5b25fce3cb969f33bebb97"
CHUNK_BYTES = 2**20
ENCODER_STRIDE = 32  # Xception halves its input five times


def fetch_imagenet_weights(timeout_s: float = 10) -> str:
    """Return the path of the ImageNet weights of Keras' Xception; download them once (84 MB).

    The path is in Keras' own cache, `~/.keras/models` or `KERAS_HOME/models`.

    Example:
        >>> from unittest import mock
        >>> with mock.patch.dict(os.environ, KERAS_HOME="empty"):
        ...     fetch_imagenet_weights(timeout_s=1e-9)
        Traceback (most recent call last):
            ...
        OSError: Expected the ImageNet weights at empty/models/xception_weights_...
    """
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    cached = home / "models" / NAME
    if cached.is_file() and _md5(cached) == MD5:
        return str(cached)
    # Not by keras.utils.get_file, which raises a bare Exception for every failure and prints its
    # progress on stdout, between results.
    try:
        with urllib.request.urlopen(URL, timeout=timeout_s) as response:
            cached.parent.mkdir(parents=True, exist_ok=True)
            total = int(response.headers.get("Content-Length", 0)) // CHUNK_BYTES + 1
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            with atomic_path(cached) as unfinished:
                with open(unfinished, "wb") as file:
                    for chunk in track(chunks, "downloading ImageNet weights", total, "MiB"):
                        file.write(chunk)
                if _md5(unfinished) != MD5:
                    raise OSError("a file with another checksum")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"Expected the ImageNet weights at {cached} or to download them from {URL}; got "
            f"'{error}'. Copy the file from a machine with internet access, or start from random "
            "weights with encoder_weights 'none' (--encoder-weights none)."
        ) from error
    return str(cached)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def build_detector(options: ModelOptions | None = None) -> keras.Model:
    """Build the Joint DeepFake Detector.

    The encoder is Xception without its top, followed by a 1x1 convolution and one dense layer to
    the latent vector. There is no global pooling, so the position of a trace in the face is kept.
    The classifier has two dense layers; the decoder has stride-2 deconvolutions, five by default,
    and a bilinear resize.

    Args:
        options: Network; default is the paper's.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255 (scaling is a layer
        of the model), and a dict of outputs:
        `classification`, float32[n, 1], P(fake) in [0, 1];
        `reconstruction`, float32[n, size, size, 3], the input scaled to -1..1; linear, so values
        may be outside that range. Missing without a decoder.

    Example:
        >>> model = build_detector(ModelOptions(image_size=71, encoder_weights=None))
        >>> model.output["reconstruction"].shape
        (None, 71, 71, 3)

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


def _decode(latent: keras.KerasTensor, options: ModelOptions) -> keras.KerasTensor:
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


def classifier_branch(model: keras.Model) -> keras.Model:
    """Return the classifier of a detector, without the decoder; the weights are shared.

    Example:
        >>> detector = build_detector(ModelOptions(image_size=71, encoder_weights=None))
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
    if options.image_size < 71:
        raise ValueError(
            f"Expected image_size >= 71, the minimum of Xception; got {options.image_size}. Try 96 "
            "for fast experiments, 299 for the paper's size."
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


def _encoder(x: keras.KerasTensor, weights: str | None) -> keras.KerasTensor:
    if weights == "none":  # None is Keras' own word for random weights
        weights = None
    elif weights == "imagenet":
        weights = fetch_imagenet_weights()
    elif weights is not None and not Path(weights).is_file():
        raise OSError(
            "Expected encoder_weights to be 'imagenet', 'none' or a Keras Xception weights file "
            f"(.h5, .weights.h5); got {weights!r}, which is not a file. Check the path."
        )
    try:
        xception = keras.applications.Xception(
            include_top=False,
            weights=weights,  # pyright: ignore[reportArgumentType], typed as its default
            input_tensor=x,
        )
    except (ValueError, KeyError, OSError) as error:
        if weights is None:
            raise
        raise ValueError(
            f"Expected {weights} to hold the weights of Keras' Xception without its top; got "
            f"'{' '.join(str(error).split())[:200]}'. Use the published file, or one that "
            "save_weights wrote for that network."
        ) from error
    return cast(keras.KerasTensor, xception.output)


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
    for variable in model.variables:
        value = np.ascontiguousarray(variable.numpy())
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
