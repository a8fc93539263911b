"""Scores and verdicts of files whose faces are extracted in other processes meanwhile.

Faces are scored in the same batches as those of a whole file, so that their scores are the same.
"""

import contextlib
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.signatures import ALIGNMENT_FILE, find_model, find_versions
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import error_code
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import NUM_TOP_FACES, Verdict, choose_faces, judge
from jdfd_keras.io.console import printable
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions, LimitOptions, PredictOptions
from jdfd_keras.prediction.extraction import ExtractedPart, extract_file
from jdfd_keras.prediction.file_list import FileList
from jdfd_keras.prediction.kept_records import FailedFile


def guess_faces(model: str | Path | None, options: PredictOptions) -> FaceOptions | None:
    """Return the face options that a local model will state, read from the files beside it.

    Returns:
        The options of `choose_faces`; None if there is no such file, or it is damaged.

    Example:
        >>> guess_faces("saved_models/detector", PredictOptions(every=2)).every
        2
        >>> guess_faces("http://127.0.0.1:8501/v1/models/detector", PredictOptions())
    """
    with contextlib.suppress(OSError, ValueError):
        path = Path(find_model(model))
        path = path.parent if path.suffix == ".keras" else path
        if (path / OPTIONS).is_file():
            faces = load_options(path / OPTIONS, "faces", FaceOptions)
        else:
            is_version = (path / ALIGNMENT_FILE).is_file()
            version = path if is_version else next(iter(find_versions(path).values()))
            faces = load_options(version / ALIGNMENT_FILE, "faces", FaceOptions)
        return choose_faces(ModelMetadata(faces, None, path.name, 0, ""), options)
    return None


class FaceScores:
    """Scores of the faces of one file, computed as far as its faces have come.

    Example:
        >>> from jdfd_keras import load_predictor
        >>> scores = FaceScores(load_predictor("saved_models/detector"))
        >>> scores.add(ExtractedPart(3, 6, 0, np.zeros((3, 71, 71, 3), np.uint8)))
        >>> len(scores.scored) in (0, 3)  # a whole number of batches
        True
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._begin()

    def add(self, part: ExtractedPart) -> None:
        """Score the faces of a part; keep those that do not fill a batch for the next one.

        Headpose scores only whole files.

        Raises:
            OSError: If the predictor's server cannot be reached.
        """
        if part.first == 0:  # also if the process died and the file began anew
            self._begin()
        if self._has_failed or self._predictor.score_poses:
            return
        self._pending = (
            np.concatenate([self._pending, part.crops]) if len(self._pending) else part.crops
        )
        count = len(self._pending) // self._predictor.batch_size * self._predictor.batch_size
        if count:
            try:
                scores = np.asarray(self._predictor(self._pending[:count]), np.float64)
            except ValueError:  # that all faces will raise again
                self._begin()
                self._has_failed = True
                return
            self.scored = np.concatenate([self.scored, scores])
            self._pending = self._pending[count:]

    def finish(self, extraction: Extraction) -> tuple[Extraction, np.ndarray]:
        """Return the faces of the file to judge, and the scores of the first of them so far.

        These are all faces; of Headpose those with a head pose, and all of their scores.

        Raises:
            ValueError: If Headpose finds no landmarks.
        """
        score_poses = self._predictor.score_poses
        return score_poses(extraction) if score_poses else (extraction, self.scored)

    def _begin(self) -> None:
        self.scored = np.empty(0)
        self._pending = np.empty((0, 0, 0, 3), np.uint8)
        self._has_failed = False


class Judge:
    """Verdicts on many files, whose parts may come in any order of the files.

    Args:
        predictor: Predictor of `load_predictor`.
        calibration: Calibration of its scores, with the thresholds of the verdicts.
        out: Result folder, for error messages.
        num_top_faces: Most top faces of one person.
        label: Name of the model in messages about it, if there are several.
    """

    def __init__(
        self,
        predictor: Predictor,
        calibration: Calibration,
        out: str | Path | None,
        num_top_faces: int = NUM_TOP_FACES,
        label: str = "",
    ):
        self._predictor, self._calibration = predictor, calibration
        self._out, self._num_top_faces, self._label = out, num_top_faces, label
        self._scores: dict[Path, FaceScores] = {}  # of the files that are being extracted

    def add(self, path: Path, part: ExtractedPart) -> None:
        """Score faces of a file.

        Raises:
            OSError: If the predictor's server cannot be reached, which ends the run.
        """
        try:
            self._scores.setdefault(path, FaceScores(self._predictor)).add(part)
        except OSError as error:
            raise self._explain_end(path, error) from error

    def judge(
        self, path: Path, result: Extraction | OSError
    ) -> tuple[Verdict | FailedFile, list[np.ndarray]]:
        """Return the verdict on a file and its top faces, or the reason why there is none.

        Raises:
            OSError: As `add`.
        """
        scores = self._scores.pop(path, None) or FaceScores(self._predictor)
        if isinstance(result, OSError):
            return fail(path, result), []
        try:
            result, scored = scores.finish(result)
            verdict = judge(
                path,
                result,
                self._predictor,
                self._calibration,
                self._num_top_faces,
                self._predictor.engine.describe(),
                scored,
                self._predictor.reconstruct_error,
                demonstration=self._predictor.metadata.demonstration,
            )
        except ValueError as error:
            return fail(path, error, self._label), []
        except OSError as error:
            raise self._explain_end(path, error) from error
        crops = [result.faces[index].crop for index in verdict.top_faces]
        return dataclasses.replace(verdict, analysed_at=_now()), crops

    def discard(self, path: Path) -> None:
        """Forget the scores of a file that failed."""
        self._scores.pop(path, None)

    def _explain_end(self, path: Path, error: OSError) -> OSError:
        hint = (
            "Nothing is kept without --out: pass it to be able to resume a run."
            if self._out is None
            else f"The verdicts so far are in {self._out}: run the same command again to resume."
        )
        return OSError(f"Expected scores for {path}; got '{error}' {hint}")


def find_missing(files: FileList, limits: LimitOptions) -> dict[str, FailedFile]:
    """Return the files that do not exist as failures, by path.

    Raises:
        FileNotFoundError: If no file exists: then no model is needed to say so.

    Example:
        >>> list(find_missing(FileList(["video.mp4", "none.mp4"]), LimitOptions()))
        ['none.mp4']
    """
    missing = [Path(name) for name, state in files.read_states() if state is None]
    errors = {path: extract_file(path, FaceOptions(), limits) for path in missing}
    if len(missing) == 1 == len(files):
        raise FileNotFoundError(str(errors[missing[0]]))
    if len(missing) == len(files):
        raise FileNotFoundError(
            f"Expected videos or images; got {len(files)} files that are missing, such as "
            f"{files[0]}. Check the paths."
        )
    return {str(path): fail(path, e) for path, e in errors.items() if isinstance(e, OSError)}


def fail(path: Path, error: Exception, label: str = "") -> FailedFile:
    """Print why a file has no verdict, and return it as a record.

    Args:
        path: The file.
        error: The reason.
        label: Name of the model that has no verdict, if there are several.

    Example:
        >>> fail(Path("a.txt"), ValueError("Expected a video.")).error
        'Expected a video.'
    """
    failed = describe_failure(path, error)
    print(printable(f"{label}: {path}: {failed.error}".removeprefix(": ")), file=sys.stderr)
    return failed


def describe_failure(path: Path, error: Exception) -> FailedFile:
    """Return why a file has no verdict as a record.

    Example:
        >>> describe_failure(Path("a.txt"), ValueError("Expected a video.")).code
        'internal'
    """
    reason = " ".join(str(error).split())
    return FailedFile(str(path), reason, _now(), code=error_code(error))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
