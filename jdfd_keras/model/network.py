"""The network: a shared Xception encoder with two branches, a classifier and a decoder.

Pure Keras 3 without TensorFlow calls, so it runs on every Keras backend.
"""

import contextlib
import hashlib
import http.client
import math
import os
import urllib.request
from pathlib import Path
from typing import cast

import h5py
import keras
import numpy as np

from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path
from jdfd_keras.model.mesonet import MESONETS, build_mesonet
from jdfd_keras.options import ModelOptions
from jdfd_keras.options.detector_options import NETWORKS

NAME = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/xception/{NAME}"
# Keras states no SHA-256. Nobody can compute another file of a given MD5: only its author could.
MD5 = "b0042744bf5b25fce3cb969f33bebb97"
SIZE_BYTES = 83_683_744
CHUNK_BYTES = 2**20
ENCODER_STRIDE = 32  # Xception halves its input five times
PYTORCH = "xception-pytorch"
PYTORCH_EPSILON = 1e-5  # of batch normalisation; that of Keras is 1e-3
Tensor = keras.KerasTensor


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
    if cached.is_file() and _is_published(cached):
        return str(cached)
    # keras.utils.get_file raises a bare Exception and prints progress on stdout, between results.
    try:
        with urllib.request.urlopen(URL, timeout=timeout_s) as response:
            cached.parent.mkdir(parents=True, exist_ok=True)
            total = int(response.headers.get("Content-Length", 0)) // CHUNK_BYTES + 1
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            with atomic_path(cached) as unfinished:
                with open(unfinished, "wb") as file:
                    for chunk in track(chunks, "downloading ImageNet weights", total, "MiB"):
                        file.write(chunk)
                if not _is_published(unfinished):
                    raise OSError("a file of another size or with another checksum")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"Expected the ImageNet weights at {cached} or to download them from {URL}; got "
            f"'{error}'. Copy the file from a machine with internet access, or start from random "
            "weights with encoder_weights 'none' (--encoder-weights none)."
        ) from error
    return str(cached)


def _is_published(path: Path) -> bool:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    return (path.stat().st_size, digest) == (SIZE_BYTES, MD5)


def build_detector(options: ModelOptions | None = None) -> keras.Model:
    """Build the network of the options, by default the Joint DeepFake Detector.

    The encoder is Xception without its top, followed by a 1x1 convolution and one dense layer to
    the latent vector, without global pooling, so that the position of a trace is kept. The decoder
    has stride-2 deconvolutions, five by default, and a resize, the classifier two dense layers.

    With `attention="residual"` the classifier reads a latent vector of its own, of the features of
    the 1x1 convolution, weighted in each cell by 1 to 2 by the reconstruction residual. No gradient
    of the classification loss flows through the residual: the decoder learns to reconstruct alone,
    and a class-activation map shows what the cells hold. The classifier then runs the decoder.

    `xception-pytorch` has the max-pool padding and batch-normalisation epsilon of PyTorch in the
    encoder, whose weights have the shapes of Keras' Xception. For MesoNet see `build_mesonet`.

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
        Classification" (2022), section 3.2, equations 1 and 2; section 4.2; section 5 for the
        attention. Cao et al.: "End-to-End Reconstruction-Classification Learning for Face Forgery
        Detection" (2022), section 3.4, weights features by the residual, too.
    """
    options = options or ModelOptions()
    _check(options)
    model = (build_mesonet if options.network in MESONETS else _build_joint_detector)(options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = options.batch_norm_momentum
    return model


def _build_joint_detector(options: ModelOptions) -> keras.Model:
    size = options.image_size
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image)
    x = _encoder(x, options)
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
    return _pool_like_pytorch(model) if options.network == PYTORCH else model


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


def _pool_like_pytorch(model: keras.Model) -> keras.Model:
    """Copy a model, with max pools that pad every side by one row or column.

    The padding `same` does so with odd inputs, but does not pad the first row and column of even
    ones. A pool of stride 1, of which every second value is kept, does.
    """

    def call(layer, *args, **kwargs):
        if not isinstance(layer, keras.layers.MaxPooling2D) or args[0].shape[1] % 2:
            return layer(*args, **kwargs)
        layer.strides = (1, 1)
        stride = keras.layers.MaxPooling2D(
            1, 2, name=f"{layer.name}_stride", dtype=layer.dtype_policy
        )
        return stride(layer(*args, **kwargs))

    copy = cast(keras.Model, keras.models.clone_model(model, call_function=call))
    copy.set_weights(model.get_weights())
    return copy


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
    if options.network not in NETWORKS:
        raise ValueError(
            f"Expected the network {', '.join(NETWORKS)}; got {options.network!r}. Try "
            f"{NETWORKS[0]!r}."
        )
    is_mesonet = options.network in MESONETS
    smallest, kind = (64, "MesoNet") if is_mesonet else (71, "Xception")
    if options.image_size < smallest:
        raise ValueError(
            f"Expected image_size >= {smallest}, the minimum of {kind}; got {options.image_size}. "
            "Try 96 for fast experiments, 299 for the paper's size."
        )
    if options.attention not in ("none", "residual"):
        raise ValueError(
            f"Expected the attention none or residual; got {options.attention!r}. Try 'none'."
        )
    if options.attention == "residual" and (is_mesonet or not options.decoder):
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
    if not (0 <= options.dropout < 1 and 0 <= options.batch_norm_momentum < 1):
        raise ValueError(
            "Expected dropout and batch_norm_momentum from 0 to below 1; got "
            f"{options.dropout:g} and {options.batch_norm_momentum:g}. Try the defaults."
        )


def _encoder(x: Tensor, options: ModelOptions) -> Tensor:
    weights = options.encoder_weights
    if weights == "none":  # None is Keras' own word for random weights
        weights = None
    if weights is not None:
        _check_encoder_weights(weights, options.network)
    if weights == "imagenet":
        weights = fetch_imagenet_weights()
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
    if options.network == PYTORCH:
        for layer in xception.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = PYTORCH_EPSILON
    return cast(Tensor, xception.output)


def _check_encoder_weights(weights: str, network: str) -> None:
    """Check that weights are of the network, which their shapes do not tell."""
    made_for = "xception"
    if weights != "imagenet":
        if not Path(weights).is_file():
            raise OSError(
                "Expected encoder_weights to be 'imagenet', 'none' or a Keras Xception weights "
                f"file (.h5, .weights.h5); got {weights!r}, which is not a file. Check the path."
            )
        # Keras reports a damaged file and one of another format.
        with contextlib.suppress(OSError), h5py.File(weights) as file:
            made_for = str(file.attrs.get("network", made_for))
    if made_for != network:
        raise ValueError(
            f"Expected encoder_weights of the network {network!r}; got {weights!r}, which is for "
            f"{made_for!r}. Try --network {made_for}, or --encoder-weights none or a file that "
            "`jdfd-keras import-weights` wrote for this network."
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
