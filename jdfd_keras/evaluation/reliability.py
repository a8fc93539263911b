"""TODO."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from jdfd_keras.client.metadata import (
    Calibration,
    apply_temperature,
    to_logit,
)
from jdfd_keras.evaluation.scores import Scores, score_videos

BINS = 15


TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class Reliability:
    """What share of the faces, or videos, of a score is fake.

    Attributes:
        edges: float64[k + 1], of equal bins from 0 to 1.
        count: int64[k], rows in the bin.
        mean_score: float64[k], NaN in an empty bin.
        fake_share: float64[k], NaN in an empty bin.
        ece: Expected calibration error, the mean distance of both over all rows.
    """

    edges: np.ndarray
    count: np.ndarray
    mean_score: np.ndarray
    fake_share: np.ndarray
    ece: float


def measure_reliability(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None
) -> Reliability:
    """Hold scores against what was true.

    Args:
        label: bool[n], True is fake.
        score: float64[n], P(fake), in [0, 1].
        weight: float64[n], what a row counts; 1 if not given.
    """
    weight = np.ones(len(score)) if weight is None else weight
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, BINS - 1)
    total = np.bincount(place, weights=weight, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, an empty bin
        mean_score = np.bincount(place, weights=weight * score, minlength=BINS) / total
        fake_share = np.bincount(place, weights=weight * label, minlength=BINS) / total
    ece = np.nansum(total * np.abs(mean_score - fake_share)) / total.sum()
    count = np.bincount(place, minlength=BINS)
    return Reliability(edges, count, mean_score, fake_share, float(ece))


def weigh_by_video(scores: Scores) -> np.ndarray:
    """Give the faces of each video one video's weight together; float64[n]."""
    return 1 / np.bincount(scores.video)[scores.video]


def fit_calibration(scores: Scores, rate: float, **known: str) -> Calibration:
    """Find temperature, threshold and band on validation.

    The temperature makes the cross-entropy of the faces least, each video counting the same, with
    Platt's targets: (n + 1) / (n + 2) in place of 1 for n fake videos, and so on, so that a
    validation without an error does not make the scores boundless. A video is scored by the
    highest mean of its people, as `predict` does it where the face detector was sure of them.

    The threshold is the lowest, halfway to the next score that was seen, at which no more than
    the wanted share of real videos is called fake. Likewise there is a highest one at which no
    more than that share of the fakes is called real. Between these two a verdict is not of the
    wanted quality: that is the band. Where the classes lie apart, both are kept by any threshold
    in the gap: the middle is taken, and the band is the middle half of it.

    Args:
        scores: Validation, as the network gives them, both classes.
        rate: The wanted share, below 0.5.
        known: `data` and `model` of the result.

    Raises:
        ValueError: If a class is absent, the rate is out of range, or too many real videos have
            the highest score there is.

    Reference:
        Platt: "Probabilistic Outputs for Support Vector Machines" (1999), section 2.2.
    """
    label = scores.videos.label
    num_fake = int(label.sum())
    num_real = len(label) - num_fake
    if not (num_real and num_fake):
        raise ValueError(
            f"Expected real and fake videos in validation; got {num_real} real and {num_fake} "
            "fake. Prepare a set whose validation split holds both."
        )
    if not 0 <= rate < 0.5:
        raise ValueError(f"Expected a wanted rate from 0 to below 0.5; got {rate:g}. Try 0.05.")
    weight = weigh_by_video(scores)
    target = np.where(scores.label, (num_fake + 1) / (num_fake + 2), 1 / (num_real + 2))

    def cross_entropy(log_temperature: float) -> float:
        logit = to_logit(scores.score) / np.exp(log_temperature)
        return float(weight @ (np.logaddexp(0, logit) - target * logit))

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    corrected = apply_temperature(scores.score, temperature)
    # As a served score, a float32: means of equal scores may differ in the last bit of a float64.
    video = score_videos(dataclasses.replace(scores, score=corrected), "track").astype(np.float32)
    video = video.astype(np.float64)
    highest = float(np.float32(apply_temperature(np.array(1.0), temperature)))
    real, fake = np.sort(video[~label]), np.sort(video[label])
    # The highest real score that is not to be called fake, and the lowest fake one to be found.
    last_real = real[len(real) - 1 - int(rate * num_real + 1e-9)]
    first_fake = fake[int(rate * num_fake + 1e-9)]
    if last_real < first_fake:  # they lie apart: the middle half of the gap
        threshold = (last_real + first_fake) / 2
        half = (first_fake - last_real) / 4
        band = threshold - half, threshold + half
    else:
        higher = np.append(video[video > last_real], highest).min()
        if higher <= last_real:
            raise ValueError(
                f"Expected a threshold that calls no more than {rate:g} of the {num_real} real "
                f"videos fake; got more than that with the highest score, {last_real:g}. This "
                "detector cannot reach that rate: try a higher one, or train longer."
            )
        threshold = (last_real + higher) / 2
        band = np.nextafter(np.float32(first_fake), np.float32(0)), threshold
    return Calibration(
        temperature=temperature,
        threshold=float(threshold),
        uncertain_from=float(band[0]),
        uncertain_to=float(band[1]),
        wanted_rate=rate,
        num_real=num_real,
        num_fake=num_fake,
        ece_before=measure_reliability(scores.label, scores.score, weight).ece,
        ece_after=measure_reliability(scores.label, corrected, weight).ece,
        **known,
    )
