"""Loaded models on their way through files: their result folders, and the extractions they share.

Takes predictors and processes that extract faces; returns the verdicts of each model.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import NUM_TOP_FACES, choose_faces, decision_thresholds
from jdfd_keras.io.console import Progress, printable
from jdfd_keras.options import CredentialOptions, FaceOptions, PredictOptions
from jdfd_keras.prediction.evidence import explain_top_faces
from jdfd_keras.prediction.extraction import ExtractedPart, Extractor
from jdfd_keras.prediction.file_list import FileList, State
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.predictions import (
    Predictions,
    collect_kept,
    collect_predictions,
    describe_provenance,
)
from jdfd_keras.prediction.result_folder import VerdictFolder, open_folder
from jdfd_keras.prediction.scoring import Judge, describe_failure

MODEL_UNAVAILABLE = "model_unavailable"  # code of a file whose model is gone, or was not loaded
States = Mapping[str, State]  # of files by path


@contextlib.contextmanager
def open_run(
    predictor: Predictor,
    options: PredictOptions,
    states: Iterable[tuple[str, State]],
    failed: Mapping[str, FailedFile],
    directory: str | Path,
    *,
    out: str | Path | None = None,
    num_top_faces: int = NUM_TOP_FACES,
    label: str = "",
    credentials: CredentialOptions | None = None,
) -> Iterator["ModelRun"]:
    """Open the result folder of a model, and take the verdicts of earlier runs from it.

    Args:
        predictor: The model.
        options: Requested options.
        states: All files, as for `open_folder`.
        failed: Files that have failed already, by path.
        directory: The folder, perhaps a temporary one.
        out: The same folder if it is kept, for error messages.
        num_top_faces: Most top faces of one person to keep.
        label: Name of the model if it is one of several: then it stands alone, so that its end
            is an error of its files and is not raised.
        credentials: As for `open_folder`.

    Raises:
        OSError, ValueError: As for `choose_faces`, `decision_thresholds` and `open_folder`.

    Example:
        >>> from jdfd_keras import load_predictor
        >>> predictor, states = load_predictor("saved_models/detector"), [("video.mp4", None)]
        >>> with open_run(predictor, PredictOptions(), states, {}, "model_run") as run:
        ...     run.faces.face_size, run.has_result(Path("video.mp4"))
        (71, False)
    """
    metadata = predictor.metadata
    faces, calibration = choose_faces(metadata, options), decision_thresholds(metadata, options)
    judge = Judge(predictor, calibration, out, num_top_faces, label)
    with open_folder(
        directory,
        states,
        metadata=metadata,
        faces=faces,
        calibration=calibration,
        credentials=credentials,
    ) as folder:
        run = ModelRun(predictor, options, faces, calibration, folder, judge, label, out is None)
        for failure in failed.values():
            folder.keep(failure)
        yield run


class ModelRun:
    """A loaded model with its result folder and its verdicts, created by `open_run`.

    Attributes:
        label: Its name, if it is one of several.
        predictor: The model.
        faces: Face options of its verdicts.
        calibration: Thresholds of its verdicts.
        error: Why it can judge no more files; "" if it can.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: PredictOptions,
        faces: FaceOptions,
        calibration: Calibration,
        folder: VerdictFolder,
        judge: Judge,
        label: str,
        is_temporary: bool,
    ):
        self.predictor, self.faces, self.calibration = predictor, faces, calibration
        self.label, self.error = label, ""
        self._options, self._folder, self._judge = options, folder, judge
        self._is_temporary = is_temporary

    @property
    def is_complete(self) -> bool:
        """Whether no file needs an extraction any more."""
        return bool(self.error) or self._folder.is_complete

    def has_result(self, path: str | Path) -> bool:
        """Return whether a file needs no extraction any more."""
        return bool(self.error) or self._folder.has_result(str(path))

    def add(self, path: Path, part: ExtractedPart) -> None:
        """Score faces of a file, unless it has a verdict.

        Raises:
            OSError: As `Judge.add`, if it does not stand alone.
        """
        if not self.has_result(path):
            with self._ending():
                self._judge.add(path, part)

    def judge(self, path: Path, result: Extraction, state: State) -> None:
        """Judge a file and keep the verdict, unless it has one.

        Args:
            path: The file.
            result: Its faces.
            state: Its state before it was opened, of `read_state`.

        Raises:
            OSError: As `Judge.judge`, if it does not stand alone, and if nothing can be written.
        """
        if self.has_result(path):
            return
        found = None
        with self._ending():
            found = self._judge.judge(path, result)
        if found:
            record, crops = found
            self._folder.keep(record, crops, state)

    def keep_failure(self, path: Path, failure: FailedFile, state: State) -> None:
        """Keep a failure, unless the file has a verdict."""
        if not self.has_result(path):
            self._judge.discard(path)
            self._folder.keep(failure, state=state)

    def collect(
        self,
        names: Sequence[str],
        num_skipped: int,
        num_explained: int | None = None,
    ) -> Predictions:
        """Return the verdicts and failures of all files, and write the table of the folder.

        Files without a result failed because the model is gone.

        Args:
            names: Paths of all files.
            num_skipped: As for `collect_predictions`.
            num_explained: Top faces of each person to return with their maps; None for none.
        """
        lost = describe_failure(Path(), OSError(self.error))
        lost = dataclasses.replace(lost, code=MODEL_UNAVAILABLE)
        records, is_verdict = self._folder.collect(functools.partial(_at_path, lost))
        provenance = describe_provenance(
            self.predictor, self.faces, self.calibration, self._options
        )
        if self._is_temporary:
            predictions = collect_predictions(list(records), provenance, num_skipped)
        else:
            predictions = collect_kept(records, is_verdict, names, provenance, num_skipped)
        if num_explained is not None:
            shown, read = predictions.most_suspicious, self._folder.read_top_faces
            top_faces = explain_top_faces(shown, read, self.predictor, num_explained)
            predictions = dataclasses.replace(predictions, top_faces=top_faces)
        self._folder.finish(predictions.records)
        return predictions

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Let an error of the predictor end this run alone, if it is one of several."""
        try:
            yield
        except OSError as error:
            if not self.label:
                raise
            self.error = str(error.__cause__ or error)
            print(printable(f"{self.label}: {self.error}"), file=sys.stderr)


def _at_path(failure: FailedFile, path: str) -> FailedFile:
    return dataclasses.replace(failure, path=path)


class Extractions:
    """Extractions of faces for models, one for each group with equal face options.

    A context manager, which ends the processes.

    Args:
        open_extractor: Returns an Extractor of files with face options.

    Example:
        >>> from jdfd_keras import load_predictor
        >>> predictor, files = load_predictor("saved_models/detector"), FileList(["video.mp4"])
        >>> states = [("video.mp4", None)]
        >>> with (
        ...     Extractions(Extractor) as extractions,
        ...     open_run(predictor, PredictOptions(), states, {}, "extractions") as run,
        ... ):
        ...     extractions.judge(files, [run])
        >>> run.has_result("video.mp4")
        True
    """

    def __init__(self, open_extractor: Callable[[FileList, FaceOptions], Extractor]):
        self._open_extractor = open_extractor
        self._stack = contextlib.ExitStack()
        self._started: dict[FaceOptions, tuple[FileList, Extractor]] = {}
        self._printed: set[tuple[str, str]] = set()

    def __enter__(self) -> "Extractions":
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def start(self, files: FileList, faces: FaceOptions) -> None:
        """Start an extraction now, such as while models are loaded."""
        extractor = self._stack.enter_context(self._open_extractor(files, faces))
        self._started[faces] = files, extractor

    def judge(self, files: FileList, runs: Sequence[ModelRun]) -> None:
        """Let each model judge the files that it has no result of.

        Raises:
            OSError: If a model that does not stand alone is gone, no process can be started, or
                nothing can be written.
        """
        groups: dict[FaceOptions, list[ModelRun]] = {}
        for run in runs:
            groups.setdefault(run.faces, []).append(run)
        for faces in self._started.keys() - groups.keys():  # a wrong guess
            self._started.pop(faces)[1].close()
        for faces, group in groups.items():
            unfinished = [run for run in group if not run.is_complete]
            remaining = FileList(
                name
                for name in (files.names if unfinished else ())
                if not all(run.has_result(name) for run in unfinished)
            )
            started, extractor = self._started.pop(faces, (FileList(), None))
            if extractor and started != remaining:
                extractor.close()
                extractor = None
            if remaining:
                if extractor is None:
                    extractor = self._stack.enter_context(self._open_extractor(remaining, faces))
                self._judge_group(extractor, group, len(remaining))
                extractor.close()

    def _judge_group(self, extractor: Extractor, runs: Sequence[ModelRun], count: int) -> None:
        """Let models judge the files of one extraction, and show the progress."""
        labels = ", ".join(run.label for run in runs if run.label)
        description = f"judging files with {labels}" if labels else "judging files"
        progress = Progress(description, count, "files")
        num_judged, running = 0, {}  # the share of each file that is extracted
        try:
            for path, result in extractor.receive():
                if isinstance(result, ExtractedPart):
                    for run in runs:
                        run.add(path, result)
                    running[path] = min(result.done / max(result.total, result.done + 1), 1.0)
                    note = f"frame {result.done} of {result.total or 'an unknown number'}"
                    note = note if count == 1 else ""
                else:
                    self._receive(path, result, extractor.states[path], runs)
                    running.pop(path, None)
                    num_judged, note = num_judged + 1, ""
                progress.show(num_judged + sum(running.values()), note)
                if all(run.error for run in runs):
                    return
        finally:
            progress.close()

    def _receive(
        self, path: Path, result: Extraction | OSError, state: State, runs: Sequence[ModelRun]
    ) -> None:
        if not isinstance(result, OSError):
            for run in runs:
                run.judge(path, result, state)
            return
        failure = describe_failure(path, result)
        if (failure.path, failure.error) not in self._printed:  # by another group
            self._printed.add((failure.path, failure.error))
            print(printable(f"{path}: {failure.error}"), file=sys.stderr)
        for run in runs:
            run.keep_failure(path, failure, state)
