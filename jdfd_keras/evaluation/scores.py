"""The table of scores: the score of every face, and the properties of its video.

Every metric is computed from it. Independent of files, models, pixels and TensorFlow, so the
scores of any detector can be evaluated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

AGGREGATIONS = ("mean", "median", "max", "track")
# Properties of a video besides its id and label; "" where unknown.
GROUPS = ("data", "split", "compression", "manipulation")
MAX_LENGTH = 1000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, eq=False)
class Videos:
    """One row per video, in the order of their first faces.

    Attributes:
        video_id: str[v], unique across datasets (`ffpp/Deepfakes/c23/000_003`).
        label: bool[v], True is fake.
        data: str[v], name of the dataset.
        split: str[v].
        compression: str[v].
        manipulation: str[v], `""` for real.
    """

    video_id: np.ndarray
    label: np.ndarray
    data: np.ndarray
    split: np.ndarray
    compression: np.ndarray
    manipulation: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per face; created and checked by `from_faces`.

    Attributes:
        videos: The videos, each with at least one face.
        video: int64[n], row of the face's video in `videos`.
        frame_index: int64[n], frame in the video, from 0.
        track_id: int64[n], track in the video, from 0.
        score: float64[n], P(fake), in [0, 1].
        reconstruction_error: float64[n], mean squared error of the reconstruction; None if
            unknown.
    """

    videos: Videos
    video: np.ndarray
    frame_index: np.ndarray
    track_id: np.ndarray
    score: np.ndarray
    reconstruction_error: np.ndarray | None = None

    @classmethod
    def from_faces(
        cls,
        *,
        video_id: Sequence[str] | pa.Array,
        label: Sequence[int],
        score: Sequence[float],
        frame_index: Sequence[int] | None = None,
        track_id: Sequence[int] | None = None,
        reconstruction_error: Sequence[float] | None = None,
        **groups: Sequence[str] | pa.Array,
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
            ValueError: If there are no faces, the columns differ in length, a group is not in
                GROUPS, a video_id is empty, a string is longer than MAX_LENGTH or has control
                characters, a label is neither 0 nor 1, a score is NaN or outside [0, 1], the faces
                of a video differ in a value of the video, or a face appears twice.

        Example:
            >>> scores = Scores.from_faces(video_id=["a", "a", "b"], label=[0, 0, 1],
            ...                            score=[0.1, 0.3, 0.9])
            >>> scores.videos.label
            array([False,  True])
        """
        unknown = [name for name in groups if name not in GROUPS]
        if unknown:
            raise ValueError(
                f"Expected groups among {', '.join(GROUPS)}; got {', '.join(unknown)}. Omit it or "
                "correct its name."
            )
        label, score = np.asarray(label), np.asarray(score, np.float64)
        encoded = _encode(video_id)
        video = encoded.indices.to_numpy().astype(np.int64)
        columns = {
            "frame_index": frame_index,
            "track_id": track_id,
            "reconstruction_error": reconstruction_error,
            **groups,
        }
        present = {"video_id": video, "label": label, "score": score} | {
            name: value if isinstance(value, (pa.Array, pa.ChunkedArray)) else np.asarray(value)
            for name, value in columns.items()
            if value is not None
        }
        lengths = {name: len(c) if np.ndim(c) == 1 else np.shape(c) for name, c in present.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Expected one value per face in every column; got {lengths}. Flatten the scores "
                "of a model with `scores[:, 0]`."
            )
        if not len(video):
            raise ValueError("Expected at least one face; got none. Score a dataset first.")
        names = encoded.dictionary.to_pylist()
        if "" in names:
            raise ValueError(
                "Expected a video_id for every face; got an empty one for row "
                f"{int(np.argmax(video == names.index('')) + 1)}. Name the video, or remove it."
            )
        if frame_index is None:
            frame_index = _count_up(video)
        _check_strings("video_id", encoded)
        hint = "" if track_id is not None else "Several tracks in a video need a track_id. "
        track_id = np.zeros(len(video), np.int64) if track_id is None else track_id

        def name_face(row: int) -> str:
            return f"frame {frame_index[row]} of {names[video[row]]!r}"

        _check_labels(label, name_face)
        _check_scores(score, name_face)
        first = np.unique(video, return_index=True)[1]
        of_video = {"label": _values_of_video("label", label.astype(bool), video, first, names)}
        for name in GROUPS:
            column = groups.get(name)
            of_video[name] = (
                np.full(len(names), "")
                if column is None
                else _strings_of_video(name, column, video, first, names)
            )
        scores = cls(
            Videos(np.array(names, np.str_), **of_video),
            video,
            np.asarray(frame_index, np.int64),
            np.asarray(track_id, np.int64),
            score,
            None if reconstruction_error is None else np.asarray(reconstruction_error, np.float64),
        )
        _check_faces(scores, name_face, hint=hint)
        return scores

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
        """Select videos with all their faces, in order.

        Args:
            keep: bool[v], True for the videos to select.
        """
        if keep.all():
            return self
        faces = keep[self.video]
        position = np.cumsum(keep) - 1
        videos = Videos(*(column[keep] for column in vars(self.videos).values()))
        return Scores(
            videos,
            position[self.video[faces]],
            self.frame_index[faces],
            self.track_id[faces],
            self.score[faces],
            None if self.reconstruction_error is None else self.reconstruction_error[faces],
        )


def score_videos(scores: Scores, aggregation: str = "mean") -> np.ndarray:
    """Aggregate the face scores of each video into one score.

    Args:
        scores: One row per face.
        aggregation: `mean`, `median` or `max` of all faces of the video, or `track`: the highest
            mean score of its tracks, since one fake person makes a video fake. `predict` does the
            same, but ignores unreliable tracks.

    Returns:
        float64[v], in the order of `scores.videos`.

    Raises:
        ValueError: If the aggregation is not one of AGGREGATIONS.

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
        return _average(scores.video, scores.score)
    if aggregation == "track":
        tracks, owner = np.unique(
            np.stack([scores.video, scores.track_id], axis=1), axis=0, return_inverse=True
        )
        highest = np.zeros(len(scores.videos))
        np.maximum.at(highest, tracks[:, 0], _average(owner.ravel(), scores.score))
        return highest
    order = np.lexsort((scores.score, scores.video))
    ordered = scores.score[order]
    count = np.bincount(scores.video)
    end = np.cumsum(count)
    if aggregation == "max":
        return ordered[end - 1]
    start = end - count
    return (ordered[start + (count - 1) // 2] + ordered[start + count // 2]) / 2


def _average(owner: np.ndarray, score: np.ndarray) -> np.ndarray:
    return np.bincount(owner, weights=score) / np.bincount(owner)


def _encode(words) -> pa.DictionaryArray:
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    if isinstance(words, pa.DictionaryArray):
        words = words.cast(pa.string())  # to order by first appearance and drop unused values
    if not isinstance(words, pa.Array):
        words = pa.array([str(word) for word in words], pa.string())
    return words.cast(pa.string()).fill_null("").dictionary_encode()


def _count_up(video: np.ndarray) -> np.ndarray:
    order = np.argsort(video, kind="stable")
    count = np.bincount(video)
    position = np.empty(len(video), np.int64)
    position[order] = np.arange(len(video)) - np.repeat(np.cumsum(count) - count, count)
    return position


def _strings_of_video(name: str, column, video, first, names) -> np.ndarray:
    encoded = _encode(column)
    _check_strings(name, encoded)
    words = np.array(encoded.dictionary.to_pylist(), np.str_)
    return words[_values_of_video(name, encoded.indices.to_numpy(), video, first, names)]


def _values_of_video(name: str, value: np.ndarray, video, first, names) -> np.ndarray:
    differs = value != value[first][video]
    if differs.any():
        raise ValueError(
            f"Expected one {name} per video_id; got several for "
            f"{names[video[int(np.argmax(differs))]]!r}. If several videos share a file "
            "name, prefix it with dataset and manipulation."
        )
    return value[first]


def _check_strings(name: str, encoded: pa.DictionaryArray) -> None:
    """Check that every string fits on one line of a page and into a numpy array.

    In an array every string takes as much memory as the longest, and loses NULs at its end.
    """
    for code, word in enumerate(encoded.dictionary.to_pylist()):
        if len(word) > MAX_LENGTH or CONTROL.search(word):
            row = int(np.argmax(encoded.indices.to_numpy() == code)) + 1
            raise ValueError(
                f"Expected a {name} of at most {MAX_LENGTH} characters without control characters; "
                f"got {word[:60]!r} of length {len(word)} in row {row}. Shorten it, or "
                "remove line feeds and other control characters."
            )


def _check_labels(label: np.ndarray, name_face) -> None:
    wrong = ~np.isin(label, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every label to be 0 (real) or 1 (fake); got {label[row]} for "
            f"{name_face(row)}. Remove unlabelled faces: they cannot be evaluated."
        )


def _check_scores(score: np.ndarray, name_face) -> None:
    # NaN fails both comparisons.
    wrong = ~((score >= 0) & (score <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every score to be a number in 0..1; got {score[row]} for "
            f"{name_face(row)} ({int(wrong.sum())} of {len(score)} scores are wrong). If it "
            "is NaN, the training diverged: try a smaller learning rate. If it is a logit, apply a "
            "sigmoid."
        )


def _check_faces(scores: Scores, name_face, hint: str) -> None:
    order = np.lexsort((scores.track_id, scores.frame_index, scores.video))
    twice = np.ones(len(order) - 1, bool)
    for column in (scores.video, scores.frame_index, scores.track_id):
        twice &= np.diff(column[order]) == 0
    if twice.any():
        row = int(order[1:][twice].min())
        raise ValueError(
            f"Expected each face once; got {name_face(row)} more than once. {hint}Check "
            "whether the same dataset was added twice."
        )
