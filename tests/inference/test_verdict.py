"""Verdicts on one file from known scores, and their text."""

import dataclasses
import io
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.tracks import FaceScore, Segment, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict, choose_faces, judge
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction.predict import Predictions, predict_file
from jdfd_keras.prediction.result_folder import COLUMNS, FailedFile, to_csv
from jdfd_keras.reporting.verdict_page import summarize

HALF = Calibration()
CROP = np.zeros((2, 2, 3), np.uint8)


def file_of(*faces, num_frames=4, duration_s=1.0, warnings=()):
    """Make a file of faces given as time, track and detector score."""
    found = [
        SimpleNamespace(
            frame_index=round(25 * time_s),
            time_s=time_s,
            track_id=track_id,
            box=(10, 1, 50, 60, confidence),
            crop=CROP,
        )
        for time_s, track_id, confidence in faces
    ]
    info = MediaInfo(duration_s=duration_s)
    return Extraction(found, [], num_frames, {}, list(warnings), 64, 48, info, "ab")


def scores_of(*scores):
    return lambda crops: np.array(scores)


CLIP = file_of((0.0, 0, 0.9), (0.4, 0, 0.9), (0.6, 0, 0.9), (0.8, 0, 0.9))


def test_the_mean_score_is_compared_with_the_threshold():
    score = scores_of(0.25, 0.5, 1.0, 0.25)  # mean 0.5
    verdict = judge("clip.mp4", CLIP, score, HALF)
    assert (verdict.path, verdict.score, verdict.verdict) == ("clip.mp4", 0.5, "fake")
    assert judge("clip.mp4", CLIP, score, HALF.with_threshold(0.51)).verdict == "real"


@pytest.mark.parametrize(
    ("score", "verdict"), [(0.29, "real"), (0.3, "uncertain"), (0.79, "uncertain"), (0.8, "fake")]
)
def test_between_real_and_fake_a_calibrated_verdict_is_uncertain(score, verdict):
    thresholds = Calibration(threshold=0.5, uncertain_from=0.3, uncertain_to=0.8)
    result = judge("a.mp4", file_of((0, 0, 0.9)), scores_of(score), thresholds)
    assert result.verdict == result.tracks[0].verdict == verdict
    assert (result.uncertain_from, result.uncertain_to) == (0.3, 0.8)


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [(Calibration(uncertain_from=0.6, uncertain_to=0.8), "uncertain"), (Calibration(), "real")],
)
def test_a_person_who_is_fake_for_a_quarter_of_the_clip_is_not_simply_real(thresholds, verdict):
    clip = file_of(*((second, 0, 0.9) for second in range(12)))
    scores = [0.1] * 4 + [0.9] * 3 + [0.1] * 5  # mean 0.3
    result = judge("a.mp4", clip, scores_of(*scores), thresholds)
    (track,) = result.tracks
    assert (result.verdict, track.verdict) == (verdict, verdict)
    assert result.score == pytest.approx(0.3)
    assert track.segment == Segment(4.0, 6.0, pytest.approx(0.9))
    assert track.is_uncertain_by_segment == (verdict == "uncertain")
    reason = "score 0.300"
    if verdict == "uncertain":
        reason = "because track 0 scores 0.900 from 4.0 to 6.0 s; its mean is 0.300"
    line = summarize(predictions_of(result)).splitlines()[0]
    assert line.startswith(f"a.mp4: {verdict}, {reason} (12 faces, ")
    (warning,) = result.warnings
    assert re.match(r"track 0 .*fake from 4\.0 to 6\.0 s \(score 0\.900\)", warning)
    # As many faces that are not consecutive are errors of the detector.
    apart = [0.9, 0.1, 0.1, 0.1] * 3
    result = judge("a.mp4", clip, scores_of(*apart), thresholds)
    assert (result.verdict, result.warnings, result.tracks[0].segment) == ("real", (), None)


def test_a_fake_track_has_no_segment():
    clip = file_of(*((second, 0, 0.9) for second in range(12)))
    assert judge("a.mp4", clip, scores_of(*[0.9] * 12), HALF).tracks[0].segment is None


def test_a_verdict_is_restored_from_its_json():
    clip = file_of(*((second, 0, 0.9) for second in range(12)), warnings=["cut"])
    scores = scores_of(*[0.1] * 9, *[0.9] * 3)
    verdict = judge("a.mp4", clip, scores, Calibration(uncertain_from=0.6, uncertain_to=0.8))
    values = json.loads(json.dumps(verdict.to_dict()))
    assert values["tracks"][0]["segment"] == {"start_s": 9.0, "end_s": 11.0, "score": 0.9}
    assert Verdict.from_dict(values) == verdict


def test_a_verdict_has_every_face_and_its_score():
    verdict = judge("clip.mp4", CLIP, scores_of(0.1, 0.2, 0.3, 0.4), HALF)
    assert verdict.faces[3] == FaceScore(20, 0.8, 0, (10, 1, 50, 60), 0.4)
    assert [face.score for face in verdict.faces] == [0.1, 0.2, 0.3, 0.4]
    assert (verdict.num_frames, verdict.duration_s, verdict.sha256) == (4, 1.0, "ab")
    assert (verdict.width, verdict.height) == (64, 48)


def test_one_fake_person_makes_the_file_fake():
    clip = file_of(
        (0.0, 0, 0.9), (0.0, 1, 0.5), (0.4, 0, 0.9), (0.8, 1, 0.5), warnings=["cut short"]
    )
    verdict = judge("two.mp4", clip, scores_of(0.25, 0.75, 0.0, 0.5), HALF)
    assert verdict.tracks == (
        TrackScore(0, 2, 0.9, True, 0.0, 0.4, 0.125, "real"),
        TrackScore(1, 2, 0.5, True, 0.0, 0.8, 0.625, "fake"),
    )
    assert (verdict.score, verdict.verdict) == (0.625, "fake")
    assert verdict.most_suspicious_track == verdict.tracks[1]


def test_a_track_that_may_not_be_a_face_does_not_change_the_verdict():
    badge = file_of((0, 0, 1.0), (0, 1, 0.1))
    verdict = judge("badge.mp4", badge, scores_of(0.25, 0.75), HALF)
    assert (verdict.score, verdict.verdict, verdict.top_faces) == (0.25, "real", (0,))
    assert [track.is_reliable for track in verdict.tracks] == [True, False]
    assert [face.track_id for face in verdict.reliable_faces] == [0]
    # If the detector is confident of no track, all count.
    verdict = judge("badge.mp4", file_of((0, 0, 0.1), (0, 1, 0.15)), scores_of(0.25, 0.75), HALF)
    assert (verdict.score, verdict.top_faces) == (0.75, (1, 0))
    assert [track.is_reliable for track in verdict.tracks] == [True, True]


def test_top_faces_of_a_track_are_spread_over_the_clip():
    clip = file_of(*((second, 0, 0.9) for second in range(12)), duration_s=12.0)
    scores = scores_of(0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.6)
    # Three of them are at least a twelfth of the clip apart, 1 s; two an eighth, 1.5 s.
    assert judge("a", clip, scores, HALF, 3).top_faces == (2, 3, 7)
    assert judge("a", clip, scores, HALF, 2).top_faces == (2, 7)
    # Faces of another person may be at nearly the same time.
    close = file_of(*((second / 10, second % 2, 0.9) for second in range(4)), duration_s=12.0)
    assert judge("a", close, scores_of(0.1, 0.3, 0.2, 0.4), HALF, 3).top_faces == (3, 2)
    # The first of equal scores.
    assert judge("a", clip, scores_of(*[0.5] * 12), HALF, 2).top_faces == (0, 2)


def test_many_faces_are_scored_in_batches():
    sizes = []

    def score(crops):
        sizes.append(len(crops))
        return np.full(len(crops), len(sizes) / 10)

    verdict = judge("a", file_of(*((i / 25, 0, 0.9) for i in range(300))), score, HALF)
    assert sizes == [256, 44]
    assert verdict.faces[255].score == 0.1 and verdict.faces[256].score == 0.2


@pytest.mark.parametrize("bad", [[0.1, np.nan, 0.3, 0.4], [0.1, 1.5, 0.3, 0.4], [0.1]])
def test_invalid_scores_return_no_verdict(bad):
    with pytest.raises(ValueError, match="4 scores from 0 to 1 .*clip.mp4; got"):
        judge("clip.mp4", CLIP, scores_of(*bad), HALF)


def test_a_file_without_a_face_has_a_verdict_and_no_score():
    def score(crops):
        raise AssertionError("nothing to score")

    verdict = judge("sea.mp4", file_of(num_frames=9), score, HALF)
    assert (verdict.verdict, verdict.score, verdict.faces, verdict.tracks, verdict.top_faces) == (
        "no face",
        None,
        (),
        (),
        (),
    )
    assert verdict.most_suspicious_track is None
    assert summarize(predictions_of(verdict)) == "sea.mp4: no face (9 sampled frames)"


def test_predict_file_extracts_faces_with_the_options_of_the_model(tmp_path, astronaut):
    cv2.imwrite(str(tmp_path / "a.png"), astronaut[..., ::-1])
    shapes = []

    def score(crops):
        shapes.append(crops.shape)
        return crops.mean(axis=(1, 2, 3)) / 255

    thresholds = Calibration(threshold=0.4, uncertain_from=0.2, uncertain_to=0.8)
    metadata = ModelMetadata(
        FaceOptions(face_size=71, tracks="largest"), thresholds, "m", 1, "digest"
    )
    predictor = Predictor("m", metadata, score, None)
    verdict = predict_file(tmp_path / "a.png", predictor)
    assert shapes == [(1, 71, 71, 3)]
    assert (verdict.verdict, verdict.duration_s, verdict.num_frames) == ("uncertain", 0.0, 1)
    assert (verdict.width, verdict.height) == (512, 512)
    (face,) = verdict.faces
    left, top, right, bottom = face.box
    assert 0.2 < verdict.score < 0.8
    assert face.score == pytest.approx(verdict.score, abs=1e-12)
    assert abs(left - 179) < 15 and abs(bottom - 170) < 15
    # With a single threshold nothing is uncertain.
    options = PredictOptions(threshold=verdict.score)
    assert predict_file(tmp_path / "a.png", predictor, options).verdict == "fake"
    for bad in (PredictOptions(threshold=1.5), PredictOptions(every=-1)):
        with pytest.raises(ValueError, match="Expected"):
            predict_file(tmp_path / "a.png", predictor, bad)


def predictions_of(*verdicts, failed=()):
    paths = sorted(record.path for record in (*verdicts, *failed))
    provenance = Provenance("m", 1, "ab", "m", "0", FaceOptions(), 0.5, 0.5, "0.5")
    return Predictions(verdicts, tuple(failed), tuple(paths), 0, provenance)


def test_a_summary_has_a_line_per_file_with_its_time_line_and_tracks(monkeypatch, snapshot):
    clip = file_of((0.0, 0, 0.9), (0.0, 1, 0.1), (0.8, 0, 0.9), duration_s=1.0, warnings=["cut"])
    verdict = judge("two.mp4", clip, scores_of(0.05, 1.0, 0.95), HALF)
    predictions = predictions_of(verdict, failed=[FailedFile("z.txt", "not a video")])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert summarize(predictions) == snapshot
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert summarize(predictions).splitlines()[1] == "  0 s 0..9 1.0 s"


def test_a_time_line_has_the_highest_score_of_each_moment(monkeypatch):
    # 80 frames in 40 blocks, a frame in each half second; the second of each pair is higher.
    times = [(index / 4, 0, 0.9) for index in range(80)]
    scores = [(index // 2) / 40 - 0.01 * (index % 2 == 0) * (index > 1) for index in range(80)]
    clip = file_of(*times, num_frames=80, duration_s=20.0)
    verdict = judge("a", clip, scores_of(*scores), HALF)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    blocks = "".join(block * 5 for block in "▁▂▃▄▅▆▇█")
    assert summarize(predictions_of(verdict)).splitlines()[1] == f"  0:00 {blocks} 0:20"
    longer = dataclasses.replace(verdict, duration_s=119.6)
    assert summarize(predictions_of(longer)).splitlines()[1].endswith(" 2:00")


def test_the_table_has_a_row_per_file_in_their_order():
    clip = file_of((0.0, 0, 0.9), (0.5, 1, 0.9), duration_s=2 / 3, warnings=["cut, short", "grey"])
    thresholds = Calibration(uncertain_from=0.25, uncertain_to=0.75)
    predictions = predictions_of(
        judge("b.mp4", clip, scores_of(0.1, 2 / 3), thresholds),
        judge("d.jpg", file_of(num_frames=1, duration_s=0.0), None, thresholds),
        failed=[
            FailedFile("a.mp4", "Expected\na video", file_bytes=7, sha256="cd"),
            FailedFile("c.mp4", "x"),
        ],
    )
    assert to_csv(predictions.records) == (
        "path,verdict,score,uncertain_from,uncertain_to,num_faces,num_tracks,num_frames,"
        "duration_s,width,height,file_bytes,sha256,top_face_time_s,reason,warnings,error,engine\n"
        "a.mp4,,,,,,,,,,,7,cd,,,,Expected a video,\n"
        'b.mp4,uncertain,0.666667,0.25,0.75,2,2,4,0.666667,64,48,,ab,0.5,,"cut, short; grey",,\n'
        "c.mp4,,,,,,,,,,,,,,,,x,\n"
        "d.jpg,no face,,0.25,0.75,0,0,1,0.0,64,48,,ab,,,,,"
    )
    assert len(COLUMNS) == 18


def test_a_path_is_never_a_formula_and_never_moves_the_cursor():
    sea = judge("=1+1.jpg", file_of(num_frames=1, duration_s=0.0), None, HALF)
    predictions = predictions_of(sea, failed=[FailedFile("a\nb\u202e.mp4", "x")])
    assert to_csv(predictions.records).splitlines()[1].startswith("./=1+1.jpg,no face")
    assert summarize(predictions).splitlines()[1] == r"a\nb\u202e.mp4: no verdict"


def test_a_video_of_one_frame_has_no_time_line():
    clip = file_of((0.0, 0, 0.9), num_frames=1, duration_s=0.04)
    assert summarize(predictions_of(judge("a.mp4", clip, scores_of(0.2), HALF))).count("\n") == 0


def model_of(**options):
    return ModelMetadata(FaceOptions(face_size=71, **options), None, "judge", 1, "ab")


def test_the_requested_detector_replaces_that_of_the_model():
    model = model_of(detector="mtcnn", margin=1.5)
    assert choose_faces(model, PredictOptions()).detector == "mtcnn"
    chosen = choose_faces(model, PredictOptions(detector="none"))
    assert (chosen.detector, chosen.face_size, chosen.margin) == ("none", 71, 1.5)


def test_a_model_of_crops_needs_a_detector_to_be_stated():
    model = model_of(detector="none")
    with pytest.raises(ValueError, match=r"--detector none .* --detector dlib"):
        choose_faces(model, PredictOptions())
    for detector in ("none", "dlib"):
        assert choose_faces(model, PredictOptions(detector=detector)).detector == detector
