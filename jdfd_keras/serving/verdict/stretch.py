"""A part of a track that looks fake though the whole does not: a face swapped in one scene alone.

Takes scores in the order of their times; gives the part. Knows nothing of files.
"""

from dataclasses import dataclass

import numpy as np

SHARE = 4  # a stretch is that part of the faces of a track: a quarter
FEWEST = 3  # faces of a stretch, and so 12 of the track: single faces err


@dataclass(frozen=True)
class Stretch:
    """Faces of one track that follow one another.

    Attributes:
        start_s: Time of the first.
        end_s: Time of the last.
        score: Mean P(fake).
    """

    start_s: float
    end_s: float
    score: float


def find_stretch(time_s: np.ndarray, scores: np.ndarray) -> Stretch | None:
    """Find the quarter of a track that looks most like a fake.

    Args:
        time_s: float[n], rising.
        scores: float[n], P(fake).

    Returns:
        The first of the stretches with the highest mean; None of fewer than 12 faces.
    """
    size = len(scores) // SHARE
    if size < FEWEST:
        return None
    sums = np.convolve(scores, np.ones(size), mode="valid")
    start = int(np.argmax(sums))
    return Stretch(float(time_s[start]), float(time_s[start + size - 1]), float(sums[start] / size))
