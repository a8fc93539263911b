"""The paper's Table 1 and Fig. 2: how many faces there are, and what they look like.

Takes prepared data sets; gives counts beside the paper's, and a picture of samples. Trains
nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import jdfd_keras
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import choose_over_videos, read_crops
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, UNLABELLED
from jdfd_keras.experiments.plan import DATA, TABLE_1
from jdfd_keras.experiments.sets import DataSet, describe_sets, name_set

NAME = "statistics"
SAMPLES = 8  # faces of each data set and manipulation in the picture
ALL = "all"  # manipulations together


def count_sets(
    sets: Mapping[str, DataSet], missing: Mapping[str, str], keys: Sequence[str]
) -> dict:
    """Count the faces and videos of each split and class.

    Args:
        sets: Those that are there.
        missing: Why others are not.
        keys: All of them, in the order of the table.

    Returns:
        `experiment`, `title`, `sets` with `counts` (a dict for each split, label and manipulation,
        and for all manipulations together) and `published` (split to label to faces), `protocol`,
        `notes`; and `failed`, a sentence for each set that is not there or damaged.
    """
    failed, entries, unlabelled = [], [], []
    for key in keys:
        counts = None
        if key in missing:
            failed.append(missing[key])
        else:
            try:
                counts = _count(sets[key].directory)
            except (OSError, ValueError) as error:
                failed.append(f"data set {key} cannot be counted: {error}")
        if counts and any(entry["label"] == LABEL_NAMES[UNLABELLED] for entry in counts):
            unlabelled.append(name_set(key))
        entries.append({"key": key, "counts": counts, "published": TABLE_1.get(key)})
    report = {
        "experiment": NAME,
        "title": "Faces of each data set (the paper's Table 1)",
        "sets": entries,
        "protocol": {
            "sets": {key: found.options for key, found in sets.items()},
            "versions": {"jdfd_keras": jdfd_keras.__version__},
        },
        "notes": [
            *describe_sets(sets),
            "The paper has no faces for validation; here the epoch is chosen on them, and they "
            "are taken of what is not for testing.",
            DATA,
            "It counts faces alone. Its splits are 85 to 15 in each cell, which is what drawing "
            "single faces gives.",
        ],
    }
    if unlabelled:
        report["notes"].append(f"Unlabelled faces of {' and '.join(unlabelled)} are in no column.")
    return report | ({"failed": failed} if failed else {})


def find_count(counts: Sequence[dict], split: str, label: str, manipulation: str = ALL) -> dict:
    """Find the faces and videos of one split and class; none are 0."""
    wanted = (split, label, manipulation)
    for entry in counts:
        if (entry["split"], entry["label"], entry["manipulation"]) == wanted:
            return entry
    return {"split": split, "label": label, "manipulation": manipulation, "faces": 0, "videos": 0}


def draw_samples(report: dict, out: Path, sets: Mapping[str, DataSet]) -> str | None:
    """Draw faces of each data set, the real ones and each manipulation, as in Fig. 2.

    Returns:
        The name of the .png; None where there is no face.

    Raises:
        OSError: If a shard is not there.
        ValueError: If one is damaged.
    """
    from jdfd_keras.reporting.face_grids import plot_samples

    rows = {}
    for entry in report["sets"]:
        if entry["counts"]:
            rows |= _choose(entry["key"], sets[entry["key"]].directory)
    if not rows:
        return None
    plot_samples(out / NAME, rows)
    return f"{NAME}.png"


def _count(directory: Path) -> list[dict]:
    table = read_faces(directory, columns=["video_id", "split", "label", "manipulation"])
    found = []
    for names in (["split", "label", "manipulation"], ["split", "label"]):
        grouped = table.group_by(names).aggregate(
            [("video_id", "count"), ("video_id", "count_distinct")]
        )
        found += [
            {
                "split": row["split"],
                "label": LABEL_NAMES[row["label"]],
                "manipulation": row.get("manipulation", ALL),
                "faces": row["video_id_count"],
                "videos": row["video_id_count_distinct"],
            }
            for row in grouped.to_pylist()
        ]
    return sorted(
        found,
        key=lambda entry: (
            SPLITS.index(entry["split"]),
            entry["label"] != "real",
            entry["manipulation"],
        ),
    )


def _choose(key: str, directory: Path) -> dict[str, list[np.ndarray]]:
    """Choose faces over all videos; by name, real ones first."""
    table = read_faces(directory, columns=["video_id", "label", "manipulation", "shard", "offset"])
    plain = {
        name: table[name].cast(pa.string()).to_pylist()
        for name in ("video_id", "manipulation", "shard")
    }
    offsets = table["offset"].to_numpy()
    rows = {}
    for label in CLASSES.values():
        own = np.flatnonzero(pc.equal(table["label"], label).to_numpy())
        for manipulation in sorted({plain["manipulation"][index] for index in own}):
            indices = [i for i in own.tolist() if plain["manipulation"][i] == manipulation]
            chosen = choose_over_videos(plain["video_id"], indices, SAMPLES)
            crops = read_crops(directory, plain["shard"], offsets, chosen)
            name = f"{name_set(key)} {manipulation or LABEL_NAMES[label]}"
            rows[name] = [crops[index] for index in chosen]
    return rows
