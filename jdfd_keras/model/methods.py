"""The network of each method: the Joint DeepFake Detector, MesoNet and the baselines of Table 2."""

from collections.abc import Callable

import keras

from jdfd_keras.model.capsule import build_capsule_network
from jdfd_keras.model.embedding import add_embedding
from jdfd_keras.model.fwa_network import build_fwa_network
from jdfd_keras.model.manipulation_map import add_manipulation_map
from jdfd_keras.model.mesonet import MESONETS, build_mesonet
from jdfd_keras.model.network import build_joint_detector
from jdfd_keras.model.xception_baseline import build_xception_baseline
from jdfd_keras.options import ModelOptions, resolve_settings
from jdfd_keras.options.detector_options import NETWORKS


def build_detector(options: ModelOptions | None = None) -> keras.Model:
    """Build the network of a method, by default the Joint DeepFake Detector.

    Each network has one builder, which describes it: `build_joint_detector`, `build_mesonet`,
    `build_xception_baseline`, `build_capsule_network`, `build_fwa_network`; the triplet method adds
    `add_embedding` to the Xception baseline, the regression method `add_manipulation_map`.

    Args:
        options: Method and network; default is the paper's. Options that the method does not have
            must have their defaults.

    Returns:
        keras.Model with the input `image`, float32[n, size, size, 3] in 0..255 (scaling is a layer
        of the model), and a dict of outputs:
        `classification`, float32[n, 1], P(fake) in [0, 1];
        `reconstruction`, float32[n, size, size, 3], of a Joint DeepFake Detector with its decoder;
        and, for training alone, `embedding`, float32[n, 2048], of the triplet method and
        `manipulation_map`, float32[n, cells, cells, 1], of the regression method. Models in a run
        folder do not have the last two.

    Raises:
        OSError: If the encoder's weights cannot be read or downloaded.
        ValueError: If the method has no network or an option does not suit it.

    Example:
        >>> options = ModelOptions(method="capsule", image_size=71, encoder_weights="none")
        >>> list(build_detector(options).output)
        ['classification']
    """
    own: ModelOptions = resolve_settings({"model": options})["model"]
    _check(own)
    model = _choose_builder(own)(own)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = own.batch_norm_momentum
    return model


def _choose_builder(options: ModelOptions) -> Callable[[ModelOptions], keras.Model]:
    if options.method == "headpose":
        raise ValueError(
            "Expected a method with a network; got 'headpose', a support vector machine. Train it "
            "with `jdfd-keras train --method headpose`."
        )
    if options.method == "jdfd":
        return build_mesonet if options.network in MESONETS else build_joint_detector
    return {
        "xception": build_xception_baseline,
        "capsule": build_capsule_network,
        "xception-triplet": lambda own: add_embedding(build_xception_baseline(own)),
        "xception-regression": lambda own: add_manipulation_map(build_xception_baseline(own)),
        "fwa": build_fwa_network,
    }[options.method]


def _check(options: ModelOptions) -> None:
    if options.network not in NETWORKS:
        raise ValueError(
            f"Expected the network {', '.join(NETWORKS)}; got {options.network!r}. Try "
            f"{NETWORKS[0]!r}."
        )
    if not (0 <= options.dropout < 1 and 0 <= options.batch_norm_momentum < 1):
        raise ValueError(
            "Expected dropout and batch_norm_momentum from 0 to below 1; got "
            f"{options.dropout:g} and {options.batch_norm_momentum:g}. Try the defaults."
        )
