"""Capsule-Forensics: features of VGG19, primary capsules with statistics, and dynamic routing.

Pure Keras 3, of Keras' own layers and operations, so that a saved model loads without this package.
All computation after the features of the capsules is in float32.
"""

from typing import Any, cast

import keras

from jdfd_keras.model.imagenet_weights import (
    IMAGENET_MEAN,
    VGG19,
    build_encoder,
    read_red_first,
)
from jdfd_keras.options import ModelOptions

MIN_SIZE_PX = 32  # of VGG19 in Keras
FEATURES = "block3_pool"  # the last layer of VGG19 that is used
NUM_CAPSULES = 3  # primary ones
CAPSULE_WIDTHS = (64, 16)  # channels of the convolutions of a primary capsule
CAPSULE_LENGTH = 8  # components of a primary capsule
CLASS_LENGTH = 4  # components of the capsules of real and of fake
NUM_CLASSES = 2
NUM_ITERATIONS = 2  # of the routing
NOISE = 0.01  # standard deviation of the noise on routing weights in training
BATCH_NORM_EPSILON = 1e-5  # of PyTorch; that of Keras is 1e-3
SMALLEST_SQUARE = 1e-12  # below, a root has gradient 0 instead of an infinite one
Tensor = keras.KerasTensor
ops = cast(Any, keras.ops)  # typed as functions of one backend's tensors


def build_capsule_network(
    options: ModelOptions | None = None, *, num_capsules: int = NUM_CAPSULES
) -> keras.Model:
    """Build Capsule-Forensics.

    The first three blocks of VGG19, whose weights are not trained, feed primary capsules: two
    convolutions, mean and standard deviation of each of their 16 channels over the whole face, and
    two convolutions over the channels, to 8 components. Each capsule predicts the 4 components of a
    capsule of real and one of fake, and dynamic routing (see `route`) weights these predictions by
    their agreement. P(fake) is the mean over the components of their softmax over both classes.

    As the capsules of the classes are shorter than 1, P(fake) stays between 0.26 and 0.74: rank
    faces by it, or calibrate it, before it is read as a probability. The loss of the paper is the
    cross-entropy of P(fake), so that of `classification`.

    Where this network differs from the authors' code: VGG19 has the weights that Keras publishes,
    and their scaling of pixels, not those of torchvision; noise on routing weights is drawn for
    each face, not for each batch; biases start at 0. The code adds up cross-entropies of
    the components, each with a second softmax, where the paper has that of their mean.

    Args:
        options: `image_size`, at least 32 (128 in the paper, 300 in version 2 of the code);
            `encoder_weights`, `imagenet`, `none` or the path of a weights file of Keras' VGG19
            without its top; `batch_norm_momentum`; `dropout`, the rate at which components of the
            predictions are dropped (0.05 in version 2). Other options do not apply.
        num_capsules: Number of primary capsules; 10 in version 2.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255, and a dict of one
        output, `classification`, float32[n, 1], P(fake).

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If an option is out of its range, or the weights are of another network.

    Example:
        >>> model = build_capsule_network(ModelOptions(image_size=32, encoder_weights="none"))
        >>> model.output["classification"].shape
        (None, 1)

    Reference:
        Nguyen, Yamagishi, Echizen: "Capsule-Forensics: Using Capsule Networks to Detect Forged
        Images and Videos" (2019), https://arxiv.org/abs/1810.11215, and its code, from which the
        sizes of the layers are, https://github.com/nii-yamagishilab/Capsule-Forensics (`model.py`).
        It is trained there with Adam, learning rate 0.0005, on batches of 100 faces, for 100
        epochs. Version 2: https://arxiv.org/abs/1910.12467.
    """
    options = options or ModelOptions()
    if options.image_size < MIN_SIZE_PX or num_capsules < 1:
        raise ValueError(
            f"Expected image_size >= {MIN_SIZE_PX}, the minimum of VGG19, and num_capsules >= 1; "
            f"got {options.image_size} and {num_capsules}. Try 128 and {NUM_CAPSULES}, the paper's."
        )
    layers, size = keras.layers, options.image_size
    image = keras.Input((size, size, 3), name="image")
    features = _extract_features(cast(Tensor, image), options.encoder_weights)

    maps = [_convolve(features, number, options) for number in range(1, num_capsules + 1)]
    x = layers.Concatenate(name="capsule_features", dtype="float32")(maps)
    mean, deviation = compute_statistics(cast(Tensor, x))
    x = ops.reshape(ops.stack([mean, deviation], axis=-1), (-1, num_capsules, CAPSULE_WIDTHS[1], 2))
    parts = ops.unstack(x, num_capsules, axis=1)
    capsules = [_compose(part, number, options) for number, part in enumerate(parts, start=1)]
    # The authors' code squashes each component over the capsules, not each capsule.
    x = squash(ops.stack(capsules, axis=1), axis=1)

    predictions = _predict_classes(x, options.dropout)
    classes = route(predictions, NUM_ITERATIONS)
    _, fake = ops.unstack(ops.softmax(classes, axis=-1), NUM_CLASSES, axis=-1)
    score = ops.mean(fake, axis=-1, keepdims=True)
    logit = ops.log(score / (1 - score))
    logit = layers.Activation("linear", name="classifier_logit", dtype="float32")(logit)
    x = layers.Activation("sigmoid", name="classification", dtype="float32")(logit)
    return keras.Model(image, {"classification": x}, name="capsule_forensics")


def _extract_features(image: Tensor, weights: str | None) -> Tensor:
    """Return the features of VGG19, float[n, size / 8, size / 8, 256]; they are not trained."""
    offset: Any = [-mean for mean in IMAGENET_MEAN]  # typed as one number
    x = keras.layers.Rescaling(1.0, offset=offset, name="scale")(image)
    vgg19 = build_encoder(VGG19, cast(Tensor, x), weights)
    if weights not in (None, "none"):
        read_red_first(vgg19.get_layer("block1_conv1"))
    for layer in vgg19.layers:
        layer.trainable = False
    return cast(Tensor, vgg19.get_layer(FEATURES).output)


def _convolve(x: Tensor, number: int, options: ModelOptions) -> Tensor:
    """Apply the two convolutions of a primary capsule."""
    for index, width in enumerate(CAPSULE_WIDTHS, start=1):
        name = f"capsule{number}_conv{index}"
        x = keras.layers.Conv2D(
            width, 3, padding="same", kernel_initializer=_start_near(0.0, 0.02), name=name
        )(x)
        x = _normalize(x, f"capsule{number}_bn{index}", options)
        x = keras.layers.ReLU(name=f"capsule{number}_relu{index}")(x)
    return x


def _compose(x: Tensor, number: int, options: ModelOptions) -> Tensor:
    """Compute the components of a primary capsule from float32[n, 16, 2], its statistics."""
    name, width = f"capsule{number}", CAPSULE_LENGTH
    # The padding of PyTorch: "same" would pad one row less at the start.
    x = keras.layers.ZeroPadding1D(2, name=f"{name}_pad", dtype="float32")(x)
    x = keras.layers.Conv1D(
        width,
        5,
        2,
        kernel_initializer=_start_near(0.0, 0.02),
        name=f"{name}_conv3",
        dtype="float32",
    )(x)
    x = _normalize(x, f"{name}_bn3", options, "float32")
    x = keras.layers.Conv1D(
        1,
        3,
        padding="same",
        kernel_initializer=_start_near(0.0, 0.02),
        name=f"{name}_conv4",
        dtype="float32",
    )(x)
    x = _normalize(x, f"{name}_bn4", options, "float32")
    return keras.layers.Reshape((width,), name=f"{name}_components", dtype="float32")(x)


def _normalize(x: Tensor, name: str, options: ModelOptions, dtype: str | None = None) -> Tensor:
    return keras.layers.BatchNormalization(
        momentum=options.batch_norm_momentum,
        epsilon=BATCH_NORM_EPSILON,
        gamma_initializer=_start_near(1.0, 0.02),
        name=name,
        dtype=dtype,
    )(x)


def _start_near(mean: float, deviation: float) -> Any:  # Keras types initializers as str
    return keras.initializers.RandomNormal(mean, deviation)


def _predict_classes(x: Tensor, dropout: float) -> Tensor:
    """Predict the capsules of the classes from each primary capsule.

    Noise on the routing weights, in training only, is that of the paper's algorithm. It is made
    of a layer's noise on zeros. No layer after the features has an output of four axes, by which
    `explain_faces` finds them.
    """
    num_capsules, length = x.shape[1:]
    width = CLASS_LENGTH * NUM_CLASSES
    values = keras.layers.EinsumDense(
        "npi,pij->npj",
        (num_capsules, width),
        kernel_initializer=_start_near(0.0, 1.0),
        name="routing",
        dtype="float32",
    )(x)
    zeros = ops.zeros_like(ops.repeat(x, width, axis=-1))
    noise = keras.layers.GaussianNoise(NOISE, name="routing_noise", dtype="float32")(zeros)
    noise = ops.reshape(noise, (-1, num_capsules, length, width))
    values = ops.add(values, ops.einsum("npi,npij->npj", x, noise))
    if dropout:
        values = keras.layers.Dropout(dropout, name="routing_dropout", dtype="float32")(values)
    return ops.reshape(values, (-1, num_capsules, CLASS_LENGTH, NUM_CLASSES))


def compute_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each channel over height and width.

    The standard deviation is the unbiased one, as in the authors' code.

    Args:
        x: float[n, height, width, channels], with 2 cells or more.

    Returns:
        Two of float[n, channels].

    Example:
        >>> cells = keras.ops.convert_to_tensor([[[[1.0], [3.0]]]])
        >>> [statistic.numpy().round(3).tolist() for statistic in compute_statistics(cells)]
        [[[2.0]], [[1.4140000343322754]]]
    """
    num_cells = x.shape[1] * x.shape[2]
    mean = ops.mean(x, axis=(1, 2), keepdims=True)
    variance = ops.sum(ops.square(ops.subtract(x, mean)), axis=(1, 2)) / (num_cells - 1)
    return ops.squeeze(mean, axis=(1, 2)), _root(variance)


def squash(x: Tensor, axis: int) -> Tensor:
    """Shorten vectors to a length below 1, without a change of direction.

    A vector of length l gets the length l**2 / (1 + l**2).

    Args:
        x: float array of any shape.
        axis: Axis of the components.

    Returns:
        Array of the shape of `x`.

    Example:
        >>> squash(keras.ops.convert_to_tensor([[3.0, 4.0]]), axis=1).numpy().round(3).tolist()
        [[0.5770000219345093, 0.7689999938011169]]

    Reference:
        Sabour, Frosst, Hinton: "Dynamic Routing Between Capsules" (2017),
        https://arxiv.org/abs/1710.09829, equation 1.
    """
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return ops.multiply(x, ops.divide(_root(square), ops.add(square, 1)))


def _root(x: Tensor) -> Tensor:
    return ops.sqrt(ops.maximum(x, SMALLEST_SQUARE))


def route(predictions: Tensor, num_iterations: int) -> Tensor:
    """Combine the predictions of primary capsules by their agreement.

    Weights start equal. In each further iteration the products of a prediction and of the combined
    capsule are added to the logits of its weights. As in the authors' code, each component has a
    weight of its own, and the softmax is over the primary capsules; Sabour et al. have one weight
    for all components, and a softmax over the classes.

    Args:
        predictions: float[n, capsules, components, classes].
        num_iterations: Iterations, at least 1.

    Returns:
        float[n, components, classes], the capsules of the classes, each shorter than 1.

    Example:
        >>> same = keras.ops.ones((1, 3, 4, 2))  # all agree, on vectors of length 2
        >>> route(same, 2).numpy()[0, :, 0].round(3).tolist()
        [0.4000000059604645, 0.4000000059604645, 0.4000000059604645, 0.4000000059604645]

    Reference:
        Nguyen, Yamagishi, Echizen: "Capsule-Forensics" (2019), algorithm 1.
    """

    def combine(logits: Tensor) -> Tensor:
        weights = ops.softmax(logits, axis=1)
        return squash(ops.sum(ops.multiply(weights, predictions), axis=1), axis=1)

    logits = ops.zeros_like(predictions)
    classes = combine(logits)
    for _ in range(num_iterations - 1):
        agreement = ops.multiply(predictions, ops.expand_dims(classes, axis=1))
        logits = ops.add(logits, agreement)
        classes = combine(logits)
    return classes
