"""Validation after every epoch: Keras' losses, and an exact AUC."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.options import LossOptions
from jdfd_keras.training.callbacks import RunFolder
from jdfd_keras.training.compile import BranchSGD, compile_detector
from jdfd_keras.training.run_folder import best_epoch, read_history
from jdfd_keras.training.validation import Validation

ROOT = Path(__file__).parents[2]
AUC = "val_classification_frame_auc"


def build(*, decoder=True, seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(x)
    x = keras.layers.BatchNormalization(momentum=0.5, name="batch_normalization")(x)
    maps = keras.layers.Dropout(0.5)(x)
    mean = keras.layers.GlobalAveragePooling2D()(maps)
    logit = keras.layers.Dense(1, name="classifier_logit", dtype="float32")(mean)
    score = keras.layers.Activation("sigmoid", name="classification", dtype="float32")
    outputs = {"classification": score(logit)}
    if decoder:
        up = keras.layers.Conv2DTranspose(3, 4, strides=4, name="decoder_conv")(maps)
        resize = keras.layers.Resizing(16, 16, name="reconstruction", dtype="float32")
        outputs["reconstruction"] = resize(up)
    return keras.Model(image, outputs)


def draw_faces(count=26, batch_size=13, *, decoder=True, weights=None, seed=0):
    """Draw faces whose brightness hints at the class."""
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 3 == 0).astype(np.float32)
    images = rng.uniform(0, 250, (count, 16, 16, 3)) + 2 * label[:, None, None, None]
    images = images.astype(np.float32)
    targets = {"classification": label[:, None]}
    if decoder:
        targets["reconstruction"] = images / 127.5 - 1
    rows = (images, targets) if weights is None else (images, targets, weights)
    return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)


class Record(keras.callbacks.Callback):
    """Record the logs of each epoch, and what `evaluate` and scikit-learn say of its faces."""

    def __init__(self, faces):
        super().__init__()
        self.faces, self.logs, self.evaluated, self.aucs = faces, [], [], []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        evaluated = self.model.evaluate(self.faces, verbose=0, return_dict=True)
        self.evaluated.append({f"val_{name}": value for name, value in evaluated.items()})
        scores = self.model.predict(self.faces, verbose=0)["classification"]
        labels = np.concatenate([batch[1]["classification"] for batch in self.faces])
        self.aucs.append(roc_auc_score(labels[:, 0], scores[:, 0]))


def fit(model, faces, epochs=2, *, validated=None, **options):
    """Train; returns the logs, those of `evaluate`, and the AUCs of scikit-learn."""
    record = Record(validated or faces)
    callbacks = [Validation(validated or faces), record]
    model.fit(faces, epochs=epochs, verbose=0, callbacks=callbacks, **options)
    return record


def check(record, **tolerance):
    """Compare the logs; the batches must have equal sizes."""
    assert [row[AUC] for row in record.logs] == pytest.approx(record.aucs, abs=1e-12)
    for row, evaluated in zip(record.logs, record.evaluated, strict=True):
        losses = {name: value for name, value in evaluated.items() if name != AUC}
        validated = {name for name in row if name.startswith("val_")}
        assert validated == set(evaluated)
        assert {name: row[name] for name in losses} == pytest.approx(losses, **tolerance)


@pytest.mark.parametrize("decoder", [True, False], ids=["with decoder", "without"])
def test_losses_are_those_of_keras_and_the_auc_that_of_scikit_learn(decoder):
    model = build(decoder=decoder)
    loss = LossOptions(classification_weight=0.7, reconstruction_weight=0.4, label_smoothing=0.2)
    compile_detector(model, keras.optimizers.Adam(0.01), loss)
    record = fit(model, draw_faces(decoder=decoder), epochs=4)
    assert len(set(record.aucs)) > 1
    check(record, rel=1e-5)


def test_each_face_counts_once_however_small_the_last_batch_is():
    model = build()
    compile_detector(model, keras.optimizers.Adam(0.01))
    faces = draw_faces(25, batch_size=8)
    record = Record(draw_faces(25, batch_size=25))
    model.fit(faces, verbose=0, callbacks=[Validation(faces), record])
    check(record, rel=1e-5)


def test_the_history_that_fit_returns_has_the_validation():
    model = build()
    compile_detector(model)
    history = model.fit(draw_faces(), verbose=0, callbacks=[Validation(draw_faces())]).history
    assert {name for name in history if name.startswith("val_")} == {
        *("val_loss", "val_classification_loss", "val_reconstruction_loss", AUC)
    }


def test_faces_count_by_their_weights_and_unlabelled_ones_not_at_all():
    """In one batch, where the weighted mean of Keras is that of all faces."""
    rng = np.random.default_rng(1)
    weights = {
        "classification": np.repeat([0.0, 1.0], [10, 16]).astype(np.float32),
        "reconstruction": rng.uniform(0, 2, 26).astype(np.float32),
    }
    model = build()
    compile_detector(model, keras.optimizers.Adam(0.01))
    record = fit(model, draw_faces(batch_size=26, weights=weights))
    for row, evaluated in zip(record.logs, record.evaluated, strict=True):
        losses = {name: value for name, value in evaluated.items() if name != AUC}
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-5)
    faces = draw_faces(batch_size=26)
    scores = model.predict(faces, verbose=0)["classification"][10:, 0]
    labels = next(iter(faces))[1]["classification"][10:, 0]
    assert record.logs[-1][AUC] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_validated_as_it_computes(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build()
        compile_detector(model, keras.optimizers.Adam(0.01))
        check(fit(model, draw_faces()), rel=1e-4)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_a_pass_compiled_by_xla_gives_the_same():
    model = build()
    compile_detector(model, keras.optimizers.Adam(0.01))
    model.jit_compile = True
    check(fit(model, draw_faces()), rel=1e-4)


def test_the_moving_average_is_validated_and_the_weights_are_kept():
    faces = draw_faces()
    model = build()
    compile_detector(model, BranchSGD(0.1, use_ema=True, ema_momentum=0.5))
    trained, kept = [], []
    record_steps = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: trained.append(model.get_weights())
    )
    record_kept = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(model.get_weights())
    )
    record = Record(faces)
    # One step per epoch. Keras starts the average with the weights after the first step.
    callbacks = [record_steps, Validation(faces), record_kept, record]
    model.fit(faces.take(1), epochs=2, verbose=0, callbacks=callbacks)
    for weight, same in zip(trained[1], kept[1], strict=True):
        np.testing.assert_array_equal(same, weight)
    average = [0.5 * (first + second) for first, second in zip(*trained, strict=True)]
    # The moving statistics of batch normalization are no trainable weights: they are not averaged.
    paths = {variable.path for variable in model.trainable_variables}
    for variable, value, last in zip(model.weights, average, trained[1], strict=True):
        variable.assign(value if variable.path in paths else last)
    expected = model.evaluate(faces, verbose=0, return_dict=True)["loss"]
    assert record.logs[1]["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(record.evaluated[1]["val_loss"] - expected) > 1e-4


def test_a_user_validates_the_faces_of_load_faces(prepared_set, build_stand_in):
    from jdfd_keras.options import ModelOptions

    model = build_stand_in(ModelOptions(image_size=71))
    compile_detector(model, keras.optimizers.Adam(0.01))
    faces = load_faces(prepared_set, "train", batch_size=8, shuffle=True)
    validated = load_faces(prepared_set, "val", batch_size=8)
    check(fit(model, faces, validated=validated), rel=1e-5)


def two_epochs_of_scores():
    """Scores of two epochs, of which the first is better, but most of its scores are above 0.999.

    Returns labels, bool[200], and scores, float32[2, 200].
    """
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2 == 1
    logit = (rng.normal(0, 1, (2, 200)) + np.array([[1.5], [1.3]]) * label).round(1)  # with ties
    # Confidence is a monotonic transform: it does not change the ranks.
    score = 1 / (1 + np.exp(-logit - np.array([[8.0], [0.0]])))
    return label, score.astype(np.float32)


def test_the_best_epoch_is_that_of_the_exact_auc_where_a_coarse_one_chooses_another(tmp_path):
    label, scores = two_epochs_of_scores()
    exact = [roc_auc_score(label, row) for row in scores]
    coarse = []
    for row in scores:
        metric = keras.metrics.AUC(num_thresholds=1000)
        metric.update_state(label, row)
        coarse.append(float(metric.result()))
    assert exact[0] > exact[1] + 0.01
    assert coarse[0] < coarse[1] - 0.05, "the coarse AUC must choose the other epoch"

    index = keras.Input((1,), name="index")
    table = keras.layers.Embedding(200, 1)
    score = keras.layers.Reshape((1,), name="classification")(table(index))
    pixel = keras.layers.Reshape((1, 1, 1), name="reconstruction")(keras.layers.Dense(1)(index))
    model = keras.Model(index, {"classification": score, "reconstruction": pixel})
    compile_detector(model, keras.optimizers.SGD(0.0))
    rows = np.arange(200, dtype=np.float32)[:, None]
    targets = {
        "classification": label.astype(np.float32)[:, None],
        "reconstruction": rows[:, :, None, None],
    }
    faces = tf.data.Dataset.from_tensor_slices((rows, targets)).batch(64)
    choose = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: table.set_weights([scores[epoch][:, None]])
    )
    callbacks = [choose, Validation(faces), RunFolder(tmp_path)]
    model.fit(faces, epochs=2, verbose=0, callbacks=callbacks)
    history = read_history(tmp_path)
    assert [row[AUC] for row in history] == pytest.approx(exact, abs=1e-12)
    assert best_epoch(history) == 0
    best = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(best.predict(faces, verbose=0)["classification"][:, 0], scores[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_stops_the_training_and_saves_nothing(tmp_path, value):
    model = build()
    compile_detector(model)
    statistics = model.get_layer("batch_normalization")
    # Only the moving statistics of validation are broken: the loss of training stays finite.
    broken = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: statistics.moving_mean.assign([value] * 8)
    )
    callbacks = [broken, Validation(draw_faces()), RunFolder(tmp_path)]
    with pytest.raises(ValueError, match="finite scores.*for 26 of 26 faces in epoch 1"):
        model.fit(draw_faces(), verbose=0, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []


def test_faces_of_one_class_are_rejected():
    model = build()
    compile_detector(model)
    real = draw_faces().unbatch().filter(lambda _, targets: targets["classification"][0] == 0)
    with pytest.raises(ValueError, match="got 17 real and 0 fake"):
        model.fit(draw_faces(), verbose=0, callbacks=[Validation(real.batch(8))])
    with pytest.raises(ValueError, match="got 0 real and 0 fake"):
        model.fit(draw_faces(), verbose=0, callbacks=[Validation(draw_faces().take(0))])


def test_a_model_with_other_losses_is_rejected():
    model = build()
    model.compile("sgd", {"classification": "binary_crossentropy", "reconstruction": "mse"})
    with pytest.raises(ValueError, match="Compile it with compile_detector"):
        model.fit(draw_faces(), verbose=0, callbacks=[Validation(draw_faces())])


TWO_DEVICES = """
import sys
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras

from tests.training import test_validation as tests

faces = tests.draw_faces(27, batch_size=6)  # of the last batch, one device gets fewer
with tf.distribute.MirroredStrategy().scope():
    model = tests.build()
    # Without it, Keras gives each device its own moving statistics (3.15.1).
    model.get_layer("batch_normalization").synchronized = True
    tests.compile_detector(model, keras.optimizers.SGD(0.0))
trained = tests.draw_faces(24, batch_size=8)
# Given: without it, Keras runs one more step of empty batches (3.15.1).
history = model.fit(
    trained, steps_per_epoch=3, verbose=0, callbacks=[tests.Validation(faces)]
).history
assert model.distribute_strategy.num_replicas_in_sync == 2

one = tests.build()
one.set_weights(model.get_weights())
tests.compile_detector(one)
whole = tests.draw_faces(27, batch_size=27)
evaluated = one.evaluate(whole, verbose=0, return_dict=True)
score, label = one.predict(whole, verbose=0), next(iter(whole))[1]
evaluated["classification_frame_auc"] = tests.roc_auc_score(
    label["classification"], score["classification"]
)
for name, value in evaluated.items():
    assert history[f"val_{name}"] == [tests.pytest.approx(value, rel=1e-5)], name
"""


@pytest.mark.slow
def test_two_devices_share_the_faces_of_a_user():
    command = [sys.executable, "-c", TWO_DEVICES]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
