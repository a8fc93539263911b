"""Scores of the tracks of a file, their fake segments, and the top faces.

Takes faces and their scores; returns a TrackScore for each track. Independent of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.client.calibration import Calibration, round_score
from jdfd_keras.faces.extract import Face
from jdfd_keras.io.results import Result

# A segment is at least a quarter of the faces of a track, and at least 3 of them (of 12 in all),
# since scores of single faces are noisy.
SEGMENT_FRACTION = 4
MIN_SEGMENT_FACES = 3
# Mean detector score of dlib below which a track is probably not a face; MTCNN's start at 0.8.
MIN_TRACK_CONFIDENCE = 0.2


@dataclass(frozen=True)
class Segment(Result):
    """Consecutive faces of one track."""

    start_s: float  # time of the first face
    end_s: float  # time of the last face
    score: float  # mean P(fake)


@dataclass(frozen=True)
class FaceScore(Result):
    """Score of one face."""

    frame_index: int  # position of the frame in the file, from 0
    time_s: float  # presentation time of the frame
    track_id: int  # track of the face, from 0
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the frame
    score: float  # P(fake)


@dataclass(frozen=True)
class TrackScore(Result):
    """Score and verdict of one track.

    A track that is real by its mean is uncertain if it has a fake segment, unless one threshold
    separates real from fake.
    """

    track_id: int  # in the file, from 0
    num_faces: int
    # Mean detector score, on its own scale; near 0 it may not be a face. NaN without detector.
    confidence: float
    # Whether the file's verdict uses the track: its confidence, or that of none, is high enough. An
    # image that was taken as it is was given as a face.
    is_reliable: bool
    start_s: float  # time of the first face
    end_s: float  # time of the last face
    score: float  # mean P(fake) of the faces
    verdict: str  # `fake`, `uncertain` or `no_evidence`
    segment: Segment | None = None  # the fake segment, if the mean shows no evidence
    not_judged: str = ""  # why the verdict of the file does not use the track; "" if it does

    @property
    def is_uncertain_by_segment(self) -> bool:
        """Whether the fake segment, and not the mean, makes the track uncertain."""
        return self.segment is not None and self.verdict == "uncertain"


def find_fake_segment(time_s: np.ndarray, scores: np.ndarray, limit: float) -> Segment | None:
    """Find the segment of a track that looks most fake, such as a face swapped in one scene.

    The window of a quarter of the faces with the highest mean is taken, the first one of equal
    windows, and extended by its neighbours as long as each of them reaches the limit.

    Args:
        time_s: float[n], increasing times in seconds.
        scores: float[n], P(fake).
        limit: Lowest mean score of the window.

    Returns:
        The segment; None if no window reaches the limit, or there are fewer than 12 faces.

    Example:
        >>> find_fake_segment(np.arange(12.0), np.repeat([0.1, 0.9], [9, 3]), 0.8)
        Segment(start_s=9.0, end_s=11.0, score=0.9)
    """
    size = len(scores) // SEGMENT_FRACTION
    if size < MIN_SEGMENT_FACES:
        return None
    means = round_score(np.convolve(scores, np.ones(size), mode="valid") / size)
    start = int(np.argmax(means))
    end = start + size
    if means[start] < limit:
        return None
    while start > 0 and scores[start - 1] >= limit:
        start -= 1
    while end < len(scores) and scores[end] >= limit:
        end += 1
    score = float(round_score(scores[start:end].mean()))
    return Segment(float(time_s[start]), float(time_s[end - 1]), score)


def score_tracks(
    faces: Sequence[Face], scores: np.ndarray, thresholds: Calibration
) -> tuple[TrackScore, ...]:
    """Compute the score and the verdict of each track, in the order of their identifiers.

    Args:
        faces: Faces of one file, in its order.
        scores: float64[n], P(fake) of the faces.
        thresholds: Scores from which a track is uncertain, and fake.

    Example:
        >>> import jdfd_keras as jk
        >>> faces = jk.extract_faces("video.mp4", jk.FaceOptions(frames_per_video=4)).faces
        >>> score_tracks(faces, np.full(len(faces), 0.9), Calibration())[0].verdict
        'fake'
    """
    owner = np.array([face.track_id for face in faces], int)
    detector_score = np.array([face.box[4] for face in faces])
    time_s = np.array([face.time_s for face in faces])
    masks = {track_id: owner == track_id for track_id in np.unique(owner).tolist()}
    confidence = {key: float(detector_score[mask].mean()) for key, mask in masks.items()}
    all_count = max(confidence.values(), default=0.0) < MIN_TRACK_CONFIDENCE
    tracks = []
    for track_id, mask in masks.items():
        score = float(round_score(scores[mask].mean()))
        verdict, segment = thresholds.judge(score), None
        if verdict == "no_evidence":
            segment = find_fake_segment(time_s[mask], scores[mask], thresholds.uncertain_to)
            if segment and thresholds.uncertain_from < thresholds.uncertain_to:
                verdict = "uncertain"
        tracks.append(
            TrackScore(
                track_id=track_id,
                num_faces=int(mask.sum()),
                confidence=confidence[track_id],
                is_reliable=all_count or not confidence[track_id] < MIN_TRACK_CONFIDENCE,
                start_s=float(time_s[mask].min()),
                end_s=float(time_s[mask].max()),
                score=score,
                verdict=verdict,
                segment=segment,
            )
        )
    return tuple(tracks)


def choose_top_faces(
    faces: Sequence[FaceScore], reliable_ids: set[int], duration_s: float, count: int
) -> tuple[int, ...]:
    """Return the positions of the highest scores, those of one track spread over the file.

    Args:
        faces: Faces of one file, in its order.
        reliable_ids: Tracks to choose from.
        duration_s: Duration of the file in seconds. Faces of one track are at least a fraction
            1 / (4 * count) of it apart, since neighbouring frames look the same.
        count: Most positions to return, by decreasing score.

    Example:
        >>> faces = [FaceScore(i, i / 10, 0, (0, 0, 9, 9), i / 10) for i in range(10)]
        >>> choose_top_faces(faces, {0}, duration_s=1.0, count=2)
        (9, 7)
    """
    min_gap_s = duration_s / (4 * max(count, 1))
    candidates = [index for index, face in enumerate(faces) if face.track_id in reliable_ids]
    top_faces: list[int] = []
    for index in sorted(candidates, key=lambda index: (-faces[index].score, index)):
        face = faces[index]
        chosen = [faces[i] for i in top_faces if faces[i].track_id == face.track_id]
        if all(abs(face.time_s - other.time_s) >= min_gap_s for other in chosen):
            top_faces.append(index)
        if len(top_faces) >= count:
            break
    return tuple(top_faces)
