"""Faces that are scored while others are extracted have the scores of the whole file."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import judge
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction import predict
from jdfd_keras.prediction.extraction import MAX_CROPS, ExtractedPart, Extractor
from jdfd_keras.prediction.scoring import FaceScores, guess_faces

CROPS = FaceOptions(face_size=71, every=1, detector="none", tracks="all")


def predictor_of(score, batch_size):
    metadata = ModelMetadata(FaceOptions(face_size=71), None, "mean", 1, "one")
    return Predictor("mean", metadata, score, None, batch_size=batch_size)


def scores_in_batches(crops, batch_size=4):
    """Scores that depend on the other faces of a batch, far more than those of a network do."""
    groups = [crops[start : start + batch_size] for start in range(0, len(crops), batch_size)]
    return np.concatenate(
        [(group.mean(axis=(1, 2, 3)) + group.mean() / 2) / 400 for group in groups]
    )


@pytest.fixture(scope="module")
def crops_video(tmp_path_factory):
    """A video of 900 crops, which become lighter."""
    path = tmp_path_factory.mktemp("crops") / "crops.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 160))
    for index in range(900):
        writer.write(np.full((160, 160, 3), index // 4, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("sizes", [[11], [1] * 11, [3, 5, 3], [0, 9, 0]])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_do_not_depend_on_the_parts(sizes, batch_size, crops_video):
    extraction = extract_faces(crops_video, dataclasses.replace(CROPS, every=83))
    crops = np.stack([face.crop for face in extraction.faces])
    assert len(crops) == 11

    def score(faces):
        return scores_in_batches(faces, batch_size)

    scores = FaceScores(predictor_of(score, batch_size))
    for first, size in zip(itertools.accumulate([0, *sizes]), sizes, strict=False):
        scores.add(ExtractedPart(first, 11, first, crops[first : first + size]))
    assert len(scores.scored) == sum(sizes) // batch_size * batch_size
    whole = judge("a.mp4", extraction, score, Calibration())
    in_parts = judge("a.mp4", extraction, score, Calibration(), scored=scores.scored)
    assert in_parts.to_dict() == whole.to_dict()  # whose NaN are None


def test_a_file_that_begins_anew_is_scored_anew():
    scores = FaceScores(predictor_of(lambda crops: crops[:, 0, 0, 0] / 255, 1))
    for first, value in ((0, 51), (2, 102), (0, 153)):
        scores.add(ExtractedPart(first, 9, first, np.full((2, 71, 71, 3), value, np.uint8)))
    assert scores.scored.tolist() == [0.6, 0.6]


def test_an_error_about_faces_ends_the_scoring_of_the_file_only():
    calls = []

    def fail(crops):
        calls.append(len(crops))
        raise ValueError("no such size")

    scores = FaceScores(predictor_of(fail, 1))
    for first in (0, 2):
        scores.add(ExtractedPart(first, 9, first, np.zeros((2, 71, 71, 3), np.uint8)))
    assert scores.scored.tolist() == []
    assert calls == [2]  # the next ones would get the scores of the first


def test_faces_are_scored_while_others_are_extracted(crops_video, monkeypatch):
    calls = []

    def score(crops):
        calls.append(len(crops))
        return scores_in_batches(crops, 1)

    monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor_of(score, 1))
    options = PredictOptions(every=1, detector="none")
    (verdict,) = predict.predict_files([crops_video], options, model="mean").files
    assert len(calls) > 3 and sum(calls) == len(verdict.faces) == 900
    assert max(calls[:-1]) <= 256
    streamed = calls.copy()
    extraction = extract_faces(crops_video, CROPS)
    whole = judge(crops_video, extraction, score, Calibration())
    assert [face.score for face in verdict.faces] == [face.score for face in whole.faces]
    assert streamed[0] <= MAX_CROPS
    assert predict.predict_file(crops_video, predictor_of(score, 1), options).faces == whole.faces


@pytest.mark.parametrize("tracks", ["all", "largest"])
def test_no_face_that_may_be_filtered_out_is_sent(crops_video, tracks):
    options = dataclasses.replace(CROPS, tracks=tracks)
    with Extractor([crops_video], options) as extractor:
        *parts, (_, extraction) = extractor.receive()
    assert len(extraction.faces) == 900 and len(parts) > 1
    sent = [part for _, part in parts if len(part.crops)]
    if tracks == "largest":
        assert sent == []
    ends = [0, *itertools.accumulate(len(part.crops) for part in sent)]
    assert [part.first for part in sent] == ends[:-1]
    done = [part.done for _, part in parts]
    assert done == sorted(done) and {part.total for _, part in parts} == {900}
    for part in sent:
        faces = extraction.faces[part.first : part.first + len(part.crops)]
        np.testing.assert_array_equal(part.crops, [face.crop for face in faces])


def test_extraction_starts_before_the_model_is_loaded_and_again_if_the_options_differ(
    crops_video, monkeypatch
):
    events = []

    class RecordedExtractor(Extractor):
        def __init__(self, paths, options, *arguments):
            events.append(options.margin)
            super().__init__(paths, options, *arguments)

    def load(*_):
        events.append("load")
        return predictor_of(lambda crops: np.full(len(crops), 0.25), 1)

    monkeypatch.setattr(predict, "Extractor", RecordedExtractor)
    monkeypatch.setattr(predict, "load_predictor", load)
    options = PredictOptions(frames_per_video=3, detector="none")
    right = dataclasses.replace(CROPS, every=0, frames_per_video=3)
    for guess in (right, dataclasses.replace(right, face_size=80, margin=2.0)):
        monkeypatch.setattr(predict, "guess_faces", lambda *_, guess=guess: guess)
        (verdict,) = predict.predict_files([crops_video], options, model="mean").files
        assert {face.score for face in verdict.faces} == {0.25}
    assert events == [right.margin, "load", 2.0, "load", right.margin]


def test_the_guess_of_a_damaged_or_missing_file_is_none(tmp_path):
    assert guess_faces(tmp_path / "none", PredictOptions()) is None
    assert guess_faces("grpc://127.0.0.1:8500/detector", PredictOptions()) is None
    (tmp_path / "options.json").write_text("{")
    assert guess_faces(tmp_path, PredictOptions()) is None
