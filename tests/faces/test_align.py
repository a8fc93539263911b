import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.transform import SimilarityTransform, warp

from jdfd_keras.faces.align import (
    OTHER_DOMAIN,
    align_face,
    canonical_points,
    crop_mask,
    describe_framing,
    resize_crop,
)
from jdfd_keras.faces.detect import Box, face_detector
from jdfd_keras.faces.landmarks import find_landmarks, fit_similarity, five_points, transform_points
from jdfd_keras.options import FaceOptions

SIZE, MARGIN = 100, 1.3
MODES = ["landmarks68", "deepfakebench", "box"]
EYE_CORNERS = [36, 39, 42, 45]
# The five points of DeepfakeBench at 112 pixels, as in its code.
BENCHMARK_INDICES = [37, 44, 30, 49, 55]
BENCHMARK_FACE = [
    (30.2946, 51.6963),
    (65.5318, 51.5014),
    (48.0252, 71.7366),
    (33.5493, 92.3655),
    (62.7299, 92.2041),
]


def align(pixels, landmarks, *, size, margin, mode, box=Box(0, 0, 9, 9, 1.0)):  # noqa: B008, frozen
    options = FaceOptions(face_size=size, margin=margin, alignment=mode)
    return align_face(pixels, landmarks, box, options)


def align68(pixels, landmarks, size=SIZE, margin=MARGIN):
    return align(pixels, landmarks, size=size, margin=margin, mode="landmarks68")


def similarity(degrees, scale, shift):
    return np.asarray(
        SimilarityTransform(rotation=np.radians(degrees), scale=scale, translation=shift).params
    )[:2]


def landmarks_of(five):
    """Return 68 landmarks with these five points."""
    landmarks = np.tile(five.mean(axis=0), (68, 1))
    landmarks[36:42], landmarks[42:48] = five[0], five[1]
    landmarks[30], landmarks[48], landmarks[54] = five[2:]
    return landmarks


@pytest.fixture(scope="module")
def scene():
    """A smooth image with a canonical face of 100 px in the centre of 300 x 300."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (300, 300), interpolation=cv2.INTER_CUBIC)
    return pixels, landmarks_of(canonical_points(SIZE, MARGIN) + 100)


def test_canonical_face_is_symmetric_about_the_centre_of_the_crop():
    for size, margin in [(299, 1.3), (96, 1.0), (71, 2.5)]:
        left_eye, right_eye, nose, mouth_left, mouth_right = canonical_points(size, margin)
        center = (size - 1) / 2  # pixel centres have integer coordinates
        assert nose[0] == pytest.approx(center)
        for left, right in [(left_eye, right_eye), (mouth_left, mouth_right)]:
            assert left[0] + right[0] == pytest.approx(2 * center)
            assert left[1] == right[1]
            assert left[0] < right[0]
        assert left_eye[1] < nose[1] < mouth_left[1]


def test_margin_scales_the_face_about_the_centre_of_the_crop():
    center = (299 - 1) / 2
    tight, wide = canonical_points(299, 1.0), canonical_points(299, 2.0)
    np.testing.assert_allclose(wide - center, (tight - center) / 2, atol=1e-9)


@pytest.mark.parametrize(("size", "margin"), [(0, 1.3), (-5, 1.3), (299, 0.99), (299, -2)])
def test_a_size_or_margin_below_1_is_refused(size, margin):
    with pytest.raises(ValueError, match=f"size={size}, margin={margin}"):
        canonical_points(size, margin)


def test_fit_agrees_with_scikit_image_on_noisy_points():
    rng = np.random.default_rng(0)
    for _ in range(20):
        source = rng.normal(0, 50, (rng.integers(2, 30), 2))
        true = similarity(rng.uniform(-180, 180), rng.uniform(0.1, 5), rng.uniform(-99, 99, 2))
        target = transform_points(true, source) + rng.normal(0, 3, source.shape)
        expected = SimilarityTransform.from_estimate(source, target)
        np.testing.assert_allclose(fit_similarity(source, target), expected.params[:2], atol=1e-6)


@pytest.mark.parametrize(("degrees", "scale", "shift"), [(0, 1, (0, 0)), (117, 0.3, (5, -70))])
def test_fit_finds_a_known_rotation_scale_and_shift(degrees, scale, shift):
    source = np.random.default_rng(0).uniform(0, 300, (5, 2)).astype(np.float32)
    turn = np.radians(degrees)
    expected = [
        [scale * np.cos(turn), -scale * np.sin(turn), shift[0]],
        [scale * np.sin(turn), scale * np.cos(turn), shift[1]],
    ]
    target = source @ np.array(expected)[:, :2].T + np.array(shift)
    np.testing.assert_allclose(fit_similarity(source, target), expected, atol=1e-4)


def test_the_fit_never_mirrors():
    source = np.random.default_rng(0).uniform(0, 300, (5, 2))
    matrix = fit_similarity(source, source * (-1, 1))
    assert np.linalg.det(matrix[:, :2]) >= 0


def test_equal_points_are_refused():
    with pytest.raises(ValueError, match="same point"):
        fit_similarity(np.full((5, 2), 7.0), np.eye(5, 2))


def test_the_crop_of_a_canonical_face_is_unchanged(scene):
    pixels, landmarks = scene
    crop, moved, residual, *_ = align68(pixels, landmarks)
    np.testing.assert_array_equal(crop, pixels[100:200, 100:200])
    np.testing.assert_allclose(moved, landmarks - 100, atol=1e-4)
    assert residual == pytest.approx(0, abs=1e-9)
    assert (crop.dtype, moved.dtype, moved.shape) == (np.uint8, np.float32, (68, 2))


@pytest.mark.parametrize("alignment", ["landmarks68", "deepfakebench", "box"])
def test_a_mask_is_cropped_like_the_pixels_that_it_marks(scene, alignment):
    pixels, landmarks = scene
    turned = transform_points(cv2.getRotationMatrix2D((150, 150), 20, 0.7), landmarks)
    box, options = Box(120, 110, 180, 170, 1.0), FaceOptions(face_size=90, alignment=alignment)
    marked = np.zeros(pixels.shape[:2], bool)
    marked[100:160, 130:200] = True
    painted = marked[..., None] * np.full(3, 255, np.uint8)
    aligned = align_face(painted, turned, box, options)
    mask = crop_mask(marked, aligned.matrix, 90, pixels.shape[1::-1])
    assert mask.dtype == np.uint8 and 0 < (mask > 0).mean() < 1
    np.testing.assert_array_equal(mask, np.where(aligned.crop[..., 0] > 127, 255, 0))
    np.testing.assert_allclose(
        transform_points(aligned.matrix, turned), aligned.landmarks, atol=1e-4
    )
    # A mask of half the size marks the same, to a pixel of its own.
    half = crop_mask(marked[::2, ::2], aligned.matrix, 90, pixels.shape[1::-1])
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((5, 5)))
    np.testing.assert_array_equal(half[edge == 0], mask[edge == 0])


@pytest.mark.parametrize("degrees", [30, -45, 180])
def test_a_rotated_face_has_the_crop_of_the_upright_one(scene, degrees):
    pixels, landmarks = scene
    matrix = cv2.getRotationMatrix2D((150, 150), degrees, 1)
    turned = cv2.warpAffine(pixels, matrix, (300, 300), flags=cv2.INTER_CUBIC)
    crop, moved, residual, *_ = align68(turned, transform_points(matrix, landmarks))
    # Interpolated twice; an error of one degree would change the mean by 4 grey levels.
    difference = np.abs(crop.astype(float) - pixels[100:200, 100:200])
    assert difference.mean() < 1
    np.testing.assert_allclose(moved, landmarks - 100, atol=1e-3)
    assert residual == pytest.approx(0, abs=1e-9)


def test_a_mirrored_image_has_the_mirrored_crop(scene):
    pixels, landmarks = scene
    pixels, landmarks = pixels[:, 3:], landmarks - (3.4, 1.7)  # off-centre, between pixels
    width = pixels.shape[1]
    mirrored = landmarks * (-1, 1) + (width - 1, 0)
    mirrored[36:42], mirrored[42:48] = mirrored[42:48].copy(), mirrored[36:42].copy()
    mirrored[[48, 54]] = mirrored[[54, 48]]
    crop = align68(pixels, landmarks, 61, 1.1).crop
    other = align68(np.ascontiguousarray(pixels[:, ::-1]), mirrored, 61, 1.1).crop
    assert np.abs(crop[:, ::-1].astype(int) - other).max() <= 2


def test_residual_is_the_distance_from_a_frontal_face_as_a_share_of_the_crop():
    five = canonical_points(SIZE, MARGIN)
    five[2] += (0, 7)  # a face that looks down
    residual = align68(np.zeros((SIZE, SIZE, 3), np.uint8), landmarks_of(five)).residual
    canonical = canonical_points(SIZE, MARGIN)
    fitted = SimilarityTransform.from_estimate(five, canonical)
    distances = np.linalg.norm(fitted(five) - canonical, axis=1)
    assert residual == pytest.approx(np.sqrt((distances**2).mean()) / SIZE, rel=1e-6)
    assert residual > 0.01


def test_residual_does_not_depend_on_the_size_of_crop_or_face(astronaut, astronaut_landmarks):
    residual = align68(astronaut, astronaut_landmarks, 299).residual
    smaller = align68(astronaut, astronaut_landmarks, 71).residual
    double = cv2.resize(astronaut, None, fx=2, fy=2)
    larger = align68(double, 2 * astronaut_landmarks, 299).residual
    assert smaller == pytest.approx(residual)
    assert larger == pytest.approx(residual)


def test_the_five_points_are_near_their_canonical_positions(astronaut, astronaut_landmarks):
    moved = align68(astronaut, astronaut_landmarks, 299).landmarks
    distances = np.linalg.norm(five_points(moved) - canonical_points(299, 1.3), axis=1)
    assert distances.max() < 0.08 * 299


def test_a_fine_pattern_is_averaged_and_not_aliased():
    board = np.indices((800, 800)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[..., None].astype(np.uint8), 3, axis=2)
    landmarks = landmarks_of(canonical_points(800, MARGIN))
    crop = align68(pixels, landmarks, 90).crop
    assert np.abs(crop[5:-5, 5:-5].astype(float) - 127.5).max() < 4


def test_an_enlarged_face_is_black_only_outside_the_frame():
    white = np.full((40, 40, 3), 255, np.uint8)
    landmarks = landmarks_of(canonical_points(8, MARGIN) + (15.3, 15.8))
    crop = align68(white, landmarks, 400).crop
    assert crop.min() == 255


def test_a_face_at_the_edge_is_black_where_the_frame_ends(scene):
    pixels, landmarks = scene
    crop = align68(pixels[:, 150:], landmarks - (150, 0)).crop
    assert crop[:, :50].max() == 0
    np.testing.assert_array_equal(crop[:, 50:], pixels[100:200, 150:200])


@pytest.mark.parametrize("shift", [(1000, 0), (-1000, 0), (0, 1000), (-1000, -1000)])
def test_a_face_outside_the_frame_is_black(scene, shift):
    pixels, landmarks = scene
    crop, moved, _, outside, _ = align68(pixels, landmarks + shift)
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.max() == 0
    assert outside == 1
    np.testing.assert_allclose(moved, landmarks - 100, atol=1e-2)


def benchmark_points(size):
    """Positions of the benchmark's five points at margin 1.3, computed as in its code."""
    positions = []
    for x, y in BENCHMARK_FACE:
        x, y = (x + 8) * size / 112, y * size / 112
        positions.append(((x + 0.15 * size) / 1.3, (y + 0.15 * size) / 1.3))
    return np.array(positions)


def benchmark_landmarks(five):
    landmarks = np.tile(five.mean(axis=0), (68, 1))
    landmarks[BENCHMARK_INDICES] = five
    return landmarks


def test_the_template_is_that_of_deepfakebench():
    # By hand for 256 px: (30.2946 + 8) * 256 / 112 = 87.5305; (87.5305 + 38.4) / 1.3 = 96.8696.
    positions = canonical_points(256, 1.3, "deepfakebench")
    np.testing.assert_allclose(positions[0], (96.8696, 120.4330), atol=1e-3)
    np.testing.assert_allclose(positions, benchmark_points(256), atol=1e-9)


@pytest.mark.parametrize("mode", ["landmarks68", "deepfakebench"])
@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(0, 1, (0, 0)), (23, 0.4, (31, -7)), (-140, 5, (200, 90.5))]
)
def test_a_transformed_canonical_face_returns_to_its_positions(mode, degrees, scale, shift):
    size = 224
    if mode == "landmarks68":
        landmarks, indices = landmarks_of(canonical_points(size, 1.3)), [36, 45, 30, 48, 54]
    else:
        landmarks, indices = benchmark_landmarks(benchmark_points(size)), BENCHMARK_INDICES
    moved = transform_points(similarity(degrees, scale, shift), landmarks)
    found = align(np.zeros((9, 9, 3), np.uint8), moved, size=size, margin=1.3, mode=mode)
    np.testing.assert_allclose(found.landmarks, landmarks, atol=1e-3)
    np.testing.assert_allclose(
        found.landmarks[indices], canonical_points(size, 1.3, mode), atol=1e-3
    )
    assert found.residual == pytest.approx(0, abs=1e-6)


def expected_transform(mode, landmarks, box, size):
    """Fit the crop a second time, with scikit-image."""
    if mode == "landmarks68":
        return SimilarityTransform.from_estimate(
            five_points(landmarks), canonical_points(size, 1.3)
        )
    if mode == "deepfakebench":
        return SimilarityTransform.from_estimate(
            landmarks[BENCHMARK_INDICES], benchmark_points(size)
        )
    # Maps the corners of the square, edges between pixels, onto those of the crop.
    half = 1.3 * max(box.right - box.left, box.bottom - box.top) / 2
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    square = np.array([(x - half, y - half), (x + half, y - half), (x + half, y + half)])
    crop = np.array([(0, 0), (size, 0), (size, size)])
    return SimilarityTransform.from_estimate(square - 0.5, crop - 0.5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [400, 82, 33])
def test_crops_equal_those_of_scikit_image(astronaut, astronaut_landmarks, mode, size):
    box = Box(179, 83, 266, 166, 1.0)
    noise = np.random.default_rng(0).integers(-40, 40, astronaut.shape)
    pixels = np.clip(astronaut.astype(int) + noise, 0, 255).astype(np.uint8)
    found = align(pixels, astronaut_landmarks, size=size, margin=1.3, mode=mode, box=box)
    transform = expected_transform(mode, astronaut_landmarks, box, size)
    np.testing.assert_allclose(found.landmarks, transform(astronaut_landmarks), atol=1e-3)
    smooth = pixels.astype(float)
    if transform.scale < 1:
        sigma = (1 / transform.scale - 1) / 2
        smooth = gaussian_filter(smooth, (sigma, sigma, 0), mode="mirror")
    expected = warp(smooth, transform.inverse, output_shape=(size, size), order=1)
    # Rounding to bytes adds 0.25 on average, and smoothing rounds, too.
    difference = np.abs(found.crop - expected)
    assert difference.mean() < 0.35
    assert difference.max() < 1.5


@pytest.mark.parametrize("mode", MODES)
def test_noise_is_averaged_when_a_large_face_is_shrunk(mode):
    noise = np.random.default_rng(0).normal(128, 30, (800, 800, 1)).clip(0, 255)
    pixels = np.repeat(noise.astype(np.uint8), 3, axis=2)
    landmarks = landmarks_of(canonical_points(800, MARGIN))
    landmarks[BENCHMARK_INDICES] = five_points(landmarks)
    box = Box(92, 92, 708, 708, 1.0)
    crop = align(pixels, landmarks, size=200, margin=MARGIN, mode=mode, box=box).crop
    # A Gaussian of sigma 1.5 keeps 1 / (2 sigma sqrt(pi)) = 0.19 of it; no smoothing 0.6 to 1.
    assert crop[5:-5, 5:-5].std() < 0.25 * 30


def test_the_crop_of_a_box_is_the_box(scene):
    pixels, landmarks = scene
    box = Box(40, 120, 90, 170, 1.0)
    found = align(pixels, landmarks, size=50, margin=1.0, mode="box", box=box)
    np.testing.assert_array_equal(found.crop, pixels[120:170, 40:90])
    np.testing.assert_allclose(found.landmarks, landmarks - (40, 120), atol=1e-4)
    assert found.outside == 0


def test_the_crop_of_a_box_is_square_about_its_centre_and_black_outside_the_frame(scene):
    pixels, landmarks = scene
    # 20 wide, 40 high, margin 2: 80 square about (280, 10), so 20 columns and 30 rows are outside.
    box = Box(270, -10, 290, 30, 1.0)
    found = align(pixels, landmarks, size=80, margin=2.0, mode="box", box=box)
    expected = np.zeros((80, 80, 3), np.uint8)
    expected[30:, :60] = pixels[:50, 240:300]
    np.testing.assert_array_equal(found.crop, expected)
    assert found.outside == pytest.approx(1 - 60 * 50 / 80**2)


def test_the_residual_of_a_box_is_relative_to_the_positions_of_landmarks68(scene):
    pixels, _ = scene
    landmarks = landmarks_of(canonical_points(SIZE, MARGIN) + (103, 104))
    box = Box(100, 100, 200, 200, 1.0)
    found = align(pixels, landmarks, size=200, margin=1.0, mode="box", box=box)
    # Twice as large: positions of margin 1.3 differ from those of margin 1.
    tight = canonical_points(200, 1.0)
    distances = np.linalg.norm(2 * (five_points(landmarks) - 100 + 0.5) - 0.5 - tight, axis=1)
    assert found.residual == pytest.approx(np.sqrt((distances**2).mean()) / 200, rel=1e-4)


def test_an_unknown_mode_is_refused_and_the_valid_ones_are_named(scene):
    with pytest.raises(ValueError, match=r"'landmarks68', 'deepfakebench' or 'box'; got 'ffhq'"):
        align(*scene, size=SIZE, margin=MARGIN, mode="ffhq")


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0, 0), 0),
        ((100, 100), 0),
        ((-50, 30), 0.5),
        ((30, 170), 0.2),
        ((170, 200), 0.6),
        ((-99, 0), 0.99),
    ],
)
def test_the_share_outside_the_frame_is_a_share_of_the_area(shift, expected):
    landmarks = landmarks_of(canonical_points(100, MARGIN) + shift)
    found = align68(np.zeros((250, 250, 3), np.uint8), landmarks)
    assert found.outside == pytest.approx(expected, abs=1e-6)


def test_a_rotated_crop_is_clipped_at_the_frame():
    # A diamond with its centre on the left edge is half outside; on a corner, three quarters.
    for corner, expected in [((-0.5, 120), 0.5), ((-0.5, -0.5), 0.75), ((249.5, 249.5), 0.75)]:
        matrix = similarity(45, 1, (0, 0))
        five = transform_points(matrix, canonical_points(100, MARGIN) - 49.5) + corner
        found = align68(np.zeros((250, 250, 3), np.uint8), landmarks_of(five))
        assert found.outside == pytest.approx(expected, abs=1e-6)


def test_the_share_outside_the_frame_equals_that_of_the_black_pixels():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        matrix = similarity(rng.uniform(-180, 180), rng.uniform(1, 4), rng.uniform(-100, 250, 2))
        landmarks = landmarks_of(transform_points(matrix, canonical_points(100, MARGIN)))
        found = align68(np.full((200, 260, 3), 255, np.uint8), landmarks)
        assert found.outside == pytest.approx(1 - found.crop.mean() / 255, abs=0.015)
        shares.append(found.outside)
    assert min(shares) < 0.1  # the cases cover the range
    assert max(shares) > 0.9


def find_face(pixels):
    """Landmarks of the face with the highest score, or None."""
    (boxes,) = face_detector("dlib").find([pixels])
    box = max(boxes, key=lambda box: box.score, default=None)
    return find_landmarks(pixels, box) if box else None


def eye_corners(pixels, landmarks):
    """float[4, 2], positions in the crop divided by its width."""
    return align68(pixels, landmarks, 299).landmarks[EYE_CORNERS] / 299


@pytest.mark.parametrize("person", ["collins", "hopper"])
def test_the_eyes_are_at_the_same_positions_after_rotation_scaling_and_shift(person, request):
    actor = request.getfixturevalue(person)
    pixels = actor.pixels.astype(np.uint8)
    landmarks = find_face(pixels)
    upright = eye_corners(pixels, landmarks)
    distances = []
    for degrees, scale in [(-30, 1.5), (-20, 1), (-10, 0.8), (0, 1.2), (10, 1), (20, 0.8), (30, 1)]:
        side = round(2.6 * scale * actor.width)
        matrix = cv2.getRotationMatrix2D(actor.center, degrees, scale)
        matrix[:, 2] += (side / 2 + 7.3, side / 2 - 4.6) - np.array(actor.center)
        moved = cv2.warpAffine(pixels, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
        # With transformed landmarks instead of new ones, only rounding differs.
        carried = eye_corners(moved, transform_points(matrix, landmarks))
        np.testing.assert_allclose(carried, upright, atol=1e-5)
        distances += [np.linalg.norm(eye_corners(moved, find_face(moved)) - upright, axis=1)]
    assert np.max(distances) < 0.015


@pytest.mark.parametrize("person", ["collins", "hopper"])
def test_no_crop_is_tilted(person, request):
    # A face may be crooked, but then its mirror image is crooked to the other side: what is left
    # in their mean is a tilt by the alignment. A tilt of one degree would raise one outer corner
    # of the eyes by 0.006 over the other.
    pixels = request.getfixturevalue(person).pixels.astype(np.uint8)
    slopes = []
    for image in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
        corners = eye_corners(image, find_face(image))
        slopes.append(corners[0, 1] - corners[3, 1])
        # On the frontal ones of 90 portraits the median distance of the corners from their mean
        # positions was below 0.01; the rest is due to the proportions of each face.
        middle = canonical_points(299, 1.3)[:2].mean(axis=0) / 299
        np.testing.assert_allclose(corners[[0, 3]].mean(axis=0), middle, atol=0.025)
    assert np.mean(slopes) == pytest.approx(0, abs=0.003)


def smooth_image(height, width):
    coarse = np.random.default_rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_crop_of_the_right_size_is_not_changed():
    pixels = np.random.default_rng(0).integers(0, 256, (71, 71, 3), dtype=np.uint8)
    aligned = resize_crop(pixels, 71)
    np.testing.assert_array_equal(aligned.crop, pixels)
    assert aligned.landmarks.shape == (0, 2)
    assert aligned.outside == 0 and np.isnan(aligned.residual)


@pytest.mark.parametrize("shape", [(256, 256), (40, 40), (120, 60), (60, 300)])
def test_a_crop_is_resized_as_the_exported_model_resizes(shape):
    import tensorflow as tf

    pixels = smooth_image(*shape)
    expected = tf.image.resize(pixels, (96, 96), antialias=True).numpy()
    crop = resize_crop(pixels, 96).crop
    assert (crop.shape, crop.dtype) == ((96, 96, 3), np.uint8)
    np.testing.assert_allclose(crop, expected, atol=1.01)


def test_a_crop_of_noise_is_smoothed_and_not_sampled_when_it_shrinks():
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    crop = resize_crop(noise, 60).crop
    # Averages of about 100 pixels or more; a sampled pixel has a deviation of 74.
    assert crop.std() < 10
    assert crop.mean() == pytest.approx(127.5, abs=2)


def test_the_landmarks_of_a_crop_stay_at_their_pixels():
    pixels = np.zeros((80, 160, 3), np.uint8)
    points = np.tile([[30.0, 20.0]], (81, 1))
    points[1] = 100.5, 59.5
    for x, y in points[:2]:
        pixels[int(y - 3.5) : int(y + 4.5), int(x - 3.5) : int(x + 4.5)] = 255
    aligned = resize_crop(pixels, 320, points)
    assert aligned.landmarks.shape == (68, 2)
    assert aligned.landmarks.dtype == np.float32
    # Columns are twice, rows four times as wide; the centre of the first pixel is (0, 0).
    np.testing.assert_allclose(aligned.landmarks[0], [60.5, 81.5])
    rows, columns = np.nonzero(aligned.crop[:, 130:, 0] > 127)
    np.testing.assert_allclose(aligned.landmarks[1], [columns.mean() + 130, rows.mean()], atol=0.6)


def test_the_framing_differs_by_alignment_margin_and_detector():
    model = FaceOptions()
    same = FaceOptions(detector="mtcnn", face_size=96, frames_per_video=4, tracks="all")
    assert describe_framing(same, model) == describe_framing(model) == ""
    for other in (
        FaceOptions(margin=1.5),
        FaceOptions(alignment="box"),
        FaceOptions(detector="none"),
    ):
        assert "and these are" in describe_framing(other, model)
        assert OTHER_DOMAIN in describe_framing(other, model)
        assert OTHER_DOMAIN in describe_framing(model, other)
    # Two sets of crops may be framed differently; alignment and margin have no effect on them.
    none, unused = FaceOptions(detector="none"), FaceOptions(detector="none", margin=2.0)
    for data, trained in ((none, none), (none, unused)):
        assert "if their framing differs" in describe_framing(data, trained)
    assert "as they are" in describe_framing(none)
