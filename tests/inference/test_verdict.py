"""Verdicts on one file from known scores, and their text."""

import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.stats import beta

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.thresholds import choose_thresholds
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.tracks import FaceScore, Segment, TrackScore, choose_top_faces
from jdfd_keras.inference.verdict import Provenance, Verdict, choose_faces, judge
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.predict import Predictions, predict_file
from jdfd_keras.prediction.verdict_table import COLUMNS, to_csv
from jdfd_keras.reporting.verdict_text import summarize

HALF = Calibration()
CROP = np.zeros((2, 2, 3), np.uint8)


def file_of(*faces, num_frames=4, duration_s=1.0, warnings=(), size_px=80, sharpness=30.0):
    """Make a file of faces given as time, track and detector score."""
    found = [
        SimpleNamespace(
            frame_index=round(25 * time_s),
            time_s=time_s,
            track_id=track_id,
            box=(10, 1, 50, 60, confidence),
            crop=CROP,
            quality=SimpleNamespace(size_px=size_px, sharpness=sharpness),
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
    assert judge("clip.mp4", CLIP, score, HALF.with_threshold(0.51)).verdict == "no_evidence"


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.29, "no_evidence"), (0.3, "uncertain"), (0.79, "uncertain"), (0.8, "fake")],
)
def test_between_its_thresholds_a_calibrated_verdict_is_uncertain(score, verdict):
    thresholds = Calibration(threshold=0.5, uncertain_from=0.3, uncertain_to=0.8)
    clip = file_of((0, 0, 0.9), num_frames=1)
    result = judge("a.mp4", clip, scores_of(score), thresholds)
    assert result.verdict == result.tracks[0].verdict == verdict
    assert (result.uncertain_from, result.uncertain_to) == (0.3, 0.8)
    assert (result.num_people, result.reasons) == (1, ())


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [(Calibration(uncertain_from=0.6, uncertain_to=0.8), "uncertain"), (HALF, "no_evidence")],
)
def test_a_person_who_is_fake_for_a_quarter_of_the_clip_is_noticed(thresholds, verdict):
    clip = file_of(*((second, 0, 0.9) for second in range(12)))
    scores = [0.1] * 4 + [0.9] * 3 + [0.1] * 5  # mean 0.3
    result = judge("a.mp4", clip, scores_of(*scores), thresholds)
    (track,) = result.tracks
    assert (result.verdict, track.verdict) == (verdict, verdict)
    assert result.score == pytest.approx(0.3)
    assert track.segment == Segment(4.0, 6.0, pytest.approx(0.9))
    assert track.is_uncertain_by_segment == (verdict == "uncertain")
    sentence = "person 0 scores 0.900 from 4.0 to 6.0 s, although the mean of all faces is 0.300"
    # What decides is a reason, and what does not is a warning.
    texts = result.reasons if verdict == "uncertain" else result.warnings
    assert [text.startswith(sentence) for text in texts] == [True]
    assert len(result.reasons) + len(result.warnings) == 1
    # As many faces that are not consecutive are errors of the detector.
    apart = [0.9, 0.1, 0.1, 0.1] * 3
    result = judge("a.mp4", clip, scores_of(*apart), thresholds)
    assert (result.verdict, result.tracks[0].segment) == ("no_evidence", None)
    assert result.warnings == result.reasons == ()


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
    faces = [(0.0, 0, 0.9), (0.0, 1, 0.5), (0.4, 0, 0.9), (0.8, 1, 0.5)]
    clip = file_of(*faces, num_frames=2, warnings=["cut short"])
    verdict = judge("two.mp4", clip, scores_of(0.25, 0.75, 0.0, 0.5), HALF)
    assert verdict.tracks == (
        TrackScore(0, 2, 0.9, 0.0, 0.4, 0.125, "no_evidence"),
        TrackScore(1, 2, 0.5, 0.0, 0.8, 0.625, "fake"),
    )
    assert (verdict.score, verdict.verdict, verdict.num_people) == (0.625, "fake", 2)
    assert verdict.most_suspicious_track == verdict.tracks[1]


def test_a_track_that_may_not_be_a_face_does_not_change_the_verdict():
    badge = file_of((0, 0, 1.0), (0, 1, 0.1), num_frames=1)
    verdict = judge("badge.mp4", badge, scores_of(0.25, 0.75), HALF)
    assert (verdict.score, verdict.verdict, verdict.top_faces) == (0.25, "no_evidence", (0,))
    assert [track.is_judged for track in verdict.tracks] == [True, False]
    assert verdict.tracks[1].verdict == "not judged"
    assert verdict.tracks[1].not_judged.startswith("possibly not a face: mean detector score 0.10")
    assert [face.track_id for face in verdict.judged_faces] == [0]
    assert verdict.num_people == 1


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (file_of((0, 0, 0.1), (0.1, 0, 0.15), (0.2, 0, 0.1)), "possibly not a face"),
        (file_of((0, 0, 0.9), (0.1, 0, 0.9)), "too few faces: 2 (at least 3)"),
        (file_of((0, 0, 0.9), size_px=39, num_frames=1), "faces too small: median width 39 px"),
        (file_of((0, 0, 0.9), sharpness=1.9, num_frames=1), "faces too blurred: median sharpness"),
    ],
)
def test_faces_with_too_little_evidence_are_scored_but_not_judged(clip, reason):
    verdict = judge("a.mp4", clip, lambda crops: np.full(len(crops), 0.9), HALF)
    assert (verdict.verdict, verdict.score, verdict.num_people) == ("uncertain", None, 0)
    (track,) = verdict.tracks
    assert track.not_judged.startswith(reason) and track.score == pytest.approx(0.9)
    (stated,) = verdict.reasons
    assert stated == f"person 0 is not judged: {track.not_judged}"
    assert verdict.top_faces == () and verdict.most_suspicious_track is None
    assert len(verdict.faces) == len(clip.faces)


def calibration_of(real, fake, rate=0.05, **values):
    """Make a calibration with known scores of validation videos."""
    low, high = choose_thresholds(real, fake, rate)
    counts = {"num_real": len(real), "num_fake": len(fake), "target_error_rate": rate}
    scores = {"real_scores": tuple(real), "fake_scores": tuple(fake)}
    slope = {"lr_offset": 0.0, "lr_slope": 1.0}
    names = {"uncertain_from": low, "uncertain_to": high}
    return Calibration(**counts | scores | slope | names | values)


# 99 real videos at 0.0, 0.01 ... 0.98 and 49 fake ones at 0.02, 0.04 ... 0.98.
OVERLAP = calibration_of(np.arange(99) / 100, np.arange(1, 50) / 50)


def people_of(*scores):
    """Make a file of as many people, with three faces each, and the function that scores them."""
    faces = [(time_s / 10, track, 0.9) for time_s in range(3) for track in range(len(scores))]
    return file_of(*faces, num_frames=3), scores_of(*scores * 3)


def test_more_people_need_a_higher_score_to_be_called_fake():
    # The 5 highest of 99 real videos are 0.94 to 0.98, so that 1 person is fake from above 0.94;
    # with 4, 1 - 0.95 ** (1 / 4) = 1.27 % of 100 ranks leave the highest one only.
    one, four = people_of(0.96), people_of(0.96, 0.0, 0.0, 0.0)
    assert judge("a.mp4", *one, OVERLAP).verdict == "fake"
    verdict = judge("a.mp4", *four, OVERLAP)
    assert (verdict.verdict, verdict.num_people, verdict.reasons) == ("uncertain", 4, ())
    assert verdict.uncertain_to > 0.98 and verdict.tracks[0].verdict == "uncertain"
    # A given threshold holds for any number of people.
    assert judge("a.mp4", *four, OVERLAP.with_threshold(0.95)).verdict == "fake"


def test_too_few_validation_videos_for_so_many_people_are_a_reason():
    few = calibration_of(np.linspace(0, 0.3, 12), np.linspace(0.6, 1, 12))
    verdict = judge("a.mp4", *people_of(0.99, 0.9, 0.9, 0.9), few)
    # 1 in 13 is the lowest rate of 12 videos.
    assert verdict.verdict == "uncertain"
    assert verdict.reasons == (
        "validation has too few real videos (12) to call a file with 4 people fake at an error "
        "rate of 7.7 %",
    )
    assert verdict.score == 0.99 and verdict.likelihood is not None
    nothing = judge("a.mp4", *people_of(0.01, 0.01, 0.01, 0.01), few)
    assert (nothing.verdict, nothing.reasons) == ("no_evidence", ())


def test_the_evidence_of_the_score_is_that_of_validation():
    verdict = judge("a.mp4", *people_of(0.9, 0.1), OVERLAP)
    real, fake = verdict.error_rates.real_as_high, verdict.error_rates.fake_as_low
    # 0.90 to 0.98 of the real videos, and 0.02 to 0.90 of the fake ones.
    assert (real.count, real.total, fake.count, fake.total) == (9, 99, 45, 49)
    assert real.rate == pytest.approx(1 - (1 - 9 / 99) ** 2)
    # The ratio of a person is its odds, 9 and 1 / 9; that of the file is their mean.
    assert verdict.likelihood.log10 == pytest.approx(np.log10((9 + 1 / 9) / 2))
    assert judge("a.mp4", *people_of(0.9), HALF).error_rates is None


class Domain:
    """A domain that a file is beyond, as `client.domain.Domain`."""

    def complete(self, measures):
        return measures

    def check(self, measures):
        return ("the faces are smaller (50 px) than those of validation (60 to 200 px)",)


def test_a_file_beyond_the_domain_is_uncertain_whatever_its_score(monkeypatch):
    monkeypatch.setattr("jdfd_keras.inference.verdict.measure_file", lambda *_: None)
    beyond = dataclasses.replace(OVERLAP, domain=Domain())
    verdict = judge("a.mp4", *people_of(0.999), beyond)
    assert (verdict.verdict, verdict.score, verdict.is_beyond_domain) == ("uncertain", 0.999, True)
    assert verdict.reasons == Domain().check(None)
    assert verdict.likelihood is verdict.error_rates is None
    assert verdict.tracks[0].verdict == "fake"


def test_top_faces_of_a_track_are_spread_over_the_clip():
    clip = file_of(*((second, 0, 0.9) for second in range(12)), duration_s=12.0)
    scores = scores_of(0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.6)
    # Three of them are at least a twelfth of the clip apart, 1 s; two an eighth, 1.5 s.
    assert judge("a", clip, scores, HALF, 3).top_faces == (2, 3, 7)
    assert judge("a", clip, scores, HALF, 2).top_faces == (2, 7)
    # Faces of another person may be at nearly the same time.
    times = ((second / 10, second % 2, 0.9) for second in range(4))
    close = file_of(*times, num_frames=2, duration_s=12.0)
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
    assert lines_of(predictions_of(verdict)) == [
        "sea.mp4: no face: none in 9 sampled frames",
        "model: m, version 1",
    ]


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
    names = {"model": "m", "version": 1, "digest": "ab", "where": "m", "faces": FaceOptions()}
    provenance = Provenance(**names, uncertain_from=0.5, uncertain_to=0.5, thresholds="0.5")
    return Predictions(verdicts, tuple(failed), tuple(paths), 0, provenance)


def lines_of(predictions, page=None):
    """Return the lines of a summary after the note on what the model does not see."""
    return summarize(predictions, page).splitlines()[1:]


def test_a_summary_begins_with_what_the_model_does_not_see_and_a_mark(tmp_path):
    verdict = judge("sea.mp4", file_of(num_frames=9), None, HALF)
    plain = predictions_of(verdict)
    first, *_ = summarize(plain).splitlines()
    assert first.startswith("note: The detector examines faces only")
    for unseen in ("changed sound", "generated scenes", "fully generated faces", "talking heads"):
        assert unseen in first
    metadata = dataclasses.replace(model_of(), demonstration=True)
    facts = {"demonstration": True, "notes": metadata.notes}
    provenance = dataclasses.replace(plain.provenance, **facts)
    marked = summarize(dataclasses.replace(plain, provenance=provenance))
    mark = "note: For demonstration only: this model cannot judge real videos."
    assert marked.splitlines() == [mark, *summarize(plain).splitlines()]


def test_a_summary_has_a_line_per_file_with_its_time_line_and_tracks(monkeypatch, snapshot):
    faces = [(0.0, 0, 0.9), (0.0, 1, 0.1), (0.8, 0, 0.9)]
    clip = file_of(*faces, num_frames=2, duration_s=1.0, warnings=["cut"])
    verdict = judge("two.mp4", clip, scores_of(0.05, 1.0, 0.95), HALF)
    predictions = predictions_of(verdict, failed=[FailedFile("z.txt", "not a video")])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert summarize(predictions) == snapshot
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert lines_of(predictions)[1] == "  0 s 09 1.0 s"


def test_a_time_line_has_the_highest_score_of_each_moment(monkeypatch):
    # 80 frames in 40 blocks, a frame in each half second; the second of each pair is higher.
    times = [(index / 4, 0, 0.9) for index in range(80)]
    scores = [(index // 2) / 40 - 0.01 * (index % 2 == 0) * (index > 1) for index in range(80)]
    clip = file_of(*times, num_frames=80, duration_s=20.0)
    verdict = judge("a", clip, scores_of(*scores), HALF)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    blocks = "".join(block * 5 for block in "▁▂▃▄▅▆▇█")
    assert lines_of(predictions_of(verdict))[1] == f"  0:00 {blocks} 0:20"
    longer = dataclasses.replace(verdict, duration_s=119.6)
    assert lines_of(predictions_of(longer))[1].endswith(" 2:00")


def test_the_table_has_a_row_per_file_in_their_order():
    faces = [(0.0, 0, 0.9), (0.5, 1, 0.9), (0.5, 2, 0.1)]
    clip = file_of(*faces, num_frames=1, duration_s=2 / 3, warnings=["cut, short", "grey"])
    thresholds = Calibration(uncertain_from=0.25, uncertain_to=0.75)
    predictions = predictions_of(
        judge("b.mp4", clip, scores_of(0.1, 2 / 3, 1), thresholds),
        judge("d.jpg", file_of(num_frames=1, duration_s=0.0), None, thresholds),
        failed=[
            FailedFile("a.mp4", "Expected\na video", file_bytes=7, sha256="cd"),
            FailedFile("c.mp4", "x"),
        ],
    )
    header, *rows = csv.reader(to_csv(predictions.records).splitlines())
    assert tuple(header) == COLUMNS and len(COLUMNS) == 29
    cells = [{name: cell for name, cell in zip(header, row, strict=True) if cell} for row in rows]
    size = {"width": "64", "height": "48", "sha256": "ab"}
    band = {"uncertain_from": "0.25", "uncertain_to": "0.75"}
    assert cells == [
        {"path": "a.mp4", "file_bytes": "7", "sha256": "cd", "error": "Expected a video"},
        {
            "path": "b.mp4",
            "verdict": "uncertain",
            "score": "0.666667",
            "num_people": "2",
            "num_tracks": "3",
            "num_faces": "3",
            "num_frames": "1",
            "duration_s": "0.666667",
            "top_face_time_s": "0.5",
            "warnings": "cut, short; grey",
            "not_judged": "person 2: possibly not a face: mean detector score 0.10 (at least 0.2)",
            **size | band,
        },
        {"path": "c.mp4", "error": "x"},
        {
            "path": "d.jpg",
            "verdict": "no face",
            "num_people": "0",
            "num_tracks": "0",
            "num_faces": "0",
            "num_frames": "1",
            "duration_s": "0.0",
            **size | band,
        },
    ]


def test_the_table_has_the_evidence_of_a_calibrated_model():
    verdict = judge("a.mp4", *people_of(0.9), OVERLAP)
    (row,) = csv.DictReader(to_csv([verdict]).splitlines())
    # Odds of 9; 9 of 99 real and 45 of 49 fake videos score as extreme.
    assert (row["log10_lr"], row["support"]) == ("0.954243", "weak support for manipulation")
    assert (row["real_as_high"], row["fake_as_low"]) == ("0.090909", "0.918367")
    # Clopper-Pearson, by the quantiles of SciPy's beta distribution.
    assert float(row["real_as_high_at_most"]) == pytest.approx(beta.ppf(0.975, 10, 90), abs=1e-6)
    assert float(row["fake_as_low_at_most"]) == pytest.approx(beta.ppf(0.975, 46, 4), abs=1e-6)


def test_a_path_is_never_a_formula_and_never_moves_the_cursor():
    sea = judge("=1+1.jpg", file_of(num_frames=1, duration_s=0.0), None, HALF)
    predictions = predictions_of(sea, failed=[FailedFile("a\nb\u202e.mp4", "x")])
    assert to_csv(predictions.records).splitlines()[1].startswith("./=1+1.jpg,no face")
    assert r"a\nb\u202e.mp4: no verdict" in summarize(predictions).splitlines()


def test_a_video_of_one_frame_has_no_time_line():
    clip = file_of((0.0, 0, 0.9), num_frames=1, duration_s=0.04)
    verdict = judge("a.mp4", clip, scores_of(0.2), HALF)
    assert lines_of(predictions_of(verdict)) == [
        "a.mp4: no evidence of manipulation: person 0 scores 0.200 (fake from 0.5)",
        "model: m, version 1",
    ]


def test_several_files_are_counted_by_verdict_in_the_order_that_they_were_given():
    verdicts = [
        judge(f"{name}.mp4", *people_of(score), HALF)
        for name, score in zip("bca", (0.9, 0.1, 0.2), strict=True)
    ]
    predictions = dataclasses.replace(
        predictions_of(*verdicts, failed=[FailedFile("x", "y")]),
        paths=("b.mp4", "x", "c.mp4", "a.mp4"),
    )
    lines = lines_of(predictions, "all.html")
    assert [line.split(":")[0] for line in lines if line[0] != " "][:4] == [
        "b.mp4",
        "x",
        "c.mp4",
        "a.mp4",
    ]
    assert lines[-1] == (
        "4 files: 1 fake, 2 no evidence of manipulation, 1 without a verdict; page: all.html"
    )
    first = lines_of(predictions_of(verdicts[0]), "b.html")[0]
    assert first.endswith("scores 0.900 (fake from 0.5); page: b.html")


def model_of(**options):
    return ModelMetadata(FaceOptions(face_size=71, **options), None, "judge", 1, "ab")


def test_the_requested_detector_replaces_that_of_the_model():
    model = model_of(detector="mtcnn", margin=1.5)
    assert choose_faces(model, PredictOptions()).detector == "mtcnn"
    chosen = choose_faces(model, PredictOptions(detector="none"))
    assert (chosen.detector, chosen.face_size, chosen.margin) == ("none", 71, 1.5)


def test_a_detector_with_other_landmarks_than_the_training_is_refused():
    for trained, asked in [("dlib", "mesh"), ("mtcnn", "mesh"), ("mesh", "dlib")]:
        with pytest.raises(ValueError, match=f"got {asked}, .*--detector {trained}"):
            choose_faces(model_of(detector=trained), PredictOptions(detector=asked))


def test_a_model_of_crops_needs_a_detector_to_be_stated():
    model = model_of(detector="none")
    with pytest.raises(ValueError, match=r"--detector none .* --detector dlib"):
        choose_faces(model, PredictOptions())
    for detector in ("none", "dlib"):
        assert choose_faces(model, PredictOptions(detector=detector)).detector == detector


def test_top_faces_of_all_people_take_turns():
    # Two people in the same frames; the highest score of each comes before the second ones.
    faces = [
        FaceScore(index, float(index), track_id, (0, 0, 9, 9), score)
        for index, scores in enumerate([(0.9, 0.3), (0.8, 0.1), (0.7, 0.4)])
        for track_id, score in enumerate(scores)
    ]
    chosen = choose_top_faces(faces, {0, 1}, duration_s=3.0, count=2)
    assert [faces[index].score for index in chosen] == [0.9, 0.4, 0.8, 0.3]
    assert choose_top_faces(faces, {1}, duration_s=3.0, count=1) == (5,)
    assert choose_top_faces(faces, {0, 1}, duration_s=3.0, count=0) == ()
