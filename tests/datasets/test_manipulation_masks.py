"""Masks of manipulated pixels: which real face belongs to a fake one, and where they differ."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.datasets.manipulation_masks import MASK_COLUMNS, find_real_faces, mask_difference
from jdfd_keras.faces.landmarks import transform_points

SIZE = 96
HERE, THERE, NEAR = (10, 10, 60, 60), (100, 10, 150, 60), (14, 12, 64, 62)


def find(*rows: tuple) -> list[int]:
    table = pa.table(dict(zip(MASK_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
    return find_real_faces(table).tolist()


def test_a_fake_has_the_real_face_of_its_first_source_in_the_same_frame_and_place():
    found = find(
        ("ff/real/c23/000", 0, "c23", ["000"], 0, HERE),
        ("ff/real/c23/000", 0, "c23", ["000"], 5, THERE),
        ("ff/real/c23/000", 0, "c23", ["000"], 5, HERE),
        ("ff/real/c40/000", 0, "c40", ["000"], 5, HERE),
        ("ff/real/c23/003", 0, "c23", ["003"], 5, HERE),
        ("celebdf/real/000", 0, "c23", ["000"], 5, HERE),
        ("ff/fake/c23/000_003", 1, "c23", ["000", "003"], 5, NEAR),
        ("ff/fake/c23/003_000", 1, "c23", ["003", "000"], 5, NEAR),
    )
    assert found == [-1] * 6 + [2, 4]


@pytest.mark.parametrize(
    "fake",
    [
        ("ff/fake/c23/000", 1, "c23", ["000"], 6, HERE),  # another frame
        ("ff/fake/c23/000", 1, "c23", ["000"], 5, THERE),
        ("ff/fake/c40/000", 1, "c40", ["000"], 5, HERE),
        ("ff/fake/c23/000", 1, "c23", ["001"], 5, HERE),  # two videos of one source
        ("ff/fake/c23/000", 1, "c23", ["?000"], 5, HERE),  # a name that says nothing of footage
        ("ff/fake/c23/000", 1, "c23", [], 5, HERE),
        ("ff/fake/c23/000", -1, "c23", ["000"], 5, HERE),
    ],
)
def test_a_face_without_a_certain_match_has_none(fake):
    reals = [
        ("ff/real/c23/000", 0, "c23", ["000"], 5, HERE),
        ("ff/real/c23/001", 0, "c23", ["001"], 5, HERE),
        ("ff/real/c23/002", 0, "c23", ["001"], 5, HERE),
        ("ff/real/c23/003", 0, "c23", ["?000"], 5, HERE),
        ("ff/real/c23/004", 0, "c23", [], 5, HERE),
    ]
    assert find(*reals, fake) == [-1] * 6


def make_scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(127 + 40 * smooth / smooth.std(), 60, 195).astype(np.uint8)


@pytest.fixture(scope="module")
def points():
    """Landmarks on an ellipse, as those of the outline of a face."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return 48 + np.stack([24 * np.cos(turn), 28 * np.sin(turn)], axis=1)


@pytest.fixture(scope="module")
def crops(points):
    """A fake with a changed square, and its real face in a crop that is turned and moved."""
    real = make_scene(0)
    fake = real.copy()
    fake[30:60, 40:70] += 50
    matrix = cv2.getRotationMatrix2D((48, 48), 3, 1.04)
    matrix[:, 2] += 1.5, -2
    moved = cv2.warpAffine(real, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC)
    shaken = np.random.default_rng(0).normal(0, 0.7, (68, 2))  # as of a landmark detector
    return fake, moved, points + shaken, transform_points(matrix, points)


def test_the_mask_is_where_the_fake_differs_though_the_crops_are_not_aligned_alike(crops):
    fake, real, *_ = crops
    expected = np.zeros((SIZE, SIZE), bool)
    expected[30:60, 40:70] = True
    mask = mask_difference(*crops)
    assert mask is not None and mask.dtype == np.float32 and set(np.unique(mask)) == {0, 1}
    shared, either = (mask > 0) & expected, (mask > 0) | expected
    assert shared.sum() > 0.95 * either.sum()
    # Without the registration, the difference is spread over the whole crop.
    difference = cv2.cvtColor(cv2.absdiff(fake, real), cv2.COLOR_RGB2GRAY) / 255
    assert (difference > 0.1)[~expected].mean() > 0.2


def test_the_threshold_is_a_share_of_the_grey_scale(points):
    real = make_scene(0)
    fake = real.copy()
    fake[30:40, 40:50] += 24  # 0.094 in all channels
    fake[50:60, 40:50] += 28  # 0.110
    mask = mask_difference(fake, real, points, points)
    assert mask is not None
    assert mask[50:60, 40:50].mean() > 0.9 and mask[30:40, 40:50].mean() < 0.1
    low = mask_difference(fake, real, points, points, threshold=0.05)
    assert low is not None and low[30:40, 40:50].mean() > 0.9


def test_crops_of_another_scene_or_light_have_no_mask(crops, points):
    fake, real = crops[0], make_scene(0)
    assert mask_difference(fake, make_scene(1), points, points) is None
    assert mask_difference(fake, real + 40, points, points) is None
