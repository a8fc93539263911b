import hashlib
import struct
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from jdfd_keras.model.network import (
    build_detector,
    classifier_branch,
    digest_weights,
    is_classifier_weight,
)
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
