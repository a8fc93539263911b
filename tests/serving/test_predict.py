from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from jdfd_keras.evaluation.calibration import Calibration, save_calibration
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.options import PredictOptions
from jdfd_keras.serving import predict
from jdfd_keras.serving.scorers import Scorer


@pytest.fixture
def film(monkeypatch, face_batch):
    """A file whose frames 0, 10, 15 and 20 show the faces of `face_batch`."""
    asked = []

    def extract_faces(path, options):
        asked.append(options)
        faces = [
            SimpleNamespace(
                frame_index=index,
                time_s=index / 25,
                track_id=0,
                box=(index, 1, 50, 60, 0.9),
                crop=crop,
            )
            for index, crop in zip((0, 10, 15, 20), face_batch, strict=True)
        ]
        return Extraction(faces, [], 4, {}, [])

    monkeypatch.setattr(predict, "extract_faces", extract_faces)
    return asked


def scores_of(*scores):
    return lambda crops: np.array(scores)


def test_verdict_is_the_mean_of_the_faces_against_the_threshold(film, tiny_faces):
    score = scores_of(0.25, 0.5, 1.0, 0.25)  # mean 0.5
    verdict = predict.predict_file("film.mp4", score, tiny_faces)
    assert (verdict.path, verdict.score, verdict.verdict) == ("film.mp4", 0.5, "fake")
    assert (
        predict.predict_file("film.mp4", score, tiny_faces, Calibration().at(0.51)).verdict
        == "real"
    )
    assert film == [tiny_faces, tiny_faces]


@pytest.mark.parametrize(
    ("score", "verdict"), [(0.29, "real"), (0.3, "uncertain"), (0.79, "uncertain"), (0.8, "fake")]
)
def test_between_real_and_fake_a_calibrated_verdict_is_uncertain(
    film, tiny_faces, tmp_path, monkeypatch, score, verdict
):
    calibration = Calibration(threshold=0.5, uncertain_from=0.3, uncertain_to=0.8)
    scorer = Scorer(scores_of(*[score] * 4), tiny_faces, calibration)
    monkeypatch.setattr(predict, "local_scorer", lambda path: scorer)
    result = predict.predict_files(["a.mp4"], model="run")
    assert result["files"][0]["verdict"] == result["files"][0]["tracks"][0]["verdict"] == verdict
    assert predict.summarize(result).endswith("(4 faces, real below 0.3, fake from 0.8)")
    # What a server does not tell can be given; a threshold of one's own leaves nothing uncertain.
    save_calibration(tmp_path / "calibration.json", calibration)
    unknown = Scorer(scores_of(*[score] * 4), tiny_faces)
    monkeypatch.setattr(predict, "remote_scorer", lambda url, faces: unknown)
    told = PredictOptions(calibration=str(tmp_path / "calibration.json"))
    assert predict.predict_files(["a.mp4"], told, server="url")["files"][0]["verdict"] == verdict
    both = PredictOptions(calibration=told.calibration, threshold=0.3)
    with pytest.raises(ValueError, match="a threshold or a calibration; got 0.3"):
        predict.predict_files(["a.mp4"], both, server="url")
    with pytest.raises(ValueError, match="no calibration with a model on this machine"):
        predict.predict_files(["a.mp4"], told, model="run")
    own = predict.predict_files(["a.mp4"], PredictOptions(threshold=0.3), model="run")
    assert own["files"][0]["verdict"] == ("real" if score < 0.3 else "fake")


def test_verdict_names_every_face(film, tiny_faces):
    verdict = predict.predict_file("film.mp4", scores_of(0.1, 0.2, 0.3, 0.4), tiny_faces)
    assert verdict.faces[3] == predict.FaceScore(20, 0.8, 0, (20, 1, 50, 60), 0.4)
    assert [face.score for face in verdict.faces] == [0.1, 0.2, 0.3, 0.4]


def test_one_fake_person_makes_the_file_a_fake(monkeypatch, face_batch, tiny_faces):
    faces = [
        SimpleNamespace(
            frame_index=index // 2,
            time_s=0.0,
            track_id=index % 2,
            box=(0, 1, 50, 60, 0.9),
            crop=crop,
        )
        for index, crop in enumerate(face_batch)
    ]
    found = Extraction(faces, [], 2, {}, ["cut short: 2 frames decode"])
    monkeypatch.setattr(predict, "extract_faces", lambda path, options: found)
    verdict = predict.predict_file("two.mp4", scores_of(0.25, 0.75, 0.0, 0.5), tiny_faces)
    assert verdict.tracks == (
        predict.TrackScore(0, 2, 0.9, 0.125, "real"),
        predict.TrackScore(1, 2, 0.9, 0.625, "fake"),
    )
    assert (verdict.score, verdict.verdict) == (0.625, "fake")
    assert predict.summarize({"files": [asdict(verdict)], "failed": []}).splitlines() == [
        "two.mp4: fake, score 0.625 (4 faces, fake from 0.5)",
        "  track 0: real, score 0.125 (2 faces)",
        "  track 1: fake, score 0.625 (2 faces)",
        "  warning: cut short: 2 frames decode",
    ]


def test_what_is_perhaps_no_face_does_not_decide(monkeypatch, face_batch, tiny_faces):
    def found(*confidence):
        faces = [
            SimpleNamespace(
                frame_index=0, time_s=0.0, track_id=index, box=(0, 1, 50, 60, score), crop=crop
            )
            for index, (score, crop) in enumerate(zip(confidence, face_batch[:2], strict=True))
        ]
        return lambda path, options: Extraction(faces, [], 1, {}, [])

    score = scores_of(0.25, 0.75)
    monkeypatch.setattr(predict, "extract_faces", found(1.0, 0.1))
    verdict = predict.predict_file("badge.jpg", score, tiny_faces)
    assert (verdict.score, verdict.verdict) == (0.25, "real")
    lines = predict.summarize({"files": [asdict(verdict)], "failed": []}).splitlines()
    assert lines[2] == "  track 1: fake, score 0.750 (1 face, perhaps no face)"
    monkeypatch.setattr(predict, "extract_faces", found(0.1, 0.15))
    assert predict.predict_file("badge.jpg", score, tiny_faces).score == 0.75


@pytest.mark.parametrize("bad", [[0.1, np.nan, 0.3, 0.4], [0.1, 1.5, 0.3, 0.4], [0.1]])
def test_scores_that_are_none_give_no_verdict(film, tiny_faces, bad):
    with pytest.raises(ValueError, match="Expected 4 scores from 0 to 1.*no verdict"):
        predict.predict_file("film.mp4", scores_of(*bad), tiny_faces)


def test_file_without_a_face_has_no_score(monkeypatch, tiny_faces):
    monkeypatch.setattr(
        predict, "extract_faces", lambda path, options: Extraction([], [], 9, {}, [])
    )
    with pytest.raises(ValueError, match="Expected a face in landscape.mp4; got none.*no score"):
        predict.predict_file("landscape.mp4", scores_of(), tiny_faces)


def test_file_without_a_verdict_does_not_stop_the_others(film, tiny_faces, monkeypatch, capsys):
    extract_faces = predict.extract_faces

    def extract_or_fail(path, options):
        if path == "text.mp4":
            raise OSError("Expected a video; got text.")
        nobody = Extraction([], [], 9, {}, [])
        return nobody if path == "landscape.mp4" else extract_faces(path, options)

    monkeypatch.setattr(predict, "extract_faces", extract_or_fail)
    scorer = Scorer(scores_of(0.5, 0.5, 0.5, 0.75), tiny_faces)
    monkeypatch.setattr(predict, "local_scorer", lambda path: scorer)

    files = ["text.mp4", "a.mp4", "landscape.mp4", "b.mp4"]
    options = PredictOptions(threshold=0.6, frames_per_video=7)
    result = predict.predict_files(files, options, model="saved_models/tiny")

    assert [verdict["path"] for verdict in result["files"]] == ["a.mp4", "b.mp4"]
    assert [failure["path"] for failure in result["failed"]] == ["text.mp4", "landscape.mp4"]
    assert film[0].frames_per_video == 7
    assert "text.mp4: Expected a video; got text." in capsys.readouterr().err
    assert predict.summarize(result).splitlines() == [
        "a.mp4: real, score 0.562 (4 faces, fake from 0.6)",
        "b.mp4: real, score 0.562 (4 faces, fake from 0.6)",
        "text.mp4: no verdict",
        "landscape.mp4: no verdict",
    ]


@pytest.mark.parametrize("where", [{}, {"model": "run", "server": "http://h/v1/models/tiny"}])
def test_exactly_one_of_model_and_server_is_needed(where):
    with pytest.raises(ValueError, match="Expected a model or a server.*Give one of them"):
        predict.predict_files(["a.mp4"], **where)
