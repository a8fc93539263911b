"""Thresholds of verdicts, from the scores of validation files: ranks, which nothing is assumed of.

Independent of models and files; imports no TensorFlow.

Reference:
    Vovk, Gammerman, Shafer: "Algorithmic Learning in a Random World" (2005), for the ranks. Sidak:
    "Rectangular Confidence Regions for the Means of Multivariate Normal Distributions" (1967), for
    several people.
"""

import math
from collections.abc import Sequence

import numpy as np

UNATTAINABLE = 2.0  # a threshold that no score reaches
# Largest difference of a served score from the stored one of the same faces: engines compute in
# float32, and stored scores have 7 decimals.
SCORE_TOLERANCE = 1e-6

Numbers = Sequence[float] | np.ndarray


def choose_thresholds(
    real_scores: Numbers, fake_scores: Numbers, target_error_rate: float, num_people: int = 1
) -> tuple[float, float]:
    """Choose the scores between which a file is uncertain.

    Of new real files, at most the target share is expected to score at or above the upper
    threshold, and of new fake files, at most that share below the lower one: the rank of a new file
    among n others of its class is any of n + 1 ranks with equal probability. With n files of a
    class no share below 1 / (n + 1) can be expected, which is then the target. For k people, the
    share of one person is 1 - (1 - target)**(1 / k), that of k independent people.

    A threshold is halfway to the next score of either class, so that the rounding of served scores
    decides nothing. If the classes are separable, the middle half of the gap is uncertain.

    Args:
        real_scores: Scores of real files, increasing; at least one, as of fake files. Files with
            several people can only raise the upper threshold.
        fake_scores: Scores of fake files, increasing. The lower threshold holds for any number of
            people, since a file scores at least as high as its manipulated person.
        target_error_rate: The target share, in [0, 0.5).
        num_people: Number of judged people.

    Returns:
        `uncertain_from` and `uncertain_to`; the latter is UNATTAINABLE if there are too few real
        files for so many people, or too many of them have the highest possible score.

    Example:
        >>> choose_thresholds([0.125, 0.25], [0.75, 0.875], 0.05)
        (0.375, 0.625)
    """
    last_real, first_fake = _find_ranks(real_scores, fake_scores, target_error_rate, num_people)
    if last_real < first_fake:
        middle, half = (last_real + first_fake) / 2, (first_fake - last_real) / 4
        return middle - half, middle + half
    scores = np.concatenate([real_scores, fake_scores])
    lower, higher = scores[scores < first_fake], scores[scores > last_real]
    uncertain_from = max(first_fake - SCORE_TOLERANCE, 0.0)
    if len(lower):
        uncertain_from = (first_fake + float(lower.max())) / 2
    uncertain_to = last_real + SCORE_TOLERANCE
    if len(higher):
        uncertain_to = (last_real + float(higher.min())) / 2
    return uncertain_from, uncertain_to if uncertain_to <= 1 else UNATTAINABLE


def choose_threshold(real_scores: Numbers, fake_scores: Numbers, target_error_rate: float) -> float:
    """Choose the threshold of a binary decision on files with one person.

    Returns:
        The middle of the gap if the classes are separable, else the upper threshold of
        `choose_thresholds`, which bounds the false positive rate; at most 1.

    Example:
        >>> choose_threshold([0.125, 0.25], [0.75, 0.875], 0.05)
        0.5
    """
    last_real, first_fake = _find_ranks(real_scores, fake_scores, target_error_rate, 1)
    if last_real < first_fake:
        return (last_real + first_fake) / 2
    return min(choose_thresholds(real_scores, fake_scores, target_error_rate)[1], 1.0)


def raise_rate(target_error_rate: float, count: int) -> float:
    """Return the lowest error rate, but at least the target, that a number of files supports.

    Example:
        >>> raise_rate(0.05, 4), raise_rate(0.05, 100)
        (0.2, 0.05)
    """
    return max(target_error_rate, 1 / (count + 1))


def count_people(target_error_rate: float, num_real: int) -> int:
    """Return the highest number of people for whom `choose_thresholds` has an upper threshold.

    Example:
        >>> count_people(0.05, 100), count_people(0.05, 4)
        (5, 1)
    """
    rate = raise_rate(target_error_rate, num_real)
    return int(math.log(1 - rate) / math.log(1 - 1 / (num_real + 1)) + 1e-9) if num_real else 0


def _find_ranks(
    real_scores: Numbers, fake_scores: Numbers, target_error_rate: float, num_people: int
) -> tuple[float, float]:
    """Return the highest real score that is not to be called fake, and likewise a fake score.

    Scores above the first and below the second are expected to be as rare as the target. The first
    is infinite if there are too few real files for so many people.
    """
    real, fake = np.asarray(real_scores, float), np.asarray(fake_scores, float)
    rate = 1 - (1 - raise_rate(target_error_rate, len(real))) ** (1 / num_people)
    # The tolerance absorbs the rounding error of the products.
    rank_real = int(rate * (len(real) + 1) + 1e-9)
    rank_fake = int(raise_rate(target_error_rate, len(fake)) * (len(fake) + 1) + 1e-9)
    return float(real[-rank_real]) if rank_real else math.inf, float(fake[rank_fake - 1])
