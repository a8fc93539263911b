"""Calibration: simulated temperatures are recovered, and error rates stay below the target."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from jdfd_keras.client.calibration import (
    CALIBRATION,
    VERDICTS,
    Calibration,
    read_calibration,
    save_calibration,
)
from jdfd_keras.evaluation.calibrate import (
    BINS,
    digest_model,
    fit_calibration,
    measure_reliability,
)
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.training.run_folder import BEST


def one_face_each(real, fake) -> Scores:
    """Return a table with one video of one face per score."""
    score = np.append(np.asarray(real, float), np.asarray(fake, float))
    return Scores.from_faces(
        video_id=[f"v{row}" for row in range(len(score))],
        label=np.arange(len(score)) >= len(real),
        score=score,
    )


def score_calibrated_videos(scores: Scores, calibration: Calibration) -> np.ndarray:
    """Score videos as `predict` does, from calibrated faces."""
    corrected = dataclasses.replace(scores, score=calibration.apply(scores.score))
    return score_videos(corrected, "track")


def draw_classes(seed: int, num_real: int, num_fake: int, separation: float) -> Scores:
    rng = np.random.default_rng(seed)
    real = expit(2 * rng.normal(size=num_real))
    return one_face_each(real, expit(2 * rng.normal(size=num_fake) + separation))


def count_errors(scores: Scores, calibration: Calibration) -> tuple[float, float, float]:
    """Return the error rates: FPR at the threshold, real called fake, and fake called real."""
    video, label = score_calibrated_videos(scores, calibration), scores.videos.label
    verdict = np.array([calibration.judge(score) for score in video])
    return (
        (video[~label] >= calibration.threshold).mean(),
        (verdict[~label] == "fake").mean(),
        (verdict[label] == "real").mean(),
    )


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_the_temperature_of_simulated_logits_is_recovered(truth):
    # Labels are drawn with the probabilities of the logits divided by the true temperature.
    rng = np.random.default_rng(0)
    logits = 2 * truth * rng.normal(size=20_000)
    label = rng.random(20_000) < expit(logits / truth)
    score = expit(logits)
    found = fit_calibration(one_face_each(score[~label], score[label]), 0.05)
    # The second derivative of the log-likelihood is 0.25 to 0.5 per face: 2 sigma are 3 %.
    assert found.temperature == pytest.approx(truth, rel=0.04)
    assert found.ece_after < 0.015
    if truth != 1:
        assert found.ece_after < found.ece_before / 3


def test_a_video_has_the_same_weight_whatever_its_number_of_faces():
    rng = np.random.default_rng(0)
    score, label = expit(3 * rng.normal(size=200)), rng.random(200) < 0.5
    once = fit_calibration(one_face_each(score[~label], score[label]), 0.1)
    ordered = np.append(score[~label], score[label])
    times = rng.integers(1, 6, 200)
    again = Scores.from_faces(
        video_id=np.repeat([f"v{row}" for row in range(200)], times),
        label=np.repeat(np.sort(label), times),
        score=np.repeat(ordered, times),
    )
    found = fit_calibration(again, 0.1)
    assert found.temperature == pytest.approx(once.temperature, rel=1e-4)
    assert found.threshold == pytest.approx(once.threshold, rel=1e-4)
    assert found.ece_after == pytest.approx(once.ece_after, abs=1e-4)


@pytest.mark.parametrize("by_video", [False, True])
def test_reliability_equals_a_plain_loop(by_video):
    rng = np.random.default_rng(0)
    score = rng.random(200)
    # The edges of the bins; 1 is in the last bin.
    score[: BINS + 1] = [number / BINS for number in range(BINS + 1)]
    label = rng.random(200) < score**2
    video = rng.integers(40, size=200) if by_video else np.arange(200)
    weight = np.array([1 / (video == owner).sum() for owner in video])
    bins = [[] for _ in range(BINS)]
    for row in range(200):
        upper = [number for number in range(BINS) if score[row] >= number / BINS]
        bins[upper[-1]].append(row)
    error = 0.0
    found = measure_reliability(label, score, video if by_video else None)
    for number, rows in enumerate(bins):
        total = sum(weight[row] for row in rows)
        mean = sum(weight[row] * score[row] for row in rows) / total
        share = sum(weight[row] for row in rows if label[row]) / total
        error += total / weight.sum() * abs(mean - share)
        assert found.count[number] == len(rows)
        assert found.mean_score[number] == pytest.approx(mean)
        assert found.fake_share[number] == pytest.approx(share)
    assert found.ece == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize(
    ("score", "label", "ece"),
    [
        ([0.9] * 10, [1] * 5 + [0] * 5, 0.4),
        ([0.9] * 10, [1] * 9 + [0], 0),
        ([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 1, 0], 0),
        ([0.0] * 4 + [1.0] * 4, [0] * 4 + [1] * 4, 0),
        ([0.0] * 4 + [1.0] * 4, [1] * 4 + [0] * 4, 1),
        ([0.2] * 3 + [0.8], [0, 0, 0, 1], 0.2),
        ([0.3], [1], 0.7),
    ],
)
def test_calibration_error_of_small_cases_equals_that_computed_by_hand(score, label, ece):
    found = measure_reliability(np.array(label, bool), np.array(score))
    assert found.ece == pytest.approx(ece, abs=1e-12)
    assert np.isnan(found.mean_score).sum() == BINS - len(set(score))


def test_calibrated_scores_keep_their_order_and_the_middle():
    score = np.append(np.linspace(0, 1, 101), [1e-9, 1 - 1e-9])
    for temperature in (0.05, 0.5, 3.0, 20.0):
        corrected = Calibration(temperature=temperature).apply(score)
        assert np.all((corrected >= 0) & (corrected <= 1))
        assert np.all(np.diff(corrected[:101]) >= 0)
        assert corrected[50] == pytest.approx(0.5, abs=1e-12)
        assert corrected[:101] == pytest.approx(1 - corrected[100::-1], abs=1e-9)
    soft = Calibration(temperature=3.0).apply(score)
    assert np.all(np.diff(soft[:101]) > 0)
    assert soft[1:100] == pytest.approx(expit(logit(score[1:100]) / 3), abs=1e-12)


def test_a_temperature_of_one_changes_nothing():
    score = np.random.default_rng(0).random(50)
    score[:2] = [0, 1]
    assert np.array_equal(Calibration().apply(score), score)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(5, 60), st.sampled_from([0.0, 0.05, 0.1, 0.3]))
def test_the_threshold_is_the_lowest_that_keeps_the_target_rate(seed, num_real, rate):
    scores = draw_classes(seed, num_real, 30, separation=0.5)
    found = fit_calibration(scores, rate)
    video = score_calibrated_videos(scores, found)
    real, fake = video[~scores.videos.label], video[scores.videos.label]
    highest_below = np.sort(real)[num_real - 1 - int(rate * num_real + 1e-9)]
    assume((fake <= highest_below).sum() > rate * 30)  # else the classes are separable, see below
    assert (real >= found.threshold).sum() <= rate * num_real + 1e-9
    lower = real[real < found.threshold].max()
    assert (real >= lower).sum() > rate * num_real + 1e-9
    # Halfway between scores: no score equals it.
    assert not np.isin(found.threshold, video)


@pytest.mark.parametrize(("separation", "rate"), [(3, 0.0), (6, 0.1), (6, 0.3), (30, 0.3)])
def test_a_threshold_between_separable_classes_keeps_both_rates(separation, rate):
    scores = draw_classes(1, 35, 30, separation)
    found = fit_calibration(scores, rate)
    video, label = score_calibrated_videos(scores, found), scores.videos.label
    assert (video[~label] >= found.threshold).sum() <= rate * 35 + 1e-9
    if rate == 0.3:
        assert (video[label] < found.threshold).sum() <= rate * 30 + 1e-9


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.floats(-3, 30), st.sampled_from([0.0, 0.05, 0.2]))
def test_neither_verdict_exceeds_the_target_rate(seed, separation, rate):
    scores = draw_classes(seed, 40, 25, separation)
    found = fit_calibration(scores, rate)
    assert max(count_errors(scores, found)) <= rate + 1e-9
    assert 0 <= found.uncertain_from <= found.threshold <= found.uncertain_to <= 1
    assert (found.num_real, found.num_fake, found.target_error_rate) == (40, 25, rate)


def test_an_allowed_error_is_not_lost_to_rounding():
    assert int(0.29 * 100) == 28  # 28.999999999999996
    scores = one_face_each(np.linspace(0.1, 0.9, 100), np.linspace(0.05, 0.85, 100))
    assert count_errors(scores, fit_calibration(scores, 0.29)) == (0.29, 0.29, 0.29)


def test_real_videos_with_equal_scores_get_the_same_verdict():
    # Two of ten are allowed, but three have the same score.
    scores = one_face_each([0.1] * 7 + [0.6] * 3, [0.9] * 10)
    found = fit_calibration(scores, 0.2)
    assert count_errors(scores, found)[0] == 0
    between = found.apply(np.array([0.6, 0.9]))
    assert found.threshold == pytest.approx(between.mean())


def test_the_middle_half_of_a_gap_between_the_classes_is_uncertain():
    scores = one_face_each(np.linspace(0.05, 0.3, 20), np.linspace(0.7, 0.95, 20))
    found = fit_calibration(scores, 0.0)
    low, high = found.apply(np.array([0.3, 0.7]))
    assert found.threshold == pytest.approx((low + high) / 2, rel=1e-6)
    assert found.uncertain_from == pytest.approx(low + (high - low) / 4, rel=1e-6)
    assert found.uncertain_to == pytest.approx(high - (high - low) / 4, rel=1e-6)
    assert [found.judge(score) for score in (low, (low + high) / 2, high)] == list(VERDICTS)


def test_the_overlap_of_the_classes_is_uncertain():
    scores = one_face_each(np.arange(2, 13) / 20, np.arange(8, 19) / 20)
    found = fit_calibration(scores, 0.0)
    seen = found.apply(np.array([0.35, 0.4, 0.5, 0.6, 0.65]))
    assert found.uncertain_from == pytest.approx(seen[1], rel=1e-6)
    assert found.uncertain_to == found.threshold == pytest.approx(seen[3:].mean(), rel=1e-6)
    verdicts = ["real", "uncertain", "uncertain", "uncertain", "fake"]
    assert [found.judge(score) for score in seen] == verdicts


def test_a_constant_detector_is_always_uncertain():
    # With one to eight faces per video, float sums of equal scores differ in the last bit.
    times = np.arange(20) % 8 + 1
    scores = Scores.from_faces(
        video_id=np.repeat([f"v{video}" for video in range(20)], times),
        label=np.repeat(np.arange(20) % 2, times),
        score=[0.3] * times.sum(),
    )
    found = fit_calibration(scores, 0.05)
    assert len(set(score_calibrated_videos(scores, found))) == 1
    assert {found.judge(score) for score in score_calibrated_videos(scores, found)} == {"uncertain"}
    assert count_errors(scores, found) == (0, 0, 0)


def test_the_temperature_stays_finite_without_validation_errors():
    scores = one_face_each(np.linspace(0.01, 0.2, 15), np.linspace(0.8, 0.99, 15))
    found = fit_calibration(scores, 0.05)
    assert 0.05 < found.temperature < 20
    # Platt's target for 15 videos is 16/17, so their mean cannot be far above it.
    fakes = found.apply(np.linspace(0.8, 0.99, 15))
    assert 0.9 < fakes.mean() < 0.97


def test_a_video_is_scored_by_its_most_suspicious_track():
    # The mean of the first video is below 0.5, that of its second track is not.
    scores = Scores.from_faces(
        video_id=["f", "f", *(f"r{number}" for number in range(9))],
        label=[1, 1, *[0] * 9],
        score=[0.1, 0.8, *np.linspace(0.2, 0.6, 9)],
        frame_index=[0] * 11,
        track_id=[0, 1, *[0] * 9],
    )
    found = fit_calibration(scores, 0.0)
    seen = found.apply(np.array([0.6, 0.8]))
    assert found.threshold == pytest.approx(seen.mean())


@pytest.mark.parametrize("fakes", [[1.0] * 10, [0.9] * 10])
def test_a_saturated_detector_raises(fakes):
    with pytest.raises(ValueError, match=r"0\.05 of the 10 real videos .*highest"):
        fit_calibration(one_face_each([0.0] * 8 + [1.0] * 2, fakes), 0.05)


def test_saturated_real_videos_within_the_target_rate_are_allowed():
    scores = one_face_each([0.1] * 9 + [1.0], [0.9] * 10)
    assert count_errors(scores, fit_calibration(scores, 0.1)) == (0.1, 0.1, 0)


@pytest.mark.parametrize(("num_real", "num_fake"), [(0, 3), (3, 0)])
def test_one_class_raises(num_real, num_fake):
    with pytest.raises(ValueError, match=f"{num_real} real and {num_fake} fake"):
        fit_calibration(one_face_each([0.1] * num_real, [0.9] * num_fake), 0.05)


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0, float("nan")])
def test_a_rate_out_of_range_raises(rate):
    with pytest.raises(ValueError, match=rf"rate .* 0 .* 0\.5; got {rate:g}"):
        fit_calibration(one_face_each([0.1] * 3, [0.9] * 3), rate)


def test_bounds_belong_to_the_verdict_above():
    found = Calibration(threshold=0.5, uncertain_from=0.25, uncertain_to=0.75)
    verdicts = {
        0.0: "real",
        np.nextafter(0.25, 0): "real",
        0.25: "uncertain",
        0.5: "uncertain",
        np.nextafter(0.75, 0): "uncertain",
        0.75: "fake",
        1.0: "fake",
    }
    assert {score: found.judge(score) for score in verdicts} == verdicts


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_with_another_threshold_nothing_is_uncertain(threshold):
    found = Calibration(2.0, 0.5, 0.25, 0.75, data="clips").with_threshold(threshold)
    assert (found.temperature, found.data) == (2.0, "clips")
    assert found.threshold == threshold
    assert found.judge(threshold) == "fake"
    assert found.judge(np.nextafter(threshold, -1)) == "real"


def test_a_calibration_survives_a_round_trip_exactly(tmp_path):
    found = fit_calibration(draw_classes(0, 30, 20, 2), 0.1, data="clips é", model="ab" * 32)
    assert (found.data, found.model) == ("clips é", "ab" * 32)
    save_calibration(tmp_path / CALIBRATION, found)
    assert read_calibration(tmp_path / CALIBRATION) == found
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"calibration": []}',
        '{"calibration": {"temperature": 0}}',
        '{"calibration": {"temperature": -1}}',
        '{"calibration": {"temperature": NaN}}',
        '{"calibration": {"temperature": "hot"}}',
        '{"calibration": {"temperature": null}}',
        '{"calibration": {"temperature": 1, "uncertain_from": 0.6, "uncertain_to": 0.5}}',
        '{"calibration": {"temperature": 1, "uncertain_from": -0.1}}',
        '{"calibration": {"temperature": 1, "uncertain_to": 1.5}}',
        '{"calibration": {"temperature": 1, "threshold": 1.5}}',
        '{"calibration": {"temperature": 1, "threshold": NaN}}',
        '{"calibration": {"temperature": 1, "uncertain_to": "high"}}',
        '{"calibration": {"temperature": 1, "colour": 1}}',
    ],
)
def test_a_damaged_file_raises_with_its_path(tmp_path, text):
    path = tmp_path / CALIBRATION
    path.write_text(text)
    with pytest.raises(ValueError, match="Expected") as error:
        read_calibration(path)
    assert str(path) in str(error.value)


@pytest.fixture
def run_folder(tmp_path):
    """A run folder with a calibration of its best model, and another model."""
    (tmp_path / BEST).write_bytes(b"best")
    (tmp_path / "last.keras").write_bytes(b"last")
    calibration = Calibration(temperature=2.0, model=digest_model(tmp_path))
    save_calibration(tmp_path / CALIBRATION, calibration)
    return tmp_path


def test_a_run_and_its_best_model_have_the_calibration_of_the_run(run_folder):
    assert load_calibration(run_folder).temperature == 2
    assert load_calibration(str(run_folder / BEST)).temperature == 2


def test_another_model_of_the_run_has_no_calibration(run_folder):
    assert load_calibration(run_folder / "last.keras") is None


def test_a_run_that_was_trained_further_must_be_calibrated_again(run_folder):
    (run_folder / BEST).write_bytes(b"better")
    with pytest.raises(ValueError, match="another model.*Run `jdfd-keras calibrate` again"):
        load_calibration(run_folder)
    assert load_calibration(run_folder / BEST) is None


def test_a_run_that_was_never_calibrated_has_no_calibration(tmp_path):
    (tmp_path / BEST).write_bytes(b"best")
    assert load_calibration(tmp_path) is None
    assert load_calibration(tmp_path / BEST) is None


def test_a_digest_equals_that_of_sha256sum(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"abc")
    assert digest_model(tmp_path / "model.keras") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_file_is_json(tmp_path):
    save_calibration(tmp_path / CALIBRATION, Calibration(temperature=2.0, data="clips"))
    read = json.loads((tmp_path / CALIBRATION).read_text())
    assert read["calibration"] == dataclasses.asdict(Calibration(temperature=2.0, data="clips"))
