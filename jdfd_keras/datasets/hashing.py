"""Perceptual hashes of faces, and all pairs of them that are nearly alike.

Takes crops and gives hashes; takes hashes and gives pairs. Knows nothing of files or labels.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

SIDE = 16  # cosines a side: 256 bits, as 64 hexadecimal digits
BITS = SIDE * SIDE
# Bits that may differ between near-duplicates. Of 182 photographs of as many people, cut and
# aligned alike, any two differed in 78 bits or more (120 on average). A crop differed from itself
# saved as JPEG of quality 40, halved and enlarged again, or with noise of 8 grey levels by 6 at
# most; shifted by 1 % by some 24. What copies of whole files differ by is mostly that: the face
# is found anew, a pixel or two away (benchmarks/results/data.md).
NEAR = 16
_WORDS = BITS // 64
_PAIRS_AT_ONCE = 1 << 20  # compared in some 150 MB


def hash_face(crop: np.ndarray) -> str:
    """Hash a crop by the signs of its lowest frequencies about their median.

    Args:
        crop: uint8[size, size, 3], RGB.

    Returns:
        64 hexadecimal digits. Pictures that look alike differ in few of the 256 bits.

    Reference:
        Zauner: "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), its
        DCT hash; with 256 bits, since aligned faces are much alike, and 64 tell them apart badly.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).tobytes().hex()


def unpack_hashes(hashes: Sequence[str]) -> np.ndarray:
    """Put hashes into numbers.

    Args:
        hashes: As `hash_face` gives them.

    Returns:
        uint64[n, 4].

    Raises:
        ValueError: If one is none.
    """
    is_hash = re.compile(f"[0-9a-fA-F]{{{BITS // 4}}}").fullmatch
    wrong = next((h for h in hashes if not is_hash(h)), None)
    if wrong is not None:
        raise ValueError(
            f"Expected perceptual hashes of {BITS // 4} hexadecimal digits; got {wrong!r}. Prepare "
            "the data set again with this version."
        )
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, _WORDS)


def find_near(
    one: np.ndarray, other: np.ndarray, most_bits: int = NEAR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs, one of each set, that differ in few bits.

    Cut into one band more than bits may differ, two such hashes agree wholly in one band at
    least: so only those that share a band are compared, and none is missed.

    Args:
        one: uint64[n, 4].
        other: uint64[m, 4].
        most_bits: Bits that may differ.

    Returns:
        int64[pairs] positions in `one`, int64[pairs] positions in `other`, and int64[pairs] bits
        that differ; sorted by these, then by the positions. Of hashes that stand many times, each
        position is in as many pairs.

    Reference:
        Norouzi, Punjani, Fleet: "Fast Search in Hamming Space with Multi-Index Hashing" (2012).
    """
    values_a, inverse_a = np.unique(one, axis=0, return_inverse=True)
    values_b, inverse_b = np.unique(other, axis=0, return_inverse=True)
    columns_a, columns_b = (np.ascontiguousarray(of.T) for of in (values_a, values_b))
    found = []
    for band_a, band_b in zip(
        _cut_bands(values_a, most_bits + 1), _cut_bands(values_b, most_bits + 1), strict=True
    ):
        for a, b in _join(band_a, band_b):
            bits = np.zeros(len(a), np.int64)
            # Word after word: the first tells nearly all of them apart.
            for words_a, words_b in zip(columns_a, columns_b, strict=True):
                bits += np.bitwise_count(words_a[a] ^ words_b[b])
                near = bits <= most_bits
                a, b, bits = a[near], b[near], bits[near]
            found.append(np.stack([a, b, bits]))
    pairs = np.unique(np.concatenate(found, axis=1), axis=1) if found else np.zeros((3, 0), int)
    rows_a, rows_b = _positions(inverse_a), _positions(inverse_b)
    parts = [
        np.stack(np.broadcast_arrays(rows_a(a)[:, None], rows_b(b)[None, :], bits)).reshape(3, -1)
        for a, b, bits in pairs.T
    ]
    every = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.int64)
    every = every[:, np.lexsort((every[1], every[0], every[2]))]
    return every[0], every[1], every[2]


def _positions(inverse: np.ndarray) -> Callable[[int], np.ndarray]:
    """Give the function that says where a value stands."""
    order = np.argsort(inverse.ravel(), kind="stable")
    ordered = inverse.ravel()[order]
    return lambda value: order[slice(*np.searchsorted(ordered, (value, value + 1)))]


def _cut_bands(hashes: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut hashes into bands of bits that lie far apart, since neighbours are alike in all faces.

    Returns:
        `count` arrays int64[n], the number that the bits of the band make.
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
    """Give the pairs of equal values, in pieces that fit into memory."""
    order = np.argsort(other, kind="stable")
    ordered = other[order]
    first, last = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(one):
        stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PAIRS_AT_ONCE)) + 1
        piece = counts[start:stop]
        a = np.repeat(np.arange(start, min(stop, len(one))), piece)
        within = np.arange(len(a)) - np.repeat(np.cumsum(piece) - piece, piece)
        if len(a):
            yield a, order[np.repeat(first[start:stop], piece) + within]
        start = stop
