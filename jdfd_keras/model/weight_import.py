"""Import of published weights into the encoder, and into MesoNet.

PyTorch weights of Xception, by the names that DeepfakeBench, timm and FaceForensics++ have in
common, become a Keras weights file for `ModelOptions.encoder_weights`. The authors' weights of
MesoNet become a detector. All of these networks take RGB: Xception in -1..1, which is x / 127.5 - 1
as here, and MesoNet in 0..1. Those scalings are layers of the detectors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h5py
import keras
import numpy as np

from jdfd_keras.io.files import atomic_path, sha256_of
from jdfd_keras.io.results import Result
from jdfd_keras.model.mesonet import MESONETS
from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.torch_files import read_state_dict
from jdfd_keras.model.xception_encoder import PYTORCH
from jdfd_keras.options import ModelOptions

# Prefix of the encoder's names; the files may also have none.
PREFIXES = {
    "deepfakebench-xception": "backbone.",
    "timm-legacy_xception": "",
    "faceforensics": "model.",
}
MESONET_SOURCES = {f"mesonet-{network}": network for network in MESONETS}
SOURCES = (*PREFIXES, *MESONET_SOURCES)
SUFFIX = ".weights.h5"  # Keras' own, of weights files
MESONET_SIZE = 256  # pixels, of the published weights
_H5_DAMAGE = (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class ImportFacts(Result):
    """Where imported weights come from; stored with them."""

    source: str  # one of SOURCES
    network: str
    file: str  # name of the published file
    sha256: str  # of that file


@dataclass(frozen=True)
class ImportedEncoder(Result):
    """Weights of an encoder that were imported."""

    path: Path  # of the Keras weights file
    facts: ImportFacts
    unused: tuple[str, ...]  # names of the file that the encoder has no place for


def describe_import(file: str | Path, source: str) -> ImportFacts:
    """Return the facts about a published file.

    Example:
        >>> _ = Path("meso.h5").write_bytes(b"abc")
        >>> describe_import("meso.h5", "mesonet-meso4").network
        'meso4'
    """
    if source not in SOURCES:
        raise ValueError(
            f"Expected a source out of {', '.join(SOURCES)}; got {source!r}. Try the one whose "
            "authors published the file."
        )
    if not Path(file).is_file():
        raise _missing_file(Path(file))
    return ImportFacts(
        source, MESONET_SOURCES.get(source, PYTORCH), Path(file).name, sha256_of(file)
    )


def _missing_file(path: Path) -> OSError:
    got = "a folder" if path.is_dir() else "which does not exist"
    kind = IsADirectoryError if path.is_dir() else FileNotFoundError
    return kind(
        f"Expected a file of published weights; got {path}, {got}. Try the path of the file that "
        "you downloaded."
    )


def import_encoder(file: str | Path, source: str, out: str | Path) -> ImportedEncoder:
    """Convert PyTorch weights of Xception into a Keras weights file.

    Args:
        file: A file that `read_state_dict` reads.
        source: A key of PREFIXES.
        out: A new file NAME.weights.h5. Its attributes are the ImportFacts.

    Raises:
        OSError: If `file` cannot be read, or `out` cannot be written.
        ValueError: If `file` is damaged or lacks weights, some have another shape or are not
            finite, or `out` exists or has another suffix.

    Example:
        >>> import_encoder("face.png", "faceforensics", "ffpp.weights.h5")
        Traceback (most recent call last):
        ValueError: Expected the weights of a PyTorch network in face.png, ...
    """
    out = Path(out)
    if not out.name.endswith(SUFFIX) or out.exists():
        got = "which exists" if out.exists() else "which has another suffix"
        raise ValueError(
            f"Expected a new file NAME{SUFFIX} to write; got {out}, {got}. Choose another --out."
        )
    facts = describe_import(file, source)
    state = read_state_dict(file)
    prefix = PREFIXES[source]
    if not any(name.startswith(f"{prefix}block1.") for name in state):
        prefix = ""
    encoder, unused = convert_xception(state, prefix)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as unfinished:
        encoder.save_weights(unfinished)
        with h5py.File(unfinished, "r+") as weights:
            weights.attrs.update(facts.to_dict())
    return ImportedEncoder(out, facts, unused)


def convert_xception(
    state: Mapping[str, np.ndarray], prefix: str = ""
) -> tuple[keras.Model, tuple[str, ...]]:
    """Build Keras' Xception without its top from a PyTorch state dict.

    Args:
        state: Arrays by their names in PyTorch.
        prefix: Prefix of the names of the encoder, such as `backbone.`.

    Returns:
        The encoder, and the names in `state` that it has no place for.

    Raises:
        ValueError: If arrays are missing, have another shape or are not finite.

    Example:
        >>> convert_xception({"block1.rep.0.conv1.weight": np.ones((64, 1, 3, 3))})
        Traceback (most recent call last):
        ValueError: Expected the 234 arrays of PyTorch's Xception; got no conv1.weight and 232 ...
    """
    encoder = keras.applications.Xception(
        include_top=False,
        weights=None,  # pyright: ignore[reportArgumentType], typed as its default
        input_shape=(299, 299, 3),
    )
    names = [
        (variable, prefix + name)
        for layer, layer_name in _name_layers(encoder)
        for variable, name in zip(layer.weights, _name_arrays(layer, layer_name), strict=True)
    ]
    if missing := [name for _, name in names if name not in state]:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        raise ValueError(
            f"Expected the {len(names)} arrays of PyTorch's Xception; got no {missing[0]}{others}, "
            f"but names such as {', '.join(list(state)[:3])}. Check the source (--from), and that "
            "the file holds this network."
        )
    for variable, name in names:
        variable.assign(_transpose(name, state[name], variable.shape))
    return encoder, tuple(sorted(set(state) - {name for _, name in names}))


def _name_layers(encoder: keras.Model) -> Iterable[tuple[keras.Layer, str]]:
    """Yield the layers that have weights, with their names in PyTorch."""
    names = {"block1_conv1": "conv1", "block1_conv2": "conv2"}
    names |= {"block14_sepconv1": "conv3", "block14_sepconv2": "conv4"}
    names |= {f"{keras_name}_bn": f"bn{name[-1]}" for keras_name, name in names.items()}
    for block in range(1, 13):
        # Indices of the sequence `rep`; that of the first block does not start with a ReLU.
        places = (0, 3) if block == 1 else (1, 4) if block in (2, 3, 12) else (1, 4, 7)
        for index, place in enumerate(places, start=1):
            keras_name = f"block{block + 1}_sepconv{index}"
            names[keras_name] = f"block{block}.rep.{place}"
            names[f"{keras_name}_bn"] = f"block{block}.rep.{place + 1}"
    # The shortcuts have no names of their own in Keras, only numbers that depend on other models.
    shortcuts = iter([1, 2, 3, 12])
    norms = iter([1, 2, 3, 12])
    for layer in encoder.layers:
        if layer.name in names:
            yield layer, names[layer.name]
        elif isinstance(layer, keras.layers.Conv2D):
            yield layer, f"block{next(shortcuts)}.skip"
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer, f"block{next(norms)}.skipbn"


def _name_arrays(layer: keras.Layer, name: str) -> list[str]:
    """Return the names of a layer's weights, in the order of Keras."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        return [f"{name}.conv1.weight", f"{name}.pointwise.weight"]
    if isinstance(layer, keras.layers.BatchNormalization):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return [f"{name}.weight"]


def _transpose(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array in the axes of Keras, checked."""
    if name.endswith("pointwise.weight") and array.ndim == 2:  # as of PyTorch 0.3
        array = array[:, :, None, None]
    if array.ndim == 4:  # [out, in, height, width]; of a depthwise convolution [channels, 1, ...]
        is_depthwise = array.shape[1] == 1
        array = array.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
    _check_array(name, array, shape)
    return array


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != tuple(shape) or not np.isfinite(array).all():
        got = f"shape {array.shape}" if array.shape != tuple(shape) else "NaN or infinite values"
        raise ValueError(
            f"Expected {name} to have finite numbers of shape {tuple(shape)} in Keras' axes; got "
            f"{got}. Check that the file holds this network, and that its training succeeded."
        )


def import_mesonet(file: str | Path, network: str) -> keras.Model:
    """Build a detector with the weights of MesoNet that its authors published.

    Their last layer gives P(real), since their classes are df and real in this order; its weights
    are negated, so that the output is P(fake).

    Args:
        file: Weights file (.h5) of Keras 2. Its layers are numbered in the order of their creation.
        network: `meso4` or `mesoinception4`.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or holds another network.

    Example:
        >>> import_mesonet("face.png", "meso4")
        Traceback (most recent call last):
        ValueError: Expected a weights file of Keras 2 (.h5) in face.png; got ...
    """
    published = _read_keras2(Path(file))
    options = ModelOptions(network=network, image_size=MESONET_SIZE, decoder=False)
    model = build_detector(options)
    convolutions = [f"block{block}_conv" for block in range(1, 5)]
    if network == "mesoinception4":
        branches = ("conv0", "reduce1", "conv1", "reduce2", "conv2", "reduce3", "conv3")
        inception = [f"block{block}_{branch}" for block in (1, 2) for branch in branches]
        convolutions = [*inception, *convolutions[2:]]
    names = {
        "conv2d": convolutions,
        "batch_normalization": [f"block{block}_bn" for block in range(1, 5)],
        "dense": ["classifier_dense", "classifier_logit"],
    }
    counts = {kind: len(layers) for kind, layers in names.items()}
    if counts != {kind: len(layers) for kind, layers in published.items()}:
        found = ", ".join(f"{len(layers)} {kind}" for kind, layers in published.items())
        wanted = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise ValueError(
            f"Expected the layers of {network} in {file}, {wanted}; got {found}. Try the other "
            "MesoNet with --from."
        )
    for kind, layers in names.items():
        for layer, weights in zip(layers, published[kind], strict=True):
            variables = model.get_layer(layer).weights
            for variable, array in zip(variables, weights, strict=True):
                _check_array(f"{layer}/{variable.name}", array, variable.shape)
                variable.assign(-array if layer == "classifier_logit" else array)
    return model


def _read_keras2(path: Path) -> dict[str, list[list[np.ndarray]]]:
    """Read the weights of each layer, by the kind of layer, in the order of creation."""
    if not path.is_file():
        raise _missing_file(path)
    numbered: dict[str, list[tuple[int, list[np.ndarray]]]] = defaultdict(list)
    try:
        with h5py.File(path) as file:
            for layer in _read_names(file, "layer_names"):
                group = cast(h5py.Group, file[layer])
                names = _read_names(group, "weight_names")
                if weights := [np.asarray(group[name]) for name in names]:
                    kind, _, number = layer.rpartition("_")
                    if not number.isdecimal():  # tf.keras numbers from the second layer on
                        kind, number = layer, "0"
                    numbered[kind].append((int(number), weights))
    except _H5_DAMAGE as error:
        raise ValueError(
            f"Expected a weights file of Keras 2 (.h5) in {path}; got '{error}'. Try the files in "
            "the folder `weights` of the authors' repository."
        ) from error
    return {
        kind: [weights for _, weights in sorted(layers, key=lambda layer: layer[0])]
        for kind, layers in numbered.items()
    }


def _read_names(group: h5py.Group, attribute: str) -> list[str]:
    return [str(name, "utf-8") for name in np.asarray(group.attrs[attribute], np.bytes_)]
