"""The table of scores: the score of every face, and the properties of its video.

Independent of files, models and TensorFlow, so the scores of any detector can be evaluated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from jdfd_keras.client.calibration import round_score

AGGREGATIONS = ("mean", "median", "max", "track")
# Properties of a video besides its id and label; "" where unknown.
GROUPS = ("data", "split", "compression", "manipulation")
MAX_LENGTH = 1000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Column = Sequence | np.ndarray | pa.Array | pa.ChunkedArray


@dataclass(frozen=True, eq=False)
class Videos:
    """One row per video, in the order of their first faces."""

    video_id: np.ndarray  # str[v], unique across datasets (`ffpp/Deepfakes/c23/000_003`)
    label: np.ndarray  # bool[v], True is fake
    data: np.ndarray  # str[v], name of the dataset
    split: np.ndarray  # str[v]
    compression: np.ndarray  # str[v]
    manipulation: np.ndarray  # str[v], `""` for real

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per face; created and checked by `from_faces`."""

    videos: Videos  # each with at least one face
    video: np.ndarray  # int64[n], row of the face's video in `videos`
    frame_index: np.ndarray  # int64[n], frame in the video, from 0
    track_id: np.ndarray  # int64[n], track in the video, from 0
    score: np.ndarray  # float64[n], P(fake), in [0, 1]
    reconstruction_error: np.ndarray | None = None  # float64[n], mean squared error, if known

    @classmethod
    def from_faces(
        cls,
        *,
        video_id: Column,
        label: Column,
        score: Column,
        frame_index: Column | None = None,
        track_id: Column | None = None,
        reconstruction_error: Column | None = None,
        **groups: Column,
    ) -> "Scores":
        """Create the table from columns with one value per face.

        Args:
            video_id: Id of the face's video.
            label: 1 for fake, 0 for real; equal for all faces of a video.
            score: P(fake), in [0, 1].
            frame_index: Frame in the video; by default counted up within each video.
            track_id: Track in the video; 0 by default.
            reconstruction_error: Mean squared error of the face's reconstruction.
            groups: Any of GROUPS; equal for all faces of a video.

        Raises:
            ValueError: If a value is out of range or a face appears twice.

        Example:
            >>> scores = Scores.from_faces(video_id=["a", "a", "b"], label=[0, 0, 1],
            ...                            score=[0.1, 0.3, 0.9])
            >>> scores.videos.label
            array([False,  True])
        """
        if unknown := ", ".join(groups.keys() - set(GROUPS)):
            raise ValueError(
                f"Expected groups among {', '.join(GROUPS)}; got {unknown}. Correct or omit it."
            )
        numbers = {"label": label, "score": np.asarray(score, np.float64), "track_id": track_id}
        numbers |= {"frame_index": frame_index, "reconstruction_error": reconstruction_error}
        columns = {name: np.asarray(c) for name, c in numbers.items() if c is not None}
        words = {"video_id": video_id, **groups}
        columns |= {name: np.asarray(column, object) for name, column in words.items()}
        shapes = {name: column.shape for name, column in columns.items()}
        if len(set(shapes.values())) > 1 or columns["score"].ndim != 1:
            raise ValueError(
                f"Expected one value per face in every column; got the shapes {shapes}. Flatten "
                "the scores of a model with `scores[:, 0]`."
            )
        faces = pd.DataFrame(columns)
        if not len(faces):
            raise ValueError("Expected at least one face; got none. Score a dataset first.")
        for name in words:
            _check_strings(name, columns[name].tolist())
            faces[name] = pd.Series(columns[name]).fillna("").astype(str)
        video = pd.factorize(faces["video_id"])[0]
        if frame_index is None:
            faces["frame_index"] = faces.groupby(video).cumcount()
        if track_id is None:
            faces["track_id"] = 0
        _check_values(faces)
        videos = faces.drop_duplicates("video_id")
        for name in ("label", *groups):
            differs = faces[name].to_numpy() != videos[name].to_numpy()[video]
            if differs.any():
                raise ValueError(
                    f"Expected one {name} per video_id; got several for "
                    f"{faces['video_id'][differs.argmax()]!r}. If several videos share a file "
                    "name, prefix it with dataset and manipulation."
                )
        repeated = faces.duplicated(["video_id", "frame_index", "track_id"]).to_numpy()
        if repeated.any():
            hint = "Several tracks in a video need a track_id. " if track_id is None else ""
            raise ValueError(
                f"Expected each face once; got {_name_first(faces, repeated)} more than once. "
                f"{hint}Check whether the same dataset was added twice."
            )
        of_video = dict.fromkeys(GROUPS, np.full(len(videos), ""))
        of_video |= {name: videos[name].to_numpy(np.str_) for name in words}
        kinds = {"frame_index": np.int64, "track_id": np.int64, "score": np.float64}
        if reconstruction_error is not None:
            kinds["reconstruction_error"] = np.float64
        return cls(
            Videos(label=videos["label"].to_numpy(bool), **of_video),
            video,
            **{name: faces[name].to_numpy(kind) for name, kind in kinds.items()},
        )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def label(self) -> np.ndarray:
        """bool[n], True is fake."""
        return self.videos.label[self.video]

    @property
    def video_id(self) -> np.ndarray:
        """str[n], id of the face's video."""
        return self.videos.video_id[self.video]

    def select(self, keep: np.ndarray) -> "Scores":
        """Select videos with all their faces, in order; `keep` is bool[v]."""
        return self.select_faces(keep[self.video])

    def select_faces(self, keep: np.ndarray) -> "Scores":
        """Select faces, and the videos that have one, in order; `keep` is bool[n]."""
        if keep.all():
            return self
        kept = np.bincount(self.video[keep], minlength=len(self.videos)) > 0
        error = self.reconstruction_error
        return Scores(
            Videos(*(column[kept] for column in vars(self.videos).values())),
            (np.cumsum(kept) - 1)[self.video[keep]],
            self.frame_index[keep],
            self.track_id[keep],
            self.score[keep],
            None if error is None else error[keep],
        )


def score_videos(scores: Scores, aggregation: str = "mean") -> np.ndarray:
    """Aggregate the face scores of each video into one score.

    Args:
        scores: One row per face.
        aggregation: `mean`, `median` or `max` of all faces of the video, or `track`: the highest
            mean score of its tracks, since one fake person makes a video fake. `predict` does the
            same with the tracks that it judges.

    Returns:
        float64[v], in the order of `scores.videos`, rounded to 1e-12: scores that are equal but
        for the rounding of floats are ties.

    Example:
        >>> score_videos(Scores.from_faces(video_id=["a", "a"], label=[1, 1], score=[0.5, 0.75]))
        array([0.625])
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(
            f"Expected an aggregation among {', '.join(AGGREGATIONS)}; got {aggregation!r}. Try "
            "mean."
        )
    if aggregation == "mean":
        return round_score(_average(scores.video, scores.score))
    if aggregation == "track":
        video, score = average_tracks(scores)
        highest = np.zeros(len(scores.videos))
        np.maximum.at(highest, video, score)
        return highest
    return round_score(pd.Series(scores.score).groupby(scores.video).agg(aggregation).to_numpy())


def average_tracks(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean score of each track, rounded to 1e-12.

    Returns:
        int64[t], row of the track's video in `scores.videos`, and float64[t], its score.

    Example:
        >>> scores = Scores.from_faces(video_id=["a", "a"], label=[1, 1], score=[0.5, 0.75])
        >>> average_tracks(scores)
        (array([0]), array([0.625]))
    """
    keys = np.stack([scores.video, scores.track_id], axis=1)
    tracks, owner = np.unique(keys, axis=0, return_inverse=True)
    return tracks[:, 0], round_score(_average(owner.ravel(), scores.score))


def count_tracks(scores: Scores) -> np.ndarray:
    """Count the tracks of each video, int64[v].

    Example:
        >>> count_tracks(Scores.from_faces(video_id=["a", "a"], label=[1, 1], score=[0.5, 0.75]))
        array([1])
    """
    return np.bincount(average_tracks(scores)[0])


def _average(owner: np.ndarray, score: np.ndarray) -> np.ndarray:
    return np.bincount(owner, weights=score) / np.bincount(owner)


def _check_strings(name: str, words: list) -> None:
    # In a NumPy array each word takes as much memory as the longest, and loses NULs at its end.
    for word in map(str, dict.fromkeys(words)):
        if len(word) > MAX_LENGTH or CONTROL.search(word):
            raise ValueError(
                f"Expected a {name} of at most {MAX_LENGTH} characters without control "
                f"characters; got {word[:60]!r} of length {len(word)} in row "
                f"{words.index(word) + 1}. Shorten it, or remove line feeds and other control "
                "characters."
            )


def _check_values(faces: pd.DataFrame) -> None:
    empty = faces["video_id"].to_numpy() == ""
    if empty.any():
        raise ValueError(
            "Expected a video_id for every face; got an empty one for row "
            f"{empty.argmax() + 1}. Name the video, or remove it."
        )
    label, score = faces["label"].to_numpy(), faces["score"].to_numpy()
    wrong = ~np.isin(label, (0, 1))
    if wrong.any():
        raise ValueError(
            f"Expected every label to be 0 (real) or 1 (fake); got {label[wrong][0]} for "
            f"{_name_first(faces, wrong)}. Remove unlabelled faces: they cannot be evaluated."
        )
    wrong = ~((score >= 0) & (score <= 1))  # NaN fails both comparisons
    if wrong.any():
        raise ValueError(
            f"Expected every score to be a number in 0..1; got {score[wrong][0]} for "
            f"{_name_first(faces, wrong)} ({wrong.sum()} of {len(faces)} scores are wrong). If it "
            "is NaN, the training diverged: try a smaller learning rate. If it is a logit, apply a "
            "sigmoid."
        )


def _name_first(faces: pd.DataFrame, wrong: np.ndarray) -> str:
    row = int(wrong.argmax())
    return f"frame {faces['frame_index'][row]} of {faces['video_id'][row]!r}"
