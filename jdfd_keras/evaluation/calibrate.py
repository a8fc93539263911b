"""Calibration: temperature, threshold and uncertain band from validation videos.

Measures the calibration error of scores, fits a `Calibration`, and stores it in the run:
calibration.json, which `evaluate`, `predict` and `export` read, and the scores and faces it was
fitted on. Imports no TensorFlow before a run is calibrated.

Reference:
    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks" (2017).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize_scalar

from jdfd_keras.client.calibration import (
    CALIBRATION,
    VERDICTS,
    Calibration,
    save_calibration,
    to_logit,
)
from jdfd_keras.datasets.leakage import COLUMNS
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.evaluation.eval_data import (
    CALIBRATION_FACES,
    check_leakage,
    join_manifest,
    load_eval_sets,
    score_sets,
)
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.evaluation.scores_file import write_scores
from jdfd_keras.io.results import Result
from jdfd_keras.options import CalibrateOptions
from jdfd_keras.training.run_folder import digest_model, load_run_model, write_provenance

BINS = 15
TEMPERATURES = (0.05, 20.0)  # bounds of the fit
FOLDER = "calibration"  # of scores and figures, next to calibration.json
SPLIT = "val"


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: the share of fakes by score."""

    edges: np.ndarray  # float64[k + 1], edges of equal bins from 0 to 1
    count: np.ndarray  # int64[k], rows per bin
    mean_score: np.ndarray  # float64[k], NaN in an empty bin
    fake_share: np.ndarray  # float64[k], NaN in an empty bin
    ece: float  # expected calibration error: the weighted mean of |mean_score - fake_share|


@dataclass(frozen=True)
class CalibrationError(Result):
    """The expected calibration error of faces, with equal weight for each video, and of videos."""

    frame_ece: float
    video_ece: float


def measure_reliability(
    label: np.ndarray, score: np.ndarray, video: np.ndarray | None = None
) -> Reliability:
    """Compute the reliability diagram and the expected calibration error of scores.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        video: int64[n], index of the row's video: each video then has the same weight.

    Example:
        >>> round(measure_reliability(np.array([True, False]), np.array([0.9, 0.1])).ece, 3)
        0.1
    """
    weight = np.ones(len(score)) if video is None else 1 / np.bincount(video)[video]
    edges = np.linspace(0, 1, BINS + 1)
    bin_of_row = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, BINS - 1)
    total = np.bincount(bin_of_row, weights=weight, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, an empty bin
        mean_score = np.bincount(bin_of_row, weights=weight * score, minlength=BINS) / total
        fake_share = np.bincount(bin_of_row, weights=weight * label, minlength=BINS) / total
    ece = np.nansum(total * np.abs(mean_score - fake_share)) / total.sum()
    count = np.bincount(bin_of_row, minlength=BINS)
    return Reliability(edges, count, mean_score, fake_share, float(ece))


def measure_calibration_error(scores: Scores, aggregation: str = "mean") -> CalibrationError:
    """Compute the expected calibration error of faces and of videos.

    Example:
        >>> measure_calibration_error(
        ...     Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
        ... )
        CalibrationError(frame_ece=0.25, video_ece=0.25)
    """
    video = measure_reliability(scores.videos.label, score_videos(scores, aggregation))
    frame = measure_reliability(scores.label, scores.score, scores.video)
    return CalibrationError(frame_ece=frame.ece, video_ece=video.ece)


def fit_calibration(scores: Scores, target_error_rate: float, **names: str) -> Calibration:
    """Fit temperature, threshold and uncertain band on validation scores.

    The temperature minimises the cross-entropy of the faces, with equal weight for each video and
    Platt's targets: (n + 1) / (n + 2) instead of 1 for n fake videos, and 1 / (n + 2) instead of 0
    for n real ones, so that the temperature stays finite if validation has no errors. A video is
    scored by the highest mean of its tracks, as in `predict` (which also ignores unreliable
    tracks).

    The threshold is the lowest one at which at most the target share of real videos is called
    fake, moved halfway to the next observed score. Likewise there is a highest threshold at which
    at most that share of fake videos is called real. In the band between the two neither verdict
    reaches the target. If the classes are separable, every threshold in the gap reaches it: the
    middle of the gap becomes the threshold, and its middle half the band.

    Args:
        scores: Uncalibrated validation scores of both classes.
        target_error_rate: Highest share of real videos called fake, and of fake videos called
            real; in [0, 0.5).
        names: `data` and `model` of the result.

    Reference:
        Platt: "Probabilistic Outputs for Support Vector Machines" (1999), section 2.2.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
        >>> round(fit_calibration(scores, 0.05).threshold, 3)
        0.5
    """
    label = scores.videos.label
    num_fake = int(label.sum())
    num_real = len(label) - num_fake
    if not (num_real and num_fake):
        raise ValueError(
            f"Expected real and fake videos in validation; got {num_real} real and {num_fake} "
            "fake. Prepare a dataset with both in its validation split."
        )
    _check_rate(target_error_rate)
    weight = 1 / np.bincount(scores.video)[scores.video]
    target = np.where(scores.label, (num_fake + 1) / (num_fake + 2), 1 / (num_real + 2))

    def cross_entropy(log_temperature: float) -> float:
        logit = to_logit(scores.score) / np.exp(log_temperature)
        return float(weight @ (np.logaddexp(0, logit) - target * logit))

    optimum = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), options={"xatol": 1e-6})
    temperature = float(np.exp(optimum.x))
    corrected = apply_temperature(scores.score, temperature)
    # float32 as in served scores.
    video = score_videos(dataclasses.replace(scores, score=corrected), "track").astype(np.float32)
    video = video.astype(np.float64)
    highest = float(np.float32(apply_temperature(np.array(1.0), temperature)))
    real, fake = np.sort(video[~label]), np.sort(video[label])
    # The highest real score below the threshold, and the lowest fake score above it.
    last_real = real[len(real) - 1 - int(target_error_rate * num_real + 1e-9)]
    first_fake = fake[int(target_error_rate * num_fake + 1e-9)]
    if last_real < first_fake:  # separable: the middle half of the gap
        threshold = (last_real + first_fake) / 2
        half = (first_fake - last_real) / 4
        band = threshold - half, threshold + half
    else:
        higher = np.append(video[video > last_real], highest).min()
        if higher <= last_real:
            raise ValueError(
                f"Expected a threshold that calls no more than {target_error_rate:g} of the "
                f"{num_real} real videos fake; more of them have the highest score, "
                f"{last_real:g}. Try a higher rate, or train longer."
            )
        threshold = (last_real + higher) / 2
        band = np.nextafter(np.float32(first_fake), np.float32(0)), threshold
    return Calibration(
        temperature=temperature,
        threshold=float(threshold),
        uncertain_from=float(band[0]),
        uncertain_to=float(band[1]),
        target_error_rate=target_error_rate,
        num_real=num_real,
        num_fake=num_fake,
        ece_before=measure_reliability(scores.label, scores.score, scores.video).ece,
        ece_after=measure_reliability(scores.label, corrected, scores.video).ece,
        **names,
    )


def _check_rate(target_error_rate: float) -> None:
    if not 0 <= target_error_rate < 0.5:
        raise ValueError(
            f"Expected a target error rate from 0 to below 0.5; got {target_error_rate:g}. Try "
            "0.05."
        )


def count_verdicts(
    label: np.ndarray, score: np.ndarray, calibration: Calibration
) -> dict[str, dict[str, int]]:
    """Count videos by label and verdict.

    Args:
        label: bool[v], True is fake.
        score: float64[v], calibrated video scores.
        calibration: Calibration with the thresholds of `real`, `uncertain` and `fake`.

    Example:
        >>> count_verdicts(np.array([False, True]), np.array([0.1, 0.4]), Calibration())["fake"]
        {'real': 1, 'uncertain': 0, 'fake': 0}
    """
    verdicts = np.array([calibration.judge(value) for value in score])
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


def calibrate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    options: CalibrateOptions | None = None,
) -> CalibrationResult:
    """Calibrate the best model of a run on the validation split of prepared datasets.

    Args:
        run: Run folder, for calibration.json and, in `calibration`, the uncalibrated scores.
        data: Prepared dataset, or several, such as the one that the run was trained on.
        options: Target error rate; whether leakage is allowed.

    Example:
        >>> result = calibrate("run", "prepared")
        >>> result.calibration.num_real, result.calibration.num_fake
        (2, 2)
    """
    run = Path(run)
    if not run.is_dir():
        raise NotADirectoryError(
            f"Expected a run folder, where the calibration is stored; got {run}. Create one with "
            "`jdfd-keras train`."
        )
    directories = [data] if isinstance(data, (str, Path)) else data
    options = options or CalibrateOptions()
    _check_rate(options.fpr)
    sets = load_eval_sets(directories, SPLIT, options.split_table)
    leakage = check_leakage(run, sets, SPLIT, allow_leak=options.allow_leak)
    model = load_run_model(run).model
    scores = join_manifest(sets, score_sets(model, sets, options.batch_size))
    names = {"data": ", ".join(one.name for one in sets), "model": digest_model(run)}
    calibration = fit_calibration(scores, options.fpr, **names)
    (run / FOLDER).mkdir(exist_ok=True)
    rows = pa.concat_tables([one.rows.select([*COLUMNS, "split"]) for one in sets])
    write_provenance(run, rows, CALIBRATION_FACES)
    write_scores(run / FOLDER / "scores.parquet", scores)
    save_calibration(run / CALIBRATION, calibration)
    calibrated = _apply(calibration, scores)
    videos = score_videos(calibrated, "track")
    return CalibrationResult(
        calibration=calibration,
        before=measure_calibration_error(scores, "track"),
        after=measure_calibration_error(calibrated, "track"),
        verdicts=count_verdicts(scores.videos.label, videos, calibration),
        leakage=leakage,
        scores=scores,
    )
