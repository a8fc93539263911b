"""Xception as in FaceForensics++: global average pooling and one dense layer, for comparison."""

from typing import cast

import keras

from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.model.xception_encoder import PYTORCH, encode, pool_like_pytorch
from jdfd_keras.options import ModelOptions

XCEPTIONS = ("xception", PYTORCH)


def build_xception_baseline(options: ModelOptions | None = None) -> keras.Model:
    """Build Xception with a new last layer, the network of FaceForensics++.

    The last layer has one output for P(fake) and a sigmoid. The authors' has two and a softmax,
    which is a sigmoid of their difference.

    The authors' Xception is that of PyTorch, with other padding than that of Keras: for it, set
    the network `xception-pytorch`, whose ImageNet weights are those of Keras as well.

    Args:
        options: `network`, `xception` or `xception-pytorch`; `image_size`, at least 71 (299 in
            the paper); `encoder_weights`; `dropout` before the last layer; `batch_norm_momentum`.
            Options of latent vector, decoder and attention do not apply.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255, and a dict of one
        output, `classification`, float32[n, 1], P(fake).

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If the network is not an Xception, or an option is out of its range.

    Example:
        >>> options = ModelOptions(image_size=71, encoder_weights="none")
        >>> build_xception_baseline(options).count_params()
        20863529

    Reference:
        Roessler et al.: "FaceForensics++: Learning to Detect Manipulated Facial Images" (2019),
        https://arxiv.org/abs/1901.08971, section 4.1 and appendix; code:
        https://github.com/ondyari/FaceForensics (`classification/network`). The paper trains the
        last layer for 3 epochs (see `freeze_encoder`), then all weights for 15, with Adam,
        learning rate 0.0002, on batches of 32 faces with 1.3 times the size of the face, and keeps
        the epoch with the best validation accuracy.
    """
    options = options or ModelOptions()
    if options.network not in XCEPTIONS:
        raise ValueError(
            f"Expected the network {' or '.join(XCEPTIONS)}; got {options.network!r}. Try "
            f"{XCEPTIONS[0]!r}."
        )
    size = options.image_size
    image = keras.Input((size, size, 3), name="image")
    outputs = pool_and_classify(encode(cast(keras.KerasTensor, image), options), options)
    model = keras.Model(image, outputs, name="xception_baseline")
    return pool_like_pytorch(model) if options.network == PYTORCH else model


def pool_and_classify(
    features: keras.KerasTensor, options: ModelOptions
) -> dict[str, keras.KerasTensor]:
    """Classify the mean of the features of a face by one dense layer.

    Args:
        features: float[n, height, width, channels].
        options: `dropout`.

    Returns:
        `classification`, float32[n, 1], P(fake).

    Example:
        >>> pool_and_classify(keras.Input((3, 3, 8)), ModelOptions())["classification"].shape
        (None, 1)
    """
    x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    if options.dropout:
        x = keras.layers.Dropout(options.dropout, name="classifier_dropout")(x)
    x = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = keras.layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    return {"classification": x}


def freeze_encoder(model: keras.Model, frozen: bool = True) -> None:
    """Freeze all layers but the classifier's, for its first epochs; or unfreeze them.

    Frozen batch normalisation uses its moving statistics. In the authors' code it does not, but
    its weights are frozen, too. Compile the model afterwards: Keras reads this then.

    Args:
        model: A model of `build_xception_baseline`.
        frozen: Whether to freeze.

    Example:
        >>> options = ModelOptions(image_size=71, encoder_weights="none")
        >>> model = build_xception_baseline(options)
        >>> freeze_encoder(model)
        >>> [weight.path for weight in model.trainable_variables]
        ['classifier_logit/kernel', 'classifier_logit/bias']
    """
    for layer in model.layers:
        layer.trainable = is_classifier_weight(layer.name) or not frozen
