"""Scores of degraded crops: parsing, the order of rows, and independence of batches."""

import numpy as np
import pytest

from jdfd_keras.evaluation.crop_scores import parse_degradation, read_crop_batch, score_crops
from jdfd_keras.evaluation.eval_data import load_eval_sets


def spread_of(crops):
    return crops.std(axis=(1, 2, 3)) / 255


@pytest.fixture
def sets(prepared_set):
    return load_eval_sets([prepared_set], "train")


@pytest.mark.parametrize("degradation", [None, ("noise", 25.0), ("h264", 40.0)])
def test_scores_do_not_depend_on_the_batch_size(sets, degradation):
    by_size = [
        score_crops(spread_of, sets, 71, degradation=degradation, batch_size=size, seed=3)
        for size in (3, 64)
    ]
    np.testing.assert_array_equal(*by_size)
    assert len(by_size[0]) == len(sets[0].rows) > 3


def test_rows_in_any_order_have_the_pixels_of_the_whole(sets):
    rows = list(range(6))
    whole = read_crop_batch(sets[0], rows, ("noise", 25.0), seed=3)
    some = read_crop_batch(sets[0], [5, 0, 2], ("noise", 25.0), seed=3)
    np.testing.assert_array_equal(some, whole[[5, 0, 2]])
    assert not np.array_equal(whole, read_crop_batch(sets[0], rows, ("noise", 25.0), seed=4))


def test_an_error_of_a_batch_is_raised_and_ends_the_threads(sets):
    with pytest.raises(ValueError, match=r"faces of 72 px, the size of the model; got \(71, 71"):
        score_crops(spread_of, sets, 72)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpeg", "one degradation with its strength; got 'jpeg'"),
        ("jpeg=30,blur=2", "one degradation with its strength"),
        ("frame-drop=0.5", "a degradation of face crops; got 'frame-drop=0.5'"),
        ("jpeg=101", "from 1 to 100"),
    ],
)
def test_what_is_not_one_degradation_of_crops_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_degradation(text)


def test_no_text_is_no_degradation():
    assert parse_degradation("") is None
