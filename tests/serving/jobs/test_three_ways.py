"""The command, the service and the page give equal JSON for the same ten files."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from jdfd_keras.cli.main import main
from tests.chromium import find_chromium, needs_chromium
from tests.serving.jobs.app_process import AppProcess
from tests.serving.jobs.fake_service import FakeServer
from tests.serving.jobs.json_differences import VARYING, find_differences
from tests.serving.jobs.real_service import wait_until
from tests.serving.jobs.test_app_page import drop, row

FAKE, MARKUP, OTHER = "fälschung 偽 é.mp4", "<img src=x onerror=alert(1)>&amp;.mp4", "B.MP4"
ERRORS = {"cut.mp4": "undecodable", "notes.txt": "undecodable", "sea.png": "no_face"}


@pytest.fixture(scope="module")
def ten_files(tmp_path_factory):
    """Videos, images, files without a face, damaged and other ones, and names of all kinds."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import find_portrait, make_videos, vary_portrait

    folder = tmp_path_factory.mktemp("ten")
    portrait = astronaut()
    [other] = vary_portrait(portrait, 1, 0)
    subject = find_portrait("astronaut", portrait)
    first, second = (
        make_videos(subject, other, tmp_path_factory.mktemp("clips"), seed=seed) for seed in (0, 1)
    )
    for path, name in zip((*first, *second), ("a clip.mp4", FAKE, OTHER, MARKUP), strict=True):
        shutil.copy(path, folder / name)
    (folder / "cut.mp4").write_bytes(first[0].read_bytes()[:3000])
    (folder / "notes.txt").write_text("no video")
    Image.fromarray(portrait).save(folder / "portrait.jpg")
    Image.fromarray(np.hstack([portrait, portrait[:, ::-1]])).save(folder / "two people.png")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    frames = [Image.fromarray(np.roll(portrait, 4 * n, axis=1)) for n in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    paths = sorted(folder.iterdir())
    assert len(paths) == 10
    return paths


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[AppProcess]:
    with AppProcess(tmp_path_factory.mktemp("app") / "state") as process:
        yield process


def judge_by_command(path, capsys):
    """Run `predict` as in a terminal in the folder of the file."""
    with contextlib.chdir(path.parent):
        code = main(["predict", path.name, "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    assert code == len(result["failed"])
    return result


def judge_by_service(server, path, is_form):
    """Upload a file as a form or as a raw body; return its document, and delete the job."""
    if is_form:
        status, job, _ = server.upload(path.name, path.read_bytes())
    else:
        query = f"/v1/files?name={quote(path.name)}"
        status, job, _ = server.request("POST", query, path.read_bytes())
    assert status == 202
    documents = []

    def has_ended():
        documents.append(server.request("GET", job["links"]["self"])[1])
        return documents[-1]["state"] in ("done", "failed")

    wait_until(has_ended, 120)
    # Otherwise the page would show this job.
    assert server.request("DELETE", job["links"]["self"])[0] == 204
    return documents[-1]


def judge_by_page(page, url, paths, folder):
    """Drop all files at once on the page, wait, and download the JSON of each."""
    page.goto(url)
    drop(page, *((path.name, path.read_bytes()) for path in paths))
    results = {}
    expect(page.locator("#cases .row")).to_have_count(len(paths), timeout=60_000)
    for path in paths:
        row(page, path.name).get_by_role("link").click()
        link = page.get_by_role("link", name="JSON")
        expect(link).to_be_visible(timeout=120_000)
        with page.expect_download() as download:
            link.click()
        download.value.save_as(folder / "result.json")
        results[path] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        page.get_by_role("link", name="Back").click()
    return results


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.slow
@needs_chromium
def test_command_service_and_page_give_equal_json(app, ten_files, page, capsys, tmp_path):
    server = FakeServer(None, app.url)
    by_command = {path: judge_by_command(path, capsys) for path in ten_files}
    by_service = {
        path: judge_by_service(server, path, is_form=number % 2 == 0)
        for number, path in enumerate(ten_files)
    }
    assert server.request("GET", "/v1/files")[1]["total"] == 0
    by_page = judge_by_page(page, app.url, ten_files, tmp_path)
    for path in ten_files:
        command, document, saved = by_command[path], by_service[path], by_page[path]
        assert find_differences(command, document["result"]) <= VARYING, path.name
        assert find_differences(command, saved) <= VARYING, path.name
        assert document["result"]["paths"] == saved["paths"] == [path.name]
        assert document["result"]["provenance"]["where"] == saved["provenance"]["where"]
        code = ERRORS.get(path.name)
        assert (document["error"] or {}).get("code") == code
        assert document["state"] == ("failed" if code else "done")
        if not code:
            [verdict] = command["files"]
            assert (document["verdict"], document["score"]) == (
                verdict["verdict"],
                verdict["score"],
            )
    # Files that are all alike would show nothing.
    verdicts = [verdict for result in by_command.values() for verdict in result["files"]]
    assert {verdict["verdict"] for verdict in verdicts} >= {"fake", "no_evidence", "no face"}
    assert {verdict["num_people"] for verdict in verdicts} >= {0, 1, 2}
    scores = [verdict["score"] for verdict in verdicts if verdict["score"] is not None]
    assert len(set(scores)) == len(scores) >= 4


def test_a_difference_is_found_where_it_is():
    first = {"a": [1, {"b": 2}], "c": None}
    assert find_differences(first, {"c": None, "a": [1, {"b": 2}]}) == set()
    assert find_differences(first, {"a": [True, {"b": 3}], "c": ""}) == {"a[0]", "a[1].b", "c"}
    assert find_differences(first, {"a": [1], "c": None}) == {"a: 2 and 1"}
    assert find_differences(first, {"a": [1, {"d": 2}], "c": None}) == {"a[1]: ['b', 'd']"}
