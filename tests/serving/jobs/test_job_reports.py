"""Pages of a job are those of `predict --report`, with the name of the job."""

import re
import shutil
import threading
from pathlib import Path

import cv2
import pytest

from jdfd_keras.prediction.predict import predict_files
from jdfd_keras.reporting import verdict_page
from jdfd_keras.reporting.verdict_page import write_report
from jdfd_keras.serving.jobs import job_reports
from tests.serving.jobs.real_service import running_service, submit, wait_for

NAME = "<img src=x>&'\u202e.mp4"  # of a client


@pytest.fixture(scope="module")
def clip(clips_folder, tmp_path_factory):
    source = sorted(clips_folder.rglob("real/*.mp4"))[0]
    return Path(shutil.copy(source, tmp_path_factory.mktemp("clips") / "clip.mp4"))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service") / "state", workers=1) as service:
        yield service


@pytest.fixture(scope="module")
def job(service, clip):
    [job] = wait_for(service, submit(service, clip)[0])
    assert job.state == "done"
    return job


def without_times(page):
    page = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:]+(\.\d+)?([+-]\d\d:\d\d)?", "TIME", page)
    page = re.sub(r"\d\d? \w+ \d{4}, \d\d:\d\d( UTC)?", "TIME", page)
    return re.sub(r"data:video/mp4;base64,[\w+/=]+", "VIDEO", page)


def test_the_page_is_that_of_predict(service, job, clip, tmp_path):
    page = service.report(job, "report.html").read_text()
    predictions = predict_files([clip], model="red", explain=True)
    expected = write_report(predictions, tmp_path / "report.html").read_text()
    expected = expected.replace("/models/red/1", "red/1").replace(str(clip), clip.name)
    assert without_times(page) == without_times(expected)
    assert "<video " in page and "data:image/png" in page and "clip.mp4" in page
    assert str(service.state) not in page


def test_a_page_is_made_once_also_for_several_requests(service, clip, monkeypatch):
    [job] = wait_for(service, submit(service, clip, "other.mp4")[0])
    calls, write = [], job_reports.write_report

    def count(*arguments, **options):
        calls.append(1)
        return write(*arguments, **options)

    monkeypatch.setattr(job_reports, "write_report", count)
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(service.report(job, "report.html")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(paths)) == 1
    assert paths[0].parent.name == job.id and "other.mp4" in paths[0].read_text()


def test_the_name_of_a_client_is_text(service, clip):
    [job] = wait_for(service, submit(service, clip, NAME)[0])
    assert job.name == NAME and job.result["paths"] == [NAME]
    path = service.report(job, "report.html")
    page = path.read_text()
    assert "<img src=x>" not in page and "&lt;img src=x&gt;" in page and "\u202e" not in page
    assert path.parent.parent.name == job.submission.key
    assert NAME not in {entry.name for entry in service.state.rglob("*")}


def test_a_large_player_is_beside_the_page(service, clip, monkeypatch):
    monkeypatch.setattr(verdict_page, "MAX_EMBEDDED_BYTES", 0)
    [job] = wait_for(service, submit(service, clip, "large.mp4")[0])
    player = service.report(job, "report-player.mp4")
    page = service.report(job, "report.html")
    assert player.parent == page.parent and 'src="report-player.mp4"' in page.read_text()
    assert cv2.VideoCapture(str(player)).get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_a_small_player_is_within_the_page(service, job):
    with pytest.raises(FileNotFoundError, match="within the page"):
        service.report(job, "report-player.mp4")


def test_a_job_without_a_verdict_has_a_page_with_the_reason(service, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    cv2.imwrite(str(tmp_path / "sea.png"), cv2.UMat(90, 120, cv2.CV_8UC3, (9, 9, 9)).get())
    jobs = [submit(service, tmp_path / name)[0] for name in ("text.mp4", "sea.png")]
    failed, sea = wait_for(service, *jobs)
    assert (failed.error.code, sea.error.code) == ("undecodable", "no_face")
    page = service.report(failed, "report.html").read_text()
    assert "FFmpeg can decode" in page and "text.mp4" in page
    assert "sea.png" in service.report(sea, "report.html").read_text()
    for found in (page, service.report(sea, "report.html").read_text()):
        assert str(service.state) not in found and failed.submission.sha256 + "." not in found


def test_a_file_that_is_gone_leaves_a_page_without_frames(service, clip):
    [job] = wait_for(service, submit(service, clip, "gone.mp4", threshold=0.123)[0])
    source = service._folder.source(job.submission)
    hidden = source.with_name("hidden")
    source.rename(hidden)
    try:
        page = service.report(job, "report.html").read_text()
    finally:
        hidden.rename(source)
    assert "gone.mp4, which is missing" in page and str(service.state) not in page


def test_a_job_has_the_files_it_was_asked_for(service, job, clip):
    for name in ("annotated.mp4", "annotated.png", "../../jobs.sqlite", "top_faces.npy", ""):
        with pytest.raises(FileNotFoundError):
            service.report(job, name)
    [annotated] = wait_for(service, submit(service, clip, annotate=True)[0])
    path = service.report(annotated, "annotated.mp4")
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    with pytest.raises(FileNotFoundError, match=r"Try annotated\.mp4"):
        service.report(annotated, "annotated.png")


def test_a_pdf_needs_chromium(service, job, monkeypatch):
    monkeypatch.setenv("JDFD_KERAS_CHROMIUM", "/no/browser")
    with pytest.raises(FileNotFoundError, match="Expected Chromium at /no/browser"):
        service.report(job, "report.pdf")


def test_a_job_that_has_not_ended_has_no_page(service, clip):
    job, _ = submit(service, clip, "new.mp4", threshold=0.321)
    if job.result is None:
        with pytest.raises(FileNotFoundError, match="that has ended"):
            service.report(job, "report.html")
    wait_for(service, job)
