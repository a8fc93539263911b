"""The page that is handed on: its words, its pictures, and nothing from elsewhere."""

import base64
import re
import shutil
from html import unescape

import cv2
import numpy as np
import pytest

from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.options import FaceOptions, PredictOptions, PredictWorkOptions
from jdfd_keras.serving.description import Description
from jdfd_keras.serving.scorers import Scorer
from jdfd_keras.serving.verdict import page, predict

BORDERS = Calibration(
    temperature=1.5,
    uncertain_from=0.3,
    uncertain_to=0.8,
    wanted_rate=0.05,
    data="own clips",
    num_real=40,
    num_fake=60,
)
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
    assert "No face was found in the 1 frame looked at" in text
    assert "text.mp4 Expected a video that FFmpeg can decode" in text
    assert f"SHA-256 {clip['sha256']}" in text and len(clip["sha256"]) == 64
    for said in (
        "judge, version 7",
        DIGEST,
        "saved_models/judge",
        "on 40 real and 60 fake videos of own clips, no more than 5%",
        "5 of each video, spread evenly",
        "A score is no proof",
        "It does not mark what was altered",
    ):
        assert said in text
    # The strongest is the last, and the map is of the very crops that were scored.
    (crops,) = explained
    assert crops.shape == (3, 71, 71, 3) and crops.dtype == np.uint8
    assert re.search(r'alt="0.20 s, frame 5, track 0, score 0.950; [^"]*score 0\.\d+"', page)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_needs_nothing_else_and_its_pictures_can_be_read(inputs, explained, tmp_path):
    path = tmp_path / "page.html"
    predict.predict_files([inputs / "clip_one.mp4"], model="m", report=path)
    page = path.read_text()
    assert text_of(page).startswith("Verdict on clip_one.mp4 1 fake.")
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 2  # time line and strongest frames
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
    assert explained == []


def test_of_many_files_the_most_suspicious_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_SHOWN", 2)
    verdict = {
        "verdict": "real",
        "num_frames": 1,
        "duration_s": 0.0,
        "width": 9,
        "height": 9,
        "sha256": "ab",
        "uncertain_from": 0.5,
        "uncertain_to": 0.5,
        "tracks": [],
        "faces": [],
        "strongest": [],
        "warnings": ["cut <short>"],
    }
    scores = {"a|b.jpg": 0.1, "<i>.jpg": 0.3, "c.jpg": 0.2}
    files = [verdict | {"path": path, "score": score} for path, score in scores.items()]
    known = Description(FaceOptions(), None, "judge", 1, DIGEST)
    page.write_report(
        tmp_path / "page.html",
        {"files": files, "failed": [], "paths": list(scores)},
        Scorer("m", known, None, None),
        FaceOptions(every=1),
        lambda path: np.empty((0, 0, 0, 3)),
    )
    written = (tmp_path / "page.html").read_text()
    headings = [unescape(text) for text in re.findall(r"<h2>(.*?)</h2>", written)]
    assert headings[:2] == ["<i>.jpg", "c.jpg"]
    text = text_of(written)
    assert "Below are the 2 most suspicious of them" in text
    assert "a|b.jpg real 0.100" in text  # all are in the table
    assert "Warning: cut <short>." in text
    assert "calibration none: the scores are no probabilities" in text and "frames all" in text
