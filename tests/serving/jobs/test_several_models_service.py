"""Several models judge each file of the service on their own: agreement in words, no mean."""

import contextlib
import dataclasses
import json
import re

import jsonschema
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.client.errors import ServerUnavailable
from jdfd_keras.options import CredentialOptions, FileServiceOptions, LimitOptions
from jdfd_keras.prediction.opinions import Opinions
from jdfd_keras.serving.jobs import job_runner, job_service
from jdfd_keras.serving.jobs.job_service import JobService
from jdfd_keras.serving.jobs.openapi import describe_api
from tests.chromium import needs_chromium
from tests.serving.jobs.callback_receiver import CallbackHandler, serve_callbacks
from tests.serving.jobs.fake_service import SECRET
from tests.serving.jobs.real_service import (
    make_predictor,
    serving,
    submit,
    wait_for,
    wait_until,
)

PLUGINS = """
import os, time
def low(path): return [0.1, 0.2]
def high(path): return 0.9
high.version = "1.2"
high.thresholds = (0.2, 0.95)
def raises(path): raise RuntimeError("no weights")
def none(path): return []
def two(path): return 2.0
def hangs(path): time.sleep(60)
def crashes(path): os._exit(3)
"""


@pytest.fixture(scope="module")
def clip(clips_folder):
    return sorted(clips_folder.rglob("real/*.mp4"))[0]


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Functions of a module that the worker processes can import."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_scores.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(tmp_path / "code")


def constant(value, label, digest=None, **faces):
    """A predictor with one score for every face."""
    predictor = make_predictor(
        digest or f"{label}{value}", lambda crops: np.full(len(crops), value)
    )
    metadata = dataclasses.replace(
        predictor.metadata,
        name=label,
        faces=dataclasses.replace(predictor.metadata.faces, **faces),
    )
    return dataclasses.replace(predictor, metadata=metadata, name=f"/models/{label}/1")


@contextlib.contextmanager
def running(state, *models, limits=None, credentials=None, **options):
    """A running service of several models: predictors, and names of plug-ins."""
    options = FileServiceOptions(**{"state": str(state), "workers": 2} | options)
    named = {f"model {number}": model for number, model in enumerate(models)}
    given = [model if isinstance(model, str) else name for name, model in named.items()]
    first, *opinions = given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_service, "load_predictor", lambda model, _: named[model])
        limits = limits or LimitOptions()
        further = {"opinions": opinions, "credentials": credentials}
        with JobService(first, options, limits=limits, **further) as service:
            yield service


def judge(service, clip, **options):
    [job] = wait_for(service, submit(service, clip, **options)[0])
    return job


@pytest.mark.slow
def test_models_that_agree_have_a_common_verdict_and_no_common_score(clip, tmp_path):
    with running(tmp_path / "state", constant(0.9, "a"), constant(0.7, "b")) as service:
        job = judge(service, clip)
        page = service.report(job, "report.html").read_text()
    assert (job.state, job.verdict, job.score, job.error) == ("done", "fake", None, None)
    [file] = job.result["files"]
    assert file["agreement"] == "agree" and file["path"] == clip.name
    assert [(one["label"], one["verdict"], one["score"]) for one in file["opinions"]] == [
        ("a", "fake", 0.9),
        ("b", "fake", 0.7),
    ]
    assert file["text"] == "2 of 2 models have a verdict, and they agree: fake."
    assert Opinions.from_dict(job.result).to_dict() == job.result
    assert [one["files"][0]["score"] for one in job.result["predictions"]] == [0.9, 0.7]
    assert "The models agree" in page


def test_models_that_disagree_are_named(clip, tmp_path, plugins):
    models = constant(0.9, "a"), constant(0.1, "a", digest="other"), "my_scores:high"
    with running(tmp_path / "state", *models) as service:
        job = judge(service, clip)
    assert (job.state, job.verdict, job.score) == ("done", "disagree", None)
    assert job.result["files"][0]["text"] == (
        "3 of 3 models have a verdict, and they disagree: a: fake; my_scores:high: uncertain; "
        "a-2: no evidence of manipulation."
    )
    plugin = job.result["models"][2]
    assert (plugin["kind"], plugin["where"]) == ("plug-in", "my_scores:high")
    assert (plugin["version"], plugin["uncertain_from"], plugin["uncertain_to"]) == (
        *("1.2", 0.2),
        0.95,
    )
    assert job.result["predictions"][2] is None
    assert job.result["models"][0]["where"] == "a/1"  # no folder of this machine


def test_an_uncertain_verdict_beside_another_is_a_partial_agreement(clip, tmp_path, plugins):
    with running(tmp_path / "state", constant(0.95, "a"), "my_scores:high") as service:
        job = judge(service, clip)
        # A threshold applies to all.
        same = judge(service, clip, threshold=0.5)
    assert (job.state, job.verdict, job.score) == ("done", "partial", None)
    assert same.verdict == "fake"
    assert same.result["models"][1]["uncertain_to"] == 0.5


def test_models_with_other_face_options_get_their_own_crops(clip, tmp_path):
    shapes = {"a": set(), "b": set(), "c": set()}

    def watch(label, **faces):
        predictor = constant(0.9, label, **faces)

        def score(crops):
            shapes[label].add(crops.shape[1:])
            return predictor.score(crops)

        return dataclasses.replace(predictor, score=score)

    models = watch("a"), watch("b", face_size=99), watch("c")
    with running(tmp_path / "state", *models) as service:
        begun, begin = [], service._runner._begin

        def record(submission):
            begun.append(begin(submission))
            return begun[-1]

        service._runner._begin = record
        tasks = []
        receive = service._runner._receive

        def count(task, result):
            tasks.append(task)
            receive(task, result)

        service._runner._receive = count
        job = judge(service, clip)
    assert shapes == {"a": {(71, 71, 3)}, "b": {(99, 99, 3)}, "c": {(71, 71, 3)}}
    assert len({id(task) for task in tasks}) == 2  # a and c share one
    assert job.verdict == "fake" and begun[0].progress == 1.0
    sizes = [one["provenance"]["faces"]["face_size"] for one in job.result["predictions"]]
    assert sizes == [71, 99, 71]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("raises", "plugin_failed", "RuntimeError: no weights"),
        ("two", "plugin_failed", "which returned 2.0"),
        ("crashes", "crashed", "exit code 3"),
        pytest.param("hangs", "too_long", "took more than 8 s", marks=pytest.mark.slow),
    ],
)
def test_a_plugin_that_fails_costs_its_own_opinion(clip, tmp_path, plugins, name, code, reason):
    models = constant(0.9, "a"), f"my_scores:{name}"
    limits = LimitOptions(max_seconds=8)
    with running(tmp_path / "state", *models, limits=limits) as service:
        job = judge(service, clip)
    assert (job.state, job.verdict, job.error) == ("done", "fake", None)
    [file] = job.result["files"]
    assert file["agreement"] == "single"
    [_, opinion] = file["opinions"]
    assert (opinion["verdict"], opinion["score"], opinion["code"]) == ("", None, code)
    assert reason in opinion["error"] and reason in file["text"]
    assert str(tmp_path) not in json.dumps(job.result)


def gone_after(num_calls, predictor):
    """A predictor of a server that is gone after some calls."""
    calls = []

    def score(crops):
        calls.append(1)
        if len(calls) > num_calls:
            raise ServerUnavailable("http://127.0.0.1:9/v1/models/b", "Connection refused")
        return predictor.score(crops)

    return dataclasses.replace(predictor, score=score, batch_size=1)


@pytest.mark.parametrize("num_calls", [0, 2])
def test_a_server_that_is_gone_costs_its_own_opinion(clip, tmp_path, num_calls, capfd):
    models = gone_after(num_calls, constant(0.1, "b")), constant(0.9, "a")
    with running(tmp_path / "state", *models) as service:
        job = judge(service, clip)
        page = service.report(job, "report.html").read_text()
    assert (job.state, job.verdict, job.score) == ("done", "fake", None)
    [lost, _] = job.result["files"][0]["opinions"]
    assert (lost["verdict"], lost["code"]) == ("", "model_unavailable")
    assert "Connection refused" in lost["error"] and "--out" not in lost["error"]
    assert job.result["models"][0]["error"] == lost["error"]
    [failed] = job.result["predictions"][0]["failed"]
    assert failed["path"] == clip.name and failed["sha256"] == job.submission.sha256
    assert "Connection refused" in page
    assert "b: " in capfd.readouterr().err


def test_a_bug_in_one_model_costs_its_own_opinion(clip, tmp_path, capfd):
    def score(crops):
        raise TypeError("a bug at /secret/path")

    broken = dataclasses.replace(constant(0.1, "b"), score=score)
    with running(tmp_path / "state", constant(0.9, "a"), broken) as service:
        job = judge(service, clip)
    assert (job.state, job.verdict) == ("done", "fake")
    [_, lost] = job.result["files"][0]["opinions"]
    assert lost["code"] == "internal" and "TypeError" in lost["error"]
    assert "/secret" not in json.dumps(job.result)
    assert "a bug at /secret/path" in capfd.readouterr().err


def test_a_file_without_any_verdict_fails_with_the_code_of_the_first_model(tmp_path, plugins, clip):
    (tmp_path / "text.mp4").write_text("not a video")
    Image.new("RGB", (120, 90), (9, 99, 200)).save(tmp_path / "sea.png")
    models = constant(0.9, "a"), constant(0.9, "b"), "my_scores:none"
    with running(tmp_path / "state", *models) as service:
        jobs = [submit(service, tmp_path / name)[0] for name in ("text.mp4", "sea.png")]
        damaged, empty = wait_for(service, *jobs)
        for job in (damaged, empty):
            page = service.report(job, "report.html").read_text()
            assert job.name in page and str(tmp_path) not in page
    assert (damaged.state, damaged.verdict, damaged.error.code) == ("failed", "", "undecodable")
    assert damaged.error.message.startswith("None of 3 models has a verdict. a has none:")
    assert "text.mp4" in damaged.error.message and str(tmp_path) not in damaged.error.message
    assert (empty.state, empty.verdict, empty.error.code) == ("failed", "no face", "no_face")
    assert "b found no face." in empty.error.message


def test_an_option_that_suits_one_model_only_costs_the_other_opinion(clip, tmp_path):
    models = constant(0.9, "a"), constant(0.9, "crops", detector="none")
    with running(tmp_path / "state", *models) as service:
        job = judge(service, clip)
        with pytest.raises(ValueError, match="Expected"):
            submit(service, clip, threshold=2.0)
        with pytest.raises(ValueError, match="annotate=false with several models; got true for 2"):
            submit(service, clip, annotate=True)
    assert (job.state, job.verdict) == ("done", "fake")
    [_, other] = job.result["files"][0]["opinions"]
    assert "Expected a detector" in other["error"]


def test_one_model_is_as_before_and_a_plugin_alone_has_opinions(clip, tmp_path, plugins):
    with running(tmp_path / "one", constant(0.9, "a")) as service:
        one = judge(service, clip)
        assert service.opinions == ()
    digests = dataclasses.asdict(one.submission)
    assert (digests["digest"], digests["engine"]) == ("a0.9", "OpenVINO 1, float32")
    assert "files" in one.result and "models" not in one.result and one.score == 0.9
    with running(tmp_path / "plugin", "my_scores:low") as service:
        assert service.metadata is None and len(service.opinions) == 1
        alone = judge(service, clip)
        page = service.report(alone, "report.html").read_text()
    assert (alone.verdict, alone.score) == ("no_evidence", None)
    assert alone.result["files"][0]["opinions"][0]["score"] == 0.2  # the higher one
    assert "my_scores:low" in page


def test_content_credentials_are_read_also_if_no_model_has_a_verdict(clip, tmp_path, plugins):
    from tests.faces.signed_files import make_chain, sign_file

    chain = make_chain()
    anchors = tmp_path / "authorities.pem"
    anchors.write_bytes(chain.authority)
    signed = sign_file(clip, tmp_path / "signed.mp4", chain)
    trusted = CredentialOptions(str(anchors))
    for number, models in enumerate((["my_scores:low"], [constant(0.9, "a"), "my_scores:low"])):
        with running(tmp_path / f"state{number}", *models, credentials=trusted) as service:
            job = judge(service, signed)
            page = service.report(job, "report.html").read_text()
        assert job.result["files"][0]["credentials"]["state"] == "valid"
        assert "Valid, signed by Ada Photographer" in page


def test_another_set_of_models_is_another_analysis(clip, tmp_path, monkeypatch):
    state, a, b = tmp_path / "state", constant(0.9, "a"), constant(0.7, "b")
    sets = [(a, b), (b, a), (a,), (a, b, constant(0.1, "c")), (a, b)]
    with monkeypatch.context() as patch:
        patch.setattr(job_runner.JobRunner, "start", lambda self: None)
        keys = []
        for models in sets:
            with running(state, *models) as service:
                keys.append(submit(service, clip)[0].submission.key)
                queued = service.list()[0]
        assert len(set(keys)) == 4 and keys[0] == keys[-1]
    with running(state, a, b) as service:
        ended = {job.submission.key: job for job in wait_for(service, *queued)}
    assert ended.pop(keys[0]).state == "done"
    for job in ended.values():
        assert (job.state, job.error.code) == ("failed", "internal")
        assert "after a new start of the server" in job.error.message
        assert "Submit the file again" in job.error.message


def test_reports_are_linked_over_http(clip, tmp_path, plugins):
    models = constant(0.9, "a b/ä"), constant(0.1, "c"), "my_scores:high"
    with running(tmp_path / "state", *models) as service, serving(service) as server:
        job = judge(service, clip)
        path = f"/v1/files/{job.id}"
        status, page, headers = server.request("GET", f"{path}/report.html")
        assert (status, headers["content-disposition"].split(";")[0]) == (200, "inline")
        links = set(re.findall(r'href="(report_files/[^"#]+)', page.decode()))
        assert len(links) == 2
        for link in links:
            status, other, headers = server.request("GET", f"{path}/{link}")
            assert status == 200 and b"../../report.html" in other
            assert headers["content-type"] == "text/html; charset=utf-8"
        for wrong in (
            *("report_files/none/index.html", "report_files/../index.html"),
            *("report_files/%2e%2e/index.html", "report_files/c/other.html"),
            *("report_files/..%2f..%2f..%2f../index.html", "report_files/c/index-player.mp4"),
            *("report_files/c%00/index.html", "report_files/%FF/index.html"),
        ):
            assert server.request("GET", f"{path}/{wrong}")[0] == 404, wrong
        status, saved, _ = server.request("GET", f"{path}/result.json")
        assert status == 200 and saved == job.result
        form = server.upload("a.mp4", clip.read_bytes(), annotate="true")
        assert (form[0], form[1]["error"]["code"]) == (400, "bad_request")


@pytest.mark.slow
@needs_chromium
def test_a_report_is_printed(clip, tmp_path):
    with running(tmp_path / "state", constant(0.9, "a"), constant(0.1, "b")) as service:
        job = judge(service, clip)
        assert service.report(job, "report.pdf").read_bytes().startswith(b"%PDF")
        page = service.report_page(job, "a", "index.pdf")
        assert page.read_bytes().startswith(b"%PDF")


def test_the_answers_are_as_described(clip, tmp_path, plugins):
    document = json.loads(json.dumps(describe_api()))
    schemas = document["components"]["schemas"]
    references = {
        one.get("$ref", "") for one in schemas["JobDocument"]["properties"]["result"]["anyOf"]
    }
    assert {f"#/components/schemas/{name}" for name in ("Predictions", "Opinions")} <= references
    assert "disagree" in schemas["JobSummary"]["properties"]["verdict"]["description"]
    models = constant(0.9, "a"), constant(0.1, "b"), "my_scores:raises"
    with running(tmp_path / "state", *models) as service, serving(service) as server:
        job = judge(service, clip)
        for path, name in ((f"/{job.id}", "JobDocument"), ("", "JobList")):
            status, body, _ = server.request("GET", f"/v1/files{path}")
            assert status == 200
            schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
            jsonschema.validate(body, schema, cls=jsonschema.Draft202012Validator)


def test_jobs_are_found_by_their_verdict(clip, tmp_path):
    models = constant(0.9, "a"), gone_after(0, constant(0.1, "gone"))
    with running(tmp_path / "state", *models) as service:
        judge(service, clip)
    models = constant(0.9, "a"), constant(0.1, "b")
    with running(tmp_path / "state", *models) as service, serving(service) as server:
        (tmp_path / "disagree.txt").write_text("not a video")
        wait_for(service, submit(service, clip)[0], submit(service, tmp_path / "disagree.txt")[0])

        def find(query):
            found = server.request("GET", f"/v1/files?query={query}")[1]
            assert found["total"] == len(found["files"])
            return [(one["name"], one["verdict"]) for one in found["files"]]

        assert find("fake") == [(clip.name, "fake")]
        # In a name, too.
        assert sorted(find("Disagree")) == [("disagree.txt", ""), (clip.name, "disagree")]
        assert find("disagre") == [("disagree.txt", "")]
        assert find("partial") == find("no%20evidence") == []
        assert len(find("")) == 3


class Receiver(CallbackHandler):
    def receive(self, body):
        self.server.received.append(json.loads(body))
        return 204


def test_a_callback_has_the_same_fields(clip, tmp_path):
    with serve_callbacks(Receiver) as receiver:
        host = f"127.0.0.1:{receiver.server_address[1]}"
        hosts = {"callback_hosts": host, "callback_secret": SECRET}
        models = constant(0.9, "a"), constant(0.1, "b")
        with running(tmp_path / "state", *models, **hosts) as service:
            job, _ = submit(service, clip, callback=f"http://{host}/done")
            wait_until(lambda: receiver.received)
    [body] = receiver.received
    assert set(body) == {
        *("id", "state", "name", "sha256", "verdict", "score", "error", "finished_at"),
    }
    assert (body["id"], body["verdict"], body["score"]) == (job.id, "disagree", None)


def test_maps_are_of_the_model_that_judged(clip, tmp_path):
    """After a restart with another model, a report of before has no maps of that model."""
    a, b = constant(0.9, "a"), constant(0.7, "b")
    with running(tmp_path / "state", a) as service:
        job = judge(service, clip)
    with running(tmp_path / "state", b) as service:
        page = service.report(service.get(job.id), "report.html").read_text()
    assert "started with other models since" in page


def test_a_model_that_cannot_be_loaded_is_refused_at_the_start(tmp_path, plugins):
    closed = []
    a = dataclasses.replace(constant(0.9, "a"), close=lambda: closed.append("a"))
    with (
        pytest.raises(OSError, match="my_scores:missing.*no function missing"),
        running(tmp_path / "state", a, "my_scores:missing"),
    ):
        pass
    assert closed == ["a"]


def test_an_annotated_file_that_could_not_be_written_has_no_link(clip, tmp_path, monkeypatch):
    with running(tmp_path / "state", constant(0.9, "a")) as service, serving(service) as server:
        jobs = [submit(service, clip, annotate=True)[0]]
        wait_for(service, *jobs)
        monkeypatch.setattr(job_runner, "ANNOTATED", ("annotated.txt", "annotated.txt"))
        jobs.append(submit(service, clip, annotate=True, every=2)[0])
        wait_for(service, *jobs)
        links = [server.request("GET", f"/v1/files/{job.id}")[1]["links"] for job in jobs]
        listed = server.request("GET", "/v1/files")[1]["files"]
        assert links[0]["annotated"] == f"/v1/files/{jobs[0].id}/annotated.mp4"
        assert links[1]["annotated"] == ""
        assert [one["links"]["annotated"] for one in listed] == ["", links[0]["annotated"]]
        status, body, _ = server.request("GET", f"/v1/files/{jobs[1].id}/annotated.mp4")
        assert status == 404


@pytest.fixture(scope="module")
def signed(clip, tmp_path_factory):
    """A clip that states an AI generator, and the authority of its signer."""
    from tests.faces.signed_files import make_chain, sign_file

    folder, chain = tmp_path_factory.mktemp("signed"), make_chain()
    (folder / "authority.pem").write_bytes(chain.authority)
    source_type = "trainedAlgorithmicMedia"
    path = sign_file(clip, folder / "signed.mp4", chain, source_type=source_type)
    return path, folder / "authority.pem"


@pytest.mark.slow
def test_credentials_are_in_the_result_and_move_no_score(clip, signed, tmp_path, plugins):
    path, authority = signed
    models = constant(0.9, "a"), constant(0.1, "b", face_size=99), "my_scores:low"
    found, keys = {}, set()
    for name, anchors in (("untrusted", ""), ("valid", str(authority))):
        credentials = CredentialOptions(trust_anchors=anchors)
        with running(tmp_path / "state", *models, credentials=credentials) as service:
            job = judge(service, path)
            page = service.report(job, "report.html").read_text()
            plain = judge(service, clip)
        keys.add(job.submission.key)
        found[name] = [one and one["files"][0] for one in job.result["predictions"]]
        states = [one["credentials"]["state"] for one in found[name][:2]]
        assert states == [name, name]
        assert plain.result["predictions"][0]["files"][0]["credentials"]["state"] == "none"
        assert job.verdict == plain.verdict == "disagree"
        assert "states that AI made it" in page
    assert len(keys) == 2  # another trust list is another analysis
    [claim] = found["valid"][0]["credentials"]["ai_claims"]
    assert claim["is_signed"]
    assert [one and one["score"] for one in found["valid"]] == [0.9, 0.1, None]


def test_an_analysis_with_another_trust_list_is_not_done(signed, tmp_path, monkeypatch):
    path, authority = signed
    with monkeypatch.context() as patch:
        patch.setattr(job_runner.JobRunner, "start", lambda self: None)
        with running(tmp_path / "state", constant(0.9, "a")) as service:
            job, _ = submit(service, path)
    credentials = CredentialOptions(trust_anchors=str(authority))
    with running(tmp_path / "state", constant(0.9, "a"), credentials=credentials) as service:
        [failed] = wait_for(service, job)
    assert (failed.state, failed.error.code) == ("failed", "internal")
    assert "trust list" in failed.error.message
    with (
        pytest.raises(OSError, match="trust anchors"),
        running(tmp_path, constant(0.9, "a"), credentials=CredentialOptions("none.pem")),
    ):
        pass
