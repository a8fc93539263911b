"""The table of the routes of the file service: methods, paths, answers and codes of errors.

Takes nothing; `openapi.py` describes it, and `file_routes.py` answers it.
"""

import functools
import re
from dataclasses import dataclass

from jdfd_keras.serving.jobs.job_documents import JobDocument, JobList

ID = "[0-9a-f]{32}"
DOWNLOADS = {
    "report.html": "text/html",
    "report.pdf": "application/pdf",
    "report-player.mp4": "video/mp4",
    "annotated.mp4": "video/mp4",
    "annotated.png": "image/png",
    "result.json": "application/json",
}
PAGES = {
    "index.html": "text/html",
    "index.pdf": "application/pdf",
    "index-player.mp4": "video/mp4",
}
PATTERNS = {
    "id": ID,
    "download": "|".join(map(re.escape, DOWNLOADS)),
    "label": r"[\w.%-]{1,800}",  # as it is in the URL
    "page": "|".join(map(re.escape, PAGES)),
}
MAX_LISTED = 500
ALWAYS = ("unauthorized", "forbidden_host", "internal")  # codes of every route


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Attributes:
        method: Method of HTTP.
        path: Path, with names of parameters in braces.
        operation: Its name.
        summary: One sentence.
        answers: Status of success to the dataclass of its document; None for no JSON.
        codes: Codes of errors, besides ALWAYS.
    """

    method: str
    path: str
    operation: str
    summary: str
    answers: dict[int, type | None]
    codes: tuple[str, ...] = ()

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters in a path; None if it is not of this route."""
        found = _pattern(self.path).fullmatch(path)
        return found.groupdict() if found else None


ROUTES = (
    Route(
        "POST",
        "/v1/files",
        "submit",
        "Submit a video or image; the same file with the same options is the same job.",
        {202: JobDocument, 200: JobDocument},
        (
            *("bad_request", "foreign_origin", "callback_not_allowed", "outside_root", "missing"),
            *("timeout", "too_large", "queue_full", "stopping", "disk_full"),
        ),
    ),
    Route(
        "GET",
        "/v1/files",
        "list",
        "List jobs, the newest first.",
        {200: JobList},
        ("bad_request",),
    ),
    Route(
        "GET",
        "/v1/files/{id}",
        "get",
        "Return a job, with its result after the end.",
        {200: JobDocument},
        ("not_found",),
    ),
    Route(
        "DELETE",
        "/v1/files/{id}",
        "delete",
        "Delete a job, its file and its result; other jobs of the same file are left.",
        {204: None},
        ("foreign_origin", "not_found", "disk_full"),
    ),
    Route(
        "GET",
        "/v1/files/{id}/{download}",
        "download",
        "Download a report, the annotated file or the result; ranges of bytes are supported.",
        {200: None},
        ("not_found", "not_ready", "no_chromium", "disk_full"),
    ),
    Route(
        "GET",
        "/v1/files/{id}/report_files/{label}/{page}",
        "model_page",
        "Download the page of one of several models, to which the report links.",
        {200: None},
        ("not_found", "not_ready", "no_chromium", "disk_full"),
    ),
    Route("GET", "/v1/openapi.json", "describe", "Return this description.", {200: dict}),
)
FILES = {"download": DOWNLOADS, "model_page": PAGES}  # operation to its files
PATTERN_SCHEMAS = {
    "id": {"type": "string", "pattern": f"^{ID}$"},
    "download": {"type": "string", "enum": list(DOWNLOADS)},
    "label": {"type": "string"},
    "page": {"type": "string", "enum": list(PAGES)},
}
LIST_QUERY = {
    "query": (
        {"type": "string", "default": ""},
        "part of the file name, the beginning of the SHA-256, or a verdict",
    ),
    "limit": (
        {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": 50},
        "number of jobs",
    ),
    "offset": ({"type": "integer", "minimum": 0, "default": 0}, "number of jobs to skip"),
}


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(
        re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{PATTERNS[name[1]]})", template)
    )
