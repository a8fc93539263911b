"""Content Credentials on the pages, in the text and on the overview."""

import dataclasses
import subprocess

import pytest

from jdfd_keras.faces.ai_claims import AIClaim
from jdfd_keras.faces.credentials import (
    STATES,
    ContentCredentials,
    CredentialAction,
    Ingredient,
)
from jdfd_keras.reporting.opinions_page import write_opinions
from jdfd_keras.reporting.opinions_text import summarize_opinions
from jdfd_keras.reporting.pdf import print_pdf
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.reporting.verdict_text import summarize
from tests.chromium import CHROMIUM, needs_chromium
from tests.reporting.test_opinions_page import compare
from tests.reporting.test_verdict_page import Page, predictions_of, verdict_of

CLAIM = AIClaim("Content Credentials", "created by generative AI", True)
SIGNED = ContentCredentials(
    "valid",
    "The file was not changed.",
    signer="Ada <b>",
    organization="News & Co",
    certificate="1234",
    algorithm="Es256",
    signed_at="2026-01-02T03:04:05+00:00",
    claim_generator="Test Camera 1.2",
    title="A title",
    actions=(CredentialAction("c2pa.edited", "2026", "Editor 3", "digitalCapture", "cropped"),),
    ingredients=(
        Ingredient("first.png", "image/png", "parentOf", "invalid"),
        Ingredient("second.png", relationship="componentOf"),
    ),
    problems=("ingredient first.png: assertion.dataHash.mismatch",),
    ai_claims=(CLAIM, AIClaim("XMP", "made by <script>alert(1)</script>")),
    trust_list="ab" * 32,
)


def with_credentials(credentials, path="a.mp4"):
    return dataclasses.replace(verdict_of(0.5, path=path), credentials=credentials)


def write(path, *verdicts):
    write_report(predictions_of(*verdicts), path)
    return Page(path)


def write_comparison(path, verdicts):
    """Write the page of two models with the same verdicts."""
    return Page(write_opinions(opinions_of(*verdicts), path))


def opinions_of(*verdicts):
    """Return the same verdicts of two models."""
    predictions = predictions_of(*verdicts)
    opinions = compare(["one", "two"], [predictions, predictions])
    found = {verdict.path: verdict.credentials for verdict in verdicts}
    files = [dataclasses.replace(file, credentials=found[file.path]) for file in opinions.files]
    return dataclasses.replace(opinions, files=tuple(files))


def test_an_ai_claim_is_directly_under_the_title(tmp_path):
    page = write(tmp_path / "a.html", with_credentials(SIGNED))
    start, claim = page.text.index("This file states that AI made it"), CLAIM.text
    assert page.text.index("a.mp4") < start < page.text.index("The detector examines faces only")
    assert f"Content Credentials (signed by Ada <b>, News & Co): {claim}" in page.text
    assert "XMP (not signed: anybody can write or remove it): made by <script>" in page.text
    assert "It does not change the verdict or the score." in page.text
    assert len(page.of("script")) == 1  # that of the page
    plain = write(tmp_path / "b.html", with_credentials(ContentCredentials("none", "None.")))
    assert "AI made it" not in plain.text


def test_the_section_has_all_facts(tmp_path):
    page = write(tmp_path / "a.html", with_credentials(SIGNED))
    section = page.text[page.text.index("Valid, signed by") :]
    for text in (
        *("The file was not changed.", "Ada <b>, News & Co", "1234", "2026-01-02T03:04:05"),
        *("Test Camera 1.2", "A title", "c2pa.edited", "Editor 3", "digitalCapture", "cropped"),
        *("first.png", "parentOf", "credentials: invalid", "second.png", "without credentials"),
        *("assertion.dataHash.mismatch", "ab" * 32, "Their absence proves nothing"),
    ):
        assert text in section


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_on_page_and_in_text(tmp_path, state):
    verdict = with_credentials(ContentCredentials(state, f"The detail of {state}."))
    page = write(tmp_path / "a.html", verdict)
    assert f"The detail of {state}." in page.text
    assert STATES[state] in page.text.lower()
    assert ("Signer" in page.text) == (state in ("valid", "untrusted", "invalid"))
    lines = summarize(predictions_of(verdict)).splitlines()
    assert f"  Content Credentials: {STATES[state]}" in lines


def test_the_signer_of_untrusted_credentials_is_only_stated(tmp_path):
    untrusted = dataclasses.replace(SIGNED, state="untrusted")
    page = write(tmp_path / "a.html", with_credentials(untrusted))
    assert "Signer, as stated" in page.text
    assert "signed, but the signer is not trusted" in page.text
    assert "stated signer: Ada <b>, News & Co" in summarize(
        predictions_of(with_credentials(untrusted))
    )


def test_the_text_has_the_claims_first():
    lines = summarize(predictions_of(with_credentials(SIGNED))).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("a.mp4: "))
    assert lines[first + 1].startswith("  AI claim: Content Credentials (signed by Ada")
    assert lines[first + 2].startswith("  AI claim: XMP (not signed")
    assert "  Content Credentials: valid, signed by Ada <b>, News & Co" in lines


def test_the_overview_names_claims_and_states(tmp_path):
    page = write(
        tmp_path / "index.html",
        with_credentials(SIGNED, "a.mp4"),
        with_credentials(ContentCredentials("none", ""), "b.mp4"),
    )
    assert page.text.count("States use of AI") == 1
    assert page.text.count("Content Credentials: valid Signed by Ada <b>, News & Co") == 1
    assert page.text.count("Content Credentials: ") == 1


@pytest.mark.parametrize("state", STATES)
def test_several_files_have_a_tag_with_the_state_of_each(state, tmp_path):
    verdicts = [
        with_credentials(ContentCredentials(state, "", signer="Ada"), "a.mp4"),
        with_credentials(ContentCredentials("none", ""), "b.mp4"),
    ]
    pages = [
        write(tmp_path / "overview.html", *verdicts),
        write_comparison(tmp_path / "comparison.html", verdicts),
    ]
    for page in pages:
        tags = page.of("span", "credentials")
        shown = state not in ("none", "not_checked")
        assert [tag["class"] for tag in tags] == [f"tag credentials {state}"] * shown
        assert (f"Content Credentials: {STATES[state]}" in page.text) == shown


def test_only_the_first_claims_of_many_files_are_not_folded(tmp_path):
    verdicts = []
    for number in range(1, 21):
        claims = tuple(AIClaim("XMP", f"claim {number}{end}.") for end in "ab")
        credentials = ContentCredentials("none", "", ai_claims=claims)
        verdicts.append(with_credentials(credentials, f"{number}.mp4"))
    page = write_comparison(tmp_path / "page.html", verdicts)
    assert "20 files state that AI made them" in page.text
    start, end = page.text.index("20 files state"), page.text.index("Such statements do not")
    first, _, rest = page.text[start:end].partition("and 32 more")
    assert (first.count("claim "), rest.count("claim ")) == (8, 32)
    assert [each for each in page.of("details") if "open" in each] == []
    few = write_comparison(tmp_path / "few.html", verdicts[:4])
    assert not few.of("details") and few.text.count("claim ") == 8


@needs_chromium
@pytest.mark.parametrize("suffix", ["html", "pdf"])
def test_all_claims_are_printed(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("JDFD_KERAS_CHROMIUM", CHROMIUM)
    claims = tuple(AIClaim("XMP", f"claim number {number}.") for number in range(20))
    verdict = with_credentials(ContentCredentials("none", "", ai_claims=claims))
    path = write_report(predictions_of(verdict), tmp_path / f"page.{suffix}")
    if suffix == "html":
        assert len(Page(path).of("details")) == 1
        path = tmp_path / "page.pdf"
        print_pdf(tmp_path / "page.html", path)
    try:
        command = ["pdftotext", "-layout", str(path), "-"]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except FileNotFoundError:
        pytest.skip("no pdftotext on this machine: install poppler-utils")
    assert [f"claim number {number}." in text for number in range(20)] == [True] * 20


def test_the_text_states_once_why_files_were_not_checked():
    reason = "c2pa-python is not installed."
    verdicts = [
        with_credentials(ContentCredentials("not_checked", detail), path)
        for path, detail in (("a.mp4", reason), ("b.mp4", reason), ("c.mkv", "Of this format."))
    ]
    for text in (summarize(predictions_of(*verdicts)), summarize_opinions(opinions_of(*verdicts))):
        assert f"\nnote: 2 files: {reason}\n" in text
        assert "\nnote: 1 file: Of this format.\n" in text
        assert text.count(reason) == 1
    for text in (
        summarize(predictions_of(verdicts[0])),
        summarize_opinions(opinions_of(verdicts[0])),
    ):
        assert f"\nnote: {reason}\n" in text


def test_a_verdict_without_credentials_has_no_section(tmp_path):
    page = write(tmp_path / "a.html", verdict_of(0.5))
    assert "Content Credentials" not in page.text
    assert "Content Credentials" not in summarize(predictions_of(verdict_of(0.5)))
