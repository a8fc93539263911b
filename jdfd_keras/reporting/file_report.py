"""What a page shows of one file: texts, images as data URIs, and figures.

Takes a verdict with its provenance, its top faces and frames; returns a FileReport. The words that
do not depend on the file are in the template.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.domain import Comparison
from jdfd_keras.client.likelihood import ErrorRates
from jdfd_keras.faces.extract import encode_png
from jdfd_keras.inference.finding import state_finding
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io.palette import track_hex
from jdfd_keras.prediction.evidence import FileEvidence, Still, TopFaces
from jdfd_keras.reporting.report_text import describe_media
from jdfd_keras.reporting.verdict_figures import (
    RatioScale,
    TimeLine,
    make_ratio_scale,
    make_time_line,
    order_tracks,
    show_ratio,
)

GAP = 1 / 30  # between a crop and its map, relative to the crop


@dataclass(frozen=True)
class ShownFace:
    """A face with its map beside it."""

    face: FaceScore
    image: str  # data URI


@dataclass(frozen=True, eq=False)
class PersonReport:
    """One person of a file."""

    track: TrackScore
    colour: str  # that of the same track in the video and on the time line
    still: Still | None
    faces: tuple[ShownFace, ...]
    ratio: str  # likelihood ratio; "" if unknown


@dataclass(frozen=True, eq=False)
class FileReport:
    """One file."""

    verdict: Verdict
    provenance: Provenance
    evidence: FileEvidence
    name: str
    finding: str
    cautions: tuple[str, ...]  # sentences
    scale: RatioScale | None
    rates: ErrorRates | None
    time_line: TimeLine | None
    people: tuple[PersonReport, ...]
    has_maps: bool
    no_maps: str  # why there are no maps; "" if none was requested
    map_scale: str  # the contribution of the brightest colour
    not_judged: tuple[str, ...]  # sentences
    media: str
    domain: tuple[Comparison, ...]
    domain_note: str
    video: str = ""  # data URI, or a file name
    video_name: str = ""  # file beside the page; "" if the video is in the page
    no_video: str = ""  # why the page has none
    overview: str = ""  # relative path of the page about all files


def report_file(
    verdict: Verdict,
    provenance: Provenance,
    top_faces: TopFaces | None,
    evidence: FileEvidence,
) -> FileReport:
    """Collect what a page shows of one file.

    Args:
        verdict: The verdict.
        provenance: Model, options and calibration of the verdict.
        top_faces: Crops and maps of the top faces; None if none were requested.
        evidence: Frames of the file.

    Example:
        >>> import jdfd_keras as jk
        >>> predictions = jk.predict_files(["face.png"], model="saved_models/detector")
        >>> (verdict,) = predictions.files
        >>> report_file(verdict, predictions.provenance, None, FileEvidence()).name
        'face.png'
    """
    calibration, likelihood = provenance.calibration, verdict.likelihood
    no_maps = _refuse_maps(top_faces, calibration)
    cams = top_faces.cams if top_faces and not no_maps else None
    shown, scale = _show_faces(verdict, top_faces, cams)
    domain = calibration.domain if calibration else None
    return FileReport(
        verdict=verdict,
        provenance=provenance,
        evidence=evidence,
        name=file_name(verdict.path),
        finding=state_finding(verdict),
        cautions=tuple(_caution(verdict, provenance)),
        scale=make_ratio_scale(likelihood, calibration) if likelihood and calibration else None,
        rates=verdict.error_rates,
        time_line=make_time_line(verdict),
        people=tuple(
            _report_person(track, verdict, calibration, evidence, shown)
            for track in order_tracks(verdict.tracks)
        ),
        has_maps=cams is not None and any(map(len, shown.values())),
        no_maps=no_maps,
        map_scale=f"{scale:.2g}",
        not_judged=tuple(
            f"Person {track.track_id}: {track.not_judged}."
            for track in verdict.tracks
            if not track.is_judged
        ),
        media=describe_media(verdict.media),
        domain=domain.compare(verdict.measures) if domain and verdict.measures else (),
        domain_note=domain.note if domain else "",
        no_video=evidence.failure,
    )


def file_name(path: str) -> str:
    r"""Return the last part of a path of any system.

    Example:
        >>> file_name("clips/a.mp4"), file_name("C:\\clips\\a.mp4"), file_name("a\\b.mp4")
        ('a.mp4', 'a.mp4', 'a\\b.mp4')
    """
    windows = PureWindowsPath(path)
    return (windows.name if windows.drive else Path(path).name) or path


def embed(content: bytes, kind: str = "png") -> str:
    """Return a data URI of an image, or of a video with the kind `video/mp4`.

    Example:
        >>> embed(b"a", "jpeg")
        'data:image/jpeg;base64,YQ=='
    """
    kind = kind if "/" in kind else f"image/{kind}"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _refuse_maps(top_faces: TopFaces | None, calibration: Calibration | None) -> str:
    """Return why no maps are shown; "" if they are, or no face is."""
    if top_faces is None or not len(top_faces.crops):
        return ""
    if calibration and calibration.has_validation and not calibration.is_better_than_chance:
        interval = f"{calibration.auc:.2f} [{calibration.auc_low:.2f}, {calibration.auc_high:.2f}]"
        return (
            "validation does not show that the detector is better than chance (AUC of files "
            f"{interval}), so that its maps would explain nothing"
        )
    return top_faces.failure


def _show_faces(
    verdict: Verdict, top_faces: TopFaces | None, cams: np.ndarray | None
) -> tuple[dict[int, list[ShownFace]], float]:
    """Return the shown faces of each track with their maps, and the scale of all maps."""
    shown: dict[int, list[ShownFace]] = {track.track_id: [] for track in verdict.tracks}
    images: Sequence[np.ndarray] = [] if top_faces is None else list(top_faces.crops)
    scale = 1.0
    if cams is not None and len(images):
        from jdfd_keras.reporting.face_grids import blend_cam, find_scale  # needs matplotlib

        scale, size = find_scale(cams), len(images[0])
        gap = np.full((size, max(round(GAP * size), 1), 3), 255, np.uint8)
        images = [
            np.concatenate([crop, gap, blend_cam(crop, cam / scale)], axis=1)
            for crop, cam in zip(images, cams, strict=True)
        ]
    # Fewer may be requested than are kept.
    for position, image in zip(verdict.top_faces, images, strict=False):
        face = verdict.faces[position]
        shown[face.track_id].append(ShownFace(face, embed(encode_png(image))))
    return shown, scale


def _report_person(
    track: TrackScore,
    verdict: Verdict,
    calibration: Calibration | None,
    evidence: FileEvidence,
    shown: dict[int, list[ShownFace]],
) -> PersonReport:
    # A file beyond the domain has no ratio, and neither have its people.
    has_ratio = verdict.likelihood is not None and track.is_judged
    has_ratio = has_ratio and not track.is_uncertain_by_segment
    ratio = calibration.likelihood([track.score]) if has_ratio and calibration else None
    return PersonReport(
        track=track,
        colour=track_hex(track.track_id),
        still=evidence.people.get(track.track_id),
        faces=tuple(shown[track.track_id]),
        ratio=show_ratio(ratio) if ratio else "",
    )


def _caution(verdict: Verdict, provenance: Provenance) -> list[str]:
    """Return sentences that a reader must not miss."""
    cautions = []
    if verdict.is_beyond_domain:
        cautions.append(
            "this file is unlike those of validation, so that the score says little: "
            f"{'; '.join(verdict.reasons)}."
        )
    if provenance.calibration is None:
        cautions.append(
            "the model is not calibrated. Its score is not a probability, and nothing is known "
            "about its error rates."
        )
    elif provenance.thresholds == "threshold":
        cautions.append("the threshold was chosen by the user, not by validation.")
    if provenance.framing:
        cautions.append(provenance.framing)
    return cautions
