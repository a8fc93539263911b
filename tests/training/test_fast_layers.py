"""The fast layers of CPU training compute what Keras' own layers compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.training.compile import compile_detector
from jdfd_keras.training.fast_layers import accelerate


def build_small(channels=40, momentum=0.9):
    """Build every case: layers that keep added channels, one that does not, and an output."""
    layers = keras.layers
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(image)
    first = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.Activation("relu")(first)
    x = layers.SeparableConv2D(channels, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.Add()([x, first]))
    x = layers.ReLU()(layers.SeparableConv2D(24, 3, use_bias=False)(x))
    return keras.Model(image, layers.Dense(1)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(params=[32, 311], ids=["whole blocks", "added channels"])
def small(request):
    """A network of 32 channels, which are two blocks of 16, or of 311, to which 9 are added."""
    keras.utils.set_random_seed(0)
    model = build_small(request.param)
    rng = np.random.default_rng(1)
    for variable in model.variables:  # no scale is 1, no offset and no average 0
        value = variable.numpy() + rng.uniform(0.1, 0.3, variable.shape)
        variable.assign(value if "batch_norm" in variable.path else variable.numpy())
    return model


def draw_images(count=8):
    return np.random.default_rng(0).normal(1, 2, (count, 12, 12, 3)).astype(np.float32)


def gradients_of(model, variables, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True) - 1.0))
    return tape.gradient(loss, variables)


def relative_error(value, expected):
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(value) - expected) / np.linalg.norm(expected)


def test_outputs_and_gradients_are_those_of_keras(small):
    images, variables = draw_images(), small.trainable_variables
    before = small.get_weights()
    expected = [small(images, training=False), small(images, training=True)]
    expected_gradients = gradients_of(small, variables, images)
    averages = small.get_weights()
    small.set_weights(before)

    fast = accelerate(small)
    outputs = [fast(images, training=False), fast(images, training=True)]
    for output, same in zip(outputs, expected, strict=True):
        assert relative_error(output, same) < 1e-5
    for gradient, same in zip(
        gradients_of(fast, variables, images), expected_gradients, strict=True
    ):
        assert gradient.shape == same.shape
        assert relative_error(gradient, same) < 1e-3
    for average, same in zip(small.get_weights(), averages, strict=True):
        np.testing.assert_allclose(average, same, rtol=1e-4, atol=1e-5)


def test_averages_move_to_the_mean_and_the_variance_divided_by_n():
    image = keras.Input((4, 4, 311))
    model = keras.Model(image, keras.layers.BatchNormalization(momentum=0.75)(image))
    values = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 311)).astype(np.float32)
    accelerate(model)(values, training=True)
    mean, variance = model.layers[1].moving_mean, model.layers[1].moving_variance
    np.testing.assert_allclose(mean, 0.25 * values.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, 0.75 + 0.25 * values.var((0, 1, 2)), rtol=1e-4)


def test_mixed_precision_is_as_close_to_float32_as_that_of_keras():
    keras.utils.set_random_seed(0)
    exact, images = build_small(311), draw_images()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_small(311)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(exact.get_weights())
    expected = gradients_of(exact, exact.trainable_variables, images)
    found = {
        model: [
            relative_error(gradient, same)
            for gradient, same in zip(
                gradients_of(model, mixed.trainable_variables, images), expected, strict=True
            )
        ]
        for model in (mixed, accelerate(mixed))
    }
    usual, fast = (np.array(errors) for errors in found.values())
    assert (fast > 1e-5).any()
    assert (fast < 2 * usual + 0.01).all()


def test_a_frozen_layer_uses_its_averages_and_keeps_them(small):
    for layer in small.layers:
        layer.trainable = False
    images, before = draw_images(), small.get_weights()
    expected = small(images, training=False)
    assert relative_error(accelerate(small)(images, training=True), expected) < 1e-5
    for value, same in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, same)


def test_the_variables_are_the_same_in_the_same_order_and_the_saved_model_is_plain(
    tiny_detector, tmp_path
):
    fast = accelerate(tiny_detector)
    for kind in ("variables", "trainable_variables"):
        ours, plain = getattr(fast, kind), getattr(tiny_detector, kind)
        assert [id(variable) for variable in ours] == [id(variable) for variable in plain]
    keras.Model(fast.input, fast.output).save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    assert type(loaded).__module__.startswith("keras.")


@pytest.mark.slow
def test_the_detector_infers_as_with_keras(tiny_detector, face_batch):
    expected = tiny_detector.predict(face_batch, verbose=0)
    found = accelerate(tiny_detector).predict(face_batch, verbose=0)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def train_steps(model, kind, steps):
    """Train a model; return the changes of each layer as one vector.

    With the kind `moved` all pixels are the next larger float32.
    """
    before = {id(variable): variable.numpy() for variable in model.weights}
    trained = accelerate(model) if kind == "fast" else model
    size, rng = model.input_shape[1], np.random.default_rng(0)
    if isinstance(model.output, dict):
        compile_detector(trained)
    else:
        trained.compile(keras.optimizers.SGD(0.005, momentum=0.9), "mse")
    for _ in range(steps):
        images = tf.image.resize(rng.uniform(0, 255, (8, 8, 8, 3)), (size, size)).numpy()
        images = np.nextafter(images, np.float32(999)) if kind == "moved" else images
        label = (np.arange(8) % 2).astype(np.float32)[:, None]
        targets = {"classification": label, "reconstruction": images / 127.5 - 1}
        if not isinstance(model.output, dict):
            images, targets = images / 127.5 - 1, label
        trained.train_on_batch(images, targets)
    return {
        layer.name: np.concatenate(
            [(variable.numpy() - before[id(variable)]).ravel() for variable in layer.weights]
        )
        for layer in model.layers
        if layer.weights
    }


def test_twenty_steps_change_every_layer_as_with_keras(small):
    start = small.get_weights()
    plain = train_steps(small, "plain", 20)
    small.set_weights(start)
    fast = train_steps(small, "fast", 20)
    for name, change in plain.items():
        assert relative_error(fast[name], change) <= 0.01, name


@pytest.mark.slow
def test_a_step_of_the_detector_differs_as_little_as_by_the_last_digit_of_the_pixels(build_tiny):
    # Of one step, and of the median layer: in the real network with random weights such a
    # difference grows to the size of the changes themselves within twenty steps. Which of the two
    # is smaller depends on the processor.
    changes = [train_steps(build_tiny(), kind, 1) for kind in ("plain", "fast", "moved")]
    plain, fast, moved = (list(change.values()) for change in changes)
    errors = [
        [relative_error(value, expected) for value, expected in zip(other, plain, strict=True)]
        for other in (fast, moved)
    ]
    assert np.median(errors[0]) < min(0.01, 3 * np.median(errors[1]))
    assert max(errors[0]) < 0.1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(build_tiny):
    one, other = (train_steps(build_tiny(), "fast", 5) for _ in range(2))
    for change, same in zip(one.values(), other.values(), strict=True):
        np.testing.assert_array_equal(change, same)


def test_batch_normalisation_is_fused_and_over_whole_blocks_of_channels(small):
    fast = accelerate(small)
    image = tf.TensorSpec((8, 12, 12, 3))
    graph = (
        tf.function(lambda images: fast(images, training=True)).get_concrete_function(image).graph
    )
    fused = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert len(fused) == 2
    assert [operation.inputs[0].shape[-1] % 16 for operation in fused] == [0, 0]
