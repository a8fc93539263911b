"""Number of faces and videos of prepared datasets, and samples: the paper's Table 1 and Fig. 2.

`count_datasets` takes prepared datasets; it returns counts with the paper's, and some face crops
of each dataset and manipulation. Trains nothing and imports no TensorFlow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import jdfd_keras
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.records import choose_over_videos, read_crops
from jdfd_keras.datasets.videos import LABEL_NAMES, UNLABELLED, count_by
from jdfd_keras.experiments.plan import TABLE_1
from jdfd_keras.experiments.sets import ExperimentDataset, ExperimentReport, dataset_name
from jdfd_keras.io.results import Result

STATISTICS = "statistics"
SAMPLES = 8  # faces of each dataset and manipulation in the figure
ALL = "all"  # manipulations together
COLUMNS = ["video_id", "split", "label", "manipulation", "shard", "offset"]


@dataclass(frozen=True, kw_only=True)
class CountRow(Result):
    """One row of the table of counts.

    Attributes:
        kind: `measured`, `published` (by the paper) or `failed`.
        data: Key of the dataset.
        split: `train`, `val` or `test`.
        label: `real`, `fake` or `unlabelled`.
        manipulation: Name of the manipulation, empty for real faces, or ALL.
        faces: Number of faces.
        videos: Number of videos; None if published.
        source: The paper's table, or the reason of the failure.
    """

    kind: str
    data: str
    split: str = ""
    label: str = ""
    manipulation: str = ""
    faces: int | None = None
    videos: int | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class CountReport(ExperimentReport):
    """The report of `statistics`.

    Attributes:
        keys: Keys of all datasets, in the order of the table.
        results: The counts of each dataset.
        samples: Face crops, uint8[size, size, 3] RGB, by dataset and manipulation; not in JSON.
    """

    keys: tuple[str, ...]
    results: tuple[CountRow, ...]
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
        >>> from jdfd_keras.experiments.sets import inspect_datasets
        >>> report = count_datasets(*inspect_datasets({"ff": "prepared"}), ["ff"])
        >>> [(row.split, row.label, row.faces, row.videos) for row in report.results[:2]]
        [('train', 'real', 20, 5), ('train', 'fake', 14, 4)]
    """
    rows, samples = [], {}
    for key in keys:
        reason = missing.get(key, "")
        if not reason:
            try:
                table = sets[key].options["split"]["table"]
                faces = read_faces(sets[key].directory, split_table=table, columns=COLUMNS)
                faces = faces.filter(pc.field("split") != "")  # excluded by the split table
                rows += _count(key, faces)
                samples |= _read_samples(dataset_name(key), sets[key].directory, faces)
            except (OSError, ValueError) as error:
                reason = f"dataset {key} cannot be read: {error}"
        if reason:
            rows.append(CountRow(kind="failed", data=key, source=" ".join(reason.split())))
        for split, labels in TABLE_1.get(key, {}).items():
            for label, faces in labels.items():
                group = CountRow(kind="published", data=key, split=split, label=label)
                rows.append(replace(group, manipulation=ALL, faces=faces, source="Table 1"))
    return CountReport(
        experiment=STATISTICS,
        title="Faces of each dataset (the paper's Table 1)",
        versions={"jdfd_keras": jdfd_keras.__version__},
        datasets={key: dataset.options for key, dataset in sets.items()},
        failed=tuple(row.source for row in rows if row.kind == "failed"),
        keys=tuple(keys),
        results=tuple(rows),
        samples=samples,
    )


def _count(key: str, faces: pa.Table) -> list[CountRow]:
    groups = count_by(faces, "split", "label") + count_by(faces, "split", "label", "manipulation")
    return [
        CountRow(
            kind="measured",
            data=key,
            split=group.split or "",
            label=group.label or "",
            manipulation=ALL if group.manipulation is None else group.manipulation,
            faces=group.num_faces,
            videos=group.num_videos,
        )
        for group in groups
    ]


def _read_samples(name: str, directory: Path, faces: pa.Table) -> dict[str, list[np.ndarray]]:
    """Read faces of as many videos as possible, real ones first, then each manipulation."""
    table = faces.to_pandas().astype({"video_id": str, "manipulation": str, "shard": str})
    samples = {}
    labelled = table.loc[table.label != UNLABELLED]
    for (label, manipulation), group in labelled.groupby(["label", "manipulation"]):
        chosen = choose_over_videos(table.video_id, group.index, SAMPLES)
        crops = read_crops(directory, table.shard, table.offset, chosen)
        samples[f"{name} {manipulation or LABEL_NAMES[label]}"] = list(crops.values())
    return samples
