"""Each augmentation has its documented effect, in a graph, and depends on the seed alone."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from jdfd_keras.datasets.transforms import augment_face, compress_h264
from jdfd_keras.options import AugmentOptions
from tests.faces.media_files import decode_with_ffmpeg, make_clip

SIZE = 64
NAMES = [field.name for field in dataclasses.fields(AugmentOptions)]


@pytest.fixture(scope="module")
def crop(astronaut):
    import cv2

    return cv2.resize(astronaut[60:260, 120:320], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def augment():
    """Function that applies one augmentation with a seed; compiled once per augmentation."""
    functions = {
        name: tf.function(
            lambda crop, seed, name=name: augment_face(crop, seed, AugmentOptions(**{name: True})),
            input_signature=[
                tf.TensorSpec((SIZE, SIZE, 3), tf.uint8),
                tf.TensorSpec((2,), tf.int64),
            ],
        )
        for name in NAMES
    }
    return lambda name, crop, seed: functions[name](crop, tf.constant([seed, 0], tf.int64)).numpy()


def changed(augment, name, crop, count=60):
    """Return the crop as augmented with `count` seeds, without the unchanged results."""
    return [
        result
        for result in (augment(name, crop, seed) for seed in range(count))
        if not np.array_equal(result, crop)
    ]


def detail(image):
    """Compute the mean difference between neighbouring pixels, in grey levels."""
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


@pytest.mark.parametrize("name", NAMES)
def test_about_half_of_the_faces_are_augmented_and_keep_shape_and_dtype(augment, crop, name):
    results = changed(augment, name, crop)
    # 60 draws with probability one half: 30 +- 4 standard deviations of 3.9.
    assert 14 <= len(results) <= 46
    assert all(r.shape == (SIZE, SIZE, 3) and r.dtype == np.uint8 for r in results)


@pytest.mark.parametrize("name", NAMES)
def test_the_result_depends_on_the_seed_alone(augment, crop, name):
    for seed in range(4):
        np.testing.assert_array_equal(augment(name, crop, seed), augment(name, crop, seed))
    if name != "flip":
        results = changed(augment, name, crop, 30)
        assert len({result.tobytes() for result in results}) > len(results) // 2


def test_without_augmentation_a_face_is_unchanged(crop):
    for seed in range(8):
        result = augment_face(tf.constant(crop), tf.constant([seed, 1], tf.int64), AugmentOptions())
        np.testing.assert_array_equal(result.numpy(), crop)


def test_flip_mirrors(augment, crop):
    for result in changed(augment, "flip", crop):
        np.testing.assert_array_equal(result, crop[:, ::-1])


def test_affine_rotates_scales_and_shifts_as_opencv_does(augment):
    """From where three points go follow the numbers; OpenCV then makes the same image of them."""
    import cv2

    y, x = np.mgrid[:SIZE, :SIZE]
    # Three channels that hold the coordinates, as far as they go into a byte, and their mean.
    crop = np.stack([2 * x + 60, 2 * y + 60, x + y + 60], axis=-1).astype(np.uint8)
    middle = (SIZE - 1) / 2
    inner = (slice(SIZE // 4, -SIZE // 4),) * 2
    angles, scales, shifts = [], [], []
    for result in changed(augment, "affine", crop, 120):
        source = (result[inner].reshape(-1, 3)[:, :2].astype(float) - 60) / 2
        target = np.stack([x[inner].ravel(), y[inner].ravel(), np.ones(x[inner].size)], axis=1)
        matrix = np.linalg.lstsq(target, source, rcond=None)[0].T
        expected = cv2.warpAffine(
            crop, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        assert np.abs(result[inner].astype(int) - expected[inner]).max() <= 2
        assert matrix[0, 0] == pytest.approx(matrix[1, 1], abs=0.01)
        assert matrix[0, 1] == pytest.approx(-matrix[1, 0], abs=0.01)
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        scales.append(np.hypot(matrix[0, 0], matrix[1, 0]))
        shifts.append((matrix @ (middle, middle, 1) - middle) / SIZE)
    for values, limit in ((angles, 10), (np.log(scales), np.log(1.15)), (shifts, 0.05)):
        values = np.asarray(values)
        assert 0.8 * limit < values.max() < 1.05 * limit
        assert -0.8 * limit > values.min() > -1.05 * limit


def test_jpeg_is_what_pillow_saves_and_reads_with_some_quality_from_40_to_100(augment, crop):
    possible = {}
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.fromarray(crop).save(file, "JPEG", quality=quality)
        possible[np.asarray(Image.open(file)).tobytes()] = quality
    found = [possible.get(result.tobytes()) for result in changed(augment, "jpeg", crop)]
    assert None not in found
    assert 40 <= min(found) < 55
    assert 85 < max(found) <= 100


def test_blur_is_gaussian_and_keeps_the_mean(augment, crop):
    import cv2

    for result in changed(augment, "blur", crop):
        errors = []
        for sigma in np.arange(0.1, 2.01, 0.01):
            expected = cv2.GaussianBlur(
                crop.astype(np.float32), (11, 11), sigma, borderType=cv2.BORDER_REFLECT_101
            )
            errors.append(np.abs(expected - result).max())
        assert min(errors) < 2  # the nearest of these sigmas differs by 0.005 at most
        assert abs(result.mean() - crop.mean()) < 1


def test_scaling_loses_detail_and_keeps_the_mean(augment, crop):
    results = changed(augment, "scaling", crop)
    assert all(detail(result) < detail(crop) for result in results)
    assert min(map(detail, results)) < 0.6 * detail(crop)
    assert all(abs(result.mean() - crop.mean()) < 2 for result in results)


def test_noise_is_normal_with_a_deviation_of_ten_levels_at_most(augment):
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    deviations = [result.astype(float).std() for result in changed(augment, "noise", grey)]
    assert max(deviations) < 10.5
    assert max(deviations) > 7 and min(deviations) < 3
    noisiest = max(changed(augment, "noise", grey), key=lambda r: r.astype(float).std())
    z = (noisiest.astype(float) - 128) / noisiest.astype(float).std()
    assert abs(np.mean(z)) < 0.05
    assert abs(np.mean(np.abs(z) < 1) - 0.683) < 0.02


def test_colour_changes_the_levels_and_not_the_structure(augment, crop):
    for result in changed(augment, "colour", crop):
        before, after = crop.astype(float).mean(-1), result.astype(float).mean(-1)
        inside = (after > 2) & (after < 253)
        if inside.sum() > 500:
            assert np.corrcoef(before[inside], after[inside])[0, 1] > 0.97
        assert abs(result.mean() - crop.mean()) < 55


@pytest.fixture(scope="module")
def photograph(astronaut):
    """Return a function that crops a face of any size."""
    import cv2

    return lambda size: cv2.resize(
        astronaut[30:230, 120:320], (size, size), interpolation=cv2.INTER_CUBIC
    )


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize(("size", "crf"), [(96, 23), (160, 23), (160, 31), (160, 40), (298, 40)])
def test_h264_is_what_ffmpeg_saves_and_reads(photograph, tmp_path, size, crf):
    face = photograph(size)
    path = make_clip(
        tmp_path / "still.mkv",
        *("-c:v", "libx264", "-crf", crf, "-pix_fmt", "yuv420p", "-x264-params", "mbtree=0"),
        source=face[np.newaxis],
    )
    (expected,) = decode_with_ffmpeg(path, scaler="bicubic")
    found = compress_h264(face, crf)
    assert np.abs(found.astype(int) - expected).mean() < 0.5
    assert abs(psnr(found, face) - psnr(expected, face)) < 0.2


@pytest.mark.parametrize("crf", [23, 40])
def test_h264_of_one_frame_is_as_good_as_ffmpeg_s_video_of_many(astronaut, tmp_path, crf):
    import cv2

    rng, frames = np.random.default_rng(0), []
    for number in range(30):  # a moving camera with noise
        x, y = 120 + 6 * np.sin(number / 9), 30 + 4 * np.cos(number / 7)
        matrix = np.float64([[0.8, 0, -0.8 * x], [0, 0.8, -0.8 * y]])
        frame = cv2.warpAffine(astronaut, matrix, (160, 160)) + rng.normal(0, 2, (160, 160, 3))
        frames.append(np.clip(np.round(frame), 0, 255).astype(np.uint8))
    options = ("-c:v", "libx264", "-crf", crf, "-pix_fmt", "yuv420p")
    path = make_clip(tmp_path / "clip.mkv", *options, source=np.stack(frames))
    shown = decode_with_ffmpeg(path, scaler="bicubic")
    video = np.mean([psnr(one, frame) for one, frame in zip(shown, frames, strict=True)])
    still = np.mean([psnr(compress_h264(frame, crf), frame) for frame in frames[::10]])
    assert video - 0.5 < still < video + 2


@pytest.mark.parametrize("size", [71, 160, 299])
def test_h264_loses_more_with_a_higher_rate_factor_and_takes_any_size(photograph, size):
    face = photograph(size)
    losses = [psnr(compress_h264(face, crf), face) for crf in (23, 28, 34, 40)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] + 6
    assert compress_h264(face[:, :-4], 23).shape == (size, size - 4, 3)


@pytest.mark.parametrize("crf", [23, 40])
def test_h264_brings_nothing_from_beyond_the_edges_of_an_odd_size(crf):
    plain = np.full((71, 71, 3), (250, 200, 120), np.uint8)
    saved = compress_h264(plain, crf).astype(int)
    assert np.abs(saved - plain).max() < 4
    assert np.ptp(saved, axis=(0, 1)).max() <= 2


def test_h264_keeps_colours():
    colours = np.repeat(np.repeat([[[200, 40, 40], [40, 180, 60], [60, 60, 190]]], 32, 0), 32, 1)
    saved = compress_h264(colours.astype(np.uint8), 23)
    for start in (0, 32, 64):
        middle = np.s_[8:24, start + 8 : start + 24]
        assert np.abs(saved[middle].astype(int) - colours[middle]).max() < 8


def test_h264_has_rate_factors_from_23_to_40(augment, crop):
    possible = {compress_h264(crop, crf).tobytes(): crf for crf in range(10, 52)}
    found = [possible.get(result.tobytes()) for result in changed(augment, "h264", crop, 120)]
    assert None not in found
    assert min(found) in (23, 24) and max(found) in (39, 40)


def test_h264_without_an_encoder_is_an_error(crop, monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"h264"})
    seed = tf.constant([0, 0], tf.int64)
    with pytest.raises(ValueError, match="encoder libx264 .*; got PyAV .* omit h264"):
        augment_face(tf.constant(crop), seed, AugmentOptions(h264=True))
    augment_face(tf.constant(crop), seed, AugmentOptions(flip=True))
