"""Capsule-Forensics: its layers computed in NumPy, its number of parameters, its VGG19."""

import h5py
import keras
import numpy as np
import pytest

from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.model.capsule import build_capsule_network, compute_statistics, route
from jdfd_keras.options import ModelOptions
from jdfd_keras.training.run_folder import load_run_model

# Of the authors' code and checkpoints: a primary capsule, and its share of the routing.
CAPSULE_PARAMETERS = (256 * 64 * 9 + 64) + 2 * 64 + (64 * 16 * 9 + 16) + 2 * 16
CAPSULE_PARAMETERS += (2 * 8 * 5 + 8) + 2 * 8 + (8 * 1 * 3 + 1) + 2 * 1
ROUTING_PARAMETERS = 2 * 4 * 8
VGG19_PARAMETERS = 2_325_568  # of the first three blocks


def build(size: int = 32, num_capsules: int = 3, weights: str = "none", **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    options = ModelOptions(image_size=size, encoder_weights=weights, **options)
    return build_capsule_network(options, num_capsules=num_capsules)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (6, 48, 48, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(faces) -> keras.Model:
    """A network whose batch normalisation has the statistics of the faces; not to be changed."""
    model = build(48, batch_norm_momentum=0.0)
    model(faces, training=True)
    return model


def test_a_capsule_network_has_the_parameters_of_the_authors():
    model = build()
    trained = 3 * (CAPSULE_PARAMETERS + ROUTING_PARAMETERS)
    assert trained == 471_321  # counted in a checkpoint of the authors
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == trained
    moving = 2 * 3 * (64 + 16 + 8 + 1)
    assert model.count_params() == trained + moving + VGG19_PARAMETERS


def squash(vector: np.ndarray) -> np.ndarray:
    length = np.sqrt((vector**2).sum())
    return vector * length / (1 + length**2)


def route_by_hand(predictions: np.ndarray, num_iterations: int) -> np.ndarray:
    num, capsules, components, classes = predictions.shape
    out = np.zeros((num, components, classes))
    for face in range(num):
        for label in range(classes):
            logits = np.zeros((capsules, components))
            for _ in range(num_iterations):
                weights = np.exp(logits) / np.exp(logits).sum(axis=0)
                combined = squash((weights * predictions[face, :, :, label]).sum(axis=0))
                logits += predictions[face, :, :, label] * combined
            out[face, :, label] = combined
    return out


@pytest.mark.parametrize("num_iterations", [1, 2, 5])
def test_routing_is_that_of_a_loop_over_faces_and_classes(num_iterations):
    predictions = np.random.default_rng(1).normal(0, 2, (4, 3, 4, 2)).astype(np.float32)
    expected = route_by_hand(predictions, num_iterations)
    routed = keras.ops.convert_to_numpy(route(predictions, num_iterations))
    np.testing.assert_allclose(routed, expected, atol=1e-5)
    assert (np.linalg.norm(routed, axis=1) < 1).all()


def convolve(x: np.ndarray, weights: list[np.ndarray], stride: int = 1) -> np.ndarray:
    """Convolve along one or two axes, with zeros around them so that stride 1 keeps the size."""
    kernel, bias = weights
    *sides, _, width = kernel.shape
    padded = np.pad(x, [(0, 0), *((side // 2, side // 2) for side in sides), (0, 0)])
    out = np.zeros((*(x.shape[:-1]), width))
    for offset in np.ndindex(*sides):
        window = tuple(
            slice(start, start + size) for start, size in zip(offset, x.shape[1:-1], strict=True)
        )
        out += padded[:, *window] @ kernel[offset]
    return out[:, ::stride] + bias


def normalise(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    gamma, beta, mean, variance = weights
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def test_a_capsule_network_computes_the_layers_of_the_authors(fitted, faces):
    weights = {layer.name: layer.get_weights() for layer in fitted.layers}
    vgg19 = keras.Model(fitted.input, fitted.get_layer("block3_pool").output)
    features = vgg19.predict(faces, verbose=0)
    assert features.shape == (6, 6, 6, 256)

    capsules = []
    for name in ("capsule1", "capsule2", "capsule3"):
        x = features
        for number in (1, 2):
            x = convolve(x, weights[f"{name}_conv{number}"])
            x = np.maximum(normalise(x, weights[f"{name}_bn{number}"]), 0)
        cells = x.reshape(6, -1, 16)
        x = np.stack([cells.mean(axis=1), cells.std(axis=1, ddof=1)], axis=-1)
        x = normalise(convolve(x, weights[f"{name}_conv3"], 2), weights[f"{name}_bn3"])
        x = normalise(convolve(x, weights[f"{name}_conv4"]), weights[f"{name}_bn4"])
        capsules.append(x.reshape(6, 8))
    x = np.stack(capsules, axis=1)
    x = np.stack([[squash(component) for component in face.T] for face in x]).transpose(0, 2, 1)
    (kernel,) = weights["routing"]
    predictions = np.stack([x[:, index] @ kernel[index] for index in range(3)], axis=1)
    classes = np.exp(route_by_hand(predictions.reshape(6, 3, 4, 2), 2))
    expected = (classes[..., 1] / classes.sum(axis=-1)).mean(axis=1)

    assert np.ptp(expected) > 0.05
    score = fitted.predict(faces, verbose=0)
    assert list(score) == ["classification"]
    np.testing.assert_allclose(score["classification"][:, 0], expected, atol=1e-4)


def test_a_channel_without_variation_has_a_finite_gradient():
    import tensorflow as tf

    cells = tf.Variable(tf.zeros((1, 2, 2, 3)))
    with tf.GradientTape() as tape:
        mean, deviation = compute_statistics(cells)
        total = tf.reduce_sum(mean + deviation)
    np.testing.assert_allclose(tape.gradient(total, cells), np.full((1, 2, 2, 3), 0.25))


def test_vgg19_sees_the_pixels_that_keras_prepares_for_it(faces, tmp_path):
    published = keras.applications.VGG19(include_top=False, weights=None, input_shape=(48, 48, 3))
    path = tmp_path / "vgg19.weights.h5"
    published.save_weights(path)
    model = build(48, weights=str(path))
    prepared = keras.applications.vgg19.preprocess_input(faces.copy())
    both = [
        keras.Model(one.input, one.get_layer("block3_pool").output).predict(x, verbose=0)
        for one, x in ((published, prepared), (model, faces))
    ]
    assert both[0].max() > 1
    np.testing.assert_allclose(both[1], both[0], rtol=1e-3, atol=1e-3 * both[0].max())


def test_noise_is_on_routing_in_training_only(fitted, faces):
    vectors = keras.Model(fitted.input, fitted.get_layer("routing_noise").output)
    assert not vectors.predict(faces, verbose=0).any()
    noise = keras.ops.convert_to_numpy(vectors(faces, training=True))
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert noise.shape == (6, 3, 64)


def test_a_saved_capsule_network_is_loaded_with_its_scores_and_explained(fitted, faces, tmp_path):
    fitted.save(tmp_path / "model.keras")
    loaded = load_run_model(tmp_path / "model.keras").model
    expected = fitted.predict(faces, verbose=0)["classification"]
    np.testing.assert_array_equal(loaded.predict(faces, verbose=0)["classification"], expected)
    explanation = explain_faces(loaded, faces)
    assert explanation.cam.shape == (6, 48, 48)
    assert explanation.cam.max() > 0


def test_a_capsule_network_learns_32_faces():
    """Of VGG19, which is not trained, the features are computed once."""
    rng = np.random.default_rng(0)
    faces = np.repeat(rng.uniform(0, 255, (32, 8, 8, 3)), 4, axis=1).repeat(4, axis=2)
    labels = np.arange(32) % 2
    faces[labels == 1] += rng.normal(0, 20, (16, 32, 32, 3))  # a trace in each pixel
    faces = faces.clip(0, 255).astype(np.float32)
    model = build(batch_norm_momentum=0.5)
    features = model.get_layer("block3_pool").output
    inputs = keras.Model(model.input, features).predict(faces, verbose=0)
    head = keras.Model(features, model.output)
    head.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", jit_compile=False)
    head.fit(inputs, {"classification": labels}, batch_size=32, epochs=20, verbose=0)
    scores = model.predict(faces, verbose=0)["classification"][:, 0]
    assert scores[labels == 1].min() > scores[labels == 0].max()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"size": 31}, ValueError, "image_size >= 32, the minimum of VGG19.*got 31"),
        ({"num_capsules": 0}, ValueError, "num_capsules >= 1; got 32 and 0"),
        ({"weights": "away.h5"}, OSError, "Keras VGG19 weights file.*away.h5.*not a file"),
    ],
)
def test_a_wrong_option_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = []
    with pytest.raises(ValueError, match="the weights of Keras' VGG19 without its top; got"):
        build(weights=str(path))
