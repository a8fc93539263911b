"""Calibration of a run: which model it belongs to, and the people that are judged."""

import contextlib
import shutil
from collections import Counter

import cv2
import keras
import numpy as np
import pytest

from jdfd_keras.client.calibration import CALIBRATION, Calibration, save_calibration
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.evaluation import calibrate as module
from jdfd_keras.evaluation.calibrate import calibrate, digest_model
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.backends import load_calibration, load_predictor
from jdfd_keras.io.files import OPTIONS, save_options
from jdfd_keras.options import CalibrateOptions, FaceOptions, PredictOptions
from jdfd_keras.prediction.predict import predict_file
from jdfd_keras.training.run_folder import BEST, TrainedModel


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


def test_faces_by_other_landmarks_than_those_of_the_training_are_refused(
    tmp_path, prepared_set, monkeypatch
):
    trained = TrainedModel(None, FaceOptions(detector="mesh"))
    monkeypatch.setattr(module, "load_run_model", lambda path: trained)
    with pytest.raises(ValueError, match="detector mesh, .* got dlib, .* --detector mesh"):
        calibrate(tmp_path, prepared_set)


def test_a_digest_equals_that_of_sha256sum(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"abc")
    assert digest_model(tmp_path / "model.keras") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.slow
def test_validation_is_judged_as_predict_judges(
    clips_folder, prepared_set, detector, write_video, tmp_path
):
    """One real file shows two people, and the others one person."""
    rows = [row for row in read_videos(prepared_set, split_table="official") if row.split == "val"]
    videos, prepared, run = (tmp_path / name for name in ("clips", "prepared", "run"))
    shutil.copytree(clips_folder, videos)
    changed = next(videos / row.path for row in rows if row.label == 0)
    frames = []
    capture = cv2.VideoCapture(str(changed))
    while (read := capture.read())[0]:
        own = read[1][..., ::-1]
        frames.append(np.hstack([own, own[:, ::-1]]))
    write_video(changed, frames)

    faces = FaceOptions(frames_per_video=4, face_size=71, tracks="all")
    prepare(videos, prepared, faces)
    run.mkdir()
    model = keras.models.clone_model(detector)
    model.set_weights(detector.get_weights())
    layer = model.get_layer("classifier_logit")
    found = [(face, row) for row in rows for face in extract_faces(videos / row.path, faces).faces]
    crops, label = np.stack([face.crop for face, _ in found]), np.array([r.label for _, r in found])
    logit = keras.Model(model.input, layer.output).predict(crops, verbose=0)[:, 0]
    kernel, bias = layer.get_weights()
    # The sign is that of the labels, since scores of a useless network are calibrated to 0.5.
    scale = np.sign(logit[label == 1].mean() - logit[label == 0].mean()) / logit.std()
    layer.set_weights([scale * kernel, scale * (bias - logit.mean())])
    model.save(run / BEST)
    save_options(run / OPTIONS, faces=faces)
    result = calibrate(run, prepared, CalibrateOptions(fpr=0.4))
    found = result.calibration
    with contextlib.closing(load_predictor(run)) as predictor:
        options = PredictOptions(frames_per_video=4)
        verdicts = {row.path: predict_file(videos / row.path, predictor, options) for row in rows}
    num_without = sum(verdict.score is None for verdict in verdicts.values())
    assert (found.num_not_judged, found.tracks) == (num_without, "all")
    for label, stored in enumerate((found.real_scores, found.fake_scores)):
        scores = [verdicts[row.path].score for row in rows if row.label == label]
        known = sorted(score for score in scores if score is not None)
        assert known == pytest.approx(stored, abs=1e-6)
    assert np.ptp([*found.real_scores, *found.fake_scores]) > 1e-3, "equal scores hide an error"
    crowd = verdicts[str(changed.relative_to(videos))]
    assert crowd.num_people == 2
    assert (crowd.uncertain_from, crowd.uncertain_to) == found.thresholds(2)
    counts = Counter(verdicts[row.path].verdict for row in rows if row.label == 0)
    # The domain of four files has no limit, so that scores alone decide.
    assert counts == Counter({k: n for k, n in result.verdicts["real"].items() if n})
