"""Xception of FaceForensics++: its number of parameters, its last layers computed in NumPy."""

import keras
import numpy as np
import pytest

from jdfd_keras.model.xception_baseline import build_xception_baseline, freeze_encoder
from jdfd_keras.options import ModelOptions
from jdfd_keras.training.run_folder import load_run_model

# Of PyTorch's Xception with 1000 classes, 22 855 952, without its last layer.
XCEPTION_PARAMETERS = 22_855_952 - (2048 * 1000 + 1000)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_xception_baseline(ModelOptions(image_size=71, encoder_weights="none"))


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_the_baseline_has_the_parameters_of_xception_and_one_output(model):
    assert count(model.trainable_variables) == XCEPTION_PARAMETERS + 2048 + 1
    assert not [layer.name for layer in model.layers if "decoder" in layer.name]


def test_the_score_is_that_of_the_mean_features(model, face_batch):
    inner = keras.Model(model.input, model.get_layer("block14_sepconv2_act").output)
    features = inner.predict(face_batch, verbose=0)
    kernel, bias = model.get_layer("classifier_logit").get_weights()
    expected = 1 / (1 + np.exp(-(features.mean(axis=(1, 2)) @ kernel + bias)))
    score = model.predict(face_batch, verbose=0)
    assert list(score) == ["classification"]
    np.testing.assert_allclose(score["classification"], expected, atol=1e-5)


@pytest.mark.slow
def test_a_saved_baseline_is_loaded_with_its_scores(model, face_batch, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = load_run_model(tmp_path / "model.keras").model
    np.testing.assert_array_equal(
        loaded.predict(face_batch, verbose=0)["classification"],
        model.predict(face_batch, verbose=0)["classification"],
    )


def test_a_frozen_encoder_leaves_the_last_layer_to_training(model):
    freeze_encoder(model)
    assert count(model.trainable_variables) == 2048 + 1
    freeze_encoder(model, frozen=False)
    assert count(model.trainable_variables) == XCEPTION_PARAMETERS + 2048 + 1


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="network xception or xception-pytorch; got 'meso4'"):
        build_xception_baseline(ModelOptions(network="meso4"))
