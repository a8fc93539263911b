"""Reading and writing tables of scores: Parquet and CSV, and the files of other benchmarks.

Independent of models and TensorFlow.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from jdfd_keras.evaluation.benchmark_scores import (
    DEEPSAFE,
    ENSEMBLE,
    BenchmarkScores,
    convert_deepsafe,
    is_deepsafe,
    read_deepfakebench,
    read_deepsafe_json,
    unpack,
)
from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.results import Result

METADATA_KEY = "jdfd_keras"  # of the Parquet schema
REQUIRED = ("video_id", "label", "score")
TYPES = {
    "video_id": pa.string(),
    "label": pa.int64(),
    "score": pa.float64(),
    "frame_index": pa.int64(),
    "track_id": pa.int64(),
    "reconstruction_error": pa.float64(),
    **dict.fromkeys(GROUPS, pa.string()),
}
# Labels as pandas, spreadsheets or a person may write them, in upper or lower case.
LABELS = {"0": 0, "0.0": 0, "false": 0, "real": 0, "1": 1, "1.0": 1, "true": 1, "fake": 1}
SUFFIXES = (".parquet", ".csv")
BENCHMARK_SUFFIXES = (".csv.gz", ".json", ".pickle", ".pkl")  # of files that are only read
NULL_WORDS = csv.ConvertOptions().null_values


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """Content of a file of scores."""

    scores: Scores  # the table, in the order of the file
    metadata: dict[str, Any] | None  # of `write_scores`; None if the scores have been changed since
    has_frame_index: bool  # whether the file states the frame of each face
    benchmark: BenchmarkScores | None = None  # of a file of another benchmark


def write_scores(path: str | Path, scores: Scores, metadata: Result | None = None) -> None:
    """Write a table of scores, one row per face.

    Args:
        path: A .parquet or .csv file, replaced if it exists.
        scores: The table.
        metadata: Further facts about the scores; stored in .parquet only.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> write_scores("scores.csv", scores)
        >>> Path("scores.csv").read_text().splitlines()[1]
        '"a","","","","",0,0,0,0.1'
    """
    path = _check_suffix(path)
    columns = {
        name: _repeat(getattr(scores.videos, name), scores.video) for name in ("video_id", *GROUPS)
    }
    columns |= {"frame_index": scores.frame_index, "track_id": scores.track_id}
    columns |= {"label": scores.label.astype(np.int64), "score": scores.score}
    if scores.reconstruction_error is not None:
        columns["reconstruction_error"] = scores.reconstruction_error
    table = pa.table(columns)
    with atomic_path(path) as unfinished:
        if path.suffix.lower() == ".parquet":
            if metadata is not None:
                text = json.dumps(metadata.to_dict() | {"digest": _digest(scores)})
                table = table.replace_schema_metadata({METADATA_KEY: text})
            pq.write_table(table, unfinished, compression="zstd")
        else:
            words = [field.with_type(TYPES[field.name]) for field in table.schema]
            csv.write_csv(table.cast(pa.schema(words)), unfinished)


def read_scores(path: str | Path, column: str = "") -> Scores:
    """Read a table of scores, of this detector or of any other, in the order of its file.

    Args:
        path: A .parquet, .csv or .csv.gz file with the columns `video_id`, `label` (1, true or
            fake; 0, false or real) and `score` in any order; `frame_index`, `track_id`, `data`,
            `split`, `compression`, `manipulation` and `reconstruction_error` where known. Other
            columns are ignored. Or a file of another benchmark: metric_dict_best.pickle of
            DeepfakeBench (see `read_deepfakebench`), or predictions of deepsafe-bench as .csv,
            .csv.gz or .json (see `convert_deepsafe`).
        column: Name of the column with the scores, in a file with those of several detectors; by
            default `score`, or `ensemble_score` of deepsafe-bench.

    Example:
        >>> len(read_scores("report/scores.parquet"))
        8
    """
    return read_scores_file(path, column).scores


def read_scores_file(path: str | Path, column: str = "") -> ScoresFile:
    """Read a table of scores as `read_scores` does, with its metadata.

    Example:
        >>> read_scores_file("report/scores.parquet").metadata["protocol"]["model"]
        'run'
    """
    path = _check_suffix(path, SUFFIXES + BENCHMARK_SUFFIXES)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a table of scores; got {path}, which does not exist. Check the path."
        )
    suffix = path.suffix.lower()
    if suffix in (".pickle", ".pkl"):
        if column:
            raise ValueError(
                f"Expected no column with {path}, which has the scores of one detector; got "
                f"{column!r}. Omit it."
            )
        return _of_benchmark(read_deepfakebench(path), path)
    if suffix == ".json":
        return _of_benchmark(convert_deepsafe(read_deepsafe_json(path), column, path), path)
    if suffix == ".parquet":
        table = _read_parquet(path, column or "score")
    else:
        table = _read_csv(path, column)
        if is_deepsafe(table.column_names):
            return _of_benchmark(convert_deepsafe(table.to_pandas(), column, path), path)
    table = _choose_column(table, column or "score")
    columns = {
        name: _convert(name, table[name], path) for name in TYPES if name in table.column_names
    }
    try:
        scores = Scores.from_faces(**columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if "frame_index" not in columns:
        _check_rows(table.to_pandas(), path)
    text = (table.schema.metadata or {}).get(METADATA_KEY.encode())
    metadata = json.loads(text) if text else None
    if metadata and metadata.pop("digest", None) != _digest(scores):
        metadata = None
    return ScoresFile(scores, metadata, "frame_index" in columns)


def _of_benchmark(found: BenchmarkScores, path: Path) -> ScoresFile:
    try:
        scores = Scores.from_faces(**found.columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ScoresFile(scores, None, "frame_index" in found.columns, found)


def _choose_column(table: pa.Table, column: str) -> pa.Table:
    """Return a table whose column `score` is the chosen one."""
    if column == "score":
        return table
    others = [name for name in table.column_names if name != "score"]
    return table.select(others).rename_columns(
        ["score" if name == column else name for name in others]
    )


def _repeat(words: np.ndarray, video: np.ndarray) -> pa.DictionaryArray:
    distinct, of_video = np.unique(words, return_inverse=True)
    return pa.DictionaryArray.from_arrays(of_video.astype(np.int32)[video], distinct.tolist())


def _digest(scores: Scores) -> str:
    digest = hashlib.sha256("\n".join(scores.videos.video_id.tolist()).encode())
    columns = (scores.videos.label, scores.video, scores.frame_index, scores.track_id, scores.score)
    for column in (*columns, scores.reconstruction_error):
        digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _read_parquet(path: Path, column: str) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_header(names, path, column)
            if "frame_index" in names or any(map(pa.types.is_nested, file.schema_arrow.types)):
                used = {*TYPES, column}  # other columns may be large
                names = [name for name in names if name in used]
            return file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected a Parquet table of scores at {path}; got '{_on_one_line(error)}'. It is "
            "damaged or has another format."
        ) from error


def _read_csv(path: Path, column: str) -> pa.Table:
    # Read as strings and parsed later, so that an error names column and row.
    words = dict.fromkeys([*TYPES, *DEEPSAFE, ENSEMBLE, *filter(None, [column])], pa.string())
    try:
        table = csv.read_csv(
            pa.BufferReader(unpack(path)) if path.suffix.lower() == ".gz" else path,
            read_options=csv.ReadOptions(use_threads=False),  # so that an error states its row
            convert_options=csv.ConvertOptions(column_types=words, strings_can_be_null=False),
        )
        names = table.column_names  # pyarrow (25.0.1) decodes a header only now
    except (pa.ArrowException, UnicodeDecodeError) as error:
        text = _on_one_line(error)
        columns = re.search(r"Expected (\d+) columns, got (\d+)", text)
        if columns and int(columns[2]) > int(columns[1]):
            hint = "Write numbers with a decimal point (0.5) and quote names with a comma."
        elif "utf" in text.lower() and not columns:
            hint = "Save it as UTF-8."
        else:
            hint = "Was the file cut short?"
        raise ValueError(
            f"Expected a header and one comma-separated line per face in {path}; got "
            f"'{text}'. {hint}"
        ) from error
    if not is_deepsafe(names):
        _check_header(names, path, column or "score")
    return table


def _check_header(names: Sequence[str], path: Path, column: str) -> None:
    required = [column if name == "score" else name for name in REQUIRED]
    twice = [name for name in dict.fromkeys([*TYPES, *required]) if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"Expected each column once in {path}; got {', '.join(twice)} twice. Remove one."
        )
    missing = [name for name in required if name not in names]
    if not missing:
        return
    alike = {name.strip().lower(): name for name in names}
    if any(sign in name for sign in ";\t" for name in names):
        hint = "Separate the columns by commas, not by semicolons or tabs."
    elif set(missing) <= set(alike):
        hint = f"Write {', '.join(f'{name} for {alike[name]!r}' for name in missing)}."
    else:
        hint = "Add a header with these names."
    raise ValueError(
        f"Expected the columns {', '.join(required)} in {path}; {', '.join(missing)} is not among "
        f"{', '.join(names)}. {hint}"
    )


def _convert(name: str, column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray | np.ndarray:
    """Convert a column to its type in TYPES; numbers to NumPy."""
    kind = TYPES[name]
    kinds = {pa.string(): "a string", pa.int64(): "an integer", pa.float64(): "a number"}
    what = "0 (real) or 1 (fake)" if name == "label" else kinds[kind]
    expected = f"Expected {what} for the {name} of every face in {path}"
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if kind == pa.string():
            return column.cast(kind)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            numbers = _parse(name, column.to_pandas(), expected)
            missing = numbers.isna()
        else:
            numbers = column.cast(kind).to_pandas()
            missing = column.is_null().to_pandas()  # a NaN is a score that diverged
    except pa.ArrowException as error:
        raise ValueError(
            f"{expected}; got '{_on_one_line(error)}'. The column has another type."
        ) from error
    if missing.any():
        row = int(missing.argmax()) + 1
        raise ValueError(f"{expected}; got none in data row {row}. Remove faces without a score.")
    return numbers.to_numpy().astype(kind.to_pandas_dtype())


def _parse(name: str, column: pd.Series, expected: str) -> pd.Series:
    """Parse strings as labels or numbers; words such as `NA` become NaN."""
    words = column.str.strip()
    words = words.mask(words.isin(NULL_WORDS))
    if name == "label":
        numbers = words.str.lower().map(LABELS)
        hint = "Remove unlabelled faces: they cannot be evaluated."
    else:
        numbers = pd.Series(pd.to_numeric(words, errors="coerce"))
        is_integer = TYPES[name] == pa.int64()
        if is_integer:
            numbers = numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**53))
        hint = f"Write it as in {12 if is_integer else 0.5}."
    wrong = numbers.isna() & words.notna()
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{expected}; got {column[row]!r} in data row {row + 1}. {hint}")
    # `to_numeric` of pandas 2 may differ from the nearest float64 in the last bit.
    return words.astype(np.float64) if TYPES[name] == pa.float64() else numbers


def _check_rows(table: pd.DataFrame, path: Path) -> None:
    """Raise on duplicate faces, where other columns than frame_index identify faces.

    They do not if they are constant, or equal for faces of a video with different scores.
    """
    is_other, is_id = ~table.columns.isin(list(TYPES)), table.columns == "video_id"
    identity = table.loc[:, is_other | is_id].duplicated()
    others = table.loc[:, is_other]
    varies = is_other.any() and not others.duplicated()[1:].all()
    repeated = table.duplicated()
    if varies and repeated.any() and identity.equals(repeated):
        raise ValueError(
            f"Expected each face once in {path}; data row {int(repeated.argmax()) + 1} repeats "
            "another in every column. Remove it, or add a frame_index if it is another frame. "
            "Check whether the same dataset was added twice."
        )


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_suffix(path: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    path = Path(path)
    if not path.name.lower().endswith(suffixes):
        further = f", or a file of another benchmark: {', '.join(BENCHMARK_SUFFIXES)}"
        raise ValueError(
            f"Expected a table of scores, .parquet or .csv; got {path}. Use one of these suffixes"
            f"{further * (suffixes != SUFFIXES)}."
        )
    return path
