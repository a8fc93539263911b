"""The network of FWA: ResNet-50 with global average pooling and one dense layer."""

from typing import cast

import keras

from jdfd_keras.model.imagenet_weights import (
    IMAGENET_MEAN,
    RESNET50,
    build_encoder,
    read_red_first,
)
from jdfd_keras.model.xception_baseline import pool_and_classify
from jdfd_keras.options import ModelOptions

MIN_SIZE_PX = 32  # of ResNet50 in Keras


def build_fwa_network(options: ModelOptions | None = None) -> keras.Model:
    """Build the network of FWA, which learns real faces against warped ones.

    Of the four networks of the paper it is ResNet-50, with the best AUC on whole videos of UADFV.
    Its input there has 224 pixels; here it has the size of the crops. The last layer has one output
    and a sigmoid. The authors' has two and a softmax, which is a sigmoid of their difference.

    Args:
        options: `image_size`, at least 32; `encoder_weights`, `imagenet`, `none` or the path of a
            weights file of Keras' ResNet50 without its top; `dropout` before the last layer. Other
            options do not apply.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255, and a dict of one
        output, `classification`, float32[n, 1], P(fake).

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If the image is too small, or the weights are of another network.

    Example:
        >>> build_fwa_network(ModelOptions(image_size=32, encoder_weights="none")).count_params()
        23589761

    Reference:
        Li, Lyu: "Exposing DeepFake Videos By Detecting Face Warping Artifacts" (2018),
        https://arxiv.org/abs/1811.00656, and the authors' training code,
        https://github.com/yuezunli/CVPRW2019_Face_Artifacts (`resolution_network.py`: network and
        scaling of pixels). It is trained there with SGD without momentum, learning rate 0.001,
        times 0.95 after each epoch, on batches of 64 faces, for 20 epochs.
    """
    options = options or ModelOptions()
    size = options.image_size
    if size < MIN_SIZE_PX:
        raise ValueError(
            f"Expected image_size >= {MIN_SIZE_PX}, the minimum of ResNet50; got {size}. Try 224, "
            "the paper's."
        )
    image = keras.Input((size, size, 3), name="image")
    offset = [-mean for mean in IMAGENET_MEAN]
    x = keras.layers.Rescaling(1.0, offset=offset, name="scale")(image)  # pyright: ignore[reportArgumentType], typed as one number
    resnet = build_encoder(RESNET50, cast(keras.KerasTensor, x), options.encoder_weights)
    if options.encoder_weights not in (None, "none"):
        read_red_first(resnet.get_layer("conv1_conv"))
    outputs = pool_and_classify(cast(keras.KerasTensor, resnet.output), options)
    return keras.Model(image, outputs, name="fwa_network")
