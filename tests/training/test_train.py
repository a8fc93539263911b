"""`train`: interrupted, finished and rejected runs, and the files that they leave."""

import dataclasses
import json
import shutil

import pytest

from jdfd_keras.datasets.manifest import FaceRow, read_faces, to_rows
from jdfd_keras.datasets.split_tables import read_split_table
from jdfd_keras.options import (
    AugmentOptions,
    FaceOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
)
from jdfd_keras.training import callbacks
from jdfd_keras.training.checkpoint import load_checkpoint
from jdfd_keras.training.run_folder import best_epoch, load_run_model, read_history, read_provenance
from jdfd_keras.training.train import train

TINY = ModelOptions(latent_dim=16, encoder_weights="none")
ADAM = OptimizerOptions(optimizer="adam", learning_rate=1e-3, classifier_learning_rate=1e-3)
TWO_EPOCHS = TrainOptions(epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def interrupted_run(prepared_set, tmp_path_factory, build_stand_in):
    """A run folder of a training that was interrupted in its second epoch."""
    out = tmp_path_factory.mktemp("training") / "run"
    on_epoch_end = callbacks.RunFolder.on_epoch_end

    def interrupt_second(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        on_epoch_end(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.train.build_detector", build_stand_in)
        patch.setattr(callbacks.RunFolder, "on_epoch_end", interrupt_second)
        with pytest.raises(KeyboardInterrupt):
            train(prepared_set, out, TINY, ADAM, TWO_EPOCHS)
    assert len(read_history(out)) == 1
    return out


@pytest.fixture(scope="module")
def finished_run(prepared_set, interrupted_run, build_stand_in):
    """The same run, resumed and finished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.train.build_detector", build_stand_in)
        return train(prepared_set, interrupted_run, TINY, ADAM, TWO_EPOCHS)


@pytest.mark.slow
def test_the_real_network_learns_and_its_model_is_loaded(prepared_set, tmp_path):
    run = train(prepared_set, tmp_path / "run", TINY, ADAM, TrainOptions(epochs=3, batch_size=16))
    losses = [row["reconstruction_loss"] for row in run.history]
    assert losses[2] < losses[1] < losses[0]
    assert "block14_sepconv2" in {
        layer.name for layer in load_run_model(run.directory).model.layers
    }


def test_an_interrupted_run_resumes_after_its_last_finished_epoch(finished_run):
    assert [row["epoch"] for row in finished_run.history] == [1, 2]
    checkpoint = load_checkpoint(finished_run.directory)
    assert (checkpoint.epoch, checkpoint.step) == (2, 0)


def test_the_best_epoch_has_the_highest_validation_auc(finished_run):
    aucs = [row["val_classification_frame_auc"] for row in finished_run.history]
    assert finished_run.validation_frame_auc == max(aucs)
    assert aucs[finished_run.best_epoch - 1] == max(aucs)


def test_the_result_as_json_has_the_best_epoch_and_no_history(finished_run):
    assert finished_run.to_dict() == {
        "directory": str(finished_run.directory),
        "epochs": 2,
        "best_epoch": finished_run.best_epoch,
        "validation_frame_auc": finished_run.validation_frame_auc,
        "validated_on": "labelled fakes",
    }


def test_encoder_weights_of_none_mean_random_weights(prepared_set, finished_run):
    model = dataclasses.replace(TINY, encoder_weights=None)
    assert train(prepared_set, finished_run.directory, model, ADAM, TWO_EPOCHS) == finished_run


@pytest.mark.parametrize(
    ("aucs", "losses", "best"),
    [
        ([0.6, 0.9, 0.8], [0.1, 0.9, 0.1], 1),
        ([0.9, 0.9 - 1e-9], [0.5, 0.1], 0),
        ([0.7, 0.7, 0.7], [0.5, 0.3, 0.4], 1),
        ([0.7, 0.7, 0.6], [0.5, 0.5, 0.1], 1),
    ],
    ids=["AUC", "a small difference", "loss", "later"],
)
def test_the_best_epoch_has_the_highest_auc_then_the_lowest_loss_then_is_the_last(
    aucs, losses, best
):
    rows = zip(aucs, losses, strict=True)
    history = [{"val_classification_frame_auc": auc, "val_loss": loss} for auc, loss in rows]
    assert best_epoch(history) == best


def test_the_run_folder_has_the_options_of_the_run(finished_run):
    options = json.loads((finished_run.directory / "options.json").read_text(encoding="utf-8"))
    assert options["model"] == {
        "method": "jdfd",
        "network": "xception",
        "attention": "none",
        "image_size": 71,
        "latent_dim": 16,
        "decoder": True,
        "decoder_widths": [256, 128, 64, 32],
        "encoder_weights": "none",
        "dropout": 0.0,
        "batch_norm_momentum": 0.9,
    }
    assert options["train"]["epochs"] == 2
    assert options["data"]["name"] == "prepared"
    assert list((finished_run.directory / "logs").rglob("events.out.tfevents.*"))


def test_a_trained_model_is_loaded_with_the_options_of_its_faces(finished_run, face_batch):
    loaded = load_run_model(finished_run.directory)
    assert loaded.faces == FaceOptions(frames_per_video=4, face_size=71)
    assert loaded.model.predict(face_batch, verbose=0)["classification"].shape == (4, 1)


def test_a_finished_run_is_left_unchanged(prepared_set, finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.directory.rglob("*")}
    again = train(prepared_set, finished_run.directory, TINY, ADAM, TWO_EPOCHS)
    assert again == finished_run
    assert {path: path.stat().st_mtime_ns for path in finished_run.directory.rglob("*")} == before


def test_resuming_with_other_options_is_rejected(prepared_set, finished_run):
    with pytest.raises(ValueError, match="batch_size 16 -> 4"):
        train(prepared_set, finished_run.directory, TINY, ADAM, TrainOptions(epochs=2))


def test_a_nan_loss_stops_the_run_and_saves_no_model(prepared_set, tmp_path, stand_in):
    wild = OptimizerOptions(learning_rate=1e30, classifier_learning_rate=1e30)
    with pytest.raises(ValueError, match="loss; got (nan|inf) in epoch 1"):
        train(prepared_set, tmp_path / "run", TINY, wild, TWO_EPOCHS)
    assert [path.name for path in (tmp_path / "run").glob("*.keras")] == []


def test_one_class_is_rejected_before_anything_is_written(prepared_set, change_table, tmp_path):
    data = tmp_path / "prepared"
    shutil.copytree(prepared_set, data)
    change_table(data, FaceRow, lambda rows: [row for row in rows if row.label == 0])
    with pytest.raises(ValueError, match="faces in the train split.* 0 fake"):
        train(data, tmp_path / "run", TINY, ADAM, TWO_EPOCHS)
    assert not (tmp_path / "run").exists()


def test_a_damaged_shard_stops_the_training_with_its_name(prepared_set, tmp_path, stand_in):
    data = tmp_path / "prepared"
    shutil.copytree(prepared_set, data)
    (shard,) = (data / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    offset = read_faces(data, split="train", columns=["offset"])["offset"][3].as_py()
    content[offset + 1000] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"Damaged: .*00000\.tfrecord has, after .*prepare it again"
    ):
        train(data, tmp_path / "run", TINY, ADAM, TWO_EPOCHS)


def test_a_folder_that_is_not_a_prepared_data_set_is_rejected(tmp_path):
    with pytest.raises(OSError, match=f"prepared dataset in {tmp_path};"):
        train(tmp_path, tmp_path / "run", TINY, ADAM, TWO_EPOCHS)


def test_a_file_that_is_not_a_model_is_rejected(tmp_path):
    (tmp_path / "model.keras").write_text("hello")
    with pytest.raises(ValueError, match="model file.*model.keras"):
        load_run_model(tmp_path / "model.keras")
    with pytest.raises(OSError, match="other.keras, which"):
        load_run_model(tmp_path / "other.keras")
    with pytest.raises(OSError, match="which has no best.keras"):
        load_run_model(tmp_path)


@pytest.fixture(scope="module")
def leaking_set(prepared_set, change_table, tmp_path_factory):
    """The prepared set, with one training face labelled with a source of validation."""
    data = tmp_path_factory.mktemp("leaking") / "prepared"
    shutil.copytree(prepared_set, data)

    split_of = read_split_table(data, "official").split_of

    def plant(rows):
        splits = [split_of[row.video_id] for row in rows]
        source_ids, first = rows[splits.index("val")].source_ids, splits.index("train")
        planted = dataclasses.replace(rows[first], source_ids=source_ids)
        return [*rows[:first], planted, *rows[first + 1 :]]

    change_table(data, FaceRow, plant)
    return data


def test_leakage_is_rejected_before_anything_is_written(leaking_set, tmp_path, stand_in):
    with pytest.raises(ValueError, match="got 1 shared source.*--allow-leak"):
        train(leaking_set, tmp_path / "run", TINY, ADAM, TWO_EPOCHS)
    assert not (tmp_path / "run").exists()


def test_allowed_leakage_is_recorded_in_the_run(leaking_set, tmp_path, stand_in):
    allowed = TrainOptions(epochs=1, batch_size=16, allow_leak=True)
    train(leaking_set, tmp_path / "run", TINY, ADAM, allowed)
    options = json.loads((tmp_path / "run/options.json").read_text(encoding="utf-8"))
    assert options["train"]["allow_leak"]
    assert options["data"]["leakage"].startswith("1 source shared")


def test_the_run_folder_has_the_provenance_of_its_faces(prepared_set, finished_run):
    provenance = read_provenance(finished_run.directory)
    rows = [row for row in to_rows(read_faces(prepared_set), FaceRow) if row.split != "test"]
    order = sorted(rows, key=lambda row: row.split == "val")  # training first
    assert provenance["phash"].to_pylist() == [row.phash for row in order]
    assert provenance["split"].to_pylist() == [row.split for row in order]
    assert [tuple(ids) for ids in provenance["source_ids"].to_pylist()] == [
        r.source_ids for r in order
    ]


def test_a_run_trains_with_balance_cache_and_all_augmentations(prepared_set, tmp_path, stand_in):
    run = train(
        prepared_set,
        tmp_path / "run",
        TINY,
        ADAM,
        TWO_EPOCHS,
        PipelineOptions(balance=True, cache=True),
        AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions))),
    )
    options = json.loads((run.directory / "options.json").read_text(encoding="utf-8"))
    assert options["pipeline"]["balance"]
    assert options["pipeline"]["cache"]
    assert set(options["augment"].values()) == {True}
    assert len(run.history) == 2
