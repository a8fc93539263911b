"""What a detector loses when it computes in int8: AUC, and the scores of single videos.

Takes the faces of prepared datasets and their scores in float32 and in int8. Independent of the
engine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdfd_keras.datasets.records import choose_over_videos
from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.evaluation.delong import compare
from jdfd_keras.evaluation.eval_data import load_eval_sets
from jdfd_keras.evaluation.metrics import Estimate, measure
from jdfd_keras.io.results import Result

MIN_VIDEOS = 100  # of each dataset; fewer cannot show a loss of MAX_AUC_LOSS
AUC_RANGE = (0.75, 0.97)  # outside, a loss of order hardly shows in the AUC
MAX_AUC_LOSS, MAX_MOVE = 0.005, 0.05
MAX_FACES = 4000  # of each dataset, spread over its videos


@dataclass(frozen=True)
class SetLoss(Result):
    """What int8 loses on one dataset.

    Attributes:
        data: Name of the dataset.
        num_real: Number of real videos, as `num_fake` of fake ones.
        num_faces: Number of faces that were scored.
        frame_auc: AUC of the faces in float32, as `video_auc` of the videos by their mean scores.
        frame_auc_int8: The same in int8, as `video_auc_int8`.
        frame_loss: `frame_auc` minus `frame_auc_int8`, with the interval of paired scores
            (DeLong), as `video_loss`.
        largest_move: Largest difference between the two scores of a video.
        moved_video: That video.
        largest_face_move: Largest difference between the two scores of a face.
    """

    data: str
    num_real: int
    num_fake: int
    num_faces: int
    frame_auc: Estimate
    frame_auc_int8: Estimate
    frame_loss: Estimate
    video_auc: Estimate
    video_auc_int8: Estimate
    video_loss: Estimate
    largest_move: float
    moved_video: str
    largest_face_move: float

    @property
    def accepted(self) -> bool:
        """Whether the AUC loses at most MAX_AUC_LOSS and no video moves by more than MAX_MOVE."""
        losses = (self.frame_loss.value, self.video_loss.value)
        return all(loss is not None and loss <= MAX_AUC_LOSS for loss in losses) and (
            self.largest_move <= MAX_MOVE
        )


class ComparedSet(NamedTuple):
    """Faces that decide about an int8 network."""

    name: str
    directory: Path
    shards: list[str]  # of each face, as its offset there
    offsets: list[int]
    label: np.ndarray  # bool[n], of each of these faces
    video: np.ndarray  # int64[n], index of its video
    names: list[str]  # of the videos


def load_compared_sets(
    data: str | Path, foreign: str | Path, split_table: str = OFFICIAL
) -> list[ComparedSet]:
    """Load the validation split of a dataset, and all of a foreign one.

    Raises:
        OSError: If one is not a prepared dataset, or `data` has no such split table.
        ValueError: If one has fewer than MIN_VIDEOS labelled videos with faces, or one class only.

    Example:
        >>> load_compared_sets("prepared", "prepared")
        Traceback (most recent call last):
        ValueError: Expected 100 labelled videos, real and fake, ... got 2 real and 2 fake ...
    """
    found = load_eval_sets([data], "val", split_table) + load_eval_sets([foreign], "all")
    compared = []
    for place, one in zip((f"the split val of {data}", str(foreign)), found, strict=True):
        all_names = one.rows["video_id"].to_pylist()
        rows = choose_over_videos(all_names, range(len(all_names)), MAX_FACES)
        names, video = np.unique([all_names[row] for row in rows], return_inverse=True)
        label = one.rows["label"].to_numpy()[rows] == 1
        num_fake = len(np.unique(video[label]))
        if len(names) < MIN_VIDEOS or num_fake in (0, len(names)):
            raise ValueError(
                f"Expected {MIN_VIDEOS} labelled videos, real and fake, with faces in {place}, to "
                f"measure what int8 loses; got {len(names) - num_fake} real and {num_fake} fake "
                "ones. Blended fakes made while training do not count: give a dataset with fake "
                "videos."
            )
        shards, offsets = (
            one.rows[column].take(rows).to_pylist() for column in ("shard", "offset")
        )
        compared.append(
            ComparedSet(one.name, one.directory, shards, offsets, label, video, names.tolist())
        )
    return compared


def measure_loss(
    one: ComparedSet, float32: np.ndarray, int8: np.ndarray, n_resamples: int = 0
) -> SetLoss:
    """Compare the scores of a dataset in int8 with those in float32.

    Args:
        one: The dataset.
        float32: float64[n], scores of its faces in float32.
        int8: float64[n], those in int8.
        n_resamples: Resamples of the bootstrap for the intervals of the AUCs; 0 for none.

    Example:
        >>> label = np.array([False, True])
        >>> one = ComparedSet("clips", Path(), ["", ""], [0, 0], label, np.arange(2), ["a", "b"])
        >>> loss = measure_loss(one, np.array([0.2, 0.8]), np.array([0.2, 0.6]))
        >>> loss.moved_video, round(loss.largest_move, 3), loss.accepted
        ('b', 0.2, False)
    """
    count = np.bincount(one.video)
    label = np.bincount(one.video, one.label) > 0
    by_video = [np.bincount(one.video, score) / count for score in (float32, int8)]
    moves = np.abs(by_video[1] - by_video[0])
    aucs, losses = [], []
    for is_fake, video, pair in (
        (one.label, one.video, (float32, int8)),
        (label, np.arange(len(label)), by_video),
    ):
        aucs.append(
            [
                measure(is_fake, score, threshold=0.5, video=video, n_resamples=n_resamples).auc
                for score in pair
            ]
        )
        difference = compare(is_fake, pair[0], pair[1], video)
        losses.append(difference.difference if difference else Estimate(None))
    return SetLoss(
        data=one.name,
        num_real=int((~label).sum()),
        num_fake=int(label.sum()),
        num_faces=len(one.label),
        frame_auc=aucs[0][0],
        frame_auc_int8=aucs[0][1],
        frame_loss=losses[0],
        video_auc=aucs[1][0],
        video_auc_int8=aucs[1][1],
        video_loss=losses[1],
        largest_move=float(moves.max()),
        moved_video=one.names[int(moves.argmax())],
        largest_face_move=float(np.abs(int8 - float32).max()),
    )
