"""Reports on datasets: audits as Markdown, inspections as contact sheets and lines of text.

Takes results of `datasets.audit` and `datasets.inspection`; computes nothing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from jdfd_keras.datasets.audit import AuditResult, DatasetStatistics
from jdfd_keras.datasets.inspection import (
    DatasetInspection,
    FileInspection,
    InspectionResult,
    SampledFace,
    TrackSummary,
)
from jdfd_keras.datasets.videos import CLASSES, SPLITS, FaceCount
from jdfd_keras.faces.overlay import check_overlay, draw_overlay, track_colour
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.reporting.contact_sheet import MAX_ROWS as MAX_SHEET_ROWS
from jdfd_keras.reporting.contact_sheet import SheetFace, SheetRow, allocate_slots, draw_sheet
from jdfd_keras.reporting.markdown import table

MAX_ROWS = 50  # of a table of findings
NEAR_DUPLICATES = "near-duplicates.png"


def write_audit(result: AuditResult, out: str | Path) -> None:
    """Write an audit: audit.md, audit.json and, if there are any, images of near-duplicates.

    Args:
        result: Result of `audit`.
        out: Folder, created if missing; files with these names are replaced.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If a shard with near-duplicates does not exist or is damaged.

    Example:
        >>> write_audit(audit(["prepared"]), "report")
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if result.near_duplicates:
        _draw_duplicates(out / NEAR_DUPLICATES, result)
    else:
        (out / NEAR_DUPLICATES).unlink(missing_ok=True)
    image = NEAR_DUPLICATES if result.near_duplicates else ""
    write_text_atomically(out / "audit.json", json.dumps(result.to_dict(), indent=1) + "\n")
    write_text_atomically(out / "audit.md", render_audit(result, image=image))


def render_audit(result: AuditResult, *, image: str = "") -> str:
    """Return an audit as Markdown.

    Args:
        result: Result of `audit`.
        image: File name of the near-duplicates, next to the report; none if not given.

    Example:
        >>> render_audit(audit(["prepared"])).splitlines()[0]
        '# Audit of prepared'
    """
    verdict = (
        f"**Leakage: {'; '.join(result.failed)}.**"
        if result.failed
        else "**No leakage**: no source and no near-duplicate face is in two splits."
    )
    sections = [
        f"# Audit of {', '.join(dataset.name for dataset in result.datasets)}",
        verdict,
        "## Faces for training and testing",
        _count_table(result.datasets),
        "## Leakage",
        *_describe_sources(result),
        *_describe_duplicates(result, image),
    ]
    if len(result.datasets) > 1:
        sections += ["## Between datasets", *_compare_datasets(result)]
    for dataset in result.datasets:
        sections += [f"## {dataset.name}", *_describe_dataset(dataset)]
    return "\n\n".join(sections) + "\n"


def _count_table(datasets: list[DatasetStatistics]) -> str:
    """Return a table like the paper's Table 1, with validation."""
    rows = []
    for dataset in datasets:
        faces = {(split, name): 0 for split in SPLITS for name in CLASSES}
        for group in dataset.counts:
            if group.label in CLASSES:
                faces[group.split, group.label] += group.num_faces
        rows.append((dataset.name, dataset.split, *faces.values()))
    header = ["dataset", "split"]
    header += [f"{split} {name}" for split in SPLITS for name in CLASSES]
    return table(header, rows, "ll" + "r" * 6)


def _describe_sources(result: AuditResult) -> Iterator[str]:
    yield f"Sources in two splits: {result.num_shared_sources}."
    if result.shared_sources:
        rows = [
            (
                entry.source,
                ", ".join(f"{split} ({len(videos)})" for split, videos in entry.videos.items()),
                ", ".join(videos[0] for videos in entry.videos.values()),
            )
            for entry in result.shared_sources[:MAX_ROWS]
        ]
        yield table(("source", "splits (videos)", "examples"), rows)
        yield from _mention_more(result.num_shared_sources)


def _describe_duplicates(result: AuditResult, image: str) -> Iterator[str]:
    yield (
        "Pairs of videos with near-duplicate faces in two splits, without the sources above: "
        f"{result.num_near_duplicates}."
    )
    if result.near_duplicates:
        rows = [
            (" / ".join(pair.splits), " / ".join(pair.videos), pair.num_faces, pair.bits)
            for pair in result.near_duplicates[:MAX_ROWS]
        ]
        header = ("splits", "videos", "pairs of faces", "different bits, of 256")
        yield table(header, rows, "llrr")
        yield from _mention_more(result.num_near_duplicates)
    if image:
        yield f"![Pairs of near-duplicate faces]({image})"


def _compare_datasets(result: AuditResult) -> Iterator[str]:
    lines = [
        f"- {' and '.join(common.datasets)} share {plural(common.num_sources, 'source')}, such as "
        f"{', '.join(common.sources[:5])}."
        for common in result.common_sources
    ]
    yield "\n".join(lines) or "No source is in two of the datasets."
    if len(set(result.alignments.values())) > 1:
        alignments = "; ".join(f"{name}: {how}" for name, how in result.alignments.items())
        yield (
            f"Their crops are aligned differently ({alignments}): most near-duplicates between "
            "them are not found."
        )


def _describe_dataset(dataset: DatasetStatistics) -> Iterator[str]:
    shares = ", ".join(
        f"{split} {share:.0%}" for split, share in dataset.fake_share.items() if share is not None
    )
    num_without = sum(dataset.without_faces.values())
    labels = ", ".join(f"{count} {label}" for label, count in dataset.without_faces.items())
    by_label = f" ({labels})" if num_without else ""
    lines = [
        f"- {plural(dataset.num_faces, 'face')} of {plural(dataset.num_videos, 'video')}, split by "
        f"the rule `{dataset.split}`.",
        f"- Share of fakes: {shares or 'undefined'}.",
        f"- Videos without a face: {num_without}{by_label}.",
        f"- Files of the layout: {dataset.missing} missing, {dataset.unrecognized} unrecognized.",
    ]
    for reason, count in dataset.excluded.items():
        lines.append(f"- Excluded: {plural(count, 'video')}, {reason}.")
    yield "\n".join(lines)
    yield table(
        ("split", "label", "manipulation", "compression", "videos", "faces"),
        [
            (row.split, row.label, row.manipulation, row.compression, row.num_videos, row.num_faces)
            for row in dataset.counts
        ],
        "llllrr",
    )
    yield (
        "Properties of the files, each as the only score for fake. AUC 0.5 is chance; above, "
        "fakes have larger values; below, smaller ones."
    )
    yield table(
        ("measure", "videos", "AUC", ""),
        [
            (
                row.measure,
                row.num_videos,
                "undefined" if row.auc is None else f"{row.auc:.3f}",
                "a shortcut" if row.is_shortcut else "",
            )
            for row in dataset.shortcuts
        ],
        "lrrl",
    )
    if dataset.reasons:
        yield table(("without a face", "reason"), list(dataset.reasons.items())[:MAX_ROWS])
        yield from _mention_more(num_without)


def _mention_more(count: int) -> list[str]:
    return [f"And {count - MAX_ROWS} more, in audit.json."] if count > MAX_ROWS else []


def _draw_duplicates(path: Path, result: AuditResult) -> None:
    pairs = result.near_duplicates[:MAX_SHEET_ROWS]
    crops = [[face.read_crop() for face in pair.faces] for pair in pairs]
    size = crops[0][0].shape[1::-1]  # of all: datasets may have other sizes
    rows = []
    for pair, own in zip(pairs, crops, strict=True):
        faces = [
            # The namespace on its own line: captions are as narrow as the faces.
            SheetFace(
                cv2.resize(crop, size),
                f"{face.video_id.replace('/', chr(10), 1)}\nframe {face.frame_index}",
            )
            for crop, face in zip(own, pair.faces, strict=True)
        ]
        notes = [
            f"{plural(pair.num_faces, 'pair')} of faces",
            f"at least {pair.bits} of 256 bits differ",
        ]
        rows.append(SheetRow(" and ".join(pair.splits), notes, faces))
    draw_sheet(
        path,
        rows,
        title="Near-duplicate faces in two splits",
        notes=[f"{len(pairs)} of {plural(result.num_near_duplicates, 'pair')} of videos"],
    )


@dataclass(frozen=True)
class InspectionFiles(Result):
    """Files that `write_inspection` wrote.

    Attributes:
        sheet: The contact sheet; None if there was no face.
        overlay: The video or image with its faces drawn on; None if not requested.
    """

    sheet: str | None
    overlay: str | None


def check_inspection_files(
    path: str | Path, out: str | Path, overlay: str | Path | None = None
) -> None:
    """Check the files that `write_inspection` will write, and create their folders.

    Call it before `inspect`, which takes long, to raise errors early.

    Args:
        path: The video, image or prepared dataset.
        out: The contact sheet.
        overlay: The video or image with its faces drawn on.

    Raises:
        OSError: If a folder cannot be created.
        ValueError: If a name has the wrong suffix or is that of another file, or `overlay` is
            given with a dataset.

    Example:
        >>> check_inspection_files("clip.mp4", "sheet.png", "annotated.mp4")
    """
    path, out = Path(path), Path(out)
    others = {path.resolve(), Path(overlay).resolve() if overlay else None}
    if out.suffix.lower() != ".png" or out.resolve() in others:
        raise ValueError(
            "Expected a .png file for the contact sheet, other than the inspected file and its "
            f"overlay; got {out}. Try {path.stem}-faces.png."
        )
    if overlay and path.is_dir():
        raise ValueError(
            f"Expected a video or an image to draw an overlay on; got the folder {path}. Omit the "
            "overlay, or inspect one of its videos."
        )
    for file in filter(None, (out, overlay)):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    if overlay:
        check_overlay(path, overlay)


def write_inspection(
    result: InspectionResult,
    out: str | Path,
    *,
    overlay: str | Path | None = None,
    landmarks: bool = False,
) -> InspectionFiles:
    """Draw the contact sheet of an inspection and, on request, an overlay.

    Args:
        result: Result of `inspect`.
        out: The contact sheet, a .png file: one row per track, or per class and manipulation, with
            evenly spread faces. Replaced if it exists; not written if there is no face.
        overlay: Video or image to write, with boxes, landmarks and tracks drawn on every sampled
            frame. `inspect` needs `all_frames` to show the same tracks.
        landmarks: Draw the landmarks on the crops of the sheet.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If a name is not usable (`check_inspection_files`), or a dataset is damaged.

    Example:
        >>> write_inspection(inspect("clip.mp4"), "sheet.png").sheet
        'sheet.png'
    """
    out = Path(out)
    check_inspection_files(result.path, out, overlay)
    if not result.reason:
        if isinstance(result, FileInspection):
            _draw_tracks(result, out, landmarks)
        else:
            _draw_groups(result, out, landmarks)
    if overlay:
        draw_overlay(result.path, overlay, result.options)
    return InspectionFiles(
        sheet=None if result.reason else str(out), overlay=str(overlay) if overlay else None
    )


def describe_inspection(result: InspectionResult, files: InspectionFiles | None = None) -> str:
    """Describe an inspection in lines of text.

    Args:
        result: Result of `inspect`.
        files: Files of `write_inspection`; not mentioned if not given.

    Example:
        >>> print(describe_inspection(inspect("clip.mp4")))
        clip.mp4: 32 frames sampled, 32 faces kept
        track 0: 32 faces, 0.0-4.9 s, confidence 1.9, all kept
    """
    if isinstance(result, FileInspection):
        lines = [f"{result.path}: {_describe_counts(result)}"]
        lines += [
            f"track {track.track_id}: {', '.join(_describe_track(track))}"
            for track in result.tracks
        ]
    else:
        lines = [f"{result.path}: {_describe_counts(result)}"]
        lines += [
            f"{group.split:5}  {_describe_class(group)}: {_describe_counts(group)}"
            for group in result.groups
        ]
        lines += [f"no face: {name}: {reason}" for name, reason in result.excluded.items()]
    lines += [f"warning: {warning}" for warning in result.warnings]
    lines += _describe_filtered(result.filtered)
    if result.reason:
        lines.append(f"{result.path}: {result.reason}; no contact sheet is written")
    if files and files.sheet:
        lines.append(f"sheet: {files.sheet}")
    if files and files.overlay:
        lines.append(f"overlay: {files.overlay}")
    return "\n".join(lines)


def _draw_tracks(result: FileInspection, out: Path, landmarks: bool) -> None:
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
    notes = [_describe_counts(result), *result.warnings, *_describe_filtered(result.filtered)]
    if len(rows) < len(result.tracks):
        notes.append(f"{len(rows)} of {len(result.tracks)} tracks shown, those with the most faces")
    draw_sheet(out, rows, title=Path(result.path).name, notes=notes)


def _draw_groups(result: DatasetInspection, out: Path, landmarks: bool) -> None:
    groups = _largest(result.totals, [group.num_faces for group in result.totals])
    slots = allocate_slots([group.num_faces for group in groups])
    keys = [(group.label, group.manipulation) for group in groups]
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
    notes = [_describe_counts(result)]
    if len(rows) < len(result.totals):
        notes.append(f"{len(rows)} of {len(result.totals)} kinds shown, those with the most faces")
    draw_sheet(out, rows, title=Path(result.path).resolve().name, notes=notes)


def _caption(face: SampledFace) -> str:
    # The end of the video id: the row names dataset, class and manipulation.
    names = [name for name in face.video_id.split("/")[2:] if name != face.manipulation]
    name = "/".join(names[-2:]) or face.video_id
    return f"{name}\n{face.split}, frame {face.frame_index}"


def _largest(items: Sequence, sizes: Sequence) -> list:
    """Choose the largest items, as many as a sheet has rows, in their order."""
    indices = sorted(range(len(items)), key=lambda index: sizes[index], reverse=True)
    return [items[index] for index in sorted(indices[:MAX_SHEET_ROWS])]


def _describe_class(group: FaceCount) -> str:
    is_named = group.manipulation not in ("", group.label)
    return f"{group.label} {group.manipulation}" if is_named else group.label


def _describe_counts(result: InspectionResult | FaceCount) -> str:
    faces = plural(result.num_faces, "face")
    if isinstance(result, FileInspection):
        return f"{plural(result.num_frames, 'frame')} sampled, {faces} kept"
    return f"{faces} of {plural(result.num_videos, 'video')}"


def _describe_track(track: TrackSummary) -> list[str]:
    start, end = f"{track.start_s:.1f}", f"{track.end_s:.1f}"
    is_all = track.num_kept == track.num_faces
    return [
        plural(track.num_faces, "face"),
        f"{start}-{end} s" if start != end else f"at {start} s",
        f"confidence {track.confidence:.1f}",
        "all kept" if is_all else f"{track.num_kept or 'none'} kept",
    ]


def _describe_filtered(filtered: dict[str, int]) -> list[str]:
    counts = [f"{count} ({reason})" for reason, count in filtered.items()]
    return [f"filtered: {', '.join(counts)}"] if counts else []
