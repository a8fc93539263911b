"""Content Credentials on the pages, in the text and on the overview."""

import dataclasses

import pytest

from jdfd_keras.faces.ai_claims import AIClaim
from jdfd_keras.faces.credentials import (
    STATES,
    ContentCredentials,
    CredentialAction,
    Ingredient,
)
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.reporting.verdict_text import summarize
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
    assert page.text.count("Content Credentials: valid, signed by Ada <b>, News & Co") == 1
    assert page.text.count("Content Credentials: ") == 1


def test_a_verdict_without_credentials_has_no_section(tmp_path):
    page = write(tmp_path / "a.html", verdict_of(0.5))
    assert "Content Credentials" not in page.text
    assert "Content Credentials" not in summarize(predictions_of(verdict_of(0.5)))
