"""One self-contained HTML page with verdicts and the evidence for them.

Takes Predictions; writes one file with embedded images. The most suspicious files have a section
each: verdict, time line, top faces with their class-activation maps, tracks.
"""

import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

import jdfd_keras
from jdfd_keras.client.metadata import Calibration
from jdfd_keras.inference.tracks import MIN_TRACK_CONFIDENCE, TrackScore
from jdfd_keras.inference.verdict import (
    NO_FACE,
    VERDICTS,
    Provenance,
    Verdict,
    describe_thresholds,
    describe_verdict,
    low_confidence_note,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.console import track as show_progress
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.prediction.predict import Predictions, TopFaces
from jdfd_keras.prediction.result_folder import MAX_REPORTED
from jdfd_keras.reporting.charts import plot_time_line
from jdfd_keras.reporting.face_grids import blend_cam
from jdfd_keras.reporting.markdown import Marked, cell, table, write_page

THRESHOLD_SOURCES = {
    "calibrated": ", as calibrated",
    "threshold": ", one threshold, as requested",
    "0.5": ": the default, since the model is not calibrated",
}
LIMITS = (
    "**A score is not proof.** It states how much a face looks, to this detector, like the fakes "
    "it was trained on rather than the real faces. Unknown manipulations, strong compression, poor "
    "light and small or turned faces mislead it in both directions. `real` means that nothing was "
    "found, not that nothing was manipulated; `uncertain` means that the detector cannot decide. "
    "Only faces are judged: neither sound nor background, nor the claims of the video. Seek other "
    "evidence (source, metadata, context, a second method) before accusing anyone.",
    "**A face and its map.** The brighter a region on the right, the more it raised the score of "
    "this face at the network's last convolution, which has coarse cells. Each map is scaled to "
    "the largest value of its own face, so that two maps cannot be compared; the score states how "
    "confident the detector is. A map shows where the evidence for fake is. It does not mark what "
    "was altered, it can point to hair or an edge, and it does not show evidence for real. A dark "
    "map means little or no evidence for fake.",
)


def write_report(predictions: Predictions, path: str | Path) -> None:
    """Write a page about verdicts.

    The most suspicious files have a section each, with their time line and top faces.

    Args:
        predictions: Predictions of `predict_files`, with `explain=True` to show the top faces and
            their class-activation maps.
        path: The .html file, replaced if it exists.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> predictions = predict_files(["a.mp4"], model="saved_models/detector", explain=True)
        >>> write_report(predictions, "report.html")
    """
    reported = sorted(predictions.files, key=lambda verdict: verdict.suspicion, reverse=True)
    reported = reported[:MAX_REPORTED]
    drawn = reported
    if sum(bool(verdict.faces) for verdict in reported) > 1:
        drawn = show_progress(reported, "drawing the report", len(reported), "files")
    with tempfile.TemporaryDirectory() as folder:
        sections = [*_overview(predictions, len(reported))]
        for number, verdict in enumerate(drawn, start=1):
            figure = Path(folder, str(number))
            sections += describe_file(verdict, predictions.top_faces.get(verdict.path), figure)
        sections += ["## Basis of the verdicts", _describe_setup(predictions)]
        sections += ["## Limits", *LIMITS]
        page = Path(folder, "page.html")
        write_page(page, "\n\n".join(sections) + "\n")
        write_text_atomically(path, page.read_text(encoding="utf-8"))


def _overview(predictions: Predictions, num_reported: int) -> Iterator[str]:
    files, failed, paths = predictions.files, predictions.failed, predictions.paths
    name = cell(Path(paths[0]).name) if len(paths) == 1 else plural(len(paths), "file")
    yield f"# Verdict on {name}"
    counts = Counter(verdict.verdict for verdict in files)
    results = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    results += [f"{len(failed)} without a verdict"] if failed else []
    if len(paths) == len(files) == 1:
        results = [describe_verdict(files[0])]
    yield f"**{'; '.join(results)}.** A score is not proof: see the end of this page."
    if predictions.skipped:
        are = "is not a video or image" if predictions.skipped == 1 else "are not videos or images"
        yield f"Skipped: {plural(predictions.skipped, 'file')} that {are} (by suffix)."
    if len(files) > 1:
        rows = [
            (
                verdict.path,
                Marked(f"**{verdict.verdict}**"),
                format_score(verdict.most_suspicious_track),
                len(verdict.reliable_tracks),
                len(verdict.reliable_faces),
                verdict.num_frames,
                f"{verdict.duration_s:.1f} s" if verdict.duration_s else "image",
            )
            for verdict in files
        ]
        header = ("file", "verdict", "score", "people", "faces", "frames", "duration")
        yield table(header, rows, "llrrrrr")
    if failed:
        yield "Without a verdict:"
        yield table(("file", "reason"), [(failure.path, failure.error) for failure in failed])
    if num_reported < len(files):
        yield f"The {num_reported} most suspicious of them follow, the highest score first."


def _describe_setup(predictions: Predictions) -> str:
    provenance, files = predictions.provenance, predictions.files
    faces = provenance.faces
    version = f"version {provenance.version}" if provenance.version else "not exported"
    rows = [
        ("page written", datetime.now().astimezone().isoformat(" ", "seconds")),
        ("by", f"jdfd-keras {jdfd_keras.__version__}"),
        ("model", f"{provenance.model}, {version}"),
        ("path or URL of the model", provenance.where),
        ("SHA-256 of its weights", provenance.digest),
    ]
    if any(verdict.duration_s for verdict in files):
        frames = f"{faces.frames_per_video} of each video, spread evenly"
        if faces.every:
            frames = "all" if faces.every == 1 else f"one of {faces.every}"
        rows.append(("frames", frames))
    rows += [
        ("people judged", faces.tracks),
        ("face detector", faces.detector),
        ("faces", f"{faces.alignment}, margin {faces.margin:g}, {faces.face_size} px"),
    ]
    if files:
        source = THRESHOLD_SOURCES[provenance.thresholds]
        rows.append(("thresholds", describe_thresholds(files[0]) + source))
    return table(("setting", "value"), [*rows, *_describe_calibration(provenance)])


def _describe_calibration(provenance: Provenance) -> Iterator[tuple[str, str]]:
    calibration = provenance.calibration
    if calibration is None:
        yield "calibration", "none: the scores are not probabilities"
        return
    yield "calibration", _describe_calibration_data(calibration)
    yield "temperature", f"{calibration.temperature:.3g}"
    before, after = calibration.ece_before, calibration.ece_after
    error = f"{before:.3f} before, {after:.3f} after (0 is perfect)"
    if after > before:
        error += (
            "; calibration increased it on this small set: the temperature is regularised towards "
            "less confident scores"
        )
    yield "expected calibration error of faces", error


def _describe_calibration_data(calibration: Calibration) -> str:
    real, fake, rate = calibration.num_real, calibration.num_fake, calibration.target_error_rate
    # The tolerance absorbs the rounding error of the product.
    max_real, max_fake = (math.floor(rate * count + 1e-9) for count in (real, fake))
    return (
        f"on videos of {calibration.data or 'a dataset without a stated name'}: with these "
        f"thresholds at most {max_real} of {real} real and {max_fake} of {fake} fake validation "
        f"videos were misjudged (target: at most {rate:.0%})"
    )


MAX_LINES = 6  # tracks in one time line; the table has all of them
CROP_PX, GAP_PX = 240, 8  # side of a crop on the page, and the gap between it and its map


def describe_file(verdict: Verdict, top_faces: TopFaces | None, figure: Path) -> Iterator[str]:
    """Write the section of one file.

    Args:
        verdict: The verdict on the file.
        top_faces: Its top faces; None if they were not kept.
        figure: Path of its images, without a suffix.

    Yields:
        Paragraphs of Markdown.
    """
    yield f"## {cell(verdict.path)}"
    yield _describe_basis(verdict)
    yield from (f"Warning: {cell(warning)}." for warning in verdict.warnings)
    if verdict.faces:
        if verdict.duration_s:
            _plot_time_line(figure, verdict)
            yield f"![Score over time, one line per person]({figure.name}.png)"
        yield from _show_top_faces(verdict, top_faces, figure)
        yield "People in the file, one track each:"
        yield _track_table(verdict)
        yield (
            "`face detector` is the detector's own score, averaged over the track; below "
            f"{MIN_TRACK_CONFIDENCE:g} the track may not be a face."
        )
    yield _describe_identity(verdict)


def format_score(track: TrackScore | None) -> str:
    """Format the mean score of a track, and of the segment that makes it uncertain."""
    if track is None:
        return ""
    segment = f" (segment {track.segment.score:.3f})" if track.is_uncertain_by_segment else ""
    return f"{track.score:.3f}{segment}"


def _describe_basis(verdict: Verdict) -> str:
    frames = "the image"
    if verdict.duration_s:
        frames = plural(verdict.num_frames, "sampled frame")
    if verdict.verdict == NO_FACE:
        return f"**No face** was found in {frames}."
    text = f"**{describe_verdict(verdict)}** ({describe_thresholds(verdict)}): "
    text += f"{_describe_score(verdict)} {plural(len(verdict.reliable_faces), 'face')} in {frames}."
    others = [str(track.track_id) for track in verdict.tracks if not track.is_reliable]
    if others:
        text += f" Possibly not a face, and not part of the verdict: track {', '.join(others)}."
    return text


def _describe_score(verdict: Verdict) -> str:
    num_people = len(verdict.reliable_tracks)
    worst = verdict.most_suspicious_track
    if worst.is_uncertain_by_segment:
        people = "1 person was" if num_people == 1 else f"{num_people} people were"
        return f"its mean is {worst.score:.3f}. {people} judged, from"
    if num_people == 1:
        return "the mean of one person, from" if verdict.duration_s else "one person,"
    return f"the highest {'mean' if verdict.duration_s else 'score'} of {num_people} people, from"


def _plot_time_line(figure: Path, verdict: Verdict) -> None:
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
    plot_time_line(
        figure,
        lines,
        duration_s=verdict.duration_s,
        uncertain=(verdict.uncertain_from, verdict.uncertain_to),
        segment=(segment.start_s, segment.end_s) if segment else None,
    )


def _show_top_faces(verdict: Verdict, top_faces: TopFaces | None, figure: Path) -> Iterator[str]:
    if top_faces is None or not len(top_faces.crops):
        yield "No face is shown here: none was kept or requested (`--explain`)."
        return
    faces = [verdict.faces[index] for index in verdict.top_faces[: len(top_faces.crops)]]
    cams = top_faces.cams
    heading = "Face with the highest score" if len(faces) == 1 else "Faces with the highest scores"
    if cams is None:
        yield f"{heading}, without maps: {cell(top_faces.failure)}."
    elif verdict.verdict == "fake":
        yield f"{heading}, and the regions that raised the fake score:"
    else:
        yield (
            f"{heading}, and the regions that raised the fake score, which is too low to call the "
            "file fake:"
        )
    rows = []
    for number, face in enumerate(faces):
        name = f"{figure.name}-{number}.png"
        image = _resize(top_faces.crops[number])
        if cams is not None:
            gap = np.full((CROP_PX, GAP_PX, 3), 255, np.uint8)
            image = np.concatenate([image, gap, blend_cam(image, cams[number])], axis=1)
        _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        figure.with_name(name).write_bytes(encoded.tobytes())
        moment = (f"{face.time_s:.2f} s", face.frame_index) if verdict.duration_s else ()
        caption = f"track {face.track_id}, score {face.score:.3f}"
        markup = Marked(f"![{caption}]({name})")
        rows.append((markup, *moment, face.track_id, f"{face.score:.3f}"))
    moment = ("time", "frame") if verdict.duration_s else ()
    header = ("face" if cams is None else "face and map", *moment, "track", "score")
    yield table(header, rows, "l" + "r" * (len(header) - 1))


def _resize(crop: np.ndarray) -> np.ndarray:
    interpolation = cv2.INTER_CUBIC if len(crop) < CROP_PX else cv2.INTER_AREA
    return cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=interpolation)


def _track_table(verdict: Verdict) -> str:
    is_video = verdict.duration_s > 0
    rows = []
    for track in verdict.tracks:
        label = track.verdict
        if not track.is_reliable:
            label = f"({track.verdict}{low_confidence_note(track)})"
        of_video = (track.num_faces, f"{track.start_s:.2f} to {track.end_s:.2f} s")
        rows.append(
            (
                track.track_id,
                label,
                format_score(track),
                *(of_video if is_video else ()),
                f"{track.confidence:.2f}",
            )
        )
    of_video = ("faces", "visible") if is_video else ()
    score = "mean score" if is_video else "score"
    header = ("track", "verdict", score, *of_video, "face detector")
    return table(header, rows, "rl" + "r" * (len(header) - 2))


def _describe_identity(verdict: Verdict) -> str:
    facts = [f"{verdict.width} x {verdict.height} pixels"]
    facts += [f"{verdict.duration_s:.1f} s"] if verdict.duration_s else []
    facts += [_format_bytes(verdict.file_bytes)] if verdict.file_bytes else []
    facts += [f"SHA-256 `{verdict.sha256}`"]
    facts += [f"analysed at {verdict.analysed_at}"] if verdict.analysed_at else []
    return f"File: {', '.join(facts)}."


def _format_bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
