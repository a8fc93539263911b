"""A real JobService with a predictor that needs no network: the score is how red a face is."""

import contextlib
import shutil
import time
from pathlib import Path

import pytest

from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.io.files import sha256_of
from jdfd_keras.options import FaceOptions, FileServiceOptions, LimitOptions, PredictOptions
from jdfd_keras.prediction import predict
from jdfd_keras.serving.jobs import job_service
from jdfd_keras.serving.jobs.file_routes import FileRoutes
from jdfd_keras.serving.jobs.job_service import JobService
from jdfd_keras.serving.jobs.uploads import plain_suffix
from jdfd_keras.serving.server.app_server import AppServer
from tests.serving.jobs.fake_service import FakeServer

FACES = FaceOptions(face_size=71, frames_per_video=3)


def redness(crops):
    return crops[..., 0].mean(axis=(1, 2)) / 255


def redness_maps(crops):
    return crops[..., 0].astype("float32")


def make_predictor(digest="one", score=redness, detector="dlib"):
    faces = FaceOptions(face_size=71, frames_per_video=3, detector=detector)
    metadata = ModelMetadata(faces, None, "red", 1, digest)
    return Predictor(
        "/models/red/1", metadata, score, redness_maps, engine=Engine("openvino", "1", "float32")
    )


@contextlib.contextmanager
def running_service(state, *, predictor=None, limits=None, **options):
    """A running service with a state folder; two processes, unless stated otherwise."""
    options = FileServiceOptions(**{"state": str(state), "workers": 2} | options)
    with pytest.MonkeyPatch.context() as patch:
        for module in (predict, job_service):
            patch.setattr(module, "load_predictor", lambda *_: predictor or make_predictor())
        with JobService("red", options, limits=limits or LimitOptions()) as service:
            yield service


@contextlib.contextmanager
def serving(service):
    """Serve a running service over HTTP."""
    routes = FileRoutes(service, service.options.token)
    try:
        with AppServer(routes, "127.0.0.1", 0) as server:
            yield FakeServer(service, server.url)
    finally:
        routes.close()


def submit(service, path, name="", callback="", annotate=False, **options):
    """Submit a copy of a file as an upload; return the job and whether it is new."""
    name = name or path.name
    upload = Path(shutil.copy(path, service.state / "incoming" / f"{time.monotonic_ns()}.part"))
    submission = service.make_submission(
        sha256_of(upload),
        upload.stat().st_size,
        plain_suffix(name),
        "",
        PredictOptions(**options),
        annotate,
    )
    return service.submit(submission, name, callback, upload)


def wait_for(service, *jobs, timeout_s=60.0):
    """Return the jobs once they have ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = [service.get(job.id) for job in jobs]
        if all(job.state in ("done", "failed") for job in found):
            return found
        time.sleep(0.01)
    raise TimeoutError([job.state for job in found])


def wait_until(condition, timeout_s=60.0):
    """Return once a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def files_below(folder):
    """Names of all files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def without_times(result):
    """The JSON of `predict` without what may differ: times, the command and where the model is."""
    if isinstance(result, dict):
        varying = ("created_at", "analysed_at", "command", "where")
        return {name: without_times(v) for name, v in result.items() if name not in varying}
    return [without_times(entry) for entry in result] if isinstance(result, list) else result
