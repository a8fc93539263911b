"""Scores that mean what they say, and where a verdict begins.

Takes labelled scores of validation; gives a temperature, a threshold for a wanted false positive
rate, and the band in which the honest answer is "uncertain". Knows how that is kept in a run
folder; knows nothing of models or TensorFlow.

Reference:
    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks" (2017), temperature
    scaling and expected calibration error.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from jdfd_keras.claims import load_options, save_options
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.training.run import BEST, digest_model

CALIBRATION = "calibration.json"
SEEN = "calibration/seen.parquet"  # what it was found on, as a run's own seen.parquet
GROUP = "calibration"
BINS = 15
# At 0 and 1 a logit has no end. 1 - 2**-23 is a float32, so that a graph cuts at the same place.
SMALLEST = 2.0**-23
TEMPERATURES = (0.05, 20.0)
VERDICTS = ("real", "uncertain", "fake")


@dataclass(frozen=True)
class Calibration:
    """How the scores of a detector are corrected and read; kept with it.

    Attributes:
        temperature: By which logits are divided.
        threshold: A video at or above it is called fake, where only yes or no is wanted.
        uncertain_from: Below it a video is called real; from it on it is uncertain,
        uncertain_to: and from this on fake. Both are the threshold where nothing is uncertain.
        wanted_rate: The share of the reals called fake, and of the fakes called real, that the
            validation videos were not to exceed.
        data: Name of the data set it was found on.
        num_real: Its real videos in validation.
        num_fake: Its fake ones.
        ece_before: Expected calibration error of its faces, as they came.
        ece_after: The same with the temperature.
        model: SHA-256 of the model file it belongs to; "" if none is known.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    uncertain_from: float = 0.5
    uncertain_to: float = 0.5
    wanted_rate: float = 0.0
    data: str = ""
    num_real: int = 0
    num_fake: int = 0
    ece_before: float = 0.0
    ece_after: float = 0.0
    model: str = ""

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Correct scores.

        Args:
            score: float[n], P(fake) as the network gives it, in [0, 1].

        Returns:
            float64[n], in the same order; as they are where the temperature is 1.
        """
        return _scale(np.asarray(score, np.float64), self.temperature)

    def judge(self, score: float) -> str:
        """Say `fake`, `real` or `uncertain` of a corrected score."""
        if score >= self.uncertain_to:
            return "fake"
        return "real" if score < self.uncertain_from else "uncertain"

    def at(self, threshold: float) -> "Calibration":
        """Take another threshold, with nothing uncertain about it."""
        return dataclasses.replace(
            self, threshold=threshold, uncertain_from=threshold, uncertain_to=threshold
        )


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
        logit = _logit(scores.score) / np.exp(log_temperature)
        return float(weight @ (np.logaddexp(0, logit) - target * logit))

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    corrected = _scale(scores.score, temperature)
    # As a served score, a float32: means of equal scores may differ in the last bit of a float64.
    video = score_videos(dataclasses.replace(scores, score=corrected), "track").astype(np.float32)
    video = video.astype(np.float64)
    highest = float(np.float32(_scale(np.array(1.0), temperature)))
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


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    save_options(path, **{GROUP: calibration})


def read_calibration(path: str | Path) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        OSError: If there is no file.
        ValueError: If it is damaged, or of another kind.
    """
    calibration = load_options(path, GROUP, Calibration)
    temperature, threshold = calibration.temperature, calibration.threshold
    band = calibration.uncertain_from, calibration.uncertain_to
    is_number = all(isinstance(value, (int, float)) for value in (temperature, threshold, *band))
    # NaN fails every comparison.
    if not (is_number and temperature > 0 and 0 <= threshold <= 1 and 0 <= band[0] <= band[1] <= 1):
        raise ValueError(
            "Expected a temperature above 0, and a threshold and a band in 0..1; got "
            f"{temperature!r}, {threshold!r} and {band} in {path}. Calibrate again."
        )
    return calibration


def load_calibration(model_path: str | Path) -> Calibration | None:
    """Read the calibration of a trained detector.

    Args:
        model_path: A run folder, or a `.keras` file.

    Returns:
        The calibration; None where there is none, or where it is of another model of the run.

    Raises:
        ValueError: If it is damaged, or the best model of a run is another now.
    """
    model_path = Path(model_path)
    run = model_path if model_path.is_dir() else model_path.parent
    if not (run / CALIBRATION).is_file():
        return None
    calibration = read_calibration(run / CALIBRATION)
    if calibration.model == digest_model(model_path):
        return calibration
    if model_path.is_dir():
        raise ValueError(
            f"Expected {run / CALIBRATION} to be of {run / BEST}; got that of another model: it "
            "was trained further since. Run `jdfd-keras calibrate` again, or remove the file."
        )
    return None


def _logit(score: np.ndarray) -> np.ndarray:
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(kept / (1 - kept))


def _scale(score: np.ndarray, temperature: float) -> np.ndarray:
    return score if temperature == 1 else 1 / (1 + np.exp(-_logit(score) / temperature))
