"""The triplet loss by hand and by a loop, and which layers its gradient reaches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.model.embedding import add_embedding
from jdfd_keras.model.network import is_classifier_weight
from jdfd_keras.training.triplet_loss import TripletLoss

LABEL = np.float32([[0], [0], [1]])


def loop(label, points, margin, mining):
    """Compute the mean over triplets, one after the other."""
    losses, count = [], range(len(label))
    for anchor in count:
        for positive in count:
            for negative in count:
                is_triplet = label[anchor] == label[positive] != label[negative]
                if anchor == positive or not is_triplet:
                    continue
                near = np.sum((points[anchor] - points[positive]) ** 2)
                far = np.sum((points[anchor] - points[negative]) ** 2)
                if mining == "all" or near < far < near + margin:
                    losses.append(max(0.0, near - far + margin))
    return np.mean(losses) if losses else 0.0


def test_three_points_have_the_loss_of_their_two_triplets():
    points = np.float32([[0, 0], [3, 0], [0, 2]])  # squared distances 9, 4 and 13
    # Anchors are the first two: 9 - 4 + 1 and max(0, 9 - 13 + 1).
    assert float(TripletLoss(margin=1)(LABEL, points)) == pytest.approx(6 / 2)
    # With a margin of 5, the second is 9 - 13 + 5, and the only one that is semi-hard.
    assert float(TripletLoss(margin=5, mining="semi-hard")(LABEL, points)) == pytest.approx(1)


def test_its_gradient_pulls_the_positive_and_pushes_the_negative():
    anchor, positive, negative = np.float32([0, 0]), np.float32([3, 0]), np.float32([0, 2])
    points = tf.Variable(np.stack([anchor, positive, negative]))
    with tf.GradientTape() as tape:
        loss = TripletLoss(margin=1)(LABEL, points)
    # Of |a - p|^2 - |a - n|^2, for the only one of two triplets whose loss is not 0.
    steps = negative - positive, positive - anchor, anchor - negative
    expected = 2 * np.stack(steps)
    np.testing.assert_allclose(tape.gradient(loss, points), expected / 2, rtol=1e-6)


@pytest.mark.parametrize("mining", ["all", "semi-hard"])
def test_a_batch_has_the_mean_of_all_triplets(mining):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 4)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    label = np.float32([0, 1, 1, 0, 0, 1, 1, 1, 0])
    expected = loop(label, points, 0.3, mining)
    assert expected > 0.01
    loss = TripletLoss(margin=0.3, mining=mining)
    assert float(loss(label[:, None], points)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_triplet_has_the_loss_0():
    points = tf.Variable(np.eye(3, dtype=np.float32))
    with tf.GradientTape() as tape:
        loss = TripletLoss()(np.ones((3, 1), np.float32), points)
    assert float(loss) == 0
    assert not np.asarray(tape.gradient(loss, points)).any()
    assert float(TripletLoss()(np.float32([[0], [1]]), np.eye(2, dtype=np.float32))) == 0


def test_faces_of_one_class_at_one_place_and_far_apart_have_the_loss_0():
    points = np.float32([[1, 0], [1, 0], [-1, 0], [-1, 0]])
    assert float(TripletLoss()(np.float32([[0], [0], [1], [1]]), points)) == 0


@pytest.fixture(scope="module")
def detector():
    """A small encoder instead of Xception."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(5, 3, name="encoder")(layers.Rescaling(1 / 255)(image))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(1, activation="sigmoid", name="classifier_logit")(x)
    return add_embedding(keras.Model(image, {"classification": x}))


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)


def test_each_loss_trains_its_own_half(detector, faces):
    losses = {"embedding": TripletLoss(), "classification": keras.losses.BinaryCrossentropy()}
    trained = {}
    for name, loss in losses.items():
        with tf.GradientTape() as tape:
            value = loss(LABEL, detector(faces, training=True)[name])
        variables = detector.trainable_variables
        gradients = tape.gradient(value, [variable.value for variable in variables])
        trained[name] = {
            variable.path
            for variable, gradient in zip(variables, gradients, strict=True)
            if gradient is not None
        }
    paths = {variable.path for variable in detector.trainable_variables}
    assert trained["classification"] == {"classifier_logit/kernel", "classifier_logit/bias"}
    assert trained["embedding"] == {"encoder/kernel", "encoder/bias"}
    assert paths == trained["classification"] | trained["embedding"]
    assert all(map(is_classifier_weight, trained["classification"]))


def test_the_embedding_has_length_1_and_the_classifier_is_linear_in_it(detector, faces):
    outputs = {name: np.asarray(value) for name, value in detector(faces).items()}
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), 1, rtol=1e-5)
    kernel, bias = detector.get_layer("classifier_logit").get_weights()
    score = 1 / (1 + np.exp(-(outputs["embedding"] @ kernel + bias)))
    np.testing.assert_allclose(outputs["classification"], score, atol=1e-6)


def test_it_is_saved_with_layers_of_keras_alone(detector, faces, tmp_path):
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    for name, value in detector(faces).items():
        np.testing.assert_allclose(loaded(faces)[name], value, atol=1e-6)


def test_a_margin_of_0_and_an_unknown_mining_are_refused():
    with pytest.raises(ValueError, match=r"Expected a margin above 0; got 0\. Try 0\.2"):
        TripletLoss(margin=0)
    with pytest.raises(ValueError, match=r"Expected the mining all or semi-hard; got 'easy'"):
        TripletLoss(mining="easy")


def test_a_loss_is_built_again_from_its_config():
    loss = TripletLoss(margin=0.5, mining="semi-hard")
    loaded = TripletLoss.from_config(loss.get_config())
    assert (loaded.margin, loaded.mining, loaded.reduction) == (0.5, "semi-hard", loss.reduction)


def test_a_model_without_a_classifier_is_refused():
    image = keras.Input((2,))
    with pytest.raises(ValueError, match="whose classifier has layers named classifier_"):
        add_embedding(keras.Model(image, keras.layers.Dense(1, name="score")(image), name="other"))
