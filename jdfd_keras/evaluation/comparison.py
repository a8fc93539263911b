"""Two tables of scores, compared on the videos that both have.

Takes Scores of both; gives how much they differ, ready for a report. The test itself is `delong`'s.
"""

import numpy as np

from jdfd_keras.evaluation.delong import Difference, compare
from jdfd_keras.evaluation.scores import Scores, Videos, score_videos


def compare_scores(scores: Scores, other: Scores, aggregation: str) -> dict:
    """Compare two detectors on the videos that both have scored.

    Args:
        scores: Of the first.
        other: Of the second.
        aggregation: How a video's score is made.

    Returns:
        A dict ready for JSON: `video` and `frame`, the fields of a Difference, null where it is
        undefined or, of frames, where both did not look at the same faces; `num_videos` compared;
        `only_first` and `only_second`, the videos that one of them lacks.

    Raises:
        ValueError: If they share no video, or disagree on what is fake.
    """
    names, others = scores.videos.video_id, other.videos.video_id
    here, there = np.isin(names, others), np.isin(others, names)
    if not here.any():
        raise ValueError(
            f"Expected scores of the same videos to compare; got {len(names)} and {len(others)} "
            f"videos, none of them in both. One has {str(names[0])!r}, the other "
            f"{str(others[0])!r}: give both the same video_id."
        )
    first, second = _sort(scores.select(here)), _sort(other.select(there))
    differs = first.videos.label != second.videos.label
    if differs.any():
        raise ValueError(
            "Expected both detectors' tables to agree on what is fake; they do not on "
            f"{str(first.videos.video_id[differs][0])!r} ({int(differs.sum())} videos). In both, "
            "1 must be fake."
        )
    label = first.videos.label
    video = compare(label, score_videos(first, aggregation), score_videos(second, aggregation))
    same_faces = len(first) == len(second) and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("video", "frame_index", "track_id")
    )
    frame = compare(first.label, first.score, second.score, first.video) if same_faces else None
    return {
        "num_videos": len(label),
        "only_first": names[~here].tolist(),
        "only_second": others[~there].tolist(),
        "video": _plain(video),
        "frame": _plain(frame),
    }


def _sort(scores: Scores) -> Scores:
    """Put videos in the order of their names, and faces in that of their videos and frames."""
    order = np.argsort(scores.videos.video_id)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    video = place[scores.video]
    faces = np.lexsort((scores.track_id, scores.frame_index, video))
    videos = Videos(*(column[order] for column in vars(scores.videos).values()))
    columns = (scores.frame_index, scores.track_id, scores.score)
    return Scores(videos, video[faces], *(column[faces] for column in columns))


def _plain(difference: Difference | None) -> dict | None:
    if difference is None:
        return None
    return vars(difference) | {"difference": difference.difference._asdict()}
