"""Training on blended fakes, made from faces that are rendered on the spot."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage import data

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.manifest import MANIFEST, VIDEOS, FaceRow, VideoRow, to_table, write_table
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.datasets.records import SHARDS, encode_face, frame_record
from jdfd_keras.datasets.split_tables import OFFICIAL, write_split_table
from jdfd_keras.datasets.synthetic.clips import vary_portrait
from jdfd_keras.evaluation.calibrate import calibrate
from jdfd_keras.io.files import OPTIONS, load_groups, save_options
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.model.network import digest_weights
from jdfd_keras.options import (
    FAKE_KINDS,
    AugmentOptions,
    FaceOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.training.run_folder import load_run_model, read_provenance
from jdfd_keras.training.train import train
from jdfd_keras.training.training_data import load_training_data

SIZE = 71
ADAM = OptimizerOptions(optimizer="adam", learning_rate=0.001, classifier_learning_rate=0.001)


def write_set(out, *, fakes=0, num_val=2):
    """Write a prepared dataset of 12 people, 8 of them for training; some also have a fake."""
    (out / SHARDS).mkdir(parents=True)
    rng, rows, splits, body = np.random.default_rng(0), [], [], b""
    portraits = vary_portrait(data.astronaut(), 12, seed=0)
    videos = [(portrait, 0) for portrait in portraits] + [(one, 1) for one in portraits[:fakes]]
    for portrait, label in videos:
        corner = portrait.landmarks.mean(axis=0) - 60
        matrix = np.float64([[1, 0, -corner[0]], [0, 1, -corner[1]]]) * SIZE / 120
        crop = cv2.warpAffine(portrait.pixels, matrix, (SIZE, SIZE))
        landmarks = (portrait.landmarks - corner) * SIZE / 120
        video_id = f"made/{'fake' if label else 'real'}/{portrait.name}"
        number = int(portrait.name.removeprefix("person"))
        face = FaceRow(
            video_id=video_id,
            path=f"{video_id}.mp4",
            label=label,
            manipulation="made" if label else "",
            compression="",
            split="",
            source_ids=(portrait.name,),
            frame_index=0,
            time_s=0.0,
            track_id=0,
            box=(0, 0, SIZE, SIZE),
            detector="dlib",
            detector_score=1.0,
            landmarks=tuple(landmarks.ravel().tolist()),
            alignment_residual=0.0,
            sharpness=1.0,
            outside=0.0,
            yaw_deg=0.0,
            phash=rng.bytes(32).hex(),
            shard="00000.tfrecord",
            offset=len(body),
        )
        record = encode_face(crop, label=label, video_id=video_id, frame_index=0)
        body += frame_record(record)
        rows.append(face)
        splits.append("train" if number < 8 else "val" if number < 8 + num_val else "test")
    (out / SHARDS / "00000.tfrecord").write_bytes(body)
    names = [field.name for field in dataclasses.fields(VideoRow) if hasattr(rows[0], field.name)]
    video_rows = [
        VideoRow(**{name: getattr(row, name) for name in names}, file_bytes=1, num_faces=1)
        for row in rows
    ]
    for kind, name, values in ((FaceRow, MANIFEST, rows), (VideoRow, VIDEOS, video_rows)):
        with open(out / name, "wb") as file:
            write_table(file, kind, [to_table(values, kind)])
    save_options(out / OPTIONS, faces=FaceOptions(face_size=SIZE))
    ids = [row.video_id for row in rows]
    table = pd.DataFrame({"video_id": ids, "split": splits, "reason": ""})
    write_split_table(LocalStore(str(out)), OFFICIAL, table, SplitOptions())
    return out


@pytest.fixture(scope="module")
def real_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("real") / "set")


@pytest.fixture(scope="module")
def mixed_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("mixed") / "set", fakes=3)


def fit(directory, out, fakes, *, network="meso4", **pipeline):
    """Train two passes with every augmentation."""
    return train(
        directory,
        out,
        model=ModelOptions(network=network, encoder_weights="none", latent_dim=16),
        optimizer=ADAM,
        train=TrainOptions(epochs=2, batch_size=4),
        pipeline=PipelineOptions(fakes=fakes, **pipeline),
        augment=AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions))),
    )


@pytest.mark.parametrize("fakes", [*FAKE_KINDS, "mixed"])
def test_each_kind_of_fake_trains_two_passes_on_eight_real_faces(real_set, tmp_path, fakes):
    run = fit(real_set, tmp_path / "run", fakes)
    kinds = ", ".join(FAKE_KINDS) if fakes == "mixed" else fakes
    assert run.validated_on == f"blended fakes ({kinds})"
    assert run.epochs == 2 and 0 <= run.validation_frame_auc <= 1
    assert all(np.isfinite(value) for row in run.history for value in row.values())
    assert len({row["loss"] for row in run.history}) == 2
    facts = load_groups(run.directory / OPTIONS)["data"]
    counts = [facts[name] for name in ("train_faces", "blended_fakes", "val_faces")]
    assert counts == [8, 8, 2]
    # A blended fake is no face that another dataset could share.
    assert read_provenance(run.directory).num_rows == 10


def test_the_same_seed_gives_the_same_weights(real_set, tmp_path):
    one, other = (fit(real_set, tmp_path / name, "mixed").directory for name in ("one", "other"))
    assert digest_weights(load_run_model(one).model) == digest_weights(load_run_model(other).model)


@pytest.mark.slow
def test_the_paper_s_network_learns_the_faces_before_blending(real_set, tmp_path):
    run = fit(real_set, tmp_path / "run", "mixed", network="xception", reconstruct="clean")
    assert len({row["reconstruction_loss"] for row in run.history}) == 2
    assert (run.directory / "reconstructions.png").stat().st_size > 1000


def test_labelled_and_blended_fakes_train_together(mixed_set, tmp_path):
    run = fit(mixed_set, tmp_path / "run", "mixed", balance=True)
    facts = load_groups(run.directory / OPTIONS)["data"]
    assert [facts[name] for name in ("train_faces", "blended_fakes")] == [11, 8]
    assert run.validated_on.startswith("blended fakes")  # no labelled one is in validation


def load(directory, **pipeline):
    return load_training_data(
        directory,
        UnlabelledOptions(),
        seed=0,
        allow_leak=False,
        pipeline=PipelineOptions(**pipeline),
    )


def test_real_faces_alone_are_refused_without_fakes(real_set):
    with pytest.raises(ValueError, match="8 real and 0 fake.*--fakes mixed"):
        load(real_set)
    with pytest.raises(ValueError, match="the val split .* 2 real and 0 fake.*--val-fakes mixed"):
        load(real_set, fakes="mixed", val_fakes="none")


def test_labelled_fakes_are_left_to_validation(tmp_path):
    """Eight labelled fakes are of training people, one of a person in validation."""
    directory = write_set(tmp_path / "set", fakes=9)
    both = load(directory, fakes="warped")
    loaded = load(directory, fakes="warped", labelled_fakes=False)
    assert [one.facts.train_faces for one in (both, loaded)] == [16, 8]
    assert [one.facts.blended_fakes for one in (both, loaded)] == [8, 8]
    assert loaded.train.label.tolist() == [0] * 8 + [1] * 8
    assert loaded.train.kinds == ("warped",)
    assert loaded.val.label.tolist() == both.val.label.tolist() == [0, 0, 1]
    assert loaded.facts.validated_on == "labelled fakes"
    assert loaded.facts.digest != both.facts.digest
    rows = loaded.provenance.select(["split", "label"]).to_pylist()
    assert all(row["label"] == 0 for row in rows if row["split"] == "train")
    with pytest.raises(ValueError, match="got fakes 'none'. Try --fakes mixed"):
        load(directory, labelled_fakes=False)
    options = PipelineOptions(fakes="warped", labelled_fakes=False)
    for split, labels in (("train", [0, 1] * 8), ("val", [0, 1, 0, 1, 1])):
        ((_, targets, *_),) = load_faces(directory, split, batch_size=20, options=options)
        found = targets["classification"].numpy().ravel().tolist()
        assert sorted(found) == sorted(labels)


def test_validation_may_use_kinds_that_training_does_not(real_set):
    loaded = load(real_set, fakes="self-blended,local", val_fakes="swapped")
    assert (loaded.train.kinds, loaded.val.kinds) == (("self-blended", "local"), ("swapped",))
    assert loaded.facts.validated_on == "blended fakes (swapped)"


def test_a_single_person_in_validation_is_not_swapped(tmp_path):
    directory = write_set(tmp_path / "set", num_val=1)
    loaded = load(directory, fakes="mixed")
    assert "swapped" in loaded.train.kinds
    assert loaded.val.kinds == ("self-blended", "re-rendered", "local")
    assert "swapped" not in loaded.facts.validated_on
    with pytest.raises(ValueError, match="two or more people in a split .* those of one"):
        load(directory, fakes="swapped")
    with pytest.raises(ValueError, match="two or more people in a split .* those of one"):
        load(directory, fakes="mixed", val_fakes="mixed")


def test_every_validation_face_is_read_once(tmp_path):
    directory = write_set(tmp_path / "set", fakes=9)  # one of a person in validation
    val = load(directory, fakes="local", val_fakes="local").val
    assert sorted(val.label.tolist()) == [0, 0, 1, 1, 1]
    assert len({val.name(index) for index in range(len(val))}) == 5


def test_a_network_without_decoder_refuses_faces_that_train_only_the_decoder(real_set, tmp_path):
    with pytest.raises(ValueError, match="decoder False"):
        train(
            real_set,
            tmp_path / "run",
            model=ModelOptions(network="meso4"),
            train=TrainOptions(allow_leak=True),
            pipeline=PipelineOptions(fakes="local"),
            unlabelled=UnlabelledOptions((str(real_set),), 1.0),
        )
    assert not (tmp_path / "run").exists()


def test_shown_validation_faces_include_a_fake_that_was_blended(real_set):
    real, fake = load(real_set, fakes="mixed").read_examples().reshape(2, -1, SIZE, SIZE, 3)
    assert (real[:, 0] == fake[:, 0]).all() and (real != fake).any()


def test_a_clean_reconstruction_needs_blended_fakes(prepared_set, tmp_path):
    with pytest.raises(ValueError, match="blended fakes with reconstruct 'clean'"):
        fit(prepared_set, tmp_path / "run", "none", reconstruct="clean")
    assert not (tmp_path / "run").exists()


def test_an_odd_batch_would_part_pairs_and_is_refused(real_set, tmp_path):
    with pytest.raises(ValueError, match="even batch_size.*got 3"):
        train(
            real_set,
            tmp_path / "run",
            model=ModelOptions(network="meso4"),
            train=TrainOptions(batch_size=3),
            pipeline=PipelineOptions(fakes="mixed"),
        )
    assert not (tmp_path / "run").exists()


def test_an_unknown_kind_is_named(real_set, tmp_path, capsys):
    words = ["train", str(real_set), "--out", str(tmp_path / "run"), "--fakes", "mixed,blended"]
    assert main(words) == 1
    assert "got 'mixed,blended'" in capsys.readouterr().err


def test_calibration_asks_for_labelled_fakes(real_set, tmp_path):
    run = fit(real_set, tmp_path / "run", "local")
    with pytest.raises(ValueError, match="fake"):
        calibrate(run.directory, real_set)
