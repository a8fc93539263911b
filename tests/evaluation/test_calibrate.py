"""Calibration of a run: which model it belongs to, and the people that are judged."""

import pytest

from jdfd_keras.client.calibration import CALIBRATION, Calibration, save_calibration
from jdfd_keras.evaluation.calibrate import digest_model
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.training.run_folder import BEST


@pytest.fixture
def run_folder(tmp_path):
    """A run folder with a calibration of its best model, and another model."""
    (tmp_path / BEST).write_bytes(b"best")
    (tmp_path / "last.keras").write_bytes(b"last")
    calibration = Calibration(
        temperature=2.0,
        num_real=1,
        num_fake=1,
        real_scores=(0.2,),
        fake_scores=(0.9,),
        model=digest_model(tmp_path),
    )
    save_calibration(tmp_path / CALIBRATION, calibration)
    return tmp_path


def test_a_run_and_its_best_model_have_the_calibration_of_the_run(run_folder):
    assert load_calibration(run_folder).temperature == 2
    assert load_calibration(str(run_folder / BEST)).temperature == 2


def test_another_model_of_the_run_has_no_calibration(run_folder):
    assert load_calibration(run_folder / "last.keras") is None


def test_a_run_that_was_trained_further_must_be_calibrated_again(run_folder):
    (run_folder / BEST).write_bytes(b"better")
    with pytest.raises(ValueError, match="another model.*Run `jdfd-keras calibrate` again"):
        load_calibration(run_folder)
    assert load_calibration(run_folder / BEST) is None


def test_a_run_that_was_never_calibrated_has_no_calibration(tmp_path):
    (tmp_path / BEST).write_bytes(b"best")
    assert load_calibration(tmp_path) is None
    assert load_calibration(tmp_path / BEST) is None


def test_a_digest_equals_that_of_sha256sum(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"abc")
    assert digest_model(tmp_path / "model.keras") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
