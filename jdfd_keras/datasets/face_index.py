"""Which faces a training or an evaluation takes, where they lie, and in which order they come.

Takes columns of manifests; gives places of records. The order is a function of seed and pass, so
that any moment of a training can be gone on with. Reads no pictures and needs no TensorFlow.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.records import SHARDS, read_crop
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions

COLUMNS = ("video_id", "frame_index", "label", "shard", "offset")  # what makes a list


@dataclass(frozen=True, eq=False)
class FaceList:
    """Faces of one prepared data set or of several.

    Attributes:
        face_size: Width and height of their crops in pixels.
        shards: Files that hold them.
        shard: int64[n], the file of each face, as a position in `shards`.
        offset: int64[n], where its record begins there.
        label: int64[n], 1 fake, 0 real, -1 unlabelled.
        is_hidden: bool[n], whether the label of the record is not to be looked at.
        video_id: The video of each face.
        frame_index: int64[n], its frame there.
    """

    face_size: int
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    label: np.ndarray
    is_hidden: np.ndarray
    video_id: pa.ChunkedArray
    frame_index: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def read(self, index: int) -> np.ndarray:
        """Read the crop at a position, uint8[size, size, 3], RGB."""
        return read_crop(self.shards[self.shard[index]], int(self.offset[index]))

    def name(self, index: int) -> str:
        """Say which face stands at a position."""
        return f"{self.video_id[index].as_py()} frame {self.frame_index[index]}"


def list_faces(directory: str | Path, table: pa.Table, *, hide_labels: bool = False) -> FaceList:
    """List faces of a prepared data set.

    Args:
        directory: The prepared data set.
        table: Rows of its manifest, with the columns COLUMNS.
        hide_labels: Take them as unlabelled, whatever is known of them.

    Raises:
        OSError: If the folder is no prepared data set.
    """
    encoded = table["shard"].cast(pa.string()).combine_chunks().dictionary_encode()
    label = table["label"].to_numpy()
    return FaceList(
        face_size=load_options(Path(directory) / OPTIONS, "faces", FaceOptions).face_size,
        shards=tuple(str(Path(directory, SHARDS, name)) for name in encoded.dictionary.to_pylist()),
        shard=encoded.indices.to_numpy().astype(np.int64),
        offset=table["offset"].to_numpy(),
        label=np.full_like(label, UNLABELLED) if hide_labels else label,
        is_hidden=np.full(len(label), hide_labels),
        video_id=table["video_id"].cast(pa.string()),
        frame_index=table["frame_index"].to_numpy(),
    )


def join_lists(lists: list[FaceList]) -> FaceList:
    """Put lists behind one another.

    Raises:
        ValueError: If they differ in the size of their faces.
    """
    first = lists[0]
    for other in lists[1:]:
        if other.face_size != first.face_size:
            raise ValueError(
                f"Expected faces of {first.face_size} pixels in all data sets; got "
                f"{other.face_size} in {Path(other.shards[0]).parent.parent}. Prepare it with "
                f"--face-size {first.face_size}."
            )
    before = np.cumsum([0, *(len(one.shards) for one in lists)])
    return FaceList(
        face_size=first.face_size,
        shards=sum((one.shards for one in lists), ()),
        shard=np.concatenate([one.shard + n for one, n in zip(lists, before, strict=False)]),
        offset=np.concatenate([one.offset for one in lists]),
        label=np.concatenate([one.label for one in lists]),
        is_hidden=np.concatenate([one.is_hidden for one in lists]),
        video_id=pa.chunked_array([chunk for one in lists for chunk in one.video_id.chunks]),
        frame_index=np.concatenate([one.frame_index for one in lists]),
    )


def draw_share(label: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw a share of the faces, half of them real and half fake where that is known.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unknown. Those that are unknown are drawn where none
            is known.
        share: Of all faces, above 0 and up to 1.
        seed: The same seed draws the same faces.

    Returns:
        int64[m], positions in ascending order; fewer than the share where a class has too few.

    Raises:
        ValueError: If the share is out of range, or so small that it is no face.

    Reference:
        The paper, section 4.4, "Data augmentation from other datasets".
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"Expected a share above 0 and up to 1; got {share:g}. The paper tries 0.05, 0.1 and "
            "0.15."
        )
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(label == value) for value in CLASSES.values()]
    groups = [group for group in groups if len(group)] or [np.arange(len(label))]
    count = round(share * len(label) / len(groups))
    drawn = [rng.permutation(group)[:count] for group in groups]
    if not count or not sum(map(len, drawn)):
        raise ValueError(
            f"Expected a share that is at least one face of each class; got {share:g} of "
            f"{len(label)} faces. Try a larger one."
        )
    return np.sort(np.concatenate(drawn))


def draw_order(label: np.ndarray, *, seed: int, number: int, balance: bool = False) -> np.ndarray:
    """Draw the order of one pass over the faces.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unlabelled.
        seed: Of the training.
        number: Of the pass, from 0; each has an order of its own.
        balance: Give as many real faces as fake ones: those of the rarer class more than once, of
            the other not all. Unlabelled faces come once each.

    Returns:
        int64[n], positions in `label`; without `balance` each once.
    """
    rng = np.random.default_rng([seed % 2**32, number])
    if not balance:
        return rng.permutation(len(label))
    unlabelled = np.flatnonzero(label == UNLABELLED)
    places = len(label) - len(unlabelled)
    drawn = [unlabelled]
    for value, count in zip(CLASSES.values(), (places // 2, places - places // 2), strict=True):
        members = np.flatnonzero(label == value)
        drawn += [members] * (count // len(members))
        drawn.append(rng.permutation(members)[: count % len(members)])
    return rng.permutation(np.concatenate(drawn))
