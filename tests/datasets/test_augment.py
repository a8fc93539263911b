"""Each change does what it says, in the graph, and the same for the same seed."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.datasets.transforms import augment_face
from jdfd_keras.options import AugmentOptions

SIZE = 64
NAMES = [field.name for field in dataclasses.fields(AugmentOptions)]


@pytest.fixture(scope="module")
def crop(astronaut):
    import cv2

    return cv2.resize(astronaut[60:260, 120:320], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def change():
    """A function that changes a crop in one way with one of many seeds, compiled once a way."""
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


def changed(change, name, crop, count=60):
    """What became of the crop under `count` seeds, those left alone not counted."""
    return [
        result
        for result in (change(name, crop, seed) for seed in range(count))
        if not np.array_equal(result, crop)
    ]


def detail(picture):
    """Mean difference between neighbours, in grey levels."""
    return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())


@pytest.mark.parametrize("name", NAMES)
def test_about_every_second_face_is_changed_and_the_form_is_kept(change, crop, name):
    results = changed(change, name, crop)
    # 60 draws with chance one half: 30 and 4 standard deviations of 3.9.
    assert 14 <= len(results) <= 46
    assert all(r.shape == (SIZE, SIZE, 3) and r.dtype == np.uint8 for r in results)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides(change, crop, name):
    for seed in range(4):
        np.testing.assert_array_equal(change(name, crop, seed), change(name, crop, seed))
    if name != "flip":
        results = changed(change, name, crop, 30)
        assert len({result.tobytes() for result in results}) > len(results) // 2


def test_without_a_switch_a_face_stays_as_it_is(crop):
    for seed in range(8):
        result = augment_face(tf.constant(crop), tf.constant([seed, 1], tf.int64), AugmentOptions())
        np.testing.assert_array_equal(result.numpy(), crop)


def test_a_flip_mirrors(change, crop):
    for result in changed(change, "flip", crop):
        np.testing.assert_array_equal(result, crop[:, ::-1])


def test_jpeg_leaves_what_a_jpeg_of_some_quality_leaves(change, crop):
    possible = {
        tf.io.decode_jpeg(tf.io.encode_jpeg(crop, quality=quality)).numpy().tobytes(): quality
        for quality in range(1, 101)
    }
    found = [possible.get(result.tobytes()) for result in changed(change, "jpeg", crop)]
    assert None not in found
    assert 40 <= min(found) < 55
    assert 85 < max(found) <= 100


def test_blur_is_a_gaussian_and_keeps_the_light(change, crop):
    import cv2

    for result in changed(change, "blur", crop):
        errors = []
        for sigma in np.arange(0.1, 2.01, 0.01):
            expected = cv2.GaussianBlur(
                crop.astype(np.float32), (11, 11), sigma, borderType=cv2.BORDER_REFLECT_101
            )
            errors.append(np.abs(expected - result).max())
        assert min(errors) < 2  # the nearest of those sigmas is 0.005 away at most
        assert abs(result.mean() - crop.mean()) < 1


def test_small_and_large_again_loses_detail(change, crop):
    results = changed(change, "scaling", crop)
    assert all(detail(result) < detail(crop) for result in results)
    assert min(map(detail, results)) < 0.6 * detail(crop)
    assert all(abs(result.mean() - crop.mean()) < 2 for result in results)


def test_noise_is_normal_and_of_ten_levels_at_most(change):
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    deviations = [result.astype(float).std() for result in changed(change, "noise", grey)]
    assert max(deviations) < 10.5
    assert max(deviations) > 7 and min(deviations) < 3
    loud = max(changed(change, "noise", grey), key=lambda r: r.astype(float).std())
    away = (loud.astype(float) - 128) / loud.astype(float).std()
    assert abs(np.mean(away)) < 0.05
    assert abs(np.mean(np.abs(away) < 1) - 0.683) < 0.02


def test_colour_changes_light_and_not_place(change, crop):
    for result in changed(change, "colour", crop):
        dark, light = crop.astype(float).mean(-1), result.astype(float).mean(-1)
        inside = (light > 2) & (light < 253)
        if inside.sum() > 500:
            assert np.corrcoef(dark[inside], light[inside])[0, 1] > 0.97
        assert abs(result.mean() - crop.mean()) < 55
