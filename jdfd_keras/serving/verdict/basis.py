"""What a verdict rests on, in the words that the page and the film share.

Takes the fields of a Verdict; computes no verdict.
"""

import numpy as np

from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.serving.verdict.judge import NO_FACE, RANK
from jdfd_keras.serving.verdict.stretch import Stretch, find_stretch


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
