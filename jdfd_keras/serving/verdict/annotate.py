"""A judged video or image in, the same with its scores drawn on it out.

Takes a file and its verdict; gives a film or picture. What was scored is drawn where it was
scored; nothing is searched again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.evaluation.calibration import Calibration
from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.overlay import BLACK, WHITE, draw_box, write_label, write_overlay
from jdfd_keras.serving.verdict.judge import NO_FACE, deciding_faces

# Vermilion, yellow and sky blue of Okabe and Ito (2008), RGB: told apart by the colour-blind.
COLOURS = {
    "fake": (213, 94, 0),
    "uncertain": (240, 228, 66),
    "real": (86, 180, 233),
    NO_FACE: WHITE,
}
GROUND, BORDER = (30, 30, 30), (150, 150, 150)
STRIP = 0.15  # height of the time line, as a share of the frame's lesser side


def annotate_file(path: str | Path, out: str | Path, verdict: dict, *, every: int = 1) -> int:
    """Draw a file's verdict onto it.

    Around every scored face stand a box in the colour of what its own score says (fake
    vermilion, uncertain yellow, real sky blue), that word, the score and the track; above is the
    verdict on the file. Beneath a video a strip is added: its time line, the highest score of each
    moment from the bottom, 0, to the top, 1, with lines where fake and real begin, and a cursor.

    Args:
        path: The video or image.
        out: The film or picture, as `draw_overlay` takes it; replaced if it is there.
        verdict: The fields of a Verdict on it.
        every: What the verdict was made with: each frame of a video that many is drawn.

    Returns:
        Frames drawn.

    Raises:
        OSError: If the file is not there or nothing of it decodes, or `out` cannot be written.
        ValueError: If `out` has an ending that is not written.
    """
    faces = defaultdict(list)
    for face in verdict["faces"]:
        faces[face["frame_index"]].append(face)
    strip = _draw_strip(verdict) if verdict["duration_s"] else None

    def draw(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        for frame in frames:
            picture = _draw_scores(frame, faces[frame.index], verdict)
            if strip is not None:
                now = _place_cursor(strip, frame.time_s, verdict["duration_s"])
                # A film may change its width on the way.
                now = cv2.resize(now, (picture.shape[1], len(now)))
                picture = np.concatenate([picture, now])
            yield picture

    return write_overlay(path, out, draw, every=every)


def _draw_scores(frame: Frame, faces: list[dict], verdict: dict) -> np.ndarray:
    picture = frame.pixels.copy()
    unit = min(picture.shape[:2]) / 360
    line = max(round(1.5 * unit), 2)
    borders = _borders(verdict)
    words = [borders.judge(face["score"]) for face in faces]
    decisive = {track["track_id"] for track in verdict["tracks"] if track["decides"]}
    for face, word in zip(faces, words, strict=True):
        draw_box(picture, face["box"], COLOURS[word], line)
    for face, word in zip(faces, words, strict=True):
        text = f"{word} {face['score']:.2f}, track {face['track_id']}"
        text += "" if face["track_id"] in decisive else ", perhaps no face"
        left, top = face["box"][:2]
        write_label(picture, text, (left - line, top - line), unit, COLOURS[word])
    text = f"file: {verdict['verdict']}"
    if verdict["score"] is not None:
        text += f", score {verdict['score']:.2f}"
    write_label(picture, text, (0, 0), unit, COLOURS[verdict["verdict"]])
    if verdict["duration_s"]:
        stamp = f"frame {frame.index}, {frame.time_s:.2f} s"
        write_label(picture, stamp, (0, picture.shape[0]), unit, BLACK)
    return picture


def _draw_strip(verdict: dict) -> np.ndarray:
    """Draw the time line, uint8[height, width, 3]; a moment of several faces shows the highest."""
    width = verdict["width"]
    height = max(round(STRIP * min(width, verdict["height"])), 24)
    height += (verdict["height"] + height) % 2  # codecs want even sides
    strip = np.full((height, width, 3), GROUND, np.uint8)
    borders = _borders(verdict)
    faces = deciding_faces(verdict)
    times = sorted({face["time_s"] for face in faces})
    steps = np.diff(times)
    # A bar is as wide as the time to the next frame looked at, and a pixel at least.
    step_s = float(np.median(steps)) if len(steps) else verdict["duration_s"] / 100
    # The highest last, so that it is not hidden by its neighbour.
    for face in sorted(faces, key=lambda face: face["score"]):
        left, right = (
            _column(time_s, verdict["duration_s"], width)
            for time_s in (face["time_s"], face["time_s"] + step_s)
        )
        top = height - 1 - round(face["score"] * (height - 1))
        strip[top:, left : max(right, left + 1)] = COLOURS[borders.judge(face["score"])]
    for border in {borders.uncertain_from, borders.uncertain_to}:
        strip[height - 1 - round(border * (height - 1))] = BORDER
    return strip


def _place_cursor(strip: np.ndarray, time_s: float, duration_s: float) -> np.ndarray:
    now = strip.copy()
    thickness = max(strip.shape[1] // 400, 2)
    column = min(_column(time_s, duration_s, strip.shape[1]), strip.shape[1] - thickness)
    now[:, max(column - 1, 0) : column + thickness + 1] = BLACK
    now[:, column : column + thickness] = WHITE
    return now


def _column(time_s: float, duration_s: float, width: int) -> int:
    return min(round(time_s / duration_s * width), width)


def _borders(verdict: dict) -> Calibration:
    return Calibration(
        uncertain_from=verdict["uncertain_from"], uncertain_to=verdict["uncertain_to"]
    )
