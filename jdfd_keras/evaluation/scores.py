"""The table of scores: what a detector said of every face, and of which video it is.

Everything else in this room is computed from it. Knows nothing of files, models, pixels or
TensorFlow, so the scores of any other detector may be put in and measured alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

AGGREGATIONS = ("mean", "median", "max", "track")
# What is known of a video besides its id and label; "" where it is not.
GROUPS = ("data", "split", "compression", "manipulation")
LONGEST_WORD = 1000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, eq=False)
class Videos:
    """One row per video, in the order in which they first appear among the faces.

    Attributes:
        video_id: str[v], unique across data sets (`ffpp/Deepfakes/c23/000_003`).
        label: bool[v], True is fake.
        data: str[v], name of the data set.
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
    """One row per face; made and checked by `from_faces`, so whoever holds one may trust it.

    Attributes:
        videos: The videos, each with a face at least.
        video: int64[n], the face's video, as a position in `videos`.
        frame_index: int64[n], position in the video, from 0.
        track_id: int64[n], the person in the video, from 0.
        score: float64[n], P(fake), in [0, 1].
        reconstruction_error: float64[n], mean squared error of the reconstruction; None if not
            known.
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
        """Make the table of columns with a value for every face.

        Args:
            video_id: The face's video.
            label: 1 for fake, 0 for real, the same for all faces of a video.
            score: P(fake).
            frame_index: Counted up within each video if not given.
            track_id: All 0 if not given.
            reconstruction_error: Mean squared error of the face's reconstruction.
            groups: Those of GROUPS that are known, the same for all faces of a video.

        Raises:
            ValueError: If there are no faces, the columns differ in length, a group is not of
                GROUPS, a video_id is empty, a word is longer than LONGEST_WORD or has control
                characters, a label is neither 0 nor 1, a score is NaN or outside
                [0, 1], the faces of a video differ in what is of the video, or a face is there
                twice.
        """
        unknown = [name for name in groups if name not in GROUPS]
        if unknown:
            raise ValueError(
                f"Expected groups among {', '.join(GROUPS)}; got {', '.join(unknown)}. Leave it "
                "out, or mend its name."
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
        given = {"video_id": video, "label": label, "score": score} | {
            name: value if isinstance(value, (pa.Array, pa.ChunkedArray)) else np.asarray(value)
            for name, value in columns.items()
            if value is not None
        }
        lengths = {name: len(c) if np.ndim(c) == 1 else np.shape(c) for name, c in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Expected one value per face in every column; got {lengths}. Flatten the scores "
                "of a model with `scores[:, 0]`."
            )
        if not len(video):
            raise ValueError("Expected one face at least; got no faces. Score a set first.")
        names = encoded.dictionary.to_pylist()
        if "" in names:
            raise ValueError(
                "Expected a video_id for every face; got an empty one for row "
                f"{int(np.argmax(video == names.index('')) + 1)}. Name the video, or leave it out."
            )
        if frame_index is None:
            frame_index = _count_up(video)
        _check_words("video_id", encoded)
        people = "" if track_id is not None else "Several people in it need a track_id each. "
        track_id = np.zeros(len(video), np.int64) if track_id is None else track_id

        def name_face(row: int) -> str:
            return f"frame {frame_index[row]} of {names[video[row]]!r}"

        _check_labels(label, name_face)
        _check_scores(score, name_face)
        first = np.unique(video, return_index=True)[1]
        of_video = {"label": _take_of_video("label", label.astype(bool), video, first, names)}
        for name in GROUPS:
            column = groups.get(name)
            of_video[name] = (
                np.full(len(names), "")
                if column is None
                else _take_words_of_video(name, column, video, first, names)
            )
        scores = cls(
            Videos(np.array(names, np.str_), **of_video),
            video,
            np.asarray(frame_index, np.int64),
            np.asarray(track_id, np.int64),
            score,
            None if reconstruction_error is None else np.asarray(reconstruction_error, np.float64),
        )
        _check_faces(scores, name_face, hint=people)
        return scores

    def __len__(self) -> int:
        return len(self.score)

    @property
    def label(self) -> np.ndarray:
        """bool[n], True is fake."""
        return self.videos.label[self.video]

    @property
    def video_id(self) -> np.ndarray:
        """str[n]."""
        return self.videos.video_id[self.video]

    def select(self, keep: np.ndarray) -> "Scores":
        """Take some of the videos with all their faces, in order.

        Args:
            keep: bool[v], True where a video is wanted.
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
    """Make one score of the scores of each video's faces.

    Args:
        scores: One row per face.
        aggregation: `mean`, `median` or `max` of all faces of the video, or `track`: the highest
            of the means of its people, where one fake face makes a fake. `predict` judges so, but
            for leaving out people of whom the face detector was not sure.

    Returns:
        float64[v], in the order of `scores.videos`.

    Raises:
        ValueError: If the aggregation is not one of AGGREGATIONS.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(
            f"Expected one of {', '.join(AGGREGATIONS)} to make one score of many; got "
            f"{aggregation!r}. Try mean."
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
        words = words.cast(pa.string())  # for an order of first appearance, and no unused words
    if not isinstance(words, pa.Array):
        words = pa.array([str(word) for word in words], pa.string())
    return words.cast(pa.string()).fill_null("").dictionary_encode()


def _count_up(video: np.ndarray) -> np.ndarray:
    order = np.argsort(video, kind="stable")
    count = np.bincount(video)
    position = np.empty(len(video), np.int64)
    position[order] = np.arange(len(video)) - np.repeat(np.cumsum(count) - count, count)
    return position


def _take_words_of_video(name: str, column, video, first, names) -> np.ndarray:
    encoded = _encode(column)
    _check_words(name, encoded)
    words = np.array(encoded.dictionary.to_pylist(), np.str_)
    return words[_take_of_video(name, encoded.indices.to_numpy(), video, first, names)]


def _take_of_video(name: str, value: np.ndarray, video, first, names) -> np.ndarray:
    differs = value != value[first][video]
    if differs.any():
        raise ValueError(
            f"Expected one {name} per video_id; got several for "
            f"{names[video[int(np.argmax(differs))]]!r}. A bare file name is shared by several "
            "videos: put the data set and the manipulation in front of it."
        )
    return value[first]


def _check_words(name: str, encoded: pa.DictionaryArray) -> None:
    """See that every word fits on a line of a page and into an array of numpy's.

    There each takes as much room as the longest, and loses a NUL at its end.
    """
    for place, word in enumerate(encoded.dictionary.to_pylist()):
        if len(word) > LONGEST_WORD or CONTROL.search(word):
            row = int(np.argmax(encoded.indices.to_numpy() == place)) + 1
            raise ValueError(
                f"Expected a {name} of at most {LONGEST_WORD} characters, none of them a control "
                f"character; got {word[:60]!r}, {len(word)} long, for row {row}. Shorten it, or "
                "take line feeds and the like out."
            )


def _check_labels(label: np.ndarray, name_face) -> None:
    wrong = ~np.isin(label, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every label to be 0 (real) or 1 (fake); got {label[row]} for "
            f"{name_face(row)}. Unlabelled faces cannot be measured: leave them out."
        )


def _check_scores(score: np.ndarray, name_face) -> None:
    # NaN fails both comparisons.
    wrong = ~((score >= 0) & (score <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected every score to be a number in 0..1; got {score[row]} for "
            f"{name_face(row)} ({int(wrong.sum())} of {len(score)} scores are wrong). NaN "
            "comes from a training that diverged: try a smaller learning rate; a value outside "
            "comes from a logit: pass it through a sigmoid."
        )


def _check_faces(scores: Scores, name_face, hint: str) -> None:
    order = np.lexsort((scores.track_id, scores.frame_index, scores.video))
    twice = np.ones(len(order) - 1, bool)
    for column in (scores.video, scores.frame_index, scores.track_id):
        twice &= np.diff(column[order]) == 0
    if twice.any():
        row = int(order[1:][twice].min())
        raise ValueError(
            f"Expected each face once; got {name_face(row)} more than once. {hint}Was the same "
            "data set put in twice?"
        )
