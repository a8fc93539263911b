"""Scores in the files of other benchmarks: DeepfakeBench and deepsafe-bench.

Takes the files that these projects write, and returns the columns of a table of scores.

Reference:
    Yan et al.: "DeepfakeBench: A Comprehensive Benchmark of Deepfake Detection" (2023),
    https://github.com/SCLBD/DeepfakeBench, training/trainer/trainer.py and training/metrics/.
    https://github.com/deepsafehq/deepsafe-bench, eval/run_monolith_eval.py.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jdfd_keras.datasets.layouts.frame_tree import FrameTree, anchor
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, DatasetFiles, Video
from jdfd_keras.io.console import plural
from jdfd_keras.io.plain_pickle import MAX_BYTES, read_plain_pickle
from jdfd_keras.io.storage import LocalStore

METRICS, FRAMES = "metric_dict_best.pickle", "data_dict_test.pickle"
ENSEMBLE = "ensemble_score"  # the column of deepsafe-bench that is read by default
MAX_UNPACKED = 1024**3  # bytes of a .csv.gz file
MIN_FILES = 30  # of a generator that is measured by itself
DEEPSAFE = ("id", "modality", "label", "generator")  # beside the columns of scores


@dataclass(frozen=True, eq=False)
class BenchmarkScores:
    """Columns of a table of scores, and where they come from."""

    columns: dict[str, Any]  # as `Scores.from_faces` takes them
    checkpoint: str  # how the weights were chosen, as in the protocol of an evaluation
    coverage: str  # the files that have a score
    is_chosen_on_test: bool = False  # the weights are those with the best result on these data


def read_deepfakebench(path: str | Path) -> BenchmarkScores:
    """Read the scores of one test dataset that a training of DeepfakeBench wrote.

    Its trainer writes the scores and labels to metric_dict_best.pickle, after the epoch with the
    best result on that dataset, and the paths of the frames, in the same order, to
    data_dict_test.pickle. Video ids are those of `prepare` with the layout deepfakebench, as far as
    the paths tell them, else the folder of the frames. DeepfakeBench itself averages videos by the
    name of that folder alone, so its video AUC of FaceForensics++ differs: fakes of the four
    manipulations with one name are a single video there.

    Args:
        path: metric_dict_best.pickle, with data_dict_test.pickle beside it.

    Raises:
        ValueError: If a file is damaged or has other contents, or the two do not match.

    Example:
        >>> import pickle
        >>> frames = [f"rgb/UADFV/{name}/7.png" for name in ("real/frames/0000",
        ...                                                   "fake/frames/0000_fake")]
        >>> metrics = {"pred": np.array([0.25, 0.75]), "label": np.array([0, 1])}
        >>> _ = Path("metric_dict_best.pickle").write_bytes(pickle.dumps(metrics))
        >>> frames = {"image": frames, "label": [0, 1]}
        >>> _ = Path("data_dict_test.pickle").write_bytes(pickle.dumps(frames))
        >>> read_deepfakebench("metric_dict_best.pickle").columns["video_id"]
        ['uadfv/real/0000', 'uadfv/fake/0000_fake']
    """
    path = Path(path)
    beside = path.with_name(FRAMES)
    metrics = read_plain_pickle(path)
    score, label = (metrics.get(name) for name in ("pred", "label"))
    if not isinstance(score, np.ndarray) or not isinstance(label, np.ndarray):
        raise ValueError(
            f"Expected the arrays pred and label of DeepfakeBench in {path}; got the keys "
            f"{', '.join(list(metrics)[:8]) or 'of an empty dict'}. Give the {METRICS} of one test "
            "dataset, in LOG/test/DATASET/."
        )
    if not beside.is_file():
        raise FileNotFoundError(
            f"Expected {FRAMES} beside {path}, with the path of each frame; it is missing. Copy "
            "the whole folder LOG/test/DATASET."
        )
    listed = read_plain_pickle(beside)
    frames, classes = (listed.get(name) for name in ("image", "label"))
    first = [_first_frame(entry) for entry in frames] if isinstance(frames, Sequence) else []
    is_fake = label.reshape(-1) >= 1  # some detectors number the manipulations
    expected = np.array([value != 0 for value in classes] if isinstance(classes, Sequence) else [])
    if not len(score.reshape(-1)) == len(label.reshape(-1)) == len(first) == len(expected):
        raise ValueError(
            f"Expected a score, a label and a path of each frame in {path} and {FRAMES}; got "
            f"{score.size} scores and {label.size} labels, {plural(len(first), 'path')} and "
            f"{plural(len(expected), 'label')} of them. Both files must be of one training; a "
            "loader that drops the last batch needs a batch size that divides their number."
        )
    if (differs := is_fake != expected).any():
        raise ValueError(
            f"Expected the labels of {path} and {FRAMES} in the same order; got others for "
            f"{plural(int(differs.sum()), 'frame')}, such as {first[int(differs.argmax())]}. Both "
            "files must be of one training."
        )
    columns = _describe_frames(first, is_fake, path) | {"score": score.reshape(-1)}
    columns["data"] = [path.absolute().parent.name] * len(first)
    return BenchmarkScores(
        columns,
        "of DeepfakeBench: the weights with the best result on these test data",
        "the frames that DeepfakeBench sampled; it omits videos without a face",
        is_chosen_on_test=True,
    )


def _first_frame(entry: Any) -> str:
    """Return the path of a frame, or of the first frame of a clip."""
    is_clip = isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) > 0
    path = entry[0] if is_clip else entry
    if not isinstance(path, str) or "/" not in path.replace("\\", "/"):
        raise ValueError(
            f"Expected the path of a frame, or of the frames of a clip, in {FRAMES}; got "
            f"{str(path)[:60]!r}. Check whether DeepfakeBench wrote it."
        )
    return path.replace("\\", "/")


def _describe_frames(frames: list[str], is_fake: np.ndarray, path: Path) -> dict[str, Any]:
    """Describe frames by their paths, as `prepare` does."""
    tree = FrameTree(DatasetFiles(LocalStore("/"), "", ()))  # without the lists of a dataset
    folders = [frame.rpartition("/")[0] for frame in frames]
    stems = [frame.rpartition("/")[2].partition(".")[0] for frame in frames]
    fakes = dict(zip(folders, map(int, is_fake), strict=True))
    videos = {folder: tree.describe(folder)[0] or _name(folder) for folder in fakes}
    for folder, video in videos.items():
        if video.label in CLASSES.values() and video.label != fakes[folder]:
            raise ValueError(
                f"Expected the labels of the published datasets in {path}; got "
                f"{LABEL_NAMES[fakes[folder]]} for {folder}, which is "
                f"{LABEL_NAMES[video.label]}. Check the label_dict of DeepfakeBench's "
                "configuration."
            )
    columns: dict[str, Any] = {
        name: [getattr(videos[folder], name) for folder in folders]
        for name in ("video_id", "manipulation", "compression")
    }
    columns["label"] = is_fake.astype(np.int64)
    if all(stem.isdecimal() and len(stem) < 10 for stem in stems):
        columns["frame_index"] = [int(stem) for stem in stems]
    return columns


def _name(folder: str) -> Video:
    """Return a video of an unknown dataset, with its folder as id."""
    parts = [part for part in (anchor(folder) or folder).split("/") if part not in ("", ".")]
    dataset, *below = [part for part in parts if part != "frames"] or ["frames"]
    return Video("/".join([dataset.lower(), *below]), folder, -1, "", "", (), "")


def _name_generators(names: list[str], is_fake: np.ndarray) -> list[str]:
    """Return the generator of each fake, and "" for real files."""
    count = Counter(name for name, fake in zip(names, is_fake, strict=True) if fake)
    few = f"generators with fewer than {MIN_FILES} files"
    return [
        (name if count[name] >= MIN_FILES else few) if fake else ""
        for name, fake in zip(names, is_fake, strict=True)
    ]


def is_deepsafe(names: Sequence[str]) -> bool:
    """Return whether the columns of a file are those of deepsafe-bench.

    Example:
        >>> is_deepsafe(["id", "modality", "label", "generator", "ensemble_score", "prob_sbi"])
        True
    """
    return set(DEEPSAFE) <= set(names) and "video_id" not in names


def read_deepsafe_json(path: str | Path) -> pd.DataFrame:
    """Read the JSON file of predictions that deepsafe-bench writes: a list of objects.

    Example:
        >>> row = {"id": "vid_1", "modality": "video", "label": "real", "generator": "msrvtt"}
        >>> _ = Path("run_predictions.json").write_text(json.dumps([row | {"prob_sbi": 0.25}]))
        >>> read_deepsafe_json("run_predictions.json")["prob_sbi"].tolist()
        [0.25]
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("other JSON")
        table = pd.DataFrame(rows)
        if not is_deepsafe(list(table)):
            raise ValueError(f"the keys {', '.join(map(str, list(table)[:8]))}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected a list of objects with {', '.join(DEEPSAFE)} and scores in {path}, as "
            f"deepsafe-bench writes; got '{' '.join(str(error).split())[:200]}'. Give its file "
            "..._predictions.json, or a CSV file."
        ) from error
    return table


def unpack(path: Path) -> bytes:
    """Unpack a CSV file that is compressed by gzip, of at most MAX_UNPACKED bytes.

    Example:
        >>> _ = Path("table.csv.gz").write_bytes(gzip.compress(b"id"))
        >>> unpack(Path("table.csv.gz"))
        b'id'
    """
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_UNPACKED + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"Expected a CSV file compressed by gzip at {path}; got '{error}'. It is damaged or "
            "has another format."
        ) from error
    if len(content) > MAX_UNPACKED:
        raise ValueError(
            f"Expected at most {MAX_UNPACKED} bytes in {path}; got more. Unpack the file, and "
            "check that it is a table of scores."
        )
    return content


def convert_deepsafe(table: pd.DataFrame, column: str, path: str | Path) -> BenchmarkScores:
    """Return the scores of one detector in a table of deepsafe-bench.

    Rows without a score are of files of another kind, or those that the detector failed on; they
    are counted and not used. The modality becomes the name of the dataset, and the generator of a
    fake its manipulation, unless it has fewer than MIN_FILES, as in the report of deepsafe-bench.

    Args:
        table: One row per file, with the columns `id`, `modality`, `label`, `generator`,
            `ensemble_score` and `prob_NAME` of each detector.
        column: Column of the scores; `ensemble_score` if empty.
        path: The file, for messages.

    Raises:
        ValueError: If the column is missing, or has something else than numbers.

    Example:
        >>> table = pd.DataFrame({"id": ["v1", "v2"], "label": ["real", "fake"]})
        >>> table = table.assign(modality="video", generator="sora", prob_sbi=["0.25", ""])
        >>> scores = convert_deepsafe(table, "prob_sbi", "predictions.csv")
        >>> scores.columns["score"].tolist(), scores.coverage
        ([0.25], 'the files of predictions.csv with a score in prob_sbi: 1 of 2')
    """
    column, path = column or ENSEMBLE, Path(path)
    if column not in table:
        known = [name for name in table if name == ENSEMBLE or str(name).startswith("prob_")]
        raise ValueError(
            f"Expected a column of scores of {path}: {', '.join(known) or 'there is none'}; got "
            f"{column!r}. Try --column {known[0] if known else ENSEMBLE}."
        )
    text = table[column].astype("string").str.strip().fillna("")
    score = pd.Series(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    wrong = (score.isna() & (text != "")).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Expected numbers in the column {column} of {path}; got {text.iloc[row]!r} in data "
            f"row {row + 1}. Leave it empty where a detector has no score."
        )
    rows = table[score.notna()]
    words = rows["label"].astype(str).tolist()
    unknown = [word for word in words if word.lower() not in CLASSES]
    if unknown or not words:
        problem = f"the label {unknown[0][:60]!r}" if unknown else "no score at all"
        raise ValueError(
            f"Expected files with the label real or fake and a score in the column {column} of "
            f"{path}; got {problem}. Remove files without a label, or try another column."
        )
    is_fake = np.array([CLASSES[word.lower()] for word in words])
    columns = {name: rows[name].astype(str).tolist() for name in ("id", "modality", "generator")}
    return BenchmarkScores(
        {
            "video_id": columns["id"],
            "label": is_fake,
            "score": score.dropna().to_numpy(np.float64),
            "data": columns["modality"],
            "manipulation": _name_generators(columns["generator"], is_fake),
            "frame_index": np.zeros(len(rows), np.int64),
        },
        f"of deepsafe-bench, column {column}: the weights behind it are unknown",
        f"the files of {path.name} with a score in {column}: {len(rows)} of {len(table)}",
    )
