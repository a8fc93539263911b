import dataclasses

import keras
import numpy as np
import pytest

from jdfd_keras.options import OptimizerOptions
from jdfd_keras.training.compile import build_optimizer, compile_detector

# The rate falls to a half at every 4th step, here and in `rate_at`.
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
    "no momentum": {"momentum": 0.0},
    "weight decay": {"weight_decay": 0.3},
    "clipping": {"clip_norm": 1.5},
    "accumulation": {"accumulate": 3},
    "average": {"average": 0.9},
    "all": {"weight_decay": 0.3, "clip_norm": 0.7, "accumulate": 3, "average": 0.9},
}


def vary(kind: str, variant: str) -> OptimizerOptions:
    return dataclasses.replace(OPTIONS, optimizer=kind, **VARIANTS[variant])


def build_stand_in() -> keras.Model:
    """A detector of 40 weights in four layers, its two outputs under the names of the real one."""
    keras.utils.set_random_seed(3)
    image = keras.Input((2, 2, 3), name="image")
    shared = keras.layers.Conv2D(2, 1, name="squeeze")(image)
    x = keras.layers.Flatten(name="flatten")(shared)
    x = keras.layers.Dense(2, activation="tanh", name="classifier_dense")(x)
    x = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(x)
    x = keras.layers.Activation("sigmoid", name="classification", dtype="float32")(x)
    rebuilt = keras.layers.Conv2D(3, 1, name="decoder_deconv1")(shared)
    rebuilt = keras.layers.Activation("linear", name="reconstruction", dtype="float32")(rebuilt)
    return keras.Model(image, {"classification": x, "reconstruction": rebuilt})


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


def rate_at(step: int, rate: float) -> float:
    return rate * 0.5 ** (step // 4)


class TwoPlainOptimizers:
    """What each branch is to do, by a Keras optimizer of its own at its own rate.

    The schedule, the mean over accumulated steps, and the norm over all weights are done here, by
    hand, so that each plain optimizer sees nothing but gradients and one number for its rate.
    """

    def __init__(self, options: OptimizerOptions, model: keras.Model):
        self.options, self.step, self.waiting = options, 0, []
        self.variables = [keras.Variable(v.numpy()) for v in model.trainable_variables]
        named = [v.path.startswith("classifier_") for v in model.trainable_variables]
        self.branches = []
        for mine, rate in (
            (named, options.classifier_learning_rate),
            ([not name for name in named], options.learning_rate),
        ):
            decay = options.weight_decay or None
            if options.optimizer == "sgd":
                plain = keras.optimizers.SGD(rate, momentum=options.momentum, weight_decay=decay)
            else:
                plain = keras.optimizers.Adam(rate, weight_decay=decay)
            self.branches.append((np.flatnonzero(mine), rate, plain))
            assert 0 < sum(mine) < len(mine)

    def apply(self, gradients: list[np.ndarray]) -> None:
        self.waiting.append(gradients)
        if len(self.waiting) == self.options.accumulate:
            means = [np.mean(gradient, axis=0) for gradient in zip(*self.waiting, strict=True)]
            self.waiting = []
            norm = np.sqrt(sum(np.sum(np.square(mean)) for mean in means))
            shrink = min(1, self.options.clip_norm / norm) if self.options.clip_norm else 1
            for places, rate, plain in self.branches:
                plain.learning_rate = rate_at(self.step, rate)
                plain.apply(
                    [(means[place] * shrink).astype(np.float32) for place in places],
                    [self.variables[place] for place in places],
                )
        self.step += 1

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.variables]


def draw_gradients(model: keras.Model, steps: int) -> list[list[np.ndarray]]:
    """Gradients of every length from a tenth to ten, so that some are clipped and some are not."""
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
def test_each_branch_moves_as_under_an_optimizer_of_its_own(kind, variant):
    options = vary(kind, variant)
    model = build_stand_in()
    plain = TwoPlainOptimizers(options, model)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    config = optimizer.get_config()
    for gradients in draw_gradients(model, 7):
        optimizer.apply(gradients, model.trainable_variables)
        plain.apply(gradients)
        for variable, expected in zip(model.trainable_variables, plain.weights(), strict=True):
            np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-6)
    assert optimizer.get_config() == config


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_weights_move_at_every_third_step_alone_when_three_are_accumulated(kind):
    model = build_stand_in()
    optimizer = build_optimizer(vary(kind, "all"), STEPS_PER_EPOCH)
    moved = []
    for gradients in draw_gradients(model, 7):
        before = weights_of(model)
        optimizer.apply(gradients, model.trainable_variables)
        changes = zip(before, weights_of(model), strict=True)
        moved.append({not np.array_equal(old, new) for old, new in changes})
    assert moved == [{False}, {False}, {True}, {False}, {False}, {True}, {False}]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_average_of_weights_is_swapped_in_and_back_to_the_bit(kind):
    model, never_swapped = build_stand_in(), build_stand_in()
    options = vary(kind, "average")
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    other = build_optimizer(options, STEPS_PER_EPOCH)
    averages = None
    *gradients, last = draw_gradients(model, 8)
    for gradient in gradients:
        optimizer.apply(gradient, model.trainable_variables)
        other.apply(gradient, never_swapped.trainable_variables)
        weights = weights_of(model)
        if averages is None:
            averages = weights
        averages = [0.9 * a + 0.1 * w for a, w in zip(averages, weights, strict=True)]

    kept = [v.numpy() for v in optimizer.variables if v.path.endswith("_average")]
    optimizer.swap_average()
    for now, average, expected, weight in zip(
        weights_of(model), kept, averages, weights, strict=True
    ):
        np.testing.assert_array_equal(now, average)
        np.testing.assert_allclose(now, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(now - weight).min() > 1e-5
    optimizer.swap_average()
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
    """The policy of new layers, put back afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def gradients_by_hand(model: keras.Model, faces, label, scale: float) -> list[np.ndarray]:
    """Gradients of the paper's loss, written out, multiplied by `scale` on the way and divided."""
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
        ("mixed_float16", 2.0**15, "adam"),  # the scale that Keras begins with
    ],
    indirect=["policy"],
)
def test_rates_hold_in_a_compiled_model_of_each_precision(policy, scale, kind):
    options = dataclasses.replace(vary(kind, "all"), clip_norm=0.05)
    model, twin = build_stand_in(), build_stand_in()
    plain = TwoPlainOptimizers(options, twin)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    compile_detector(model, optimizer)
    wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert wrapped == (policy == "mixed_float16")
    assert (model.optimizer.inner_optimizer if wrapped else model.optimizer) is optimizer

    rng = np.random.default_rng(1)
    begun = weights_of(model)
    for _ in range(6):
        faces = rng.uniform(-1, 1, (4, 2, 2, 3)).astype(np.float32)
        label = np.array([[0], [1], [1], [0]], np.float32)
        plain.apply(gradients_by_hand(twin, faces, label, scale))
        for variable, expected in zip(twin.trainable_variables, plain.weights(), strict=True):
            variable.assign(expected)
        model.train_on_batch(faces, {"classification": label, "reconstruction": faces})

    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    # 16-bit numbers are rounded otherwise where TensorFlow fuses operations.
    share = {"float32": 1e-4, "mixed_bfloat16": 0.05, "mixed_float16": 0.01}[policy]
    for variable, start, expected in zip(
        model.trainable_variables, begun, plain.weights(), strict=True
    ):
        way = np.abs(expected - start).max()
        assert way > 1e-4
        np.testing.assert_allclose(variable, expected, atol=share * way, err_msg=variable.path)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_with_momentum_are_worked_out_by_hand(steps):
    model = build_stand_in()
    optimizer = build_optimizer(OPTIONS, steps_per_epoch=2)
    begun = weights_of(model)
    for _ in range(steps):
        optimizer.apply([np.full_like(weight, 0.3) for weight in begun], model.trainable_variables)
    for variable, start in zip(model.trainable_variables, begun, strict=True):
        rate = 0.02 if variable.path.startswith("classifier_") else 0.1
        way = sum(rate * 0.3 * sum(0.5**k for k in range(step)) for step in range(1, steps + 1))
        np.testing.assert_allclose(variable, start - way, rtol=1e-5, atol=1e-6)


def test_rate_falls_to_a_fifth_every_five_epochs():
    optimizer = build_optimizer(OptimizerOptions(), steps_per_epoch=10)
    schedule = keras.optimizers.schedules.deserialize(optimizer.get_config()["learning_rate"])
    rates = [float(schedule(step)) for step in (0, 49, 50, 99, 100)]
    assert rates == pytest.approx([0.005, 0.005, 0.001, 0.001, 0.0002])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_optimizer_survives_serialisation(kind):
    optimizer = build_optimizer(OptimizerOptions(optimizer=kind), steps_per_epoch=7)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.classifier_rate_factor == pytest.approx(0.0004 / 0.005)
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_every_option_survives_serialisation(kind):
    options = dataclasses.replace(vary(kind, "all"), momentum=0.7)
    optimizer = build_optimizer(options, STEPS_PER_EPOCH)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    config = again.get_config()
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
    "options",
    [
        OptimizerOptions(learning_rate=0),
        OptimizerOptions(classifier_learning_rate=-1),
        OptimizerOptions(decay_rate=0),
        OptimizerOptions(decay_epochs=0),
        OptimizerOptions(momentum=1),
        OptimizerOptions(momentum=-0.1),
        OptimizerOptions(average=1),
        OptimizerOptions(average=-0.1),
        OptimizerOptions(weight_decay=-1),
        OptimizerOptions(clip_norm=-1),
        OptimizerOptions(accumulate=0),
        OptimizerOptions(optimizer="lion"),
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="Expected .* got "):
        build_optimizer(options, steps_per_epoch=1)


def test_any_keras_optimizer_can_take_the_place_of_ours():
    model = build_stand_in()
    schedule = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=10)
    compile_detector(model, keras.optimizers.AdamW(schedule, weight_decay=0.5, epsilon=1e-12))
    faces = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2, 3)).astype(np.float32)
    label = np.array([[0], [1], [1], [0]], np.float32)
    begun = weights_of(model)
    model.train_on_batch(faces, {"classification": label, "reconstruction": faces})
    # Adam's first step is the rate itself, in every branch, after the decay of the weights.
    for start, now in zip(begun, weights_of(model), strict=True):
        np.testing.assert_allclose(np.abs(now - 0.995 * start), 0.01, rtol=1e-3)
