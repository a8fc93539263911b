"""Fit of a calibration to the scores of validation files, at equal priors.

Takes a table of uncalibrated scores; returns a `Calibration`. Independent of files and models.

Reference:
    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks" (2017), for the
    temperature. Platt: "Probabilistic Outputs for Support Vector Machines" (1999), section 2.2, for
    the targets. Morrison: "Tutorial on logistic-regression calibration and fusion" (2013), for
    likelihood ratios by logistic regression with equal weights of the classes.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from jdfd_keras.client.calibration import Calibration, calibrate_scores, to_logit
from jdfd_keras.client.thresholds import choose_threshold, choose_thresholds
from jdfd_keras.datasets.auc_interval import find_auc_interval
from jdfd_keras.evaluation.likelihood_cost import compute_cllr, compute_min_cllr
from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.evaluation.reliability import balance_classes, measure_reliability
from jdfd_keras.evaluation.scores import Scores, average_tracks, score_videos
from jdfd_keras.io.console import plural

TEMPERATURES = (0.05, 1000.0)  # bounds of the fit
MAX_SLOPE = 100.0  # of log likelihood ratios; calibrated scores need about 1
# Of Newton's method.
MAX_STEPS, MAX_HALVINGS, LEAST_DECREASE, LEAST_CURVATURE = 100, 40, 1e-15, 1e-12
FOLDS = 10  # each has likelihood ratios by a fit to the others
STORED_DECIMALS = 7  # of file scores: those of float32 near 1


def fit_calibration(scores: Scores, target_error_rate: float, **facts: Any) -> Calibration:
    """Fit a calibration to validation scores.

    All fits give real and fake videos the same total weight, and each video of a class the same:
    the share of fakes in validation is arbitrary and has no effect. Temperature and bias minimise
    the cross-entropy of the faces. Offset and slope of the likelihood ratios minimise that of the
    files, with the mean ratio of their tracks. Targets are Platt's for the n videos of the smaller
    class: (n + 1) / (n + 2) instead of 1, and 1 / (n + 2) instead of 0, so that all stays finite if
    the classes are separable.

    A file is scored by the highest mean of its tracks, as in `predict`.

    Args:
        scores: Uncalibrated validation scores of both classes, of the tracks that are judged.
        target_error_rate: Highest share of real videos called fake, and of fake videos called
            `no_evidence`; in [0, 0.5).
        facts: `data`, `model` and other fields that are not fitted.

    Raises:
        ValueError: If a class is absent, or the rate is out of range.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
        >>> found = fit_calibration(scores, 0.05)
        >>> round(found.threshold, 3), found.log10_lr_limits[1] < 0.02
        (0.5, True)
    """
    label = scores.videos.label
    num_fake = int(label.sum())
    num_real = len(label) - num_fake
    if not (num_real and num_fake):
        num_excluded = facts.get("num_not_judged", 0)
        others = (
            f", and {plural(num_excluded, 'video')} without enough evidence" if num_excluded else ""
        )
        raise ValueError(
            f"Expected real and fake videos in validation; got {num_real} real and {num_fake} "
            f"fake{others}. Prepare a dataset with both in its validation split."
        )
    check_rate(target_error_rate)
    fitted = _fit_parameters(scores)
    corrected = _correct(scores, fitted)
    video = np.round(score_videos(corrected, "track"), STORED_DECIMALS)
    real, fake = np.sort(video[~label]), np.sort(video[label])
    low, high = choose_thresholds(real, fake, target_error_rate)
    auc = measure_auc(label, video) or 0.0
    auc_low, auc_high = find_auc_interval(auc, num_real, num_fake)
    calibration = Calibration(
        threshold=choose_threshold(real, fake, target_error_rate),
        uncertain_from=low,
        uncertain_to=high,
        target_error_rate=target_error_rate,
        num_real=num_real,
        num_fake=num_fake,
        ece_before=measure_reliability(scores.label, scores.score, scores.video).ece or 0.0,
        ece_after=measure_reliability(scores.label, corrected.score, scores.video).ece or 0.0,
        auc=auc,
        auc_low=auc_low,
        auc_high=auc_high,
        real_scores=tuple(real.tolist()),
        fake_scores=tuple(fake.tolist()),
        **fitted._asdict(),
        **facts,
    )
    uncapped, capped = _cross_fit(scores, calibration)
    return dataclasses.replace(
        calibration,
        cllr=compute_cllr(label, capped),
        min_cllr=compute_min_cllr(label, uncapped),
    )


def check_rate(target_error_rate: float) -> None:
    """Raise a ValueError unless a target error rate is in [0, 0.5).

    Example:
        >>> check_rate(5)
        Traceback (most recent call last):
        ValueError: Expected a target error rate from 0 to below 0.5; got 5. Try 0.05.
    """
    if not 0 <= target_error_rate < 0.5:
        raise ValueError(
            f"Expected a target error rate from 0 to below 0.5; got {target_error_rate:g}. Try "
            "0.05."
        )


def compute_log10_lr(
    scores: Scores, lr_offset: float, lr_slope: float, limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Compute the likelihood ratio of each video as `Calibration.likelihood`, for many videos.

    Args:
        scores: Calibrated scores of faces.
        lr_offset: As in `Calibration`.
        lr_slope: As in `Calibration`.
        limits: Lowest and highest ratio of a track, as common logarithms; none if None.

    Returns:
        float64[v], common logarithms.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> compute_log10_lr(scores, 0.0, 1.0).round(3)
        array([-0.954,  0.954])
    """
    owner, score = average_tracks(scores)
    ratio = (lr_offset + lr_slope * to_logit(score)) / np.log(10)
    if limits:
        ratio = np.clip(ratio, *limits)
    return _combine_tracks(owner, np.log(10) * ratio)[0] / np.log(10)


class _Parameters(NamedTuple):
    temperature: float
    bias: float
    lr_offset: float
    lr_slope: float


def _fit_parameters(scores: Scores) -> _Parameters:
    """Fit everything that depends on the scores of the faces."""
    label = scores.videos.label
    smaller = min(label.sum(), (~label).sum())
    # Platt's targets; with one number for both classes, whose mean is 0.5, whatever the mix.
    target = (np.array([1, smaller + 1]) / (smaller + 2))[label.astype(int)]
    logit = to_logit(scores.score)
    face_weight = balance_classes(scores.label, scores.video)
    slopes = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    own = np.arange(len(logit))  # each face alone
    bias, slope = _fit_logistic(own, logit, face_weight, target[scores.video], slopes, start=1.0)
    corrected = dataclasses.replace(scores, score=calibrate_scores(scores.score, 1 / slope, bias))
    owner, score = average_tracks(corrected)
    weight = balance_classes(label)
    offset, lr_slope = _fit_logistic(owner, to_logit(score), weight, target, (0, MAX_SLOPE))
    return _Parameters(1 / slope, bias, offset, lr_slope)


def _correct(scores: Scores, fitted: _Parameters) -> Scores:
    corrected = calibrate_scores(scores.score, fitted.temperature, fitted.bias)
    return dataclasses.replace(scores, score=corrected)


def _fit_logistic(
    owner: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    slopes: tuple[float, float],
    start: float = 0.0,
) -> tuple[float, float]:
    """Fit log odds of cases by `offset` + the log of the mean of exp(`slope` * value).

    Args:
        owner: int64[t], case of each value.
        value: float64[t].
        weight: float64[n], of the cases.
        target: float64[n], probabilities.
        slopes: Bounds of the slope.
        start: Slope to start from, which remains if all values are equal.

    Returns:
        The offset and the slope with the least cross-entropy.
    """
    centre = float(np.average(value))
    centred = value - centre
    found = np.array([0.0, start])

    def predict(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the cross-entropy, the log odds and their derivative by the slope."""
        combined, share = _combine_tracks(owner, parameters[1] * centred)
        logit = parameters[0] + combined
        loss = float(weight @ (np.logaddexp(0, logit) - target * logit))
        return loss, logit, np.bincount(owner, weights=share * centred)

    # Newton's method with a bounded slope, which takes about 10 steps. Solvers of SciPy start BLAS
    # threads in each step, which take 100 times as long on a busy machine (1.17).
    loss, logit, by_slope = predict(found)
    for _ in range(MAX_STEPS):
        probability = expit(logit)
        error, curvature = weight * (probability - target), weight * probability * (1 - probability)
        gradient = np.array([error.sum(), error @ by_slope])
        cross = curvature @ by_slope
        hessian = np.array([[curvature.sum(), cross], [cross, curvature @ by_slope**2]])
        is_low, is_high = found[1] <= slopes[0], found[1] >= slopes[1]
        if (is_low and gradient[1] > 0) or (is_high and gradient[1] < 0):
            gradient[1] = hessian[0, 1] = hessian[1, 0] = 0.0  # the slope stays at its bound
        step = np.linalg.solve(hessian + LEAST_CURVATURE * np.eye(2), gradient)
        if gradient @ step < LEAST_DECREASE:
            break
        previous = loss
        for shorter in 0.5 ** np.arange(MAX_HALVINGS):
            tried = found - shorter * step
            tried[1] = np.clip(tried[1], *slopes)
            loss, logit, by_slope = predict(tried)
            if loss <= previous:
                found = tried
                break
        else:
            break
    offset, slope = found.tolist()
    return offset - slope * centre, slope


def _combine_tracks(owner: np.ndarray, natural: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log of the mean of exp(natural) of each owner, and the share of each in it."""
    highest = np.full(owner.max() + 1, -np.inf)
    np.maximum.at(highest, owner, natural)
    part = np.exp(natural - highest[owner])
    total = np.bincount(owner, weights=part)
    return highest + np.log(total / np.bincount(owner)), part / total[owner]


def _cross_fit(scores: Scores, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[v] twice: each file's log10 ratio by a fit to the others, as is and capped.

    If a class has one file only, that file cannot be excluded, and the fit is that of all files.
    """
    label = scores.videos.label
    num_folds = min(FOLDS, calibration.num_real, calibration.num_fake)
    fold = np.empty(len(label), int)
    rng = np.random.default_rng(0)
    for is_fake in (False, True):
        files = rng.permutation(np.flatnonzero(label == is_fake))
        fold[files] = np.arange(len(files)) % num_folds
    found = np.empty((2, len(label)))
    for number in range(num_folds):
        held_out = fold == number
        fitted = _fit_parameters(scores.select(~held_out) if num_folds > 1 else scores)
        own = _correct(scores.select(held_out), fitted)
        for row, limits in enumerate((None, calibration.log10_lr_limits)):
            found[row, held_out] = compute_log10_lr(own, fitted.lr_offset, fitted.lr_slope, limits)
    return found[0], found[1]
