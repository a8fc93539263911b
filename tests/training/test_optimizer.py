"""The optimizers: a learning rate per branch, checked against plain Keras optimizers."""

import dataclasses

import keras
import numpy as np
import pytest

from jdfd_keras.options import OptimizerOptions
from jdfd_keras.training.compile import build_optimizer, compile_detector, swap_average

# The learning rate is halved every 4 steps, here and in `rate_at`.
OPTIONS = OptimizerOptions(
    learning_rate=0.1,
    classifier_learning_rate=0.02,
    momentum=0.5,
    decay_rate=0.5,
    decay_epochs=2,
)
STEPS_PER_EPOCH = 2
VARIANTS = {
    "momentum": {},
    "all": {"weight_decay": 0.3, "clip_norm": 0.7, "accumulate": 3, "average": 0.9},
    "no momentum, clipping": {"momentum": 0.0, "clip_norm": 1.5},
    "average": {"average": 0.9},
}


def vary(kind: str, variant: str) -> OptimizerOptions:
    return dataclasses.replace(OPTIONS, optimizer=kind, **VARIANTS[variant])


def build_stub() -> keras.Model:
    """Build a detector of 40 weights in four layers with the output names of the real one."""
    keras.utils.set_random_seed(3)
    image = keras.Input((2, 2, 3), name="image")
    shared = keras.layers.Conv2D(2, 1, name="squeeze")(image)
    x = keras.layers.Flatten(name="flatten")(shared)
    x = keras.layers.Dense(2, activation="tanh", name="classifier_dense")(x)
    x = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = keras.layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    reconstruction = keras.layers.Conv2D(3, 1, name="decoder_deconv1")(shared)
    reconstruction = keras.layers.Activation("linear", name="reconstruction", dtype="float32")(
        reconstruction
    )
    return keras.Model(image, {"classification": x, "reconstruction": reconstruction})


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


def rate_at(step: int, rate: float) -> float:
    return rate * 0.5 ** (step // 4)


class TwoPlainOptimizers:
    """Reference: a separate Keras optimizer per branch, each at its own learning rate.

    The schedule, the mean over accumulated steps and the norm over all weights are computed here,
    so each plain optimizer only gets gradients and a constant learning rate.
    """

    def __init__(self, options: OptimizerOptions, model: keras.Model):
        self.options, self.step, self.pending = options, 0, []
        self.variables = [keras.Variable(v.numpy()) for v in model.trainable_variables]
        is_classifier = [v.path.startswith("classifier_") for v in model.trainable_variables]
        self.branches = []
        for mask, rate in (
            (is_classifier, options.classifier_learning_rate),
            ([not own for own in is_classifier], options.learning_rate),
        ):
            decay = options.weight_decay or None
            if options.optimizer == "sgd":
                plain = keras.optimizers.SGD(rate, momentum=options.momentum, weight_decay=decay)
            else:
                plain = keras.optimizers.Adam(rate, weight_decay=decay)
            self.branches.append((np.flatnonzero(mask), rate, plain))
            assert 0 < sum(mask) < len(mask)

    def apply(self, gradients: list[np.ndarray]) -> None:
        self.pending.append(gradients)
        if len(self.pending) == self.options.accumulate:
            means = [np.mean(gradient, axis=0) for gradient in zip(*self.pending, strict=True)]
            self.pending = []
            norm = np.sqrt(sum(np.sum(np.square(mean)) for mean in means))
            scale = min(1, self.options.clip_norm / norm) if self.options.clip_norm else 1
            for indices, rate, plain in self.branches:
                plain.learning_rate = rate_at(self.step, rate)
                plain.apply(
                    [(means[index] * scale).astype(np.float32) for index in indices],
                    [self.variables[index] for index in indices],
                )
        self.step += 1

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.variables]


def draw_gradients(model: keras.Model, steps: int) -> list[list[np.ndarray]]:
    """Draw gradients with norms from a tenth to ten, so that only some are clipped."""
    rng = np.random.default_rng(0)
    return [
        [
            rng.normal(0, 0.3 * 10 ** rng.uniform(-1, 0.5), v.shape).astype(np.float32)
            for v in model.trainable_variables
        ]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_each_branch_is_updated_as_by_its_own_optimizer(kind, variant):
    options = vary(kind, variant)
    model = build_stub()
    plain = TwoPlainOptimizers(options, model)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    config = optimizer.get_config()
    for gradients in draw_gradients(model, 7):
        optimizer.apply(gradients, model.trainable_variables)
        plain.apply(gradients)
        for variable, expected in zip(model.trainable_variables, plain.weights(), strict=True):
            np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-6)
    assert optimizer.get_config() == config


def test_with_accumulation_over_three_steps_weights_change_every_third_step():
    model = build_stub()
    optimizer = build_optimizer(vary("sgd", "all"), STEPS_PER_EPOCH)
    changed = []
    for gradients in draw_gradients(model, 7):
        before = weights_of(model)
        optimizer.apply(gradients, model.trainable_variables)
        changes = zip(before, weights_of(model), strict=True)
        changed.append({not np.array_equal(old, new) for old, new in changes})
    assert changed == [{False}, {False}, {True}, {False}, {False}, {True}, {False}]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_average_of_weights_is_swapped_in_and_back_bit_for_bit(kind):
    model, never_swapped = build_stub(), build_stub()
    options = vary(kind, "average")
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    other = build_optimizer(options, STEPS_PER_EPOCH)
    compile_detector(model, optimizer)
    averages = None
    *gradients, last = draw_gradients(model, 8)
    for gradient in gradients:
        optimizer.apply(gradient, model.trainable_variables)
        other.apply(gradient, never_swapped.trainable_variables)
        weights = weights_of(model)
        if averages is None:
            averages = weights
        averages = [0.9 * a + 0.1 * w for a, w in zip(averages, weights, strict=True)]

    stored = [v.numpy() for v in optimizer.variables if v.path.endswith("_average")]
    swap_average(model)
    for now, average, expected, weight in zip(
        weights_of(model), stored, averages, weights, strict=True
    ):
        np.testing.assert_array_equal(now, average)
        np.testing.assert_allclose(now, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(now - weight).min() > 1e-5
    swap_average(model)
    for now, weight in zip(weights_of(model), weights, strict=True):
        np.testing.assert_array_equal(now, weight)

    optimizer.apply(last, model.trainable_variables)
    other.apply(last, never_swapped.trainable_variables)
    for ours, theirs in zip(optimizer.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(weights_of(model), weights_of(never_swapped), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def policy(request):
    """The dtype policy of new layers, reset after the test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def gradients_by_hand(model: keras.Model, faces, label, scale: float) -> list[np.ndarray]:
    """Compute gradients of the paper's loss, with the loss scaled by `scale` in between."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = model(faces, training=True)
        score, error = outputs["classification"], outputs["reconstruction"] - faces
        cross_entropy = -tf.reduce_mean(
            label * tf.math.log(score) + (1 - label) * tf.math.log(1 - score)
        )
        loss = scale * (0.8 * cross_entropy + 0.2 * tf.reduce_mean(error**2))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [gradient.numpy() / scale for gradient in gradients]


@pytest.mark.parametrize(
    ("policy", "scale", "kind"),
    [
        ("float32", 1, "sgd"),
        ("float32", 1, "adam"),
        ("mixed_bfloat16", 1, "sgd"),
        ("mixed_float16", 2.0**15, "adam"),  # the initial loss scale of Keras
    ],
    indirect=["policy"],
)
def test_rates_hold_in_a_compiled_model_of_each_precision(policy, scale, kind):
    options = dataclasses.replace(vary(kind, "all"), clip_norm=0.05)
    model, twin = build_stub(), build_stub()
    plain = TwoPlainOptimizers(options, twin)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    compile_detector(model, optimizer)
    wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert wrapped == (policy == "mixed_float16")
    assert (model.optimizer.inner_optimizer if wrapped else model.optimizer) is optimizer

    rng = np.random.default_rng(1)
    initial = weights_of(model)
    for _ in range(6):
        faces = rng.uniform(-1, 1, (4, 2, 2, 3)).astype(np.float32)
        label = np.array([[0], [1], [1], [0]], np.float32)
        plain.apply(gradients_by_hand(twin, faces, label, scale))
        for variable, expected in zip(twin.trainable_variables, plain.weights(), strict=True):
            variable.assign(expected)
        model.train_on_batch(faces, {"classification": label, "reconstruction": faces})

    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    # 16-bit numbers are rounded differently where TensorFlow fuses operations.
    tolerance = {"float32": 1e-4, "mixed_bfloat16": 0.05, "mixed_float16": 0.01}[policy]
    for variable, start, expected in zip(
        model.trainable_variables, initial, plain.weights(), strict=True
    ):
        distance = np.abs(expected - start).max()
        assert distance > 1e-4
        np.testing.assert_allclose(
            variable, expected, atol=tolerance * distance, err_msg=variable.path
        )


def test_steps_with_momentum_match_the_closed_form():
    steps = 3
    model = build_stub()
    optimizer = build_optimizer(OPTIONS, steps_per_epoch=2)
    initial = weights_of(model)
    for _ in range(steps):
        optimizer.apply(
            [np.full_like(weight, 0.3) for weight in initial], model.trainable_variables
        )
    for variable, start in zip(model.trainable_variables, initial, strict=True):
        rate = 0.02 if variable.path.startswith("classifier_") else 0.1
        distance = sum(
            rate * 0.3 * sum(0.5**k for k in range(step)) for step in range(1, steps + 1)
        )
        np.testing.assert_allclose(variable, start - distance, rtol=1e-5, atol=1e-6)


def test_learning_rate_is_divided_by_five_every_five_epochs():
    optimizer = build_optimizer(OptimizerOptions(), steps_per_epoch=10)
    schedule = keras.optimizers.schedules.deserialize(optimizer.get_config()["learning_rate"])
    rates = [float(schedule(step)) for step in (0, 49, 50, 99, 100)]
    assert rates == pytest.approx([0.005, 0.005, 0.001, 0.001, 0.0002])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_every_option_survives_serialisation(kind):
    options = dataclasses.replace(vary(kind, "all"), momentum=0.7)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is type(optimizer)
    config = restored.get_config()
    assert config == optimizer.get_config()
    expected = {
        "classifier_rate_factor": pytest.approx(0.2),
        "weight_decay": 0.3,
        "global_clipnorm": 0.7,
        "gradient_accumulation_steps": 3,
        "use_ema": True,
        "ema_momentum": 0.9,
    } | ({"momentum": 0.7} if kind == "sgd" else {})
    assert {name: config[name] for name in expected} == expected
    schedule = config["learning_rate"]["config"]
    assert (schedule["initial_learning_rate"], schedule["decay_steps"]) == (0.1, 4)
    assert (schedule["decay_rate"], schedule["staircase"]) == (0.5, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "learning_rate above 0; got 0. Try 0.005"),
        ({"classifier_learning_rate": -1}, "classifier_learning_rate above 0; got -1"),
        ({"decay_rate": 0}, "decay_rate above 0; got 0"),
        ({"decay_epochs": 0}, "decay_epochs from 1; got 0"),
        ({"momentum": 1}, "momentum from 0 to below 1; got 1"),
        ({"average": -0.1}, "average from 0 to below 1; got -0.1"),
        ({"weight_decay": -1}, "weight_decay from 0; got -1"),
        ({"clip_norm": -1}, "clip_norm from 0; got -1"),
        ({"accumulate": 0}, "accumulate from 1; got 0"),
        ({"optimizer": "lion"}, "'sgd' or 'adam'; got 'lion'"),
    ],
)
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(ValueError, match=f"Expected (the optimizer )?{message}"):
        build_optimizer(OptimizerOptions(**options), steps_per_epoch=1)


def test_any_keras_optimizer_can_be_used_instead():
    model = build_stub()
    schedule = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=10)
    compile_detector(model, keras.optimizers.AdamW(schedule, weight_decay=0.5, epsilon=1e-12))
    faces = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2, 3)).astype(np.float32)
    label = np.array([[0], [1], [1], [0]], np.float32)
    initial = weights_of(model)
    model.train_on_batch(faces, {"classification": label, "reconstruction": faces})
    # The first step of Adam is the learning rate itself, in both branches, after weight decay.
    for start, now in zip(initial, weights_of(model), strict=True):
        np.testing.assert_allclose(np.abs(now - 0.995 * start), 0.01, rtol=1e-3)
