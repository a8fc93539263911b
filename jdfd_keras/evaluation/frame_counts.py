"""Video AUC by the number of frames that each video is scored by.

Takes a table of scores, from which frames are chosen; needs neither model nor files.
"""

from dataclasses import dataclass

import numpy as np

from jdfd_keras.evaluation.metrics import Estimate, measure
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.faces.media import sample_frame_indices
from jdfd_keras.io.results import Result

FRAME_COUNTS = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class FrameCountAuc(Result):
    """The video AUC if each video is scored by at most so many of its frames."""

    num_frames: int  # per video; of a video with fewer scored frames all are used
    num_videos: int  # videos with so many scored frames or more
    auc: Estimate


def measure_frame_counts(
    scores: Scores, aggregation: str = "mean", *, n_resamples: int = 0, seed: int = 0
) -> tuple[FrameCountAuc, ...]:
    """Compute the video AUC by the number of frames, chosen evenly from the scored ones.

    Frames are chosen as those of a video are sampled: the middle frames of equal spans. All faces
    of a chosen frame are used.

    Args:
        scores: One row per face.
        aggregation: How face scores are aggregated into a video score; see `score_videos`.
        n_resamples: Resamples of the bootstrap over videos; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        One entry for each of FRAME_COUNTS that a video reaches, in this order; none if every
        video has one frame only, or one class is absent.

    Example:
        >>> scores = Scores.from_faces(
        ...     video_id=["a", "a", "b", "b", "b"],
        ...     label=[0, 0, 1, 1, 1],
        ...     score=[0.1, 0.7, 0.9, 0.6, 0.8],
        ... )
        >>> [(one.num_frames, one.auc.value) for one in measure_frame_counts(scores)]
        [(1, 0.0)]
    """
    label = scores.videos.label
    rank, num_frames = _rank_frames(scores)
    most = int(num_frames.max())
    if most == 1 or label.all() or not label.any():
        return ()
    found = []
    for count in FRAME_COUNTS:
        if count > most:
            break
        chosen = scores.select_faces(_choose(rank, num_frames[scores.video], count))
        metrics = measure(
            label,
            score_videos(chosen, aggregation),
            threshold=0.5,  # the AUC has none
            n_resamples=n_resamples,
            seed=seed,
        )
        found.append(FrameCountAuc(count, int((num_frames >= count).sum()), metrics.auc))
    return tuple(found)


def _rank_frames(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each face's frame in its video, int64[n], and the frames of each video.

    Faces of several tracks in one frame have the same rank.
    """
    order = np.lexsort((scores.frame_index, scores.video))
    video, frame = scores.video[order], scores.frame_index[order]
    is_first = np.append(True, video[1:] != video[:-1])  # face of a video
    is_new = is_first | np.append(True, frame[1:] != frame[:-1])
    number = np.cumsum(is_new) - 1  # of the frame among those of all videos
    rank = np.empty(len(order), np.int64)
    rank[order] = number - number[is_first][video]
    return rank, np.bincount(video[is_new], minlength=len(scores.videos))


def _choose(rank: np.ndarray, num_frames: np.ndarray, count: int) -> np.ndarray:
    """Return whether each frame is among `count` evenly chosen ones of its video, bool[n].

    Args:
        rank: int64[n], rank of the frame in its video.
        num_frames: int64[n], number of frames of that video.
        count: Frames to choose; a video with fewer has all of them chosen.
    """
    chosen = np.ones(len(rank), bool)
    for number in np.unique(num_frames[num_frames > count]).tolist():
        is_sampled = np.zeros(number, bool)
        is_sampled[sample_frame_indices(number, count)] = True
        rows = num_frames == number
        chosen[rows] = is_sampled[rank[rows]]
    return chosen
