"""What the options of `train` do, by what they make of a detector of a few weights."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, draw_order, list_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.options import (
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    RunOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.training import callbacks
from jdfd_keras.training.checkpoint import load_checkpoint
from jdfd_keras.training.train import train
from jdfd_keras.training.training_data import gather

AUC = "val_classification_frame_auc"
STILL = OptimizerOptions(learning_rate=1e-30, classifier_learning_rate=1e-30)  # moves no weight


def read_split(directory, split):
    """Read a split as float32 images and labels."""
    faces = list_faces(directory, read_faces(directory, split=split, columns=COLUMNS))
    images = np.stack([faces.read(index) for index in range(len(faces))])
    return images.astype(np.float32), faces.label


def losses_of(model, images, labels, smoothing=0.0):
    """Work out cross-entropy and squared error of each face, in float64."""
    outputs = model.predict(images, verbose=0)
    score = outputs["classification"][:, 0].astype(np.float64)
    smooth = labels * (1 - smoothing) + smoothing / 2
    entropy = -(smooth * np.log(score) + (1 - smooth) * np.log(1 - score))
    error = outputs["reconstruction"].astype(np.float64) - (images / 127.5 - 1)
    return entropy, (error**2).mean(axis=(1, 2, 3))


@pytest.fixture
def told_aucs(monkeypatch):
    """A function that says what validation is to give, epoch by epoch."""

    def tell(values):
        left = iter(values)

        def evaluate(self, *arguments, **options):
            losses = dict.fromkeys(("loss", "classification_loss", "reconstruction_loss"), 1.0)
            return losses | {"classification_frame_auc": next(left)}

        monkeypatch.setattr(keras.Model, "evaluate", evaluate)

    return tell


@pytest.mark.parametrize(
    ("patience", "aucs", "epochs", "best"),
    [
        (2, [0.8, 0.7, 0.8, 0.7, 0.79, 0.9], 5, 3),  # as good is good enough
        (0, [0.9, 0.1, 0.1, 0.1], 4, 1),
    ],
    ids=["two", "none"],
)
def test_patience_ends_the_training_after_so_many_epochs_without_a_better_one(
    prepared_set, tmp_path, stand_in, told_aucs, patience, aucs, epochs, best
):
    told_aucs(aucs)
    options = TrainOptions(epochs=len(aucs), batch_size=34, patience=patience)
    run = train(prepared_set, tmp_path / "run", options=options)
    assert [row[AUC] for row in run.history] == aucs[:epochs]
    assert (run.best_epoch, run.best_frame_auc) == (best, aucs[best - 1])
    assert load_checkpoint(tmp_path / "run").epoch == epochs


def test_an_average_of_the_weights_is_validated_and_kept_and_changes_no_step(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    steps = []
    after_step = callbacks.StopAtNaN.on_train_batch_end

    def record(self, batch, logs=None):
        after_step(self, batch, logs)
        steps.append(self.model.get_weights())

    monkeypatch.setattr(callbacks.StopAtNaN, "on_train_batch_end", record)
    fast = {"learning_rate": 0.3, "classifier_learning_rate": 0.3, "decay_rate": 1.0}

    def run_with(average):
        steps.clear()
        run = train(
            prepared_set,
            tmp_path / f"run{average}",
            optimizer=OptimizerOptions(average=average, **fast),
            options=TrainOptions(epochs=2, batch_size=12),
        )
        assert len(steps) == 2 * 3
        return run, list(steps)

    _, plain = run_with(0.0)
    run, averaged = run_with(0.7)
    for one, other in zip(plain, averaged, strict=True):
        for weight, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(weight, same)

    average, of_epochs = None, []
    for step, weights in enumerate(plain, start=1):
        if average is None:
            average = [w.astype(np.float64) for w in weights]
        else:
            average = [0.7 * a + 0.3 * w for a, w in zip(average, weights, strict=True)]
        if step % 3 == 0:
            of_epochs.append(average)
    images, labels = read_split(prepared_set, "val")
    for name, epoch in {"best": run.best_epoch, "last": 2}.items():
        model = keras.models.load_model(run.directory / f"{name}.keras")
        for found, expected in zip(model.get_weights(), of_epochs[epoch - 1], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        kernel = model.get_weights()[0]
        assert np.abs(kernel - plain[3 * epoch - 1][0]).max() > 1e-3, "no mistake could show"
        entropy, error = (of.mean() for of in losses_of(model, images, labels))
        row = run.history[epoch - 1]
        assert row["val_classification_loss"] == pytest.approx(entropy, rel=1e-5)
        assert row["val_reconstruction_loss"] == pytest.approx(error, rel=1e-5)


def train_a_step(data, out, batch_size, **options):
    """Train a step of all faces that moves nothing; give the epoch's row and the model."""
    told = TrainOptions(epochs=1, batch_size=batch_size)
    run = train(data, out, optimizer=STILL, options=told, **options)
    return run.history[0], keras.models.load_model(out / "last.keras")


def test_losses_are_means_by_weight_in_training_and_plain_ones_in_validation(
    prepared_set, tmp_path, stand_in
):
    row, model = train_a_step(
        prepared_set,
        tmp_path / "run",
        batch_size=34,
        pipeline=PipelineOptions(class_weights=True, reconstruct="real"),
        loss=LossOptions(0.7, 0.4, label_smoothing=0.2),
    )
    for split, prefix in {"train": "", "val": "val_"}.items():
        images, labels = read_split(prepared_set, split)
        entropy, error = losses_of(model, images, labels, smoothing=0.2)
        if split == "train":
            entropy = np.average(entropy, weights=34 / (2 * np.bincount(labels)[labels]))
            error = error[labels == 0].mean()
        else:
            entropy, error = entropy.mean(), error.mean()
        assert row[f"{prefix}classification_loss"] == pytest.approx(entropy, rel=1e-5)
        assert row[f"{prefix}reconstruction_loss"] == pytest.approx(error, rel=1e-5)
        assert row[f"{prefix}loss"] == pytest.approx(0.7 * entropy + 0.4 * error, rel=1e-5)


def test_unlabelled_faces_teach_the_decoder_alone(prepared_set, tmp_path, stand_in):
    foreign = UnlabelledOptions((str(prepared_set),), 0.3)
    train_faces = gather(prepared_set, foreign, seed=0, allow_leak=False).train
    assert len(train_faces) == 34 + 10
    row, model = train_a_step(
        prepared_set, tmp_path / "run", batch_size=len(train_faces), unlabelled=foreign
    )
    images = np.stack([train_faces.read(index) for index in range(len(train_faces))])
    labels = train_faces.label
    entropy, error = losses_of(model, images.astype(np.float32), np.maximum(labels, 0))
    assert row["classification_loss"] == pytest.approx(entropy[labels != -1].mean(), rel=1e-5)
    assert row["reconstruction_loss"] == pytest.approx(error.mean(), rel=1e-5)
    own = error[labels != -1].mean()
    assert own != pytest.approx(error.mean(), rel=1e-4), "no mistake could show"


FOREIGN = "the prepared set"


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (
            {"pipeline": PipelineOptions(reconstruct="real"), "unlabelled": FOREIGN},
            "reconstruct 'all' with unlabelled faces",
        ),
        (
            {"model": ModelOptions(decoder=False), "unlabelled": FOREIGN},
            "Expected a decoder, since unlabelled faces teach it alone",
        ),
        ({"options": TrainOptions(batch_size=0)}, "batch_size >= 1; got 20 and 0"),
        ({"options": TrainOptions(batch_size=-4)}, "batch_size >= 1; got 20 and -4"),
        ({"options": TrainOptions(patience=-1)}, "of 0, for none, or above; got -1, 10 and 0"),
        ({"run": RunOptions(checkpoint_minutes=-0.5)}, "or above; got 0, -0.5 and 0"),
        ({"run": RunOptions(checkpoint_steps=-2)}, "or above; got 0, 10 and -2"),
        ({"loss": LossOptions(label_smoothing=1.0)}, "label_smoothing from 0 to below 1; got 1"),
        (
            {"pipeline": PipelineOptions(balance=True, class_weights=True)},
            "balance or class_weights; got both",
        ),
    ],
    ids=[
        *("real faces to rebuild", "no decoder", "no batch", "less than none", "no patience"),
        *("no minutes", "no steps", "all smooth", "balanced twice"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    prepared_set, tmp_path, stand_in, groups, reason
):
    if groups.get("unlabelled") == FOREIGN:
        groups = groups | {"unlabelled": UnlabelledOptions((str(prepared_set),), 0.5)}
    with pytest.raises(ValueError, match=re.escape(reason)):
        train(prepared_set, tmp_path / "run", **groups)
    assert not (tmp_path / "run").exists()


def raise_in_fit(monkeypatch, error):
    def fit(self, *arguments, **options):
        raise error

    monkeypatch.setattr(keras.Model, "fit", fit)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nwith shape"),
        MemoryError("OOM when allocating tensor"),
    ],
    ids=["of a device", "of the machine"],
)
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "advice"),
    [
        (16, 1, "Try --batch-size 8 --accumulate 2, which averages as many faces."),
        (6, 3, "Try --batch-size 3 --accumulate 6, which averages as many faces."),
    ],
    ids=["16", "6 by 3"],
)
def test_too_little_memory_is_told_with_what_to_try(
    prepared_set, tmp_path, stand_in, monkeypatch, error, batch_size, accumulate, advice
):
    raise_in_fit(monkeypatch, error)
    with pytest.raises(ValueError) as refused:
        train(
            prepared_set,
            tmp_path / "run",
            optimizer=OptimizerOptions(accumulate=accumulate),
            options=TrainOptions(batch_size=batch_size),
        )
    assert str(refused.value) == (
        f"Expected memory for {batch_size} faces of 71 pixels at once; got 'OOM when allocating "
        f"tensor'. {advice}"
    )


def test_too_little_memory_that_says_nothing_is_named_by_its_kind(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    raise_in_fit(monkeypatch, MemoryError())
    with pytest.raises(ValueError, match="memory for 4 faces of 71 pixels at once; got 'MemoryErr"):
        train(prepared_set, tmp_path / "run")


def test_another_failure_of_a_device_is_not_taken_for_too_little_memory(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    raise_in_fit(monkeypatch, tf.errors.InternalError(None, None, "a device is lost"))
    with pytest.raises(tf.errors.InternalError, match="a device is lost"):
        train(prepared_set, tmp_path / "run")


def test_a_loss_that_is_no_number_names_the_faces_of_its_step_and_keeps_the_epochs_before(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    # 34 faces by 12 are 3 steps; the last of the second epoch has the faces 60 to 71 of all
    # passes, the end of the second and the begin of the third.
    real = callbacks.StopAtNaN.on_train_batch_end
    seen = []

    def break_later(self, batch, logs=None):
        seen.append(batch)
        real(self, batch, logs | {"loss": float("nan")} if len(seen) == 6 else logs)

    monkeypatch.setattr(callbacks.StopAtNaN, "on_train_batch_end", break_later)
    with pytest.raises(ValueError, match="got nan in epoch 2, step 3, of the faces ") as stopped:
        train(
            prepared_set,
            tmp_path / "run",
            options=TrainOptions(epochs=3, batch_size=12, seed=5),
            pipeline=PipelineOptions(balance=True),
        )
    faces = list_faces(prepared_set, read_faces(prepared_set, split="train", columns=COLUMNS))
    passes = [draw_order(faces.label, seed=5, number=n, balance=True) for n in range(3)]
    expected = [faces.name(index) for index in np.concatenate(passes)[60:72].tolist()]
    named = re.search("of the faces (.*?)\\. The last checkpoint", str(stopped.value))[1]
    assert named.split(", ") == expected
    assert load_checkpoint(tmp_path / "run").epoch == 1


def test_a_rate_that_is_far_too_large_is_stopped_in_the_step_after_the_first(
    prepared_set, tmp_path, stand_in
):
    wild = OptimizerOptions(learning_rate=1e30, classifier_learning_rate=1e30)
    with pytest.raises(ValueError, match="got (nan|inf) in epoch 1, step 2, of the faces ") as stop:
        train(prepared_set, tmp_path / "run", optimizer=wild, options=TrainOptions(batch_size=8))
    faces = list_faces(prepared_set, read_faces(prepared_set, split="train", columns=COLUMNS))
    order = draw_order(faces.label, seed=0, number=0)
    assert ", ".join(faces.name(index) for index in order[8:16].tolist()) in str(stop.value)
    assert not (tmp_path / "run" / "checkpoint.npz").exists()
