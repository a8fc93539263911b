"""Reading and writing tables of scores: Parquet and CSV.

Independent of models and TensorFlow.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from jdfd_keras.evaluation.scores import GROUPS, Scores
from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.results import Result

Metadata = TypeVar("Metadata", bound=Result)

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
NULL_WORDS = pa.array(pa.csv.ConvertOptions().null_values)


def write_scores(path: str | Path, scores: Scores, metadata: Result | None = None) -> None:
    """Write a table of scores, one row per face.

    Args:
        path: A .parquet or .csv file, replaced if it exists.
        scores: The table.
        metadata: Further facts about the scores; stored in .parquet only.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the path has another suffix.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
        >>> write_scores("scores.csv", scores)
    """
    path = Path(path)
    videos = scores.videos
    columns = {"video_id": _repeat(videos.video_id, scores.video)}
    columns |= {name: _repeat(getattr(videos, name), scores.video) for name in GROUPS}
    columns |= {"frame_index": scores.frame_index, "track_id": scores.track_id}
    columns |= {"label": scores.label.astype(np.int64), "score": scores.score}
    if scores.reconstruction_error is not None:
        columns["reconstruction_error"] = scores.reconstruction_error
    table = pa.table(columns)
    if path.suffix.lower() == ".parquet":
        if metadata is not None:
            text = json.dumps(metadata.to_dict())
            table = table.replace_schema_metadata({METADATA_KEY: text})
        with atomic_path(path) as unfinished:
            pq.write_table(table, unfinished, compression="zstd")
    elif path.suffix.lower() == ".csv":
        words = [name for name, kind in TYPES.items() if kind == pa.string()]
        for name in words:
            position = table.column_names.index(name)
            table = table.set_column(position, name, table[name].cast(pa.string()))
        with atomic_path(path) as unfinished:
            pa.csv.write_csv(table, unfinished)
    else:
        raise ValueError(_wrong_suffix(path))


def read_scores(path: str | Path) -> Scores:
    """Read a table of scores, of this detector or of any other.

    Args:
        path: A .parquet or .csv file with the columns `video_id`, `label` (1, true or fake; 0,
            false or real) and `score` in any order; `frame_index`, `track_id`, `data`, `split`,
            `compression`, `manipulation` and `reconstruction_error` where known. Other columns
            are ignored.

    Returns:
        The table in the order of the file.

    Raises:
        OSError: If the file does not exist.
        ValueError: If a column is missing, a value is not a number, a face appears twice, or the
            table is not valid.

    Example:
        >>> read_scores("scores.csv").videos.video_id  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise ValueError(_wrong_suffix(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a table of scores; got {path}, which does not exist. Check the path."
        )
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    columns = {
        name: _convert(name, table[name], path) for name in TYPES if name in table.column_names
    }
    try:
        scores = Scores.from_faces(**columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if "frame_index" not in columns:
        _check_rows(table, path)
    return scores


def digest_scores(scores: Scores) -> str:
    """Compute the SHA-256 of a table, from which later changes are detected."""
    digest = hashlib.sha256("\n".join(scores.videos.video_id.tolist()).encode())
    columns = (scores.videos.label, scores.video, scores.frame_index, scores.track_id, scores.score)
    for column in (*columns, scores.reconstruction_error):
        digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def has_frame_index(path: str | Path) -> bool:
    """Return whether a table that `read_scores` reads has the column `frame_index`."""
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return "frame_index" in pq.read_schema(path).names
    with path.open(encoding="utf-8-sig") as file:
        header = next((line for line in file if line.strip()), "")
    return "frame_index" in [name.strip().strip('"') for name in header.split(",")]


def read_metadata(path: str | Path, kind: type[Metadata]) -> Metadata | None:
    """Read the metadata that `write_scores` stored.

    Args:
        path: A table of scores.
        kind: Its type, a Result.

    Returns:
        The metadata; None for a table without any, such as a .csv.

    Raises:
        ValueError: If it was written by another version of this package.
    """
    path = Path(path)
    if path.suffix.lower() != ".parquet":
        return None
    text = (pq.read_schema(path).metadata or {}).get(METADATA_KEY.encode())
    return None if text is None else kind.from_dict(json.loads(text))


def _repeat(words: np.ndarray, video: np.ndarray) -> pa.DictionaryArray:
    distinct, of_video = np.unique(words, return_inverse=True)
    return pa.DictionaryArray.from_arrays(of_video.astype(np.int32)[video], distinct.tolist())


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_header(names, path)
            if "frame_index" in names or any(map(pa.types.is_nested, file.schema_arrow.types)):
                names = [name for name in names if name in TYPES]  # other columns may be large
            return file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected a Parquet table of scores at {path}; got '{_on_one_line(error)}'. It is "
            "damaged or has another format."
        ) from error


def _read_csv(path: Path) -> pa.Table:
    # Read as strings and parsed later, so that an error names column and row.
    words = dict.fromkeys(TYPES, pa.string())
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),  # so that an error states its row
            convert_options=pa.csv.ConvertOptions(column_types=words, strings_can_be_null=False),
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
    _check_header(names, path)
    return table


def _check_header(names: Sequence[str], path: Path) -> None:
    twice = [name for name in TYPES if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"Expected each column once in {path}; got {', '.join(twice)} twice. Remove one."
        )
    missing = [name for name in REQUIRED if name not in names]
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
        f"Expected the columns {', '.join(REQUIRED)} in {path}; {', '.join(missing)} is not among "
        f"{', '.join(names)}. {hint}"
    )


def _convert(name: str, column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray | np.ndarray:
    """Convert a column to its type in TYPES; numbers to numpy."""
    kind = TYPES[name]
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if kind == pa.string():
            return column.cast(kind)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _parse(name, column.cast(pa.string()), path)
        column = column.cast(kind)
    except pa.ArrowException as error:
        raise ValueError(
            f"Expected {_describe_expected(name)} for the {name} of every face in {path}; got "
            f"'{_on_one_line(error)}'. The column has another type."
        ) from error
    if column.null_count:
        row = column.is_null().to_numpy().argmax()
        raise ValueError(
            f"Expected {_describe_expected(name)} for the {name} of every face in {path}; got none "
            f"in data row {row + 1}. Remove faces without a score."
        )
    return column.to_numpy()


def _parse(name: str, column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Parse strings as labels or numbers; words such as `NA` become null."""
    words = pc.utf8_trim_whitespace(column)
    words = pc.if_else(pc.is_in(words, NULL_WORDS), pa.scalar(None, pa.string()), words)
    if name == "label":
        index = pc.index_in(pc.utf8_lower(words), pa.array(list(LABELS)))
        numbers = pc.take(pa.array(list(LABELS.values())), index)
        wrong = pc.and_(words.is_valid(), index.is_null()).to_numpy()
        row = int(wrong.argmax()) if wrong.any() else None
        hint = "Remove unlabelled faces: they cannot be evaluated."
    else:
        try:
            return words.cast(TYPES[name])
        except pa.ArrowInvalid:
            row = next(row for row, word in enumerate(words) if not _can_cast(word, TYPES[name]))
        hint = f"Write it as in {12 if TYPES[name] == pa.int64() else 0.5}."
    if row is not None:
        raise ValueError(
            f"Expected {_describe_expected(name)} for the {name} of every face in {path}; got "
            f"{column[row].as_py()!r} in data row {row + 1}. {hint}"
        )
    return numbers


def _can_cast(word: pa.Scalar, kind: pa.DataType) -> bool:
    try:
        word.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _describe_expected(name: str) -> str:
    if name == "label":
        return "0 (real) or 1 (fake)"
    return {pa.int64(): "an integer", pa.float64(): "a number"}.get(TYPES[name], "a string")


def _check_rows(table: pa.Table, path: Path) -> None:
    """Raise on duplicate faces, where other columns than frame_index identify faces.

    A column identifies no face if it is constant, or equal for faces with different scores: two
    faces of a video may have the same score.
    """
    own = [
        "video_id" if name == "video_id" else str(i) for i, name in enumerate(table.column_names)
    ]
    others = [own[i] for i, name in enumerate(table.column_names) if name not in TYPES]
    table = table.rename_columns(own).unify_dictionaries()  # other columns may share a name
    rows = table.append_column("row", pa.array(range(len(table))))
    try:
        distinct = rows.group_by(own).aggregate([("row", "min")])
        faces = len(table.group_by(["video_id", *others]).aggregate([]))
        vary = others and len(table.group_by(others).aggregate([])) > 1
    except pa.ArrowNotImplementedError:  # a type that cannot be compared (25.0.1)
        return
    if vary and faces == len(distinct) < len(table):
        first = np.setdiff1d(np.arange(len(table)), distinct["row_min"].to_numpy())[0]
        raise ValueError(
            f"Expected each face once in {path}; data row {first + 1} repeats another in every "
            "column. Remove it, or add a frame_index if it is another frame. Check whether the "
            "same dataset was added twice."
        )


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wrong_suffix(path: Path) -> str:
    return f"Expected a table of scores, .parquet or .csv; got {path}. Use one of these suffixes."
