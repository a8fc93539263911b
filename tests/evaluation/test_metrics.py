"""Metrics against scikit-learn, brute force, closed forms and examples worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jdfd_keras.evaluation.metrics import (
    FPR_ALLOWED,
    MEASURED,
    Estimate,
    Metrics,
    Ranking,
    find_auc_interval,
    measure,
)


def count_pairs(label: np.ndarray, score: np.ndarray) -> float:
    """Compute the AUC by its definition: every fake against every real, ties count half."""
    wins = [
        1.0 if fake > real else 0.5 if fake == real else 0.0
        for fake in score[label]
        for real in score[~label]
    ]
    return sum(wins) / len(wins)


def draw(seed: int, num_rows: int = 60, num_values: int = 8):
    """Draw labels and scores with few distinct values, so that many pairs tie."""
    rng = np.random.default_rng(seed)
    label = rng.random(num_rows) < rng.uniform(0.1, 0.9)
    label[:4] = [True, False, True, False]
    score = rng.integers(0, num_values, num_rows) + label * rng.integers(0, 3)
    return label, score / score.max()


def get_values(metrics) -> list:
    return [getattr(metrics, name).value for name in MEASURED]


def measure_otherwise(label: np.ndarray, score: np.ndarray, threshold: float) -> list[float]:
    """Compute every metric from scikit-learn's ROC curve and by counting."""
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    called = [s >= threshold for s in score.tolist()]
    right = [c == truth for c, truth in zip(called, label.tolist(), strict=True)]
    return [
        roc_auc_score(label, score),
        # FPR + TPR rises along the curve, and is 1 where it meets FPR = 1 - TPR.
        np.interp(1, fpr + tpr, fpr),
        average_precision_score(label, score),
        np.mean(right),
        np.mean([c for c, truth in zip(called, label, strict=True) if truth]),
        np.mean([c for c, truth in zip(called, label, strict=True) if not truth]),
        *(tpr[fpr <= allowed + 1e-12].max() for allowed in FPR_ALLOWED.values()),
    ]


def bounds_of(found: Metrics, name: str) -> tuple[float | None, float | None]:
    estimate = getattr(found, name)
    return estimate.low, estimate.high


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 149), st.sampled_from([3, 8, 10**6]))
def test_every_metric_equals_that_of_scikit_learn(seed, num_values):
    label, score = draw(seed, 150, num_values)
    threshold = score[seed]  # on a score, so that "at or above" counts
    found = measure(label, score, threshold=threshold)
    assert get_values(found) == pytest.approx(measure_otherwise(label, score, threshold), abs=1e-12)
    assert (found.num_real, found.num_fake) == ((~label).sum(), label.sum())


@pytest.mark.parametrize("seed", range(2))
def test_auc_is_the_share_of_ordered_pairs_with_ties_counted_half(seed):
    label, score = draw(seed)
    found = measure(label, score, threshold=0.5).auc.value
    assert found == pytest.approx(count_pairs(label, score), abs=1e-12)


@pytest.mark.parametrize("num_real", [100, 700])
def test_a_whole_number_of_allowed_false_positives_is_used(num_real):
    real = np.arange(num_real) / num_real
    one, five = num_real // 100, num_real // 20
    # One fake just above each real: k false positives allow k + 1 true positives.
    score = np.append(real, real + 0.5 / num_real)
    label = np.repeat([False, True], num_real)
    found = measure(label, score, threshold=0.5)
    assert found.tpr_at_1_fpr.value == pytest.approx((one + 1) / num_real)
    assert found.tpr_at_5_fpr.value == pytest.approx((five + 1) / num_real)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_eer_of_two_shifted_uniforms_is_half_of_their_overlap(shift):
    # Real scores uniform on [0, w], fake on [shift, shift + w]: at the middle of the overlap
    # each class errs on (w - shift) / 2 of its width w.
    width, grid = 0.5, (np.arange(2000) + 0.5) / 2000
    score = np.concatenate([width * grid, shift + width * grid])
    label = np.repeat([False, True], 2000)
    found = measure(label, score, threshold=0.5).eer.value
    assert found == pytest.approx((width - shift) / width / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ([0.1, 0.2], [0.8, 0.9], 0.0),
        ([0.8, 0.9], [0.1, 0.2], 1.0),
        ([0.5, 0.5], [0.5, 0.5], 0.5),
        # ROC (0, 0) (0, .5) (.5, .5): the horizontal part meets FPR = 1 - TPR at FPR .5.
        ([0.1, 0.6], [0.5, 0.9], 0.5),
        # ROC (0, 0) (0, 2/3) (1/3, 2/3): they meet at the corner.
        ([0.1, 0.2, 0.6], [0.5, 0.8, 0.9], 1 / 3),
        # A tie of one real and two fakes: (0, 0) to (1/2, 2/3) is a slope; they meet at 3/7.
        ([0.1, 0.7], [0.7, 0.7, 0.2], 3 / 7),
    ],
)
def test_eer_of_small_arrays_equals_that_drawn_by_hand(real, fake, expected):
    label = np.array([False] * len(real) + [True] * len(fake))
    found = measure(label, np.array(real + fake), threshold=0.5).eer.value
    assert found == pytest.approx(expected, abs=1e-12)


def test_average_precision_equals_that_computed_by_hand():
    # From the top: fake (1 of 1), real, fake (2 of 3), real, fake (3 of 5).
    label = np.array([1, 0, 1, 0, 1], dtype=bool)
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    found = measure(label, score, threshold=0.5).ap.value
    assert found == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_a_score_on_the_threshold_is_called_fake():
    found = measure(
        np.array([0, 0, 0, 1, 1], dtype=bool), np.array([0.1, 0.2, 0.7, 0.6, 0.7]), threshold=0.7
    )
    assert (found.num_real, found.num_fake) == (3, 2)
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.tpr.value == pytest.approx(1 / 2)
    assert found.fpr.value == pytest.approx(1 / 3)


def test_the_ends_of_the_range_are_thresholds():
    label, score = np.array([False, True]), np.array([0.0, 1.0])
    assert measure(label, score, threshold=0).fpr.value == 1
    assert measure(label, score, threshold=1).tpr.value == 1


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        # auc, eer, ap, accuracy, tpr, fpr at 0.5, tpr at 1 % and 5 % FPR; 3 fake and 2 real.
        ([0.9, 0.9, 0.9, 0.1, 0.1], [1, 0, 1, 1, 1, 0, 1, 1]),
        ([0.1, 0.1, 0.1, 0.9, 0.9], [0, 1, 3 / 5, 0, 0, 1, 0, 0]),
        ([0.5] * 5, [0.5, 0.5, 3 / 5, 3 / 5, 1, 1, 0, 0]),
        ([0.4] * 5, [0.5, 0.5, 3 / 5, 2 / 5, 0, 0, 0, 0]),
    ],
)
def test_perfect_reversed_and_constant_scores_have_the_expected_metrics(score, expected):
    label = np.array([True] * 3 + [False] * 2)
    found = measure(label, np.array(score), threshold=0.5, n_resamples=50)
    assert get_values(found) == pytest.approx(expected, abs=1e-12)
    # Every resample gives the same value: the numbers of videos alone bound it.
    for name, share, total in (("tpr", expected[4], 3), ("fpr", expected[5], 2)):
        assert bounds_of(found, name) == exact_interval(share * total, total)
    assert bounds_of(found, "accuracy") == exact_interval(expected[3] * 5, 5)
    for name in ("auc", "eer", "ap", "accuracy", "tpr", "fpr"):
        value, (low, high) = getattr(found, name).value, bounds_of(found, name)
        is_bounded = name not in ("eer", "ap") or value in (0, 1)
        assert (low <= value <= high and high - low > 0.3) if is_bounded else low is high is None
    assert bounds_of(found, "tpr_at_1_fpr") == (None, None)


def exact_interval(count, total):
    """Return the interval of Clopper and Pearson by SciPy's own test."""
    interval = stats.binomtest(round(count), total).proportion_ci(0.95, method="exact")
    return pytest.approx((interval.low, interval.high))


def test_0_errors_of_12_videos_are_up_to_26_percent():
    label = np.arange(32) >= 12
    found = measure(label, 0.2 + 0.6 * label, threshold=0.5, n_resamples=100)
    assert bounds_of(found, "fpr") == pytest.approx((0, 0.2646), abs=1e-4)
    assert bounds_of(found, "tpr") == pytest.approx((0.8316, 1), abs=1e-4)  # 20 of 20
    # Newcombe's method 5 solves (1 - t)^2 = 1.96^2 V(t) for an AUC of 1.
    low, high = bounds_of(found, "auc")
    spread = 1 + 15 * ((1 - low) / (2 - low) + low / (1 + low))
    variance = low * (1 - low) / (12 * 20) * spread
    assert high == 1 and 1 - low == pytest.approx(1.959964 * variance**0.5, rel=1e-6)
    assert bounds_of(found, "eer") == pytest.approx((0, 0.2646), abs=1e-4)
    assert 0.5 < found.ap.low < found.auc.low and found.ap.high == 1


def test_faces_without_an_error_are_bounded_by_their_number_of_videos():
    video = np.repeat(np.arange(32), 10)
    label = video >= 12
    found = measure(label, 0.2 + 0.6 * label, threshold=0.5, video=video, n_resamples=100)
    assert bounds_of(found, "fpr") == pytest.approx((0, 0.2646), abs=1e-4)


# Nearly always separable, where no bootstrap interval exists, and rarely.
@pytest.mark.parametrize(("num_real", "num_fake", "separation"), [(5, 5, 4.0), (12, 30, 2.5)])
def test_intervals_of_few_videos_cover_the_truth(num_real, num_fake, separation):
    rng = np.random.default_rng(0)
    cut, runs = separation / 2, 100
    truth = {
        "auc": stats.norm.cdf(separation / 2**0.5),
        "eer": stats.norm.cdf(-cut),
        "accuracy": stats.norm.cdf(cut),
        "tpr": stats.norm.cdf(cut),
        "fpr": stats.norm.cdf(-cut),
    }
    label = np.arange(num_real + num_fake) >= num_real
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        score = stats.norm.cdf(rng.normal(size=len(label)) + separation * label - cut)
        found = measure(label, score, threshold=0.5, n_resamples=60, seed=run)
        for name, value in truth.items():
            low, high = bounds_of(found, name)
            covered[name] += low <= value <= high
    # 100 runs of 95 %: two standard errors are 4.4 %.
    assert min(covered.values()) >= 0.9 * runs, covered


@pytest.mark.parametrize(
    ("num_real", "without"),
    [(19, {"tpr_at_1_fpr", "tpr_at_5_fpr"}), (20, {"tpr_at_1_fpr"}), (99, {"tpr_at_1_fpr"})],
)
def test_a_rate_that_is_less_than_one_real_video_has_no_interval(num_real, without):
    label = np.arange(num_real + 30) >= num_real
    score = np.random.default_rng(0).normal(0.4 + 0.1 * label, 0.1).clip(0, 1)
    found = measure(label, score, threshold=0.5, n_resamples=100)
    assert {name for name in MEASURED if getattr(found, name).low is None} == without


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_raises(threshold):
    with pytest.raises(ValueError, match=r"threshold in 0\.\.1; got"):
        measure(np.array([True, False]), np.array([0.1, 0.2]), threshold=threshold)


@pytest.mark.parametrize("is_fake", [True, False])
def test_metrics_of_one_class_are_undefined_not_a_half(is_fake):
    found = measure(
        np.array([is_fake] * 3), np.array([0.2, 0.5, 0.9]), threshold=0.5, n_resamples=200, seed=1
    )
    known, unknown = ("tpr", "fpr") if is_fake else ("fpr", "tpr")
    assert all(getattr(found, name) == Estimate(None) for name in MEASURED if name != known)
    assert getattr(found, unknown) == Estimate(None)
    share = getattr(found, known)
    assert share.value == pytest.approx(2 / 3)
    assert 0 <= share.low < share.value < share.high <= 1
    assert (found.num_fake, found.num_real) == ((3, 0) if is_fake else (0, 3))


@pytest.mark.parametrize("seed", range(3))
def test_a_video_of_weight_k_counts_like_its_rows_repeated_k_times(seed):
    rng = np.random.default_rng(seed)
    label, score = draw(seed, 50)
    video = rng.integers(0, 8, 50) * 2 + label
    ranking = Ranking(label, score, video, 0.5)
    times = rng.integers(0, 4, ranking.num_videos)  # some videos are not drawn
    times[video[:2]] = 1
    rows = np.repeat(np.arange(50), times[video])
    expected = measure_otherwise(label[rows], score[rows], 0.5)
    assert ranking.measure(times) == pytest.approx(expected, abs=1e-12)


def test_a_resample_without_a_class_has_no_metric_that_needs_both():
    ranking = Ranking(np.array([True, False]), np.array([0.9, 0.1]), np.array([0, 1]), 0.5)
    found = dict(zip(MEASURED, ranking.measure(np.array([2, 0])), strict=True))
    assert found.pop("tpr") == 1
    assert np.isnan(list(found.values())).all()


def test_no_resamples_give_no_intervals():
    label, score = draw(0)
    found = measure(label, score, threshold=0.5)
    assert all(bounds_of(found, name) == (None, None) for name in MEASURED)


def test_intervals_depend_on_the_seed_only():
    label, score = draw(0)
    one, same, other = (
        measure(label, score, threshold=0.5, n_resamples=100, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.auc.value == other.auc.value
    assert one.auc != other.auc


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(4, 14))
def test_the_bounds_of_an_interval_are_ordered_and_in_range(seed, num_rows):
    label, score = draw(seed, num_rows, 4)
    found = measure(label, score, threshold=0.5, n_resamples=60, seed=seed)
    for name in MEASURED:
        low, high = bounds_of(found, name)
        assert 0 <= getattr(found, name).value <= 1, name
        assert low is None and high is None or 0 <= low < high <= 1, name


def test_faces_repeated_ten_times_do_not_narrow_intervals():
    seed = 0
    rng = np.random.default_rng(seed)
    label, score = draw(seed, 80)
    video = rng.integers(0, 10, 80) * 2 + label
    settings = {"threshold": 0.5, "n_resamples": 100, "seed": seed}
    once = measure(label, score, video=video, **settings)
    again = measure(
        np.repeat(label, 10), np.repeat(score, 10), video=np.repeat(video, 10), **settings
    )
    for name in MEASURED:
        expected = getattr(once, name).to_dict()
        assert getattr(again, name).to_dict() == pytest.approx(expected, abs=1e-9), name
    # They would if faces were drawn independently.
    alone = measure(np.repeat(label, 10), np.repeat(score, 10), **settings)
    assert alone.auc.high - alone.auc.low < 0.6 * (once.auc.high - once.auc.low)


@pytest.mark.parametrize("is_fake", [True, False])
def test_a_class_of_one_video_gives_faces_no_intervals_whatever_their_number(is_fake):
    label = np.repeat([is_fake, not is_fake], [20, 9])
    video = np.append(np.zeros(20, int), np.arange(1, 10))
    score = np.random.default_rng(0).random(29)
    found = measure(label, score, threshold=0.5, video=video, n_resamples=50)
    assert all(bounds_of(found, name) == (None, None) for name in MEASURED)
    assert found.auc.value == pytest.approx(count_pairs(label, score))


@pytest.mark.parametrize(
    ("num_real", "num_fake", "separation"), [(60, 40, 0.5), (60, 40, 2.0), (20, 15, 1.0)]
)
def test_an_interval_of_videos_equals_bca_of_scipy(num_real, num_fake, separation):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=num_real), rng.normal(size=num_fake) + separation
    score = stats.norm.cdf(np.append(real, fake))
    label = np.arange(num_real + num_fake) >= num_real
    found = measure(label, score, threshold=0.5, n_resamples=4000, seed=1).auc

    def find_auc(real, fake, axis=-1):
        return (fake[..., None, :] > real[..., :, None]).mean(axis=(-1, -2))

    expected = stats.bootstrap(
        (real, fake),
        find_auc,
        n_resamples=4000,
        batch=500,
        method="BCa",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)


@pytest.mark.parametrize("found", [0, 3, 8, 15])
def test_an_interval_of_a_share_of_videos_is_exact(found):
    called = np.arange(15) < found
    score = np.append(np.full(10, 0.2), np.where(called, 0.9, 0.1))
    share = measure(np.arange(25) >= 10, score, threshold=0.5, n_resamples=100).tpr
    assert (share.low, share.high) == exact_interval(found, 15)


def count_covered(runs: int, *, effect: float, by_video: bool = True) -> float:
    """Return the share of intervals that cover the truth, for scores with a random video effect.

    The scores of a real and of a fake face differ by a normal variable of mean 1.5 and variance
    2 (effect ** 2 + 1), whatever their videos, which gives the AUC.
    """
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1.5 / np.sqrt(2 * (effect**2 + 1)))
    video = np.repeat(np.arange(60), 4)
    label = video < 30
    covered = 0
    for run in range(runs):
        score = stats.norm.cdf(
            1.5 * label + effect * rng.normal(size=60)[video] + rng.normal(size=240)
        )
        found = measure(
            label,
            score,
            threshold=0.5,
            video=video if by_video else None,
            n_resamples=300,
            seed=run,
        ).auc
        covered += found.low <= truth <= found.high
    return covered / runs


@pytest.mark.slow
def test_95_percent_of_the_intervals_cover_the_truth():
    # 500 runs of 95 %: two standard errors are 1.9 %.
    assert 0.93 <= count_covered(500, effect=1.0) <= 0.97


def test_intervals_that_treat_faces_as_independent_miss_the_truth():
    assert count_covered(30, effect=2.0, by_video=False) < 0.85


@pytest.mark.parametrize(("num_real", "num_fake"), [(3, 3), (10, 30), (100, 20)])
@pytest.mark.parametrize("separation", [0.0, 1.2, 3.5])
def test_auc_intervals_cover_the_auc_of_normals(num_real, num_fake, separation):
    rng = np.random.default_rng(0)
    truth = norm.cdf(separation / np.sqrt(2))
    covered = []
    for _ in range(200):
        real, fake = rng.normal(size=num_real), rng.normal(separation, size=num_fake)
        auc = (fake[:, None] > real).mean()
        low, high = find_auc_interval(auc, num_real, num_fake)
        assert 0 <= low <= auc <= high <= 1
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 1.0])
def test_auc_intervals_are_symmetric(auc):
    low, high = find_auc_interval(auc, 9, 9)
    assert find_auc_interval(1 - auc, 9, 9) == (pytest.approx(1 - high), pytest.approx(1 - low))
