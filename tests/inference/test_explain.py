"""Explanations: the map marks the trace of a fake, and follows from the model alone."""

import cv2
import keras
import numpy as np
import pytest
from scipy.stats import spearmanr

from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import ModelOptions

# Weights of the stand-in's logit, [row, column, channel] of a 2 x 2 grid.
WEIGHT = np.array([[[1, 0, 2], [-1, 0, 0]], [[0, 3, -1], [-2, 1, 1]]], np.float32)


def build_stand_in(*, bias=0.0, decoder=True) -> keras.Model:
    """Build a detector of 8 px that is computed by hand; its decoder halves the contrast."""
    image = keras.Input((8, 8, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = keras.layers.AveragePooling2D(4)(scaled)
    x = keras.layers.ReLU(name="squeeze_relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(1, name="classifier_logit")(x)
    outputs = {"classification": keras.layers.Activation("sigmoid", name="classification")(x)}
    if decoder:
        outputs["reconstruction"] = keras.layers.Rescaling(0.5, name="reconstruction")(scaled)
    model = keras.Model(image, outputs)
    model.get_layer("classifier_logit").set_weights([WEIGHT.reshape(-1, 1), np.array([bias])])
    return model


def draw_faces(num_faces: int, *, size: int = 8, seed: int = 0) -> np.ndarray:
    """Draw smooth random faces, uint8[num_faces, size, size, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (num_faces, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(p, (size, size), interpolation=cv2.INTER_CUBIC) for p in coarse])


def plant(num_faces: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw faces of 128 px; every second one is fake, with one random quarter checkered.

    The lower right quarter is checkered in every face, like a beard, which real faces have too, so
    that only the position of the texture makes it a trace.

    Returns:
        uint8[num_faces, 128, 128, 3] and bool[num_faces, 128, 128], the pixels of the trace.
    """
    faces = draw_faces(num_faces, size=128, seed=seed).astype(int)
    checks = np.where(np.indices((64, 64, 1)).sum(0) // 2 % 2, 60, -60)
    traces = np.zeros((num_faces, 2, 64, 2, 64), bool)
    quarters = faces.reshape(num_faces, 2, 64, 2, 64, 3)
    quarters[:, 1, :, 1] += checks
    quarter = np.random.default_rng(seed).integers(0, 3, num_faces)
    for index in range(1, num_faces, 2):
        row, column = divmod(quarter[index], 2)
        quarters[index, row, :, column] += checks
        traces[index, row, :, column] = True
    return np.clip(faces, 0, 255).astype(np.uint8), traces.reshape(num_faces, 128, 128)


@pytest.fixture(scope="module")
def fitted() -> keras.Model:
    """A detector of 4 x 4 cells, whose layers after the squeeze are fitted to planted faces."""
    keras.utils.set_random_seed(0)
    options = ModelOptions(
        image_size=128,
        latent_dim=16,
        decoder_widths=[4] * 5,
        encoder_weights="none",
        batch_norm_momentum=0.0,
    )
    model = build_detector(options)
    # A trained kernel weights mainly its own cell. Random 3 x 3 kernels do not: after 26 of them no
    # value of a face this small has a position (with them the map was no better than chance).
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):
            depthwise, pointwise = layer.get_weights()
            blurred = 0.1 * depthwise
            blurred[1, 1] = depthwise[1, 1]
            layer.set_weights([blurred, pointwise])
    faces, traces = plant(256, seed=1)
    model(faces[:48].astype(np.float32), training=True)  # only updates the batch statistics
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9

    features = model.get_layer("block14_sepconv2_act").output
    encoded = keras.Model(model.input, features).predict(faces, verbose=0)
    head = keras.Model(features, model.output["classification"])
    head.compile(keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    head.fit(encoded, traces.any((1, 2))[:, None], batch_size=32, epochs=20, verbose=0)
    return model


def hit_rate(cam: np.ndarray, traces: np.ndarray) -> float:
    """Compute the share of fakes whose map peaks inside the trace; chance is 1/4."""
    is_fake = traces.any((1, 2))
    peak = cam[is_fake].reshape(is_fake.sum(), -1).argmax(1)
    return float(
        np.take_along_axis(traces[is_fake].reshape(len(peak), -1), peak[:, None], 1).mean()
    )


@pytest.mark.parametrize("bias", [0.0, 200.0, -200.0])
def test_the_map_is_activation_times_gradient_of_the_logit_also_for_saturated_scores(bias):
    faces = draw_faces(5)
    cells = np.maximum(faces.reshape(5, 2, 4, 2, 4, 3).mean((2, 4)) / 127.5 - 1, 0)
    contribution = (cells * WEIGHT).sum(-1)
    evidence = np.maximum(contribution, 0)
    expected = [cv2.resize(cell, (8, 8), interpolation=cv2.INTER_LINEAR) for cell in evidence]
    cam = explain_faces(build_stand_in(bias=bias), faces).cam
    assert cam.dtype == np.float32
    np.testing.assert_allclose(cam, expected, atol=1e-5)


def test_the_map_is_empty_without_evidence_for_fake():
    faces = np.zeros((2, 8, 8, 3), np.uint8)  # no cell is active
    faces[1, :4, 4:] = 255  # the only cell that lowers the fake score
    assert not explain_faces(build_stand_in(), faces).cam.any()


def test_the_residual_is_the_error_of_the_reconstruction():
    faces = draw_faces(3)
    explanation = explain_faces(build_stand_in(), faces)
    scaled = faces / 127.5 - 1
    np.testing.assert_allclose(explanation.reconstruction, scaled / 2, atol=1e-6)
    np.testing.assert_allclose(explanation.residual, np.abs(scaled / 2).mean(-1), atol=1e-6)


def test_a_model_without_a_decoder_has_no_residual():
    faces = draw_faces(3)
    explanation = explain_faces(build_stand_in(decoder=False), faces)
    assert explanation.residual is None
    assert explanation.reconstruction is None
    expected = explain_faces(build_stand_in(), faces).cam
    np.testing.assert_allclose(explanation.cam, expected, atol=1e-6)


def test_no_faces_return_empty_maps():
    explanation = explain_faces(build_stand_in(), draw_faces(3)[:0])
    assert explanation.cam.shape == explanation.residual.shape == (0, 8, 8)
    assert explanation.reconstruction.shape == (0, 8, 8, 3)


@pytest.mark.slow
def test_the_map_marks_the_trace(fitted):
    faces, traces = plant(48, seed=2)
    is_fake = traces.any((1, 2))
    cam = explain_faces(fitted, faces).cam
    assert hit_rate(cam, traces) >= 0.9  # averaged gradients gave 0.54
    inside = (cam * traces).sum((1, 2))[is_fake] / cam.sum((1, 2))[is_fake]
    assert inside.mean() >= 0.55  # chance 0.25; averaged gradients gave 0.47
    assert cam[~is_fake].max((1, 2)).mean() < 0.8 * cam[is_fake].max((1, 2)).mean()


@pytest.mark.slow
def test_random_weights_produce_another_map(fitted):
    faces, traces = plant(48, seed=2)
    keras.utils.set_random_seed(1)
    drawn = keras.models.clone_model(fitted)
    maps = [explain_faces(model, faces).cam for model in (fitted, drawn)]
    cells = [cam[traces.any((1, 2)), 16::32, 16::32] for cam in maps]
    assert cells[1].any()
    assert abs(spearmanr(cells[0], cells[1], axis=None).statistic) < 0.3
    assert hit_rate(maps[1], traces) < 0.6


@pytest.mark.slow
def test_batches_and_pixel_types_do_not_change_the_result(fitted):
    faces, _ = plant(4, seed=3)
    whole = explain_faces(fitted, faces)
    parts = explain_faces(fitted, faces.astype(np.float32), batch_size=3)
    assert whole.cam.any()
    np.testing.assert_allclose(parts.cam, whole.cam, atol=1e-4)
    np.testing.assert_allclose(parts.residual, whole.residual, atol=1e-4)
    expected = fitted.predict(faces, verbose=0)["reconstruction"]
    np.testing.assert_allclose(whole.reconstruction, expected, atol=1e-4)


def test_a_loaded_and_frozen_model_has_the_same_map(tmp_path):
    model, faces = build_stand_in(), draw_faces(3)
    expected = explain_faces(model, faces).cam
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.trainable = False
    np.testing.assert_array_equal(explain_faces(loaded, faces).cam, expected)


def test_the_model_is_not_changed():
    model, faces = build_stand_in(), draw_faces(3)
    model.compile("sgd", loss={"classification": "binary_crossentropy"})
    model.get_layer("classifier_logit").trainable = False
    weights, flags = model.get_weights(), [layer.trainable for layer in model.layers]
    config, optimizer = model.get_config(), model.optimizer
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    explain_faces(model, faces)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    assert [layer.trainable for layer in model.layers] == flags
    assert model.get_config() == config
    assert model.compiled
    assert model.optimizer is optimizer
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes  # no second graph


@pytest.mark.parametrize(
    "faces",
    [np.zeros((2, 9, 9, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 1))],
)
def test_faces_of_another_shape_are_refused(faces):
    with pytest.raises(ValueError, match=r"Expected faces of \(8, 8, 3\).*got (uint8|float64)\["):
        explain_faces(build_stand_in(), faces)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 256])
def test_values_outside_0_to_255_are_refused(value):
    faces = draw_faces(2).astype(np.float32)
    faces[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match=r"values in 0\.\.255; got "):
        explain_faces(build_stand_in(), faces)


def test_a_batch_size_of_0_is_refused():
    with pytest.raises(ValueError, match="Expected batch_size >= 1; got 0"):
        explain_faces(build_stand_in(), draw_faces(2), batch_size=0)


def test_a_model_that_is_not_a_detector_is_refused():
    model, faces = build_stand_in(), draw_faces(2)
    bare = keras.Model(model.input, model.output["classification"])
    with pytest.raises(ValueError, match="the output 'classification'"):
        explain_faces(bare, faces)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(image))
    without = keras.Model(image, {"classification": x})
    with pytest.raises(ValueError, match="the layer 'classifier_logit'.* the last layer 'dense"):
        explain_faces(without, faces)
    x = keras.layers.Dense(1, name="classifier_logit")(keras.layers.Flatten()(image))
    x = keras.layers.Activation("sigmoid")(x)
    with pytest.raises(ValueError, match="a layer with spatial axes before it"):
        explain_faces(keras.Model(image, {"classification": x}), faces)


def sum_contributions(model: keras.Model, name: str, faces: np.ndarray) -> np.ndarray:
    """Map of the output of a layer by hand, of a model whose classifier is linear after it."""
    cells = keras.Model(model.input, model.get_layer(name).output).predict(faces, verbose=0)
    kernels = [
        model.get_layer(layer).get_weights()[0]
        for layer in ("classifier_latent", "classifier_dense", "classifier_logit")
    ]
    weight = np.linalg.multi_dot(kernels).reshape(cells.shape[1:])
    return (cells * weight).sum(-1)


@pytest.mark.slow
def test_the_map_of_attention_is_the_evidence_in_the_weighted_features():
    keras.utils.set_random_seed(0)
    options = ModelOptions(
        image_size=71, latent_dim=4, encoder_weights="none", attention="residual", dropout=0.5
    )
    model = build_detector(options)
    faces = draw_faces(4, size=71)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(faces.astype(np.float32), training=True)
    # With a high bias the ReLU of the dense layer is linear for these faces.
    kernel, bias = model.get_layer("classifier_dense").get_weights()
    model.get_layer("classifier_dense").set_weights([kernel, bias + 1e3])
    attention = keras.Model(model.input, model.get_layer("classifier_attention").output)
    assert np.ptp(attention.predict(faces, verbose=0)) > 0.1

    contribution = sum_contributions(model, "classifier_attended", faces)
    evidence = np.maximum(contribution, 0)
    expected = [cv2.resize(cell, (71, 71), interpolation=cv2.INTER_LINEAR) for cell in evidence]
    np.testing.assert_allclose(explain_faces(model, faces).cam, expected, atol=1e-3)


def test_the_map_of_mesonet_is_that_of_its_last_pool():
    keras.utils.set_random_seed(0)
    model = build_detector(ModelOptions(network="meso4", image_size=64))
    kernel, logit = (
        model.get_layer(name).get_weights()[0] for name in ("classifier_dense", "classifier_logit")
    )
    faces = draw_faces(3, size=64)
    pool = keras.Model(model.input, model.get_layer("block4_pool").output)
    cells = pool.predict(faces, verbose=0)
    units = cells.reshape(3, -1) @ kernel
    slopes = np.where(units > 0, 1, 0.1)  # of the leaky ReLU
    weight = np.einsum("ij,nj,j->ni", kernel, slopes, logit[:, 0]).reshape(cells.shape)
    contribution = (cells * weight).sum(-1)
    assert contribution.shape == (3, 2, 2)
    evidence = np.maximum(contribution, 0)
    expected = [cv2.resize(cell, (64, 64), interpolation=cv2.INTER_LINEAR) for cell in evidence]
    np.testing.assert_allclose(explain_faces(model, faces).cam, expected, atol=1e-4)
