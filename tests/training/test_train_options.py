"""Effects of the options of `train` on a detector of a few weights."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, epoch_order, index_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.io.files import load_options
from jdfd_keras.options import (
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
)
from jdfd_keras.training import callbacks
from jdfd_keras.training.checkpoint import load_checkpoint
from jdfd_keras.training.devices import Devices, resolve_precision
from jdfd_keras.training.fast_layers import FastModel
from jdfd_keras.training.train import train
from jdfd_keras.training.training_data import load_training_data
from jdfd_keras.training.validation import Validation

AUC = "val_classification_frame_auc"
FROZEN = OptimizerOptions(learning_rate=1e-30, classifier_learning_rate=1e-30)


def read_split(directory, split):
    """Read a split as float32 images and labels."""
    faces = index_faces(directory, read_faces(directory, split=split, columns=COLUMNS))
    images = np.stack([faces.read(index) for index in range(len(faces))])
    return images.astype(np.float32), faces.label


def losses_of(model, images, labels, smoothing=0.0):
    """Compute cross-entropy and squared error of each face, in float64."""
    outputs = model.predict(images, verbose=0)
    score = outputs["classification"][:, 0].astype(np.float64)
    smooth = labels * (1 - smoothing) + smoothing / 2
    entropy = -(smooth * np.log(score) + (1 - smooth) * np.log(1 - score))
    error = outputs["reconstruction"].astype(np.float64) - (images / 127.5 - 1)
    return entropy, (error**2).mean(axis=(1, 2, 3))


@pytest.fixture
def fake_aucs(monkeypatch):
    """A function that sets the validation AUC of each epoch."""

    def set_aucs(values):
        remaining = iter(values)

        def validate(self, epoch, logs):
            losses = ("val_loss", "val_classification_loss", "val_reconstruction_loss")
            logs |= dict.fromkeys(losses, 1.0) | {AUC: next(remaining)}

        monkeypatch.setattr(Validation, "on_epoch_end", validate)

    return set_aucs


@pytest.mark.parametrize(
    ("patience", "aucs", "epochs", "best"),
    [
        (2, [0.8, 0.7, 0.8, 0.7, 0.79, 0.9], 5, 3),  # an equal AUC counts as an improvement
        (0, [0.9, 0.1, 0.1, 0.1], 4, 1),
    ],
    ids=["two", "none"],
)
@pytest.mark.slow
def test_patience_stops_the_training_after_epochs_without_improvement(
    prepared_set, tmp_path, stand_in, fake_aucs, patience, aucs, epochs, best
):
    fake_aucs(aucs)
    options = TrainOptions(epochs=len(aucs), batch_size=34, patience=patience)
    run = train(prepared_set, tmp_path / "run", train=options)
    assert [row[AUC] for row in run.history] == aucs[:epochs]
    assert (run.best_epoch, run.validation_frame_auc) == (best, aucs[best - 1])
    assert load_checkpoint(tmp_path / "run").epoch == epochs


@pytest.mark.slow
def test_the_average_of_the_weights_is_validated_and_saved_and_changes_no_step(
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
            train=TrainOptions(epochs=2, batch_size=12),
        )
        assert len(steps) == 2 * 3
        return run, list(steps)

    _, plain = run_with(0.0)
    run, averaged = run_with(0.7)
    for one, other in zip(plain, averaged, strict=True):
        for weight, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(weight, same)

    average, epoch_averages = None, []
    for step, weights in enumerate(plain, start=1):
        if average is None:
            average = [w.astype(np.float64) for w in weights]
        else:
            average = [0.7 * a + 0.3 * w for a, w in zip(average, weights, strict=True)]
        if step % 3 == 0:
            epoch_averages.append(average)
    images, labels = read_split(prepared_set, "val")
    for name, epoch in {"best": run.best_epoch, "last": 2}.items():
        model = keras.models.load_model(run.directory / f"{name}.keras")
        for found, expected in zip(model.get_weights(), epoch_averages[epoch - 1], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        kernel = model.get_weights()[0]
        assert np.abs(kernel - plain[3 * epoch - 1][0]).max() > 1e-3, (
            "the test would pass without an effect"
        )
        entropy, error = (values.mean() for values in losses_of(model, images, labels))
        row = run.history[epoch - 1]
        assert row["val_classification_loss"] == pytest.approx(entropy, rel=1e-5)
        assert row["val_reconstruction_loss"] == pytest.approx(error, rel=1e-5)


def train_a_step(data, out, batch_size, **options):
    """Train one step that changes no weight; return the history row and the model."""
    one_epoch = TrainOptions(epochs=1, batch_size=batch_size)
    run = train(data, out, optimizer=FROZEN, train=one_epoch, **options)
    return run.history[0], keras.models.load_model(out / "last.keras")


@pytest.mark.slow
def test_losses_are_means_of_the_learnt_faces_with_class_weights_in_training_only(
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
        entropy, error = entropy.mean(), error[labels == 0].mean()
        assert row[f"{prefix}classification_loss"] == pytest.approx(entropy, rel=1e-5)
        assert row[f"{prefix}reconstruction_loss"] == pytest.approx(error, rel=1e-5)
        assert row[f"{prefix}loss"] == pytest.approx(0.7 * entropy + 0.4 * error, rel=1e-5)


@pytest.mark.slow
def test_unlabelled_faces_train_only_the_decoder(prepared_set, tmp_path, stand_in):
    unlabelled = UnlabelledOptions((str(prepared_set),), 0.3)
    train_faces = load_training_data(prepared_set, unlabelled, seed=0, allow_leak=False).train
    assert len(train_faces) == 34 + 10
    row, model = train_a_step(
        prepared_set, tmp_path / "run", batch_size=len(train_faces), unlabelled=unlabelled
    )
    images = np.stack([train_faces.read(index) for index in range(len(train_faces))])
    labels = train_faces.label
    entropy, error = losses_of(model, images.astype(np.float32), np.maximum(labels, 0))
    assert row["classification_loss"] == pytest.approx(entropy[labels != -1].mean(), rel=1e-5)
    assert row["reconstruction_loss"] == pytest.approx(error.mean(), rel=1e-5)
    labelled_error = error[labels != -1].mean()
    assert labelled_error != pytest.approx(error.mean(), rel=1e-4), (
        "the test would pass without an effect"
    )


UNLABELLED = "the prepared set"


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (
            {"pipeline": PipelineOptions(reconstruct="real"), "unlabelled": UNLABELLED},
            "reconstruct 'real'",
        ),
        (
            {"model": ModelOptions(decoder=False), "unlabelled": UNLABELLED},
            "got decoder False",
        ),
        ({"train": TrainOptions(epochs=0)}, "epochs >= 1; got 0"),
        ({"train": TrainOptions(batch_size=-4)}, "batch_size >= 1; got -4"),
        ({"train": TrainOptions(patience=-1)}, "patience >= 0; got -1"),
        ({"train": TrainOptions(seed=2**32)}, "seed from 0 to 4294967295; got 4294967296"),
        ({"runtime": TrainRuntime(checkpoint_minutes=-0.5)}, "checkpoint_minutes >= 0; got -0.5"),
        ({"runtime": TrainRuntime(checkpoint_steps=-2)}, "checkpoint_steps >= 0; got -2"),
        ({"loss": LossOptions(label_smoothing=1.0)}, "label_smoothing from 0 to below 1; got 1"),
        (
            {"pipeline": PipelineOptions(balance=True, class_weights=True)},
            "balance or class_weights; got both",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_options_are_rejected_before_anything_is_written(
    prepared_set, tmp_path, stand_in, groups, reason
):
    if groups.get("unlabelled") == UNLABELLED:
        groups = groups | {"unlabelled": UnlabelledOptions((str(prepared_set),), 0.5)}
    with pytest.raises(ValueError, match=re.escape(reason)):
        train(prepared_set, tmp_path / "run", **groups)
    assert not (tmp_path / "run").exists()


def raise_in_fit(monkeypatch, error):
    def fit(self, *arguments, **options):
        raise error

    monkeypatch.setattr(keras.Model, "fit", fit)


@pytest.mark.parametrize("kind", [tf.errors.ResourceExhaustedError, MemoryError])
def test_out_of_memory_suggests_a_batch_size(prepared_set, tmp_path, stand_in, monkeypatch, kind):
    text = "OOM when allocating tensor\nwith shape"
    raise_in_fit(monkeypatch, kind(text) if kind is MemoryError else kind(None, None, text))
    with pytest.raises(ValueError) as raised:
        train(
            prepared_set,
            tmp_path / "run",
            optimizer=OptimizerOptions(accumulate=3),
            train=TrainOptions(batch_size=6),
        )
    assert "6 faces of 71 pixels; got 'OOM when" in str(raised.value)
    assert "--batch-size 3 --accumulate 6" in str(raised.value)


def test_out_of_memory_without_a_message_is_reported_by_its_type(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    raise_in_fit(monkeypatch, MemoryError())
    with pytest.raises(ValueError, match=" 4 faces of 71 pixels; got 'MemoryErr"):
        train(prepared_set, tmp_path / "run")


def test_other_device_errors_are_not_reported_as_out_of_memory(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    raise_in_fit(monkeypatch, tf.errors.InternalError(None, None, "lost device"))
    with pytest.raises(tf.errors.InternalError, match="lost device"):
        train(prepared_set, tmp_path / "run")


@pytest.mark.slow
def test_a_nan_loss_is_reported_with_the_faces_of_its_step_and_keeps_earlier_epochs(
    prepared_set, tmp_path, stand_in, monkeypatch
):
    # 34 faces in batches of 12 are 3 steps. The last step of the second epoch has the faces 60 to
    # 71 of the stream: the end of the second pass and the start of the third.
    original = callbacks.StopAtNaN.on_train_batch_end
    batches = []

    def set_nan(self, batch, logs=None):
        batches.append(batch)
        original(self, batch, logs | {"loss": float("nan")} if len(batches) == 6 else logs)

    monkeypatch.setattr(callbacks.StopAtNaN, "on_train_batch_end", set_nan)
    with pytest.raises(ValueError, match="got nan in epoch 2, step 3, ") as raised:
        train(
            prepared_set,
            tmp_path / "run",
            train=TrainOptions(epochs=3, batch_size=12, seed=5),
            pipeline=PipelineOptions(balance=True),
        )
    faces = index_faces(prepared_set, read_faces(prepared_set, split="train", columns=COLUMNS))
    passes = [epoch_order(faces.label, seed=5, epoch=n, balance=True) for n in range(3)]
    expected = [faces.name(index) for index in np.concatenate(passes)[60:72].tolist()]
    names = re.search("with the faces (.*?)\\. The last checkpoint", str(raised.value))[1]
    assert names.split(", ") == expected
    assert load_checkpoint(tmp_path / "run").epoch == 1


def test_a_far_too_large_learning_rate_stops_the_training_after_the_first_step(
    prepared_set, tmp_path, stand_in
):
    wild = OptimizerOptions(learning_rate=1e30, classifier_learning_rate=1e30)
    with pytest.raises(ValueError, match="got (nan|inf) in epoch 1, step 2, ") as raised:
        train(prepared_set, tmp_path / "run", optimizer=wild, train=TrainOptions(batch_size=8))
    faces = index_faces(prepared_set, read_faces(prepared_set, split="train", columns=COLUMNS))
    order = epoch_order(faces.label, seed=0, epoch=0)
    assert ", ".join(faces.name(index) for index in order[8:16].tolist()) in str(raised.value)
    assert not (tmp_path / "run" / "checkpoint.npz").exists()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.slow
def test_only_a_finished_run_drops_weights_and_optimizer_state(
    prepared_set, tmp_path, stand_in, fake_aucs, keep
):
    fake_aucs([0.9, 0.8, 0.7, 0.6])
    counts, save = [], callbacks.RunFolder._save

    def record(self, checkpoint):
        save(self, checkpoint)
        counts.append(len(load_checkpoint(self.directory).weights))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.RunFolder, "_save", record)
        options = TrainOptions(epochs=4, batch_size=34, patience=2)
        runtime = TrainRuntime(keep_optimizer=keep)
        run = train(prepared_set, tmp_path / "run", train=options, runtime=runtime)
    assert len(counts) == run.epochs == 3  # stopped by its patience
    assert counts[0] > 0 and counts[1] == counts[0]
    assert counts[2] == (counts[0] if keep else 0)
    files = {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()}
    assert train(prepared_set, run.directory, train=options) == run
    assert {path: path.read_bytes() for path in files} == files
    longer = dataclasses.replace(options, epochs=9, patience=5)
    with pytest.raises(ValueError, match="got different ones"):
        train(prepared_set, run.directory, ModelOptions(encoder_weights="none"), train=longer)


@pytest.mark.parametrize(
    ("has_bfloat16", "precision"), [(True, "mixed_bfloat16"), (False, "float32")]
)
def test_the_automatic_precision_is_that_of_the_processor_and_of_a_resumed_run(
    prepared_set, tmp_path, stand_in, monkeypatch, capsys, has_bfloat16, precision
):
    processor = "jdfd_keras.training.devices.has_bfloat16"
    monkeypatch.setattr(processor, lambda: has_bfloat16)
    options, out = TrainOptions(epochs=1, batch_size=34), tmp_path / "run"
    train(prepared_set, out, train=options)
    assert load_options(out / "options.json", "train", TrainOptions).precision == precision
    messages = capsys.readouterr().err
    assert f"precision {precision}: the processor has" in messages
    assert messages.index("building the graph") < messages.index("epoch 1/1")

    monkeypatch.setattr(processor, lambda: not has_bfloat16)
    assert train(prepared_set, out, train=options).epochs == 1
    assert f"precision {precision}: that of the run" in capsys.readouterr().err
    other = {"float32": "mixed_bfloat16"}.get(precision, "float32")
    with pytest.raises(ValueError, match="precision"):
        train(prepared_set, out, train=dataclasses.replace(options, precision=other))


def test_the_automatic_precision_is_float32_on_gpus_and_on_several_machines(monkeypatch, tmp_path):
    monkeypatch.setattr("jdfd_keras.training.devices.has_bfloat16", lambda: True)
    several = Devices(num_workers=2, replicas=2)
    assert resolve_precision(TrainOptions(), tmp_path, several).precision == "float32"
    monkeypatch.setattr(Devices, "has_gpu", True)
    assert resolve_precision(TrainOptions(), tmp_path, Devices()).precision == "float32"
    mixed = TrainOptions(precision="mixed_bfloat16")
    assert resolve_precision(mixed, tmp_path, Devices()) == mixed


@pytest.mark.parametrize(
    ("devices", "is_fast"), [(Devices(), True), (Devices(replicas=2), False)], ids=["1", "2"]
)
def test_one_cpu_trains_with_fast_layers(
    prepared_set, tmp_path, stand_in, monkeypatch, devices, is_fast
):
    kinds = []

    def stop(detector, *arguments):
        kinds.append(isinstance(detector, FastModel))
        raise KeyboardInterrupt

    monkeypatch.setattr("jdfd_keras.training.train.open_devices", lambda strategy: devices)
    monkeypatch.setattr("jdfd_keras.training.train._fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train(prepared_set, tmp_path / "run", train=TrainOptions(batch_size=34))
    assert kinds == [is_fast]
