import cv2
import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import ConvexHull

from jdfd_keras.datasets.synthetic.blending import (
    inner_face_mask,
    match_colour,
    rerender_face,
    swap_face,
    warp_onto,
)

SHAPE = (200, 200)


@pytest.fixture(scope="module")
def head(astronaut):
    return astronaut[40:240, 120:320]


@pytest.fixture(scope="module")
def landmarks(astronaut_landmarks):
    return astronaut_landmarks - (120, 40)


def inside_hull(points, margin):
    """Return for each pixel whether it is inside the convex hull by `margin` pixels."""
    y, x = np.indices(SHAPE)
    normals, offsets = np.split(ConvexHull(points).equations, [2], axis=1)
    distances = np.stack([x, y], axis=-1) @ normals.T + offsets[:, 0]
    return distances.max(axis=-1) <= -margin


@pytest.mark.parametrize("feather", [0, 0.1, 0.3, 0.4])
def test_mask_is_soft_inside_the_face_and_zero_outside(landmarks, feather):
    mask = inner_face_mask(landmarks, SHAPE, feather)
    assert mask.dtype == np.float32
    assert mask.min() == 0
    assert mask.max() == pytest.approx(1, abs=1e-5)
    assert mask[~inside_hull(landmarks, 0)].max() == 0
    assert mask[tuple(landmarks[30].astype(int)[::-1])] == pytest.approx(1, abs=1e-5)
    is_soft = ((mask > 0.02) & (mask < 0.98)).mean()
    assert (is_soft == 0) == (feather == 0)


def test_mask_is_near_zero_at_the_outline(landmarks):
    hard = inner_face_mask(landmarks, SHAPE, 0)
    outline = (hard == 1) & (cv2.erode(hard, np.ones((3, 3))) == 0)
    assert inner_face_mask(landmarks, SHAPE, 0.3)[outline].max() < 0.15


def test_a_wider_feather_has_a_wider_edge(landmarks):
    widths = [
        ((mask > 0.02) & (mask < 0.98)).mean()
        for mask in (inner_face_mask(landmarks, SHAPE, feather) for feather in (0.1, 0.2, 0.4))
    ]
    assert 1.5 < widths[1] / widths[0] < 2.5
    assert 1.5 < widths[2] / widths[1] < 2.5


def test_mask_of_a_face_outside_the_frame_is_empty(landmarks):
    assert inner_face_mask(landmarks + 1000, SHAPE, 0.3).max() == 0


def test_warp_onto_its_own_landmarks_changes_nothing_inside(head, landmarks):
    warped = warp_onto(head, landmarks, landmarks, SHAPE)
    inside = inside_hull(landmarks, 0.01)
    np.testing.assert_array_equal(warped[inside], head[inside])
    assert warped[~inside_hull(landmarks, -1)].max() == 0


def test_warp_moves_by_the_shift_between_the_landmarks(head, landmarks):
    warped = warp_onto(head, landmarks, landmarks + (7, -12), SHAPE)
    expected = np.roll(head, (-12, 7), axis=(0, 1))
    inside = inside_hull(landmarks + (7, -12), 0.01)
    np.testing.assert_array_equal(warped[inside], expected[inside])


def test_warp_agrees_with_scipy(head, landmarks):
    target = landmarks * (0.8, 1.1) + (21.3, -9.8)
    target[48:68] += np.random.default_rng(0).normal(0, 2, (20, 2))
    y, x = np.indices(SHAPE)
    source_map = LinearNDInterpolator(target, landmarks, fill_value=-1e4)(x, y)
    expected = cv2.remap(head, source_map.astype(np.float32), None, cv2.INTER_LINEAR)
    difference = np.abs(warp_onto(head, landmarks, target, SHAPE).astype(int) - expected)
    # Rounding alone: OpenCV interpolates at 1/32 of a pixel.
    assert difference[inside_hull(target, 0.01)].max() <= 8
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("shift", [(500, 0), (-500, -500), (90, 90), (-90, 0)])
def test_warp_clips_at_the_edges_of_the_frame(head, landmarks, shift):
    warped = warp_onto(head, landmarks, landmarks + shift, SHAPE)
    assert warped.shape == (*SHAPE, 3)
    assert (warped.max() == 0) == (max(map(abs, shift)) == 500)


def test_matched_colours_have_the_mean_and_deviation_of_the_reference():
    rng = np.random.default_rng(0)
    image = rng.normal((120, 90, 100), 12, (80, 80, 3)).clip(0, 255).astype(np.uint8)
    reference = rng.normal((150, 130, 110), 20, (80, 80, 3)).clip(0, 255).astype(np.uint8)
    reference[:40] = 255  # outside the mask, so it must not matter
    mask = np.zeros((80, 80), np.float32)
    mask[40:] = 1
    matched = match_colour(image, reference, mask)
    found, target = (
        cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[40:].reshape(-1, 3).astype(float)
        for pixels in (matched, reference)
    )
    np.testing.assert_allclose(found.mean(axis=0), target.mean(axis=0), atol=1)
    np.testing.assert_allclose(found.std(axis=0), target.std(axis=0), rtol=0.1)


def test_equal_colours_are_unchanged(head, landmarks):
    mask = inner_face_mask(landmarks, SHAPE, 0.3)
    inside = mask > 0.5
    difference = match_colour(head, head, mask).astype(int) - head
    assert np.abs(difference[inside]).max() <= 1


def test_with_an_empty_mask_colours_are_unchanged(head):
    assert match_colour(head, 255 - head, np.zeros(SHAPE, np.float32)) is head


@pytest.fixture(scope="module")
def other(head, landmarks):
    """A face with different proportions, colours and size."""
    image = cv2.resize(255 - head // 2, None, fx=1.3, fy=1.1)
    return image, landmarks * (1.3, 1.1)


@pytest.mark.parametrize("feather", [0, 0.3])
def test_a_swap_keeps_the_surroundings_bit_for_bit_and_changes_the_face(
    head, landmarks, other, feather
):
    swapped = swap_face(head, landmarks, *other, feather=feather)
    mask = inner_face_mask(landmarks, SHAPE, feather)
    assert (swapped.shape, swapped.dtype) == (head.shape, np.uint8)
    np.testing.assert_array_equal(swapped[mask == 0], head[mask == 0])
    assert np.abs(swapped[mask > 0.9].astype(int) - head[mask > 0.9]).mean() > 10


@pytest.mark.parametrize("feather", [0, 0.3])
def test_a_face_swapped_with_itself_is_nearly_unchanged(head, landmarks, feather):
    swapped = swap_face(head, landmarks, head, landmarks, feather=feather)
    assert np.abs(swapped.astype(int) - head).max() <= 1


def test_a_swap_onto_a_face_outside_the_frame_changes_nothing(head, landmarks, other):
    np.testing.assert_array_equal(swap_face(head, landmarks + 1000, *other), head)


def test_the_face_of_a_swap_is_the_source_at_the_position_in_the_frame(head, landmarks):
    marked = head.copy()
    x, y = landmarks[30].astype(int)
    marked[y - 4 : y + 5, x - 4 : x + 5] = (255, 0, 0)
    moved = landmarks + (6, 9)
    change = np.abs(
        swap_face(head, moved, marked, landmarks).astype(int)
        - swap_face(head, moved, head, landmarks)
    ).max(axis=-1)
    ys, xs = np.nonzero(change > 60)
    assert (xs.mean(), ys.mean()) == pytest.approx((x + 6, y + 9), abs=1.5)


def test_a_rerendered_face_is_blurred_and_not_shifted(head, landmarks):
    again = rerender_face(head, landmarks, 16)
    assert again.shape == head.shape
    assert cv2.Laplacian(again, cv2.CV_64F).var() < cv2.Laplacian(head, cv2.CV_64F).var() / 10
    blurred = cv2.GaussianBlur(head, (0, 0), 3).astype(np.float32)
    shift, _ = cv2.phaseCorrelate(blurred.mean(axis=2), again.mean(axis=2).astype(np.float32))
    assert np.abs(shift).max() < 0.5


def test_a_face_smaller_than_the_rendering_is_unchanged(head, landmarks):
    again = rerender_face(head, landmarks, 500)
    np.testing.assert_array_equal(again, head)
