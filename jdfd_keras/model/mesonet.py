"""MesoNet: Meso4 and MesoInception4, two small classifiers of faces, for comparison.

Pure Keras 3. The layers, in the order of their creation, have the weights of the published files.
"""

import keras

from jdfd_keras.options import ModelOptions

MESONETS = ("meso4", "mesoinception4")
DROPOUT = 0.5
MIN_SIZE_PX = 64


def build_mesonet(options: ModelOptions) -> keras.Model:
    """Build Meso4 or MesoInception4.

    Four blocks of convolution, batch normalisation and max pooling, the first two of parallel
    convolutions in MesoInception4, and two dense layers. `image_size` may differ from the 256 of
    the paper. There is no decoder, and the options of encoder, latent vector, decoder and dropout
    do not apply.

    Args:
        options: Network and image size.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255, and a dict of one
        output, `classification`, float32[n, 1], P(fake) in [0, 1].

    Raises:
        ValueError: If the image is too small, or an option asks for attention.

    Example:
        >>> build_mesonet(ModelOptions(network="meso4", image_size=256)).count_params()
        28073

    Reference:
        Afchar, Nozick, Yamagishi, Echizen: "MesoNet: a Compact Facial Video Forgery Detection
        Network" (2018), https://arxiv.org/abs/1809.00888, section 3.
    """
    layers, size = keras.layers, options.image_size
    if size < MIN_SIZE_PX:
        raise ValueError(
            f"Expected image_size >= {MIN_SIZE_PX}, the minimum of MesoNet; got {size}. Try 96 for "
            "fast experiments, 256 for the paper's size."
        )
    if options.attention != "none":
        raise ValueError(
            "Expected a network with a decoder for residual attention; got the network "
            f"{options.network!r} without decoder. Try the attention 'none', or the network "
            "'xception' with its decoder."
        )
    image = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(image)
    if options.network == "meso4":
        x = _end_block(_convolve(x, 8, 3, "block1_conv"), 1)
        x = _end_block(_convolve(x, 8, 5, "block2_conv"), 2)
    else:
        x = _end_block(_inception(x, (1, 4, 4, 2), "block1"), 1)
        x = _end_block(_inception(x, (2, 4, 4, 2), "block2"), 2)
    x = _end_block(_convolve(x, 16, 5, "block3_conv"), 3)
    x = _end_block(_convolve(x, 16, 5, "block4_conv"), 4, pool=4)

    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(DROPOUT, name="classifier_dropout1")(x)
    x = layers.Dense(16, name="classifier_dense")(x)
    x = layers.LeakyReLU(negative_slope=0.1, name="classifier_leaky_relu")(x)
    x = layers.Dropout(DROPOUT, name="classifier_dropout2")(x)
    x = layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    return keras.Model(image, {"classification": x}, name=options.network)


def _convolve(
    x: keras.KerasTensor, width: int, kernel: int, name: str, dilation: int = 1
) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        width, kernel, dilation_rate=dilation, padding="same", activation="relu", name=name
    )(x)


def _end_block(x: keras.KerasTensor, number: int, pool: int = 2) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(name=f"block{number}_bn")(x)
    return keras.layers.MaxPooling2D(pool, padding="same", name=f"block{number}_pool")(x)


def _inception(
    x: keras.KerasTensor, widths: tuple[int, int, int, int], name: str
) -> keras.KerasTensor:
    """Convolve 1x1, and 3x3 with the dilations 1, 2 and 3 after a 1x1 convolution each."""
    branches = [_convolve(x, widths[0], 1, f"{name}_conv0")]
    for dilation, width in enumerate(widths[1:], start=1):
        reduced = _convolve(x, width, 1, f"{name}_reduce{dilation}")
        branches.append(_convolve(reduced, width, 3, f"{name}_conv{dilation}", dilation))
    return keras.layers.Concatenate(name=f"{name}_concat")(branches)
