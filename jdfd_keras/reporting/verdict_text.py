"""Verdicts as lines of text for a terminal.

Takes Predictions; computes no verdict.
"""

import sys

from jdfd_keras.inference.tracks import TrackScore
from jdfd_keras.inference.verdict import (
    Verdict,
    describe_segment,
    describe_thresholds,
    low_confidence_note,
)
from jdfd_keras.io.console import plural, printable
from jdfd_keras.prediction.predict import Predictions

MAX_BLOCKS = 40
BLOCKS, NO_FACE_BLOCK = "▁▂▃▄▅▆▇█", "·"
ASCII_BLOCKS, ASCII_NO_FACE_BLOCK = "0123456789", "."


def summarize(predictions: Predictions) -> str:
    """Format predictions as lines: verdict, time line and tracks of each file.

    The time line of a video shows the highest score of each moment, from the lowest block for 0 to
    a full one for 1; in tenths if stdout cannot encode blocks. Failures are listed without their
    reasons. Control characters in a file name are escaped.

    Example:
        >>> print(summarize(predict_files(["a.jpg"], model="saved_models/detector")))
        a.jpg: real, score 0.112 (1 face, real below 0.3, fake from 0.8)
    """
    lines = []
    for verdict in predictions.files:
        lines.append(_describe(verdict))
        if verdict.duration_s and verdict.faces and verdict.num_frames > 1:
            lines.append(f"  {draw_time_line(verdict, can_print(BLOCKS + NO_FACE_BLOCK))}")
        if len(verdict.tracks) > 1:
            lines += [
                f"  track {track.track_id}: {track.verdict}, score {track.score:.3f} "
                f"({plural(track.num_faces, 'face')}{low_confidence_note(track)})"
                for track in verdict.tracks
            ]
        lines += [f"  warning: {warning}" for warning in verdict.warnings]
    lines += [f"{failure.path}: no verdict" for failure in predictions.failed]
    return "\n".join(map(printable, lines))


def draw_time_line(verdict: Verdict, has_blocks: bool = True) -> str:
    """Draw the scores of a video over time in one line; a dot is a moment without a face.

    Args:
        verdict: Verdict on a video.
        has_blocks: Whether block characters can be printed; digits are used otherwise.
    """
    blocks, no_face = (BLOCKS, NO_FACE_BLOCK) if has_blocks else (ASCII_BLOCKS, ASCII_NO_FACE_BLOCK)
    count = max(min(MAX_BLOCKS, verdict.num_frames), 1)
    highest: list[float | None] = [None] * count
    for face in verdict.reliable_faces:
        index = min(int(face.time_s / verdict.duration_s * count), count - 1)
        highest[index] = max(face.score, highest[index] or 0.0)
    line = "".join(
        no_face if score is None else blocks[min(int(score * len(blocks)), len(blocks) - 1)]
        for score in highest
    )
    if verdict.duration_s < 10:
        return f"0 s {line} {verdict.duration_s:.1f} s"
    minutes, seconds = divmod(round(verdict.duration_s), 60)
    return f"0:00 {line} {minutes}:{seconds:02}"


def can_print(text: str) -> bool:
    """Return whether the encoding of stdout has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _describe(verdict: Verdict) -> str:
    worst = verdict.most_suspicious_track
    if worst is None:
        frames = plural(verdict.num_frames, "sampled frame")
        return f"{verdict.path}: {verdict.verdict} ({frames})"
    return (
        f"{verdict.path}: {verdict.verdict}, {_describe_reason(worst)} ({_count_faces(verdict)}, "
        f"{describe_thresholds(verdict)})"
    )


def _describe_reason(track: TrackScore) -> str:
    if track.is_uncertain_by_segment:
        return f"because {describe_segment(track)}; its mean is {track.score:.3f}"
    return f"score {track.score:.3f}"


def _count_faces(verdict: Verdict) -> str:
    num_reliable = len(verdict.reliable_faces)
    num_others = len(verdict.faces) - num_reliable
    others = f" and {num_others} that may not be a face" if num_others else ""
    return plural(num_reliable, "face") + others
