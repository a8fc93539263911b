"""Fits at equal priors: known parameters are recovered, and no mix of classes misleads them."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm

from jdfd_keras.client.calibration import UNATTAINABLE, Calibration
from jdfd_keras.evaluation.calibrate import count_verdicts
from jdfd_keras.evaluation.calibration_fit import (
    TEMPERATURES,
    compute_log10_lr,
    fit_calibration,
)
from jdfd_keras.evaluation.likelihood_cost import compute_cllr, compute_min_cllr
from jdfd_keras.evaluation.scores import Scores, score_videos


def one_face_each(real, fake) -> Scores:
    """Return a table with one video of one face per score."""
    score = np.append(np.asarray(real, float), np.asarray(fake, float))
    return Scores.from_faces(
        video_id=[f"v{row}" for row in range(len(score))],
        label=np.arange(len(score)) >= len(real),
        score=score,
    )


def correct(scores: Scores, calibration: Calibration) -> Scores:
    return dataclasses.replace(scores, score=calibration.apply(scores.score))


def draw_classes(seed: int, num_real: int, num_fake: int, separation: float, prior=0.5) -> Scores:
    """Draw P(fake) at a prior from normals whose means differ, as an overconfident network.

    The log likelihood ratio of x is separation * (x - separation / 2); the network doubles the
    logit.
    """
    rng = np.random.default_rng(seed)
    values = rng.normal(size=num_real), rng.normal(separation, size=num_fake)
    return one_face_each(
        *(expit(2 * (separation * (x - separation / 2) + logit(prior))) for x in values)
    )


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("bias", [-1.0, 0.5])
@pytest.mark.slow
def test_temperature_and_bias_of_simulated_logits_are_recovered(truth, bias):
    # Labels are drawn with the probabilities of the corrected logits, and weights compensate that
    # the classes are not equally frequent: the log of their odds is the difference of the biases.
    rng = np.random.default_rng(0)
    logits = 2 * truth * rng.normal(size=20_000)
    label = rng.random(20_000) < expit(logits / truth + bias)
    score = expit(logits)
    found = fit_calibration(one_face_each(score[~label], score[label]), 0.05)
    assert found.temperature == pytest.approx(truth, rel=0.05)
    assert found.bias == pytest.approx(bias - logit(label.mean()), abs=0.05)
    assert found.ece_after < 0.02
    assert found.ece_after < found.ece_before / 2


def test_the_fit_minimises_the_cross_entropy_at_equal_priors():
    """The optimum of a general solver, for files of one to four people."""
    rng = np.random.default_rng(3)
    times = rng.integers(1, 5, 60)
    label = np.arange(60) >= 40
    owner = np.repeat(np.arange(60), times)
    track = np.concatenate([np.arange(count) for count in times])
    values = rng.normal(size=len(owner)) + 2 * (label[owner] & (track == 0))
    scores = Scores.from_faces(
        video_id=[f"v{video:02}" for video in owner],
        label=label[owner],
        score=expit(3 * values - 1),
        track_id=track,
    )
    found = fit_calibration(scores, 0.05)
    target = np.where(label, 21 / 22, 1 / 22)  # Platt's for the 20 files of the smaller class
    weight = np.where(label, 0.5 / 20, 0.5 / 40)
    x = logit(scores.score)

    def entropy(log_odds, weight, target):
        return weight @ (np.logaddexp(0, log_odds) - target * log_odds)

    faces = minimize(
        lambda p: entropy(x / p[0] + p[1], weight[owner] / times[owner], target[owner]),
        [1.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-13},
    )
    assert (found.temperature, found.bias) == pytest.approx(faces.x, rel=1e-3)
    z = x / found.temperature + found.bias

    def file_ratio(offset, slope):
        ratios = np.exp(offset + slope * z)
        return np.log([ratios[owner == video].mean() for video in range(60)])

    files = minimize(
        lambda p: entropy(file_ratio(*p), weight, target),
        [0.0, 1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-13},
    )
    assert (found.lr_offset, found.lr_slope) == pytest.approx(files.x, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("num_real", "num_fake"), [(140, 700), (420, 420), (700, 140)])
def test_the_mix_of_validation_has_no_effect_on_scores(num_real, num_fake):
    """A network of AUC 0.80 that learned the mix: the true P(fake) at equal priors is known."""
    separation = float(norm.ppf(0.8) * np.sqrt(2))
    scores = draw_classes(0, num_real, num_fake, separation, num_fake / (num_real + num_fake))
    found = fit_calibration(scores, 0.05)
    assert found.auc == pytest.approx(0.8, abs=0.04)
    # The median real file has x = 0, and the median fake one x = separation.
    half = separation**2 / 2
    assert np.median(found.real_scores) == pytest.approx(expit(-half), abs=0.05)
    assert np.median(found.fake_scores) == pytest.approx(expit(half), abs=0.05)
    assert found.temperature == pytest.approx(2, rel=0.2)
    assert found.bias == pytest.approx(-logit(num_fake / 840), abs=0.3)

    def cost(x):
        return norm.pdf(x) * np.logaddexp(0, separation * (x - separation / 2)) / np.log(2)

    lowest = quad(cost, -9, 9)[0]  # of the true ratios, by integration; the classes are symmetric
    fresh = correct(draw_classes(1, 4000, 4000, separation, num_fake / 840), found)
    label = fresh.videos.label
    ratios = compute_log10_lr(fresh, found.lr_offset, found.lr_slope, found.log10_lr_limits)
    assert compute_cllr(label, ratios) == pytest.approx(lowest, abs=0.02)
    assert compute_cllr(label, ratios) - compute_min_cllr(label, ratios) < 0.02
    assert found.min_cllr <= found.cllr
    assert found.cllr == pytest.approx(lowest, abs=0.1)


@pytest.mark.parametrize(("num_real", "num_fake"), [(140, 700), (700, 140), (60, 20), (9, 99)])
def test_a_useless_network_ends_near_one_half(num_real, num_fake):
    rng = np.random.default_rng(0)
    for _ in range(10):
        # Confident, and no matter how the labels are mixed.
        values = expit(2 + 3 * rng.normal(size=num_real + num_fake))
        found = fit_calibration(one_face_each(values[:num_real], values[num_real:]), 0.05)
        smaller = min(num_real, num_fake)
        # The slope is estimated with an error of 1 / sqrt(n) per standard deviation.
        spread = 4 / np.sqrt(smaller)
        scores = np.array([*found.real_scores, *found.fake_scores])
        assert abs(np.median(scores) - 0.5) < spread / 4
        assert np.abs(logit(np.quantile(scores, [0.025, 0.975]))).max() < 2 * spread
        assert found.auc_low < 0.5
        assert found.cllr > 0.9
        if smaller >= 140:
            ratios = [
                found.likelihood([score]).log10 for score in np.quantile(scores, [0.05, 0.95])
            ]
            assert np.abs(ratios).max() < np.log10(2), "no support for either proposition"


def test_scores_that_decrease_with_manipulation_are_ignored():
    scores = one_face_each(np.linspace(0.3, 0.9, 50), np.linspace(0.1, 0.7, 50))
    found = fit_calibration(scores, 0.05)
    assert found.temperature == pytest.approx(TEMPERATURES[1])
    assert max(found.fake_scores) - min(found.real_scores) < 0.01
    assert found.likelihood([0.999]).log10 == pytest.approx(0, abs=0.01)


def test_ratios_are_not_exaggerated_by_small_or_separable_sets():
    for count in (1, 2, 5, 15):
        real, fake = np.linspace(0.01, 0.2, count), np.linspace(0.8, 0.99, count)
        found = fit_calibration(one_face_each(real, fake), 0.05)
        assert TEMPERATURES[0] < found.temperature < TEMPERATURES[1]
        # Platt's target of n files is (n + 1) / (n + 2).
        assert 0.5 < np.mean(found.fake_scores) < (count + 1) / (count + 2) + 0.01
        assert 0.5 > np.mean(found.real_scores) > 1 / (count + 2) - 0.01
        assert found.likelihood([found.fake_scores[-1]]).log10 <= found.log10_lr_limits[1]
        assert 0.4 < (found.real_scores[-1] + found.fake_scores[0]) / 2 < 0.6


def test_a_constant_detector_is_always_uncertain():
    # With one to eight faces per video, float sums of equal scores differ in the last bit.
    times = np.arange(20) % 8 + 1
    scores = Scores.from_faces(
        video_id=np.repeat([f"v{video}" for video in range(20)], times),
        label=np.repeat(np.arange(20) % 2, times),
        score=[0.3] * times.sum(),
    )
    found = fit_calibration(scores, 0.05)
    assert {*found.real_scores, *found.fake_scores} == {0.5}
    assert found.judge(0.5) == "uncertain"
    assert found.likelihood([0.5]).log10 == pytest.approx(0)
    assert found.cllr == pytest.approx(1)


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
    for name in ("temperature", "bias", "threshold", "ece_after", "cllr", "lr_slope"):
        assert getattr(found, name) == pytest.approx(getattr(once, name), rel=1e-4, abs=1e-4)


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
    assert found.fake_scores == pytest.approx(found.apply(np.array([0.8])), abs=1e-7)
    assert found.real_scores == pytest.approx(found.apply(np.linspace(0.2, 0.6, 9)), abs=1e-7)


def test_four_people_who_were_validated_alone_are_not_accused_more_often():
    """One person per validation file, four in each new file: the rate of the file is the target."""
    separation, rates, naive = 2.0, [], []
    rng = np.random.default_rng(0)
    for seed in range(25):
        found = fit_calibration(draw_classes(seed, 140, 100, separation), 0.05)
        x = rng.normal(size=(400, 4))
        people = found.apply(expit(2 * separation * (x - separation / 2)).ravel()).reshape(x.shape)
        highest = people.max(axis=1)
        rates.append(np.mean([found.judge(score, 4) == "fake" for score in highest]))
        naive.append(np.mean([found.judge(score) == "fake" for score in highest]))
    assert np.mean(rates) < 0.05 + 3 * np.std(rates) / 5
    assert np.mean(naive) == pytest.approx(1 - 0.95**4, abs=0.05)


def test_verdicts_are_counted_by_the_thresholds_for_the_people_of_each_video():
    found = fit_calibration(draw_classes(0, 100, 60, 2.0), 0.05)
    one, three = found.thresholds()[1], found.thresholds(3)[1]
    assert one < three
    score = (one + three) / 2
    scores = Scores.from_faces(
        video_id=["alone", "three", "three", "three"],
        label=[0, 1, 1, 1],
        score=[score, score, 0.1, 0.1],
        track_id=[0, 0, 1, 2],
    )
    assert score_videos(scores, "track").tolist() == [score] * 2
    counts = count_verdicts(scores, found)
    assert counts["real"] == {"no_evidence": 0, "uncertain": 0, "fake": 1}
    assert counts["fake"] == {"no_evidence": 0, "uncertain": 1, "fake": 0}


def test_ratios_of_many_videos_equal_those_of_each():
    rng = np.random.default_rng(5)
    owner = np.sort(rng.integers(0, 30, 200))
    scores = Scores.from_faces(
        video_id=[f"v{video}" for video in owner],
        label=np.zeros(200, int),
        score=rng.random(200),
        track_id=rng.integers(0, 4, 200),
        frame_index=np.arange(200),
    )
    calibration = fit_calibration(draw_classes(0, 30, 30, 2.0), 0.05)
    fitted = calibration.lr_offset, calibration.lr_slope
    found = compute_log10_lr(scores, *fitted, calibration.log10_lr_limits)
    for video in range(len(scores.videos)):
        rows = scores.video == video
        tracks = [
            scores.score[rows & (scores.track_id == track)].mean()
            for track in np.unique(scores.track_id[rows])
        ]
        assert found[video] == pytest.approx(calibration.likelihood(tracks).log10, abs=1e-9)


def test_a_saturated_detector_calls_nothing_fake():
    found = fit_calibration(one_face_each([0.0] * 8 + [1.0] * 2, [1.0] * 10), 0.05)
    assert found.judge(float(found.apply(np.array([1.0]))[0])) == "uncertain"
    assert found.uncertain_to == UNATTAINABLE or found.uncertain_to > found.apply(np.array([1.0]))


@pytest.mark.parametrize(("num_real", "num_fake"), [(0, 3), (3, 0)])
def test_one_class_raises(num_real, num_fake):
    scores = one_face_each([0.1] * num_real, [0.9] * num_fake)
    with pytest.raises(ValueError, match=f"{num_real} real and {num_fake} fake. Prepare"):
        fit_calibration(scores, 0.05)
    with pytest.raises(ValueError, match="fake, and 7 videos without enough evidence. Prepare"):
        fit_calibration(scores, 0.05, num_not_judged=7)


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0, float("nan")])
def test_a_rate_out_of_range_raises(rate):
    with pytest.raises(ValueError, match=rf"rate .* 0 .* 0\.5; got {rate:g}"):
        fit_calibration(one_face_each([0.1] * 3, [0.9] * 3), rate)
