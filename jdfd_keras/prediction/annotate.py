"""Annotated copy of an analysed video or image: its scores, verdict and provenance drawn on it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jdfd_keras.client.metadata import DEMONSTRATION
from jdfd_keras.faces.draw import (
    NOTE_COLOUR,
    DrawnFace,
    draw_faces,
    draw_text,
    fit_box,
    fit_image,
)
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.overlay import Overlay, Send, write_overlay
from jdfd_keras.inference.finding import (
    describe_likelihood,
    describe_thresholds,
    describe_verdict,
)
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict, verdict_text
from jdfd_keras.io.palette import track_colour
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.score_strip import BACKGROUND, ScoreStrip

# Line of a box and shape in a label for each meaning of a score: without colour, which is that of
# the person.
FACE_STYLES = {
    "fake": ("solid", "triangle"),
    "uncertain": ("dashed", "diamond"),
    "no_evidence": ("corners", "circle"),
}
NOT_JUDGED_STYLE = ("dotted", "")


def annotate_file(
    path: str | Path,
    out: str | Path,
    verdict: Verdict,
    provenance: Provenance,
    *,
    every: int = 1,
    limits: LimitOptions | None = None,
    send: Send | None = None,
) -> Overlay:
    """Draw the verdict on a file onto a copy of it.

    Every scored face gets a box in the colour of its person (`track_colour`), and a label with the
    meaning of its own score: `fake` (solid line, triangle), `uncertain` (dashed, diamond), `no
    evidence` (corners only, circle); one of a person who is not judged has a dotted line. The
    verdict on the file is at the top. Below a video there is a row for each person with the scores
    over time (`ScoreStrip`), and a cursor. The last lines state the verdict and its provenance: the
    model and the engine that computed the scores. If the model is for demonstration only, a strip
    above each frame states so. The sound is that of the source.

    Args:
        path: The video or image, with the bytes of the verdict.
        out: The annotated video or image, as for `write_overlay`.
        verdict: The verdict on it.
        provenance: Model of the verdict.
        every: Frame step of the verdict; the same frames of a video are drawn.
        limits: Limits of the file; the defaults if not given.
        send: As for `write_overlay`.

    Returns:
        The number of frames, and how the sound was written.

    Raises:
        OSError: As `write_overlay`; also if the file has changed since the verdict.

    Example:
        >>> from jdfd_keras import PredictOptions, predict_files
        >>> predictions = predict_files(["video.mp4"], PredictOptions(every=2), model="run")
        >>> (verdict,) = predictions.files
        >>> annotate_file("video.mp4", "marked.mp4", verdict, predictions.provenance, every=2)
        Overlay(num_frames=3, sound='', warnings=())
    """
    faces = defaultdict(list)
    tracks = {track.track_id: track for track in verdict.tracks}
    for face in verdict.faces:
        faces[face.frame_index].append(_to_drawn(face, tracks[face.track_id], verdict))
    footer = _draw_footer(verdict, provenance)
    is_video = verdict.duration_s > 0
    strip = ScoreStrip(verdict) if is_video else None
    title = f"File: {verdict_text(verdict.verdict)}"
    _, mark = FACE_STYLES.get(verdict.verdict, NOT_JUDGED_STYLE)

    def draw(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        width, height = verdict.width, verdict.height
        for frame in frames:
            # A video may change its size; then the labels keep theirs.
            here = [
                face._replace(box=fit_box(face.box, frame.shape, width, height))
                for face in faces[frame.index]
            ]
            fitted = Frame(frame.index, frame.time_s, fit_image(frame.pixels, width, height))
            image = draw_faces(fitted, here, has_stamp=is_video, title=title, title_mark=mark)
            strips = [image, footer]
            if strip is not None:
                strips.insert(1, strip.draw(frame.time_s))
            if verdict.demonstration:
                strips.insert(0, draw_text([DEMONSTRATION], width, height, NOTE_COLOUR))
            yield np.concatenate(strips)

    sha256 = verdict.sha256
    return write_overlay(path, out, draw, every=every, limits=limits, sha256=sha256, send=send)


def _to_drawn(face: FaceScore, track: TrackScore, verdict: Verdict) -> DrawnFace:
    name, short = f"Person {face.track_id}", str(face.track_id)
    line, mark = NOT_JUDGED_STYLE
    text = "not judged"
    if track.is_judged:
        meaning = verdict.thresholds.judge(face.score)
        line, mark = FACE_STYLES[meaning]
        text = f"{meaning.replace('_', ' ')} {face.score:.2f}"
        short = f"{short}: {face.score:.2f}"
    return DrawnFace(
        face.box,
        f"{name}: {text}",
        track_colour(face.track_id),
        short_label=short,
        line=line,
        mark=mark,
    )


def _draw_footer(verdict: Verdict, provenance: Provenance) -> np.ndarray:
    """Write the verdict and its provenance, which stay with a shared video."""
    thresholds = f" ({describe_thresholds(verdict)})" if verdict.faces else ""
    version = f"version {provenance.version}" if provenance.version else "not exported"
    model = f"Model {provenance.model}, {version}, {provenance.digest[:8]}"
    sentences = [describe_verdict(verdict) + thresholds]
    likelihood = describe_likelihood(verdict.likelihood)
    sentences += [likelihood[0].upper() + likelihood[1:]] if likelihood else []
    sentences.append(f"A score is not proof. {model}")
    sentences += [f"Scores by {verdict.engine}"] if verdict.engine else []
    return draw_text(sentences, verdict.width, verdict.height, BACKGROUND)
