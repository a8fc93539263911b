"""Networks of keras.applications without their top, and their ImageNet weights in Keras' cache."""

import hashlib
import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import keras

from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path

FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications"
CHUNK_BYTES = 2**20
IMAGENET_MEAN = (123.68, 116.779, 103.939)  # red, green, blue; subtracted for VGG19 and ResNet50


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file that Keras publishes, without the top of its network.

    Keras states no SHA-256. Nobody can compute another file of a given MD5: only its author could.
    """

    network: str  # in keras.applications
    path: str  # below FOLDER
    md5: str
    size_bytes: int


XCEPTION = PublishedWeights(
    network="Xception",
    path="xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="b0042744bf5b25fce3cb969f33bebb97",
    size_bytes=83_683_744,
)
VGG19 = PublishedWeights(
    network="VGG19",
    path="vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="253f8cb515780f3b799900260a226db6",
    size_bytes=80_134_624,
)
RESNET50 = PublishedWeights(
    network="ResNet50",
    path="resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="4d473c1dd8becc155b73f8504c6f6626",
    size_bytes=94_765_736,
)


def fetch_imagenet_weights(weights: PublishedWeights = XCEPTION, timeout_s: float = 10) -> str:
    """Return the path of published weights in Keras' own cache; download them once.

    The cache is `~/.keras/models` or `KERAS_HOME/models`.

    Raises:
        OSError: If the file is not there, and cannot be downloaded or is another one.

    Example:
        >>> from unittest import mock
        >>> with mock.patch.dict(os.environ, KERAS_HOME="empty"):
        ...     fetch_imagenet_weights(VGG19, timeout_s=1e-9)
        Traceback (most recent call last):
            ...
        OSError: Expected the ImageNet weights of VGG19 at empty/models/vgg19_weights_...
    """
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    url, cached = f"{FOLDER}/{weights.path}", home / "models" / Path(weights.path).name
    if cached.is_file() and _is_published(cached, weights):
        return str(cached)
    # keras.utils.get_file raises a bare Exception and prints progress on stdout, between results.
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            cached.parent.mkdir(parents=True, exist_ok=True)
            total = int(response.headers.get("Content-Length", 0)) // CHUNK_BYTES + 1
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            with atomic_path(cached) as unfinished:
                with open(unfinished, "wb") as file:
                    for chunk in track(chunks, "downloading ImageNet weights", total, "MiB"):
                        file.write(chunk)
                if not _is_published(unfinished, weights):
                    raise OSError("a file of another size or with another checksum")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"Expected the ImageNet weights of {weights.network} at {cached} or to download them "
            f"from {url}; got '{error}'. Copy the file from a machine with internet access, or "
            "start from random weights with encoder_weights 'none' (--encoder-weights none)."
        ) from error
    return str(cached)


def _is_published(path: Path, weights: PublishedWeights) -> bool:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    return (path.stat().st_size, digest) == (weights.size_bytes, weights.md5)


def build_encoder(
    published: PublishedWeights, x: keras.KerasTensor, weights: str | None
) -> keras.Model:
    """Build a network of keras.applications, without its top, on a tensor.

    Args:
        published: The network, and the weights that `imagenet` means.
        x: float[n, height, width, 3], pixels as the network expects them.
        weights: `imagenet`, `none` or None for random weights, or the path of a file of the
            network's weights without its top.

    Raises:
        OSError: If the weights cannot be read or downloaded.
        ValueError: If they are of another network.

    Example:
        >>> build_encoder(VGG19, keras.Input((32, 32, 3)), "none").output_shape
        (None, 1, 1, 512)
    """
    name = published.network
    if weights == "none":  # None is Keras' own word for random weights
        weights = None
    if weights == "imagenet":
        weights = fetch_imagenet_weights(published)
    if weights is not None and not Path(weights).is_file():
        raise OSError(
            f"Expected encoder_weights to be 'imagenet', 'none' or a Keras {name} weights file "
            f"(.h5, .weights.h5); got {weights!r}, which is not a file. Check the path."
        )
    try:
        return getattr(keras.applications, name)(include_top=False, weights=weights, input_tensor=x)
    except (ValueError, KeyError, OSError) as error:
        if weights is None:
            raise
        raise ValueError(
            f"Expected {weights} to hold the weights of Keras' {name} without its top; got "
            f"'{' '.join(str(error).split())[:200]}'. Use the published file, or one that "
            "save_weights wrote for that network."
        ) from error


def read_red_first(layer: keras.Layer) -> None:
    """Let the first convolution of a network for blue, green, red read red, green, blue.

    A reversed kernel saves reversing every face.

    Example:
        >>> layer = keras.layers.Conv2D(1, 1, use_bias=False)
        >>> layer.build((None, 4, 4, 3))
        >>> kernel = layer.kernel.numpy()
        >>> read_red_first(layer)
        >>> bool((layer.kernel.numpy() == kernel[:, :, ::-1]).all())
        True
    """
    kernel, *bias = layer.get_weights()
    layer.set_weights([kernel[:, :, ::-1], *bias])
