"""The domain of validation files: few files like them are beyond it, and it says in what."""

import dataclasses
import json
import math

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration, read_calibration, save_calibration
from jdfd_keras.client.domain import (
    MAX_FLAGGED,
    MEASURES,
    MIN_FILES,
    Domain,
    FileMeasures,
    Spread,
    fit_domain,
    measure_distance,
)


def draw_files(rng, count, *, share_unknown=0.0, formats=("yuv420p",), weights=None):
    """Draw files with skewed, heavy-tailed and correlated measures, some of them unknown."""
    common = rng.normal(size=count)
    values = {
        "size_px": np.exp(4 + 0.5 * rng.normal(size=count)),
        "sharpness": np.exp(3 + 0.5 * common + 0.3 * rng.standard_t(3, size=count)),
        "bits_per_pixel": np.exp(-3 + common),
        "yaw_deg": np.abs(10 * rng.normal(size=count)),
        "reconstruction_error": rng.gamma(2, 0.02, size=count),
    }
    chosen = rng.choice(formats, size=count, p=weights)
    unknown = rng.random((count, len(values))) < share_unknown
    return [
        dataclasses.replace(
            FileMeasures(pixel_format=str(chosen[row])),
            **{
                name: math.nan if unknown[row, column] else float(values[name][row])
                for column, name in enumerate(values)
            },
        )
        for row in range(count)
    ]


@pytest.mark.parametrize(
    ("num_files", "options"),
    [
        (MIN_FILES, {}),
        (60, {"share_unknown": 0.2}),
        (200, {"formats": ("yuv420p", "yuv444p", "yuv422p"), "weights": (0.95, 0.04, 0.01)}),
    ],
)
def test_at_most_the_stated_share_of_exchangeable_files_is_beyond_the_domain(num_files, options):
    rng = np.random.default_rng(num_files)
    flagged = []
    for _ in range(40):
        domain = fit_domain(draw_files(rng, num_files, **options))
        new = draw_files(rng, 30, **options)
        flagged.append(np.mean([bool(domain.check(measures)) for measures in new]))
    error = np.std(flagged) / math.sqrt(len(flagged))
    assert np.mean(flagged) <= MAX_FLAGGED + 3 * error
    assert np.mean(flagged) >= MAX_FLAGGED / 3, "a limit that flags nothing would pass, too"


@pytest.mark.parametrize(("num_files", "rank"), [(20, 1), (38, 1), (39, 2), (49, 2)])
def test_the_limit_is_an_order_statistic_of_the_distances_from_the_other_files(num_files, rank):
    values = (40 + 10 * np.random.default_rng(num_files).normal(size=num_files)).tolist()
    distances = []
    for row, value in enumerate(values):
        others = [FileMeasures(yaw_deg=other) for other in values[:row] + values[row + 1 :]]
        (spread,) = fit_domain(others).spreads
        distances.append(measure_distance(spread, value))
    domain = fit_domain([FileMeasures(yaw_deg=value) for value in values])
    # Of num_files + 1 files, the new one included, `rank` is 5 %, rounded down.
    assert domain.limit == pytest.approx(sorted(distances)[-rank])


def test_fewer_than_19_files_support_no_limit_and_that_is_said():
    domain = fit_domain([FileMeasures(size_px=80.0)] * (MIN_FILES - 1))
    assert domain.limit is None and domain.num_files == 18
    assert domain.check(FileMeasures(size_px=1.0)) == ()
    assert "it has 18, and at least 19" in domain.note
    assert fit_domain([FileMeasures(size_px=80.0)] * MIN_FILES).note == ""
    assert Domain().check(FileMeasures(size_px=1.0)) == ()


def test_distances_are_in_spreads_of_the_side():
    yaw = Spread("yaw_deg", centre=10.0, below=2.0, above=5.0)
    assert measure_distance(yaw, 20.0) == 2.0
    assert measure_distance(yaw, 4.0) == 3.0
    size = Spread("size_px", centre=math.log(100), below=math.log(2), above=math.log(4))
    assert measure_distance(size, 25.0) == pytest.approx(2)
    assert measure_distance(size, 1600.0) == pytest.approx(2)
    assert measure_distance(size, math.nan) == 0


def test_centre_and_spreads_are_the_median_and_the_outer_quantiles():
    values = np.arange(41.0)  # the quantiles of 2.5 and 97.5 % are 1 and 39
    (spread,) = fit_domain([FileMeasures(yaw_deg=value) for value in values.tolist()]).spreads
    assert (spread.centre, spread.below, spread.above) == pytest.approx((20, 19, 19))
    # A strange file does not widen the spread.
    values[-1] = 1e9
    (spread,) = fit_domain([FileMeasures(yaw_deg=value) for value in values.tolist()]).spreads
    assert spread.above == pytest.approx(19)


def test_sentences_name_the_value_and_the_range_of_validation():
    spreads = (
        Spread("sharpness", math.log(20), math.log(2), math.log(4)),
        Spread("yaw_deg", 5.0, 5.0, 10.0),
        Spread("face_share", 0.6, 0.05, 0.05),
    )
    domain = Domain(spreads, 1.0, ("yuv420p",), 50)
    assert domain.check(FileMeasures(sharpness=3.1)) == (
        "the faces are less sharp (3.1) than those of validation (10 to 80)",
    )
    assert domain.check(FileMeasures(yaw_deg=40, face_share=0.3)) == (
        "the faces are turned further (40 degrees) than those of validation (0 to 15 degrees)",
        "the faces fill less of their crops (0.3 of the width) than those of validation (0.55 to "
        "0.65 of the width)",
    )
    assert domain.check(FileMeasures(face_share=0.0)) == ("no face is found in the crops",)
    assert domain.check(FileMeasures(yaw_deg=15, face_share=0.649)) == ()


def test_every_measure_has_a_sentence_for_either_side():
    for name in MEASURES:
        domain = Domain((Spread(name, 1.0, 0.1, 0.1),), 1.0, (), 50)
        sentences = [
            domain.check(dataclasses.replace(FileMeasures(), **{name: value}))
            for value in (0.01, math.exp(3.0))
        ]
        # A face that is less like a drawing than others is not unusual.
        assert [len(one) for one in sentences] == [int(name != "drawing"), 1], name
        assert sentences[0] != sentences[1]
        assert all("than those of validation" in text for one in sentences for text in one)


def test_unknown_measures_are_not_compared():
    files = [FileMeasures(size_px=80.0 + index) for index in range(40)]
    domain = fit_domain(files)
    assert [spread.measure for spread in domain.spreads] == ["size_px"]
    assert domain.check(FileMeasures()) == ()
    assert domain.check(FileMeasures(size_px=100.0, sharpness=0.0)) == ()
    # Known of too few validation files.
    known = [dataclasses.replace(one, yaw_deg=1.0) for one in files[:10]]
    assert fit_domain(known + files[10:]).check(FileMeasures(yaw_deg=90.0)) == ()


def test_a_measure_that_did_not_vary_has_a_range():
    domain = fit_domain([FileMeasures(size_px=128.0)] * 40)
    assert domain.check(FileMeasures(size_px=128.0)) == ()


def test_a_pixel_format_that_validation_lacks_is_named():
    files = [FileMeasures(pixel_format="yuv420p")] * 50
    domain = fit_domain(files)
    assert domain.check(FileMeasures(pixel_format="RGB")) == (
        "the pixel format RGB does not occur in validation (yuv420p)",
    )
    assert domain.check(FileMeasures(pixel_format="yuvj420p")) == ()
    assert domain.check(FileMeasures(pixel_format="")) == ()


def test_pixel_formats_are_not_compared_if_new_ones_are_frequent():
    files = [FileMeasures(size_px=80.0, pixel_format=f"format{index}") for index in range(50)]
    domain = fit_domain(files)
    assert domain.pixel_formats == ()
    assert domain.check(FileMeasures(size_px=80.0, pixel_format="RGB")) == ()
    assert domain.check(FileMeasures(size_px=8.0)) != ()
    # With 38 files, one of them has the largest distance and no rank is left for a new format.
    assert fit_domain([FileMeasures(pixel_format="RGB")] * 38).pixel_formats == ()
    assert fit_domain([FileMeasures(pixel_format="RGB")] * 39).pixel_formats == ("RGB",)


def test_a_domain_is_stored_with_its_calibration(tmp_path):
    domain = fit_domain(draw_files(np.random.default_rng(0), 50, share_unknown=0.1))
    assert Domain.from_dict(json.loads(json.dumps(domain.to_dict()))) == domain
    few = fit_domain([])
    assert Domain.from_dict(json.loads(json.dumps(few.to_dict()))) == few
    calibration = Calibration(
        num_real=2, num_fake=2, domain=domain, real_scores=(0.1, 0.2), fake_scores=(0.7, 0.9)
    )
    save_calibration(tmp_path / "calibration.json", calibration)
    assert read_calibration(tmp_path / "calibration.json").domain == domain


def test_the_likeness_to_drawings_follows_from_the_texture():
    domain = Domain((Spread("drawing", 0.0, 1.0, 2.0),), 1.5, (), 50, (3.0, -1.0, 0.5))
    measures = domain.complete(FileMeasures(texture=(1.0, 2.0)))
    assert measures.drawing == 3 * 1 - 1 * 2 + 0.5
    assert domain.check(measures) == domain.check(FileMeasures(texture=(1.0, 2.0))) == ()
    (reason,) = domain.check(FileMeasures(texture=(2.0, 2.0)))
    assert reason == (
        "the faces look more like drawings by their texture (4.5) than those of validation (up "
        "to 3)"
    )
    (row,) = domain.compare(FileMeasures(texture=(2.0, 2.0)))
    assert (row.value, row.range, row.is_within) == ("4.5", "up to 3", False)
    # Less like a drawing is never unusual.
    assert domain.check(FileMeasures(texture=(-9.0, 9.0))) == ()
    # What is stored has the likeness, but no texture.
    stored = FileMeasures.from_dict(json.loads(json.dumps(measures.to_dict())))
    assert stored.texture == () and domain.check(stored) == ()
    assert stored.drawing == 1.5 and math.isnan(stored.size_px)
