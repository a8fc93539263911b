"""Index of the faces of a training or an evaluation: their location in shards and their order.

The order depends only on seed and epoch, so that training can resume at any step.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.records import SHARDS, read_crop
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FaceOptions

COLUMNS = ("video_id", "frame_index", "label", "shard", "offset")  # that `index_faces` needs


@dataclass(frozen=True, eq=False)
class FaceIndex:
    """Faces of one or several prepared datasets.

    Attributes:
        face_size: Width and height of the crops in pixels.
        shards: Paths of the shards.
        shard: int64[n], shard of each face, as an index into `shards`.
        offset: int64[n], start of its record in that shard, in bytes.
        label: int64[n], 1 fake, 0 real, -1 unlabelled or hidden; the label to train with.
        video_id: string[n].
        frame_index: int64[n].
    """

    face_size: int
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    label: np.ndarray
    video_id: pa.ChunkedArray
    frame_index: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def read(self, index: int) -> np.ndarray:
        """Read the crop of a face, uint8[size, size, 3], RGB."""
        return read_crop(self.shards[self.shard[index]], int(self.offset[index]))

    def name(self, index: int) -> str:
        """Return the video and frame of a face as text."""
        return f"{self.video_id[index].as_py()} frame {self.frame_index[index]}"


def index_faces(directory: str | Path, table: pa.Table, *, hide_labels: bool = False) -> FaceIndex:
    """Index faces of a prepared dataset: rows of its manifest, with the columns COLUMNS.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> table = read_faces("prepared", split="train", columns=COLUMNS)
        >>> index_faces("prepared", table).read(0).shape
        (71, 71, 3)
    """
    encoded = table["shard"].cast(pa.string()).combine_chunks().dictionary_encode()
    label = table["label"].to_numpy()
    return FaceIndex(
        face_size=load_options(Path(directory) / OPTIONS, "faces", FaceOptions).face_size,
        shards=tuple(str(Path(directory, SHARDS, name)) for name in encoded.dictionary.to_pylist()),
        shard=encoded.indices.to_numpy().astype(np.int64),
        offset=table["offset"].to_numpy(),
        label=np.full_like(label, UNLABELLED) if hide_labels else label,
        video_id=table["video_id"].cast(pa.string()),
        frame_index=table["frame_index"].to_numpy(),
    )


def concat(indexes: list[FaceIndex]) -> FaceIndex:
    """Concatenate indexes; raise ValueError if their face sizes differ.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> faces = index_faces("prepared", read_faces("prepared", columns=COLUMNS))
        >>> len(faces), len(concat([faces, faces]))
        (58, 116)
    """
    first = indexes[0]
    for other in indexes[1:]:
        if other.face_size != first.face_size:
            raise ValueError(
                f"Expected faces of {first.face_size} pixels in all datasets; got "
                f"{other.face_size} in {Path(other.shards[0]).parent.parent}. Prepare it with "
                f"--face-size {first.face_size}."
            )
    starts = np.cumsum([0, *(len(one.shards) for one in indexes)])
    arrays = ("offset", "label", "frame_index")
    return FaceIndex(
        face_size=first.face_size,
        shards=sum((one.shards for one in indexes), ()),
        shard=np.concatenate([one.shard + n for one, n in zip(indexes, starts, strict=False)]),
        video_id=pa.chunked_array([chunk for one in indexes for chunk in one.video_id.chunks]),
        **{name: np.concatenate([getattr(one, name) for one in indexes]) for name in arrays},
    )


def sample_fraction(label: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sample a fraction of all faces, half of them real and half fake, as the paper's section 4.4.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unlabelled. Unlabelled faces are sampled only if there
            are no others.
        fraction: In (0, 1], and enough for one face per class.
        seed: Random seed.

    Returns:
        int64[m], indices in ascending order; fewer than the fraction if a class has too few faces.

    Example:
        >>> len(sample_fraction(np.array([0, 1] * 50), 0.1, seed=0))
        10

    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"Expected a fraction above 0 and up to 1; got {fraction:g}. The paper uses 0.05, 0.1 "
            "and 0.15."
        )
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(label == value) for value in CLASSES.values() if value in label]
    classes = classes or [np.arange(len(label))]
    count = round(fraction * len(label) / len(classes))
    sampled = [rng.permutation(members)[:count] for members in classes]
    if not count or not sum(map(len, sampled)):
        raise ValueError(
            f"Expected a fraction of at least one face of each class; got {fraction:g} of "
            f"{len(label)} faces. Try a larger one."
        )
    return np.sort(np.concatenate(sampled))


def epoch_order(label: np.ndarray, *, seed: int, epoch: int, balance: bool = False) -> np.ndarray:
    """Compute the order of the faces in one epoch: int64[n], indices into `label`.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unlabelled.
        seed: Random seed.
        epoch: Index of the epoch, from 0; the order differs from epoch to epoch.
        balance: Return as many real as fake faces: faces of the rarer class are repeated, some of
            the other class are omitted. Each unlabelled face appears once.

    Example:
        >>> sorted(epoch_order(np.array([0, 0, 1]), seed=0, epoch=0).tolist())
        [0, 1, 2]
    """
    rng = np.random.default_rng([seed % 2**32, epoch])
    if not balance:
        return rng.permutation(len(label))
    unlabelled = np.flatnonzero(label == UNLABELLED)
    slots = len(label) - len(unlabelled)
    order = [unlabelled]
    for value, count in zip(CLASSES.values(), (slots // 2, slots - slots // 2), strict=True):
        members = np.flatnonzero(label == value)
        order += [members] * (count // len(members))
        order.append(rng.permutation(members)[: count % len(members)])
    return rng.permutation(np.concatenate(order))
