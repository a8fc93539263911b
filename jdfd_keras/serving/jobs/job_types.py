"""Jobs of the file service: what a client submits, and what it gets back.

A job is a file with a name that a client submitted; an analysis is what is computed for it. Jobs of
the same bytes, options, model and engine share one analysis.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.options import PredictOptions

QUEUED, RUNNING, DONE, FAILED = STATES = ("queued", "running", "done", "failed")
# Why a job failed; `error.code` of a job.
JOB_CODES = (
    *("no_face", "undecodable", "too_long", "too_many_pixels", "out_of_memory", "crashed"),
    *("missing", "changed", "internal", "model_unavailable", "plugin_failed"),
)


@dataclass(frozen=True)
class Submission:
    """A file and how to analyse it.

    With several models, the last three attributes are of all of them together.

    Attributes:
        sha256: SHA-256 of the file, hexadecimal.
        file_bytes: Size of the file.
        suffix: Suffix of its name in lower case, such as ".mp4"; "" if it has none that is plain.
        path: Path of a file below `--root`, which is analysed in place; "" for an upload.
        options: Threshold, frames, tracks and detector.
        annotate: Whether to draw the verdict on a copy of the file.
        digest: SHA-256 of the weights of the model.
        engine: Engine of the scores, as text.
        settings: Of `digest_settings`; "" if not known.
    """

    sha256: str
    file_bytes: int
    suffix: str
    path: str
    options: PredictOptions
    annotate: bool
    digest: str
    engine: str
    settings: str = ""

    @property
    def key(self) -> str:
        """Identity of the analysis: SHA-256 of all attributes, hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def digest_settings(metadata: ModelMetadata) -> str:
    """Return the SHA-256 of what a model states besides its weights: face options, calibration.

    A model that is calibrated again gives other verdicts with the same weights.

    Example:
        >>> from jdfd_keras.options import FaceOptions
        >>> one, same, other = (
        ...     ModelMetadata(FaceOptions(margin=margin), None, "detector", 1, "ab")
        ...     for margin in (1.3, 1.3, 1.5)
        ... )
        >>> [digest_settings(model) == digest_settings(one) for model in (same, other)]
        [True, False]
    """
    calibration = metadata.calibration and asdict(metadata.calibration)
    text = json.dumps([asdict(metadata.faces), calibration], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class JobError:
    """Why a job failed."""

    code: str  # one of JOB_CODES
    message: str


@dataclass(frozen=True)
class Job:
    """A job and the state of its analysis.

    Attributes:
        id: 32 hexadecimal digits.
        name: File name that the client gave, without folders; untrusted text.
        submission: The file and its options.
        state: One of STATES.
        created_at: UTC time in ISO format.
        finished_at: The same; "" before the end.
        callback: URL that is told of the end; "" for none.
        verdict: Verdict of the result, or of several models the agreement, if they have not the
            same verdict; "" before the end and if it failed.
        score: Its score, P(fake); None if there is none, and of several models.
        error: Why it failed; None otherwise.
        result: JSON of `Predictions`, or of several models of `Opinions`; None before the end, and
            in lists.
        position: Position in the queue from 1; 0 if it is not queued.
        attempts: Starts of the analysis.
        is_annotated: Whether a requested annotated file exists, if the job is done.
    """

    id: str
    name: str
    submission: Submission
    state: str = QUEUED
    created_at: str = ""
    finished_at: str = ""
    callback: str = ""
    verdict: str = ""
    score: float | None = None
    error: JobError | None = None
    result: dict[str, Any] | None = None
    position: int = 0
    attempts: int = 0
    is_annotated: bool = True


@dataclass(frozen=True)
class Outcome:
    """The end of an analysis.

    Attributes:
        result: JSON of `Predictions` or `Opinions`, its path the one that was analysed.
        verdict: Verdict or agreement, as of a Job; "" if it failed without one.
        score: Score, P(fake); None if there is none.
        error: Why it failed; None if it is done.
    """

    result: dict[str, Any]
    verdict: str = ""
    score: float | None = None
    error: JobError | None = None


class QueueFullError(OSError):
    """No job can be queued now."""
