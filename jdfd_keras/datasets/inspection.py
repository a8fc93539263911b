"""A video, an image or a prepared data set in; pictures of its faces and a summary out.

Takes a path; writes a contact sheet and, on request, the video with its faces drawn on it. This
is how a person sees what training or a verdict is based on. Changes nothing of what it looks at.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.manifest import FaceRow, VideoRow, read_faces, read_videos, to_rows
from jdfd_keras.datasets.records import choose_evenly, choose_over_videos, read_crops
from jdfd_keras.datasets.videos import LABEL_NAMES, SPLITS
from jdfd_keras.faces.extract import Extraction, Face, Track, check_face_options, extract_faces
from jdfd_keras.faces.overlay import check_overlay, draw_overlay, track_colour
from jdfd_keras.options import FaceOptions, FilterOptions
from jdfd_keras.reporting.contact_sheet import (
    MOST_ROWS,
    SheetFace,
    SheetRow,
    draw_sheet,
    share_places,
)


def inspect(
    path: str | Path,
    out: str | Path,
    *,
    faces: FaceOptions | None = None,
    filters: FilterOptions | None = None,
    overlay: str | Path | None = None,
    landmarks: bool = False,
) -> dict:
    """Show what is taken of a video or image, or what a prepared data set holds.

    Args:
        path: A video, an image or a folder that `prepare` made.
        out: The contact sheet, a .png: one row per track, or per class and manipulation; some
            faces of each, spread evenly. Replaced if it is there.
        faces: How faces are taken of a video or image; a data set has its own options.
        filters: Which of them are too bad to be taken.
        overlay: Where to write the video or image with its faces drawn on it. All frames are
            then looked at, for the sheet as well, unless `faces.every` says otherwise, so that
            both show the same tracks; of a long video, say each tenth.
        landmarks: Draw the landmarks on the crops of the sheet.

    Returns:
        What was seen, ready for JSON. Of a video or image: `kind`, `path`, `num_frames` (those
        looked at), `num_faces` (those taken), `tracks`, `dropped` (reason to number), `warnings`,
        `sheet` and `overlay`. Of a data set: `kind`, `path`, `num_videos`, `num_faces`, `groups`
        (split, label and manipulation with their videos and faces), `dropped`, `excluded`
        (videos without a face: path and reason), `warnings` and `sheet`. Where no face was
        taken, there is no sheet, and `failed` says why, as path and error.

    Raises:
        OSError: If the path is not there or cannot be read, or `out` cannot be written.
        ValueError: If an option is out of its range, a name has the wrong ending, the data set
            is damaged, or `overlay` is given with a data set.
    """
    path, out = Path(path), Path(out)
    overlay = Path(overlay) if overlay is not None else None
    if not path.exists():
        raise FileNotFoundError(
            f"Expected a video, an image or a prepared data set; got {path}, which is not there. "
            "Check the path."
        )
    taken_names = {path.resolve(), overlay.resolve() if overlay else None}
    if out.suffix.lower() != ".png" or out.resolve() in taken_names:
        raise ValueError(
            "Expected a .png file for the sheet, another one than the file looked at and its "
            f"overlay; got {out}. Try {path.stem}-faces.png."
        )
    if path.is_dir():
        if overlay is not None:
            raise ValueError(
                f"Expected a video or an image to draw an overlay of; got the folder {path}. "
                "Leave the overlay out, or inspect one of its videos."
            )
        return _inspect_set(path, out, landmarks)
    faces, filters = faces or FaceOptions(), filters or FilterOptions()
    check_face_options(faces, filters)
    if overlay is not None:
        check_overlay(path, overlay)
        faces = dataclasses.replace(faces, every=faces.every or 1)
    return _inspect_file(path, out, faces, filters, overlay, landmarks)


def summarize(summary: dict) -> str:
    """Put what `inspect` saw into lines for a terminal."""
    lines = []
    if summary["kind"] == "data set":
        lines += [
            f"{summary['path']}: {_count(summary['num_faces'], 'face')} of "
            f"{_count(summary['num_videos'], 'video')}"
        ]
        lines += [
            f"{group['split']:5}  {_name_group(group['label'], group['manipulation'])}: "
            f"{_count(group['num_faces'], 'face')} of {_count(group['num_videos'], 'video')}"
            for group in summary["groups"]
        ]
        lines += [f"no face: {video['path']}: {video['reason']}" for video in summary["excluded"]]
    else:
        lines += [f"{summary['path']}: {_describe_taken(summary)}"]
        lines += [
            f"track {track['track_id']}: {', '.join(_describe_track(track))}"
            for track in summary["tracks"]
        ]
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    if summary["dropped"]:
        lines.append(_describe_dropped(summary["dropped"]))
    lines += [f"{failure['path']}: {failure['error']}" for failure in summary.get("failed", [])]
    lines += [f"{name}: {summary[name]}" for name in ("sheet", "overlay") if summary.get(name)]
    return "\n".join(lines)


def _inspect_file(
    path: Path,
    out: Path,
    options: FaceOptions,
    filters: FilterOptions,
    overlay: Path | None,
    landmarks: bool,
) -> dict:
    found = extract_faces(path, options, filters)
    taken = Counter(face.track_id for face in found.faces)
    summary = {
        "kind": "file",
        "path": str(path),
        "num_frames": found.num_frames,
        "num_faces": len(found.faces),
        "tracks": [_sum_up_track(track, taken[track.track_id]) for track in found.tracks],
        "dropped": found.dropped,
        "warnings": found.warnings,
        "sheet": None,
        "overlay": None,
    }
    if found.faces:
        out.parent.mkdir(parents=True, exist_ok=True)
        _draw_tracks(path, out, found, summary, landmarks)
        summary["sheet"] = str(out)
    else:
        error = "no face that may be taken" if found.dropped else "no face was found"
        error += f" in {_count(found.num_frames, 'frame')} looked at; no sheet is written"
        summary["failed"] = [{"path": str(path), "error": error}]
    if overlay is not None:
        overlay.parent.mkdir(parents=True, exist_ok=True)
        draw_overlay(path, overlay, options)
        summary["overlay"] = str(overlay)
    return summary


def _sum_up_track(track: Track, num_taken: int) -> dict:
    return {
        "track_id": track.track_id,
        "num_faces": track.num_faces,
        "num_taken": num_taken,
        "confidence": round(track.confidence, 3),
        "width": round(track.width, 1),
        "start_s": round(track.start_s, 3),
        "end_s": round(track.end_s, 3),
    }


def _draw_tracks(path: Path, out: Path, found: Extraction, summary: dict, landmarks: bool) -> None:
    by_track: dict[int, list[Face]] = defaultdict(list)
    for face in found.faces:
        by_track[face.track_id].append(face)
    # Those taken come first where there are too many to show.
    tracks = summary["tracks"]
    shown = _largest(range(len(tracks)), [(t["num_taken"], t["num_faces"]) for t in tracks])
    members = [by_track[tracks[index]["track_id"]] for index in shown]
    rows = []
    for index, faces, places in zip(
        shown, members, share_places([len(m) for m in members]), strict=True
    ):
        track = tracks[index]
        notes = _describe_track(track)
        if places < len(faces):
            notes.append(f"{places} of {len(faces)} shown")
        rows.append(
            SheetRow(
                title=f"track {track['track_id']}",
                notes=notes,
                faces=[_show_face(face, landmarks) for face in choose_evenly(faces, places)],
                colour=track_colour(track["track_id"]),
            )
        )
    notes = [_describe_taken(summary), *found.warnings]
    if found.dropped:
        notes.append(_describe_dropped(found.dropped))
    if len(rows) < len(tracks):
        notes.append(f"{len(rows)} of {len(tracks)} tracks are shown, those with the most faces")
    draw_sheet(out, rows, title=path.name, notes=notes)


def _show_face(face: Face, landmarks: bool) -> SheetFace:
    caption = (
        f"frame {face.frame_index}, {face.time_s:.2f} s\n"
        f"{face.box.width} px, sharp {face.quality.sharpness:.0f}"
    )
    return SheetFace(face.crop, caption, face.landmarks if landmarks else None)


def _inspect_set(directory: Path, out: Path, landmarks: bool) -> dict:
    columns = ["split", "label", "manipulation", "video_id", "shard", "offset"]
    faces, videos = read_faces(directory, columns=columns).to_pydict(), read_videos(directory)
    num_faces = len(faces["video_id"])
    dropped: Counter = Counter()
    for video in videos:
        dropped.update(video.dropped)
    summary = {
        "kind": "data set",
        "path": str(directory),
        "num_videos": len(videos),
        "num_faces": num_faces,
        "groups": _count_groups(faces, videos),
        "dropped": dict(dropped),
        "excluded": [
            {"path": video.path, "reason": video.reason} for video in videos if not video.num_faces
        ],
        "warnings": [f"{video.path}: {video.warning}" for video in videos if video.warning],
        "sheet": None,
    }
    if not num_faces:
        error = "the data set holds no face; no sheet is written"
        return summary | {"failed": [{"path": str(directory), "error": error}]}
    out.parent.mkdir(parents=True, exist_ok=True)
    _draw_groups(directory, out, faces, summary, landmarks)
    return summary | {"sheet": str(out)}


def _count_groups(faces: dict[str, list], videos: list[VideoRow]) -> list[dict]:
    # Of the faces, since they may be split singly; and of the videos, for those without a face.
    counts: Counter = Counter()
    members: dict[tuple, set[str]] = defaultdict(set)
    for split, label, manipulation, video_id, *_ in zip(*faces.values(), strict=True):
        key = (SPLITS.index(split), label, manipulation)
        counts[key] += 1
        members[key].add(video_id)
    for video in videos:
        if video.split:
            key = (SPLITS.index(video.split), video.label, video.manipulation)
            members[key].add(video.video_id)
    return [
        {
            "split": SPLITS[split],
            "label": LABEL_NAMES[label],
            "manipulation": manipulation,
            "num_videos": len(video_ids),
            "num_faces": counts[split, label, manipulation],
        }
        for (split, label, manipulation), video_ids in sorted(members.items())
    ]


def _draw_groups(
    directory: Path, out: Path, faces: dict[str, list], summary: dict, landmarks: bool
) -> None:
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(faces["label"], faces["manipulation"], strict=True)):
        groups[key].append(index)
    keys = sorted(groups)
    shown = [keys[i] for i in _largest(range(len(keys)), [len(groups[key]) for key in keys])]
    places = share_places([len(groups[key]) for key in shown])
    chosen = {
        key: choose_over_videos(faces["video_id"], groups[key], count)
        for key, count in zip(shown, places, strict=True)
    }
    wanted = sorted({index for of in chosen.values() for index in of})
    crops = read_crops(directory, faces["shard"], faces["offset"], wanted)
    table = read_faces(directory).take(pa.array(wanted))
    rows = dict(zip(wanted, to_rows(table, FaceRow), strict=True))
    sheet_rows = []
    for label, manipulation in shown:
        indices, members = chosen[label, manipulation], groups[label, manipulation]
        num_videos = len({faces["video_id"][index] for index in members})
        notes = [_count(len(members), "face"), f"of {_count(num_videos, 'video')}"]
        if len(indices) < len(members):
            notes.append(f"{len(indices)} of {len(members)} shown")
        sheet_rows.append(
            SheetRow(
                title=_name_group(LABEL_NAMES[label], manipulation),
                notes=notes,
                faces=[_show_row(rows[index], crops[index], landmarks) for index in indices],
            )
        )
    notes = [f"{_count(summary['num_faces'], 'face')} of {_count(summary['num_videos'], 'video')}"]
    if len(shown) < len(keys):
        notes.append(f"{len(shown)} of {len(keys)} kinds are shown, those with the most faces")
    draw_sheet(out, sheet_rows, title=directory.resolve().name, notes=notes)


def _show_row(row: FaceRow, crop: np.ndarray, landmarks: bool) -> SheetFace:
    # What follows the data set and the class, for the rest stands beside the row.
    parts = [part for part in row.video_id.split("/")[2:] if part != row.manipulation]
    name = "/".join(parts[-2:]) or row.video_id
    caption = f"{name}\n{row.split}, frame {row.frame_index}"
    return SheetFace(crop, caption, np.reshape(row.landmarks, (-1, 2)) if landmarks else None)


def _largest(items: Sequence[int], sizes: Sequence) -> list[int]:
    """Choose what fits on a sheet: the largest, in the order they came in."""
    return sorted(sorted(items, key=lambda item: sizes[item], reverse=True)[:MOST_ROWS])


def _name_group(label: str, manipulation: str) -> str:
    return label if manipulation in ("", label) else f"{label} {manipulation}"


def _describe_taken(summary: dict) -> str:
    return (
        f"{_count(summary['num_frames'], 'frame')} looked at, "
        f"{_count(summary['num_faces'], 'face')} taken"
    )


def _describe_track(track: dict) -> list[str]:
    num_faces, num_taken = track["num_faces"], track["num_taken"]
    start, end = f"{track['start_s']:.1f}", f"{track['end_s']:.1f}"
    taken = "all taken" if num_taken == num_faces else f"{num_taken or 'none'} taken"
    return [
        _count(num_faces, "face"),
        f"{start}-{end} s" if start != end else f"at {start} s",
        f"confidence {track['confidence']:.1f}",
        taken,
    ]


def _describe_dropped(dropped: dict[str, int]) -> str:
    return "left out: " + ", ".join(f"{count} ({reason})" for reason, count in dropped.items())


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
