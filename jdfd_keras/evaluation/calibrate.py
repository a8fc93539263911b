"""Calibration of a run on validation videos.

Scores the videos, fits a `Calibration`, and stores it in the run: calibration.json, which
`evaluate`, `predict` and `export` read, and the scores and faces that it was fitted on. Imports no
TensorFlow before a run is calibrated.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jdfd_keras.client.calibration import CALIBRATION, VERDICTS, Calibration, save_calibration
from jdfd_keras.datasets.leakage import COLUMNS
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.calibration_fit import check_rate, fit_calibration
from jdfd_keras.evaluation.domain_fit import fit_validation_domain
from jdfd_keras.evaluation.eval_data import (
    CALIBRATION_FACES,
    EvalSet,
    check_leakage,
    join_manifest,
    load_eval_sets,
    score_sets,
)
from jdfd_keras.evaluation.headpose_scores import score_head_poses
from jdfd_keras.evaluation.reliability import CalibrationError, measure_calibration_error
from jdfd_keras.evaluation.scores import Scores, count_tracks, score_videos
from jdfd_keras.evaluation.scores_file import write_scores
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.inference.backends import make_reconstruct_error
from jdfd_keras.inference.engine import import_engine
from jdfd_keras.inference.headpose_predictor import identify_numpy
from jdfd_keras.inference.tracks import check_evidence
from jdfd_keras.io.files import OPTIONS, check_no_result, load_options
from jdfd_keras.io.origin import describe_origin
from jdfd_keras.io.results import Result
from jdfd_keras.options import CalibrateOptions, EngineOptions, FaceOptions
from jdfd_keras.training.headpose_run import HeadPoseRun, is_headpose_run, load_headpose_run
from jdfd_keras.training.run_folder import (
    digest_model,
    load_run_model,
    was_imported,
    write_provenance,
)

FOLDER = "calibration"  # of scores and figures, next to calibration.json
SPLIT = "val"


def count_verdicts(
    scores: Scores, calibration: Calibration, aggregation: str = "track"
) -> dict[str, dict[str, int]]:
    """Count videos by label and verdict, by the thresholds for their number of people.

    Args:
        scores: Calibrated scores of faces.
        calibration: Their calibration.
        aggregation: Of the scores of a video, as for `score_videos`.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.4])
        >>> count_verdicts(scores, Calibration())["fake"]
        {'no_evidence': 1, 'uncertain': 0, 'fake': 0}
    """
    label = scores.videos.label
    files = zip(score_videos(scores, aggregation), count_tracks(scores).tolist(), strict=True)
    verdicts = np.array([calibration.judge(score, num_people) for score, num_people in files])
    return {
        name: {verdict: int((verdicts[label == value] == verdict).sum()) for verdict in VERDICTS}
        for name, value in CLASSES.items()
    }


@dataclass(frozen=True)
class CalibrationResult(Result):
    """A calibration and its verdicts on the validation videos."""

    calibration: Calibration
    before: CalibrationError  # of the uncalibrated scores
    after: CalibrationError  # of the calibrated scores
    verdicts: dict[str, dict[str, int]]  # number of validation videos by label and verdict
    leakage: str  # between training and validation, as a sentence
    scores: Scores = field(repr=False, compare=False, metadata={"json": False})  # uncalibrated

    @property
    def calibrated_scores(self) -> Scores:
        """The scores after calibration."""
        return _apply(self.calibration, self.scores)


def _apply(calibration: Calibration, scores: Scores) -> Scores:
    return dataclasses.replace(scores, score=calibration.apply(scores.score))


def find_judged_faces(sets: Sequence[EvalSet]) -> np.ndarray:
    """Find the faces of tracks with enough evidence, those that `predict` would judge.

    Returns:
        bool[n], in the order of the rows of all sets.

    Example:
        >>> find_judged_faces(load_eval_sets(["prepared"], "test")).shape
        (8,)
    """
    found = []
    for one in sets:
        box = one.rows["box"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
        faces = pd.DataFrame(
            {
                "video_id": one.rows["video_id"].to_numpy(),
                "track_id": one.rows["track_id"].to_numpy(),
                "detector_score": one.rows["detector_score"].to_numpy(),
                "sharpness": one.rows["sharpness"].to_numpy(),
                "size_px": box[:, 2] - box[:, 0],
            }
        )
        num_frames = {video.video_id: video.num_frames for video in one.videos}
        is_judged = np.zeros(len(faces), bool)
        for video_id, rows in faces.groupby("video_id", sort=False).indices.items():
            columns = {name: column.to_numpy()[rows] for name, column in faces.iloc[:, 1:].items()}
            reasons = check_evidence(**columns, num_frames=num_frames[str(video_id)])
            is_judged[rows] = [not reasons[track] for track in columns["track_id"].tolist()]
        found.append(is_judged)
    return np.concatenate(found)


def _find_tracks(sets: Sequence[EvalSet]) -> str:
    """Return which tracks of a file were extracted; "" if that differs between datasets."""
    found = {load_options(one.directory / OPTIONS, "faces", FaceOptions).tracks for one in sets}
    return found.pop() if len(found) == 1 else ""


def calibrate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    options: CalibrateOptions | None = None,
    *,
    overwrite: bool = False,
) -> CalibrationResult:
    """Calibrate the best model of a run on the validation split of prepared datasets.

    Files are judged as by `predict`: by the tracks with enough evidence, of which the highest
    decides. Files without one are excluded. Of a run of Headpose, faces without a pose are, too.

    Args:
        run: Run folder, for calibration.json and, in `calibration`, the uncalibrated scores.
        data: Prepared dataset, or several, such as the one that the run was trained on.
        options: Target error rate; whether leakage is allowed.
        overwrite: Replace an earlier calibration of the run.

    Raises:
        OSError: If the run does not exist, or has a calibration that must not be replaced.
        ValueError: If validation lacks a class, shares faces with the training data, or has faces
            that other landmarks align.

    Example:
        >>> result = calibrate("run", "prepared", overwrite=True)
        >>> result.calibration.num_real
        2
    """
    run = Path(run)
    if not run.is_dir():
        raise NotADirectoryError(
            f"Expected a run folder, where the calibration is stored; got {run}. Create one with "
            "`jdfd-keras train`."
        )
    check_no_result(run / CALIBRATION, overwrite=overwrite)
    directories = [data] if isinstance(data, (str, Path)) else data
    options = options or CalibrateOptions()
    check_rate(options.fpr)
    sets = load_eval_sets(directories, SPLIT, options.split_table)
    leakage = check_leakage(run, sets, SPLIT, allow_leak=options.allow_leak)
    loaded = load_headpose_run(run) if is_headpose_run(run) else load_run_model(run)
    if not was_imported(run):
        for one in sets:
            faces = load_options(one.directory / OPTIONS, "faces", FaceOptions)
            check_same_landmarks(loaded.faces, faces)
    if isinstance(loaded, HeadPoseRun):
        engine, reconstruct_error = identify_numpy(run, EngineOptions()), None
        found = score_head_poses(loaded, sets)
        is_used = find_judged_faces(found.sets)
        scores = join_manifest(found.sets, found.predictions).select_faces(is_used)
        is_judged = found.has_pose.copy()
        is_judged[found.has_pose] = is_used
    else:
        engine, reconstruct_error = import_engine(), make_reconstruct_error(loaded.model)
        is_judged = find_judged_faces(sets)
        predictions = score_sets(loaded.model, sets, options.batch_size)
        scores = join_manifest(sets, predictions).select_faces(is_judged)
    num_videos = sum(len(one.videos) for one in sets)
    facts: dict[str, Any] = {"num_not_judged": num_videos - len(scores.videos)}
    facts["tracks"] = _find_tracks(sets)
    facts["domain"] = fit_validation_domain(sets, is_judged, reconstruct_error)
    facts |= {"data": ", ".join(one.name for one in sets), "model": digest_model(run)}
    facts |= {"engine": engine.describe()} | describe_origin()
    calibration = fit_calibration(scores, options.fpr, **facts)
    (run / FOLDER).mkdir(exist_ok=True)
    rows = pa.concat_tables([one.rows.select([*COLUMNS, "split"]) for one in sets])
    write_provenance(run, rows, CALIBRATION_FACES)
    write_scores(run / FOLDER / "scores.parquet", scores)
    save_calibration(run / CALIBRATION, calibration)
    calibrated = _apply(calibration, scores)
    return CalibrationResult(
        calibration=calibration,
        before=measure_calibration_error(scores, "track"),
        after=measure_calibration_error(calibrated, "track"),
        verdicts=count_verdicts(calibrated, calibration),
        leakage=leakage,
        scores=scores,
    )
