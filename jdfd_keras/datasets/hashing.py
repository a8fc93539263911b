"""Perceptual hashes of faces, and the near-duplicates among them.

Takes crops and returns hashes; takes hashes and returns pairs. Reads no files.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

SIDE = 16  # cosines per side: 256 bits, as 64 hexadecimal digits
BITS = SIDE * SIDE
# Largest number of different bits of near-duplicates. Among photographs of 182 subjects, aligned
# in the same way, any two differed in 78 bits or more (120 on average). A crop differed from its
# copy saved as JPEG of quality 40, halved and enlarged again, or with noise of 8 grey levels in at
# most 6; shifted by 1 % in about 24. Copies of whole files mostly differ by such a shift: the face
# is detected again, a pixel or two away (benchmarks/results/data.md).
MAX_BITS = 16
_WORDS = BITS // 64
_PAIRS_AT_ONCE = 1 << 20  # compared in about 150 MB


def hash_face(crop: np.ndarray) -> str:
    """Compute the perceptual hash of a crop: its lowest frequencies compared with their median.

    Args:
        crop: uint8[size, size, 3], RGB.

    Returns:
        64 hexadecimal digits. The hashes of similar images differ in few of the 256 bits.

    Reference:
        Zauner: "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), its
        DCT hash; with 256 bits, since aligned faces are similar and 64 bits distinguish them
        poorly.

    Example:
        >>> len(hash_face(np.zeros((299, 299, 3), np.uint8)))
        64
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).tobytes().hex()


def unpack_hashes(hashes: Sequence[str]) -> np.ndarray:
    """Convert hashes to integers.

    Args:
        hashes: Hashes from `hash_face`.

    Returns:
        uint64[n, 4].

    Raises:
        ValueError: If one is not 64 hexadecimal digits.

    Example:
        >>> unpack_hashes(["0" * 63 + "1"]).shape
        (1, 4)
    """
    is_hash = re.compile(f"[0-9a-fA-F]{{{BITS // 4}}}").fullmatch
    invalid = next((h for h in hashes if not is_hash(h)), None)
    if invalid is not None:
        raise ValueError(
            f"Expected perceptual hashes of {BITS // 4} hexadecimal digits; got {invalid!r}. "
            "Prepare the dataset again with this version."
        )
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, _WORDS)


def find_near_duplicates(
    one: np.ndarray, other: np.ndarray, max_bits: int = MAX_BITS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of hashes, one of each set, that differ in few bits.

    Two such hashes, split into one band more than `max_bits`, are equal in at least one band: only
    pairs with an equal band are compared, and none is missed.

    Args:
        one: uint64[n, 4].
        other: uint64[m, 4].
        max_bits: Largest number of different bits.

    Returns:
        int64[pairs] indices into `one`, int64[pairs] indices into `other`, and int64[pairs] numbers
        of different bits; sorted by these, then by the indices. Every index of a repeated hash
        has its own pairs.

    Reference:
        Norouzi, Punjani, Fleet: "Fast Search in Hamming Space with Multi-Index Hashing" (2012).

    Example:
        >>> hashes = np.array([[0, 0, 0, 0], [0, 0, 0, 7]], np.uint64)
        >>> [values.tolist() for values in find_near_duplicates(hashes[:1], hashes)]
        [[0, 0], [0, 1], [0, 3]]
    """
    values_a, inverse_a = np.unique(one, axis=0, return_inverse=True)
    values_b, inverse_b = np.unique(other, axis=0, return_inverse=True)
    columns_a, columns_b = (np.ascontiguousarray(values.T) for values in (values_a, values_b))
    matches = []
    for band_a, band_b in zip(
        _split_bands(values_a, max_bits + 1), _split_bands(values_b, max_bits + 1), strict=True
    ):
        for a, b in _join(band_a, band_b):
            bits = np.zeros(len(a), np.int64)
            # Word by word: the first word excludes almost all pairs.
            for words_a, words_b in zip(columns_a, columns_b, strict=True):
                bits += np.bitwise_count(words_a[a] ^ words_b[b])
                near = bits <= max_bits
                a, b, bits = a[near], b[near], bits[near]
            matches.append(np.stack([a, b, bits]))
    pairs = np.unique(np.concatenate(matches, axis=1), axis=1) if matches else np.zeros((3, 0), int)
    rows_a, rows_b = _index_rows(inverse_a), _index_rows(inverse_b)
    repeated = [
        np.stack(np.broadcast_arrays(rows_a(a)[:, None], rows_b(b)[None, :], bits)).reshape(3, -1)
        for a, b, bits in pairs.T
    ]
    result = np.concatenate(repeated, axis=1) if repeated else np.zeros((3, 0), np.int64)
    result = result[:, np.lexsort((result[1], result[0], result[2]))]
    return result[0], result[1], result[2]


def _index_rows(inverse: np.ndarray) -> Callable[[int], np.ndarray]:
    """Return a function from a unique value to its rows."""
    order = np.argsort(inverse.ravel(), kind="stable")
    ordered = inverse.ravel()[order]
    return lambda value: order[slice(*np.searchsorted(ordered, (value, value + 1)))]


def _split_bands(hashes: np.ndarray, count: int) -> list[np.ndarray]:
    """Split hashes into bands of distant bits, since neighbouring bits are similar in all faces.

    Returns:
        `count` arrays int64[n]: the bits of a band as one number.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    bands = []
    for band in range(count):
        columns = bits[:, band::count]
        value = np.zeros(len(bits), np.int64)
        for column in columns.T:
            value = value << 1 | column
        bands.append(value)
    return bands


def _join(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the indices of equal values in batches that fit into memory."""
    order = np.argsort(other, kind="stable")
    ordered = other[order]
    first, last = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(one):
        stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PAIRS_AT_ONCE)) + 1
        batch = counts[start:stop]
        a = np.repeat(np.arange(start, min(stop, len(one))), batch)
        within = np.arange(len(a)) - np.repeat(np.cumsum(batch) - batch, batch)
        if len(a):
            yield a, order[np.repeat(first[start:stop], batch) + within]
        start = stop
