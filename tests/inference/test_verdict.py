"""What is said of one file, by scores that are known, and how it reads as text."""

import io
from dataclasses import asdict
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.inference.backends import Scorer
from jdfd_keras.inference.verdict import FaceScore, Taken, TrackScore, judge
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction.predict import predict_file
from jdfd_keras.reporting.verdict_text import COLUMNS, draw_time_line, summarize, to_csv

HALF = Calibration()
CROP = np.zeros((2, 2, 3), np.uint8)


def taken(*faces, num_frames=4, duration_s=1.0, warnings=()):
    """A file of faces given as time, track and the detector's score."""
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
    return Taken(Extraction(found, [], num_frames, {}, list(warnings), 64, 48), duration_s, "ab")


def scores_of(*scores):
    return lambda crops: np.array(scores)


FILM = taken((0.0, 0, 0.9), (0.4, 0, 0.9), (0.6, 0, 0.9), (0.8, 0, 0.9))


def test_verdict_is_the_mean_of_the_faces_against_the_threshold():
    score = scores_of(0.25, 0.5, 1.0, 0.25)  # mean 0.5
    verdict = judge("film.mp4", FILM, score, HALF)
    assert (verdict.path, verdict.score, verdict.verdict) == ("film.mp4", 0.5, "fake")
    assert judge("film.mp4", FILM, score, HALF.at(0.51)).verdict == "real"


@pytest.mark.parametrize(
    ("score", "verdict"), [(0.29, "real"), (0.3, "uncertain"), (0.79, "uncertain"), (0.8, "fake")]
)
def test_between_real_and_fake_a_calibrated_verdict_is_uncertain(score, verdict):
    borders = Calibration(threshold=0.5, uncertain_from=0.3, uncertain_to=0.8)
    made = judge("a.mp4", taken((0, 0, 0.9)), scores_of(score), borders)
    assert made.verdict == made.tracks[0].verdict == verdict
    assert (made.uncertain_from, made.uncertain_to) == (0.3, 0.8)


@pytest.mark.parametrize(
    ("borders", "verdict"),
    [(Calibration(uncertain_from=0.6, uncertain_to=0.8), "uncertain"), (Calibration(), "real")],
)
def test_a_person_who_is_fake_for_a_quarter_of_the_film_is_not_simply_real(borders, verdict):
    film = taken(*((second, 0, 0.9) for second in range(12)))
    scores = [0.1] * 4 + [0.9] * 3 + [0.1] * 5  # mean 0.3
    made = judge("a.mp4", film, scores_of(*scores), borders)
    assert (made.verdict, made.tracks[0].verdict) == (verdict, verdict)
    assert made.score == pytest.approx(0.3)
    reason = "track 0 scores 0.900 from 4.0 to 6.0 s; its mean is 0.300"
    assert made.reason == made.tracks[0].reason == (reason if verdict == "uncertain" else "")
    said = summarize(result_of(made)).splitlines()[0]
    told = f"since {reason}" if verdict == "uncertain" else "score 0.300"
    assert said.startswith(f"a.mp4: {verdict}, {told} (12 faces, ")
    assert made.warnings == (
        "track 0 is real on the whole, but fake from 4.0 to 6.0 s (score 0.900), as where "
        "a part was exchanged",
    )
    # As many faces that do not follow one another are errors of the detector.
    apart = [0.9, 0.1, 0.1, 0.1] * 3
    made = judge("a.mp4", film, scores_of(*apart), borders)
    assert (made.verdict, made.warnings) == ("real", ())


def test_verdict_names_every_face_and_what_it_rests_on():
    verdict = judge("film.mp4", FILM, scores_of(0.1, 0.2, 0.3, 0.4), HALF)
    assert verdict.faces[3] == FaceScore(20, 0.8, 0, (10, 1, 50, 60), 0.4)
    assert [face.score for face in verdict.faces] == [0.1, 0.2, 0.3, 0.4]
    assert (verdict.num_frames, verdict.duration_s, verdict.sha256) == (4, 1.0, "ab")
    assert (verdict.width, verdict.height) == (64, 48)


def test_one_fake_person_makes_the_file_a_fake():
    film = taken((0.0, 0, 0.9), (0.0, 1, 0.5), (0.4, 0, 0.9), (0.8, 1, 0.5), warnings=["cut short"])
    verdict = judge("two.mp4", film, scores_of(0.25, 0.75, 0.0, 0.5), HALF)
    assert verdict.tracks == (
        TrackScore(0, 2, 0.9, True, 0.0, 0.4, 0.125, "real", "", ()),
        TrackScore(1, 2, 0.5, True, 0.0, 0.8, 0.625, "fake", "", ()),
    )
    assert (verdict.score, verdict.verdict) == (0.625, "fake")


def test_what_is_perhaps_no_face_does_not_decide():
    badge = taken((0, 0, 1.0), (0, 1, 0.1))
    verdict = judge("badge.mp4", badge, scores_of(0.25, 0.75), HALF)
    assert (verdict.score, verdict.verdict, verdict.strongest) == (0.25, "real", (0,))
    assert [track.decides for track in verdict.tracks] == [True, False]
    # Where the detector was sure of nobody, all count.
    verdict = judge("badge.mp4", taken((0, 0, 0.1), (0, 1, 0.15)), scores_of(0.25, 0.75), HALF)
    assert (verdict.score, verdict.strongest) == (0.75, (1, 0))
    assert [track.decides for track in verdict.tracks] == [True, True]


def test_strongest_faces_of_a_track_stand_apart():
    film = taken(*((second, 0, 0.9) for second in range(12)), duration_s=12.0)
    scores = scores_of(0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.6)
    # Three of them are a twelfth of the film apart, one second; two an eighth, 1.5 s.
    assert judge("a", film, scores, HALF, 3).strongest == (2, 3, 7)
    assert judge("a", film, scores, HALF, 2).strongest == (2, 7)
    # Another person's frame of nearly the same time is not the same.
    close = taken(*((second / 10, second % 2, 0.9) for second in range(4)), duration_s=12.0)
    assert judge("a", close, scores_of(0.1, 0.3, 0.2, 0.4), HALF, 3).strongest == (3, 2)
    # Of one score the first.
    assert judge("a", film, scores_of(*[0.5] * 12), HALF, 2).strongest == (0, 2)


def test_many_faces_are_scored_in_parts():
    sizes = []

    def score(crops):
        sizes.append(len(crops))
        return np.full(len(crops), len(sizes) / 10)

    verdict = judge("a", taken(*((i / 25, 0, 0.9) for i in range(300))), score, HALF)
    assert sizes == [256, 44]
    assert verdict.faces[255].score == 0.1 and verdict.faces[256].score == 0.2


@pytest.mark.parametrize("bad", [[0.1, np.nan, 0.3, 0.4], [0.1, 1.5, 0.3, 0.4], [0.1]])
def test_scores_that_are_none_give_no_verdict(bad):
    with pytest.raises(ValueError, match="Expected 4 scores from 0 to 1.*no verdict"):
        judge("film.mp4", FILM, scores_of(*bad), HALF)


def test_a_file_without_a_face_has_a_verdict_and_no_score():
    def score(crops):
        raise AssertionError("nothing to score")

    verdict = judge("sea.mp4", taken(num_frames=9), score, HALF)
    assert (verdict.verdict, verdict.score, verdict.faces, verdict.tracks, verdict.strongest) == (
        "no face",
        None,
        (),
        (),
        (),
    )
    result = {"files": [asdict(verdict)], "failed": []}
    assert summarize(result) == "sea.mp4: no face (9 frames looked at)"


def test_predict_file_takes_faces_as_the_model_was_trained(tmp_path, astronaut):
    cv2.imwrite(str(tmp_path / "a.png"), astronaut[..., ::-1])
    shapes = []

    def score(crops):
        shapes.append(crops.shape)
        return crops.mean(axis=(1, 2, 3)) / 255

    borders = Calibration(threshold=0.4, uncertain_from=0.2, uncertain_to=0.8)
    known = Description(FaceOptions(face_size=71, tracks="largest"), borders, "m", 1, "digest")
    scorer = Scorer("m", known, score, None)
    verdict = predict_file(tmp_path / "a.png", scorer)
    assert shapes == [(1, 71, 71, 3)]
    assert (verdict.verdict, verdict.duration_s, verdict.num_frames) == ("uncertain", 0.0, 1)
    assert (verdict.width, verdict.height) == (512, 512)
    (face,) = verdict.faces
    left, top, right, bottom = face.box
    assert 0.2 < face.score == verdict.score < 0.8
    assert abs(left - 179) < 15 and abs(bottom - 170) < 15
    # A threshold of one's own leaves nothing uncertain.
    asked = PredictOptions(threshold=verdict.score)
    assert predict_file(tmp_path / "a.png", scorer, asked).verdict == "fake"
    for bad in (PredictOptions(threshold=1.5), PredictOptions(every=-1)):
        with pytest.raises(ValueError, match="Expected"):
            predict_file(tmp_path / "a.png", scorer, bad)


def result_of(*verdicts, failed=()):
    files = [asdict(verdict) for verdict in verdicts]
    paths = [entry["path"] for entry in [*files, *failed]]
    return {"files": files, "failed": list(failed), "paths": sorted(paths)}


def test_a_summary_has_a_line_a_file_its_time_line_and_people(monkeypatch):
    film = taken((0.0, 0, 0.9), (0.0, 1, 0.1), (0.8, 0, 0.9), duration_s=1.0, warnings=["cut"])
    verdict = judge("two.mp4", film, scores_of(0.05, 1.0, 0.95), HALF)
    result = result_of(verdict, failed=[{"path": "z.txt", "error": "no video"}])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert summarize(result).splitlines() == [
        "two.mp4: fake, score 0.500 (2 faces and 1 of perhaps none, fake from 0.5)",
        "  0 s ▁··█ 1.0 s",
        "  track 0: fake, score 0.500 (2 faces)",
        "  track 1: fake, score 1.000 (1 face, perhaps no face)",
        "  warning: cut",
        "z.txt: no verdict",
    ]
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert summarize(result).splitlines()[1] == "  0 s 0..9 1.0 s"


def test_a_time_line_shows_the_highest_score_of_each_moment():
    # 80 frames in 40 places, a frame in each half second; the second of each pair is higher.
    times = [(index / 4, 0, 0.9) for index in range(80)]
    scores = [(index // 2) / 40 - 0.01 * (index % 2 == 0) * (index > 1) for index in range(80)]
    film = taken(*times, num_frames=80, duration_s=20.0)
    verdict = asdict(judge("a", film, scores_of(*scores), HALF))
    assert draw_time_line(verdict) == "0:00 " + "".join(b * 5 for b in "▁▂▃▄▅▆▇█") + " 0:20"
    assert draw_time_line(verdict | {"duration_s": 119.6})[-4:] == "2:00"


def test_the_table_has_a_row_for_every_file_in_their_order():
    film = taken((0.0, 0, 0.9), (0.5, 1, 0.9), duration_s=1 / 3, warnings=["cut, short", "grey"])
    borders = Calibration(uncertain_from=0.25, uncertain_to=0.75)
    result = result_of(
        judge("b.mp4", film, scores_of(0.1, 2 / 3), borders),
        judge("d.jpg", taken(num_frames=1, duration_s=0.0), None, borders),
        failed=[
            {"path": "a.mp4", "error": "Expected\na video", "file_bytes": 7, "sha256": "cd"},
            {"path": "c.mp4", "error": "x"},
        ],
    )
    assert to_csv(result) == (
        "path,verdict,score,uncertain_from,uncertain_to,num_faces,num_tracks,num_frames,"
        "duration_s,width,height,file_bytes,sha256,strongest_time_s,reason,warnings,error\n"
        "a.mp4,,,,,,,,,,,7,cd,,,,Expected a video\n"
        'b.mp4,uncertain,0.666667,0.25,0.75,2,2,4,0.333333,64,48,,ab,0.5,,"cut, short; grey",\n'
        "c.mp4,,,,,,,,,,,,,,,,x\n"
        "d.jpg,no face,,0.25,0.75,0,0,1,0.0,64,48,,ab,,,,"
    )
    assert len(COLUMNS) == 17


def test_no_path_is_a_formula_or_moves_the_cursor():
    sea = judge("=1+1.jpg", taken(num_frames=1, duration_s=0.0), None, HALF)
    result = result_of(sea, failed=[{"path": "a\nb\u202e.mp4", "error": "x"}])
    assert to_csv(result).splitlines()[1].startswith("./=1+1.jpg,no face")
    assert summarize(result).splitlines()[1] == r"a\nb\u202e.mp4: no verdict"


def test_a_video_of_one_frame_has_no_time_line():
    film = taken((0.0, 0, 0.9), num_frames=1, duration_s=0.04)
    assert summarize(result_of(judge("a.mp4", film, scores_of(0.2), HALF))).count("\n") == 0
