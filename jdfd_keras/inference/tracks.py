"""A part of a track that looks fake though the whole does not: a face swapped in one scene alone.

Takes scores in the order of their times; gives the part. Knows nothing of files.

People of a file: each one's scores put together, and the faces that speak most for fake.

Takes faces and their scores; gives a TrackScore for each person. Knows nothing of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.faces.extract import Face

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


# Mean score of dlib below which a track is likely to be no face; MTCNN's begin at 0.8.
SURE = 0.2


@dataclass(frozen=True)
class FaceScore:
    """One scored face.

    Attributes:
        frame_index: The frame's position in the file, from 0.
        time_s: Its presentation time in seconds.
        track_id: Whose face it is, from 0.
        box: left, top, right, bottom in pixels of the frame.
        score: P(fake).
    """

    frame_index: int
    time_s: float
    track_id: int
    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True)
class TrackScore:
    """One scored person of a file.

    Attributes:
        track_id: What the person's faces carry.
        num_faces: Faces behind the score.
        confidence: Mean score of the detector, on its own scale; near 0 it may be no face.
        decides: Whether the file's verdict rests on it: the detector was sure that it is a face,
            or was sure of none.
        start_s: When it is seen first.
        end_s: When it is seen last.
        score: Mean P(fake) of them.
        verdict: `fake`, `real` or `uncertain`; where the mean is real but a quarter of the faces,
            one after the other, is fake, it is uncertain, unless a single threshold parts both.
        reason: Why it is uncertain though the mean is real; else empty.
        warnings: Such a quarter, in words.
    """

    track_id: int
    num_faces: int
    confidence: float
    decides: bool
    start_s: float
    end_s: float
    score: float
    verdict: str
    reason: str
    warnings: tuple[str, ...]


def score_tracks(
    faces: Sequence[Face], scores: np.ndarray, borders: Calibration
) -> tuple[TrackScore, ...]:
    """Judge each person by the scores of all of the faces.

    Args:
        faces: In the order of the file.
        scores: float64[n], P(fake).
        borders: Where fake and real begin.
    """
    owner = np.array([face.track_id for face in faces], int)
    confidence = np.array([face.box[4] for face in faces])
    time_s = np.array([face.time_s for face in faces])
    own = {track_id: owner == track_id for track_id in np.unique(owner).tolist()}
    mean = {track_id: float(confidence[mask].mean()) for track_id, mask in own.items()}
    enough = SURE if any(value >= SURE for value in mean.values()) else -np.inf
    tracks = []
    for track_id, mask in own.items():
        score = float(scores[mask].mean())
        verdict, reason, warnings = borders.judge(score), "", ()
        stretch = find_stretch(time_s[mask], scores[mask], borders.uncertain_to)
        if verdict == "real" and stretch:
            when = f"from {stretch.start_s:.1f} to {stretch.end_s:.1f} s"
            warnings = (
                f"track {track_id} is real on the whole, but fake {when} "
                f"(score {stretch.score:.3f}), as where a part was exchanged",
            )
            if borders.uncertain_from < borders.uncertain_to:
                verdict = "uncertain"
                reason = (
                    f"track {track_id} scores {stretch.score:.3f} {when}; its mean is {score:.3f}"
                )
        tracks.append(
            TrackScore(
                track_id=track_id,
                num_faces=int(mask.sum()),
                confidence=mean[track_id],
                decides=mean[track_id] >= enough,
                start_s=float(time_s[mask].min()),
                end_s=float(time_s[mask].max()),
                score=score,
                verdict=verdict,
                reason=reason,
                warnings=warnings,
            )
        )
    return tuple(tracks)


def find_strongest(
    faces: Sequence[FaceScore], decisive: set[int], duration_s: float, count: int
) -> tuple[int, ...]:
    """Find the highest scores; neighbours of one track look the same, so one of them is enough.

    Args:
        faces: In the order of the file.
        decisive: Tracks to choose from.
        duration_s: How long the file lasts.
        count: Faces wanted, at most.

    Returns:
        Positions in `faces`, the strongest first.
    """
    apart_s = duration_s / (4 * max(count, 1))
    places = [place for place, face in enumerate(faces) if face.track_id in decisive]
    strongest: list[int] = []
    for place in sorted(places, key=lambda place: (-faces[place].score, place)):
        face = faces[place]
        chosen = [faces[i] for i in strongest if faces[i].track_id == face.track_id]
        if all(abs(face.time_s - other.time_s) >= apart_s for other in chosen):
            strongest.append(place)
        if len(strongest) >= count:
            break
    return tuple(strongest)
