"""Number of faces and videos of prepared datasets, and samples: the paper's Table 1 and Fig. 2.

`count_datasets` takes prepared datasets; it returns counts with the paper's, and some face crops
of each dataset and manipulation. Trains nothing and imports no TensorFlow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import jdfd_keras
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import choose_over_videos, read_crops
from jdfd_keras.datasets.videos import (
    CLASSES,
    LABEL_NAMES,
    SPLITS,
    UNLABELLED,
    FaceCount,
    count_by,
)
from jdfd_keras.experiments.plan import PAPER_DATA, TABLE_1
from jdfd_keras.experiments.sets import (
    ExperimentDataset,
    ExperimentReport,
    PreparedOptions,
    dataset_name,
    describe_datasets,
)
from jdfd_keras.io.results import Result

STATISTICS = "statistics"
SAMPLES = 8  # faces of each dataset and manipulation in the figure
ALL = "all"  # manipulations together, in tables


@dataclass(frozen=True)
class DatasetCounts(Result):
    """The counts of one dataset.

    Attributes:
        key: Key of the dataset.
        counts: Counts by split, label and manipulation, and of all manipulations together, with
            None as `manipulation`; None for a dataset that is missing or damaged.
        published: Number of faces in the paper by split and class; None for other datasets.
        options: Options that it was prepared with; None for a dataset that is missing.
    """

    key: str
    counts: tuple[FaceCount, ...] | None
    published: dict[str, dict[str, int]] | None
    options: PreparedOptions | None

    def find(self, split: str, label: str, manipulation: str | None = None) -> FaceCount:
        """Return the count of one split, class and manipulation; zero if there is none."""
        group = (split, label, manipulation)
        for count in self.counts or ():
            if (count.split, count.label, count.manipulation) == group:
                return count
        return FaceCount(0, 0, *group)


@dataclass(frozen=True, kw_only=True)
class CountReport(ExperimentReport):
    """The report of `statistics`.

    Attributes:
        sets: Counts of each dataset, in the order of the table.
        samples: Face crops, uint8[size, size, 3] RGB, by dataset and class or manipulation; not
            part of `to_dict`.
    """

    sets: tuple[DatasetCounts, ...]
    samples: dict[str, list[np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False, metadata={"json": False}
    )


def count_datasets(
    sets: Mapping[str, ExperimentDataset], missing: Mapping[str, str], keys: Sequence[str]
) -> CountReport:
    """Count the faces and videos of each split and class, and read samples of the faces.

    Args:
        sets: The datasets, by key.
        missing: Reason for each dataset that is missing.
        keys: Keys of all datasets, in the order of the table.

    Returns:
        The counts and samples. Its `failed` has one sentence for each dataset that is missing or
        damaged.

    Example:
        >>> sets, missing = inspect_datasets({"ff": "prepared"})  # doctest: +SKIP
        >>> report = count_datasets(sets, missing, ["ff"])  # doctest: +SKIP
        >>> report.sets[0].find("train", "fake").num_faces  # doctest: +SKIP
        1280
    """
    failed, entries, unlabelled, samples = [], [], [], {}
    for key in keys:
        counts = None
        if key in missing:
            failed.append(missing[key])
        else:
            try:
                counts = _count(sets[key].directory)
            except (OSError, ValueError) as error:
                failed.append(f"dataset {key} cannot be counted: {error}")
        if counts and any(count.label == LABEL_NAMES[UNLABELLED] for count in counts):
            unlabelled.append(dataset_name(key))
        options = sets[key].options if key in sets else None
        entries.append(DatasetCounts(key, counts, TABLE_1.get(key), options))
    try:
        for entry in entries:
            if entry.counts:
                samples |= _read_samples(entry.key, sets[entry.key].directory)
    except (OSError, ValueError) as error:
        failed.append(f"figure: {error}")
        samples = {}
    notes = [
        *describe_datasets({key: dataset.options for key, dataset in sets.items()}),
        "The paper has no validation faces; here the epoch is selected on them, and they are split "
        "off from the data that is not for testing.",
        PAPER_DATA,
        "The paper counts faces only. Its splits are 85:15 in each cell, as a random split of "
        "single faces would be.",
    ]
    if unlabelled:
        notes.append(f"Unlabelled faces of {' and '.join(unlabelled)} are in no column.")
    return CountReport(
        experiment=STATISTICS,
        title="Faces of each dataset (the paper's Table 1)",
        versions={"jdfd_keras": jdfd_keras.__version__},
        notes=tuple(notes),
        failed=tuple(failed),
        sets=tuple(entries),
        samples=samples,
    )


def _count(directory: Path) -> tuple[FaceCount, ...]:
    table = read_faces(directory, columns=["video_id", "split", "label", "manipulation"])
    counts = count_by(table, "split", "label", "manipulation") + count_by(table, "split", "label")

    def order(count: FaceCount) -> tuple[int, bool, str]:
        manipulation = ALL if count.manipulation is None else count.manipulation
        return SPLITS.index(count.split), count.label != "real", manipulation

    return tuple(sorted(counts, key=order))


def _read_samples(key: str, directory: Path) -> dict[str, list[np.ndarray]]:
    """Read faces of as many videos as possible, real ones first, then each manipulation."""
    table = read_faces(directory, columns=["video_id", "label", "manipulation", "shard", "offset"])
    words = {
        name: table[name].cast(pa.string()).to_pylist()
        for name in ("video_id", "manipulation", "shard")
    }
    offsets = table["offset"].to_numpy()
    samples = {}
    for label in CLASSES.values():
        rows = np.flatnonzero(pc.equal(table["label"], label).to_numpy()).tolist()
        for manipulation in sorted({words["manipulation"][row] for row in rows}):
            group = [row for row in rows if words["manipulation"][row] == manipulation]
            chosen = choose_over_videos(words["video_id"], group, SAMPLES)
            crops = read_crops(directory, words["shard"], offsets, chosen)
            name = f"{dataset_name(key)} {manipulation or LABEL_NAMES[label]}"
            samples[name] = [crops[row] for row in chosen]
    return samples
