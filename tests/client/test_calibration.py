"""A calibration: verdicts, likelihood ratios and error rates of files, and its file."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit

from jdfd_keras.client.calibration import (
    CALIBRATION,
    UNATTAINABLE,
    VERDICTS,
    Calibration,
    read_calibration,
    save_calibration,
)
from jdfd_keras.client.domain import Domain, Spread
from jdfd_keras.client.likelihood import clopper_pearson
from jdfd_keras.client.thresholds import choose_thresholds

REAL = tuple(np.linspace(0.01, 0.6, 100).tolist())
FAKE = tuple(np.linspace(0.4, 0.99, 40).tolist())
LOW, HIGH = choose_thresholds(REAL, FAKE, 0.05)
FITTED = Calibration(
    temperature=1.5,
    bias=-0.25,
    threshold=HIGH,
    uncertain_from=LOW,
    uncertain_to=HIGH,
    target_error_rate=0.05,
    data="clips é",
    num_real=100,
    num_fake=40,
    lr_offset=0.1,
    lr_slope=0.9,
    real_scores=REAL,
    fake_scores=FAKE,
    domain=Domain((Spread("sharpness", 3.0, 0.5, 0.75),), 4.0, ("yuv420p",), 140),
    model="ab" * 32,
)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("bias", [-2.0, 0.0, 0.5])
def test_calibrated_scores_have_the_odds_of_the_closed_form(temperature, bias):
    score = np.linspace(0.01, 0.99, 99)
    corrected = Calibration(temperature=temperature, bias=bias).apply(score)
    assert corrected == pytest.approx(expit(logit(score) / temperature + bias), abs=1e-12)
    ends = Calibration(temperature=temperature, bias=bias).apply(np.array([0, 1e-9, 1 - 1e-9, 1]))
    assert np.all((ends >= 0) & (ends <= 1)) and np.all(np.diff(ends) >= 0)


def test_no_temperature_and_no_bias_change_nothing():
    score = np.random.default_rng(0).random(50)
    score[:2] = [0, 1]
    assert np.array_equal(Calibration().apply(score), score)


def test_bounds_belong_to_the_verdict_above():
    found = Calibration(threshold=0.5, uncertain_from=0.25, uncertain_to=0.75)
    verdicts = {
        0.0: "no_evidence",
        np.nextafter(0.25, 0): "no_evidence",
        0.25: "uncertain",
        0.5: "uncertain",
        np.nextafter(0.75, 0): "uncertain",
        0.75: "fake",
        1.0: "fake",
    }
    assert {score: found.judge(score) for score in verdicts} == verdicts
    assert set(verdicts.values()) == set(VERDICTS)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_with_another_threshold_nothing_is_uncertain(threshold):
    found = FITTED.with_threshold(threshold)
    assert (found.temperature, found.data, found.real_scores) == (1.5, "clips é", REAL)
    for num_people in (1, 9):
        assert found.judge(threshold, num_people) == "fake"
        assert found.judge(np.nextafter(threshold, -1), num_people) == "no_evidence"


def test_thresholds_rise_with_the_number_of_people():
    assert FITTED.thresholds() == (LOW, HIGH)
    for num_people in (2, 3, 5):
        expected = choose_thresholds(REAL, FAKE, 0.05, num_people)
        assert FITTED.thresholds(num_people) == FITTED.thresholds(num_people) == expected
    assert FITTED.max_people == 5
    assert FITTED.thresholds(6)[1] == UNATTAINABLE
    assert FITTED.judge(1.0, 6) == "uncertain"


def test_target_rates_are_those_that_each_class_supports():
    few = dataclasses.replace(FITTED, real_scores=REAL[:4], num_real=4)
    assert few.target_rates == (0.2, 0.05)
    assert (few.max_people, FITTED.target_rates) == (1, (0.05, 0.05))


def test_a_likelihood_ratio_is_the_mean_over_people():
    scores = [0.3, 0.6]
    ratios = [math.exp(0.1 + 0.9 * math.log(score / (1 - score))) for score in scores]
    found = FITTED.likelihood(scores)
    assert found.log10 == pytest.approx(math.log10(np.mean(ratios)))
    assert not found.is_capped
    assert FITTED.likelihood([]) is None
    assert Calibration().likelihood([0.5]) is None


def test_ratios_beyond_what_validation_supports_are_capped():
    high, low = -math.log10(clopper_pearson(0, 100)[1]), math.log10(clopper_pearson(0, 40)[1])
    assert FITTED.log10_lr_limits == pytest.approx((low, high))
    strong, weak = FITTED.likelihood([0.9999]), FITTED.likelihood([0.0001])
    assert (strong.log10, strong.is_capped) == (pytest.approx(high), True)
    assert (weak.log10, weak.is_capped) == (pytest.approx(low), True)
    assert strong.support == "moderate support for manipulation"  # 27 for 100 real files
    # Of four people, one is at most as telling as validation supports.
    four = FITTED.likelihood([0.9999, 0.0001, 0.0001, 0.0001])
    assert 10**four.log10 == pytest.approx((10**high + 3 * 10**low) / 4)


def test_error_rates_count_validation_files_that_score_as_extreme():
    rates = FITTED.error_rates(REAL[95])
    assert (rates.real_as_high.count, rates.real_as_high.total) == (5, 100)
    assert rates.fake_as_low.count == sum(score <= REAL[95] for score in FAKE)
    # A served score of the same file differs by the rounding of float32.
    for score in (REAL[95] - 1e-7, REAL[95] + 1e-7):
        assert FITTED.error_rates(score).real_as_high.count == 5
    assert FITTED.error_rates(REAL[95], 4).real_as_high.rate == pytest.approx(1 - 0.95**4)
    assert FITTED.error_rates(REAL[95], 4).fake_as_low == rates.fake_as_low
    assert FITTED.error_rates(0.0).real_as_high.rate == 1
    assert FITTED.error_rates(0.0).fake_as_low.count == 0
    assert Calibration().error_rates(0.5) is None


def test_a_calibration_survives_a_round_trip_exactly(tmp_path):
    save_calibration(tmp_path / CALIBRATION, FITTED)
    assert read_calibration(tmp_path / CALIBRATION) == FITTED
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]
    read = json.loads((tmp_path / CALIBRATION).read_text())["calibration"]
    assert read["real_scores"] == list(REAL)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 2}', "[" * 100_000])
def test_another_file_raises_with_its_path(tmp_path, text):
    path = tmp_path / CALIBRATION
    path.write_text(text)
    with pytest.raises(ValueError, match="Expected") as error:
        read_calibration(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 10**400},
        {"temperature": "hot"},
        {"temperature": None},
        {"bias": math.nan},
        {"lr_slope": -0.5},
        {"lr_offset": [1]},
        {"uncertain_from": 0.99},
        {"uncertain_from": -0.1},
        {"uncertain_to": 1.5},
        {"uncertain_to": "high"},
        {"threshold": 1.5},
        {"threshold": math.nan},
        {"target_error_rate": 0.5},
        {"num_real": 99},
        {"num_fake": True},
        {"real_scores": []},
        {"real_scores": 3},
        {"real_scores": [*REAL[:-1], 1.5]},
        {"real_scores": [*REAL[:-1], 0.1]},
        {"fake_scores": [*FAKE[:-1], "0.99"]},
        {"fake_scores": [*FAKE[:-1], math.nan]},
        {"domain": {"limit": "far"}},
        {"domain": {"spreads": [{"measure": 3}]}},
        {"domain": 3},
        {"model": 3},
        {"colour": 1},
    ],
)
def test_damaged_content_raises_with_the_path(tmp_path, wrong):
    path = tmp_path / CALIBRATION
    save_calibration(path, FITTED)
    stored = json.loads(path.read_text())
    stored["calibration"] |= wrong
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"^Expected .*[Cc]alibrate again") as error:
        read_calibration(path)
    assert str(path) in str(error.value)


def test_an_unattainable_threshold_is_valid(tmp_path):
    save_calibration(tmp_path / "a.json", dataclasses.replace(FITTED, uncertain_to=UNATTAINABLE))
    assert read_calibration(tmp_path / "a.json").judge(1.0) == "uncertain"


def test_more_people_never_lower_the_evidence_that_one_of_them_gives():
    """The manipulated person scores at most as high as the file, whoever else is in it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        real, fake = np.sort(rng.beta(2, 6, 100)), np.sort(rng.beta(6, 2, 100))
        low, high = choose_thresholds(real, fake, 0.05)
        calibration = Calibration(
            uncertain_from=low,
            uncertain_to=high,
            target_error_rate=0.05,
            num_real=100,
            num_fake=100,
            real_scores=tuple(real.tolist()),
            fake_scores=tuple(fake.tolist()),
        )
        bands = [calibration.thresholds(num_people) for num_people in range(1, 9)]
        assert {band[0] for band in bands} == {low}
        assert all(np.diff([band[1] for band in bands]) >= 0)
