"""The domain of a calibration, from the validation files of prepared datasets.

Reads manifests, and a few crops of each video; measures a video as `inference.file_measures`
measures a file that is to be judged. Drawn versions of some crops show what drawings look like.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import minimize
from scipy.special import expit

from jdfd_keras.client.domain import MIN_FILES, Domain, FileMeasures, fit_domain
from jdfd_keras.datasets.manifest import VideoRow, read_faces
from jdfd_keras.datasets.records import read_crops
from jdfd_keras.datasets.synthetic.drawings import DRAWINGS, draw_face
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.eval_data import EvalSet
from jdfd_keras.faces.landmarks import NUM_LANDMARKS
from jdfd_keras.faces.texture import NUM_TEXTURE, describe_texture
from jdfd_keras.inference.file_measures import (
    FileFacts,
    MeasuredFace,
    choose_crops,
    combine_measures,
)
from jdfd_keras.io.console import Progress

MAX_DRAWN = 120  # videos of which a crop is drawn in every way; 0.4 s each at 299 px
FOLDS = 10  # files of each are compared by weights that were fitted to the others
PENALTY = 0.001  # of the squared weights of standardised textures
_COLUMNS = ("video_id", "label", "track_id", "box", "sharpness", "yaw_deg", "landmarks")

_ReconstructError = Callable[[np.ndarray], np.ndarray]


class DrawnFaces(NamedTuple):
    """Textures of drawn versions of crops."""

    drawing: list[str]  # name in DRAWINGS
    video: np.ndarray  # int[d], position of the crop's video in the measures
    texture: np.ndarray  # float[d, NUM_TEXTURE]


def fit_validation_domain(
    sets: Sequence[EvalSet],
    is_judged: np.ndarray,
    reconstruct_error: _ReconstructError | None = None,
) -> Domain:
    """Fit the domain of the videos that have judged faces.

    Args:
        sets: The datasets.
        is_judged: bool[n], whether each face is of a judged track, in the order of the rows of all
            sets.
        reconstruct_error: As for `measure_file`.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> fit_validation_domain(sets, np.ones(8, bool)).num_files
        2
    """
    measures, drawn = measure_videos(sets, is_judged, reconstruct_error)
    return fit_drawn_domain(measures, drawn)


def fit_drawn_domain(measures: Sequence[FileMeasures], drawn: DrawnFaces) -> Domain:
    """Fit a domain that compares the likeness to drawings as well.

    The likeness of a validation file is computed with weights of other files, as that of a new
    file is.

    Args:
        measures: Of the validation files.
        drawn: Drawn faces of some of them.

    Example:
        >>> drawn = DrawnFaces([], np.empty(0, int), np.empty((0, NUM_TEXTURE)))
        >>> fit_drawn_domain([FileMeasures(size_px=80.0)] * 40, drawn).drawing_weights
        ()
    """
    if len(measures) < MIN_FILES or not len(drawn.video):
        return fit_domain(measures)
    texture = np.array([one.texture for one in measures])
    fold = np.arange(len(measures)) % FOLDS
    scored = list(measures)
    for index in range(FOLDS):
        others = drawn.texture[fold[drawn.video] != index]
        *weights, offset = _fit_drawing(texture[fold != index], others)
        for row in np.flatnonzero(fold == index).tolist():
            likeness = float(texture[row] @ weights) + offset
            scored[row] = dataclasses.replace(measures[row], drawing=likeness)
    return fit_domain(scored, _fit_drawing(texture, drawn.texture).tolist())


def _fit_drawing(photographs: np.ndarray, drawings: np.ndarray) -> np.ndarray:
    """Fit a logistic regression at equal priors; return the weights and then the offset."""
    mean, deviation = photographs.mean(axis=0), photographs.std(axis=0) + 1e-3
    features = (np.concatenate([photographs, drawings]) - mean) / deviation
    sign = np.repeat([-1.0, 1.0], [len(photographs), len(drawings)])
    share = np.repeat(
        [0.5 / len(photographs), 0.5 / len(drawings)], [len(photographs), len(drawings)]
    )

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = sign * (features @ weights + offset)
        slope = -sign * share * expit(-margin)
        value = share @ np.logaddexp(0, -margin) + PENALTY / 2 * weights @ weights
        return value, np.append(features.T @ slope + PENALTY * weights, slope.sum())

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    weights = found[:-1] / deviation
    return np.append(weights, found[-1] - weights @ mean)


def measure_videos(
    sets: Sequence[EvalSet],
    is_judged: np.ndarray,
    reconstruct_error: _ReconstructError | None = None,
) -> tuple[list[FileMeasures], DrawnFaces]:
    """Measure the videos of prepared datasets that have judged faces.

    Args:
        sets: As for `fit_validation_domain`, as the others.
        is_judged: Faces of judged tracks.
        reconstruct_error: Errors of the decoder.

    Returns:
        The measures of each video with a judged face, in the order of their first faces; and drawn
        versions of one crop of up to MAX_DRAWN videos.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> measures, drawn = measure_videos(sets, np.ones(8, bool))
        >>> len(measures), measures[0].pixel_format, len(drawn.drawing)
        (2, 'yuv420p', 18)
    """
    owners = np.repeat(np.arange(len(sets)), [len(one.rows) for one in sets])
    names = np.concatenate([one.rows["video_id"].to_numpy() for one in sets])
    num_videos = len(set(zip(owners[is_judged].tolist(), names[is_judged], strict=True)))
    is_drawn = np.zeros(num_videos, bool)
    is_drawn[np.linspace(0, num_videos - 1, min(num_videos, MAX_DRAWN)).astype(int)] = True
    measures: list[FileMeasures] = []
    drawn: list[tuple[str, int, np.ndarray]] = []
    progress = Progress("measuring", num_videos, "videos")
    try:
        for index, one in enumerate(sets):
            for faces, read, facts in _read_videos(one, np.flatnonzero(is_judged[owners == index])):
                video = len(measures)
                measures.append(combine_measures(faces, read, facts, reconstruct_error))
                if is_drawn[video]:
                    (crop,) = read(choose_crops([face.track_id for face in faces])[:1])
                    drawn += [
                        (name, video, describe_texture(draw_face(crop, name))) for name in DRAWINGS
                    ]
                progress.advance(1)
    finally:
        progress.close()
    textures = np.array([texture for _, _, texture in drawn]).reshape(-1, NUM_TEXTURE)
    video = np.array([video for _, video, _ in drawn], int)
    return measures, DrawnFaces([name for name, _, _ in drawn], video, textures)


def _read_videos(one: EvalSet, positions: np.ndarray):
    """Yield the faces at positions by video, with a function for their crops, and its facts."""
    table_name = one.split_table.name if one.split_table else ""
    table = read_faces(one.directory, split=one.split, split_table=table_name, columns=_COLUMNS)
    table = table.filter(pc.field("label") != UNLABELLED).take(pa.array(positions))
    owner = table["video_id"].to_numpy()
    videos = {video.video_id: video for video in one.videos}
    shards, offsets = (one.rows[name].to_pylist() for name in ("shard", "offset"))
    for start in np.sort(np.unique(owner, return_index=True)[1]).tolist():
        rows = np.flatnonzero(owner == owner[start])

        def read(chosen: Sequence[int], own: np.ndarray = positions[rows]) -> np.ndarray:
            indices = own[list(chosen)].tolist()
            found = read_crops(one.directory, shards, offsets, indices)
            return np.stack([found[index] for index in indices])

        faces = [_to_face(face) for face in table.take(pa.array(rows)).to_pylist()]
        yield faces, read, _find_facts(videos[owner[start]])


def _to_face(row: dict) -> MeasuredFace:
    left, _, right, _ = row["box"]
    landmarks = np.array(row["landmarks"], np.float64).reshape(-1, 2)[:NUM_LANDMARKS]
    yaw_deg = np.nan if row["yaw_deg"] is None else row["yaw_deg"]  # unknown without a detector
    return MeasuredFace(
        row["track_id"], float(right - left), row["sharpness"], float(yaw_deg), landmarks
    )


def _find_facts(video: VideoRow) -> FileFacts:
    # Of a video that is stored as images, the bytes are those of all of them.
    num_frames = len(video.frames) or video.file_frames
    return FileFacts(video.file_bytes, num_frames, video.width, video.height, video.pixel_format)
