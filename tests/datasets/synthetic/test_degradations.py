import io

import numpy as np
import pytest
from PIL import Image

from jdfd_keras.datasets.synthetic.degradations import (
    DEGRADATIONS,
    SCREENSHOT_QUALITY,
    check_encoder,
    choose_kept_frames,
    degrade_crops,
    parse_degradations,
)
from jdfd_keras.datasets.synthetic.recompression import compress_h265, encode_jpeg
from tests.faces.media_files import decode_with_ffmpeg, make_clip

OF_CROPS = [name for name, one in DEGRADATIONS.items() if not one.is_of_videos]


@pytest.fixture(scope="module")
def photograph(astronaut):
    """Return a function that crops a face of any size."""
    image = Image.fromarray(astronaut[30:230, 120:320])
    return lambda size: np.array(image.resize((size, size), Image.Resampling.BICUBIC))


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def degrade(image, name, strength):
    return degrade_crops(image[np.newaxis], name, strength, seed=0)[0]


def save_and_read(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as saved:
        return np.array(saved), saved.quantization


def interpolate(image, height, width, kernel, support):
    """Resize by the weights of a kernel, computed row by row; pixels are centred at halves."""
    for axis, size in ((0, height), (1, width)):
        own = image.shape[axis]
        weights = np.zeros((size, own))
        for row in range(size):
            centre = (row + 0.5) * own / size - 0.5
            for column in range(
                int(np.floor(centre)) - support + 1, int(centre // 1) + support + 1
            ):
                weights[row, np.clip(column, 0, own - 1)] += kernel(abs(centre - column))
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return np.clip(np.rint(image), 0, 255)


def cubic(x, a=-0.75):
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def linear(x):
    return max(1.0 - x, 0.0)


@pytest.mark.parametrize("size", [71, 160])
@pytest.mark.parametrize("quality", [90, 50, 10])
def test_jpeg_is_what_pillow_saves_and_reads_at_that_quality(photograph, size, quality):
    face = photograph(size)
    expected, tables = save_and_read(face, quality)
    np.testing.assert_array_equal(degrade(face, "jpeg", quality), expected)
    with Image.open(io.BytesIO(encode_jpeg(face, quality))) as saved:
        assert saved.quantization == tables
        assert saved.layer[0][1:3] == (2, 2) and saved.layer[1][1:3] == (1, 1)  # 4:2:0


@pytest.mark.parametrize("sigma", [1.17, 2.17, 3.5])
def test_blur_weakens_a_wave_as_a_gaussian_does(sigma):
    frequency = 2 * np.pi / 16
    wave = 100 * np.cos(frequency * np.arange(160))
    image = np.rint(128 + np.repeat(wave[None, :, None], 160, 0)).repeat(3, 2).astype(np.uint8)
    inner = np.s_[:, 16:-16]
    kept = np.exp(-((sigma * frequency) ** 2) / 2)
    found = degrade(image, "blur", sigma)[inner].astype(float)
    assert np.abs(found - (128 + kept * wave[None, 16:-16, None])).max() < 2
    expected = 20 * np.log10(255 / ((1 - kept) * 100 / np.sqrt(2)))
    assert psnr(found, image[inner]) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("size", [71, 160])
def test_blur_is_that_of_scipy_with_mirrored_edges(photograph, size):
    from scipy.ndimage import gaussian_filter

    face = photograph(size)
    for sigma in (0.5, 2.0, 30.0):
        expected = gaussian_filter(
            face.astype(float), sigma, mode="mirror", radius=int(np.ceil(3 * sigma)), axes=(0, 1)
        )
        assert np.abs(degrade(face, "blur", sigma) - expected).max() <= 1.5


@pytest.mark.parametrize("sigma", DEGRADATIONS["noise"].strengths[:4])
def test_noise_has_the_psnr_of_its_deviation_and_no_pattern(sigma):
    grey = np.full((2, 120, 120, 3), 128, np.uint8)
    noisy = degrade_crops(grey, "noise", sigma, seed=0)
    assert psnr(noisy, grey) == pytest.approx(20 * np.log10(255 / sigma), abs=0.1)
    noise = noisy.astype(float) - 128
    assert abs(noise.mean()) < 0.02 * sigma
    others = (noise[1], np.roll(noise[0], 1, 1), np.roll(noise[0], 1, 2))
    for other in others:  # another crop, the next pixel, the next channel
        assert abs(np.corrcoef(noise[0].ravel(), other.ravel())[0, 1]) < 0.03


def test_brightness_and_gamma_are_those_of_their_formulas():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for strength in (51, -51, 25.6):
        expected = [min(max(round(level + strength), 0), 255) for level in range(256)]
        assert degrade(levels, "brightness", strength)[..., 1].ravel().tolist() == expected
    # By hand: 255 (64 / 255)^2 = 16.06, 255 (128 / 255)^3 = 32.25, 255 (64 / 255)^0.5 = 127.7.
    for exponent, level, expected in ((2, 64, 16), (3, 128, 32), (0.5, 64, 128), (2, 255, 255)):
        assert degrade(levels, "gamma", exponent).reshape(-1, 3)[level].tolist() == [expected] * 3


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_downscaling_averages_areas_and_interpolates_them(photograph, factor):
    face = photograph(72)
    side = 72 // factor
    means = face.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
    expected = interpolate(np.rint(means), 72, 72, cubic, 2)
    assert np.abs(degrade(face, "downscaling", factor) - expected).max() <= 2


@pytest.mark.parametrize("factor, side", [(1.25, 57), (2, 36), (4, 18)])
def test_a_screenshot_is_resized_saved_as_jpeg_and_resized_back(photograph, factor, side):
    face = photograph(71)
    shown = interpolate(face, side, side, linear, 1).astype(np.uint8)
    saved = save_and_read(shown, SCREENSHOT_QUALITY)[0]
    expected = interpolate(saved, 71, 71, linear, 1)
    found = degrade(face, "screenshot", factor)
    assert psnr(found, expected) > 40  # JPEG enlarges roundings of a level
    assert psnr(found, face) == pytest.approx(psnr(expected, face), abs=0.1)


@pytest.mark.parametrize("size, crf", [(96, 28), (161, 36), (161, 45)])
def test_h265_is_what_ffmpeg_saves_and_reads(photograph, tmp_path, size, crf):
    face = photograph(size)
    even = np.pad(face, ((0, size % 2), (0, size % 2), (0, 0)), "edge")
    path = make_clip(
        tmp_path / "still.mkv",
        *("-c:v", "libx265", "-crf", crf, "-pix_fmt", "yuv420p"),
        *("-x265-params", "log-level=none:cutree=0:no-wpp=1"),
        source=even[np.newaxis],
    )
    assert f"crf={crf}.0".encode() in path.read_bytes()
    (expected,) = decode_with_ffmpeg(path, scaler="bicubic")[:, :size, :size]
    found = compress_h265(face, crf)
    assert np.abs(found.astype(int) - expected).mean() < 0.5
    assert abs(psnr(found, face) - psnr(expected, face)) < 0.2


@pytest.mark.parametrize("name", OF_CROPS)
def test_a_higher_strength_loses_more_whatever_the_size(photograph, name):
    for size in (71, 128):
        face = photograph(size)
        strengths = DEGRADATIONS[name].strengths
        degraded = [degrade(face, name, strength) for strength in strengths]
        losses = [psnr(image, face) for image in degraded]
        assert {(image.shape, image.dtype) for image in degraded} == {(face.shape, face.dtype)}
        assert losses == sorted(losses, reverse=True)
        assert losses[0] > losses[-1] + 5
    assert degrade(face[:, :-5], name, strengths[0]).shape == (128, 123, 3)


@pytest.mark.parametrize("name", OF_CROPS)
def test_a_crop_is_degraded_alike_in_any_batch(photograph, name):
    face = photograph(71)
    crops = np.stack([face, face[::-1], face, face[:, ::-1]])
    strength = DEGRADATIONS[name].strengths[2]
    whole = degrade_crops(crops, name, strength, seed=3, first=10)
    parts = [degrade_crops(crops[:1], name, strength, seed=3, first=10)]
    parts += [degrade_crops(crops[1:], name, strength, seed=3, first=11)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    other = degrade_crops(crops, name, strength, seed=4, first=10)
    assert (other != whole).any() == (name == "noise")


def test_zero_and_one_leave_an_image_as_it_is(photograph):
    face = photograph(71)
    for name, strength in (("noise", 0), ("brightness", 0), ("gamma", 1), ("downscaling", 1)):
        np.testing.assert_array_equal(degrade(face, name, strength), face)
    assert degrade_crops(np.empty((0, 71, 71, 3), np.uint8), "jpeg", 90, seed=0).shape[0] == 0


def test_a_list_of_degradations_is_parsed_in_its_order_and_each_is_taken_once():
    assert parse_degradations(" h264 = 40, jpeg,jpeg=90 ,h264=23") == (
        ("h264", 40.0),
        *(("jpeg", quality) for quality in (90.0, 70.0, 50.0, 30.0, 10.0)),
        ("h264", 23.0),
    )
    every = parse_degradations("all")
    assert len(set(every)) == 5 * len(DEGRADATIONS) == 50


@pytest.mark.parametrize(
    "text, named",
    [
        ("jpg", "of jpeg, h264, .*; got 'jpg'"),
        ("", "got ''"),
        ("jpeg,,blur", "got ''"),
        ("all=3", "got 'all'"),
        ("jpeg=0", "a quality from 1 to 100 for jpeg, a whole number; got 0"),
        ("jpeg=50.5", "got 50.5"),
        ("h265=52", "a CRF from 0 to 51 for h265.*got 52"),
        ("blur=strong", "a sigma in pixels from 0.1 to 50 for blur; got 'strong'"),
        ("blur=nan", "got nan"),
        ("gamma=", "got ''"),
        ("frame-drop=90", "a share of frames from 0 to 1 for frame-drop; got 90"),
    ],
)
def test_unknown_names_and_strengths_are_errors(text, named):
    with pytest.raises(ValueError, match=rf"Expected .*{named}.* Try "):
        parse_degradations(text)


def test_a_missing_encoder_is_named(monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"h264", "libx264"})
    check_encoder("h264")
    check_encoder("blur")
    with pytest.raises(ValueError, match="encoder libx265 for h265; got PyAV .* omit h265"):
        degrade_crops(np.zeros((1, 71, 71, 3), np.uint8), "h265", 28, seed=0)


def test_what_is_not_a_batch_of_crops_is_refused():
    crops = np.zeros((1, 71, 71, 3), np.uint8)
    with pytest.raises(ValueError, match="got frame-drop, which is of videos"):
        degrade_crops(crops, "frame-drop", 0.5, seed=0)
    with pytest.raises(ValueError, match=r"got uint8\[71, 71, 3\]"):
        degrade_crops(crops[0], "jpeg", 90, seed=0)
    with pytest.raises(ValueError, match=r"got float32\[1, 71, 71, 3\]"):
        degrade_crops(crops.astype(np.float32), "jpeg", 90, seed=0)


def test_dropped_frames_are_a_random_share_of_all():
    kept = choose_kept_frames(200, 0.75, seed=1)
    assert len(kept) == 50 and (np.diff(kept) > 0).all()
    assert len(set(np.diff(kept))) > 5, "not evenly spread"
    assert kept.tolist() == choose_kept_frames(200, 0.75, seed=1).tolist()
    assert kept.tolist() != choose_kept_frames(200, 0.75, seed=2).tolist()
    assert choose_kept_frames(5, 0.0, seed=0).tolist() == [0, 1, 2, 3, 4]
