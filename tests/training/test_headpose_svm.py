import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from jdfd_keras.training.headpose_svm import (
    HeadPoses,
    HeadPoseSvm,
    fit_headpose_svm,
    load_head_poses,
    load_headpose_svm,
    save_headpose_svm,
)


def draw_poses(count=60, seed=0, spread=3.0):
    """Draw features of real faces around 0 and of fakes around them, four faces per video."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], count // 2)
    scales = np.geomspace(0.01, 10, 12)
    features = rng.normal(0, 1 + (spread - 1) * label[:, None], (count, 12)) * scales + scales
    return HeadPoses(features, label, np.array([f"v{row // 4}" for row in range(count)], object))


def test_decisions_are_those_of_scikit_learn():
    train, test = draw_poses(), draw_poses(seed=1)
    machine = fit_headpose_svm(train)
    scaler = StandardScaler().fit(train.features)
    svm = SVC(kernel="rbf").fit(scaler.transform(train.features), train.label)
    # The default gamma of scikit-learn is that of LIBSVM for standardised features.
    assert svm._gamma == pytest.approx(1 / 12)
    expected = svm.decision_function(scaler.transform(test.features))
    np.testing.assert_allclose(machine.decide(test.features), expected, rtol=1e-9, atol=1e-9)


def test_scores_are_the_sigmoid_of_the_decision_and_separate_fakes():
    machine, test = fit_headpose_svm(draw_poses(200)), draw_poses(80, seed=1)
    score, decision = machine(test.features), machine.decide(test.features)
    expected = 1 / (1 + np.exp(machine.slope * decision + machine.offset))
    np.testing.assert_allclose(score, expected, rtol=1e-12)
    assert machine.slope < 0
    is_higher = score[test.label == 1][:, None] > score[test.label == 0]
    assert is_higher.mean() > 0.95  # the AUC
    assert 0.3 < score.mean() < 0.7


def test_it_overfits_32_faces():
    poses = draw_poses(32, spread=1.0)  # fakes and reals are alike
    poses = poses._replace(features=poses.features + poses.label[:, None] * poses.features.std(0))
    found = fit_headpose_svm(poses).decide(poses.features) > 0
    assert (found == poses.label).mean() > 0.95


def test_unlabelled_faces_and_faces_without_a_pose_are_not_used():
    poses = draw_poses()
    features = np.concatenate([poses.features, poses.features[:1] * 9, np.full((1, 12), np.nan)])
    label, names = np.append(poses.label, [-1, 1]), np.append(poses.video_id, ["u", "v0"])
    one, other = fit_headpose_svm(poses), fit_headpose_svm(HeadPoses(features, label, names))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.slope == other.slope
    assert np.isnan(one(features[-1:])).all() and np.isfinite(one(features[:-1])).all()


def test_a_class_of_one_video_can_be_fitted_and_one_of_one_face_cannot():
    poses = draw_poses(24)
    single = poses._replace(video_id=np.array(["a"] * 12 + ["b"] * 12, object))
    assert np.isfinite(fit_headpose_svm(single)(poses.features)).all()
    rows = np.r_[0:12, 12]
    few = HeadPoses(*(part[rows] for part in poses))
    with pytest.raises(ValueError, match="got 12 real and 1 fake"):
        fit_headpose_svm(few)


def test_faces_of_a_video_are_in_one_fold():
    """Then a machine that knows the videos by heart gives no overconfident probabilities."""
    rng = np.random.default_rng(0)
    label, video = np.repeat([0, 1], 100), np.arange(200) // 10
    centres = rng.normal(0, 1, (20, 12))[video]  # the same within a video, unrelated to the label
    names = np.array([f"v{one}" for one in video], object)
    poses = HeadPoses(centres + rng.normal(0, 0.01, (200, 12)), label, names)
    assert np.abs(fit_headpose_svm(poses)(poses.features) - 0.5).mean() < 0.25
    mixed = poses._replace(video_id=np.arange(200).astype(object))  # each face its own video
    assert np.abs(fit_headpose_svm(mixed)(poses.features) - 0.5).mean() > 0.4


def test_a_saved_machine_gives_exactly_the_same_scores(tmp_path):
    machine, path = fit_headpose_svm(draw_poses()), tmp_path / "headpose.safetensors"
    save_headpose_svm(machine, path)
    loaded = load_headpose_svm(path)
    assert isinstance(loaded, HeadPoseSvm)
    features = draw_poses(seed=2).features
    np.testing.assert_array_equal(loaded(features), machine(features))
    assert b"pickle" not in path.read_bytes() and b"sklearn" not in path.read_bytes()


def test_damaged_and_other_files_are_named(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "headpose.safetensors"
    save_headpose_svm(fit_headpose_svm(draw_poses()), path)
    whole = path.read_bytes()
    for content in (whole[:100], whole[:-8], b"", b"x" * 500):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="support vector machine of head poses in .*headpose"):
            load_headpose_svm(path)
    save_file({"kernel": np.ones(3)}, path)
    with pytest.raises(ValueError, match="got ''mean''"):
        load_headpose_svm(path)
    with pytest.raises(FileNotFoundError):
        load_headpose_svm(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_types_that_numpy_does_not_have_are_named(tmp_path, kind):
    size = {"BF16": 2, "F8_E4M3": 1}[kind] * 12
    header = json.dumps({"mean": {"dtype": kind, "shape": [12], "data_offsets": [0, size]}})
    path = tmp_path / "headpose.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
    with pytest.raises(ValueError, match="support vector machine of head poses"):
        load_headpose_svm(path)


@pytest.mark.parametrize("damage", [{"deviation": np.zeros(12)}, {"gamma": -1.0}])
def test_numbers_that_give_no_score_are_named(tmp_path, damage):
    # A division by 0 would give every face the same score.
    machine = replace(fit_headpose_svm(draw_poses()), **damage)
    save_headpose_svm(machine, tmp_path / "headpose.safetensors")
    with pytest.raises(ValueError, match="not above 0"):
        load_headpose_svm(tmp_path / "headpose.safetensors")


def test_head_poses_of_a_prepared_dataset_are_in_the_order_of_its_faces(prepared_set):
    from jdfd_keras.datasets.manifest import read_faces

    poses = load_head_poses(prepared_set)
    table = read_faces(prepared_set, columns=["video_id", "label"])
    assert poses.video_id.tolist() == table["video_id"].to_pylist()
    np.testing.assert_array_equal(poses.label, table["label"].to_numpy())
    assert np.isfinite(poses.features).all()
    assert np.abs(poses.features[:, :9]).max() < 1  # of rotations of less than a quarter turn
    train = load_head_poses(prepared_set, split="train")
    assert 0 < len(train.label) < len(poses.label)


def test_a_dataset_without_landmarks_is_named(prepared_set):
    import pyarrow as pa

    from jdfd_keras.datasets.manifest import read_faces
    from jdfd_keras.training.headpose_svm import POSE_COLUMNS, measure_head_poses

    table = read_faces(prepared_set, columns=POSE_COLUMNS)
    column = table.column_names.index("landmarks")
    bare = table.set_column(
        column, "landmarks", pa.array([[]] * len(table), pa.list_(pa.float32()))
    )
    with pytest.raises(ValueError, match="Expected faces with landmarks in .* got none among"):
        measure_head_poses(prepared_set, bare)
