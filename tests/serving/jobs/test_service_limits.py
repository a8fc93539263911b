"""What a server refuses, from the request to the files on disk, with a real JobService."""

import pytest
from PIL import Image

from jdfd_keras.options import LimitOptions
from tests.serving.jobs.fake_service import SECRET
from tests.serving.jobs.real_service import files_below, running_service, serving, wait_until

LIMITS = LimitOptions(max_duration_s=0.1, max_pixels=400 * 400)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = {"max_upload_mb": 1, "callback_secret": SECRET, "callback_hosts": "good.example"}
    state = tmp_path_factory.mktemp("limits") / "state"
    with running_service(state, limits=LIMITS, **options) as service, serving(service) as server:
        yield server


def wait_for_end(server, job):
    """Return the document of a job once it has ended."""
    found = {}

    def has_ended():
        found.update(server.request("GET", job["links"]["self"])[1])
        return found["state"] in ("done", "failed")

    wait_until(has_ended)
    return found


def find_uploads(server):
    """Return the names of the files that the server keeps, once no upload is unfinished."""
    state = server.service.state
    # Deleted by another thread, perhaps after the answer.
    wait_until(lambda: files_below(state / "incoming") == [])
    return files_below(state / "files")


def test_a_long_video_and_a_large_image_fail_with_their_codes(server, clips_folder, tmp_path):
    clip = min(clips_folder.rglob("real/*.mp4"))
    Image.new("RGB", (401, 400)).save(tmp_path / "large.png")
    Image.new("RGB", (400, 400)).save(tmp_path / "small.png")
    expected = {clip: "too_long", "large.png": "too_many_pixels", "small.png": "no_face"}
    for name, code in expected.items():
        path = tmp_path / name
        status, job, _ = server.upload(path.name, path.read_bytes())
        assert status == 202
        failed = wait_for_end(server, job)
        assert (failed["state"], failed["error"]["code"]) == ("failed", code)
        assert path.name in failed["error"]["message"]


def test_a_body_above_the_limit_leaves_nothing(server):
    before = find_uploads(server)
    status, document, _ = server.upload("large.mp4", bytes(2**20 + 1))
    assert (status, document["error"]["code"]) == (413, "too_large")
    assert find_uploads(server) == before


def test_a_path_in_a_name_writes_no_other_file(server, tmp_path):
    state = server.service.state
    for name in (
        "../../escaped.png",
        "/tmp/escaped.png",
        "..\\escaped.png",
        "%2e%2e%2fescaped.png",
    ):
        outside = files_below(state.parent)
        status, job, _ = server.upload(name, name.encode())
        assert status == 202
        assert "/" not in job["name"] and "\\" not in job["name"]
        wait_for_end(server, job)
        added = set(files_below(state.parent)) - set(outside)
        assert {path for path in added if "/results/" not in path} <= {
            f"state/files/{job['sha256']}.png"
        }
    assert not (tmp_path.parent / "escaped.png").exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/done",
        "http://127.0.0.1/done",
        "https://good.example.evil.example/done",
        "https://good.example@evil.example/done",
        "https://good.example:8443/done",
        "file:///etc/hostname",
    ],
)
def test_a_callback_to_another_host_is_refused_and_leaves_nothing(server, url):
    before, total = find_uploads(server), server.request("GET", "/v1/files")[1]["total"]
    status, document, _ = server.upload("a.mp4", url.encode(), callback=url)
    assert (status, document["error"]["code"]) == (403, "callback_not_allowed")
    assert find_uploads(server) == before
    assert server.request("GET", "/v1/files")[1]["total"] == total


def test_a_full_queue_refuses_and_says_when_to_try_again(tmp_path, monkeypatch):
    from jdfd_keras.serving.jobs.job_runner import JobRunner

    monkeypatch.setattr(JobRunner, "start", lambda _: None)
    with running_service(tmp_path / "state", max_jobs=2) as service, serving(service) as server:
        for number in range(2):
            assert server.upload(f"{number}.mp4", b"%d" % number)[0] == 202
        status, document, headers = server.upload("2.mp4", b"2")
        assert (status, document["error"]["code"]) == (503, "queue_full")
        assert int(headers["retry-after"]) > 0
        assert len(find_uploads(server)) == 2
