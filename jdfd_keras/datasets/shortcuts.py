"""Shortcuts: properties of the files, other than the faces, that separate real from fake videos.

Takes the tables of a prepared dataset; reads no images.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from jdfd_keras.datasets.auc_interval import find_auc_interval
from jdfd_keras.datasets.manifest import VideoRow
from jdfd_keras.datasets.videos import CLASSES, has_known_source
from jdfd_keras.io.results import Result

# A property of the file is a shortcut if its AUC is this far from 0.5 and not by chance (two
# standard errors).
SHORTCUT_AUC = 0.7
FOLDS = 5  # of the videos, for a property of categories
COMPRESSIONS = {"raw": 0, "c23": 1, "c40": 2}


@dataclass(frozen=True)
class Shortcut(Result):
    """Separation of fake from real videos by a property of the files, not of the faces."""

    measure: str
    num_videos: int  # that have the property
    auc: float | None  # of the property as the only score; None if a class has too few videos
    is_shortcut: bool  # whether a detector could use it instead of the face
    # Of a category: the value whose number of fakes differs most from the expected one.
    value: str | None = None
    fake_share: float | None = None  # among the videos with this value
    low: float | None = None  # bounds of the 95 % interval of the AUC, if there is one
    high: float | None = None


def measure_shortcuts(videos: Sequence[VideoRow], faces: pa.Table) -> list[Shortcut]:
    """Measure how well each property of the files separates fake from real videos.

    Args:
        videos: The videos of a dataset.
        faces: Their faces, with the columns `video_id`, `sharpness` and `box`.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces, read_videos
        >>> faces = read_faces("prepared", columns=["video_id", "sharpness", "box"])
        >>> measure_shortcuts(read_videos("prepared"), faces)[1]
        Shortcut(measure='frame size', num_videos=16, auc=0.5, is_shortcut=False, value=None, ...
    """
    boxes = faces["box"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
    means = (
        faces.select(["video_id", "sharpness"])
        .append_column("face_width", [boxes[:, 2] - boxes[:, 0]])
        .group_by("video_id")
        .aggregate([("sharpness", "mean"), ("face_width", "mean")])
        .to_pandas()
        .set_index("video_id")
    )
    table = pd.DataFrame(map(vars, videos)).join(means, on="video_id")
    table = table[table.label.isin(CLASSES.values())]
    measures = {
        "file size": table.file_bytes,
        "frame size": (table.width * table.height).where(table.width > 0),
        "compression (raw, c23, c40)": table.compression.map(COMPRESSIONS),
        "JPEG quality": table.jpeg_quality.where(table.jpeg_quality > 0),
        "faces found per frame": table.num_faces / table.num_frames.where(table.num_frames > 0),
        "sharpness": table.sharpness_mean,
        "width of the detected face": table.face_width_mean,
        "frame rate": table.frame_rate.where(table.frame_rate > 0),
        "duration": table.duration_s.where(table.duration_s > 0),
        "bit rate": table.bit_rate.where(table.bit_rate > 0),
    }
    is_decoded = table.codec != ""
    categories = {
        "codec": table.codec,
        "pixel format": table.pixel_format,
        "encoder": table.encoder.replace("", "not stated"),
    }
    shortcuts = [
        (_measure_shortcut(name, values, table.label), values.notna())
        for name, values in measures.items()
    ]
    shortcuts += [
        (_measure_category(name, values[is_decoded], table.label[is_decoded]), is_decoded)
        for name, values in categories.items()
    ]
    return [_add_interval(shortcut, table.loc[rows]) for shortcut, rows in shortcuts]


def _add_interval(shortcut: Shortcut, table: pd.DataFrame) -> Shortcut:
    """Add the interval of the AUC, with videos of the same sources and class as one case."""
    if shortcut.auc is None:
        return shortcut
    # A video of unknown source is a case of its own.
    cases = table.source_ids.map(tuple).where(
        table.source_ids.map(has_known_source), table.video_id
    )
    counts = [cases[table.label == label].nunique() for label in CLASSES.values()]
    low, high = find_auc_interval(shortcut.auc, *counts)
    return dataclasses.replace(shortcut, low=low, high=high)


def _measure_shortcut(name: str, values: pd.Series, labels: pd.Series) -> Shortcut:
    values = values.dropna()
    labels = labels.loc[values.index]
    auc = float(roc_auc_score(labels, values)) if labels.nunique() == 2 else None
    is_shortcut = auc is not None and _is_telling(abs(auc - 0.5), labels)
    return Shortcut(name, len(labels), auc, is_shortcut)


def _measure_category(name: str, values: pd.Series, labels: pd.Series) -> Shortcut:
    """Measure a property without an order by the share of fakes of each of its values.

    The share is that of other videos (TargetEncoder), and only videos that share those others are
    compared: an uninformative property, and one that differs in every video, have an AUC of 0.5.
    """
    num_folds = min(FOLDS, int(labels.sum()), int((1 - labels).sum()))
    if num_folds < 2:
        return Shortcut(name, len(labels), auc=None, is_shortcut=False)
    table, aucs = values.to_frame(), []
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    for others, own in folds.split(table, labels):
        encoder = TargetEncoder(target_type="binary").fit(table.iloc[others], labels.iloc[others])
        aucs.append(roc_auc_score(labels.iloc[own], encoder.transform(table.iloc[own])))
    auc = float(np.mean(aucs))
    sizes, fakes, share = Counter(values), Counter(values[labels == 1]), labels.mean()
    shares = {value: fakes[value] / size for value, size in sizes.items()}
    excess = {value: abs(fakes[value] - share * size) for value, size in sizes.items()}
    value = max(sizes, key=lambda value: (round(excess[value], 6), shares[value], value))
    # Below 0.5, fakes have values that are rare among other fakes: that identifies no class.
    is_shortcut = _is_telling(auc - 0.5, labels)
    return Shortcut(name, len(labels), auc, is_shortcut, value, shares[value])


def _is_telling(distance: float, labels: pd.Series) -> bool:
    num_fake = int(labels.sum())
    num_real = len(labels) - num_fake
    # Of an uninformative measure (Mann and Whitney).
    standard_error = ((num_real + num_fake + 1) / (12 * num_real * num_fake)) ** 0.5
    return distance >= SHORTCUT_AUC - 0.5 and distance > 2 * standard_error
