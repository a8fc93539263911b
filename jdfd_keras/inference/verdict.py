"""A verdict on a user's own file: its faces scored, averaged over each person, judged.

Takes what was found in a video or image and a scorer; gives a Verdict. Knows nothing of
processes, folders and pages.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.client.metadata import Calibration, Description, check_threshold
from jdfd_keras.faces.extract import Extraction, Face, check_face_options
from jdfd_keras.inference.tracks import (
    FaceScore,
    Stretch,
    TrackScore,
    find_stretch,
    find_strongest,
    score_tracks,
)
from jdfd_keras.options import FaceOptions, PredictOptions, PredictWorkOptions


@dataclass(frozen=True)
class Taken:
    """What one file gave.

    Attributes:
        found: Its faces.
        duration_s: How long it lasts by its header, and at least as long as its last face; 0 of
            an image.
        sha256: Of its bytes.
    """

    found: Extraction
    duration_s: float
    sha256: str


NO_FACE = "no face"
VERDICTS = ("fake", "uncertain", "real", NO_FACE)  # the most suspicious first
RANK = {verdict: -place for place, verdict in enumerate(VERDICTS)}
FACES_AT_ONCE = 256  # crops held in memory: 70 MB at 299 px
STRONGEST = PredictWorkOptions.explain


@dataclass(frozen=True)
class Verdict:
    """What one file got, and what it rests on.

    Attributes:
        path: The file.
        sha256: Of its bytes, so that it can be told from another one later.
        verdict: `fake`, `real`, `uncertain` or, where none was found, `no face`.
        score: That of its most suspicious track that decides: one fake face makes a fake. None
            without a face.
        reason: Why the verdict is uncertain though that score is real; else empty.
        uncertain_from: Below it, a verdict is real.
        uncertain_to: From it on, a verdict is fake; in between it is uncertain.
        num_frames: Frames looked at.
        duration_s: How long the file lasts; 0 of an image.
        width: Width of a frame in pixels.
        height: Its height.
        tracks: The people, in the order of appearance.
        faces: The faces, in the order of the file.
        strongest: Positions in `faces` of those that speak most for fake, the strongest first;
            of tracks that decide, those of one track spread over the file.
        warnings: What was wrong with the file, though it could be judged.
    """

    path: str
    sha256: str
    verdict: str
    score: float | None
    reason: str
    uncertain_from: float
    uncertain_to: float
    num_frames: int
    duration_s: float
    width: int
    height: int
    tracks: tuple[TrackScore, ...]
    faces: tuple[FaceScore, ...]
    strongest: tuple[int, ...]
    warnings: tuple[str, ...]


def choose_faces(description: Description, options: PredictOptions) -> FaceOptions:
    """Say how faces are taken: aligned as in training, of the frames and people asked for.

    Raises:
        ValueError: If an option is out of its range.
    """
    asked = {name: getattr(options, name) for name in ("frames_per_video", "every", "tracks")}
    faces = dataclasses.replace(description.faces, **asked)
    check_face_options(faces)
    return faces


def choose_borders(description: Description, options: PredictOptions) -> Calibration:
    """Say where fake and real begin: as asked, else as calibrated, else at 0.5.

    The scorer corrects its scores itself; nothing but the borders is taken.

    Raises:
        ValueError: If the threshold is out of its range.
    """
    calibration = description.calibration or Calibration()
    if options.threshold is None:
        return calibration
    check_threshold(options.threshold)
    return calibration.at(options.threshold)


def judge(
    path: str | Path,
    taken: Taken,
    score: Callable[[np.ndarray], np.ndarray],
    borders: Calibration,
    count: int = STRONGEST,
) -> Verdict:
    """Give a verdict on what a file gave.

    Args:
        path: The file.
        taken: Of `take_faces`.
        score: From uint8[n, size, size, 3] RGB faces to float64[n], P(fake); a Scorer, or any
            function. Not called without a face.
        borders: Where fake and real begin.
        count: Strongest faces wanted, at most.

    Raises:
        OSError: If the scorer cannot be asked.
        ValueError: If a score is not a number from 0 to 1.
    """
    found = taken.found
    parts = [
        np.asarray(score(np.stack([face.crop for face in part])), np.float64)
        for part in _parts_of(found.faces, FACES_AT_ONCE)
    ]
    scores = np.concatenate(parts or [np.empty(0)])
    if scores.shape != (len(found.faces),) or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"Expected {len(found.faces)} scores from 0 to 1 for the faces of {path}; got "
            f"{scores.tolist()}. The model or its server is at fault: no verdict is given."
        )
    faces = tuple(map(_describe, found.faces, scores.tolist()))
    tracks = score_tracks(found.faces, scores, borders)
    deciding = [track for track in tracks if track.decides]
    decisive = {track.track_id for track in deciding}
    worst = max(deciding, key=lambda track: (RANK[track.verdict], track.score), default=None)
    return Verdict(
        path=str(path),
        sha256=taken.sha256,
        verdict=NO_FACE if worst is None else worst.verdict,
        score=None if worst is None else worst.score,
        reason="" if worst is None else worst.reason,
        uncertain_from=borders.uncertain_from,
        uncertain_to=borders.uncertain_to,
        num_frames=found.num_frames,
        duration_s=taken.duration_s,
        width=found.width,
        height=found.height,
        tracks=tracks,
        faces=faces,
        strongest=find_strongest(faces, decisive, taken.duration_s, count),
        warnings=(*found.warnings, *(text for track in deciding for text in track.warnings)),
    )


def deciding_faces(verdict: dict) -> list[dict]:
    """Choose the faces that a verdict rests on: those of the tracks that decide.

    Args:
        verdict: The fields of a Verdict.
    """
    decisive = {track["track_id"] for track in verdict["tracks"] if track["decides"]}
    return [face for face in verdict["faces"] if face["track_id"] in decisive]


def _parts_of(faces: Sequence[Face], size: int) -> Iterator[Sequence[Face]]:
    return (faces[start : start + size] for start in range(0, len(faces), size))


def _describe(face: Face, score: float) -> FaceScore:
    box = tuple(int(edge) for edge in face.box[:4])
    return FaceScore(int(face.frame_index), float(face.time_s), face.track_id, box, score)


def borders_of(verdict: dict) -> Calibration:
    """Give the borders that a verdict was made with, to judge single faces by."""
    return Calibration(
        uncertain_from=verdict["uncertain_from"], uncertain_to=verdict["uncertain_to"]
    )


def find_worst(verdict: dict) -> dict | None:
    """Find the track that gave the file its verdict; None without a face."""
    deciding = [track for track in verdict["tracks"] if track["decides"]]
    return max(deciding, key=lambda track: (RANK[track["verdict"]], track["score"]), default=None)


def find_part(verdict: dict, track: dict) -> Stretch | None:
    """Find the part that made a track uncertain though its mean is real; None if none did."""
    if track["verdict"] == borders_of(verdict).judge(track["score"]):
        return None
    own = [face for face in verdict["faces"] if face["track_id"] == track["track_id"]]
    times_s, scores = (np.array([face[name] for face in own]) for name in ("time_s", "score"))
    return find_stretch(times_s, scores, verdict["uncertain_to"])


def tell_verdict(verdict: dict) -> str:
    """Say the verdict and its reason: a mean, or the part that speaks against the mean."""
    if verdict["verdict"] == NO_FACE:
        return "No face"
    worst = find_worst(verdict)
    part = worst and find_part(verdict, worst)
    if part:
        return f"Uncertain, since {tell_part(worst, part)}"
    return f"{verdict['verdict'].capitalize()}, score {verdict['score']:.3f}"


def tell_part(track: dict, part: Stretch) -> str:
    """Say which part of a track looks fake."""
    return (
        f"track {track['track_id']} scores {part.score:.3f} from {part.start_s:.1f} to "
        f"{part.end_s:.1f} s"
    )


def doubt(track: dict) -> str:
    """Say, behind the name of a track, that it may be none; nothing of one that decides."""
    return "" if track["decides"] else ", perhaps no face"


def describe_borders(verdict: dict) -> str:
    """Say where real ends and fake begins."""
    low, high = verdict["uncertain_from"], verdict["uncertain_to"]
    return f"fake from {high:.3g}" if low == high else f"real below {low:.3g}, fake from {high:.3g}"
