"""Pages that compare models: agreement in words, links, escapes, and what a browser shows."""

import dataclasses
import re
import subprocess
from urllib.parse import unquote

import numpy as np
import pytest

from jdfd_keras.faces.ai_claims import AIClaim
from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.prediction import predict
from jdfd_keras.prediction.evidence import TopFaces
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.opinions import (
    FileOpinion,
    Opinions,
    OpinionSource,
    compare_opinions,
    opinion_of,
)
from jdfd_keras.reporting.opinions_page import write_opinions
from jdfd_keras.reporting.verdict_page import write_report
from tests.chromium import CHROMIUM, needs_chromium, run_script
from tests.reporting import test_verdict_page
from tests.reporting.test_verdict_page import CROP, Page, verdict_of
from tests.serving.jobs.real_service import make_predictor

FAKE, UNCERTAIN, CLEAN = (0.9, "fake"), (0.5, "uncertain"), (0.1, "no_evidence")
REASON = "Expected a video or image file; got text. Try another file."


def plugin(label="lab:noise", low=0.3, high=0.7, **facts):
    return OpinionSource(label, "plug-in", label, uncertain_from=low, uncertain_to=high, **facts)


def model(label, predictions, **facts):
    """The source of predictions, whose thresholds are calibrated unless stated otherwise."""
    known = predictions.provenance
    facts = {"is_calibrated": known.calibration is not None} | facts
    source = OpinionSource(
        *(label, "model", known.where, str(known.version), known.digest, "OpenVINO"),
        uncertain_from=known.uncertain_from,
        uncertain_to=known.uncertain_to,
    )
    return dataclasses.replace(source, **facts)


def record_of(found, path, sha256="ab"):
    """A verdict by its score and word; a failure by its reason; no face for an empty tuple."""
    if isinstance(found, str):
        return FailedFile(path, found, code="undecodable")
    if not found:
        return verdict_of(path=path, verdict="no face", duration_s=2.0, sha256=sha256)
    score, word = found
    return verdict_of(score, path=path, verdict=word, sha256=sha256)


def opinions_of(found, labels=None, skipped=0, **facts):
    """Opinions of models by file: {path: (what the first found, what the second found, ...)}."""
    labels = labels or "abcdefgh"[: len(next(iter(found.values())))]
    predictions = []
    for index in range(len(labels)):
        records = [record_of(each[index], path) for path, each in found.items()]
        verdicts = [record for record in records if not isinstance(record, FailedFile)]
        failed = tuple(record for record in records if isinstance(record, FailedFile))
        made = predictions_of(*verdicts, failed=failed, digest=f"{index}" * 64, **facts)
        predictions.append(dataclasses.replace(made, paths=tuple(found)))
    return compare(labels, predictions, skipped)


def predictions_of(*verdicts, digest="00", **facts):
    made = test_verdict_page.predictions_of(*verdicts, **facts)
    return dataclasses.replace(made, provenance=dataclasses.replace(made.provenance, digest=digest))


def compare(labels, predictions, skipped=0):
    files = []
    for path in predictions[0].paths:
        records = [
            next(record for record in known.records if record.path == path) for known in predictions
        ]
        files.append(compare_opinions(path, list(map(opinion_of, labels, records))))
    sources = tuple(map(model, labels, predictions))
    stated = {"case": "2026-17", "examiner": "A. Ray"}
    return Opinions(sources, tuple(files), tuple(predictions), skipped, **stated)


def with_plugin(opinions, *found, **facts):
    """Add the opinions of a plug-in: one for each file."""
    source = plugin(**facts)
    files = [
        compare_opinions(
            file.path, [*file.opinions, dataclasses.replace(opinion, label=source.label)]
        )
        for file, opinion in zip(opinions.files, found, strict=True)
    ]
    return dataclasses.replace(
        opinions,
        models=(*opinions.models, source),
        files=tuple(files),
        predictions=(*opinions.predictions, None),
    )


def write(opinions, path, **options):
    return Page(write_opinions(opinions, path, **options))


def links_of(page):
    return [a["href"] for a in page.of("a") if not a["href"].startswith("#")]


@pytest.mark.parametrize(
    "found, words, sentence",
    [
        ((FAKE, FAKE), "The models agree: fake", "they agree: fake."),
        ((CLEAN, CLEAN), "The models agree: no evidence of manipulation", "they agree: no evid"),
        ((FAKE, UNCERTAIN), "The models agree in part", "a: fake; b: uncertain."),
        ((CLEAN, FAKE), "The models disagree", "b: fake; a: no evidence of manipulation."),
        ((FAKE, REASON), "Only one model has a verdict", f"b has none: {REASON}"),
        ((FAKE, ()), "Only one model has a verdict", "b found no face."),
        (((), ()), "No model has a verdict", "a found no face. b found no face."),
        ((REASON, REASON), "No model has a verdict", f"a has none: {REASON}"),
    ],
)
def test_agreement_on_one_file_is_stated_in_words(found, words, sentence, tmp_path):
    page = write(opinions_of({"clips/a.mp4": found}), tmp_path / "page.html")
    top = page.text[: page.text.index("Verdicts Model")]
    assert words in top and sentence in top
    assert "There is no combined score" in top and "2026-17" in top and "A. Ray" in top
    # Each verdict has its word and its symbol.
    words = [(each or ("", "no face"))[1].replace("_", " ") for each in found]
    tags = page.of("span", "tag")
    assert len(tags) == 2
    for word, each, tag in zip(words, found, tags, strict=True):
        expected = "no_face" if isinstance(each, str) else word.replace(" ", "_")
        assert tag["class"] == f"tag {expected}"
    assert len(page.of("svg", "scale")) == sum(
        isinstance(each, tuple) and bool(each) for each in found
    )


def test_files_on_which_models_disagree_come_first(tmp_path):
    found = {
        "x/1.mp4": (CLEAN, CLEAN),
        "x/2.mp4": (FAKE, FAKE),
        "x/3.mp4": (REASON, REASON),
        "x/4.mp4": (CLEAN, FAKE),
        "x/5.mp4": (FAKE, REASON),
        "x/6.mp4": (UNCERTAIN, CLEAN),
        "x/7.mp4": (FAKE, CLEAN),
    }
    page = write(opinions_of(found, skipped=2), tmp_path / "page.html")
    body = page.text[page.text.index("The models disagree: 2 files") :]
    assert re.findall(r"(\d)\.mp4", body) == list("4765321")
    # Counts at the top lead to the sections.
    for count, words, name in (
        (2, "the models disagree", "disagree"),
        (1, "the models agree in part", "partial"),
        (1, "only one model has a verdict", "single"),
        (1, "no model has a verdict", "none"),
        (2, "the models agree", "agree"),
    ):
        assert f"{count} {words} " in page.text[: page.text.index("There is no combined")] + " "
        assert {"href": f"#{name}"} in page.of("a")
        assert [h for h in page.of("h2") if h.get("id") == name]
    assert "Skipped: 2 files that are not videos or images (by suffix)." in page.text


def test_every_row_names_its_file_and_model_for_a_screen_reader(tmp_path):
    found = {"a.mp4": (CLEAN, FAKE), "b.mp4": (FAKE, CLEAN)}
    page = write(opinions_of(found), tmp_path / "page.html")
    (table,) = page.of("table", "opinions")
    assert table["aria-label"] == "Files on which the models disagree"
    groups = [th for th in page.of("th") if th.get("scope") == "rowgroup"]
    assert [th["rowspan"] for th in groups] == ["2", "2"]
    assert len([th for th in page.of("th", "model") if th["scope"] == "row"]) == 4
    assert [a["aria-label"] for a in page.of("a") if a.get("aria-label")] == [
        *("Evidence of a on a.mp4", "Evidence of b on a.mp4"),
        *("Evidence of a on b.mp4", "Evidence of b on b.mp4"),
    ]


def test_pages_of_each_model_are_those_of_its_own_report(tmp_path):
    opinions = opinions_of({"clips/a.mp4": (CLEAN, FAKE), "clips/b.mp4": (FAKE, REASON)})
    page = write(opinions, tmp_path / "page.html")
    for label, predictions in zip("ab", opinions.predictions, strict=True):
        (tmp_path / "alone").mkdir(exist_ok=True)
        write_report(predictions, tmp_path / "alone" / label / "index.html")
        alone, own = tmp_path / "alone" / label, tmp_path / "page_files" / label
        names = sorted(str(p.relative_to(alone)) for p in alone.rglob("*.html"))
        assert names == sorted(str(p.relative_to(own)) for p in own.rglob("*.html"))
        for name in names:
            texts = [Page(folder / name).text for folder in (alone, own)]
            clean = [re.sub(r"\d\d:\d\d(:\d\d)?|All models ", "", text) for text in texts]
            assert clean[0] == clean[1]
    # Evidence leads to the page of the file by that model, and from there back.
    links = links_of(page)
    assert links[:3] == [
        "page_files/a/index_files/a.mp4.html",
        "page_files/b/index_files/a.mp4.html",
        "page_files/a/index_files/b.mp4.html",
    ]
    assert links[3:] == ["page_files/a/index.html", "page_files/b/index.html"]
    for link in links:
        assert (tmp_path / link).is_file()
    overview = Page(tmp_path / links[-1])
    assert overview.of("a")[0]["href"] == "../../page.html"


def test_one_file_leads_to_one_page_of_each_model_and_back(tmp_path):
    write_opinions(opinions_of({"a.mp4": (CLEAN, FAKE)}), tmp_path / "case 7")
    page = Page(tmp_path / "case 7" / "index.html")
    assert links_of(page)[:2] == ["index_files/a/index.html", "index_files/b/index.html"]
    for link, verdict in zip(links_of(page), ("No evidence", "Fake"), strict=False):
        own = Page(tmp_path / "case 7" / link)
        assert verdict in own.text and "All models" in own.text
        assert own.of("a")[0]["href"] == "../../index.html"


def test_a_plugin_has_its_own_thresholds_and_no_page(tmp_path):
    opinions = with_plugin(
        opinions_of({"a.mp4": (FAKE,)}),
        FileOpinion("", "uncertain", 0.55),
        version="0.3",
        digest="cd" * 32,
    )
    page = write(opinions, tmp_path / "page.html")
    assert links_of(page) == ["page_files/a/index.html", "page_files/a/index.html"]
    assert (
        "lab:noise (plug-in)" in page.text and "no evidence below 0.3, fake from 0.7" in page.text
    )
    assert "plug-in, version 0.3" in page.text and f"SHA-256 of its code {'cd' * 32}" in page.text
    assert page.text.count("lab:noise is a plug-in: this program does not know what it ex") == 1
    first, second = page.of("svg", "scale")
    assert first["aria-label"].startswith(
        "Score 0.900 on a scale from 0 to 1: no evidence below 0.45"
    )
    assert second["aria-label"] == (
        "Score 0.550 on a scale from 0 to 1: no evidence below 0.3, fake from 0.7"
    )


def scales_of(path):
    """Widths of the zones of each scale, in percent, and the position of its marker."""
    html = path.read_text(encoding="utf-8")
    scales = re.findall(r'<svg class="scale".*?</svg>\s*</svg>', html, flags=re.DOTALL)
    return [
        (
            [float(x) for x in re.findall(r'width="([\d.]+)%" y="11" height="11" fill="#', scale)],
            float(re.search(r'<svg x="([\d.]+)%"', scale)[1]),
        )
        for scale in scales
    ]


def test_the_scale_has_the_zones_of_the_verdict(tmp_path):
    opinions = opinions_of({"a.mp4": (FAKE,)})
    # Thresholds for several people, of which the upper one cannot be reached.
    (predictions,) = opinions.predictions
    verdict = dataclasses.replace(
        predictions.files[0], uncertain_from=0.25, uncertain_to=2.0, verdict="uncertain"
    )
    predictions = dataclasses.replace(predictions, files=(verdict,))
    opinions = with_plugin(
        compare("a", [predictions]), FileOpinion("", "fake", 0.5), low=0.5, high=0.5
    )
    path = write_opinions(opinions, tmp_path / "page.html")
    assert scales_of(path) == [([25.0, 75.0], 90.0), ([50.0, 50.0], 50.0)]
    assert "no evidence below 0.25, no score is fake" in Page(path).text


def test_a_failed_model_is_named_with_its_reason_and_has_no_page(tmp_path):
    opinions = opinions_of({"a.mp4": (FAKE,), "b.mp4": (CLEAN,)})
    error = "Expected a model at runs/7; got an empty folder. Try runs/8."
    broken = OpinionSource("runs-7", "model", "runs/7", error=error)
    files = tuple(
        compare_opinions(file.path, [*file.opinions, FileOpinion("runs-7", error=error, code="m")])
        for file in opinions.files
    )
    opinions = Opinions((*opinions.models, broken), files, (*opinions.predictions, None))
    page = write(opinions, tmp_path / "page.html")
    assert f"Warning: runs-7 gave no verdict on any file: {error}" in page.text
    assert page.text.count(error) == 2  # and under Models, not in every row
    assert page.text.count("Only one model has a verdict") == 3  # section, and each file
    assert not (tmp_path / "page_files" / "runs-7").exists()


def test_a_failed_file_and_a_file_without_a_face_have_their_reasons(tmp_path):
    opinions = opinions_of({"a.mp4": (FAKE, REASON), "b.mp4": ((), CLEAN)})
    page = write(opinions, tmp_path / "page.html")
    assert f"no verdict {REASON}" in page.text
    assert "no face None in 1 sampled frame" in page.text
    assert "on 1 of 2 files" in page.text and "on 2 of 2 files" in page.text


def test_labels_become_safe_and_different_folders(tmp_path):
    labels = ["../../up", "Up", "UP", "a/b", "", "é<b>", "x" * 300, ".hidden"]
    path = tmp_path / "in" / "page.html"
    page = write(opinions_of({"a.mp4": [REASON] * len(labels)}, labels), path)
    folders = [entry.name for entry in (path.parent / "page_files").iterdir()]
    assert len({name.casefold() for name in folders}) == len(labels)
    assert all(re.fullmatch(r"[\w-][\w.-]*", name) and len(name) <= 200 for name in folders)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]
    links = links_of(page)
    assert len(set(links)) == len(labels)
    for link in links:
        assert (path.parent / unquote(link)).is_file()


def test_untrusted_texts_are_escaped(tmp_path):
    nasty = "<script>alert(1)</script>\"'>&amp;\x1b[31m\u202egpj"
    name = nasty.replace("/", "")
    failure = f"Expected {nasty}; got\nnothing"
    opinions = opinions_of(
        {f"x/{name}": (FAKE, failure), "b.mp4": (CLEAN, FAKE)}, [nasty, "b"], case=nasty
    )
    opinions = with_plugin(
        opinions, FileOpinion("", error=nasty), FileOpinion("", "fake", 0.9), label=f"lab:{nasty}"
    )
    path = write_opinions(opinions, tmp_path / "page.html")
    page = Page(path)
    assert not page.of("script") and "on" not in {
        key[:2] for _, attrs in page.tags for key in attrs
    }
    shown = nasty.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.text.count(shown) > 5
    html = path.read_text(encoding="utf-8")
    assert html.replace("\n", "").isprintable()
    allowed = r"page_files/[^/\"<>]+/index(_files/[^/\"<>]+)?\.html|#\w+"
    assert all(re.fullmatch(allowed, unquote(link)) for link in page.references)


def test_a_page_loads_nothing_and_runs_no_script(tmp_path):
    opinions = opinions_of({"a.mp4": (CLEAN, FAKE)})
    crops = np.full((1, 8, 8, 3), CROP, np.uint8)
    shown = dataclasses.replace(
        opinions.predictions[1], top_faces={"a.mp4": TopFaces(crops, None, "")}
    )
    opinions = dataclasses.replace(opinions, predictions=(opinions.predictions[0], shown))
    page = write(opinions, tmp_path / "page.html")
    assert "default-src 'none'" in page.policy and "script" not in page.policy
    assert not page.of("script") and len(page.of("img")) == 1
    assert all(r.startswith(("data:image/jpeg;base64,", "page_files/")) for r in page.references)
    assert "http" not in page.content["style"] and "url(" not in page.content["style"]


def test_existing_pages_stay_unless_they_may_be_replaced(tmp_path):
    path = tmp_path / "page.html"
    write_opinions(opinions_of({"a.mp4": (CLEAN, FAKE)}, ["one", "two"]), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_opinions(opinions_of({"a.mp4": (FAKE, FAKE)}), path)
    assert path.read_bytes() == before
    (tmp_path / "other_files").mkdir()
    with pytest.raises(FileExistsError, match="other_files"):
        write_opinions(opinions_of({"a.mp4": (FAKE, FAKE)}), tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()
    # Pages of models that are no longer asked are deleted, and nothing else.
    mine = ["page_files/mine.html", "page_files/one/mine.html", "page_files/own/index.html"]
    mine += ["page_files/one/notes.txt", "page_files/own-player.mp4"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("<!doctype html><title>mine</title>")
    (tmp_path / "page_files" / "two" / "index-player.mp4").write_text("an earlier video")
    write_opinions(opinions_of({"a.mp4": (FAKE, FAKE)}, ["two", "three"]), path, overwrite=True)
    assert "The models agree: fake" in Page(path).text
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    written = ["page.html", "page_files/three/index.html", "page_files/two/index.html"]
    assert left == sorted(written + mine)
    assert {(tmp_path / name).read_text() for name in mine} == {
        "<!doctype html><title>mine</title>"
    }


def test_cautions_are_stated_once(tmp_path):
    opinions = opinions_of({"a.mp4": (FAKE, FAKE, FAKE)}, calibration=None)
    models = [dataclasses.replace(source, digest="ef" * 32) for source in opinions.models[:2]]
    opinions = dataclasses.replace(opinions, models=(*models, opinions.models[2]))
    text = write(opinions, tmp_path / "page.html").text
    for caution in (
        "a and b have the same weights: together they are one opinion.",
        "a, b and c are not calibrated: their scores are not probabilities, and their error rates "
        "are unknown.",
    ):
        assert text.count(f"Warning: {caution}") == 1
    assert "changed while" not in text and "chosen by the user" not in text


def test_a_requested_threshold_does_not_make_a_model_uncalibrated(tmp_path):
    opinions = opinions_of({"a.mp4": (FAKE, FAKE)})
    predictions = tuple(
        dataclasses.replace(
            known, provenance=dataclasses.replace(known.provenance, thresholds="threshold")
        )
        for known in opinions.predictions
    )
    models = tuple(dataclasses.replace(m, is_calibrated=False) for m in opinions.models)
    opinions = dataclasses.replace(opinions, predictions=predictions, models=models)
    text = write(opinions, tmp_path / "page.html").text
    assert "not calibrated" not in text and "one threshold, as requested" in text
    assert "Warning: the threshold was chosen by the user" in text


def test_a_file_that_changed_between_the_models_is_named(tmp_path):
    predictions = [predictions_of(record_of(FAKE, "a.mp4", digest * 32)) for digest in ("aa", "bb")]
    text = write(compare("ab", predictions), tmp_path / "page.html").text
    assert "Warning: 1 file changed while the models were asked" in text
    assert f"SHA-256 {'aa' * 32} SHA-256 {'bb' * 32}" in text


@pytest.mark.parametrize("num_files", [1, 2])
def test_a_claim_of_an_ai_generator_is_on_top(num_files, tmp_path):
    claim = AIClaim("XMP", "created by <generative> AI")
    credentials = ContentCredentials("none", "There are none.", ai_claims=(claim,))
    opinions = opinions_of({f"{index}.mp4": (CLEAN, FAKE) for index in range(num_files)})
    first, *others = opinions.files
    files = (dataclasses.replace(first, credentials=credentials), *others)
    opinions = dataclasses.replace(opinions, files=files)
    page = write(opinions, tmp_path / "page.html")
    top = page.text[: page.text.index("The detector examines faces only")]
    assert "created by <generative> AI" in top and "AI made it" in top
    assert len(page.of("div", "ai-claims")) == 1
    assert (len(page.of("span", "ai")) == 1) == (num_files > 1)


def test_a_real_clip_is_shown_with_a_face_wherever_it_is_now(clips_folder, tmp_path, monkeypatch):
    clip = min((clips_folder / "real").glob("*.mp4"))
    predictions = []
    for score in (0.2, 0.8):
        predictor = make_predictor(score=lambda crops, score=score: np.full(len(crops), score))
        monkeypatch.setattr(predict, "load_predictor", lambda *_, made=predictor: made)
        known = predict.predict_files([clip], model="m", explain=True)
        # It was elsewhere when it was judged.
        verdict = dataclasses.replace(known.files[0], path="gone.mp4")
        top_faces = {"gone.mp4": known.top_faces[str(clip)]}
        predictions.append(
            dataclasses.replace(known, files=(verdict,), paths=("gone.mp4",), top_faces=top_faces)
        )
    opinions = compare(["low", "high"], predictions)
    page = write(opinions, tmp_path / "page.html", sources={"gone.mp4": clip})
    assert "The models disagree" in page.text and len(page.of("img")) == 1
    assert "low and high have the same weights" in page.text
    for link in links_of(page)[:2]:
        own = Page(tmp_path / link)
        assert len(own.of("video")) == 1 and len(own.of("img")) > 2


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page about 200 files by three plug-ins, one of which fails on some."""
    rng = np.random.default_rng(0)
    sources = [plugin(f"lab:{name}", 0.4, 0.6) for name in ("noise", "light", "blinking")]
    files = []
    for index in range(200):
        found = []
        for source, score in zip(sources, rng.uniform(0, 1, 3).tolist(), strict=True):
            word = "fake" if score >= 0.6 else "uncertain" if score >= 0.4 else "no_evidence"
            found.append(FileOpinion(source.label, word, score))
        if index % 10 == 0:
            found[2] = FileOpinion(sources[2].label, error=REASON, code="undecodable")
        name = f"{'long-name-' * 8}{index}" if index % 7 == 0 else f"IMG_{index}"
        files.append(compare_opinions(f"cases/2026 17/{name}.mov", found))
    opinions = Opinions(tuple(sources), tuple(files), (None,) * 3)
    return write_opinions(opinions, tmp_path_factory.mktemp("many") / "page.html")


def test_two_hundred_files_are_one_page_of_moderate_size(many):
    page = Page(many)
    assert len([th for th in page.of("th") if th.get("scope") == "rowgroup"]) == 200
    assert many.stat().st_size < 2_000_000
    assert [entry.name for entry in many.parent.iterdir()] == ["page.html"]  # plug-ins have none
    assert not page.of("a") or all(a["href"].startswith("#") for a in page.of("a"))


SIZES = """
const frame = document.createElement("iframe");
frame.style.width = "WIDTHpx"; frame.style.height = "900px"; frame.src = "PAGE";
document.body.append(frame);
await new Promise(done => frame.addEventListener("load", done));
const page = frame.contentDocument;
const row = page.querySelector("table.opinions tbody tr");
const boxes = [...row.children].map(cell => cell.getBoundingClientRect());
const texts = [...page.querySelectorAll("table.opinions .tag")];
return {
  scrolled: page.documentElement.scrollWidth,
  inner: frame.contentWindow.innerWidth,
  stacked: boxes.every((box, index) => !index || box.top >= boxes[index - 1].bottom - 1),
  beside: new Set(boxes.map(box => Math.round(box.top))).size === 1,
  head: page.querySelector("thead").getBoundingClientRect().height,
  seen: texts.every(tag => tag.getBoundingClientRect().width > 20),
};
"""


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_a_table_on_a_desktop_is_stacked_on_a_phone(many, tmp_path, width):
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", many.read_text("utf-8"))
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    (tmp_path / "frame.html").write_text("<!doctype html><body></body>", encoding="utf-8")
    script = SIZES.replace("WIDTH", str(width)).replace("PAGE", "page.html")
    found = run_script(tmp_path / "frame.html", script, width=1400)
    assert "error" not in found, found
    assert found["scrolled"] <= found["inner"] and found["seen"]
    assert found["stacked" if width == 360 else "beside"]
    assert (found["head"] > 0) == (width == 1200)


@needs_chromium
def test_a_pdf_has_the_words_and_names_the_pages_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JDFD_KERAS_CHROMIUM", CHROMIUM)
    opinions = opinions_of({"a.mp4": (CLEAN, FAKE)})
    path = write_opinions(opinions, tmp_path / "page.pdf")
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == ["page.pdf", "page_files/a/index.pdf", "page_files/b/index.pdf"]
    assert path.read_bytes().startswith(b"%PDF-") and b"/URI" not in path.read_bytes()
    try:
        text = subprocess.run(
            ["pdftotext", "-layout", str(path), "-"], capture_output=True, check=True, text=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("no pdftotext on this machine: install poppler-utils")
    assert "The models disagree" in text and "page_files/a/index.pdf" in text
    assert "Page 1 of" in text and "Evidence" not in text
