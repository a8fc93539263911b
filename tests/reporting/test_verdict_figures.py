"""Positions on the time line and on the scale of likelihood ratios."""

import math

import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.likelihood import ErrorRate, LikelihoodRatio, clopper_pearson
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.inference.tracks import FaceScore, TrackScore
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.reporting.verdict_figures import (
    MAX_ROWS,
    count_of_100,
    format_time,
    make_ratio_scale,
    make_time_line,
)


def verdict_of(*tracks, duration_s=10.0, uncertain_to=0.8):
    """Make a verdict on tracks, each a dict of times and scores."""
    return Verdict(
        path="a.mp4",
        sha256="ab",
        verdict="uncertain",
        score=0.5,
        uncertain_from=0.4,
        uncertain_to=uncertain_to,
        num_frames=11,
        duration_s=duration_s,
        width=9,
        height=9,
        tracks=tuple(
            TrackScore(index, len(track), 1.0, min(track), max(track), 0.1 * index, "uncertain")
            for index, track in enumerate(tracks)
        ),
        faces=tuple(
            FaceScore(round(time_s), time_s, index, (0, 0, 5, 5), score)
            for index, track in enumerate(tracks)
            for time_s, score in track.items()
        ),
        top_faces=(),
        warnings=(),
    )


def test_segments_change_with_the_meaning_and_stop_at_a_pause():
    scores = {0.0: 0.1, 1.0: 0.2, 2.0: 0.9, 3.0: 0.8, 4.0: 0.5, 9.0: 0.5}
    (row,) = make_time_line(verdict_of(scores)).rows
    assert [(s.verdict, s.start_s, s.end_s, s.num_faces) for s in row.segments] == [
        ("no_evidence", 0.0, 1.0, 2),
        ("fake", 2.0, 3.0, 2),
        ("uncertain", 4.0, 4.0, 1),
        ("uncertain", 9.0, 9.0, 1),
    ]
    # A second is 10 % of the line; neighbours meet halfway between two frames.
    assert [(s.left, s.left + s.width) for s in row.segments] == [
        (0, pytest.approx(15)),
        (pytest.approx(15), pytest.approx(35)),
        (pytest.approx(35), pytest.approx(45)),
        (pytest.approx(85), pytest.approx(95)),
    ]
    assert row.segments[1].score == pytest.approx(0.85)
    # One line before the pause; the single face after it is a dot alone.
    assert row.lines == ("M0.0 90.0 L100.0 80.0 L200.0 10.0 L300.0 20.0 L400.0 50.0",)
    assert row.dots.split(" ")[-2:] == ["M900.0", "50.0h0"]


def test_thresholds_are_heights_and_one_may_be_out_of_reach():
    line = make_time_line(verdict_of({0.0: 0.5, 1.0: 0.5}))
    assert (line.uncertain_top, line.uncertain_bottom) == (pytest.approx(20), pytest.approx(60))
    assert line.can_be_fake
    line = make_time_line(verdict_of({0.0: 0.5, 1.0: 0.5}, uncertain_to=UNATTAINABLE))
    assert line.uncertain_top == 0 and not line.can_be_fake


def test_an_image_has_no_time_line_and_many_people_do_not_all_fit():
    assert make_time_line(verdict_of({0.0: 0.5}, duration_s=0.0)) is None
    line = make_time_line(verdict_of(*[{0.0: 0.5, 1.0: 0.5}] * (MAX_ROWS + 3)))
    assert (len(line.rows), line.num_others) == (MAX_ROWS, 3)
    # The highest score first: that of the last track.
    assert line.rows[0].track.track_id == MAX_ROWS + 2


@pytest.mark.parametrize(
    ("duration_s", "labels"),
    [
        (0.24, ["0 s", "0.1 s", "0.2 s"]),
        (10.0, ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]),
        (200.0, ["0 s", "1:00", "2:00", "3:00"]),
    ],
)
def test_ticks_are_round_times(duration_s, labels):
    line = make_time_line(verdict_of({0.0: 0.5, 0.1: 0.5}, duration_s=duration_s))
    assert [tick.label for tick in line.ticks] == labels


def test_the_scale_is_logarithmic_and_has_the_limits_of_validation():
    calibration = Calibration(num_real=100, num_fake=30)
    scale = make_ratio_scale(LikelihoodRatio(-3.0, False, ""), calibration)
    # From 1e-6 at 0 to 1e6 at 100 %.
    assert scale.value == pytest.approx(25) and scale.text == "1/1000"
    real, fake = clopper_pearson(0, 100)[1], clopper_pearson(0, 30)[1]
    assert scale.cap_right == pytest.approx(50 - 50 * math.log10(real) / 6)
    assert scale.cap_left == pytest.approx(50 + 50 * math.log10(fake) / 6)
    # The steps cover the scale without a gap.
    zones = sorted(scale.zones, key=lambda zone: zone.left)
    ends = [zone.left + zone.width for zone in zones]
    assert zones[0].left == 0 and ends[-1] == pytest.approx(100)
    assert ends[:-1] == [pytest.approx(zone.left) for zone in zones[1:]]
    # `moderate support` is from 10 to 100.
    (moderate,) = (z for z in zones if z.name == "moderate support" and z.is_fake)
    assert (moderate.left, moderate.width) == (
        pytest.approx(58.33, abs=0.01),
        pytest.approx(8.33, abs=0.01),
    )


def test_a_ratio_beyond_the_scale_is_at_its_end():
    scale = make_ratio_scale(LikelihoodRatio(9.0, False, ""), Calibration(num_real=9, num_fake=9))
    assert scale.value == 100


def test_rates_are_counts_of_100_with_their_bound():
    low, high = clopper_pearson(0, 12)
    assert count_of_100(ErrorRate(0, 12, 0.0, low, high)) == (0, 27)  # 26.5 rounded up
    assert count_of_100(ErrorRate(1, 1, 1.0, 0.025, 1.0)) == (100, 100)


def test_times_are_short():
    assert [format_time(t) for t in (0.0, 2.5, 59.999, 60.0, 3725.0)] == [
        *("0 s", "2.5 s", "60 s", "1:00", "62:05")
    ]
