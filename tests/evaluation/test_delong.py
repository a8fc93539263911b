"""DeLong's test against the sums of the paper, also for several faces per video."""

import numpy as np
import pytest
from scipy.stats import norm

from jdfd_keras.evaluation.delong import compare
from jdfd_keras.evaluation.metrics import Estimate


def psi(fake: float, real: float) -> float:
    return 1.0 if fake > real else 0.5 if fake == real else 0.0


def find_components(label, score) -> tuple[list[float], list[float]]:
    """V10 of each fake and V01 of each real, as DeLong, DeLong, Clarke-Pearson define them."""
    fake_scores, real_scores = score[label], score[~label]
    v10 = [sum(psi(fake, real) for real in real_scores) / len(real_scores) for fake in fake_scores]
    v01 = [sum(psi(fake, real) for fake in fake_scores) / len(fake_scores) for real in real_scores]
    return v10, v01


def find_variance(label, score, other) -> float:
    """Var of the difference of both AUC: S10 / m + S01 / n, by plain sums."""
    total = 0.0
    for one, two in zip(find_components(label, score), find_components(label, other), strict=True):
        gap = [a - b for a, b in zip(one, two, strict=True)]
        mean = sum(gap) / len(gap)
        total += sum((g - mean) ** 2 for g in gap) / (len(gap) - 1) / len(gap)
    return total


def find_clustered_variance(label, score, other, video) -> float:
    """The same after Obuchowski (1997), videos of one class each, so that her S11 is 0."""
    total = 0.0
    for one, two, is_fake in zip(
        find_components(label, score), find_components(label, other), (True, False), strict=True
    ):
        gap = [a - b for a, b in zip(one, two, strict=True)]
        mean = sum(gap) / len(gap)
        sums: dict[int, float] = {}
        for owner, part in zip(video[label == is_fake].tolist(), gap, strict=True):
            sums[owner] = sums.get(owner, 0.0) + part - mean
        clusters = len(sums)
        total += clusters / (clusters - 1) * sum(s**2 for s in sums.values()) / len(gap) ** 2
    return total


def draw(seed: int, num_rows: int = 40):
    """Labels, and two correlated detectors whose scores tie often."""
    rng = np.random.default_rng(seed)
    label = rng.random(num_rows) < rng.uniform(0.2, 0.8)
    label[:4] = [True, False, True, False]
    common = rng.normal(size=num_rows) + label
    one, two = (common + rng.normal(size=num_rows) for _ in range(2))
    return label, np.clip(np.round(one) / 8 + 0.5, 0, 1), np.clip(np.round(two) / 8 + 0.5, 0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_test_of_the_paper(seed):
    label, score, other = draw(seed)
    found = compare(label, score, other)
    v10, v01 = find_components(label, score)
    error = find_variance(label, score, other) ** 0.5
    difference = sum(v10) / len(v10) - found.other_auc
    assert found.auc == pytest.approx(sum(v01) / len(v01), abs=1e-12)
    assert found.difference.value == pytest.approx(difference, abs=1e-12)
    assert found.z == pytest.approx(difference / error, rel=1e-9, abs=1e-9)
    assert found.p == pytest.approx(2 * (1 - norm.cdf(abs(difference) / error)), abs=1e-9)
    assert found.difference.low == pytest.approx(difference - 1.959964 * error, abs=1e-6)
    assert found.difference.high == pytest.approx(difference + 1.959964 * error, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_faces_are_summed_by_video_as_obuchowski_does(seed):
    label, score, other = draw(seed, 60)
    rng = np.random.default_rng(seed + 100)
    # Up to six videos per class, with different numbers of faces.
    video = rng.integers(0, 6, 60) * 2 + label
    found = compare(label, score, other, video)
    error = find_clustered_variance(label, score, other, video) ** 0.5
    assert found.difference.high - found.difference.value == pytest.approx(1.959964 * error, 1e-6)
    assert found.z == pytest.approx(found.difference.value / error, rel=1e-9, abs=1e-9)


def test_one_face_per_video_is_delongs_test():
    label, score, other = draw(0)
    video = np.random.default_rng(0).permutation(len(label))
    one, two = compare(label, score, other), compare(label, score, other, video)
    assert (two.auc, two.other_auc) == (one.auc, one.other_auc)
    assert two.difference.to_dict() == pytest.approx(one.difference.to_dict(), abs=1e-12)
    assert two.p == pytest.approx(one.p, rel=1e-9)


def test_repeated_faces_do_not_lower_the_p_value():
    times = 10
    label, score, other = draw(0)
    once = compare(label, score, other)
    again = compare(
        *(np.repeat(column, times) for column in (label, score, other, np.arange(len(label))))
    )
    assert again.difference.to_dict() == pytest.approx(once.difference.to_dict(), abs=1e-12)
    assert again.p == pytest.approx(once.p, rel=1e-9)
    # They would if they were treated as independent.
    alone = compare(*(np.repeat(column, times) for column in (label, score, other)))
    assert alone.p < once.p


def test_the_order_of_the_rows_does_not_matter():
    label, score, other = draw(1)
    video = np.arange(len(label)) // 3 * 2 + label
    order = np.random.default_rng(0).permutation(len(label))
    one = compare(label, score, other, video)
    two = compare(label[order], score[order], other[order], video[order])
    assert two.difference.to_dict() == pytest.approx(one.difference.to_dict(), abs=1e-12)


def test_swapping_detectors_changes_the_sign():
    label, score, other = draw(2)
    one, two = compare(label, score, other), compare(label, other, score)
    assert (two.auc, two.other_auc) == (one.other_auc, one.auc)
    assert two.difference.value == pytest.approx(-one.difference.value, abs=1e-12)
    assert two.difference.low == pytest.approx(-one.difference.high, abs=1e-12)
    assert two.z == pytest.approx(-one.z)
    assert two.p == pytest.approx(one.p)


@pytest.mark.parametrize("change", [lambda score: score, lambda score: score**2 / 3])
def test_detectors_with_equal_ranks_do_not_differ(change):
    label, score, _ = draw(3)
    found = compare(label, score, change(score))
    assert found.auc == found.other_auc
    assert found.difference == Estimate(0, 0, 0)
    assert found.z is None and found.p is None


def test_a_constant_detector_has_an_auc_of_a_half():
    label, score, _ = draw(4)
    found = compare(label, score, np.full(len(label), 0.5))
    assert found.other_auc == 0.5 and 0 < found.p < 1


@pytest.mark.parametrize("is_fake", [True, False])
def test_a_comparison_on_one_class_is_undefined(is_fake):
    assert compare(np.full(3, is_fake), np.arange(3) / 3, np.arange(3) / 4) is None


def test_a_class_of_one_video_has_a_difference_without_interval():
    label = np.array([True, True, True, False, False])
    found = compare(
        label,
        np.array([0.9, 0.8, 0.1, 0.2, 0.3]),
        np.array([0.9, 0.1, 0.1, 0.2, 0.3]),
        np.array([0, 0, 0, 1, 2]),
    )
    assert found.difference == Estimate(pytest.approx(1 / 3))
    assert found.z is None and found.p is None


def count_rejections(runs: int, num_videos: int, num_faces: int, *, clustered: bool) -> float:
    """Return the share of comparisons with p < 0.05 for equally good detectors."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(2 * num_videos) % 2 == 0, num_faces)
    video = np.repeat(np.arange(2 * num_videos), num_faces)
    rejected = 0
    for _ in range(runs):
        common = rng.normal(size=2 * num_videos)[video] + label

        def score(common=common):
            return common + rng.normal(size=2 * num_videos)[video] + rng.normal(size=len(video))

        found = compare(label, score(), score(), video if clustered else None)
        rejected += found.p < 0.05
    return rejected / runs


def test_the_false_positive_rate_of_the_test_is_5_percent():
    # 400 runs of 5 %: two standard errors are 2.2 %.
    assert 0.025 < count_rejections(400, 40, 1, clustered=True) < 0.08
    assert 0.025 < count_rejections(400, 40, 5, clustered=True) < 0.08
    # Without the sums over videos it is too high.
    assert count_rejections(400, 40, 5, clustered=False) > 0.15


def test_perfect_detectors_have_a_difference_without_interval():
    label = np.arange(20) >= 10
    rng = np.random.default_rng(0)
    first, second = (label + rng.random(20) / 2 for _ in range(2))
    found = compare(label, first, second)
    assert found.difference == Estimate(0) and found.p is None
    inverted = compare(label, first, 2 - second)
    assert inverted.difference == Estimate(1) and inverted.p is None
