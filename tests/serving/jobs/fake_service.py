"""The routes of the file service on a service whose jobs end when a test says so.

The store is the real one; nothing is analysed.
"""

import contextlib
import http.client
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jdfd_keras.options import FileServiceOptions, LimitOptions
from jdfd_keras.serving.jobs.file_routes import FileRoutes
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.serving.jobs.job_types import JobError, Outcome, Submission
from jdfd_keras.serving.server.app_server import AppServer

TOKEN = "correct-horse-battery"
SECRET = "secret-of-the-callbacks"
RESULT = {"files": [], "failed": [], "paths": ["clip.mp4"]}


class FakeWebhooks:
    """Allows one host."""

    def check(self, url: str) -> None:
        """Raise a ValueError for another one."""
        if not url.startswith("https://good.example/"):
            raise ValueError(f"Expected a callback to good.example; got {url}. Try that.")


@dataclass
class FakeService:
    """As JobService; `submit_error` is raised by the next submissions."""

    state: Path
    options: FileServiceOptions
    limits: LimitOptions = field(default_factory=LimitOptions)
    metadata: Any = None
    engine_text: str = "CPU"
    opinions: tuple[str, ...] = ()
    webhooks: FakeWebhooks = field(default_factory=FakeWebhooks)
    submit_error: Exception | None = None

    def __post_init__(self):
        """Create the state folder."""
        (self.state / "incoming").mkdir(parents=True)
        (self.state / "files").mkdir()
        self.store = JobStore(self.state / "jobs.sqlite", self.options.max_jobs)

    def make_submission(self, sha256, file_bytes, suffix, path, options, annotate) -> Submission:
        return Submission(sha256, file_bytes, suffix, path, options, annotate, "digest", "CPU")

    def submit(self, submission, name, callback, upload):
        if self.submit_error:
            raise self.submit_error
        if upload:
            upload.rename(self.state / "files" / f"{submission.sha256}{submission.suffix}")
        return self.store.submit(submission, name, callback)

    def get(self, job_id):
        return self.store.get(job_id)

    def list(self, query, limit, offset):
        return self.store.list(query, limit, offset)

    def progress(self, job) -> float:
        return 0.5 if job.state == "running" else 0.0

    def report(self, job, name) -> Path:
        if name == "annotated.mp4":
            raise FileNotFoundError(name)
        path = self.state / f"{job.id}-{name}"
        path.write_bytes(b"0123456789")
        return path

    def delete(self, job_id) -> bool:
        return self.store.delete(job_id)

    def finish(self, error: JobError | None = None) -> None:
        """End the oldest analysis."""
        claimed = self.store.claim()
        assert claimed
        outcome = Outcome(RESULT, "", None, error) if error else Outcome(RESULT, "fake", 0.9)
        self.store.finish(claimed[0], outcome)

    @property
    def kept(self) -> "list[str]":
        """Names of the files in `incoming` and `files`."""
        folders = (self.state / "incoming", self.state / "files")
        return sorted(path.name for folder in folders for path in folder.iterdir())


@dataclass
class FakeServer:
    """A running server of a FakeService, and a client of it."""

    service: FakeService
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, body (parsed if it is JSON), and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            if found.get("content-type", "").startswith("application/json") and data:
                data = json.loads(data)
            return response.status, data, found

    def upload(self, name: str = "clip.mp4", data: bytes = b"clip", **fields: str):
        """Post a form with a file and text parts."""
        body, content_type = make_form([("file", name, data), *fields.items()])
        return self.request("POST", "/v1/files", body, {"Content-Type": content_type})


def make_form(parts: list[tuple]) -> tuple[bytes, str]:
    """Return a multipart body and its type; a part is (name, text) or (name, file, data)."""
    boundary = uuid.uuid4().hex
    body = b""
    for part in parts:
        file = f'; filename="{part[1]}"' if len(part) == 3 else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part[0]}"{file}\r\n\r\n'
        data = part[-1] if isinstance(part[-1], bytes) else part[-1].encode()
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@contextlib.contextmanager
def serve_fake(folder: Path, **options: Any) -> Iterator[FakeServer]:
    """Serve a FakeService with these options on a free port."""
    service = FakeService(folder / "state", FileServiceOptions(**options))
    routes = FileRoutes(cast(Any, service), service.options.token)
    try:
        with AppServer(routes, "127.0.0.1", 0) as server:
            yield FakeServer(service, server.url)
    finally:
        routes.close()
        service.store.close()
