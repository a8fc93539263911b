"""ImageNet weights of networks of keras.applications: download, check, and the cache of Keras."""

import hashlib
import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.io.console import track
from jdfd_keras.io.files import atomic_path

FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications"
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file that Keras publishes, without the top of its network.

    Keras states no SHA-256. Nobody can compute another file of a given MD5: only its author could.
    """

    network: str
    path: str  # below FOLDER
    md5: str
    size_bytes: int


VGG19 = PublishedWeights(
    network="VGG19",
    path="vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="253f8cb515780f3b799900260a226db6",
    size_bytes=80_134_624,
)


def fetch_published_weights(weights: PublishedWeights, timeout_s: float = 10) -> str:
    """Return the path of published weights in Keras' own cache; download them once.

    The cache is `~/.keras/models` or `KERAS_HOME/models`.

    Raises:
        OSError: If the file is not there, and cannot be downloaded or is another one.

    Example:
        >>> from unittest import mock
        >>> with mock.patch.dict(os.environ, KERAS_HOME="empty"):
        ...     fetch_published_weights(VGG19, timeout_s=1e-9)
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
