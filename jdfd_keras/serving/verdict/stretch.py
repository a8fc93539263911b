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


def find_stretch(time_s: np.ndarray, scores: np.ndarray, limit: float) -> Stretch | None:
    """Find where a track looks most like a fake, if it does so for a quarter of its faces.

    The quarter with the highest mean is taken, the first of equals, and made longer by its
    neighbours as long as each of them reaches the limit.

    Args:
        time_s: float[n], rising.
        scores: float[n], P(fake).
        limit: The least mean of that quarter.

    Returns:
        The stretch; None if there is none such, or fewer than 12 faces.
    """
    size = len(scores) // SHARE
    if size < FEWEST:
        return None
    sums = np.convolve(scores, np.ones(size), mode="valid")
    start = int(np.argmax(sums))
    end = start + size
    if scores[start:end].mean() < limit:
        return None
    while start > 0 and scores[start - 1] >= limit:
        start -= 1
    while end < len(scores) and scores[end] >= limit:
        end += 1
    score = float(scores[start:end].mean())
    return Stretch(float(time_s[start]), float(time_s[end - 1]), score)
