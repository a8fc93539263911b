"""Opinions of models for a terminal: each verdict, disagreement first, text that is safe."""

import dataclasses

from jdfd_keras.faces.ai_claims import AIClaim
from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.prediction.opinions import FileOpinion, Opinions, OpinionSource, compare_opinions
from jdfd_keras.reporting.opinions_text import summarize_opinions
from tests.reporting.test_opinions_page import CLEAN, FAKE, REASON, opinions_of, with_plugin


def lines_of(opinions, page=None):
    return summarize_opinions(opinions, page).splitlines()


def test_one_file_has_the_agreement_and_each_verdict_on_its_own_thresholds():
    opinions = with_plugin(
        opinions_of({"a.mp4": (FAKE,)}), FileOpinion("", "uncertain", 0.55), version="0.3"
    )
    note, headline, first, second, *rest = lines_of(opinions, "page.html")
    assert note.startswith("note: The detector examines faces only")
    assert headline == (
        "a.mp4: 2 of 2 models have a verdict, and they agree in part: a: fake; lab:noise: "
        "uncertain. Page: page.html"
    )
    assert first.startswith(
        "  a: fake, score 0.900 (no evidence below 0.45, fake from 0.55); likelihood ratio "
    )
    assert second == ("  lab:noise: uncertain, score 0.550 (no evidence below 0.3, fake from 0.7)")
    assert rest[0] == "model a: model saved_models/judge, version 7"
    assert rest[1] == "model lab:noise: plug-in lab:noise, version 0.3"
    assert rest[2].startswith("warning: lab:noise is a plug-in: this program does not know")
    assert rest[3].startswith("note: There is no combined score") and len(rest) == 4


def test_several_files_have_disagreement_first_and_are_counted():
    found = {"1.mp4": (FAKE, FAKE), "2.mp4": (CLEAN, FAKE), "3.mp4": (REASON, REASON)}
    lines = lines_of(opinions_of(found), "page.html")
    heads = [line.split(":")[0] for line in lines if line[1:5] == ".mp4"]
    assert heads == ["2.mp4", "3.mp4", "1.mp4"]
    assert lines[-1] == (
        "3 files: the models agree on 1, the models disagree on 1, no model has a verdict on 1; "
        "page: page.html"
    )


def test_failures_and_files_without_a_face_are_stated_with_the_reason():
    (_, headline, only, *_) = lines_of(opinions_of({"a.mp4": (REASON, ())}))
    assert headline == (
        f"a.mp4: None of 2 models has a verdict. a has none: {REASON} b found no face."
    )
    assert only == "  b: no face; none in 1 sampled frame"


def test_a_failed_model_is_a_warning():
    source = OpinionSource("runs-7", "model", "runs/7", error="Expected a model; got a file.")
    file = compare_opinions("a.mp4", [FileOpinion("runs-7", error=source.error, code="model")])
    text = summarize_opinions(Opinions((source,), (file,), (None,)))
    assert "warning: runs-7 gave no verdict on any file: Expected a model; got a file." in text


def test_an_ai_claim_follows_the_headline():
    opinions = opinions_of({"a.mp4": (FAKE, FAKE)})
    claim = AIClaim("XMP", "created by generative AI")
    credentials = ContentCredentials("none", "There are none.", ai_claims=(claim,))
    file = dataclasses.replace(opinions.files[0], credentials=credentials)
    opinions = dataclasses.replace(opinions, files=(file,))
    lines = lines_of(opinions)
    assert lines[1].startswith("a.mp4: 2 of 2")
    assert lines[2].startswith("  AI claim: XMP") and "created by generative AI" in lines[2]
    assert lines[5] == "  Content Credentials: none"


def test_untrusted_texts_cannot_write_lines_or_control_a_terminal():
    nasty = "x\x1b[2J\nmodel b: plug-in c\u202e"
    opinions = opinions_of({nasty: (FAKE, nasty)}, [nasty, "b"])
    opinions = with_plugin(opinions, FileOpinion("", error=nasty), label=f"lab:{nasty}")
    lines = lines_of(opinions, f"{nasty}.html")
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if line.startswith("model ")]) == 3
    assert sum("x\\x1b[2J\\nmodel b: plug-in c\\u202e" in line for line in lines) >= 4


def test_no_files_are_counted_as_none():
    assert lines_of(Opinions((), (), ()))[-1] == "0 files"
