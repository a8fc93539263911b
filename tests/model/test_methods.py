"""Every method builds its own network, whose outputs are those of its training."""

import keras
import pytest

from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import METHOD_SETTINGS, ModelOptions

# Names of layers that only the network of the method has, and its outputs.
NETWORKS = {
    "capsule": ("capsule_features", ["classification"]),
    "fwa": ("conv5_block3_out", ["classification"]),
    "xception": ("block14_sepconv2", ["classification"]),
    "xception-triplet": ("embedding", ["classification", "embedding"]),
    "xception-regression": ("map_weighted", ["classification", "manipulation_map"]),
}


def build(method: str, **values) -> keras.Model:
    size = 71 if method.startswith("xception") else 32
    common = {"method": method, "image_size": size, "encoder_weights": "none"}
    return build_detector(ModelOptions(**{**common, **values}))


@pytest.mark.parametrize("method", NETWORKS)
def test_a_method_has_its_network(method):
    model = build(method, batch_norm_momentum=0.8)
    layer, outputs = NETWORKS[method]
    assert list(model.output) == outputs
    assert model.get_layer(layer)
    assert model.output["classification"].shape == (None, 1)
    normalizations = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {x.momentum for x in normalizations} == {0.8}


def test_every_method_of_table_2_has_a_network_but_headpose():
    assert set(NETWORKS) | {"headpose"} == set(METHOD_SETTINGS)
    with pytest.raises(ValueError, match="a method with a network; got 'headpose', a support"):
        build_detector(ModelOptions(method="headpose"))


def test_an_unknown_method_and_an_option_of_another_one_are_refused():
    with pytest.raises(ValueError, match="a method of jdfd, .*; got 'vgg'"):
        build("vgg")
    with pytest.raises(ValueError, match="the method capsule has; got latent_dim 8"):
        build("capsule", latent_dim=8)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("capsule", {"dropout": 1.0}),
        ("fwa", {"batch_norm_momentum": 1.0}),
        ("capsule", {"image_size": 31}),
        ("fwa", {"image_size": 31}),
        ("xception", {"image_size": 70}),
    ],
)
def test_options_out_of_range_are_refused(method, values):
    (name,) = values
    with pytest.raises(ValueError, match=f"Expected .*{name}"):
        build(method, **values)
