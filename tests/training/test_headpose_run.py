"""Training of Headpose: its run folder, what it says of faces without a pose, and what it lacks."""

import hashlib
import shutil

import numpy as np
import pytest

from jdfd_keras.evaluation.calibrate import calibrate
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.io.files import OPTIONS, load_options, save_options
from jdfd_keras.options import FaceOptions, ModelOptions, TrainOptions
from jdfd_keras.training.headpose_run import (
    HEADPOSE,
    check_has_network,
    is_headpose_run,
    load_headpose_run,
    train_headpose,
)
from jdfd_keras.training.headpose_svm import HeadPoses, load_head_poses
from jdfd_keras.training.run_folder import (
    MONITOR,
    digest_model,
    load_run_model,
    read_history,
    read_provenance,
)
from jdfd_keras.training.train import train

METHOD = ModelOptions(method="headpose")


def init_in(out):
    def init():
        out.mkdir()
        options = {"faces": FaceOptions(), "model": METHOD, "train": TrainOptions()}
        save_options(out / OPTIONS, **options)

    return init


def test_a_run_has_the_machine_and_its_auc_on_the_validation_faces(headpose_run, prepared_set):
    val = load_head_poses(prepared_set, split="val")
    score = load_headpose_run(headpose_run).machine(val.features)
    fake, real = score[val.label == 1], score[val.label == 0]
    pairs = fake[:, None] - real
    (row,) = read_history(headpose_run)
    assert row[MONITOR] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    surprise = -np.log(np.where(val.label == 1, score, 1 - score))
    assert row["val_loss"] == pytest.approx(surprise.mean())
    assert row["train_faces_without_pose"] == row["val_faces_without_pose"] == 0
    assert load_options(headpose_run / OPTIONS, "model", ModelOptions).method == "headpose"
    splits = set(read_provenance(headpose_run)["split"].to_pylist())
    assert splits == {"train", "val"}
    names = {path.name for path in headpose_run.iterdir()}
    assert names == {OPTIONS, HEADPOSE, "history.csv", "training_faces.parquet"}


def test_its_digest_is_that_of_the_machine(headpose_run):
    expected = hashlib.sha256((headpose_run / HEADPOSE).read_bytes()).hexdigest()
    assert digest_model(headpose_run) == expected


def test_a_finished_run_is_left_as_it_is_and_other_options_are_refused(
    headpose_run, prepared_set, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(headpose_run, out)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    trained = train(prepared_set, out, model=METHOD)
    assert (trained.epochs, trained.best_epoch) == (1, 1)
    assert trained.validation_frame_auc == read_history(headpose_run)[0][MONITOR]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()} == before
    with pytest.raises(ValueError, match="seed"):
        train(prepared_set, out, model=METHOD, train=TrainOptions(seed=1))


def test_faces_without_a_pose_are_counted_and_not_used(remove_landmarks, tmp_path, capsys):
    data = remove_landmarks(lambda row: row.frame_index == 0)
    splits = {name: load_head_poses(data, split=name) for name in ("train", "val")}
    missing = {name: int(np.isnan(one.features[:, 0]).sum()) for name, one in splits.items()}
    assert all(missing.values())
    (row,) = train_headpose(data, tmp_path / "run", TrainOptions(), init=init_in(tmp_path / "run"))
    assert row["train_faces_without_pose"] == missing["train"]
    assert row["val_faces_without_pose"] == missing["val"]
    printed = capsys.readouterr().err
    count = len(splits["train"].label)
    assert f"no head pose for {missing['train']} of {count} training faces" in printed
    assert f"support vector machine to {count - missing['train']} faces" in printed
    assert np.isfinite(row[MONITOR])


def test_data_without_landmarks_leave_no_folder_behind(remove_landmarks, tmp_path):
    with pytest.raises(ValueError, match="Expected faces with landmarks in .* got none"):
        train(remove_landmarks(lambda _: True), tmp_path / "run", model=METHOD)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("split", "error"),
    [
        ("train", "two or more real and two or more fake faces"),
        ("val", "real and fake faces with a head pose in the val split .* 0 fake"),
    ],
)
def test_a_class_without_a_pose_is_named(remove_landmarks, prepared_set, tmp_path, split, error):
    poses = load_head_poses(prepared_set, split=split)
    fakes = set(poses.video_id[poses.label == 1])
    data = remove_landmarks(lambda row: row.video_id in fakes)
    with pytest.raises(ValueError, match=error):
        train(data, tmp_path / "run", model=METHOD)
    assert not (tmp_path / "run").exists()


def test_a_run_without_its_machine_is_named(headpose_run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(headpose_run, out)
    (out / HEADPOSE).unlink()
    with pytest.raises(FileNotFoundError, match="its training is not finished"):
        load_headpose_run(out)
    (out / HEADPOSE).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="The file is damaged"):
        load_headpose_run(out)


def test_a_calibration_of_another_machine_names_the_machine(headpose_run, prepared_set, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(headpose_run, out)
    assert load_calibration(out) is None
    assert calibrate(out, prepared_set).calibration == load_calibration(out)
    (out / HEADPOSE).write_bytes(b"another")
    with pytest.raises(
        ValueError, match="to belong to .*headpose.safetensors; got that of another"
    ):
        load_calibration(out)
    (out / HEADPOSE).unlink()
    with pytest.raises(FileNotFoundError, match="Expected a model at .*headpose.safetensors"):
        load_calibration(out)


def test_other_folders_are_no_run_of_headpose(headpose_run, prepared_set, tmp_path):
    assert is_headpose_run(headpose_run) and is_headpose_run(str(headpose_run))
    save_options(tmp_path / OPTIONS, model=ModelOptions())
    for path in (prepared_set, tmp_path, tmp_path / "missing", headpose_run / HEADPOSE):
        assert not is_headpose_run(path)
        check_has_network(path)


def test_what_needs_a_network_says_that_there_is_none(headpose_run, tmp_path):
    from jdfd_keras.experiments.robustness import measure_robustness
    from jdfd_keras.serving.export.exporter import export_detector
    from jdfd_keras.serving.serve import serve

    calls = {
        "load": lambda: load_run_model(headpose_run),
        "export": lambda: export_detector(headpose_run, tmp_path / "exported"),
        "serve": lambda: serve(headpose_run),
        "robustness": lambda: measure_robustness(headpose_run, {"a": "data"}, tmp_path / "out"),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match="Headpose is a support vector machine without a netw"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("distance", [0.0, 9.0])
def test_head_poses_that_tell_nothing_are_said(distance, tmp_path, monkeypatch, capsys):
    rng, label = np.random.default_rng(3), np.arange(40) % 2
    features = rng.normal(size=(40, 12)) + distance * label[:, None]
    poses = HeadPoses(features, label, np.array([f"v{n}" for n in range(40)], object))
    module = "jdfd_keras.training.headpose_svm"
    monkeypatch.setattr(f"{module}.load_head_poses", lambda *args, **kwargs: poses)
    out = tmp_path / "run"
    train_headpose(tmp_path, out, TrainOptions(), init=init_in(out))
    machine = load_headpose_run(out).machine
    falls = np.corrcoef(machine(features), machine.decide(features))[0, 1] < 0
    assert falls == (distance == 0)
    assert ("do not tell fakes from real ones" in capsys.readouterr().err) == falls
