"""The verdict page: its text and images, and no reference to anything outside it."""

import base64
import dataclasses
import re
import shutil
from html import unescape

import cv2
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.tracks import FaceScore, Segment, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io import files
from jdfd_keras.options import FaceOptions, PredictOptions, PredictRuntime
from jdfd_keras.prediction import predict
from jdfd_keras.prediction.predict import Predictions, TopFaces
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.reporting.verdict_text import summarize

CALIBRATION = Calibration(
    temperature=1.5,
    uncertain_from=0.3,
    uncertain_to=0.8,
    target_error_rate=0.05,
    data="own clips",
    num_real=40,
    num_fake=60,
    ece_before=0.06,
    ece_after=0.09,
)
CROP = (200, 60, 10)  # RGB
ENGINE = Engine("openvino", "2026.4.1", "bfloat16")
DIGEST = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """A clip, an image without a face and a text named .mp4."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(sorted(clips_folder.rglob("real/*.mp4"))[0], folder / "clip_one.mp4")
    (folder / "text.mp4").write_text("not a video")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    return folder


@pytest.fixture
def explained(monkeypatch):
    """The crops that were explained, by a predictor whose scores increase from face to face."""
    calls = []

    def explain(crops):
        calls.append(crops)
        return np.full(crops.shape[:3], 0.5, np.float32)

    def score(crops):
        return np.linspace(0.85, 0.95, len(crops))

    metadata = ModelMetadata(FaceOptions(face_size=71), CALIBRATION, "judge", 7, DIGEST)
    predictor = Predictor("saved_models/judge", metadata, score, explain)
    monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor)
    return calls


def text_of(page):
    body = re.sub(r"<title>.*?</title>|<style>.*?</style>|<img[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_states_the_verdicts_and_their_evidence(inputs, explained, tmp_path):
    options, path = PredictOptions(frames_per_video=5), tmp_path / "page.html"
    predictions = predict.predict_files([inputs], options, model="m", explain=True)
    write_report(predictions, path)
    page = path.read_text()
    text = text_of(page)
    assert "1 fake; 1 no face; 1 without" in text
    (clip, _) = predictions.files
    # The mean of five scores from 0.85 to 0.95.
    assert "Fake, score 0.900 (" in text and "below 0.3, fake from 0.8)" in text
    assert "5 faces in 5" in text and "sea.png No face" in text
    assert "text.mp4 Expected a video" in text
    assert f"SHA-256 {clip.sha256}" in text and len(clip.sha256) == 64
    for fact in (
        "judge, version 7",
        DIGEST,
        "saved_models/judge",
        "2 of 40 real and 3 of 60 fake",  # at most 5 %
        "0.060 before, 0.090 after",
        "as calibrated",
        "5 of each video",
        "not proof",
    ):
        assert fact in text
    # The top face is the last one, and the maps are those of the scored crops.
    (crops,) = explained
    assert crops.shape == (3, 71, 71, 3) and crops.dtype == np.uint8
    assert page.count("<img ") == 1 + 3  # time line and top faces
    assert 'alt="track 0, score 0.950"' in page and "0.20 s 5 0 0.950" in text
    size = (inputs / "clip_one.mp4").stat().st_size
    assert f"{size / 1000:.1f} kB" in text and f"analysed at {clip.analysed_at}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_refers_to_no_other_file_and_its_images_are_valid(inputs, explained, tmp_path):
    path = tmp_path / "page.html"
    paths = [inputs / "clip_one.mp4"]
    write_report(predict.predict_files(paths, model="m", explain=True), path)
    page = path.read_text()
    assert text_of(page).startswith("Verdict on clip_one.mp4 Fake, score 0.900.")
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 1 + 3  # time line and top faces
    for source in sources:
        kind, encoded = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.*)", source).groups()
        data = base64.b64decode(encoded)
        if kind == "png":
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).std() > 10
        else:
            assert data.startswith(b"<?xml")
    assert "://" not in re.sub(r'src="[^"]+"', "", page)


def test_a_later_report_explains_the_kept_faces(inputs, explained, tmp_path):
    runtime, out = PredictRuntime(workers=1, explain=2), tmp_path / "out"
    first = predict.predict_files([inputs], None, runtime, model="m", out=out)
    assert explained == [] and first.top_faces == {}
    again = predict.predict_files([inputs], model="m", out=out, explain=True)
    # A failed file is tried again, at another time.
    assert again.files == first.files
    assert [file.path for file in again.failed] == [file.path for file in first.failed]
    (crops,) = explained
    assert len(crops) == 2
    write_report(again, tmp_path / "page.html")
    assert "0.950" in (tmp_path / "page.html").read_text()


def test_without_faces_to_explain_the_time_line_is_the_only_image(inputs, explained, tmp_path):
    path, runtime = tmp_path / "page.html", PredictRuntime(workers=1, explain=0)
    clip = [inputs / "clip_one.mp4"]
    write_report(predict.predict_files(clip, None, runtime, model="m", explain=True), path)
    assert path.read_text().count("<img ") == 1
    assert "--explain" in path.read_text()
    assert explained == []


def verdict_of(*scores, path="a.mp4", verdict="real", duration_s=0.0, segment=None, **facts):
    """Make a verdict on one person with a face for each score, a tenth of a second apart."""
    mean = float(np.mean(scores))
    track = TrackScore(0, len(scores), 1.0, True, 0.0, duration_s, mean, verdict, segment)
    return Verdict(
        path=path,
        sha256="ab",
        verdict=verdict,
        score=mean,
        uncertain_from=0.3,
        uncertain_to=0.8,
        num_frames=len(scores),
        duration_s=duration_s,
        width=9,
        height=9,
        tracks=(track,),
        faces=tuple(
            FaceScore(index, index / 10, 0, (1, 1, 5, 5), score)
            for index, score in enumerate(scores)
        ),
        top_faces=(int(np.argmax(scores)),),
        **{"warnings": (), "engine": ENGINE.describe()} | facts,
    )


def write(path, *verdicts, cams=None, failure="", skipped=0, engine=ENGINE):
    crops = np.full((1, 8, 8, 3), CROP, np.uint8)
    predictions = Predictions(
        files=verdicts,
        failed=(),
        paths=tuple(verdict.path for verdict in verdicts),
        skipped=skipped,
        provenance=Provenance(
            *("judge", 1, DIGEST, "m", "0", FaceOptions(every=1), 0.3, 0.8, "0.5"), engine=engine
        ),
        top_faces={verdict.path: TopFaces(crops, cams, failure) for verdict in verdicts},
    )
    write_report(predictions, path)
    return text_of(path.read_text())


def test_a_fake_segment_is_the_stated_reason(tmp_path, snapshot):
    scores, segment = [0.1] * 9 + [0.8, 0.9, 0.88], Segment(0.9, 1.1, 0.86)
    verdict = verdict_of(*scores, verdict="uncertain", duration_s=1.2, segment=segment)
    text = write(tmp_path / "page.html", verdict, failure="refused")
    reason = "Uncertain, because track 0 scores 0.860 from 0.9 to 1.1 s"
    assert text.count(reason) == 2  # at the top and in the section
    # 0.9 and 2.58 are the sums of the two segments; divided by twelve, 0.29.
    assert text.split("Basis of")[0] == snapshot


def test_a_track_that_may_not_be_a_face_is_not_counted(tmp_path):
    verdict = verdict_of(0.2, 0.2, duration_s=1.0)
    other = dataclasses.replace(verdict.tracks[0], track_id=1, is_reliable=False)
    face = dataclasses.replace(verdict.faces[0], track_id=1, score=0.9)
    verdict = dataclasses.replace(
        verdict, tracks=(*verdict.tracks, other), faces=(*verdict.faces, face)
    )
    text = write(tmp_path / "page.html", verdict)
    assert "2 faces in 2 " in text and "verdict: track 1." in text
    assert "(real, possibly not a face)" in text


def test_an_image_has_no_times_and_a_real_file_has_its_own_sentence(tmp_path):
    text = write(tmp_path / "page.html", verdict_of(0.2), cams=np.zeros((1, 8, 8), np.float32))
    assert "Real, score 0.200 (" in text and "below 0.3, fake from 0.8)" in text
    assert "too low" in text and "visible" not in text
    assert "frames all" not in text and "time frame" not in text


def test_a_crop_keeps_its_colours_and_has_its_map_beside_it(tmp_path):
    verdict = verdict_of(0.9, verdict="fake")
    text = write(tmp_path / "page.html", verdict, cams=np.ones((1, 8, 8), np.float32))
    assert "highest score, and" in text and "too low" not in text
    encoded = re.search(
        r'src="data:image/png;base64,([^"]+)"', (tmp_path / "page.html").read_text()
    )
    data = np.frombuffer(base64.b64decode(encoded[1]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert image.shape == (8, 8 + 1 + 8, 3)
    assert (image[:, :8] == CROP).all()
    # Half of grey (90) and half of the last colour of inferno, about (252, 255, 164).
    np.testing.assert_allclose(image[:, 9:], np.full((8, 8, 3), (171, 172, 127)), atol=2)


def test_the_page_states_why_there_are_no_maps(tmp_path):
    verdicts = [verdict_of(0.2, path="a.jpg"), verdict_of(0.1, path="b.jpg")]
    failure = "the model could not be reached (connection refused)"
    text = write(tmp_path / "page.html", *verdicts, failure=failure)
    assert text.count(f"without maps: {failure}") == 2
    assert (tmp_path / "page.html").read_text().count("<img ") == 2


def test_the_page_states_the_facts_about_each_file_and_its_warnings(tmp_path):
    media = MediaInfo("mp4", "h264", "yuv420p", 640, 360, 25.0, 50, 2.0, encoder="x264 core 165")
    warnings = ("it was deinterlaced", "the 3 smallest of 67 faces were omitted")
    video = verdict_of(0.2, 0.2, duration_s=2.0, media=media, warnings=warnings)
    text = write(tmp_path / "page.html", dataclasses.replace(video, file_bytes=1_500_000))
    assert (
        "File: 9 x 9 pixels, 2.0 s, 1.5 MB, SHA-256 ab . The file states: mp4, h264 yuv420p, "
        "640 x 360, 25 frames/s, 50 frames, 2.0 s, x264 core 165." in text
    )
    assert "Warning: it was deinterlaced." in text and f"Warning: {warnings[1]}." in text
    assert "The file states" not in write(tmp_path / "page.html", verdict_of(0.2))


def test_names_and_metadata_cannot_change_the_page(tmp_path):
    names = ["a\u202egpj.mp4", "b\x1b[31m.mp4", "=1+1.mp4", "\t=1.mp4", "<b>面 שלום</b>.mp4"]
    media = MediaInfo("mp4", encoder="<script>\u2066\x07")
    verdicts = [verdict_of(0.1, path=name, media=media, warnings=(name,)) for name in names]
    text = write(tmp_path / "page.html", *verdicts)
    shown = [r"a\u202egpj.mp4", r"b\x1b[31m.mp4", "=1+1.mp4", r"\t=1.mp4", names[-1]]
    for name in shown:
        assert f"{name} real 0.100" in text and f"Warning: {name}." in text
    assert text.count(r"states: mp4, <script>\u2066\x07.") == len(names)
    page = (tmp_path / "page.html").read_text()
    assert all(line.isprintable() for line in page.split("\n"))
    assert "<script" not in page and "Content-Security-Policy" in page
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}


def test_a_terminal_shows_names_as_they_are(tmp_path):
    verdicts = tuple(
        verdict_of(0.1, path=name, warnings=(name,))
        for name in ("a\u202egpj.mp4", "b\n\x1b[31m", "面")
    )
    provenance = Provenance("judge", 1, DIGEST, "m", "0", FaceOptions(), 0.3, 0.8, "0.5")
    paths = tuple(verdict.path for verdict in verdicts)
    lines = summarize(Predictions(verdicts, (), paths, 0, provenance)).split("\n")
    assert len(lines) == 2 * 3 and all(line.isprintable() for line in lines)
    assert lines[0].startswith(r"a\u202egpj.mp4: real") and lines[1] == r"  warning: a\u202egpj.mp4"
    assert lines[2].startswith(r"b\n\x1b[31m: real") and lines[4].startswith("面: real")


def test_files_beside_the_page_stay_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    mine = tmp_path / "unfinished-page.html"
    mine.write_text("mine")
    write(tmp_path / "page.html", verdict_of(0.2))
    before = (tmp_path / "page.html").read_bytes()
    assert mine.read_text() == "mine"

    def refuse(*paths):
        raise PermissionError("refused")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "page.html", verdict_of(0.2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", mine.name]
    assert (tmp_path / "page.html").read_bytes() == before


def test_the_number_of_skipped_files_is_stated(tmp_path):
    assert "3 files" in write(tmp_path / "page.html", verdict_of(0.2), skipped=3)
    assert "1 file that is" in write(tmp_path / "page.html", verdict_of(0.2), skipped=1)


def test_only_the_most_suspicious_of_many_files_have_a_section(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "MAX_REPORTED", 2)
    scores = {"a|b.jpg": 0.1, "<i>.jpg": 0.3, "c.jpg": 0.2}
    verdicts = [
        verdict_of(score, path=path, warnings=("cut <short>",)) for path, score in scores.items()
    ]
    text = write(tmp_path / "page.html", *verdicts)
    written = (tmp_path / "page.html").read_text()
    headings = [unescape(text) for text in re.findall(r"<h2>(.*?)</h2>", written)]
    assert headings[:2] == ["<i>.jpg", "c.jpg"]
    assert "The 2 most suspicious" in text
    assert "a|b.jpg real 0.100" in text  # the table has all of them
    assert "cut <short>." in text and "calibration none" in text


def test_a_report_on_one_file_shows_no_progress(tmp_path, capsys):
    write(tmp_path / "page.html", verdict_of(0.2))
    assert capsys.readouterr().err == ""


def test_the_engine_of_the_scores_is_stated(tmp_path):
    verdicts = [verdict_of(0.2, path=name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    text = write(tmp_path / "page.html", *verdicts)
    assert "engine of the scores OpenVINO 2026.4.1, bfloat16 people judged" in text
    # Two were kept from earlier runs, one of them of a version that did not record it.
    other = "TensorFlow 2.21.0, float32"
    verdicts = [
        verdicts[0],
        dataclasses.replace(verdicts[1], engine=other),
        dataclasses.replace(verdicts[2], engine=""),
    ]
    text = write(tmp_path / "page.html", *verdicts)
    assert (
        f"OpenVINO 2026.4.1, bfloat16; of 1 earlier verdict: {other}; of 1 earlier verdict: not "
        "recorded people judged" in text
    )


def test_the_page_states_why_tensorflow_took_over(tmp_path):
    engine = Engine("tensorflow", "2.21.0", "float32", "the model has no OpenVINO files")
    verdict = verdict_of(0.2, engine=engine.describe())
    text = write(tmp_path / "page.html", verdict, engine=engine)
    assert "TensorFlow 2.21.0, float32: the model has no OpenVINO files people judged" in text
