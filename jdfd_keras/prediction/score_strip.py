"""The strip below an annotated video: a row for each person with the scores over time.

Takes a verdict; returns an image. A row has the colour of its person, as the boxes have.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from jdfd_keras.faces.draw import BLACK, FONT, WHITE
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.palette import track_colour

BACKGROUND, GRID, SOFT = (24, 24, 24), (110, 110, 110), (190, 190, 190)
MAX_ROWS = 5
# Relative to the shorter side of the frame.
ROW_HEIGHT, TEXT_HEIGHT = 0.11, 0.05
MIN_ROW, MIN_TEXT = 18, 12  # pixels
MIN_GUTTER_WIDTH = 160  # of the frame; a narrower one has no names of rows
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
DIM = 0.55  # of the colour of scores below the threshold of fake


class ScoreStrip:
    """The strip of one video.

    Each row has a bar for each sampled frame with the person, from 0 at its bottom to 1 at its top:
    bright from the threshold of fake on, which is a dashed line, and dim below it. A person who is
    not judged has a thin line without scores.

    Attributes:
        height: Height in pixels; even, as codecs require, together with the frame.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> strip = ScoreStrip(verdict)
        >>> strip.draw(0.1).shape == (strip.height, verdict.width, 3)
        True
    """

    def __init__(self, verdict: Verdict):
        self._verdict, width = verdict, verdict.width
        side = min(width, verdict.height)
        self._row = max(round(ROW_HEIGHT * side), MIN_ROW)
        self._text = max(round(TEXT_HEIGHT * side), MIN_TEXT)
        ordered = sorted(verdict.tracks, key=lambda track: (not track.is_judged, -track.score))
        shown = sorted(ordered[:MAX_ROWS], key=lambda track: track.track_id)
        names = [f"Person {track.track_id}" for track in shown]
        hidden = len(ordered) - len(shown)
        scale = self._text / 30
        widths = [cv2.getTextSize(name, FONT, scale, 1)[0][0] for name in names]
        gutter = max(widths, default=0) + self._text + 8
        self._left = gutter if gutter < width / 3 and width >= MIN_GUTTER_WIDTH else 0
        height = max(len(shown), 1) * self._row + self._text + 4
        self.height = height + (height + verdict.height) % 2
        self._image = np.full((self.height, width, 3), BACKGROUND, np.uint8)
        for index, (track, name) in enumerate(zip(shown, names, strict=True)):
            self._draw_row(index * self._row, track, name)
        self._draw_axis(max(len(shown), 1) * self._row, hidden)

    def draw(self, time_s: float) -> np.ndarray:
        """Return the strip with a cursor at a time, uint8[height, width, 3]."""
        strip = self._image.copy()
        thickness = max(strip.shape[1] // 400, 2)
        column = min(self._column(time_s), strip.shape[1] - thickness)
        bottom = self.height - self._text
        strip[:bottom, max(column - 1, 0) : column + thickness + 1] = BLACK
        strip[:bottom, column : column + thickness] = WHITE
        return strip

    def _column(self, time_s: float) -> int:
        width = self._image.shape[1]
        share = min(max(time_s / self._verdict.duration_s, 0.0), 1.0)
        return self._left + round(share * (width - self._left))

    def _draw_row(self, top: int, track: TrackScore, name: str) -> None:
        colour, bottom = track_colour(track.track_id), top + self._row - 3
        height = self._row - 5  # between rows there is a gap
        if self._left:
            half, middle = self._text // 2, top + self._row // 2
            self._image[middle - half // 2 : middle + half // 2 + 1, 4 : 4 + half] = colour
            at = 8 + half, middle + self._text // 3
            cv2.putText(self._image, name, at, FONT, self._text / 30, WHITE, 1, cv2.LINE_AA)
        faces = [face for face in self._verdict.faces if face.track_id == track.track_id]
        dim = tuple(round(DIM * value + (1 - DIM) * BACKGROUND[0]) for value in colour)
        for face, left, right in self._bars(faces):
            if not track.is_judged:
                self._image[bottom - 2 : bottom, left:right] = SOFT
                continue
            bar_top = bottom - max(round(face.score * height), 1)
            is_fake = face.score >= self._verdict.uncertain_to
            self._image[bar_top:bottom, left:right] = colour if is_fake else dim
            self._image[bar_top : bar_top + 2, left:right] = colour
        self._image[bottom : bottom + 1, self._left :] = GRID
        if track.is_judged and self._verdict.uncertain_to <= 1:
            line = bottom - round(self._verdict.uncertain_to * height)
            for left in range(self._left, self._image.shape[1], 8):
                self._image[line, left : left + 4] = SOFT

    def _bars(self, faces: Sequence[FaceScore]) -> list[tuple[FaceScore, int, int]]:
        """Return the columns of each face: up to the next sampled frame, and at least one."""
        steps = np.diff(sorted({face.time_s for face in self._verdict.faces}))
        step_s = float(np.median(steps)) if len(steps) else self._verdict.duration_s / 100
        bars = []
        for face in faces:
            left, right = self._column(face.time_s), self._column(face.time_s + step_s)
            left = min(left, self._image.shape[1] - 1)
            bars.append((face, left, max(right, left + 1)))
        return bars

    def _draw_axis(self, top: int, num_hidden: int) -> None:
        duration_s, scale = self._verdict.duration_s, self._text / 32
        width = self._image.shape[1]
        room = cv2.getTextSize("0000 s", FONT, scale, 1)[0][0] * 1.6
        most = max((width - self._left) / room, 1)
        step = next((step for step in TICK_STEPS_S if duration_s / step <= most), duration_s)
        right = width
        if num_hidden:
            text = "+ 1 more person" if num_hidden == 1 else f"+ {num_hidden} more people"
            right -= cv2.getTextSize(text, FONT, scale, 1)[0][0] + 8
            at = max(right, 0), top + self._text - 1
            cv2.putText(self._image, text, at, FONT, scale, WHITE, 1, cv2.LINE_AA)
        for index in range(int(duration_s / step) + 1):
            text = f"{index * step:g} s"
            (text_width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
            column = min(self._column(index * step), width - 1)
            self._image[top - 2 : top + 3, column] = SOFT
            if column + 3 + text_width <= right:
                at = column + 3, top + self._text - 1
                cv2.putText(self._image, text, at, FONT, scale, SOFT, 1, cv2.LINE_AA)
