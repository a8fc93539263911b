"""Calibration of a detector: from the network's scores to probabilities, verdicts and evidence.

A score is P(fake) at equal priors: half of all files are fake. `evaluation.calibrate` fits the
calibration on validation files and stores their scores, from which follow the thresholds for any
number of people, the error rates and the likelihood ratio of a file. Imports no TensorFlow.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.domain import MEASURES, Domain
from jdfd_keras.client.likelihood import (
    ErrorRates,
    LikelihoodRatio,
    clopper_pearson,
    combine_people,
    describe_support,
    measure_error_rate,
)
from jdfd_keras.client.thresholds import (
    SCORE_TOLERANCE,
    UNATTAINABLE,
    choose_thresholds,
    count_people,
    raise_rate,
)
from jdfd_keras.io.files import load_groups, save_options
from jdfd_keras.io.origin import Origin
from jdfd_keras.io.results import check_types

CALIBRATION = "calibration.json"
PRIOR = 0.5  # probability of fake that scores assume
# The logits of 0 and 1 are infinite. 1 - 2**-23 is a float32, so that a graph clips at the same
# value.
SMALLEST = 2.0**-23
VERDICTS = ("no_evidence", "uncertain", "fake")


@dataclass(frozen=True)
class Calibration(Origin):
    """Calibration of a detector, fitted on validation files at equal priors.

    Attributes:
        temperature: Divisor of the logits.
        bias: Added to the divided logits; it removes the validation set's share of fakes.
        threshold: Files that score at or above it are fake, if the decision is binary: the middle
            of the gap between the classes, or `uncertain_to` if there is no gap.
        uncertain_from: Files with one person that score below it are `no_evidence`.
        uncertain_to: Files with one person that score at or above it are `fake`; from
            `uncertain_from` to below it, they are uncertain. UNATTAINABLE if no file can be called
            fake. Both equal `threshold` if no file is to be uncertain.
        target_error_rate: Requested bound on the share of real files called fake, and of fake
            files called `no_evidence`.
        data: Name of the dataset.
        num_real, num_fake: Validation files with a judged person.
        num_not_judged: Validation files without one, which are excluded.
        tracks: Which people of a file were extracted: `largest`, one per file, or `all`; "" if it
            differs between datasets or is unknown.
        ece_before, ece_after: Expected calibration error of the faces at equal priors, without and
            with temperature and bias.
        lr_offset, lr_slope: The natural logarithm of a person's likelihood ratio is `lr_offset` +
            `lr_slope` * logit(score).
        cllr, min_cllr: Cost of the likelihood ratios of the validation files in bits, and its
            minimum over all monotonic calibrations; 1 is no information. The ratio of
            each file is by a fit to the other files.
        auc, auc_low, auc_high: AUC of the validation files with a 95 % interval; a detector whose
            `auc_low` is at most 0.5 may be no better than chance.
        real_scores, fake_scores: Scores of the validation files, increasing.
        domain: What the validation files were like; None if unknown.
        model: SHA-256 of the model file; "" if unknown.
        engine: Backend, version and precision of the scores it was fitted on; "" if unknown.

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
    num_not_judged: int = 0
    tracks: str = ""
    ece_before: float = 0.0
    ece_after: float = 0.0
    lr_offset: float = 0.0
    lr_slope: float = 0.0
    cllr: float = 1.0
    min_cllr: float = 1.0
    auc: float = 0.5
    auc_low: float = 0.0
    auc_high: float = 1.0
    real_scores: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    fake_scores: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    domain: Domain | None = None
    model: str = ""
    engine: str = ""

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the interval of the AUC is above 0.5: otherwise scores may mean nothing."""
        return self.auc_low > 0.5

    @property
    def has_validation(self) -> bool:
        """Whether scores of validation files are known, from which all evidence follows."""
        return bool(self.real_scores and self.fake_scores)

    @property
    def max_people(self) -> int:
        """Highest number of judged people of a file that can be called fake.

        For more people, the rate per person is below that of a single real validation file.
        """
        return count_people(self.target_error_rate, len(self.real_scores))

    @property
    def target_rates(self) -> tuple[float, float]:
        """The bounds that validation supports: on real files called fake, and on the opposite."""
        real, fake = len(self.real_scores), len(self.fake_scores)
        return raise_rate(self.target_error_rate, real), raise_rate(self.target_error_rate, fake)

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Correct float[n], the network's P(fake), by temperature and bias; returns float64[n]."""
        return calibrate_scores(np.asarray(score, np.float64), self.temperature, self.bias)

    def thresholds(self, num_people: int = 1) -> tuple[float, float]:
        """Return `uncertain_from` and `uncertain_to` of a file with a number of judged people.

        The more people, the more often one of them scores high by chance. A threshold of
        UNATTAINABLE means that validation has too few real files for so many people.
        """
        has_one_threshold = self.uncertain_from == self.uncertain_to
        if num_people <= 1 or not self.has_validation or has_one_threshold:
            return self.uncertain_from, self.uncertain_to
        if num_people not in self._known_thresholds:
            # A file scores at least as high as its manipulated person, so the lower one stays.
            _, uncertain_to = choose_thresholds(
                *self._validation, self.target_error_rate, num_people
            )
            self._known_thresholds[num_people] = self.uncertain_from, uncertain_to
        return self._known_thresholds[num_people]

    def judge(self, score: float, num_people: int = 1) -> str:
        """Return `fake`, `no_evidence` or `uncertain` for the score of a file."""
        uncertain_from, uncertain_to = self.thresholds(num_people)
        if score >= uncertain_to:
            return "fake"
        return "no_evidence" if score < uncertain_from else "uncertain"

    def likelihood(self, track_scores: Sequence[float]) -> LikelihoodRatio | None:
        """Compute the likelihood ratio of a file from the scores of its judged people.

        Returns:
            The ratio, capped for each person to what the number of validation files supports; None
            without validation scores, or without people.
        """
        if not self.has_validation or not len(track_scores):
            return None
        natural = self.lr_offset + self.lr_slope * to_logit(np.asarray(track_scores, float))
        limits = np.array(self.log10_lr_limits) * math.log(10)
        capped, uncapped = (
            combine_people(ratios.tolist()) / math.log(10)
            for ratios in (np.clip(natural, *limits), natural)
        )
        is_capped = not math.isclose(capped, uncapped, abs_tol=1e-9)
        return LikelihoodRatio(capped, is_capped, describe_support(capped))

    @property
    def log10_lr_limits(self) -> tuple[float, float]:
        """Lowest and highest likelihood ratio of a person, as log10, that validation supports.

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
        real, fake = self._validation
        below = int(np.searchsorted(real, score - SCORE_TOLERANCE))
        up_to = int(np.searchsorted(fake, score + SCORE_TOLERANCE, side="right"))
        return ErrorRates(
            real_as_high=measure_error_rate(len(real) - below, len(real), num_people),
            # The manipulated person alone scores at most as high as the file.
            fake_as_low=measure_error_rate(up_to, len(fake)),
        )

    def with_threshold(self, threshold: float) -> "Calibration":
        """Return a copy with one threshold, below which there is no evidence; none is uncertain."""
        return dataclasses.replace(
            self, threshold=threshold, uncertain_from=threshold, uncertain_to=threshold
        )

    @functools.cached_property  # thousands of scores, needed for every file
    def _validation(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.real_scores), np.array(self.fake_scores)

    @functools.cached_property
    def _known_thresholds(self) -> dict[int, tuple[float, float]]:
        return {}


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON.

    Example:
        >>> scores = {"num_real": 1, "num_fake": 1, "real_scores": (0.2,), "fake_scores": (0.9,)}
        >>> calibration = Calibration(bias=0.5, **scores)
        >>> save_calibration("calibration.json", calibration)
        >>> read_calibration("calibration.json").bias
        0.5
    """
    save_options(path, calibration=calibration)


def read_calibration(path: str | Path) -> Calibration:
    """Read a file that `save_calibration` wrote.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or has other content.

    Example:
        >>> read_calibration("run/calibration.json").num_real
        2
    """
    groups = load_groups(path)
    if "calibration" not in groups:
        raise ValueError(f"Expected a calibration in {path}; got none. Calibrate again.")
    try:
        calibration = Calibration.from_dict(groups["calibration"])
        check_calibration(calibration)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a calibration in {path}; got '{error}' The file is damaged, or was written "
            "by another version: calibrate again."
        ) from error
    if not calibration.has_validation:
        raise ValueError(
            f"Expected the scores of validation files in {path}; got none, so that it states no "
            "error rates. It was perhaps written by another version: calibrate again."
        )
    return calibration


def check_calibration(calibration: Calibration) -> None:
    """Check the types and ranges of a calibration that was read from outside.

    Raises:
        TypeError: If a value has another type.
        ValueError: If a number is out of range.

    Example:
        >>> check_calibration(Calibration(temperature=-1.0))
        Traceback (most recent call last):
        ValueError: Expected a temperature above 0 and a slope of at least 0; got -1.0 and 0.0.
    """
    check_types(calibration)
    temperature, slope = calibration.temperature, calibration.lr_slope
    if not (temperature > 0 and slope >= 0):
        raise ValueError(
            f"Expected a temperature above 0 and a slope of at least 0; got {temperature} and "
            f"{slope}."
        )
    low, high = calibration.uncertain_from, calibration.uncertain_to
    is_band = 0 <= low <= high and low <= 1 and (high <= 1 or high == UNATTAINABLE)
    rate = calibration.target_error_rate
    if not (is_band and 0 <= calibration.threshold <= 1 and 0 <= rate < 0.5):
        raise ValueError(
            "Expected a threshold and an uncertain range in 0..1 and a target error rate from 0 to "
            f"below 0.5; got {calibration.threshold}, {(low, high)} and {rate}."
        )
    spreads = calibration.domain.spreads if calibration.domain else ()
    if not all(one.measure in MEASURES and one.below > 0 and one.above > 0 for one in spreads):
        raise ValueError("Expected a domain with known measures and positive spreads; got others.")
    for name in ("real", "fake"):
        scores = np.array(getattr(calibration, f"{name}_scores"))
        if (scores < 0).any() or (scores > 1).any() or (np.diff(scores) < 0).any():
            raise ValueError(f"Expected increasing scores of {name} files in 0..1; got others.")
        if len(scores) not in (0, getattr(calibration, f"num_{name}")):
            raise ValueError(
                f"Expected one score for each {name} validation file; got {len(scores)} of "
                f"{getattr(calibration, f'num_{name}')}."
            )


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
