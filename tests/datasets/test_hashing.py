import io
import itertools
import string

import cv2
import numpy as np
import pytest
import scipy.fft
from PIL import Image
from skimage import data

from jdfd_keras.datasets import hashing
from jdfd_keras.datasets.hashing import MAX_BITS, find_near_duplicates, hash_face, unpack_hashes


@pytest.fixture(scope="module")
def photographs():
    """Return name to uint8[256, 256, 3]: public-domain photographs, and a face in one of them."""
    found = {
        "astronaut": data.astronaut(),
        "face": data.astronaut()[60:300, 100:340],
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "hubble": data.hubble_deep_field(),
        "camera": cv2.cvtColor(data.camera(), cv2.COLOR_GRAY2RGB),
    }
    for name, image in found.items():
        side = min(image.shape[:2])
        found[name] = cv2.resize(image[:side, :side], (256, 256), interpolation=cv2.INTER_AREA)
    return found


@pytest.fixture(scope="module")
def smooth_images():
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return [cv2.resize(image, (96, 96), interpolation=cv2.INTER_CUBIC) for image in coarse]


def count_bits(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def save_as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def halve(image):
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def add_noise(image):
    noise = np.random.default_rng(1).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_a_hash_has_64_hexadecimal_digits_and_half_of_its_bits_are_set(photographs):
    for image in photographs.values():
        found = hash_face(image)
        assert len(found) == 64
        assert set(found) <= set(string.hexdigits.lower())
        assert int(found, 16).bit_count() == 128  # half of the values are above the median


def test_a_hash_equals_one_computed_with_scipy(photographs):
    for image in photographs.values():
        grey = image @ np.array([0.299, 0.587, 0.114])
        small = grey.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        low = scipy.fft.dctn(small, type=2, norm="ortho")[:16, :16]
        digits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
        # Only one of both computations rounds grey levels: values at the median may differ.
        assert count_bits(f"{int(digits, 2):064x}", hash_face(image)) <= 2


@pytest.mark.parametrize("change", [save_as_jpeg, halve, add_noise])
def test_a_changed_image_is_a_near_duplicate_of_itself(photographs, change):
    for image in photographs.values():
        assert count_bits(hash_face(image), hash_face(change(image))) <= MAX_BITS


def test_different_images_are_not_near_duplicates(photographs, smooth_images):
    hashes = [hash_face(image) for image in [*photographs.values(), *smooth_images]]
    bits = [count_bits(one, other) for one, other in itertools.combinations(hashes, 2)]
    assert min(bits) > 64


def test_channels_are_weighted_as_in_grey_images(photographs):
    red_is_blue = photographs["coffee"][..., ::-1].copy()
    assert count_bits(hash_face(photographs["coffee"]), hash_face(red_is_blue)) > 0


@pytest.mark.parametrize("size", [1, 8, 71, 299])
def test_a_crop_of_any_size_has_a_hash(size):
    crop = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    assert len(hash_face(crop)) == 64


def plant(rng, hashes, max_bits):
    """Return hashes that each differ from one of `hashes` in up to `max_bits` bits."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(256, rng.integers(0, max_bits + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


@pytest.fixture(scope="module")
def hash_sets():
    """Return uint64[140, 4] and uint64[150, 4]: random, near-duplicate and repeated hashes."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, (100, 4), dtype=np.uint64)
    near = plant(rng, one[:60], 20)
    one = np.concatenate([one, one[:30], np.zeros((10, 4), np.uint64)])
    other = rng.integers(0, 2**64, (50, 4), dtype=np.uint64)
    other = np.concatenate([near, near[:20], other, one[50:65], np.zeros((5, 4), np.uint64)])
    return rng.permutation(one), rng.permutation(other)


def search_all(one, other, max_bits):
    """Find the near-duplicates by a comparison of all pairs."""
    bits = np.bitwise_count(one[:, None] ^ other[None, :]).sum(axis=2)
    return sorted(
        (int(bits[a, b]), int(a), int(b))
        for a, b in zip(*np.nonzero(bits <= max_bits), strict=True)
    )


def to_tuples(found):
    a, b, bits = found
    assert a.dtype == b.dtype == bits.dtype == np.int64
    return list(zip(bits.tolist(), a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("max_bits", [0, 1, 3, 7, MAX_BITS, 20, 100])
def test_near_duplicates_equal_those_of_a_full_search(hash_sets, max_bits):
    expected = search_all(*hash_sets, max_bits)
    assert len(expected) > 60  # 50 of them are pairs of zeros
    assert to_tuples(find_near_duplicates(*hash_sets, max_bits)) == expected


def test_the_default_limit_is_max_bits(hash_sets):
    assert to_tuples(find_near_duplicates(*hash_sets)) == search_all(*hash_sets, MAX_BITS)


@pytest.mark.parametrize("pairs_at_once", [1, 2, 7, 1000])
def test_the_batch_size_does_not_change_the_pairs(hash_sets, monkeypatch, pairs_at_once):
    monkeypatch.setattr(hashing, "_PAIRS_AT_ONCE", pairs_at_once)
    assert to_tuples(find_near_duplicates(*hash_sets)) == search_all(*hash_sets, MAX_BITS)


def test_batches_of_pairs_are_limited(monkeypatch):
    # All share the first band: 40,000 pairs, at most 100 and those of one more row per batch.
    monkeypatch.setattr(hashing, "_PAIRS_AT_ONCE", 100)
    batches = list(hashing._join(np.zeros(200, np.int64), np.zeros(200, np.int64)))
    assert max(len(a) for a, _ in batches) <= 300
    found = {pair for a, b in batches for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert found == set(itertools.product(range(200), range(200)))


def test_hashes_with_one_equal_band_need_not_be_near_duplicates():
    alike = np.zeros((1, 4), np.uint64)
    bits = np.ones(256, np.uint8)
    bits[:: MAX_BITS + 1] = 0  # one band
    other = np.packbits(bits).view(np.uint64).reshape(1, 4)
    assert to_tuples(find_near_duplicates(alike, other)) == []


def test_empty_sets_have_no_pairs():
    none, some = np.zeros((0, 4), np.uint64), np.zeros((2, 4), np.uint64)
    for one, other in [(none, none), (none, some), (some, none)]:
        assert to_tuples(find_near_duplicates(one, other)) == []
    assert unpack_hashes([]).shape == (0, 4)


def test_unpacked_hashes_have_the_same_bits():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(5)]
    found = unpack_hashes(hashes)
    assert (found.shape, found.dtype) == ((5, 4), np.uint64)
    for one, other in itertools.product(range(5), range(5)):
        bits = np.bitwise_count(found[one] ^ found[other]).sum()
        assert bits == count_bits(hashes[one], hashes[other])


@pytest.mark.parametrize(
    ("hashes", "named"),
    [
        (["0" * 64, "abc"], "'abc'"),
        ([""], "''"),
        (["0" * 63 + "g", "0" * 64], "'0000.*000g'"),
        (["0" * 64, "0 " * 32], "'0 0 .*0 0 '"),
        (["0" * 64, "1" * 63, "2" * 65], "'1{63}'"),
    ],
    ids=["short", "empty", "not a digit", "spaces", "one short and one long"],
)
def test_an_invalid_hash_raises_an_error_with_its_value(hashes, named):
    with pytest.raises(ValueError, match=f"64 hexadecimal digits; got {named}"):
        unpack_hashes(hashes)
