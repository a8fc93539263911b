"""Pairs of a real face and its blended fake: their order, and the donors of swapped faces.

Takes and returns arrays of a `FaceIndex`; knows neither files nor pixels.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.manifest import VideoRow
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED, dataset_namespace, qualified_sources

NUM_POINTS = 68  # of the landmarks of a face
NUM_CANDIDATES = 64  # among which the donor with the nearest landmarks is chosen


def parse_landmarks(column: pa.ChunkedArray) -> np.ndarray:
    """Return the landmarks of a manifest as float32[n, 68, 2], NaN where they are unknown.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> parse_landmarks(read_faces("prepared", columns=["landmarks"])["landmarks"]).shape
        (58, 68, 2)
    """
    lists = column.combine_chunks()
    is_known = lists.value_lengths().to_numpy() == 2 * NUM_POINTS
    landmarks = np.full((len(column), NUM_POINTS, 2), np.nan, np.float32)
    known = lists.filter(pa.array(is_known)).flatten().to_numpy()
    landmarks[is_known] = known.reshape(-1, NUM_POINTS, 2)
    return landmarks


def find_people(videos: Iterable[VideoRow]) -> dict[str, int]:
    """Find which real videos show the same person.

    These share a source or a subject, directly or through other real videos. A video of unknown
    source is assumed to show a person of its own.

    Returns:
        Video id to a number of the person, which is at least 0 and depends on names alone.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_videos
        >>> people = find_people(read_videos("prepared"))
        >>> len(people), len(set(people.values()))
        (8, 8)
    """
    parents: dict[tuple[str, ...], tuple[str, ...]] = {}

    def find(name: tuple[str, ...]) -> tuple[str, ...]:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    first = {}  # video id to one of the names that stand for its person
    for video in videos:
        if video.label != CLASSES["real"]:
            continue
        names = [("source", source) for source in qualified_sources(video)]
        namespace = dataset_namespace(video.video_id)
        names += [("subject", namespace, subject) for subject in video.subjects]
        first[video.video_id], *others = names or [("video", video.video_id)]
        for other in others:
            roots = find(first[video.video_id]), find(other)
            parents[max(roots)] = min(roots)
    return {video_id: _number(find(name)) for video_id, name in first.items()}


def _number(names: tuple[str, ...]) -> int:
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # as it must fit into int64


def choose_donor(
    landmarks: np.ndarray,
    person: np.ndarray,
    candidates: np.ndarray,
    base: int,
    rng: np.random.Generator,
) -> int:
    """Choose a face of another person to swap in, with similar landmarks.

    Args:
        landmarks: float32[n, 68, 2].
        person: int64[n].
        candidates: int64[m], indices of faces with landmarks, of two people at least.
        base: The face to replace.
        rng: Draws NUM_CANDIDATES of the candidates that show another person, or fewer if most show
            this one; the most similar one is chosen.

    Returns:
        The index of the donor.

    Example:
        >>> face = np.random.default_rng(0).normal(size=(68, 2))
        >>> landmarks, person = np.stack([face, face, face**2, face * 3]), np.array([7, 7, 8, 9])
        >>> choose_donor(landmarks, person, np.arange(4), 0, np.random.default_rng(0))
        3

    Reference:
        Li et al.: "Face X-ray for More General Face Forgery Detection" (2020), section 3.2.
    """
    # Several times as many, since some show this person; a search of all faces would take longer.
    drawn = candidates[rng.integers(len(candidates), size=8 * NUM_CANDIDATES)]
    drawn = drawn[person[drawn] != person[base]][:NUM_CANDIDATES]
    if not len(drawn):  # nearly all candidates show this person
        others = candidates[person[candidates] != person[base]]
        drawn = others[rng.integers(len(others), size=NUM_CANDIDATES)]
    distances = _normalize(landmarks[drawn]) - _normalize(landmarks[base])
    return int(drawn[np.square(distances).sum(axis=(1, 2)).argmin()])


def _normalize(landmarks: np.ndarray) -> np.ndarray:
    """Shift and scale landmarks, float[..., 68, 2], to mean 0 and variance 1."""
    centred = landmarks - landmarks.mean(axis=-2, keepdims=True)
    return centred / centred.std(axis=(-2, -1), keepdims=True)


def list_pairs(base: np.ndarray) -> np.ndarray:
    """List faces in order, each blended fake directly after its real face.

    Args:
        base: int64[n], as in a FaceIndex.

    Returns:
        int64[n], indices into `base`.

    Example:
        >>> list_pairs(np.array([-1, -1, -1, 0, 2])).tolist()
        [0, 3, 1, 2, 4]
    """
    return np.argsort(np.where(base < 0, np.arange(len(base)), base), kind="stable")


def order_pairs(
    label: np.ndarray, base: np.ndarray, rng: np.random.Generator, *, balance: bool
) -> np.ndarray:
    """Shuffle faces in pairs of neighbours: a real face and its blended fake, other faces in twos.

    Args:
        label: int64[n], 1 fake, 0 real, -1 unlabelled; n is even.
        base: int64[n], as in a FaceIndex.
        rng: Draws the order.
        balance: Pair each labelled fake with a real face instead. Some labelled fakes are omitted
            or repeated, so that the epoch keeps its length; each pair of a real face and its
            blended fake occurs, and each unlabelled face.

    Returns:
        int64[n], indices into `label`.

    Example:
        >>> label, base = np.array([0, 0, 1, 1]), np.array([-1, -1, 0, 1])
        >>> order = order_pairs(label, base, np.random.default_rng(0), balance=False)
        >>> base[order[1::2]].tolist() == order[::2].tolist()
        True
    """
    is_stored = base < 0
    blended = np.flatnonzero(~is_stored)
    is_alone = is_stored.copy()
    is_alone[base[blended]] = False
    alone = np.flatnonzero(is_alone)
    if balance:
        alone = alone[label[alone] != CLASSES["real"]]
        fakes = rng.permutation(alone[label[alone] == CLASSES["fake"]])
        unlabelled = rng.permutation(alone[label[alone] == UNLABELLED])
        alone = unlabelled if len(unlabelled) % 2 == 0 else np.append(unlabelled, unlabelled[0])
        count = len(label) // 2 - len(blended) - len(alone) // 2
        fakes = np.resize(fakes if len(fakes) else rng.permutation(blended), count)
        reals = np.resize(rng.permutation(np.flatnonzero(label == CLASSES["real"])), len(fakes))
        partners = np.where(is_stored[fakes], reals, base[fakes])
        labelled = np.stack([partners, fakes], axis=1)
    else:
        labelled = np.empty((0, 2), np.int64)
    pairs = [np.stack([base[blended], blended], axis=1), labelled]
    pairs.append(rng.permutation(alone).reshape(-1, 2))
    return rng.permutation(np.concatenate(pairs)).ravel()
