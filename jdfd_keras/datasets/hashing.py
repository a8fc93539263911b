"""Perceptual hashes of faces, and the near-duplicates among them."""

import re
from collections.abc import Iterator, Sequence

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
    """Compute the perceptual hash of a crop, uint8[size, size, 3] RGB: 64 hexadecimal digits.

    The lowest frequencies are compared with their median, so that the hashes of similar images
    differ in few bits. There are 256, since 64 distinguish aligned faces poorly.

    Reference:
        Zauner: "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).

    Example:
        >>> len(hash_face(np.zeros((299, 299, 3), np.uint8)))
        64
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).tobytes().hex()


def unpack_hashes(hashes: Sequence[str]) -> np.ndarray:
    """Convert n hashes of `hash_face` to uint64[n, 4].

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
        of different bits; sorted by these, then by the indices.

    Reference:
        Norouzi, Punjani, Fleet: "Fast Search in Hamming Space with Multi-Index Hashing" (2012).

    Example:
        >>> hashes = np.array([[0, 0, 0, 0], [0, 0, 0, 7]], np.uint64)
        >>> [values.tolist() for values in find_near_duplicates(hashes[:1], hashes)]
        [[0, 0], [0, 1], [0, 3]]
    """
    import pandas as pd  # here, since each process that extracts faces imports this module

    values_a, inverse_a = np.unique(one, axis=0, return_inverse=True)
    values_b, inverse_b = np.unique(other, axis=0, return_inverse=True)
    columns_a, columns_b = (np.ascontiguousarray(values.T) for values in (values_a, values_b))
    matches = [np.zeros((3, 0), np.int64)]
    for band in range(max_bits + 1):
        for a, b in _join(*(_read_band(v, band, max_bits + 1) for v in (values_a, values_b))):
            bits = np.zeros(len(a), np.int64)
            # Word by word: the first word excludes almost all pairs.
            for words_a, words_b in zip(columns_a, columns_b, strict=True):
                bits += np.bitwise_count(words_a[a] ^ words_b[b])
                near = bits <= max_bits
                a, b, bits = a[near], b[near], bits[near]
            matches.append(np.stack([a, b, bits]))
    pairs = pd.DataFrame(np.unique(np.concatenate(matches, axis=1), axis=1).T, columns=list("abn"))
    for name, inverse in (("a", inverse_a), ("b", inverse_b)):  # from unique values to rows
        rows = pd.DataFrame({name: inverse.ravel(), f"row_{name}": np.arange(inverse.size)})
        pairs = pairs.merge(rows, on=name)
    pairs = pairs.sort_values(["n", "row_a", "row_b"])
    return pairs["row_a"].to_numpy(), pairs["row_b"].to_numpy(), pairs["n"].to_numpy()


def _read_band(hashes: np.ndarray, band: int, count: int) -> np.ndarray:
    """Return every `count`th bit as one number; neighbouring bits are similar in all faces.

    Of more than 63 bits the last 63 count, which can only add pairs to compare.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)[:, band::count][:, -63:].astype(np.int64)
    return bits @ (1 << np.arange(bits.shape[1])[::-1])


def _join(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the indices of equal values in batches that fit into memory."""
    order = np.argsort(other, kind="stable")
    ordered = other[order]
    first, last = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(one):
        before = ends[start - 1] if start else 0
        stop = min(int(np.searchsorted(ends, before + _PAIRS_AT_ONCE)) + 1, len(one))
        batch = counts[start:stop]
        a = np.repeat(np.arange(start, stop), batch)
        within = np.arange(len(a)) - np.repeat(np.cumsum(batch) - batch, batch)
        if len(a):
            yield a, order[np.repeat(first[start:stop], batch) + within]
        start = stop
