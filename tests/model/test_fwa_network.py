"""The network of FWA: its parameters, and its features beside those of Keras' ResNet50."""

import keras
import numpy as np
import pytest

from jdfd_keras.model.fwa_network import build_fwa_network
from jdfd_keras.options import ModelOptions

# Of ResNet-50 with 1000 classes, 25 636 712 in Keras, without its last layer.
RESNET_PARAMETERS = 25_636_712 - (2048 * 1000 + 1000)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """ResNet50 of Keras with random weights, and their file."""
    keras.utils.set_random_seed(1)
    resnet = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path_factory.mktemp("weights") / "resnet50.weights.h5"
    resnet.save_weights(path)
    return resnet, path


def test_the_score_is_that_of_the_mean_features_of_the_published_network(published):
    resnet, path = published
    model = build_fwa_network(ModelOptions(image_size=32, encoder_weights=str(path)))
    assert model.count_params() == RESNET_PARAMETERS + 2048 + 1
    faces = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    prepared = keras.applications.resnet50.preprocess_input(faces.copy())
    features = resnet.predict(prepared, verbose=0).mean(axis=(1, 2))
    kernel, bias = model.get_layer("classifier_logit").get_weights()
    expected = 1 / (1 + np.exp(-(features @ kernel + bias)))
    score = model.predict(faces, verbose=0)
    assert list(score) == ["classification"]
    np.testing.assert_allclose(score["classification"], expected, atol=1e-4)
    assert np.ptp(features) > 0.1


# Keras warns about each layer that it does not find before it raises (3.15.1).
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_and_missing_ones_are_refused(tmp_path):
    small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    small.save_weights(path := tmp_path / "small.weights.h5")
    with pytest.raises(ValueError, match="to hold the weights of Keras' ResNet50"):
        build_fwa_network(ModelOptions(image_size=32, encoder_weights=str(path)))
    with pytest.raises(OSError, match="Keras ResNet50 weights file .*; got 'no-such.h5'"):
        build_fwa_network(ModelOptions(image_size=32, encoder_weights="no-such.h5"))
