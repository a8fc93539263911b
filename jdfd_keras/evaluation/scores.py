"""The table of scores: what a detector said of every face, and where it is kept.

One row per face; everything else in this room is computed from it. Gives the table, its CSV
file and one score per video. Knows nothing of models, pixels or TensorFlow, so the scores of
any other detector may be put in and measured alike.
"""

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COLUMNS = ("video_id", "frame_index", "label", "manipulation", "score")
TRACK = "track_id"  # a column that other detectors' tables may lack


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per face; checked when made, so whoever holds one may trust it.

    Attributes:
        video_id: str[n], unique across data sets (`ffpp/Deepfakes/c23/000_003`).
        frame_index: int64[n], position in the video, from 0.
        label: bool[n], True is fake.
        manipulation: str[n], `""` for real.
        score: float64[n], P(fake), in [0, 1].
        track_id: int64[n], the person in the video, from 0; all 0 if not given.

    Raises:
        ValueError: If the columns differ in length, a label is neither 0 nor 1, a score is NaN
            or outside [0, 1], a video has two labels, or a face of it is there twice.
    """

    video_id: np.ndarray
    frame_index: np.ndarray
    label: np.ndarray
    manipulation: np.ndarray
    score: np.ndarray
    track_id: np.ndarray | None = None

    def __post_init__(self):
        label = np.asarray(self.label)
        track_id = np.zeros(label.shape) if self.track_id is None else self.track_id
        columns = {
            "video_id": np.asarray(self.video_id, dtype=np.str_),
            "frame_index": np.asarray(self.frame_index, dtype=np.int64),
            "label": label.astype(bool),
            "manipulation": np.asarray(self.manipulation, dtype=np.str_),
            "score": np.asarray(self.score, dtype=np.float64),
            TRACK: np.asarray(track_id, dtype=np.int64),
        }
        shapes = {name: column.shape for name, column in columns.items()}
        if len(set(shapes.values())) > 1 or label.ndim != 1:
            raise ValueError(
                f"Expected one value per face in every column; got the shapes {shapes}. Flatten "
                "the scores of a model with `scores[:, 0]`."
            )
        for name, column in columns.items():
            object.__setattr__(self, name, column)
        _check_labels(self, label)
        _check_scores(self)
        _check_videos(self)

    def __len__(self) -> int:
        return len(self.score)

    def select(self, keep: np.ndarray) -> "Scores":
        """Take some of the faces, in order.

        Args:
            keep: bool[n], True where a face is wanted.
        """
        return Scores(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


@dataclass(frozen=True, eq=False)
class VideoScores:
    """One row per video, sorted by `video_id`.

    Attributes:
        video_id: str[n].
        label: bool[n], True is fake.
        manipulation: str[n], `""` for real.
        score: float64[n], mean of the scores of the video's faces, in [0, 1].
        num_faces: int64[n], faces behind the score.
    """

    video_id: np.ndarray
    label: np.ndarray
    manipulation: np.ndarray
    score: np.ndarray
    num_faces: np.ndarray

    def __len__(self) -> int:
        return len(self.score)


def to_videos(scores: Scores) -> VideoScores:
    """Average the scores of each video's faces.

    Videos are told apart by the whole `video_id`: `Deepfakes/c23/000_003` and
    `FaceSwap/c23/000_003` are two videos.

    Args:
        scores: One row per face.

    Returns:
        One row per video, sorted by `video_id`.
    """
    video_id, first, video, num_faces = np.unique(
        scores.video_id, return_index=True, return_inverse=True, return_counts=True
    )
    total = np.bincount(video, weights=scores.score, minlength=len(video_id))
    return VideoScores(
        video_id=video_id,
        label=scores.label[first],
        manipulation=scores.manipulation[first],
        score=total / num_faces,
        num_faces=num_faces,
    )


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write the table as CSV, one row per face; scores are read back to the last bit.

    Args:
        path: The file, replaced if it is there.
        scores: The table.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, TRACK])
        writer.writerows(
            zip(
                scores.video_id.tolist(),
                scores.frame_index.tolist(),
                scores.label.astype(int).tolist(),
                scores.manipulation.tolist(),
                scores.score.tolist(),
                scores.track_id.tolist(),
                strict=True,
            )
        )


def read_scores(path: str | Path) -> Scores:
    """Read a table that `write_scores` wrote, or one of the same columns in any order.

    Args:
        path: A CSV file with a header; the column track_id may be missing.

    Returns:
        The table in the order of the file.

    Raises:
        OSError: If the file is not there.
        ValueError: If a column is missing, a value is no number, or the table is not valid.
    """
    rows = {name: [] for name in (*COLUMNS, TRACK)}
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"Expected the columns {', '.join(COLUMNS)} in {path}; {', '.join(missing)} "
                "is not there. Give the file a header with these names."
            )
        for row in reader:
            try:
                rows["frame_index"].append(int(row["frame_index"]))
                rows["label"].append(int(row["label"]))
                rows["score"].append(float(row["score"]))
                rows[TRACK].append(int(row.get(TRACK, 0)))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Expected a whole frame_index, a label of 0 or 1 and a score in 0..1 in line "
                    f"{reader.line_num} of {path}; got {error}. Was the file cut short?"
                ) from error
            rows["video_id"].append(row["video_id"])
            rows["manipulation"].append(row["manipulation"])
    return Scores(**rows)


def _check_labels(scores: Scores, label: np.ndarray) -> None:
    wrong = ~np.isin(label, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every label to be 0 (real) or 1 (fake); got {label[row]} for "
            f"{_name(scores, row)}. Unlabelled faces cannot be measured: leave them out."
        )


def _check_scores(scores: Scores) -> None:
    # NaN fails both comparisons.
    wrong = ~((scores.score >= 0) & (scores.score <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every score to be a number in 0..1; got {scores.score[row]} for "
            f"{_name(scores, row)} ({int(wrong.sum())} of {len(scores)} scores are wrong). NaN "
            "comes from a training that diverged: try a smaller learning rate; a value outside "
            "comes from a logit: pass it through a sigmoid."
        )


def _check_videos(scores: Scores) -> None:
    _, first, video = np.unique(scores.video_id, return_index=True, return_inverse=True)
    wrong = scores.label != scores.label[first[video]]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            "Expected one label per video_id; got real and fake for "
            f"{str(scores.video_id[row])!r}. A bare file name is shared by several videos: put "
            "the data set and the manipulation in front of it."
        )
    order = np.lexsort((scores.track_id, scores.frame_index, video))
    twice = (
        (np.diff(video[order]) == 0)
        & (np.diff(scores.frame_index[order]) == 0)
        & (np.diff(scores.track_id[order]) == 0)
    )
    if twice.any():
        row = int(order[1:][twice].min())
        raise ValueError(
            f"Expected each face once; got {_name(scores, row)} more than once. Was the same "
            "data set put in twice?"
        )


def _name(scores: Scores, row: int) -> str:
    return f"frame {scores.frame_index[row]} of {str(scores.video_id[row])!r}"
