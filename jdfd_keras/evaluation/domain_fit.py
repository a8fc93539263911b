"""Measures of the validation files of prepared datasets, from which the domain is fitted.

Reads manifests, and a few crops of each video; measures a video as `inference.file_measures`
measures a file that is to be judged.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.client.domain import FileMeasures
from jdfd_keras.datasets.manifest import VideoRow, read_faces
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.eval_data import EvalSet
from jdfd_keras.faces.landmarks import NUM_LANDMARKS
from jdfd_keras.inference.file_measures import FileFacts, MeasuredFace, combine_measures
from jdfd_keras.io.console import Progress

_COLUMNS = ("video_id", "label", "track_id", "box", "sharpness", "yaw_deg", "landmarks")


def measure_videos(
    sets: Sequence[EvalSet],
    is_judged: np.ndarray,
    reconstruct_error: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[FileMeasures]:
    """Measure the videos of prepared datasets that have judged faces.

    Args:
        sets: The datasets.
        is_judged: bool[n], whether each face is of a judged track, in the order of the rows of all
            sets.
        reconstruct_error: As for `measure_file`.

    Returns:
        A measurement for each video with a judged face, in the order of their first faces.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> measures = measure_videos(sets, np.ones(8, bool))
        >>> len(measures), measures[0].pixel_format
        (2, 'yuv420p')
    """
    measures, first = [], 0
    progress = Progress("measuring", sum(len(one.rows) for one in sets), "faces")
    try:
        for one in sets:
            judged = np.flatnonzero(is_judged[first : first + len(one.rows)])
            first += len(one.rows)
            measures += _measure_set(one, judged, reconstruct_error, progress)
    finally:
        progress.close()
    return measures


def _measure_set(
    one: EvalSet,
    judged: np.ndarray,
    reconstruct_error: Callable[[np.ndarray], np.ndarray] | None,
    progress: Progress,
) -> list[FileMeasures]:
    table_name = one.split_table.name if one.split_table else ""
    table = read_faces(one.directory, split=one.split, split_table=table_name, columns=_COLUMNS)
    table = table.filter(pc.field("label") != UNLABELLED).take(pa.array(judged))
    owner = table["video_id"].to_numpy()
    _, starts = np.unique(owner, return_index=True)
    videos = {video.video_id: video for video in one.videos}
    shards, offsets = (one.rows[name].to_pylist() for name in ("shard", "offset"))
    measures = []
    for start in np.sort(starts).tolist():
        rows = np.flatnonzero(owner == owner[start])
        crops_of = judged[rows]

        def read(positions: Sequence[int], crops_of: np.ndarray = crops_of) -> np.ndarray:
            indices = crops_of[list(positions)].tolist()
            found = read_crops(one.directory, shards, offsets, indices)
            return np.stack([found[index] for index in indices])

        faces = [_to_face(face) for face in table.take(pa.array(rows)).to_pylist()]
        facts = _read_facts(videos[owner[start]])
        measures.append(combine_measures(faces, read, facts, reconstruct_error))
        progress.advance(len(rows))
    return measures


def _to_face(row: dict) -> MeasuredFace:
    left, _, right, _ = row["box"]
    landmarks = np.array(row["landmarks"], np.float64).reshape(-1, 2)[:NUM_LANDMARKS]
    # A detector of another kind, or none, leaves fields unknown.
    yaw_deg = np.nan if row["yaw_deg"] is None else row["yaw_deg"]
    return MeasuredFace(
        row["track_id"], float(right - left), row["sharpness"], float(yaw_deg), landmarks
    )


def _read_facts(video: VideoRow) -> FileFacts:
    # Of a video that is stored as images, the bytes are those of all of them.
    num_frames = len(video.frames) or video.file_frames
    return FileFacts(video.file_bytes, num_frames, video.width, video.height, video.pixel_format)
