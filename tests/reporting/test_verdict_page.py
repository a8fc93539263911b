"""Pages about verdicts: what they state, that they load nothing, and what a browser does."""

import base64
import dataclasses
import hashlib
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import av
import cv2
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.domain import FileMeasures, fit_domain
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict, judge
from jdfd_keras.io import files
from jdfd_keras.io.palette import track_colour, track_hex
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction import predict
from jdfd_keras.prediction.evidence import TopFaces
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.predict import Predictions
from jdfd_keras.reporting import verdict_page
from jdfd_keras.reporting.verdict_page import resolve_report, write_report
from tests.chromium import CHROMIUM, dump_dom, needs_chromium, run_script

ENGINE = Engine("openvino", "2026.4.1", "bfloat16")
DIGEST = "0123456789abcdef" * 4
CROP = (200, 60, 10)  # RGB
FACES = FaceOptions(frames_per_video=20, face_size=71, tracks="all")
REAL, FAKE = np.linspace(0.02, 0.4, 60).tolist(), np.linspace(0.6, 0.98, 60).tolist()
CALIBRATION = Calibration(
    temperature=1.5,
    bias=0.2,
    uncertain_from=0.45,
    uncertain_to=0.55,
    target_error_rate=0.05,
    data="own clips",
    num_real=60,
    num_fake=60,
    ece_before=0.06,
    ece_after=0.03,
    lr_slope=1.2,
    cllr=0.2,
    min_cllr=0.1,
    auc=0.98,
    auc_low=0.95,
    auc_high=1.0,
    real_scores=tuple(REAL),
    fake_scores=tuple(FAKE),
)


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text without style and script."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.content: dict[str, str] = {"style": "", "script": ""}
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())
        (self.policy,) = (attrs["content"] for attrs in self.of("meta") if attrs.get("http-equiv"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in self.content else self._inside

    def handle_endtag(self, tag):
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside:
            self.content[self._inside] += data
        else:
            self.words.append(data)

    def of(self, tag: str, class_name: str = "") -> list[dict]:
        """Return the attributes of all tags of a name and class."""
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and (not class_name or class_name in (attrs.get("class") or "").split())
        ]

    @property
    def references(self) -> list[str]:
        """Everything that a browser could load or open."""
        names = ("src", "href", "poster", "data", "srcset", "action")
        return [attrs[name] for _, attrs in self.tags for name in names if attrs.get(name)]


def write_clip(path, frames):
    # Of other widths, PyAV 18.1 with libx264 writes different files of the same frames.
    height, width = (16 * (length // 16) for length in frames[0].shape[:2])
    frames = [np.ascontiguousarray(frame[:height, :width]) for frame in frames]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", 25, {"crf": "16"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        output.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """An untouched clip, one that is swapped from the second second on, and one of two people."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.blending import rerender_face
    from jdfd_keras.datasets.synthetic.clips import Portrait, render_clip, vary_portrait

    folder = tmp_path_factory.mktemp("clips")
    first, _, second, other = vary_portrait(astronaut(), 4, seed=4242)
    face = Portrait("", rerender_face(other.pixels, other.landmarks, 14), other.landmarks)

    def render(subject, source=None):
        return list(render_clip(subject, 75, np.random.default_rng(3), source))

    real, swapped = render(first), render(second)[:50] + render(second, face)[50:]
    sides = [np.concatenate(pair, axis=1) for pair in zip(real, swapped, strict=True)]
    return [
        write_clip(folder / "untouched.mp4", real),
        write_clip(folder / "swapped.mp4", swapped),
        write_clip(folder / "two people.mp4", sides),
    ]


def make_score(face, fake_track):
    """Return a score that states which faces are swapped, with a pattern that the page shows."""
    noise = 0.02 * ((face.frame_index % 5) - 2)
    return (0.85 if face.track_id == fake_track and face.time_s >= 2 else 0.15) + noise


@pytest.fixture(scope="module")
def predictions(clips):
    """Verdicts on the three clips, by scores that are known and not of a network."""
    verdicts, top_faces = [], {}
    for path, fake_track in zip(clips, (None, 0, None), strict=True):
        found = extract_faces(path, FACES)
        if path.stem == "two people":
            (fake_track,) = (t.track_id for t in found.tracks if is_right(found, t.track_id))
        scores = np.array([make_score(face, fake_track) for face in found.faces])
        verdict = judge(
            path, found, lambda crops: crops, CALIBRATION, 2, ENGINE.describe(), scored=scores
        )
        verdicts.append(dataclasses.replace(verdict, analysed_at="2026-11-29T12:00:00+00:00"))
        crops = np.stack([found.faces[index].crop for index in verdict.top_faces])
        cams = np.linspace(0.1, 1, crops.shape[0] * 9, dtype=np.float32).reshape(-1, 3, 3)
        top_faces[str(path)] = TopFaces(crops, cams)
    return predictions_of(*verdicts, top_faces=top_faces, faces=FACES)


def is_right(found, track_id):
    boxes = [face.box for face in found.faces if face.track_id == track_id]
    return np.mean([box[0] for box in boxes]) > found.width / 2


def predictions_of(*verdicts, failed=(), skipped=0, top_faces=None, faces=FACES, **facts):
    calibration = facts.pop("calibration", CALIBRATION)
    provenance = Provenance(
        *("judge", 7, DIGEST, "saved_models/judge", faces, 0.45, 0.55),
        "calibrated" if calibration else "0.5",
        **{"calibration": calibration, "engine": ENGINE, "case": "2026-17", "examiner": "A. Ray"}
        | facts,
    )
    paths = tuple(record.path for record in (*verdicts, *failed))
    return Predictions(verdicts, failed, paths, skipped, provenance, top_faces or {})


def only(predictions, name):
    """Return the predictions of one of the files."""
    (verdict,) = (file for file in predictions.files if Path(file.path).stem == name)
    return dataclasses.replace(predictions, files=(verdict,), paths=(verdict.path,))


@pytest.fixture(scope="module")
def two_people(predictions, tmp_path_factory):
    """The page about two people."""
    return write_report(only(predictions, "two people"), tmp_path_factory.mktemp("page") / "a.html")


def verdict_of(*scores, path="a.mp4", verdict="no_evidence", duration_s=0.0, segment=None, **facts):
    """Make a verdict on one person with a face for each score, a tenth of a second apart."""
    mean = float(np.mean(scores)) if scores else None
    track = TrackScore(0, len(scores), 1.0, 0.0, duration_s, mean or 0.0, verdict, segment)
    made = Verdict(
        path=path,
        sha256="ab",
        verdict=verdict,
        score=mean,
        uncertain_from=0.45,
        uncertain_to=0.55,
        num_frames=max(len(scores), 1),
        duration_s=duration_s,
        width=9,
        height=9,
        tracks=(track,) if scores else (),
        faces=tuple(
            FaceScore(index, index / 10, 0, (1, 1, 5, 5), score)
            for index, score in enumerate(scores)
        ),
        top_faces=(int(np.argmax(scores)),) if scores else (),
        warnings=(),
        engine=ENGINE.describe(),
        num_people=int(bool(scores)),
        likelihood=CALIBRATION.likelihood([mean]) if scores else None,
        error_rates=CALIBRATION.error_rates(mean) if scores else None,
    )
    return dataclasses.replace(made, **facts)


def write(path, verdict, cams=None, failure="", **facts):
    crops = np.full((len(verdict.top_faces), 8, 8, 3), CROP, np.uint8)
    top_faces = {verdict.path: TopFaces(crops, cams, failure)}
    return Page(write_report(predictions_of(verdict, top_faces=top_faces, **facts), path))


def test_the_pages_of_three_clips_say_the_same_as_before(predictions, tmp_path, snapshot):
    write_report(predictions, tmp_path / "page.html")
    pages = {path.name: Page(path) for path in sorted(tmp_path.rglob("*.html"))}
    assert list(pages) == [
        "page.html",
        "swapped.mp4.html",
        "two_people.mp4.html",
        "untouched.mp4.html",
    ]
    volatile = [
        (r"\b[0-9a-f]{64}\b", "SHA-256"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*", "TIME"),
        (r"Written \d\d \w+ \d{4}, \d\d:\d\d \S+", "Written TIME"),
        (r"[\d,]+ bytes", "SIZE"),
        (r"[\d.]+ kbit/s[^.]*?(?= Comparison| Limits)", "RATE, ENCODER"),
        (r"jdfd_keras \S+", "jdfd_keras VERSION"),
        (re.escape(str(Path(predictions.paths[0]).parent)), "FOLDER"),
        # Positions of faces depend on the version of the detector.
        (r"Detector score [\d.]+", "Detector score NUMBER"),
    ]
    for name, page in pages.items():
        text = page.text
        for pattern, word in volatile:
            text = re.sub(pattern, word, text)
        tags = Counter(f"{tag}.{attrs.get('class', '')}".strip(".") for tag, attrs in page.tags)
        assert {"text": text, "tags": dict(sorted(tags.items()))} == snapshot(name=name)


def test_the_verdict_and_its_meaning_are_at_the_top(two_people, predictions):
    page, verdict = Page(two_people), only(predictions, "two people").files[0]
    # One third of the faces of one person are swapped: a mean of about 0.15 + 0.7 / 3.
    assert verdict.verdict == "uncertain" and verdict.score == pytest.approx(0.385, abs=0.03)
    # The ratio and the rates are those of whole videos, not of a part.
    top = page.text[: page.text.index("Video and timeline")]
    assert "Uncertain" in top and "Likelihood ratio" not in top and "Error rates" not in top
    for fact in ("2026-17", "A. Ray", "29 November 2026", "judge, version 7", ENGINE.describe()):
        assert fact in page.text


def test_a_page_loads_nothing_and_runs_only_its_own_script(two_people):
    page = Page(two_people)
    assert {reference.split(",")[0][:11] for reference in page.references} <= {
        "data:image/",
        "data:video/",
        "#limits",
        "#people",
    }
    digest = base64.b64encode(hashlib.sha256(page.content["script"].encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert "http" not in page.content["style"] + page.content["script"]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_the_video_and_all_images_can_be_decoded(two_people, tmp_path):
    page = Page(two_people)
    (video,) = page.of("video")
    kind, encoded = video["src"].split(";base64,")
    assert kind == "data:video/mp4"
    (tmp_path / "video.mp4").write_bytes(base64.b64decode(encoded))
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    # Every frame of the clip, enlarged so that the labels can be read.
    assert len(frames) == 75 and frames[0].shape == (360, 720, 3)
    # The boxes have the colours of the people.
    for track_id in (0, 1):
        distance = np.abs(frames[40].astype(int) - track_colour(track_id)).max(axis=2)
        assert (distance < 40).sum() > 500
    assert len(page.of("img")) >= 6 + 2 + 4  # stills, people, and two faces of each
    for image in page.of("img"):
        assert image["alt"]
        data = np.frombuffer(base64.b64decode(image["src"].split(",")[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).std() > 10


def test_every_person_has_a_frame_and_the_same_colour_everywhere(two_people, predictions):
    page, verdict = Page(two_people), only(predictions, "two people").files[0]
    chips = [attrs["style"] for attrs in page.of("span", "chip")]
    for track in verdict.tracks:
        assert chips.count(f"background:{track_hex(track.track_id)}") == 2  # timeline and people
    worst = verdict.most_suspicious_track.track_id
    # The most suspicious person is first.
    assert page.text.index(f"Person {worst}", page.text.index("People ")) < page.text.index(
        f"Person {1 - worst}", page.text.index("People ")
    )
    assert len(page.of("article", "person")) == 2
    alternatives = [image["alt"] for image in page.of("img")]
    assert any(alt.endswith(f"box around person {worst}") for alt in alternatives)


def test_segments_of_the_timeline_are_buttons_with_times(two_people, predictions):
    page, verdict = Page(two_people), only(predictions, "two people").files[0]
    worst = verdict.most_suspicious_track.track_id
    segments = page.of("button", "segment")
    assert [attrs["class"] for attrs in segments] == [
        "segment no_evidence",
        "segment fake",
        "segment no_evidence",
    ]
    fake = segments[1]
    first = min(face.time_s for face in verdict.faces if face.time_s >= 2)
    assert float(fake["data-time"]) == pytest.approx(first, abs=1e-3)
    assert fake["aria-label"].startswith(f"Person {worst}, ") and "fake" in fake["aria-label"]


def test_an_image_has_no_player_and_no_timeline(tmp_path):
    page = write(tmp_path / "page.html", verdict_of(0.2, path="a.jpg"))
    assert not page.of("video") and not page.of("button", "segment")
    assert "Examination of an image" in page.text and "Visible" not in page.text
    assert "No evidence of manipulation" in page.text


def test_a_file_that_is_gone_has_a_page_without_frames(tmp_path):
    page = write(tmp_path / "page.html", verdict_of(0.2, 0.2, duration_s=1.0, path="gone.mp4"))
    assert "There is no player: Expected a video or image file; got gone.mp4" in page.text
    assert not page.of("video") and len(page.of("button", "segment")) == 1


def test_a_file_that_has_changed_is_not_shown(clips, tmp_path):
    verdict = verdict_of(0.2, 0.2, duration_s=1.0, path=str(clips[0]))
    page = write(tmp_path / "page.html", verdict)
    assert "the file has changed since it was analysed" in page.text and not page.of("video")


def test_no_face_has_its_own_words(tmp_path):
    page = write(tmp_path / "page.html", verdict_of(verdict="no face", duration_s=2.0))
    assert "No face" in page.text and not page.of("article") and "Likelihood" not in page.text


def test_who_is_not_judged_is_stated_with_the_reason(tmp_path):
    verdict = verdict_of(0.2, 0.2, duration_s=1.0, warnings=("it was deinterlaced",))
    reason = "it has 2 faces (at least 3 are needed)"
    other = dataclasses.replace(
        verdict.tracks[0], track_id=1, verdict="not judged", not_judged=reason
    )
    face = dataclasses.replace(verdict.faces[0], track_id=1, score=0.9)
    verdict = dataclasses.replace(
        verdict, tracks=(*verdict.tracks, other), faces=(*verdict.faces, face)
    )
    text = write(tmp_path / "page.html", verdict).text
    assert f"Not judged Person 1: {reason}." in text
    assert "Note on the file: it was deinterlaced." in text
    assert "All people" not in text


def test_a_model_without_calibration_has_a_warning_and_no_ratio(tmp_path):
    verdict = verdict_of(0.2, path="a.jpg", likelihood=None, error_rates=None)
    text = write(tmp_path / "page.html", verdict, calibration=None).text
    assert "Warning: the model is not calibrated." in text
    assert "Likelihood ratio" not in text and "of 100" not in text


def test_a_file_beyond_the_domain_has_a_warning_and_a_table(tmp_path):
    rng = np.random.default_rng(0)
    domain = fit_domain([FileMeasures(sharpness=rng.uniform(20, 60)) for _ in range(100)])
    measures = FileMeasures(sharpness=3.1)
    verdict = verdict_of(
        *(0.2, 0.2, 0.2),
        verdict="uncertain",
        duration_s=1.0,
        likelihood=None,
        error_rates=None,
        is_beyond_domain=True,
        reasons=domain.check(measures),
        measures=measures,
    )
    calibration = dataclasses.replace(CALIBRATION, domain=domain)
    page = write(tmp_path / "page.html", verdict, calibration=calibration)
    assert "Warning: this file is unlike those of validation" in page.text
    # Bounds of the range are those that the reason names.
    low, high = re.search(r"than those of validation \((\S+) to (\S+)\)", page.text).groups()
    assert f"Sharpness of the faces 3.1 {low} to {high} no" in page.text


def test_the_ratio_and_the_rates_are_those_of_the_verdict(tmp_path):
    # All 60 real files score below 0.9, and 47 of the fake files at most 0.9.
    verdict = verdict_of(0.9, path="a.jpg", verdict="fake")
    page = write(tmp_path / "page.html", verdict)
    assert "0 of 60 in validation" in page.text and "47 of 60 in validation" in page.text
    # 95 % of Clopper-Pearson for 0 of 60 is 1 - 0.025 ** (1 / 60) = 0.0596.
    assert "at most 6 of 100" in page.text
    # 0.9 has a logit of 2.197; times 1.2 and as a power of ten 1.145, so a ratio of 13.96.
    assert "Likelihood ratio 13 " in page.text or "Likelihood ratio 14 " in page.text
    assert "Moderate support for manipulation" in page.text
    scales = [attrs["aria-label"] for attrs in page.of("svg") if attrs.get("role") == "img"]
    assert "logarithmic scale" in scales[0] and "0 of 100; up to 6 of 100" in scales[1]


def test_a_crop_keeps_its_colours_and_has_its_map_beside_it(tmp_path):
    page = write(tmp_path / "page.html", verdict_of(0.9, path="a.jpg"), np.ones((1, 8, 8), "f4"))
    (image,) = (attrs for attrs in page.of("img") if attrs["src"].startswith("data:image/png"))
    assert "class-activation map" in image["alt"]
    data = np.frombuffer(base64.b64decode(image["src"].split(",")[1]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert image.shape == (8, 8 + 1 + 8, 3)
    assert (image[:, :8] == CROP).all()
    # Half of grey (90) and half of the last colour of inferno, about (252, 255, 164).
    np.testing.assert_allclose(image[:, 9:], np.full((8, 8, 3), (171, 172, 127)), atol=2)


def test_the_maps_of_a_page_share_one_scale(tmp_path):
    verdict = verdict_of(0.9, 0.8, duration_s=1.0, top_faces=(0, 1))
    cams = np.stack([np.full((8, 8), 4.0), np.full((8, 8), 2.0)]).astype("f4")
    page = write(tmp_path / "page.html", verdict, cams)
    images = [
        cv2.imdecode(np.frombuffer(base64.b64decode(a["src"].split(",")[1]), np.uint8), 1)
        for a in page.of("img")
        if a["src"].startswith("data:image/png")
    ]
    strong, weak = (image[:, 9:].mean() for image in images)
    assert strong > weak + 20
    assert "not calibrated: 0 4" in page.text  # the ends of the colour bar


def test_a_detector_no_better_than_chance_has_no_maps(tmp_path):
    calibration = dataclasses.replace(CALIBRATION, auc=0.6, auc_low=0.45, auc_high=0.74)
    cams = np.ones((1, 8, 8), "f4")
    page = write(tmp_path / "page.html", verdict_of(0.9), cams, calibration=calibration)
    assert "better than chance (AUC of files 0.60 [0.45, 0.74])" in page.text
    (image,) = (attrs for attrs in page.of("img") if attrs["src"].startswith("data:image/png"))
    assert "map" not in image["alt"]


def test_the_page_states_why_there_are_no_maps(tmp_path):
    failure = "the model could not be reached (connection refused)"
    page = write(tmp_path / "page.html", verdict_of(0.2, path="a.jpg"), failure=failure)
    assert f"There are no maps of the regions that raised the score: {failure}." in page.text


def test_the_provenance_is_complete(tmp_path):
    media = MediaInfo("mp4", "h264", "yuv420p", 640, 360, 25.0, 50, 2.0, encoder="x264 core 165")
    verdict = verdict_of(0.2, 0.2, duration_s=2.0, media=media, file_bytes=1_500_000)
    facts = {"command": "jdfd-keras predict a.mp4", "versions": {"python": "3.11.7", "av": "18.1"}}
    text = write(tmp_path / "page.html", verdict, framing="other crops", **facts).text
    for fact in (
        "jdfd-keras predict a.mp4",
        "python 3.11.7, av 18.1",
        DIGEST,
        "saved_models/judge",
        "1,500,000 bytes",
        "mp4, h264 yuv420p, 640 x 360, 25 frames/s, 50 frames, 2.0 s, x264 core 165",
        "temperature 1.5, bias 0.2",
        "equal priors (P(fake) = 0.5)",
        "AUC 0.980 [0.950, 1.000], Cllr 0.200",
        "60 real files and 60 fake files of own clips",
        "sha256sum -- 'a.mp4'",
        "Warning: other crops",
    ):
        assert fact in text, fact


def test_names_and_metadata_cannot_change_the_page(tmp_path):
    names = [
        "a\u202egpj.mp4",
        "b\x1b[31m.mp4",
        "=1+1.mp4",
        "<b>面 שלום</b>.mp4",
        "c';}</style>.mp4",
    ]
    media = MediaInfo("mp4", encoder="<script>\u2066\x07")
    verdicts = [verdict_of(0.1, path=name, media=media, warnings=(name,)) for name in names]
    write_report(predictions_of(*verdicts), tmp_path / "page.html")
    paths = sorted((tmp_path / "page_files").iterdir())
    assert len(paths) == len(names)
    for path in [*paths, tmp_path / "page.html"]:
        page = Page(path)
        assert all(line.isprintable() for line in path.read_text().split("\n"))
        assert page.of("b") == [] or path.name == "page.html"  # counts
        assert len(page.of("script")) <= 1 and len(page.of("style")) == 1
        assert "mp4" not in page.content["script"] and "</" not in page.content["style"]
    texts = [Page(path).text for path in paths]
    for shown in (r"a\u202egpj.mp4", r"b\x1b[31m.mp4", *names[2:]):
        assert sum(f"Note on the file: {shown}." in text for text in texts) == 1
    assert all(r"mp4, <script>\u2066\x07" in text for text in texts)


def test_an_overview_begins_with_the_most_suspicious_and_its_links_resolve(tmp_path):
    scores = {"x/a.mp4": 0.1, "y/a.mp4": 0.9, "A.mp4": 0.5, "#1 50%?.mp4": 0.2}
    kinds = dict(zip(scores, ("no_evidence", "fake", "uncertain", "no_evidence"), strict=True))
    verdicts = [verdict_of(score, path=p, verdict=kinds[p]) for p, score in scores.items()]
    failed = (FailedFile("text.mp4", "Expected a video."),)
    path = write_report(predictions_of(*verdicts, failed=failed, skipped=3), tmp_path / "all.html")
    page = Page(path)
    order = [page.text.index(name) for name in ("y/a.mp4", "A.mp4", "#1 50%?.mp4", "x/a.mp4")]
    assert order == sorted(order)
    links = [a["href"] for a in page.of("a")]
    assert len(set(links)) == 4
    for link in links:
        target = tmp_path / unquote(link)
        assert target.is_file()
        (back,) = (a["href"] for a in Page(target).of("a") if a["href"].startswith(".."))
        assert (target.parent / unquote(back)).resolve() == path.resolve()
    assert unquote(links[0]) == "all_files/a.mp4.html"
    assert len({target.name.casefold() for target in (tmp_path / "all_files").iterdir()}) == 4
    assert "1 fake" in page.text and "2 no evidence of manipulation" in page.text
    assert "text.mp4 Expected a video." in page.text and "Skipped: 3 files" in page.text


@pytest.mark.parametrize("mark", [False, True])
def test_every_page_begins_with_what_is_not_seen_and_the_mark_of_a_demonstration(tmp_path, mark):
    verdicts = [verdict_of(0.1, path=name, demonstration=mark) for name in ("a.jpg", "b.jpg")]
    write_report(predictions_of(*verdicts, demonstration=mark), tmp_path / "all.html")
    paths = sorted(tmp_path.rglob("*.html"))
    assert len(paths) == 3
    for path in paths:
        page = Page(path)
        _, text = page.text.split(" for manipulated faces ", 1)
        before, *_ = text.split("o evidence of manipulation")
        assert "does not see changed sound or generated scenes" in before
        sentence = "For demonstration only: this model cannot judge real videos."
        assert (sentence in before) is mark and page.text.count(sentence) == mark
        assert len(page.of("div", "demonstration")) == mark


def test_only_the_most_suspicious_of_many_files_have_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("jdfd_keras.prediction.predictions.MAX_REPORTED", 2)
    verdicts = [verdict_of(score, path=f"{score}.jpg") for score in (0.1, 0.3, 0.2)]
    page = Page(write_report(predictions_of(*verdicts), tmp_path / "all.html"))
    assert [a["href"] for a in page.of("a")] == ["all_files/0.3.jpg.html", "all_files/0.2.jpg.html"]
    assert "0.1.jpg" in page.text and "The 2 most suspicious files have a page" in page.text


def test_a_file_without_a_verdict_is_listed(tmp_path):
    failed = (FailedFile("text.mp4", "Expected a video."),)
    page = Page(write_report(predictions_of(failed=failed), tmp_path / "page.html"))
    assert "text.mp4 Expected a video." in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_gets_an_index(tmp_path):
    verdicts = [verdict_of(0.1, path=name) for name in ("a.jpg", "b.jpg")]
    path = write_report(predictions_of(*verdicts), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html" and path.is_file()
    assert len(list((tmp_path / "report" / "index_files").iterdir())) == 2


def test_the_command_reports_on_a_folder(clips, tmp_path, monkeypatch, capsys):
    metadata = ModelMetadata(FaceOptions(face_size=71), CALIBRATION, "judge", 7, DIGEST)
    predictor = Predictor(
        "saved_models/judge",
        metadata,
        lambda crops: np.full(len(crops), 0.9),
        lambda crops: np.ones((*crops.shape[:2], crops.shape[2]), np.float32),
    )
    monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor)
    command = ["predict", str(clips[0].parent), "--model", "m", "--frames-per-video", "4"]
    command += ["--report", str(tmp_path / "report"), "--case", "case <7>", "--examiner", "A. Ray"]
    assert main(command) == 0
    page = Page(tmp_path / "report" / "index.html")
    assert "case <7>" in page.text and "Verdicts on 3 files" in page.text
    for link in (a["href"] for a in page.of("a")):
        target = Page(tmp_path / "report" / unquote(link))
        assert "case <7>" in target.text and len(target.of("video")) == 1
        assert any("class-activation map" in image["alt"] for image in target.of("img"))
    # A second run does not replace the pages.
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_a_large_video_is_beside_the_page_and_replaces_nothing(
    clips, predictions, tmp_path, monkeypatch
):
    monkeypatch.setattr(verdict_page, "MAX_EMBEDDED_BYTES", 0)
    (tmp_path / "clip.mp4").write_bytes(clips[0].read_bytes())
    write_report(only(predictions, "untouched"), tmp_path / "clip.html")
    page = Page(tmp_path / "clip.html")
    (video,) = page.of("video")
    assert (
        video["src"] == "clip-player.mp4" and (tmp_path / "clip-player.mp4").stat().st_size > 1000
    )
    assert "media-src 'self';" in page.policy
    assert (tmp_path / "clip.mp4").read_bytes() == clips[0].read_bytes()


def test_existing_pages_stay_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "page.html", verdict_of(0.2))
    before = (tmp_path / "page.html").read_bytes()
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(tmp_path / "page.html", verdict_of(0.9))
    (tmp_path / "all_files").mkdir()
    verdicts = [verdict_of(0.1, path=name) for name in ("a.jpg", "b.jpg")]
    with pytest.raises(FileExistsError, match="all_files"):
        write_report(predictions_of(*verdicts), tmp_path / "all.html")

    def refuse(*paths):
        raise PermissionError("refused")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_report(predictions_of(verdict_of(0.2)), tmp_path / "page.html", overwrite=True)
    assert (tmp_path / "page.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all_files", "page.html"]


@pytest.mark.parametrize("suffix", ["html", pytest.param("pdf", marks=needs_chromium)])
@pytest.mark.slow
def test_only_pages_of_the_earlier_report_are_deleted(tmp_path, monkeypatch, suffix):
    if suffix == "pdf":
        monkeypatch.setenv("JDFD_KERAS_CHROMIUM", CHROMIUM)
    path, folder = tmp_path / f"all.{suffix}", tmp_path / "all_files"
    mine = {f"mine.{suffix}": b"%PDF-1.4 <!doctype html>", "own-player.mp4": b"mine"}

    def write_pages(*names):
        verdicts = (verdict_of(0.1, path=name) for name in names)
        write_report(predictions_of(*verdicts), path, overwrite=True)

    write_pages("a.jpg", "b.jpg")
    (folder / "a.jpg-player.mp4").write_bytes(b"of the earlier page")
    for name, content in mine.items():
        (folder / name).write_bytes(content)
    write_pages("b.jpg", "c.jpg")
    names = {f"b.jpg.{suffix}", f"c.jpg.{suffix}", *mine}
    assert {entry.name for entry in folder.iterdir()} == names
    assert {name: (folder / name).read_bytes() for name in mine} == mine


def test_a_report_has_a_known_suffix(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Expected a report named .html, .htm, .pdf"):
        resolve_report("report.docx")
    monkeypatch.setenv("JDFD_KERAS_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="JDFD_KERAS_CHROMIUM"):
        resolve_report("report.pdf")
    monkeypatch.delenv("JDFD_KERAS_CHROMIUM")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="print it with any browser"):
        resolve_report("report.pdf")


def relax(path, tmp_path):
    """Copy a page with a policy that also runs the script of a test."""
    html = path.read_text(encoding="utf-8")
    changed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    assert changed != html
    (tmp_path / "relaxed.html").write_text(changed, encoding="utf-8")
    return tmp_path / "relaxed.html"


@needs_chromium
def test_the_policy_lets_the_script_run(two_people):
    assert "disabled" in "".join(map(str, Page(two_people).of("button", "segment")))
    dom = dump_dom(two_people)
    buttons = re.findall(r'<button type="button" class="segment[^>]*>', dom)
    assert len(buttons) == 3 and not any("disabled" in button for button in buttons)
    assert re.search(r'<button type="button" class="copy"[^>]*>', dom)[0].count("hidden") == 0


@needs_chromium
def test_a_segment_is_jumped_to_by_click_and_by_key(two_people, tmp_path):
    script = """
    const video = document.querySelector("video");
    if (video.readyState < 2) await new Promise(done => video.addEventListener("loadeddata", done));
    const [before, fake] = document.querySelectorAll("button.segment");
    const jump = async act => {
      const seeked = new Promise(done => video.addEventListener("seeked", done, {once: true}));
      act(); await seeked; return video.currentTime;
    };
    const clicked = await jump(() => fake.click());
    const cursor = document.querySelector(".cursor").style.left;
    before.focus();
    const focused = document.activeElement === before;
    const back = await jump(() => document.activeElement.click());
    return {clicked, cursor, focused, back, wanted: [fake.dataset.time, before.dataset.time]};
    """
    result = run_script(relax(two_people, tmp_path), script)
    assert "error" not in result, result
    fake, before = map(float, result["wanted"])
    assert result["clicked"] == pytest.approx(fake, abs=0.05) and result["focused"]
    assert result["back"] == pytest.approx(before, abs=0.05)
    assert float(result["cursor"].rstrip("%")) == pytest.approx(100 * fake / 3, abs=1)


@needs_chromium
def test_the_cursor_follows_the_video(two_people, tmp_path):
    script = """
    const video = document.querySelector("video");
    video.muted = true; await video.play();
    await new Promise(done => setTimeout(done, 700));
    video.pause();
    await new Promise(done => setTimeout(done, 100));
    return [video.currentTime, document.querySelector(".cursor").style.left];
    """
    time_s, left = run_script(relax(two_people, tmp_path), script)
    assert time_s > 0.1 and float(left.rstrip("%")) == pytest.approx(100 * time_s / 3, abs=2)


@needs_chromium
def test_the_finding_is_copied(two_people, tmp_path):
    script = """
    let copied = "";
    const clipboard = {writeText: async text => {copied = text;}};
    Object.defineProperty(navigator, "clipboard", {value: clipboard});
    const button = document.querySelector("button.copy");
    button.click();
    await new Promise(done => setTimeout(done, 100));
    return [copied, button.textContent, document.querySelector(".finding").textContent.trim()];
    """
    copied, label, finding = run_script(relax(two_people, tmp_path), script)
    assert copied == finding and finding.startswith("Uncertain") and label == "Copied"


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(two_people, tmp_path, width):
    # Headless windows are at least 500 wide, so a narrow page is in a frame.
    page = relax(two_people, tmp_path)
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe width="{width}" height="800" src="{page.name}"></iframe>'
    )
    script = """
    const frame = document.querySelector("iframe");
    if (frame.contentDocument.readyState !== "complete")
      await new Promise(done => frame.addEventListener("load", done));
    return [frame.contentDocument.documentElement.scrollWidth, frame.contentWindow.innerWidth];
    """
    scrolled, inner = run_script(frame, script, width=1400)
    assert scrolled <= inner


@needs_chromium
def test_a_pdf_has_the_text_and_numbered_pages(predictions, tmp_path, monkeypatch):
    monkeypatch.setenv("JDFD_KERAS_CHROMIUM", CHROMIUM)
    verdict = only(predictions, "two people")
    path = write_report(verdict, tmp_path / "page.pdf")
    assert path.read_bytes().startswith(b"%PDF-")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.pdf"]
    try:
        text = subprocess.run(
            ["pdftotext", "-layout", str(path), "-"], capture_output=True, check=True, text=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("no pdftotext on this machine: install poppler-utils")
    pages = text.split("\f")[:-1]
    assert len(pages) >= 2
    for number, page in enumerate(pages, start=1):
        assert f"Page {number} of {len(pages)}" in page
        assert "two people.mp4" in page and verdict.files[0].sha256 in page
    assert "Uncertain" in pages[0] and "Limits" in text
    assert "Select a segment" not in text  # nothing to click
