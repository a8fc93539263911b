"""The tables and the figure of the experiment robustness."""

import csv
import json

import numpy as np
import pytest

from jdfd_keras.evaluation.delong import Difference
from jdfd_keras.evaluation.metrics import MEASURED, Estimate, Metrics
from jdfd_keras.experiments.robustness import (
    RobustnessProtocol,
    RobustnessReport,
    RobustnessRow,
    average_strengths,
)
from jdfd_keras.options import EvaluateOptions, RobustnessOptions
from jdfd_keras.reporting.robustness_report import (
    draw_robustness,
    summarize_robustness,
    write_robustness,
)

LACKING = "Expected the encoder libx265; got none."


def make_row(data, degradation, strength, auc):
    facts = {"data": data, "degradation": degradation, "strength": strength, "num_videos": 44}
    if auc is None:
        return RobustnessRow(**facts, failed=LACKING)
    estimates = dict.fromkeys(MEASURED, Estimate(auc, auc - 0.125, auc + 0.0625))
    metrics = Metrics(20, 21, **estimates)
    change = Difference(auc, 0.9, Estimate(auc - 0.9, -0.5, 0.25), -2.0, 0.04321)
    return RobustnessRow(
        **facts,
        frame=metrics,
        video=metrics,
        difference=None if degradation == "none" else change,
        num_common=41,
        num_scored=41,
        source="robustness/x",
    )


@pytest.fixture
def report():
    rows = [make_row("ff", "none", 0.0, 0.9), make_row("a|b", "none", 0.0, 0.75)]
    rows += [make_row("ff", "jpeg", 90.0, 0.8125), make_row("ff", "jpeg", 10.0, 0.5625)]
    rows += [make_row("ff", "h265", 28.0, None), make_row("ff", "h265", 45.0, None)]
    rows += [make_row("a|b", "jpeg", 90.0, 0.625), make_row("a|b", "jpeg", 10.0, None)]
    rows += [make_row("a|b", "h265", 28.0, 0.375), make_row("a|b", "h265", 45.0, 0.375)]
    faces = {"every": 0, "frames_per_video": 32, "face_size": 192, "detector": "dlib"}
    protocol = RobustnessProtocol(
        model="m, version 1",
        model_digest="ab",
        engine="OpenVINO 1, int8",
        demonstration=True,
        applied_to="crops",
        leakage={"ff": "none", "a|b": "none"},
        descriptions={"jpeg": "Saved as JPEG.", "h265": "Encoded."},
        units={"jpeg": "quality", "h265": "CRF"},
        options=RobustnessOptions("jpeg,h265", quick=True),
        evaluate=EvaluateOptions(),
    )
    return RobustnessReport(
        experiment="robustness",
        title="Robustness",
        versions={"av": "1"},
        datasets={key: {"faces": faces, "split": {"table": "official"}} for key in ("ff", "a|b")},
        failed=(f"ff: h265=28, h265=45: {LACKING}",),
        protocol=protocol,
        results=tuple(rows),
        means=average_strengths(rows),
    )


def rows_of(page, name):
    lines = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_cell_and_the_reasons_of_the_empty_ones(report, tmp_path):
    written = write_robustness(report, tmp_path)
    page = (tmp_path / "robustness.md").read_text(encoding="utf-8")
    ff, _ = page.split("## a\\|b")
    assert "**ff: mean video AUC over strengths 0.688**, over 1 of 2 degradations" in ff
    by_strength, weak, strong, *faces = rows_of(ff, "jpeg")
    assert by_strength == ["jpeg", "quality", "0.812 (90)", "0.562 (10)", "0.688"]
    auc = "0.812 [0.688, 0.875]"
    assert weak == ["jpeg", "90", auc, "-0.088 [-0.500, 0.250]", "0.043", auc, "41/44"]
    assert strong[:3] == ["jpeg", "10", "0.562 [0.438, 0.625]"]
    assert faces[0] == ["jpeg", "90", auc, auc, "41"]
    empty, *others = rows_of(ff, "h265")
    assert empty == ["h265", "CRF", "(28)", "(45)", ""]
    assert others[0] == ["h265", "28", "", "", "", "", "0/44"]
    assert f"- ff: h265=28, h265=45: {LACKING}" in page
    assert "demonstration" in page and "![" in page
    assert written.figure == "robustness.png"
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"robustness.{suffix}" for suffix in ("md", "html", "csv", "json", "png", "svg"))
    }


def test_the_summary_states_of_how_many_degradations_the_mean_is(report):
    first, second = summarize_robustness(report).splitlines()
    mean = "ff: mean video AUC over strengths 0.688 over 1 of 2 degradations"
    assert first == f"{mean} (jpeg 0.688, h265 undefined), undegraded 0.900"
    assert second.startswith("a|b: mean video AUC over strengths 0.375 over 1 of 2 degradations (")


def test_the_files_hold_the_numbers_of_the_report(report, tmp_path):
    written = write_robustness(report, tmp_path)
    stored = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"))
    assert RobustnessReport.from_dict(stored) == written
    with open(tmp_path / "robustness.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report.results)
    assert (rows[2]["strength"], rows[2]["video_auc"], rows[2]["p"]) == (
        "90",
        "0.8125",
        "0.04321",
    )
    assert (rows[4]["video_auc"], rows[4]["failed"]) == ("", LACKING)


def test_a_panel_has_a_curve_for_each_dataset_with_gaps_where_nothing_was_measured(report):
    jpeg, h265 = draw_robustness(report).axes
    curves = {line.get_label(): line.get_ydata() for line in jpeg.lines}
    np.testing.assert_allclose(curves["ff"], [0.9, 0.8125, 0.5625])
    np.testing.assert_allclose(curves["a|b"], [0.75, 0.625, np.nan])
    assert [label.get_text() for label in jpeg.get_xticklabels()] == ["none", "90", "10"]
    assert jpeg.get_title() == "jpeg" and h265.get_xlabel() == "CRF"
    assert h265.get_ylim()[0] < 0.25, "the lowest end of an interval is visible"


def test_without_a_result_there_is_a_page_and_no_figure(report, tmp_path):
    rows = [make_row("ff", "none", 0.0, None), make_row("ff", "jpeg", 90.0, None)]
    values = vars(report) | {"results": tuple(rows), "means": average_strengths(rows)}
    written = write_robustness(RobustnessReport(**values), tmp_path)
    assert written.figure is None and not (tmp_path / "robustness.png").exists()
    assert "mean video AUC over strengths undefined**" in (tmp_path / "robustness.md").read_text()
