"""Cells of the experiment robustness: which are run, what is scored, and what has no result."""

import json
import shutil

import cv2
import numpy as np
import pytest

from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import SHARDS, read_png, read_record
from jdfd_keras.evaluation.scores_file import read_scores, read_scores_file
from jdfd_keras.experiments import degraded_cells, robustness
from jdfd_keras.experiments.robustness import (
    RobustnessReport,
    RobustnessRow,
    average_strengths,
    measure_robustness,
)
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.options import EvaluateOptions, FaceOptions, RobustnessOptions

FACES = FaceOptions(frames_per_video=4, face_size=71)
NO_INTERVALS = EvaluateOptions(n_resamples=0)


def brightness_of(crops):
    return crops.mean(axis=(1, 2, 3)) / 255


class Model:
    """A detector without a network, and the faces that it has scored."""

    def __init__(self):
        self.score, self.digest, self.num_scored = brightness_of, "one", 0

    def load(self, *_):
        metadata = ModelMetadata(FACES, None, "stub", 1, self.digest)
        return Predictor("stub", metadata, self.run, None, engine=Engine("server"))

    def run(self, crops):
        self.num_scored += len(crops)
        return self.score(crops)


@pytest.fixture
def model(monkeypatch):
    stub = Model()
    monkeypatch.setattr(robustness, "load_predictor", stub.load)
    return stub


@pytest.fixture
def in_one_process(monkeypatch):
    """Let videos be degraded in this process, which is faster for a few."""

    def run_all(task, items, num_workers, limits):
        return ((item, task(item)) for item in items)

    monkeypatch.setattr(degraded_cells, "run_all", run_all)


def run_quick(data, out, degradations, **options):
    options = RobustnessOptions(degradations, quick=True, **options)
    return measure_robustness("stub", data, out, options, evaluate=NO_INTERVALS)


def run_videos(data, out, degradations, videos, evaluate=NO_INTERVALS):
    options = RobustnessOptions(degradations)
    return measure_robustness("stub", data, out, options, videos=videos, evaluate=evaluate)


def read_test_crops(directory):
    """The crops of the test split in the order of the manifest, decoded here."""
    faces = read_faces(directory, split="test", columns=["shard", "offset"]).to_pylist()
    crops = []
    for face in faces:
        png = read_png(read_record(directory / SHARDS / face["shard"], face["offset"]))
        crops.append(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    return np.stack(crops)


def test_a_constant_score_has_an_auc_of_one_half_in_every_cell(model, prepared_set, tmp_path):
    model.score = lambda crops: np.full(len(crops), 0.7)
    report = run_quick({"ff": prepared_set}, tmp_path, "all")
    assert report.failed == () and len(report.results) == 51
    for row in report.results:
        assert row.frame.auc.value == row.video.auc.value == 0.5
        assert row.degradation == "none" or row.difference.difference.value == 0
    assert len(report.means) == 11 and {mean.auc for mean in report.means} == {0.5}


def test_scores_are_those_of_the_degraded_crops(model, prepared_set, tmp_path):
    report = run_quick({"ff": prepared_set}, tmp_path, "gamma=2,brightness=25")
    crops = read_test_crops(prepared_set).astype(float)
    expected = {
        "none": crops,
        "gamma": np.rint(255 * (crops / 255) ** 2),
        "brightness": np.minimum(crops + 25, 255),
    }
    for row in report.results:
        scores = read_scores(tmp_path / row.source / "scores.parquet")
        np.testing.assert_allclose(scores.score, brightness_of(expected[row.degradation]))
    protocol = read_scores_file(tmp_path / row.source / "scores.parquet").metadata["protocol"]
    assert protocol["degradation"] == "brightness=25 (grey levels) of the face crops"


def test_dropped_frames_leave_some_scores_of_each_video(model, prepared_set, tmp_path):
    report = run_quick({"ff": prepared_set}, tmp_path, "frame-drop=0.25,frame-drop=1")
    assert model.num_scored == 8, "the scores of the other frames are known"
    whole, most, least = (
        read_scores(tmp_path / row.source / "scores.parquet") for row in report.results
    )
    assert np.bincount(most.video).tolist() == [3, 3]
    assert np.bincount(least.video).tolist() == [1, 1]
    known = dict(zip(zip(whole.video_id, whole.frame_index, strict=True), whole.score, strict=True))
    for video_id, frame, score in zip(most.video_id, most.frame_index, most.score, strict=True):
        assert known[video_id, frame] == score


def test_only_cells_without_a_result_for_the_same_inputs_are_run(model, prepared_set, tmp_path):
    first = run_quick({"ff": prepared_set}, tmp_path, "jpeg=30,blur=2")
    assert model.num_scored == 3 * 8
    assert run_quick({"ff": prepared_set}, tmp_path, "jpeg=30,blur=2") == first
    assert model.num_scored == 3 * 8
    (tmp_path / "robustness/ff/crops/blur-2.json").unlink()  # as after a kill
    scores = tmp_path / "robustness/ff/crops/jpeg-30/scores.parquet"
    scores.write_bytes(scores.read_bytes()[:-50])
    assert run_quick({"ff": prepared_set}, tmp_path, "jpeg=30,blur=2") == first
    assert model.num_scored == 5 * 8
    run_quick({"ff": prepared_set}, tmp_path, "jpeg=30,blur=2", noise_seed=1)
    assert model.num_scored == 7 * 8
    model.digest = "two"
    run_quick({"ff": prepared_set}, tmp_path, "jpeg=30,blur=2", noise_seed=1)
    assert model.num_scored == 10 * 8


def test_a_cell_that_fails_does_not_stop_the_others(model, prepared_set, tmp_path, monkeypatch):
    def check(name):
        if name == "h265":
            raise ValueError("Expected the encoder libx265; got none.")

    monkeypatch.setattr(degraded_cells, "check_encoder", check)
    data = {"ff": prepared_set, "mine": tmp_path / "none"}
    report = run_quick(data, tmp_path / "out", "h265,jpeg=30")
    strengths = "h265=28, h265=32, h265=36, h265=40, h265=45"
    assert report.failed[0] == f"ff: {strengths}: Expected the encoder libx265; got none."
    assert report.failed[1].endswith("none does not exist") and len(report.failed) == 2
    assert [row.degradation for row in report.results if row.video] == ["none", "jpeg"]
    means = {(mean.data, mean.degradation): mean for mean in report.means}
    assert means["ff", "h265"].auc is None and means["mine", "all"].auc is None
    total = means["ff", "all"]
    assert (total.num_measured, total.num_requested) == (1, 2)
    assert total.auc == means["ff", "jpeg"].auc is not None
    assert RobustnessReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_the_mean_counts_each_degradation_once():
    def row(name, auc):
        values = {"value": auc, "low": None, "high": None}
        metrics = {"num_real": 1, "num_fake": 1} | dict.fromkeys(
            ("auc", "eer", "ap", "accuracy", "tpr", "fpr", "tpr_at_1_fpr", "tpr_at_5_fpr"), values
        )
        facts = {"data": "ff", "degradation": name, "strength": 1.0}
        return RobustnessRow.from_dict(facts | {"video": metrics})

    rows = [row("none", 1.0), row("jpeg", 0.9), row("jpeg", 0.8), row("blur", 0.55)]
    means = {mean.degradation: mean.auc for mean in average_strengths(rows)}
    assert means == pytest.approx({"jpeg": 0.85, "blur": 0.55, "all": 0.7})


def test_without_the_videos_only_the_data_as_it_is_is_scored(model, prepared_set, tmp_path):
    report = run_videos({"ff": prepared_set}, tmp_path, "jpeg=30,noise=8", None)
    assert [bool(row.video) for row in report.results] == [True, False, False]
    assert report.failed == (
        "ff: jpeg=30, noise=8: Expected the folder of the videos of ff; got none. Give --videos "
        "ff=DIR, or --quick to degrade the prepared face crops.",
    )


@pytest.mark.parametrize("change", ["missing", "other"])
def test_videos_that_are_not_the_prepared_ones_are_named(
    model, prepared_set, clips_folder, tmp_path, change
):
    videos = shutil.copytree(clips_folder, tmp_path / "videos")
    row = read_faces(prepared_set, split="test", columns=["path"]).to_pylist()[0]
    if change == "missing":
        (videos / row["path"]).unlink()
    else:
        (videos / row["path"]).write_bytes(b"another file")
    report = run_videos({"ff": prepared_set}, tmp_path / "out", "jpeg=30", {"ff": videos})
    (reason,) = report.failed
    assert row["path"] in reason
    assert ("1 file of the dataset missing" in reason) == (change == "missing")
    assert ("not the file that" in reason) == (change == "other")


def test_videos_that_are_not_changed_have_the_same_scores(
    model, prepared_set, clips_folder, tmp_path, in_one_process
):
    """An exponent of 1, a share of 0 and a factor of 1 change nothing: PNG files are lossless."""
    degradations = "gamma=1,frame-drop=0,downscaling=1"
    data, videos = {"ff": prepared_set}, {"ff": clips_folder}
    report = run_videos(data, tmp_path, degradations, videos)
    assert report.failed == () and report.protocol.applied_to == "videos"
    whole, *others = (
        read_scores(tmp_path / row.source / "scores.parquet") for row in report.results
    )
    for other in others:
        assert other.video_id.tolist() == whole.video_id.tolist()
        assert other.frame_index.tolist() == whole.frame_index.tolist()
        np.testing.assert_allclose(other.score, whole.score)


def test_degraded_videos_without_a_face_are_counted(
    model, prepared_set, clips_folder, tmp_path, in_one_process
):
    report = run_videos({"ff": prepared_set}, tmp_path, "noise=255,h264=30", {"ff": clips_folder})
    whole, noise, h264 = report.results
    assert (noise.num_scored, noise.num_videos) == (0, whole.num_videos) == (0, 2)
    assert "no face was found in 4 sampled frames" in noise.failed
    assert h264.num_scored == h264.num_common == 2
    scores = read_scores(tmp_path / h264.source / "scores.parquet")
    before = read_scores(tmp_path / whole.source / "scores.parquet")
    assert np.abs(scores.score - before.score).max() < 0.05
    assert not np.array_equal(scores.score, before.score)


@pytest.mark.slow
def test_videos_are_degraded_in_processes(model, prepared_set, clips_folder, tmp_path):
    data, videos = {"ff": prepared_set}, {"ff": clips_folder}
    report = run_videos(data, tmp_path, "gamma=1", videos, EvaluateOptions("all", n_resamples=0))
    whole, gamma = report.results
    assert gamma.video == whole.video and gamma.num_scored == whole.num_scored


@pytest.mark.parametrize(
    ("options", "videos", "message"),
    [
        (RobustnessOptions("jpg"), None, "a degradation of jpeg, .*got 'jpg'"),
        (RobustnessOptions("jpeg=0"), None, "from 1 to 100 for jpeg"),
        (RobustnessOptions(noise_seed=-1), None, "noise_seed >= 0"),
        (RobustnessOptions(quick=True), {"ff": "x"}, "no folders of videos with quick"),
        (RobustnessOptions(), {"celebdf": "x"}, "of the datasets ff; got celebdf"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(
    options, videos, message, monkeypatch, tmp_path
):
    monkeypatch.setattr(robustness, "load_predictor", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        measure_robustness("stub", {"ff": "prepared"}, tmp_path, options, videos=videos)


def test_faces_of_another_size_are_refused_once(model, prepared_set, tmp_path, monkeypatch):
    metadata = ModelMetadata(FaceOptions(face_size=299), None, "stub", 1, "one")
    predictor = Predictor("stub", metadata, model.run, None, engine=Engine("server"))
    monkeypatch.setattr(robustness, "load_predictor", lambda *_: predictor)
    report = run_quick({"ff": prepared_set}, tmp_path, "jpeg=30")
    assert "faces of 299 px, the size of the model; got 71" in report.failed[0]
    assert model.num_scored == 0
