"""Scores of the tracks of a file, their evidence, their fake segments, and the top faces.

Takes faces and their scores; returns a TrackScore for each track. Independent of files.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.client.calibration import Calibration, round_score
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.faces.extract import Face
from jdfd_keras.io.results import Result

# A segment is at least a quarter of the faces of a track, and at least 3 of them (of 12 in all),
# since scores of single faces are noisy.
SEGMENT_FRACTION = 4
MIN_SEGMENT_FACES = 3
NOT_JUDGED = "not judged"
MAX_TOP_TRACKS = 8  # whose top faces are kept


@dataclass(frozen=True)
class EvidenceLimits(Result):
    """Least evidence of a track that is judged; validation files are judged by the same limits.

    Blur and size relative to those of validation are compared by the domain of the calibration.
    """

    # One or two faces may be a wrong detection. A file with fewer sampled frames, such as an image,
    # needs a face in each.
    min_faces: int = 3
    # Median width of the boxes. In 40 sharp portraits, reduced to 40 px, the landmarks that faces
    # are aligned by were off by 3 % of the distance of the eyes in the median and by 5 % in one of
    # 20; at 24 px by 5 % and 7 %, and dlib found 4 of the 40.
    min_size_px: float = 40.0
    # Median of `faces.quality.measure_sharpness`. The same portraits, blurred to 2, had the same
    # error of 3 % in the median; dlib no longer found one of 5. Unblurred they had 20 to 90.
    min_sharpness: float = 2.0
    # Mean score of dlib below which a track is probably not a face; MTCNN's start at 0.8.
    min_detector_score: float = 0.2


LIMITS = EvidenceLimits()


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

    A track without evidence by its mean is uncertain if it has a fake segment, unless one threshold
    separates `no_evidence` from `fake`.
    """

    track_id: int  # in the file, from 0
    num_faces: int
    # Mean detector score, on its own scale; near 0 it may not be a face. NaN without detector.
    confidence: float
    start_s: float  # time of the first face
    end_s: float  # time of the last face
    score: float  # mean P(fake) of the faces
    verdict: str  # `fake`, `uncertain`, `no_evidence` or `not judged`
    segment: Segment | None = None  # the fake segment, if the mean shows no evidence
    # Why the track has too little evidence, and does not count for the file; "" if it is judged.
    not_judged: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether the verdict of the file uses the track."""
        return not self.not_judged

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


def check_evidence(
    track_id: np.ndarray,
    detector_score: np.ndarray,
    size_px: np.ndarray,
    sharpness: np.ndarray,
    num_frames: int,
) -> dict[int, str]:
    """Check whether each track of a file has enough evidence to be judged.

    Args:
        track_id: int[n], of the faces of one file.
        detector_score: float[n]; NaN for images that are taken as faces.
        size_px: float[n], widths of the boxes in pixels of the frame.
        sharpness: float[n], of `faces.quality.measure_sharpness`.
        num_frames: Sampled frames of the file.

    Returns:
        The tracks in increasing order, with the reason why each is not judged; "" if it is.

    Example:
        >>> check_evidence(np.zeros(2, int), np.ones(2), np.full(2, 80.0), np.full(2, 30.0), 9)
        {0: 'too few faces: 2 (at least 3)'}
        >>> check_evidence(np.zeros(1, int), np.ones(1), np.full(1, 80.0), np.full(1, 30.0), 1)
        {0: ''}
    """
    least = min(LIMITS.min_faces, num_frames)
    reasons = {}
    for track in np.unique(track_id).tolist():
        mask = track_id == track
        count = int(mask.sum())
        confidence, size = float(np.mean(detector_score[mask])), float(np.median(size_px[mask]))
        sharp = float(np.median(sharpness[mask]))
        found = []
        if confidence < LIMITS.min_detector_score:  # NaN is not
            found.append(
                f"possibly not a face: mean detector score {confidence:.2f} (at least "
                f"{LIMITS.min_detector_score:g})"
            )
        if count < least:
            found.append(f"too few faces: {count} (at least {least})")
        if size < LIMITS.min_size_px:
            found.append(
                f"faces too small: median width {size:.0f} px (at least {LIMITS.min_size_px:g} px)"
            )
        if sharp < LIMITS.min_sharpness:
            found.append(
                f"faces too blurred: median sharpness {sharp:.1f} (at least "
                f"{LIMITS.min_sharpness:g})"
            )
        reasons[track] = "; ".join(found)
    return reasons


def score_tracks(
    faces: Sequence[Face], scores: np.ndarray, calibration: Calibration, num_frames: int
) -> tuple[TrackScore, ...]:
    """Compute the score and the verdict of each track, in the order of their identifiers.

    Args:
        faces: Faces of one file, in its order.
        scores: float64[n], P(fake) of the faces.
        calibration: Its thresholds for the number of judged tracks apply.
        num_frames: Sampled frames of the file.

    Example:
        >>> import jdfd_keras as jk
        >>> faces = jk.extract_faces("video.mp4", jk.FaceOptions(frames_per_video=4)).faces
        >>> score_tracks(faces, np.full(len(faces), 0.9), Calibration(), 4)[0].verdict
        'fake'
    """
    owner = np.array([face.track_id for face in faces], int)
    detector_score = np.array([face.box[4] for face in faces])
    time_s = np.array([face.time_s for face in faces])
    size_px = np.array([face.quality.size_px for face in faces])
    sharpness = np.array([face.quality.sharpness for face in faces])
    not_judged = check_evidence(owner, detector_score, size_px, sharpness, num_frames)
    num_people = sum(not reason for reason in not_judged.values())
    tracks = []
    for track_id, reason in not_judged.items():
        mask = owner == track_id
        score = float(round_score(scores[mask].mean()))
        verdict, segment = NOT_JUDGED, None
        if not reason:
            verdict, segment = _judge(time_s[mask], scores[mask], score, calibration, num_people)
        tracks.append(
            TrackScore(
                track_id=track_id,
                num_faces=int(mask.sum()),
                confidence=float(detector_score[mask].mean()),
                start_s=float(time_s[mask].min()),
                end_s=float(time_s[mask].max()),
                score=score,
                verdict=verdict,
                segment=segment,
                not_judged=reason,
            )
        )
    return tuple(tracks)


def _judge(
    time_s: np.ndarray,
    scores: np.ndarray,
    score: float,
    calibration: Calibration,
    num_people: int,
) -> tuple[str, Segment | None]:
    verdict = calibration.judge(score, num_people)
    if verdict != "no_evidence":
        return verdict, None
    uncertain_from, limit = calibration.thresholds(num_people)
    if limit == UNATTAINABLE:  # a segment makes the track uncertain, not fake
        limit = calibration.uncertain_to
    segment = find_fake_segment(time_s, scores, limit)
    is_uncertain = segment is not None and uncertain_from < limit
    return "uncertain" if is_uncertain else verdict, segment


def choose_top_faces(
    faces: Sequence[FaceScore], judged_ids: set[int], duration_s: float, count: int
) -> tuple[int, ...]:
    """Return the positions of the highest scores of each track, spread over the file.

    Args:
        faces: Faces of one file, in its order.
        judged_ids: Tracks to choose from; at most MAX_TOP_TRACKS with the highest scores are used.
        duration_s: Duration of the file in seconds. Faces of one track are at least a fraction
            1 / (4 * count) of it apart, since neighbouring frames look the same.
        count: Most positions of one track to return.

    Returns:
        First the highest score of each track, then the second one of each, and so on, each group by
        decreasing score.

    Example:
        >>> faces = [FaceScore(i, i / 10, i % 2, (0, 0, 9, 9), i / 10) for i in range(10)]
        >>> choose_top_faces(faces, {0, 1}, duration_s=1.0, count=2)
        (9, 8, 7, 6)
    """
    min_gap_s = duration_s / (4 * max(count, 1))
    chosen: dict[int, list[int]] = {}
    for index in sorted(range(len(faces)), key=lambda index: (-faces[index].score, index)):
        face = faces[index]
        if face.track_id not in judged_ids or not count:
            continue
        if len(chosen) == MAX_TOP_TRACKS and face.track_id not in chosen:
            continue
        of_track = chosen.setdefault(face.track_id, [])
        is_apart = all(abs(face.time_s - faces[other].time_s) >= min_gap_s for other in of_track)
        if is_apart and len(of_track) < count:
            of_track.append(index)
    # A track enters with its highest score, so the tracks are in that order.
    ranks = itertools.zip_longest(*chosen.values())
    return tuple(
        index
        for rank in ranks
        for index in sorted(
            (index for index in rank if index is not None), key=lambda i: -faces[i].score
        )
    )


def describe_segment(track: TrackScore) -> str:
    """Return the score and the times of the fake segment of a track, which has one.

    Example:
        >>> track = TrackScore(0, 12, 0.9, 0.0, 8.0, 0.3, "uncertain", Segment(4, 6, 0.9))
        >>> describe_segment(track)
        'person 0 scores 0.900 from 4.0 to 6.0 s'
    """
    assert track.segment is not None
    score, start_s, end_s = track.segment.score, track.segment.start_s, track.segment.end_s
    return f"person {track.track_id} scores {score:.3f} from {start_s:.1f} to {end_s:.1f} s"
