import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import find_landmarks
from jdfd_keras.faces.quality import (
    Quality,
    check_filters,
    estimate_yaw,
    filter_reason,
    find_marked_track,
    measure_sharpness,
)
from jdfd_keras.options import FilterOptions
from tests.faces.media_files import make_clip

FACE = Box(179, 83, 266, 170, 1.0)  # of the astronaut
GOOD = Quality(detector_score=1.2, sharpness=60.0, size_px=120, outside=0.0, yaw_deg=5.0)

# A head with proportions of its own, in millimetres from the tip of the nose: x to the right of the
# image, y down, z towards the camera.
HEAD = {
    27: (0, -44, -20),
    30: (0, 0, 0),
    31: (-15, 8, -18),
    33: (0, 11, -14),
    35: (15, 8, -18),
    36: (-43, -36, -45),
    39: (-17, -35, -32),
    42: (17, -35, -32),
    45: (43, -36, -45),
    48: (-28, 30, -26),
    54: (28, 30, -26),
}


def mirror(landmarks, width):
    """Landmarks of the mirrored image, in the order of the 68 points."""
    pairs = [(i, 16 - i) for i in range(8)]  # the jaw
    pairs += [(17 + i, 26 - i) for i in range(5)]  # brows
    pairs += [(31, 35), (32, 34)]  # nose
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]  # eyes
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58)]  # lips, outside
    pairs += [(60, 64), (61, 63), (65, 67)]  # and inside
    order = np.arange(68)
    for left, right in pairs:
        order[[left, right]] = right, left
    return (landmarks * (-1, 1) + (width - 1, 0))[order]


def photograph_head(yaw_deg, pitch_deg=0.0, roll_deg=0.0):
    """68 landmarks of the head from afar; with yaw above 0 it faces the right of the image."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    turn = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    nod = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    tilt = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    landmarks = np.full((68, 2), 1e4)  # points that the estimate must ignore
    for index, point in HEAD.items():
        landmarks[index] = (np.array(tilt) @ nod @ turn @ point)[:2]
    return landmarks


@pytest.fixture(scope="module")
def large_image():
    """uint8[800, 800, 3], details of all sizes from 4 to 64 pixels, finer ones fainter."""
    rng = np.random.default_rng(0)
    image = np.zeros((800, 800))
    for cells in (12, 25, 50, 100, 200):
        layer = rng.normal(0, 800 / cells, (cells, cells))
        image += cv2.resize(layer, (800, 800), interpolation=cv2.INTER_CUBIC)
    image = 128 + 127 * image / np.abs(image).max()
    return np.repeat(image[..., None], 3, axis=2).astype(np.uint8)


def shrink(pixels, times):
    height, width = pixels.shape[:2]
    shape = round(width / times), round(height / times)
    return cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)


def enlarge(pixels, times):
    return cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)


def whole(pixels):
    return Box(0, 0, pixels.shape[1], pixels.shape[0], 1.0)


def test_the_sharpness_of_a_wave_has_its_closed_form():
    # At 100 pixels: 50 sin(w x), w = 2 pi / 10. The Gaussian keeps exp(-w^2 / 2) of it, the
    # Laplacian is 2 (cos w - 1) times the wave, whose variance is half its squared height.
    step = 2 * np.pi / 10
    wave = 128 + 50 * np.sin(step * np.arange(100))
    pixels = np.broadcast_to(np.rint(wave)[None, :, None], (100, 100, 3)).astype(np.uint8)
    expected = (50 * np.exp(-(step**2) / 2) * 2 * (np.cos(step) - 1)) ** 2 / 2
    assert measure_sharpness(pixels, whole(pixels)) == pytest.approx(expected, rel=0.03)


def test_the_sharpness_of_a_uniform_face_is_0():
    flat = np.full((90, 90, 3), 80, np.uint8)
    assert measure_sharpness(flat, Box(5, 5, 80, 80, 1.0)) == pytest.approx(0, abs=1e-9)


def test_a_blurred_face_is_less_sharp(astronaut):
    sharp = measure_sharpness(astronaut, FACE)
    for sigma, most in [(1, 0.7), (2, 0.25), (4, 0.05)]:
        assert measure_sharpness(cv2.GaussianBlur(astronaut, (0, 0), sigma), FACE) < most * sharp


@pytest.mark.parametrize("times", [1.6, 2, 2.7, 4, 6.5])
def test_sharpness_does_not_depend_on_the_resolution(large_image, times):
    small = shrink(large_image, times)
    assert measure_sharpness(small, whole(small)) == pytest.approx(
        measure_sharpness(large_image, whole(large_image)), rel=0.15
    )


def test_an_enlarged_small_face_is_at_most_half_as_sharp_as_a_large_one(large_image):
    large = shrink(large_image, 2)
    enlarged = enlarge(shrink(large, 16), 16)
    assert measure_sharpness(enlarged, whole(enlarged)) < 0.5 * measure_sharpness(
        large, whole(large)
    )


def test_a_small_face_is_as_sharp_as_the_same_one_enlarged(astronaut):
    small = shrink(astronaut, 3)
    box = Box(60, 28, 89, 57, 1.0)
    enlarged = enlarge(small, 4)
    found = measure_sharpness(enlarged, Box(*(4 * edge for edge in box[:4]), 1.0))
    assert measure_sharpness(small, box) == pytest.approx(found, rel=0.2)
    assert found < 0.5 * measure_sharpness(astronaut, FACE)


def test_only_the_box_is_measured(astronaut):
    alone = np.full_like(astronaut, 90)
    inside = np.s_[FACE.top : FACE.bottom, FACE.left : FACE.right]
    alone[inside] = astronaut[inside]
    assert measure_sharpness(alone, FACE) == measure_sharpness(astronaut, FACE)


def test_the_part_outside_the_frame_is_ignored(large_image):
    image = shrink(large_image, 4)  # 200 x 200, in a box of 400 x 400
    found = measure_sharpness(image, Box(-100, -100, 300, 300, 1.0))
    half = cv2.resize(image, (50, 50), interpolation=cv2.INTER_AREA)
    padded = np.zeros((100, 100, 3), np.uint8)
    padded[:50, :50] = half
    # The same scale as in a larger frame: a quarter of an image of 100 x 100.
    smooth = cv2.GaussianBlur(half[..., 0].astype(np.float32), (0, 0), 1.0)
    assert found == pytest.approx(cv2.Laplacian(smooth, cv2.CV_32F).var(), rel=0.05)


@pytest.mark.parametrize(
    "box",
    [
        Box(-50, 10, 0, 60, 1.0),
        Box(512, 10, 560, 60, 1.0),
        Box(10, -90, 60, -20, 1.0),
        Box(10, 600, 60, 650, 1.0),
        Box(20, 20, 20, 20, 1.0),
    ],
)
def test_the_sharpness_of_a_box_outside_the_frame_is_0(astronaut, box):
    assert measure_sharpness(astronaut, box) == 0.0


def test_one_column_of_a_face_has_a_sharpness(astronaut):
    assert measure_sharpness(astronaut, Box(511, 0, 1511, 900, 1.0)) >= 0


@settings(deadline=None, max_examples=50)
@given(yaw_deg=strategies.floats(-40, 40), pitch_deg=strategies.floats(-15, 15))
def test_the_yaw_of_a_known_rotation_is_estimated(yaw_deg, pitch_deg):
    assert estimate_yaw(photograph_head(yaw_deg, pitch_deg)) == pytest.approx(yaw_deg, abs=5)


def test_the_estimate_increases_with_the_yaw():
    found = [estimate_yaw(photograph_head(yaw_deg)) for yaw_deg in range(-85, 86, 5)]
    assert np.all(np.diff(found) > 0)
    assert found[0] < -70
    assert found[-1] > 70


@settings(deadline=None, max_examples=50)
@given(roll_deg=strategies.floats(-180, 180))
def test_the_yaw_does_not_depend_on_roll_size_and_position(roll_deg):
    upright = estimate_yaw(photograph_head(25, 10))
    turned = 3.7 * photograph_head(25, 10, roll_deg) + (700, -80)
    assert estimate_yaw(turned.astype(np.float32)) == pytest.approx(upright, abs=1e-3)


def test_mirrored_landmarks_have_the_opposite_yaw(astronaut_landmarks):
    for landmarks in (photograph_head(33, -12, 20), astronaut_landmarks):
        mirrored = mirror(landmarks, 512)
        assert estimate_yaw(mirrored) == pytest.approx(-estimate_yaw(landmarks), abs=1e-6)


def test_the_yaw_of_a_photograph_is_estimated(astronaut, astronaut_landmarks):
    found = estimate_yaw(astronaut_landmarks)
    assert 0 < abs(found) < 25
    box = Box(512 - FACE.right, FACE.top, 512 - FACE.left, FACE.bottom, 1.0)
    other = find_landmarks(np.ascontiguousarray(astronaut[:, ::-1]), box)
    assert estimate_yaw(other) == pytest.approx(-found, abs=3)


def test_the_yaw_of_landmarks_on_one_line_is_0():
    assert estimate_yaw(np.full((68, 2), 7.3)) == 0
    assert estimate_yaw(np.outer(np.arange(68.0), (1, 2))) == 0


def test_every_face_passes_the_default_filters():
    worst = Quality(detector_score=-0.4, sharpness=0.0, size_px=1, outside=1.0, yaw_deg=-90.0)
    assert filter_reason(worst, FilterOptions()) == ""
    assert filter_reason(GOOD, FilterOptions()) == ""


@pytest.mark.parametrize(
    ("limit", "measure", "at_limit", "beyond", "reason"),
    [
        ({"min_score": 0.5}, "detector_score", 0.5, 0.49, "detector score below 0.5"),
        ({"min_sharpness": 40.0}, "sharpness", 40.0, 39.9, "sharpness below 40"),
        ({"min_size": 60}, "size_px", 60, 59, "smaller than 60 px"),
        ({"max_outside": 0.2}, "outside", 0.2, 0.21, "outside the frame by more than 0.2"),
        ({"max_yaw": 45.0}, "yaw_deg", 45.0, 45.1, "turned by more than 45 degrees"),
        ({"max_yaw": 45.0}, "yaw_deg", -45.0, -45.1, "turned by more than 45 degrees"),
    ],
)
def test_a_face_beyond_a_limit_is_filtered_with_its_reason(
    limit, measure, at_limit, beyond, reason
):
    filters = FilterOptions(**limit)
    assert filter_reason(dataclasses.replace(GOOD, **{measure: at_limit}), filters) == ""
    assert filter_reason(dataclasses.replace(GOOD, **{measure: beyond}), filters) == reason


def test_limits_within_their_ranges_are_accepted():
    check_filters(FilterOptions())
    check_filters(FilterOptions(3.0, 500.0, 400, 0.0, 0.0))


@pytest.mark.parametrize(
    "limit",
    [
        {"min_score": -0.1},
        {"min_sharpness": -1.0},
        {"min_size": -1},
        {"max_outside": 1.1},
        {"max_outside": -0.1},
        {"max_yaw": 91.0},
        {"max_yaw": -1.0},
        {"max_yaw": float("nan")},
    ],
)
def test_limits_out_of_range_are_refused_and_named(limit):
    ((name, value),) = limit.items()
    with pytest.raises(ValueError, match=f"{name} from .*got {value}"):
        check_filters(FilterOptions(**limit))


@pytest.mark.parametrize("name", ["min_score", "max_outside", "max_yaw"])
def test_without_a_detector_a_filter_by_what_it_measures_is_an_error(name):
    filters = FilterOptions(**{name: 0.5})
    check_filters(filters)
    with pytest.raises(ValueError, match=f"no {name} with the detector 'none'.*got 0.5"):
        check_filters(filters, has_detector=False)
    check_filters(FilterOptions(min_sharpness=5, min_size=40), has_detector=False)


LEFT, RIGHT = Box(10, 20, 50, 60, 1.0), Box(90, 20, 130, 60, 1.0)  # in frames of 160 x 90


def write_mask(path, regions, size=(160, 90), colour=(255, 255, 255)):
    """Write a mask of which each frame marks a region (left, top, right, bottom) or None."""
    frames = np.zeros((len(regions), size[1], size[0], 3), np.uint8)
    for frame, region in zip(frames, regions, strict=True):
        if region:
            left, top, right, bottom = region
            frame[top:bottom, left:right] = colour
    if path.suffix == ".png":
        cv2.imwrite(str(path), frames[0][..., ::-1])
        return path
    return make_clip(path, "-c:v", "libx264", "-crf", "23", source=frames)


def both(num_frames):
    return [
        (index, track, box)
        for index in range(num_frames)
        for track, box in enumerate((LEFT, RIGHT))
    ]


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 255, 0), (90, 90, 90)])
@pytest.mark.parametrize(("region", "track"), [((12, 10, 48, 64), 0), ((92, 10, 128, 64), 1)])
def test_a_mask_marks_the_track_whose_boxes_contain_it(tmp_path, region, track, colour):
    mask = write_mask(tmp_path / "mask.mp4", [region] * 8, colour=colour)
    assert find_marked_track(mask, both(8), 8, (160, 90)) == (track, [])


def test_a_mask_of_another_size_and_an_image_mark_the_same(tmp_path):
    small = write_mask(tmp_path / "small.mp4", [(46, 5, 64, 32)] * 8, size=(80, 46))
    assert find_marked_track(small, both(8), 8, (160, 90)) == (1, [])
    image = write_mask(tmp_path / "mask.png", [(12, 10, 48, 64)])
    assert find_marked_track(image, both(8), 8, (160, 90)) == (0, [])


def test_a_mask_with_fewer_frames_says_nothing_of_those_after_its_end(tmp_path):
    # The mask marks the right face in frame 0, and the left one in frames 1 to 3, of 8.
    mask = write_mask(tmp_path / "mask.mp4", [(92, 10, 128, 64)] + [(12, 10, 48, 64)] * 3)
    for indices, track in (((0,), 1), ((0, 1, 2), 0), ((3, 4, 5), 0), ((4, 5), None)):
        boxes = [(index, track, box) for index, track, box in both(8) if index in indices]
        found, [warning] = find_marked_track(mask, boxes, 8, (160, 90))
        assert found == track
        assert "mask.mp4 has 4 frames and the video 8" in warning


def test_a_mask_that_marks_no_face_marks_none(tmp_path):
    elsewhere = write_mask(tmp_path / "elsewhere.mp4", [(60, 70, 80, 88)] * 4)
    empty = write_mask(tmp_path / "empty.mp4", [None] * 4)
    for mask in (elsewhere, empty):
        assert find_marked_track(mask, both(4), 4, (160, 90)) == (None, [])
    # Of a mask over the whole scene, a box of a seventh of it contains a seventh.
    whole = write_mask(tmp_path / "whole.mp4", [(0, 0, 160, 90)] * 4)
    assert find_marked_track(whole, both(4), 4, (160, 90)) == (None, [])


def test_a_track_that_is_seldom_there_is_not_the_marked_one(tmp_path):
    # Track 2 is a double detection of the left face in one frame of eight.
    mask = write_mask(tmp_path / "mask.mp4", [(20, 30, 40, 50)] * 8)
    boxes = [*both(8), (3, 2, LEFT)]
    assert find_marked_track(mask, boxes, 8, (160, 90)) == (0, [])
    assert find_marked_track(mask, [*boxes[1::2], (3, 2, LEFT)], 8, (160, 90)) == (None, [])
