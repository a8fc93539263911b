import cv2
import numpy as np
import pytest

from jdfd_keras.datasets.synthetic.clips import vary_portrait
from jdfd_keras.datasets.synthetic.face_warping import warp_face

FACE_PX = 150  # between the outer ends of the brows


@pytest.fixture(scope="module")
def landmarks(astronaut):
    """Landmarks of a face, which is turned by 12 degrees, in a crop of 299 pixels."""
    (subject,) = vary_portrait(astronaut, 1, seed=1)
    points = subject.landmarks.astype(np.float64)
    turn = cv2.getRotationMatrix2D((0, 0), 12, FACE_PX / np.linalg.norm(points[26] - points[17]))
    points = points @ turn[:, :2].T
    return points - points.mean(axis=0) + 149


def noise(size=299):
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def fit_square(landmarks):
    """Return the corners of the square by least squares, from ten points of the mean face."""
    template = {17: (0, 0.076), 26: (1, 0.076), 30: (0.5, 0.51), 57: (0.5, 0.914)}
    template |= {36: (0.12, 0.205), 39: (0.334, 0.216), 42: (0.666, 0.216), 45: (0.88, 0.205)}
    template |= {48: (0.233, 0.766), 54: (0.767, 0.766)}
    x, y = np.array(list(template.values())).T
    one, zero = np.ones(len(x)), np.zeros(len(x))
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, left, top = np.linalg.lstsq(system, landmarks[list(template)].T.ravel())[0]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return corners @ [[a, b], [-b, a]] + (left, top)


def test_the_warp_changes_only_the_face_and_all_of_it(landmarks):
    """Half of the regions are the hull of brows and mouth, the others the square of the face."""
    face = noise()
    hull = cv2.convexHull(landmarks[[*range(17, 27), *range(48, 60)]].astype(np.float32))
    square = fit_square(landmarks).astype(np.float32)
    areas = []
    for seed in range(40):
        fake, mask = warp_face(face, landmarks, np.random.default_rng(seed))
        assert fake.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        changed = (fake != face).any(axis=2)
        assert not changed[mask == 0].any()
        assert changed[mask == 1].mean() > 0.99
        rows, columns = np.nonzero(changed)
        points = list(zip(columns.tolist(), rows.tolist(), strict=True))[::37]
        areas.append(mask.sum())
        outline = hull if mask.sum() < 0.8 * FACE_PX**2 else square
        distances = [cv2.pointPolygonTest(outline, point, True) for point in points]
        # Rounded to whole pixels; the square is fitted to other points.
        assert min(distances) > (-1.5 if outline is hull else -0.1 * FACE_PX)
    whole = cv2.contourArea(square)
    is_hull = np.array(areas) < 0.8 * whole
    np.testing.assert_allclose(np.array(areas)[is_hull], cv2.contourArea(hull), rtol=0.03)
    np.testing.assert_allclose(np.array(areas)[~is_hull], whole, rtol=0.25)
    assert 10 <= is_hull.sum() <= 30  # 20 of 40 on average


def test_the_warp_blurs_the_face_as_a_small_square_would(landmarks):
    """A plane of grey levels stays; a grid that is finer than the square's pixels disappears."""
    plane = np.add.outer(np.arange(299) * 0.3, np.arange(299) * 0.4)[..., None].repeat(3, axis=2)
    face = np.round(plane + 20).astype(np.uint8)
    fine = np.indices((299, 299)).sum(axis=0) % 2 * 40 + 100
    grid = fine[..., None].repeat(3, axis=2).astype(np.uint8)
    for seed in range(5):
        fake, _ = warp_face(face, landmarks, np.random.default_rng(seed))
        assert np.abs(fake.astype(int) - face).max() <= 2
        fake, mask = warp_face(grid, landmarks, np.random.default_rng(seed))
        inside = cv2.erode(mask, np.ones((3, 3))) > 0
        assert fake[inside].std() < 0.5 * grid[inside].std()


def test_sizes_are_drawn_from_the_published_range(landmarks, monkeypatch):
    """Or from the upper half of the face's own width, if that is smaller."""
    sizes = []
    blur = cv2.GaussianBlur
    monkeypatch.setattr(cv2, "GaussianBlur", lambda a, *k: (sizes.append(len(a)), blur(a, *k))[1])
    face, small = noise(), noise(71)
    for seed in range(300):
        warp_face(face, landmarks, np.random.default_rng(seed))
    assert (min(sizes), max(sizes)) == (64, 127)
    sizes.clear()
    for seed in range(100):
        warp_face(small, landmarks * 71 / 299, np.random.default_rng(seed))
    assert 16 <= min(sizes) <= 19 and 32 <= max(sizes) <= 37  # the face has about 36 pixels


def test_an_equal_source_of_randomness_gives_an_equal_fake(landmarks):
    face = noise()
    before = face.copy()
    one, other = (warp_face(face, landmarks, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(face, before)


@pytest.mark.parametrize(
    "points",
    [np.zeros((68, 2)), np.full((68, 2), 1e6), np.random.default_rng(0).normal(0, 1e9, (68, 2))],
    ids=["one point", "outside", "scattered"],
)
def test_landmarks_that_are_not_a_face_give_a_warp_in_the_middle(points):
    face = noise(96)
    for seed in range(4):
        fake, mask = warp_face(face, points, np.random.default_rng(seed))
        assert mask[48, 48] == 1 and not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
        assert (fake != face).any()
