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
from jdfd_keras.datasets.hashing import NEAR, find_near, hash_face, unpack_hashes


@pytest.fixture(scope="module")
def photographs():
    """Name to uint8[256, 256, 3]: public-domain pictures, and a face out of one of them."""
    found = {
        "astronaut": data.astronaut(),
        "face": data.astronaut()[60:300, 100:340],
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "hubble": data.hubble_deep_field(),
        "camera": cv2.cvtColor(data.camera(), cv2.COLOR_GRAY2RGB),
    }
    for name, picture in found.items():
        side = min(picture.shape[:2])
        found[name] = cv2.resize(picture[:side, :side], (256, 256), interpolation=cv2.INTER_AREA)
    return found


@pytest.fixture(scope="module")
def smooth_pictures():
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return [cv2.resize(picture, (96, 96), interpolation=cv2.INTER_CUBIC) for picture in coarse]


def count_bits(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def save_as_jpeg(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def halve(picture):
    return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def add_noise(picture):
    noise = np.random.default_rng(1).normal(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_a_hash_is_64_hexadecimal_digits_of_which_half_the_bits_are_set(photographs):
    for picture in photographs.values():
        found = hash_face(picture)
        assert len(found) == 64
        assert set(found) <= set(string.hexdigits.lower())
        assert int(found, 16).bit_count() == 128  # above the median is one half


def test_a_hash_is_that_of_the_cosines_by_other_means(photographs):
    for picture in photographs.values():
        grey = picture @ np.array([0.299, 0.587, 0.114])
        small = grey.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        low = scipy.fft.dctn(small, type=2, norm="ortho")[:16, :16]
        digits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
        # Grey levels are rounded on one way and not on the other: what lies at the median may tip.
        assert count_bits(f"{int(digits, 2):064x}", hash_face(picture)) <= 2


@pytest.mark.parametrize("change", [save_as_jpeg, halve, add_noise])
def test_the_same_picture_stays_near_itself(photographs, change):
    for picture in photographs.values():
        assert count_bits(hash_face(picture), hash_face(change(picture))) <= NEAR


def test_different_pictures_are_far_from_each_other(photographs, smooth_pictures):
    hashes = [hash_face(picture) for picture in [*photographs.values(), *smooth_pictures]]
    bits = [count_bits(one, other) for one, other in itertools.combinations(hashes, 2)]
    assert min(bits) > 64


def test_red_green_and_blue_weigh_as_in_grey(photographs):
    red_is_blue = photographs["coffee"][..., ::-1].copy()
    assert count_bits(hash_face(photographs["coffee"]), hash_face(red_is_blue)) > 0


@pytest.mark.parametrize("size", [1, 8, 71, 299])
def test_a_crop_of_any_size_has_a_hash(size):
    crop = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    assert len(hash_face(crop)) == 64


def plant(rng, hashes, most_bits):
    """Give as many hashes that each differ from one of `hashes` in up to `most_bits` bits."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(256, rng.integers(0, most_bits + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


@pytest.fixture(scope="module")
def hash_sets():
    """uint64[140, 4] and uint64[150, 4]: random ones, near ones, and some many times over."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, (100, 4), dtype=np.uint64)
    near = plant(rng, one[:60], 20)
    one = np.concatenate([one, one[:30], np.zeros((10, 4), np.uint64)])
    other = rng.integers(0, 2**64, (50, 4), dtype=np.uint64)
    other = np.concatenate([near, near[:20], other, one[50:65], np.zeros((5, 4), np.uint64)])
    return rng.permutation(one), rng.permutation(other)


def search_all(one, other, most_bits):
    """The same by comparing all pairs."""
    bits = np.bitwise_count(one[:, None] ^ other[None, :]).sum(axis=2)
    return sorted(
        (int(bits[a, b]), int(a), int(b))
        for a, b in zip(*np.nonzero(bits <= most_bits), strict=True)
    )


def as_sorted_before(found):
    a, b, bits = found
    assert a.dtype == b.dtype == bits.dtype == np.int64
    return list(zip(bits.tolist(), a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("most_bits", [0, 1, 3, 7, NEAR, 20, 100])
def test_near_pairs_are_those_of_all_pairs(hash_sets, most_bits):
    expected = search_all(*hash_sets, most_bits)
    assert len(expected) > 60  # of zeros alone there are 50
    assert as_sorted_before(find_near(*hash_sets, most_bits)) == expected


def test_bits_that_differ_are_near_up_to_the_number_of_the_module(hash_sets):
    assert as_sorted_before(find_near(*hash_sets)) == search_all(*hash_sets, NEAR)


@pytest.mark.parametrize("pairs_at_once", [1, 2, 7, 1000])
def test_pairs_are_the_same_however_few_are_compared_at_once(hash_sets, monkeypatch, pairs_at_once):
    monkeypatch.setattr(hashing, "_PAIRS_AT_ONCE", pairs_at_once)
    assert as_sorted_before(find_near(*hash_sets)) == search_all(*hash_sets, NEAR)


def test_pairs_compared_at_once_are_few(monkeypatch):
    # All share the first band: 40,000 pairs, of which 100 and those of one row more may be held.
    monkeypatch.setattr(hashing, "_PAIRS_AT_ONCE", 100)
    pieces = list(hashing._join(np.zeros(200, np.int64), np.zeros(200, np.int64)))
    assert max(len(a) for a, _ in pieces) <= 300
    found = {pair for a, b in pieces for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert found == set(itertools.product(range(200), range(200)))


def test_hashes_that_share_a_band_are_near_only_if_the_others_are():
    alike = np.zeros((1, 4), np.uint64)
    bits = np.ones(256, np.uint8)
    bits[:: NEAR + 1] = 0  # one band of them
    other = np.packbits(bits).view(np.uint64).reshape(1, 4)
    assert as_sorted_before(find_near(alike, other)) == []


def test_no_hashes_have_no_pairs():
    none, some = np.zeros((0, 4), np.uint64), np.zeros((2, 4), np.uint64)
    for one, other in [(none, none), (none, some), (some, none)]:
        assert as_sorted_before(find_near(one, other)) == []
    assert unpack_hashes([]).shape == (0, 4)


def test_hashes_are_unpacked_bit_for_bit():
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
    ids=["short", "empty", "no digit", "spaces", "one short and one long"],
)
def test_what_is_no_hash_is_refused_by_its_value(hashes, named):
    with pytest.raises(ValueError, match=f"Expected .*; got {named}.* Prepare the data set again"):
        unpack_hashes(hashes)
