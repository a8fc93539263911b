"""Verdicts of Headpose: the scores of an evaluation, and no score for a face without a pose."""

import dataclasses
import json

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.inference.headpose_predictor import make_score_poses
from jdfd_keras.options import EngineOptions, FaceOptions, PredictOptions
from jdfd_keras.prediction.predict import predict_file
from jdfd_keras.prediction.scoring import FailedFile, Judge
from jdfd_keras.training.headpose_run import load_headpose_run
from jdfd_keras.training.headpose_svm import load_head_poses
from jdfd_keras.training.run_folder import digest_model

OPTIONS = FaceOptions(frames_per_video=4, face_size=71)


@pytest.fixture(scope="module")
def clip(clips_folder):
    return min((clips_folder / "real").glob("*.mp4"))


@pytest.fixture(scope="module")
def found(clip):
    extraction = extract_faces(clip, OPTIONS)
    assert len(extraction.faces) == 4
    return extraction


@pytest.fixture(scope="module")
def predictor(headpose_run):
    return load_predictor(headpose_run)


def lose_poses(extraction, positions):
    """The same faces, of which those at some positions have all landmarks on one line."""
    line = np.repeat(np.arange(68, dtype=np.float32)[:, None], 2, axis=1)
    faces = [
        dataclasses.replace(face, landmarks=line) if index in positions else face
        for index, face in enumerate(extraction.faces)
    ]
    return dataclasses.replace(extraction, faces=faces)


def judge(predictor, extraction, calibration=None):
    return Judge(predictor, calibration or Calibration(), None).judge("clip.mp4", extraction)


def test_a_file_has_the_scores_of_an_evaluation(predictor, headpose_run, prepared_set, clip):
    poses = load_head_poses(prepared_set)
    own = [name.endswith(f"real/{clip.stem}") for name in poses.video_id]
    expected = load_headpose_run(headpose_run).machine(poses.features[own])
    assert len(set(expected.tolist())) == 4, "equal scores would hide an error"
    verdict = predict_file(clip, predictor, PredictOptions(frames_per_video=4))
    np.testing.assert_array_equal([face.score for face in verdict.faces], expected)
    assert verdict.score == pytest.approx(expected.mean())
    assert verdict.engine == f"NumPy {np.__version__}, float64"


def test_the_calibration_corrects_the_scores(headpose_run, found):
    machine = load_headpose_run(headpose_run).machine
    calibration = Calibration(temperature=2.0, bias=0.5)
    _, plain = make_score_poses(machine, OPTIONS)(found)
    _, corrected = make_score_poses(machine, OPTIONS, calibration)(found)
    logit = np.log(plain / (1 - plain))
    np.testing.assert_allclose(corrected, 1 / (1 + np.exp(-(logit / 2 + 0.5))))


def test_a_face_without_a_pose_gets_no_score_and_is_counted(predictor, found):
    whole, _ = judge(predictor, found)
    verdict, crops = judge(predictor, lose_poses(found, {1}))
    scores = [face.score for face in whole.faces]
    assert [face.score for face in verdict.faces] == [scores[0], *scores[2:]]
    assert [face.frame_index for face in verdict.faces] == [
        found.faces[index].frame_index for index in (0, 2, 3)
    ]
    assert verdict.tracks[0].num_faces == 3
    assert "1 of 4 faces has no head pose and no score" in verdict.warnings
    # Top faces are those that were scored.
    shown = [verdict.faces[index].frame_index for index in verdict.top_faces]
    by_frame = {face.frame_index: face.crop for face in found.faces}
    for frame, crop in zip(shown, crops, strict=True):
        np.testing.assert_array_equal(crop, by_frame[frame])
    json.loads("".join(verdict.json_parts()), parse_constant=pytest.fail)


def test_a_person_with_too_few_poses_is_not_judged(predictor, found):
    verdict, _ = judge(predictor, lose_poses(found, {0, 1}))
    assert (verdict.verdict, verdict.score) == ("uncertain", None)
    assert verdict.tracks[0].not_judged == "too few faces: 2 (at least 3)"


def test_a_file_whose_faces_have_no_pose_is_uncertain_without_a_score(predictor, found):
    verdict, crops = judge(predictor, lose_poses(found, range(4)))
    assert (verdict.verdict, verdict.score, verdict.faces) == ("uncertain", None, ())
    assert verdict.reasons == ("no head pose fits the 4 faces in it, so that none has a score",)
    assert verdict.tracks == () and crops == []
    empty, _ = judge(predictor, dataclasses.replace(found, faces=[], tracks=[]))
    assert (empty.verdict, empty.reasons) == ("no face", ())


def test_faces_without_landmarks_are_an_error_of_the_file(predictor, found, capsys):
    bare = np.empty((0, 2), np.float32)
    faces = [dataclasses.replace(face, landmarks=bare) for face in found.faces]
    record, _ = judge(predictor, dataclasses.replace(found, faces=faces))
    assert isinstance(record, FailedFile)
    assert "Expected faces with landmarks" in record.error and "--detector dlib" in record.error
    assert record.error in capsys.readouterr().err


def test_it_has_no_maps_no_reconstructions_and_takes_no_pixels(predictor, headpose_run):
    assert predictor.explain is None and predictor.reconstruct_error is None
    assert predictor.metadata.digest == digest_model(headpose_run)
    assert predictor.metadata.faces == OPTIONS
    with pytest.raises(ValueError, match="support vector machine without a network"):
        predictor(np.zeros((1, 71, 71, 3), np.uint8))


@pytest.mark.parametrize(
    "engine", [EngineOptions(backend="openvino"), EngineOptions(precision="float32")]
)
def test_another_engine_is_refused(headpose_run, engine):
    with pytest.raises(ValueError, match="Expected no --backend and --precision with the Headpose"):
        load_predictor(headpose_run, engine)


def test_files_of_a_model_of_whole_images_are_searched_for_faces(headpose_run, found, tmp_path):
    """Landmarks of a dataset without a detector may be stored; those of a file are detected."""
    import shutil

    from jdfd_keras.io.files import load_groups, save_options
    from jdfd_keras.options import ModelOptions, TrainOptions

    run = tmp_path / "run"
    shutil.copytree(headpose_run, run)
    whole = FaceOptions(detector="none", face_size=71)
    assert "faces" in load_groups(run / "options.json")
    save_options(
        run / "options.json",
        faces=whole,
        model=ModelOptions(method="headpose"),
        train=TrainOptions(),
    )
    _, scores = load_predictor(run).score_poses(found)
    _, expected = load_predictor(headpose_run).score_poses(found)
    np.testing.assert_array_equal(scores, expected)
