"""The page of the file service in a real browser: what a person does with it, and sees.

Most tests use a server whose jobs do what the test says; the last ones the real one.
"""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from jdfd_keras.client.metadata import DEMONSTRATION, NOT_SEEN, ModelMetadata
from jdfd_keras.faces.credentials import STATES
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction.opinions import FileOpinion, compare_opinions
from jdfd_keras.serving.jobs.app_page import PageFacts, page_response_parts
from jdfd_keras.serving.jobs.job_types import JOB_CODES
from jdfd_keras.serving.jobs.request_errors import REQUEST_CODES
from tests.chromium import find_chromium, needs_chromium
from tests.serving.jobs.scripted_server import ScriptedServer

TOKEN = "a-token-of-a-test"
MARKUP = "<img src=x onerror=document.title=1><b>&amp;.mp4"
PHONE = {"width": 360, "height": 640}
MAKE_TRANSFER = """files => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  return transfer;
}"""


@dataclass
class Watch:
    """What a browser did: each test ends with nothing in it that must not happen."""

    violations: list[str] = field(default_factory=list)  # of the content security policy
    errors: list[str] = field(default_factory=list)  # of scripts
    urls: list[str] = field(default_factory=list)

    def attach(self, context: BrowserContext) -> None:
        """Record what the pages of a context do."""
        context.on("console", lambda message: self._read(message.text))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", lambda request: self.urls.append(request.url))

    def _read(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.violations.append(text)

    def foreign(self, url: str) -> list[str]:
        """Return the requests to other hosts than that of a URL."""
        own = (f"{url}/", "data:", "blob:", "about:")
        return [other for other in self.urls if not other.startswith(own)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the whole run: its event loop would be in the way of tests that start one.
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def watch() -> Watch:
    return Watch()


def open_page(browser: Browser, watch: Watch, url: str, **settings) -> Iterator[Page]:
    """Yield a page of a new profile, and check afterwards what it did."""
    context = browser.new_context(**settings)
    context.set_default_timeout(10_000)
    watch.attach(context)
    yield context.new_page()
    context.close()
    assert watch.violations == []
    assert watch.errors == []
    assert watch.urls
    assert watch.foreign(url) == []


@pytest.fixture
def page(browser, server, watch) -> Iterator[Page]:
    yield from open_page(browser, watch, server.url)


@pytest.fixture
def phone(browser, server, watch) -> Iterator[Page]:
    settings = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    yield from open_page(browser, watch, server.url, **settings)


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """Drop files on the area for it, as a person does with the mouse."""
    encoded = [(name, base64.b64encode(content).decode()) for name, content in files]
    transfer = page.evaluate_handle(MAKE_TRANSFER, encoded)
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def row(page: Page, name: str):
    """Return the row of a case."""
    return page.locator("#cases .row").filter(has=page.get_by_text(name, exact=True))


def has_sideways_scroll(page: Page) -> bool:
    """Return whether anything is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_every_error_code_has_words():
    script = page_response_parts("/app.js")[0].decode()
    table = script.split("const ERRORS = {")[1].split("};")[0]
    named = set(re.findall(r"^\s+(\w+): \[", table, flags=re.MULTILINE))
    assert {*JOB_CODES, *REQUEST_CODES} <= named


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host():
    for path in ("/", "/login", "/app.js", "/app.css"):
        body, _, headers = page_response_parts(path, PageFacts(has_token=True))
        text = body.decode()
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert re.findall(r"(?<!xmlns=')https?://", text) == []
        if path in ("/", "/login"):
            assert "<style" not in text
            assert " style=" not in text
            assert re.findall(r"<script(?! src=\"/app\.js\" defer></script>)", text) == []
            assert re.findall(r"\son\w+=", text) == []


def test_the_page_states_the_model_and_what_it_does_not_see():
    metadata = ModelMetadata(FaceOptions(), None, "<m>", 3, "ab", demonstration=True)
    facts = PageFacts(metadata, "CPU", max_upload_bytes=5 * 2**20, keep_hours=24)
    text = page_response_parts("/", facts)[0].decode()
    assert NOT_SEEN in text
    assert DEMONSTRATION in text
    assert "Model &lt;m&gt;, version 3 · CPU · not calibrated" in text
    assert "Up to 5 MiB each. Files stay on this server, for 24 hours." in text


@needs_chromium
def test_a_dropped_file_is_uploaded_and_shown_until_its_verdict(page, server):
    page.goto(server.url)
    expect(page.locator("#empty")).to_contain_text("No cases yet")
    drop(page, ("clip.mp4", b"bytes of a clip"))
    expect(row(page, "clip.mp4")).to_contain_text("Queued, position 1")
    assert server.bodies == [b"bytes of a clip"]
    server.start(server.jobs[0], 0.43)
    expect(row(page, "clip.mp4")).to_contain_text("Analysing, 43 %")
    expect(row(page, "clip.mp4").get_by_role("progressbar")).to_have_js_property("value", 0.43)
    server.finish(server.jobs[0], "fake", 0.973)
    expect(row(page, "clip.mp4")).to_contain_text("Fake0.973")
    expect(page.get_by_role("status")).to_have_text("clip.mp4: Fake, score 0.973")
    expect(page.locator("#uploads-section")).to_be_hidden()


@needs_chromium
def test_a_slow_upload_shows_its_progress_and_can_be_cancelled(page, server):
    page.goto(server.url)
    network = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", conditions | {"uploadThroughput": 200_000.0})
    drop(page, ("slow.mp4", bytes(4_000_000)))
    upload = page.locator("#uploads .row")
    expect(upload).to_contain_text(re.compile(r"Uploading, [1-9]\d? %"))
    page.get_by_role("button", name="Cancel slow.mp4").click()
    expect(upload).to_have_count(0)
    assert server.bodies == server.jobs == []


@needs_chromium
def test_two_files_at_once_are_two_cases(page, server):
    page.goto(server.url)
    drop(page, ("a.mp4", b"a"), ("b.mp4", b"b"))
    expect(page.locator("#cases .row")).to_have_count(2)
    expect(page.locator("#summary")).to_have_text("0 being analysed, 2 in the queue")
    assert sorted(server.bodies) == [b"a", b"b"]


@needs_chromium
def test_files_may_be_chosen_and_annotated(page, server):
    page.goto(server.url)
    page.get_by_role("checkbox").check()
    content = {"name": "a.png", "mimeType": "image/png", "buffer": b"x"}
    page.locator("#files").set_input_files([content])
    expect(row(page, "a.png")).to_contain_text("annotated")
    assert server.jobs[0]["options"] == {"annotate": True}


@needs_chromium
def test_a_file_that_was_analysed_before_is_one_case(page, server):
    page.goto(server.url)
    drop(page, ("a.mp4", b"a"))
    expect(page.locator("#cases .row")).to_have_count(1)
    drop(page, ("a.mp4", b"a"))
    expect(page.get_by_role("status")).to_have_text("a.mp4: analysed before")
    expect(page.locator("#cases .row")).to_have_count(1)


def add_opinions(server, *opinions, credentials=None):
    """Add a case of several models that is done."""
    job = server.add("clip.mp4")
    file = compare_opinions("clip.mp4", opinions)
    server.finish(job, file.agreement, None)
    predictions = [{"files": [{"credentials": credentials}]}, None]
    job["result"] = {"models": [{}], "files": [file.to_dict()], "predictions": predictions}
    return job


def test_the_card_has_the_words_of_the_report_for_each_state_of_credentials():
    script = page_response_parts("/app.js")[0].decode()
    table = script.split("const CREDENTIALS = {")[1].split("};")[0]
    assert dict(re.findall(r'^\s+(\w+): \["([^"]*)"', table, flags=re.MULTILINE)) == STATES


@needs_chromium
def test_opinions_of_several_models_are_on_a_card_above_the_report(page, phone, server):
    claim = {"source": "XMP", "text": "made by <b>Imaginary</b>\u202e", "is_signed": False}
    credentials = {"state": "invalid", "signer": "<i>Ada</i>", "ai_claims": [claim]}
    job = add_opinions(
        server,
        FileOpinion("first", "fake", 0.973),
        FileOpinion("<u>second</u>", "no_evidence", 0.1),
        FileOpinion("a:b", error="Expected scores; got none.", code="plugin_failed"),
        credentials=credentials,
    )
    for window in (page, phone):
        window.goto(server.url)
        expect(row(window, "clip.mp4")).to_contain_text("Disagree")
        row(window, "clip.mp4").get_by_role("link").click()
        card = window.get_by_role("region", name="Result")
        expect(card.locator("p")).to_have_text(
            [
                "This file states that AI made it, or a part of it. XMP (not signed: anybody can "
                r"write or remove it): made by <b>Imaginary</b>\u202e",
                re.compile("^Content Credentials: invalid; stated signer: <i>Ada</i>. The file"),
                "2 of 3 models have a verdict, and they disagree: first: fake; <u>second</u>: no "
                "evidence of manipulation.",
                "a:b has none: Expected scores; got none.",
            ]
        )
        expect(card.get_by_role("listitem")).to_have_text(
            [
                "firstfake0.973",
                "<u>second</u>no evidence of manipulation0.100",
                "a:bplug-in failed",
            ]
        )
        assert not has_sideways_scroll(window)
        expect(window.frame_locator("iframe").get_by_role("heading")).to_have_text("Report")
        window.get_by_role("link", name="Back").click()
        expect(card).to_be_hidden()
    other = server.add("one.mp4", result={"files": [{"credentials": {"state": "none"}}]})
    server.finish(other)
    page.goto(f"{server.url}/#{other['id']}")
    expect(page.locator("#case-badge")).to_contain_text("Fake")
    expect(page.locator("#case-card")).to_be_hidden()
    claim = {"source": "Content Credentials", "text": "AI", "is_signed": False}
    expired = {"state": "invalid", "signer": "Ada", "is_expired": True, "ai_claims": [claim]}
    other["result"]["files"][0]["credentials"] = expired
    page.goto(f"{server.url}/#{job['id']}")
    page.goto(f"{server.url}/#{other['id']}")
    expect(page.locator("#case-card p")).to_have_text(
        [
            "This file states that AI made it, or a part of it. Content Credentials (not "
            "confirmed: the certificate of the signer has expired): AI",
            "Content Credentials: invalid: certificate expired; stated signer: Ada. Nothing shows "
            "that the file was changed.",
        ]
    )
    other["result"]["files"][0]["credentials"] = {"state": "valid", "signer": "Ada"}
    page.goto(f"{server.url}/#{job['id']}")
    page.goto(f"{server.url}/#{other['id']}")
    expect(page.locator("#case-card")).to_contain_text("Content Credentials: valid, signed by Ada")


def test_several_models_are_listed_and_draw_nothing():
    facts = PageFacts(opinions=("a: model, version 1", "<b>: plug-in"))
    text = page_response_parts("/", facts)[0].decode()
    assert "Each file is judged by 2 models on their own. There is no combined score." in text
    assert "<li>a: model, version 1</li><li>&lt;b&gt;: plug-in</li>" in text
    assert '<label class="option" hidden>' in text
    alone = page_response_parts("/", PageFacts())[0].decode()
    assert '<label class="option">' in alone and "combined" not in alone


@needs_chromium
def test_a_broken_file_is_explained(page, server):
    job = server.add("broken.mp4")
    server.fail(job, "undecodable")
    page.goto(server.url)
    expect(row(page, "broken.mp4")).to_contain_text("Cannot be decoded")
    row(page, "broken.mp4").get_by_role("link").click()
    panel = page.locator("#case-body")
    expect(panel).to_contain_text("The file is damaged, incomplete, or not a video or image")
    expect(panel).to_contain_text("undecodable: Expected a video; got <i>undecodable</i>.")


@needs_chromium
def test_an_open_case_shows_the_report_and_its_files(page, server):
    job = server.add("clip.mp4")
    server.start(job, 0.5)
    page.goto(f"{server.url}/#{job['id']}")
    expect(page.locator("#case-body")).to_contain_text("Analysing, 50 %")
    page.reload()
    expect(page.locator("#case-body")).to_contain_text("Analysing, 50 %")
    server.finish(job, "no_evidence", 0.02)
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading")).to_have_text("Report")
    expect(page.locator(".cover")).to_have_count(0)
    expect(page.locator("#case-hash")).to_have_text(job["sha256"])
    expect(page.locator("#case-badge")).to_contain_text("No evidence0.020")
    expect(page.locator("#get-annotated")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    assert download.value.suggested_filename == "clip-result.json"
    page.get_by_role("button", name="PDF").click()
    expect(page.locator("#case-note")).to_contain_text("The server needs Chromium to print a PDF")
    page.get_by_role("link", name="Back").click()
    expect(row(page, "clip.mp4").get_by_role("link")).to_be_focused()


@needs_chromium
def test_a_reload_during_a_job_keeps_it(page, server):
    page.goto(server.url)
    drop(page, ("clip.mp4", b"clip"))
    expect(row(page, "clip.mp4")).to_contain_text("Queued")
    server.start(server.jobs[0], 0.25)
    page.reload()
    expect(row(page, "clip.mp4")).to_contain_text("Analysing, 25 %")
    server.finish(server.jobs[0])
    expect(row(page, "clip.mp4")).to_contain_text("Fake")


@needs_chromium
def test_markup_in_a_file_name_is_text(page, server):
    page.goto(server.url)
    drop(page, (MARKUP, b"clip"))
    expect(row(page, MARKUP)).to_be_visible()
    row(page, MARKUP).get_by_role("link").click()
    expect(page.locator("#case-name")).to_have_text(MARKUP)
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#confirm-name")).to_have_text(MARKUP)
    assert page.locator("img").count() == page.locator("b").count() == 0
    assert page.title() == f"{MARKUP} - jdfd-keras"


@needs_chromium
def test_the_policy_runs_no_script_that_is_not_of_the_page(page, server, watch):
    page.goto(server.url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.ran = true'}))"
    )
    assert page.evaluate("window.ran") is None
    assert len(watch.violations) == 1
    watch.violations.clear()


@needs_chromium
def test_invisible_characters_of_a_name_are_shown(page, server):
    server.add("gpj.\u202e4pm.mp4")
    page.goto(server.url)
    expect(row(page, r"gpj.\u202e4pm.mp4")).to_be_visible()


@needs_chromium
def test_a_phone_shows_everything_without_scrolling_sideways(phone, server):
    for verdict in ("fake", "uncertain", "no_evidence"):
        server.finish(server.add("a_name_without_spaces_" * 5 + verdict), verdict)
    server.fail(server.add("broken.mp4"), "out_of_memory")
    running = server.add("running.mp4")
    server.start(running, 0.5)
    server.refusals += [(507, "disk_full")]
    phone.goto(server.url)
    drop(phone, ("b" * 200 + ".mp4", b"b"))
    expect(phone.locator("#uploads .failed")).to_be_visible()
    expect(phone.locator("#cases .row")).to_have_count(5)
    assert not has_sideways_scroll(phone)
    for job in (server.jobs[0], server.jobs[1], server.jobs[2]):
        phone.goto(f"{server.url}/#{job['id']}")
        expect(phone.locator("#case-delete")).to_be_visible()
        assert not has_sideways_scroll(phone)
    phone.locator("#case-delete").click()
    expect(phone.locator("dialog")).to_be_in_viewport(ratio=1)
    phone.goto(f"{server.url}/login")
    assert not has_sideways_scroll(phone)


@needs_chromium
def test_cases_are_found_by_name_and_hash(page, server):
    server.finish(server.add("Interview.mp4"))
    other = server.add("speech.mp4")
    server.finish(other)
    page.goto(server.url)
    expect(page.locator("#cases .row")).to_have_count(2)
    search = page.get_by_role("searchbox")
    search.press_sequentially("interv", delay=20)
    expect(page.locator("#cases .row-name")).to_have_text(["Interview.mp4"])
    # Not one request for each letter.
    assert sum("query=i" in request for request in server.requests) < 4
    search.fill(other["sha256"][:10])
    expect(page.locator("#cases .row-name")).to_have_text(["speech.mp4"])
    search.fill("neither")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#empty")).to_contain_text("No case found")
    search.fill("")
    expect(page.locator("#cases .row")).to_have_count(2)


@needs_chromium
def test_more_cases_are_shown_on_request(page, server):
    for number in range(60):
        server.finish(server.add(f"{number}.mp4"))
    page.goto(server.url)
    expect(page.locator("#cases .row")).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#cases .row")).to_have_count(60)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(page.locator("#cases .row-name").first).to_have_text("59.mp4")


@needs_chromium
def test_a_case_is_deleted_after_confirmation(page, server):
    server.finish(server.add("a.mp4"))
    server.finish(server.add("b.mp4"))
    page.goto(server.url)
    page.get_by_role("button", name="Delete a.mp4").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("dialog")).to_be_hidden()
    assert len(server.jobs) == 2
    page.get_by_role("button", name="Delete a.mp4").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#cases .row-name")).to_have_text(["b.mp4"])
    row(page, "b.mp4").get_by_role("link").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#empty")).to_be_visible()
    assert server.jobs == []


@needs_chromium
def test_a_keyboard_is_enough(page, server):
    server.finish(server.add("a.mp4"))
    # Before the page is loaded: Chromium needs a moment to leave dialogs to Playwright.
    page.on("filechooser", lambda _: None)
    page.goto(server.url)
    expect(row(page, "a.mp4")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#files")).to_be_focused()
    with page.expect_file_chooser():
        page.keyboard.press("Enter")
    for target in ("#annotate", "#search", "#cases a", "#cases button"):
        page.keyboard.press("Tab")
        expect(page.locator(target)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#cases button")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.frame_locator("iframe").get_by_role("heading")).to_be_visible()
    expect(page.locator("#case-name")).to_be_focused()


@needs_chromium
def test_an_upload_that_the_queue_refuses_is_sent_again(page, server):
    server.refusals += [(503, "queue_full")]
    page.goto(server.url)
    drop(page, ("a.mp4", b"a"))
    expect(page.locator("#uploads")).to_contain_text("Queue is full. Trying again in")
    page.get_by_role("button", name="Try again").click()
    expect(row(page, "a.mp4")).to_be_visible()
    expect(page.locator("#uploads-section")).to_be_hidden()


@needs_chromium
def test_a_full_disk_and_a_large_file_are_errors_of_their_row(page, server):
    server.facts = PageFacts(max_upload_bytes=2**20)
    server.refusals += [(507, "disk_full")]
    page.goto(server.url)
    drop(page, ("a.mp4", b"a"), ("large.mp4", bytes(2**20 + 1)), ("b.mp4", b"b"))
    uploads = page.locator("#uploads .row")
    expect(uploads).to_have_count(2)
    expect(uploads.filter(has_text="Disk is full")).to_have_count(1)
    expect(uploads.filter(has_text="Too large")).to_contain_text("Up to 1 MiB each.")
    expect(page.locator("#cases .row")).to_have_count(1)
    uploads.filter(has_text="Too large").get_by_role("button", name="Cancel").click()
    expect(uploads).to_have_count(1)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#cases .row")).to_have_count(2)
    assert len(server.bodies) == 2


@needs_chromium
def test_a_server_that_fails_is_tried_again(page, server):
    job = server.add("a.mp4")
    server.start(job, 0.5)
    page.goto(server.url)
    expect(row(page, "a.mp4")).to_be_visible()
    server.is_down = True
    expect(page.get_by_role("alert")).to_contain_text("Trying again.")
    server.is_down = False
    server.finish(job)
    expect(row(page, "a.mp4")).to_contain_text("Fake")
    expect(page.locator("#banner")).to_be_hidden()


@needs_chromium
def test_a_lost_connection_is_shown(page, server):
    page.goto(server.url)
    expect(page.locator("#empty")).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("searchbox").fill("a")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()


@needs_chromium
def test_nothing_is_requested_when_nothing_runs(page, server):
    server.finish(server.add("a.mp4"))
    page.goto(server.url)
    expect(row(page, "a.mp4")).to_be_visible()
    count = len(server.requests)
    page.wait_for_timeout(2500)
    assert len(server.requests) == count


@needs_chromium
def test_a_token_is_needed_once(page, server):
    server.token, server.facts = "secret", PageFacts(has_token=True)
    page.goto(server.url)
    expect(page).to_have_title("Log in - jdfd-keras")
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This token is not right.")
    page.get_by_label("Token").fill("secret")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#empty")).to_be_visible()
    # A policy of no referrer would make it `null`, which a server must refuse.
    assert server.origins == [server.url, server.url]
    assert not any("secret" in request for request in server.requests)
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in - jdfd-keras")
    page.goto(f"{server.url}/#{'0' * 32}")
    expect(page).to_have_title("Log in - jdfd-keras")


@needs_chromium
def test_a_session_that_ends_leads_to_the_login(page, server):
    page.goto(server.url)
    expect(page.locator("#empty")).to_be_visible()
    server.token = "secret"
    page.get_by_role("searchbox").fill("a")
    expect(page).to_have_title("Log in - jdfd-keras")


@pytest.fixture(scope="module")
def app_url(tmp_path_factory) -> Iterator[str]:
    """The URL of `jdfd-keras app` with the shipped model and a token, as a user starts it."""
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, "-m", "jdfd_keras", "app", "--port", "0", "--no-open"]
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--state", str(folder / "state")],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"JDFD_KERAS_TOKEN": TOKEN},
        )
        assert process.stdout
        url = process.stdout.readline().strip().removesuffix("/")
        assert url.startswith("http://127.0.0.1:"), log.read_text()
        yield url
        process.terminate()
        process.stdout.close()
        assert process.wait(60) == 0, log.read_text()
    assert TOKEN not in log.read_text()


@pytest.fixture
def app_page(browser, watch, app_url) -> Iterator[Page]:
    pages = open_page(browser, watch, app_url)
    page = next(pages)
    page.goto(app_url)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#files")).to_be_visible()
    yield page
    assert next(pages, None) is None


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, bytes]:
    """The two videos of `jdfd-keras demo`."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import find_portrait, make_videos, vary_portrait

    folder = tmp_path_factory.mktemp("clips")
    (other,) = vary_portrait(astronaut(), 1, 0)
    paths = make_videos(find_portrait("astronaut", astronaut()), other, folder, seed=0)
    return dict(zip(("real", "fake"), (path.read_bytes() for path in paths), strict=True))


def get_json(page: Page, path: str) -> Any:
    """Return the answer of the real server to a request of the page."""
    return page.evaluate("path => fetch(path).then((response) => response.json())", path)


def expect_score(page: Page, name: str) -> None:
    """Wait until a case has a verdict with a score."""
    expect(row(page, name).locator(".score")).to_have_text(
        re.compile(r"^[01]\.\d{3}$"), timeout=120_000
    )


@pytest.mark.slow
@needs_chromium
def test_a_real_clip_gets_the_verdict_page_and_downloads(app_page, clips, tmp_path):
    page = app_page
    drop(page, ("clip <b>.mp4", clips["fake"]))
    expect(row(page, "clip <b>.mp4")).to_be_visible()
    page.reload()
    expect_score(page, "clip <b>.mp4")
    row(page, "clip <b>.mp4").get_by_role("link").click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="clip <b>.mp4")).to_be_visible(timeout=60_000)
    for part in ("#timeline", "#people", "#limits"):
        expect(report.locator(part)).to_be_attached()
    assert report.locator("video").evaluate(
        "video => new Promise((resolve) => {"
        " if (video.readyState) return resolve(video.duration > 0);"
        " video.addEventListener('loadedmetadata', () => resolve(video.duration > 0));"
        " video.addEventListener('error', () => resolve(video.error.message)); })"
    )
    assert report.locator(".faces img").count() > 0
    job_id = page.url.split("#")[1]
    document = get_json(page, f"/v1/files/{job_id}")
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    download.value.save_as(tmp_path / "result.json")
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved == document["result"]
    assert saved["files"][0]["path"] == "clip <b>.mp4"
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="PDF").click()
    download.value.save_as(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert download.value.suggested_filename.endswith("-report.pdf")


@pytest.mark.slow
@needs_chromium
def test_two_real_files_at_once_of_which_one_is_broken(app_page, clips):
    page = app_page
    half = clips["real"][:100] + bytes(2000)
    drop(page, ("good.mp4", clips["real"]), ("broken.mp4", half))
    expect(row(page, "broken.mp4")).to_contain_text("Cannot be decoded", timeout=60_000)
    expect_score(page, "good.mp4")
    row(page, "broken.mp4").get_by_role("link").click()
    expect(page.locator("#case-body")).to_contain_text("undecodable: ")
    page.get_by_role("link", name="Back").click()
    search = page.get_by_role("searchbox")
    search.fill("BROKEN")
    expect(page.locator("#cases .row-name")).to_have_text(["broken.mp4"])
    sha256 = get_json(page, "/v1/files?query=good")["files"][0]["sha256"]
    search.fill(sha256[:16])
    expect(page.locator("#cases .row-name")).to_have_text(["good.mp4"])
    page.get_by_role("button", name="Delete good.mp4").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#empty")).to_be_visible()
    assert get_json(page, "/v1/files?query=good")["total"] == 0


@pytest.mark.slow
@needs_chromium
def test_an_image_without_a_face_has_a_page(app_page):
    from io import BytesIO

    from PIL import Image

    content = BytesIO()
    Image.new("RGB", (320, 240), (30, 120, 60)).save(content, "PNG")
    page = app_page
    drop(page, ("green.png", content.getvalue()))
    expect(row(page, "green.png")).to_contain_text("No face", timeout=60_000)
    row(page, "green.png").get_by_role("link").click()
    heading = page.frame_locator("iframe").get_by_role("heading", name="green.png")
    expect(heading).to_be_visible(timeout=60_000)


@pytest.mark.slow
@needs_chromium
def test_an_annotated_video_can_be_saved(app_page, clips):
    page = app_page
    page.get_by_role("checkbox").check()
    drop(page, ("drawn.mp4", clips["fake"]))
    expect_score(page, "drawn.mp4")
    row(page, "drawn.mp4").get_by_role("link").click()
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("link", name="Annotated").click()
    assert download.value.suggested_filename == "drawn-annotated.mp4"
    assert download.value.path().stat().st_size > 1000
