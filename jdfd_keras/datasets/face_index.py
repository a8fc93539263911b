"""Index of the faces of a training or an evaluation: their location in shards and their order.

The order depends only on seed and epoch, so that training can resume at any step. Blended fakes are
faces of the index too; they are made from real faces when they are read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.pairs import choose_donor, find_people, order_pairs, parse_landmarks
from jdfd_keras.datasets.records import SHARDS, read_crop
from jdfd_keras.datasets.synthetic.fakes import BlendedFake, make_fake
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.options import FAKE_KINDS, FaceOptions

COLUMNS = ("video_id", "frame_index", "label", "shard", "offset")  # that `index_faces` needs
FAKE_COLUMNS = (*COLUMNS, "landmarks")  # that it needs for `add_fakes`


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
        landmarks: float32[m, 68, 2], x and y in pixels of the crop, NaN where unknown, of the m
            stored faces, which are the first ones; None if they were indexed without, as `person`.
        person: int64[m], equal for real faces whose videos share a source or a subject; -1 for
            other faces.
        base: int64[n], for a blended fake the index of the real face that it is made from, -1 for
            a stored face; None without blended fakes.
        kinds: Kinds of the blended fakes, as of `parse_fakes`; one is drawn whenever one is made.
        masks: uint8[k, cells, cells], share of manipulated pixels in each cell of the crop, 255 for
            all, of the k faces that are not blended, which are the first ones; those of real faces
            and unknown ones are 0. A blended fake has its own. None without masks.
        has_mask: bool[k], whether the mask is known; None without masks.
    """

    face_size: int
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    label: np.ndarray
    video_id: pa.ChunkedArray
    frame_index: np.ndarray
    landmarks: np.ndarray | None = None
    person: np.ndarray | None = None
    base: np.ndarray | None = None
    kinds: tuple[str, ...] = ()
    masks: np.ndarray | None = None
    has_mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def donors(self) -> np.ndarray:
        """int64[m], the real faces that blended fakes are made from."""
        assert self.base is not None
        return self.base[self.base >= 0]

    def is_blended(self, index: int) -> bool:
        """Return whether a face is a blended fake."""
        return self.base is not None and bool(self.base[index] >= 0)

    def read(self, index: int) -> np.ndarray:
        """Read the crop of a face, uint8[size, size, 3], RGB; of a fake, that of epoch 0."""
        if self.is_blended(index):
            return self.blend(index, self.read, seed=0, epoch=0).pixels
        return read_crop(self.shards[self.shard[index]], int(self.offset[index]))

    def blend(
        self, index: int, read: Callable[[int], np.ndarray], *, seed: int, epoch: int
    ) -> BlendedFake:
        """Make a blended fake; it depends only on the index of its face, the seed and the epoch.

        Args:
            index: The fake.
            read: Function that reads the crop of a stored face by its index.
            seed: Random seed.
            epoch: Index of the epoch, from 0; the fake differs from epoch to epoch.
        """
        assert self.base is not None and self.landmarks is not None and self.person is not None
        base = int(self.base[index])
        rng = np.random.default_rng([seed % 2**32, epoch, base])
        kind, donor = self.kinds[rng.integers(len(self.kinds))], None
        if kind == "swapped":
            chosen = choose_donor(self.landmarks, self.person, self.donors, base, rng)
            donor = read(chosen), self.landmarks[chosen]
        return make_fake(kind, read(base), self.landmarks[base], rng, donor)

    def name(self, index: int) -> str:
        """Return the video and frame of a face as text."""
        blended = ", blended" if self.is_blended(index) else ""
        return f"{self.video_id[index].as_py()} frame {self.frame_index[index]}{blended}"


def index_faces(directory: str | Path, table: pa.Table, *, hide_labels: bool = False) -> FaceIndex:
    """Index faces of a prepared dataset: rows of its manifest, with the columns COLUMNS.

    With the columns FAKE_COLUMNS, landmarks and people are indexed too.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> table = read_faces("prepared", split="train", columns=COLUMNS)
        >>> index_faces("prepared", table).read(0).shape
        (71, 71, 3)
    """
    encoded = table["shard"].cast(pa.string()).combine_chunks().dictionary_encode()
    label, landmarks, person = table["label"].to_numpy(), None, None
    if "landmarks" in table.column_names:
        landmarks = parse_landmarks(table["landmarks"])
        people = find_people(read_videos(directory))
        names = table["video_id"].to_pylist()
        person = np.array([people.get(name, -1) for name in names], np.int64)
    return FaceIndex(
        face_size=load_options(Path(directory) / OPTIONS, "faces", FaceOptions).face_size,
        shards=tuple(str(Path(directory, SHARDS, name)) for name in encoded.dictionary.to_pylist()),
        shard=encoded.indices.to_numpy().astype(np.int64),
        offset=table["offset"].to_numpy(),
        label=np.full_like(label, UNLABELLED) if hide_labels else label,
        video_id=table["video_id"].cast(pa.string()),
        frame_index=table["frame_index"].to_numpy(),
        landmarks=landmarks,
        person=person,
    )


def concat(indexes: list[FaceIndex]) -> FaceIndex:
    """Concatenate indexes without blended fakes; raise ValueError if their face sizes differ.

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
    names = ["offset", "label", "frame_index"]
    if any(one.landmarks is not None for one in indexes):
        indexes = [_with_landmarks(one) for one in indexes]
        names += ["landmarks", "person"]
    cells = max(0 if one.masks is None else one.masks.shape[1] for one in indexes)
    if cells:
        indexes = [_with_masks(one, cells) for one in indexes]
        names += ["masks", "has_mask"]
    arrays: dict[str, Any] = {n: np.concatenate([getattr(i, n) for i in indexes]) for n in names}
    return FaceIndex(
        face_size=first.face_size,
        shards=sum((one.shards for one in indexes), ()),
        shard=np.concatenate([one.shard + n for one, n in zip(indexes, starts, strict=False)]),
        video_id=pa.chunked_array([chunk for one in indexes for chunk in one.video_id.chunks]),
        **arrays,
    )


def _with_landmarks(faces: FaceIndex) -> FaceIndex:
    """Return the faces with unknown landmarks if they were indexed without any."""
    if faces.landmarks is not None:
        return faces
    unknown = np.full((len(faces), 68, 2), np.nan, np.float32)
    return replace(faces, landmarks=unknown, person=np.full(len(faces), -1))


def _with_masks(faces: FaceIndex, cells: int) -> FaceIndex:
    """Return the faces with unknown masks if they were indexed without any."""
    if faces.masks is not None:
        return faces
    masks = np.zeros((len(faces), cells, cells), np.uint8)
    return replace(faces, masks=masks, has_mask=np.full(len(faces), False))


def has_two_people(faces: FaceIndex) -> bool:
    """Return whether real faces of two or more people can be swapped.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> has_two_people(
        ...     index_faces("prepared", read_faces("prepared", columns=FAKE_COLUMNS))
        ... )
        True
    """
    if faces.landmarks is None or faces.person is None:
        return False
    is_known = np.isfinite(faces.landmarks).all(axis=(1, 2))
    people = faces.person[is_known & (faces.label == CLASSES["real"])]
    return len(people) > 0 and bool((people != people[0]).any())


def add_fakes(faces: FaceIndex, kinds: tuple[str, ...], *, make_even: bool = True) -> FaceIndex:
    """Append a blended fake for each real face with known landmarks.

    Args:
        faces: Faces indexed with the columns FAKE_COLUMNS.
        kinds: Kinds of fakes, as of `parse_fakes`; without any, the faces are returned as they are.
        make_even: If an odd number of faces has no partner, repeat one of these, so that
            shuffled faces can be read in twos.

    Raises:
        ValueError: If no real face has landmarks, or fewer than two people can be swapped.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> faces = index_faces("prepared", read_faces("prepared", columns=FAKE_COLUMNS))
        >>> fakes = add_fakes(faces, ("self-blended",))
        >>> len(faces), len(fakes), fakes.name(len(fakes) - 1)
        (58, 90, 'videos/real/person05 frame 5, blended')
    """
    if not kinds:
        return faces
    place = Path(faces.shards[0]).parent.parent
    bases = np.array([], np.int64)
    if faces.landmarks is not None and faces.person is not None:
        is_known = np.isfinite(faces.landmarks).all(axis=(1, 2))
        bases = np.flatnonzero(is_known & (faces.label == CLASSES["real"]))
        if len(bases) and "swapped" in kinds and not has_two_people(faces):
            others = ",".join(kind for kind in FAKE_KINDS if kind != "swapped")
            raise ValueError(
                f"Expected faces of two or more people in a split of {place}, to swap them; got "
                "those of one. Add videos of other people, or try the other kinds of fakes: "
                f"{others}."
            )
    if not len(bases):
        raise ValueError(
            f"Expected real faces with landmarks in {place}, to make blended fakes from; got none. "
            "Add real videos, or prepare it with a face detector and --alignment landmarks68."
        )
    is_alone = np.full(len(faces), True)
    is_alone[bases] = False
    alone = np.flatnonzero(is_alone)
    repeated = alone[: len(alone) % 2 if make_even else 0]
    rows = np.concatenate([np.arange(len(faces)), repeated, bases])
    names = ("shard", "offset", "frame_index")  # landmarks of fakes are those of their real faces
    arrays: dict[str, Any] = {name: getattr(faces, name)[rows] for name in names}
    base = np.full(len(rows), -1)
    base[-len(bases) :] = bases
    if faces.masks is not None and faces.has_mask is not None:
        first = rows[: len(rows) - len(bases)]
        arrays |= {"masks": faces.masks[first], "has_mask": faces.has_mask[first]}
    return replace(
        faces,
        label=np.where(base >= 0, CLASSES["fake"], faces.label[rows]),
        video_id=faces.video_id.take(pa.array(rows)),
        base=base,
        kinds=kinds,
        **arrays,
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


def epoch_order(
    label: np.ndarray,
    *,
    seed: int,
    epoch: int,
    balance: bool = False,
    base: np.ndarray | None = None,
) -> np.ndarray:
    """Compute the order of the faces in one epoch: int64[n], indices into `label`.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unlabelled.
        seed: Random seed.
        epoch: Index of the epoch, from 0; the order differs from epoch to epoch.
        balance: Return as many real as fake faces: faces of the rarer class are repeated, some of
            the other class are omitted. Each unlabelled face appears once.
        base: int64[n] of a FaceIndex with blended fakes: the faces are in pairs then, as
            `datasets.pairs.order_pairs` describes.

    Example:
        >>> sorted(epoch_order(np.array([0, 0, 1]), seed=0, epoch=0).tolist())
        [0, 1, 2]
    """
    rng = np.random.default_rng([seed % 2**32, epoch])
    if base is not None:
        return order_pairs(label, base, rng, balance=balance)
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
