"""Time lines: every score at its time, with gaps, bands and thresholds."""

import numpy as np
import pytest

from jdfd_keras.reporting.charts import draw_time_line, plot_time_line

LINES = {"track 0": ([0.0, 1.0, 2.0, 8.0, 9.0], [0.1, 0.2, 0.3, 0.9, 1.0]), "track 1": ([1], [0.5])}


def test_scores_are_at_their_times_and_a_pause_is_a_gap():
    (axes,) = draw_time_line(LINES, duration_s=10.0, uncertain=(0.3, 0.8)).axes
    lines = {line.get_label(): line for line in axes.lines}
    times_s, scores = lines["track 0"].get_data()
    np.testing.assert_array_equal(times_s, [0, 1, 2, np.nan, 8, 9])
    np.testing.assert_array_equal(scores, [0.1, 0.2, 0.3, np.nan, 0.9, 1.0])
    assert lines["track 1"].get_xydata().tolist() == [[1, 0.5]]
    assert axes.get_xlim() == (0, 10) and axes.get_ylim() == (0, 1)
    first, second = (lines[name] for name in LINES)
    assert first.get_color() != second.get_color() and first.get_marker() != second.get_marker()


def test_the_uncertain_band_is_a_band_and_a_threshold_is_a_line():
    (axes,) = draw_time_line(LINES, duration_s=10.0, uncertain=(0.3, 0.8)).axes
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.3, 0.8))
    assert [line.get_ydata()[0] for line in axes.lines if "from" in line.get_label()] == [0.8]
    (axes,) = draw_time_line(LINES, duration_s=10.0, uncertain=(0.6, 0.6)).axes
    assert not axes.patches
    assert [line.get_ydata()[0] for line in axes.lines if "from" in line.get_label()] == [0.6]


def test_a_fake_segment_is_a_band_from_start_to_end():
    (axes,) = draw_time_line(LINES, duration_s=10.0, uncertain=(0.6, 0.6), segment=(8.0, 9.0)).axes
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (8, 9)
    assert band.get_label() == "looks fake, 8.0 to 9.0 s"


def test_both_files_are_written(tmp_path):
    plot_time_line(tmp_path / "line", LINES, duration_s=10.0, uncertain=(0.5, 0.5), title="a")
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"
    assert "track 1" in (tmp_path / "line.svg").read_text()


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"a": ([], [])},
        {"a": ([0, 1], [0.5])},
        {"a": ([1, 0], [0.5, 0.5])},
        {"a": ([0], [1.5])},
        {"a": ([0], [np.nan])},
    ],
)
def test_invalid_lines_raise(lines):
    with pytest.raises(ValueError, match="Expected"):
        draw_time_line(lines, duration_s=1.0, uncertain=(0.5, 0.5))
