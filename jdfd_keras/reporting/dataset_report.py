"""Reports on datasets: audits as Markdown, inspections as contact sheets and lines of text.

Takes results of `datasets.audit` and `datasets.inspection`; computes nothing.
"""

import functools
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2

from jdfd_keras.datasets.audit import AuditResult
from jdfd_keras.datasets.inspection import (
    DatasetInspection,
    FileInspection,
    InspectionResult,
    SampledFace,
    TrackSummary,
)
from jdfd_keras.datasets.videos import FaceCount
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.faces.overlay import check_overlay, draw_overlay
from jdfd_keras.io.console import plural, printable
from jdfd_keras.io.files import check_no_result, write_text_atomically
from jdfd_keras.io.palette import track_colour
from jdfd_keras.io.results import Result
from jdfd_keras.io.workers import WorkerCrashed, run_all, run_with_progress
from jdfd_keras.options import LimitOptions
from jdfd_keras.reporting.face_grids import MAX_ROWS as MAX_SHEET_ROWS
from jdfd_keras.reporting.face_grids import SheetFace, SheetRow, allocate_slots, draw_sheet
from jdfd_keras.reporting.report_text import describe_media
from jdfd_keras.reporting.templating import render_template

NEAR_DUPLICATES = "near-duplicates.png"
AUDIT = ("audit.md", "audit.json", NEAR_DUPLICATES)
Item = TypeVar("Item")


def check_audit_folder(out: str | Path, *, overwrite: bool = False) -> None:
    """Check that an audit can be written to a folder, before anything is read.

    Raises:
        OSError: If the folder has an audit that must not be replaced.

    Example:
        >>> check_audit_folder("new-audit")
    """
    check_no_result(*(Path(out, name) for name in AUDIT), overwrite=overwrite)


def write_audit(result: AuditResult, out: str | Path, *, overwrite: bool = False) -> None:
    """Write an audit: audit.md, audit.json and, if there are any, images of near-duplicates.

    Args:
        result: Result of `audit`.
        out: Folder, created if missing.
        overwrite: Replace an earlier audit.

    Raises:
        OSError: If a file cannot be written, or an earlier audit must not be replaced.
        ValueError: If a shard with near-duplicates does not exist or is damaged.

    Example:
        >>> from jdfd_keras.datasets.audit import audit
        >>> write_audit(audit(["prepared"]), "audit")
        >>> sorted(path.name for path in Path("audit").iterdir())
        ['audit.json', 'audit.md']
    """
    check_audit_folder(out, overwrite=overwrite)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    image = NEAR_DUPLICATES if result.near_duplicates else ""
    if image:
        _draw_duplicates(out / image, result)
    else:
        (out / NEAR_DUPLICATES).unlink(missing_ok=True)
    write_text_atomically(out / "audit.json", json.dumps(result.to_dict(), indent=1) + "\n")
    write_text_atomically(out / "audit.md", render_audit(result, image=image))


def render_audit(result: AuditResult, *, image: str = "") -> str:
    """Return an audit as Markdown.

    Args:
        result: Result of `audit`.
        image: File name of the near-duplicates, next to the report; none if not given.

    Example:
        >>> from jdfd_keras.datasets.audit import audit
        >>> render_audit(audit(["prepared"])).splitlines()[0]
        '# Audit of prepared'
    """
    return render_template("audit.md.j2", result=result, image=image)


def _draw_duplicates(path: Path, result: AuditResult) -> None:
    pairs = result.near_duplicates[:MAX_SHEET_ROWS]
    crops = [[face.read_crop() for face in pair.faces] for pair in pairs]
    height, width, _ = crops[0][0].shape  # of all: datasets may have other sizes
    rows = []
    for pair, own in zip(pairs, crops, strict=True):
        faces = [
            # The namespace on its own line: captions are as narrow as the faces.
            SheetFace(
                cv2.resize(crop, (width, height)),
                f"{face.video_id.replace('/', chr(10), 1)}\nframe {face.frame_index}",
            )
            for crop, face in zip(own, pair.faces, strict=True)
        ]
        notes = [
            f"{plural(pair.num_faces, 'pair')} of faces",
            f"at least {pair.bits} of 256 bits differ",
        ]
        rows.append(SheetRow(" and ".join(pair.splits), notes, faces))
    notes = [f"{len(pairs)} of {plural(result.num_near_duplicates, 'pair')} of videos"]
    draw_sheet(path, rows, title="Near-duplicate faces in two splits", notes=notes)


@dataclass(frozen=True)
class InspectionFiles(Result):
    """Files that `write_inspection` wrote."""

    sheet: str | None  # the contact sheet; None if there was no face
    overlay: str | None  # the video or image with its faces drawn on; None if not requested


def check_inspection_files(
    path: str | Path,
    out: str | Path,
    overlay: str | Path | None = None,
    limits: LimitOptions | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Check the files that `write_inspection` will write, and create their folders.

    Call it before `inspect`, which takes long, to raise errors early.

    Args:
        path: The video, image or prepared dataset.
        out: The contact sheet.
        overlay: The video or image with its faces drawn on.
        limits: Limits of the inspected file; the defaults if not given.
        overwrite: Whether existing files may be replaced.

    Raises:
        OSError: If a folder cannot be created, the file to draw on cannot be opened, or a file
            exists and must not be replaced.
        ValueError: If a name has the wrong suffix or is that of another file, or `overlay` is
            given with a dataset.

    Example:
        >>> check_inspection_files("video.mp4", "sheet.jpg")
        Traceback (most recent call last):
        ValueError: Expected a .png file for the contact sheet, ... Try video-faces.png.
    """
    path, out = Path(path), Path(out)
    others = {os.path.realpath(file) for file in filter(None, (path, overlay))}
    if out.suffix.lower() != ".png" or os.path.realpath(out) in others:
        raise ValueError(
            "Expected a .png file for the contact sheet, other than the inspected file and its "
            f"overlay; got {out}. Try {path.stem}-faces.png."
        )
    if overlay and path.is_dir():
        raise ValueError(
            f"Expected a video or an image to draw an overlay on; got the folder {path}. Omit the "
            "overlay, or inspect one of its videos."
        )
    check_no_result(out, overlay, overwrite=overwrite)
    for file in filter(None, (out, overlay)):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    if overlay:  # in another process, as it decodes; a crash is named when faces are drawn
        check = functools.partial(check_overlay, out=overlay, limits=limits)
        list(run_all(check, [path], 1, limits or LimitOptions()))


def write_inspection(
    result: InspectionResult,
    out: str | Path,
    *,
    overlay: str | Path | None = None,
    landmarks: bool = False,
    overwrite: bool = False,
) -> InspectionFiles:
    """Draw the contact sheet of an inspection and, on request, an overlay.

    Args:
        result: Result of `inspect`.
        out: The contact sheet, a .png file: one row per track, or per class and manipulation, with
            evenly spread faces. Not written if there is no face.
        overlay: Video or image to write, with boxes, landmarks and tracks drawn on every sampled
            frame. `inspect` needs `all_frames` to show the same tracks.
        landmarks: Draw the landmarks on the crops of the sheet.
        overwrite: Replace existing files.

    Raises:
        OSError: If a file cannot be read or written, or exists and must not be replaced.
        ValueError: If a name is not usable (`check_inspection_files`), or a dataset is damaged.

    Example:
        >>> from jdfd_keras.datasets.inspection import inspect
        >>> write_inspection(inspect("video.mp4"), "video-faces.png")
        InspectionFiles(sheet='video-faces.png', overlay=None)
    """
    is_file = isinstance(result, FileInspection)
    limits = result.limits if is_file else None
    check_inspection_files(result.path, out, overlay, limits, overwrite=overwrite)
    if not result.reason:
        rows = _track_rows(result, landmarks) if is_file else _group_rows(result, landmarks)
        notes = [_describe_counts(result)]
        if is_file:
            notes += [*result.warnings, *_describe_filtered(result)]
        total, kind = (len(result.tracks), "tracks") if is_file else (len(result.totals), "kinds")
        if len(rows) < total:
            notes.append(f"{len(rows)} of {total} {kind} shown, those with the most faces")
        draw_sheet(out, rows, title=Path(result.path).absolute().name, notes=notes)
    if overlay and is_file:
        _draw_overlay(result, overlay)
    return InspectionFiles(
        sheet=None if result.reason else str(out), overlay=str(overlay) if overlay else None
    )


def _draw_overlay(result: FileInspection, overlay: str | Path) -> None:
    """Draw the faces of a file in another process, within the limits of its inspection."""
    draw = functools.partial(
        draw_overlay,
        out=overlay,
        options=result.options,
        limits=result.limits,
        sha256=result.sha256,
    )
    drawn = run_with_progress(draw, result.path, "drawing faces", result.limits)
    if isinstance(drawn, WorkerCrashed):
        raise UnreadableFileError(f"Expected a file to draw faces on; got {result.path}, {drawn}")
    for warning in drawn.warnings:
        print(printable(f"{overlay}: {warning}"), file=sys.stderr)


def describe_inspection(result: InspectionResult, files: InspectionFiles | None = None) -> str:
    """Describe an inspection in lines of text.

    Args:
        result: Result of `inspect`.
        files: Files of `write_inspection`; not mentioned if not given.

    Example:
        >>> from jdfd_keras.datasets.inspection import inspect
        >>> print(describe_inspection(inspect("video.mp4")))
        video.mp4: 6 frames sampled, 6 faces kept
        file: ...
        track 0: 6 faces, 0.0-0.2 s, confidence ..., all kept
    """
    return render_template(
        "inspection.txt.j2",
        result=result,
        files=files,
        describe_counts=_describe_counts,
        describe_class=_describe_class,
        describe_track=_describe_track,
        describe_filtered=_describe_filtered,
        describe_media=describe_media,
    ).rstrip("\n")


def _track_rows(result: FileInspection, landmarks: bool) -> list[SheetRow]:
    tracks = _largest(result.tracks, [(t.num_kept, t.num_faces) for t in result.tracks])
    rows = []
    for track, slots in zip(tracks, allocate_slots([t.num_kept for t in tracks]), strict=True):
        notes = _describe_track(track)
        if slots < track.num_kept:
            notes.append(f"{slots} of {track.num_kept} shown")
        faces = [
            SheetFace(
                face.crop,
                f"frame {face.frame_index}, {face.time_s:.2f} s\n"
                f"{face.box.width} px, sharpness {face.quality.sharpness:.0f}",
                face.landmarks if landmarks else None,
            )
            for face in result.sample(track.track_id, slots)
        ]
        title = f"track {track.track_id}"
        rows.append(SheetRow(title, notes, faces, track_colour(track.track_id)))
    return rows


def _group_rows(result: DatasetInspection, landmarks: bool) -> list[SheetRow]:
    groups = _largest(result.totals, [group.num_faces for group in result.totals])
    slots = allocate_slots([group.num_faces for group in groups])
    keys = [(group.label or "", group.manipulation or "") for group in groups]
    samples = result.sample(dict(zip(keys, slots, strict=True)))
    rows = []
    for group, key in zip(groups, keys, strict=True):
        notes = [plural(group.num_faces, "face"), f"of {plural(group.num_videos, 'video')}"]
        if len(samples[key]) < group.num_faces:
            notes.append(f"{len(samples[key])} of {group.num_faces} shown")
        faces = [
            SheetFace(face.crop, _caption(face), face.landmarks if landmarks else None)
            for face in samples[key]
        ]
        rows.append(SheetRow(_describe_class(group), notes, faces))
    return rows


def _caption(face: SampledFace) -> str:
    # The end of the video id: the row names dataset, class and manipulation.
    names = [name for name in face.video_id.split("/")[2:] if name != face.manipulation]
    name = "/".join(names[-2:]) or face.video_id
    frame = f"frame {face.frame_index}"
    return f"{name}\n{face.split}, {frame}" if face.split else f"{name}\n{frame}"


def _largest(items: Sequence[Item], sizes: Sequence) -> list[Item]:
    """Choose the largest items, as many as a sheet has rows, in their order."""
    indices = sorted(range(len(items)), key=lambda index: sizes[index], reverse=True)
    return [items[index] for index in sorted(indices[:MAX_SHEET_ROWS])]


def _describe_class(group: FaceCount) -> str:
    is_named = group.manipulation not in ("", group.label)
    return f"{group.label} {group.manipulation}" if is_named else group.label or ""


def _describe_counts(result: InspectionResult | FaceCount) -> str:
    faces = plural(result.num_faces, "face")
    if isinstance(result, FileInspection):
        return f"{plural(result.num_frames, 'frame')} sampled, {faces} kept"
    return f"{faces} of {plural(result.num_videos, 'video')}"


def _describe_track(track: TrackSummary) -> list[str]:
    start, end = f"{track.start_s:.1f}", f"{track.end_s:.1f}"
    is_all = track.num_kept == track.num_faces
    is_detected = not math.isnan(track.confidence)
    return [
        plural(track.num_faces, "face"),
        f"{start}-{end} s" if start != end else f"at {start} s",
        f"confidence {track.confidence:.1f}" if is_detected else "not detected, taken as it is",
        "all kept" if is_all else f"{track.num_kept or 'none'} kept",
    ]


def _describe_filtered(result: InspectionResult) -> list[str]:
    counts = [f"{count} ({reason})" for reason, count in result.filtered.items()]
    return [f"filtered: {', '.join(counts)}"] if counts else []
