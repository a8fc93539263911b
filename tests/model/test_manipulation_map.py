"""The manipulation map: its place, size and parameters, and its loss by hand."""

import keras
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.model.manipulation_map import ManipulationMapLoss, add_manipulation_map
from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.xception_baseline import build_xception_baseline
from jdfd_keras.options import ModelOptions


def build(size: int = 71, network: str = "xception") -> keras.Model:
    keras.utils.set_random_seed(0)
    options = ModelOptions(network=network, image_size=size, encoder_weights="none")
    return build_xception_baseline(options)


@pytest.fixture(scope="module")
def plain():
    return build()


@pytest.fixture(scope="module")
def mapped(plain):
    model = add_manipulation_map(plain)
    layer = model.get_layer("map_conv")  # larger weights, so that the cells of the map differ
    layer.set_weights([30 * weight for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).uniform(0, 255, (2, 71, 71, 3)).astype(np.float32)


def test_a_face_of_299_pixels_has_19_by_19_cells_as_in_the_authors_code():
    plain = build(299)
    model = add_manipulation_map(plain)
    assert model.output["manipulation_map"].shape == (None, 19, 19, 1)
    # 728 kernels of 3 x 3, then 728 weights of one output; the authors' layer has no bias.
    assert model.count_params() - plain.count_params() == 728 * 9 + 728


def test_the_map_weights_what_the_rest_of_the_network_reads(plain, mapped, faces):
    """The halves of the detector without a map, and a map computed by hand between them."""
    middle = plain.get_layer("block9_sepconv1_act").input
    features = np.asarray(keras.Model(plain.input, middle)(faces))
    depthwise, pointwise = mapped.get_layer("map_conv").get_weights()
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = features.shape[1:3]
    filtered = sum(
        padded[:, row : row + height, column : column + width] * depthwise[row, column, :, 0]
        for row in range(3)
        for column in range(3)
    )
    cells = 1 / (1 + np.exp(-filtered @ pointwise[0, 0]))
    pooled = plain.get_layer("pool").output
    expected = np.asarray(keras.Model(middle, pooled)(features * cells))

    found = keras.Model(mapped.input, mapped.get_layer("pool").output)(faces)
    assert np.ptp(cells) > 0.01
    np.testing.assert_allclose(mapped(faces)["manipulation_map"], cells, atol=1e-5)
    # Of a network that is not trained, they are far below 1.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)
    without = keras.Model(plain.input, pooled)(faces)
    assert np.abs(without / scale - expected / scale).max() > 0.1


def test_it_is_the_fourth_block_of_the_middle_flow_that_is_mapped(plain):
    names = [layer.name for layer in plain.layers]
    blocks = [int(name.split("_")[0][5:]) for name in names if name.endswith("_sepconv3_bn")]
    assert blocks == list(range(5, 13))  # the blocks of the middle flow have three convolutions
    index = [layer.output is plain.get_layer("block9_sepconv1_act").input for layer in plain.layers]
    assert names[index.index(True) - 1] == f"block{blocks[3]}_sepconv3_bn"


def test_it_is_saved_with_layers_of_keras_alone(mapped, faces, tmp_path):
    mapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    for name, value in mapped(faces).items():
        np.testing.assert_allclose(loaded(faces)[name], value, atol=1e-6)


def test_both_losses_train_the_first_half_and_the_map_loss_only_that(mapped, faces):
    def with_gradient(name: str) -> set[str]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = tf.reduce_sum(mapped(faces, training=True)[name])
        paths = [variable.path for variable in mapped.trainable_variables]
        values = [variable.value for variable in mapped.trainable_variables]
        gradients = tape.gradient(value, values)
        return {
            path.split("/")[0]
            for path, gradient in zip(paths, gradients, strict=True)
            if gradient is not None
        }

    of_map, of_score = with_gradient("manipulation_map"), with_gradient("classification")
    assert of_score == {variable.path.split("/")[0] for variable in mapped.trainable_variables}
    assert {"block1_conv1", "block8_sepconv3", "map_conv"} <= of_map
    assert not [name for name in of_map if name.startswith(("block9", "block14", "classifier"))]


def test_the_loss_is_the_mean_absolute_error_per_face():
    masks = np.zeros((2, 2, 2, 1), np.float32)
    masks[1, 0] = 1  # the upper half
    maps = np.float32([[[0.1, 0.3], [0.0, 0.0]], [[0.5, 1.0], [0.25, 0.75]]])[..., np.newaxis]
    loss = ManipulationMapLoss()
    np.testing.assert_allclose(loss.call(masks, maps), [0.4 / 4, 1.5 / 4], rtol=1e-6)
    # A fake without a mask has the weight 0.
    weighted = ManipulationMapLoss(reduction="mean_with_sample_weight")
    assert float(weighted(masks, maps, np.float32([1, 0]))) == pytest.approx(0.1)


def test_a_mask_is_resized_as_in_the_authors_code():
    """Theirs is resized by Pillow's bilinear filter, which averages where it shrinks."""
    rng = np.random.default_rng(0)
    mask = np.zeros((299, 299), np.float32)
    mask[80:250, 60:240] = rng.uniform(0.5, 1, (170, 180))
    small = np.asarray(Image.fromarray(mask).resize((19, 19), Image.Resampling.BILINEAR))
    loss = ManipulationMapLoss()
    at_mask = loss.call(mask[None, :, :, None], small[None, :, :, None])
    assert float(at_mask[0]) < 1e-4
    at_zero = loss.call(mask[None, :, :, None], np.zeros((1, 19, 19, 1), np.float32))
    assert float(at_zero[0]) == pytest.approx(small.mean(), abs=1e-4)


def test_a_network_without_xception_is_refused():
    with pytest.raises(ValueError, match="Expected a detector with Keras' Xception"):
        add_manipulation_map(build_detector(ModelOptions(network="meso4", image_size=64)))
