"""Calibration of a detector: from the network's scores to probabilities, verdicts and evidence.

A score is P(fake) at equal priors: half of all files are fake. `evaluation.calibrate` fits the
calibration on validation files and stores their scores, from which follow the thresholds for any
number of people, the error rates and the likelihood ratio of a file. Imports no TensorFlow.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.domain import Domain
from jdfd_keras.client.likelihood import (
    ErrorRates,
    LikelihoodRatio,
    clopper_pearson,
    combine_people,
    describe_support,
    measure_error_rate,
)
from jdfd_keras.io.files import load_groups, save_options
from jdfd_keras.io.results import Result

CALIBRATION = "calibration.json"
PRIOR = 0.5  # probability of fake that scores assume
# The logits of 0 and 1 are infinite. 1 - 2**-23 is a float32, so that a graph clips at the same
# value.
SMALLEST = 2.0**-23
VERDICTS = ("no_evidence", "uncertain", "fake")
UNATTAINABLE = 2.0  # a threshold that no score reaches


@dataclass(frozen=True)
class Calibration(Result):
    """Calibration of a detector, fitted on validation files at equal priors.

    Attributes:
        temperature: Divisor of the logits.
        bias: Added to the divided logits; it removes the validation set's share of fakes.
        threshold: Files that score at or above it are fake, if the decision is binary.
        uncertain_from: Files with one person that score below it are `no_evidence`.
        uncertain_to: Files with one person that score at or above it are `fake`; from
            `uncertain_from` to below it, they are uncertain. Both equal `threshold` if no file is
            to be uncertain.
        target_error_rate: Requested bound on the share of real files called fake, and of fake
            files called `no_evidence`.
        data: Name of the dataset.
        num_real, num_fake: Validation files.
        ece_before, ece_after: Expected calibration error of the faces at equal priors, without and
            with temperature and bias.
        lr_offset, lr_slope: The natural logarithm of a person's likelihood ratio is `lr_offset` +
            `lr_slope` * logit(score).
        cllr, min_cllr: Cost of the likelihood ratios of the validation files in bits, and its
            minimum over all monotonic calibrations; 1 is no information.
        real_scores, fake_scores: Scores of the validation files, increasing.
        domain: What the validation files were like; None if unknown.
        model: SHA-256 of the model file; "" if unknown.

    Example:
        >>> Calibration(uncertain_from=0.3, uncertain_to=0.8).judge(0.5)
        'uncertain'
    """

    temperature: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    uncertain_from: float = 0.5
    uncertain_to: float = 0.5
    target_error_rate: float = 0.0
    data: str = ""
    num_real: int = 0
    num_fake: int = 0
    ece_before: float = 0.0
    ece_after: float = 0.0
    lr_offset: float = 0.0
    lr_slope: float = 0.0
    cllr: float = 1.0
    min_cllr: float = 1.0
    real_scores: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    fake_scores: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    domain: Domain | None = None
    model: str = ""

    @property
    def has_validation(self) -> bool:
        """Whether scores of validation files are known, from which all evidence follows."""
        return bool(self.real_scores and self.fake_scores)

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Correct float[n], the network's P(fake), by temperature and bias; returns float64[n]."""
        return calibrate_scores(np.asarray(score, np.float64), self.temperature, self.bias)

    def thresholds(self, num_people: int = 1) -> tuple[float, float]:
        """Return `uncertain_from` and `uncertain_to` of a file with a number of judged people.

        The more people, the more often one of them scores high by chance. A threshold of
        UNATTAINABLE means that validation has too few real files for so many people.
        """
        if num_people <= 1 or not self.has_validation or self._has_one_threshold:
            return self.uncertain_from, self.uncertain_to
        return choose_thresholds(
            self.real_scores, self.fake_scores, self.target_error_rate, num_people
        )

    def judge(self, score: float, num_people: int = 1) -> str:
        """Return `fake`, `no_evidence` or `uncertain` for the score of a file."""
        uncertain_from, uncertain_to = self.thresholds(num_people)
        if score >= uncertain_to:
            return "fake"
        return "no_evidence" if score < uncertain_from else "uncertain"

    def likelihood(self, track_scores: Sequence[float]) -> LikelihoodRatio | None:
        """Compute the likelihood ratio of a file from the scores of its judged people.

        Returns:
            The ratio, capped to what the number of validation files supports; None without
            validation scores, or without people.
        """
        if not self.has_validation or not len(track_scores):
            return None
        logits = to_logit(np.asarray(track_scores, float))
        natural = combine_people((self.lr_offset + self.lr_slope * logits).tolist())
        log10 = natural / math.log(10)
        low, high = self.log10_lr_limits
        capped = min(max(log10, low), high)
        return LikelihoodRatio(capped, capped != log10, describe_support(capped))

    @property
    def log10_lr_limits(self) -> tuple[float, float]:
        """Lowest and highest likelihood ratio, as log10, that validation supports.

        If no one of n real files scores as high, their share may still be up to the upper bound
        of 0 in n, and the ratio of the two shares is at most its inverse.
        """
        fake_share = clopper_pearson(0, self.num_fake)[1]
        real_share = clopper_pearson(0, self.num_real)[1]
        return math.log10(fake_share), -math.log10(real_share)

    def error_rates(self, score: float, num_people: int = 1) -> ErrorRates | None:
        """Compute how often validation files of either class score as extreme as a file.

        Returns:
            The rates; None without validation scores.
        """
        if not self.has_validation:
            return None
        real, fake = np.array(self.real_scores), np.array(self.fake_scores)
        as_high, as_low = int((real >= score).sum()), int((fake <= score).sum())
        return ErrorRates(
            real_as_high=measure_error_rate(as_high, len(real), num_people),
            # The manipulated person alone scores at most as high as the file.
            fake_as_low=measure_error_rate(as_low, len(fake)),
        )

    def with_threshold(self, threshold: float) -> "Calibration":
        """Return a copy with one threshold, below which there is no evidence; none is uncertain."""
        return dataclasses.replace(
            self, threshold=threshold, uncertain_from=threshold, uncertain_to=threshold
        )

    @property
    def _has_one_threshold(self) -> bool:
        return self.uncertain_from == self.uncertain_to


def choose_thresholds(
    real_scores: Sequence[float],
    fake_scores: Sequence[float],
    target_error_rate: float,
    num_people: int = 1,
) -> tuple[float, float]:
    """Choose the scores of validation files between which a file is uncertain.

    Of new real files with as many independent people, at most the target share is expected to be
    called fake; of new fake files, at most that share is expected to be called `no_evidence`. With
    n files of a class no share below 1 / (n + 1) can be expected, which is then the target. If the
    classes are separable, the middle half of the gap is uncertain.

    Args:
        real_scores: Scores of real files, increasing.
        fake_scores: Scores of fake files, increasing.
        target_error_rate: The target share, in [0, 0.5).
        num_people: Number of judged people.

    Returns:
        `uncertain_from` and `uncertain_to`; the latter is UNATTAINABLE if there are too few real
        files for so many people.

    Example:
        >>> choose_thresholds([0.1, 0.2], [0.6, 0.8], 0.05)
        (0.3, 0.5)
    """
    num_real, num_fake = len(real_scores), len(fake_scores)
    # Sidak's rate of one person, so that the rate of the file is the target.
    rate = 1 - (1 - max(target_error_rate, 1 / (num_real + 1))) ** (1 / num_people)
    # The tolerance absorbs the rounding error of the products.
    rank_real = int(rate * (num_real + 1) + 1e-9)
    rank_fake = int(max(target_error_rate, 1 / (num_fake + 1)) * (num_fake + 1) + 1e-9)
    first_fake = fake_scores[rank_fake - 1]
    if rank_real < 1:
        return first_fake, UNATTAINABLE
    last_real = real_scores[num_real - rank_real]
    if last_real < first_fake:
        middle, half = (last_real + first_fake) / 2, (first_fake - last_real) / 4
        return middle - half, middle + half
    higher = [score for score in (*real_scores, *fake_scores) if score > last_real]
    return first_fake, (last_real + min(higher)) / 2 if higher else UNATTAINABLE


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON.

    Example:
        >>> save_calibration("calibration.json", Calibration(temperature=1.5))
        >>> read_calibration("calibration.json").temperature
        1.5
    """
    save_options(path, calibration=calibration)


def read_calibration(path: str | Path) -> Calibration:
    """Read a file that `save_calibration` wrote.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or has other content.

    Example:
        >>> calibration = read_calibration("run/calibration.json")
        >>> calibration.num_real, calibration.num_fake
        (2, 2)
    """
    groups = load_groups(path)
    if "calibration" not in groups:
        raise ValueError(f"Expected a calibration in {path}; got none. Calibrate again.")
    calibration = Calibration.from_dict(groups["calibration"])
    temperature, threshold = calibration.temperature, calibration.threshold
    band = calibration.uncertain_from, calibration.uncertain_to
    is_number = all(isinstance(value, (int, float)) for value in (temperature, threshold, *band))
    # NaN fails every comparison.
    if not (is_number and temperature > 0 and 0 <= threshold <= 1 and 0 <= band[0] <= band[1] <= 1):
        raise ValueError(
            "Expected a temperature above 0, and a threshold and an uncertain range in 0..1; got "
            f"{temperature!r}, {threshold!r} and {band} in {path}. Calibrate again."
        )
    if not calibration.has_validation:
        raise ValueError(
            f"Expected the scores of validation files in {path}; got none, so that it states no "
            "error rates. It was perhaps written by another version: calibrate again."
        )
    return calibration


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless a threshold is in [0, 1].

    Example:
        >>> check_threshold(50)
        Traceback (most recent call last):
        ValueError: Expected a threshold in 0..1; got 50. A score is a probability: try 0.5.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"Expected a threshold in 0..1; got {threshold}. A score is a probability: try 0.5."
        )


def round_score(score: np.ndarray | float) -> np.ndarray:
    """Round mean scores to 1e-12, so that means that differ by the rounding of floats are equal.

    The mean of 0.2 and 0.4 is 0.30000000000000004 in floats, that of 0.3 and 0.3 is 0.3. Every
    score that is a mean is rounded before it is ranked or compared with a threshold.

    Example:
        >>> round_score(np.array([(0.2 + 0.4) / 2, (0.3 + 0.3) / 2])).tolist()
        [0.3, 0.3]
    """
    # First to a multiple of 2**-40: many means of decimal scores lie exactly between two multiples
    # of 1e-12, such as those of 32 scores of 8 digits, but none between two multiples of 2**-40
    # where floats round. The second rounding gives decimals of up to 12 digits back.
    return np.round(np.rint(np.asarray(score) * 2.0**40) / 2.0**40, 12)


def to_logit(score: np.ndarray) -> np.ndarray:
    """Compute the logits of scores; scores of 0 and 1 are clipped to keep them finite.

    Example:
        >>> to_logit(np.array([0.5]))
        array([0.])
    """
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.log(kept / (1 - kept))


def calibrate_scores(score: np.ndarray, temperature: float, bias: float) -> np.ndarray:
    """Divide the logits of scores by a temperature and add a bias; 1 and 0 change nothing.

    Example:
        >>> calibrate_scores(np.array([0.5, 0.8]), 2.0, 0.0).round(3)
        array([0.5  , 0.667])
    """
    if temperature == 1 and bias == 0:
        return score
    return 1 / (1 + np.exp(-(to_logit(score) / temperature + bias)))
