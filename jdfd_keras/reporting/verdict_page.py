"""Verdicts for people: a self-contained HTML page with the evidence, and lines for a terminal.

Takes Predictions. The most suspicious files have a section each on the page: verdict, time line,
top faces with their class-activation maps, tracks. The words are in the templates.
"""

import base64
import sys
import tempfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jdfd_keras
from jdfd_keras.faces.align import describe_crops
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.inference.tracks import MIN_TRACK_CONFIDENCE, FaceScore
from jdfd_keras.inference.verdict import (
    Verdict,
    describe_segment,
    describe_thresholds,
    describe_verdict,
    low_confidence_note,
)
from jdfd_keras.io.console import track
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.prediction.predict import Predictions, TopFaces
from jdfd_keras.reporting.report_text import describe_media
from jdfd_keras.reporting.templating import render_template

MAX_LINES = 6  # tracks in one time line; the table has all of them
GAP = 1 / 30  # between a crop and its map, relative to the crop
MAX_BLOCKS = 40
BLOCKS, NO_FACE_BLOCK = "▁▂▃▄▅▆▇█", "·"
ASCII_BLOCKS, ASCII_NO_FACE_BLOCK = "0123456789", "."


class _Section(NamedTuple):
    """Evidence on one file; images are data URIs."""

    verdict: Verdict
    time_line: str = ""
    faces: tuple[tuple[FaceScore, str], ...] = ()
    has_maps: bool = False
    failure: str = ""  # why there are no maps


def write_report(predictions: Predictions, path: str | Path) -> None:
    """Write a page about verdicts.

    Args:
        predictions: Predictions of `predict_files`, with `explain=True` to show the top faces and
            their class-activation maps.
        path: The .html file, replaced if it exists.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["video.mp4"], model="run", explain=True)
        >>> write_report(predictions, "report.html")
        >>> Path("report.html").read_text().count("<img ")
        4
    """
    verdicts = predictions.most_suspicious
    drawn = verdicts
    if len(verdicts) > 1:
        drawn = track(verdicts, "drawing the report", len(verdicts), "files")
    page = render_template(
        "verdict_page.html.j2",
        predictions=predictions,
        sections=[
            _collect_evidence(verdict, predictions.top_faces.get(verdict.path)) for verdict in drawn
        ],
        written=datetime.now().astimezone().isoformat(" ", "seconds"),
        version=jdfd_keras.__version__,
        min_confidence=MIN_TRACK_CONFIDENCE,
        describe_verdict=describe_verdict,
        describe_thresholds=describe_thresholds,
        low_confidence_note=low_confidence_note,
        describe_media=describe_media,
        describe_crops=describe_crops,
    )
    write_text_atomically(path, page)


def summarize(predictions: Predictions) -> str:
    """Format predictions as lines for a terminal: verdict, time line and tracks of each file.

    The time line of a video shows the highest score of each moment, from the lowest block for 0 to
    a full one for 1, and a dot without a face; in tenths if stdout cannot encode blocks. Failures
    are listed without their reasons.

    Example:
        >>> from jdfd_keras import predict_files
        >>> print(summarize(predict_files(["face.png"], model="saved_models/detector")))
        face.png: ...
    """
    text = render_template(
        "verdicts.txt.j2",
        predictions=predictions,
        draw_time_line=_draw_time_line,
        describe_segment=describe_segment,
        describe_thresholds=describe_thresholds,
        low_confidence_note=low_confidence_note,
    )
    return text.rstrip("\n")


def _collect_evidence(verdict: Verdict, top_faces: TopFaces | None) -> _Section:
    time_line = _plot_time_line(verdict) if verdict.duration_s and verdict.faces else ""
    if top_faces is None:
        return _Section(verdict, time_line)
    images = list(top_faces.crops)
    if top_faces.cams is not None:
        from jdfd_keras.reporting.face_grids import blend_cam

        for index, (crop, cam) in enumerate(zip(top_faces.crops, top_faces.cams, strict=True)):
            gap = np.full((len(crop), max(round(GAP * len(crop)), 1), 3), 255, np.uint8)
            images[index] = np.concatenate([crop, gap, blend_cam(crop, cam)], axis=1)
    # Fewer may be requested than are kept.
    faces = [verdict.faces[index] for index in verdict.top_faces[: len(images)]]
    embedded = [_embed(encode_png(image)) for image in images]
    shown = tuple(zip(faces, embedded, strict=True))
    return _Section(verdict, time_line, shown, top_faces.cams is not None, top_faces.failure)


def _plot_time_line(verdict: Verdict) -> str:
    # Matplotlib is needed for a page only.
    from jdfd_keras.reporting.charts import draw_time_line
    from jdfd_keras.reporting.style import save_figure

    by_track = defaultdict(list)
    for face in verdict.faces:
        by_track[face.track_id].append(face)
    ordered = sorted(verdict.tracks, key=lambda track: (-track.is_reliable, -track.score))
    lines = {
        f"track {track.track_id}, mean {track.score:.3f}{low_confidence_note(track)}": (
            [face.time_s for face in by_track[track.track_id]],
            [face.score for face in by_track[track.track_id]],
        )
        for track in ordered[:MAX_LINES]
    }
    worst = verdict.most_suspicious_track
    segment = worst.segment if worst and worst.is_uncertain_by_segment else None
    figure = draw_time_line(
        lines,
        duration_s=verdict.duration_s,
        uncertain=(verdict.uncertain_from, verdict.uncertain_to),
        segment=(segment.start_s, segment.end_s) if segment else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_figure(figure, Path(folder, "time-line"))
        return _embed(Path(folder, "time-line.svg").read_bytes(), "svg+xml")


def _embed(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _draw_time_line(verdict: Verdict) -> str:
    """Draw the scores of a video over time in one line."""
    blocks, no_face = BLOCKS, NO_FACE_BLOCK
    try:
        (BLOCKS + NO_FACE_BLOCK).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        blocks, no_face = ASCII_BLOCKS, ASCII_NO_FACE_BLOCK
    line = [no_face] * min(MAX_BLOCKS, verdict.num_frames)
    # The highest score of a moment last, which replaces the others.
    for face in sorted(verdict.reliable_faces, key=lambda face: face.score):
        moment = min(int(face.time_s / verdict.duration_s * len(line)), len(line) - 1)
        line[moment] = blocks[min(int(face.score * len(blocks)), len(blocks) - 1)]
    if verdict.duration_s < 10:
        return f"0 s {''.join(line)} {verdict.duration_s:.1f} s"
    minutes, seconds = divmod(round(verdict.duration_s), 60)
    return f"0:00 {''.join(line)} {minutes}:{seconds:02}"
