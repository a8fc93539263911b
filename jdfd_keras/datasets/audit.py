"""Prepared data sets in, what a reviewer would ask of them out.

Takes folders that `prepare` made; gives counts, leaks between splits and data sets, and what tells
real from fake without looking at a face. The pictures of near-duplicates are all that is read of
the shards.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from jdfd_keras.datasets.leakage import COLUMNS, Leaks, NearPair, by_split, count_of, find_leaks
from jdfd_keras.datasets.manifest import (
    FaceRow,
    VideoRow,
    read_faces,
    read_listing,
    read_videos,
    schema_of,
)
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.splits import kind_of
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, family
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions, SplitOptions
from jdfd_keras.reporting.contact_sheet import SheetFace, SheetRow, draw_sheet
from jdfd_keras.reporting.dataset_report import render_audit

MOST_LISTED = 1000  # of each kind of finding in a report; the counts are of all
MOST_PICTURES = 24
# A measure of the file alone that tells the classes apart so well, and not by chance (two standard
# errors), is called a shortcut.
STRONG_AUC = 0.7
COMPRESSIONS = {"raw": 0, "c23": 1, "c40": 2}
PICTURES = "near-duplicates.png"
# What sums up the rows of a set, and what is compared between splits.
READ = (*COLUMNS, "split", "label", "manipulation", "compression", "sharpness", "box")


def audit(directories: Sequence[str | Path], out: str | Path | None = None) -> dict:
    """Look at one or several prepared data sets.

    Args:
        directories: The data sets; what lies in training of one and in testing of another is a
            leak too.
        out: Folder for audit.json, audit.md and, if there are any, near-duplicates.png; made if it
            is not there, files of these names are replaced.

    Returns:
        `sets`, a dict for each: `name`, `split`, `counts` (split, label, manipulation and
        compression with their videos and faces), `fake_share`, `without_faces`, `left_out`,
        `missing`, `unknown` and `shortcuts`; `across`, the sources that several sets have;
        `alignments`, how the crops of each are laid; `leaks`, with `shared_sources` and
        `near_duplicates`; and, where something leaks, `failed`, a sentence for each kind. Ready
        for JSON.

    Raises:
        OSError: If a folder is no prepared data set.
        ValueError: If one is damaged, given twice, or was made by another version.
    """
    directories = [Path(directory) for directory in directories]
    names = _name_sets(directories)
    faces = [read_faces(directory, columns=READ) for directory in directories]
    sets = [
        _describe_set(name, directory, table)
        for name, directory, table in zip(names, directories, faces, strict=True)
    ]
    leaks, origins = _find_all_leaks(faces)
    report = {
        "sets": sets,
        "across": _find_sources_across(names, faces),
        "alignments": _name_alignments(names, directories),
        "leaks": _describe_leaks(leaks),
    }
    failed = [
        f"{count_of(found, noun)}{rest} in two splits"
        for found, noun, rest in (
            (leaks.sources, "source", ""),
            (leaks.near, "pair", " of videos with near-duplicate faces"),
        )
        if found
    ]
    if failed:
        report["failed"] = failed
    if out is not None:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / PICTURES).unlink(missing_ok=True)
        if leaks.near:
            _draw_pairs(out / PICTURES, leaks.near, origins, directories)
            report["leaks"]["near_duplicates"]["picture"] = PICTURES
        text = json.dumps(report, indent=1) + "\n"
        (out / "audit.json").write_text(text, encoding="utf-8")
        (out / "audit.md").write_text(render_audit(report), encoding="utf-8")
    return report


def _name_sets(directories: list[Path]) -> list[str]:
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise ValueError(
            f"Expected each data set once; got {', '.join(map(str, directories))}. Leave out what "
            "stands twice."
        )
    names = [directory.name for directory in resolved]
    return names if len(set(names)) == len(names) else [str(directory) for directory in directories]


def _find_all_leaks(faces: list[pa.Table]) -> tuple[Leaks, dict[str, np.ndarray]]:
    """Find leaks between the splits of all sets together.

    Returns:
        The leaks; and for each split int64[n, 2], of each of its faces the set and the row there.
    """
    columns = [*COLUMNS, "split"]
    plain = pa.schema([schema_of(FaceRow).field(name) for name in columns])
    whole = pa.concat_tables([table.select(columns).cast(plain) for table in faces])
    origin = np.concatenate(
        [
            np.stack([np.full(len(table), number), np.arange(len(table))], axis=1)
            for number, table in enumerate(faces)
        ]
    )
    splits = np.asarray(whole["split"].cast(pa.string()))
    return find_leaks(by_split(whole)), {split: origin[splits == split] for split in SPLITS}


def _describe_set(name: str, directory: Path, faces: pa.Table) -> dict:
    videos = read_videos(directory)
    listing = read_listing(directory)
    by = ["split", "label", "manipulation", "compression"]
    grouped = (
        faces.select([*by, "video_id"])
        .group_by(by)
        .aggregate([("video_id", "count"), ("video_id", "count_distinct")])
    )
    groups = [
        {
            "split": row["split"],
            "label": LABEL_NAMES[row["label"]],
            "manipulation": row["manipulation"],
            "compression": row["compression"],
            "videos": row["video_id_count_distinct"],
            "faces": row["video_id_count"],
        }
        for row in grouped.to_pylist()
    ]
    groups.sort(
        key=lambda group: (
            SPLITS.index(group["split"]),
            group["label"] != "real",
            group["manipulation"],
            group["compression"],
        )
    )
    without = [row for row in videos if not row.num_faces]
    return {
        "name": name,
        "directory": str(directory),
        "split": load_options(directory / OPTIONS, "split", SplitOptions).split,
        "videos": len(videos),
        "faces": len(faces),
        "counts": groups,
        "fake_share": {split: _fake_share(groups, split) for split in SPLITS},
        "without_faces": {
            "count": len(without),
            "by_label": dict(Counter(LABEL_NAMES[row.label] for row in without)),
            "videos": [
                {"video_id": row.video_id, "reason": row.reason} for row in without[:MOST_LISTED]
            ],
        },
        "left_out": dict(Counter(map(kind_of, listing["left_out"].values()))),
        "missing": len(listing["missing"]),
        "unknown": len(listing["unknown"]),
        "shortcuts": _measure_shortcuts(videos, faces),
    }


def _fake_share(groups: list[dict], split: str) -> float | None:
    faces = Counter()
    for group in groups:
        if group["split"] == split:
            faces[group["label"]] += group["faces"]
    total = faces["fake"] + faces["real"]
    return faces["fake"] / total if total else None


def _measure_shortcuts(videos: list[VideoRow], faces: pa.Table) -> list[dict]:
    """Measure how well each number that is no face tells fake videos from real ones, by itself."""
    means = faces.select(["video_id"]).append_column("sharpness", faces["sharpness"])
    boxes = faces["box"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
    means = means.append_column("width", pa.array(boxes[:, 2] - boxes[:, 0]))
    means = means.group_by("video_id").aggregate([("sharpness", "mean"), ("width", "mean")])
    by_video = {row["video_id"]: row for row in means.to_pylist()}
    measures = {
        "file size": lambda row: row.file_bytes,
        "frame size": lambda row: row.width * row.height or None,
        "compression (raw, c23, c40)": lambda row: COMPRESSIONS.get(row.compression),
        "JPEG quality": lambda row: row.jpeg_quality or None,
        "faces found per frame": lambda row: (
            row.num_faces / row.num_frames if row.num_frames else None
        ),
        "sharpness": lambda row: by_video.get(row.video_id, {}).get("sharpness_mean"),
        "width of the detected face": lambda row: by_video.get(row.video_id, {}).get("width_mean"),
    }
    labelled = [row for row in videos if row.label in CLASSES.values()]
    found = []
    for name, measure in measures.items():
        pairs = [(row.label, value) for row in labelled if (value := measure(row)) is not None]
        labels = [label for label, _ in pairs]
        auc, strong = None, False
        if len(set(labels)) == 2:
            auc = float(roc_auc_score(labels, [value for _, value in pairs]))
            away = abs(auc - 0.5)
            strong = away >= STRONG_AUC - 0.5 and away > 2 * _chance_error(labels)
        found.append({"measure": name, "videos": len(pairs), "auc": auc, "is_shortcut": strong})
    return found


def _chance_error(labels: list[int]) -> float:
    """Give the standard error of the AUC of a measure that tells nothing (Mann and Whitney)."""
    num_fake = sum(labels)
    num_real = len(labels) - num_fake
    return ((num_real + num_fake + 1) / (12 * num_real * num_fake)) ** 0.5


def _find_sources_across(names: list[str], faces: list[pa.Table]) -> dict:
    """Count the sources that each two of the sets share."""
    sources = []
    for table in faces:
        pairs = table.select(["video_id", "source_ids"])
        column = pairs["video_id"].cast(pa.string()).combine_chunks().dictionary_encode()
        _, first = np.unique(column.indices.to_numpy(), return_index=True)
        rows = pairs.take(pa.array(first)).to_pylist()
        sources.append(
            {f"{family(row['video_id'])}/{source}" for row in rows for source in row["source_ids"]}
        )
    shared = [
        {
            "sets": [names[i], names[j]],
            "count": len(both),
            "sources": sorted(both)[:MOST_LISTED],
        }
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if (both := sources[i] & sources[j])
    ]
    return {"shared_sources": shared}


def _name_alignments(names: list[str], directories: list[Path]) -> dict[str, str]:
    """Say how the crops of each set are laid: those laid differently are not found to be alike."""
    found = {}
    for name, directory in zip(names, directories, strict=True):
        faces = load_options(directory / OPTIONS, "faces", FaceOptions)
        found[name] = f"{faces.alignment}, margin {faces.margin:g}"
    return found


def _describe_leaks(leaks: Leaks) -> dict:
    return {
        "shared_sources": {
            "count": len(leaks.sources),
            "sources": [
                {"source": entry.source, "places": entry.places}
                for entry in leaks.sources[:MOST_LISTED]
            ],
        },
        "near_duplicates": {
            "count": len(leaks.near),
            "pairs": [
                {
                    "splits": list(pair.sides),
                    "videos": list(pair.videos),
                    "faces": pair.num_faces,
                    "bits": pair.bits,
                }
                for pair in leaks.near[:MOST_LISTED]
            ],
        },
    }


def _draw_pairs(
    path: Path, pairs: list[NearPair], origins: dict[str, np.ndarray], directories: list[Path]
) -> None:
    shown = pairs[:MOST_PICTURES]
    places = [
        [tuple(origins[side][row]) for side, row in zip(pair.sides, pair.rows, strict=True)]
        for pair in shown
    ]
    crops, captions = {}, {}
    for number, directory in enumerate(directories):
        wanted = {int(row) for pair in places for where, row in pair if where == number}
        if wanted:
            faces = read_faces(directory, columns=["video_id", "frame_index", "shard", "offset"])
            shards = faces["shard"].cast(pa.string()).to_pylist()
            offsets = faces["offset"].to_numpy()
            for row, crop in read_crops(directory, shards, offsets, wanted).items():
                crops[number, row] = crop
                video_id, frame_index, *_ = faces.slice(row, 1).to_pylist()[0].values()
                # The family by itself: captions are as narrow as the faces.
                captions[number, row] = f"{video_id.replace('/', chr(10), 1)}\nframe {frame_index}"
    size = next(iter(crops.values())).shape[1::-1]
    draw_sheet(
        path,
        [
            SheetRow(
                title=" and ".join(pair.sides),
                notes=[
                    f"{pair.num_faces} pair{'' if pair.num_faces == 1 else 's'} of faces",
                    f"{pair.bits} of 256 bits differ at least",
                ],
                faces=[SheetFace(cv2.resize(crops[place], size), captions[place]) for place in own],
            )
            for pair, own in zip(shown, places, strict=True)
        ],
        title="Nearly the same face in two splits",
        notes=[f"{len(shown)} of {len(pairs)} pairs of videos"],
    )
