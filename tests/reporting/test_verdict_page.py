"""The page that is handed on: its words, its pictures, and nothing from elsewhere."""

import base64
import re
import shutil
from html import unescape

import cv2
import numpy as np
import pytest

from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.inference.backends import Scorer
from jdfd_keras.options import FaceOptions, PredictOptions, PredictWorkOptions
from jdfd_keras.prediction import predict
from jdfd_keras.reporting import verdict_page as page

BORDERS = Calibration(
    temperature=1.5,
    uncertain_from=0.3,
    uncertain_to=0.8,
    wanted_rate=0.05,
    data="own clips",
    num_real=40,
    num_fake=60,
    ece_before=0.06,
    ece_after=0.09,
)
CROP = (200, 60, 10)  # RGB of crops made on the spot
DIGEST = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """A clip, a picture without a face and a text named .mp4."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(sorted(clips_folder.rglob("real/*.mp4"))[0], folder / "clip_one.mp4")
    (folder / "text.mp4").write_text("no video")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    return folder


@pytest.fixture
def explained(monkeypatch):
    """What was explained, by a scorer whose scores rise from face to face."""
    asked = []

    def explain(crops):
        asked.append(crops)
        return np.full(crops.shape[:3], 0.5, np.float32)

    def score(crops):
        return np.linspace(0.85, 0.95, len(crops))

    known = Description(FaceOptions(face_size=71), BORDERS, "judge", 7, DIGEST)
    scorer = Scorer("saved_models/judge", known, score, explain)
    monkeypatch.setattr(predict, "local_scorer", lambda path: scorer)
    return asked


def text_of(page):
    body = re.sub(r"<title>.*?</title>|<style>.*?</style>|<img[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_says_what_was_judged_and_on_what_grounds(inputs, explained, tmp_path):
    asked = PredictOptions(frames_per_video=5)
    path = tmp_path / "page.html"
    result = predict.predict_files([inputs], asked, model="m", report=path)
    page = path.read_text()
    text = text_of(page)
    assert text.startswith("Verdict on 3 files 1 fake; 1 no face; 1 without a verdict")
    (clip, _) = result["files"]
    # The mean of five scores from 0.85 to 0.95.
    assert "Fake, score 0.900 (real below 0.3, fake from 0.8)" in text
    assert "5 faces in the 5 frames looked at" in text
    assert "No face was found in the picture" in text
    assert "text.mp4 Expected a video that FFmpeg can decode" in text
    assert f"SHA-256 {clip['sha256']}" in text and len(clip["sha256"]) == 64
    for said in (
        "judge, version 7",
        DIGEST,
        "saved_models/judge",
        "at most 2 of these 40 reals called fake, and 3 of these 60 fakes called real (5%)",
        "0.060 before, 0.090 after (0 would be none): worse",
        "as calibrated",
        "5 of each video, spread evenly",
        "A score is no proof",
        "It does not mark what was altered",
    ):
        assert said in text
    # The strongest is the last, and the map is of the very crops that were scored.
    (crops,) = explained
    assert crops.shape == (3, 71, 71, 3) and crops.dtype == np.uint8
    assert page.count("<img ") == 1 + 3  # time line and strongest
    assert 'alt="track 0, score 0.950"' in page and "0.20 s 5 0 0.950" in text
    size = (inputs / "clip_one.mp4").stat().st_size
    assert f"{size / 1000:.1f} kB" in text and f"judged {clip['judged']}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_needs_nothing_else_and_its_pictures_can_be_read(inputs, explained, tmp_path):
    path = tmp_path / "page.html"
    predict.predict_files([inputs / "clip_one.mp4"], model="m", report=path)
    page = path.read_text()
    assert text_of(page).startswith("Verdict on clip_one.mp4 Fake, score 0.900.")
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 1 + 3  # time line and strongest faces
    for source in sources:
        kind, encoded = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.*)", source).groups()
        data = base64.b64decode(encoded)
        if kind == "png":
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).std() > 10
        else:
            assert data.startswith(b"<?xml")
    assert "http" not in re.sub(r'src="[^"]+"', "", page)


def test_a_page_of_another_day_explains_what_was_kept(inputs, explained, tmp_path):
    work = PredictWorkOptions(workers=1, explain=2)
    first = predict.predict_files([inputs], None, work, model="m", out=tmp_path / "out")
    assert explained == []
    path = tmp_path / "page.html"
    again = predict.predict_files([inputs], None, model="m", out=tmp_path / "out", report=path)
    assert again == first
    (crops,) = explained
    assert len(crops) == 2
    assert "0.950" in path.read_text()


def test_without_frames_to_explain_there_is_a_time_line_alone(inputs, explained, tmp_path):
    path, work = tmp_path / "page.html", PredictWorkOptions(workers=1, explain=0)
    clip = [inputs / "clip_one.mp4"]
    predict.predict_files(clip, None, work, model="m", report=path)
    assert path.read_text().count("<img ") == 1
    assert "No face is shown here" in path.read_text()
    assert explained == []


def verdict_of(*scores, verdict="real", duration_s=0.0, **others):
    """One person, a face for each score, a tenth of a second apart."""
    mean = float(np.mean(scores))
    track = {"track_id": 0, "decides": True, "verdict": verdict, "score": mean, "confidence": 1.0}
    track |= {"num_faces": len(scores), "start_s": 0.0, "end_s": duration_s}
    face = {"track_id": 0, "box": (1, 1, 5, 5)}
    return {
        "path": "a.mp4",
        "verdict": verdict,
        "score": mean,
        "num_frames": len(scores),
        "duration_s": duration_s,
        "width": 9,
        "height": 9,
        "sha256": "ab",
        "uncertain_from": 0.3,
        "uncertain_to": 0.8,
        "tracks": [track],
        "faces": [
            face | {"frame_index": index, "time_s": index / 10, "score": score}
            for index, score in enumerate(scores)
        ],
        "strongest": [int(np.argmax(scores))],
        "warnings": [],
        **others,
    }


def write(path, *verdicts, explain=None, num_crops=1, **others):
    known = Description(FaceOptions(), None, "judge", 1, DIGEST)
    result = {"files": verdicts, "failed": [], "paths": [told["path"] for told in verdicts]}
    crops = np.full((num_crops, 8, 8, 3), CROP, np.uint8)
    scorer = Scorer("m", known, None, explain)
    page.write_report(path, result | others, scorer, FaceOptions(every=1), lambda path: crops)
    return text_of(path.read_text())


def test_a_part_that_looks_fake_is_the_reason_that_is_given(tmp_path):
    told = verdict_of(*[0.1] * 9, 0.8, 0.9, 0.88, verdict="uncertain", duration_s=1.2)
    text = write(tmp_path / "page.html", told)
    reason = "Uncertain, since track 0 scores 0.860 from 0.9 to 1.1 s"
    assert text.startswith(f"Verdict on a.mp4 {reason}.")
    # 0.9 and 2.58 are the sums of the two parts; of twelve, that is 0.29.
    assert f"{reason} (real below 0.3, fake from 0.8): its mean is 0.290." in text
    assert "0 uncertain 0.290 (a part 0.860) 12" in text


def test_what_does_not_decide_is_not_counted(tmp_path):
    told = verdict_of(0.2, 0.2, duration_s=1.0)
    told["tracks"].append(told["tracks"][0] | {"track_id": 1, "decides": False})
    told["faces"].append(told["faces"][0] | {"track_id": 1, "score": 0.9})
    text = write(tmp_path / "page.html", told)
    assert "the mean of one person, from 2 faces in the 2 frames looked at" in text
    assert "without a part in the verdict: track 1." in text
    assert "(real, perhaps no face)" in text


def test_a_still_has_no_times_and_a_real_one_another_sentence(tmp_path):
    explain = lambda crops: np.zeros(crops.shape[:3], np.float32)  # noqa: E731
    text = write(tmp_path / "page.html", verdict_of(0.2), explain=explain)
    assert "Real, score 0.200 (real below 0.3, fake from 0.8): one person, 1 face" in text
    assert "it was not enough to call the file fake" in text
    assert "seen" not in text.split("All people")[1].split("What they do not say")[0]
    assert "frames all" not in text and "time frame" not in text


def test_a_crop_keeps_its_colours_and_has_its_map_beside_it(tmp_path):
    told = verdict_of(0.9, verdict="fake")
    text = write(tmp_path / "page.html", told, explain=lambda crops: np.ones((1, 8, 8), np.float32))
    assert "The face that scores highest, and where the network saw what spoke for fake" in text
    encoded = re.search(
        r'src="data:image/png;base64,([^"]+)"', (tmp_path / "page.html").read_text()
    )
    data = np.frombuffer(base64.b64decode(encoded[1]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.shape == (240, 240 + 8 + 240, 3)
    np.testing.assert_array_equal(picture[120, 120], CROP)
    # Half of grey (90) and half of the last colour of inferno, (252, 255, 164) or near.
    np.testing.assert_allclose(picture[120, 368], (171, 172, 127), atol=2)


def test_a_server_that_is_gone_costs_the_maps_alone_and_is_asked_once(tmp_path):
    asked = []

    def explain(crops):
        asked.append(crops)
        raise ConnectionRefusedError("nobody there")

    files = [verdict_of(0.2, path="a.jpg"), verdict_of(0.1, path="b.jpg")]
    text = write(tmp_path / "page.html", *files, explain=explain)
    said = "without maps: the model could not be asked (nobody there)"
    assert len(asked) == 1 and text.count(said) == 2
    assert (tmp_path / "page.html").read_text().count("<img ") == 2


def test_neighbours_of_the_page_stay_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    mine = tmp_path / "unfinished-page.html"
    mine.write_text("mine")
    write(tmp_path / "page.html", verdict_of(0.2))
    assert mine.read_text() == "mine"

    def refuse(*places):
        raise PermissionError("no")

    monkeypatch.setattr(page.os, "replace", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "page.html", verdict_of(0.2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", mine.name]


def test_what_was_passed_over_is_said(tmp_path):
    text = write(tmp_path / "page.html", verdict_of(0.2), passed_over=3)
    assert "Passed over in folders: 3 files" in text


def test_of_many_files_the_most_suspicious_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_SHOWN", 2)
    scores = {"a|b.jpg": 0.1, "<i>.jpg": 0.3, "c.jpg": 0.2}
    files = [
        verdict_of(score, path=path, warnings=["cut <short>"]) for path, score in scores.items()
    ]
    text = write(tmp_path / "page.html", *files)
    written = (tmp_path / "page.html").read_text()
    headings = [unescape(text) for text in re.findall(r"<h2>(.*?)</h2>", written)]
    assert headings[:2] == ["<i>.jpg", "c.jpg"]
    assert "Below are the 2 most suspicious of them" in text
    assert "a|b.jpg real 0.100" in text  # all are in the table
    assert "Warning: cut <short>." in text
    assert "calibration none: the scores are no probabilities" in text


def test_one_file_shows_no_progress(tmp_path, capsys):
    write(tmp_path / "page.html", verdict_of(0.2))
    assert capsys.readouterr().err == ""
