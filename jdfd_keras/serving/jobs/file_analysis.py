"""Analysis of one file by all models of the file service: its steps, and what comes of them.

Takes parts and results of tasks, in any order; returns the outcome. An extraction is a step that
all models with the same face options share; a call of a plug-in is another. Starts no process.
"""

import dataclasses
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import CHANGED, UnreadableFileError
from jdfd_keras.inference.verdict import Provenance, Verdict, choose_faces
from jdfd_keras.io.console import print_message
from jdfd_keras.io.worker_process import WorkerCrashed
from jdfd_keras.options import CredentialOptions, FaceOptions
from jdfd_keras.prediction.extraction import ExtractedPart, describe_crash, personalize
from jdfd_keras.prediction.file_credentials import describe_unreadable
from jdfd_keras.prediction.file_list import read_state
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.model_run import MODEL_UNAVAILABLE
from jdfd_keras.prediction.opinions import FileOpinion, OpinionSource, opinion_of
from jdfd_keras.prediction.plugins import judge_scores
from jdfd_keras.prediction.predictions import (
    Predictions,
    collect_predictions,
    describe_provenance,
)
from jdfd_keras.prediction.result_folder import add_facts
from jdfd_keras.prediction.scoring import Judge, fail
from jdfd_keras.serving.jobs.analysis_outcome import outcome_of_one, outcome_of_several
from jdfd_keras.serving.jobs.analysis_tasks import CredentialsTask, ExtractTask, PluginTask
from jdfd_keras.serving.jobs.job_types import Outcome, Submission
from jdfd_keras.serving.jobs.served_models import ServedModel, ServedModels
from jdfd_keras.serving.jobs.state_folder import stored_name

ANNOTATION_SHARE = 0.5  # of the progress


@dataclass
class _Opinion:
    """What one model finds; it is open as long as it has no record."""

    model: ServedModel
    label: str  # in messages; "" of a single model
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    faces: FaceOptions | None = None  # None for a plug-in
    judge: Judge | None = None
    record: Verdict | FailedFile | FileOpinion | None = None
    crops: Sequence[np.ndarray] = ()
    error: str = ""  # why the model has no verdict, if the file is not the reason


class FileAnalysis:
    """An analysis: it is done when no task is left.

    Attributes:
        submission: The file and its options.
        path: Where it is.
        tasks: Tasks whose result has not come.
        progress: Share that is done, from 0 to 1.
    """

    def __init__(
        self,
        submission: Submission,
        path: Path,
        models: ServedModels,
        hide_paths: Callable[[Provenance], Provenance],
        credentials: CredentialOptions | None = None,
    ):
        """Plan the tasks.

        Args:
            submission: The file and its options.
            path: Where it is.
            models: The models that are asked; a submission to others fails.
            hide_paths: Removes folders of this machine from a provenance.
            credentials: Whose Content Credentials are trusted.
        """
        self.submission, self.path, self._hide_paths = submission, path, hide_paths
        self.tasks: list[ExtractTask | PluginTask | CredentialsTask] = []
        self._credentials: ContentCredentials | None = None
        self.progress = 0.0
        self._is_single = models.single is not None
        self._state, self._facts = read_state(path), None
        self._shares: dict[int, float] = {}  # of the tasks that have begun, by their identity
        self._provenance: dict[int, Provenance] = {}  # of the models, by position
        self._opinions = [self._begin(model) for model in models.models]
        if (submission.digest, submission.engine, submission.settings) != models.identity:
            self.fail(_describe_change(submission, models))
            return
        key = submission.key
        for faces in dict.fromkeys(one.faces for one in self._open() if one.faces):
            self.tasks.append(ExtractTask(key, path, faces, credentials))
        for one in self._open():
            if one.model.plugin:
                self.tasks.append(PluginTask(key, path, one.model.label, one.model.plugin.name))
        if any(isinstance(task, PluginTask) for task in self.tasks):
            # It may have the only verdict, without faces.
            self.tasks.append(CredentialsTask(key, path, credentials))
        self._num_tasks = len(self.tasks)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of a single model, which can be annotated; None if there is none."""
        record = self._opinions[0].record
        return record if self._is_single and isinstance(record, Verdict) else None

    @property
    def crops(self) -> list[Sequence[np.ndarray]]:
        """Top faces of each model."""
        return [one.crops for one in self._opinions]

    def has_task(self, task: Any) -> bool:
        """Return whether the result of a task is still to come."""
        return any(task is other for other in self.tasks)

    def add(self, task: ExtractTask, part: ExtractedPart) -> None:
        """Score the faces of a part."""
        for one in self._of(task):
            try:
                assert one.judge
                one.judge.add(self.path, part)
            except Exception as error:  # noqa: BLE001, of any library; costs this opinion only
                self._lose(one, error)
        self._count(task, min(part.done / max(part.total, part.done + 1), 1.0))

    def receive(self, task: ExtractTask | PluginTask | CredentialsTask, result: Any) -> None:
        """Judge the result of a task, which may be an exception of any kind."""
        if isinstance(task, ExtractTask):
            self._receive_faces(task, result)
        elif isinstance(task, CredentialsTask):
            self._receive_credentials(result)
        else:
            self._receive_scores(task, result)
        self._count(task, 1.0)
        self.tasks = [other for other in self.tasks if other is not task]

    def fail(self, error: Exception) -> None:
        """End all open opinions for one reason, without their tasks."""
        failure = fail(self.path, error)
        for one in self._open():
            self._end(one, failure)
        self.tasks = []

    def describe(self, number: int = 0) -> Provenance:
        """Return the provenance of the verdict of a model, by its position."""
        if number not in self._provenance:
            one, options = self._opinions[number], self.submission.options
            predictor = one.model.predictor
            assert predictor
            faces = one.faces or predictor.metadata.faces
            provenance = describe_provenance(predictor, faces, one.calibration, options)
            self._provenance[number] = self._hide_paths(provenance)
        return self._provenance[number]

    def make_outcome(self) -> Outcome:
        """Return the outcome of an analysis without open opinions."""
        name = stored_name(self.submission)
        predictions = [self._predict(number) for number in range(len(self._opinions))]
        if self._is_single:
            assert predictions[0]
            outcome = outcome_of_one(predictions[0], name)
        else:
            # As in the predictions, for a name that is not UTF-8.
            path = str(self.path).encode("utf-8", "backslashreplace").decode()
            sources = [self._to_source(number) for number in range(len(self._opinions))]
            opinions = [_to_opinion(one) for one in self._opinions]
            credentials = self._credentials
            outcome = outcome_of_several(path, sources, opinions, predictions, credentials)
        changed: dict[str, Any] = {"result": personalize(outcome.result, str(self.path), name)}
        if outcome.error:
            message = personalize(outcome.error.message, str(self.path), name)
            changed["error"] = dataclasses.replace(outcome.error, message=message)
        return dataclasses.replace(outcome, **changed)

    def _begin(self, model: ServedModel) -> _Opinion:
        options = self.submission.options
        if self.submission.annotate:
            options = dataclasses.replace(options, every=options.every or 1)
        one = _Opinion(model, "" if self._is_single else model.label)
        try:
            one.calibration = model.thresholds(options)
            if model.predictor:
                one.faces = choose_faces(model.predictor.metadata, options)
                one.judge = Judge(model.predictor, one.calibration, None, label=one.label)
        except ValueError as error:
            one.error = str(error)
            self._end(one, fail(self.path, error, one.label))
        return one

    def _open(self) -> list[_Opinion]:
        return [one for one in self._opinions if one.record is None]

    def _of(self, task: ExtractTask) -> list[_Opinion]:
        return [one for one in self._open() if one.faces == task.options]

    def _count(self, task: ExtractTask | PluginTask | CredentialsTask, share: float) -> None:
        self._shares[id(task)] = share
        whole = 1 - ANNOTATION_SHARE if self.submission.annotate else 1.0
        self.progress = whole * sum(self._shares.values()) / self._num_tasks

    def _receive_faces(self, task: ExtractTask, result: Any) -> None:
        if isinstance(result, WorkerCrashed):
            result = describe_crash(self.path, result)
        if isinstance(result, Extraction) and result.sha256 != self.submission.sha256:
            result = self._describe_other_bytes()
        if isinstance(result, Extraction):
            self._credentials = self._credentials or result.credentials
        if isinstance(result, OSError):
            failure = fail(self.path, result)
            for one in self._of(task):
                self._end(one, failure)
        for one in self._of(task):
            try:
                assert one.judge
                if not isinstance(result, Extraction):
                    raise result
                record, one.crops = one.judge.judge(self.path, result)
                self._end(one, record)
            except Exception as error:  # noqa: BLE001, as in `add`
                self._lose(one, error)

    def _receive_credentials(self, result: Any) -> None:
        if isinstance(result, WorkerCrashed):
            result = describe_unreadable(result)
        if isinstance(result, Exception):  # of the program
            print_error(result)
        elif read_state(self.path) == self._state:
            self._credentials = self._credentials or result

    def _receive_scores(self, task: PluginTask, result: Any) -> None:
        [one] = [one for one in self._opinions if one.model.label == task.label]
        assert one.model.plugin
        if isinstance(result, Exception):  # of the program, since those of the plug-in are answers
            self._lose(one, result)
            return
        found = one.model.plugin.read_answer(self.path, result)
        if read_state(self.path) != self._state:
            found = self._describe_other_bytes()
        if isinstance(found, OSError):
            one.record = fail(self.path, found, one.label)
        else:
            one.record = judge_scores(task.label, found, one.calibration)

    def _lose(self, one: _Opinion, error: Exception) -> None:
        """End an opinion because of an error that the file is not the reason of."""
        if isinstance(error, OSError):  # of its server
            failure = fail(self.path, OSError(str(error.__cause__ or error)), one.label)
            if not self._is_single:
                failure = dataclasses.replace(failure, code=MODEL_UNAVAILABLE)
        else:
            print_error(error)
            failure = fail(self.path, describe_bug(error), one.label)
        one.error = failure.error
        self._end(one, failure)

    def _end(self, one: _Opinion, record: Verdict | FailedFile) -> None:
        if one.judge:
            one.judge.discard(self.path)
        if isinstance(record, FailedFile):
            self._facts = self._facts or add_facts(record, self._state)
            facts = {"sha256": self._facts.sha256, "file_bytes": self._facts.file_bytes}
            record = dataclasses.replace(record, **facts)
        one.record = record

    def _describe_other_bytes(self) -> UnreadableFileError:
        return UnreadableFileError(
            f"Expected the bytes of {self.path} that were submitted; got others. Submit the file "
            "again.",
            code=CHANGED,
        )

    def _predict(self, number: int) -> Predictions | None:
        """Return the predictions of a model, by its position; None of a plug-in."""
        one = self._opinions[number]
        if one.model.plugin:
            return None
        assert isinstance(one.record, Verdict | FailedFile)
        return collect_predictions([one.record], self.describe(number))

    def _to_source(self, number: int) -> OpinionSource:
        one = self._opinions[number]
        source = one.model.to_source(self.submission.options)
        where = self.describe(number).where if one.model.predictor else source.where
        return dataclasses.replace(source, where=where, error=one.error)


def _to_opinion(one: _Opinion) -> FileOpinion:
    record = one.record
    assert record
    return record if isinstance(record, FileOpinion) else opinion_of(one.model.label, record)


def _describe_change(submission: Submission, models: ServedModels) -> ValueError:
    digest, engine, _ = models.identity
    return ValueError(
        f"Expected the model {submission.digest[:8]} with {submission.engine}, which the file was "
        f"submitted for; got {digest[:8]} with {engine}, or another calibration or trust list, "
        "after a new start of the server. Submit the file again."
    )


def describe_bug(error: Exception) -> ValueError:
    """Return what a client is told of an error of the program: its kind, without its text.

    Example:
        >>> str(describe_bug(TypeError("a bug at /secret/path")))
        'Expected an analysis; got an error of the server (TypeError), which its log has. ...'
    """
    kind = type(error).__name__
    return ValueError(
        f"Expected an analysis; got an error of the server ({kind}), which its log has. Try again."
    )


def print_error(error: Exception) -> None:
    """Print an error of the service itself, with where it happened unless it is of the system.

    Example:
        >>> print_error(OSError("No space left on device"))
    """
    text = str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error))
    print_message(f"file service: {text}")
