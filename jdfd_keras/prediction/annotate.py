"""What a verdict rests on, in the words that the page and the film share.

Takes the fields of a Verdict; computes no verdict.

A judged video or image in, the same with its scores drawn on it out.

Takes a file and its verdict; gives a film or picture. What was scored is drawn where it was
scored; nothing is searched again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.overlay import BLACK, FONT, WHITE, draw_box, write_label, write_overlay
from jdfd_keras.inference.verdict import (
    NO_FACE,
    borders_of,
    deciding_faces,
    describe_borders,
    doubt,
    tell_verdict,
)

# Vermilion, yellow and sky blue of Okabe and Ito (2008), RGB: told apart by the colour-blind.
COLOURS = {
    "fake": (213, 94, 0),
    "uncertain": (240, 228, 66),
    "real": (86, 180, 233),
    NO_FACE: WHITE,
}
GROUND, BORDER = (30, 30, 30), (150, 150, 150)
# Heights of the time line and of a line beneath, as shares of the frame's lesser side.
STRIP, FOOTER = 0.15, 0.06


def annotate_file(
    path: str | Path,
    out: str | Path,
    verdict: dict,
    *,
    every: int = 1,
    made_with: dict | None = None,
) -> int:
    """Draw a file's verdict onto it.

    Around every scored face stand a box in the colour of what its own score says (fake
    vermilion, uncertain yellow, real sky blue), that word, the score and the track; above is the
    verdict on the file. Beneath a video a strip is added: its time line, the highest score of each
    moment from the bottom, 0, to the top, 1, with lines where fake and real begin, and a cursor.
    Last come, in words, the verdict with its reason, and what made it.

    Args:
        path: The video or image.
        out: The film or picture, as `draw_overlay` takes it; replaced if it is there.
        verdict: The fields of a Verdict on it.
        every: What the verdict was made with: each frame of a video that many is drawn.
        made_with: `model`, `version` and `digest` of what made the verdict, as `predict_files`
            tells them; not named if not given.

    Returns:
        Frames drawn.

    Raises:
        OSError: If the file is not there or nothing of it decodes, or `out` cannot be written.
        ValueError: If `out` has an ending that is not written.
    """
    faces = defaultdict(list)
    for face in verdict["faces"]:
        faces[face["frame_index"]].append(face)
    footer = _draw_footer(verdict, made_with)
    strip = _draw_strip(verdict) if verdict["duration_s"] else None

    def draw(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        for frame in frames:
            picture = _draw_scores(frame, faces[frame.index], verdict)
            below = [footer]
            if strip is not None:
                below.insert(0, _place_cursor(strip, frame.time_s, verdict["duration_s"]))
            # A film may change its width on the way.
            width = picture.shape[1]
            below = [cv2.resize(part, (width, len(part))) for part in below]
            yield np.concatenate([picture, *below])

    return write_overlay(path, out, draw, every=every)


def _draw_scores(frame: Frame, faces: list[dict], verdict: dict) -> np.ndarray:
    picture = frame.pixels.copy()
    unit = min(picture.shape[:2]) / 360
    line = max(round(1.5 * unit), 2)
    borders = borders_of(verdict)
    words = [borders.judge(face["score"]) for face in faces]
    doubts = {track["track_id"]: doubt(track) for track in verdict["tracks"]}
    for face, word in zip(faces, words, strict=True):
        draw_box(picture, face["box"], COLOURS[word], line)
    for face, word in zip(faces, words, strict=True):
        text = f"{word} {face['score']:.2f}, track {face['track_id']}{doubts[face['track_id']]}"
        left, top = face["box"][:2]
        write_label(picture, text, (left - line, top - line), unit, COLOURS[word])
    # Why, the footer says, which has room.
    write_label(picture, f"file: {verdict['verdict']}", (0, 0), unit, COLOURS[verdict["verdict"]])
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
    borders = borders_of(verdict)
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


def _draw_footer(verdict: dict, made_with: dict | None) -> np.ndarray:
    """Write the verdict, and what made it, uint8[height, width, 3]: a film goes on by itself."""
    borders = f" ({describe_borders(verdict)})" if verdict["faces"] else ""
    lines = [tell_verdict(verdict) + borders, "A score is no proof."]
    if made_with:
        version = f"version {made_with['version']}" if made_with["version"] else "not exported"
        lines[1] += f" Model {made_with['model']}, {version}, {made_with['digest'][:8]}"
    width, unit = verdict["width"], min(verdict["width"], verdict["height"]) / 360
    row = max(round(FOOTER * min(width, verdict["height"])), 14)
    row += row % 2  # codecs want even sides
    footer = np.full((row * len(lines), width, 3), GROUND, np.uint8)
    for number, text in enumerate(lines, start=1):
        weight, pad = max(round(unit), 1), row // 4
        (needed, _), _ = cv2.getTextSize(text, FONT, 1.0, weight)
        scale = min(row / 45, (width - 2 * pad) / needed)
        at = (pad, number * row - pad)
        cv2.putText(footer, text, at, FONT, scale, WHITE, weight, cv2.LINE_AA)
    return footer


def _place_cursor(strip: np.ndarray, time_s: float, duration_s: float) -> np.ndarray:
    now = strip.copy()
    thickness = max(strip.shape[1] // 400, 2)
    column = min(_column(time_s, duration_s, strip.shape[1]), strip.shape[1] - thickness)
    now[:, max(column - 1, 0) : column + thickness + 1] = BLACK
    now[:, column : column + thickness] = WHITE
    return now


def _column(time_s: float, duration_s: float, width: int) -> int:
    return min(round(time_s / duration_s * width), width)
