"""Embedding of a detector's encoder, and a linear classifier that learns from it alone."""

from typing import Any

import keras

from jdfd_keras.model.network import is_classifier_weight

EMBEDDING = "embedding"


def add_embedding(detector: keras.Model) -> keras.Model:
    """Give a detector the output of its embedding, and a linear classifier that reads it.

    The embedding is the input of the detector's classifier, scaled to length 1: the 2,048 pooled
    features of Xception, for a detector of `build_xception_baseline`. No gradient of the
    classification loss reaches the encoder. So the two stages of the paper, an encoder by the
    triplet loss and then a linear classifier of its features, are trained at once, each by its own
    loss only; the paper trains the second after the first. As its inputs are small, the classifier
    needs a larger learning rate than the encoder.

    Args:
        detector: A detector with the output `classification`, whose classifier has layers named
            `classifier_...`; the new one shares its encoder, and replaces its classifier. A decoder
            is not kept.

    Returns:
        keras.Model with the same input, and a dict of outputs:
        `classification`, float32[n, 1], P(fake) in [0, 1];
        `embedding`, float32[n, d], of length 1.

    Raises:
        ValueError: If the detector has no such classifier.

    Example:
        >>> from jdfd_keras.model.xception_baseline import build_xception_baseline
        >>> from jdfd_keras.options import ModelOptions
        >>> options = ModelOptions(image_size=71, encoder_weights="none")
        >>> add_embedding(build_xception_baseline(options)).output["embedding"].shape
        (None, 2048)

    Reference:
        Feng, Lu, Lin: "Deep Detection for Face Manipulation" (2020),
        https://arxiv.org/abs/2009.05934: two stages, triplet loss and a linear classification
        network, with Xception; no code of its authors is known. The length of 1 is that of FaceNet
        (2015), https://arxiv.org/abs/1503.03832, section 3.
    """
    layers = keras.layers
    first = next((layer for layer in detector.layers if is_classifier_weight(layer.name)), None)
    if first is None or len(first.input.shape) != 2:
        raise ValueError(
            "Expected a detector whose classifier has layers named classifier_..., of which the "
            f"first reads a vector; got {detector.name!r}, which has none. Try the network "
            "'xception' without attention."
        )
    # In float32, since distances of similar faces differ in digits that bfloat16 lacks.
    x: Any = layers.UnitNormalization(name=EMBEDDING, dtype="float32")(first.input)
    outputs = {EMBEDDING: x}
    x = keras.ops.stop_gradient(x)
    x = layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    return keras.Model(detector.input, {"classification": x, **outputs}, name=detector.name)
