"""The encoder Xception, as in Keras or with the padding of PyTorch's.

Pure Keras 3. Knows nothing of the branches that read its features.
"""

import contextlib
from pathlib import Path
from typing import cast

import h5py
import keras

from jdfd_keras.model.imagenet_weights import XCEPTION, build_encoder
from jdfd_keras.options import ModelOptions

ENCODER_STRIDE = 32  # Xception halves its input five times
MIN_SIZE_PX = 71  # of Xception in Keras
PYTORCH = "xception-pytorch"
PYTORCH_EPSILON = 1e-5  # of batch normalisation; that of Keras is 1e-3


def encode(image: keras.KerasTensor, options: ModelOptions) -> keras.KerasTensor:
    """Scale pixels, and compute the features of Xception.

    With the network `xception-pytorch`, the model that is built on the features has to be given to
    `pool_like_pytorch`.

    Args:
        image: float32[n, size, size, 3], 0..255.
        options: Network, `image_size` and `encoder_weights`.

    Returns:
        float[n, size / 32, size / 32, 2048], rounded up.

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If the image is too small, or the weights are of another network.

    Example:
        >>> options = ModelOptions(image_size=71, encoder_weights="none")
        >>> encode(keras.Input((71, 71, 3)), options).shape
        (None, 3, 3, 2048)
    """
    if options.image_size < MIN_SIZE_PX:
        raise ValueError(
            f"Expected image_size >= {MIN_SIZE_PX}, the minimum of Xception; got "
            f"{options.image_size}. Try 96 for fast experiments, 299 for the paper's size."
        )
    _check_weights(options.encoder_weights, options.network)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image)
    xception = build_encoder(XCEPTION, x, options.encoder_weights)
    if options.network == PYTORCH:
        for layer in xception.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = PYTORCH_EPSILON
    return cast(keras.KerasTensor, xception.output)


def _check_weights(weights: str | None, network: str) -> None:
    """Check that weights are of the network, which their shapes do not tell."""
    if weights in (None, "none"):
        return
    made_for = "xception"
    if weights != "imagenet" and Path(weights).is_file():
        # Keras reports a damaged file and one of another format.
        with contextlib.suppress(OSError), h5py.File(weights) as file:
            made_for = str(file.attrs.get("network", made_for))
    if made_for != network:
        raise ValueError(
            f"Expected encoder_weights of the network {network!r}; got {weights!r}, which is for "
            f"{made_for!r}. Try --network {made_for}, or --encoder-weights none or a file that "
            "`jdfd-keras import-weights` wrote for this network."
        )


def pool_like_pytorch(model: keras.Model) -> keras.Model:
    """Copy a model, with max pools that pad every side by one row or column.

    The padding `same` does so with odd inputs, but does not pad the first row and column of even
    ones. A pool of stride 1, of which every second value is kept, does.

    Example:
        >>> image = keras.Input((4, 4, 1))
        >>> pool = keras.layers.MaxPooling2D(3, 2, padding="same")
        >>> pixels = keras.ops.reshape(keras.ops.arange(16.0), (1, 4, 4, 1))
        >>> pool_like_pytorch(keras.Model(image, pool(image)))(pixels).numpy().ravel().tolist()
        [5.0, 7.0, 13.0, 15.0]
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
