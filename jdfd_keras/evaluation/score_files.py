"""The table of scores on disk: Parquet as it is written here, CSV from anywhere.

Takes a path; gives Scores, or takes them. Knows nothing of models or TensorFlow.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from jdfd_keras.evaluation.scores import GROUPS, Scores

NEEDED = ("video_id", "label", "score")
TYPES = {
    "video_id": pa.string(),
    "label": pa.int64(),
    "score": pa.float64(),
    "frame_index": pa.int64(),
    "track_id": pa.int64(),
    "reconstruction_error": pa.float64(),
    **dict.fromkeys(GROUPS, pa.string()),
}


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write the table, one row per face.

    Args:
        path: A .parquet or .csv file, replaced if it is there.
        scores: The table.

    Raises:
        ValueError: If the path ends otherwise.
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
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    elif path.suffix == ".csv":
        words = [name for name, kind in TYPES.items() if kind == pa.string()]
        for name in words:
            position = table.column_names.index(name)
            table = table.set_column(position, name, table[name].cast(pa.string()))
        pa.csv.write_csv(table, path)
    else:
        raise ValueError(_wrong_suffix(path))


def read_scores(path: str | Path) -> Scores:
    """Read a table of scores, of this detector or of any other.

    Args:
        path: A .parquet or .csv file with the columns `video_id`, `label` (1 is fake) and
            `score` in any order; `frame_index`, `track_id`, `data`, `split`, `compression`,
            `manipulation` and `reconstruction_error` where they are known. Others are passed over.

    Returns:
        The table in the order of the file.

    Raises:
        OSError: If the file is not there.
        ValueError: If it is no such table, a column is missing, a value is no number, or the
            table is not valid.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(_wrong_suffix(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a table of scores; got {path}, where there is no file. Check the path."
        )
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise ValueError(
            f"Expected the columns {', '.join(NEEDED)} in {path}; {', '.join(missing)} "
            f"is not among {', '.join(table.column_names)}. Give the file a header with these "
            "names."
        )
    twice = [name for name in TYPES if table.column_names.count(name) > 1]
    if twice:
        raise ValueError(
            f"Expected each column once in {path}; got {', '.join(twice)} twice. Leave one out."
        )
    known = {name: table[name] for name in TYPES if name in table.column_names}
    for name in known:
        if known[name].null_count and TYPES[name] != pa.string():
            row = known[name].is_null().to_numpy().argmax()
            raise ValueError(
                f"Expected a number for the {name} of every face in {path}; got none in row "
                f"{row + 1} of them. A face without a score must not be in the table."
            )
    columns = {
        name: column if TYPES[name] == pa.string() else column.to_numpy()
        for name, column in known.items()
    }
    try:
        return Scores.from_faces(**columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _repeat(words: np.ndarray, video: np.ndarray) -> pa.DictionaryArray:
    distinct, of_video = np.unique(words, return_inverse=True)
    return pa.DictionaryArray.from_arrays(of_video.astype(np.int32)[video], distinct.tolist())


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
        known = [name for name in table.column_names if name in TYPES]
        return table.select(known).cast(pa.schema([(name, TYPES[name]) for name in known]))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected a Parquet table of scores at {path}; got '{' '.join(str(error).split())}'. "
            "It is damaged or of another kind."
        ) from error


def _read_csv(path: Path) -> pa.Table:
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),  # so that an error has its row
            convert_options=pa.csv.ConvertOptions(column_types=TYPES, strings_can_be_null=False),
        )
        table.column_names  # noqa: B018 - pyarrow (25.0.1) decodes a header only now
        return table
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(
            "Expected a header, and in every line a video_id, a label of 0 or 1 and a score in "
            f"0..1 in {path}; got '{' '.join(str(error).split())}'. Was the file cut short?"
        ) from error


def _wrong_suffix(path: Path) -> str:
    return f"Expected a table of scores, .parquet or .csv; got {path}. Name it by its kind."
