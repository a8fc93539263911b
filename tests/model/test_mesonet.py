"""MesoNet: the layers of the paper, computed by hand, and its number of parameters."""

import keras
import numpy as np
import pytest

from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.network import classifier_branch, is_classifier_weight
from jdfd_keras.options import ModelOptions

# Trainable parameters that the paper states in section 3, and those of the moving statistics.
NUM_PARAMETERS = {"meso4": (27_977, 2 * 48), "mesoinception4": (28_615, 2 * (11 + 12 + 16 + 16))}


def build(network: str, size: int = 64, **options) -> keras.Model:
    """Build with the default options, which name ImageNet weights and a decoder."""
    keras.utils.set_random_seed(0)
    return build_detector(ModelOptions(network=network, image_size=size, **options))


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize("network", list(NUM_PARAMETERS))
def test_a_mesonet_has_the_parameters_of_the_paper(network):
    model = build(network, size=256)
    assert model.get_layer("block4_pool").output.shape == (None, 8, 8, 16)
    counts = count(model.trainable_variables), count(model.non_trainable_weights)
    assert counts == NUM_PARAMETERS[network]


def convolve(x: np.ndarray, weights: list[np.ndarray], dilation: int = 1) -> np.ndarray:
    """Convolve with zero padding on both sides, then apply a ReLU."""
    kernel, bias = weights
    side = kernel.shape[0]
    pad = dilation * (side - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = x.shape[1:3]
    out = np.zeros((*x.shape[:3], kernel.shape[3])) + bias
    for row in range(side):
        for column in range(side):
            top, left = row * dilation, column * dilation
            out += padded[:, top : top + height, left : left + width] @ kernel[row, column]
    return np.maximum(out, 0)


def normalise(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    gamma, beta, mean, variance = weights
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def pool(x: np.ndarray, side: int) -> np.ndarray:
    num, height, width, channels = x.shape
    cells = x.reshape(num, height // side, side, width // side, side, channels)
    return cells.max((2, 4))


def inception(x: np.ndarray, weights: dict, block: str) -> np.ndarray:
    branches = [convolve(x, weights[f"{block}_conv0"])]
    for dilation in (1, 2, 3):
        reduced = convolve(x, weights[f"{block}_reduce{dilation}"])
        branches.append(convolve(reduced, weights[f"{block}_conv{dilation}"], dilation))
    return np.concatenate(branches, axis=-1)


@pytest.mark.parametrize("network", list(NUM_PARAMETERS))
def test_a_mesonet_computes_the_layers_of_the_paper(network):
    model = build(network)
    faces = np.random.default_rng(0).uniform(0, 255, (6, 64, 64, 3)).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(faces, training=True)
    weights = {layer.name: layer.get_weights() for layer in model.layers}

    x = faces / 255
    for number, side in enumerate((2, 2, 2, 4), start=1):
        block = f"block{number}"
        if network == "mesoinception4" and number < 3:
            x = inception(x, weights, block)
        else:
            x = convolve(x, weights[f"{block}_conv"])
        x = pool(normalise(x, weights[f"{block}_bn"]), side)
    x = x.reshape(6, -1) @ weights["classifier_dense"][0] + weights["classifier_dense"][1]
    x = np.where(x > 0, x, 0.1 * x)
    x = x @ weights["classifier_logit"][0] + weights["classifier_logit"][1]
    expected = 1 / (1 + np.exp(-x))
    assert np.ptp(expected) > 0.05
    score = model.predict(faces, verbose=0)
    assert list(score) == ["classification"]
    np.testing.assert_allclose(score["classification"], expected, atol=1e-5)
    np.testing.assert_allclose(classifier_branch(model).predict(faces, verbose=0), expected, 1e-4)


def test_half_of_the_features_are_dropped_in_training():
    model = build("meso4")
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.5, 0.5]


def test_the_kernels_of_blocks_have_the_sizes_of_the_published_weights():
    shapes = {
        layer.name: tuple(layer.kernel.shape)
        for layer in build("meso4", size=256).layers
        if hasattr(layer, "kernel")
    }
    assert shapes == {
        "block1_conv": (3, 3, 3, 8),
        "block2_conv": (5, 5, 8, 8),
        "block3_conv": (5, 5, 8, 16),
        "block4_conv": (5, 5, 16, 16),
        "classifier_dense": (1024, 16),
        "classifier_logit": (16, 1),
    }


def test_the_dense_layers_are_the_classifier():
    own = {v.path for v in build("meso4").trainable_variables if is_classifier_weight(v.path)}
    assert {path.split("/")[0] for path in own} == {"classifier_dense", "classifier_logit"}


def test_batch_normalisation_has_the_momentum_of_the_option():
    model = build("mesoinception4", batch_norm_momentum=0.8)
    layers = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert [layer.momentum for layer in layers] == [0.8] * 4


def test_an_image_size_below_64_is_refused():
    with pytest.raises(ValueError, match="image_size >= 64, the minimum of MesoNet; got 63"):
        build("meso4", size=63)
