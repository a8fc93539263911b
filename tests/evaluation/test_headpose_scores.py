"""Evaluation and calibration of Headpose, on faces of which some have no pose."""

import shutil

import numpy as np
import pytest

from jdfd_keras.client.calibration import read_calibration
from jdfd_keras.evaluation.calibrate import calibrate
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.evaluation.report import load_report
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.options import CalibrateOptions, EngineOptions, EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import write_evaluation
from jdfd_keras.reporting.report_text import summarize
from jdfd_keras.training.headpose_run import load_headpose_run
from jdfd_keras.training.headpose_svm import load_head_poses
from jdfd_keras.training.run_folder import digest_model

QUICK = EvaluateOptions(n_resamples=0)
LEAKING = EvaluateOptions(split="all", n_resamples=0, allow_leak=True)


def test_the_scores_are_those_of_the_machine(headpose_run, prepared_set, tmp_path):
    report = evaluate(headpose_run, prepared_set, QUICK)
    poses = load_head_poses(prepared_set, split="test")
    expected = load_headpose_run(headpose_run).machine(poses.features)
    assert report.scores.video_id.tolist() == poses.video_id.tolist()
    np.testing.assert_array_equal(report.scores.label, poses.label == 1)
    np.testing.assert_array_equal(report.scores.score, expected)
    protocol = report.protocol
    assert protocol.checkpoint == "the only one of its run, fitted to its training split"
    assert protocol.leakage.startswith("none between training and evaluation")
    assert protocol.engine == f"NumPy {np.__version__}, float64"
    assert protocol.model_digest == digest_model(headpose_run)
    assert protocol.training.data.name == prepared_set.name
    assert protocol.faces_without_pose == 0
    assert report.examples is None and report.errors is None
    write_evaluation(report, tmp_path / "report")
    assert load_report(tmp_path / "report").video.auc == report.video.auc
    assert "head pose" not in summarize(report)


def test_faces_without_a_pose_have_no_score_and_are_counted(
    headpose_run, prepared_set, remove_landmarks, tmp_path
):
    first, *others = np.unique(load_head_poses(prepared_set).video_id.astype(str)).tolist()
    assert others
    whole = evaluate(headpose_run, prepared_set, LEAKING).scores
    data = remove_landmarks(lambda row: row.video_id == first or row.frame_index == 0)
    report = evaluate(headpose_run, data, LEAKING)
    missing = load_head_poses(data).features[:, 0]
    is_kept = ~np.isnan(missing)
    assert 0 < is_kept.sum() < len(is_kept)
    np.testing.assert_array_equal(report.scores.score, whole.score[is_kept])
    np.testing.assert_array_equal(report.scores.frame_index, whole.frame_index[is_kept])
    assert report.coverage.num_faces == is_kept.sum()
    count = int((~is_kept).sum())
    assert report.protocol.faces_without_pose == count
    reasons = {one.video_id: one.reason for one in report.excluded}
    assert reasons[first] == "none of its faces has a score"
    assert f"note: {count} faces have no head pose" in summarize(report)
    write_evaluation(report, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"- {count} faces have no head pose, so that Headpose gives no score." in text
    assert "no face was found or none has a head pose" in text
    assert load_report(tmp_path / "report").protocol == report.protocol


@pytest.mark.parametrize(
    "options", [EvaluateOptions(degrade="jpeg=30"), EvaluateOptions(reconstruction=True)]
)
def test_options_that_need_pixels_are_refused(headpose_run, prepared_set, options):
    with pytest.raises(ValueError, match="Expected no --degrade and no --reconstruction"):
        evaluate(headpose_run, prepared_set, options)


def test_an_engine_of_networks_is_refused(headpose_run, prepared_set):
    with pytest.raises(ValueError, match="Expected no --backend and --precision"):
        evaluate(headpose_run, prepared_set, QUICK, engine=EngineOptions(backend="openvino"))


def test_a_calibration_is_fitted_to_faces_with_a_pose(
    headpose_run, prepared_set, remove_landmarks, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(headpose_run, run)
    whole = calibrate(run, prepared_set).scores
    # Of 4 faces, 2 with a pose are too few to be judged and 3 are enough.
    first, second, *_ = [
        name for name in whole.videos.video_id if (whole.video_id == name).sum() == 4
    ]
    lost = {name: whole.frame_index[whole.video_id == name] for name in (first, second)}
    lost[first], lost[second] = lost[first][:2], lost[second][:1]
    data = remove_landmarks(lambda row: row.frame_index in lost.get(row.video_id, ()))
    found = calibrate(run, data, CalibrateOptions(allow_leak=True), overwrite=True).scores
    is_kept = (whole.video_id != first) & ~(
        (whole.video_id == second) & np.isin(whole.frame_index, lost[second])
    )
    assert found.video_id.tolist() == whole.video_id[is_kept].tolist()
    np.testing.assert_array_equal(found.score, whole.score[is_kept])
    calibration = read_calibration(run / "calibration.json")
    assert calibration.engine == f"NumPy {np.__version__}, float64"
    assert calibration.model == digest_model(run)
    assert load_predictor(run).metadata.calibration == calibration
    assert evaluate(run, prepared_set, QUICK).protocol.calibration == calibration
