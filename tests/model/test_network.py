import hashlib
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.network import classifier_branch, digest_weights, is_classifier_weight
from jdfd_keras.options import ModelOptions


def test_outputs_have_the_documented_names_and_shapes(tiny_detector, face_batch):
    outputs = tiny_detector.predict(face_batch, verbose=0)
    assert set(outputs) == {"classification", "reconstruction"}
    assert outputs["classification"].shape == (4, 1)
    assert outputs["reconstruction"].shape == (4, 71, 71, 3)
    assert {value.dtype for value in outputs.values()} == {np.dtype("float32")}
    assert np.all((outputs["classification"] > 0) & (outputs["classification"] < 1))
    assert tiny_detector.input.name == "image"


def test_pixels_are_scaled_inside_the_model(tiny_detector):
    scaled = keras.Model(tiny_detector.input, tiny_detector.get_layer("scale").output)
    black_grey_white = np.stack([np.full((71, 71, 3), v, np.float32) for v in (0, 127.5, 255)])
    assert scaled.predict(black_grey_white, verbose=0)[:, 0, 0, 0] == pytest.approx([-1, 0, 1])


def test_the_classifier_shares_weights_and_has_no_decoder(tiny_detector, face_batch):
    classifier = classifier_branch(tiny_detector)
    assert not [layer.name for layer in classifier.layers if layer.name.startswith("decoder")]
    np.testing.assert_allclose(
        classifier.predict(face_batch, verbose=0),
        tiny_detector.predict(face_batch, verbose=0)["classification"],
        atol=1e-6,
    )


def test_the_decoder_doubles_five_times_then_resizes(tiny_detector):
    sides = [
        tiny_detector.get_layer(f"decoder_deconv{number}").output.shape[1] for number in range(1, 6)
    ]
    assert sides == [6, 12, 24, 48, 96]
    assert tiny_detector.output["reconstruction"].shape == (None, 71, 71, 3)


@pytest.mark.parametrize(
    ("size_px", "widths", "grid"), [(71, (8,), 3), (97, (12, 7, 5, 4, 3, 2), 4)]
)
def test_a_decoder_of_any_widths_has_the_size_of_the_input(size_px, widths, grid):
    detector = build_detector(
        ModelOptions(
            image_size=size_px, latent_dim=16, decoder_widths=widths, encoder_weights="none"
        )
    )
    deconvs = [layer for layer in detector.layers if layer.name.startswith("decoder_deconv")]
    assert [layer.name for layer in deconvs] == [
        f"decoder_deconv{number}" for number in range(1, len(widths) + 2)
    ]
    channels = [*widths, 3]
    for index, layer in enumerate(deconvs):
        side = grid * 2 ** (index + 1)
        assert layer.output.shape == (None, side, side, channels[index])
        assert layer.kernel.shape == (4, 4, channels[index], channels[max(index - 1, 0)])
    assert detector.get_layer("decoder_dense").kernel.shape == (16, grid * grid * widths[0])
    reconstruction = detector(np.zeros((2, size_px, size_px, 3), np.float32))["reconstruction"]
    assert reconstruction.shape == (2, size_px, size_px, 3)


def kinds_and_shapes(layers) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Without names, since Keras numbers unnamed layers of Xception over the whole process."""
    return [
        (type(layer).__name__, [weight.shape for weight in layer.get_weights()]) for layer in layers
    ]


def test_a_detector_without_decoder_has_the_other_layers(tiny_detector, face_batch):
    alone = build_detector(
        ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    )
    rest = [
        layer
        for layer in tiny_detector.layers
        if not layer.name.startswith("decoder_") and layer.name != "reconstruction"
    ]
    assert kinds_and_shapes(alone.layers) == kinds_and_shapes(rest)
    assert [layer.name for layer in alone.layers[-5:]] == [layer.name for layer in rest[-5:]]
    outputs = alone(face_batch.astype(np.float32))
    assert {name: output.shape for name, output in outputs.items()} == {"classification": (4, 1)}


def test_the_latent_vector_has_the_length_of_the_option():
    detector = build_detector(ModelOptions(image_size=71, latent_dim=5, encoder_weights="none"))
    # The encoder has 3 x 3 positions, with 64 channels after the squeeze.
    assert detector.get_layer("latent").kernel.shape == (3 * 3 * 64, 5)
    assert detector.get_layer("classifier_dense").kernel.shape == (5, 128)
    assert detector.get_layer("decoder_dense").kernel.shape == (5, 3 * 3 * 256)


def test_the_encoder_has_no_global_pooling_and_ends_in_the_latent_vector(tiny_detector):
    kinds = {type(layer).__name__ for layer in tiny_detector.layers}
    assert not {kind for kind in kinds if kind.startswith("Global")}
    assert tiny_detector.get_layer("latent").output.shape == (None, 16)


def test_every_batch_normalisation_has_the_momentum_of_the_option(tiny_detector):
    momenta = {
        layer.momentum
        for layer in tiny_detector.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert momenta == {ModelOptions().batch_norm_momentum}


def test_a_saved_model_loads_without_custom_objects(tiny_detector, face_batch, tmp_path):
    tiny_detector.save(tmp_path / "detector.keras")
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    expected = tiny_detector.predict(face_batch, verbose=0)
    for name, value in loaded.predict(face_batch, verbose=0).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)
    assert loaded.get_layer("block1_conv1_bn").momentum == ModelOptions().batch_norm_momentum


def test_classifier_weights_are_distinguished_from_all_others(tiny_detector):
    names = {v.path for v in tiny_detector.trainable_variables if is_classifier_weight(v.path)}
    assert names == {
        "classifier_dense/kernel",
        "classifier_dense/bias",
        "classifier_logit/kernel",
        "classifier_logit/bias",
    }


def write_as_published(model: keras.Model, path: Path) -> None:
    """Write weights in the format of the files that Keras publishes."""
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.mark.parametrize("name", ["xception_notop.h5", "xception_notop.weights.h5"])
def test_encoder_weights_are_read_from_published_and_saved_files(tmp_path, name):
    keras.utils.set_random_seed(1)
    published = keras.applications.Xception(
        include_top=False, weights=None, input_shape=(71, 71, 3)
    )
    path = tmp_path / name
    if name.endswith(".weights.h5"):
        published.save_weights(path)
    else:
        write_as_published(published, path)

    detector = build_detector(ModelOptions(image_size=71, latent_dim=16, encoder_weights=str(path)))
    for name in ("block1_conv1", "block14_sepconv2"):
        for ours, theirs in zip(
            detector.get_layer(name).get_weights(),
            published.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_encoder_weights_of_none_are_random_weights(build_tiny):
    keras.utils.set_random_seed(0)  # the seed of `build_tiny`, whose encoder_weights are "none"
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights=None)
    assert digest_weights(build_detector(options)) == digest_weights(build_tiny())


def test_the_digest_covers_dtypes_shapes_and_values():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[1.0], [2.0]], np.float32), np.array([3.0], np.float32)])
    expected = hashlib.sha256(
        b"<f4(2, 1)" + struct.pack("<2f", 1, 2) + b"<f4(1,)" + struct.pack("<f", 3)
    )
    assert digest_weights(model) == expected.hexdigest()


# Keras warns about each layer that it does not find before it raises (3.15.1).
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("name", ["small.h5", "small.weights.h5", "text.h5", "text.weights.h5"])
def test_weights_of_another_network_are_refused(tmp_path, name):
    path = tmp_path / name
    small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    if name.startswith("text"):
        path.write_text("not an HDF5 file")
    elif name.endswith(".weights.h5"):
        small.save_weights(path)
    else:
        write_as_published(small, path)
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights=str(path))
    with pytest.raises(ValueError, match="Expected") as error:
        build_detector(options)
    assert f"Expected {path} to hold " in str(error.value) and "Xception" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("latent_dim", 0, "0 and "),
        ("decoder_widths", (), "and []."),
        ("decoder_widths", (0,), "and [0]."),
        ("decoder_widths", (8, -1), "and [8, -1]."),
        ("dropout", 1, "1 and "),
        ("dropout", -0.1, "-0.1 and "),
        ("batch_norm_momentum", 1, "and 1."),
        ("batch_norm_momentum", -0.1, "and -0.1."),
    ],
)
def test_options_out_of_range_are_refused(name, value, got):
    options = ModelOptions(image_size=71, encoder_weights="none", **{name: value})
    with pytest.raises(ValueError, match="Expected ") as error:
        build_detector(options)
    expected, actual = str(error.value).split("; got ")
    assert name.replace("_widths", " width") in expected
    assert got in actual


def test_an_image_size_below_71_is_refused():
    with pytest.raises(ValueError, match="image_size >= 71.*got 70"):
        build_detector(ModelOptions(image_size=70, encoder_weights="none"))


def test_a_missing_weights_file_is_refused():
    with pytest.raises(OSError, match="'no-such.h5', which is not"):
        build_detector(ModelOptions(encoder_weights="no-such.h5"))


def test_an_unknown_network_or_attention_is_refused():
    with pytest.raises(ValueError, match="mesoinception4; got 'vgg'"):
        build_detector(ModelOptions(network="vgg"))
    with pytest.raises(ValueError, match="none or residual; got 'self'"):
        build_detector(ModelOptions(attention="self"))


# SHA-256 over names, kinds and shapes of the network before it had options for attention and kind.
STRUCTURE = "d73783c6c2d933c8f6f58d1f8fde9143687586b4e7cfceb21dbc971f69c638f6"


def test_without_attention_the_network_is_that_of_earlier_runs(tiny_detector):
    named = ("block", "squeeze", "flatten", "latent", "classif", "decoder", "reconstruction")
    structure = [
        [
            layer.name if layer.name.startswith(named) else "",
            type(layer).__name__,
            [list(weight.shape) for weight in layer.get_weights()],
        ]
        for layer in tiny_detector.layers
    ]
    assert hashlib.sha256(json.dumps(structure).encode()).hexdigest() == STRUCTURE


def build_attentive(**options) -> keras.Model:
    """Build a small detector with attention, random weights and batch statistics of no face."""
    keras.utils.set_random_seed(0)
    common = {"image_size": 71, "latent_dim": 5, "encoder_weights": "none"}
    return build_detector(ModelOptions(attention="residual", **{**common, **options}))


@pytest.fixture(scope="module")
def attentive():
    """Such a detector; tests must not change it."""
    return build_attentive()


def outputs_of(model: keras.Model, *names: str) -> keras.Model:
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def mean_of_cells(image: np.ndarray, grid: int) -> np.ndarray:
    """Average [n, size, size] over cells of equal size that are centred on the image."""
    size = image.shape[1]
    cell = math.ceil(size / grid)
    start = (cell * grid - size) // 2
    edges = [np.clip(np.array([i, i + 1]) * cell - start, 0, size) for i in range(grid)]
    return np.stack(
        [[image[:, a:b, c:d].mean((1, 2)) for c, d in edges] for a, b in edges]
    ).transpose(2, 0, 1)


def test_attention_weights_features_by_the_residual_in_closed_form(attentive, face_batch):
    """Every step by hand, from the outputs of the squeeze and of the decoder."""
    names = ("squeeze_relu", "reconstruction", "classifier_attention", "classifier_attended")
    faces = face_batch.astype(np.float32)
    features, reconstruction, attention, attended = outputs_of(attentive, *names).predict(
        faces, verbose=0
    )
    residual = np.abs(faces / 127.5 - 1 - reconstruction).mean(-1)
    cells = mean_of_cells(residual, 3) / np.sqrt(1 + 1e-3)  # the initial statistics
    kernel, bias = attentive.get_layer("classifier_attention").get_weights()
    assert kernel.shape == (3, 3, 1, 1)
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    logit = sum(
        kernel[row, column] * padded[:, row : row + 3, column : column + 3]
        for row in range(3)
        for column in range(3)
    )
    expected = 1 / (1 + np.exp(-(logit + bias)))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(attention[..., 0], expected, atol=1e-5)
    np.testing.assert_allclose(attended, features * (1 + expected[..., None]), atol=1e-5)


def test_with_attention_the_classifier_reads_a_vector_of_its_own(attentive):
    assert attentive.get_layer("classifier_latent").kernel.shape == (3 * 3 * 64, 5)
    assert attentive.get_layer("classifier_dense").kernel.shape == (5, 128)
    own = {
        v.path.split("/")[0] for v in attentive.trainable_variables if is_classifier_weight(v.path)
    }
    assert own == {
        "classifier_attention",
        "classifier_latent",
        "classifier_dense",
        "classifier_logit",
    }
    classifier = classifier_branch(attentive)
    assert [layer.name for layer in classifier.layers if layer.name.startswith("decoder")]


def gradients(model: keras.Model, output: str, image: np.ndarray) -> dict[str, float]:
    """Largest gradient of the sum of an output to each trainable variable, by its path."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(image, training=True)[output])
    found = tape.gradient(total, [v.value for v in model.trainable_variables])
    return {
        variable.path: 0.0 if gradient is None else float(np.abs(gradient).max())
        for variable, gradient in zip(model.trainable_variables, found, strict=True)
    }


def test_the_classification_has_no_gradient_to_the_decoder(face_batch):
    model = build_attentive()
    faces = face_batch.astype(np.float32)
    of_score = gradients(model, "classification", faces)
    of_face = gradients(model, "reconstruction", faces)
    for path, gradient in of_score.items():
        is_of_decoder = path.startswith(("decoder_", "latent/"))
        assert (gradient == 0) == is_of_decoder, path
        assert (of_face[path] == 0) == path.startswith("classifier_"), path


def test_attention_is_computed_in_float32_also_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_attentive()
    finally:
        keras.config.set_dtype_policy("float32")
    names = ("classifier_residual", "classifier_residual_bn", "classifier_attention")
    assert [model.get_layer(name).output.dtype for name in names] == ["float32"] * 3
    assert model.get_layer("classifier_attended").output.dtype == "bfloat16"


def test_a_call_without_training_is_inference(face_batch):
    """Keras' resizing layer alone would put the layers after it in training mode."""
    model = build_attentive(dropout=0.5)
    faces = face_batch.astype(np.float32)
    expected = model.predict(faces, verbose=0)["classification"]
    np.testing.assert_allclose(model(faces)["classification"], expected, atol=1e-6)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    model(faces, training=True)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), value), variable.path


def test_attention_needs_a_decoder():
    with pytest.raises(ValueError, match="'xception' without decoder"):
        build_attentive(decoder=False)
    with pytest.raises(ValueError, match="decoder for residual attention; got the network 'meso4'"):
        build_attentive(network="meso4")


@pytest.mark.slow
@pytest.mark.parametrize("size_px", [97, 102, 128])
def test_the_residual_has_the_grid_of_the_features(size_px):
    model = build_attentive(image_size=size_px)
    grids = {
        model.get_layer(name).output.shape[1:3] for name in ("squeeze_relu", "classifier_residual")
    }
    assert len(grids) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"attention": "residual"}, {"network": "xception-pytorch"}, {"network": "meso4"}]
)
def test_a_saved_model_of_any_network_loads_without_this_package(options, face_batch, tmp_path):
    options = {"image_size": 71, "latent_dim": 5, "encoder_weights": "none"} | options
    model = build_detector(ModelOptions(**options))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "faces.npy", face_batch.astype(np.float32))
    code = (
        "import keras, numpy, sys\n"
        "model = keras.models.load_model('model.keras')\n"
        "numpy.savez('outputs.npz', **model.predict(numpy.load('faces.npy'), verbose=0))\n"
        "assert 'jdfd_keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = model.predict(face_batch.astype(np.float32), verbose=0)
    for name, values in np.load(tmp_path / "outputs.npz").items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)


def max_pool_of_pytorch(x: np.ndarray) -> np.ndarray:
    """Max pool of kernel 3, stride 2 and padding 1, as in PyTorch's documentation."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    height, width = ((side - 1) // 2 + 1 for side in x.shape[1:3])
    windows = [
        padded[:, row : row + 2 * height : 2, column : column + 2 * width : 2][:, :height, :width]
        for row in range(3)
        for column in range(3)
    ]
    return np.max(windows, axis=0)


@pytest.fixture(scope="module")
def like_pytorch():
    """Detectors of an input with odd and even pools, with the weights of one Xception."""
    models = {}
    for network in ("xception", "xception-pytorch"):
        keras.utils.set_random_seed(0)
        models[network] = build_detector(
            ModelOptions(network=network, image_size=99, latent_dim=5, encoder_weights="none")
        )
    models["xception-pytorch"].set_weights(models["xception"].get_weights())
    return models


def test_max_pools_of_xception_pytorch_pad_both_sides(like_pytorch):
    model = like_pytorch["xception-pytorch"]
    names = [
        name
        for block in (2, 3, 4, 13)
        for name in (f"block{block}_sepconv2_bn", f"block{block}_pool")
    ]
    stride = [layer.name for layer in model.layers if layer.name.endswith("_stride")]
    ends = [f"{name}_stride" if f"{name}_stride" in stride else name for name in names]
    images = np.random.default_rng(0).uniform(0, 255, (2, 99, 99, 3)).astype(np.float32)
    values = outputs_of(model, *ends).predict(images, verbose=0)
    sides = [value.shape[1] for value in values[::2]]
    assert sides == [47, 24, 12, 6]
    for before, after in zip(values[::2], values[1::2], strict=True):
        assert (before < 0).any()  # zeros as padding would be seen
        np.testing.assert_array_equal(after, max_pool_of_pytorch(before))


def test_xception_pytorch_has_the_weights_of_xception_and_another_epsilon(like_pytorch):
    ours, theirs = like_pytorch["xception-pytorch"], like_pytorch["xception"]
    for layer in theirs.layers:
        if layer.name.startswith(("block", "squeeze", "latent", "decoder", "classifier")):
            ours.get_layer(layer.name)
    assert [v.shape for v in ours.variables] == [v.shape for v in theirs.variables]
    epsilon = {
        layer.name: layer.epsilon
        for layer in ours.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    of_decoder = {name: value for name, value in epsilon.items() if name.startswith("decoder")}
    assert set(of_decoder.values()) == {1e-3} and epsilon["squeeze_bn"] == 1e-3
    others = epsilon.keys() - of_decoder.keys() - {"squeeze_bn"}
    assert {epsilon[name] for name in others} == {1e-5} and len(others) == 40


@pytest.mark.slow
def test_the_weights_of_xception_pytorch_are_marked(tmp_path):
    path = tmp_path / "xception.weights.h5"
    keras.utils.set_random_seed(1)
    xception = keras.applications.Xception(include_top=False, weights=None, input_shape=(71, 71, 3))
    xception.save_weights(path)
    options = {"image_size": 71, "latent_dim": 5, "encoder_weights": str(path)}
    expected = "network 'xception-pytorch'; got '.*', which is for 'xception'.*import-weights"
    for weights in (str(path), "imagenet"):
        with pytest.raises(ValueError, match=expected):
            build_detector(
                ModelOptions(network="xception-pytorch", encoder_weights=weights, image_size=71)
            )
    with h5py.File(path, "r+") as file:
        file.attrs["network"] = "xception-pytorch"
    with pytest.raises(ValueError, match="network 'xception'; got .* for 'xception-pytorch'"):
        build_detector(ModelOptions(**options))
    detector = build_detector(ModelOptions(network="xception-pytorch", **options))
    for name in ("block1_conv1", "block14_sepconv2", "block14_sepconv2_bn"):
        for ours, theirs in zip(
            detector.get_layer(name).get_weights(),
            xception.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
