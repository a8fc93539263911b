"""Annotated copy of an analysed video or image: its scores, verdict and provenance drawn on it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.draw import (
    BLACK,
    FONT,
    WHITE,
    DrawnFace,
    draw_faces,
    fit_image,
    write_label,
)
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.overlay import Send, write_overlay
from jdfd_keras.inference.verdict import (
    NO_FACE,
    Provenance,
    Verdict,
    describe_thresholds,
    describe_verdict,
    low_confidence_note,
)
from jdfd_keras.options import LimitOptions

# Vermilion, yellow and sky blue of Okabe and Ito (2008), RGB, which colour-blind readers can
# distinguish.
COLOURS = {
    "fake": (213, 94, 0),
    "uncertain": (240, 228, 66),
    "real": (86, 180, 233),
    NO_FACE: WHITE,
}
BACKGROUND, THRESHOLD_LINE = (30, 30, 30), (150, 150, 150)
# Heights of the time line and of a line of text, relative to the shorter side of the frame.
TIME_LINE_HEIGHT, TEXT_HEIGHT = 0.15, 0.06


def annotate_file(
    path: str | Path,
    out: str | Path,
    verdict: Verdict,
    provenance: Provenance,
    *,
    every: int = 1,
    limits: LimitOptions | None = None,
    send: Send | None = None,
) -> int:
    """Draw the verdict on a file onto a copy of it.

    Every scored face gets a box in the colour of its own score (fake vermilion, uncertain yellow,
    real sky blue), labelled with the same word, the score and the track; the verdict on the file
    is at the top. Below a video there is its time line, with the highest score of each moment
    from 0 at the bottom to 1 at the top, a line at each threshold, and a cursor. The last lines
    state the verdict and its provenance: the model and the engine that computed the scores.

    Args:
        path: The video or image, with the bytes of the verdict.
        out: The annotated video or image, as for `write_overlay`.
        verdict: The verdict on it.
        provenance: Model of the verdict.
        every: Frame step of the verdict; the same frames of a video are drawn.
        limits: Limits of the file; the defaults if not given.
        send: As for `write_overlay`.

    Returns:
        Number of frames drawn.

    Raises:
        OSError: As `write_overlay`; also if the file has changed since the verdict.

    Example:
        >>> from jdfd_keras import PredictOptions, predict_files
        >>> predictions = predict_files(["video.mp4"], PredictOptions(every=2), model="run")
        >>> (verdict,) = predictions.files
        >>> annotate_file("video.mp4", "marked.mp4", verdict, predictions.provenance, every=2)
        3
    """
    faces = defaultdict(list)
    notes = {track.track_id: low_confidence_note(track) for track in verdict.tracks}
    for face in verdict.faces:
        label = verdict.thresholds.judge(face.score)
        text = f"{label} {face.score:.2f}, track {face.track_id}{notes[face.track_id]}"
        faces[face.frame_index].append(DrawnFace(face.box, text, COLOURS[label]))
    footer = _draw_footer(verdict, provenance)
    is_video = verdict.duration_s > 0
    time_line = _draw_time_line(verdict) if is_video else None

    def draw(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        for frame in frames:
            image = draw_faces(frame, faces[frame.index], has_stamp=is_video)
            # A video may change its size.
            image = fit_image(image, verdict.width, verdict.height)
            # The footer has room for the reason.
            write_label(image, f"file: {verdict.verdict}", (0, 0), COLOURS[verdict.verdict])
            strips = [image, footer]
            if time_line is not None:
                strips.insert(1, _draw_cursor(time_line, frame.time_s, verdict.duration_s))
            yield np.concatenate(strips)

    sha256 = verdict.sha256
    return write_overlay(path, out, draw, every=every, limits=limits, sha256=sha256, send=send)


def _draw_time_line(verdict: Verdict) -> np.ndarray:
    """Draw the highest score of each moment, uint8[height, width, 3]."""
    width = verdict.width
    height = max(round(TIME_LINE_HEIGHT * min(width, verdict.height)), 24)
    height += (verdict.height + height) % 2  # codecs require even sides
    strip = np.full((height, width, 3), BACKGROUND, np.uint8)
    faces = verdict.reliable_faces
    steps = np.diff(sorted({face.time_s for face in faces}))
    # A bar spans the time to the next sampled frame, and at least one pixel.
    step_s = float(np.median(steps)) if len(steps) else verdict.duration_s / 100
    # The highest score last, so that its neighbour does not hide it.
    for face in sorted(faces, key=lambda face: face.score):
        left = _column(face.time_s, verdict.duration_s, width)
        right = _column(face.time_s + step_s, verdict.duration_s, width)
        top = height - 1 - round(face.score * (height - 1))
        strip[top:, left : max(right, left + 1)] = COLOURS[verdict.thresholds.judge(face.score)]
    for threshold in {verdict.uncertain_from, verdict.uncertain_to}:
        strip[height - 1 - round(threshold * (height - 1))] = THRESHOLD_LINE
    return strip


def _draw_footer(verdict: Verdict, provenance: Provenance) -> np.ndarray:
    """Write the verdict and its provenance, which stay with a shared video."""
    thresholds = f" ({describe_thresholds(verdict)})" if verdict.faces else ""
    version = f"version {provenance.version}" if provenance.version else "not exported"
    model = f"Model {provenance.model}, {version}, {provenance.digest[:8]}"
    lines = [describe_verdict(verdict) + thresholds, f"A score is not proof. {model}"]
    if verdict.engine:
        lines.append(f"Scores by {verdict.engine}")
    width, side = verdict.width, min(verdict.width, verdict.height)
    row = max(round(TEXT_HEIGHT * side), 14)
    row += row % 2  # codecs require even sides
    footer = np.full((row * len(lines), width, 3), BACKGROUND, np.uint8)
    weight, pad = max(round(side / 360), 1), row // 4
    for number, text in enumerate(lines, start=1):
        (text_width, _), _ = cv2.getTextSize(text, FONT, 1.0, weight)
        scale = min(row / 45, (width - 2 * pad) / text_width)
        origin = (pad, number * row - pad)
        cv2.putText(footer, text, origin, FONT, scale, WHITE, weight, cv2.LINE_AA)
    return footer


def _draw_cursor(time_line: np.ndarray, time_s: float, duration_s: float) -> np.ndarray:
    strip = time_line.copy()
    thickness = max(strip.shape[1] // 400, 2)
    column = min(_column(time_s, duration_s, strip.shape[1]), strip.shape[1] - thickness)
    strip[:, max(column - 1, 0) : column + thickness + 1] = BLACK
    strip[:, column : column + thickness] = WHITE
    return strip


def _column(time_s: float, duration_s: float, width: int) -> int:
    return min(round(time_s / duration_s * width), width)
