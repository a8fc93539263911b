import cv2
import numpy as np
import pytest

from jdfd_keras.datasets.synthetic.blending import inner_face_mask
from jdfd_keras.datasets.synthetic.masks import (
    FACE_REGIONS,
    LOCAL_REGIONS,
    draw_region,
    face_size,
    random_mask,
)

REGIONS = FACE_REGIONS + LOCAL_REGIONS
SIZE = 160


@pytest.fixture(scope="module")
def landmarks(astronaut_landmarks):
    return astronaut_landmarks - (145, 30)


def contains(mask, points):
    """Return for each point whether the mask is 1 at it."""
    x, y = np.round(points).astype(int).T
    return mask[y, x] == 1


def test_face_size_of_a_square_is_its_side_however_it_is_turned():
    square = np.float32([[-25, -25], [25, -25], [25, 25], [-25, 25]])[np.arange(68) % 4]
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    assert face_size(square @ turn.T + 80, SIZE) == pytest.approx(50, rel=1e-5)


def test_face_size_is_bounded_by_the_crop(landmarks):
    assert face_size((landmarks - 80) * 1e9, SIZE) == 2 * SIZE
    assert face_size(np.zeros((68, 2)), SIZE) == SIZE / 8


# Landmarks, counted from 0, that a region has and has not.
MEMBERS = {
    "inner": (np.r_[17:68], [0, 16]),
    "outline": (np.arange(68), []),
    "whole": (np.arange(68), []),
    "features": (np.r_[17:68], [3, 8, 13]),
    "lower": (np.r_[4:13, 48:68], [27, 36, 45, 17, 26]),
    "mouth": (np.r_[48:68], [30, 8, 36, 4, 12]),
    "eyes": (np.r_[36:48], [27, 30, 48, 0, 16]),
}


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_covers_its_landmarks_and_no_others(landmarks, region):
    mask = draw_region(landmarks, region, SIZE)
    inside, outside = MEMBERS[region]
    assert (mask.shape, mask.dtype, set(np.unique(mask))) == ((SIZE, SIZE), np.float32, {0, 1})
    assert contains(mask, landmarks[inside]).all()
    assert not contains(mask, landmarks[outside]).any()


def test_the_inner_region_is_that_of_the_swaps_of_the_demo(landmarks):
    mask = draw_region(landmarks, "inner", SIZE)
    swap = inner_face_mask(landmarks, (SIZE, SIZE), 0)
    np.testing.assert_array_equal(cv2.erode(mask, np.ones((3, 3)), borderValue=0), swap)


def test_the_whole_face_has_a_forehead(landmarks):
    top, brows = (
        np.flatnonzero(draw_region(landmarks, region, SIZE).any(axis=1))[0]
        for region in ("whole", "outline")
    )
    chin_to_nose = landmarks[8, 1] - landmarks[27, 1]
    assert brows - top == pytest.approx(0.35 * chin_to_nose, abs=3)


def test_the_eyes_are_two_regions(landmarks):
    mask = draw_region(landmarks, "eyes", SIZE).astype(np.uint8)
    assert cv2.connectedComponents(mask)[0] - 1 == 2


def test_a_closed_mouth_keeps_some_height(landmarks):
    closed = landmarks.copy()
    closed[48:68, 1] = closed[48:68, 1].mean()
    height = draw_region(closed, "mouth", SIZE).any(axis=1).sum()
    assert height > 0.25 * np.ptp(landmarks[48:60, 0])


def test_an_unknown_region_is_an_error(landmarks):
    with pytest.raises(ValueError, match="Expected a region of inner, .*; got 'ears'"):
        draw_region(landmarks, "ears", SIZE)


@pytest.mark.parametrize("region", REGIONS)
def test_random_masks_vary_around_their_region_and_end_within_the_crop(landmarks, region):
    plain = draw_region(landmarks, region, SIZE)
    masks = np.stack(
        [random_mask(landmarks, region, SIZE, np.random.default_rng(i)) for i in range(30)]
    )
    assert masks.dtype == np.float32
    assert (masks.min(), masks.max()) == (0, 1)
    assert masks.max(axis=(1, 2)).min() == pytest.approx(1, abs=1e-5)
    assert len({mask.tobytes() for mask in masks}) == 30
    # None of them has its bulk elsewhere, and the mean is close to the region.
    inside = (masks * plain).sum(axis=(1, 2)) / masks.sum(axis=(1, 2))
    assert inside.min() > 0.5
    assert (np.abs(masks.mean(axis=0) - plain) > 0.5).sum() < 0.3 * plain.sum()
    assert masks[:, 0].max() == masks[:, :, 0].max() == 0, "a face amid the crop"


def test_soft_edges_end_in_weights_that_are_exactly_zero(landmarks):
    for seed in range(20):
        mask = random_mask(landmarks, "inner", SIZE, np.random.default_rng(seed))
        assert mask[mask > 0].min() > 1 / 256
        assert ((mask > 0.05) & (mask < 0.95)).mean() > 0.01


def test_edges_have_many_widths(landmarks):
    widths = []
    for seed in range(60):
        mask = random_mask(landmarks, "inner", SIZE, np.random.default_rng(seed))
        soft = ((mask > 0.1) & (mask < 0.9)).sum()
        widths.append(soft / np.sqrt((mask > 0.5).sum()))
    assert max(widths) > 3 * min(widths)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("shift", [(1000, 0), (-400, -400), (0, 1e12)])
def test_the_mask_of_a_face_outside_the_crop_is_a_disk_in_the_middle(landmarks, region, shift):
    assert draw_region(landmarks + shift, region, SIZE).max() == 0
    mask = random_mask(landmarks + shift, region, SIZE, np.random.default_rng(0))
    y, x = np.nonzero(mask > 0.5)
    assert len(x) > 0.02 * SIZE**2
    assert (x.mean(), y.mean()) == pytest.approx((SIZE / 2, SIZE / 2), abs=0.1 * SIZE)


def test_where_shrinking_leaves_nothing_the_mask_is_the_plain_region(landmarks):
    thin = (landmarks - landmarks.mean(axis=0)) * (0.02, 1) + SIZE / 2
    plain = draw_region(thin, "outline", SIZE)
    masks = [random_mask(thin, "outline", SIZE, np.random.default_rng(i)) for i in range(40)]
    assert min(mask.mean() for mask in masks) > 0.002
    assert any(np.array_equal(mask, plain) for mask in masks)


def test_same_seed_same_mask(landmarks):
    first, second = (
        random_mask(landmarks, "whole", SIZE, np.random.default_rng(3)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
