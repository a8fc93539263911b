import shutil

import numpy as np
import pytest

from jdfd_keras.claims import save_options
from jdfd_keras.evaluation.calibration import Calibration, digest_model, save_calibration
from jdfd_keras.options import (
    FaceOptions,
)
from jdfd_keras.serving import scorers
from jdfd_keras.serving.scorers import local_scorer, remote_scorer


def test_server_and_exported_model_score_alike(
    exported, model_url, face_batch, expected_scores, tiny_faces
):
    local = local_scorer(exported.parent)
    assert local.faces == tiny_faces
    np.testing.assert_allclose(local(face_batch), expected_scores, atol=1e-5)
    remote = remote_scorer(model_url)
    assert remote.faces == FaceOptions(face_size=71)
    np.testing.assert_allclose(remote(face_batch), expected_scores, atol=1e-5)


def test_run_folder_scores_with_its_best_model(
    detector, tmp_path, face_batch, expected_scores, tiny_faces
):
    detector.save(tmp_path / "best.keras")
    save_options(tmp_path / "options.json", faces=tiny_faces)
    scorer = local_scorer(tmp_path)
    assert scorer.faces == tiny_faces
    np.testing.assert_allclose(scorer(face_batch), expected_scores, atol=1e-5)


def test_calibrated_run_scores_with_its_calibration(
    detector, tmp_path, face_batch, expected_scores, tiny_faces
):
    detector.save(tmp_path / "best.keras")
    save_options(tmp_path / "options.json", faces=tiny_faces)
    calibration = Calibration(temperature=0.5, model=digest_model(tmp_path))
    save_calibration(tmp_path / "calibration.json", calibration)
    scorer = local_scorer(tmp_path)
    assert scorer.calibration == calibration
    # sigmoid(2 * logit) is p^2 / (p^2 + (1 - p)^2).
    expected = expected_scores**2 / (expected_scores**2 + (1 - expected_scores) ** 2)
    np.testing.assert_allclose(scorer(face_batch), expected, atol=1e-5)


def test_faces_above_one_batch_are_scored_in_order(
    exported, face_batch, expected_scores, monkeypatch
):
    monkeypatch.setattr(scorers, "BATCH_SIZE", 3)
    np.testing.assert_allclose(local_scorer(exported)(face_batch), expected_scores, atol=1e-5)


def test_path_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(OSError, match="Expected .* to be an exported model"):
        local_scorer(tmp_path / "none")
    with pytest.raises(OSError, match="Expected"):
        local_scorer(tmp_path / "none.keras")


def test_export_without_alignment_options_is_an_error(exported, tmp_path):
    (tmp_path / "1").mkdir()
    shutil.copy(exported / "saved_model.pb", tmp_path / "1")
    with pytest.raises(OSError, match="alignment.json"):
        local_scorer(tmp_path)
