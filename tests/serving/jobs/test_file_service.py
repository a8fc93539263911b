"""The file service as a whole: real files over HTTP, and the same answers as those of `predict`."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import jsonschema
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.options import EngineOptions, FileServiceOptions, LimitOptions, ServeOptions
from jdfd_keras.serving.app import describe_service, open_file_service, serve_app
from jdfd_keras.serving.jobs import job_service
from jdfd_keras.serving.jobs.openapi import DOWNLOADS, describe_api
from jdfd_keras.serving.model_config import configure_directory
from jdfd_keras.serving.server.model_server import ModelServer
from tests.chromium import needs_chromium
from tests.serving.jobs.fake_service import TOKEN, FakeServer
from tests.serving.jobs.real_service import (
    make_predictor,
    running_service,
    serving,
    without_times,
)

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """A clip, an image without a face, and text, by name."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(min(clips_folder.rglob("real/*.mp4")), folder / "a clip.mp4")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    (folder / "text.mp4").write_text("not a video")
    return {path.name: path for path in folder.iterdir()}


def wait_for(server, job, timeout_s=60.0, headers=None):
    """Return the document of a job once it has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        document = server.request("GET", job["links"]["self"], None, headers)[1]
        if document["state"] in ("done", "failed"):
            return document
        time.sleep(0.02)
    raise TimeoutError(document)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A server of a JobService whose score is how red a face is."""
    state = tmp_path_factory.mktemp("real") / "state"
    limits = LimitOptions(max_duration_s=60.0)
    with (
        running_service(state, limits=limits, max_upload_mb=8) as service,
        serving(service) as server,
    ):
        yield server


def test_a_clip_becomes_a_verdict_and_a_page(real, inputs):
    name = "<b>a & 'clip'.mp4"
    status, job, _ = real.upload(name, inputs["a clip.mp4"].read_bytes(), frames_per_video="3")
    assert status == 202
    done = wait_for(real, job)
    assert (done["state"], done["error"]) == ("done", None)
    assert done["verdict"] == done["result"]["files"][0]["verdict"]
    assert done["score"] == done["result"]["files"][0]["score"]
    assert done["result"]["paths"] == [name]
    assert str(real.service.state) not in json.dumps(done)
    status, page, headers = real.request("GET", done["links"]["report"])
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<b>a" not in page
    assert b"&lt;b&gt;a" in page
    assert real.request("GET", done["links"]["json"])[1] == done["result"]
    assert done["links"]["annotated"] == ""


@pytest.mark.parametrize(("name", "code"), [("sea.png", "no_face"), ("text.mp4", "undecodable")])
def test_a_file_without_a_verdict_has_a_code_and_a_page(real, inputs, name, code):
    job = real.upload(name, inputs[name].read_bytes())[1]
    failed = wait_for(real, job)
    assert (failed["state"], failed["error"]["code"]) == ("failed", code)
    assert failed["result"]["paths"] == [name]
    assert real.request("GET", failed["links"]["report"])[0] == 200


@pytest.mark.parametrize("name", ["a clip.mp4", "sea.png"])
def test_an_annotated_file_can_be_downloaded(real, inputs, name):
    job = real.upload(name, inputs[name].read_bytes(), annotate="true")[1]
    done = wait_for(real, job)
    path = done["links"]["annotated"]
    assert path.endswith(".mp4" if name.endswith(".mp4") else ".png")
    status, body, headers = real.request("GET", path)
    assert (status, headers["content-type"]) == (200, DOWNLOADS[path.rsplit("/", 1)[1]])
    assert b"ftyp" in body[:12] or body.startswith(b"\x89PNG")


@needs_chromium
@pytest.mark.slow
def test_a_report_can_be_printed(real, inputs):
    job = real.upload("a clip.mp4", inputs["a clip.mp4"].read_bytes())[1]
    done = wait_for(real, job)
    status, body, _ = real.request("GET", done["links"]["pdf"])
    assert (status, body[:5]) == (200, b"%PDF-")


def test_real_answers_have_the_described_form(real, inputs):
    document = describe_api()
    jobs = [real.upload(name, path.read_bytes())[1] for name, path in inputs.items()]
    for job in [*jobs, *(wait_for(real, job) for job in jobs)]:
        schema = {"$ref": "#/components/schemas/JobDocument", "components": document["components"]}
        jsonschema.validate(job, schema, cls=jsonschema.Draft202012Validator)


def test_an_option_that_does_not_suit_the_model_is_a_bad_request(real, inputs):
    data = inputs["sea.png"].read_bytes()
    status, document, _ = real.upload("sea.png", data, detector="mtcnn", threshold="2")
    assert (status, document["error"]["code"]) == (400, "bad_request")


@pytest.mark.slow
def test_a_deleted_job_leaves_no_files(tmp_path, inputs):
    with running_service(tmp_path / "state") as service, serving(service) as server:
        data = inputs["a clip.mp4"].read_bytes()
        first, second = (server.upload(name, data)[1] for name in ("a.mp4", "b.mp4"))
        done = wait_for(server, first)
        assert server.request("GET", done["links"]["report"])[0] == 200
        assert server.request("DELETE", first["links"]["self"])[0] == 204
        assert server.request("GET", wait_for(server, second)["links"]["report"])[0] == 200
        assert server.request("DELETE", second["links"]["self"])[0] == 204
        left = [path.name for path in service.state.rglob("*") if path.is_file()]
        assert {name.split(".")[0] for name in left} <= {"jobs", "lock"}


def test_files_below_the_root_are_analysed_in_place(tmp_path, inputs):
    root = inputs["sea.png"].parent
    options = {"root": str(root), "token": TOKEN}
    headers = BEARER | {"Content-Type": "application/json"}
    with running_service(tmp_path / "state", **options) as service, serving(service) as server:
        body = json.dumps({"path": "a clip.mp4"})
        status, job, _ = server.request("POST", "/v1/files", body, headers)
        assert status == 202
        done = wait_for(server, job, headers=BEARER)
        assert (done["state"], done["result"]["paths"]) == ("done", ["a clip.mp4"])
        assert str(root) not in json.dumps(done)
        assert list((service.state / "files").iterdir()) == []
    assert (root / "a clip.mp4").is_file()


def test_twenty_clients_get_their_own_verdicts(real, inputs):
    data = inputs["sea.png"].read_bytes()

    def judge(number):
        job = real.upload(f"{number}.png", data + b"%d" % (number % 4))[1]
        return wait_for(real, job)

    with ThreadPoolExecutor(20) as clients:
        documents = list(clients.map(judge, range(20)))
    assert [document["name"] for document in documents] == [f"{n}.png" for n in range(20)]
    assert [document["result"]["paths"] for document in documents] == [
        [f"{n}.png"] for n in range(20)
    ]


@pytest.mark.slow
def test_tensorflow_serving_and_files_share_a_port(exported, inputs, tmp_path, capsys, monkeypatch):
    """The command and the service give the same JSON; every request needs the token."""
    model = exported.parent
    files = FileServiceOptions(state=str(tmp_path / "state"), token=TOKEN, workers=1)
    engine = EngineOptions(backend="tensorflow")
    options = ServeOptions(port=0, grpc_port=0)
    configs = [configure_directory(model)]
    documents = {}
    with (
        open_file_service(model, files, engine=engine) as routes,
        ModelServer(configs, options, engine, routes, TOKEN) as server,
    ):
        assert "are kept in" in describe_service(server.url, routes, files)
        client = FakeServer(routes, server.url)
        for name, path in inputs.items():
            quoted = name.replace(" ", "%20")
            status, job, _ = client.request(
                "POST", f"/v1/files?name={quoted}", path.read_bytes(), BEARER
            )
            assert status == 202
            documents[name] = wait_for(client, job, headers=BEARER)
        for path in ("/v1/models/tiny/metadata", "/other", "/monitoring/prometheus/metrics"):
            assert client.request("GET", path)[0] == 401
        bearer = {"headers": BEARER}
        status, metadata, headers = client.request("GET", "/v1/models/tiny/metadata", **bearer)
        assert (status, metadata["model_spec"]["name"]) == (200, "tiny")
        assert "x-content-type-options" not in headers
        assert client.request("GET", "/other", **bearer)[:2] == (404, b"Not Found")
        assert client.request("GET", "/v1/files")[0] == 401
        assert client.request("GET", "/v1/models/none", **bearer)[1].keys() == {"error"}
        assert client.request("GET", "/monitoring/prometheus/metrics", **bearer)[0] == 200
    monkeypatch.chdir(inputs["sea.png"].parent)
    for name, document in documents.items():
        words = ["predict", name, "--model", str(model), "--backend", "tensorflow"]
        main([*words, "--format", "json"])
        expected = json.loads(capsys.readouterr().out)
        assert without_times(document["result"]) == without_times(expected)
    assert TOKEN not in json.dumps(documents)


def test_the_app_prints_its_page_and_opens_it_only_with_a_display(tmp_path, monkeypatch, capfd):
    opened, stopped = [], threading.Event()

    def run(server, on_ready):
        with server as running:
            on_ready(running)
        stopped.set()

    monkeypatch.setattr("jdfd_keras.serving.app.run_until_signal", run)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(job_service, "load_predictor", lambda *_: make_predictor())
    options = ServeOptions(port=0)
    files = FileServiceOptions(state=str(tmp_path / "state"), workers=1)
    for display in ("", ":0"):
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        serve_app("red", options, files=files, is_opened=True)
        assert stopped.is_set()
    out, error = capfd.readouterr()
    urls = out.split()
    assert len(urls) == 2
    assert opened == urls[1:]
    assert f"{tmp_path / 'state'} for 7 days" in error
