"""Jobs as JSON, and the options of a job from text: what the file service says and understands.

Takes jobs and fields of requests; returns documents, whose dataclasses are also the schemas of
`openapi.py`, and options. Independent of HTTP.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdfd_keras.client.calibration import check_threshold
from jdfd_keras.datasets.videos import IMAGE_SUFFIXES
from jdfd_keras.options import PredictOptions
from jdfd_keras.options.data_options import setting
from jdfd_keras.prediction.opinions import Opinions
from jdfd_keras.prediction.predictions import Predictions
from jdfd_keras.serving.jobs.job_types import QUEUED, RUNNING, Job, JobError
from jdfd_keras.serving.jobs.request_errors import RequestError
from jdfd_keras.serving.jobs.request_fields import check_known

MAX_WHOLE_NUMBER = 2**31 - 1
MAX_URL_LENGTH = 2000
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class JobOptions(PredictOptions):
    """Options of a job."""

    annotate: bool = setting(
        False, "also draw the verdict on a copy of the file; all frames are then sampled"
    )


@dataclass(frozen=True)
class JobLinks:
    """Paths of a job; "" for what it does not have."""

    self: str
    report: str
    pdf: str
    json: str
    annotated: str


@dataclass(frozen=True)
class JobSummary:
    """A job without its result."""

    id: str
    state: str  # queued, running, done or failed
    progress: float  # from 0 to 1
    position: int  # in the queue, from 1; 0 if it is not queued
    name: str
    sha256: str
    bytes: int
    created_at: str  # UTC time in ISO format
    finished_at: str  # the same; "" before the end
    options: JobOptions
    verdict: str  # "" before the end, and without one; as that of a Job
    score: float | None
    error: JobError | None
    links: JobLinks


@dataclass(frozen=True)
class JobDocument(JobSummary):
    """A job; its result is what `predict --format json` prints for the file with these models."""

    result: Predictions | Opinions | None  # Opinions if the server asks several models


@dataclass(frozen=True)
class JobList:
    """Jobs, the newest first."""

    files: tuple[JobSummary, ...]
    total: int  # of all jobs that match


@dataclass(frozen=True)
class ErrorDocument:
    """Why a request was refused."""

    error: JobError


def annotated_name(job: Job) -> str:
    """Return the name of the annotated copy of a file; of a job without result, by its suffix.

    Example:
        >>> from jdfd_keras.serving.jobs.job_types import Submission
        >>> file = Submission("ab" * 32, 9, ".heic", "", PredictOptions(), True, "cd", "CPU")
        >>> annotated_name(Job("0" * 32, "a.heic", file))
        'annotated.png'
    """
    verdicts = (job.result or {}).get("files")
    is_image = job.submission.suffix in IMAGE_SUFFIXES
    if verdicts:
        is_image = verdicts[0]["duration_s"] == 0
    return "annotated.png" if is_image else "annotated.mp4"


def describe_job(job: Job, progress: float, has_result: bool = True) -> dict[str, Any]:
    """Return the document of a job.

    Args:
        job: The job.
        progress: Share of its analysis that is done, from 0 to 1.
        has_result: Whether to include the result.

    Example:
        >>> from jdfd_keras.serving.jobs.job_types import Submission
        >>> file = Submission("ab" * 32, 9, ".mp4", "", PredictOptions(), False, "cd", "CPU")
        >>> document = describe_job(Job("0" * 32, "<i>.mp4", file, position=1), progress=0.0)
        >>> document["name"], document["state"], document["links"]["report"]
        ('<i>.mp4', 'queued', '')
    """
    submission, path = job.submission, f"/v1/files/{job.id}"
    has_ended = job.state not in (QUEUED, RUNNING)
    has_page = has_ended and job.result is not None if has_result else has_ended
    annotated = annotated_name(job) if submission.annotate and job.is_annotated else ""
    summary = JobSummary(
        id=job.id,
        state=job.state,
        progress=1.0 if has_ended else min(max(progress, 0.0), 1.0),
        position=job.position,
        name=job.name,
        sha256=submission.sha256,
        bytes=submission.file_bytes,
        created_at=job.created_at,
        finished_at=job.finished_at,
        options=JobOptions(**dataclasses.asdict(submission.options), annotate=submission.annotate),
        verdict=job.verdict,
        score=job.score,
        error=job.error,
        links=JobLinks(
            self=path,
            report=f"{path}/report.html" if has_page else "",
            pdf=f"{path}/report.pdf" if has_page else "",
            json=f"{path}/result.json" if has_page else "",
            annotated=f"{path}/{annotated}" if annotated and job.verdict else "",
        ),
    )
    document = dataclasses.asdict(summary)
    return document | {"result": job.result} if has_result else document


def parse_options(fields: Mapping[str, Any]) -> tuple[PredictOptions, bool, str]:
    """Return the options of a job, whether to annotate, and the URL of the callback.

    Args:
        fields: Values by name, as text or JSON; a missing option has its default.

    Raises:
        RequestError: `bad_request`, if a name is unknown or a value is out of range.

    Example:
        >>> options, annotate, callback = parse_options({"every": "5", "annotate": "true"})
        >>> options.every, annotate, callback
        (5, True, '')
    """
    known = {field.name: field for field in dataclasses.fields(JobOptions)}
    check_known(fields, [*known, "callback"])
    hints = typing.get_type_hints(JobOptions)
    values = {
        name: _parse(known[name], hints[name], value)
        for name, value in fields.items()
        if name != "callback"
    }
    annotate, callback = values.pop("annotate", False), fields.get("callback", "")
    options = PredictOptions(**values)
    if not isinstance(callback, str) or len(callback) > MAX_URL_LENGTH:
        raise _bad("callback", f"a URL of at most {MAX_URL_LENGTH} characters", callback)
    if options.threshold is not None:
        try:
            check_threshold(options.threshold)
        except ValueError as error:
            raise RequestError("bad_request", str(error)) from None
    if options.frames_per_video < 1:
        raise _bad("frames_per_video", "a number of at least 1", options.frames_per_video)
    return options, annotate, callback


def _parse(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    kinds = set(typing.get_args(hint)) or {hint}
    text = str(value).lower() if isinstance(value, (bool, int, float)) else value
    if value is None and type(None) in kinds:
        return None
    if not isinstance(text, str):
        raise _bad(field.name, "text or a number", value)
    if bool in kinds:
        if text not in BOOLEANS:
            raise _bad(field.name, "true or false", value)
        return BOOLEANS[text]
    if choices := field.metadata["choices"]:
        if text not in choices:
            raise _bad(field.name, f"one of {', '.join(choices)}", value)
        return text
    is_whole = int in kinds
    try:
        number = int(text) if is_whole else float(text)
    except ValueError:
        number = -1
    if number != number or not 0 <= number <= MAX_WHOLE_NUMBER:
        raise _bad(field.name, "a whole number from 0" if is_whole else "a number from 0", value)
    return number


def _bad(name: str, expected: str, value: Any) -> RequestError:
    return RequestError(
        "bad_request",
        f"Expected {name} to be {expected}; got {str(value)[:80]!r}. Omit it to use the default.",
    )
