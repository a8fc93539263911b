"""What the figures are given to draw."""

import json

import numpy as np
import pytest

from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.options import ExperimentOptions
from jdfd_keras.reporting import experiment_report as pictures


class Table:
    """As much of a table of scores as a curve needs: its seed and its AUC."""

    def __init__(self, directory):
        report = json.loads((directory / "report.json").read_text())
        seed = int(directory.parent.name.removeprefix("seed"))
        self.label = np.array([True, False])
        self.score = np.array([seed / 10, report["frame"]["auc"]["value"]])


@pytest.fixture
def drawn(monkeypatch):
    """What the drawings were given; nothing is drawn."""
    calls = {}
    monkeypatch.setattr("jdfd_keras.reporting.experiment_report.read_cell_scores", Table)
    monkeypatch.setattr(
        "jdfd_keras.reporting.curves.plot_roc",
        lambda path, curves, *, title: calls.update(path=path, curves=curves, title=title),
    )
    monkeypatch.setattr(
        "jdfd_keras.reporting.charts.plot_foreign_shares",
        lambda path, shares, series, published, *, title: calls.update(
            path=path, shares=shares, series=series, published=published, title=title
        ),
    )
    return calls


DRAW = pictures.draw


def test_nine_curves_are_named_as_in_figure_3(rooms, drawn, named_sets, tmp_path):
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert DRAW(report, tmp_path / "out") == "cross-dataset.png"
    assert [curve.name for curve in drawn["curves"]] == [
        f"({train}, {test})" for train in "FUC" for test in "FUC"
    ]
    by_name = {curve.name: curve.score[1] for curve in drawn["curves"]}
    # Trained on UADFV, tested on FF++.
    auc = rooms.auc(tmp_path / "out/runs/uadfv/joint/seed0", named_sets["ff"], "frame")
    assert by_name["(U, F)"] == pytest.approx(auc["value"])
    assert drawn["path"] == tmp_path / "out/cross-dataset"


def test_curves_are_of_the_first_seed_that_all_cells_have(rooms, drawn, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "evaluate" and run.name == "seed4" and data.name == "uadfv":
            raise ValueError("no")

    rooms.refuse = refuse
    options = ExperimentOptions(seeds=(4, 7))
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    DRAW(report, tmp_path / "out")
    assert {curve.score[0] for curve in drawn["curves"]} == {0.7}
    assert "seed 7" in drawn["title"]


def test_without_any_result_nothing_is_drawn(rooms, drawn, tmp_path):
    for name in ("cross-dataset", "foreign-data", "ablation"):
        report = experiment(name, {}, tmp_path / "out")
        assert DRAW(report, tmp_path / "out") is None
    assert drawn == {}


def test_shares_are_drawn_with_spread_and_the_papers_points(rooms, drawn, named_sets, tmp_path):
    del named_sets["uadfv"]
    report = experiment("foreign-data", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    assert DRAW(report, tmp_path / "out") == "foreign-data.png"
    assert drawn["shares"] == [0, 0.05, 0.1, 0.15]
    assert set(drawn["series"]) == {"FF++", "Celeb-DF"}
    own = "unlabelled-10-of-celebdf"
    values = [
        rooms.auc(tmp_path / f"out/runs/ff/{own}/seed{seed}", named_sets["celebdf"], "frame")[
            "value"
        ]
        for seed in (0, 1)
    ]
    mean, spread = drawn["series"]["Celeb-DF"][2]
    assert mean == pytest.approx(np.mean(values))
    assert spread == pytest.approx(np.std(values, ddof=1))
    assert drawn["published"]["Celeb-DF"] == pytest.approx([0.78, 0.747, None, 0.796])
    assert drawn["published"]["FF++"] == [pytest.approx(0.982), None, None, None]
    assert json.dumps(report)


def test_what_has_no_spread_has_none_in_the_figure(rooms, drawn, named_sets, tmp_path):
    DRAW(experiment("foreign-data", named_sets, tmp_path / "out"), tmp_path / "out")
    assert all(point[1] is None for line in drawn["series"].values() for point in line)
