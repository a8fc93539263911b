"""The losses and the metric of a compiled detector, and which weights they train."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.options import LossOptions, ModelOptions
from jdfd_keras.training.compile import FaceSquaredError, compile_detector


@pytest.fixture(scope="module")
def compiled(build_tiny):
    """A compiled detector, which no test trains."""
    model = build_tiny()
    compile_detector(model)
    return model


@pytest.fixture(scope="module")
def targets(face_batch):
    return {
        "classification": np.array([[0.0], [1.0], [1.0], [0.0]], np.float32),
        "reconstruction": face_batch.astype(np.float32) / 127.5 - 1,
    }


@pytest.fixture(scope="module")
def learner():
    """A detector that tests train, with moving statistics that adapt within a few steps.

    It is shared, since tracing a training step of Xception takes longer than running it.
    """
    keras.utils.set_random_seed(0)
    options = ModelOptions(
        image_size=71, latent_dim=16, encoder_weights="none", batch_norm_momentum=0.2
    )
    model = build_detector(options)
    compile_detector(model, keras.optimizers.Adam(1e-3))
    return model


@pytest.fixture(scope="module")
def lesson():
    """Two batches of 16 faces: variations of one smooth image with random labels."""
    import cv2

    rng = np.random.default_rng(0)
    label = rng.permutation(np.arange(32) % 2)
    shared = cv2.resize(rng.random((3, 3, 3)), (71, 71))
    own = np.stack([cv2.resize(image, (71, 71)) for image in rng.random((32, 8, 8, 3))])
    faces = (160 * shared + 95 * own).astype(np.float32)
    halves = slice(0, 16), slice(16, 32)
    return [
        (
            faces[part],
            {
                "classification": label[part, None].astype(np.float32),
                "reconstruction": faces[part] / 127.5 - 1,
            },
        )
        for part in halves
    ]


@pytest.fixture
def small_detector():
    """A detector of a few weights, without batch normalisation, with different scores per face."""
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3), name="image")
    small = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image)
    x = keras.layers.Flatten(name="flatten")(small)
    x = keras.layers.Dense(1, "sigmoid", name="classification")(x)
    reconstruction = keras.layers.Conv2D(3, 1, name="reconstruction")(small)
    return keras.Model(image, {"classification": x, "reconstruction": reconstruction})


@pytest.fixture
def small_batch():
    faces = np.random.default_rng(2).integers(0, 256, (6, 6, 6, 3)).astype(np.float32)
    label = np.array([[0], [1], [0], [1], [0], [1]], np.float32)
    return faces, {"classification": label, "reconstruction": faces / 127.5 - 1}


def cross_entropies(label, score) -> np.ndarray:
    label, score = np.asarray(label, np.float64)[:, 0], np.asarray(score, np.float64)[:, 0]
    return -(label * np.log(score) + (1 - label) * np.log(1 - score))


def test_total_loss_is_0_8_cross_entropy_plus_0_2_squared_error(compiled, face_batch, targets):
    outputs = compiled.predict(face_batch, verbose=0)
    cross_entropy = cross_entropies(targets["classification"], outputs["classification"]).mean()
    squared_error = np.mean((outputs["reconstruction"] - targets["reconstruction"]) ** 2)

    logs = compiled.evaluate(face_batch, targets, verbose=0, return_dict=True)
    assert logs["classification_loss"] == pytest.approx(cross_entropy, rel=1e-5)
    assert logs["reconstruction_loss"] == pytest.approx(squared_error, rel=1e-5)
    assert logs["loss"] == pytest.approx(0.8 * cross_entropy + 0.2 * squared_error, rel=1e-5)


def test_squared_error_is_one_number_per_face():
    rng = np.random.default_rng(0)
    true, reconstruction = rng.normal(size=(2, 5, 4, 3, 3)).astype(np.float32)
    expected = [np.mean((reconstruction[face] - true[face]) ** 2) for face in range(5)]
    each = FaceSquaredError(reduction=None)(true, reconstruction)
    np.testing.assert_allclose(each, expected, rtol=1e-6)
    weights = np.array([1, 0, 2, 0, 1], np.float32)
    mean = FaceSquaredError(reduction="mean_with_sample_weight")(true, reconstruction, weights)
    assert float(mean) == pytest.approx((expected[0] + 2 * expected[2] + expected[4]) / 4, rel=1e-6)


@pytest.mark.parametrize("output", ["classification", "reconstruction"])
def test_logged_losses_are_means_over_the_faces_with_weight(small_detector, small_batch, output):
    faces, targets = small_batch
    compile_detector(small_detector)
    weights = {name: np.ones(6, np.float32) for name in targets}
    weights[output] = np.array([1, 1, 1, 0, 0, 0], np.float32)
    outputs = small_detector.predict(faces, verbose=0)
    score, label = outputs["classification"], targets["classification"]
    each = {
        "classification": cross_entropies(label, score),
        "reconstruction": np.mean(
            (outputs["reconstruction"] - targets["reconstruction"]) ** 2, axis=(1, 2, 3)
        ),
    }
    expected = {name: errors[weights[name] == 1].mean() for name, errors in each.items()}
    assert expected[output] != pytest.approx(each[output].mean(), rel=0.05)

    logs = small_detector.evaluate(
        faces, targets, sample_weight=weights, verbose=0, return_dict=True
    )
    assert logs["classification_loss"] == pytest.approx(expected["classification"], rel=1e-5)
    assert logs["reconstruction_loss"] == pytest.approx(expected["reconstruction"], rel=1e-5)
    assert logs["loss"] == pytest.approx(
        0.8 * expected["classification"] + 0.2 * expected["reconstruction"], rel=1e-5
    )
    is_labelled = weights["classification"] == 1
    assert logs["classification_frame_auc"] == pytest.approx(
        roc_auc_score(label[is_labelled, 0], score[is_labelled, 0]), abs=1e-3
    )


@pytest.fixture(scope="module")
def gradients(compiled, face_batch, targets):
    """Gradients of the total loss for several ways to treat the unlabelled faces 2 and 3.

    All losses share one forward pass, so that only the loss differs.
    """
    import tensorflow as tf

    def loss(labels, weights, count=4):
        return compiled.compute_loss(
            y={
                "classification": np.array(labels, np.float32)[:, None],
                "reconstruction": targets["reconstruction"][:count],
            },
            y_pred={name: output[:count] for name, output in outputs.items()},
            sample_weight=weights
            and {
                "classification": np.array(weights, np.float32),
                "reconstruction": np.ones(count, np.float32),
            },
        )

    with tf.GradientTape(persistent=True) as tape:
        outputs = compiled(face_batch.astype(np.float32), training=False)
        losses = {
            "absent": loss([0, 1], None, count=2),
            "unlabelled": loss([0, 1, 0, 1], [1, 1, 0, 0]),
            "unlabelled, other labels": loss([0, 1, 1, 0], [1, 1, 0, 0]),
            "labelled": loss([0, 1, 0, 1], [1, 1, 1, 1]),
            "only unlabelled": loss([0, 1, 0, 1], [0, 0, 0, 0]),
        }
    variables = compiled.trainable_variables
    return {
        name: dict(
            zip(
                [variable.path for variable in variables],
                tape.gradient(value, [variable.value for variable in variables]),
                strict=True,
            )
        )
        for name, value in losses.items()
    }


def test_unlabelled_faces_change_no_gradient_of_the_classifier(gradients):
    for path, expected in gradients["absent"].items():
        if is_classifier_weight(path):
            assert np.abs(expected).max() > 0
            np.testing.assert_array_equal(gradients["unlabelled"][path], expected)
            np.testing.assert_array_equal(gradients["unlabelled, other labels"][path], expected)
            assert not np.array_equal(gradients["labelled"][path], expected)


def test_labels_of_unlabelled_faces_change_no_gradient(gradients):
    for path, gradient in gradients["unlabelled"].items():
        np.testing.assert_array_equal(gradients["unlabelled, other labels"][path], gradient)


def test_labels_train_the_encoder_and_not_the_decoder(gradients):
    trained = {
        path
        for path, gradient in gradients["labelled"].items()
        if not np.array_equal(gradient, gradients["unlabelled"][path])
    }
    assert trained == {path for path in gradients["unlabelled"] if not path.startswith("decoder_")}


def test_unlabelled_faces_train_the_decoder_and_not_the_classifier(gradients):
    trained = {
        path for path, gradient in gradients["only unlabelled"].items() if np.any(gradient != 0)
    }
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients["only unlabelled"].values())
    assert {path for path in gradients["only unlabelled"] if path not in trained} == {
        "classifier_dense/kernel",
        "classifier_dense/bias",
        "classifier_logit/kernel",
        "classifier_logit/bias",
    }


def test_label_smoothing_moves_labels_towards_one_half(small_detector, small_batch):
    smoothing = 0.2
    faces, targets = small_batch
    compile_detector(small_detector, loss=LossOptions(label_smoothing=smoothing))
    score = small_detector.predict(faces, verbose=0)["classification"]
    label = targets["classification"]
    smooth = np.where(label == 1, 1 - smoothing / 2, smoothing / 2)
    logs = small_detector.evaluate(faces, targets, verbose=0, return_dict=True)
    expected = cross_entropies(smooth, score).mean()
    assert logs["classification_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["classification_frame_auc"] == pytest.approx(
        roc_auc_score(label[:, 0], score[:, 0]), abs=1e-3
    )


@pytest.mark.parametrize("smoothing", [1, -0.1])
def test_label_smoothing_out_of_range_is_rejected(small_detector, smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing from 0 .* 1; got {smoothing:g}"):
        compile_detector(small_detector, loss=LossOptions(label_smoothing=smoothing))


def test_default_optimizer_is_the_papers_at_constant_learning_rates(compiled):
    config = compiled.optimizer.get_config()
    schedule = keras.optimizers.schedules.deserialize(config["learning_rate"])
    assert [float(schedule(step)) for step in (0, 10**6)] == pytest.approx([0.005, 0.005])
    assert config["classifier_rate_factor"] == pytest.approx(0.0004 / 0.005)
    assert config["momentum"] == 0.9


def test_xla_is_not_used_on_cpus(compiled):
    import tensorflow as tf

    if {device.device_type for device in tf.config.list_physical_devices()} != {"CPU"}:
        pytest.skip("this machine has other devices than CPUs")
    assert compiled.jit_compile is False


def test_each_weight_belongs_to_its_loss(small_detector, small_batch):
    compile_detector(small_detector, loss=LossOptions(3.0, 0.5))
    logs = small_detector.evaluate(*small_batch, verbose=0, return_dict=True)
    expected = 3 * logs["classification_loss"] + 0.5 * logs["reconstruction_loss"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_detector_without_decoder_has_only_the_cross_entropy(face_batch, targets):
    model = build_detector(
        ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    )
    compile_detector(model)
    label = {"classification": targets["classification"]}
    logs = model.evaluate(face_batch, label, verbose=0, return_dict=True)
    score = model(face_batch.astype(np.float32), training=False)["classification"]
    cross_entropy = cross_entropies(targets["classification"], score).mean()
    # The same name as with a decoder, so that histories have the same columns.
    assert set(logs) == {"loss", "classification_frame_auc"}
    assert logs["loss"] == pytest.approx(0.8 * cross_entropy, rel=1e-4)


@pytest.mark.slow
def test_one_step_changes_every_trainable_weight(learner, lesson):
    before = [variable.numpy() for variable in learner.trainable_variables]
    learner.train_on_batch(*lesson[0])
    unchanged = [
        variable.path
        for variable, value in zip(learner.trainable_variables, before, strict=True)
        if np.array_equal(variable.numpy(), value)
    ]
    assert unchanged == []


def test_a_step_moves_the_moving_statistics_towards_those_of_its_batch(learner, lesson):
    faces, targets = lesson[0]
    first = keras.Model(learner.input, learner.get_layer("block1_conv1").output)(faces)
    statistics = learner.get_layer("block1_conv1_bn").moving_mean
    expected = 0.2 * statistics.numpy() + 0.8 * np.mean(first, axis=(0, 1, 2))
    before = {variable.path: variable.numpy() for variable in learner.non_trainable_variables}
    learner.train_on_batch(faces, targets)
    np.testing.assert_allclose(statistics, expected, rtol=1e-3, atol=1e-5)
    unchanged = [
        variable.path
        for variable in learner.non_trainable_variables
        if np.array_equal(variable.numpy(), before[variable.path])
    ]
    assert unchanged == []
    assert len(before) == 2 * sum("moving_mean" in path for path in before) > 80


def test_evaluation_and_prediction_change_no_weight_and_no_statistic(compiled, face_batch, targets):
    before = compiled.get_weights()
    compiled.evaluate(face_batch, targets, verbose=0)
    compiled.predict(face_batch, verbose=0)
    for now, value in zip(compiled.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, value)


def test_dropout_and_batch_statistics_are_used_only_in_training(face_batch):
    keras.utils.set_random_seed(0)
    model = build_detector(
        ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", dropout=0.5)
    )
    faces = face_batch.astype(np.float32)
    # Inference comes last: only training changes the moving statistics.
    (first, second), (third, fourth) = (
        [
            {name: np.asarray(value) for name, value in model(faces, training=training).items()}
            for _ in range(2)
        ]
        for training in (True, False)
    )
    assert np.abs(first["classification"] - second["classification"]).min() > 1e-3
    np.testing.assert_allclose(first["reconstruction"], second["reconstruction"], atol=1e-4)
    for name in third:
        np.testing.assert_array_equal(third[name], fourth[name])
    assert np.abs(first["reconstruction"] - third["reconstruction"]).mean() > 0.01


@pytest.mark.slow
def test_detector_memorizes_32_faces(learner, lesson):
    faces, targets = ([batch[part] for batch in lesson] for part in (0, 1))
    faces = np.concatenate(faces)
    label = np.concatenate([target["classification"] for target in targets])[:, 0]
    true = np.concatenate([target["reconstruction"] for target in targets])

    def auc_and_error():
        outputs = learner(faces, training=False)
        reconstruction = np.asarray(outputs["reconstruction"])
        score = np.asarray(outputs["classification"])[:, 0]
        return roc_auc_score(label, score), np.mean((reconstruction - true) ** 2)

    auc_before, error_before = auc_and_error()
    assert auc_before < 0.9
    for _ in range(8):
        for batch in lesson:
            learner.train_on_batch(*batch)
    auc, error = auc_and_error()
    assert auc == 1.0
    assert error < 0.6 * error_before
