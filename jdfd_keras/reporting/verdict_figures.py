"""Figures of a verdict page as positions in percent: the time line, and the scale of the ratio.

Takes a verdict and its calibration; returns what the templates draw as SVG.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.likelihood import VERBAL_SCALE, ErrorRate, LikelihoodRatio
from jdfd_keras.inference.finding import describe_ratio
from jdfd_keras.inference.tracks import NOT_JUDGED, FaceScore, TrackScore
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.palette import track_hex

MAX_ROWS = 12  # people of a time line; the table of people has all of them
TARGET_TICKS = 6
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
# A longer pause between two faces, in steps of sampled frames, interrupts the line of a person.
MAX_PAUSE_STEPS = 2.5
MAX_LOG10 = 6.0  # of the scale of likelihood ratios, from the last step of the verbal scale
# Powers of ten with their labels, and those that a narrow page shows.
RATIO_TICKS = {0: "1", 1: "10", 2: "100", 3: "1000", 6: "1,000,000"}
LONG_TICKS = (0, 2, 6)


@dataclass(frozen=True)
class TimeSegment:
    """Consecutive faces of a person whose scores have the same meaning."""

    left: float  # percent of the time line
    width: float
    start_s: float
    end_s: float
    verdict: str  # of the mean score
    score: float  # mean
    num_faces: int


@dataclass(frozen=True)
class TimeRow:
    """One person on the time line; y is 0 for a score of 1 and 100 for a score of 0."""

    track: TrackScore
    colour: str
    lines: tuple[str, ...]  # SVG paths, interrupted where the person is not visible
    dots: str  # SVG path with a point for each judged face
    segments: tuple[TimeSegment, ...]


@dataclass(frozen=True)
class Tick:
    """A label on an axis."""

    left: float  # percent
    label: str
    is_long: bool = True  # whether a narrow page has room for it


@dataclass(frozen=True)
class TimeLine:
    """Scores of the people of a video over time."""

    rows: tuple[TimeRow, ...]
    ticks: tuple[Tick, ...]
    num_others: int  # people without a row
    uncertain_top: float  # percent from the top
    uncertain_bottom: float
    can_be_fake: bool  # whether the upper threshold can be reached


@dataclass(frozen=True)
class Zone:
    """A step of the verbal scale."""

    left: float  # percent
    width: float
    strength: float  # 0 to 1
    name: str
    is_fake: bool


@dataclass(frozen=True)
class RatioScale:
    """Scale of log10 likelihood ratios."""

    zones: tuple[Zone, ...]
    ticks: tuple[Tick, ...]
    cap_left: float  # percent: validation supports no ratio further out
    cap_right: float
    value: float
    text: str  # the ratio in words


def make_time_line(verdict: Verdict) -> TimeLine | None:
    """Return the time line of a video; None for an image or without a face.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> line = make_time_line(verdict)
        >>> len(line.rows), line.ticks[0].label
        (1, '0 s')
    """
    if not verdict.duration_s or not verdict.faces:
        return None
    by_track = defaultdict(list)
    for face in verdict.faces:
        by_track[face.track_id].append(face)
    steps = np.diff(sorted({face.time_s for face in verdict.faces}))
    step_s = float(np.median(steps)) if len(steps) else verdict.duration_s
    tracks = order_tracks(verdict.tracks)
    rows = [
        _make_row(track, by_track[track.track_id], verdict, step_s) for track in tracks[:MAX_ROWS]
    ]
    low, high = verdict.uncertain_from, min(verdict.uncertain_to, 1.0)
    return TimeLine(
        rows=tuple(rows),
        ticks=_make_time_ticks(verdict.duration_s),
        num_others=max(len(tracks) - MAX_ROWS, 0),
        uncertain_top=100 * (1 - high),
        uncertain_bottom=100 * (1 - low),
        can_be_fake=verdict.uncertain_to <= 1,
    )


def order_tracks(tracks: Sequence[TrackScore]) -> list[TrackScore]:
    """Return the tracks with those that were judged first, then by decreasing score.

    Example:
        >>> order_tracks([])
        []
    """
    return sorted(tracks, key=lambda track: (-track.is_judged, -track.score, track.track_id))


def make_ratio_scale(ratio: LikelihoodRatio, calibration: Calibration) -> RatioScale:
    """Return the scale of a likelihood ratio with the limits that validation supports.

    Example:
        >>> calibration = Calibration(num_real=100, num_fake=100)
        >>> scale = make_ratio_scale(LikelihoodRatio(1.0, False, ""), calibration)
        >>> scale.text, round(scale.value, 1), round(scale.cap_right, 1)
        ('10', 58.3, 62.0)
    """
    steps = [0.0, *sorted(math.log10(least) for least, _ in VERBAL_SCALE)]
    names = ["no support", *(support for _, support in reversed(VERBAL_SCALE))]
    zones = []
    for index, (first, last) in enumerate(zip(steps, [*steps[1:], MAX_LOG10], strict=True)):
        if last > first:
            for sign in (-1, 1):
                left = _to_percent(min(sign * first, sign * last))
                width = _to_percent(max(sign * first, sign * last)) - left
                zones.append(Zone(left, width, index / (len(steps) - 1), names[index], sign > 0))
    low, high = calibration.log10_lr_limits
    return RatioScale(
        zones=tuple(zones),
        ticks=tuple(
            Tick(
                _to_percent(sign * log10),
                f"1/{label}" if sign * log10 < 0 else label,
                log10 in LONG_TICKS,
            )
            for log10, label in RATIO_TICKS.items()
            for sign in ((-1, 1) if log10 else (1,))
        ),
        cap_left=_to_percent(low),
        cap_right=_to_percent(high),
        value=_to_percent(ratio.log10),
        text=show_ratio(ratio),
    )


def show_ratio(ratio: LikelihoodRatio) -> str:
    """Return a likelihood ratio as a number of two digits, or as 1/n below 1.

    Example:
        >>> [show_ratio(LikelihoodRatio(log10, False, "")) for log10 in (-2.0, 0.0, 1.2)]
        ['1/100', '1', '15']
    """
    text = describe_ratio(ratio)
    return f"1/{text}" if ratio.log10 < 0 and float(text) != 1 else text.removesuffix(".0")


def count_of_100(rate: ErrorRate) -> tuple[int, int]:
    """Return how many of 100 files an error rate is, and how many its upper bound.

    Example:
        >>> count_of_100(ErrorRate(0, 12, 0.0, 0.0, 0.265))
        (0, 27)
    """
    return round(100 * rate.rate), math.ceil(100 * rate.high - 1e-9)


def format_time(time_s: float) -> str:
    """Return a time as `m:ss` from one minute on, else in seconds.

    Example:
        >>> format_time(75), format_time(2.04), format_time(3.0)
        ('1:15', '2.04 s', '3 s')
    """
    if time_s >= 60:
        minutes, seconds = divmod(round(time_s), 60)
        return f"{minutes}:{seconds:02}"
    return f"{time_s:.2f}".rstrip("0").rstrip(".") + " s"


def _make_row(
    track: TrackScore, faces: Sequence[FaceScore], verdict: Verdict, step_s: float
) -> TimeRow:
    duration_s = verdict.duration_s
    judge = verdict.thresholds.judge if track.is_judged else lambda _: NOT_JUDGED
    points = [(1000 * face.time_s / duration_s, 100 * (1 - face.score)) for face in faces]
    runs: list[list[int]] = [[0]]
    for index in range(1, len(faces)):
        pause_s = faces[index].time_s - faces[index - 1].time_s
        if pause_s > MAX_PAUSE_STEPS * step_s:
            runs.append([])
        runs[-1].append(index)
    segments = []
    for run in runs:
        start = 0
        for stop in range(1, len(run) + 1):
            first = faces[run[start]]
            if stop < len(run) and judge(faces[run[stop]].score) == judge(first.score):
                continue
            part = [faces[index] for index in run[start:stop]]
            segments.append(_make_segment(part, judge, duration_s, step_s))
            start = stop
    return TimeRow(
        track=track,
        colour=track_hex(track.track_id),
        lines=tuple(
            "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in (points[index] for index in run))
            for run in runs
            if len(run) > 1
        ),
        dots=" ".join(f"M{x:.1f} {y:.1f}h0" for x, y in points),
        segments=tuple(segments),
    )


def _make_segment(
    faces: Sequence[FaceScore], judge, duration_s: float, step_s: float
) -> TimeSegment:
    # Half a step to either side, so that neighbours meet.
    start_s, end_s = faces[0].time_s, faces[-1].time_s
    left = 100 * max(start_s - step_s / 2, 0) / duration_s
    right = 100 * min(end_s + step_s / 2, duration_s) / duration_s
    score = float(np.mean([face.score for face in faces]))
    return TimeSegment(left, right - left, start_s, end_s, judge(score), score, len(faces))


def _make_time_ticks(duration_s: float) -> tuple[Tick, ...]:
    step = next((s for s in TICK_STEPS_S if duration_s / s <= TARGET_TICKS), duration_s)
    count = int(duration_s / step + 1e-9) + 1
    return tuple(
        Tick(100 * index * step / duration_s, format_time(index * step), index % 2 == 0)
        for index in range(count)
    )


def _to_percent(log10: float) -> float:
    return 50 + 50 * min(max(log10 / MAX_LOG10, -1), 1)
